//! The faces of the server: what bytes mean, and which requests are within the limits. Knows neither sockets nor shards.

#[cfg(feature = "rest")]
pub mod ask;
pub mod binary;
#[cfg(feature = "rest")]
pub mod rest;

#[cfg(test)]
mod binary_test;
