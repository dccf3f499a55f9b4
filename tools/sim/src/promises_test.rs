use std::time::{Duration, Instant};

use raftkv::raft::{Config, Leases, Raft, Recovered};
use raftkv_protocol::peer::{AppendResult, Body, Message, ReadContext};
use raftkv_protocol::types::{EntryId, HardState, Incarnation, Index, NodeId, ShardId, Term};

use super::network::Told;
use super::promises::Promises;

const SHARD: ShardId = ShardId(0);

/// A node of three, by its id, as it starts.
fn replica(id: u64, term: u64, vote: Option<u64>, damaged: bool) -> Raft {
    let config = Config {
        id: NodeId(id),
        shard: SHARD,
        voters: vec![NodeId(1), NodeId(2), NodeId(3)],
        incarnation: Incarnation(1),
        heartbeat: Duration::from_millis(100),
        election_timeout: Duration::from_millis(800),
        epoch: Instant::now(),
        preferred: false,
        seed: 1,
        append_bytes_max: 1 << 20,
        inflight_bytes_max: 1 << 20,
        inflight_messages_max: 16,
        leases: Leases::default(),
    };
    let hard_state = HardState { term: Term(term), vote: vote.map(NodeId) };
    Raft::new(config, Recovered { hard_state, damaged, ..Recovered::default() }, Instant::now())
}

/// What the promises of three nodes say to what they are told.
struct Listener(Promises);

impl Listener {
    fn new() -> Listener {
        Listener(Promises::new(3))
    }

    /// What is wrong with this being said, if anything is.
    fn hears(&mut self, from: u64, to: u64, term: u64, body: Body) -> Option<&'static str> {
        let message = Message { shard: SHARD, from: NodeId(from), to: NodeId(to), term: Term(term), body };
        self.0.told(&Told::Raft(message)).err().map(|violation| violation.invariant)
    }

    fn stands(&mut self, node: u64, term: u64) {
        let body = Body::Vote { last: EntryId::ZERO, transfer: false };
        assert_eq!(self.hears(node, node % 3 + 1, term, body), None);
    }

    fn votes(&mut self, node: u64, candidate: u64, term: u64) -> Option<&'static str> {
        self.hears(node, candidate, term, Body::VoteReply { granted: true })
    }

    fn tells_term(&mut self, node: u64, to: u64, term: u64) {
        assert_eq!(self.hears(node, to, term, Body::PreVoteReply { granted: false }), None);
    }

    /// A node starts with less than it had.
    fn forgets(&mut self, node: u64, term: u64) {
        self.0.forgot(node as usize - 1, SHARD, &replica(node, term, None, true));
        self.0.repair_begins(node as usize - 1, SHARD);
    }

    /// A node counts as healed, and knows this.
    fn heals(&mut self, node: u64, term: u64, vote: u64) -> Option<&'static str> {
        let healed = self.0.note_repair(node as usize - 1, SHARD, &replica(node, term, Some(vote), false));
        healed.map(|is_healed| assert!(is_healed)).err().map(|violation| violation.invariant)
    }

    fn starts(&mut self, node: u64, term: u64, vote: Option<u64>) -> Option<&'static str> {
        let raft = replica(node, term, vote, false);
        self.0.check_start(node as usize - 1, SHARD, &raft).err().map(|violation| violation.invariant)
    }
}

/// museum 42, rule 15: a word that the disk has lost binds nevertheless.
#[test]
fn a_vote_binds_over_damage() {
    let after_damage = || {
        let mut listener = Listener::new();
        listener.stands(1, 5);
        assert_eq!(listener.votes(3, 1, 5), None);
        listener.forgets(3, 2);
        for other in [1, 2] {
            listener.tells_term(other, 3, 5);
        }
        listener
    };
    let healed_too_early = after_damage().heals(3, 4, 3);
    assert_eq!(healed_too_early, Some("a healed node knows all terms in which it has promised anything"));
    let mut listener = after_damage();
    assert_eq!(listener.heals(3, 5, 3), None);
    listener.stands(2, 5);
    assert_eq!(listener.votes(3, 2, 5), Some("a node votes once a term"));
    assert_eq!(listener.starts(3, 5, Some(3)), None, "the vote for itself stands for the one that it has forgotten");
    assert_eq!(listener.starts(3, 5, Some(2)), Some("a node keeps its word over a restart"));
    assert_eq!(listener.starts(3, 4, Some(3)), Some("a node keeps its word over a restart"));
}

/// museum 42: who stood for election and does not know it any more will not be elected, and its voters are free.
#[test]
fn a_vote_for_whom_has_forgotten_its_candidacy_binds_nobody() {
    let mut listener = Listener::new();
    listener.stands(1, 5);
    assert_eq!(listener.votes(3, 1, 5), None);
    listener.forgets(1, 4);
    assert_eq!(listener.starts(3, 4, None), Some("a node keeps its word over a restart"), "it was not damaged itself");
    listener.forgets(3, 4);
    listener.tells_term(1, 3, 4);
    listener.tells_term(2, 3, 4);
    assert_eq!(listener.heals(3, 4, 3), None);
    listener.stands(2, 5);
    assert_eq!(listener.votes(3, 2, 5), None);
}

/// museum 42, rule 15: before it is healed a node votes for nobody, and helps nobody before it knows all terms.
#[test]
fn a_damaged_node_votes_for_nobody_and_helps_nobody_too_early() {
    let mut listener = Listener::new();
    listener.stands(1, 5);
    listener.forgets(3, 2);
    assert_eq!(listener.votes(3, 1, 5), Some("a damaged node votes for nobody"));
    let would_vote = listener.hears(3, 1, 6, Body::PreVoteReply { granted: true });
    assert_eq!(would_vote, Some("a damaged node votes for nobody"));
    let accepted = || Body::AppendReply { link: 1, result: AppendResult::Accepted { matched: Index(1) } };
    let context = ReadContext { incarnation: Incarnation(1), term: Term(5), counter: 1 };
    let too_early = Some("a damaged node helps nobody before it knows all terms");
    listener.tells_term(1, 3, 5);
    assert_eq!(listener.hears(3, 1, 5, accepted()), too_early);
    assert_eq!(listener.hears(3, 1, 5, Body::HeartbeatReply { context, promise: Default::default() }), too_early);
    assert_eq!(
        listener.hears(3, 1, 5, Body::HeartbeatReply { context: ReadContext::default(), promise: Default::default() }),
        None
    );
    listener.tells_term(2, 3, 5);
    assert_eq!(listener.hears(3, 1, 5, accepted()), None);
    assert_eq!(listener.hears(3, 1, 5, Body::HeartbeatReply { context, promise: Default::default() }), None);
    assert_eq!(
        listener.votes(3, 1, 5),
        Some("a damaged node votes for nobody"),
        "that it knows the terms is not enough"
    );
}

/// museum 42: in its last turn a core may have heard that more is committed than anybody can ask it for.
#[test]
fn what_is_committed_may_be_acknowledged_in_the_last_turn() {
    let mut listener = Listener::new();
    listener.forgets(3, 2);
    let accepted = |matched| Body::AppendReply { link: 1, result: AppendResult::Accepted { matched: Index(matched) } };
    listener.0.last_turn(2, SHARD, Index(7));
    assert_eq!(listener.hears(3, 1, 5, accepted(7)), None);
    let too_early = Some("a damaged node helps nobody before it knows all terms");
    assert_eq!(listener.hears(3, 1, 5, accepted(8)), too_early);
}

/// museum 42: whoever counts as healed before all have told their terms may have promised what it does not know.
#[test]
fn nobody_is_healed_before_all_others_have_told_their_terms() {
    let mut listener = Listener::new();
    listener.forgets(3, 2);
    listener.tells_term(1, 3, 5);
    let too_early = listener.heals(3, 5, 3);
    assert_eq!(too_early, Some("a healed node knows all terms in which it has promised anything"));
}

/// museum 42: a term that is asked for is told with the answer to a pre-vote, whatever that says.
#[test]
fn whoever_has_entered_no_term_may_tell_so_to_a_node_that_repairs_itself() {
    let mut listener = Listener::new();
    listener.0.lost(1);
    let grants = |listener: &mut Listener, term| listener.hears(2, 3, term, Body::PreVoteReply { granted: true });
    assert_eq!(grants(&mut listener, 1), Some("a node that lost its disk has no say"));
    listener.forgets(3, 2);
    assert_eq!(grants(&mut listener, 1), None);
    assert_eq!(grants(&mut listener, 2), Some("a node that lost its disk has no say"));
}

/// Whoever has stood with an empty log, and is healed in the same term with more, takes a vote for itself there.
#[test]
fn a_vote_for_itself_compares_no_logs() {
    let mut listener = Listener::new();
    listener.stands(2, 1);
    let own = EntryId::new(12, 1);
    let votes = |node: u64| listener.0.check_vote(node as usize - 1, SHARD, &replica(node, 1, Some(2), false), own);
    assert_eq!(votes(2), Ok(()));
    assert_eq!(votes(3).err().map(|violation| violation.invariant), Some("a node votes for no worse log than its own"));
}
