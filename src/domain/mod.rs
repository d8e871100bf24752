//! Validated newtypes: what has passed here need not be checked again; and documents whose problems have a place. No I/O,
//! no clock.

mod document;
mod name;
mod quantity;
mod scale;

pub use document::{Problem, Tree};
pub use name::{FleetKey, FleetName, InvalidName};
pub use quantity::{InvalidQuantity, canonical_quantity, compare_quantities, quantity_value};
pub use scale::{InvalidRange, ReplicaRange};
