//! Placeholder: server.

pub mod local_cluster;
#[cfg(test)]
mod local_cluster_test;

/// Placeholder.
pub fn run(config: crate::config::Config) -> Result<(), crate::error::Fatal> {
    let _ = config;
    unimplemented!()
}
