//! The log with its threads: full disks, failures, memory and restarts.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use raftkv_protocol::types::{Entry, EntryId, Index, ShardId, SnapshotId, Term};

use super::conformance_test::{entry, hard_state};
use super::inspect::{End, Item, inspect};
use super::record::Record;
use super::simulated_disk::{Random, SimulatedDisk, Survivors};
use super::{CoreLog, Fetch, FetchError, FileLog, LogError, LogIo, LogSync, Options, RecoveredShard, Space};

const A: ShardId = ShardId(0);
const B: ShardId = ShardId(1);
const PATIENCE: Duration = Duration::from_secs(20);

/// Every way to place batches, by a thread and by the loop.
const WAYS: [(LogIo, LogSync); 6] = [
    (LogIo::Direct, LogSync::Thread),
    (LogIo::Buffered, LogSync::Thread),
    (LogIo::Map, LogSync::Thread),
    (LogIo::Direct, LogSync::Inline),
    (LogIo::Buffered, LogSync::Inline),
    (LogIo::Map, LogSync::Inline),
];

/// A log, and how to wait for it.
struct Node {
    log: FileLog,
    recovered: Vec<RecoveredShard>,
    woken: Receiver<()>,
}

fn options(dir: &Path) -> (Options, Receiver<()>) {
    let (wake, woken) = bounded(1);
    let wake = Arc::new(move || {
        // A full channel wakes as well.
        let _ = wake.try_send(());
    });
    let options = Options { segment_size: 64 << 10, ..Options::new(dir, vec![A, B], wake) };
    (options, woken)
}

impl Node {
    fn open(dir: &Path, change: impl FnOnce(&mut Options)) -> Result<Node, LogError> {
        let (mut options, woken) = options(dir);
        change(&mut options);
        FileLog::open(options).map(|(log, recovered)| Node { log, recovered, woken })
    }

    fn open_on(disk: &SimulatedDisk) -> Result<Node, LogError> {
        let (options, woken) = options(Path::new("unused"));
        FileLog::open_on(Arc::new(disk.clone()), options).map(|(log, recovered)| Node { log, recovered, woken })
    }

    fn append(&mut self, shard: ShardId, entry: Entry) {
        self.log.append(shard, &mut vec![entry]);
    }

    fn wait_until(&mut self, mut condition: impl FnMut(&mut FileLog) -> bool) {
        while !condition(&mut self.log) {
            self.wait();
        }
    }

    fn wait(&mut self) {
        if !self.log.sync_inline(Instant::now()) {
            self.woken.recv_timeout(PATIENCE).expect("the log's threads wake the loop");
        }
    }

    fn settle(&mut self) -> Result<(), LogError> {
        let last = self.log.last_batch();
        loop {
            self.log.flush();
            if self.log.durable()? >= last {
                return Ok(());
            }
            self.wait();
        }
    }

    fn put(&mut self, index: u64) -> Result<(), LogError> {
        self.append(A, entry(index, 1, &"x".repeat(3000)));
        self.settle()
    }
}

#[test]
fn twenty_restarts_in_a_row() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut random = Random(99);
    let mut model = vec![RecoveredShard::default(); 2];
    for start in 0..20 {
        let (io, sync) = WAYS[start as usize % WAYS.len()];
        let mut node = Node::open(dir.path(), |options| (options.io, options.sync) = (io, sync)).expect("healthy");
        assert_eq!(node.recovered, model, "start {start}");
        for _ in 0..random.below(8) {
            let at = random.below(2) as usize;
            let last = model[at].entries.len() as u64;
            let index = if random.below(5) == 0 { last.max(1) } else { last + 1 };
            let length = random.below(20_000) as usize;
            model[at].entries.truncate(index as usize - 1);
            model[at].entries.push((Term(start), length as u32));
            model[at].hard_state = hard_state(start, random.below(3));
            node.append([A, B][at], entry(index, start, &"y".repeat(length)));
            node.log.set_hard_state([A, B][at], model[at].hard_state);
            if random.below(2) == 0 {
                node.settle().expect("healthy");
            }
        }
        if start % 2 == 0 {
            node.log.close().expect("a clean stop");
        } else {
            node.settle().expect("healthy");
        }
    }
    let sizes = std::fs::read_dir(dir.path()).expect("a directory").map(|file| file.expect("a file").metadata());
    let total: u64 = sizes.map(|metadata| metadata.expect("a size").len()).sum();
    assert!(total < 3 << 20, "a start gives back what its predecessor did not use: {total} bytes");
}

// rule 12
#[test]
fn a_clean_stop_proves_the_last_batch() {
    let disk = SimulatedDisk::default();
    let mut node = Node::open_on(&disk).expect("healthy");
    node.append(A, entry(1, 1, "never flushed by the loop"));
    node.log.close().expect("a clean stop");
    let segment = disk.names().into_iter().find(|name| name.starts_with("segment-")).expect("a segment");
    // The restatement has the first block, the entry the second: a flip there must be seen as corruption.
    disk.edit(&segment, |bytes| bytes[2 * 4096 + 60] ^= 1);
    let LogError(line) = Node::open_on(&disk).err().expect("corrupt");
    assert!(line.contains("at offset 8248"), "{line}");
}

// rule 12
#[test]
fn an_idle_log_proves_its_last_batch() {
    let disk = SimulatedDisk::default();
    let mut node = Node::open_on(&disk).expect("healthy");
    node.put(1).expect("healthy");
    let batches = node.log.stats().batches;
    let deadline = Instant::now() + PATIENCE;
    while node.log.stats().batches == batches {
        assert!(Instant::now() < deadline, "no watermark");
        std::thread::yield_now();
    }
    drop(node);
    let segment = disk.names().into_iter().find(|name| name.starts_with("segment-")).expect("a segment");
    disk.edit(&segment, |bytes| bytes[2 * 4096 + 60] ^= 1);
    assert!(Node::open_on(&disk).is_err(), "the flip is corruption");
}

// museum 38, rule 17
#[test]
fn a_failed_sync_ends_the_log() {
    let disk = SimulatedDisk::default();
    let mut node = Node::open_on(&disk).expect("healthy");
    node.put(1).expect("healthy");
    disk.fail_sync(0);
    node.append(A, entry(2, 1, "not durable"));
    let failed = node.settle().expect_err("EIO");
    assert!(failed.0.contains("cannot write the log /simulated/segment-"), "{failed}");
    let syncs = disk.syncs();
    node.append(A, entry(3, 1, "after the failure"));
    for _ in 0..3 {
        node.log.flush();
        assert_eq!(node.log.durable(), Err(failed.clone()));
    }
    assert_eq!(node.log.close(), Err(failed));
    assert_eq!(disk.syncs(), syncs, "the failed file is left alone");
    let node = Node::open_on(&disk.crash(Survivors::None)).expect("what was durable before is there");
    assert_eq!(node.recovered[0].entries, [(Term(1), 3000)]);
}

// museum 41, rule 17
#[test]
fn a_full_disk_leaves_the_reserve_and_recovers_by_itself() {
    let disk = SimulatedDisk::default();
    let mut node = Node::open_on(&disk).expect("healthy");
    let spares = |disk: &SimulatedDisk| disk.names().iter().filter(|name| name.starts_with("spare-")).count();
    let deadline = Instant::now() + PATIENCE;
    while spares(&disk) < 3 {
        assert!(Instant::now() < deadline, "spares are made ahead");
        std::thread::yield_now();
    }
    disk.set_full(true);
    let mut index = 0;
    while node.log.space() == Space::Plenty {
        index += 1;
        node.put(index).expect("a full disk fails nothing");
        assert!(index < 30, "the first segment and the first spare are used up");
        if spares(&disk) < 3 {
            node.wait_until(|log| log.space() == Space::ReserveOnly);
        }
    }
    assert_eq!(spares(&disk), 2, "the reserve is whole");
    // The reserve takes what must be written, but for its last segment; then a batch waits.
    let blocked = loop {
        index += 1;
        node.append(A, entry(index, 1, &"x".repeat(3000)));
        node.log.flush();
        let batch = node.log.last_batch();
        let deadline = Instant::now() + PATIENCE;
        while node.log.durable() != Ok(batch) && !node.log.waits_for_space() {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        if node.log.durable() != Ok(batch) {
            break batch;
        }
    };
    assert_eq!(spares(&disk), 1);
    assert_eq!(node.log.space(), Space::ReserveOnly);
    // Votes take that one, and what waits finds room in its first half.
    for term in 2..6 {
        node.log.set_hard_state(A, hard_state(term, 1));
        node.log.set_hard_state(B, hard_state(term, 2));
        node.wait_until(|log| {
            log.flush();
            let ahead = [log.hard_state_ahead(A), log.hard_state_ahead(B)];
            ahead == [Some(hard_state(term, 1)), Some(hard_state(term, 2))] || log.durable() == Ok(log.last_batch())
        });
    }
    assert_eq!(spares(&disk), 0);
    node.wait_until(|log| log.durable().expect("waiting is no failure") >= blocked);
    disk.set_full(false);
    node.wait_until(|log| log.space() == Space::Plenty);
    node.log.close().expect("healthy");
    let node = Node::open_on(&disk).expect("healthy");
    assert_eq!(node.recovered[0].entries.len() as u64, index);
    assert_eq!(node.recovered.iter().map(|shard| shard.hard_state.term).collect::<Vec<_>>(), [Term(5); 2]);
}

#[test]
fn a_full_disk_at_start_is_one_clear_line_unless_there_is_a_reserve() {
    let disk = SimulatedDisk::default();
    disk.set_full(true);
    let LogError(line) = Node::open_on(&disk).err().expect("no space");
    assert!(
        line.contains("cannot allocate a log segment of 65536 bytes in /simulated/") && !line.contains('\n'),
        "{line}"
    );

    disk.set_full(false);
    let mut node = Node::open_on(&disk).expect("healthy");
    node.put(1).expect("healthy");
    let deadline = Instant::now() + PATIENCE;
    while disk.names().len() < 4 {
        assert!(Instant::now() < deadline, "spares are made ahead");
        std::thread::yield_now();
    }
    drop(node);
    disk.set_full(true);
    let mut node = Node::open_on(&disk).expect("the reserve keeps a start possible");
    node.put(2).expect("and writing");
}

#[test]
fn a_quota_is_a_full_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut node = Node::open(dir.path(), |options| options.max_bytes = Some(4 * (64 << 10))).expect("healthy");
    let mut index = 0;
    while node.log.space() == Space::Plenty {
        index += 1;
        node.put(index).expect("healthy");
        assert!(index < 60, "the quota is kept");
    }
    node.log.set_max_bytes(None);
    node.wait_until(|log| log.space() == Space::Plenty);
    node.put(index + 1).expect("healthy");
}

/// The threads by themselves: many times what fits goes through, and what is read meanwhile is right or gone.
// museum 41, 43, rule 14, rule 17
#[test]
fn a_compacted_log_lives_on_little_space() {
    let dir = tempfile::tempdir().expect("a directory");
    for (io, sync) in WAYS {
        let change = |options: &mut Options| {
            (options.io, options.sync) = (io, sync);
            (options.tail_bytes_max, options.max_bytes) = (0, Some(8 * (64 << 10)));
        };
        let mut node = Node::open(dir.path(), change).expect("healthy");
        let first = node.recovered[0].start.index.0 + node.recovered[0].entries.len() as u64;
        let mut read = 0;
        for index in first + 1..=first + 400 {
            let body = format!("{index} ").repeat(1500)[..3000].to_owned();
            node.append(A, entry(index, 1, &body));
            node.settle().expect("healthy");
            node.log.fetch(Fetch { shard: A, tag: index, first: Index(index), last: Index(index), bytes_max: 1 });
            node.log.compact(A, EntryId::new(index.saturating_sub(10).max(first), 1), SnapshotId(1));
            node.wait_until(|log| {
                log.flush();
                log.space() == Space::Plenty
            });
            while let Some(fetched) = node.log.fetched() {
                match fetched.result {
                    Ok(entries) => {
                        assert!(entries[0].body.starts_with(format!("{} ", fetched.fetch.first).as_bytes()));
                        read += 1;
                    }
                    // The reader was slow, and the entry is compacted.
                    Err(error) => assert_eq!(error, FetchError::Gone),
                }
            }
            assert!(node.log.stats().disk_bytes <= 8 * (64 << 10));
        }
        assert!(node.log.stats().segments > 20 && read > 0);
        node.log.close().expect("healthy");
        let sizes = std::fs::read_dir(dir.path()).expect("a directory").map(|file| file.expect("a file").metadata());
        let total: u64 = sizes.map(|metadata| metadata.expect("a size").len()).sum();
        assert!(total <= 8 * (64 << 10), "{total}");
    }
}

#[test]
fn a_closing_log_does_not_wait_for_space() {
    let disk = SimulatedDisk::default();
    let mut node = Node::open_on(&disk).expect("healthy");
    disk.set_full(true);
    for index in 1..100 {
        node.append(A, entry(index, 1, &"x".repeat(3000)));
    }
    let LogError(line) = node.log.close().expect_err("the batch has no place");
    assert!(line.contains("the disk is full"), "{line}");
}

// rule 16
#[test]
fn memory_keeps_the_newest_and_what_is_not_durable() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut node = Node::open(dir.path(), |options| options.tail_bytes_max = 10_000).expect("healthy");
    for index in 1..=20 {
        node.append(A, entry(index, 1, &"x".repeat(1000)));
    }
    let count = |log: &FileLog, first, last| log.tail(A, Index(first), Index(last)).map(Iterator::count);
    assert_eq!(count(&node.log, 1, 20), Some(20), "nothing is durable");
    node.settle().expect("healthy");
    for index in 21..=25 {
        node.append(A, entry(index, 1, &"x".repeat(1000)));
        node.settle().expect("healthy");
    }
    assert_eq!(count(&node.log, 20, 25), None, "a batch leaves as a whole");
    assert_eq!(count(&node.log, 21, 25), Some(5));
    for index in 26..=40 {
        node.append(A, entry(index, 1, &"x".repeat(1000)));
        node.settle().expect("healthy");
    }
    let kept = (1..=40).rev().take_while(|first| count(&node.log, *first, 40).is_some()).count();
    assert!((8..=10).contains(&kept), "about 10,000 bytes: {kept} entries");
}

#[test]
fn what_is_not_durable_never_leaves_the_memory() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut node = Node::open(dir.path(), |options| options.tail_bytes_max = 0).expect("healthy");
    node.append(A, entry(1, 1, "in flight"));
    let first = node.log.last_batch();
    node.log.flush();
    node.append(A, entry(2, 1, "gathering"));
    node.wait_until(|log| log.durable() == Ok(first));
    let count = |log: &FileLog, first, last| log.tail(A, Index(first), Index(last)).map(Iterator::count);
    assert_eq!(count(&node.log, 1, 2), None, "the first is durable and left");
    assert_eq!(count(&node.log, 2, 2), Some(1));
    node.settle().expect("healthy");
    assert_eq!(count(&node.log, 2, 2), None);
}

#[test]
fn a_damaged_entry_is_never_fetched() {
    let disk = SimulatedDisk::default();
    let (mut options, woken) = options(Path::new("unused"));
    options.tail_bytes_max = 0;
    let (log, recovered) = FileLog::open_on(Arc::new(disk.clone()), options).expect("healthy");
    let mut node = Node { log, recovered, woken };
    node.put(1).expect("healthy");
    node.put(2).expect("healthy");
    let segment = disk.names().into_iter().find(|name| name.starts_with("segment-")).expect("a segment");
    disk.edit(&segment, |bytes| bytes[3 * 4096 + 200] ^= 1);
    let mut fetch = |index| {
        node.log.fetch(Fetch { shard: A, tag: 1, first: Index(index), last: Index(index), bytes_max: 1 << 20 });
        loop {
            if let Some(fetched) = node.log.fetched() {
                return fetched.result;
            }
            node.woken.recv_timeout(PATIENCE).expect("the reader wakes the loop");
        }
    };
    assert_eq!(fetch(1).map(|entries| entries.len()), Ok(1));
    let Err(FetchError::Corrupt(line)) = fetch(2) else { panic!("entry 2 is damaged") };
    assert!(
        line.contains(&format!("/simulated/{segment} at offset 12288")) && line.contains("entry 2 of shard 0"),
        "{line}"
    );
}

/// Truncation takes back exactly the memory that the entries took, whichever batch they came in.
#[test]
fn memory_is_accounted_over_truncations() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut node = Node::open(dir.path(), |options| options.tail_bytes_max = 3_000).expect("healthy");
    let mut random = Random(4);
    let mut last = 0;
    for round in 1..=300 {
        let index = 1 + random.below(last + 1).max(last.saturating_sub(5));
        node.append(A, entry(index, round, &"x".repeat(random.below(400) as usize)));
        last = index;
        if random.below(3) == 0 {
            node.settle().expect("healthy");
        }
    }
    node.settle().expect("healthy");
    node.append(A, entry(1, 1000, ""));
    node.settle().expect("healthy");
    assert_eq!(node.log.tail(A, Index(1), Index(1)).map(Iterator::count), Some(1), "all but the last was given back");
}

#[test]
fn inspection_sees_what_a_running_log_wrote() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut node = Node::open(dir.path(), |_| {}).expect("healthy");
    for index in 1..=30 {
        node.put(index).expect("healthy");
    }
    node.log.set_hard_state(B, hard_state(3, 2));
    node.settle().expect("healthy");
    let (mut entries, mut hard_states, mut sealed, mut open) = (Vec::new(), Vec::new(), 0, 0);
    inspect(dir.path(), |item| {
        match item {
            Item::Record { record: Record::Entry { id, .. }, .. } => entries.push(id.index.0),
            Item::Record { record: Record::HardState { hard_state, .. }, .. } => hard_states.push(*hard_state),
            Item::End { reason: End::Sealed, .. } => sealed += 1,
            Item::End { reason: End::NoBatch, .. } => open += 1,
            Item::End { path, reason, .. } => panic!("{path}: {reason:?}"),
            _ => {}
        }
        ControlFlow::Continue(())
    })
    .expect("readable");
    assert_eq!(entries, (1..=30).collect::<Vec<_>>());
    assert_eq!(hard_states.last(), Some(&hard_state(3, 2)));
    assert!(sealed >= 1 && open == 1, "{sealed} sealed, {open} open");
}

#[test]
fn counts_what_it_does() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut node = Node::open(dir.path(), |_| {}).expect("healthy");
    assert_eq!(node.log.stats().segments, 1);
    let before = node.log.stats();
    node.put(1).expect("healthy");
    let after = node.log.stats();
    assert!(after.syncs > before.syncs && after.batches > before.batches && after.bytes >= before.bytes + 4096);
    assert!(after.sync_latency_max_us >= after.sync_latency_last_us);
    assert!(after.sync_latency_sum_us >= after.sync_latency_max_us);
    node.log.close().expect("healthy");
}

#[test]
fn a_shard_of_another_core_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut node = Node::open(dir.path(), |_| {}).expect("healthy");
    node.append(B, entry(1, 1, "b"));
    node.settle().expect("healthy");
    drop(node);
    let LogError(line) = Node::open(dir.path(), |options| options.shards = vec![A]).err().expect("B has entries");
    assert!(line.contains("holds shard 1"), "{line}");
    let LogError(line) = Node::open(dir.path(), |options| options.segment_size = 60_000).err().expect("too small");
    assert!(line.contains("at least 65536"), "{line}");
}
