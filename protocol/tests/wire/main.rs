//! The wire protocol from outside: golden frames, properties of the codec, and the examples of the specification.

mod compatibility;
mod counting_allocator;
mod golden;
mod hostile;
mod message;
mod properties;
mod samples;
mod specification;
mod strategies;
