//! Writes logs anew: for another number of cores, or because one of them is damaged.
//!
//! Every core has a log of its own, and shard *s* belongs to core *s* mod cores. The new logs are written beside the old
//! ones, made durable and read back; only then may the data directory switch to them. The old logs are opened as a
//! start opens them, and lose nothing; a damaged one is only read. Whatever happens before the switch, the next start
//! finds them.
//!
//! No thread is involved, and no loop runs yet.

use std::path::Path;
use std::sync::Arc;

use raftkv_protocol::types::{Entry, EntryId, Index, ShardId};

use super::disk::{Disk, RealDisk};
use super::salvage::Salvage;
use super::{CoreLog, Fetch, FetchError, FileLog, LogError, LogSync, Options, RecoveredShard, Workers, recovery};

/// Bodies that are copied at a time.
const PIECE_BYTES: usize = 4 << 20;

/// A damaged log, of which only a part was written anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SalvagedLog {
    /// Its shards: each may have lost entries and votes.
    pub shards: Vec<ShardId>,
    /// What is wrong with it, in one line that names the place.
    pub damage: String,
}

/// A log with no thread.
struct Hand {
    disk: Arc<dyn Disk>,
    shards: Vec<ShardId>,
    log: FileLog,
    workers: Workers,
}

/// Where shards come from.
trait Source {
    /// Entries of a shard from `fetch.first` on, at least one.
    fn read(&mut self, fetch: Fetch) -> Result<Vec<Entry>, LogError>;
}

/// Copies every shard from the logs that hold it to the one that is to hold it. Both lists name all shards. The new
/// logs must not exist yet; they are durable, and say what the old ones said, when this returns.
pub fn move_shards(from: Vec<Options>, to: Vec<Options>) -> Result<(), LogError> {
    move_between(from.into_iter().map(on_disk), to.into_iter().map(on_disk))
}

/// The same on any disks; the directories in the options do not matter.
pub(super) fn move_between(
    from: impl Iterator<Item = Result<OnDisk, LogError>>,
    to: impl Iterator<Item = Result<OnDisk, LogError>>,
) -> Result<(), LogError> {
    let mut new = create_all(to)?;
    let mut moved = Vec::new();
    for on_disk in from {
        let (disk, options) = on_disk?;
        let (mut old, recovered) = Hand::open(disk, options)?;
        let shards = old.shards.clone();
        copy_all(&mut old, &shards, recovered, &mut new, &mut moved)?;
    }
    finish(new, &moved)
}

/// The same, but of a damaged log only what is sound is copied: see `salvage.rs`. Tells which logs those
/// were. What they held must not be let go before it is on durable record that their shards have forgotten something.
pub fn salvage_shards(from: Vec<Options>, to: Vec<Options>) -> Result<Vec<SalvagedLog>, LogError> {
    let mut new = create_all(to.into_iter().map(on_disk))?;
    let mut moved = Vec::new();
    let mut salvaged = Vec::new();
    for options in from {
        let (disk, options) = on_disk(options)?;
        salvaged.extend(salvage_into(disk, options, &mut new, &mut moved)?);
    }
    finish(new, &moved)?;
    Ok(salvaged)
}

/// The same for one log, on any disks; the directory in `options` does not matter. `None`: the log was not damaged, and
/// all of it was copied.
pub fn salvage_log(from: Arc<dyn Disk>, to: Arc<dyn Disk>, options: Options) -> Result<Option<SalvagedLog>, LogError> {
    let mut new = vec![Hand::open(to, options.clone())?.0];
    let mut moved = Vec::new();
    let salvaged = salvage_into(from, options, &mut new, &mut moved)?;
    finish(new, &moved)?;
    Ok(salvaged)
}

fn salvage_into(
    disk: Arc<dyn Disk>,
    options: Options,
    new: &mut [Hand],
    moved: &mut Vec<(ShardId, RecoveredShard)>,
) -> Result<Option<SalvagedLog>, LogError> {
    let shards = options.shards.clone();
    let unopened = match Hand::open(Arc::clone(&disk), options) {
        Ok((mut old, recovered)) => {
            copy_all(&mut old, &shards, recovered, new, moved)?;
            return Ok(None);
        }
        Err(error) => error,
    };
    let Some((mut salvage, recovered)) = Salvage::of(&disk, &shards)? else { return Err(unopened) };
    let damage = salvage.damage.clone();
    copy_all(&mut salvage, &shards, recovered, new, moved)?;
    Ok(Some(SalvagedLog { shards, damage }))
}

/// A log's disk, and what it is to be like.
pub(super) type OnDisk = (Arc<dyn Disk>, Options);

fn on_disk(options: Options) -> Result<OnDisk, LogError> {
    let disk = RealDisk::create(&options.dir, options.io).map_err(|error| unusable(&options.dir, &error))?;
    Ok((Arc::new(disk), options))
}

fn create_all(logs: impl Iterator<Item = Result<OnDisk, LogError>>) -> Result<Vec<Hand>, LogError> {
    logs.map(|on_disk| on_disk.and_then(|(disk, options)| Hand::open(disk, options)).map(|(hand, _)| hand)).collect()
}

impl Hand {
    fn open(disk: Arc<dyn Disk>, options: Options) -> Result<(Hand, Vec<RecoveredShard>), LogError> {
        let shards = options.shards.clone();
        // What was copied is durable and never asked for again.
        let options = Options { tail_bytes_max: 0, sync: LogSync::Thread, ..options };
        let (log, recovered, workers) = FileLog::open_by_hand(Arc::clone(&disk), options)?;
        Ok((Hand { disk, shards, log, workers }, recovered))
    }

    /// Makes everything durable that was added.
    fn settle(&mut self) -> Result<(), LogError> {
        self.log.flush();
        while self.log.durable()? < self.log.last_batch() {
            if self.workers.can_sync() {
                self.workers.sync();
            } else if !self.workers.allocate() {
                return Err(LogError(format!(
                    "no room to write the logs anew in {}: free space, or start with the old --cores if they are others",
                    self.disk.path("")
                )));
            }
            self.log.flush();
        }
        Ok(())
    }
}

impl Source for Hand {
    fn read(&mut self, fetch: Fetch) -> Result<Vec<Entry>, LogError> {
        let Fetch { shard, first, .. } = fetch;
        self.log.fetch(fetch);
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
}

impl Source for Salvage {
    fn read(&mut self, fetch: Fetch) -> Result<Vec<Entry>, LogError> {
        Salvage::read(self, &fetch)
    }
}

fn copy_all(
    source: &mut dyn Source,
    shards: &[ShardId],
    recovered: Vec<RecoveredShard>,
    new: &mut [Hand],
    moved: &mut Vec<(ShardId, RecoveredShard)>,
) -> Result<(), LogError> {
    for (&shard, recovered) in shards.iter().zip(recovered) {
        let Some(target) = new.iter_mut().find(|hand| hand.shards.contains(&shard)) else {
            return Err(LogError(format!("no new log is meant for shard {shard}")));
        };
        copy(source, shard, &recovered, target)?;
        log::info!("moved shard {shard} to {}: {} entries", target.disk.path(""), recovered.entries.len());
        moved.push((shard, recovered));
    }
    Ok(())
}

fn copy(source: &mut dyn Source, shard: ShardId, recovered: &RecoveredShard, new: &mut Hand) -> Result<(), LogError> {
    new.log.set_hard_state(shard, recovered.hard_state);
    if recovered.start != EntryId::ZERO {
        new.log.reset(shard, recovered.start, recovered.snapshot);
    }
    let last = Index(recovered.start.index.0 + recovered.entries.len() as u64);
    let mut first = recovered.start.index.next();
    while first <= last {
        let mut entries = source.read(Fetch { shard, tag: 0, first, last, bytes_max: PIECE_BYTES })?;
        first = Index(first.0 + entries.len() as u64);
        new.log.append(shard, &mut entries);
        new.settle()?;
    }
    new.settle()
}

/// Closes the new logs. What they say of their shards must be what was to be copied.
fn finish(new: Vec<Hand>, moved: &[(ShardId, RecoveredShard)]) -> Result<(), LogError> {
    for hand in new {
        let Hand { disk, shards, log, .. } = hand;
        log.close()?;
        read_back(&*disk, &shards, moved)?;
    }
    Ok(())
}

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
