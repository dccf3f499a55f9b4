//! What clients saw of a store, and whether it is linearizable.
//!
//! A [`History`] holds what each client asked, when, and what it was told. There are two judges:
//!
//! - [`check`] looks for an order of the operations on each key that explains every outcome and puts nothing before an
//!   operation that had ended when it began (Wing and Gong 1993, with the memory of Lowe 2017). Keys are judged one by
//!   one: linearizability is local. Who has read the store's log asks [`check_with_log`], which tries the order of the log
//!   first.
//! - [`check_indexes`] knows more of the store, namely that versions are indexes of a log, and therefore needs no
//!   search: it sorts. [`check_shard_indexes`] compares keys that share a log, too.
//!
//! The state of a key is absent, which it is at first, or a version and a value. A put sets the version that it
//! returned; if its outcome is unknown, the version is any that no other put returned or has given, and that reads show
//! with its value if they show it at all. An operation with an unknown outcome takes effect once, at any time after its
//! call, or never. Reads without an answer, and operations that failed for certain, are left out.
//!
//! The verdict depends on nothing but the history. Where the search would take too long it says so, with
//! [`Violation::TooHard`], and never "fine".

mod history;
mod indexes;
mod key;
mod operation;
mod search;
mod shrink;
mod violation;

#[cfg(test)]
mod shrink_test;

pub use history::{History, Limits, Summary, check, check_with_hints, check_with_log};
pub use indexes::{check_indexes, check_shard_indexes};
pub use operation::{Condition, Hint, Kind, Operation, Outcome, Removal};
pub use violation::Violation;
