//! The mechanics of one core's event loop: the clock, sockets and their buffers, the inbox from other cores.
//!
//! Owns how bytes move and when the loop wakes. Knows neither Raft nor what the bytes mean: frames and requests are
//! the business of `server::core_loop`, where this layer meets the others.

mod buffers;
mod clock;
#[cfg(feature = "http")]
mod http_stream;
mod inbox;
mod listener;
mod network;
#[cfg(feature = "http")]
mod tasks;
#[cfg(feature = "http")]
mod timer;

pub use buffers::{Appetite, Flushed, Input, Output, Received, SCRATCH_BYTES};
pub use clock::{Clock, TimeoutQueue};
#[cfg(feature = "http")]
pub use http_stream::{HttpSocket, HttpStream, Scratch, scratch};
pub use inbox::{Capacity, Inbox, InboxSender, Wake, inbox, wake_through};
pub use listener::{bind_listener, prove_free};
pub use network::MioNetwork;
#[cfg(feature = "http")]
pub use tasks::{Spawner, TaskId, Tasks};
#[cfg(feature = "http")]
pub use timer::{Alarm, LoopSleep, LoopTimer};

#[cfg(test)]
mod buffers_test;
#[cfg(test)]
mod clock_test;
#[cfg(test)]
mod inbox_test;
#[cfg(all(test, feature = "http"))]
mod tasks_test;
#[cfg(all(test, feature = "http"))]
mod timer_test;
