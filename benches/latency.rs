//! How long one operation alone takes on each path that a request waits for. `docs/benchmarks.md` says how to run it
//! and what came out.

mod cluster;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use mio::{Events, Poll, Token, Waker};
use raftkv::event_loop::{Capacity, Inbox, InboxSender, inbox, wake_through};
use raftkv::storage::{CoreLog, FileLog, LogIo, Options};
use raftkv_protocol::types::{Entry, EntryId, EntryKind, ShardId};

use cluster::Cluster;

const KEY: &[u8] = b"key-000000000001";
const VALUE: [u8; 128] = [b'v'; 128];
const SHARD: ShardId = ShardId(0);

/// One entry of 160 bytes on the disk: handed to the syncer, durable, and the loop woken from its poll.
fn durable_append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("durable append, alone");
    for (name, io) in [("through the map", LogIo::Map), ("buffered", LogIo::Buffered), ("direct", LogIo::Direct)] {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target folder is writable");
        let (mut poll, mut events) = (Poll::new().expect("a poll"), Events::with_capacity(8));
        let waker = Waker::new(poll.registry(), Token(0)).expect("a waker");
        let wake = Arc::new(move || waker.wake().expect("the loop lives"));
        let options = Options { io, ..Options::new(folder.path(), vec![SHARD], wake) };
        let (mut log, _) = FileLog::open(options).expect("a new log opens");
        let (mut entries, mut last, body) = (Vec::new(), 0, Bytes::from(vec![b'b'; 160]));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                last += 1;
                entries.push(Entry { id: EntryId::new(last, 1), kind: EntryKind::Command, body: body.clone() });
                log.append(SHARD, &mut entries);
                log.flush();
                while log.durable().expect("the log does not fail") < log.last_batch() {
                    poll.poll(&mut events, None).expect("a poll");
                }
            });
        });
    }
    group.finish();
}

/// What the servers do for one operation, all three of them together: no socket, no disk, no sleep.
fn rounds(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one shard on 3 nodes, alone");
    group.bench_function("commit round", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut cluster = Cluster::new();
            let started = Instant::now();
            (0..rounds).for_each(|_| cluster.put([KEY], &VALUE));
            started.elapsed()
        });
    });
    group.bench_function("read round", |bencher| {
        let mut cluster = Cluster::new();
        cluster.put([KEY], &VALUE);
        bencher.iter(|| cluster.get([KEY]));
    });
    group.finish();
}

/// A message to a core that waits in its poll, and the answer back to one that waits too: two wake-ups.
fn inbox_wake(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("inbox");
    let (mut near, mut far) = (Core::new(), Core::new());
    let (to_near, to_far) = (near.sender.clone(), far.sender.clone());
    let echo = std::thread::spawn(move || {
        while far.next() == Said::Ping {
            to_near.answer(Said::Ping);
        }
    });
    group.bench_function("there and back between waiting cores", |bencher| {
        bencher.iter(|| {
            to_far.send(Said::Ping).expect("the inbox has room");
            near.next()
        });
    });
    to_far.send(Said::End).expect("the inbox has room");
    echo.join().expect("the other core ends");
    group.finish();
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Ping,
    End,
}

struct Core {
    poll: Poll,
    events: Events,
    sender: InboxSender<Said>,
    inbox: Inbox<Said>,
}

impl Core {
    fn new() -> Core {
        let poll = Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), Token(0)).expect("a waker");
        let (sender, inbox) = inbox(Capacity { messages: 16, bytes: 0, bytes_of: |_| 0 }, wake_through(waker));
        Core { poll, events: Events::with_capacity(8), sender, inbox }
    }

    /// Sleeps until something is said.
    fn next(&mut self) -> Said {
        let mut said = None;
        while said.is_none() {
            self.poll.poll(&mut self.events, None).expect("a poll");
            self.inbox.drain(|message| said = Some(message));
        }
        said.expect("the loop above waits for it")
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = durable_append, rounds, inbox_wake
}
criterion_main!(benches);
