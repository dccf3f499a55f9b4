//! The directories of snapshots of a node, by shard.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raftkv_protocol::types::{ShardId, SnapshotId};

use crate::storage::disk::Disk;
use crate::storage::snapshot::SnapshotStore;

/// Condemned snapshots that are remembered. More come over the years, and only a file that somebody has had open since before
/// asks for one.
const CONDEMNED_MAX: usize = 256;

/// Snapshots that are not what was written, or not what they should be.
#[derive(Debug, Default)]
struct Condemned {
    /// The latest, each with its number.
    latest: VecDeque<(u64, ShardId, SnapshotId)>,
    /// The number of the last.
    last: u64,
    /// Those up to this number are not remembered any more.
    forgotten: u64,
}

impl Condemned {
    fn contains(&self, shard: ShardId, id: SnapshotId) -> bool {
        self.latest.iter().any(|(_, of, known)| (*of, *known) == (shard, id))
    }
}

/// A moment at which a snapshot was in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sound {
    /// The number of the last that was condemned before.
    last: u64,
}

/// Every shard's, also those of other cores: pieces are served by whichever core is asked. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Stores {
    shards: Arc<BTreeMap<ShardId, SnapshotStore>>,
    /// Nobody gets any more of them.
    condemned: Arc<Mutex<Condemned>>,
}

impl Stores {
    /// Opens the directories of these shards after a start. An error is what the program would print.
    pub fn open(
        shards: impl Iterator<Item = ShardId>,
        disk_of: impl Fn(ShardId) -> io::Result<Arc<dyn Disk>>,
    ) -> Result<Stores, String> {
        let open = |shard: ShardId| {
            let disk = disk_of(shard).map_err(|error| format!("cannot use the snapshots of shard {shard}: {error}"))?;
            let store = SnapshotStore::open(disk, shard).map_err(|error| error.to_string())?;
            Ok((shard, store))
        };
        let shards = Arc::new(shards.map(open).collect::<Result<_, String>>()?);
        Ok(Stores { shards, condemned: Arc::default() })
    }

    /// The directory of a shard.
    #[must_use]
    pub fn get(&self, shard: ShardId) -> Option<&SnapshotStore> {
        self.shards.get(&shard)
    }

    /// The first sync of any of them that failed, in words.
    pub(super) fn failed_sync(&self) -> Option<String> {
        self.shards.values().find_map(SnapshotStore::failed_sync)
    }

    /// Nobody is to get any more of this snapshot, whichever core it asks and whoever has the file open.
    pub(super) fn condemn(&self, shard: ShardId, id: SnapshotId) {
        let mut condemned = self.condemned();
        if condemned.contains(shard, id) {
            return;
        }
        condemned.last += 1;
        let number = condemned.last;
        condemned.latest.push_back((number, shard, id));
        if condemned.latest.len() > CONDEMNED_MAX
            && let Some((number, ..)) = condemned.latest.pop_front()
        {
            condemned.forgotten = number;
        }
    }

    /// It was received anew.
    pub(super) fn acquit(&self, shard: ShardId, id: SnapshotId) {
        self.condemned().latest.retain(|(_, of, known)| (*of, *known) != (shard, id));
    }

    /// Whether nobody is to get any more of it.
    pub(super) fn is_condemned(&self, shard: ShardId, id: SnapshotId) -> bool {
        self.condemned().contains(shard, id)
    }

    /// The present moment, if it is one at which the snapshot is in order.
    pub(super) fn sound(&self, shard: ShardId, id: SnapshotId) -> Option<Sound> {
        let condemned = self.condemned();
        (!condemned.contains(shard, id)).then_some(Sound { last: condemned.last })
    }

    /// Whether everything that was condemned since then is remembered.
    pub(super) fn remembers(&self, since: Sound) -> bool {
        self.condemned().forgotten <= since.last
    }

    /// How many condemned snapshots are remembered.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.condemned().latest.len()
    }

    /// Whoever panicked left it whole.
    fn condemned(&self) -> MutexGuard<'_, Condemned> {
        self.condemned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
