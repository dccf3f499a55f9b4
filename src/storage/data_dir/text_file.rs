//! The small files of a data directory that a person may read: durable, versioned, checksummed text.
//!
//! ```text
//! raftkv identity 1          what it is, and the version of its format
//! name = value               one line each, in any order; unknown names are skipped
//! crc = 89abcdef             the CRC-32 (IEEE) of every byte before this line
//! ```
//!
//! A file is written beside its place, synced and renamed, and the directory is synced: after a crash there is the
//! old file or the new one, whole.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use crate::error::Fatal;

const VERSION: u32 = 1;
const CRC: &str = "crc = ";

/// The values of a file by name; neither holds a line break.
pub(super) type Fields = BTreeMap<String, String>;

/// Why a text is no file of this kind.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ParseError {
    /// Written by a later version.
    Newer(u32),
    /// Something is wrong with it.
    Damaged(&'static str),
}

/// Reads a file; `None` if there is none.
pub(super) fn read(path: &Path, kind: &str) -> Result<Option<Fields>, Fatal> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Fatal::failure(format!("cannot read {}: {error}", path.display()))),
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged(path, &"it is no text"))?;
    match parse(kind, text) {
        Ok(fields) => Ok(Some(fields)),
        Err(ParseError::Damaged(why)) => Err(damaged(path, &why)),
        Err(ParseError::Newer(version)) => Err(Fatal::failure(format!(
            "{} has format version {version}, this server knows up to {VERSION}: start the version that wrote it",
            path.display()
        ))),
    }
}

/// The refusal of a file whose content cannot be what was written.
pub(super) fn damaged(path: &Path, why: &dyn Display) -> Fatal {
    Fatal::failure(format!("{} is damaged ({why}): restore it from a backup", path.display()))
}

/// Replaces a file. It is durable when this returns.
pub(super) fn write(path: &Path, kind: &str, fields: &Fields) -> Result<(), Fatal> {
    let cannot = |error: io::Error| Fatal::failure(format!("cannot write {}: {error}", path.display()));
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary).map_err(cannot)?;
    file.write_all(render(kind, fields).as_bytes()).map_err(cannot)?;
    sync(&file, path)?;
    fs::rename(&temporary, path).map_err(cannot)?;
    sync_parent(path)
}

/// Makes the directory entry of `path` durable.
pub(super) fn sync_parent(path: &Path) -> Result<(), Fatal> {
    let parent = parent(path);
    let open = File::open(parent);
    let dir = open.map_err(|error| Fatal::failure(format!("cannot open {}: {error}", parent.display())))?;
    sync(&dir, parent)
}

fn sync(file: &File, path: &Path) -> Result<(), Fatal> {
    file.sync_all().map_err(|error| {
        let words = format!("cannot sync {}: {error}; check the disk, then start the node again", path.display());
        let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if is_full { Fatal::failure(words) } else { Fatal::failed_sync(words) }
    })
}

/// The directory that holds `path`.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        None => Path::new("/"),
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
    }
}

fn render(kind: &str, fields: &Fields) -> String {
    let mut text = format!("raftkv {kind} {VERSION}\n");
    for (name, value) in fields {
        writeln!(text, "{name} = {value}").expect("writing to a string does not fail");
    }
    let crc = crc32fast::hash(text.as_bytes());
    writeln!(text, "{CRC}{crc:08x}").expect("writing to a string does not fail");
    text
}

pub(super) fn parse(kind: &str, text: &str) -> Result<Fields, ParseError> {
    let (head, _) = text.split_once('\n').ok_or(ParseError::Damaged("it ends in its first line"))?;
    let version = head.strip_prefix("raftkv ").and_then(|head| head.strip_prefix(kind));
    let version = version.and_then(|version| version.trim_start().parse::<u32>().ok());
    match version {
        None | Some(0) => return Err(ParseError::Damaged("its first line is wrong")),
        Some(VERSION) => {}
        Some(version) => return Err(ParseError::Newer(version)),
    }
    let body = text.strip_suffix('\n').and_then(|text| text.rsplit_once('\n'));
    let (before, last) = body.ok_or(ParseError::Damaged("it ends too early"))?;
    let crc = crc32fast::hash(&text.as_bytes()[..before.len() + 1]);
    if last != format!("{CRC}{crc:08x}") {
        return Err(ParseError::Damaged("its checksum is wrong"));
    }
    before
        .lines()
        .skip(1)
        .map(|line| line.split_once(" = ").map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect::<Option<Fields>>()
        .ok_or(ParseError::Damaged("a line is no `name = value`"))
}
