//! RaftKV: a strongly consistent, replicated key-value store.
//!
//! The package holds the server's layers and the client library; `docs/architecture.md` tells how they fit together.
//! A build with `default-features = false` has the [`client`] only.

// First, so that every module after it knows the macro.
#[cfg(not(raftkv_mutants))]
#[macro_use]
mod mutants;
#[cfg(raftkv_mutants)]
#[macro_use]
pub mod mutants;

pub mod client;
pub mod socket;

/// Checks that the example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(feature = "server")]
pub mod api;
#[cfg(feature = "server")]
mod blocks;
#[cfg(all(test, feature = "server"))]
mod blocks_test;
#[cfg(feature = "server")]
mod boottime;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod error;
#[cfg(feature = "server")]
pub mod event_loop;
#[cfg(feature = "server")]
pub mod limits;
#[cfg(feature = "server")]
pub mod metrics;
#[cfg(feature = "server")]
pub mod raft;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod shard;
#[cfg(feature = "server")]
pub mod state_machine;
#[cfg(feature = "server")]
pub mod storage;
