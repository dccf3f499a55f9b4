//! States that are too large to be read while entries are applied are read by the snapshot worker to see whether memory has
//! kept them: one at a time for each core, and no more bytes in a second than may be, though what was not used for some time may be
//! used at once. A snapshot that is being taken meanwhile does not hold that up: there may be one all the time. So each checkpoint of a shard has its state read, unless the shards of the core come to their next faster than
//! they can be read; then they take turns.

use std::time::{Duration, Instant};

use raftkv_protocol::types::{EntryId, ShardId};

use crate::shard::Shard;
use crate::shard::snapshots::Job;
use crate::storage::CoreLog;

use super::router::Router;

/// For so long what may be read and is not is saved up.
const SAVED: Duration = Duration::from_secs(8);

/// What a core has of it.
#[derive(Debug)]
pub(super) struct Scrubs {
    /// Bytes a second.
    rate: u64,
    /// When what was read is paid for by the time that has passed. The next may begin then.
    paid_at: Option<Instant>,
    /// What is being read.
    under_way: Option<ShardId>,
    /// The position of the shard that was read last.
    last: usize,
}

impl Scrubs {
    pub(super) fn new(rate: u64) -> Scrubs {
        Scrubs { rate, paid_at: None, under_way: None, last: 0 }
    }

    fn may_begin(&self, now: Instant) -> bool {
        self.under_way.is_none() && self.paid_at.is_none_or(|at| at <= now)
    }

    /// Begins with a state of so many bytes.
    fn begin(&mut self, shard: ShardId, bytes: u64, now: Instant) {
        let paid = self.paid_at.unwrap_or(now);
        // Time that has passed counts for so much and no more.
        let from = now.checked_sub(SAVED).map_or(paid, |earliest| paid.max(earliest));
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
        self.paid_at = Some(from + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX / 2)));
        self.under_way = Some(shard);
    }
}

impl<L: CoreLog> Router<L> {
    /// Has the next state read that is due, if one may be.
    pub(super) fn tend_scrubs(&mut self, now: Instant) {
        let count = self.shards.len();
        if !self.snapshots.scrubs.may_begin(now) {
            return;
        }
        let after = self.snapshots.scrubs.last + 1;
        let positions = (0..count).map(|offset| (after + offset) % count);
        let Some(at) = positions.into_iter().find(|at| self.shards[*at].scrub_is_due()) else { return };
        let shard = self.shards[at].id();
        let bytes = self.shards[at].scrub_bytes();
        self.counters.state_scrub_bytes += bytes;
        self.snapshots.scrubs.last = at;
        self.snapshots.scrubs.begin(shard, bytes, now);
        self.hold_turn(|router| {
            let state = router.shards[at].begin_scrub();
            router.snapshots.worker.send(Job::Scrub { shard, state });
        });
    }

    /// When the next may begin, if one is due.
    pub(super) fn scrub_at(&self) -> Option<Instant> {
        let scrubs = &self.snapshots.scrubs;
        let waits = scrubs.under_way.is_none();
        scrubs.paid_at.filter(|_| waits && self.shards.iter().any(Shard::scrub_is_due))
    }

    /// A state was read.
    pub(super) fn scrubbed(&mut self, shard: ShardId, at: EntryId, found: u128, expected: u128) {
        self.snapshots.scrubs.under_way.take_if(|under_way| *under_way == shard);
        self.counters.states_scrubbed += 1;
        let position = self.position(shard);
        self.shards[position].scrubbed(at, found, expected);
    }
}
