//! A cluster in memory for the tests: replicas, their disks and the network between them, all moved by hand.
//!
//! Every input to a replica is followed by its invariants, and its `Ready` is executed as a shard would. What needs a
//! view of all replicas is checked here: one leader a term, and committed entries that never differ.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftkv_protocol::client::Role;
use raftkv_protocol::peer::{Body, Message, SnapshotMeta};
use raftkv_protocol::types::{
    Entry, EntryId, EntryKind, HardState, Incarnation, Index, NodeId, ShardId, SnapshotId, Term,
};

use super::cluster_log::Log;
use super::invariants::{Observed, check, check_step};
use super::{Config, Leases, ProposeError, Raft, ReadId, ReadReady, Ready, Recovered, WriteId};

/// When writes become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disk {
    /// As soon as they are made.
    Prompt,
    /// When the test says so.
    Held,
}

/// What becomes of a snapshot that a replica is offered and needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fetching {
    /// It is installed as soon as it is offered.
    Prompt,
    /// It is fetched, and then restored, when the test says so.
    Held,
}

/// A write on its way to a disk.
struct Write {
    id: WriteId,
    hard_state: Option<HardState>,
    /// The log was compacted before this write.
    compaction: Option<EntryId>,
    reset: Option<EntryId>,
    append: Vec<Entry>,
    after_sync: Vec<Message>,
}

/// A replica with its log in memory and on disk, and its snapshots.
pub(super) struct Node {
    pub(super) raft: Raft,
    config: Config,
    pub(super) disk: Disk,
    pub(super) fetching: Fetching,
    pub(super) log: Log,
    pub(super) durable_log: Log,
    pub(super) durable_state: HardState,
    /// Every term and vote that has ever been durable, in order.
    pub(super) past_states: Vec<HardState>,
    /// What was on the disk when it lost something, each time.
    pub(super) lost_logs: Vec<Log>,
    writes: VecDeque<Write>,
    /// The start of the log that goes to the disk with the next write.
    compaction: Option<EntryId>,
    /// What the state machine has applied.
    machine: EntryId,
    /// The snapshots on its disk, the two newest, oldest first.
    pub(super) files: Vec<SnapshotMeta>,
    /// The newest offer that it needs.
    pub(super) offered: Option<(NodeId, SnapshotMeta)>,
    /// Fetched, durable, and not restored yet.
    pub(super) fetched: Option<SnapshotMeta>,
    /// Every read that was confirmed or dropped.
    pub(super) reads: Vec<ReadReady>,
    pub(super) reads_dropped: Vec<ReadId>,
    /// What was committed anywhere when each read was asked for: the least that it may see.
    reads_asked: BTreeMap<u64, Index>,
}

/// Replicas, disks, network and clock.
pub(super) struct Cluster {
    epoch: Instant,
    pub(super) time: Duration,
    pub(super) nodes: BTreeMap<u64, Node>,
    /// Sent, and neither delivered nor lost.
    pub(super) network: Vec<Message>,
    /// Links, from and to, that lose everything.
    pub(super) cut: BTreeSet<(u64, u64)>,
    /// Who led which term, in which of its lives.
    leaders: BTreeMap<Term, (u64, Incarnation)>,
    /// Whose disk is known to have lost something that is not made up for.
    pub(super) damaged: BTreeSet<u64>,
    /// Sent by a process that ended with a damaged disk, to nodes whose links to the next one are not up yet.
    pub(super) ghosts: Vec<Message>,
    /// Whom each node gave its vote, by term.
    pub(super) votes: BTreeMap<(u64, Term), u64>,
    /// What was committed anywhere.
    pub(super) committed: BTreeMap<Index, Entry>,
    incarnations: u64,
    /// How many snapshots were taken, and how many logs gave way to one.
    pub(super) snapshots: u64,
    pub(super) resets: u64,
}

/// T in all tests.
pub(super) const T: Duration = Duration::from_millis(800);
/// The heartbeat in all tests.
pub(super) const BEAT: Duration = Duration::from_millis(100);

impl Node {
    /// A snapshot is durable. Two are kept.
    fn keep(&mut self, meta: SnapshotMeta) {
        self.files.retain(|file| file.at != meta.at);
        self.files.push(meta);
        self.files.sort_by_key(|file| file.at.index);
        let obsolete = self.files.len().saturating_sub(2);
        self.files.drain(..obsolete);
    }
}

impl Cluster {
    /// A cluster of `size` voters with empty logs.
    pub(super) fn new(size: u64, seed: u64) -> Cluster {
        Cluster::with(size, |config| config.seed = seed)
    }

    /// A cluster whose configurations are adapted first.
    pub(super) fn with(size: u64, adapt: impl Fn(&mut Config)) -> Cluster {
        let epoch = Instant::now();
        let mut cluster = Cluster {
            epoch,
            time: Duration::ZERO,
            nodes: BTreeMap::new(),
            network: Vec::new(),
            cut: BTreeSet::new(),
            leaders: BTreeMap::new(),
            damaged: BTreeSet::new(),
            ghosts: Vec::new(),
            votes: BTreeMap::new(),
            committed: BTreeMap::new(),
            incarnations: 0,
            snapshots: 0,
            resets: 0,
        };
        for id in 1..=size {
            let mut config = Config {
                preferred: false,
                id: NodeId(id),
                shard: ShardId(0),
                voters: (1..=size).map(NodeId).collect(),
                incarnation: Incarnation(0),
                heartbeat: BEAT,
                election_timeout: T,
                epoch,
                seed: 0,
                append_bytes_max: 1 << 20,
                inflight_bytes_max: 4 << 20,
                inflight_messages_max: 64,
                leases: Leases::default(),
            };
            adapt(&mut config);
            cluster.boot(id, config, Recovered::default());
        }
        cluster
    }

    /// Starts a replica from what it recovered.
    fn boot(&mut self, id: u64, mut config: Config, recovered: Recovered) {
        self.incarnations += 1;
        config.incarnation = Incarnation(self.incarnations);
        let durable_state = recovered.hard_state;
        let machine = recovered.snapshot.map_or(EntryId::ZERO, |snapshot| snapshot.at);
        let node = Node {
            raft: Raft::new(config.clone(), recovered, self.epoch + self.time),
            config,
            disk: Disk::Prompt,
            fetching: Fetching::Held,
            log: Log::default(),
            durable_log: Log::default(),
            durable_state,
            past_states: vec![durable_state],
            lost_logs: Vec::new(),
            writes: VecDeque::new(),
            compaction: None,
            machine,
            files: Vec::new(),
            offered: None,
            fetched: None,
            reads: Vec::new(),
            reads_dropped: Vec::new(),
            reads_asked: BTreeMap::new(),
        };
        self.nodes.insert(id, node);
    }

    /// Kills a replica and starts it again with what its disk holds: the first `kept` of its writes on their way made it.
    pub(super) fn restart(&mut self, id: u64, kept: usize) {
        for _ in 0..kept {
            self.complete_write(id);
        }
        self.start_again(id, Disk::Prompt);
    }

    /// Kills a replica and starts it again, on such a disk, with what its disk holds.
    pub(super) fn start_again(&mut self, id: u64, disk: Disk) {
        let old = self.nodes.remove(&id).expect("the node exists");
        let Log { start, entries } = &old.durable_log;
        let entries = entries.iter().map(|entry| (entry.id.term, entry.body.len() as u32)).collect();
        let snapshot = old.files.last().copied();
        let damaged = self.damaged.contains(&id);
        let recovered = Recovered { hard_state: old.durable_state, start: *start, entries, snapshot, damaged };
        self.boot(id, old.config, recovered);
        let node = self.node_mut(id);
        node.log = old.durable_log.clone();
        node.durable_log = old.durable_log;
        (node.files, node.disk) = (old.files, disk);
        (node.past_states, node.lost_logs) = (old.past_states, old.lost_logs);
        // If the snapshot is ahead of the log, that is said first of all.
        self.drive(id);
        self.network.retain(|message| message.to != NodeId(id));
        let is_linked = |&other: &u64| other != id && !(damaged && self.cut.contains(&(other, id)));
        let others: Vec<u64> = self.nodes.keys().copied().filter(is_linked).collect();
        for other in others {
            self.act(other, |raft| raft.link_up(NodeId(id)));
        }
    }

    pub(super) fn node(&self, id: u64) -> &Node {
        &self.nodes[&id]
    }

    pub(super) fn node_mut(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).expect("the node exists")
    }

    pub(super) fn raft(&self, id: u64) -> &Raft {
        &self.nodes[&id].raft
    }

    /// One input to a replica, its invariants, and everything that it then wants done.
    pub(super) fn act<R>(&mut self, id: u64, input: impl FnOnce(&mut Raft) -> R) -> R {
        let result = self.checked(id, input);
        self.drive(id);
        result
    }

    fn checked<R>(&mut self, id: u64, input: impl FnOnce(&mut Raft) -> R) -> R {
        let raft = &mut self.node_mut(id).raft;
        let before = Observed::of(raft);
        let result = input(raft);
        check(raft);
        check_step(&before, raft);
        let is_healed = !raft.is_damaged();
        if raft.role() == Role::Leader {
            self.check_leader(id);
        }
        if is_healed {
            self.damaged.remove(&id);
        }
        result
    }

    /// Election Safety: one leader a term, and in one life. Leader Completeness: it has everything that was ever committed.
    fn check_leader(&mut self, id: u64) {
        let raft = &self.nodes[&id].raft;
        let leader = *self.leaders.entry(raft.term()).or_insert_with(|| {
            let start = raft.start().index;
            let missing = self.committed.range(start..).find(|(_, entry)| !raft.terms.matches(entry.id));
            assert!(missing.is_none(), "elected without the committed {missing:?}: {raft}");
            (id, raft.config.incarnation)
        });
        assert_eq!(leader, (id, raft.config.incarnation), "two leaders in a term: {raft}");
    }

    /// Log Matching: where two logs hold the same id, they are the same up to there.
    pub(super) fn check_log_matching(&self) {
        let logs: Vec<&Log> = self.nodes.values().map(|node| &node.log).collect();
        for (at, one) in logs.iter().enumerate() {
            logs[at + 1..].iter().for_each(|other| one.check_matching(other));
        }
    }

    /// Executes a replica's `Ready` until it wants nothing more.
    pub(super) fn drive(&mut self, id: u64) {
        let mut ready = Ready::default();
        while self.checked(id, |raft| raft.ready(&mut ready)) {
            self.resets += u64::from(ready.reset.is_some());
            let node = self.node_mut(id);
            if let Some((start, _)) = ready.reset {
                node.log.reset(start);
            }
            node.log.put(&ready.append);
            let fill = |outgoing: &super::Outgoing| {
                let mut message = outgoing.message.clone();
                if let Body::Append { entries, .. } = &mut message.body {
                    let named = outgoing.entries.clone();
                    entries.extend_from_slice(node.log.range(Index(named.start), Index(named.end)));
                }
                message
            };
            let messages: Vec<Message> = ready.messages.iter().map(fill).collect();
            let after_sync: Vec<Message> = ready.after_sync.iter().map(fill).collect();
            if let Some(write) = ready.write {
                let (append, reset) = (std::mem::take(&mut ready.append), ready.reset.map(|(start, _)| start));
                let (compaction, hard_state) = (node.compaction.take(), ready.hard_state);
                node.writes.push_back(Write { id: write, hard_state, compaction, reset, append, after_sync });
            } else {
                assert!(ready.hard_state.is_none() && ready.append.is_empty() && after_sync.is_empty());
                assert!(ready.reset.is_none());
            }
            node.offered = ready.install.or(node.offered);
            for read in &ready.reads {
                let least = node.reads_asked[&read.read.0];
                assert!(read.index >= least, "{read:?} misses what was committed up to {least}: {}", node.raft);
            }
            node.reads.append(&mut ready.reads);
            node.reads_dropped.append(&mut ready.reads_dropped);
            let is_prompt = node.disk == Disk::Prompt;
            self.send(messages);
            self.check_durable_majority(id);
            self.apply(id, ready.commit);
            while is_prompt && self.complete_write(id) {}
            if self.node(id).fetching == Fetching::Prompt && self.fetch(id) {
                self.restore_fetched(id);
            }
        }
    }

    /// The oldest write on its way becomes durable. `false` if there is none. The caller drives the replica.
    pub(super) fn complete_write(&mut self, id: u64) -> bool {
        let node = self.node_mut(id);
        let Some(write) = node.writes.pop_front() else { return false };
        if let Some(start) = write.compaction {
            node.durable_log.compact(start);
        }
        if let Some(start) = write.reset {
            node.durable_log.reset(start);
        }
        node.durable_log.put(&write.append);
        node.durable_state = write.hard_state.unwrap_or(node.durable_state);
        node.past_states.extend(write.hard_state);
        self.send(write.after_sync);
        self.checked(id, |raft| raft.persisted(write.id));
        true
    }

    /// The oldest `count` writes of a replica become durable.
    pub(super) fn persist(&mut self, id: u64, count: usize) {
        for _ in 0..count {
            if !self.complete_write(id) {
                break;
            }
        }
        self.drive(id);
    }

    /// How many writes of a replica are on their way.
    pub(super) fn writes(&self, id: u64) -> usize {
        self.nodes[&id].writes.len()
    }

    /// What a leader commits is on the disks of a majority.
    fn check_durable_majority(&self, id: u64) {
        let raft = self.raft(id);
        let commit = raft.commit();
        if raft.role() != Role::Leader || commit == Index(0) || self.committed.contains_key(&commit) {
            return;
        }
        let entry = self.nodes[&id].log.entry(commit).expect("what is newly committed is in the leader's log");
        let holders = self.nodes.keys().filter(|&&holder| self.counts_as_holder(id, holder, entry)).count();
        assert!(holders > self.nodes.len() / 2, "not durable: {raft}");
    }

    fn apply(&mut self, id: u64, commit: Index) {
        let node = self.nodes.get_mut(&id).expect("the node exists");
        assert_eq!(node.raft.applied, node.machine.index, "the state machine is elsewhere: {}", node.raft);
        if commit <= node.machine.index {
            return;
        }
        for entry in node.log.range(node.machine.index.next(), commit.next()) {
            node.machine = entry.id;
            let known = self.committed.entry(entry.id.index).or_insert_with(|| entry.clone());
            assert_eq!(known, entry, "n{id} committed another entry: {}", node.raft.state_line());
        }
        self.checked(id, |raft| raft.applied(commit));
    }

    /// A replica takes a snapshot of what it has applied. `false` if its log is not durable up to there.
    pub(super) fn snapshot(&mut self, id: u64) -> bool {
        self.snapshots += 1;
        let node = self.node(id);
        let (name, at) = (SnapshotId(self.snapshots), node.machine);
        let meta = SnapshotMeta { id: name, at, bytes: at.index.0 };
        let is_taken = at != EntryId::ZERO && self.act(id, |raft| raft.snapshot_taken(meta));
        if is_taken {
            self.node_mut(id).keep(meta);
        }
        is_taken
    }

    /// A replica lets its log start after this index. Whether it may.
    pub(super) fn compact(&mut self, id: u64, index: Index) -> bool {
        let Some(start) = self.raft(id).terms.id_at(index) else { return false };
        let may_start = self.act(id, |raft| raft.compact(start));
        if may_start {
            let node = self.node_mut(id);
            node.log.compact(start);
            node.compaction = Some(start);
        }
        may_start
    }

    /// The newest of a replica's snapshots is damaged, if the older one and the log make up for it.
    pub(super) fn damage_newest_snapshot(&mut self, id: u64) {
        let node = self.node_mut(id);
        if node.files.len() == 2 && node.durable_log.matches(node.files[0].at) {
            node.files.pop();
        }
    }

    /// A replica fetches the snapshot that it was last offered, and makes it durable. `false` if it is not to be had.
    pub(super) fn fetch(&mut self, id: u64) -> bool {
        let Some((from, meta)) = self.node_mut(id).offered.take() else { return false };
        let is_there = self.nodes.get(&from.0).is_some_and(|node| node.files.contains(&meta));
        if is_there {
            let node = self.node_mut(id);
            node.keep(meta);
            node.fetched = Some(meta);
        }
        is_there
    }

    /// A replica restores what it has fetched. Whether its state machine is that of the snapshot now.
    pub(super) fn restore(&mut self, id: u64) -> bool {
        let is_restored = self.restore_fetched(id);
        self.drive(id);
        is_restored
    }

    fn restore_fetched(&mut self, id: u64) -> bool {
        let Some(meta) = self.node_mut(id).fetched.take() else { return false };
        let entry = self.committed.get(&meta.at.index).map(|entry| entry.id);
        assert_eq!(entry, Some(meta.at), "a snapshot of what was never committed");
        let is_restored = self.checked(id, |raft| raft.restore(meta));
        if is_restored {
            self.node_mut(id).machine = meta.at;
        }
        is_restored
    }

    fn send(&mut self, messages: Vec<Message>) {
        let passes = |message: &Message| !self.cut.contains(&(message.from.0, message.to.0));
        let messages: Vec<Message> = messages.into_iter().filter(passes).collect();
        messages.iter().for_each(|message| self.check_vote(message));
        self.network.extend(messages);
    }

    /// Takes the oldest message on its way and hands it to its receiver. `None` if there is none.
    pub(super) fn deliver_one(&mut self) -> Option<Message> {
        if self.network.is_empty() {
            return None;
        }
        let message = self.network.remove(0);
        self.hand_over(message.clone());
        Some(message)
    }

    /// Hands a message to its receiver.
    pub(super) fn hand_over(&mut self, message: Message) {
        let to = message.to.0;
        if self.nodes.contains_key(&to) {
            self.act(to, |raft| raft.step(message));
        }
    }

    /// Delivers until nothing is on its way; replicas that wait for the clock get it.
    pub(super) fn settle(&mut self) {
        for delivered in 0.. {
            assert!(delivered < 100_000, "the cluster does not come to rest:\n{}", self.lines().join("\n"));
            if self.deliver_one().is_some() {
                continue;
            }
            self.tick_due();
            if self.network.is_empty() {
                return;
            }
        }
    }

    /// Gives the clock to the replicas that are due.
    pub(super) fn tick_due(&mut self) {
        let now = self.epoch + self.time;
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            if self.raft(id).deadline() <= now {
                self.act(id, |raft| raft.tick(now));
            }
        }
    }

    /// Lets time pass, millisecond by millisecond, with every message delivered at once.
    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.time + duration;
        while self.time < end {
            self.time += Duration::from_millis(1);
            self.settle();
        }
    }

    /// Lets time pass until the condition holds.
    pub(super) fn run_until(&mut self, limit: Duration, holds: impl Fn(&Cluster) -> bool) {
        let end = self.time + limit;
        while !holds(self) {
            assert!(self.time < end, "not within {limit:?}:\n{}", self.lines().join("\n"));
            self.run(Duration::from_millis(1));
        }
    }

    /// Makes a replica stand for election now and win it.
    pub(super) fn elect(&mut self, id: u64) {
        self.campaign(id);
        self.settle();
        assert_eq!(self.raft(id).role(), Role::Leader, "{}", self.raft(id).state_line());
    }

    /// Makes a replica's election timer fire.
    pub(super) fn campaign(&mut self, id: u64) {
        let now = self.epoch + self.time;
        self.act(id, |raft| {
            raft.timer.fire_now();
            raft.tick(now);
        });
    }

    /// Proposes one command for each word.
    pub(super) fn propose(&mut self, id: u64, words: &[&str]) -> EntryId {
        self.try_propose(id, words).expect("the node leads")
    }

    /// Proposes one command for each word, or learns why not.
    pub(super) fn try_propose(&mut self, id: u64, words: &[&str]) -> Result<EntryId, ProposeError> {
        let mut commands: Vec<Bytes> = words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
        self.act(id, |raft| raft.propose(EntryKind::Command, &mut commands))
    }

    /// Asks a replica for a linearizable read and starts a round. Whether it leads.
    pub(super) fn read(&mut self, id: u64, read: u64) -> bool {
        let committed = self.committed.last_key_value().map_or(Index(0), |(&index, _)| index);
        self.node_mut(id).reads_asked.insert(read, committed);
        self.act(id, |raft| {
            let is_queued = raft.read_index(ReadId(read)).is_ok();
            raft.start_read_round();
            is_queued
        })
    }

    /// Cuts the link from one node to another, and what is on its way.
    pub(super) fn cut(&mut self, from: u64, to: u64) {
        self.cut.insert((from, to));
        self.network.retain(|message| (message.from.0, message.to.0) != (from, to));
    }

    /// Cuts all links of a node.
    pub(super) fn isolate(&mut self, id: u64) {
        let others: Vec<u64> = self.nodes.keys().copied().filter(|&other| other != id).collect();
        for other in others {
            self.cut(id, other);
            self.cut(other, id);
        }
    }

    /// Mends every link; the ends that could not send hear of it.
    pub(super) fn heal(&mut self) {
        for (from, to) in self.cut.clone() {
            self.mend(from, to);
        }
    }

    /// Mends one link, if it is cut.
    pub(super) fn mend(&mut self, from: u64, to: u64) {
        if self.cut.remove(&(from, to)) {
            self.ghosts.retain(|ghost| (ghost.from, ghost.to) != (NodeId(to), NodeId(from)));
            self.act(from, |raft| raft.link_up(NodeId(to)));
        }
    }

    /// The node that leads the highest term.
    pub(super) fn leader(&self) -> Option<u64> {
        let leaders = self.nodes.iter().filter(|(_, node)| node.raft.role() == Role::Leader);
        leaders.max_by_key(|(_, node)| node.raft.term()).map(|(&id, _)| id)
    }

    /// Every replica's state line.
    pub(super) fn lines(&self) -> Vec<String> {
        self.nodes.values().map(|node| node.raft.state_line()).collect()
    }
}
