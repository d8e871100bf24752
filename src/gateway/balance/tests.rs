//! Properties of picking.
