//! What a shard does about snapshots: says when one is due and what is to be written, lets the log go behind it, and
//! puts another node's in the place of its log and state. Whoever writes and fetches them is elsewhere.

use std::time::Instant;

use raftkv_protocol::client::{Code, Refusal};
use raftkv_protocol::peer::SnapshotMeta;
use raftkv_protocol::types::{EntryId, Index, NodeId, SnapshotId};

use crate::state_machine::{Corruption, Snapshot, StateMachine};
use crate::storage::record::HEADER_BYTES;
use crate::storage::{CoreLog, RecoveredShard};

use super::compaction::Compaction;
use super::snapshots::{Found, Loaded};
use super::{Outbox, Shard};

/// Room for everything of an entry but a key and its value.
pub(super) const ENTRY_OVERHEAD_BYTES: usize = 64;

/// What a shard begins with besides its replica.
#[derive(Debug)]
pub struct Beginning {
    compaction: Compaction,
    loaded: Option<Loaded>,
}

impl Beginning {
    /// With what was found of snapshots and in the log; `tail` bytes of its newest entries are to stay in it for followers
    /// that lag.
    #[must_use]
    pub fn new(found: Found, log: &RecoveredShard, tail: u64) -> Beginning {
        let Found { loaded, older } = found;
        let newest = loaded.as_ref().map(|loaded| loaded.meta);
        let sizes = log.entries.iter().map(|(_, bytes)| u64::from(*bytes) + HEADER_BYTES as u64);
        Beginning { compaction: Compaction::found(log.start.index, sizes, older, newest, tail), loaded }
    }

    /// The newest snapshot: Raft is to be made with it.
    #[must_use]
    pub fn snapshot(&self) -> Option<SnapshotMeta> {
        self.loaded.as_ref().map(|loaded| loaded.meta)
    }
}

impl<R: Copy> Shard<R> {
    /// The same shard with this beginning.
    #[must_use]
    pub fn begun_with(mut self, beginning: Beginning) -> Shard<R> {
        self.compaction = beginning.compaction;
        if let Some(Loaded { machine, longest, .. }) = beginning.loaded {
            self.machine = machine;
            self.entry_bytes_max = longest + ENTRY_OVERHEAD_BYTES;
        }
        self
    }

    /// The bytes of the shard's entries in the log, as records.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.compaction.log_bytes()
    }

    /// The bytes of entries that came since the newest snapshot, as records.
    #[must_use]
    pub fn bytes_since_snapshot(&self) -> u64 {
        self.compaction.bytes_since_newest()
    }

    /// The bytes of all keys and values.
    #[must_use]
    pub fn state_bytes(&self) -> u64 {
        self.machine.bytes()
    }

    /// Whether a snapshot is worth taking, if so many bytes of entries since the last one make it so.
    #[must_use]
    pub fn snapshot_is_due(&self, bytes: u64, now: Instant) -> bool {
        self.is_worth_keeping() && self.compaction.is_due(self.machine.applied(), bytes, now)
    }

    /// Whether a snapshot may be begun at once because somebody wants it, and would cover more than the newest.
    #[must_use]
    pub fn may_snapshot(&self) -> bool {
        self.is_worth_keeping() && self.compaction.may_begin(self.machine.applied())
    }

    /// A state that others are known not to have is not to outlive this process; one that comes to where it was before has
    /// most of the log before it.
    fn is_worth_keeping(&self) -> bool {
        let comes_back = self.ready_at.is_some_and(|index| self.machine.applied() < index);
        self.waiting.is_none() && self.serves() && !comes_back && !self.is_catching_up()
    }

    /// The state, for tests that look at what an entry has done to it.
    #[must_use]
    pub fn state(&self) -> &StateMachine {
        &self.machine
    }

    /// The last entry that the state reflects.
    #[must_use]
    pub fn applied(&self) -> Index {
        self.machine.applied()
    }

    /// The newest snapshot that is durable here.
    #[must_use]
    pub fn newest_snapshot(&self) -> Option<SnapshotMeta> {
        self.compaction.newest()
    }

    /// Takes the state as it is now to be the next snapshot. Takes no time.
    pub fn begin_snapshot(&mut self) {
        self.compaction.begin(self.machine.snapshot());
    }

    /// What is to be written now: the state that was taken last, once the log is durable up to it here. A leader may
    /// have applied what its own disk does not have yet.
    pub fn snapshot_to_write(&mut self) -> Option<Snapshot> {
        self.compaction.take_begun(self.raft.persisted_index())
    }

    /// Whether a snapshot that was begun is not written yet.
    #[must_use]
    pub fn is_taking_snapshot(&self) -> bool {
        self.compaction.is_taking()
    }

    /// The snapshot is written. Followers that need it are offered it from now on, and the log may go behind the one
    /// before it, see `compact`. Returns it if it is to be set aside instead: the state has turned out to be wrong
    /// meanwhile.
    pub fn snapshot_taken<L: CoreLog>(
        &mut self,
        meta: SnapshotMeta,
        log: &mut L,
        log_bytes_max: u64,
    ) -> Option<SnapshotMeta> {
        if !self.compaction.taken(meta) {
            return None;
        }
        if self.is_wrong() {
            return self.compaction.rotten(meta.id);
        }
        self.is_rebuilt = false;
        self.raft.snapshot_taken(meta);
        self.compact(log, log_bytes_max);
        None
    }

    /// The state of which a snapshot was taken turned out not to be what was put there: its items have the hash `found`,
    /// and should have `expected`. What this replica has in memory since then is no better. [`Shard::compare`] tells.
    pub fn snapshot_corrupt(&mut self, at: EntryId, found: u128, expected: u128, now: Instant) {
        self.compaction.failed(now);
        // A state that came from another node has taken its place meanwhile.
        let is_replaced = self.compaction.newest().is_some_and(|newest| newest.at.index >= at.index);
        if is_replaced {
            // What was known of the former state went with it.
            self.comparison.was_corrupt(&Corruption { sound: Index(0), at: at.index, found, expected });
        } else {
            let sound = self.machine.scrubbed().min(at.index);
            self.state_corrupt(&Corruption { sound, at: at.index, found, expected });
        }
    }

    /// A majority has had another state since some entry after `agreed`: returns the snapshots that were taken since, to
    /// be set aside. A start from them would bring the wrong state back.
    pub fn distrust_snapshots(&mut self, agreed: Index) -> Vec<SnapshotMeta> {
        std::iter::from_fn(|| {
            let wrong = self.compaction.newest().filter(|meta| meta.at.index > agreed)?;
            self.compaction.rotten(wrong.id)
        })
        .collect()
    }

    /// The snapshot could not be written. It is tried again after a while.
    pub fn snapshot_failed(&mut self, now: Instant) {
        self.compaction.failed(now);
    }

    /// A snapshot was found not to be what was written. Returns what is to be set aside; another is due then, if it was
    /// the newest.
    pub fn snapshot_rotten(&mut self, id: SnapshotId) -> Option<SnapshotMeta> {
        self.compaction.rotten(id)
    }

    /// Lets the log start as late as it may; but not behind a snapshot that a follower is fetching while the core's log has no
    /// more than so many bytes. Whether it starts later than before.
    fn compact<L: CoreLog>(&mut self, log: &mut L, log_bytes_max: u64) -> bool {
        let Some((latest, meta)) = self.compaction.start() else { return false };
        let awaited = self.raft.awaited_from().filter(|_| log.held_bytes() <= log_bytes_max);
        let index = awaited.map_or(latest, |awaited| awaited.min(latest));
        self.is_held_back = index < latest;
        let Some(term) = self.raft.term_at(index) else { return false };
        let start = EntryId { index, term };
        let is_later = self.raft.compact(start);
        if is_later {
            log.compact(self.id, start, meta.id);
            self.compaction.compacted(index);
        }
        is_later
    }

    /// The same for a log that has waited for a follower.
    pub fn wait_no_longer<L: CoreLog>(&mut self, log: &mut L, log_bytes_max: u64) -> bool {
        self.is_held_back && self.compact(log, log_bytes_max)
    }

    /// The snapshot that Raft wants fetched, and the node that offers it.
    pub fn take_offer(&mut self) -> Option<(NodeId, SnapshotMeta)> {
        self.offer.take()
    }

    /// Whether Raft wants a snapshot fetched.
    #[cfg(test)]
    pub(super) fn has_offer(&self) -> bool {
        self.offer.is_some()
    }

    /// Whether a snapshot would bring this replica on, further than one that was fetched already.
    #[must_use]
    pub fn lacks(&self, meta: &SnapshotMeta) -> bool {
        let waiting = self.waiting.as_ref().map_or(Index(0), |loaded| loaded.meta.at.index);
        let is_new = meta.at.index > waiting;
        is_new && (meta.at.index > self.raft.commit() || self.replaces_wrong(meta))
    }

    /// A snapshot that was fetched is durable and loaded: it takes the place of log and state as soon as it can.
    ///
    /// Returns one that waited and is not needed any more, to be dropped elsewhere.
    pub fn install(&mut self, loaded: Loaded) -> Option<Box<Loaded>> {
        self.waiting.replace(Box::new(loaded))
    }

    /// Whether a snapshot waits to take its place.
    #[must_use]
    pub fn has_snapshot_to_settle(&self) -> bool {
        self.waiting.is_some()
    }

    /// Lets a snapshot that waits take its place, unless it has to wait longer. Whoever waits for an entry that it skips
    /// gets *unknown*. Returns the states that are of no more use, to be dropped elsewhere.
    pub fn settle_snapshot(&mut self, out: &mut impl Outbox<R>) -> Settled {
        let mut settled = Settled::default();
        let Some(loaded) = self.waiting.take() else { return settled };
        if self.replaces_wrong(&loaded.meta) {
            settled.rebuilt = Some(loaded.meta);
            (settled.useless, settled.begun) = self.rebuild_from_fetched(*loaded, out);
            return settled;
        }
        if loaded.meta.at.index <= self.raft.commit() {
            settled.useless = Some(loaded.machine);
            return settled;
        }
        if !self.raft.restore(loaded.meta) {
            // This node stands for election. It cannot win without what the snapshot covers.
            self.waiting = Some(loaded);
            return settled;
        }
        let Loaded { meta, machine, longest } = *loaded;
        settled.installed = Some(meta);
        settled.useless = Some(std::mem::replace(&mut self.machine, machine));
        self.catches_up_to = None;
        self.state_replaced(Index(0));
        self.is_rebuilt = false;
        settled.begun = self.compaction.installed(meta, self.raft.start() == meta.at);
        self.entry_bytes_max = self.entry_bytes_max.max(longest + ENTRY_OVERHEAD_BYTES);
        self.skip_writes(meta.at.index, out);
        settled
    }

    /// The state is that after an entry, or a later one, and what came before was not applied here one by one.
    pub(super) fn skip_writes(&mut self, upto: Index, out: &mut impl Outbox<R>) {
        self.writes.skipped(upto, |to, id| {
            let message = "this node went on by a snapshot; the write may or may not have taken effect";
            out.reply(to, id, Err(Refusal { code: Code::Timeout, leader: None, message }));
        });
    }

    /// Tells Raft of the newest snapshot if it could not take note of it when it was told first, or knows one that was set
    /// aside.
    pub(super) fn remind_of_snapshot(&mut self) {
        let known = self.raft.snapshot().map(|meta| meta.id);
        if let Some(newest) = self.compaction.newest().filter(|meta| Some(meta.id) != known) {
            _ = self.raft.snapshot_taken(newest) || self.raft.snapshot_replaced(newest);
        }
    }
}

/// What came of a snapshot that waited to take its place.
#[derive(Debug, Default)]
pub struct Settled {
    /// It has.
    pub installed: Option<SnapshotMeta>,
    /// It has, of a wrong state; what comes after it in the log is applied again.
    pub rebuilt: Option<SnapshotMeta>,
    /// A state that nobody needs any more.
    pub useless: Option<StateMachine>,
    /// A snapshot that was begun and is not worth writing any more.
    pub begun: Option<Box<Snapshot>>,
}
