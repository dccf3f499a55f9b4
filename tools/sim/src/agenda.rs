//! What is to happen when. Time is counted in nanoseconds from the start of the run.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::network::NetEvent;

/// A microsecond of simulated time.
pub const MICROSECOND: u64 = 1_000;
/// A millisecond of simulated time.
pub const MILLISECOND: u64 = 1_000_000;
/// A second of simulated time.
pub const SECOND: u64 = 1_000_000_000;

/// One event loop: a core of a node, or a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoopId(pub usize);

/// One machine: it runs a node, or clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub usize);

/// What a disk's worker does next. Each is one step of the threads of the log or of the snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Place and sync one batch.
    Sync,
    /// Write a watermark, as the log was idle.
    Prove,
    /// Prepare one segment ahead.
    Allocate,
    /// Read one fetch.
    Read,
    /// One step of the snapshot worker.
    Snapshot,
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A loop takes a turn, unless one was scheduled for another time since.
    Turn(LoopId),
    /// Something on the network.
    Net(NetEvent),
    /// A disk's worker does something; `boot` tells whose.
    Disk {
        /// The node.
        node: usize,
        /// Its core.
        core: usize,
        /// The process that asked for it.
        boot: u64,
        /// What.
        work: Work,
    },
    /// The nemesis decides what to do next.
    Nemesis,
    /// A way between two hosts is cut or mended.
    Path {
        /// From.
        from: HostId,
        /// To.
        to: HostId,
        /// Cut, or mended.
        cut: bool,
    },
    /// Whoever leads a shard is told to hand it over.
    HandOver {
        /// To which node.
        to: usize,
    },
    /// A node that is down starts.
    Start {
        /// Which.
        node: usize,
    },
    /// A paused node goes on.
    Resume {
        /// Which.
        node: usize,
    },
    /// A disk that was slow, hung or full recovers.
    DiskHeals {
        /// Of which node.
        node: usize,
    },
    /// A client looks whether it has something to ask.
    Ask {
        /// Which.
        client: usize,
    },
}

/// Everything that is to happen, in order of time and, at one time, in the order in which it was scheduled.
#[derive(Debug, Default)]
pub struct Agenda {
    now: u64,
    heap: BinaryHeap<Reverse<(u64, u64, Entry)>>,
    scheduled: u64,
}

/// Two entries are never compared: their numbers differ.
#[derive(Debug)]
struct Entry(Event);

impl PartialEq for Entry {
    fn eq(&self, _: &Entry) -> bool {
        true
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, _: &Entry) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl Agenda {
    /// The time of what happens now.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Lets something happen at a time; not in the past.
    pub fn at(&mut self, time: u64, event: Event) {
        self.scheduled += 1;
        self.heap.push(Reverse((time.max(self.now), self.scheduled, Entry(event))));
    }

    /// Lets something happen in a while.
    pub fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now.saturating_add(delay), event);
    }

    /// What happens next. It is that time then.
    pub fn take_next(&mut self) -> Option<Event> {
        let Reverse((time, _, Entry(event))) = self.heap.pop()?;
        self.now = time;
        Some(event)
    }
}
