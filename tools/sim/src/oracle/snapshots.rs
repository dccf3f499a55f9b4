//! Looks at every snapshot that comes to lie on a disk under its final name, and at what a log lets go because of it.
//!
//! - It holds what was committed up to its index, and nothing else: its state is the one that all replicas had there.
//! - Whoever took it had everything up to there on its own disk; whoever fetched it got it from somebody who had.
//! - What was published is there after a restart, or something newer. Two are kept.
//! - The log reaches back to the older of two, unless it starts anew behind one that came from another node.

use std::collections::BTreeMap;
use std::sync::Arc;

use raftkv::raft::Raft;
use raftkv::server::message::ReplyTo;
use raftkv::shard::Shard;
use raftkv::state_machine::{Checkpoint, Restore};
use raftkv::storage::simulated_disk::{SimulatedDisk, Survivors};
use raftkv::storage::snapshot::SnapshotStore;
use raftkv_protocol::types::{EntryId, Index, ShardId, SnapshotId};

use super::{Oracle, Violation};
use crate::coverage::Coverage;

/// As many as are kept.
const KEPT: usize = 2;

/// The snapshots of a shard on one disk, as they were last seen.
#[derive(Clone, Debug, Default)]
pub(super) struct OnDisk {
    /// What had been done to the disk by then.
    operations: u64,
    /// What of it had failed.
    failures: u64,
    /// By their last entries.
    files: BTreeMap<Index, SnapshotId>,
    /// The newest that was ever durable there; 0 if none was.
    newest: Index,
}

impl OnDisk {
    /// How many of them the log goes on from if it begins behind this entry.
    fn usable(&self, start: EntryId) -> usize {
        self.files.range(start.index..).count()
    }

    /// The newest of them.
    fn newest(&self) -> Option<(Index, SnapshotId)> {
        self.files.last_key_value().map(|(at, id)| (*at, *id))
    }
}

/// Name and state hash of a snapshot, all of which is read.
fn read(disk: &SimulatedDisk, shard: ShardId, at: EntryId) -> Result<(SnapshotId, u128), String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let store = SnapshotStore::read_only(Arc::new(disk.clone()), shard);
    let mut reader = store.read(at).map_err(|error| words(&error))?;
    let mut restore = Restore::new(at, &reader.header().hash_format).map_err(|error| words(&error))?;
    while let Some(items) = reader.next_items().map_err(|error| words(&error))? {
        for item in items {
            restore.push(item.key, item.version, item.value).map_err(|error| words(&error))?;
        }
    }
    let footer = reader.footer().ok_or("it has no footer")?;
    let checkpoints = footer.checkpoints.iter().map(|(index, hash)| Checkpoint { index: *index, hash: *hash });
    restore.finish(footer.hash, checkpoints).map_err(|error| words(&error))?;
    Ok((reader.info().id, footer.hash))
}

fn entries(disk: &SimulatedDisk, shard: ShardId) -> Vec<EntryId> {
    SnapshotStore::read_only(Arc::new(disk.clone()), shard).list().unwrap_or_default()
}

/// What may be wrong with a node's snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Nothing.
    Whole,
    /// The node may take one for wrong, and set it aside.
    Doubted,
    /// Somebody has damaged one.
    Damaged,
}

/// Whether the snapshot of this entry is there, but not under its name.
fn is_set_aside(disk: &SimulatedDisk, Index(index): Index) -> bool {
    disk.names().iter().any(|name| name.starts_with(&format!("damaged-{index:016x}-")))
}

impl Oracle {
    /// Looks at the snapshots of a shard on a node's disk, after something was done to them.
    ///
    /// # Errors
    /// If one is not what it should be, or is gone.
    pub fn look_at_snapshots(
        &mut self,
        node: usize,
        shard: ShardId,
        disk: &SimulatedDisk,
        trust: Trust,
    ) -> Result<(), Violation> {
        let at = usize::from(shard.0);
        let operations = disk.operations();
        if self.on_disk[at][node].operations == operations {
            return Ok(());
        }
        let name = || format!("node {} shard {shard}", node + 1);
        let failures = disk.failures();
        let before = std::mem::take(&mut self.on_disk[at][node]);
        let mut now = OnDisk { operations, failures, files: BTreeMap::new(), newest: before.newest };
        for entry in entries(disk, shard) {
            let id = match before.files.get(&entry.index) {
                Some(id) => *id,
                None => match read(disk, shard, entry) {
                    Ok((id, hash)) => {
                        self.check_content(node, shard, entry, id, hash)?;
                        id
                    }
                    Err(_) if trust == Trust::Damaged => continue,
                    Err(words) => {
                        let what = format!("{}: the snapshot of {entry}: {words}", name());
                        return Err(Violation::of("a snapshot under its name is whole", what));
                    }
                },
            };
            now.files.insert(entry.index, id);
        }
        let newest = now.newest().map_or(Index(0), |(index, _)| index);
        let is_bad = match trust {
            Trust::Whole => false,
            Trust::Doubted => is_set_aside(disk, now.newest),
            Trust::Damaged => true,
        };
        if newest < now.newest && !is_bad {
            let what = format!("{}: there was one of entry {}, now {newest}", name(), now.newest);
            return Err(Violation::of("a snapshot that is durable stays until there is a newer one", what));
        }
        // A process that died between the new name and the removal of an old one has left more for the next to remove.
        let is_new = newest > before.newest && before.operations > 0;
        if is_new && now.files.len() > KEPT && failures == before.failures {
            let what = format!("{}: {:?}", name(), now.files.keys().collect::<Vec<_>>());
            return Err(Violation::of("at most two snapshots are kept", what));
        }
        now.newest = newest;
        self.on_disk[at][node] = now;
        Ok(())
    }

    /// A process starts: whatever lies on its disk is read anew.
    pub fn forget_snapshots(&mut self, node: usize) {
        for on_disk in self.on_disk.iter_mut().map(|shard| &mut shard[node]) {
            *on_disk = OnDisk { newest: on_disk.newest, failures: on_disk.failures, ..OnDisk::default() };
        }
    }

    fn check_content(
        &mut self,
        node: usize,
        shard: ShardId,
        entry: EntryId,
        id: SnapshotId,
        hash: u128,
    ) -> Result<(), Violation> {
        let at = usize::from(shard.0);
        let known = &mut self.shards[at];
        let name = || format!("node {} shard {shard}: the snapshot of {entry}", node + 1);
        if known.committed.get(entry.index.0 as usize - 1) != Some(&entry.term) {
            let committed = known.committed.len();
            let what = format!("{}; {committed} entries are committed, or another of that index", name());
            return Err(Violation::of("a snapshot is of what is committed", what));
        }
        let state = *known.states.entry(entry.index).or_insert(hash);
        if state != hash {
            let what = format!("{} holds state {hash:032x}, replicas had {state:032x}", name());
            return Err(Violation::of("a snapshot holds the state that replicas had", what));
        }
        let seen = &self.seen[at][node];
        let is_first = !known.takers.contains_key(&id);
        known.takers.entry(id).or_insert(node);
        if is_first && !seen.unseen && (seen.persisted.len() as u64) < entry.index.0 {
            let what = format!("{} was taken with {} entries on disk", name(), seen.persisted.len());
            return Err(Violation::of("no snapshot says more than its node's log on disk", what));
        }
        Ok(())
    }

    /// What a replica has a snapshot of, and what its log begins behind, is committed; and what its log has let go is in
    /// two snapshots, or in one that came from elsewhere.
    pub(super) fn check_snapshot(
        &self,
        at: usize,
        node: usize,
        raft: &Raft,
        coverage: &mut Coverage,
    ) -> Result<(), Violation> {
        let seen = &self.seen[at][node];
        let snapshot = raft.snapshot().map(|snapshot| snapshot.at);
        if (seen.start, seen.snapshot) == (raft.start(), snapshot) {
            return Ok(());
        }
        if seen.role.is_none() && snapshot.is_some() {
            coverage.note("node started from a snapshot");
        }
        for id in [Some(raft.start()), snapshot].into_iter().flatten().filter(|id| *id != EntryId::ZERO) {
            let committed = self.shards[at].committed.get(id.index.0 as usize - 1);
            if committed != Some(&id.term) {
                let what = format!("{id} of {} is not committed: {committed:?}", raft.state_line());
                return Err(Violation::of("a snapshot is of what is committed", what));
            }
        }
        if raft.start().index == seen.start.index {
            return Ok(());
        }
        coverage.note("log begins behind a snapshot");
        let on_disk = &self.on_disk[at][node];
        let usable = on_disk.usable(raft.start());
        let newest = on_disk.newest().filter(|(index, _)| *index == raft.start().index);
        let is_fetched = newest.is_some_and(|(_, id)| self.shards[at].takers.get(&id) != Some(&node));
        let needed = if is_fetched || seen.role.is_none() { 1 } else { KEPT };
        if usable >= needed {
            return Ok(());
        }
        let files: Vec<&Index> = on_disk.files.keys().collect();
        let what = format!("node {}, snapshots {files:?}: {}", node + 1, raft.state_line());
        Err(Violation::of("the log reaches back to the older of two snapshots", what))
    }

    /// A replica that has just started goes on from a snapshot, if from any, that its log goes on from.
    pub(super) fn check_beginning(&self, node: usize, shard: &Shard<ReplyTo>) -> Result<(), Violation> {
        let raft = shard.raft();
        let covered = raft.snapshot().map_or(Index(0), |snapshot| snapshot.at.index);
        let applied = shard.status().applied;
        if applied == covered && raft.commit() >= covered && covered >= raft.start().index {
            return Ok(());
        }
        let what = format!("node {} shard {}: {}", node + 1, shard.id(), raft.state_line());
        Err(Violation::of("a start goes on from a snapshot that the log goes on from", what))
    }

    /// A client was told that a node has a snapshot of this entry: what is durable on its disk says so too. `applied`: what
    /// the node had applied when it was asked, if it is the same process still.
    ///
    /// # Errors
    /// If it is not so.
    pub fn check_demanded(
        &self,
        node: usize,
        shard: ShardId,
        entry: EntryId,
        applied: Option<Index>,
        disk: &SimulatedDisk,
    ) -> Result<(), Violation> {
        let committed = &self.shards[usize::from(shard.0)].committed;
        let is_committed = entry == EntryId::ZERO || committed.get(entry.index.0 as usize - 1) == Some(&entry.term);
        let durable = disk.crash(Survivors::None);
        let whole = entries(&durable, shard).into_iter().filter(|at| read(&durable, shard, *at).is_ok());
        let newest = whole.map(|at| at.index).max().unwrap_or_default();
        let is_enough = applied.is_none_or(|applied| entry.index >= applied);
        if is_committed && is_enough && newest >= entry.index {
            return Ok(());
        }
        let what = format!(
            "node {} shard {shard} is said to have a snapshot of {entry}; when it was asked it had applied {applied:?}, and \
             on its disk is one of {newest}",
            node + 1
        );
        Err(Violation::of("a snapshot that a client is told of is durable and covers what it was to", what))
    }
}
