//! How much of each core path one core does in a second. `docs/benchmarks.md` says how to run it and what came out.
//!
//! Keys have 16 bytes and values 128, as in the measurements of whole clusters; 64 operations stand for the batch that
//! gathers while the one before it is on its way to the disk.

mod cluster;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use raftkv::raft::{Raft, Ready, Recovered};
use raftkv::state_machine::state_hash::ItemsHash;
use raftkv::state_machine::{StateMachine, encode_put};
use raftkv::storage::memory::Completion;
use raftkv::storage::{CoreLog, FileLog, MemoryLog, Options};
use raftkv_protocol::client::{Answer, Condition, Consistency, Operation, Reply, Request, Scan};
use raftkv_protocol::frame::{self, PEER_FRAME_MAX};
use raftkv_protocol::peer::{Body, Message, PeerFrame};
use raftkv_protocol::types::{Entry, EntryId, EntryKind, Index, NodeId, RequestId, ShardId, Slot, Term};

use cluster::Cluster;

const KEYS: u64 = 100_000;
const VALUE: [u8; 128] = [b'v'; 128];
const BATCH: u64 = 64;
const SHARD: ShardId = ShardId(0);

/// The n-th of `KEYS` keys of 16 bytes; neighbouring numbers give keys far apart, as uniform load does.
fn key(n: u64) -> [u8; 16] {
    let mut key = *b"key-000000000000";
    let mut rest = n.wrapping_mul(61_803) % KEYS;
    for byte in key[4..].iter_mut().rev() {
        *byte = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// The entry that puts the n-th key.
fn entry(index: u64, n: u64) -> Entry {
    let mut body = Vec::new();
    encode_put(&key(n), &VALUE, Condition::None, &mut body);
    Entry { id: EntryId::new(index, 1), kind: EntryKind::Command, body: body.into() }
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(1));
    let (key, id) = (key(1), RequestId(7));
    let requests = [
        ("put", Operation::Put { key: &key, value: &VALUE, condition: Condition::None }),
        ("get", Operation::Get { key: &key, consistency: Consistency::Linearizable }),
    ];
    for (name, operation) in requests {
        let request = Request { id, operation };
        frames(
            &mut group,
            name,
            |out| black_box(&request).encode(out),
            |frame| black_box(Request::decode(frame.kind, frame.payload).is_ok()),
        );
    }
    let value = Answer::Value { version: Index(9), value: &VALUE };
    let reply = Reply { id, at: EntryId::new(9, 1), result: Ok(value) };
    frames(
        &mut group,
        "get reply",
        |out| black_box(&reply).encode(out),
        |frame| black_box(Reply::decode(frame.kind, frame.payload).is_ok()),
    );
    let entries: Vec<Entry> = (1..=BATCH).map(|n| entry(n, n)).collect();
    let append = append_message();
    group.throughput(Throughput::Elements(BATCH));
    frames(
        &mut group,
        "append of 64",
        |out| black_box(&append).encode_with(entries.iter(), out),
        |frame| black_box(PeerFrame::decode(frame.kind, frame.payload).is_ok()),
    );
    group.finish();
}

/// Encoding into a buffer that is reused, and finding, checking and decoding the frame again.
fn frames(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    encode: impl Fn(&mut Vec<u8>),
    decode: impl Fn(frame::Frame<'_>) -> bool,
) {
    let mut bytes = Vec::new();
    group.bench_function(format!("{name}, encode"), |bencher| {
        bencher.iter(|| {
            bytes.clear();
            encode(&mut bytes);
        });
    });
    group.bench_function(format!("{name}, decode"), |bencher| {
        bencher.iter(|| {
            let frame = frame::parse(black_box(&bytes), PEER_FRAME_MAX).expect("it is a frame").expect("it is whole");
            assert!(decode(frame));
        });
    });
}

fn append_message() -> Message {
    let body = Body::Append { link: 1, prev: EntryId::ZERO, commit: Index(0), entries: Vec::new() };
    Message { shard: SHARD, from: NodeId(1), to: NodeId(2), term: Term(1), body }
}

fn slots(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("slot");
    group.throughput(Throughput::Elements(1));
    group.bench_function("of a key", |bencher| bencher.iter(|| Slot::of(black_box(b"key-000000000001")).shard(12)));
    group.bench_function("of a tag", |bencher| bencher.iter(|| Slot::of(black_box(b"key-{0000001}-01")).shard(12)));
    group.finish();
}

fn log(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log append");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("memory, 64 entries", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut log = Appender::new(MemoryLog::new(&[SHARD], Completion::OnFlush));
            let started = Instant::now();
            (0..rounds).for_each(|_| log.append(|| {}));
            started.elapsed()
        });
    });
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target folder is writable");
    let (woken, wakes) = crossbeam_channel::bounded(1);
    let wake = Arc::new(move || {
        // A full channel means that a wake-up waits already.
        let _ = woken.try_send(());
    });
    let (log, _) = FileLog::open(Options::new(folder.path(), vec![SHARD], wake)).expect("a new log opens");
    let mut log = Appender::new(log);
    group.bench_function("disk, 64 entries, durable", |bencher| {
        bencher.iter(|| log.append(|| wakes.recv().expect("the log's threads live")));
    });
    group.finish();
}

/// A log and where it ends.
struct Appender<L> {
    log: L,
    last: u64,
    entries: Vec<Entry>,
    body: Bytes,
}

impl<L: CoreLog> Appender<L> {
    fn new(log: L) -> Appender<L> {
        Appender { log, last: 0, entries: Vec::new(), body: entry(1, 1).body }
    }

    /// Appends a batch and makes it durable; `wait` returns when the log may have got further.
    fn append(&mut self, wait: impl Fn()) {
        let ids = (self.last + 1..=self.last + BATCH).map(|index| EntryId::new(index, 1));
        self.entries.extend(ids.map(|id| Entry { id, kind: EntryKind::Command, body: self.body.clone() }));
        self.last += BATCH;
        self.log.append(SHARD, &mut self.entries);
        self.log.flush();
        while self.log.durable().expect("the log does not fail") < self.log.last_batch() {
            wait();
        }
    }
}

fn raft(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("raft");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("propose to commit on 3 nodes, 64 entries", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut replicas = Replicas::elected();
            let started = Instant::now();
            for _ in 0..rounds {
                replicas.propose(BATCH as usize);
            }
            started.elapsed()
        });
    });
    group.finish();
}

/// Three Raft cores alone: writes are durable at once, messages are handed over as they are.
struct Replicas {
    nodes: Vec<Raft>,
    /// The leader's, as its log would keep them.
    log: Vec<Entry>,
    mail: Vec<Message>,
    ready: Ready,
    commands: Vec<Bytes>,
    body: Bytes,
}

impl Replicas {
    fn elected() -> Replicas {
        let epoch = Instant::now();
        let replica = |id| Raft::new(cluster::config(NodeId(id), epoch), Recovered::default(), epoch);
        let mut replicas = Replicas {
            nodes: (1..=3).map(replica).collect(),
            log: Vec::new(),
            mail: Vec::new(),
            ready: Ready::default(),
            commands: Vec::new(),
            body: entry(1, 1).body,
        };
        // Only the first node's timer is ever asked, so it is the one that stands.
        let mut now = epoch;
        while replicas.nodes[0].commit() == Index(0) {
            now += Duration::from_millis(10);
            replicas.nodes[0].tick(now);
            replicas.settle(0);
        }
        replicas
    }

    fn propose(&mut self, count: usize) {
        self.commands.extend(std::iter::repeat_n(&self.body, count).cloned());
        self.nodes[0].propose(EntryKind::Command, &mut self.commands).expect("the first node leads");
        self.settle(0);
        assert_eq!(self.nodes[0].commit(), self.nodes[0].last().index, "all of it is committed");
    }

    fn settle(&mut self, first: usize) {
        self.execute(first);
        while let Some(message) = self.mail.pop() {
            let to = message.to.0 as usize - 1;
            self.nodes[to].step(message);
            self.execute(to);
        }
    }

    fn execute(&mut self, node: usize) {
        let mut ready = std::mem::take(&mut self.ready);
        while self.nodes[node].ready(&mut ready) {
            if node == 0 {
                self.log.append(&mut ready.append);
            }
            for mut outgoing in ready.messages.drain(..).chain(ready.after_sync.drain(..)) {
                if let Body::Append { entries, .. } = &mut outgoing.message.body {
                    let (first, end) = (outgoing.entries.start as usize, outgoing.entries.end as usize);
                    entries.extend_from_slice(self.log.get(first - 1..end - 1).unwrap_or_default());
                }
                self.mail.push(outgoing.message);
            }
            if let Some(write) = ready.write {
                self.nodes[node].persisted(write);
            }
            self.nodes[node].applied(ready.commit);
        }
        self.ready = ready;
    }
}

fn state_machine(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("state machine, 100,000 keys");
    group.throughput(Throughput::Elements(1));
    let mut machine = StateMachine::default();
    let mut next = 0;
    let mut put = |machine: &mut StateMachine| {
        next += 1;
        machine.apply(&entry(next, next)).expect("entries follow each other");
    };
    (0..KEYS).for_each(|_| put(&mut machine));
    group.bench_function("apply a put", |bencher| bencher.iter(|| put(&mut machine)));
    let mut n = 0;
    group.bench_function("get", |bencher| {
        bencher.iter(|| {
            n += 1;
            assert!(black_box(machine.get(&key(n))).is_some());
        });
    });
    group.throughput(Throughput::Elements(KEYS));
    group.bench_function("read all of it again", |bencher| {
        bencher.iter(|| {
            let mut hash = ItemsHash::default();
            machine.snapshot().iter().for_each(|(key, version, value)| hash.add(key, version, value));
            assert_eq!(hash.value(), machine.hash());
        });
    });
    group.throughput(Throughput::Elements(100));
    group.bench_function("scan of 100", |bencher| {
        bencher.iter(|| {
            n += 1;
            let mut items = 0;
            machine.scan(&Scan { start: &key(n), ..Scan::default() }, |key, _, value| {
                black_box((key, value));
                items += 1;
                items < 100
            });
        });
    });
    group.finish();
}

fn shard(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one shard on 3 nodes, 64 at a time");
    group.throughput(Throughput::Elements(BATCH));
    let keys: Vec<[u8; 16]> = (0..BATCH).map(key).collect();
    let each = || keys.iter().map(<[u8; 16]>::as_slice);
    group.bench_function("put", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut cluster = Cluster::new();
            let started = Instant::now();
            (0..rounds).for_each(|_| cluster.put(each(), &VALUE));
            started.elapsed()
        });
    });
    group.bench_function("get", |bencher| {
        let mut cluster = Cluster::new();
        cluster.put(each(), &VALUE);
        bencher.iter(|| cluster.get(each()));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = codec, slots, log, raft, state_machine, shard
}
criterion_main!(benches);
