//! What the end of a peer's connection means: only the end of the newest one that a leader's heartbeats came on says
//! that its process has ended. The followers then elect at once, long before their timers.
//!
//! The leader stands still, so that nothing but these connections speaks for it.

use std::time::{Duration, Instant};

use raftkv_protocol::peer::{Body, Message, PeerFrame, ReadContext};
use raftkv_protocol::types::{ClusterId, Incarnation, Index, NodeId, ShardId, Term};

use crate::support::cluster::Cluster;
use crate::support::wait::{PATIENCE, eventually, pause};
use crate::support::wire::{Wire, encoded, peer_hello};

/// The followers' timers fire after this at the earliest.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(6);
/// Longer than all the attempts that a hint sets off.
const HINTED_ATTEMPTS: Duration = Duration::from_millis(500);

/// A cluster of one shard whose leader stands still.
struct Scene {
    cluster: Cluster,
    leader: u64,
    followers: Vec<u64>,
    id: ClusterId,
    incarnation: u64,
    term: Term,
}

impl Scene {
    fn new() -> Scene {
        let timeout = format!("--election-timeout={}s", ELECTION_TIMEOUT.as_secs());
        let mut cluster = Cluster::of(3).shards(1).flag(&timeout).start();
        let leader = cluster.leader_of("any");
        let followers = cluster.ids().into_iter().filter(|id| *id != leader).collect();
        let status = cluster.wire(leader).status();
        cluster.process(leader).pause();
        let (id, incarnation, term) = (status.cluster, status.incarnation.0, status.shards[0].term);
        Scene { cluster, leader, followers, id, incarnation, term }
    }

    /// A connection to each follower that says it is the leader's.
    fn links(&self) -> Vec<Wire> {
        let link = |follower: &u64| {
            let mut wire = Wire::dial(self.cluster.address(*follower)).expect("connects");
            let hello = peer_hello(self.id, self.leader, self.incarnation);
            wire.greet(&hello).expect("an answer").expect("the leader is welcome");
            wire
        };
        self.followers.iter().map(link).collect()
    }

    /// The same, and each has brought a heartbeat.
    fn links_with_heartbeats(&self) -> Vec<Wire> {
        let mut links = self.links();
        self.send_heartbeats(&mut links, self.term, "raft_messages_received");
        links
    }

    /// A heartbeat of a term on each link, until it is counted.
    fn send_heartbeats(&self, links: &mut [Wire], term: Term, counter: &str) {
        for (follower, link) in self.followers.iter().zip(links) {
            let counted = || self.cluster.wire(*follower).counter(counter);
            let before = counted();
            let context = ReadContext { incarnation: Incarnation(0), term, counter: 0 };
            let message = Message {
                shard: ShardId(0),
                from: NodeId(self.leader),
                to: NodeId(*follower),
                term,
                body: Body::Heartbeat { commit: Index(0), context, sent_us: 0 },
            };
            link.send(&encoded(|out| PeerFrame::Message(message).encode(out))).expect("sent");
            eventually(PATIENCE, "the heartbeat is received", || (counted() > before).then_some(()));
        }
    }

    fn terms(&self) -> Vec<Term> {
        self.followers.iter().map(|id| self.cluster.wire(*id).status().shards[0].term).collect()
    }

    #[track_caller]
    fn assert_nothing_comes_of_it(&self, what: &str) {
        pause(HINTED_ATTEMPTS);
        assert_eq!(self.terms(), [self.term; 2], "{what}");
    }

    #[track_caller]
    fn assert_election(&self, since: Instant, what: &str) {
        self.cluster.await_leaders_among(&self.followers);
        let took = since.elapsed();
        assert!(took < ELECTION_TIMEOUT / 2, "{what}: a leader after {took:?}");
        assert!(self.terms().iter().all(|term| *term > self.term), "{what}");
    }
}

fn close(links: Vec<Wire>) -> Instant {
    drop(links);
    Instant::now()
}

#[test]
fn only_the_end_of_the_newest_link_with_heartbeats_sets_off_an_election() {
    let scene = Scene::new();
    close(scene.links());
    scene.assert_nothing_comes_of_it("a link that brought no heartbeat");

    let mut wrong = scene.links_with_heartbeats();
    for link in &mut wrong {
        link.send(&[0xff; 64]).expect("sent");
        assert_eq!(link.frame().expect("readable"), None, "the follower closes it");
    }
    close(wrong);
    scene.assert_nothing_comes_of_it("a link that the follower closed for what came on it");

    let older = scene.links_with_heartbeats();
    let newer = scene.links_with_heartbeats();
    close(older);
    scene.assert_nothing_comes_of_it("an older link");
    let silent = scene.links();
    let since = close(newer);
    scene.assert_election(since, "the newest that brought heartbeats, whatever else is open");
    drop(silent);
}

/// What an earlier process has said must not be heard after its successor, whose disk may have been damaged.
// rule 23
#[test]
fn what_comes_on_an_older_link_is_not_heeded() {
    let scene = Scene::new();
    let mut older = scene.links();
    let newer = scene.links();
    let later = Term(scene.term.0 + 5);
    scene.send_heartbeats(&mut older, later, "raft_messages_outdated");
    assert_eq!(scene.terms(), [scene.term; 2]);
    close(newer);
    let mut newest = scene.links();
    scene.send_heartbeats(&mut newest, later, "raft_messages_received");
    assert_eq!(scene.terms(), [later; 2]);
}

#[test]
fn a_reset_of_the_newest_link_with_heartbeats_sets_off_an_election() {
    let scene = Scene::new();
    let links = scene.links_with_heartbeats();
    links.into_iter().for_each(Wire::reset);
    scene.assert_election(Instant::now(), "a reset");
}
