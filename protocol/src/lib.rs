//! The wire protocol of RaftKV: types and bytes, no I/O.
//!
//! One length-prefixed binary protocol serves clients and peers. `README.md` beside this crate is its
//! specification; [`frame`] is the envelope, [`hello`] the first frame in each direction, [`client`] what
//! clients and servers say to each other, [`peer`] what servers say among themselves.

pub mod client;
pub mod frame;
pub mod hello;
pub mod peer;
pub mod types;
