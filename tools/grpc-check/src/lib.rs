//! A client of `raftkv.v1`, as `tools/codegen` generates it; the tests with them are in `tests/`. They start the
//! server's debug build: `cargo build && cargo test --manifest-path tools/grpc-check/Cargo.toml`.

/// `raftkv.v1`: keys and values, and the node.
pub mod raftkv {
    include!("generated/raftkv.v1.rs");
}
