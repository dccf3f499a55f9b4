//! What every [`CoreLog`] must do: one suite, run over the log on disk and the log in memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, bounded};
use raftkv_protocol::types::{Entry, EntryId, EntryKind, HardState, Index, NodeId, ShardId, SnapshotId, Term};
use tempfile::TempDir;

use super::memory::Completion;
use super::simulated_disk::{SimulatedDisk, Survivors};
use super::{
    BatchNumber, CoreLog, Fetch, FetchError, Fetched, FileLog, LogIo, LogSync, MemoryLog, Options, RecoveredShard,
    Space, Workers,
};

const A: ShardId = ShardId(0);
const B: ShardId = ShardId(7);
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn entry(index: u64, term: u64, body: &str) -> Entry {
    Entry { id: EntryId::new(index, term), kind: EntryKind::Command, body: Bytes::copy_from_slice(body.as_bytes()) }
}

pub(super) fn hard_state(term: u64, vote: u64) -> HardState {
    HardState { term: Term(term), vote: (vote != 0).then_some(NodeId(vote)) }
}

/// A kind of log, and what it takes to let it live and die.
trait Subject {
    type Log: CoreLog;

    fn log(&mut self) -> &mut Self::Log;
    /// Lets time pass until the log may have something new to say.
    fn wait(&mut self);
    /// Ends the process without notice, and starts it again.
    fn crash(&mut self) -> Vec<RecoveredShard>;
    /// Makes `tail` forget the durable entries of a shard up to here.
    fn evict(&mut self, shard: ShardId, upto: Index);

    /// From how many batches a fetch reads at most.
    fn fetch_batches_max(&self) -> u64;

    fn append(&mut self, shard: ShardId, entries: &[Entry]) {
        self.log().append(shard, &mut entries.to_vec());
    }

    /// Makes everything added so far durable.
    fn settle(&mut self) {
        let last = self.log().last_batch();
        loop {
            self.log().flush();
            if self.log().durable().expect("the disk is healthy") >= last {
                return;
            }
            self.wait();
        }
    }

    fn fetch(&mut self, first: u64, last: u64, bytes_max: usize) -> Fetched {
        self.log().fetch(Fetch { shard: A, tag: 9, first: Index(first), last: Index(last), bytes_max });
        loop {
            if let Some(fetched) = self.log().fetched() {
                return fetched;
            }
            self.wait();
        }
    }

    fn tail(&mut self, first: u64, last: u64) -> Option<Vec<Entry>> {
        self.log().tail(A, Index(first), Index(last)).map(|entries| entries.cloned().collect())
    }
}

struct Memory(Option<MemoryLog>);

impl Subject for Memory {
    type Log = MemoryLog;

    fn fetch_batches_max(&self) -> u64 {
        u64::MAX
    }

    fn log(&mut self) -> &mut MemoryLog {
        self.0.as_mut().expect("alive")
    }

    fn wait(&mut self) {
        panic!("a memory log has nothing to wait for");
    }

    fn crash(&mut self) -> Vec<RecoveredShard> {
        let (log, recovered) = self.0.take().expect("alive").crash();
        self.0 = Some(log);
        recovered
    }

    fn evict(&mut self, shard: ShardId, upto: Index) {
        self.log().evict(shard, upto);
    }
}

struct Files {
    dir: TempDir,
    io: LogIo,
    sync: LogSync,
    log: Option<FileLog>,
    woken: Receiver<()>,
}

impl Files {
    fn new(io: LogIo, sync: LogSync) -> Files {
        let dir = tempfile::tempdir().expect("a directory");
        let mut files = Files { dir, io, sync, log: None, woken: bounded(1).1 };
        assert_eq!(files.open(), vec![RecoveredShard::default(); 2]);
        files
    }

    fn open(&mut self) -> Vec<RecoveredShard> {
        let (wake, woken) = bounded(1);
        self.woken = woken;
        let wake = Arc::new(move || {
            // A full channel wakes as well.
            let _ = wake.try_send(());
        });
        let mut options = Options::new(self.dir.path(), vec![A, B], wake);
        options.segment_size = 64 << 10;
        options.tail_bytes_max = 0;
        (options.io, options.sync) = (self.io, self.sync);
        let (log, recovered) = FileLog::open(options).expect("a healthy log opens");
        self.log = Some(log);
        recovered
    }
}

impl Subject for Files {
    type Log = FileLog;

    fn fetch_batches_max(&self) -> u64 {
        1_024
    }

    fn log(&mut self) -> &mut FileLog {
        self.log.as_mut().expect("alive")
    }

    fn wait(&mut self) {
        if !self.log().sync_inline(Instant::now()) {
            self.woken.recv_timeout(PATIENCE).expect("the log's threads wake the loop");
        }
    }

    fn crash(&mut self) -> Vec<RecoveredShard> {
        self.log = None;
        self.open()
    }

    fn evict(&mut self, _shard: ShardId, _upto: Index) {
        // With no memory for a tail, everything durable is evicted.
    }
}

/// The log on disk, moved by hand, on a disk that loses all that it may.
struct ByHand {
    disk: SimulatedDisk,
    sync: LogSync,
    log: Option<(FileLog, Workers)>,
}

impl ByHand {
    fn new(sync: LogSync) -> ByHand {
        let mut by_hand = ByHand { disk: SimulatedDisk::new(5), sync, log: None };
        assert_eq!(by_hand.open(), vec![RecoveredShard::default(); 2]);
        by_hand
    }

    fn open(&mut self) -> Vec<RecoveredShard> {
        let mut options = Options::new("unused", vec![A, B], Arc::new(|| {}));
        options.segment_size = 64 << 10;
        options.tail_bytes_max = 0;
        options.sync = self.sync;
        let opened = FileLog::open_by_hand(Arc::new(self.disk.clone()), options);
        let (log, recovered, workers) = opened.expect("a healthy log opens");
        self.log = Some((log, workers));
        recovered
    }
}

impl Subject for ByHand {
    type Log = FileLog;

    fn fetch_batches_max(&self) -> u64 {
        1_024
    }

    fn log(&mut self) -> &mut FileLog {
        &mut self.log.as_mut().expect("alive").0
    }

    fn wait(&mut self) {
        let (log, workers) = self.log.as_mut().expect("alive");
        if log.sync_inline(Instant::now()) {
            return;
        }
        if workers.can_sync() {
            workers.sync();
        } else if workers.can_read() {
            workers.read();
        } else {
            assert!(workers.can_allocate(), "a log that waits has something to do");
            assert!(workers.allocate(), "there is space");
        }
    }

    fn crash(&mut self) -> Vec<RecoveredShard> {
        self.log = None;
        self.disk.crash_in_place(Survivors::None);
        self.open()
    }

    fn evict(&mut self, _shard: ShardId, _upto: Index) {
        // With no memory for a tail, everything durable is evicted.
    }
}

fn starts_empty(log: &mut impl Subject) {
    assert_eq!(log.log().last_batch(), BatchNumber(0));
    assert_eq!(log.log().durable(), Ok(BatchNumber(0)));
    assert_eq!(log.log().space(), Space::Plenty);
    assert_eq!(log.tail(1, 1), None);
    assert_eq!(log.tail(1, 0), Some(Vec::new()), "an empty range is always there");
    log.log().flush();
    assert_eq!(log.log().last_batch(), BatchNumber(0), "flushing nothing makes no batch");
}

/// What a leader may take in is bounded by this when its disk hangs.
fn counts_what_is_not_durable(log: &mut impl Subject) {
    assert_eq!(log.log().backlog_bytes(), 0);
    log.append(A, &[entry(1, 1, "one")]);
    let one = log.log().backlog_bytes();
    assert!(one >= "one".len(), "{one}");
    log.append(A, &[entry(2, 1, "two")]);
    assert!(log.log().backlog_bytes() > one);
    log.settle();
    assert_eq!(log.log().backlog_bytes(), 0, "all of it is durable");
}

fn serves_what_is_not_durable_from_memory(log: &mut impl Subject) {
    let entries = [entry(1, 1, "one"), entry(2, 1, ""), entry(3, 1, "three")];
    log.append(A, &entries);
    assert_eq!(log.tail(1, 3), Some(entries.to_vec()));
    assert_eq!(log.tail(2, 3), Some(entries[1..].to_vec()));
    assert_eq!(log.tail(2, 4), None, "entry 4 does not exist");
    assert_eq!(log.tail(0, 2), None, "entry 0 does not exist");
    let batch = log.log().last_batch();
    assert!(log.log().durable().expect("healthy") < batch, "nothing was flushed");
    log.settle();
    assert!(log.log().durable().expect("healthy") >= batch);
}

fn remembers_what_is_durable(log: &mut impl Subject) {
    log.append(A, &[entry(1, 1, "a"), entry(2, 1, "bb")]);
    log.log().set_hard_state(A, hard_state(1, 0));
    log.append(B, &[entry(1, 4, "other shard")]);
    log.log().set_hard_state(B, hard_state(4, 2));
    log.settle();
    log.log().set_hard_state(A, hard_state(2, 3));
    log.log().set_hard_state(A, hard_state(5, 1));
    log.settle();
    let entries = vec![(Term(1), 1), (Term(1), 2)];
    let a = RecoveredShard { hard_state: hard_state(5, 1), entries, ..RecoveredShard::default() };
    let entries = vec![(Term(4), 11)];
    let b = RecoveredShard { hard_state: hard_state(4, 2), entries, ..RecoveredShard::default() };
    assert_eq!(log.crash(), [a.clone(), b.clone()]);
    assert_eq!(log.crash(), [a, b], "recovery loses nothing either");
}

fn forgets_what_was_never_flushed(log: &mut impl Subject) {
    log.append(A, &[entry(1, 1, "durable")]);
    log.settle();
    log.append(A, &[entry(2, 1, "lost")]);
    log.log().set_hard_state(A, hard_state(9, 9));
    let recovered = log.crash();
    assert_eq!(recovered[0].entries, [(Term(1), 7)]);
    assert_eq!(recovered[0].hard_state, HardState::default());
}

fn an_entry_discards_what_was_there(log: &mut impl Subject) {
    log.append(A, &[entry(1, 1, "1"), entry(2, 1, "2"), entry(3, 1, "3"), entry(4, 1, "4")]);
    log.settle();
    log.append(A, &[entry(2, 2, "two")]);
    assert_eq!(log.tail(2, 2), Some(vec![entry(2, 2, "two")]));
    assert_eq!(log.tail(2, 3), None, "entries behind the new one are gone");
    log.append(A, &[entry(3, 3, "three")]);
    log.append(A, &[entry(3, 4, "III")]);
    log.settle();
    assert_eq!(log.crash()[0].entries, [(Term(1), 1), (Term(2), 3), (Term(4), 3)]);
    let fetched = log.fetch(1, 3, usize::MAX).result.expect("all there");
    assert_eq!(fetched, [entry(1, 1, "1"), entry(2, 2, "two"), entry(3, 4, "III")]);
}

fn fetches_what_left_the_memory(log: &mut impl Subject) {
    for index in 1..=20 {
        log.append(A, &[entry(index, 1, "0123456789")]);
        log.append(B, &[entry(index, 2, "not asked for")]);
        if index % 3 == 0 {
            log.settle();
        }
    }
    log.settle();
    log.evict(A, Index(20));
    assert_eq!(log.tail(5, 6), None);
    let all: Vec<Entry> = (1..=20).map(|index| entry(index, 1, "0123456789")).collect();
    let fetched = log.fetch(1, 20, usize::MAX);
    assert_eq!(fetched.fetch.tag, 9);
    assert_eq!(fetched.result.as_deref(), Ok(&all[..]));
    assert_eq!(log.fetch(5, 20, 30).result.as_deref(), Ok(&all[4..7]), "as many as fit");
    assert_eq!(log.fetch(5, 20, 0).result.as_deref(), Ok(&all[4..5]), "at least one");
    assert_eq!(log.fetch(21, 22, 10).result, Err(FetchError::Gone));
    assert_eq!(log.fetch(0, 3, 10).result, Err(FetchError::Gone));
}

/// It brings what comes first, however much is asked for.
fn a_fetch_reads_from_so_many_batches_and_no_more(log: &mut impl Subject) {
    for index in 1..=1_100 {
        log.append(A, &[entry(index, 1, "v")]);
        log.settle();
    }
    log.evict(A, Index(1_100));
    let fetched = log.fetch(1, 1_100, usize::MAX).result.expect("all there");
    let last = fetched.last().expect("at least one").id.index;
    assert_eq!(last.0, log.fetch_batches_max().min(1_100));
    assert_eq!(fetched.len() as u64, last.0);
    let rest = log.fetch(last.0 + 1, 1_100, usize::MAX).result.unwrap_or_default();
    assert_eq!(fetched.len() + rest.len(), 1_100);
}

fn a_fetch_of_discarded_entries_is_gone(log: &mut impl Subject) {
    log.append(A, &[entry(1, 1, "1"), entry(2, 1, "2"), entry(3, 1, "3")]);
    log.settle();
    log.evict(A, Index(3));
    log.log().fetch(Fetch { shard: A, tag: 1, first: Index(1), last: Index(3), bytes_max: 100 });
    log.append(A, &[entry(2, 5, "new")]);
    let fetched = loop {
        match log.log().fetched() {
            Some(fetched) => break fetched,
            None => log.wait(),
        }
    };
    assert_eq!(fetched.result, Err(FetchError::Gone));
    log.settle();
    assert_eq!(log.fetch(1, 2, 100).result, Ok(vec![entry(1, 1, "1"), entry(2, 5, "new")]));
}

fn a_fetch_is_gone_if_its_entries_go_before_it_is_picked_up(log: &mut impl Subject) {
    log.append(A, &[entry(1, 1, "1"), entry(2, 1, "2"), entry(3, 1, "3")]);
    log.log().fetch(Fetch { shard: A, tag: 1, first: Index(1), last: Index(3), bytes_max: 100 });
    log.append(A, &[entry(3, 2, "III")]);
    assert_eq!(log.log().fetched().map(|fetched| fetched.result), Some(Err(FetchError::Gone)));
}

/// Entries 1 to 20 of 10 bytes each, durable, the odd ones in batches of their own.
fn twenty(log: &mut impl Subject) -> Vec<Entry> {
    let all: Vec<Entry> = (1..=20).map(|index| entry(index, 3, "0123456789")).collect();
    for two in all.chunks(2) {
        log.append(A, two);
        log.settle();
    }
    all
}

/// What a crash finds of a log of twenty entries that was compacted up to `start`: it may begin earlier.
fn check_compacted(recovered: &RecoveredShard, start: u64, last: u64) {
    assert!(recovered.start.index.0 <= start, "{recovered:?}");
    assert_eq!(recovered.start.index.0 + recovered.entries.len() as u64, last, "{recovered:?}");
    let snapshot = if recovered.start.index.0 == start { SnapshotId(77) } else { SnapshotId(0) };
    assert!(recovered.start.index.0 == 0 || recovered.snapshot == snapshot, "{recovered:?}");
}

fn a_compacted_log_starts_later(log: &mut impl Subject) {
    let all = twenty(log);
    log.log().compact(A, EntryId::new(12, 3), SnapshotId(77));
    let last = log.log().last_batch();
    assert_eq!(log.log().durable(), Ok(last), "nothing is written for it");
    assert_eq!(log.fetch(12, 20, usize::MAX).result, Err(FetchError::Gone));
    assert_eq!(log.tail(12, 20), None);
    assert_eq!(log.fetch(13, 20, usize::MAX).result.as_deref(), Ok(&all[12..]));
    log.log().compact(A, EntryId::new(5, 3), SnapshotId(76));
    assert_eq!(log.fetch(12, 12, usize::MAX).result, Err(FetchError::Gone), "it never starts earlier again");
    log.append(A, &[entry(20, 4, "new"), entry(21, 4, "")]);
    log.settle();
    check_compacted(&log.crash()[0], 12, 21);
    let fetched = log.fetch(13, 21, usize::MAX).result.expect("all that is needed is there");
    assert_eq!((&fetched[..7], &fetched[7..]), (&all[12..19], &[entry(20, 4, "new"), entry(21, 4, "")][..]));
}

fn a_log_may_be_compacted_to_its_end(log: &mut impl Subject) {
    twenty(log);
    log.log().compact(A, EntryId::new(20, 3), SnapshotId(77));
    assert_eq!(log.fetch(20, 20, 1).result, Err(FetchError::Gone));
    log.append(A, &[entry(21, 5, "next")]);
    assert_eq!(log.tail(21, 21), Some(vec![entry(21, 5, "next")]));
    log.settle();
    assert_eq!(log.fetch(21, 21, 1).result, Ok(vec![entry(21, 5, "next")]));
    check_compacted(&log.crash()[0], 20, 21);
}

fn a_fetch_of_compacted_entries_is_gone(log: &mut impl Subject) {
    let all = twenty(log);
    log.evict(A, Index(20));
    for (first, is_gone) in [(5, true), (9, false)] {
        log.log().fetch(Fetch { shard: A, tag: first, first: Index(first), last: Index(12), bytes_max: 100 });
        log.log().compact(A, EntryId::new(8, 3), SnapshotId(77));
        let fetched = loop {
            match log.log().fetched() {
                Some(fetched) => break fetched,
                None => log.wait(),
            }
        };
        let expected = if is_gone { Err(FetchError::Gone) } else { Ok(all[8..12].to_vec()) };
        assert_eq!(fetched.result, expected);
    }
}

fn a_reset_voids_what_was_there(log: &mut impl Subject) {
    twenty(log);
    log.append(B, &[entry(1, 1, "another shard")]);
    log.log().set_hard_state(A, hard_state(6, 2));
    log.append(A, &[entry(21, 4, "never durable")]);
    log.log().fetch(Fetch { shard: A, tag: 1, first: Index(21), last: Index(21), bytes_max: 100 });
    log.log().reset(A, EntryId::new(100, 5), SnapshotId(9));
    assert_eq!(log.log().fetched().map(|fetched| fetched.result), Some(Err(FetchError::Gone)));
    assert_eq!(log.fetch(1, 20, usize::MAX).result, Err(FetchError::Gone));
    assert_eq!(log.tail(100, 100), None);
    log.append(A, &[entry(101, 6, "first"), entry(102, 6, "second")]);
    log.settle();
    let expected = RecoveredShard {
        hard_state: hard_state(6, 2),
        start: EntryId::new(100, 5),
        snapshot: SnapshotId(9),
        entries: vec![(Term(6), 5), (Term(6), 6)],
    };
    let recovered = log.crash();
    assert_eq!(recovered[0], expected);
    assert_eq!(recovered[1].entries, [(Term(1), 13)]);
    assert_eq!(log.crash()[0], expected);
    assert_eq!(log.fetch(101, 102, 100).result, Ok(vec![entry(101, 6, "first"), entry(102, 6, "second")]));
}

fn a_reset_that_is_not_durable_leaves_what_was_there(log: &mut impl Subject) {
    twenty(log);
    log.log().reset(A, EntryId::new(7, 3), SnapshotId(9));
    log.append(A, &[entry(8, 6, "new")]);
    assert_eq!(log.crash()[0].entries.len(), 20);
    log.log().reset(A, EntryId::new(7, 3), SnapshotId(9));
    log.settle();
    let recovered = &log.crash()[0];
    assert_eq!((recovered.start, recovered.entries.len()), (EntryId::new(7, 3), 0), "also backwards");
}

fn copying_forward_changes_nothing_else(log: &mut impl Subject) {
    let large = "x".repeat(3_000);
    let all: Vec<Entry> = (1..=60).map(|index| entry(index, 1, &large)).collect();
    log.append(A, &all[..30]);
    log.settle();
    log.append(A, &all[30..]);
    log.settle();
    log.log().copy_forward(A);
    for index in 1..=60 {
        log.append(B, &[entry(index, 1, &large)]);
        log.settle();
    }
    log.append(A, &[entry(50, 2, "instead of the last ten")]);
    log.log().copy_forward(A);
    log.settle();
    let mut expected = all[..49].to_vec();
    expected.push(entry(50, 2, "instead of the last ten"));
    log.evict(A, Index(60));
    assert_eq!(log.fetch(1, 50, usize::MAX).result.as_deref(), Ok(&expected[..]));
    let recovered = &log.crash()[0];
    assert_eq!((recovered.start, recovered.entries.len()), (EntryId::ZERO, 50));
    log.evict(A, Index(60));
    assert_eq!(log.fetch(1, 50, usize::MAX).result, Ok(expected));
}

fn a_batch_never_waits_for_another_flush_to_be_named(log: &mut impl Subject) {
    log.append(A, &[entry(1, 1, "1")]);
    let first = log.log().last_batch();
    log.settle();
    assert_eq!(log.log().last_batch(), first, "nothing was added");
    log.log().set_hard_state(B, hard_state(1, 1));
    assert!(log.log().last_batch() > first);
    log.settle();
}

fn large_and_many(log: &mut impl Subject) {
    let large = "x".repeat(200_000);
    let mut all = Vec::new();
    for index in 1..=60 {
        let body = if index % 20 == 0 { large.as_str() } else { "a body of middling length" };
        all.push(entry(index, 1, body));
    }
    log.append(A, &all);
    log.settle();
    for index in 61..=200 {
        let next = entry(index, 2, "one at a time");
        log.append(A, std::slice::from_ref(&next));
        all.push(next);
        log.settle();
    }
    let terms: Vec<_> = all.iter().map(|entry| (entry.id.term, entry.body.len() as u32)).collect();
    assert_eq!(log.crash()[0].entries, terms);
    log.evict(A, Index(200));
    assert_eq!(log.fetch(1, 200, usize::MAX).result, Ok(all));
}

macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $name() {
                super::$name(&mut super::Memory(Some(super::MemoryLog::new(
                    &[super::A, super::B],
                    super::Completion::OnFlush,
                ))));
            })*
        }
        mod map {
            $(#[test] fn $name() {
                super::$name(&mut super::Files::new(super::LogIo::Map, super::LogSync::Thread));
            })*
        }
        mod buffered {
            $(#[test] fn $name() {
                super::$name(&mut super::Files::new(super::LogIo::Buffered, super::LogSync::Thread));
            })*
        }
        mod direct {
            $(#[test] fn $name() {
                super::$name(&mut super::Files::new(super::LogIo::Direct, super::LogSync::Thread));
            })*
        }
        mod inline {
            $(#[test] fn $name() {
                super::$name(&mut super::Files::new(super::LogIo::Direct, super::LogSync::Inline));
            })*
        }
        mod by_hand {
            $(#[test] fn $name() {
                super::$name(&mut super::ByHand::new(super::LogSync::Thread));
            })*
        }
        mod inline_by_hand {
            $(#[test] fn $name() {
                super::$name(&mut super::ByHand::new(super::LogSync::Inline));
            })*
        }
    };
}

suite!(
    starts_empty,
    counts_what_is_not_durable,
    serves_what_is_not_durable_from_memory,
    remembers_what_is_durable,
    forgets_what_was_never_flushed,
    an_entry_discards_what_was_there,
    fetches_what_left_the_memory,
    a_fetch_reads_from_so_many_batches_and_no_more,
    a_fetch_of_discarded_entries_is_gone,
    a_fetch_is_gone_if_its_entries_go_before_it_is_picked_up,
    a_compacted_log_starts_later,
    a_log_may_be_compacted_to_its_end,
    a_fetch_of_compacted_entries_is_gone,
    a_reset_voids_what_was_there,
    a_reset_that_is_not_durable_leaves_what_was_there,
    copying_forward_changes_nothing_else,
    a_batch_never_waits_for_another_flush_to_be_named,
    large_and_many,
);

/// The test decides when a batch becomes durable; what was not is lost.
#[test]
fn a_memory_log_can_be_held_back() {
    let mut log = MemoryLog::new(&[A], Completion::Manual);
    log.append(A, &mut vec![entry(1, 1, "1")]);
    log.flush();
    log.append(A, &mut vec![entry(2, 1, "2")]);
    log.flush();
    assert_eq!(log.last_batch(), BatchNumber(2));
    assert_eq!(log.durable(), Ok(BatchNumber(0)));
    assert!(log.complete());
    assert_eq!(log.durable(), Ok(BatchNumber(1)));
    assert!(!log.complete(), "the second batch was never handed over: one was in flight");
    let (mut log, recovered) = log.crash();
    assert_eq!(recovered[0].entries, [(Term(1), 1)]);
    assert_eq!(log.tail(A, Index(1), Index(2)).map(Iterator::count), None);
    log.fail(super::LogError("injected".to_owned()));
    assert!(log.durable().is_err());
}
