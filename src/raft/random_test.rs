//! Random schedules: everything that a network, a disk, a clock and a process may do, in any order, from one seed.
//! Messages are lost, doubled and overtake each other, writes take their time, processes die with what was not
//! durable, links close and come back, hints are true or false, logs are compacted, and snapshots are fetched and
//! restored whenever it suits them. Invariants run after every input; when the faults end every run must converge.

use std::time::Duration;

use raftkv_protocol::client::Role;
use raftkv_protocol::types::{EntryId, Index, NodeId};

use super::candidate::Cause;
use super::cluster::{Cluster, Disk, Fetching, Node, T};
use super::cluster_damage::Rest;
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
    /// Whether disks of a minority lose what they hold, and how often one did.
    loses: bool,
    damages: usize,
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
    damages: usize,
}

impl Run {
    fn new(size: u64, seed: u64, loses: bool) -> Run {
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
        Run { cluster, random, size, made: 0, loss, calm, restored: 0, loses, damages: 0 }
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
            963..966 if self.loses => self.damage(),
            966..968 if self.loses => self.forget_election(),
            968 if self.loses => self.forget_candidacy(),
            969 if self.loses => drop(self.cluster.deliver_ghost()),
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

    /// The disk of one node loses what it may. With the damaged ones that have not healed it is a minority.
    fn damage(&mut self) {
        let id = self.any_node();
        let others = self.cluster.damaged.iter().filter(|&&other| other != id).count() as u64;
        if others >= (self.size - 1) / 2 {
            return;
        }
        for _ in 0..self.below(1 + self.cluster.writes(id) as u64) {
            self.cluster.complete_write(id);
        }
        for from in (1..=self.size).filter(|&from| from != id) {
            // Until this heals, the other end knows nothing of it.
            if self.below(4) == 0 {
                self.cluster.cut(from, id);
            }
        }
        self.lose(id);
    }

    /// The end of its log, or all of it, and the newest of its terms and votes are gone.
    fn lose(&mut self, id: u64) {
        let log = &self.cluster.node(id).durable_log;
        let (last, length) = (log.last().index.0, log.entries.len() as u64);
        let lost = if self.below(2) == 0 { self.below(4).min(length) } else { self.below(1 + length) };
        let states_lost = self.below(6) as usize;
        let rest = Rest { last: Index(last - lost), states_lost, snapshots: self.below(4) > 0 };
        self.cluster.damage(id, rest, Disk::Held);
        self.damages += 1;
    }

    /// A leader is deposed and does not hear of it, and a node that has helped with that forgets it: the old leader
    /// talks to that node and not to the new one.
    fn forget_election(&mut self) {
        let Some(old) = self.some_leader() else { return };
        let (new, forgets) = (self.any_node(), self.any_node());
        let are_three = new != old && forgets != old && forgets != new;
        if !are_three || !self.cluster.damaged.is_empty() || self.cluster.raft(new).role() == Role::Leader {
            return;
        }
        self.cluster.heal();
        // Everybody but the one who forgets is on one side, with the same number on each.
        let others: Vec<u64> = (1..=self.size).filter(|id| ![old, new, forgets].contains(id)).collect();
        let (mut with_old, mut with_new) = (vec![old], vec![new]);
        others.iter().enumerate().for_each(|(at, &id)| if at % 2 == 0 { with_old.push(id) } else { with_new.push(id) });
        for (&one, &other) in with_old.iter().flat_map(|one| with_new.iter().map(move |other| (one, other))) {
            self.cluster.cut(one, other);
            self.cluster.cut(other, one);
        }
        self.cluster.cut(forgets, old);
        self.cluster.act(new, |raft| raft.campaign(Cause::Transfer));
        self.bustle();
        let kept = self.below(3);
        if kept == 0 && self.cluster.raft(new).role() == Role::Leader {
            self.propose_to(new);
            self.bustle();
        }
        self.lose(forgets);
        self.cluster.mend(forgets, old);
        if self.below(4) > 0 {
            self.cluster.cut(new, forgets);
            self.cluster.cut(forgets, new);
        }
        self.cluster.tick_due();
        if self.cluster.raft(old).role() == Role::Leader {
            self.propose_to(old);
            self.made += 1;
            self.cluster.read(old, self.made);
        }
        self.bustle();
    }

    /// A node stands for election and forgets it, with part of its log, before anybody else hears of it.
    fn forget_candidacy(&mut self) {
        let id = self.any_node();
        let may_stand = self.cluster.raft(id).role() == Role::Follower && !self.cluster.raft(id).is_damaged();
        if !may_stand || self.cluster.damaged.len() as u64 >= (self.size - 1) / 2 {
            return;
        }
        self.cluster.heal();
        for from in (1..=self.size).filter(|&from| from != id) {
            self.cluster.cut(from, id);
        }
        self.cluster.act(id, |raft| raft.campaign(Cause::Transfer));
        self.cluster.persist(id, usize::MAX);
        self.lose(id);
        for _ in 0..self.below(self.size) {
            self.cluster.deliver_ghost();
        }
    }

    /// Messages arrive and writes become durable for a while.
    fn bustle(&mut self) {
        for _ in 0..40 * self.size {
            match self.below(2) {
                0 => self.deliver(),
                _ => self.persist(),
            }
        }
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
        self.bustle();
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
        let raft = self.cluster.raft(id);
        if raft.role() == Role::Follower && !raft.is_damaged() {
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
            let is_done =
                |node: &Node| node.raft.last() == last && node.raft.commit() == last.index && !node.raft.is_damaged();
            cluster.nodes.values().all(is_done)
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

fn run(size: u64, seeds: std::ops::Range<u64>, loses: bool) -> Done {
    let mut done = Done::default();
    for seed in seeds {
        // A failing assertion is preceded by the seed that repeats it.
        println!("size {size} seed {seed}");
        let mut run = Run::new(size, seed, loses);
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
        done.damages += run.damages;
    }
    let Done { committed, reads, snapshots, compactions, restored, resets, .. } = done;
    let enough = committed > 100 && reads > 10 && snapshots > 100 && compactions > 50 && restored > 50 && resets > 50;
    assert!(enough, "the runs did next to nothing: {done:?}");
    done
}

#[test]
fn three_nodes_survive_random_faults() {
    run(3, 0..250, false);
}

#[test]
fn five_nodes_survive_random_faults() {
    run(5, 1_000..1_250, false);
}

/// More runs than in the tests, for who changes the repair: `REPAIR_SEEDS=10000 cargo test --release repair`.
fn seeds(first: u64) -> std::ops::Range<u64> {
    let count = std::env::var("REPAIR_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(250);
    first..first + count
}

// museum 42, rule 15
#[test]
fn three_nodes_survive_disks_that_lose_what_they_held() {
    assert!(run(3, seeds(2_000), true).damages > 300);
}

// museum 42, rule 15
#[test]
fn five_nodes_survive_disks_that_lose_what_they_held() {
    assert!(run(5, seeds(3_000), true).damages > 300);
}
