use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use raftkv_protocol::types::{Entry, EntryId, EntryKind, HardState, Index, NodeId, ShardId, SnapshotId, Term};
use tempfile::TempDir;

use super::disk::Disk;
use super::log_by_hand::write_out;
use super::resize::{OnDisk, move_between};
use super::simulated_disk::{SimulatedDisk, Survivors};
use super::{CoreLog, FileLog, LogError, Options, RecoveredShard, move_shards};

const SHARDS: u16 = 7;

fn options(dir: &Path, core: u16, cores: u16) -> Options {
    let shards = (core..SHARDS).step_by(usize::from(cores)).map(ShardId).collect();
    let mut options = Options::new(dir.join(format!("core-{core}")), shards, Arc::new(|| ()));
    options.segment_size = 64 << 10;
    options
}

fn all(dir: &Path, cores: u16) -> Vec<Options> {
    (0..cores).map(|core| options(dir, core, cores)).collect()
}

fn entries(shard: ShardId, first: u64, last: u64, term: u64) -> Vec<Entry> {
    let entry = |index: u64| {
        let id = EntryId { index: Index(index), term: Term(term) };
        let length = (index as usize * 37 + usize::from(shard.0) * 11) % 3_000;
        Entry { id, kind: EntryKind::Command, body: Bytes::from(vec![index as u8; length]) }
    };
    (first..=last).map(entry).collect()
}

/// Logs of several segments, some of whose entries were overwritten, one shard without any, and one behind a snapshot.
fn filled(dir: &Path, cores: u16) {
    for options in all(dir, cores) {
        let shards = options.shards.clone();
        let (mut log, _) = FileLog::open(options).expect("opens");
        for shard in shards.into_iter().filter(|shard| shard.0 != 5) {
            log.set_hard_state(shard, HardState { term: Term(3), vote: Some(NodeId(u64::from(shard.0))) });
            log.append(shard, &mut entries(shard, 1, 60, 1));
            log.append(shard, &mut entries(shard, 41, 50 + u64::from(shard.0), 3));
            if shard.0 == 4 {
                log.reset(shard, EntryId::new(1_000, 3), SnapshotId(9));
                log.append(shard, &mut entries(shard, 1_001, 1_060, 3));
            }
        }
        log.close().expect("closes");
    }
}

/// What the logs hold: each shard, and the bodies of its entries.
fn contents(dir: &Path, cores: u16) -> Vec<(ShardId, RecoveredShard, Vec<Bytes>)> {
    let mut contents = Vec::new();
    for options in all(dir, cores) {
        let disk = super::disk::RealDisk::create(&options.dir, options.io).expect("a directory");
        contents.extend(contents_on(Arc::new(disk), options));
    }
    contents.sort_by_key(|(shard, ..)| *shard);
    contents
}

/// The same of one log on any disk.
fn contents_on(disk: Arc<dyn Disk>, options: Options) -> Vec<(ShardId, RecoveredShard, Vec<Bytes>)> {
    let shards = options.shards.clone();
    let (mut log, recovered, workers) = FileLog::open_by_hand(disk, options).expect("opens");
    let held = shards.into_iter().zip(recovered).map(|(shard, recovered)| {
        let last = Index(recovered.start.index.0 + recovered.entries.len() as u64);
        let bodies = bodies(&mut log, &workers, shard, recovered.start.index.next(), last);
        (shard, recovered, bodies)
    });
    held.collect()
}

fn bodies(log: &mut FileLog, workers: &super::Workers, shard: ShardId, mut first: Index, last: Index) -> Vec<Bytes> {
    let mut bodies = Vec::new();
    while first <= last {
        log.fetch(super::Fetch { shard, tag: 0, first, last, bytes_max: 1 << 20 });
        workers.read();
        let read = log.fetched().expect("was read").result.expect("is there");
        first = Index(first.0 + read.len() as u64);
        bodies.extend(read.into_iter().map(|entry| entry.body));
    }
    bodies
}

fn temp() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[test]
fn every_shard_is_the_same_in_its_new_log() {
    for (before, after) in [(1, 3), (3, 2), (2, 7), (7, 1)] {
        let (old, new) = (temp(), temp());
        filled(old.path(), before);
        let held = contents(old.path(), before);
        assert!(held.iter().filter(|(_, shard, bodies)| shard.entries.len() > 50 && bodies.len() > 50).count() >= 5);
        move_shards(all(old.path(), before), all(new.path(), after)).expect("moves");
        assert_eq!(contents(new.path(), after), held, "from {before} to {after}");
        assert_eq!(contents(old.path(), before), held, "the old logs lose nothing");
    }
}

#[test]
fn a_damaged_log_is_not_moved() {
    let (old, new) = (temp(), temp());
    filled(old.path(), 2);
    let segment = old.path().join("core-1/segment-0000000000000001.log");
    let mut bytes = fs::read(&segment).expect("reads");
    // In the body of the thirtieth entry: how batches lie depends on how fast the disk was.
    let body = bytes.windows(1_000).position(|window| window == [30; 1_000]).expect("it is in the first segment");
    bytes[body + 500] ^= 1;
    fs::write(&segment, bytes).expect("writes");
    let error = move_shards(all(old.path(), 2), all(new.path(), 3)).expect_err("refused");
    assert!(error.0.contains("corrupt") && error.0.contains("core-1"), "{error}");
}

#[test]
fn a_move_without_room_says_so() {
    let (old, new) = (temp(), temp());
    filled(old.path(), 1);
    let held = contents(old.path(), 1);
    let mut to = all(new.path(), 2);
    // One segment of each log, and not a second.
    to.iter_mut().for_each(|options| options.max_bytes = Some(96 << 10));
    let error = move_shards(all(old.path(), 1), to).expect_err("refused");
    assert!(error.0.contains("free space, or start with the old --cores"), "{error}");
    assert_eq!(contents(old.path(), 1), held);
}

/// Disks in memory, one for each core, and the logs that they hold when everything was put there.
fn disks(cores: u16) -> Vec<SimulatedDisk> {
    (0..cores).map(|core| SimulatedDisk::new(u64::from(core))).collect()
}

fn on(disks: &[SimulatedDisk]) -> impl Iterator<Item = Result<OnDisk, LogError>> {
    let cores = disks.len() as u16;
    let disks = disks.iter().map(|disk| Arc::new(disk.clone()) as Arc<dyn Disk>);
    (0..cores).zip(disks).map(move |(core, disk)| Ok((disk, options(Path::new("nowhere"), core, cores))))
}

fn held(disks: &[SimulatedDisk]) -> Vec<(ShardId, RecoveredShard, Vec<Bytes>)> {
    let mut held: Vec<_> =
        on(disks).flat_map(|log| log.map(|(disk, options)| contents_on(disk, options)).expect("a log")).collect();
    held.sort_by_key(|(shard, ..)| *shard);
    held
}

/// Until the new logs are whole and durable nobody is told so, and the old ones hold everything.
// museum 39, 40
#[test]
fn the_power_may_go_at_any_moment_of_a_move() {
    let old = disks(2);
    for (disk, (_, options)) in old.iter().zip(on(&old).map(|log| log.expect("a log"))) {
        let shards = options.shards.clone();
        let (mut log, _, workers) = FileLog::open_by_hand(Arc::new(disk.clone()), options).expect("opens");
        for shard in shards {
            log.set_hard_state(shard, HardState { term: Term(3), vote: Some(NodeId(2)) });
            log.append(shard, &mut entries(shard, 1, 20, 1));
            write_out(&mut log, &workers);
        }
        log.close().expect("healthy");
    }
    let before = held(&old);
    let mut cut_off = 0;
    // Each of the disks in turn: two that are read, three that are written.
    for dying in 0..5 {
        for operation in 0.. {
            let old: Vec<SimulatedDisk> = old.iter().map(SimulatedDisk::fork).collect();
            let new = disks(3);
            let all = || old.iter().chain(&new);
            let disk = all().nth(dying).expect("there are five");
            disk.die_at(operation);
            let moved = move_between(on(&old), on(&new));
            let has_died = disk.is_off();
            assert_eq!(moved.is_err(), has_died, "disk {dying}, operation {operation}: {moved:?}");
            all().for_each(|disk| disk.crash_in_place(Survivors::None));
            assert!(held(&old) == before, "disk {dying}, operation {operation}: the old logs lose nothing");
            if !has_died {
                assert!(held(&new) == before, "the new ones hold all of it");
                break;
            }
            cut_off += 1;
        }
    }
    assert!(cut_off > 50, "{cut_off}");
}
