//! What requests over HTTP hold as long as they are served, above all the memory of bodies, in and out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use raftkv_protocol::client::Code;

use super::ask::OwnedRefusal;

/// Values below this are not counted while they wait for their reader: they are copied into the response's head.
pub const COUNTED_BYTES_MIN: usize = 4 << 10;

/// What the connections of a core hold of one sort at a time: bytes, mostly.
#[derive(Clone, Debug)]
pub struct Held {
    bytes: Arc<AtomicUsize>,
    max: usize,
    refusals: Arc<AtomicU64>,
}

impl Held {
    /// Nothing is held, and at most `max` may be.
    #[must_use]
    pub fn new(max: usize) -> Held {
        Held { bytes: Arc::default(), max, refusals: Arc::default() }
    }

    /// How much is, where it is bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How often there was no room for more.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// Counts so many more for as long as the share lives.
    #[must_use]
    pub fn hold(&self, bytes: usize) -> Share {
        let share = Share { held: self.clone(), bytes: AtomicUsize::new(0) };
        share.add(bytes);
        share
    }

    /// Counts one more for as long as the share lives, if there is room.
    #[must_use]
    pub fn enter(&self) -> Option<Share> {
        let share = self.hold(0);
        share.try_add(1).then_some(share)
    }

    /// A value on its way to a client: it is counted until its last byte is with the kernel.
    #[must_use]
    pub fn counted(&self, value: Bytes) -> Bytes {
        if value.len() < COUNTED_BYTES_MIN {
            return value;
        }
        self.hold(value.len()).until_sent(value)
    }
}

/// Somebody's part of what is held.
#[derive(Debug)]
pub struct Share {
    held: Held,
    bytes: AtomicUsize,
}

impl Share {
    /// Counts so many more; returns how many there are of all.
    fn add(&self, by: usize) -> usize {
        self.bytes.fetch_add(by, Ordering::Relaxed);
        self.held.bytes.fetch_add(by, Ordering::Relaxed) + by
    }

    /// Counts so many more; whether there is room for them.
    fn try_add(&self, by: usize) -> bool {
        let has_room = self.add(by) <= self.held.max;
        self.held.refusals.fetch_add(u64::from(!has_room), Ordering::Relaxed);
        has_room
    }

    /// Takes in so many more of a request's body, if there is room.
    pub fn grow(&self, by: usize) -> Result<(), OwnedRefusal> {
        if self.try_add(by) {
            return Ok(());
        }
        Err(OwnedRefusal::new(
            Code::Overloaded,
            "the bodies of other requests take all the room that there is for them (--core-http-body-bytes-max of \
             the server); try again later",
        ))
    }

    /// Bytes on their way to a client, who has the share until the last of them is with the kernel.
    #[must_use]
    pub fn until_sent(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Counted { value: bytes, _share: self })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.bytes.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

struct Counted {
    value: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.value
    }
}
