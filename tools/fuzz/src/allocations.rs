//! How much a piece of work asks of the allocator: what a length that nobody checked would blow up.
//!
//! The allocator that counts is the one of the protocol's own tests; every program that links this crate gets it.

#[path = "../../../protocol/tests/wire/counting_allocator.rs"]
mod counting_allocator;

/// Does the work and checks that it allocated at most `allowed` bytes, freed ones included.
///
/// # Panics
///
/// If it allocated more.
pub fn at_most<R>(allowed: usize, work: impl FnOnce() -> R) -> R {
    let mut result = None;
    let allocated = counting_allocator::allocated_bytes(|| result = Some(work()));
    assert!(allocated <= allowed, "{allocated} bytes were allocated where {allowed} are enough");
    result.expect("the work was done")
}
