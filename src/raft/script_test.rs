//! Golden scripts: `testdata/*.txt`, each a story of commands and what the cluster made of them.
//!
//! A script is a sequence of blocks separated by empty lines: comments (`#`) and commands, then `---`, then the output.
//! The output is every message delivered, in order, and the state line of every node that the commands changed.
//! `UPDATE_GOLDEN=1 cargo test script` rewrites the output; the change is reviewed like code.
//!
//! | command | meaning |
//! | --- | --- |
//! | `nodes 3 [append=BYTES] [inflight=MESSAGES]` | the cluster; the first command |
//! | `campaign 1` · `elect 1` | node 1's election timer fires · and it wins, and a heartbeat is sent, in silence |
//! | `propose 1 a b` | one entry for each word |
//! | `read 1 7` | read 7 is asked of node 1, and a round is started |
//! | `transfer 1 2` | node 1 hands over to node 2 |
//! | `link-lost 2 1` · `link-up 1 2` | node 2 loses node 1's link · node 1's link to node 2 is established anew |
//! | `deliver` · `deliver 1>2` | everything until nothing is on its way · only what is on its way on this link now |
//! | `drop 1>2` | what is on its way on this link is lost |
//! | `cut 1>2` · `isolate 3` | a link loses everything · all links of a node do |
//! | `heal` · `heal 1 2 3` | no link loses anything any more · none between these nodes |
//! | `hold 2` · `persist 2 [n]` · `prompt 2` | the disk waits to be told · n writes (1) are durable · it needs no telling |
//! | `restart 2 [n]` | killed and started, after n more of its writes (0) reached the disk |
//! | `damage 3 2 [n]` | killed and started, with nothing after index 2 on its disk, and without the newest n terms and votes |
//! | `snapshot 1` · `compact 1 5` | node 1 takes a snapshot of what it has applied · its log starts after index 5 |
//! | `fetch 2` · `restore 2` · `install 2` | node 2 fetches what it was last offered · and restores it · both |
//! | `tick 800ms` | time jumps, and everybody hears of it |
//! | `run 800ms` | time passes, messages are delivered in silence |

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use raftkv_protocol::peer::{AppendResult, Body, Message};
use raftkv_protocol::types::{Index, NodeId};

use super::cluster::{BEAT, Cluster, Disk};
use super::cluster_damage::Rest;

/// More messages than any `deliver` of a script brings.
const MESSAGES_MAX: usize = 1_000;

/// A cluster and what was last said of it.
struct Script {
    cluster: Cluster,
    lines: Vec<String>,
    output: String,
}

/// A message as the scripts show it.
fn describe(message: &Message) -> String {
    let head = format!("{}>{}@{}", message.from, message.to, message.term);
    let tail = match &message.body {
        Body::PreVote { last } => format!("pre-vote? last={last}"),
        Body::PreVoteReply { granted } => format!("pre-vote {}", yes_no(*granted)),
        Body::Vote { last, transfer } => format!("vote? last={last}{}", if *transfer { " transfer" } else { "" }),
        Body::VoteReply { granted } => format!("vote {}", yes_no(*granted)),
        Body::Append { link, prev, commit, entries } => {
            let ids: Vec<String> = entries.iter().map(|entry| entry.id.to_string()).collect();
            format!("append link={link} prev={prev} commit={commit} [{}]", ids.join(" "))
        }
        Body::AppendReply { link, result: AppendResult::Accepted { matched } } => {
            format!("accepted link={link} matched={matched}")
        }
        Body::AppendReply { link, result: AppendResult::Rejected { prev, hint } } => {
            format!("rejected link={link} prev={prev} hint={hint}")
        }
        Body::Heartbeat { commit, context, .. } => format!("heartbeat commit={commit} round={}", context.counter),
        Body::HeartbeatReply { context, .. } => format!("heartbeat ok round={}", context.counter),
        Body::TimeoutNow => "timeout-now".into(),
        Body::Snapshot { link, meta } => format!("offer link={link} snapshot={}", meta.at),
        other => format!("{other:?}"),
    };
    format!("{head} {tail}")
}

fn yes_no(granted: bool) -> &'static str {
    if granted { "yes" } else { "no" }
}

fn link(word: &str) -> (u64, u64) {
    let (from, to) = word.split_once('>').expect("a link is written as 1>2");
    (number(from), number(to))
}

fn number(word: &str) -> u64 {
    word.parse().expect("a number")
}

fn milliseconds(word: &str) -> Duration {
    Duration::from_millis(number(word.strip_suffix("ms").expect("a duration in ms")))
}

fn rest(last: &str, states_lost: &str) -> Rest {
    Rest { last: Index(number(last)), states_lost: number(states_lost) as usize, snapshots: true }
}

fn new_cluster(options: &[&str]) -> Cluster {
    let size = number(options[0]);
    Cluster::with(size, |config| {
        config.seed = 1;
        for option in &options[1..] {
            match option.split_once('=') {
                Some(("append", bytes)) => config.append_bytes_max = number(bytes) as usize,
                Some(("inflight", messages)) => config.inflight_messages_max = number(messages) as usize,
                _ => panic!("unknown option {option}"),
            }
        }
    })
}

impl Script {
    fn command(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let cluster = &mut self.cluster;
        match words[..] {
            ["nodes", ref options @ ..] => *cluster = new_cluster(options),
            ["campaign", id] => cluster.campaign(number(id)),
            ["elect", id] => {
                cluster.elect(number(id));
                cluster.run(BEAT);
            }
            ["propose", id, ref words @ ..] => {
                if let Err(refusal) = cluster.try_propose(number(id), words) {
                    let _ = writeln!(self.output, "{refusal:?}");
                }
            }
            ["read", id, read] => {
                cluster.read(number(id), number(read));
            }
            ["transfer", id, to] => {
                let _ = cluster.act(number(id), |raft| raft.transfer(NodeId(number(to))));
            }
            ["link-lost", id, from] => cluster.act(number(id), |raft| raft.link_lost(NodeId(number(from)))),
            ["link-up", id, to] => cluster.act(number(id), |raft| raft.link_up(NodeId(number(to)))),
            ["deliver"] => self.deliver_all(),
            ["deliver", on] => self.deliver_on(link(on)),
            ["drop", on] => cluster.network.retain(|message| (message.from.0, message.to.0) != link(on)),
            ["cut", on] => cluster.cut(link(on).0, link(on).1),
            ["isolate", id] => cluster.isolate(number(id)),
            ["heal"] => cluster.heal(),
            ["heal", ref ids @ ..] => {
                let ids: Vec<u64> = ids.iter().map(|id| number(id)).collect();
                for (from, to) in ids.iter().flat_map(|&from| ids.iter().map(move |&to| (from, to))) {
                    cluster.mend(from, to);
                }
            }
            ["hold", id] => cluster.node_mut(number(id)).disk = Disk::Held,
            ["prompt", id] => {
                cluster.node_mut(number(id)).disk = Disk::Prompt;
                cluster.persist(number(id), usize::MAX);
            }
            ["persist", id] => cluster.persist(number(id), 1),
            ["persist", id, count] => cluster.persist(number(id), number(count) as usize),
            ["restart", id] => cluster.restart(number(id), 0),
            ["restart", id, kept] => cluster.restart(number(id), number(kept) as usize),
            ["damage", id, last] => cluster.damage(number(id), rest(last, "0"), Disk::Prompt),
            ["damage", id, last, states] => cluster.damage(number(id), rest(last, states), Disk::Prompt),
            ["snapshot", id] => self.attempt(|cluster| cluster.snapshot(number(id))),
            ["compact", id, index] => self.attempt(|cluster| cluster.compact(number(id), Index(number(index)))),
            ["fetch", id] => self.attempt(|cluster| cluster.fetch(number(id))),
            ["restore", id] => self.attempt(|cluster| cluster.restore(number(id))),
            ["install", id] => self.attempt(|cluster| cluster.fetch(number(id)) && cluster.restore(number(id))),
            ["tick", time] => {
                cluster.time += milliseconds(time);
                cluster.tick_due();
            }
            ["run", time] => cluster.run(milliseconds(time)),
            _ => panic!("unknown command: {line}"),
        }
    }

    /// What may turn out not to be possible.
    fn attempt(&mut self, action: impl FnOnce(&mut Cluster) -> bool) {
        if !action(&mut self.cluster) {
            self.output.push_str("no\n");
        }
    }

    fn deliver_all(&mut self) {
        for delivered in 0.. {
            assert!(delivered < MESSAGES_MAX, "the cluster does not come to rest:\n{}", self.output);
            if let Some(message) = self.cluster.deliver_one() {
                let _ = writeln!(self.output, "{}", describe(&message));
                continue;
            }
            self.cluster.tick_due();
            if self.cluster.network.is_empty() {
                return;
            }
        }
    }

    fn deliver_on(&mut self, on: (u64, u64)) {
        let is_on = |message: &mut Message| (message.from.0, message.to.0) == on;
        let messages: Vec<Message> = self.cluster.network.extract_if(.., is_on).collect();
        for message in messages {
            let _ = writeln!(self.output, "{}", describe(&message));
            self.cluster.hand_over(message);
        }
        self.cluster.tick_due();
    }

    /// The lines of the nodes that changed.
    fn show_changes(&mut self) {
        let describe_node = |(&id, node): (&u64, &super::cluster::Node)| {
            let mut line = node.raft.state_line();
            if self.cluster.writes(id) > 0 {
                let _ = write!(line, " writes={}", self.cluster.writes(id));
            }
            if let Some((from, meta)) = node.offered.filter(|(_, meta)| meta.at.index > node.raft.commit()) {
                let _ = write!(line, " offered={} by {from}", meta.at);
            }
            let served: Vec<String> =
                node.reads.iter().map(|ready| format!("{}:{}", ready.read.0, ready.index)).collect();
            let dropped: Vec<String> = node.reads_dropped.iter().map(|read| read.0.to_string()).collect();
            for (what, reads) in [("served", served), ("dropped", dropped)] {
                if !reads.is_empty() {
                    let _ = write!(line, " {what}=[{}]", reads.join(" "));
                }
            }
            line
        };
        let lines: Vec<String> = self.cluster.nodes.iter().map(describe_node).collect();
        for line in lines.iter().filter(|line| !self.lines.contains(line)) {
            let _ = writeln!(self.output, "{line}");
        }
        self.lines = lines;
    }
}

/// The script with the output that it has now.
fn replay(text: &str) -> String {
    let mut script = Script { cluster: Cluster::new(1, 1), lines: Vec::new(), output: String::new() };
    let mut blocks = Vec::new();
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let input: Vec<&str> = block.trim().lines().take_while(|line| *line != "---").collect();
        for line in input.iter().filter(|line| !line.starts_with('#')) {
            script.command(line);
        }
        if input.iter().all(|line| line.starts_with('#')) {
            blocks.push(input.join("\n"));
            continue;
        }
        script.show_changes();
        blocks.push(format!("{}\n---\n{}", input.join("\n"), script.output).trim_end().to_string());
        script.output.clear();
    }
    blocks.join("\n\n") + "\n"
}

fn check_script(path: &Path) {
    let recorded = std::fs::read_to_string(path).expect("a readable script");
    let replayed = replay(&recorded);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, replayed).expect("a writable script");
        return;
    }
    for (at, (was, is)) in recorded.lines().zip(replayed.lines()).enumerate() {
        assert_eq!(was, is, "{}:{}", path.display(), at + 1);
    }
    assert_eq!(recorded, replayed, "{}", path.display());
}

#[test]
fn golden_scripts_replay_as_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/raft/testdata");
    let entries = std::fs::read_dir(folder).expect("the folder of the scripts");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    assert!(paths.len() >= 10, "scripts are missing: {paths:?}");
    paths.iter().for_each(|path| check_script(path));
}
