//! Random schedules: everything that a network, a disk, a clock and a process may do, in any order, from one seed.
//! Messages are lost, doubled and overtake each other, writes take their time, processes die with what was not
//! durable, links close and come back, hints are true or false. Invariants run after every input; when the faults end
//! every run must converge.

use std::time::Duration;

use raftkv_protocol::client::Role;
use raftkv_protocol::types::NodeId;

use super::candidate::Cause;
use super::cluster::{Cluster, Disk, T};
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
        Run { cluster, random, size, made: 0, loss }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random.next() % limit
    }

    fn any_node(&mut self) -> u64 {
        1 + self.below(self.size)
    }

    fn step(&mut self) {
        match self.below(1_000) {
            0..480 => self.deliver(),
            480..740 => self.persist(),
            740..850 => self.pass_time(),
            850..920 => self.propose(),
            920..945 => self.read(),
            945..952 => self.restart(),
            952..959 => self.cut(),
            959..974 => self.cluster.heal(),
            974..982 => self.close_link(),
            982..990 => self.transfer(),
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
        let Some(id) = self.some_leader() else { return };
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
        let kept = self.below(1 + self.cluster.writes(id) as u64) as usize;
        self.cluster.restart(id, kept);
        self.cluster.node_mut(id).disk = Disk::Held;
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
            assert_eq!(node.log, self.cluster.node(leader).log);
            assert_eq!(node.raft.dropped_messages(), 0, "honest messages were dropped: {}", node.raft);
        }
    }
}

fn run(size: u64, seeds: std::ops::Range<u64>) {
    let (mut committed, mut reads) = (0, 0);
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
        committed += run.cluster.committed.len();
        reads += run.cluster.nodes.values().map(|node| node.reads.len()).sum::<usize>();
    }
    assert!(committed > 100 && reads > 10, "the runs did next to nothing: {committed} entries, {reads} reads");
}

#[test]
fn three_nodes_survive_random_faults() {
    run(3, 0..250);
}

#[test]
fn five_nodes_survive_random_faults() {
    run(5, 1_000..1_100);
}
