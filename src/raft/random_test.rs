//! Random schedules: everything that a network, a disk, a clock and a process may do, in any order, from one seed.
//! Messages are lost, doubled and overtake each other, writes take their time, processes die with what was not
//! durable, links close and come back, hints are true or false, logs are compacted, and snapshots are fetched and
//! restored whenever it suits them. Invariants run after every input; when the faults end every run must converge.

use std::time::Duration;

use raftkv_protocol::client::Role;
use raftkv_protocol::types::{EntryId, Index, NodeId};

use super::candidate::Cause;
use super::cluster::{Cluster, Disk, Fetching, Node, T};
use super::timing::SplitMix;

const STEPS: usize = 1_500;

/// The random schedule of one run.
struct Run {
    cluster: Cluster,
    random: SplitMix,
    size: u64,
    /// How many proposals and reads were made.
    made: u64,
    /// Out of 1,000 messages, how many are lost.
    loss: u64,
    /// Of the disruptions, one in so many takes place: leaders must live for a while to leave anybody behind.
    calm: u64,
    /// How many snapshots took effect where they were fetched.
    restored: usize,
}

/// What runs have done.
#[derive(Debug, Default)]
struct Done {
    committed: usize,
    reads: usize,
    snapshots: u64,
    compactions: usize,
    restored: usize,
    resets: u64,
}

impl Run {
    fn new(size: u64, seed: u64) -> Run {
        let mut random = SplitMix(seed);
        let loss = [0, 10, 100, 300][random.next() as usize % 4];
        let mut cluster = Cluster::with(size, |config| {
            config.seed = seed;
            config.append_bytes_max = 16;
            config.inflight_bytes_max = 48;
            config.inflight_messages_max = 4;
        });
        cluster.nodes.values_mut().for_each(|node| node.disk = Disk::Held);
        let calm = [1, 8][seed as usize % 2];
        Run { cluster, random, size, made: 0, loss, calm, restored: 0 }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random.next() % limit
    }

    fn any_node(&mut self) -> u64 {
        1 + self.below(self.size)
    }

    fn step(&mut self) {
        match self.below(1_000) {
            0..460 => self.deliver(),
            460..700 => self.persist(),
            700..800 => self.pass_time(),
            800..870 => self.propose(),
            870..885 => self.snapshot(),
            885..905 => self.compact(),
            905..915 => self.fetch(),
            915..925 => self.restore(),
            925..945 => self.read(),
            945..960 => self.cluster.heal(),
            960..963 => self.leave_behind(),
            _ if self.below(self.calm) == 0 => self.disrupt(),
            _ => self.deliver(),
        }
    }

    fn disrupt(&mut self) {
        match self.below(37) {
            0..7 => self.restart(),
            7..14 => self.cut(),
            14..22 => self.close_link(),
            22..27 => self.transfer(),
            _ => self.stand(),
        }
    }

    fn deliver(&mut self) {
        if self.cluster.network.is_empty() {
            return;
        }
        // Mostly in order: the oldest few may overtake each other.
        let reach = self.cluster.network.len().min(8) as u64;
        let at = self.below(reach) as usize;
        if self.below(1_000) < self.loss {
            self.cluster.network.remove(at);
        } else if self.below(50) == 0 {
            let doubled = self.cluster.network[at].clone();
            self.cluster.hand_over(doubled);
        } else {
            let message = self.cluster.network.remove(at);
            self.cluster.hand_over(message);
        }
    }

    fn persist(&mut self) {
        let id = self.any_node();
        let count = 1 + self.below(3) as usize;
        self.cluster.persist(id, count);
    }

    fn pass_time(&mut self) {
        let longest = if self.below(30) == 0 { 900 } else { 30 };
        let passed = self.below(longest);
        self.cluster.time += Duration::from_millis(passed);
        self.cluster.tick_due();
    }

    /// Any node that leads, be it of an old term.
    fn some_leader(&mut self) -> Option<u64> {
        let id = self.any_node();
        (self.cluster.raft(id).role() == Role::Leader).then_some(id)
    }

    fn propose(&mut self) {
        if let Some(id) = self.some_leader() {
            self.propose_to(id);
        }
    }

    fn propose_to(&mut self, id: u64) {
        if self.cluster.raft(id).is_transferring() {
            return;
        }
        let words: Vec<String> = (0..1 + self.below(4)).map(|at| format!("{}.{at}", self.made)).collect();
        self.made += 1;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.cluster.propose(id, &words);
    }

    fn read(&mut self) {
        let Some(id) = self.some_leader() else { return };
        self.made += 1;
        assert!(self.cluster.read(id, self.made));
    }

    fn restart(&mut self) {
        let id = self.any_node();
        for _ in 0..self.below(1 + self.cluster.writes(id) as u64) {
            self.cluster.complete_write(id);
        }
        if self.below(4) == 0 {
            self.cluster.damage_newest_snapshot(id);
        }
        self.cluster.start_again(id, Disk::Held);
    }

    fn snapshot(&mut self) {
        let id = self.any_node();
        self.cluster.snapshot(id);
    }

    /// Up to one of the two snapshots that are kept, or somewhere before.
    fn compact(&mut self) {
        let id = self.any_node();
        let choice = self.below(4);
        let node = self.cluster.node(id);
        let file = if choice == 0 { node.files.last() } else { node.files.first() };
        let (start, end) = (node.log.start.index.0, file.map_or(0, |file| file.at.index.0));
        let less = if choice < 2 { self.below(1 + end.saturating_sub(start)) } else { 0 };
        self.cluster.compact(id, Index(end.saturating_sub(less)));
    }

    /// The others go on without one of them, and the leader compacts its log.
    fn leave_behind(&mut self) {
        let Some(leader) = self.some_leader() else { return };
        let behind = self.any_node();
        if behind == leader {
            return;
        }
        self.cluster.heal();
        self.cluster.isolate(behind);
        self.propose_to(leader);
        for _ in 0..40 * self.size {
            match self.below(2) {
                0 => self.deliver(),
                _ => self.persist(),
            }
        }
        if self.cluster.snapshot(leader) {
            self.cluster.compact(leader, self.cluster.raft(leader).commit());
        }
        if self.below(2) == 0 {
            self.cluster.heal();
        }
    }

    /// One of those for whom this holds.
    fn any_of(&mut self, holds: impl Fn(&Node) -> bool) -> Option<u64> {
        let nodes = self.cluster.nodes.iter().filter(|(_, node)| holds(node));
        let ids: Vec<u64> = nodes.map(|(&id, _)| id).collect();
        let at = self.below(ids.len().max(1) as u64) as usize;
        ids.get(at).copied()
    }

    fn fetch(&mut self) {
        if let Some(id) = self.any_of(|node| node.offered.is_some()) {
            self.cluster.fetch(id);
        }
    }

    fn restore(&mut self) {
        if let Some(id) = self.any_of(|node| node.fetched.is_some()) {
            self.restored += usize::from(self.cluster.restore(id));
        }
    }

    fn cut(&mut self) {
        let (from, to) = (self.any_node(), self.any_node());
        match self.below(3) {
            0 => self.cluster.isolate(from),
            _ if from != to => self.cluster.cut(from, to),
            _ => {}
        }
    }

    fn close_link(&mut self) {
        let (id, from) = (self.any_node(), self.any_node());
        self.cluster.act(id, |raft| raft.link_lost(NodeId(from)));
    }

    /// An election out of the blue, which neither a pre-vote nor stickiness prevents.
    fn stand(&mut self) {
        let id = self.any_node();
        if self.cluster.raft(id).role() == Role::Follower {
            self.cluster.act(id, |raft| raft.campaign(Cause::Transfer));
        }
    }

    fn transfer(&mut self) {
        let to = self.any_node();
        if let Some(id) = self.some_leader() {
            self.cluster.act(id, |raft| raft.transfer(NodeId(to))).expect("it leads");
        }
    }

    /// The faults end. Within ten election timeouts everybody agrees on everything.
    fn converge(&mut self) {
        self.cluster.heal();
        for id in 1..=self.size {
            self.cluster.node_mut(id).disk = Disk::Prompt;
            self.cluster.node_mut(id).fetching = Fetching::Prompt;
            self.cluster.persist(id, usize::MAX);
        }
        self.cluster.run_until(10 * T, |cluster| {
            let Some(leader) = cluster.leader() else { return false };
            let last = cluster.raft(leader).last();
            cluster.nodes.values().all(|node| node.raft.last() == last && node.raft.commit() == last.index)
        });
        let leader = self.cluster.leader().expect("just seen");
        assert_eq!(self.cluster.raft(leader).uncommitted_bytes(), 0);
        for node in self.cluster.nodes.values() {
            node.log.check_matching(&self.cluster.node(leader).log);
            assert_eq!(node.log.last(), self.cluster.node(leader).log.last());
            assert_eq!(node.raft.dropped_messages(), 0, "honest messages were dropped: {}", node.raft);
        }
    }
}

fn run(size: u64, seeds: std::ops::Range<u64>) {
    let mut done = Done::default();
    for seed in seeds {
        // A failing assertion is preceded by the seed that repeats it.
        println!("size {size} seed {seed}");
        let mut run = Run::new(size, seed);
        for step in 0..STEPS {
            run.step();
            if step % 16 == 0 {
                run.cluster.check_log_matching();
            }
        }
        run.converge();
        let nodes = run.cluster.nodes.values();
        done.compactions += nodes.clone().filter(|node| node.log.start != EntryId::ZERO).count();
        done.reads += nodes.map(|node| node.reads.len()).sum::<usize>();
        done.committed += run.cluster.committed.len();
        done.snapshots += run.cluster.snapshots;
        done.restored += run.restored;
        done.resets += run.cluster.resets;
    }
    let Done { committed, reads, snapshots, compactions, restored, resets } = done;
    let enough = committed > 100 && reads > 10 && snapshots > 100 && compactions > 50 && restored > 50 && resets > 50;
    assert!(enough, "the runs did next to nothing: {done:?}");
}

#[test]
fn three_nodes_survive_random_faults() {
    run(3, 0..250);
}

#[test]
fn five_nodes_survive_random_faults() {
    run(5, 1_000..1_250);
}
