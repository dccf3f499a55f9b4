//! A node's snapshots for people, read from its files: while the node runs, or after.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raftkv::state_machine::state_hash::{FORMAT, ItemsHash};
use raftkv::storage::disk::RealDisk;
use raftkv::storage::snapshot::{Footer, Header, Item, SnapshotReader, SnapshotStore, VERSION, snapshot_name};
use raftkv_protocol::client as wire;
use raftkv_protocol::types::ShardId;

use crate::print;
use crate::run::Ending;
use crate::words::escape;

/// The directory of a data directory that holds one directory of snapshots for each shard.
const SNAPSHOTS: &str = "snapshots";

/// Whether the items are printed too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    Summary,
    Items,
}

/// Prints and checks the snapshot in a file, or all of a directory: a node's data directory, or the directory of one
/// shard's snapshots.
///
/// # Errors
/// `out`'s.
pub fn print(path: &Path, show: Show, out: &mut dyn Write) -> io::Result<Ending> {
    let files = match find_files(path) {
        Ok(files) if files.is_empty() => {
            Err("no snapshot is there; name a file, a data directory or its snapshots/shard-N".into())
        }
        found => found.map_err(|error| error.to_string()),
    };
    let files = match files {
        Ok(files) => files,
        Err(reason) => {
            eprintln!("raftkv-nc: {}: {reason}", path.display());
            return Ok(Ending::Failed);
        }
    };
    let mut ending = Ending::Done;
    for file in files {
        if let Err(reason) = print_file(&file, show, out)? {
            out.flush()?;
            eprintln!("raftkv-nc: {reason}");
            ending = Ending::Failed;
        }
    }
    out.flush()?;
    Ok(ending)
}

/// The directories of the shards' snapshots in a data directory, in the order of the shards.
pub fn find_dirs(data_dir: &Path) -> io::Result<Vec<(ShardId, PathBuf)>> {
    let mut dirs = Vec::new();
    let listed = match data_dir.join(SNAPSHOTS).read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(dirs),
        listed => listed?,
    };
    for entry in listed {
        let path = entry?.path();
        let shard = path.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_prefix("shard-")?.parse().ok());
        dirs.extend(shard.map(|shard| (shard, path)));
    }
    dirs.sort();
    Ok(dirs)
}

/// The directory of one shard's snapshots.
#[must_use]
pub fn store(dir: &Path, shard: ShardId) -> SnapshotStore {
    SnapshotStore::read_only(Arc::new(RealDisk::read_only(dir)), shard)
}

fn find_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.metadata()?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut dirs = find_dirs(path)?;
    if dirs.is_empty() {
        // Whose it is says each file; here only the names count.
        dirs.push((ShardId(0), path.to_owned()));
    }
    let mut files = Vec::new();
    for (shard, dir) in dirs {
        let entries = store(&dir, shard).list().map_err(io::Error::other)?;
        files.extend(entries.into_iter().rev().map(|at| dir.join(snapshot_name(at))));
    }
    Ok(files)
}

/// The inner error is the snapshot's, the outer one `out`'s.
fn print_file(path: &Path, show: Show, out: &mut dyn Write) -> io::Result<Result<(), String>> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(name) = path.file_name().and_then(OsStr::to_str) else {
        return Ok(Err(format!("{}: no snapshot has such a name", path.display())));
    };
    let mut reader = match SnapshotReader::open(&RealDisk::read_only(dir), name) {
        Ok(reader) => reader,
        Err(error) => return Ok(Err(error.to_string())),
    };
    print_header(&reader, out)?;
    let mut printed = Ok(());
    let checked = check(&mut reader, |item| {
        if show == Show::Items && printed.is_ok() {
            printed = print_item(&item, out);
        }
    });
    printed?;
    match checked {
        Ok(footer) => print_footer(&footer, out).map(Ok),
        Err(reason) => Ok(Err(reason)),
    }
}

/// Reads a snapshot to its end, and compares everything that can be compared.
pub fn check(reader: &mut SnapshotReader, mut each: impl FnMut(Item<'_>)) -> Result<Footer, String> {
    let Header { hash_format, .. } = reader.header();
    if hash_format != FORMAT {
        let (found, known) = (escape(hash_format), escape(FORMAT));
        return Err(format!("{}: the state hash has the format '{found}', this tool knows '{known}'", reader.path()));
    }
    let mut hash = ItemsHash::default();
    while let Some(items) = reader.next_items().map_err(|error| error.to_string())? {
        for item in items {
            hash.add(item.key, item.version, item.value);
            each(item);
        }
    }
    let footer = reader.footer().cloned().ok_or_else(|| format!("{}: it has no footer", reader.path()))?;
    match hash.value() {
        found if found == footer.hash => Ok(footer),
        found => {
            let says = footer.hash;
            Err(format!("{}: its items make up the state hash {found:032x}, and it says {says:032x}", reader.path()))
        }
    }
}

fn print_header(reader: &SnapshotReader, out: &mut dyn Write) -> io::Result<()> {
    let Header { id, shard, at, hash_format, configuration } = reader.header();
    writeln!(out, "snapshot {} {} bytes", reader.path(), reader.info().bytes)?;
    let (format, configuration) = (escape(hash_format), configuration.len());
    writeln!(out, "  shard {shard} as of {at} id {id} format {VERSION}, {format}, configuration {configuration} bytes")
}

fn print_item(item: &Item<'_>, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "    ")?;
    print::item(out, &wire::Item { key: item.key, version: item.version, value: item.value })
}

fn print_footer(footer: &Footer, out: &mut dyn Write) -> io::Result<()> {
    for (index, hash) in &footer.checkpoints {
        writeln!(out, "  hash after {index}: {hash:032x}")?;
    }
    let Footer { items, bytes, hash, .. } = footer;
    writeln!(out, "  {items} keys, {bytes} bytes of keys and values, hash {hash:032x}: all of it is right")
}
