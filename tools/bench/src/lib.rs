//! The parts of `raftkv-bench`: how fast is a RaftKV cluster?
//!
//! [`load`] runs the load generator: [`prepare`] learns the cluster and writes every key once, a [`worker`] per
//! thread keeps its [`conn`]ections busy, [`report`] prints the result. [`null_server`] answers the same frames
//! without doing anything, which shows what the machine and the protocol allow. [`failover`] measures how long
//! shards take no writes when the node that leads them dies; the [`trials`] what a cluster takes and how it does over its
//! life. Both start a [`cluster`] of their own.
//!
//! [`meter`], [`watch`], [`report`] and what they use know no protocol: load generators for other systems share them, so
//! that all are measured alike.
//!
//! The generator shares its machine with the servers that it measures, so what it spends on a request decides what
//! is left for them: no allocation, no lock and no system call belongs to a single request.

pub mod alarm;
pub mod args;
pub mod blocking;
pub mod cluster;
pub mod conn;
pub mod failover;
pub mod inflight;
pub mod json;
pub mod keys;
pub mod link;
pub mod load;
pub mod meter;
pub mod null_server;
pub mod operations;
pub mod prepare;
pub mod process;
pub mod progress;
pub mod report;
pub mod rng;
pub mod run;
pub mod schedule;
pub mod signals;
pub mod tally;
pub mod topology;
pub mod trials;
pub mod watch;
pub mod worker;

#[cfg(test)]
mod args_test;
#[cfg(test)]
mod failover_test;
#[cfg(test)]
mod inflight_test;
#[cfg(test)]
mod json_test;
#[cfg(test)]
mod keys_test;
#[cfg(test)]
mod meter_test;
#[cfg(test)]
mod process_test;
#[cfg(test)]
mod report_test;
#[cfg(test)]
mod schedule_test;
#[cfg(test)]
mod signals_test;
#[cfg(test)]
mod topology_test;
#[cfg(test)]
mod trials_test;
