//! The sleeps of a loop's tasks, by the loop's own clock: what HTTP needs for its timeouts.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

/// Makes sleeps, and ends them as the loop tells it the time. Copies of it are the same timer.
#[derive(Clone)]
pub struct LoopTimer {
    alarms: Arc<Mutex<Alarms>>,
}

impl fmt::Debug for LoopTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopTimer").finish_non_exhaustive()
    }
}

struct Alarms {
    now: Instant,
    /// By time; the number tells alarms of the same time apart.
    pending: BTreeMap<(Instant, u64), Waker>,
    next: u64,
}

impl LoopTimer {
    /// A timer that believes it to be `now` until it is told otherwise.
    #[must_use]
    pub fn new(now: Instant) -> LoopTimer {
        LoopTimer { alarms: Arc::new(Mutex::new(Alarms { now, pending: BTreeMap::new(), next: 0 })) }
    }

    fn alarms(&self) -> MutexGuard<'_, Alarms> {
        self.alarms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the time, and wakes those whose sleep is over.
    pub fn advance(&self, now: Instant) {
        let due = {
            let mut alarms = self.alarms();
            alarms.now = now;
            if alarms.pending.first_key_value().is_none_or(|((at, _), _)| *at > now) {
                return;
            }
            let later = alarms.pending.split_off(&(now, u64::MAX));
            std::mem::replace(&mut alarms.pending, later)
        };
        due.into_values().for_each(Waker::wake);
    }

    /// When the next sleep is over.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.alarms().pending.first_key_value().map(|((at, _), _)| *at)
    }

    /// A sleep until then.
    #[must_use]
    pub fn until(&self, at: Instant) -> LoopSleep {
        LoopSleep { at, number: None, timer: self.clone() }
    }

    /// A sleep of this length.
    #[must_use]
    pub fn after(&self, duration: Duration) -> LoopSleep {
        let now = self.alarms().now;
        self.until(now + duration)
    }
}

impl Timer for LoopTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(self.after(duration))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(self.until(deadline))
    }

    fn now(&self) -> Instant {
        self.alarms().now
    }
}

/// Waits until a point in time.
#[derive(Debug)]
pub struct LoopSleep {
    at: Instant,
    /// The alarm that is set for it.
    number: Option<u64>,
    timer: LoopTimer,
}

impl LoopSleep {
    /// Sleeps until then instead.
    pub fn reset(&mut self, at: Instant) {
        self.cancel();
        self.at = at;
    }

    fn cancel(&mut self) {
        if let Some(number) = self.number.take() {
            self.timer.alarms().pending.remove(&(self.at, number));
        }
    }
}

impl Future for LoopSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.clone();
        let mut alarms = timer.alarms();
        if alarms.now >= self.at {
            return Poll::Ready(());
        }
        let number = *self.number.get_or_insert_with(|| {
            alarms.next += 1;
            alarms.next
        });
        let waker = alarms.pending.entry((self.at, number)).or_insert_with(|| context.waker().clone());
        if !waker.will_wake(context.waker()) {
            waker.clone_from(context.waker());
        }
        Poll::Pending
    }
}

impl Sleep for LoopSleep {}

impl Drop for LoopSleep {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Has a task polled again when something is due, which may be put off again and again.
#[derive(Debug)]
pub struct Alarm {
    sleep: LoopSleep,
}

impl Alarm {
    /// An alarm that nobody has heard of yet.
    #[must_use]
    pub fn new(timer: &LoopTimer, at: Instant) -> Alarm {
        Alarm { sleep: timer.until(at) }
    }

    /// Something is due then, and not yet. An alarm that comes too early costs less than setting it anew each time.
    pub fn set(&mut self, due: Instant, now: Instant, context: &mut Context<'_>) {
        if due < self.sleep.at || self.sleep.at <= now {
            self.sleep.reset(due);
        }
        let is_over = Pin::new(&mut self.sleep).poll(context).is_ready();
        debug_assert!(!is_over, "what is due now is not put off");
    }
}
