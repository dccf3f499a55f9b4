//! Routers at the edges of their limits, and what becomes of reads whose leader goes.

use std::time::{Duration, Instant};

use raftkv_protocol::client::{Answer, Code, Condition, Consistency, Item, Operation, Page, Reply, Scan};
use raftkv_protocol::types::{CoreId, EntryId, Index, NodeId, RequestId, ShardId};

use super::budget;
use super::calls::own;
use super::message::{CoreMessage, ExchangeId, Origin, ReplyTo};
use super::router::Call;
use super::router_test::{Cluster, Told, key_of};
use crate::limits::Limits;
use crate::metrics::requests::{Face, Taken, Task};
use crate::storage::CoreLog;
use crate::storage::memory::Completion;

fn get(key: &[u8]) -> Operation<'_> {
    Operation::Get { key, consistency: Consistency::Linearizable }
}

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Operation<'a> {
    Operation::Put { key, value, condition: Condition::None }
}

/// What an operation weighs while it waits.
fn waiting_bytes(operation: Operation<'_>) -> usize {
    let origin = Origin::Gather { job: 0, shard: ShardId(0) };
    let to = ReplyTo { core: CoreId(0), origin };
    own(&Call { operation, shard: ShardId(0), to, deadline: Instant::now() }).bytes()
}

#[test]
fn requests_beyond_what_may_wait_for_a_leader_are_refused() {
    let key = key_of(0, 0);
    for (spare, waiting) in [(-1, 2), (0, 3), (1, 3)] {
        let three = 3 * waiting_bytes(get(&key));
        let limits = Limits { core_parked_bytes_max: three.strict_add_signed(spare), ..Limits::default() };
        let mut cluster = Cluster::with_limits(&limits);
        for request in 0..4 {
            cluster.ask(1, request, get(&key));
        }
        let refused: Vec<_> = (waiting..4).map(|request| (request, Told::No(Code::Overloaded))).collect();
        assert_eq!(cluster.told(1), refused, "{spare}");
        assert_eq!(cluster.nodes[0].0.counters.overloaded_parked, 4 - waiting);
        assert_eq!(cluster.nodes[0].0.counters.refused_overloaded, 4 - waiting);
        cluster.await_leaders();
        assert_eq!(cluster.told(1).len() as u64, waiting, "those that waited are answered");
    }
}

#[test]
fn requests_beyond_what_may_wait_for_other_nodes_are_refused() {
    let key = key_of(1, 0);
    for (spare, waiting) in [(-1, 2), (0, 3), (1, 3)] {
        let three = 3 * waiting_bytes(get(&key));
        let limits = Limits { core_forwarded_bytes_max: three.strict_add_signed(spare), ..Limits::default() };
        let mut cluster = Cluster::with_limits(&limits);
        cluster.await_leaders();
        for request in 0..4 {
            cluster.ask(1, request, get(&key));
        }
        let refused: Vec<_> = (waiting..4).map(|request| (request, Told::No(Code::Overloaded))).collect();
        assert_eq!(cluster.told(1), refused, "{spare}");
        assert_eq!(cluster.nodes[0].0.counters.overloaded_forwarded, 4 - waiting);
        cluster.settle();
        assert_eq!(cluster.told(1).len() as u64, waiting);
        cluster.ask(1, 9, get(&key));
        cluster.settle();
        assert_eq!(cluster.told(1), [(9, Told::No(Code::NotFound))], "answers make room");
    }
}

/// The other core, to which the shard belongs, takes nothing here.
#[test]
fn requests_for_a_core_that_has_too_much_to_do_are_refused() {
    let mut cluster = Cluster::with(|config| config.cores = 2);
    cluster.ask(1, 1, get(&key_of(1, 0)));
    cluster.ask(1, 2, put(&key_of(1, 0), b"value"));
    cluster.ask(1, 3, get(&key_of(2, 0)));
    assert_eq!(cluster.told(1), [(1, Told::No(Code::Overloaded)), (2, Told::No(Code::Overloaded))]);
    let counters = &cluster.nodes[0].0.counters;
    assert_eq!((counters.overloaded_inbox, counters.inbox_full, counters.refused_overloaded), (2, 2, 2));
}

#[test]
fn scans_beyond_what_may_wait_are_refused() {
    let limits = Limits { core_scans_max: 2, core_scans_waiting_max: 3, ..Limits::default() };
    let mut cluster = Cluster::with_limits(&limits);
    cluster.await_leaders();
    for request in 0..7 {
        cluster.ask(1, request, Operation::Scan(Scan::default()));
    }
    assert_eq!(cluster.told(1), [(5, Told::No(Code::Overloaded)), (6, Told::No(Code::Overloaded))]);
    assert_eq!(cluster.nodes[0].0.counters.overloaded_scans, 2);
    cluster.run(Duration::from_millis(50));
    assert_eq!(cluster.told(1).len(), 5);
}

#[test]
fn writes_beyond_what_a_core_may_hold_uncommitted_are_refused() {
    let key = key_of(0, 0);
    let value = vec![7; 100 - key.len()];
    for (limit, taken) in [(299, 2), (300, 3), (301, 3)] {
        let limits = Limits { core_uncommitted_bytes_max: limit, ..Limits::default() };
        let mut cluster = Cluster::with_limits(&limits);
        cluster.await_leaders();
        for request in 0..4 {
            cluster.ask(1, request, put(&key, &value));
        }
        let refused: Vec<_> = (taken..4).map(|request| (request, Told::No(Code::Overloaded))).collect();
        assert_eq!(cluster.told(1), refused, "{limit}");
        assert_eq!(cluster.nodes[0].0.counters.overloaded_uncommitted, 4 - taken);
        // What is on its way to the others counts in later turns too.
        cluster.turn(1);
        cluster.ask(1, 5, put(&key, &value));
        assert_eq!(cluster.told(1), [(5, Told::No(Code::Overloaded))]);
        cluster.settle();
        assert_eq!(cluster.told(1).len() as u64, taken);
        cluster.ask(1, 6, put(&key, &value));
        cluster.settle();
        assert_eq!(cluster.told(1), [(6, Told::Done)], "what is committed makes room");
    }
}

/// A cluster whose first node's disk has hung after it was elected.
fn with_hanging_disk(limit: usize) -> Cluster {
    let limits = Limits { core_backlog_bytes_max: limit, ..Limits::default() };
    let mut cluster = Cluster::with_limits(&limits);
    cluster.await_leaders();
    cluster.nodes[0].0.log_mut().set_completion(Completion::Manual);
    cluster
}

/// How many puts a node takes while its disk hangs, and what it holds of them.
fn puts_taken(cluster: &mut Cluster) -> (u64, usize) {
    for request in 0..10 {
        cluster.ask(1, request, put(&key_of(0, 0), b"value"));
        cluster.settle();
        match &cluster.told(1)[..] {
            [(_, Told::Done)] => {}
            [(_, Told::No(Code::Overloaded))] => return (request, cluster.nodes[0].0.log().backlog_bytes()),
            told => panic!("{told:?}"),
        }
    }
    (10, cluster.nodes[0].0.log().backlog_bytes())
}

// museum 44, rule 29
#[test]
fn writes_beyond_what_may_wait_for_a_hanging_disk_are_refused() {
    let (taken, bytes) = puts_taken(&mut with_hanging_disk(usize::MAX));
    assert_eq!(taken, 10, "a leader may commit without its own disk");
    let three = 3 * bytes / 10;
    for (limit, expected) in [(three - 1, 3), (three, 4), (three + 1, 4)] {
        let mut cluster = with_hanging_disk(limit);
        let (taken, _) = puts_taken(&mut cluster);
        assert_eq!(taken, expected, "{limit}");
        assert_eq!(cluster.nodes[0].0.counters.overloaded_backlog, 1);
        cluster.ask(1, 20, get(&key_of(0, 0)));
        cluster.ask(1, 21, put(&key_of(1, 0), b"led elsewhere"));
        cluster.settle();
        let mut told = cluster.told(1);
        told.sort_by_key(|told| told.0);
        assert_eq!(told, [(20, Told::Value(b"value".to_vec())), (21, Told::Done)]);
        let log = cluster.nodes[0].0.log_mut();
        log.set_completion(Completion::OnFlush);
        log.complete();
        cluster.settle();
        cluster.ask(1, 22, put(&key_of(0, 0), b"value"));
        cluster.settle();
        assert_eq!(cluster.told(1), [(22, Told::Done)], "the disk goes on, and so do writes");
    }
}

#[test]
fn values_for_a_node_that_does_not_read_are_refused() {
    let limits = Limits::default();
    let half = limits.link_bytes_max / 2;
    for (waiting, told) in [
        (half - 1, Told::Value(b"value".to_vec())),
        (half, Told::No(Code::Overloaded)),
        (half + 1, Told::No(Code::Overloaded)),
    ] {
        let mut cluster = Cluster::with_limits(&limits);
        cluster.await_leaders();
        let key = key_of(1, 0);
        cluster.put(2, 1, &key);
        cluster.settle();
        cluster.get(1, 2, &key);
        cluster.turn(1);
        cluster.deliver(1);
        cluster.turn(2);
        cluster.deliver(2);
        cluster.turn(1);
        cluster.turn(3);
        cluster.deliver(3);
        // The answers that confirm the leader are there; what it says goes behind what waits already.
        let link = cluster.nodes[1].1.links.get_mut(&NodeId(1)).expect("a link");
        assert!(link.is_empty());
        link.resize(waiting, 0);
        cluster.deliver(1);
        cluster.turn(2);
        cluster.nodes[1].1.links.get_mut(&NodeId(1)).expect("a link").drain(..waiting);
        cluster.settle();
        assert_eq!(cluster.told(1), [(2, told.clone())], "{waiting}");
        assert_eq!(cluster.nodes[1].0.counters.overloaded_link, u64::from(told == Told::No(Code::Overloaded)));
    }
}

/// A value that was written is charged for in full on every node, whichever of them is asked for it.
#[test]
fn no_reply_is_longer_than_what_its_request_was_charged_with() {
    let mut cluster = Cluster::with_leaders();
    let (key, value) = (key_of(0, 0), vec![7; 5_000]);
    let before = budget::charge(&get(&key), &cluster.nodes[2].0.node).bytes();
    assert!(before < 1_000);
    cluster.ask(2, 1, put(&key, &value));
    cluster.run(Duration::from_millis(200));
    for (router, _) in &cluster.nodes {
        let charge = budget::charge(&get(&key), &router.node).bytes();
        let answer = Answer::Value { version: Index(1), value: &value };
        assert!((0..500).contains(&(charge - reply_bytes(answer))), "{charge}");
        assert!(budget::charge(&get(&key_of(1, 0)), &router.node).bytes() < 1_000, "other shards have short values");
        for (shard, limit) in [(None, 1), (None, 3), (Some(ShardId(0)), 2)] {
            let scan = Scan { shard, limit, ..Scan::default() };
            let charge = budget::charge(&Operation::Scan(scan), &router.node).bytes();
            let item = Item { key: &key, version: Index(1), value: &value };
            let page = Page { items: vec![item; limit as usize], more: true };
            assert!((0..1_000).contains(&(charge - reply_bytes(Answer::Page(page)))), "{charge} for {limit}");
        }
        let everything = budget::charge(&Operation::Scan(Scan::default()), &router.node).bytes();
        assert!(everything <= router.node.config.limits.page_bytes_max() + 500);
    }
}

/// Also on its way to the core of the client, where a frame that grew would take twice as much.
#[test]
fn a_reply_for_another_core_takes_no_more_room_than_was_charged() {
    let mut cluster = Cluster::with_leaders();
    let keys: Vec<Vec<u8>> = (0..5).map(|n| key_of(0, n)).collect();
    for (request, key) in (0..).zip(&keys) {
        cluster.ask(1, request, put(key, &[7; 5_000]));
    }
    cluster.run(Duration::from_millis(200));
    for operation in [get(&keys[0]), Operation::Scan(Scan { shard: Some(ShardId(0)), limit: 5, ..Scan::default() })] {
        let (router, mail) = &mut cluster.nodes[0];
        let charge = budget::charge(&operation, &router.node);
        let (exchange, face, task) = (ExchangeId(1), Face::Rest, Task::of(&operation));
        let origin = Origin::Exchange { exchange, charge, taken: Taken { at: cluster.now, face, task } };
        let to = ReplyTo { core: CoreId(1), origin };
        let call = own(&Call { operation, shard: ShardId(0), to, deadline: cluster.now + Duration::from_secs(1) });
        router.core_message(CoreMessage::Call(call), mail);
        cluster.settle();
        let answers = std::mem::take(&mut cluster.nodes[0].1.answers);
        let [CoreMessage::Reply { frame, .. }] = &answers[..] else { panic!("{answers:?}") };
        assert!(frame.len() >= 5_000, "{}", frame.len());
        assert!(frame.capacity() <= charge.bytes(), "{} of {}", frame.capacity(), charge.bytes());
    }
}

fn reply_bytes(answer: Answer<'_>) -> usize {
    let mut frame = Vec::new();
    Reply { id: RequestId(1), at: EntryId::ZERO, result: Ok(answer) }.encode(&mut frame);
    frame.len()
}

/// A leader that was cut off with reads under way is deposed; its own clients' reads are asked of the next leader.
#[test]
fn a_read_whose_leader_is_deposed_is_answered_by_the_next() {
    let mut cluster = Cluster::with_leaders();
    let key = key_of(0, 0);
    cluster.put(1, 1, &key);
    cluster.settle();
    cluster.told(1);
    for (from, to) in [(1, 2), (1, 3), (2, 1), (3, 1)] {
        cluster.link_down(from, to);
    }
    cluster.get(1, 2, &key);
    cluster.ask(1, 3, Operation::Scan(Scan { shard: Some(ShardId(0)), limit: 7, ..Scan::default() }));
    cluster.ask(1, 4, Operation::Scan(Scan::default()));
    // Its leadership lapses, the others elect, and it comes back within the requests' time.
    cluster.run(Duration::from_millis(2_500));
    assert!(!cluster.nodes[0].0.shards()[0].leads());
    assert_eq!(cluster.told(1), [], "there is nobody to ask yet");
    for (from, to) in [(1, 2), (1, 3), (2, 1), (3, 1)] {
        cluster.link_up(from, to);
    }
    cluster.run(Duration::from_millis(500));
    let mut told = cluster.told(1);
    told.sort_by_key(|told| told.0);
    let page = || Told::Page(vec![key.clone()], false);
    assert_eq!(told, [(2, Told::Value(b"value".to_vec())), (3, page()), (4, page())]);
}

/// The round of one shard hangs, as its messages are lost: the reads of another shard of the core wait for it a while,
/// and not for the next tick.
#[test]
fn a_hanging_read_round_delays_other_shards_for_a_moment_only() {
    const PATIENCE: Duration = Duration::from_millis(20);
    let mut cluster = Cluster::with_leaders();
    let leader = &mut cluster.nodes[1].0.shards_mut()[1];
    leader.raft_mut().transfer(NodeId(1)).expect("it leads");
    cluster.run_until(|cluster| cluster.nodes[0].0.shards()[1].leads() && cluster.nodes[0].0.shards()[1].is_ready());
    for _ in 0..20 {
        cluster.run(Duration::from_millis(157));
        cluster.told(1);
        cluster.get(1, 1, &key_of(0, 0));
        cluster.turn(1);
        cluster.nodes[0].1.links.values_mut().for_each(Vec::clear);
        if cluster.nodes[0].0.deadline() <= cluster.now + 2 * PATIENCE {
            // A heartbeat is due too soon to tell what the deadline is for.
            continue;
        }
        cluster.get(1, 2, &key_of(1, 0));
        cluster.turn(1);
        assert!(cluster.nodes[0].1.links.values().all(Vec::is_empty), "one round at a time");
        assert_eq!(cluster.nodes[0].0.deadline(), cluster.now + PATIENCE);
        cluster.now += PATIENCE;
        cluster.settle();
        assert_eq!(cluster.told(1), [(2, Told::No(Code::NotFound))]);
        return;
    }
    panic!("a heartbeat or a sweep is always due");
}
