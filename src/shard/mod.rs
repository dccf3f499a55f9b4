//! Placeholder: shard.
