//! The directories of snapshots of a node, by shard.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use raftkv_protocol::types::ShardId;

use crate::storage::disk::Disk;
use crate::storage::snapshot::SnapshotStore;

/// Every shard's, also those of other cores: pieces are served by whichever core is asked. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Stores(Arc<BTreeMap<ShardId, SnapshotStore>>);

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
        Ok(Stores(Arc::new(shards.map(open).collect::<Result<_, String>>()?)))
    }

    /// The directory of a shard.
    #[must_use]
    pub fn get(&self, shard: ShardId) -> Option<&SnapshotStore> {
        self.0.get(&shard)
    }
}
