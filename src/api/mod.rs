//! The faces of the server: what bytes mean, and which requests are within the limits. Knows neither sockets nor shards.

pub mod binary;

#[cfg(test)]
mod binary_test;
