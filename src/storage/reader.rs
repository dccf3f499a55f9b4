//! The reader: brings back entries that are no longer in memory.
//!
//! It reads from the files, never through a map, and checks the checksum of every record that it meets. Of a batch that
//! was written since the start it reads the bytes that hold the shard's entries, of others all: the shards of a core
//! share its batches, and followers that lag want them one shard at a time.
//!
//! What it reads may be let go meanwhile: the file may be gone, or be another segment already. Then it finds no file, or
//! another sequence number in it, or checksums that do not match, as they cover the segment's id; it never takes other
//! bytes for those that it wants. The loop knows which fetches that is no error for. After each job all files are closed,
//! so that those which are gone take no space.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use raftkv_protocol::types::{Entry, ShardId};

use super::batch::{self, BLOCK_BYTES, BatchHeader, Records};
use super::disk::{Access, Disk, DiskFile};
use super::given::{read_again, read_given};
use super::record::Record;
use super::runs::{Extent, Part};
use super::segment::{self, SegmentHeader, SegmentKey, segment_name};
use super::syncer::Place;
use super::{Fetch, FetchError, Fetched, Wake};

/// Segments kept open for reading.
const OPEN_SEGMENTS_MAX: usize = 4;

/// What to read, in order: of each batch the entries of the shard that are wanted.
#[derive(Debug)]
pub(super) struct FetchJob {
    /// The loop's name for it.
    pub(super) id: u64,
    pub(super) fetch: Fetch,
    pub(super) parts: Vec<Part<Place>>,
}

/// The answer to a [`FetchJob`].
#[derive(Debug)]
pub(super) struct FetchAnswer {
    pub(super) id: u64,
    pub(super) fetched: Fetched,
}

/// Answers fetches, on a thread of its own or by hand.
pub(super) struct ReaderWorker {
    segments: Segments,
    jobs: Receiver<FetchJob>,
    fetched: Sender<FetchAnswer>,
    wake: Wake,
}

impl ReaderWorker {
    /// Works until the loop is gone.
    fn run(mut self) {
        while let Ok(job) = self.jobs.recv() {
            self.work(&job);
        }
    }

    pub(super) fn can_work(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// The next job, if one waits.
    pub(super) fn next(&self) -> Option<FetchJob> {
        self.jobs.try_recv().ok()
    }

    pub(super) fn work(&mut self, FetchJob { id, fetch, parts }: &FetchJob) {
        let result = self.segments.read(fetch, parts).map_err(FetchError::Corrupt);
        self.segments.open.clear();
        // The loop may be gone already; then nobody waits for the answer.
        let _ = self.fetched.send(FetchAnswer { id: *id, fetched: Fetched { fetch: *fetch, result } });
        (self.wake)();
    }
}

/// The loop's side of a [`ReaderWorker`]. If that has a thread, it ends when this is dropped.
pub(super) struct Reader {
    jobs: Option<Sender<FetchJob>>,
    fetched: Receiver<FetchAnswer>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    pub(super) fn new(disk: Arc<dyn Disk>, wake: Wake) -> (Reader, ReaderWorker) {
        let (jobs, jobs_out) = unbounded();
        let (fetched_in, fetched) = unbounded();
        let segments = Segments::new(disk, Care::Whole);
        let worker = ReaderWorker { segments, jobs: jobs_out, fetched: fetched_in, wake };
        (Reader { jobs: Some(jobs), fetched, thread: None }, worker)
    }

    /// Gives the worker a thread.
    pub(super) fn spawn(&mut self, worker: ReaderWorker) -> io::Result<()> {
        let thread = thread::Builder::new().name("log-reader".to_owned()).spawn(move || worker.run())?;
        self.thread = Some(thread);
        Ok(())
    }

    pub(super) fn fetch(&self, job: FetchJob) {
        let jobs = self.jobs.as_ref().expect("the channel is closed only on drop");
        // The thread is gone only if it panicked, which was printed; the fetch is then never answered.
        let _ = jobs.send(job);
    }

    pub(super) fn fetched(&self) -> Option<FetchAnswer> {
        self.fetched.try_recv().ok()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed already.
            let _ = thread.join();
        }
    }
}

struct OpenSegment {
    sequence: u64,
    key: SegmentKey,
    file: Box<dyn DiskFile>,
}

/// How much of a batch must be right, so that it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Care {
    /// All of it that is read: a later record may discard what an earlier one says. What lies elsewhere in the batch has
    /// nothing to say about a run whose extent is known.
    Whole,
    /// What comes before the first damaged record. For whoever knows that the rest does not count.
    Sound,
}

/// Reads entries from where they are.
pub(super) struct Segments {
    disk: Arc<dyn Disk>,
    care: Care,
    /// The latest used last.
    open: VecDeque<OpenSegment>,
}

impl Segments {
    pub(super) fn new(disk: Arc<dyn Disk>, care: Care) -> Segments {
        Segments { disk, care, open: VecDeque::new() }
    }

    /// The entries that a fetch wants; these are the places of all of them.
    pub(super) fn read(&mut self, fetch: &Fetch, parts: &[Part<Place>]) -> Result<Vec<Entry>, String> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for part in parts {
            for entry in self.read_part(fetch.shard, part)? {
                bytes += entry.body.len();
                if bytes > fetch.bytes_max && !entries.is_empty() {
                    return Ok(entries);
                }
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    fn read_part(&mut self, shard: ShardId, part: &Part<Place>) -> Result<Vec<Entry>, String> {
        let Place { segment, offset } = part.at;
        let care = self.care;
        let path = self.disk.path(&segment_name(segment));
        let explain = |what: &str| {
            format!("cannot read the log {path} at offset {offset}: {what} (entry {} of shard {shard})", part.first)
        };
        let open = self.segment(segment).map_err(|error| explain(&error.to_string()))?;
        let (header, bytes) = read_records(&*open.file, open.key, offset, part.extent, care)
            .map_err(|error| explain(&error.to_string()))?;
        let mut entries = BTreeMap::new();
        for record in Records::within(&header, open.key, &bytes) {
            if record.is_err() && care == Care::Sound {
                break;
            }
            match record.map_err(|damage| explain(&damage.what.to_string()))?.1 {
                Record::Entry { shard: of, id, kind, body } if of == shard => {
                    // An entry discards what the same batch held from its index on.
                    while entries.last_key_value().is_some_and(|(last, _)| *last >= id.index) {
                        entries.pop_last();
                    }
                    entries.insert(id.index, Entry { id, kind, body: bytes.slice_ref(body) });
                }
                Record::Copy { shard: of, id, kind, body } if of == shard => {
                    entries.insert(id.index, Entry { id, kind, body: bytes.slice_ref(body) });
                }
                _ => {}
            }
        }
        entries.retain(|index, _| part.first <= *index && *index <= part.last);
        if entries.len() as u64 != part.last.0 - part.first.0 + 1 {
            return Err(explain("a batch lacks entries that it held"));
        }
        Ok(entries.into_values().collect())
    }

    fn segment(&mut self, sequence: u64) -> io::Result<&OpenSegment> {
        let found = self.open.iter().position(|open| open.sequence == sequence);
        let open = match found.and_then(|at| self.open.remove(at)) {
            Some(open) => open,
            None => self.open_segment(sequence)?,
        };
        if self.open.len() == OPEN_SEGMENTS_MAX {
            self.open.pop_front();
        }
        self.open.push_back(open);
        Ok(&self.open[self.open.len() - 1])
    }

    fn open_segment(&self, sequence: u64) -> io::Result<OpenSegment> {
        let file = self.disk.open(&segment_name(sequence), Access::Read)?;
        let mut bytes = [0; segment::HEADER_BYTES];
        let length = read_again(&*file, 0, &mut bytes)?;
        let header = SegmentHeader::decode(&bytes[..length]).map_err(|bad| io::Error::other(bad.to_string()))?;
        if header.sequence != sequence {
            return Err(io::Error::other(format!("the segment's header has sequence number {}", header.sequence)));
        }
        Ok(OpenSegment { sequence, key: header.key, file })
    }
}

/// The header of a batch, and of its records the bytes that hold a run.
fn read_records(
    file: &dyn DiskFile,
    key: SegmentKey,
    at: u64,
    extent: Extent,
    care: Care,
) -> io::Result<(BatchHeader, Bytes)> {
    let mut block = [0; BLOCK_BYTES as usize];
    let read = |at, buffer: &mut [u8]| match care {
        Care::Whole => read_again(file, at, buffer),
        Care::Sound => read_given(file, at, buffer, |_, _| {}),
    };
    let first = if extent == Extent::WHOLE { block.len() } else { batch::HEADER_BYTES };
    let length = read(at, &mut block[..first])?;
    let header = BatchHeader::decode(&block[..length], key, at)
        .ok_or_else(|| io::Error::other("the header of a batch is damaged"))?;
    let wanted = extent.within(header.record_range());
    let in_block = block[..length].get(wanted.start..wanted.end.min(length)).unwrap_or_default();
    let mut bytes = vec![0; wanted.len()];
    let mut length = in_block.len();
    bytes[..length].copy_from_slice(in_block);
    length += read(at + (wanted.start + length) as u64, &mut bytes[length..])?;
    if length != bytes.len() {
        return Err(io::Error::other("the file ends inside a batch"));
    }
    Ok((header, Bytes::from(bytes)))
}
