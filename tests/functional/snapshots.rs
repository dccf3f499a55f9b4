//! Logs that do not grow for ever, starts from snapshots, and nodes that catch up by them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use raftkv::client::SnapshotOutcome;
use raftkv_protocol::client::{BatchBuffer, BatchOperation, Change, Condition, Operation, Request};
use raftkv_protocol::hello::{Hello, HelloRole};
use raftkv_protocol::peer::{ChunkResult, PeerFrame, SnapshotChunk, SnapshotRead};
use raftkv_protocol::types::{CoreId, NodeId, RequestId, ShardId, SnapshotId};

use crate::support::cluster::{Builder, Cluster};
use crate::support::metrics::Page;
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wire::{Said, Wire, client_hello, encoded};

/// Few bytes of everything, so that little has to be written.
fn small(nodes: u64) -> Builder {
    Cluster::of(nodes)
        .flag("--segment-size=64KiB")
        .flag("--snapshot-log-bytes=32KiB")
        .flag("--log-tail-bytes=0")
        .flag("--core-log-bytes-max=512KiB")
}

type Contents = BTreeMap<String, (u64, Vec<u8>)>;

/// Writes `keys` keys over and over, `rounds` times, through a node.
fn overwrite(cluster: &Cluster, id: u64, keys: usize, rounds: usize, contents: &mut Contents) {
    let mut wire = cluster.wire(id);
    for round in 0..rounds {
        for key in 0..keys {
            let (key, value) = (format!("key{key}"), format!("{key} in {round}").into_bytes().repeat(150));
            let version = wire.put(&key, &value);
            contents.insert(key, (version, value));
        }
    }
}

#[track_caller]
fn check(cluster: &Cluster, contents: &Contents) {
    for id in cluster.running() {
        let mut wire = cluster.wire(id);
        for (key, expected) in contents {
            assert_eq!(wire.get(key).as_ref(), Some(expected), "{key} through node {id}");
        }
    }
}

/// The bytes of all files below a directory.
fn bytes_below(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).expect("the directory is there").map(|file| file.expect("it can be read"));
    let bytes = files.map(|file| match file.file_type() {
        Ok(kind) if kind.is_dir() => bytes_below(&file.path()),
        // A file that is gone by now has none.
        _ => file.metadata().map_or(0, |metadata| metadata.len()),
    });
    bytes.sum()
}

/// The snapshots of a node's shard, oldest first.
fn snapshots(cluster: &Cluster, id: u64, shard: u16) -> Vec<PathBuf> {
    let dir = cluster.data_dir(id).join(format!("snapshots/shard-{shard}"));
    let files = fs::read_dir(dir).expect("the directory is there").map(|file| file.expect("it can be read").path());
    let is_snapshot = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("snapshot-")
    };
    let mut found: Vec<PathBuf> = files.filter(is_snapshot).collect();
    found.sort();
    found
}

fn counter(cluster: &Cluster, id: u64, name: &str) -> u64 {
    cluster.wire(id).counter(name)
}

#[test]
fn a_log_stays_bounded_and_everything_is_there_after_restarts() {
    let mut cluster = small(3).start();
    let mut contents = Contents::new();
    // 40 keys of about 2 KB, 60 times: 5 MB, of which the log holds a tenth.
    overwrite(&cluster, 1, 40, 60, &mut contents);
    for id in cluster.ids() {
        let logs = cluster.data_dir(id).join("logs");
        // The budget, three spares, and what comes between two looks at it.
        eventually(PATIENCE, format!("the log of node {id} is bounded"), || {
            (bytes_below(&logs) <= (512 << 10) + 10 * (64 << 10)).then_some(())
        });
        assert!(counter(&cluster, id, "snapshots_taken") >= 12, "two of each of six shards at least");
        assert!((0..6).all(|shard| snapshots(&cluster, id, shard).len() == 2), "two of each are kept");
        let status = cluster.wire(id).status();
        assert!(status.shards.iter().all(|shard| shard.snapshot.index.0 > 0 && shard.snapshot.index <= shard.applied));
    }
    check(&cluster, &contents);
    cluster.kill_all();
    cluster.restart_all();
    check(&cluster, &contents);
    for id in cluster.ids() {
        assert_eq!(cluster.stop(id).code, Some(0));
    }
    cluster.restart_all();
    check(&cluster, &contents);
    overwrite(&cluster, 2, 40, 10, &mut contents);
    check(&cluster, &contents);
    cluster.await_convergence();
}

/// Priority and time on a processor of a thread of a process, by its name.
fn thread_of(pid: u32, name: &str) -> (i64, Duration) {
    let threads =
        fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").map(|thread| thread.expect("read").path());
    let read = |thread: &Path, file: &str| fs::read_to_string(thread.join(file)).expect("the thread is there");
    let found = threads.into_iter().find(|thread| read(thread, "comm").trim() == name);
    let thread = found.unwrap_or_else(|| panic!("there is no thread {name}"));
    let stat = read(&thread, "stat");
    // Behind the name: the state is the first word, the nice value the seventeenth.
    let nice = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(16)).expect("a nice value");
    let ran = read(&thread, "schedstat").split(' ').next().and_then(|ns| ns.parse().ok()).expect("nanoseconds");
    (nice.parse().expect("a number"), Duration::from_nanos(ran))
}

#[test]
fn a_log_that_is_long_does_not_wait_for_a_thread_of_the_lowest_priority() {
    let mut cluster = small(1).flag("--cores=1").start();
    let pid = cluster.process(1).pid();
    let ((lowest, _), (common, before)) = (thread_of(pid, "snapshots-0"), thread_of(pid, "hurried-0"));
    assert_eq!((lowest, common), (19, thread_of(pid, "core-0").0));
    let mut contents = Contents::new();
    eventually(
        PATIENCE,
        "the log is longer than half of what it may be, and snapshots are taken by the other thread",
        || {
            overwrite(&cluster, 1, 40, 10, &mut contents);
            (thread_of(pid, "hurried-0").1 >= before + Duration::from_millis(5)).then_some(())
        },
    );
    check(&cluster, &contents);
}

#[test]
fn a_shard_that_is_hardly_written_does_not_hold_on_to_the_log() {
    let mut cluster = small(1).start();
    let mut contents = Contents::new();
    overwrite(&cluster, 1, 40, 1, &mut contents);
    // From now on one key, and so one shard.
    let mut wire = cluster.wire(1);
    for n in 0..1_500 {
        let (key, value) = ("key7".to_owned(), format!("{n}").into_bytes().repeat(500));
        let version = wire.put(&key, &value);
        contents.insert(key, (version, value));
    }
    let logs = cluster.data_dir(1).join("logs");
    eventually(PATIENCE, "the log is bounded", || (bytes_below(&logs) <= (512 << 10) + 10 * (64 << 10)).then_some(()));
    check(&cluster, &contents);
    cluster.kill_9(1);
    cluster.restart_all();
    check(&cluster, &contents);
}

#[test]
fn logs_that_begin_at_snapshots_move_to_another_number_of_cores() {
    let mut cluster = small(3).flag("--cores=2").start();
    let mut contents = Contents::new();
    for (cores, round) in [(3, 1), (1, 2), (2, 3)] {
        overwrite(&cluster, round, 40, 10, &mut contents);
        while cluster.ids().iter().any(|id| (0..6).any(|shard| snapshots(&cluster, *id, shard).is_empty())) {
            overwrite(&cluster, round, 40, 10, &mut contents);
        }
        cluster.kill_all();
        cluster.set_flag(&format!("--cores={cores}"));
        cluster.restart_all();
        check(&cluster, &contents);
        for id in cluster.ids() {
            let status = cluster.wire(id).status();
            let known: Vec<_> = status.shards.iter().filter(|shard| shard.snapshot.index.0 > 0).collect();
            assert_eq!(known.len(), 6, "node {id} has a snapshot of each shard");
        }
    }
    cluster.await_convergence();
}

// museum 31
#[test]
fn a_node_that_was_away_while_the_log_went_catches_up_by_snapshots() {
    let mut cluster = small(3).start();
    let mut contents = Contents::new();
    overwrite(&cluster, 1, 40, 2, &mut contents);
    cluster.kill_9(3);
    cluster.await_leaders();
    overwrite(&cluster, 1, 40, 40, &mut contents);
    cluster.start_node(3);
    cluster.await_convergence();
    assert!(counter(&cluster, 3, "snapshots_installed") >= 1);
    assert!(counter(&cluster, 3, "snapshot_bytes_received") > 0);
    let sent: u64 = [1, 2].into_iter().map(|id| counter(&cluster, id, "snapshot_bytes_sent")).sum();
    assert!(sent >= counter(&cluster, 3, "snapshot_bytes_received"));
    check(&cluster, &contents);
    // It takes part again: it and one other are a majority.
    cluster.kill_9(1);
    cluster.await_leaders();
    overwrite(&cluster, 3, 40, 2, &mut contents);
    check(&cluster, &contents);
    // What it installed is what it starts with.
    cluster.kill_9(3);
    cluster.restart_all();
    check(&cluster, &contents);
    cluster.await_convergence();
}

/// A cluster of one shard with 3 MiB of state, of which node 3 has nothing.
fn with_one_left_behind(rate: &str) -> (Cluster, Contents) {
    let builder = small(3).shards(1).flag("--snapshot-log-bytes=1MiB").flag(&format!("--snapshot-rate={rate}"));
    let mut cluster = builder.start();
    cluster.kill_9(3);
    cluster.await_leaders();
    let mut contents = Contents::new();
    let mut wire = cluster.wire(1);
    for n in 0..120_u32 {
        let (key, value) = (format!("key{}", n % 60), n.to_le_bytes().repeat(13_000));
        let version = wire.put(&key, &value);
        contents.insert(key, (version, value));
    }
    for id in [1, 2] {
        eventually(PATIENCE, format!("node {id} has snapshots"), || {
            (counter(&cluster, id, "snapshots_taken") >= 2).then_some(())
        });
    }
    (cluster, contents)
}

fn await_bytes(cluster: &Cluster, bytes: u64) -> u64 {
    eventually(PATIENCE, format!("{bytes} bytes of a snapshot have come"), || {
        Some(counter(cluster, 3, "snapshot_bytes_received")).filter(|come| *come >= bytes)
    })
}

#[test]
fn a_follower_that_is_killed_while_it_fetches_goes_on_where_it_was() {
    let (mut cluster, contents) = with_one_left_behind("1MiB");
    cluster.start_node(3);
    await_bytes(&cluster, 2 << 20);
    cluster.kill_9(3);
    cluster.set_flag("--snapshot-rate=64MiB");
    cluster.start_node(3);
    cluster.await_convergence();
    let size: u64 = fs::metadata(snapshots(&cluster, 3, 0).last().expect("one is installed")).expect("a file").len();
    let come = counter(&cluster, 3, "snapshot_bytes_received");
    assert!(size > 5 << 19, "{size}");
    // Of what had come, two pieces may not have been written yet.
    let there = (2 << 20) - (512 << 10);
    assert!(come <= size - there, "{come} bytes came of {size}, although {there} were there already");
    check(&cluster, &contents);
}

#[test]
fn a_leader_that_is_killed_while_it_is_fetched_from_is_replaced() {
    let (mut cluster, contents) = with_one_left_behind("512KiB");
    cluster.start_node(3);
    await_bytes(&cluster, 1 << 20);
    let leader = cluster.leaders().into_values().next().expect("there is one shard");
    cluster.kill_9(leader);
    let before = counter(&cluster, 3, "snapshot_bytes_received");
    cluster.await_leaders();
    cluster.await_convergence_within(2 * PATIENCE);
    assert!(counter(&cluster, 3, "snapshots_installed") >= 1);
    // The next leader's snapshot is another file: all of it is fetched, and none of it twice.
    let size: u64 = fs::metadata(snapshots(&cluster, 3, 0).last().expect("one is installed")).expect("a file").len();
    let come = counter(&cluster, 3, "snapshot_bytes_received");
    assert!(come <= before + size, "{come} bytes came, {before} from the node that was killed, of {size}");
    cluster.restart_all();
    cluster.await_convergence();
    check(&cluster, &contents);
}

/// Puts and heartbeats go on as ever beside a snapshot that is fetched slowly.
#[test]
fn a_snapshot_that_is_fetched_keeps_nobody_waiting() {
    let (mut cluster, mut contents) = with_one_left_behind("256KiB");
    cluster.start_node(3);
    await_bytes(&cluster, 256 << 10);
    let before = cluster.leaders();
    let term = |cluster: &Cluster| cluster.wire(1).status().shards[0].term;
    let term_before = term(&cluster);
    let mut wire = cluster.wire(1);
    let started = std::time::Instant::now();
    while started.elapsed() < Duration::from_secs(2) {
        let version = wire.put("beside", b"it");
        contents.insert("beside".to_owned(), (version, b"it".to_vec()));
    }
    assert_eq!((cluster.leaders(), term(&cluster)), (before, term_before), "nobody was taken for dead");
    assert_eq!(counter(&cluster, 3, "snapshots_installed"), 0, "it is still being fetched");
    cluster.kill_9(3);
    cluster.set_flag("--snapshot-rate=64MiB");
    cluster.start_node(3);
    cluster.await_convergence();
    check(&cluster, &contents);
}

/// What was asked for is durable: it is what a process starts with that was killed right after the answer.
#[test]
fn a_node_takes_snapshots_when_it_is_asked() {
    // None is due by itself.
    let mut cluster = Cluster::of(3).flag("--segment-size=64KiB").flag("--log-tail-bytes=0").start();
    let mut contents = Contents::new();
    overwrite(&cluster, 1, 40, 20, &mut contents);
    cluster.await_convergence();
    let client = cluster.client();
    let ask = |expected: [usize; 2]| {
        let snapshots = client.snapshot(NodeId(2)).expect("all can be taken");
        let count = |is: fn(&SnapshotOutcome) -> bool| snapshots.iter().filter(|one| is(&one.outcome)).count();
        let taken = count(|outcome| matches!(outcome, SnapshotOutcome::Taken { .. }));
        let unchanged = count(|outcome| matches!(outcome, SnapshotOutcome::Unchanged { .. }));
        assert_eq!([taken, unchanged], expected, "{snapshots:?}");
        snapshots
    };
    let first = ask([6, 0]);
    for (snapshot, shard) in first.iter().zip(0..) {
        let SnapshotOutcome::Taken { at, bytes, .. } = snapshot.outcome else { panic!("{snapshot:?}") };
        let files = snapshots(&cluster, 2, shard);
        let [file] = &files[..] else { panic!("{files:?}") };
        let name = format!("snapshot-{:016x}-{:016x}.snap", at.index.0, at.term.0);
        assert!(file.ends_with(&name), "{file:?} is not {name}");
        assert_eq!(fs::metadata(file).expect("it is there").len(), bytes);
    }
    ask([0, 6]);
    assert!((0..6).all(|shard| snapshots(&cluster, 1, shard).is_empty()), "only node 2 was asked");

    // The log reaches back to the older of two, and lets go of segments when the next begin.
    overwrite(&cluster, 1, 40, 2, &mut contents);
    cluster.await_convergence();
    let held = counter(&cluster, 2, "log_segments_held");
    ask([6, 0]);
    assert!((0..6).all(|shard| snapshots(&cluster, 2, shard).len() == 2));
    overwrite(&cluster, 1, 40, 3, &mut contents);
    eventually(PATIENCE, "the log starts later", || {
        (counter(&cluster, 2, "log_segments_held") < held / 2).then_some(())
    });
    assert!(counter(&cluster, 1, "log_segments_held") >= held, "nobody else's does");
    cluster.await_convergence();
    ask([6, 0]);
    let status = cluster.wire(2).status();
    cluster.kill_9(2);
    for (before, now) in first.iter().zip(&status.shards) {
        let SnapshotOutcome::Taken { at, .. } = before.outcome else { panic!("{before:?}") };
        assert_eq!(now.snapshot.index, now.applied, "shard {}", now.id);
        assert!(now.snapshot.index > at.index);
    }
    cluster.restart_all();
    let status = cluster.wire(2).status();
    assert!(status.shards.iter().all(|shard| shard.snapshot.index.0 > 0));
    check(&cluster, &contents);
}

/// Whatever takes long of a snapshot is done beside the loops, however many keys there are.
#[test]
fn a_snapshot_of_200_000_keys_holds_no_turn_up() {
    let cluster = Cluster::of(1).shards(1).flag("--snapshot-log-bytes=1GiB").start();
    let mut wire = cluster.wire(1);
    for first in (0..200_000_u32).step_by(100) {
        let mut batch = BatchBuffer::default();
        for key in (first..first + 100).map(u32::to_be_bytes) {
            let put = BatchOperation { key: &key, condition: Condition::None, change: Change::Put(b"value") };
            batch.push(&put).expect("short keys");
        }
        assert!(matches!(wire.ask(Operation::Batch(batch.as_batch())).said, Said::Batch { .. }));
    }
    // It has come to a checkpoint, and is too large to be read by the loop.
    eventually(PATIENCE, "it is read again", || (wire.counter("states_scrubbed") == 1).then_some(()));
    cluster.client_with(Duration::from_secs(60)).snapshot(NodeId(1)).expect("it can be taken");
    let page = Page::of(&cluster, 1);
    // When it was begun, and when it was done.
    assert!(page.sum("raftkv_snapshot_hold_seconds_count", &[]) >= 2.0);
    // Of an unoptimised server. To visit every key takes a hundred times as long.
    let held_us = wire.counter("snapshot_hold_us_max");
    assert!(held_us > 0 && held_us < 5_000, "{held_us}");
    assert_eq!(page.sum("raftkv_snapshot_hold_longest_seconds", &[]), held_us as f64 / 1e6);
}

fn flip_a_bit(path: &Path) {
    let mut bytes = fs::read(path).expect("the file is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("the file can be written");
}

// museum 32
#[test]
fn a_damaged_newest_snapshot_gives_way_to_the_older_one() {
    let mut cluster = small(1).start();
    let mut contents = Contents::new();
    while (0..6).any(|shard| snapshots(&cluster, 1, shard).len() < 2) {
        overwrite(&cluster, 1, 40, 10, &mut contents);
    }
    cluster.kill_9(1);
    for shard in 0..6 {
        flip_a_bit(snapshots(&cluster, 1, shard).last().expect("there are at least two"));
    }
    cluster.restart_all();
    check(&cluster, &contents);
    assert!(cluster.process(1).stderr().contains("looking for an older one"), "{}", cluster.process(1).stderr());
    overwrite(&cluster, 1, 40, 10, &mut contents);
    cluster.kill_9(1);
    cluster.restart_all();
    check(&cluster, &contents);
    cluster.kill_9(1);
    snapshots(&cluster, 1, 0).iter().for_each(|path| flip_a_bit(path));
    cluster.spawn(1);
    let ended = cluster.await_end(1);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let line = ended.stderr.lines().find(|line| line.starts_with("raftkv-server: ")).expect("a line says why");
    assert!(line.contains("shard 0 has no snapshot that its log goes on from"), "{line}");
}

/// Nothing is left of what the logs go on from: the node votes for nobody until its peers have given it everything.
// museum 32, 42
#[test]
fn a_node_whose_snapshots_are_all_damaged_gets_its_state_from_its_peers() {
    let mut cluster = small(3).start();
    let mut contents = Contents::new();
    while (0..6).any(|shard| snapshots(&cluster, 3, shard).len() < 2) {
        overwrite(&cluster, 1, 40, 10, &mut contents);
    }
    cluster.kill_9(3);
    for shard in 0..6 {
        snapshots(&cluster, 3, shard).iter().for_each(|path| flip_a_bit(path));
    }
    cluster.restart_all();
    eventually(PATIENCE, "node 3 has everything again", || {
        let status = cluster.wire(3).status();
        let is_whole = status.shards.iter().all(|shard| !shard.is_repairing && shard.leader.is_some());
        (is_whole && counter(&cluster, 3, "shards_repairing") == 0).then_some(())
    });
    let stderr = cluster.process(3).stderr();
    // Of some shards the log may still be whole.
    assert!(stderr.contains("has no snapshot that its log goes on from"), "{stderr}");
    check(&cluster, &contents);
    // It is as good as any other.
    overwrite(&cluster, 3, 40, 2, &mut contents);
    cluster.kill_9(3);
    cluster.restart_all();
    check(&cluster, &contents);
    assert!(!cluster.data_dir(3).join("damage").exists(), "nothing is remembered of it");
}

/// A snapshot that rots while its node runs is noticed when it is needed, and replaced.
#[test]
fn a_snapshot_that_has_rotted_is_replaced_when_a_follower_needs_it() {
    let (mut cluster, contents) = with_one_left_behind("64MiB");
    for id in [1, 2] {
        flip_a_bit(snapshots(&cluster, id, 0).last().expect("one was taken"));
    }
    cluster.start_node(3);
    cluster.await_convergence_within(2 * PATIENCE);
    check(&cluster, &contents);
}

/// A connection as another node makes it that fetches snapshots.
fn fetcher(cluster: &Cluster, of: u64, from: u64) -> Result<Wire, String> {
    let status = cluster.wire(of).status();
    let role = HelloRole::Snapshots { node: status.node, incarnation: status.incarnation, core: CoreId(0) };
    let mut wire = Wire::dial(cluster.address(from)).expect("the node listens");
    let hello = Hello { cluster: status.cluster, role, ..client_hello() };
    wire.greet(&hello).expect("an answer").map(|_| ()).map_err(|(reason, words)| format!("{reason}: {words}"))?;
    Ok(wire)
}

/// The answer to a question for a piece: the size of the file and the bytes, if there is such a snapshot.
fn piece(wire: &mut Wire, id: u64, offset: u64, length_max: u32) -> Option<(u64, Vec<u8>)> {
    let read = SnapshotRead { shard: ShardId(0), id: SnapshotId(id), offset, length_max };
    wire.send(&encoded(|out| PeerFrame::SnapshotRead(read).encode(out))).expect("sent");
    let (kind, payload) = wire.frame().expect("readable").expect("an answer");
    match PeerFrame::decode(kind, &payload) {
        Ok(PeerFrame::SnapshotChunk(SnapshotChunk { result: ChunkResult::Ok { total, bytes }, .. })) => {
            Some((total, bytes.to_vec()))
        }
        Ok(PeerFrame::SnapshotChunk(SnapshotChunk { result: ChunkResult::Gone, .. })) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn pieces_of_snapshots_are_served_to_members_of_the_cluster() {
    let mut cluster = small(3).start();
    overwrite(&cluster, 1, 40, 20, &mut Contents::new());
    let path = snapshots(&cluster, 1, 0).pop().expect("one was taken");
    let file = fs::read(path).expect("it is there");
    let id = u64::from_le_bytes(file[20..28].try_into().expect("eight bytes"));
    let mut wire = fetcher(&cluster, 2, 1).expect("node 2 is a member");
    let mut fetched = Vec::new();
    while fetched.len() < file.len() {
        let (total, bytes) = piece(&mut wire, id, fetched.len() as u64, 1_000).expect("it is there");
        assert_eq!((total, bytes.len()), (file.len() as u64, (file.len() - fetched.len()).min(1_000)));
        fetched.extend(bytes);
    }
    assert_eq!(fetched, file);
    assert_eq!(piece(&mut wire, id, file.len() as u64 + 1, 1), None, "beyond the end");
    assert_eq!(piece(&mut wire, id ^ 1, 0, 1), None, "another one");
    // Whoever asks anew has given up the earlier connection.
    let mut again = fetcher(&cluster, 2, 1).expect("node 2 is a member");
    assert_eq!(wire.frame().expect("readable"), None);
    assert!(piece(&mut again, id, 0, 10).is_some());
    // Nothing else is said on it.
    again.send(&encoded(|out| Request { id: RequestId(1), operation: Operation::Ping }.encode(out))).expect("sent");
    assert_eq!(again.frame().expect("readable"), None);
    let refused = fetcher(&cluster, 1, 1).expect_err("a node fetches nothing from itself");
    assert!(refused.starts_with("unknown_node"), "{refused}");
    cluster.kill_all();
}
