//! What a core tells its peers of its node, when, and what it makes of what it is told.

use std::time::Duration;

use raftkv_protocol::frame;
use raftkv_protocol::health::DiskHealth::{self, Healthy, Slow};
use raftkv_protocol::hello::FEATURE_NEWS;
use raftkv_protocol::peer::{Checkpoints, Health, PeerFrame, ShardCheckpoint};
use raftkv_protocol::types::{CoreId, Index, NodeId, ShardId};

use super::router_test::{Cluster, SHARDS, Told, key_of};
use crate::state_machine::HASH_FORMAT;

/// Node 1 of a cluster with leaders; node 2 reads news, node 3 is of an older version.
fn cluster() -> Cluster {
    let cluster = Cluster::with_leaders();
    cluster.nodes[0].0.node.note_peer(NodeId(2), FEATURE_NEWS);
    cluster
}

/// What node 1 says of its disk to a peer in one turn.
fn told_disk(cluster: &mut Cluster, peer: u64) -> Vec<DiskHealth> {
    cluster.turn(1);
    let bytes = std::mem::take(cluster.nodes[0].1.links.get_mut(&NodeId(peer)).expect("the link is up"));
    let mut rest = &bytes[..];
    let mut told = Vec::new();
    while let Some(found) = frame::parse(rest, frame::PEER_FRAME_MAX).expect("a frame") {
        if let Ok(PeerFrame::Health(Health { disk })) = PeerFrame::decode(found.kind, found.payload) {
            told.push(disk);
        }
        rest = &rest[found.consumed..];
    }
    told
}

#[test]
fn the_health_of_the_disk_is_told_when_a_link_is_up_and_when_it_changes() {
    let mut cluster = cluster();
    assert_eq!(told_disk(&mut cluster, 2), [Healthy]);
    assert!(told_disk(&mut cluster, 2).is_empty(), "once");
    cluster.nodes[0].0.node.health.note_core(CoreId(0), Slow, true);
    assert_eq!(told_disk(&mut cluster, 2), [Slow]);
    assert!(told_disk(&mut cluster, 2).is_empty());
    cluster.link_down(1, 2);
    cluster.turn(1);
    cluster.link_up(1, 2);
    assert_eq!(told_disk(&mut cluster, 2), [Slow], "it may be another process");
    assert!(told_disk(&mut cluster, 3).is_empty(), "it would not understand");
}

#[test]
fn what_a_peer_tells_of_its_disk_is_remembered() {
    let mut cluster = cluster();
    let (now, (router, mail)) = (cluster.now, &mut cluster.nodes[0]);
    router.peer_frame(NodeId(3), PeerFrame::Health(Health { disk: Slow }), now, mail);
    assert_eq!([2, 3].map(|node| router.node.health.of(NodeId(node))), [Healthy, Slow]);
}

/// Of two nodes against one, the one is told so.
fn outvote(format: u16, shard: u16) -> Cluster {
    let mut cluster = cluster();
    for n in 0..1_100 {
        let key = format!("key{n}");
        cluster.put(1, n, key.as_bytes());
        cluster.put(2, n, key.as_bytes());
        cluster.put(3, n, key.as_bytes());
    }
    cluster.run_until(|cluster| cluster.nodes[0].0.shards()[0].newest_checkpoint() == Index(1_024));
    let checkpoints = vec![ShardCheckpoint { shard: ShardId(shard), index: Index(1_024), hash: 9 }];
    for peer in [2, 3] {
        let (now, (router, mail)) = (cluster.now, &mut cluster.nodes[0]);
        let told = PeerFrame::Checkpoints(Checkpoints { format, checkpoints: checkpoints.clone() });
        router.peer_frame(NodeId(peer), told, now, mail);
    }
    cluster.turn(1);
    cluster
}

// rule 20
#[test]
fn a_majority_with_another_hash_of_the_same_format_stops_a_replica() {
    let cluster = outvote(HASH_FORMAT, 0);
    let shards = cluster.nodes[0].0.shards();
    assert!(shards[0].is_wrong() && shards[1..].iter().all(|shard| shard.serves()));
    assert_eq!(cluster.nodes[0].0.counters.divergences, 1);
    assert_eq!(cluster.nodes[0].0.counters.checkpoints_received, 2);
}

// rule 20
#[test]
fn hashes_of_another_format_say_nothing() {
    let cluster = outvote(HASH_FORMAT + 1, 0);
    assert!(cluster.nodes[0].0.shards().iter().all(|shard| shard.serves()));
    assert_eq!(cluster.nodes[0].0.counters.checkpoints_received, 0);
}

#[test]
fn hashes_of_shards_that_are_not_there_are_no_sense() {
    let cluster = outvote(HASH_FORMAT, SHARDS);
    assert!(cluster.nodes[0].0.shards().iter().all(|shard| shard.serves()));
    assert_eq!(cluster.nodes[0].0.counters.messages_bad, 2);
}

/// Between heartbeats nothing is told, and nothing twice.
#[test]
fn checkpoints_leave_with_the_heartbeat() {
    let mut cluster = cluster();
    cluster.link_down(1, 2);
    cluster.link_up(1, 2);
    cluster.run(Duration::from_millis(200));
    assert_eq!(cluster.nodes[1].0.counters.checkpoints_received, 0);
    for node in 1..=3 {
        for peer in 1..=3 {
            cluster.nodes[node - 1].0.node.note_peer(NodeId(peer), FEATURE_NEWS);
        }
    }
    for n in 0..3_500 {
        cluster.put(1, n, format!("key{n}").as_bytes());
    }
    cluster.run(Duration::from_secs(1));
    let own: u64 =
        cluster.nodes[1].0.shards().iter().map(|shard| shard.checkpoints_after(Index(0)).count() as u64).sum();
    assert!(own > 0);
    assert_eq!(cluster.nodes[1].0.counters.checkpoints_received, 2 * own);
}

/// The hashes of the former state are with the peers, and those of the one that takes its place are others.
// rule 20
#[test]
fn a_state_that_is_built_anew_tells_its_checkpoints_again() {
    let mut cluster = cluster();
    for node in 1..=3 {
        for peer in 1..=3 {
            cluster.nodes[node - 1].0.node.note_peer(NodeId(peer), FEATURE_NEWS);
        }
    }
    (0..1_100).for_each(|n| cluster.put(1, n as u64, &key_of(0, n)));
    cluster.run(Duration::from_secs(1));
    let received = |cluster: &Cluster| cluster.nodes[0].0.counters.checkpoints_received;
    let before = received(&cluster);
    let router = &mut cluster.nodes[1].0;
    assert_eq!(router.shards()[0].newest_checkpoint(), Index(1_024));
    router.shards_mut()[0].doubt_state();
    assert!(router.rebuild_states(cluster.now) && router.counters.states_rebuilt == 1);
    assert_eq!(router.shards()[0].newest_checkpoint(), Index(0), "there was no snapshot");
    // It is back before anything is told.
    (0..10).for_each(|_| cluster.turn(2));
    assert_eq!(cluster.nodes[1].0.shards()[0].newest_checkpoint(), Index(1_024));
    assert_eq!(received(&cluster), before);
    cluster.run(Duration::from_secs(1));
    assert_eq!(received(&cluster), before + 1);
}

/// All of it comes in one turn: the checkpoint that a majority contradicts, and what waits for entries behind it.
// rule 20
#[test]
fn what_is_applied_behind_a_checkpoint_that_a_majority_contradicts_is_not_confirmed() {
    let mut cluster = cluster();
    let contradicted = ShardCheckpoint { shard: ShardId(0), index: Index(1_024), hash: 9 };
    for peer in [2, 3] {
        let (now, (router, mail)) = (cluster.now, &mut cluster.nodes[0]);
        let told = Checkpoints { format: HASH_FORMAT, checkpoints: vec![contradicted] };
        router.peer_frame(NodeId(peer), PeerFrame::Checkpoints(told), now, mail);
    }
    (0..1_200).for_each(|n| cluster.put(1, n as u64, &key_of(0, n)));
    cluster.run(Duration::from_secs(1));
    let told = cluster.told(1);
    let confirmed = told.iter().filter(|(_, told)| *told == Told::Done).count();
    assert!((1_000..1_024).contains(&confirmed), "{confirmed} of {}", told.len());
    assert!(cluster.nodes[0].0.shards()[0].is_wrong());
}
