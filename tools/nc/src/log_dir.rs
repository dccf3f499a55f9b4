//! A node's log for people, read from its files: while the node runs, or after.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use raftkv::state_machine;
use raftkv::storage::batch::BatchHeader;
use raftkv::storage::data_dir::recorded_identity;
use raftkv::storage::inspect::{End, Item, inspect};
use raftkv::storage::record::Record;
use raftkv::storage::segment::SegmentHeader;
use raftkv_protocol::types::EntryKind;

use crate::run::Ending;

/// The directory of a data directory that holds one log for each core.
const LOGS: &str = "logs";

/// Prints the logs in `dir`: a node's data directory, or the directory of one core's log.
///
/// # Errors
/// `out`'s.
pub fn print(dir: &Path, out: &mut dyn Write) -> io::Result<Ending> {
    let logs = match find_logs(dir) {
        Ok(logs) => logs,
        Err(error) => return Ok(fail(dir, &error.to_string())),
    };
    let mut found = Found::default();
    for log in logs {
        if let Err(error) = print_log(&log, &mut found, out)? {
            return Ok(fail(&log, &error.to_string()));
        }
    }
    out.flush()?;
    match found {
        Found { segments: 0, .. } => {
            Ok(fail(dir, "no segment of a log is there; name a node's data directory or one of its logs/core-N"))
        }
        Found { damaged: 0, .. } => Ok(Ending::Done),
        Found { damaged, .. } => {
            let what =
                format!("{damaged} spots of the log are DAMAGED; `raftkv-nc check` says what a start makes of it");
            Ok(fail(dir, &what))
        }
    }
}

fn fail(dir: &Path, reason: &str) -> Ending {
    eprintln!("raftkv-nc: {}: {reason}", dir.display());
    Ending::Failed
}

/// Of a data directory the logs of its cores, in the order of the cores; otherwise the directory itself.
pub fn find_logs(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let logs = recorded_identity(dir).ok().flatten().map_or_else(|| dir.join(LOGS), |identity| identity.logs);
    if !logs.is_dir() {
        return Ok(vec![dir.to_owned()]);
    }
    let mut cores: Vec<PathBuf> =
        logs.read_dir()?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    // core-10 comes after core-9.
    cores.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
    Ok(cores)
}

/// What was printed.
#[derive(Default)]
struct Found {
    segments: usize,
    /// Places where something was that is not there any more.
    damaged: usize,
}

/// Prints one log. The inner error is the log's, the outer one `out`'s.
fn print_log(dir: &Path, found: &mut Found, out: &mut dyn Write) -> io::Result<io::Result<()>> {
    let mut printed = Ok(());
    let walked = inspect(dir, |item| {
        found.segments += usize::from(matches!(item, Item::Segment { .. } | Item::End { offset: 0, .. }));
        found.damaged += usize::from(matches!(item, Item::End { is_damage: true, .. }));
        printed = print_item(&item, out);
        if printed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    printed?;
    Ok(walked)
}

fn print_item(item: &Item<'_>, out: &mut dyn Write) -> io::Result<()> {
    match item {
        Item::Segment { path, header } => print_segment(path, header, out),
        Item::Batch { header } => print_batch(header, out),
        Item::Record { offset, record } => {
            write!(out, "    {offset:>10} ")?;
            print_record(record, out)
        }
        Item::Blemish(blemish) => writeln!(out, "BLEMISH: {blemish}; nothing is lost there"),
        Item::End { path, offset, reason, is_damage } => {
            let what = if *is_damage { "DAMAGED, end of" } else { "end of" };
            let reason = match reason {
                End::Sealed => "the next segment goes on from here".into(),
                End::NoBatch => "no batch follows".into(),
                End::Damaged(damage) => match damage.entry {
                    Some((shard, id)) => format!("{}, in what seems to be entry {id} of shard {shard}", damage.what),
                    None => damage.what.to_string(),
                },
                End::Unreadable(error) => error.clone(),
                End::Missing(last) => format!("it is missing, and so are all up to segment {last}"),
            };
            writeln!(out, "{what} {path} at {offset}: {reason}")
        }
    }
}

fn print_segment(path: &str, header: &SegmentHeader, out: &mut dyn Write) -> io::Result<()> {
    let SegmentHeader { key, sequence, size, .. } = header;
    write!(out, "segment {sequence} {path} {size} bytes id {} epoch {}", key.id, key.epoch)?;
    match &header.predecessor {
        Some(seal) => writeln!(out, " after segment {} cut at {}", seal.sequence, seal.cut),
        None => writeln!(out, " the first"),
    }
}

fn print_batch(header: &BatchHeader, out: &mut dyn Write) -> io::Result<()> {
    let BatchHeader { number, start, durable_upto, length, .. } = header;
    writeln!(out, "  batch {number} at {start} {length} bytes, durable up to {durable_upto}")
}

fn print_record(record: &Record<'_>, out: &mut dyn Write) -> io::Result<()> {
    match record {
        Record::Entry { shard, id, kind, body } => {
            writeln!(out, "shard {shard} entry {id} {}", describe(*kind, body))
        }
        Record::Copy { shard, id, kind, body } => {
            writeln!(out, "shard {shard} copy of entry {id} {}", describe(*kind, body))
        }
        Record::Copied { shard, first, last } => {
            writeln!(out, "shard {shard} copied: the entries {first} to {last} are their copies now")
        }
        Record::HardState { shard, hard_state } => {
            let vote = hard_state.vote.map_or("none".into(), |node| node.to_string());
            writeln!(out, "shard {shard} hard state term {} vote {vote}", hard_state.term)
        }
        Record::Reset { shard, start, snapshot } => {
            writeln!(out, "shard {shard} reset, its log starts after {start}, snapshot {snapshot}")
        }
        Record::Restate { shard, state } => {
            let vote = state.hard_state.vote.map_or("none".into(), |node| node.to_string());
            let term = state.hard_state.term;
            writeln!(
                out,
                "shard {shard} restated: term {term} vote {vote} start {} last {} snapshot {}",
                state.start, state.last, state.snapshot
            )
        }
        Record::Watermark => writeln!(out, "watermark"),
        Record::Reused => writeln!(out, "the file was in use before"),
        Record::Continued { sequence, .. } => writeln!(out, "the log goes on in segment {sequence}"),
        Record::Seal(seal) => writeln!(out, "seal of segment {} at {}", seal.sequence, seal.cut),
    }
}

fn describe(kind: EntryKind, body: &[u8]) -> String {
    match kind {
        EntryKind::Noop => "no-op".to_owned(),
        EntryKind::Command => state_machine::describe(body),
        EntryKind::Configuration => format!("configuration ({} bytes)", body.len()),
    }
}
