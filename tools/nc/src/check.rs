//! Whether a node's data directory is what the node wrote: its identity, its logs and its snapshots, read-only.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

use raftkv::storage::blemish::Blemish;
use raftkv::storage::data_dir::{self, RecordedIdentity, ShardDamage};
use raftkv::storage::disk::RealDisk;
use raftkv::storage::segment::FileState;
use raftkv::storage::snapshot::{SnapshotStore, snapshot_name};
use raftkv::storage::{self, RecoveredShard};
use raftkv_protocol::types::{EntryId, ShardId};

use crate::run::Ending;
use crate::{log_dir as logs, snapshots};

/// Checks a data directory, and says of each part in one line what is to be said of it. Ends as failed if anything is not
/// what the node wrote, also where nothing was lost: whoever looks at the exit code only is to hear of a disk that rots.
///
/// # Errors
/// `out`'s.
pub fn run(dir: &Path, out: &mut dyn Write) -> io::Result<Ending> {
    let mut check =
        Check { out, right: 0, damaged: 0, blemishes: 0, starts: BTreeMap::new(), reached: BTreeMap::new() };
    let identity = check.identity(dir)?;
    check.logs(dir, identity.as_ref())?;
    check.snapshots(dir)?;
    check.starts()?;
    let Check { right, damaged, blemishes, .. } = check;
    out.flush()?;
    if damaged > 0 {
        eprintln!("raftkv-nc: {}: {damaged} of {} parts are damaged", dir.display(), right + damaged);
    }
    if blemishes > 0 {
        eprintln!(
            "raftkv-nc: {}: {blemishes} spots are not what was written; nothing is lost there, but the disk does not \
             keep what was written: replace it soon",
            dir.display()
        );
    }
    Ok(if damaged + blemishes == 0 { Ending::Done } else { Ending::Failed })
}

/// What was found so far, and where it is said.
pub(crate) struct Check<'o> {
    pub(crate) out: &'o mut dyn Write,
    pub(crate) right: u64,
    pub(crate) damaged: u64,
    /// Spots that are not what was written, though nothing is lost there.
    pub(crate) blemishes: u64,
    /// After which entry the log of each shard starts.
    pub(crate) starts: BTreeMap<ShardId, EntryId>,
    /// The newest right snapshot of each shard.
    pub(crate) reached: BTreeMap<ShardId, EntryId>,
}

impl Check<'_> {
    /// One line, for one part.
    fn say(&mut self, part: impl Display, verdict: Result<impl Display, impl Display>) -> io::Result<()> {
        match verdict {
            Ok(details) => {
                self.right += 1;
                writeln!(self.out, "{part}: right: {details}")
            }
            Err(reason) => {
                self.damaged += 1;
                writeln!(self.out, "{part}: DAMAGED: {reason}")
            }
        }
    }

    fn identity(&mut self, dir: &Path) -> io::Result<Option<RecordedIdentity>> {
        let read = data_dir::recorded_identity(dir).map_err(|error| error.to_string());
        let identity = read.and_then(|identity| identity.ok_or("it is missing: is this a data directory?".to_owned()));
        let details = identity.as_ref().map(|identity| {
            let RecordedIdentity { cluster, node, shards, cores, incarnation, .. } = identity;
            format!(
                "node {node} of cluster {cluster}, shards {shards}, cores {cores}, incarnation {:016x}",
                incarnation.0
            )
        });
        self.say(format_args!("identity {}", dir.join("identity").display()), details)?;
        let peers = data_dir::recorded_peers(dir).map(|peers| format!("{} on record", peers.len()));
        self.say(format_args!("peers {}", dir.join("peers").display()), peers)?;
        self.damage(dir)?;
        Ok(identity.ok())
    }

    /// What the node knows to have lost, if there is anything.
    fn damage(&mut self, dir: &Path) -> io::Result<()> {
        let part = format!("damage {}", dir.join("damage").display());
        match data_dir::recorded_damage(dir) {
            Ok(damage) => damage.iter().try_for_each(|(shard, found)| {
                let ShardDamage { since_s, what } = found;
                let details = format!("shard {shard} is being repaired, found {since_s} s after 1970: {what}");
                self.say(&part, Ok::<_, &str>(details))
            }),
            Err(error) => self.say(part, Err::<&str, _>(error)),
        }
    }

    fn logs(&mut self, dir: &Path, identity: Option<&RecordedIdentity>) -> io::Result<()> {
        let found = match identity {
            Some(identity) => (0..identity.cores).map(|core| identity.logs.join(format!("core-{core}"))).collect(),
            None if dir.join("logs").is_dir() => logs::find_logs(dir)?,
            None => Vec::new(),
        };
        let have_begun = identity.is_some_and(|identity| identity.logs_have_begun);
        for log in found {
            // A node that runs may let go of a segment between the listing and the reading.
            let checked = check_log(&log, have_begun).or_else(|_| check_log(&log, have_begun));
            let details = checked.as_ref().map(|(shards, _)| {
                let entries: usize = shards.values().map(|shard| shard.entries.len()).sum();
                format!("shards {}, entries {entries}", shards.len())
            });
            self.say(format_args!("log {}", log.display()), details)?;
            let (shards, blemishes) = checked.unwrap_or_default();
            for blemish in blemishes {
                self.blemishes += 1;
                writeln!(self.out, "log {}: BLEMISH: {blemish}", log.display())?;
            }
            self.starts.extend(shards.into_iter().map(|(shard, recovered)| (shard, recovered.start)));
        }
        Ok(())
    }

    fn snapshots(&mut self, dir: &Path) -> io::Result<()> {
        let dirs = match snapshots::find_dirs(dir) {
            Ok(dirs) => dirs,
            Err(error) => return self.say(format_args!("snapshots {}", dir.display()), Err::<&str, _>(error)),
        };
        for (shard, dir) in dirs {
            let store = snapshots::store(&dir, shard);
            let entries = match store.list() {
                Ok(entries) => entries,
                Err(error) => {
                    self.say(format_args!("snapshots {}", dir.display()), Err::<&str, _>(error))?;
                    continue;
                }
            };
            for at in entries {
                let verdict = check_snapshot(&store, at);
                if verdict.is_err() && store.list().is_ok_and(|entries| !entries.contains(&at)) {
                    // A node that runs has let go of it.
                    continue;
                }
                if verdict.is_ok() && self.reached.get(&shard).is_none_or(|reached| reached.index < at.index) {
                    self.reached.insert(shard, at);
                }
                self.say(format_args!("snapshot {}", dir.join(snapshot_name(at)).display()), verdict)?;
            }
        }
        Ok(())
    }

    /// What a shard's log no longer has must be in a snapshot.
    pub(crate) fn starts(&mut self) -> io::Result<()> {
        for (shard, start) in std::mem::take(&mut self.starts) {
            let reached = self.reached.get(&shard).map_or(EntryId::ZERO, |at| *at);
            if reached.index < start.index {
                let reason = format!("its log starts after {start}, and its newest right snapshot is as of {reached}");
                self.say(format_args!("shard {shard}"), Err::<&str, _>(reason))?;
            }
        }
        Ok(())
    }
}

/// What the log holds, and what is not as it was written though nothing was lost there.
fn check_log(dir: &Path, have_begun: bool) -> Result<(BTreeMap<ShardId, RecoveredShard>, Vec<Blemish>), String> {
    let is_segment = |name: &str| matches!(FileState::of(name), Some(FileState::Segment(_)));
    let has_segments = match dir.read_dir() {
        Ok(mut files) => files.any(|file| file.is_ok_and(|file| file.file_name().to_str().is_some_and(is_segment))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error.to_string()),
    };
    match (has_segments, have_begun) {
        (true, _) => storage::check_closely(&RealDisk::read_only(dir)).map_err(|error| error.to_string()),
        (false, true) => Err("the log is gone".into()),
        (false, false) => Ok(Default::default()),
    }
}

fn check_snapshot(store: &SnapshotStore, at: EntryId) -> Result<String, String> {
    let mut reader = store.read(at).map_err(|error| error.to_string())?;
    let footer = snapshots::check(&mut reader, |_| ())?;
    Ok(format!("as of {at}, {} keys, hash {:032x}", footer.items, footer.hash))
}
