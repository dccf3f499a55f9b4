//! Networks that are cut in every way, between nodes on hosts of their own: one history, whatever happens, and a
//! leader wherever there can be one. Cuts are silent: what was sent is gone, and nobody is told.
//!
//! `RAFTKV_PARTITION_SECONDS` makes the random faults last longer, `RAFTKV_PARTITION_SEED` repeats their order.

use std::time::{Duration, Instant};

use crate::reads::{assert_serves_nothing_without_a_majority, others, written};
use crate::support::clients::Clients;
use crate::support::cluster::{Cluster, SHARDS};
use crate::support::netns::{HERE, Network};
use crate::support::random::{Random, setting};
use crate::support::wait::{eventually, pause};
use crate::support::wire::{Said, get};

/// Of the nodes, where no test sets it.
const ELECTION_TIMEOUT: Duration = Duration::from_millis(800);
/// How long anything may take that depends on elections.
const TEN_ELECTIONS: Duration = Duration::from_secs(8);
/// How long one cluster is used.
const LEG: Duration = Duration::from_secs(40);

/// Directions to cut, and the story of it.
fn cuts(ids: &[u64], random: &mut Random) -> (String, Vec<(u64, u64)>) {
    let id = random.pick(ids);
    let other = random.pick(&ids.iter().copied().filter(|other| *other != id).collect::<Vec<u64>>());
    let peers = || ids.iter().copied().filter(|peer| *peer != id);
    let from_peers = || peers().map(|peer| (peer, id));
    let to_peers = || peers().map(|peer| (id, peer));
    match random.below(10) {
        0 => (format!("node {id} alone"), from_peers().chain(to_peers()).collect()),
        1 => {
            let clients = [(id, HERE), (HERE, id)];
            (format!("node {id} gone"), from_peers().chain(to_peers()).chain(clients).collect())
        }
        2 => (format!("node {id} deaf"), from_peers().collect()),
        3 => (format!("node {id} dumb"), to_peers().collect()),
        4 => (format!("nodes {id} and {other} apart"), vec![(id, other), (other, id)]),
        5 => (format!("node {other} deaf to {id}"), vec![(id, other)]),
        6 => (format!("clients without node {id}"), vec![(id, HERE), (HERE, id)]),
        7 => (format!("clients without answers from node {id}"), vec![(id, HERE)]),
        8 => {
            let apart = |from: u64| peers().filter(move |to| *to != from).map(move |to| (from, to));
            (format!("all others apart, each with node {id}"), peers().flat_map(apart).collect())
        }
        _ => {
            let pairs = ids.iter().flat_map(|from| ids.iter().map(move |to| (*from, *to)));
            let cut: Vec<(u64, u64)> = pairs.filter(|(from, to)| from != to && random.below(3) == 0).collect();
            (format!("cut at random {cut:?}"), cut)
        }
    }
}

/// Some directions are cut for a while, and something may happen to a node meanwhile.
fn strike(cluster: &mut Cluster, random: &mut Random) -> String {
    let ids = cluster.ids();
    let (mut story, directions) = cuts(&ids, random);
    for (from, to) in directions {
        cluster.network().cut(from, to);
    }
    let length = Duration::from_millis(random.pick(&[100, 500, 1_200, 1_200, 2_500, 4_000]));
    let id = random.pick(&ids);
    pause(length / 2);
    match random.below(5) {
        0 => {
            story += &format!(", node {id} killed");
            cluster.kill_9(id);
            pause(length / 2);
            if random.below(2) == 0 {
                story += " and started again before the end";
                cluster.spawn(id);
            }
        }
        1 => {
            story += &format!(", node {id} paused");
            cluster.process(id).pause();
            pause(length / 2 + 2 * ELECTION_TIMEOUT);
            if random.below(2) == 0 {
                story += " beyond the end";
                cluster.network().heal();
            }
            cluster.process(id).resume();
        }
        _ => pause(length / 2),
    }
    cluster.network().heal();
    format!("{story}, {length:?}")
}

/// Clients and faults until the time is over; then everybody agrees, and what the clients saw is judged.
fn leg(test: &str, nodes: u64, length: Duration, random: &mut Random) -> Option<()> {
    let network = Network::make(test, nodes)?;
    let cores = format!("--cores={}", random.pick(&[1, 2]));
    let segments = format!("--segment-size={}", random.pick(&["64KiB", "1MiB"]));
    println!("{nodes} nodes, {cores} {segments}");
    let mut cluster = Cluster::of(nodes).network(network).flag(&cores).flag(&segments).start();
    let end = Instant::now() + length;
    let clients = Clients::start(&cluster, "key", 6, Duration::from_millis(1_500), random);
    while Instant::now() < end {
        println!("{}", strike(&mut cluster, random));
        // Some faults follow on each other before the cluster has found itself again.
        if random.below(3) > 0 {
            cluster.restart_all();
            clients.await_progress(200);
        } else {
            start_what_is_down(&mut cluster);
        }
    }
    start_what_is_down(&mut cluster);
    let mut record = clients.stop();
    cluster.await_leaders_within(TEN_ELECTIONS, &cluster.ids());
    cluster.await_convergence_within(TEN_ELECTIONS);
    record.read_all(&cluster, &cluster.ids());
    record.check(SHARDS);
    Some(())
}

fn start_what_is_down(cluster: &mut Cluster) {
    for id in cluster.ids() {
        if !cluster.running().contains(&id) {
            cluster.spawn(id);
        }
    }
}

/// museum 5, 6, 21, 22
#[test]
fn clients_see_one_history_whatever_happens_to_the_network() {
    let mut random = Random::seeded("RAFTKV_PARTITION_SEED");
    let seconds = setting("RAFTKV_PARTITION_SECONDS").unwrap_or(60);
    let end = Instant::now() + Duration::from_secs(seconds);
    // Two thirds of the time with three nodes, one with five.
    for nodes in [3, 5].into_iter().cycle() {
        let length = if nodes == 3 { LEG } else { LEG / 2 };
        let left = end.saturating_duration_since(Instant::now());
        let test = "clients_see_one_history_whatever_happens_to_the_network";
        if left.is_zero() || leg(test, nodes, length.min(left), &mut random).is_none() {
            break;
        }
    }
}

/// Three nodes that elect slowly, so that a busy machine is not taken for a fault.
fn patient(test: &str) -> Option<Cluster> {
    let network = Network::make(test, 3)?;
    Some(Cluster::of(3).network(network).flag("--election-timeout=2s").start())
}

/// The term of every shard on every node.
fn terms(cluster: &Cluster) -> Vec<Vec<u64>> {
    let statuses = cluster.statuses().expect("every node answers");
    statuses.values().map(|status| status.shards.iter().map(|shard| shard.term.0).collect()).collect()
}

/// museum 5: two nodes do not reach each other, and both reach the third. Who misses the leader asks in vain whether to
/// depose it, as the third still hears it.
#[test]
fn a_node_that_reaches_only_some_unseats_nobody() {
    let Some(mut cluster) = patient("a_node_that_reaches_only_some_unseats_nobody") else { return };
    let (keys, _) = written(&cluster);
    cluster.await_leaders();
    let before = terms(&cluster);
    cluster.network().cut_both(1, 2);
    let client = cluster.client();
    let watched_until = Instant::now() + Duration::from_secs(8);
    while Instant::now() < watched_until {
        for key in &keys {
            client.put(key, "through the third").expect("every shard goes on");
        }
        assert_eq!(terms(&cluster), before, "a leader was unseated");
    }
    cluster.network().heal();
    cluster.await_convergence_within(TEN_ELECTIONS);
    assert_eq!(terms(&cluster), before, "a leader was unseated when the network was whole again");
}

/// museum 5: of five nodes each reaches only the same one. No other can have a majority, so that one must lead.
#[test]
fn the_only_node_that_reaches_a_majority_leads() {
    let Some(network) = Network::make("the_only_node_that_reaches_a_majority_leads", 5) else { return };
    let mut cluster = Cluster::of(5).network(network).start();
    let (keys, _) = written(&cluster);
    let hub = 3;
    for (one, other) in [(1, 2), (1, 4), (1, 5), (2, 4), (2, 5), (4, 5)] {
        cluster.network().cut_both(one, other);
    }
    let leads_all = |cluster: &Cluster| {
        let status = cluster.statuses_of(&[hub])?.remove(&hub)?;
        status.shards.iter().all(|shard| shard.leader.is_some_and(|leader| leader.0 == hub)).then_some(())
    };
    eventually(TEN_ELECTIONS, format!("node {hub} leads every shard"), || leads_all(&cluster));
    let mut wire = cluster.wire(hub);
    for key in &keys {
        let version = wire.put(key, "led by the only one");
        assert_eq!(wire.get(key), Some((version, b"led by the only one".to_vec())));
    }
    cluster.network().heal();
    cluster.await_leaders_within(TEN_ELECTIONS, &cluster.ids());
    cluster.await_convergence_within(TEN_ELECTIONS);
}

/// museum 6, 22: what the leader sends arrives, and it hears nothing. It must not lead on, and not keep others from it.
#[test]
fn a_leader_that_hears_nobody_is_replaced_and_serves_nothing() {
    let Some(network) = Network::make("a_leader_that_hears_nobody_is_replaced_and_serves_nothing", 3) else { return };
    let mut cluster = Cluster::of(3).network(network).flag("--request-timeout=1s").start();
    let (keys, _) = written(&cluster);
    let deaf = cluster.leader_of(&keys[0]);
    let hearing = others(&cluster, deaf);
    for peer in &hearing {
        cluster.network().cut(*peer, deaf);
    }
    cluster.await_leaders_within(TEN_ELECTIONS, &hearing);
    let version = cluster.wire(hearing[0]).put(&keys[0], "by the others");
    assert_serves_nothing_without_a_majority(&cluster, deaf, &keys);
    // It asks for votes all the time, and the others hear it.
    let mut wire = cluster.wire(hearing[1]);
    assert_eq!(wire.get(&keys[0]), Some((version, b"by the others".to_vec())));
    cluster.network().heal();
    cluster.await_leaders_within(TEN_ELECTIONS, &cluster.ids());
    cluster.await_convergence_within(TEN_ELECTIONS);
    assert_eq!(cluster.wire(deaf).get(&keys[0]), Some((version, b"by the others".to_vec())));
}

/// museum 6: the other half of it: the leader hears everything, and nobody hears it.
#[test]
fn a_leader_that_nobody_hears_is_replaced() {
    let Some(network) = Network::make("a_leader_that_nobody_hears_is_replaced", 3) else { return };
    let mut cluster = Cluster::of(3).network(network).flag("--request-timeout=1s").start();
    let (keys, _) = written(&cluster);
    let dumb = cluster.leader_of(&keys[0]);
    let heard = others(&cluster, dumb);
    for peer in &heard {
        cluster.network().cut(dumb, *peer);
    }
    cluster.await_leaders_within(TEN_ELECTIONS, &heard);
    let version = cluster.wire(heard[0]).put(&keys[0], "by the others");
    let said = cluster.wire(dumb).ask(get(keys[0].as_bytes())).said;
    assert!(said.code().is_some(), "it cannot ask anybody, and serves {said:?}");
    cluster.network().heal();
    cluster.await_leaders_within(TEN_ELECTIONS, &cluster.ids());
    cluster.await_convergence_within(TEN_ELECTIONS);
    let said = cluster.wire(dumb).ask(get(keys[0].as_bytes())).said;
    assert_eq!(said, Said::Value { version, bytes: b"by the others".to_vec() });
}

/// museum 22: cut off from a majority that goes on without it, a leader answers no linearizable read.
#[test]
fn a_leader_cut_off_from_the_majority_answers_no_linearizable_read() {
    let test = "a_leader_cut_off_from_the_majority_answers_no_linearizable_read";
    let Some(network) = Network::make(test, 3) else { return };
    let mut cluster = Cluster::of(3).network(network).flag("--request-timeout=1s").start();
    let (keys, _) = written(&cluster);
    let alone = cluster.leader_of(&keys[0]);
    let majority = others(&cluster, alone);
    for peer in &majority {
        cluster.network().cut_both(alone, *peer);
    }
    assert_serves_nothing_without_a_majority(&cluster, alone, &keys);
    cluster.await_leaders_within(TEN_ELECTIONS, &majority);
    let version = cluster.wire(majority[0]).put(&keys[0], "by the majority");
    assert_serves_nothing_without_a_majority(&cluster, alone, &keys);
    cluster.network().heal();
    cluster.await_leaders_within(TEN_ELECTIONS, &cluster.ids());
    cluster.await_convergence_within(TEN_ELECTIONS);
    assert_eq!(cluster.wire(alone).get(&keys[0]), Some((version, b"by the majority".to_vec())));
}
