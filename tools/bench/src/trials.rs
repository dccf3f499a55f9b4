//! Measurements of what a cluster takes and how it does over its life: restarts, memory, snapshots, catching up, disk.
//!
//! Each starts a cluster of its own, with data in a temporary directory that goes with it, and ends its processes
//! whatever happens. Each prints what it does as it does it, then a summary, or JSON as the last line.

pub(crate) mod amplification;
pub mod args;
pub(crate) mod catch_up;
pub(crate) mod disk;
pub(crate) mod figures;
mod memory;
pub(crate) mod overwrite;
mod restart;
mod setup;
mod snapshots;

pub use amplification::execute as amplification;
pub use catch_up::execute as catch_up;
pub use memory::execute as memory;
pub use overwrite::execute as overwrite;
pub use restart::execute as restart;
pub use snapshots::execute as snapshots;
