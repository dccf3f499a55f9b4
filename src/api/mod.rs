//! The faces of the server: what bytes mean, and which requests are within the limits. Knows neither sockets nor shards.

#[cfg(feature = "http")]
pub mod ask;
pub mod binary;
#[cfg(feature = "grpc")]
pub mod grpc;
#[cfg(feature = "http")]
pub mod held;
#[cfg(feature = "http")]
pub mod node_handle;
#[cfg(feature = "http")]
mod pages;
#[cfg(feature = "rest")]
pub mod rest;

#[cfg(test)]
mod binary_test;
