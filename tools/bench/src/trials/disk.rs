//! What lies in a node's data directory, by the names that `docs/operations.md` gives.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Bytes of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) logs: u64,
    pub(crate) snapshots: u64,
}

/// What a node's files take now.
pub(crate) fn taken(data_dir: &Path) -> Taken {
    let total = |files: Vec<(PathBuf, Metadata)>| files.iter().map(|(_, metadata)| metadata.len()).sum();
    Taken { logs: total(files(&data_dir.join("logs"))), snapshots: total(files(&data_dir.join("snapshots"))) }
}

/// How many logs the node has: one for each core.
pub(crate) fn cores(data_dir: &Path) -> usize {
    let names = entries(&data_dir.join("logs")).into_iter();
    names.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core-"))).count()
}

/// Files that came into being since the first look: segments filled ahead, and snapshots.
#[derive(Clone, Debug, Default)]
pub(crate) struct Births {
    /// By device, inode and birth: a segment that is used again keeps all three.
    segments: BTreeMap<(u64, u64, Option<SystemTime>), u64>,
    snapshots: BTreeMap<PathBuf, u64>,
    old_segments: BTreeSet<(u64, u64, Option<SystemTime>)>,
    old_snapshots: BTreeSet<PathBuf>,
}

impl Births {
    /// What is there already is none of it.
    pub(crate) fn since(data_dir: &Path) -> Births {
        let mut births = Births::default();
        births.look(data_dir);
        births.old_segments = births.segments.keys().copied().collect();
        births.old_snapshots = births.snapshots.keys().cloned().collect();
        births
    }

    /// Remembers what is there now.
    pub(crate) fn look(&mut self, data_dir: &Path) {
        for (path, metadata) in files(&data_dir.join("logs")) {
            // One that is still being filled counts when it is whole.
            if !name_begins(&path, "allocating-") {
                let identity = (metadata.dev(), metadata.ino(), metadata.created().ok());
                self.segments.insert(identity, metadata.len());
            }
        }
        for (path, metadata) in files(&data_dir.join("snapshots")) {
            if name_begins(&path, "snapshot-") {
                self.snapshots.insert(path, metadata.len());
            }
        }
    }

    /// Bytes of new segments' files.
    pub(crate) fn segment_bytes(&self) -> u64 {
        let new = self.segments.iter().filter(|(identity, _)| !self.old_segments.contains(identity));
        new.map(|(_, bytes)| bytes).sum()
    }

    /// How many new snapshots were seen, and their bytes.
    pub(crate) fn snapshots(&self) -> (u64, u64) {
        let new = self.snapshots.iter().filter(|(path, _)| !self.old_snapshots.contains(*path));
        new.fold((0, 0), |(count, sum), (_, bytes)| (count + 1, sum + bytes))
    }
}

fn name_begins(path: &Path, prefix: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
}

/// Every file of the directories in `dir`. What vanishes meanwhile is not there.
fn files(dir: &Path) -> Vec<(PathBuf, Metadata)> {
    let paths = entries(dir).into_iter().flat_map(|inner| entries(&inner));
    paths.filter_map(|path| fs::metadata(&path).ok().map(|metadata| (path, metadata))).collect()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).map_or_else(|_| Vec::new(), |found| found.flatten().map(|entry| entry.path()).collect())
}
