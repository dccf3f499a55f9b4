//! Disks that fail, that are slow, and that are full.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use raftkv::client::{Client, ErrorKind};
use raftkv_protocol::client::{Code, Status};
use raftkv_protocol::health::DiskHealth;
use raftkv_protocol::types::NodeId;

use crate::full_disks::{await_spares, put_until_refused};
use crate::support::cluster::Cluster;
use crate::support::history::Writers;
use crate::support::tools::{SmallDisk, have_strace, server_with_fault, server_with_fault_of};
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wire::{Said, delete, put};

/// The ways in which the log reaches the disk, and the system call of each that returns when the disk has it. The
/// thread that does it makes far more of these calls than any other.
const WAYS: [(&str, &str); 3] =
    [("--log-io=direct", "pwrite64"), ("--log-io=buffered", "pwritev2"), ("--log-io=map", "fdatasync")];

/// Each of the ways, gone by a thread and by the loop: two flags, and the system call.
fn ways_and_syncs() -> impl Iterator<Item = ([&'static str; 2], &'static str)> + Clone {
    let syncs = ["--log-sync=thread", "--log-sync=inline"];
    WAYS.into_iter().flat_map(move |(log_io, call)| syncs.map(|log_sync| ([log_io, log_sync], call)))
}

/// museum 2, 15, 38: the node ends with the first sync that fails, and nothing that it acknowledged is lost.
#[test]
fn a_single_node_ends_when_a_sync_fails() {
    if !have_strace("a_single_node_ends_when_a_sync_fails") {
        return;
    }
    // Others for each way: by hand, each sync of a run fails (`src/server/by_hand_test/failing.rs`).
    let failing = (20..).step_by(7);
    for (([log_io, log_sync], sync), failing) in ways_and_syncs().chain(ways_and_syncs()).zip(failing) {
        let mut cluster = Cluster::of(1).flag(log_io).flag(log_sync).idle();
        cluster.spawn_with(1, server_with_fault(sync, &format!("error=EIO:when={failing}+"))).await_listening();
        cluster.await_leaders();
        let writers = Writers::start(&cluster, "key", 2, 4);
        let line = cluster.await_failure(1);
        assert!(line.contains("cannot write the log") && line.contains("Input/output error"), "{line}");
        cluster.restart_all();
        writers.await_progress(50);
        writers.stop().check(&cluster, &[1]);
    }
}

/// Each of the first syncs, those of the start among them, one start after the other.
// museum 2, 38
#[test]
fn a_node_ends_at_each_of_its_first_syncs_that_fails() {
    if !have_strace("a_node_ends_at_each_of_its_first_syncs_that_fails") {
        return;
    }
    let mut cluster = Cluster::of(1).start();
    let writers = Writers::start(&cluster, "key", 2, 4);
    writers.await_progress(50);
    cluster.kill_9(1);
    for (failing, ([log_io, log_sync], sync)) in (1..=18).zip(ways_and_syncs().cycle()) {
        cluster.set_flag(log_io);
        cluster.set_flag(log_sync);
        cluster.spawn_with(1, server_with_fault(sync, &format!("error=EIO:when={failing}+")));
        let line = cluster.await_failure(1);
        assert!(line.contains("log") && line.contains("Input/output error"), "{log_io} {log_sync} {failing}: {line}");
    }
    cluster.restart_all();
    writers.await_progress(50);
    writers.stop().check(&cluster, &[1]);
}

/// Those of files and directories that are no batch: of segments and snapshots and their names, and of small files. Whichever
/// thread makes the call, the node ends, and nothing that it acknowledged is lost.
// museum 38
#[test]
fn a_node_ends_at_each_fsync_that_fails_whatever_it_is_of() {
    if !have_strace("a_node_ends_at_each_fsync_that_fails_whatever_it_is_of") {
        return;
    }
    let mut cluster = Cluster::of(1).flag("--snapshot-log-bytes=32KiB").start();
    let writers = Writers::start(&cluster, "key", 2, 4);
    writers.await_progress(50);
    cluster.kill_9(1);
    let mut of_snapshots = 0;
    for failing in 1..=16 {
        cluster.spawn_with(1, server_with_fault("fsync", &format!("error=EIO:when={failing}")));
        let line = cluster.await_failure(1);
        assert!(line.contains("Input/output error") && line.contains("check the disk"), "fsync {failing}: {line}");
        of_snapshots += u32::from(line.contains("cannot sync") && line.contains("/snapshots/"));
    }
    assert!(of_snapshots > 0, "some are of snapshots");
    cluster.restart_all();
    writers.await_progress(50);
    writers.stop().check(&cluster, &[1]);
}

/// museum 38
#[test]
fn a_cluster_goes_on_without_the_node_whose_disk_fails() {
    if !have_strace("a_cluster_goes_on_without_the_node_whose_disk_fails") {
        return;
    }
    for ([log_io, log_sync], sync) in ways_and_syncs() {
        let mut cluster = Cluster::of(3).flag(log_io).flag(log_sync).idle();
        cluster.spawn_with(1, server_with_fault(sync, "error=EIO:when=100+"));
        cluster.restart_all();
        let writers = Writers::start(&cluster, "key", 3, 4);
        let ended = cluster.await_end(1);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        cluster.await_leaders();
        writers.await_progress(200);
        cluster.restart_all();
        writers.await_progress(200);
        let history = writers.stop();
        history.check(&cluster, &cluster.ids());
        cluster.await_convergence();
    }
}

/// An error that passes costs nothing, and of a disk that gives nothing at all it is not concluded that anything is lost:
/// the node says so in one line, and once the disk is back it has everything, without anybody's help.
// museum 42
#[test]
fn a_disk_that_cannot_be_read_for_a_while_has_lost_nothing() {
    if !have_strace("a_disk_that_cannot_be_read_for_a_while_has_lost_nothing") {
        return;
    }
    let mut cluster = Cluster::of(3).start();
    let writers = Writers::start(&cluster, "key", 3, 4);
    writers.await_progress(200);
    cluster.kill_9(1);
    let log = cluster.data_dir(1).join("logs/core-0");
    let files = fs::read_dir(log).expect("a log").map(|file| file.expect("readable").path());
    let is_segment =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"segment-"));
    let segment = files.filter(is_segment).min().expect("a segment");
    cluster.spawn_with(1, server_with_fault_of(&segment, "pread64", "error=EIO:when=1+"));
    let line = cluster.await_failure(1);
    assert!(line.contains("cannot read the log") && line.contains("Input/output error"), "{line}");
    for failing in [1, 2, 7] {
        let fault = format!("error=EIO:when={failing}");
        cluster.spawn_with(1, server_with_fault_of(&segment, "pread64", &fault)).await_listening();
        assert_eq!(cluster.wire(1).counter("log_salvages"), 0, "read {failing} failed");
        writers.await_progress(50);
        cluster.kill_9(1);
    }
    cluster.restart_all();
    writers.await_progress(50);
    writers.stop().check(&cluster, &cluster.ids());
    cluster.await_convergence();
}

/// Killed in the middle of a sync, at several of them, among which is the first after the start.
#[test]
fn a_node_that_is_killed_inside_a_sync_starts_again_with_everything() {
    if !have_strace("a_node_that_is_killed_inside_a_sync_starts_again_with_everything") {
        return;
    }
    for ([log_io, log_sync], sync) in ways_and_syncs() {
        let mut cluster = Cluster::of(1).flag(log_io).flag(log_sync).flag("--segment-size=64KiB").start();
        let writers = Writers::start(&cluster, "key", 2, 8);
        writers.await_progress(200);
        cluster.kill_9(1);
        for at in [1, 2, 5, 40] {
            cluster.spawn_with(1, server_with_fault(sync, &format!("signal=KILL:when={at}+")));
            assert_eq!(cluster.await_end(1).code, None, "killed by a signal at sync {at}");
        }
        cluster.restart_all();
        writers.await_progress(50);
        writers.stop().check(&cluster, &[1]);
    }
}

/// Killed at calls to the file system that give files their names and make names durable: while it starts, and while its
/// log goes on in another segment. Counts are per thread, so that several threads die at theirs.
// museum 30, 40
#[test]
fn a_node_that_is_killed_while_its_log_takes_another_segment_starts_again_with_everything() {
    let test = "a_node_that_is_killed_while_its_log_takes_another_segment_starts_again_with_everything";
    if !have_strace(test) {
        return;
    }
    let mut cluster = Cluster::of(1).flag("--segment-size=64KiB").start();
    let writers = Writers::start(&cluster, "key", 2, 8);
    writers.await_progress(200);
    cluster.kill_9(1);
    let calls = [("/^rename", 1..5), ("fsync", 1..7), ("pwrite64", 1..4), ("openat", 40..44)];
    for (call, at) in calls.into_iter().flat_map(|(call, times)| times.map(move |at| (call, at))) {
        let (log_io, _) = WAYS[at % 2];
        cluster.set_flag(log_io);
        cluster.spawn_with(1, server_with_fault(call, &format!("signal=KILL:when={at}+")));
        assert_eq!(cluster.await_end(1).code, None, "killed by a signal at {call} {at}");
    }
    cluster.restart_all();
    writers.await_progress(50);
    writers.stop().check(&cluster, &[1]);
}

/// museum 15
#[test]
fn no_write_is_acknowledged_before_its_sync() {
    if !have_strace("no_write_is_acknowledged_before_its_sync") {
        return;
    }
    const SYNC: Duration = Duration::from_millis(150);
    for ([log_io, log_sync], sync) in ways_and_syncs() {
        let mut cluster = Cluster::of(1).flag(log_io).flag(log_sync).idle();
        let slow = server_with_fault(sync, &format!("delay_enter={}", SYNC.as_micros()));
        cluster.spawn_with(1, slow).await_listening();
        cluster.await_leaders();
        let mut wire = cluster.wire(1);
        let reads = (0..5).map(|n| {
            let started = Instant::now();
            wire.put("key", n.to_string());
            assert!(started.elapsed() >= SYNC, "acknowledged after {:?}", started.elapsed());
            let started = Instant::now();
            assert!(wire.get("key").is_some());
            started.elapsed()
        });
        // One may take long on a busy machine; those that wait for the disk all do.
        let quickest = reads.min().expect("there are some");
        // A loop that syncs itself may be proving the last batch.
        let may_wait = log_sync == "--log-sync=inline";
        assert!(may_wait || quickest < SYNC, "reads wait for the disk: {quickest:?}");
    }
}

/// A node whose disk hangs is as good as a node that is down, except that it must not hold the others up: neither as
/// a leader nor as a follower.
// museum 44
#[test]
fn a_disk_that_hangs_stops_nobody() {
    if !have_strace("a_disk_that_hangs_stops_nobody") {
        return;
    }
    // Of each sync. A tracer does not let go of a killed process sooner either.
    const HANG: Duration = Duration::from_secs(5);
    for (log_io, sync) in WAYS {
        let mut cluster = Cluster::of(3).flag(log_io).idle();
        cluster.spawn_with(1, server_with_fault(sync, &format!("delay_enter={}:when=150+", HANG.as_micros())));
        cluster.restart_all();
        let mut status = cluster.wire(1);
        let writers = Writers::start(&cluster, "key", 3, 4);
        let hanging_since = eventually(PATIENCE, "the disk of node 1 hangs", || {
            let syncs = status.counter("log_syncs");
            writers.await_progress(50);
            (status.counter("log_syncs") == syncs).then(Instant::now)
        });
        for _ in 0..5 {
            writers.await_progress(100);
        }
        assert!(hanging_since.elapsed() < HANG, "500 writes took {:?}", hanging_since.elapsed());
        cluster.kill_9(1);
        cluster.restart_all();
        writers.await_progress(50);
        let history = writers.stop();
        history.check(&cluster, &cluster.ids());
        cluster.await_convergence();
    }
}

/// It notices by itself, hands over what it leads, and gets nothing back while it is slow.
// museum 44
#[test]
fn a_leader_whose_syncs_take_seconds_loses_its_shards() {
    if !have_strace("a_leader_whose_syncs_take_seconds_loses_its_shards") {
        return;
    }
    const SYNC: Duration = Duration::from_secs(2);
    for (log_io, sync) in WAYS {
        // A loaded machine must not make the other disks look slow.
        let mut cluster = Cluster::of(3).flag(log_io).flag("--slow-sync=500ms").idle();
        cluster.spawn_with(1, server_with_fault(sync, &format!("delay_enter={}:when=150+", SYNC.as_micros())));
        cluster.restart_all();
        let (mut slow, mut other) = (cluster.wire(1), cluster.wire(2));
        let leads = |status: &Status| status.shards.iter().any(|shard| shard.leader == Some(NodeId(1)));
        let writers = Writers::start(&cluster, "key", 3, 4);
        let slow_since = eventually(PATIENCE, "the disk of node 1 is slow", || {
            writers.await_progress(20);
            (slow.status().disk == DiskHealth::Slow).then(Instant::now)
        });
        eventually(PATIENCE, "node 1 leads nothing", || (!leads(&other.status())).then_some(()));
        assert!(slow_since.elapsed() < SYNC, "it took {:?}", slow_since.elapsed());
        eventually(PATIENCE, "a sync hangs", || (slow.status().sync_ms > 500).then_some(()));
        for key in cluster.keys_for_all_shards("speed") {
            let started = Instant::now();
            slow.put(&key, "value");
            assert!(started.elapsed() < SYNC, "a put takes {:?}", started.elapsed());
            assert!(slow.get(&key).is_some());
        }
        while slow_since.elapsed() < 3 * SYNC {
            writers.await_progress(50);
            assert!(!leads(&other.status()), "node 1 is slow and leads again");
        }
        cluster.kill_9(1);
        cluster.restart_all();
        writers.await_progress(50);
        let history = writers.stop();
        history.check(&cluster, &cluster.ids());
        cluster.await_convergence();
    }
}

/// Where the loop itself syncs, it sees that its disk is slow when a late sync is back, and hands over all the same.
// museum 44
#[test]
fn a_loop_that_syncs_itself_notices_a_slow_disk_too() {
    if !have_strace("a_loop_that_syncs_itself_notices_a_slow_disk_too") {
        return;
    }
    for (log_io, sync) in WAYS {
        let mut cluster = Cluster::of(3).flag(log_io).flag("--log-sync=inline").flag("--slow-sync=300ms").idle();
        cluster.spawn_with(1, server_with_fault(sync, "delay_enter=400000:when=150+"));
        cluster.restart_all();
        let (mut slow, mut other) = (cluster.wire(1), cluster.wire(2));
        let leads = |status: &Status| status.shards.iter().any(|shard| shard.leader == Some(NodeId(1)));
        let writers = Writers::start(&cluster, "key", 3, 4);
        eventually(PATIENCE, "the disk of node 1 is slow", || {
            writers.await_progress(20);
            (slow.status().disk == DiskHealth::Slow).then_some(())
        });
        eventually(PATIENCE, "node 1 leads nothing", || (!leads(&other.status())).then_some(()));
        writers.await_progress(200);
        assert!(!leads(&other.status()), "node 1 is slow and leads again");
        cluster.kill_9(1);
        cluster.restart_all();
        writers.await_progress(50);
        let history = writers.stop();
        history.check(&cluster, &cluster.ids());
        cluster.await_convergence();
    }
}

/// A client that does not wait for space to return.
fn impatient(cluster: &Cluster) -> Client {
    cluster.client_with(Duration::from_secs(3))
}

/// museum 41
// rule 17
#[test]
fn a_full_disk_refuses_writes_serves_the_rest_and_recovers_by_itself() {
    WAYS.into_iter().for_each(|(log_io, _)| fill_and_make_room(log_io));
}

fn fill_and_make_room(log_io: &str) {
    let test = "a_full_disk_refuses_writes_serves_the_rest_and_recovers_by_itself";
    let idle = Cluster::of(1).idle();
    let Some(disk) = SmallDisk::mount(test, idle.files(), 24) else { return };
    let mut cluster = Cluster::of(1).flag(log_io).data(disk.path()).start();
    let mut wire = cluster.wire(1);
    let first = wire.put("first", "value");
    let value = vec![b'v'; 100_000];
    await_spares(&mut wire);
    disk.fill();
    let mut written = Vec::new();
    let refusal = loop {
        let key = format!("key{}", written.len());
        match wire.ask(put(key.as_bytes(), &value)) {
            replied if replied.said == Said::Put => written.push((key, replied.at.index.0)),
            replied => break replied.said,
        }
        assert!(written.len() < 100, "10 MB were written to a full disk");
    };
    let Said::Refused { code: Code::NoSpace, message, .. } = refusal else { panic!("{refusal:?}") };
    assert!(message.contains("full"), "{message}");
    assert!(wire.counter("refused_no_space") > 0);
    let error = impatient(&cluster).put("key", "value").expect_err("there is no space");
    assert!(error.kind() == ErrorKind::NoSpace && !error.maybe_applied(), "{error}");

    assert_eq!(wire.get("first"), Some((first, b"value".to_vec())), "reads go on");
    assert_eq!(wire.ask(delete(b"first")).said, Said::Deleted { existed: true }, "deletes go on");
    assert_eq!(wire.get("first"), None);
    assert_eq!(wire.get("key"), None, "what was refused must not have happened");

    // Without one free byte it starts again, with everything.
    for _ in 0..2 {
        cluster.kill_9(1);
        disk.fill();
        cluster.restart_all();
        let mut wire = cluster.wire(1);
        for (key, version) in &written {
            assert_eq!(wire.get(key), Some((*version, value.clone())), "{key}");
        }
        assert_eq!(wire.get("first"), None);
        // What the start has cut off from the last segment may have become another one.
        disk.fill();
        put_until_refused(&mut wire, "key", &value);
        let (key, _) = written.pop().expect("several were written");
        assert_eq!(wire.ask(delete(key.as_bytes())).said, Said::Deleted { existed: true });
    }
    disk.make_room();
    let mut wire = cluster.wire(1);
    eventually(PATIENCE, "writes are taken again", || (wire.ask(put(b"key", &value)).said == Said::Put).then_some(()));
    for n in 0..20 {
        wire.put(format!("more{n}"), &value);
    }
    assert_eq!(cluster.stop(1).code, Some(0));
    cluster.restart_all();
    let mut wire = cluster.wire(1);
    assert!(written.iter().all(|(key, version)| wire.get(key) == Some((*version, value.clone()))));
    assert!(wire.get("more19").is_some());
}

/// It stays a follower that lags for as long as its disk is full, and the others serve everything.
// rule 17
#[test]
fn a_leader_whose_disk_is_full_hands_over() {
    let test = "a_leader_whose_disk_is_full_hands_over";
    let mut cluster = Cluster::of(3).idle();
    let Some(disk) = SmallDisk::mount(test, cluster.files(), 24) else { return };
    let (own, data_dir) = (disk.path().join("data"), cluster.data_dir(1));
    fs::create_dir_all(&own).expect("the disk has room");
    fs::create_dir_all(data_dir.parent().expect("it is in a directory")).expect("a directory can be made");
    symlink(&own, &data_dir).expect("a link can be made");
    cluster.restart_all();
    cluster.await_leaders();
    let (mut full, mut other) = (cluster.wire(1), cluster.wire(2));
    let leads = |status: &Status| status.shards.iter().any(|shard| shard.leader == Some(NodeId(1)));
    let keys = cluster.keys_for_all_shards("key");
    let value = vec![b'v'; 100_000];
    // What a young node remembers of itself and its peers has been written.
    cluster.await_admission(1);
    disk.fill();
    let full_since = eventually(PATIENCE, "node 1 knows that its disk is full", || {
        for key in &keys {
            let said = full.ask(put(key.as_bytes(), &value)).said;
            assert!(said == Said::Put || said.code() == Some(Code::NoSpace), "{said:?}");
        }
        (full.status().disk == DiskHealth::Full).then(Instant::now)
    });
    eventually(PATIENCE, "node 1 leads nothing", || (!leads(&other.status())).then_some(()));
    assert!(full_since.elapsed() < Duration::from_secs(3), "it took {:?}", full_since.elapsed());
    assert!(full.counter("disk_full") == 1 && full.counter("transfers_away") > 0);
    // All is served, also by the full node: it forwards.
    for key in &keys {
        let version = full.put(key, &value);
        assert_eq!(full.get(key), Some((version, value.clone())), "{key}");
    }
    assert!(!leads(&other.status()));
    disk.make_room();
    eventually(PATIENCE, "node 1 has space", || (full.status().disk == DiskHealth::Recovering).then_some(()));
    cluster.await_convergence();
    assert!(!leads(&other.status()), "it leads again later");
    cluster.kill_all();
    cluster.restart_all();
    let mut wire = cluster.wire(1);
    assert!(keys.iter().all(|key| wire.get(key).is_some_and(|(_, bytes)| bytes == value)));
    cluster.kill_all();
}

#[test]
fn a_disk_that_is_full_at_the_first_start_is_one_line_and_exit_code_1() {
    let test = "a_disk_that_is_full_at_the_first_start_is_one_line_and_exit_code_1";
    let idle = Cluster::of(1).idle();
    let Some(disk) = SmallDisk::mount(test, idle.files(), 16) else { return };
    let mut cluster = Cluster::of(1).data(disk.path()).idle();
    disk.fill();
    cluster.spawn(1);
    let line = cluster.await_failure(1);
    assert!(line.contains("No space left on device"), "{line}");
    disk.make_room();
    cluster.restart_all();
    cluster.wire(1).put("k", "v");
}
