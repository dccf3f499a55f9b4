//! The node: starts the cores, wires the layers together, and stops them in order.

mod desk;
mod gather;
pub mod message;
pub mod node;
pub mod router;
