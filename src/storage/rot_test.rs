//! A disk that has lost or changed what it held, and what may be written over what: a node with a shorter log than it
//! acknowledged must not start, and no byte that was acknowledged is in danger again.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::{io, mem};

use crossbeam_channel::bounded;
use raftkv_protocol::types::{Index, ShardId};

use super::batch::BLOCK_BYTES;
use super::conformance_test::entry;
use super::disk::{Access, Disk, DiskFile};
use super::segment::{BATCHES_AT, SegmentHeader};
use super::simulated_disk::{SimulatedDisk, Survivors};
use super::{CoreLog, Fetch, FetchError, Fetched, FileLog, LogError, Options, check_closely};

const A: ShardId = ShardId(0);

/// Opens a log on a disk, without anybody to be woken.
fn open(disk: Arc<dyn Disk>) -> Result<(FileLog, usize), LogError> {
    let options = Options {
        segment_size: 64 << 10,
        tail_bytes_max: 0,
        ..Options::new(Path::new("unused"), vec![A], Arc::new(|| {}))
    };
    FileLog::open_on(disk, options).map(|(log, recovered)| (log, recovered[0].entries.len()))
}

fn settle(log: &mut FileLog) {
    let last = log.last_batch();
    while log.durable().expect("the disk is healthy") < last {
        log.flush();
        std::thread::yield_now();
    }
}

/// Writes entries of 3,000 bytes, one batch each.
fn write(log: &mut FileLog, indexes: std::ops::RangeInclusive<u64>) {
    for index in indexes {
        log.append(A, &mut vec![entry(index, 1, &"x".repeat(3_000))]);
        settle(log);
    }
}

fn segments(disk: &SimulatedDisk) -> Vec<String> {
    disk.names().into_iter().filter(|name| name.starts_with("segment-")).collect()
}

/// A log of 40 entries over several segments, as it is found after the process was killed.
fn written() -> SimulatedDisk {
    let disk = SimulatedDisk::default();
    let (mut log, _) = open(Arc::new(disk.clone())).expect("an empty disk makes an empty log");
    write(&mut log, 1..=40);
    drop(log);
    assert!(segments(&disk).len() >= 3, "{:?}", disk.names());
    disk.crash(Survivors::None)
}

/// A log that is found shorter than it was forgets votes and acknowledged entries. The node must not start: it might
/// be elected, and make the others forget them too.
// museum 42, rule 12, rule 16
#[test]
fn a_segment_that_was_cut_off_anywhere_is_refused() {
    let disk = written();
    let intact = open(Arc::new(disk.fork())).expect("healthy").1;
    assert_eq!(intact, 40);
    let newest = segments(&disk).pop().expect("there are several");
    for segment in segments(&disk) {
        let whole = disk.bytes(&segment).len();
        for length in (0..whole).step_by(512).chain([whole - 1]) {
            let cut = disk.fork();
            cut.edit(&segment, |bytes| bytes.truncate(length));
            match open(Arc::new(cut)) {
                // Behind the end that its successor names there is nothing.
                Ok((_, entries)) => assert!(segment != newest && entries == 40, "{segment} cut to {length} bytes"),
                Err(LogError(line)) => {
                    assert!(line.contains(&format!("/simulated/{segment}")) && !line.contains('\n'), "{line}");
                }
            }
        }
    }
}

/// After a start the segment before the newest one ends where the newest one says.
// museum 42
#[test]
fn a_newest_segment_that_is_gone_is_missed() {
    let disk = written();
    let (mut log, _) = open(Arc::new(disk.clone())).expect("healthy");
    write(&mut log, 41..=42);
    drop(log);
    let newest = segments(&disk).pop().expect("there are several");
    disk.remove_quietly(&newest);
    let LogError(line) = open(Arc::new(disk.clone())).expect_err("entries 41 and 42 are gone");
    assert!(line.contains("restore the file"), "{line}");
}

/// Within one life of the process nothing shortens a segment: there it says itself that the log goes on.
// museum 42
#[test]
fn a_newest_segment_that_is_gone_before_the_next_start_is_missed() {
    let disk = written();
    let mut names = segments(&disk);
    let newest = names.pop().expect("there are several");
    disk.remove_quietly(&newest);
    let LogError(line) = open(Arc::new(disk.fork())).expect_err("what it held is gone");
    let expected = format!("/simulated/{newest} is missing, in which /simulated/{} goes on", names[names.len() - 1]);
    assert!(line.contains(&expected) && line.contains("restore the file") && !line.contains('\n'), "{line}");
    // All others of them have a successor that is not missed.
    disk.remove_quietly(&names.pop().expect("there are several"));
    open(Arc::new(disk.fork())).expect_err("what they held is gone");
}

/// An older version did not say so: there are zeros. So there are, or parts of it, where a crash came between.
#[test]
fn a_segment_need_not_say_that_the_log_goes_on() {
    let disk = written();
    let header = |name: &String| SegmentHeader::decode(&disk.bytes(name)).expect("a segment");
    for pair in segments(&disk).windows(2) {
        let cut = header(&pair[1]).predecessor.expect("it seals the one before").cut as usize;
        let block = &disk.bytes(&pair[0])[cut..cut + BLOCK_BYTES as usize];
        assert!(block.starts_with(b"RKVB"), "what says so lies at the cut");
        disk.edit(&pair[0], |bytes| bytes[cut..cut + BLOCK_BYTES as usize].fill(0));
    }
    let (shards, blemishes) = check_closely(&disk).expect("healthy");
    assert_eq!((shards[&A].entries.len(), blemishes), (40, Vec::new()));
    assert_eq!(open(Arc::new(disk)).expect("healthy").1, 40);
}

/// What the disk refuses to give is an error of the disk, and never an absence of entries.
// museum 14
#[test]
fn entries_that_cannot_be_read_are_an_error_and_not_gone() {
    let disk = SimulatedDisk::default();
    let (woken_in, woken) = bounded(1);
    let wake = Arc::new(move || {
        // A full channel wakes as well.
        let _ = woken_in.try_send(());
    });
    let options =
        Options { segment_size: 64 << 10, tail_bytes_max: 0, ..Options::new(Path::new("unused"), vec![A], wake) };
    let (mut log, _) = FileLog::open_on(Arc::new(disk.clone()), options).expect("healthy");
    write(&mut log, 1..=5);
    let fetch = |log: &mut FileLog| {
        log.fetch(Fetch { shard: A, tag: 1, first: Index(2), last: Index(4), bytes_max: usize::MAX });
        loop {
            if let Some(Fetched { result, .. }) = log.fetched() {
                return result;
            }
            woken.recv().expect("the reader wakes the loop");
        }
    };
    let segment = segments(&disk).pop().expect("a segment");
    disk.set_unreadable(&segment, true);
    let Err(FetchError::Corrupt(line)) = fetch(&mut log) else { panic!("the disk cannot be read") };
    assert!(line.contains(&format!("/simulated/{segment}")) && line.contains("entry 2"), "{line}");
    disk.set_unreadable(&segment, false);
    assert_eq!(fetch(&mut log).map(|entries| entries.len()), Ok(3), "once was an accident");
}

/// What a disk was asked to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Deed {
    Write { name: String, from: u64, to: u64 },
    Sync { name: String },
    Rename { from: String, to: String },
    SyncDir,
}

/// A disk that takes note of what is written where. A file keeps the name that it was opened with.
struct Watched {
    disk: SimulatedDisk,
    deeds: Arc<Mutex<Vec<Deed>>>,
}

struct WatchedFile {
    file: Box<dyn DiskFile>,
    name: String,
    deeds: Arc<Mutex<Vec<Deed>>>,
}

fn note(deeds: &Mutex<Vec<Deed>>, deed: Deed) {
    deeds.lock().expect("nobody panics with it").push(deed);
}

impl Disk for Watched {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str, size: u64) -> io::Result<()> {
        self.disk.create(name, size)
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let file = self.disk.open(name, access)?;
        Ok(Box::new(WatchedFile { file, name: name.to_owned(), deeds: Arc::clone(&self.deeds) }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        note(&self.deeds, Deed::Rename { from: from.to_owned(), to: to.to_owned() });
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn truncate(&self, name: &str, size: u64) -> io::Result<()> {
        self.disk.truncate(name, size)
    }

    fn sync_dir(&self) -> io::Result<()> {
        note(&self.deeds, Deed::SyncDir);
        self.disk.sync_dir()
    }

    fn failed_sync(&self) -> Option<String> {
        self.disk.failed_sync()
    }

    fn fresh_id(&self) -> io::Result<u128> {
        self.disk.fresh_id()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }

    fn path(&self, name: &str) -> String {
        self.disk.path(name)
    }
}

impl DiskFile for WatchedFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let to = offset + bytes.len() as u64;
        note(&self.deeds, Deed::Write { name: self.name.clone(), from: offset, to });
        self.file.write_at(offset, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()?;
        note(&self.deeds, Deed::Sync { name: self.name.clone() });
        Ok(())
    }
}

/// The order in which one segment's file was written, synced and named.
fn check_segment(deeds: &[Deed], spare: &str) {
    let is_it = |deed: &&Deed| match deed {
        Deed::Write { name, .. } | Deed::Sync { name } => name == spare,
        Deed::Rename { from, .. } => from == spare,
        Deed::SyncDir => true,
    };
    let (mut end, mut unsynced, mut named) = (0, 0, false);
    let mut header_written = false;
    for deed in deeds.iter().filter(is_it) {
        match deed {
            // The header comes last, before the file gets its name; then nothing before the end is touched again.
            Deed::Write { from: 0, to, .. } => {
                assert!(!mem::replace(&mut header_written, true) && *to == BATCHES_AT, "{spare}: a second header");
                unsynced += 1;
            }
            Deed::Write { from, to, .. } => {
                assert!(from % BLOCK_BYTES == 0 && to % BLOCK_BYTES == 0, "{spare}: {from} to {to}");
                assert!(*from >= end.max(BATCHES_AT), "{spare}: {from} to {to} was written before");
                assert!(!header_written || unsynced == 0, "{spare}: a batch was placed before the last was durable");
                (end, unsynced) = (*to, unsynced + 1);
            }
            Deed::Sync { .. } => unsynced = 0,
            Deed::Rename { .. } => {
                assert!(header_written && unsynced == 0, "{spare}: named before its beginning was durable");
                named = true;
            }
            Deed::SyncDir => {}
        }
    }
    assert!(named && unsynced == 0 && end > BATCHES_AT, "{spare}: {end}");
}

// rule 11
#[test]
fn no_acknowledged_byte_is_written_again_and_no_batch_overtakes_a_sync() {
    let disk = SimulatedDisk::default();
    let deeds = Arc::new(Mutex::new(Vec::new()));
    for life in 0..3 {
        let watched = Watched { disk: disk.clone(), deeds: Arc::clone(&deeds) };
        let (mut log, entries) = open(Arc::new(watched)).expect("healthy");
        assert_eq!(entries as u64, 30 * life);
        write(&mut log, 30 * life + 1..=30 * life + 30);
        log.close().expect("healthy");
    }
    let deeds = deeds.lock().expect("nobody panics with it");
    let named = |deed: &Deed| match deed {
        Deed::Rename { from, to } if to.starts_with("segment-") => Some(from.clone()),
        _ => None,
    };
    let spares: Vec<String> = deeds.iter().filter_map(named).collect();
    assert!(spares.len() > 6, "{spares:?}");
    spares.iter().for_each(|spare| check_segment(&deeds, spare));
    // A name is durable before anything else is written behind it.
    for (at, deed) in deeds.iter().enumerate() {
        if named(deed).is_some() {
            let next = deeds[at + 1..].iter().find(|deed| matches!(deed, Deed::SyncDir | Deed::Write { .. }));
            assert_eq!(next, Some(&Deed::SyncDir), "{deed:?}");
        }
    }
}
