//! A timer that is finer than the milliseconds of a poll: an open loop must not be late because its clock ticks slowly.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// The least time to sleep. Each wake-up costs more than a request, and the generator must not take the servers'
/// processor for the sake of a few microseconds; what it is late by is part of the latencies.
const SLEEP_MIN_NS: u64 = 100_000;

/// Wakes the poll that it is registered with. Its event carries no news: setting it again takes it back.
#[derive(Debug)]
pub struct Alarm {
    timer: OwnedFd,
    set_to: Option<u64>,
}

impl Alarm {
    /// Not set yet.
    pub fn new(registry: &Registry, token: Token) -> io::Result<Alarm> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Alarm { timer, set_to: None })
    }

    /// Wakes the poll at `at`, or a moment later; both times in nanoseconds since the same moment.
    pub fn set(&mut self, at: u64, now: u64) -> io::Result<()> {
        if self.set_to == Some(at) {
            return Ok(());
        }
        let wait = Duration::from_nanos(at.saturating_sub(now).max(SLEEP_MIN_NS));
        let once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let setting = Itimerspec { it_interval: once, it_value: wait };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting)?;
        self.set_to = Some(at);
        Ok(())
    }
}
