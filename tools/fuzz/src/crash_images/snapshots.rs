//! Snapshots whose contents follow from their last entry, so that whoever finds one knows what must be in it.

use std::sync::Arc;

use raftkv::storage::simulated_disk::SimulatedDisk;
use raftkv::storage::snapshot::{Item, SnapshotError, SnapshotInfo, SnapshotReceiver, SnapshotStore, SnapshotWriter};
use raftkv_protocol::types::{EntryId, Index, ShardId};

use crate::random::{Random, mix};

type Owned = (Vec<u8>, Index, Vec<u8>);

fn items(shard: ShardId, at: EntryId) -> Vec<Owned> {
    let mut random = Random::new(mix(at.index.0 << 20 ^ at.term.0 << 4 ^ u64::from(shard.0)));
    let item = |number: usize| {
        // Most are short; some fill blocks and pieces of their own.
        let length = [20, 900, 5_000, 70_000, 150_000][random.below(5).min(random.below(6))];
        let word = random.next_u64().to_le_bytes();
        let value = (0..length).map(|byte| word[byte % 8].wrapping_add((byte / 512) as u8)).collect();
        (format!("{shard}/{number:03}").into_bytes(), Index(1 + number as u64), value)
    };
    (0..1 + (at.index.0 % 5) as usize).map(item).collect()
}

fn hash(at: EntryId) -> u128 {
    u128::from(mix(at.index.0)) << 64 | u128::from(at.term.0)
}

/// One that is being taken, some items at a time.
pub(super) struct Taking {
    pub(super) at: EntryId,
    writer: SnapshotWriter,
    left: std::vec::IntoIter<Owned>,
}

impl Taking {
    pub(super) fn begin(store: &SnapshotStore, shard: ShardId, at: EntryId) -> Result<Taking, SnapshotError> {
        let writer = store.create(at, b"hash", b"voters")?;
        Ok(Taking { at, writer, left: items(shard, at).into_iter() })
    }

    /// Whether nothing is left but to finish it.
    pub(super) fn is_whole(&self) -> bool {
        self.left.len() == 0
    }

    pub(super) fn step(&mut self) -> Result<(), SnapshotError> {
        match self.left.next() {
            Some((key, version, value)) => self.writer.push(Item { key: &key, version, value: &value }),
            None => Ok(()),
        }
    }

    pub(super) fn finish(self) -> Result<SnapshotInfo, SnapshotError> {
        self.writer.finish(hash(self.at), vec![(Index(1024), 5)])
    }
}

/// What a peer sends. It goes on after a crash.
#[derive(Clone)]
pub(super) struct Offer {
    pub(super) info: SnapshotInfo,
    bytes: Arc<Vec<u8>>,
}

impl Offer {
    /// A peer's snapshot.
    pub(super) fn new(shard: ShardId, at: EntryId, seed: u64) -> Offer {
        let disk = SimulatedDisk::new(seed);
        let store = SnapshotStore::open(Arc::new(disk.clone()), shard).expect("an empty disk");
        let mut taking = Taking::begin(&store, shard, at).expect("a healthy disk");
        while !taking.is_whole() {
            taking.step().expect("a healthy disk");
        }
        let info = taking.finish().expect("a healthy disk");
        let name = disk.names().pop().expect("one file");
        Offer { info, bytes: Arc::new(disk.bytes(&name)) }
    }
}

/// One that is being received, a chunk at a time.
pub(super) struct Receiving {
    pub(super) offer: Offer,
    receiver: SnapshotReceiver,
    /// Bytes of a chunk.
    chunk: usize,
    /// Where the next chunk begins; `None` until it is known.
    next: Option<u64>,
    /// How much an earlier process had received.
    pub(super) resumed: u64,
}

impl Receiving {
    pub(super) fn begin(store: &SnapshotStore, offer: Offer, chunk: usize) -> Result<Receiving, SnapshotError> {
        let receiver = store.receive(offer.info)?;
        Ok(Receiving { offer, receiver, chunk, next: None, resumed: 0 })
    }

    pub(super) fn is_whole(&self) -> bool {
        self.receiver.is_complete()
    }

    pub(super) fn step(&mut self) -> Result<(), SnapshotError> {
        let Some(offset) = self.next else {
            self.next = self.receiver.resume()?;
            self.resumed = self.next.unwrap_or(0);
            return Ok(());
        };
        let rest = &self.offer.bytes[offset as usize..];
        let chunk = &rest[..rest.len().min(self.chunk)];
        self.receiver.write(offset, chunk)?;
        self.next = Some(offset + chunk.len() as u64);
        Ok(())
    }

    pub(super) fn finish(self) -> Result<SnapshotInfo, SnapshotError> {
        self.receiver.finish()
    }
}

/// Reads a snapshot to its end: it must be whole, and hold what its last entry says.
pub(super) fn check(store: &SnapshotStore, shard: ShardId, at: EntryId) -> Result<SnapshotInfo, String> {
    let mut reader = store.read(at).map_err(|error| error.to_string())?;
    let mut expected = items(shard, at).into_iter();
    while let Some(block) = reader.next_items().map_err(|error| error.to_string())? {
        for item in block {
            let found = expected
                .next()
                .is_some_and(|(key, version, value)| (&*key, version, &*value) == (item.key, item.version, item.value));
            if !found {
                return Err(format!("the snapshot as of {at} of shard {shard} holds another item than was written"));
            }
        }
    }
    let footer = reader.footer().ok_or_else(|| format!("the snapshot as of {at} has no footer"))?;
    if expected.len() > 0 || footer.hash != hash(at) {
        return Err(format!("the snapshot as of {at} of shard {shard} lacks items, or has another footer"));
    }
    Ok(reader.info())
}
