//! Replicas on nodes that differ in everything but the log: clocks, disks, restarts, and who leads.

use std::collections::BTreeMap;
use std::time::Duration;

use raftkv_protocol::client::{Code, Condition};
use raftkv_protocol::types::{Index, NodeId};

use super::Write;
use super::shard_test::Cluster;
use crate::storage::{CoreLog, Space};

/// Steele, Lea and Flood's splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// The hash of the state after each index, as whoever came first had it.
#[derive(Default)]
struct Hashes {
    at: BTreeMap<Index, u128>,
    compared: usize,
}

impl Hashes {
    fn compare(&mut self, cluster: &Cluster) {
        for (at, node) in cluster.nodes.iter().enumerate() {
            let status = node.shard.status();
            let known = *self.at.entry(status.applied).or_insert(status.state_hash);
            assert_eq!(known, status.state_hash, "node {} differs after {}", at + 1, status.applied);
            self.compared += 1;
        }
    }
}

fn any_write(cluster: &mut Cluster, random: &mut Random, to: u32) {
    let keys: [&[u8]; 4] = [b"a", b"b", b"c", b"a key that is too long to be inline"];
    let key = keys[random.below(4) as usize];
    let applied = cluster.nodes[0].shard.status().applied.0;
    let condition = match random.below(4) {
        0 => Condition::Absent,
        1 => Condition::Exists,
        2 => Condition::Version(Index(applied.saturating_sub(random.below(4)))),
        _ => Condition::None,
    };
    let value = vec![b'v'; random.below(50) as usize];
    let write = match random.below(3) {
        0 => Write::Delete { key, condition },
        _ => Write::Put { key, value: &value, condition },
    };
    let deadline = cluster.now + Duration::from_secs(1);
    for node in &mut cluster.nodes {
        let space = node.log.space();
        // Whoever does not lead, or is full, declines.
        let _ = node.shard.write(write, to, deadline, space);
    }
}

fn any_fault(cluster: &mut Cluster, random: &mut Random) {
    let at = random.below(3) as usize;
    match random.below(20) {
        0 => cluster.restart(at),
        1 => cluster.cut = vec![at],
        2 => {
            let heir = NodeId(random.below(3) + 1);
            // Only who leads hands over.
            let _ = cluster.nodes[at].shard.raft_mut().transfer(heir);
        }
        3 => cluster.nodes[at].log.set_space(Space::ReserveOnly),
        4 => cluster.nodes[at].log.set_space(Space::Plenty),
        _ => heal(cluster),
    }
}

fn heal(cluster: &mut Cluster) {
    for cut in std::mem::take(&mut cluster.cut) {
        for (one, other) in (0..3).filter(|other| *other != cut).flat_map(|other| [(cut, other), (other, cut)]) {
            cluster.nodes[one].shard.raft_mut().link_up(NodeId(other as u64 + 1));
        }
    }
}

// museum 48, rule 20
#[test]
fn what_is_applied_depends_on_the_log_alone() {
    let mut hashes = Hashes::default();
    for seed in 0..8 {
        let mut random = Random(seed);
        let mut cluster = Cluster::led_by_the_first();
        hashes.at.clear();
        cluster.ahead = [Duration::ZERO, Duration::from_secs(3_600), Duration::from_millis(70)];
        for to in 0..400 {
            any_write(&mut cluster, &mut random, to);
            any_fault(&mut cluster, &mut random);
            for at in 0..3 {
                cluster.turn(at);
                cluster.deliver(at);
                hashes.compare(&cluster);
            }
            cluster.now += Duration::from_millis(random.below(20));
        }
        heal(&mut cluster);
        cluster.run_until(|cluster| {
            let last = |at: usize| cluster.nodes[at].shard.status().last;
            let done = |at: usize| cluster.nodes[at].shard.status().applied == last(0).index;
            (0..3).any(|at| cluster.nodes[at].shard.leads()) && (0..3).all(|at| last(at) == last(0) && done(at))
        });
        hashes.compare(&cluster);
        assert!(cluster.nodes[0].shard.status().applied > Index(60), "seed {seed}: next to nothing was written");
    }
    assert!(hashes.compared > 9_000);
}

// rule 18
#[test]
fn the_writes_of_one_turn_are_entries_of_their_own() {
    let mut cluster = Cluster::led_by_the_first();
    let before = cluster.nodes[0].shard.status().last.index;
    let deadline = cluster.now + Duration::from_secs(1);
    let mut write = |to, condition| {
        let put = Write::Put { key: b"key", value: b"value", condition };
        cluster.nodes[0].shard.write(put, to, deadline, Space::Plenty).unwrap();
    };
    // The second and the third have seen what was before the first.
    write(1, Condition::Absent);
    write(2, Condition::Absent);
    write(3, Condition::Version(before));
    write(4, Condition::Version(before.next()));
    cluster.settle();
    assert_eq!(cluster.nodes[0].shard.status().last.index, Index(before.0 + 4));
    let told = cluster.told(0);
    let failed = Err(Code::PreconditionFailed);
    assert_eq!(told, [(1, Ok(None)), (2, failed.clone()), (3, failed), (4, Ok(None))]);
}
