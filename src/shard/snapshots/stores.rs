//! The directories of snapshots of a node, by shard.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raftkv_protocol::types::{ShardId, SnapshotId};

use crate::storage::disk::Disk;
use crate::storage::snapshot::SnapshotStore;

/// Every shard's, also those of other cores: pieces are served by whichever core is asked. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Stores {
    shards: Arc<BTreeMap<ShardId, SnapshotStore>>,
    /// Not what was written, or not what it should be: nobody gets any more of them.
    condemned: Arc<Mutex<BTreeSet<(ShardId, SnapshotId)>>>,
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

    /// Nobody is to get any more of this snapshot, whichever core it asks and whoever has the file open.
    pub(super) fn condemn(&self, shard: ShardId, id: SnapshotId) {
        self.condemned().insert((shard, id));
    }

    /// It was received anew.
    pub(super) fn acquit(&self, shard: ShardId, id: SnapshotId) {
        self.condemned().remove(&(shard, id));
    }

    /// Whether nobody is to get any more of it.
    pub(super) fn is_condemned(&self, shard: ShardId, id: SnapshotId) -> bool {
        self.condemned().contains(&(shard, id))
    }

    /// Whoever panicked left it whole.
    fn condemned(&self) -> MutexGuard<'_, BTreeSet<(ShardId, SnapshotId)>> {
        self.condemned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
