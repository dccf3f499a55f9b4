//! Reads that wait for room for their replies, as clients meet them.

use std::time::Duration;

use raftkv_protocol::client::{Answer, Code, Operation, Scan};
use raftkv_protocol::types::ShardId;

use super::cluster::{Client, Cluster, NODES};
use super::{get, key_of, put, router};
use crate::limits::Limits;

/// Where the clients are at home: they ask the node that leads it.
const HOME: ShardId = ShardId(0);
const VALUE_BYTES: usize = 1_000;
/// Room for eight gets of such a value, or for one scan and nothing beside it.
const ROOM_BYTES: usize = 10_500;
const TIMEOUT: Duration = Duration::from_secs(1);
const A_MOMENT: Duration = Duration::from_millis(1);
const DONE: Option<Code> = None;
const NO_LEADER: Option<Code> = Some(Code::NoLeader);

/// A cluster that has one value at `HOME`, and the node that leads it.
fn cluster_with_value(seed: u64) -> (Cluster, u64) {
    let limits = Limits {
        core_reply_bytes_max: ROOM_BYTES,
        request_timeout: TIMEOUT,
        stop_timeout: 20 * TIMEOUT,
        ..Limits::default()
    };
    let mut cluster = Cluster::with_limits(seed, limits);
    let node = cluster.leader(HOME);
    let mut client = cluster.dial(node, Some(HOME), &[]);
    let value = [7; VALUE_BYTES];
    cluster.ask(&mut client, put(&key_of(HOME), &value), |reply| assert_eq!(reply.result, Ok(Answer::Put)));
    (cluster, node)
}

fn scan() -> Operation<'static> {
    Operation::Scan(Scan { shard: Some(HOME), limit: 9, ..Scan::default() })
}

fn dial(cluster: &mut Cluster, node: u64) -> Client {
    cluster.dial(node, Some(HOME), &[])
}

/// How many reads wait for room at the core that serves the clients.
fn waiting(cluster: &Cluster, node: u64) -> usize {
    cluster.node(node).cores[0].as_ref().expect("the core runs").io.reads_waiting()
}

/// Turns what is due until time would pass.
fn settle(cluster: &mut Cluster) {
    let now = cluster.now;
    cluster.run_until("rest", |cluster| cluster.now > now);
}

/// The others are gone: what is taken in for `HOME` now is under way until its deadline.
fn leave_alone(cluster: &mut Cluster, node: u64) {
    (1..=NODES).filter(|id| *id != node).for_each(|id| cluster.kill(id));
}

/// Six clients ask for one value again and again, out of step, so that some of their gets are always under way.
#[test]
fn a_scan_is_served_while_gets_come_without_end() {
    let (mut cluster, node) = cluster_with_value(20);
    let key = key_of(HOME);
    let mut getters: Vec<Client> = (0..6).map(|_| dial(&mut cluster, node)).collect();
    let mut scanner = dial(&mut cluster, node);
    let mut idle = vec![true; getters.len()];
    let (mut got, mut asked_at) = (0, None);
    for step in 0..10_000 {
        for (at, getter) in getters.iter_mut().enumerate() {
            let done = getter.replies();
            assert!(done.iter().all(|(_, code)| *code == DONE), "{done:?}");
            got += done.len();
            idle[at] |= !done.is_empty();
            if step % 6 == at && idle[at] {
                getter.send(1, get(&key));
                idle[at] = false;
            }
        }
        if got == 100 && asked_at.is_none() {
            scanner.send(2, scan());
            asked_at = Some(got);
        }
        if scanner.replies() == [(2, DONE)] {
            let overtaken = asked_at.map(|asked_at| got - asked_at);
            assert!(overtaken <= Some(2 * getters.len()), "{overtaken:?} gets were served before it");
            return;
        }
        assert!(got < 1_000, "{got} gets were served, and the scan was not");
        cluster.step();
    }
    panic!("{got} gets were served");
}

/// A get is under way until its deadline. The scan has no room beside it. The other get has, but came later.
#[test]
fn reads_wait_in_the_order_in_which_they_came_until_those_under_way_end() {
    let (mut cluster, node) = cluster_with_value(21);
    let key = key_of(HOME);
    let mut clients = [(); 4].map(|()| dial(&mut cluster, node));
    leave_alone(&mut cluster, node);
    let begun = cluster.now;
    clients[0].send(0, get(&key));
    settle(&mut cluster);
    assert_eq!(waiting(&cluster, node), 0);
    clients[1].send(1, scan());
    settle(&mut cluster);
    clients[2].send(2, get(&key));
    clients[3].send(3, put(&key, b"value"));
    clients[3].send(4, Operation::Ping);
    settle(&mut cluster);
    assert_eq!((waiting(&cluster, node), clients[3].replies()), (2, vec![(4, DONE)]), "only reads wait");
    let mut ends = Vec::new();
    while ends.len() < clients.len() {
        cluster.run(A_MOMENT);
        let seconds = (cluster.now - begun).as_secs();
        ends.extend(clients.iter_mut().flat_map(Client::replies).map(|(id, code)| (id, code, seconds)));
        assert!(seconds < 10, "in vain: {ends:?}");
    }
    ends.sort_unstable_by_key(|(id, ..)| *id);
    assert_eq!(ends, [(0, NO_LEADER, 1), (1, NO_LEADER, 2), (2, NO_LEADER, 3), (3, Some(Code::Timeout), 1)]);
}

#[test]
fn a_read_that_waits_is_answered_although_nothing_more_will_come_from_its_client() {
    let (mut cluster, node) = cluster_with_value(22);
    let [mut first, mut second] = [(); 2].map(|()| dial(&mut cluster, node));
    leave_alone(&mut cluster, node);
    first.send(1, get(&key_of(HOME)));
    settle(&mut cluster);
    second.send(2, scan());
    second.end();
    settle(&mut cluster);
    assert_eq!(waiting(&cluster, node), 1);
    let open = |cluster: &Cluster| router(cluster, node, 0).counters.connections_open;
    let before = open(&cluster);
    cluster.run(3 * TIMEOUT);
    assert_eq!((first.replies(), second.replies()), (vec![(1, NO_LEADER)], vec![(2, NO_LEADER)]));
    assert_eq!(open(&cluster), before - 1, "it is closed when it has its answer");
}

/// The server notices it by what it still has to say there.
#[test]
fn a_connection_that_breaks_leaves_the_queue() {
    let (mut cluster, node) = cluster_with_value(23);
    let key = key_of(HOME);
    let [mut first, mut second, mut third] = [(); 3].map(|()| dial(&mut cluster, node));
    (1..=3).for_each(|id| second.send(id, get(&key)));
    settle(&mut cluster);
    leave_alone(&mut cluster, node);
    first.send(4, get(&key));
    settle(&mut cluster);
    second.send(5, scan());
    settle(&mut cluster);
    third.send(6, get(&key));
    settle(&mut cluster);
    assert_eq!(waiting(&cluster, node), 2);
    let requests = |cluster: &Cluster| router(cluster, node, 0).counters.requests;
    let before = requests(&cluster);
    drop(second);
    settle(&mut cluster);
    assert_eq!((waiting(&cluster, node), requests(&cluster)), (0, before + 1));
    cluster.run(2 * TIMEOUT);
    assert_eq!((first.replies(), third.replies()), (vec![(4, NO_LEADER)], vec![(6, NO_LEADER)]));
}

#[test]
fn a_stop_answers_the_reads_that_wait() {
    let (mut cluster, node) = cluster_with_value(24);
    let key = key_of(HOME);
    let mut clients = [(); 3].map(|()| dial(&mut cluster, node));
    leave_alone(&mut cluster, node);
    clients[0].send(0, get(&key));
    settle(&mut cluster);
    clients[1].send(1, scan());
    settle(&mut cluster);
    clients[2].send(2, get(&key));
    settle(&mut cluster);
    assert_eq!(waiting(&cluster, node), 2);
    let asked_at = cluster.now;
    cluster.stop(node);
    cluster.run_until("the end of the node", |cluster| !cluster.runs(node));
    assert!(cluster.now - asked_at < 5 * TIMEOUT, "{:?}", cluster.now - asked_at);
    assert_eq!(clients.each_mut().map(Client::replies), [0, 1, 2].map(|id| vec![(id, NO_LEADER)]));
}
