//! Placeholder of the tool's entry point.
fn main() {}
