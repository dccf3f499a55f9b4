//! Moves shards to other logs when a node is started with another number of cores.
//!
//! Every core has a log of its own, and shard *s* belongs to core *s* mod cores. The new logs are written beside the old
//! ones, made durable and read back; only then may the data directory switch to them. The old logs are opened as a
//! start opens them, and lose nothing: whatever happens before the switch, the next start finds them.
//!
//! No thread is involved, and no loop runs yet.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use raftkv_protocol::types::{EntryId, Index, ShardId};

use super::disk::{Disk, RealDisk};
use super::{CoreLog, Fetch, FetchError, FileLog, LogError, Options, RecoveredShard, Workers, recovery};

/// Bodies that are copied at a time.
const PIECE_BYTES: usize = 4 << 20;

/// A log with no thread.
struct Hand {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    shards: Vec<ShardId>,
    log: FileLog,
    workers: Workers,
}

/// Copies every shard from the logs that hold it to the one that is to hold it. Both lists name all shards. The new
/// logs must not exist yet; they are durable, and say what the old ones said, when this returns.
pub fn move_shards(from: Vec<Options>, to: Vec<Options>) -> Result<(), LogError> {
    let mut new: Vec<Hand> =
        to.into_iter().map(|options| Hand::open(options).map(|(hand, _)| hand)).collect::<Result<_, _>>()?;
    let mut moved = Vec::new();
    for options in from {
        let (mut old, recovered) = Hand::open(options)?;
        for (shard, recovered) in old.shards.clone().into_iter().zip(recovered) {
            let Some(target) = new.iter_mut().find(|hand| hand.shards.contains(&shard)) else {
                return Err(LogError(format!("no new log is meant for shard {shard}")));
            };
            copy(&mut old, shard, &recovered, target)?;
            log::info!("moved shard {shard} to {}: {} entries", target.dir.display(), recovered.entries.len());
            moved.push((shard, recovered));
        }
    }
    for hand in new {
        let Hand { disk, shards, log, .. } = hand;
        log.close()?;
        read_back(&*disk, &shards, &moved)?;
    }
    Ok(())
}

impl Hand {
    fn open(options: Options) -> Result<(Hand, Vec<RecoveredShard>), LogError> {
        let (dir, shards) = (options.dir.clone(), options.shards.clone());
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::create(&dir, options.io).map_err(|error| unusable(&dir, &error))?);
        // What was copied is durable and never asked for again.
        let options = Options { tail_bytes_max: 0, ..options };
        let (log, recovered, workers) = FileLog::open_by_hand(Arc::clone(&disk), options)?;
        Ok((Hand { dir, disk, shards, log, workers }, recovered))
    }

    /// Entries of a shard from `first` on, at least one.
    fn read(
        &mut self,
        shard: ShardId,
        first: Index,
        last: Index,
    ) -> Result<Vec<raftkv_protocol::types::Entry>, LogError> {
        self.log.fetch(Fetch { shard, tag: 0, first, last, bytes_max: PIECE_BYTES });
        loop {
            if let Some(fetched) = self.log.fetched() {
                return fetched.result.map_err(|error| match error {
                    FetchError::Corrupt(what) => LogError(what),
                    FetchError::Gone => LogError(format!("entry {first} of shard {shard} is not in its log")),
                });
            }
            self.workers.read();
        }
    }

    /// Makes everything durable that was added.
    fn settle(&mut self) -> Result<(), LogError> {
        self.log.flush();
        while self.log.durable()? < self.log.last_batch() {
            if self.workers.can_sync() {
                self.workers.sync();
            } else if !self.workers.allocate() {
                return Err(LogError(format!(
                    "no room for the logs of another number of cores in {}: free space, or start with the old --cores",
                    self.dir.display()
                )));
            }
            self.log.flush();
        }
        Ok(())
    }
}

fn copy(old: &mut Hand, shard: ShardId, recovered: &RecoveredShard, new: &mut Hand) -> Result<(), LogError> {
    new.log.set_hard_state(shard, recovered.hard_state);
    if recovered.start != EntryId::ZERO {
        new.log.reset(shard, recovered.start, recovered.snapshot);
    }
    let last = Index(recovered.start.index.0 + recovered.entries.len() as u64);
    let mut first = recovered.start.index.next();
    while first <= last {
        let mut entries = old.read(shard, first, last)?;
        first = Index(first.0 + entries.len() as u64);
        new.log.append(shard, &mut entries);
        new.settle()?;
    }
    new.settle()
}

/// What the new log says of its shards is what the old ones said.
fn read_back(disk: &dyn Disk, shards: &[ShardId], moved: &[(ShardId, RecoveredShard)]) -> Result<(), LogError> {
    let mut found = recovery::check(disk)?;
    for (shard, was) in moved.iter().filter(|(shard, _)| shards.contains(shard)) {
        let is = found.remove(shard).unwrap_or_default();
        if is != *was {
            return Err(LogError(format!(
                "the copy of shard {shard} in {} is not what was written: check the disk; the old logs are untouched",
                disk.path("")
            )));
        }
    }
    Ok(())
}

fn unusable(dir: &Path, error: &std::io::Error) -> LogError {
    LogError(format!("cannot use the log directory {}: {error}", dir.display()))
}
