//! Wrong states, built anew in the running node: nobody is shown them, and their log would grow without end.

use std::time::Instant;

use raftkv_protocol::peer::SnapshotMeta;
use raftkv_protocol::types::{Index, ShardId};

use crate::shard::Shard;
use crate::shard::snapshots::{Failure, Job, Loaded};
use crate::storage::CoreLog;

use super::router::Router;

impl<L: CoreLog> Router<L> {
    /// The log is too long: a shard whose state is wrong, and that therefore holds on to all of its log, has it built anew;
    /// if there are more, that with the longest log. Whether there is one.
    pub(super) fn rebuild_states(&mut self, now: Instant) -> bool {
        if self.snapshots.rebuilding.is_some() {
            return true;
        }
        let may = |shard: &&Shard<_>| shard.may_rebuild(now) && !self.snapshots.fetcher.is_installing(shard.id());
        let Some(shard) = self.shards.iter().filter(may).max_by_key(|shard| shard.log_bytes()) else {
            self.fetch_for_wrong(now);
            return false;
        };
        let id = shard.id();
        let from = shard.newest_snapshot();
        log::warn!(
            "shard {id}: this node's state is wrong, and holds on to a log of {} bytes: building it anew from {} and the log",
            self.log.held_bytes(),
            from.map_or("nothing".to_owned(), |meta| format!("the snapshot of entry {}", meta.at))
        );
        match from {
            Some(meta) => {
                self.snapshots.rebuilding = Some(id);
                self.snapshots.worker.send(Job::Reload { shard: id, meta });
            }
            None => self.put_in_place(id, None, now),
        }
        true
    }

    /// Wrong states that cannot be built anew from what this node has begin with a snapshot of another.
    fn fetch_for_wrong(&mut self, now: Instant) {
        for shard in &self.shards {
            if let Some((source, meta)) = shard.rebuilds_from(now) {
                self.snapshots.fetcher.offer(shard.id(), source, meta, now);
            }
        }
    }

    /// A snapshot of another node has taken the place of a wrong state.
    pub(super) fn rebuilt_from_fetched(&mut self, at: usize, meta: &SnapshotMeta) {
        let shard = self.shards[at].id();
        log::warn!(
            "shard {shard}: this node's state was wrong: it is built anew from another node's snapshot of entry {}",
            meta.at
        );
        self.counters.states_rebuilt_from_others += 1;
        self.note_rebuilt(at);
    }

    /// Another state is in the place of a wrong one.
    fn note_rebuilt(&mut self, at: usize) {
        let (shard, begins) = (self.shards[at].id(), self.shards[at].applied());
        let Index(upto) = self.shards[at].raft().commit();
        log::info!("shard {shard}: what came after entry {begins} is applied to its state again, up to {upto}");
        self.snapshots.forget_failure(shard);
        self.told.anew(at);
        self.touched[at] = true;
    }

    /// The snapshot from which a state is built anew is loaded.
    pub(super) fn reloaded(&mut self, shard: ShardId, loaded: Loaded, now: Instant) {
        self.snapshots.rebuilding = None;
        self.put_in_place(shard, Some(loaded), now);
    }

    /// It cannot be loaded now, which does not matter if another state has taken the place of the wrong one.
    pub(super) fn not_reloaded(&mut self, shard: ShardId, failure: &Failure, now: Instant) {
        self.snapshots.rebuilding = None;
        let at = self.position(shard);
        if self.shards[at].may_rebuild(now) {
            self.shards[at].reload_failed(now);
            self.snapshot_failed(shard, failure);
        }
    }

    fn put_in_place(&mut self, shard: ShardId, from: Option<Loaded>, now: Instant) {
        let at = self.position(shard);
        let (is_rebuilt, useless) = self.shards[at].rebuild(from, now);
        if is_rebuilt {
            self.counters.states_rebuilt += 1;
            self.note_rebuilt(at);
        }
        self.snapshots.worker.send(Job::LetGo(useless.into()));
    }
}
