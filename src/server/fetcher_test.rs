//! What is asked for when, with the time, the worker and the connection moved by hand.

use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use raftkv_protocol::client::{Answer, Refusal};
use raftkv_protocol::frame;
use raftkv_protocol::peer::{ChunkResult, PeerFrame, SnapshotChunk, SnapshotMeta, SnapshotRead};
use raftkv_protocol::types::{CoreId, EntryId, NodeId, RequestId, ShardId, SnapshotId};

use super::fetcher::{Fetcher, Verdict};
use super::message::{Charge, ConnectionId, CoreMessage};
use super::transport::Transport;
use crate::limits::SNAPSHOT_CHUNK_BYTES_MAX;
use crate::shard::snapshots::{Job, Snapshots};

const PIECE: u64 = SNAPSHOT_CHUNK_BYTES_MAX as u64;
const SHARD: ShardId = ShardId(2);

/// The connection: who is asked, whether it stands, and what was asked.
#[derive(Default)]
struct Line {
    source: Option<NodeId>,
    is_up: bool,
    out: Vec<u8>,
    left: u32,
}

impl Transport for Line {
    fn reply(&mut self, _: ConnectionId, _: RequestId, _: Charge, _: EntryId, _: Result<Answer<'_>, Refusal<'_>>) {}

    fn peer(&mut self, _: NodeId) -> Option<&mut Vec<u8>> {
        None
    }

    fn core(&mut self, _: CoreId, message: CoreMessage) -> Result<(), CoreMessage> {
        Err(message)
    }

    fn answer(&mut self, _: CoreId, _: CoreMessage) {}

    fn snapshot_chunk(&mut self, _: ConnectionId, _: &SnapshotChunk<'_>) {}

    fn source(&mut self, node: NodeId) -> Option<&mut Vec<u8>> {
        self.source = Some(node);
        self.is_up.then_some(&mut self.out)
    }

    fn leave_source(&mut self) {
        self.left += u32::from(self.source.take().is_some());
    }
}

struct Bench {
    now: Instant,
    fetcher: Fetcher,
    worker: Snapshots,
    jobs: Receiver<Box<Option<Job>>>,
    line: Line,
}

fn meta(id: u64, bytes: u64) -> SnapshotMeta {
    SnapshotMeta { id: SnapshotId(id), at: EntryId::new(100 + id, 1), bytes }
}

impl Bench {
    fn with_rate(rate: u64) -> Bench {
        let now = Instant::now();
        let (worker, jobs, _) = Snapshots::with_ends();
        let line = Line { is_up: true, ..Line::default() };
        Bench { now, fetcher: Fetcher::new(rate, Duration::from_secs(10), now), worker, jobs, line }
    }

    fn new() -> Bench {
        Bench::with_rate(1 << 40)
    }

    /// The end of a turn, a moment after the last. The pieces that are asked for: offset and length.
    fn tend(&mut self) -> Vec<(u64, u32)> {
        self.tend_unless(None)
    }

    fn tend_unless(&mut self, unwanted: Option<u64>) -> Vec<(u64, u32)> {
        self.now += Duration::from_micros(1);
        let is_wanted = |_: ShardId, meta: &SnapshotMeta| Some(meta.id.0) != unwanted;
        self.fetcher.tend(self.now, is_wanted, &self.worker, &mut self.line);
        let mut asked = Vec::new();
        let mut at = 0;
        while let Some(found) = frame::parse(&self.line.out[at..], frame::PEER_FRAME_MAX).expect("frames") {
            let Ok(PeerFrame::SnapshotRead(read)) = PeerFrame::decode(found.kind, found.payload) else {
                panic!("a question")
            };
            let SnapshotRead { offset, length_max, .. } = read;
            asked.push((offset, length_max));
            at += found.consumed;
        }
        self.line.out.clear();
        asked
    }

    fn offer(&mut self, shard: ShardId, source: u64, meta: SnapshotMeta) {
        self.fetcher.offer(shard, NodeId(source), meta, self.now);
    }

    fn received(&mut self, meta: SnapshotMeta, upto: u64) {
        self.fetcher.received(SHARD, meta.id, upto, self.now, &self.worker);
    }

    fn chunk(&mut self, meta: SnapshotMeta, offset: u64, length: usize) -> Verdict {
        let result = ChunkResult::Ok { total: meta.bytes, bytes: &vec![1; length] };
        self.fetcher.chunk(&SnapshotChunk { shard: SHARD, id: meta.id, offset, result }, self.now, &self.worker)
    }

    fn gone(&mut self, meta: SnapshotMeta) -> Verdict {
        let chunk = SnapshotChunk { shard: SHARD, id: meta.id, offset: 0, result: ChunkResult::Gone };
        self.fetcher.chunk(&chunk, self.now, &self.worker)
    }

    fn jobs(&self) -> Vec<String> {
        let say = |job: Job| match job {
            Job::Receive { shard, meta } => format!("receive {} of {shard}", meta.id.0),
            Job::Write { offset, bytes, .. } => format!("write {} at {offset}", bytes.len()),
            Job::Install { id, .. } => format!("install {}", id.0),
            Job::Abandon { id, .. } => format!("abandon {}", id.0),
            other => panic!("{other:?}"),
        };
        self.jobs.try_iter().filter_map(|parcel| *parcel).map(say).collect()
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }
}

/// A snapshot of ten pieces is offered, and the first two are asked for.
fn asked() -> (Bench, SnapshotMeta) {
    let mut bench = Bench::new();
    let snapshot = meta(1, 10 * PIECE);
    bench.offer(SHARD, 7, snapshot);
    bench.tend();
    bench.received(snapshot, 0);
    assert_eq!(bench.tend(), [(0, PIECE as u32), (PIECE, PIECE as u32)]);
    (bench, snapshot)
}

#[test]
fn pieces_are_asked_for_two_at_a_time_and_written_in_their_order() {
    let mut bench = Bench::new();
    let snapshot = meta(1, 3 * PIECE + 5);
    bench.offer(SHARD, 7, snapshot);
    assert_eq!(bench.tend(), []);
    assert_eq!(bench.jobs(), ["receive 1 of 2"]);
    bench.received(snapshot, 0);
    assert_eq!(bench.tend(), [(0, PIECE as u32), (PIECE, PIECE as u32)]);
    assert_eq!(bench.line.source, Some(NodeId(7)));
    assert_eq!(bench.chunk(snapshot, 0, PIECE as usize), Verdict::Fine);
    assert_eq!(bench.tend(), [], "it is not written yet");
    bench.received(snapshot, PIECE);
    assert_eq!(bench.tend(), [(2 * PIECE, PIECE as u32)]);
    bench.chunk(snapshot, PIECE, PIECE as usize);
    bench.received(snapshot, 2 * PIECE);
    assert_eq!(bench.tend(), [(3 * PIECE, 5)]);
    bench.chunk(snapshot, 2 * PIECE, PIECE as usize);
    bench.chunk(snapshot, 3 * PIECE, 5);
    bench.received(snapshot, 3 * PIECE);
    let writes = [0, PIECE, 2 * PIECE].map(|offset| format!("write {PIECE} at {offset}"));
    assert_eq!(bench.jobs(), [&writes[..], &[format!("write 5 at {}", 3 * PIECE)]].concat());
    bench.received(snapshot, 3 * PIECE + 5);
    assert_eq!(bench.jobs(), ["install 1"]);
    assert!(bench.fetcher.is_installing(SHARD));
    assert_eq!(bench.fetcher.bytes_received, 3 * PIECE + 5);
    assert_eq!(bench.tend(), []);
    assert_eq!(bench.line.left, 1, "the connection is not needed any more");
    bench.offer(SHARD, 7, meta(2, 10));
    bench.tend();
    assert_eq!(bench.jobs(), [""; 0], "one at a time for a shard");
    bench.fetcher.installed(SHARD);
    bench.offer(SHARD, 7, meta(2, 10));
    bench.tend();
    assert_eq!(bench.jobs(), ["receive 2 of 2"]);
}

#[test]
fn what_is_there_already_is_not_asked_for() {
    let mut bench = Bench::new();
    let snapshot = meta(1, 1_000);
    bench.offer(SHARD, 7, snapshot);
    bench.tend();
    bench.received(snapshot, 900);
    assert_eq!(bench.tend(), [(900, 100)]);
    let mut bench = Bench::new();
    bench.offer(SHARD, 7, snapshot);
    bench.tend();
    bench.received(snapshot, 1_000);
    assert_eq!(bench.jobs(), ["receive 1 of 2", "install 1"]);
}

#[test]
fn the_rate_is_kept_to_on_the_average() {
    let mut bench = Bench::with_rate(PIECE);
    let snapshot = meta(1, 100 * PIECE);
    bench.offer(SHARD, 7, snapshot);
    bench.tend();
    bench.received(snapshot, 0);
    let mut come = 0;
    for _ in 0..10_000 {
        for (offset, length) in bench.tend() {
            bench.chunk(snapshot, offset, length as usize);
            come = offset + u64::from(length);
            bench.received(snapshot, come);
        }
        let due = bench.fetcher.deadline().expect("there is more to ask for");
        assert!(due > bench.now, "the loop does not spin");
        bench.pass(1);
    }
    let pieces = come / PIECE;
    assert!((11..=12).contains(&pieces), "{pieces} pieces in 10 s, two of which were free");
}

#[test]
fn a_connection_that_breaks_is_asked_again_for_what_did_not_come() {
    let (mut bench, snapshot) = asked();
    bench.chunk(snapshot, 0, PIECE as usize);
    bench.received(snapshot, PIECE);
    (bench.line.is_up, _) = (false, bench.fetcher.source_lost());
    assert_eq!(bench.tend(), []);
    bench.line.is_up = true;
    assert_eq!(bench.tend(), [(PIECE, PIECE as u32), (2 * PIECE, PIECE as u32)]);
}

#[test]
fn a_source_that_is_silent_is_dialled_anew_and_then_given_up() {
    let (mut bench, snapshot) = asked();
    bench.pass(2_999);
    assert_eq!((bench.tend().len(), bench.line.left), (0, 0));
    bench.pass(1);
    assert_eq!((bench.tend().len(), bench.line.left), (2, 1));
    assert!(bench.fetcher.deadline().expect("a time") > bench.now);
    bench.pass(7_000);
    bench.jobs();
    bench.tend();
    // Nobody else's offer is taken at once: the same source would offer the same again with its next beat.
    bench.offer(SHARD, 7, snapshot);
    bench.tend();
    assert_eq!(bench.jobs(), [""; 0]);
    bench.pass(1_000);
    bench.offer(SHARD, 8, meta(2, 5));
    bench.tend();
    assert_eq!(bench.jobs(), ["receive 2 of 2"]);
}

/// A piece takes as long as the link does: 256 KiB at 4 KiB a second are a minute.
#[test]
fn a_source_that_is_slow_is_not_given_up() {
    let (mut bench, snapshot) = asked();
    for _ in 0..60 {
        bench.pass(900);
        bench.offer(SHARD, 8, meta(2, 10));
        bench.fetcher.bytes_came(bench.now);
        assert_eq!((bench.tend().len(), bench.line.left), (0, 0));
    }
    assert_eq!(bench.chunk(snapshot, 0, PIECE as usize), Verdict::Fine);
    assert_eq!(bench.jobs(), ["receive 1 of 2".to_owned(), format!("write {PIECE} at 0")]);
    assert_eq!(bench.fetcher.timeouts, 0);
    bench.received(snapshot, PIECE);
    bench.pass(10_000);
    bench.tend();
    assert_eq!(bench.fetcher.timeouts, 1, "now nothing comes");
}

/// A leader that cannot read its snapshot offers it with each beat.
#[test]
fn a_snapshot_that_was_gone_is_not_asked_for_at_once() {
    let mut bench = Bench::new();
    let snapshot = meta(1, 10 * PIECE);
    for pause in [1_000, 2_000] {
        bench.offer(SHARD, 7, snapshot);
        bench.tend();
        bench.received(snapshot, 0);
        bench.tend();
        bench.gone(snapshot);
        assert_eq!(bench.jobs(), ["receive 1 of 2", "abandon 1"]);
        bench.pass(pause - 1);
        bench.offer(SHARD, 7, snapshot);
        bench.tend();
        assert_eq!(bench.jobs(), [""; 0], "after {pause} ms");
        bench.pass(1);
    }
}

#[test]
fn another_nodes_offer_is_taken_instead_of_waiting_for_a_source_that_is_silent() {
    let (mut bench, snapshot) = asked();
    bench.pass(500);
    bench.chunk(snapshot, 0, PIECE as usize);
    bench.received(snapshot, PIECE);
    bench.tend();
    bench.jobs();
    bench.pass(900);
    bench.offer(SHARD, 8, meta(2, 10));
    bench.tend();
    assert_eq!(bench.jobs(), [""; 0], "something came a moment ago");
    bench.pass(100);
    bench.offer(SHARD, 7, meta(3, 10));
    bench.tend();
    assert_eq!(bench.jobs(), [""; 0], "the same node has nothing better");
    bench.offer(SHARD, 8, meta(2, 10));
    bench.tend();
    assert_eq!(bench.jobs(), ["receive 2 of 2"]);
    bench.received(meta(2, 10), 0);
    bench.tend();
    assert_eq!(bench.line.source, Some(NodeId(8)));
}

#[test]
fn a_worker_that_is_slow_is_not_the_fault_of_the_source() {
    let mut bench = Bench::new();
    let snapshot = meta(1, 10 * PIECE);
    bench.offer(SHARD, 7, snapshot);
    bench.tend();
    bench.pass(60_000);
    bench.tend();
    assert_eq!(bench.fetcher.deadline(), None, "the worker has not looked yet");
    bench.received(snapshot, 0);
    bench.tend();
    bench.chunk(snapshot, 0, PIECE as usize);
    bench.chunk(snapshot, PIECE, PIECE as usize);
    bench.pass(60_000);
    bench.tend();
    assert_eq!(bench.fetcher.deadline(), None, "nothing was written yet");
    bench.received(snapshot, 2 * PIECE);
    assert_eq!(bench.tend().len(), 2, "the source is not given up");
}

#[test]
fn a_snapshot_that_is_gone_or_not_wanted_any_more_is_abandoned() {
    let (mut bench, snapshot) = asked();
    assert_eq!(bench.gone(snapshot), Verdict::Fine);
    bench.offer(SHARD, 7, meta(2, 10));
    bench.tend();
    assert_eq!(bench.jobs(), ["receive 1 of 2", "abandon 1", "receive 2 of 2"]);
    assert_eq!(bench.gone(snapshot), Verdict::Fine, "an answer about the earlier one");
    bench.tend_unless(Some(2));
    assert_eq!(bench.jobs(), ["abandon 2"]);
    bench.offer(SHARD, 7, meta(2, 10));
    bench.tend_unless(Some(2));
    assert_eq!(bench.jobs(), [""; 0]);
}

#[test]
fn shards_take_turns_and_the_newest_snapshot_is_fetched_first() {
    let mut bench = Bench::new();
    bench.offer(SHARD, 7, meta(1, 10));
    bench.offer(ShardId(4), 8, meta(2, 10));
    bench.offer(ShardId(6), 7, meta(3, 10));
    // The same again is no news; another one was taken meanwhile.
    bench.offer(ShardId(6), 7, meta(3, 10));
    bench.offer(ShardId(4), 7, meta(4, 10));
    bench.tend();
    bench.fetcher.failed(ShardId(4), SnapshotId(4), bench.now);
    bench.tend();
    bench.fetcher.failed(SHARD, SnapshotId(1), bench.now);
    bench.tend();
    assert_eq!(bench.jobs(), ["receive 4 of 4", "receive 1 of 2", "receive 3 of 6"]);
}

#[test]
fn a_shard_that_has_waited_long_is_overtaken_no_more() {
    let mut bench = Bench::new();
    bench.offer(SHARD, 7, meta(1, 10));
    bench.tend();
    bench.offer(ShardId(4), 7, meta(2, 10));
    bench.pass(29_999);
    bench.offer(ShardId(6), 7, meta(3, 10));
    bench.offer(ShardId(6), 7, meta(4, 10));
    bench.fetcher.failed(SHARD, SnapshotId(1), bench.now);
    bench.tend();
    bench.offer(ShardId(8), 7, meta(5, 10));
    bench.offer(ShardId(8), 7, meta(6, 10));
    bench.pass(1);
    bench.fetcher.failed(ShardId(6), SnapshotId(4), bench.now);
    bench.tend();
    assert_eq!(bench.jobs(), ["receive 1 of 2", "receive 4 of 6", "receive 2 of 4"]);
}

#[test]
fn a_shard_whose_snapshots_fail_waits_longer_each_time() {
    let mut bench = Bench::new();
    for pause in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
        bench.offer(SHARD, 7, meta(1, 10));
        bench.tend();
        assert_eq!(bench.jobs().len(), 1);
        bench.fetcher.failed(SHARD, SnapshotId(1), bench.now);
        bench.pass(pause - 1);
        bench.offer(SHARD, 7, meta(1, 10));
        bench.tend();
        assert_eq!(bench.jobs().len(), 0, "after {pause} ms");
        bench.pass(1);
    }
}

/// Found by the simulator: three snapshots in a row had gone before they could be fetched, the fourth was damaged, and the
/// shard waited eight times as long for the next.
#[test]
fn snapshots_that_were_gone_do_not_make_a_shard_wait_longer_after_one_that_failed() {
    let mut bench = Bench::new();
    for id in 1..4 {
        bench.offer(SHARD, 7, meta(id, 10));
        bench.tend();
        bench.received(meta(id, 10), 0);
        bench.tend();
        assert_eq!(bench.gone(meta(id, 10)), Verdict::Fine);
    }
    bench.offer(SHARD, 7, meta(4, 10));
    bench.tend();
    bench.fetcher.failed(SHARD, SnapshotId(4), bench.now);
    bench.jobs();
    bench.pass(999);
    bench.offer(SHARD, 7, meta(5, 10));
    bench.tend();
    assert_eq!(bench.jobs(), [""; 0], "it waits for a second");
    bench.pass(2);
    bench.offer(SHARD, 7, meta(5, 10));
    bench.tend();
    assert_eq!(bench.jobs(), ["receive 5 of 2"]);
}

#[test]
fn answers_that_make_no_sense_are_noticed() {
    let mut bench = Bench::new();
    let snapshot = meta(1, PIECE + 100);
    bench.offer(SHARD, 7, snapshot);
    bench.tend();
    bench.received(snapshot, 0);
    assert_eq!(bench.chunk(snapshot, 0, 10), Verdict::Nonsense, "nobody has asked");
    bench.tend();
    assert_eq!(bench.chunk(meta(1, 17), 0, 10), Verdict::Nonsense, "another size");
    bench.fetcher.source_lost();
    bench.tend();
    assert_eq!(bench.chunk(snapshot, 0, PIECE as usize + 101), Verdict::Nonsense, "more than was asked for");
    bench.fetcher.source_lost();
    bench.tend();
    assert_eq!(bench.chunk(snapshot, 0, 0), Verdict::Nonsense, "nothing");
    assert_eq!(bench.jobs(), ["receive 1 of 2"]);
}

#[test]
fn a_source_may_send_less_than_it_was_asked_for() {
    let (mut bench, snapshot) = asked();
    assert_eq!(bench.chunk(snapshot, 0, 1_000), Verdict::Fine);
    assert_eq!(bench.chunk(snapshot, PIECE, 1_000), Verdict::Fine, "it leaves a gap");
    bench.received(snapshot, 1_000);
    assert_eq!(bench.tend(), [(1_000, PIECE as u32), (1_000 + PIECE, PIECE as u32)]);
    assert_eq!(bench.jobs(), ["receive 1 of 2", "write 1000 at 0"]);
}
