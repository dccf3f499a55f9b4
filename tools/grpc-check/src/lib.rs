//! Clients of the gRPC face, as `tools/codegen` generates them; the tests with them are in `tests/`. They start the
//! server's debug build: `cargo build && cargo test --manifest-path tools/grpc-check/Cargo.toml`.

#![expect(missing_docs, reason = "not all files that code is generated from have comments everywhere")]

/// `raftkv.v1`: keys and values, and the node.
pub mod raftkv {
    include!("generated/raftkv.v1.rs");
}

/// `grpc.health.v1`: whether the node serves.
pub mod health {
    include!("generated/grpc.health.v1.rs");
}

/// `grpc.reflection.v1`: what services there are.
pub mod reflection {
    include!("generated/grpc.reflection.v1.rs");
}

/// `grpc.reflection.v1alpha`: the same for older tools.
pub mod reflection_alpha {
    include!("generated/grpc.reflection.v1alpha.rs");
}
