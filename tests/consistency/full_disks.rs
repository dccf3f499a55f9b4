//! A cluster with a node whose disk is full, and a disk that may not be written at all: small ext4 file systems on loop
//! devices, real processes. That a lone node refuses, serves, starts again and recovers is in `disks.rs`.

use std::fs;
use std::os::unix::fs::symlink;

use raftkv_protocol::client::Code;
use raftkv_protocol::health::DiskHealth;
use raftkv_protocol::types::NodeId;

use crate::support::cluster::Cluster;
use crate::support::tools::SmallDisk;
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wire::{Said, Wire, put};

/// A cluster of three none of whose nodes runs, and a small disk that node 1 will use.
fn with_a_small_disk(test: &str, log_io: &str) -> Option<(Cluster, SmallDisk)> {
    // A loaded machine must not make leadership leave the node.
    let cluster = Cluster::of(3).flag(log_io).flag("--slow-sync=30s").flag("--election-timeout=4s").idle();
    let disk = SmallDisk::mount(test, cluster.files(), 32)?;
    symlink(disk.path().join("node"), cluster.data_dir(1)).expect("a link can be made");
    std::fs::create_dir(disk.path().join("node")).expect("a directory can be made");
    Some((cluster, disk))
}

/// Waits until a node has made the segments that it keeps for when the disk is full: one core's three, and the current one.
/// It listens before.
pub fn await_spares(wire: &mut Wire) {
    await_disk_bytes(wire, 4 << 20);
}

fn await_disk_bytes(wire: &mut Wire, bytes: u64) {
    eventually(PATIENCE, "the spare segments are there", || (wire.counter("log_disk_bytes") >= bytes).then_some(()));
}

/// Keys that node 1 leads, and keys that the others lead.
fn keys_by_leader(cluster: &Cluster) -> (Vec<String>, Vec<String>) {
    cluster.keys_for_all_shards("key").into_iter().partition(|key| cluster.leader_of(key) == 1)
}

/// Puts a key through node 1 until it refuses for lack of space. The last version that it took in, if it took in any.
pub fn put_until_refused(wire: &mut Wire, key: &str, value: &[u8]) -> u64 {
    let mut newest = 0;
    for _ in 0..400 {
        let replied = wire.ask(put(key.as_bytes(), value));
        match replied.said {
            Said::Put => newest = replied.at.index.0,
            Said::Refused { code: Code::NoSpace, .. } => return newest,
            other => panic!("{other:?}"),
        }
    }
    panic!("40 MB were written to a full disk");
}

/// A node that has no space left refuses the puts that it leads. It serves reads, the others serve theirs, its votes count
/// when a leader is missed, and what it leads goes to others when it is told to stop. It starts again with no byte free.
// museum 41, rule 17
#[test]
fn a_node_on_a_full_disk_serves_reads_votes_hands_over_and_starts_again() {
    for log_io in ["--log-io=direct", "--log-io=map"] {
        let test = "a_node_on_a_full_disk_serves_reads_votes_hands_over_and_starts_again";
        let Some((mut cluster, disk)) = with_a_small_disk(test, log_io) else { return };
        cluster.restart_all();
        let (own, others) = eventually(PATIENCE, "node 1 leads its share", || {
            let keys = keys_by_leader(&cluster);
            (!keys.0.is_empty() && !keys.1.is_empty()).then_some(keys)
        });
        let value = vec![b'v'; 100_000];
        let mut wire = cluster.wire(1);
        wire.put("first", "value");
        await_spares(&mut wire);
        disk.fill();
        eventually(PATIENCE, "node 1 notices that its disk is full and leads nothing", || {
            wire.ask(put(own[0].as_bytes(), &value));
            let leads = wire.status().shards.iter().any(|shard| shard.leader == Some(NodeId(1)));
            (wire.status().disk == DiskHealth::Full && !leads).then_some(())
        });
        assert!(wire.get("first").is_some(), "reads go on");
        for key in [&own[0], &others[0]] {
            assert_eq!(wire.ask(put(key.as_bytes(), b"small")).said, Said::Put, "nobody is held up");
        }

        cluster.kill_9(2);
        cluster.await_leaders_among(&[1, 3]);
        assert!(cluster.wire(1).get("first").is_some(), "the vote of the full node counts");
        cluster.start_node(2);
        cluster.await_leaders();
        let ended = cluster.stop(1);
        assert_eq!(ended.code, Some(0), "{log_io}: {}", ended.stderr);
        cluster.await_leaders_among(&[2, 3]);
        cluster.wire(2).put(&own[0], "from another");

        disk.fill();
        cluster.start_node(1);
        cluster.await_leaders();
        let mut wire = cluster.wire(1);
        assert_eq!(wire.get(&own[0]).map(|(_, value)| value), Some(b"from another".to_vec()));
        assert!(!cluster.process(1).has_ended(), "{log_io}");
        disk.make_room();
        cluster.await_convergence();
        eventually(PATIENCE, "puts are taken again", || {
            (wire.ask(put(own[0].as_bytes(), &value)).said == Said::Put).then_some(())
        });
        assert_eq!(cluster.stop(1).code, Some(0));
    }
}

/// The others go on writing for long. What the full node has no space for waits, and nothing else does: its votes count,
/// it starts again with no byte free, and it catches up when there is space.
// museum 41, rule 17
#[test]
fn a_follower_on_a_full_disk_under_load_votes_and_starts_again() {
    let test = "a_follower_on_a_full_disk_under_load_votes_and_starts_again";
    let Some((mut cluster, disk)) = with_a_small_disk(test, "--log-io=direct") else { return };
    cluster.restart_all();
    await_spares(&mut cluster.wire(1));
    disk.fill();
    let value = vec![b'v'; 100_000];
    eventually(PATIENCE, "node 1 notices that its disk is full and leads nothing", || {
        let keys = keys_by_leader(&cluster);
        let mut wire = cluster.wire(1);
        keys.0.iter().for_each(|key| drop(wire.ask(put(key.as_bytes(), &value))));
        (keys.0.is_empty() && wire.status().disk == DiskHealth::Full).then_some(())
    });
    let write_much = |cluster: &Cluster| {
        let mut wire = cluster.wire(3);
        for key in keys_by_leader(cluster).1.iter().cycle().take(40) {
            assert_eq!(wire.ask(put(key.as_bytes(), &value)).said, Said::Put, "nobody is held up");
        }
    };
    write_much(&cluster);
    assert!(cluster.wire(1).counter("log_space_waits") > 0, "4 MB have no place");

    for _ in 0..2 {
        cluster.kill_9(2);
        cluster.await_leaders_among(&[3]);
        cluster.start_node(2);
        cluster.await_leaders();
        write_much(&cluster);
    }
    cluster.kill_9(1);
    disk.fill();
    cluster.start_node(1);
    cluster.await_leaders();
    write_much(&cluster);
    cluster.kill_9(2);
    cluster.await_leaders_among(&[3]);
    cluster.start_node(2);
    assert!(!cluster.process(1).has_ended());
    disk.make_room();
    cluster.await_convergence();
    for node in 1..=3 {
        let ended = cluster.stop(node);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
}

// museum 41
#[test]
fn a_directory_that_may_not_be_written_is_one_line_and_exit_code_1() {
    let test = "a_directory_that_may_not_be_written_is_one_line_and_exit_code_1";
    let idle = Cluster::of(1).idle();
    let Some(disk) = SmallDisk::mount(test, idle.files(), 32) else { return };
    let mut cluster = Cluster::of(1).data(disk.path()).idle();
    let name = cluster.data_dir(1).display().to_string();
    // Before there is anything, and when there is a log.
    for _ in 0..2 {
        disk.set_writable(false);
        cluster.spawn(1);
        let line = cluster.await_failure(1);
        assert!(line.contains("Read-only file system") && line.contains(&name), "{line}");
        disk.set_writable(true);
        cluster.restart_all();
        let mut wire = cluster.wire(1);
        wire.put("key", "value");
        assert!(wire.get("key").is_some());
        assert_eq!(cluster.stop(1).code, Some(0));
    }
}

fn knows_its_peers(cluster: &Cluster, id: u64) -> bool {
    let peers = std::fs::read_to_string(cluster.data_dir(id).join("peers"));
    peers.is_ok_and(|peers| {
        peers.lines().filter(|line| !line.starts_with("raftkv ") && line.contains(" = ")).count() > 2
    })
}

/// A young node whose disk fills before it could write down whom it has met, or that it is admitted, waits for space: it
/// neither ends nor counts as what it could not write down.
// museum 41, rule 22
#[test]
fn a_young_node_on_a_full_disk_writes_down_what_it_must_when_there_is_space() {
    for fills_before_it_meets_anybody in [true, false] {
        let test = "a_young_node_on_a_full_disk_writes_down_what_it_must_when_there_is_space";
        let Some((mut cluster, disk)) = with_a_small_disk(test, "--log-io=direct") else { return };
        cluster.set_flag("--election-timeout=8s");
        cluster.start_node(1);
        await_spares(&mut cluster.wire(1));
        if fills_before_it_meets_anybody {
            disk.fill();
        }
        cluster.start_node(2);
        cluster.start_node(3);
        if fills_before_it_meets_anybody {
            cluster.await_leaders_among(&[2, 3]);
            assert!(!knows_its_peers(&cluster, 1));
        } else {
            eventually(PATIENCE, "node 1 has met the others", || knows_its_peers(&cluster, 1).then_some(()));
            disk.fill();
            cluster.await_leaders();
        }
        [2, 3].into_iter().for_each(|id| cluster.await_admission(id));
        cluster.wire(2).put("key", "value");
        assert!(!cluster.process(1).has_ended());
        assert!(!cluster.is_admitted(1), "the disk was full before");
        disk.make_room();
        cluster.await_admission(1);
        cluster.await_convergence();
        let ended = cluster.stop(1);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let waited = if fills_before_it_meets_anybody { "peers: No space left" } else { "identity: No space left" };
        assert!(ended.stderr.contains(waited), "{}", ended.stderr);
    }
}

/// The spare segments are used up by the first starts. The next ones live on what those before them have given back and laid by,
/// a little less each time, while somebody else takes every byte that is free.
// museum 41, rule 17
#[test]
fn a_node_starts_over_and_over_on_a_full_disk_when_its_spares_are_used_up() {
    for log_io in ["--log-io=direct", "--log-io=buffered", "--log-io=map"] {
        let test = "a_node_starts_over_and_over_on_a_full_disk_when_its_spares_are_used_up";
        let idle = Cluster::of(1).idle();
        let Some(disk) = SmallDisk::mount(test, idle.files(), 64) else { return };
        let mut cluster = Cluster::of(1).flag(log_io).flag("--segment-size=4MiB").data(disk.path()).start();
        let mut wire = cluster.wire(1);
        let first = wire.put("first", "value");
        await_disk_bytes(&mut wire, 16 << 20);
        disk.fill();
        put_until_refused(&mut wire, "key", &[b'v'; 100_000]);
        for start in 0..8 {
            cluster.kill_9(1);
            disk.fill();
            cluster.restart_all();
            let mut wire = cluster.wire(1);
            assert_eq!(wire.get("first"), Some((first, b"value".to_vec())), "start {start}");
            assert!(wire.get("key").is_some());
        }
        let segments = fs::read_dir(cluster.data_dir(1).join("logs/core-0")).expect("a log");
        let sizes = segments.map(|file| file.and_then(|file| file.metadata()).expect("readable").len());
        assert!(
            sizes.filter(|size| *size < 1 << 20).count() >= 6,
            "{log_io}: starts have given back what they did not use"
        );
        disk.make_room();
        eventually(PATIENCE, "writes are taken again", || {
            (cluster.wire(1).ask(put(b"key", &[b'w'; 100_000])).said == Said::Put).then_some(())
        });
        assert_eq!(cluster.stop(1).code, Some(0));
    }
}

/// What its own log and snapshots take they give back: a node whose disk others have filled goes on overwriting what it holds.
// museum 41, rule 17
#[test]
fn a_node_goes_on_overwriting_its_keys_on_a_disk_that_stays_full() {
    let test = "a_node_goes_on_overwriting_its_keys_on_a_disk_that_stays_full";
    let idle = Cluster::of(1).idle();
    let Some(disk) = SmallDisk::mount(test, idle.files(), 48) else { return };
    let flags = ["--snapshot-log-bytes=2MiB", "--log-tail-bytes=0", "--core-log-bytes-max=24MiB"];
    let builder = Cluster::of(1).shards(1).flags(flags);
    let mut cluster = builder.data(disk.path()).start();
    let mut wire = cluster.wire(1);
    let mut versions = [0; 10];
    let overwrite = |wire: &mut Wire, versions: &mut [u64; 10], n: usize| {
        let (key, value) = (format!("key{}", n % 10), vec![n as u8; 100_000]);
        eventually(PATIENCE, format!("put {n} is taken"), || match wire.ask(put(key.as_bytes(), &value)) {
            replied if replied.said == Said::Put => {
                versions[n % 10] = replied.at.index.0;
                Some(())
            }
            replied => {
                assert_eq!(replied.said.code(), Some(Code::NoSpace), "{replied:?}");
                None
            }
        });
    };
    let mut n = 0;
    for due in 1..=3 {
        for _ in 0..30 {
            overwrite(&mut wire, &mut versions, n);
            n += 1;
        }
        eventually(PATIENCE, "a snapshot is taken", || (wire.counter("snapshots_taken") >= due).then_some(()));
    }
    await_spares(&mut wire);
    disk.fill();
    let taken = wire.counter("snapshots_taken");
    // Many times what its spare segments hold.
    for put in 0..200 {
        if put % 20 == 0 {
            // Whatever it has let go of meanwhile somebody else has taken.
            disk.fill();
        }
        overwrite(&mut wire, &mut versions, n);
        n += 1;
    }
    assert!(wire.counter("snapshots_taken") > taken);
    assert!(cluster.process(1).stderr().contains("writing it over the older one"), "{}", cluster.process(1).stderr());
    cluster.kill_9(1);
    disk.fill();
    cluster.restart_all();
    let mut wire = cluster.wire(1);
    for (key, version) in versions.iter().enumerate() {
        assert_eq!(wire.get(format!("key{key}")).map(|(version, _)| version), Some(*version), "key{key}");
    }
    for _ in 0..40 {
        overwrite(&mut wire, &mut versions, n);
        n += 1;
    }
    assert_eq!(cluster.stop(1).code, Some(0));
}
