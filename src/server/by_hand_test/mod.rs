//! Whole nodes in one thread: what only several cores and nodes together can show.

mod cluster;
mod divergence;
mod failing;
mod fetching;
mod full;
mod gray;
mod holds;
mod last_batch;
#[cfg(feature = "rest")]
mod leases;
mod network;
mod rebuilding;
mod repair;
mod room;
mod snapshots;

use std::time::Duration;

use raftkv_protocol::client::{Answer, Condition, Consistency, Operation, Request, Status};
use raftkv_protocol::frame;
use raftkv_protocol::hello::{Auth, FEATURE_ADMITTED, Hello, HelloReply, VERSION_MAX};
use raftkv_protocol::types::{CoreId, Incarnation, NodeId, RequestId, ShardId, Slot};

use super::connection::Kind;
use super::message::ReplyTo;
use super::router::Router;
use super::transport::Transport;
use crate::metrics::Counters;
use crate::shard::Shard;
use crate::socket::{Network, Socket};
use crate::storage::FileLog;
use cluster::{CORES, Cluster, NODES, SHARDS, address};
use network::{Bell, MemoryNetwork};

fn key_of(shard: ShardId) -> Vec<u8> {
    let mut keys = (0..).map(|n: u64| format!("key{n}").into_bytes());
    keys.find(|key| Slot::of(key).shard(SHARDS) == shard).expect("some key is the shard's")
}

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Operation<'a> {
    Operation::Put { key, value, condition: Condition::None }
}

fn get(key: &[u8]) -> Operation<'_> {
    Operation::Get { key, consistency: Consistency::Linearizable }
}

fn router(cluster: &Cluster, node: u64, core: u16) -> &Router<FileLog> {
    cluster.node(node).router(CoreId(core)).expect("the core runs")
}

/// A node's replica of a shard.
fn replica(cluster: &Cluster, node: u64, shard: ShardId) -> &Shard<ReplyTo> {
    &router(cluster, node, shard.0 % CORES).shards()[usize::from(shard.0 / CORES)]
}

/// The same, to interfere with it.
fn replica_mut(cluster: &mut Cluster, node: u64, shard: ShardId) -> &mut Shard<ReplyTo> {
    let router = cluster.node_mut(node).router_mut(CoreId(shard.0 % CORES)).expect("the core runs");
    &mut router.shards_mut()[usize::from(shard.0 / CORES)]
}

/// The sum of a counter over a node's cores.
fn counted(cluster: &Cluster, node: u64, counter: impl Fn(&Counters) -> u64) -> u64 {
    (0..CORES).map(|core| counter(&router(cluster, node, core).counters)).sum()
}

/// What a node says of itself.
fn status_of(cluster: &mut Cluster, node: u64) -> Status {
    let mut client = cluster.dial(node, None, &[]);
    cluster.ask(&mut client, Operation::Status, |reply| match reply.result {
        Ok(Answer::Status(status)) => *status,
        other => panic!("{other:?}"),
    })
}

/// Writes a key through a node, which must work.
#[track_caller]
fn write(cluster: &mut Cluster, node: u64, key: &[u8], value: &[u8]) {
    let mut client = cluster.dial(node, None, &[]);
    cluster.ask(&mut client, put(key, value), |reply| assert_eq!(reply.result, Ok(Answer::Put)));
}

/// Some node that does not lead the shard.
fn follower(cluster: &Cluster, shard: ShardId) -> u64 {
    (1..=NODES).find(|id| *id != cluster.leader(shard)).expect("one leads, the others do not")
}

#[track_caller]
fn expect_value(cluster: &mut Cluster, node: u64, key: &[u8], want: &[u8]) {
    let mut client = cluster.dial(node, None, &[]);
    cluster.ask(&mut client, get(key), |reply| match reply.result {
        Ok(Answer::Value { value, .. }) => assert!(value == want, "{} bytes", value.len()),
        other => panic!("{other:?}"),
    });
}

#[test]
fn every_node_serves_every_key() {
    let mut cluster = Cluster::with_leaders(1);
    for shard in (0..SHARDS).map(ShardId) {
        // Longer than a connection holds, so that every socket on the way is full at times.
        let (key, value) = (key_of(shard), vec![u8::try_from(shard.0).expect("few shards"); 10_000]);
        let writer = follower(&cluster, shard);
        let mut client = cluster.dial(writer, None, &[]);
        cluster.ask(&mut client, put(&key, &value), |reply| assert_eq!(reply.result, Ok(Answer::Put)));
        for reader in 1..=NODES {
            expect_value(&mut cluster, reader, &key, &value);
        }
    }
}

#[test]
fn a_clients_socket_moves_to_its_home_core_with_what_was_read() {
    let mut cluster = Cluster::with_leaders(2);
    let home = ShardId(1);
    let (key, node) = (key_of(home), follower(&cluster, home));
    // The ping and the start of the put come with the hello, the rest of the put does not fit.
    let value = vec![1; 5_000];
    let first = [
        Request { id: RequestId(1), operation: Operation::Ping },
        Request { id: RequestId(2), operation: put(&key, &value) },
    ];
    let mut client = cluster.dial(node, Some(home), &first);
    for _ in first {
        cluster.receive(&mut client);
    }
    // All who dial land at core 0.
    assert_eq!(router(&cluster, node, 0).counters.connections_open, 0);
    assert_eq!(router(&cluster, node, 0).counters.requests, 0);
    assert_eq!(router(&cluster, node, 1).counters.connections_accepted, 0);
    assert_eq!(router(&cluster, node, 1).counters.connections_open, 1);
    assert_eq!(router(&cluster, node, 1).counters.requests, 2);
    cluster.ask(&mut client, get(&key), |reply| {
        assert!(matches!(reply.result, Ok(Answer::Value { value: got, .. }) if got == value));
    });
    drop(client);
    cluster.run(Duration::from_millis(1));
    assert_eq!(router(&cluster, node, 1).counters.connections_open, 0);
}

#[test]
fn links_of_peers_move_to_the_core_of_the_same_number() {
    let cluster = Cluster::with_leaders(3);
    for node in 1..=NODES {
        for core in (0..CORES).map(CoreId) {
            let running = cluster.node(node).cores[usize::from(core.0)].as_ref().expect("the core runs");
            let peer = |kind| match kind {
                Kind::Peer { node, core, .. } => Some((node, core)),
                Kind::Client | Kind::Snapshots { .. } | Kind::Unknown => None,
            };
            let mut links: Vec<_> = running.io.connections.kinds().filter_map(peer).collect();
            links.sort_unstable();
            let others: Vec<_> = (1..=NODES).filter(|id| *id != node).map(|id| (NodeId(id), core)).collect();
            assert_eq!(links, others, "core {core} of node {node}");
        }
    }
}

#[test]
fn status_tells_of_all_cores() {
    let mut cluster = Cluster::with_leaders(4);
    // Served by core 1, so that the other's part comes through its inbox.
    let mut client = cluster.dial(2, Some(ShardId(1)), &[]);
    let status: Status = cluster.ask(&mut client, Operation::Status, |reply| match reply.result {
        Ok(Answer::Status(status)) => *status,
        other => panic!("{other:?}"),
    });
    assert_eq!(status.node, NodeId(2));
    let shards: Vec<ShardId> = status.shards.iter().map(|shard| shard.id).collect();
    assert_eq!(shards, (0..SHARDS).map(ShardId).collect::<Vec<_>>());
    for shard in &status.shards {
        assert_eq!(shard.leader, Some(NodeId(cluster.leader(shard.id))), "shard {}", shard.id);
    }
    // What is counted at one core only: core 0 accepts all connections, core 1 got the request.
    let counter = |name: &str| status.counters.iter().find(|(known, _)| known == name).expect("a counter").1;
    assert_eq!(counter("connections_accepted"), router(&cluster, 2, 0).counters.connections_accepted);
    assert_eq!(counter("requests"), router(&cluster, 2, 1).counters.requests);
    assert_eq!((counter("requests"), router(&cluster, 2, 0).counters.requests), (1, 0));
}

#[test]
fn an_ordered_stop_ends_every_core_and_hands_leadership_on() {
    [Cluster::with_leaders(5), Cluster::syncing_inline(5)].into_iter().for_each(stop_a_node);
}

fn stop_a_node(mut cluster: Cluster) {
    let led = (0..SHARDS).map(ShardId).find(|shard| cluster.leader(*shard) == 3).expect("node 3 leads its share");
    let asked_at = cluster.now;
    cluster.stop(3);
    cluster.run_until("the end of node 3", |cluster| !cluster.runs(3));
    // By itself, not because patience came to its end.
    assert!(cluster.now - asked_at < Duration::from_secs(4), "{:?}", cluster.now - asked_at);
    cluster
        .run_until("another leader", |cluster| cluster.known_leader(1, led).is_some_and(|leader| leader != NodeId(3)));
    let mut client = cluster.dial(1, None, &[]);
    let key = key_of(led);
    cluster.ask(&mut client, put(&key, b"v"), |reply| assert_eq!(reply.result, Ok(Answer::Put)));
}

#[test]
fn a_cluster_that_was_killed_comes_back_with_what_it_has_acknowledged() {
    [Cluster::with_leaders(6), Cluster::syncing_inline(6)].into_iter().for_each(kill_all_nodes);
}

fn kill_all_nodes(mut cluster: Cluster) {
    let mut client = cluster.dial(1, None, &[]);
    for shard in (0..SHARDS).map(ShardId) {
        cluster.ask(&mut client, put(&key_of(shard), b"kept"), |reply| assert_eq!(reply.result, Ok(Answer::Put)));
    }
    (1..=NODES).for_each(|id| cluster.kill(id));
    (1..=NODES).for_each(|id| cluster.start_node(id));
    cluster.run_until("leaders", Cluster::has_leaders);
    for shard in (0..SHARDS).map(ShardId) {
        expect_value(&mut cluster, 2, &key_of(shard), b"kept");
    }
}

/// Whoever takes the part of node 2 answers every hello with a welcome and ends.
fn welcome_and_end(cluster: &mut Cluster, peer: &mut MemoryNetwork) {
    for core in 0..CORES {
        let socket = peer.accept().expect("each core dials");
        let mut welcome = Vec::new();
        HelloReply::Welcome {
            version: VERSION_MAX,
            cluster: cluster.node(1).node().cluster,
            node: NodeId(2),
            incarnation: Incarnation(2),
            shards: SHARDS,
            cores: CORES,
            features: 0,
            http: "",
            auth: Auth::default(),
        }
        .encode(&mut welcome);
        assert_eq!(socket.write(&welcome).expect("room"), welcome.len(), "core {core}");
    }
    cluster.step();
    for core in cluster.node(1).cores.iter().flatten() {
        assert!(core.io.links.iter().all(|link| !link.is_up()), "{:?}", core.io.links);
    }
}

#[test]
fn a_link_whose_peer_ends_right_behind_its_welcome_falls() {
    let mut cluster = Cluster::without_nodes(7);
    cluster.start_node(1);
    let mut peer = cluster.wires.network(address(2), Bell::default());
    // It dials, and then it says hello.
    cluster.step();
    cluster.step();
    welcome_and_end(&mut cluster, &mut peer);
    let records = &cluster.node(1).node().records;
    assert_eq!(records.peer(NodeId(2)), Some(Incarnation(2)), "it was put on record, and is heard the next time");
    cluster.run(Duration::from_millis(50));
    welcome_and_end(&mut cluster, &mut peer);
}

/// Whatever the files of the data directory wait for: clients and the other nodes are served, and nothing counts that is
/// not on record.
// rule 17
#[test]
fn a_disk_that_hangs_under_the_small_files_holds_up_no_loop() {
    let mut cluster = Cluster::without_nodes(8);
    (1..=NODES).for_each(|id| cluster.start_node(id));
    cluster.node_mut(1).hold_records(true);
    cluster.run(Duration::from_secs(5));
    for core in cluster.node(1).cores.iter().flatten() {
        assert!(core.io.links.iter().all(|link| !link.is_up()), "nobody is heard who is not on record");
    }
    assert!((0..SHARDS).map(ShardId).all(|shard| cluster.known_leader(1, shard).is_none()));
    assert!((0..SHARDS).map(ShardId).all(|shard| cluster.known_leader(2, shard).is_some()), "the others go on");
    let before = cluster.now;
    assert_eq!(status_of(&mut cluster, 1).shards.len(), usize::from(SHARDS));
    assert!(cluster.now - before < Duration::from_millis(10), "the loop answers");
    cluster.node_mut(1).hold_records(false);
    cluster.run_until("it is heard", Cluster::has_leaders);
    write(&mut cluster, 1, &key_of(ShardId(0)), b"value");
    cluster.run_until("it is admitted", |cluster| cluster.node(1).node().admission.is_admitted());
}

// museum 34, rule 22
#[test]
fn a_hello_that_came_too_early_to_say_that_its_node_is_admitted_is_said_again() {
    let mut cluster = Cluster::without_nodes(7);
    cluster.start_node(1);
    let mut peer = cluster.wires.network(address(2), Bell::default());
    let features = |peer: &mut MemoryNetwork| {
        let mut said = Vec::new();
        while let Ok(socket) = peer.accept() {
            let mut bytes = [0; 1_024];
            let length = socket.read(&mut bytes).expect("a hello");
            let found = frame::parse(&bytes[..length], frame::CLIENT_FRAME_MAX).expect("a frame").expect("all of it");
            said.push(Hello::decode(found.kind, found.payload).expect("a hello").features & FEATURE_ADMITTED);
        }
        said
    };
    cluster.step();
    cluster.step();
    assert_eq!(features(&mut peer), vec![0; usize::from(CORES)]);
    cluster.node(1).node().admission.admit();
    cluster.run(Duration::from_millis(100));
    assert_eq!(features(&mut peer), vec![FEATURE_ADMITTED; usize::from(CORES)]);
}

/// Every byte that nodes and a client say in half a minute, in order.
fn traffic(seed: u64) -> u64 {
    let mut cluster = Cluster::with_leaders(seed);
    let mut client = cluster.dial(1, None, &[]);
    for shard in (0..SHARDS).map(ShardId) {
        let key = key_of(shard);
        cluster.ask(&mut client, put(&key, b"value"), |reply| assert_eq!(reply.result, Ok(Answer::Put)));
        cluster.ask(&mut client, get(&key), |reply| assert!(reply.result.is_ok()));
    }
    cluster.kill(2);
    cluster.run(Duration::from_secs(30));
    cluster.wires.traffic()
}

#[test]
fn one_seed_is_one_run() {
    let runs: Vec<u64> = [7, 7, 8].map(traffic).into();
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[1], runs[2]);
}

/// Node 1 leads what nodes 2 and 3 should, on each of its cores, and both keep up since the same time.
#[test]
fn a_node_hands_one_shard_back_in_a_second_whatever_its_cores() {
    let mut cluster = Cluster::with_leaders(9);
    for shard in (0..SHARDS).map(ShardId) {
        let leader = cluster.leader(shard);
        let router = cluster.node_mut(leader).router_mut(CoreId(shard.0 % CORES)).expect("the core runs");
        let replica = router.shards_mut()[usize::from(shard.0 / CORES)].raft_mut();
        replica.transfer(NodeId(1)).expect("it leads");
    }
    cluster.run_until("node 1 leads all", |cluster| {
        (0..SHARDS).all(|shard| cluster.known_leader(1, ShardId(shard)) == Some(NodeId(1)))
    });
    let by_core = |cluster: &Cluster| [0, 1].map(|core| router(cluster, 1, core).counters.transfers);
    let total = |cluster: &Cluster| by_core(cluster).iter().sum::<u64>();
    assert_eq!(by_core(&cluster), [0, 0]);
    cluster.run_until("a transfer", |cluster| total(cluster) > 0);
    let first = cluster.now;
    assert_eq!(total(&cluster), 1);
    cluster.run_until("another", |cluster| total(cluster) > 1);
    assert_eq!(by_core(&cluster), [1, 1]);
    assert!(cluster.now - first >= Duration::from_secs(1), "{:?}", cluster.now - first);
}

#[test]
fn a_link_takes_so_many_bytes_that_its_peer_does_not_read() {
    let mut cluster = Cluster::with_leaders(10);
    let later = cluster.now + Duration::from_millis(150);
    let core = cluster.node_mut(1).cores[0].as_mut().expect("the core runs");
    let max = core.node.config.limits.link_bytes_max;
    let peer = core.io.links[0].peer.id;
    core.io.peer(peer).expect("the link is up").resize(max - 1, 0);
    core.io.peer(peer).expect("one byte less than the limit").push(0);
    assert!(core.io.peer(peer).is_none(), "the limit");
    // The next heartbeats are dropped and counted.
    let dropped = core.router.counters.raft_messages_dropped;
    core.router.finish_turn(later, &mut core.io).expect("a turn");
    assert!(core.router.counters.raft_messages_dropped > dropped);
}

#[test]
fn greetings_do_not_hide_replies_that_nobody_reads() {
    let mut cluster = Cluster::with_leaders(11);
    let (home, value) = (ShardId(0), vec![1; 100_000]);
    let key = key_of(home);
    let mut writer = cluster.dial(1, Some(home), &[]);
    cluster.ask(&mut writer, put(&key, &value), |reply| assert_eq!(reply.result, Ok(Answer::Put)));
    let ask = Request { id: RequestId(1), operation: get(&key) };
    let _reads_nothing_more = cluster.dial(1, Some(home), &[ask]);
    cluster.run(Duration::from_millis(10));
    let unread = |cluster: &Cluster| {
        let core = cluster.node(1).cores[0].as_ref().expect("the core runs");
        core.io.unread_bytes()
    };
    let before = unread(&cluster);
    assert!(before > value.len() / 2, "{before} bytes");
    for _ in 0..10 {
        drop(cluster.dial(1, Some(home), &[]));
    }
    cluster.run(Duration::from_millis(10));
    assert_eq!(unread(&cluster), before);
}
