//! Three honest replicas; the network loses, doubles and reorders, disks are slow, clocks drift, processes die.

use std::time::Duration;

use raftkv::raft::ReadId;
use raftkv_protocol::peer::Message;
use raftkv_protocol::types::{Entry, EntryId, HardState, Index, NodeId, Term};

use super::replica::{Disk, Durable, Replica, Windows, log};
use crate::choices::Choices;
use crate::feedback::{Feedback, magnitude};

const NODES: usize = 3;
/// Inputs to all replicas in one run.
const INPUTS_MAX: usize = 160;
/// Messages that one settling delivers at most.
const SETTLE_MAX: usize = 40;

struct Cluster<'f> {
    replicas: Vec<Replica>,
    /// Sent, and neither delivered nor lost.
    network: Vec<Message>,
    /// The same, and later than anything else.
    late: Vec<Message>,
    cut: [[bool; NODES]; NODES],
    /// Who led which term.
    leaders: Vec<(Term, NodeId)>,
    /// What was committed anywhere.
    committed: Vec<Entry>,
    /// What was committed when each read was asked for.
    reads_asked: Vec<Index>,
    inputs: usize,
    feedback: &'f mut Feedback,
}

pub(super) fn run(disk: Disk, choices: &mut Choices<'_>, feedback: &mut Feedback) {
    let mut cluster = Cluster::begin(disk, choices, feedback);
    while !choices.is_empty() && cluster.inputs < INPUTS_MAX {
        cluster.step(choices);
    }
    cluster.check_end();
}

/// Logs, terms and votes that honest nodes can have come to.
fn histories(choice: u64) -> [Durable; NODES] {
    let durable = |term, vote: u64, terms: &[u64]| Durable {
        hard_state: HardState { term: Term(term), vote: Some(NodeId(vote)).filter(|node| node.0 > 0) },
        log: log(EntryId::ZERO, terms),
        snapshots: Vec::new(),
    };
    match choice {
        0 => [durable(0, 0, &[]), durable(0, 0, &[]), durable(0, 0, &[])],
        1 => [durable(1, 1, &[1, 1, 1]), durable(1, 1, &[1, 1, 1]), durable(1, 1, &[1, 1])],
        // Node 1 led term 2 alone, then node 2 led term 3 with the vote of node 3.
        2 => [durable(2, 1, &[1, 2, 2]), durable(3, 2, &[1, 3]), durable(3, 2, &[1])],
        // Figure 8 of the Raft paper: an entry of term 2 is on a majority and may yet be overwritten.
        _ => [durable(4, 1, &[1, 2, 4]), durable(4, 1, &[1, 2]), durable(3, 3, &[1, 3])],
    }
}

impl<'f> Cluster<'f> {
    fn begin(disk: Disk, choices: &mut Choices<'_>, feedback: &'f mut Feedback) -> Cluster<'f> {
        let windows = if choices.below(2) == 0 { Windows::Tight } else { Windows::Wide };
        let nodes = (1..).zip(histories(choices.below(4)));
        Cluster {
            replicas: nodes.map(|(id, durable)| Replica::new(id, NODES as u64, windows, disk, durable)).collect(),
            network: Vec::new(),
            late: Vec::new(),
            cut: [[false; NODES]; NODES],
            leaders: Vec::new(),
            committed: Vec::new(),
            reads_asked: Vec::new(),
            inputs: 0,
            feedback,
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.below(40) {
            0..6 => self.deliver(0),
            6..9 => self.deliver(choices.below(16) as usize),
            9 => self.double(choices.below(16) as usize),
            10 => self.lose(choices.below(16) as usize),
            11..15 => self.on(choices, |replica| _ = replica.persist()),
            15 => self.on(choices, |replica| while replica.persist() {}),
            16 => {
                let time = Duration::from_millis(choices.below(128));
                self.on(choices, |replica| replica.pass(time));
            }
            17 | 18 => self.on(choices, |replica| replica.pass(Duration::from_millis(1_250))),
            19 | 20 => self.propose(choices),
            21 => self.read(choices),
            22 | 23 => self.restart(choices),
            24 => self.cut(choices),
            25 => self.heal(),
            26 => {
                let from = NodeId(1 + choices.below(NODES as u64));
                self.on(choices, |replica| replica.act(|raft| raft.link_lost(from)));
            }
            27 => {
                let to = NodeId(1 + choices.below(NODES as u64));
                self.on(choices, |replica| _ = replica.act(|raft| raft.transfer(to)));
            }
            28 => {
                let to = NodeId(1 + choices.below(NODES as u64));
                self.on(choices, |replica| {
                    if replica.id() != to {
                        replica.act(|raft| raft.link_up(to));
                    }
                });
            }
            29 => self.delay(choices.below(16) as usize),
            30 => self.arrive_late(),
            32 => self.on(choices, |replica| _ = replica.take_snapshot()),
            33 => {
                let entries = choices.below(8);
                self.on(choices, |replica| _ = replica.compact(entries));
            }
            34 => self.fetch(choices),
            35 => self.on(choices, Replica::restore),
            36 => {
                self.fetch(choices);
                self.on(choices, Replica::restore);
            }
            _ => self.settle(),
        }
    }

    /// An input to the chosen replica.
    fn on(&mut self, choices: &mut Choices<'_>, input: impl FnOnce(&mut Replica)) {
        let at = choices.below(NODES as u64) as usize;
        self.input(at, |replica, _| input(replica));
    }

    /// An input to one replica, and what must hold between all of them afterwards.
    fn input(&mut self, at: usize, input: impl FnOnce(&mut Replica, &mut Feedback)) {
        self.inputs += 1;
        input(&mut self.replicas[at], self.feedback);
        self.check_committed(at);
        if self.replicas[at].is_leader() {
            self.check_leader(at);
        }
        let output = &mut self.replicas[at].output;
        for read in output.reads.drain(..) {
            let least = self.reads_asked[read.read.0 as usize];
            assert!(read.index >= least, "{read:?} misses what was committed up to {least}");
            self.feedback.saw(1);
        }
        output.reads_dropped.clear();
        let cut = &self.cut[at];
        self.network.extend(output.messages.drain(..).filter(|message| !cut[message.to.0 as usize - 1]));
    }

    /// State Machine Safety: what is committed never differs. And it is on the disks of a majority.
    fn check_committed(&mut self, at: usize) {
        let replica = &self.replicas[at];
        let commit = replica.raft.commit();
        let known = self.committed.len() as u64;
        for index in (known + 1..=commit.0).map(Index) {
            let entry = replica.entry(index).expect("commit lies within the log");
            let holders = self.replicas.iter().filter(|other| other.durable_entry(index) == Some(entry)).count();
            let is_safe = holders > NODES / 2 || replica.disk_lies();
            assert!(is_safe, "{} is committed and not on the disks of a majority: {}", entry.id, replica.raft);
            self.committed.push(entry.clone());
        }
        let Some(newest) = commit.0.checked_sub(1).map(|at| &self.committed[at as usize]) else { return };
        assert!(replica.log.matches(newest.id), "committed another entry: {}", replica.raft);
        assert!(replica.entry(commit).is_none_or(|entry| entry == newest), "another body: {}", replica.raft);
    }

    /// Election Safety: one leader a term. Leader Completeness: it has everything that was ever committed.
    fn check_leader(&mut self, at: usize) {
        let raft = &self.replicas[at].raft;
        let (term, id) = (raft.term(), self.replicas[at].id());
        if let Some((_, known)) = self.leaders.iter().rev().find(|(of, _)| *of == term) {
            assert_eq!(*known, id, "two leaders in term {term}");
            return;
        }
        self.leaders.push((term, id));
        self.feedback.saw_with(2, (self.leaders.len() as u64).min(6) << 8 | id.0);
        // Votes may come late, to a node that knows of no later term: what it leads is over, and it commits nothing.
        if self.leaders.iter().any(|(of, _)| *of > term) {
            return;
        }
        let from = raft.start().index.0.saturating_sub(1) as usize;
        let missing = self.committed[from..].iter().find(|entry| raft.term_at(entry.id.index) != Some(entry.id.term));
        assert!(missing.is_none(), "elected without the committed {missing:?}: {raft}");
    }

    fn deliver(&mut self, at: usize) {
        if self.network.is_empty() {
            return;
        }
        let message = self.network.remove(at % self.network.len());
        self.hand_over(message);
    }

    fn hand_over(&mut self, message: Message) {
        let to = message.to.0 as usize - 1;
        self.input(to, |replica, feedback| replica.step(message, feedback));
    }

    fn double(&mut self, at: usize) {
        if !self.network.is_empty() {
            let message = self.network[at % self.network.len()].clone();
            self.hand_over(message);
        }
    }

    fn lose(&mut self, at: usize) {
        if !self.network.is_empty() {
            self.network.remove(at % self.network.len());
        }
    }

    fn delay(&mut self, at: usize) {
        if !self.network.is_empty() {
            let message = self.network.remove(at % self.network.len());
            self.late.push(message);
        }
    }

    fn arrive_late(&mut self) {
        for message in std::mem::take(&mut self.late) {
            self.hand_over(message);
        }
    }

    fn propose(&mut self, choices: &mut Choices<'_>) {
        let name = self.inputs as u64;
        let lengths = [3 + choices.below(12) as usize, 3];
        let count = 1 + choices.below(2) as usize;
        match self.newest_leader() {
            Some(leader) => self.input(leader, |replica, _| _ = replica.propose(name, &lengths[..count])),
            None => self.on(choices, |replica| _ = replica.propose(name, &lengths[..count])),
        }
    }

    /// Of the leaders, be they of old terms, the one of the latest.
    fn newest_leader(&self) -> Option<usize> {
        let leaders = (0..NODES).filter(|at| self.replicas[*at].is_leader());
        leaders.max_by_key(|at| self.replicas[*at].raft.term())
    }

    /// One replica fetches what another has offered it, if that is there still.
    fn fetch(&mut self, choices: &mut Choices<'_>) {
        let at = choices.below(NODES as u64) as usize;
        let Some((from, meta)) = self.replicas[at].offered.take() else { return };
        if self.replicas[from.0 as usize - 1].durable.snapshots.contains(&meta) {
            self.input(at, |replica, _| replica.fetch(meta));
            self.feedback.saw(5);
        }
    }

    fn read(&mut self, choices: &mut Choices<'_>) {
        let read = ReadId(self.reads_asked.len() as u64);
        self.reads_asked.push(Index(self.committed.len() as u64));
        self.on(choices, |replica| {
            _ = replica.act(|raft| raft.read_index(read));
            replica.act(|raft| raft.start_read_round());
        });
    }

    fn restart(&mut self, choices: &mut Choices<'_>) {
        let at = choices.below(NODES as u64) as usize;
        let kept = choices.below(4) as usize;
        self.feedback.saw_with(3, self.replicas[at].raft.role() as u64 | magnitude(kept as u64) << 8);
        let id = self.replicas[at].id();
        self.input(at, |replica, _| replica.restart(kept.min(replica.writes())));
        self.network.retain(|message| message.to != id);
        for other in (0..NODES).filter(|other| *other != at) {
            self.input(other, |replica, _| replica.act(|raft| raft.link_up(id)));
        }
    }

    fn cut(&mut self, choices: &mut Choices<'_>) {
        let (from, to) = (choices.below(NODES as u64) as usize, choices.below(NODES as u64) as usize);
        let is_both_ways = choices.below(2) == 0;
        self.cut[from][to] = true;
        self.cut[to][from] |= is_both_ways;
        let cut = self.cut;
        self.network.retain(|message| !cut[message.from.0 as usize - 1][message.to.0 as usize - 1]);
    }

    fn heal(&mut self) {
        for from in 0..NODES {
            for to in 0..NODES {
                if std::mem::take(&mut self.cut[from][to]) && from != to {
                    self.input(from, |replica, _| replica.act(|raft| raft.link_up(NodeId(to as u64 + 1))));
                }
            }
        }
    }

    /// Disks and network catch up with everything, for a while.
    fn settle(&mut self) {
        for _ in 0..SETTLE_MAX {
            for at in 0..NODES {
                if self.replicas[at].writes() > 0 {
                    self.input(at, |replica, _| while replica.persist() {});
                }
            }
            if self.network.is_empty() {
                let mut is_quiet = true;
                for at in 0..NODES {
                    self.input(at, |replica, _| is_quiet &= !replica.tick_if_due());
                }
                if is_quiet {
                    return;
                }
            }
            self.deliver(0);
        }
    }

    /// Log Matching: where two logs hold the same id, they are the same up to there.
    fn check_end(&mut self) {
        for (at, one) in self.replicas.iter().enumerate() {
            for other in &self.replicas[at + 1..] {
                one.log.check_matching(&other.log);
            }
        }
        for replica in &mut self.replicas {
            replica.check_end();
            let dropped = replica.raft.dropped_messages();
            assert_eq!(dropped, 0, "an honest message was dropped: {}", replica.raft);
        }
        self.feedback.saw_with(4, magnitude(self.committed.len() as u64));
    }
}

/// An election and a commit, a restart of everybody, a change of leader with entries of its own, reads, a transfer, cuts.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let (settle, propose, stand, restart) = (31, [19, 0, 0], 17, 22);
    let elect = |node: u8| vec![stand, node, settle, settle];
    let commit = || [propose.to_vec(), vec![settle]].concat();
    let restart_all = || (0..3).flat_map(|node| [restart, node, 3]).collect::<Vec<u8>>();
    let inputs = [
        vec![elect(0), commit(), commit()],
        // Node 1 is cut off from node 3, the others commit; node 1 compacts its log, and node 3 needs its snapshot.
        vec![
            elect(0),
            vec![24, 0, 2, 0],
            commit(),
            commit(),
            vec![32, 0, 33, 7, 0, 25, settle, 16, 100, 0, settle, 34, 2, 35, 2, settle],
            commit(),
        ],
        vec![elect(0), commit(), restart_all(), elect(1), commit()],
        vec![elect(0), propose.to_vec(), vec![0, 0, 11, 1, 0], elect(1), commit(), elect(2)],
        // A read is answered, and the second answer to its round is late. The leader is cut off, the others elect one
        // and commit, and the old one is asked for another read.
        vec![
            elect(0),
            commit(),
            vec![21, 0, 0, 0, 29, 1, settle],
            vec![24, 0, 1, 0, 24, 0, 2, 0, stand, 1, stand, 2, settle, stand, 1, settle],
            vec![21, 0, 30, settle],
        ],
        vec![elect(2), vec![21, 2, settle, 21, 2, 0, 0, 0], commit(), vec![27, 0, 2, settle, settle]],
        vec![
            elect(0),
            vec![24, 0, 1, 0, 24, 0, 2, 0],
            propose.to_vec(),
            elect(1),
            commit(),
            vec![25, settle],
            commit(),
        ],
    ];
    let mut seeds = Vec::new();
    for history in 0..4 {
        for (windows, input) in inputs.iter().enumerate() {
            seeds.push([vec![1, windows as u8 % 2, history], input.concat()].concat());
        }
    }
    seeds
}
