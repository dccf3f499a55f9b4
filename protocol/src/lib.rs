//! The wire protocol of RaftKV: types and bytes, no I/O.
//!
//! One length-prefixed binary protocol serves clients and peers. `README.md` beside this crate is its
//! specification; [`frame`] is the envelope, [`kind`] numbers the messages, [`hello`] is the first frame in each
//! direction, [`client`] what clients and servers say to each other, [`peer`] what servers say among themselves.
//!
//! Encoding appends to a `Vec<u8>` that the caller reuses. Decoding borrows from the read buffer, never panics, and
//! never allocates more than a small multiple of what arrived. Whether a message *makes sense* (is this node a member,
//! is the key within its limit) is for the layers above to judge.

pub mod client;
pub mod frame;
pub mod health;
pub mod hello;
pub mod kind;
pub mod peer;
pub mod types;
mod wire;

#[cfg(test)]
mod types_test;
