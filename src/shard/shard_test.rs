//! Shards of three nodes over logs in memory, with time, disks and network moved by hand.

use std::time::{Duration, Instant};

use raftkv_protocol::client::{Answer, Code, Condition, Consistency, Refusal};
use raftkv_protocol::peer::{Body, Message, SnapshotMeta};
use raftkv_protocol::types::{Entry, EntryId, Incarnation, Index, NodeId, ShardId};

use super::snapshots::{Found, Loaded};
use super::{Beginning, Declined, Outbox, Read, ReadKind, Shard, Write};
use crate::raft::{self, Raft};
use crate::storage::memory::Completion;
use crate::storage::{CoreLog, MemoryLog, RecoveredShard, Space};

pub(super) const SHARD: ShardId = ShardId(0);
/// What replicas promise.
const LEASE: Duration = Duration::from_millis(500);
const UNCOMMITTED_MAX: usize = 10_000;
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// What somebody was told: the value read, or the code of a refusal.
pub(super) type Told = (u32, Result<Option<Vec<u8>>, Code>);

#[derive(Default)]
pub(super) struct Out {
    pub(super) sent: Vec<Message>,
    told: Vec<Told>,
}

impl Outbox<u32> for Out {
    fn send<'e>(&mut self, message: &Message, entries: impl Iterator<Item = &'e Entry>) {
        let mut message = message.clone();
        if let Body::Append { entries: body, .. } = &mut message.body {
            *body = entries.cloned().collect();
        }
        self.sent.push(message);
    }

    fn reply(&mut self, to: u32, _at: EntryId, result: Result<Answer<'_>, Refusal<'_>>) {
        let told = match result {
            Ok(Answer::Value { value, .. }) => Ok(Some(value.to_vec())),
            Ok(_) => Ok(None),
            Err(refusal) => Err(refusal.code),
        };
        self.told.push((to, told));
    }
}

pub(super) struct Node {
    pub(super) shard: Shard<u32>,
    pub(super) log: MemoryLog,
    pub(super) out: Out,
}

pub(super) struct Cluster {
    epoch: Instant,
    pub(super) now: Instant,
    pub(super) nodes: Vec<Node>,
    /// Nodes that neither send nor receive.
    pub(super) cut: Vec<usize>,
    /// Nodes whose disks keep nothing until told to.
    held: Vec<usize>,
    /// How far each node's clock is ahead.
    pub(super) ahead: [Duration; 3],
}

fn replica(
    at: usize,
    recovered: RecoveredShard,
    snapshot: Option<SnapshotMeta>,
    epoch: Instant,
    now: Instant,
) -> Shard<u32> {
    let RecoveredShard { hard_state, start, entries, .. } = recovered;
    let config = raft::Config {
        id: NodeId(at as u64 + 1),
        shard: SHARD,
        voters: vec![NodeId(1), NodeId(2), NodeId(3)],
        incarnation: Incarnation(at as u64),
        heartbeat: Duration::from_millis(100),
        election_timeout: Duration::from_millis(800),
        epoch,
        preferred: at == 0,
        seed: 7,
        append_bytes_max: 300,
        inflight_bytes_max: 1 << 20,
        inflight_messages_max: 64,
        leases: raft::Leases { duration: Some(LEASE), ..raft::Leases::default() },
    };
    let recovered = raft::Recovered { hard_state, start, entries, snapshot, damaged: false };
    Shard::new(SHARD, Raft::new(config, recovered, now), UNCOMMITTED_MAX)
}

impl Cluster {
    /// Three nodes, the first of which leads.
    pub(super) fn led_by_the_first() -> Cluster {
        let epoch = Instant::now();
        let node = |at| Node {
            shard: replica(at, RecoveredShard::default(), None, epoch, epoch),
            log: MemoryLog::new(&[SHARD], Completion::Manual),
            out: Out::default(),
        };
        let nodes = (0..3).map(node).collect();
        let ahead = [Duration::ZERO; 3];
        let mut cluster = Cluster { epoch, now: epoch, nodes, cut: vec![], held: vec![], ahead };
        cluster.run_until(|cluster| cluster.nodes[0].shard.leads() && cluster.nodes[0].shard.is_ready());
        cluster
    }

    /// The turns of all nodes until nothing moves any more.
    pub(super) fn settle(&mut self) {
        for _ in 0..1_000 {
            let mut moved = false;
            for at in 0..self.nodes.len() {
                self.turn(at);
                moved |= self.deliver(at);
            }
            if !moved {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    pub(super) fn turn(&mut self, at: usize) {
        let Node { shard, log, out } = &mut self.nodes[at];
        while let Some(fetched) = log.fetched() {
            shard.fetched(fetched, log, out).unwrap();
        }
        let now = self.now + self.ahead[at];
        if shard.raft().deadline() <= now {
            shard.raft_mut().tick(now);
        }
        shard.serve_by_lease(now, out);
        shard.raft_mut().start_read_round();
        for _ in 0..2 {
            shard.drive(log, out).unwrap();
            log.flush();
            if !self.held.contains(&at) {
                log.complete();
            }
        }
    }

    /// Hands over what a node has sent. Whether there was anything.
    pub(super) fn deliver(&mut self, from: usize) -> bool {
        let sent = std::mem::take(&mut self.nodes[from].out.sent);
        let any = !sent.is_empty();
        for message in sent {
            let to = message.to.0 as usize - 1;
            if !self.cut.contains(&from) && !self.cut.contains(&to) {
                self.nodes[to].shard.step(message);
            }
        }
        any
    }

    pub(super) fn run_until(&mut self, holds: impl Fn(&Cluster) -> bool) {
        for _ in 0..10_000 {
            self.settle();
            if holds(self) {
                return;
            }
            self.now += Duration::from_millis(1);
        }
        panic!("it never happens");
    }

    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.run_until(|cluster| cluster.now >= end);
    }

    pub(super) fn put(&mut self, at: usize, value: &[u8], to: u32) -> Result<(), Declined> {
        let put = Write::Put { key: b"key", value, condition: Condition::None };
        let node = &mut self.nodes[at];
        let space = node.log.space();
        node.shard.write(put, to, self.now + PATIENCE, space)
    }

    pub(super) fn get(&mut self, at: usize, consistency: Consistency, to: u32) -> Result<(), Declined> {
        let read = Read { consistency, kind: ReadKind::Get { key: (*b"key").into() } };
        let Node { shard, out, .. } = &mut self.nodes[at];
        shard.read(read, to, self.now + PATIENCE, out)
    }

    pub(super) fn told(&mut self, at: usize) -> Vec<Told> {
        std::mem::take(&mut self.nodes[at].out.told)
    }

    fn expire(&mut self, at: usize) {
        let Node { shard, out, .. } = &mut self.nodes[at];
        shard.expire(self.now, out);
    }

    /// A node's disk keeps nothing until it is let go.
    pub(super) fn hold(&mut self, at: usize) {
        self.held.push(at);
    }

    pub(super) fn let_go(&mut self, at: usize) {
        self.held.retain(|held| *held != at);
    }

    /// A node's process dies and starts again on what its disk kept.
    pub(super) fn restart(&mut self, at: usize) {
        self.restart_from(at, Found::default());
    }

    /// The same with a snapshot.
    pub(super) fn restart_with(&mut self, at: usize, loaded: Loaded) {
        self.restart_from(at, Found { loaded: Some(loaded), older: None });
    }

    fn restart_from(&mut self, at: usize, found: Found) {
        let log = std::mem::take(&mut self.nodes[at].log);
        let (log, mut recovered) = log.crash();
        let recovered = recovered.remove(0);
        let beginning = Beginning::new(found, &recovered, 0);
        let snapshot = beginning.snapshot();
        let shard = replica(at, recovered, snapshot, self.epoch, self.now + self.ahead[at]).begun_with(beginning);
        self.nodes[at] = Node { shard, log, out: Out::default() };
        for other in (0..3).filter(|other| *other != at) {
            self.nodes[other].shard.raft_mut().link_up(NodeId(at as u64 + 1));
        }
    }
}

#[test]
fn a_write_is_answered_when_a_majority_has_it_on_disk() {
    let mut cluster = Cluster::led_by_the_first();
    cluster.held = vec![0, 1, 2];
    cluster.put(0, b"v", 1).unwrap();
    cluster.settle();
    assert_eq!(cluster.told(0), []);
    cluster.nodes[1].log.complete();
    cluster.settle();
    assert_eq!(cluster.told(0), [], "one of three is no majority");
    // The leader's own disk counts like any other (and is not needed).
    cluster.nodes[2].log.complete();
    cluster.settle();
    assert_eq!(cluster.told(0), [(1, Ok(None))]);
}

// museum 16
#[test]
fn writes_that_another_leader_replaced_are_refused_for_certain_and_those_of_the_next_term_are_answered() {
    let mut cluster = Cluster::led_by_the_first();
    cluster.cut = vec![0];
    for to in 0..5 {
        cluster.put(0, b"lost", to).unwrap();
    }
    // Another node leads, with fewer entries at these indexes; then it goes and the first leads again.
    cluster.run_until(|cluster| cluster.nodes[1].shard.leads() || cluster.nodes[2].shard.leads());
    let second = if cluster.nodes[1].shard.leads() { 1 } else { 2 };
    assert_eq!(cluster.told(0), []);
    cluster.cut = vec![];
    cluster.run_until(|cluster| cluster.nodes[0].shard.raft().leader() == Some(NodeId(second as u64 + 1)));
    cluster.run(Duration::from_millis(250));
    cluster.nodes[second].shard.raft_mut().transfer(NodeId(1)).unwrap();
    cluster.run_until(|cluster| cluster.nodes[0].shard.leads());
    for to in 10..17 {
        cluster.put(0, b"kept", to).unwrap();
    }
    cluster.settle();
    let told = cluster.told(0);
    for to in 0..5 {
        assert!(told.contains(&(to, Err(Code::NotLeader))), "write {to}: {told:?}");
    }
    for to in 10..17 {
        assert!(told.contains(&(to, Ok(None))), "write {to}: {told:?}");
    }
    assert_eq!(told.len(), 12);
}

// rule 25
#[test]
fn an_expired_write_is_unknown_and_never_answered_again() {
    let mut cluster = Cluster::led_by_the_first();
    cluster.cut = vec![0];
    cluster.put(0, b"v", 1).unwrap();
    cluster.settle();
    cluster.now += PATIENCE;
    cluster.expire(0);
    assert_eq!(cluster.told(0), [(1, Err(Code::Timeout))]);
    assert!(cluster.nodes[0].shard.is_idle());
    cluster.cut = vec![];
    cluster.run(Duration::from_secs(2));
    cluster.expire(0);
    assert_eq!(cluster.told(0), []);
}

// museum 22
#[test]
fn reads_share_a_round_and_are_dropped_with_the_leadership() {
    let mut cluster = Cluster::led_by_the_first();
    cluster.put(0, b"v", 1).unwrap();
    cluster.settle();
    cluster.told(0);
    cluster.nodes[0].out.sent.clear();
    for to in 0..3 {
        cluster.get(0, Consistency::Linearizable, to).unwrap();
    }
    cluster.turn(0);
    let beats = cluster.nodes[0].out.sent.iter().filter(|sent| matches!(sent.body, Body::Heartbeat { .. })).count();
    assert_eq!(beats, 2, "one to each follower");
    assert_eq!(cluster.told(0), [], "nobody has confirmed");
    cluster.settle();
    let value = Ok(Some(b"v".to_vec()));
    assert_eq!(cluster.told(0), [(0, value.clone()), (1, value.clone()), (2, value)]);
    cluster.cut = vec![0];
    cluster.get(0, Consistency::Linearizable, 9).unwrap();
    cluster.run_until(|cluster| !cluster.nodes[0].shard.leads());
    assert_eq!(cluster.told(0), [(9, Err(Code::NotLeader))]);
}

// museum 23, rule 6
#[test]
fn a_read_by_a_lease_is_judged_by_the_time_after_it_came() {
    let mut cluster = Cluster::led_by_the_first();
    cluster.put(0, b"v", 1).unwrap();
    cluster.run(LEASE);
    cluster.told(0);
    cluster.get(0, Consistency::Lease, 1).unwrap();
    assert_eq!(cluster.told(0), [], "it waits for the time");
    cluster.turn(0);
    assert_eq!(cluster.told(0), [(1, Ok(Some(b"v".to_vec())))], "without any answer");
    // The leader stands still, and goes on for longer than its lease with what it has heard before.
    cluster.cut = vec![0];
    cluster.now += LEASE;
    cluster.get(0, Consistency::Lease, 2).unwrap();
    cluster.turn(0);
    assert_eq!(cluster.told(0), []);
    let counts = cluster.nodes[0].shard.raft().lease_counts();
    assert_eq!((counts.served, counts.fallen_back), (1, 1));
    cluster.run_until(|cluster| !cluster.nodes[0].shard.leads());
    assert_eq!(cluster.told(0), [(2, Err(Code::NotLeader))]);
}

#[test]
fn a_write_during_a_transfer_is_declined_without_a_hint() {
    let mut cluster = Cluster::led_by_the_first();
    cluster.nodes[0].shard.raft_mut().transfer(NodeId(2)).unwrap();
    assert_eq!(cluster.put(0, b"v", 1), Err(Declined::NotLeader(None)));
}

// rule 29
#[test]
fn uncommitted_bytes_are_bounded_exactly() {
    let mut cluster = Cluster::led_by_the_first();
    cluster.cut = vec![0];
    cluster.put(0, b"", 0).unwrap();
    let overhead = cluster.nodes[0].shard.uncommitted_bytes();
    let room = UNCOMMITTED_MAX - overhead;
    assert_eq!(cluster.put(0, &vec![0; room - overhead + 1], 1), Err(Declined::Overloaded), "limit + 1");
    assert_eq!(cluster.put(0, &vec![0; room - overhead - 1], 2), Ok(()), "limit - 1");
    assert_eq!(cluster.nodes[0].shard.uncommitted_bytes(), UNCOMMITTED_MAX - 1);
    cluster.settle();
    assert_eq!(cluster.put(0, b"", 3), Err(Declined::Overloaded), "proposed bytes count too");

    let mut cluster = Cluster::led_by_the_first();
    cluster.cut = vec![0];
    assert_eq!(cluster.put(0, &vec![0; UNCOMMITTED_MAX - overhead], 1), Ok(()), "the limit itself");
    assert_eq!(cluster.put(0, b"", 2), Err(Declined::Overloaded));
}

// rule 17
#[test]
fn a_full_disk_refuses_puts_and_takes_deletes() {
    let mut cluster = Cluster::led_by_the_first();
    cluster.nodes[0].log.set_space(Space::ReserveOnly);
    assert_eq!(cluster.put(0, b"v", 1), Err(Declined::NoSpace));
    let delete = Write::Delete { key: b"key", condition: Condition::None };
    let deadline = cluster.now + PATIENCE;
    cluster.nodes[0].shard.write(delete, 2, deadline, Space::ReserveOnly).unwrap();
    cluster.settle();
    assert_eq!(cluster.told(0), [(2, Ok(None))]);
}

// museum 24, rule 8
#[test]
fn a_restarted_follower_serves_stale_reads_only_when_it_is_where_the_leader_was() {
    let mut cluster = Cluster::led_by_the_first();
    cluster.held = vec![2];
    for to in 0..20 {
        cluster.put(0, &[to; 100], u32::from(to)).unwrap();
        cluster.settle();
    }
    cluster.run(Duration::from_millis(200));
    cluster.told(0);
    cluster.get(2, Consistency::Stale, 1).unwrap();
    assert_eq!(cluster.told(2), [(1, Ok(Some(vec![18; 100])))], "applied, though not on its own disk");
    let applied = cluster.nodes[2].shard.status().applied;
    // Its entries come back in several appends. Until it is where it was, nothing older may be read.
    cluster.cut = vec![2];
    cluster.restart(2);
    assert_eq!(cluster.get(2, Consistency::Stale, 2), Err(Declined::NotReady));
    cluster.settle();
    cluster.cut = vec![];
    cluster.held = vec![];
    cluster.restart(2);
    for _ in 0..100 {
        cluster.turn(0);
        cluster.deliver(0);
        cluster.turn(2);
        if cluster.nodes[2].shard.status().applied < applied {
            assert_eq!(cluster.get(2, Consistency::Stale, 3), Err(Declined::NotReady));
        }
        cluster.deliver(2);
    }
    cluster.run(Duration::from_millis(300));
    cluster.get(2, Consistency::Stale, 4).unwrap();
    assert_eq!(cluster.told(2), [(4, Ok(Some(vec![19; 100])))]);
    assert!(cluster.nodes[2].shard.status().applied >= Index(21));
}
