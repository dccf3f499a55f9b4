//! One shard on three nodes in one thread: real shards, logs in memory, and messages that are encoded and decoded as
//! on the wire. What a put or a get costs here is what it costs a server, less sockets, disks and sleep.

use std::time::{Duration, Instant};

use raftkv::raft::{Config, Raft, Recovered};
use raftkv::shard::{Outbox, Read, ReadKind, Shard, Write};
use raftkv::storage::memory::Completion;
use raftkv::storage::{CoreLog, MemoryLog, Space};
use raftkv_protocol::client::{Answer, Condition, Consistency, Refusal, Reply};
use raftkv_protocol::frame::{self, PEER_FRAME_MAX};
use raftkv_protocol::peer::{Message, PeerFrame};
use raftkv_protocol::types::{Entry, EntryId, Incarnation, NodeId, RequestId, ShardId};

const NODES: u64 = 3;
const SHARD: ShardId = ShardId(0);
const ELECTION_TIMEOUT: Duration = Duration::from_millis(800);

/// What a node has said in a turn, as bytes.
#[derive(Default)]
struct Wire {
    /// One buffer per node, in the order of the ids.
    to_nodes: [Vec<u8>; NODES as usize],
    to_clients: Vec<u8>,
    replies: u64,
}

impl Outbox<RequestId> for Wire {
    fn send<'e>(&mut self, message: &Message, entries: impl Iterator<Item = &'e Entry>) {
        message.encode_with(entries, &mut self.to_nodes[message.to.0 as usize - 1]);
    }

    fn reply(&mut self, id: RequestId, at: EntryId, result: Result<Answer<'_>, Refusal<'_>>) {
        assert!(result.is_ok(), "nothing is refused here: {result:?}");
        Reply { id, at, result }.encode(&mut self.to_clients);
        self.replies += 1;
    }
}

struct Node {
    shard: Shard<RequestId>,
    log: MemoryLog,
}

impl Node {
    /// A turn of the core's loop after its input, and the one in which its log is durable.
    fn turn(&mut self, wire: &mut Wire) {
        for _ in 0..2 {
            if self.shard.raft().reads_waiting() {
                self.shard.raft_mut().start_read_round();
            }
            self.shard.drive(&mut self.log, wire).expect("a log in memory does not fail");
            self.log.flush();
        }
    }
}

/// Three nodes, of which the first leads.
pub struct Cluster {
    nodes: Vec<Node>,
    wire: Wire,
    now: Instant,
    /// An emptied buffer, so that none is allocated for each turn.
    spare: Vec<u8>,
}

impl Cluster {
    /// A cluster without data, after its election.
    pub fn new() -> Cluster {
        let now = Instant::now();
        let nodes = (1..=NODES).map(|id| Node {
            shard: Shard::new(SHARD, Raft::new(config(NodeId(id), now), Recovered::default(), now), usize::MAX),
            log: MemoryLog::new(&[SHARD], Completion::OnFlush),
        });
        let mut cluster = Cluster { nodes: nodes.collect(), wire: Wire::default(), now, spare: Vec::new() };
        // The first node is preferred, so its timer is the first that fires.
        while !cluster.nodes[0].shard.leads() {
            cluster.now += Duration::from_millis(10);
            for node in &mut cluster.nodes {
                node.shard.raft_mut().tick(cluster.now);
            }
            cluster.settle();
        }
        cluster
    }

    /// Puts these keys in one turn of the leader and goes on until all are answered.
    pub fn put<'k>(&mut self, keys: impl IntoIterator<Item = &'k [u8]>, value: &[u8]) {
        let deadline = self.now + ELECTION_TIMEOUT;
        self.ask(keys, |shard, _, id, key| {
            let write = Write::Put { key, value, condition: Condition::None };
            shard.write(write, id, deadline, Space::Plenty).expect("the leader takes writes");
        });
    }

    /// Gets these keys with one round of the leader and goes on until all are answered.
    pub fn get<'k>(&mut self, keys: impl IntoIterator<Item = &'k [u8]>) {
        let deadline = self.now + ELECTION_TIMEOUT;
        self.ask(keys, |shard, wire, id, key| {
            let read = Read { consistency: Consistency::Linearizable, kind: ReadKind::Get { key: key.into() } };
            shard.read(read, id, deadline, wire).expect("the leader takes reads");
        });
    }

    fn ask<'k>(
        &mut self,
        keys: impl IntoIterator<Item = &'k [u8]>,
        request: impl Fn(&mut Shard<RequestId>, &mut Wire, RequestId, &'k [u8]),
    ) {
        let mut asked = 0;
        for key in keys {
            request(&mut self.nodes[0].shard, &mut self.wire, RequestId(asked), key);
            asked += 1;
        }
        self.settle();
        self.wire.to_clients.clear();
        assert_eq!(std::mem::take(&mut self.wire.replies), asked, "every request is answered");
    }

    /// Turns and deliveries until nobody has anything more to say.
    fn settle(&mut self) {
        for node in &mut self.nodes {
            node.turn(&mut self.wire);
        }
        while let Some(to) = self.wire.to_nodes.iter().position(|bytes| !bytes.is_empty()) {
            let bytes = std::mem::replace(&mut self.wire.to_nodes[to], std::mem::take(&mut self.spare));
            self.nodes[to].receive(&bytes);
            self.nodes[to].turn(&mut self.wire);
            self.spare = bytes;
            self.spare.clear();
        }
    }
}

impl Node {
    fn receive(&mut self, mut bytes: &[u8]) {
        while let Some(frame) = frame::parse(bytes, PEER_FRAME_MAX).expect("what was encoded can be parsed") {
            match PeerFrame::decode(frame.kind, frame.payload).expect("what was encoded can be decoded") {
                PeerFrame::Message(message) => self.shard.raft_mut().step(message),
                other => panic!("shards send messages only: {other:?}"),
            }
            bytes = &bytes[frame.consumed..];
        }
    }
}

/// The configuration of a replica in the benches; the first is preferred.
pub fn config(id: NodeId, epoch: Instant) -> Config {
    Config {
        id,
        shard: SHARD,
        voters: (1..=NODES).map(NodeId).collect(),
        incarnation: Incarnation(id.0),
        heartbeat: Duration::from_millis(100),
        election_timeout: ELECTION_TIMEOUT,
        epoch,
        preferred: id == NodeId(1),
        seed: id.0,
        append_bytes_max: 1 << 20,
        inflight_bytes_max: 8 << 20,
        inflight_messages_max: 256,
        leases: raftkv::raft::Leases::default(),
    }
}
