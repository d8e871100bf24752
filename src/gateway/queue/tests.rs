//! Fairness, and no lost wake-ups.
