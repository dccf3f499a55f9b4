//! A worker moved by hand, over disks in memory.

use std::sync::Arc;

use bytes::Bytes;
use raftkv_protocol::client::Condition;
use raftkv_protocol::peer::SnapshotMeta;
use raftkv_protocol::types::{Entry, EntryId, EntryKind, ShardId, SnapshotId};

use super::{Done, Effort, Failure, Job, Loaded, PieceFor, SnapshotHands, Snapshots, Stores, snapshot_worker};
use crate::state_machine::{StateMachine, encode_put};
use crate::storage::disk::Disk;
use crate::storage::simulated_disk::{SimulatedDisk, Survivors};

pub(super) const SHARD: ShardId = ShardId(3);
pub(super) const PIECE: usize = 10_000;
/// Who is moved by hand never rests.
const RATE: u64 = 1;

pub(super) fn stores(disk: &SimulatedDisk) -> Stores {
    let disk_of = |_| Ok(Arc::new(disk.clone()) as Arc<dyn Disk>);
    Stores::open([SHARD].into_iter(), disk_of).expect("the directory opens")
}

/// Writes a value under each of these keys.
pub(super) fn grow(machine: &mut StateMachine, keys: std::ops::Range<u32>, value: &[u8]) {
    for key in keys {
        let mut body = Vec::new();
        encode_put(format!("key{key:06}").as_bytes(), value, Condition::None, &mut body);
        let id = EntryId::new(machine.applied().0 + 1, 1);
        machine.apply(&Entry { id, kind: EntryKind::Command, body: Bytes::from(body) }).expect("a put applies");
    }
}

pub(super) fn state_of(keys: u32, value_bytes: usize) -> StateMachine {
    let mut machine = StateMachine::default();
    grow(&mut machine, 0..keys, &vec![7; value_bytes]);
    machine
}

pub(super) fn take(machine: &StateMachine) -> Job {
    Job::Take { shard: SHARD, state: machine.snapshot(), is_full: false }
}

/// The same for a node whose log has only its reserve left.
pub(super) fn take_when_full(machine: &StateMachine) -> Job {
    Job::Take { shard: SHARD, state: machine.snapshot(), is_full: true }
}

pub(super) struct Bench {
    pub(super) disk: SimulatedDisk,
    pub(super) loop_end: Snapshots,
    pub(super) hands: SnapshotHands,
}

impl Bench {
    pub(super) fn on(disk: SimulatedDisk) -> Bench {
        let stores = stores(&disk);
        Bench::over(disk, stores)
    }

    /// One of the workers of a node.
    fn over(disk: SimulatedDisk, stores: Stores) -> Bench {
        let (loop_end, worker) = snapshot_worker(stores, vec![1, 2, 3], RATE, Arc::new(|| {}));
        Bench { disk, loop_end, hands: SnapshotHands::new(worker) }
    }

    pub(super) fn new(seed: u64) -> Bench {
        Bench::on(SimulatedDisk::new(seed))
    }

    /// Everything that comes of a job and of what was begun before.
    pub(super) fn all(&self, job: Job) -> Vec<Done> {
        self.loop_end.send(job);
        while self.hands.next_effort().is_some() {
            self.hands.work();
        }
        std::iter::from_fn(|| self.loop_end.done()).collect()
    }

    #[track_caller]
    pub(super) fn one(&self, job: Job) -> Done {
        let mut done = self.all(job);
        assert_eq!(done.len(), 1, "{done:?}");
        done.remove(0)
    }

    #[track_caller]
    pub(super) fn take(&self, machine: &StateMachine) -> SnapshotMeta {
        match self.one(take(machine)) {
            Done::Taken { shard: SHARD, meta } => meta,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn piece(&self, id: SnapshotId, offset: u64) -> Option<(u64, Vec<u8>)> {
        let read = Job::Read { piece_for: PieceFor(9), shard: SHARD, id, offset, length_max: PIECE };
        match self.one(read) {
            Done::Piece { piece_for: PieceFor(9), piece, .. } => piece,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn receive(&self, meta: SnapshotMeta) -> Done {
        self.one(Job::Receive { shard: SHARD, meta })
    }

    pub(super) fn write(&self, meta: SnapshotMeta, offset: u64, bytes: Vec<u8>) -> Done {
        self.one(Job::Write { shard: SHARD, id: meta.id, offset, bytes })
    }

    pub(super) fn install(&self, meta: SnapshotMeta) -> Done {
        self.one(Job::Install { shard: SHARD, id: meta.id })
    }

    /// Fetches a snapshot from another bench, from `upto` on and as far as `end`.
    pub(super) fn fetch(&self, from: &Bench, meta: SnapshotMeta, mut upto: u64, end: u64) {
        while upto < end {
            let (total, bytes) = from.piece(meta.id, upto).expect("it is there");
            assert_eq!(total, meta.bytes);
            let next = upto + bytes.len() as u64;
            match self.write(meta, upto, bytes) {
                Done::Received { upto, .. } => assert_eq!(upto, next),
                other => panic!("{other:?}"),
            }
            upto = next;
        }
    }
}

#[track_caller]
fn loaded(done: Done) -> Loaded {
    match done {
        Done::Installed { shard: SHARD, loaded } => *loaded,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub(super) fn failure(done: Done) -> Failure {
    match done {
        Done::NotTaken { failure, .. } | Done::NotInstalled { failure, .. } => failure,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub(super) fn received(done: Done) -> u64 {
    match done {
        Done::Received { upto, .. } => upto,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_state_goes_from_one_node_to_another() {
    let (source, sink) = (Bench::new(1), Bench::new(2));
    let machine = state_of(3_000, 300);
    let meta = source.take(&machine);
    assert_eq!(meta.at, EntryId::new(3_000, 1));
    assert_eq!(received(sink.receive(meta)), 0);
    sink.fetch(&source, meta, 0, meta.bytes);
    let Loaded { meta: of, machine: other, longest } = loaded(sink.install(meta));
    assert_eq!((of, longest), (meta, "key000000".len() + 300));
    assert_eq!((other.applied(), other.hash(), other.keys()), (machine.applied(), machine.hash(), 3_000));
    assert_eq!(sink.disk.names(), ["snapshot-0000000000000bb8-0000000000000001.snap"]);
    assert!(source.piece(SnapshotId(meta.id.0 ^ 1), 0).is_none(), "another snapshot");
    assert!(source.piece(meta.id, meta.bytes + 1).is_none(), "beyond its end");
}

// rule 21
#[test]
fn nobody_waits_for_a_long_snapshot() {
    let bench = Bench::new(1);
    let first = bench.take(&state_of(10, 10));
    let machine = state_of(8_000, 1_000);
    bench.loop_end.send(take(&machine));
    bench.hands.work();
    let mut steps = 0;
    loop {
        assert_eq!(bench.hands.next_effort(), Some(Effort::Long));
        let read = Job::Read { piece_for: PieceFor(steps), shard: SHARD, id: first.id, offset: 0, length_max: 10 };
        bench.loop_end.send(read);
        assert_eq!(bench.hands.next_effort(), Some(Effort::Short));
        bench.hands.work();
        assert!(matches!(bench.loop_end.done(), Some(Done::Piece { piece_for: PieceFor(of), .. }) if of == steps));
        bench.hands.work();
        steps += 1;
        if let Some(done) = bench.loop_end.done() {
            assert!(matches!(done, Done::Taken { .. }), "{done:?}");
            break;
        }
    }
    assert!(steps >= 8_000_000 / super::STEP_BYTES as u64, "{steps} steps");
    assert_eq!(bench.hands.next_effort(), Some(Effort::Long), "the state is let go of");
    bench.hands.work();
    assert_eq!(bench.hands.next_effort(), None);
}

/// The file could be loaded by nobody, and the log that makes up for it would go.
// rule 20, museum 48
#[test]
fn a_state_that_memory_has_not_kept_is_not_written_down() {
    let bench = Bench::new(1);
    let mut machine = state_of(3_000, 300);
    let sound = bench.take(&machine);
    grow(&mut machine, 0..1, b"more");
    let expected = machine.hash();
    assert!(machine.flip_byte(b"key002999"));
    match bench.one(take(&machine)) {
        Done::Corrupt { shard: SHARD, at, found, expected: says } => {
            assert_eq!((at, says), (EntryId::new(3_001, 1), expected));
            assert_ne!(found, expected);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.disk.names(), ["snapshot-0000000000000bb8-0000000000000001.snap"], "no other file stays");
    let log = crate::storage::RecoveredShard::default();
    let found = super::find(&stores(&bench.disk), SHARD, &log).expect("it is whole").loaded.expect("one is there");
    assert_eq!(found.meta, sound);
}

pub(super) fn newest_of(disk: &SimulatedDisk) -> Loaded {
    let log = crate::storage::RecoveredShard::default();
    super::find(&stores(disk), SHARD, &log).expect("one is whole").loaded.expect("one is there")
}

// museum 28
#[test]
fn a_state_that_goes_on_while_it_is_written_is_written_as_it_was() {
    let bench = Bench::new(1);
    let mut machine = state_of(4_000, 500);
    let before = machine.snapshot();
    bench.loop_end.send(take(&machine));
    while bench.hands.next_effort().is_some() {
        bench.hands.work();
        grow(&mut machine, 0..4_100, b"another");
    }
    assert!(matches!(bench.loop_end.done(), Some(Done::Taken { .. })));
    let log = crate::storage::RecoveredShard::default();
    let found = super::find(&stores(&bench.disk), SHARD, &log).expect("it is whole").loaded.expect("one is there");
    assert_eq!((found.machine.hash(), found.meta.at), (before.hash(), before.at()));
    assert_ne!(machine.hash(), before.hash());
}

// museum 27
#[test]
fn a_snapshot_that_is_removed_while_another_node_fetches_it_is_fetched_to_its_end() {
    let (source, sink) = (Bench::new(1), Bench::new(2));
    let mut machine = state_of(1_000, 200);
    let meta = source.take(&machine);
    received(sink.receive(meta));
    sink.fetch(&source, meta, 0, meta.bytes / 2);
    for _ in 0..3 {
        grow(&mut machine, 0..10, b"more");
        source.take(&machine);
    }
    assert_eq!(source.disk.names().len(), 2, "two are kept");
    let upto = (meta.bytes / 2).next_multiple_of(PIECE as u64);
    sink.fetch(&source, meta, upto, meta.bytes);
    assert_eq!(loaded(sink.install(meta)).meta, meta);
}

#[test]
fn a_transfer_goes_on_where_the_process_before_had_come_to() {
    let (source, sink) = (Bench::new(1), Bench::new(2));
    let machine = state_of(5_000, 200);
    let meta = source.take(&machine);
    received(sink.receive(meta));
    sink.fetch(&source, meta, 0, meta.bytes * 2 / 3);
    assert!(received(sink.receive(meta)) > meta.bytes / 3, "in the same process");
    for survivors in [Survivors::All, Survivors::Random { seed: 5, block: 512 }, Survivors::None] {
        let next = Bench::on(sink.disk.crash(survivors));
        let upto = received(next.receive(meta));
        assert!(upto <= meta.bytes * 2 / 3 + PIECE as u64);
        assert!(survivors != Survivors::All || upto > meta.bytes / 3, "{upto} of {}", meta.bytes);
        next.fetch(&source, meta, upto, meta.bytes);
        assert_eq!(loaded(next.install(meta)).machine.hash(), machine.hash(), "{survivors:?}");
    }
}
/// A read that failed says nothing of what was written.
// museum 32
#[test]
fn a_snapshot_that_the_disk_does_not_give_is_none_the_worse() {
    let (source, sink) = (Bench::new(1), Bench::new(2));
    let meta = source.take(&state_of(3_000, 300));
    let name = crate::storage::snapshot::snapshot_name(meta.at);
    // While it is served.
    source.loop_end.send(Job::Read { piece_for: PieceFor(9), shard: SHARD, id: meta.id, offset: 0, length_max: PIECE });
    source.hands.work();
    source.disk.set_unreadable(&name, true);
    while source.hands.next_effort().is_some() {
        source.hands.work();
    }
    source.disk.set_unreadable(&name, false);
    let done: Vec<Done> = std::iter::from_fn(|| source.loop_end.done()).collect();
    assert!(matches!(done[..], [Done::Piece { piece: Some(_), .. }]), "{done:?}");
    // While it is loaded.
    received(sink.receive(meta));
    sink.fetch(&source, meta, 0, meta.bytes);
    sink.loop_end.send(Job::Install { shard: SHARD, id: meta.id });
    sink.hands.work();
    sink.disk.set_unreadable(&name, true);
    while sink.hands.next_effort().is_some() {
        sink.hands.work();
    }
    assert!(matches!(failure(sink.loop_end.done().expect("it is told")), Failure::Failed(_)));
    sink.disk.set_unreadable(&name, false);
    assert_eq!(sink.disk.names(), [name], "it is not set aside");
    assert_eq!(received(sink.receive(meta)), meta.bytes, "it is all there");
    assert_eq!(loaded(sink.install(meta)).meta, meta);
}

/// Whichever core is asked, and whether or not it has the file open.
#[test]
fn a_snapshot_that_was_set_aside_is_served_no_more() {
    let disk = SimulatedDisk::new(1);
    let stores = stores(&disk);
    let (own, other) = (Bench::over(disk.clone(), stores.clone()), Bench::over(disk, stores));
    let meta = own.take(&state_of(3_000, 300));
    assert!(own.piece(meta.id, 0).is_some() && other.piece(meta.id, 0).is_some());
    assert!(own.all(Job::SetAside { shard: SHARD, meta }).is_empty());
    assert!(own.piece(meta.id, 0).is_none() && other.piece(meta.id, 0).is_none());
}

/// A node that runs for years condemns many. Whoever has had one open all the time may have missed that.
#[test]
fn of_the_snapshots_that_were_condemned_only_the_latest_are_remembered_and_none_is_served() {
    let disk = SimulatedDisk::new(1);
    let stores = stores(&disk);
    let [own, idle, busy] = [(); 3].map(|()| Bench::over(disk.clone(), stores.clone()));
    let mut machine = state_of(3_000, 300);
    let wrong = own.take(&machine);
    grow(&mut machine, 0..1, b"more");
    let sound = own.take(&machine);
    for bench in [&idle, &busy] {
        assert!(bench.piece(wrong.id, 0).is_some() && bench.piece(sound.id, 0).is_some());
    }
    assert!(own.all(Job::SetAside { shard: SHARD, meta: wrong }).is_empty());
    for other in 0..10_000 {
        stores.condemn(ShardId(9), SnapshotId(other));
        stores.condemn(ShardId(9), SnapshotId(other));
        assert!(other % 100 != 0 || busy.piece(sound.id, 0).is_some());
    }
    assert!((100..1_000).contains(&stores.remembered()), "{}", stores.remembered());
    for bench in [&idle, &busy] {
        assert!(bench.piece(wrong.id, 0).is_none() && bench.piece(sound.id, 0).is_some());
    }
}

/// Its bytes are those of the next snapshot by then.
#[test]
fn a_snapshot_that_is_written_over_while_another_core_looks_through_it_is_not_found_damaged() {
    let disk = SimulatedDisk::new(1);
    let stores = stores(&disk);
    let (own, other) = (Bench::over(disk.clone(), stores.clone()), Bench::over(disk, stores));
    let mut machine = state_of(3_000, 300);
    let first = own.take(&machine);
    grow(&mut machine, 0..10, &[8; 300]);
    own.take(&machine);
    let read = Job::Read { piece_for: PieceFor(9), shard: SHARD, id: first.id, offset: 0, length_max: PIECE };
    other.loop_end.send(read);
    other.hands.work();
    assert!(matches!(other.loop_end.done(), Some(Done::Piece { piece: Some(_), .. })));
    own.disk.set_full(true);
    grow(&mut machine, 0..3_000, &[9; 299]);
    own.take(&machine);
    while other.hands.next_effort().is_some() {
        other.hands.work();
    }
    assert!(other.loop_end.done().is_none(), "nobody has anything to do for it");
}

#[test]
fn a_snapshot_that_is_older_than_the_newest_is_no_failure() {
    let bench = Bench::new(1);
    bench.take(&state_of(20, 10));
    let refused = failure(bench.one(take(&state_of(10, 10))));
    assert!(matches!(refused, Failure::Superseded(_)), "{refused:?}");
}

// museum 32
#[test]
fn bytes_that_were_changed_on_their_way_are_not_installed() {
    let (source, sink) = (Bench::new(1), Bench::new(2));
    let meta = source.take(&state_of(100, 100));
    for changed in [0, 25, meta.bytes as usize / 2, meta.bytes as usize - 1] {
        received(sink.receive(meta));
        let (_, mut bytes) = source.piece(meta.id, 0).expect("it is there");
        bytes.truncate(meta.bytes as usize);
        assert_eq!(bytes.len() as u64, meta.bytes.min(PIECE as u64));
        if let Some(byte) = bytes.get_mut(changed) {
            *byte ^= 4;
            let refused = failure(match sink.write(meta, 0, bytes) {
                Done::Received { .. } => sink.install(meta),
                done => done,
            });
            assert!(matches!(refused, Failure::Failed(_)), "{refused:?}");
        }
    }
    assert!(sink.disk.names().iter().all(|name| !name.starts_with("snapshot")), "{:?}", sink.disk.names());
}

/// What another node has written may be whole and yet not be the state that it says it is.
#[test]
fn a_state_with_another_hash_than_it_says_is_neither_installed_nor_found_at_the_next_start() {
    let (source, sink) = (Bench::new(1), Bench::new(2));
    let machine = state_of(100, 100);
    let store = stores(&source.disk);
    let store = store.get(SHARD).expect("it is there");
    let mut writer = store.create(EntryId::new(100, 1), crate::state_machine::state_hash::FORMAT, b"").expect("begins");
    for (key, version, value) in machine.snapshot().iter() {
        writer.push(crate::storage::snapshot::Item { key, version, value }).expect("is written");
    }
    let meta = super::load::meta(writer.finish(machine.hash() ^ 1, Vec::new()).expect("is written"));
    received(sink.receive(meta));
    sink.fetch(&source, meta, 0, meta.bytes);
    let refused = failure(sink.install(meta));
    assert!(matches!(&refused, Failure::Failed(words) if words.contains("another state")), "{refused:?}");
    let log = crate::storage::RecoveredShard::default();
    assert!(super::find(&stores(&sink.disk), SHARD, &log).expect("a log without a snapshot").loaded.is_none());
}

#[test]
fn what_is_abandoned_can_be_fetched_again() {
    let (source, sink) = (Bench::new(1), Bench::new(2));
    let meta = source.take(&state_of(500, 100));
    received(sink.receive(meta));
    sink.fetch(&source, meta, 0, PIECE as u64);
    assert!(sink.all(Job::Abandon { shard: SHARD, id: meta.id }).is_empty());
    assert!(sink.all(Job::Write { shard: SHARD, id: meta.id, offset: PIECE as u64, bytes: vec![0] }).is_empty());
    assert!(matches!(failure(sink.install(meta)), Failure::Failed(_)));
    let upto = received(sink.receive(meta));
    sink.fetch(&source, meta, upto, meta.bytes);
    assert_eq!(loaded(sink.install(meta)).meta, meta);
}

#[test]
fn shards_that_are_not_there_have_no_snapshots() {
    let bench = Bench::new(1);
    let meta = bench.take(&state_of(1, 1));
    let read = Job::Read { piece_for: PieceFor(1), shard: ShardId(9), id: meta.id, offset: 0, length_max: 1 };
    assert!(matches!(bench.one(read), Done::Piece { piece: None, .. }));
    assert!(matches!(bench.one(Job::Receive { shard: ShardId(9), meta }), Done::NotInstalled { .. }));
    assert_eq!(bench.disk.names().len(), 1);
}

/// A file that nobody reads any more must not keep its bytes on a disk that may be full.
#[test]
fn a_snapshot_that_was_removed_is_closed_when_it_was_fetched_or_given_up() {
    let bench = Bench::new(1);
    let mut machine = state_of(100, 200);
    let meta = bench.take(&machine);
    let mut take = |times: u32| {
        for _ in 0..times {
            grow(&mut machine, 0..1, b"more");
            bench.take(&machine);
        }
    };
    assert!(bench.piece(meta.id, 0).is_some());
    take(16);
    assert!(bench.piece(meta.id, 0).is_some(), "somebody may still be at it");
    take(17);
    assert!(bench.piece(meta.id, 0).is_none(), "given up");
    let meta = bench.take(&state_of(10_000, 1));
    assert!(bench.piece(meta.id, meta.bytes - 1).is_some());
    let mut machine = state_of(10_001, 1);
    for _ in 0..2 {
        grow(&mut machine, 0..1, b"more");
        bench.take(&machine);
    }
    assert!(bench.piece(meta.id, 0).is_none(), "fetched to its end");
}

/// It is the header that names a snapshot: of one whose header is damaged nobody can say that it is another.
#[test]
fn that_the_header_of_a_snapshot_has_rotted_is_told_when_somebody_asks_for_it() {
    let bench = Bench::new(1);
    let meta = bench.take(&state_of(10, 10));
    let name = bench.disk.names().last().expect("it is there").clone();
    bench.disk.flip(&name, 20, 0);
    bench.loop_end.send(Job::Read { piece_for: PieceFor(9), shard: SHARD, id: meta.id, offset: 0, length_max: PIECE });
    bench.hands.work();
    match bench.loop_end.done() {
        Some(Done::Rotten { shard: SHARD, id }) => assert_eq!(id, meta.id),
        other => panic!("{other:?}"),
    }
    assert!(matches!(bench.loop_end.done(), Some(Done::Piece { piece: None, .. })));
}

/// A sync that succeeds after that would prove nothing. Anything else that fails is tried again.
// museum 38
#[test]
fn a_sync_that_failed_is_final_and_nothing_else_is() {
    let (mut ended, mut tried_again) = (0, 0);
    for operation in 0.. {
        let bench = Bench::new(4);
        bench.take(&state_of(10, 10));
        bench.take(&state_of(20, 10));
        let begun = bench.disk.operations();
        bench.disk.fail_at(operation);
        let done = bench.all(take(&state_of(3_000, 300)));
        if bench.disk.operations() <= begun + operation {
            assert!(matches!(done[..], [Done::Taken { .. }]), "{done:?}");
            break;
        }
        match bench.loop_end.failure() {
            Some(line) => {
                assert!(line.starts_with("cannot sync /simulated/"), "{line}");
                assert!(line.ends_with("(os error 5); check the disk, then start the node again"), "{line}");
                assert!(done.is_empty(), "{done:?}");
                let after = bench.disk.operations();
                assert!(bench.all(take(&state_of(3_000, 300))).is_empty());
                assert_eq!(bench.disk.operations(), after, "the disk is left alone");
                ended += 1;
            }
            None => {
                assert_eq!(done.len(), 1, "{done:?}");
                bench.take(&state_of(3_001, 300));
                tried_again += 1;
            }
        }
    }
    assert!(ended >= 3 && tried_again >= 3, "{ended} ended, {tried_again} were tried again");
}

/// What was replaced meanwhile becomes free in portions: the loop that allocated it would wait for the allocator otherwise.
#[test]
fn a_state_that_was_written_is_let_go_of_in_portions() {
    let bench = Bench::new(1);
    let mut machine = state_of(8_000, 1_000);
    bench.loop_end.send(take(&machine));
    grow(&mut machine, 0..8_000, &[8; 1_000]);
    while bench.loop_end.done().is_none() {
        bench.hands.work();
    }
    let mut steps = 0;
    while bench.hands.next_effort().is_some() {
        bench.hands.work();
        steps += 1;
    }
    // A leaf more each time.
    assert!(steps >= 8_000_000 / (super::STEP_BYTES + 33_000), "{steps} steps");
}
