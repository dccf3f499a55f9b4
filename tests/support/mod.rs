//! The harness of the tests with real processes: clusters of `raftkv-server`, raw connections to them, and the tools
//! that make faults.
//!
//! Every cluster listens on loopback addresses of its own, so that any number of tests and test binaries run side by
//! side. Whatever a test starts ends with it, also when it panics, and then the end of each node's output is printed.
//! Only processes that were started here are ever sent a signal.

#![expect(dead_code, reason = "each test binary uses its own part of the harness")]

pub mod browser;
pub mod clients;
pub mod cluster;
pub mod greedy;
pub mod hanging_file;
pub mod history;
pub mod http;
pub mod http2;
pub mod metrics;
pub mod netns;
pub mod openapi;
pub mod process;
pub mod random;
pub mod tools;
pub mod wait;
pub mod wire;
