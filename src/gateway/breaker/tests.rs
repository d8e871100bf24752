//! Breaker against a reference model.
