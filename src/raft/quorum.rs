//! Who counts: the members of a group, and what a majority of them says.
//!
//! A configuration may be joint (two voter sets, each of which must agree; Raft paper §6) and may have learners, who
//! receive the log and count nowhere. Nothing here depends on how the members are ordered.

use raftkv_protocol::types::{Index, NodeId};

/// The members of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Configuration {
    /// The voters; while the configuration is joint, the incoming ones.
    voters: Vec<NodeId>,
    /// The voters that are being left behind: empty unless the configuration is joint.
    outgoing: Vec<NodeId>,
    /// Receive the log, have no vote.
    learners: Vec<NodeId>,
}

/// How an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A majority said yes.
    Won,
    /// A majority can no longer say yes.
    Lost,
    /// Neither.
    Pending,
}

impl Configuration {
    /// A configuration of these sets, in any order.
    pub(super) fn new(voters: &[NodeId], outgoing: &[NodeId], learners: &[NodeId]) -> Configuration {
        let set = |nodes: &[NodeId]| {
            let mut nodes = nodes.to_vec();
            nodes.sort_unstable();
            nodes.dedup();
            nodes
        };
        Configuration { voters: set(voters), outgoing: set(outgoing), learners: set(learners) }
    }

    /// Whether the node has a vote.
    pub(super) fn is_voter(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.outgoing.contains(&node)
    }

    /// Whether the node belongs to the group.
    pub(super) fn contains(&self, node: NodeId) -> bool {
        self.is_voter(node) || self.learners.contains(&node)
    }

    /// Every member once, ascending.
    pub(super) fn members(&self) -> Vec<NodeId> {
        let mut members = [self.voters.as_slice(), &self.outgoing, &self.learners].concat();
        members.sort_unstable();
        members.dedup();
        members
    }

    /// The greatest index that a majority of each voter set has reached. 0 without voters.
    pub(super) fn committed(&self, reached: impl Fn(NodeId) -> Index) -> Index {
        let joint = if self.outgoing.is_empty() { None } else { Some(majority_reached(&self.outgoing, &reached)) };
        let incoming = majority_reached(&self.voters, &reached);
        joint.map_or(incoming, |outgoing| outgoing.min(incoming))
    }

    /// How an election stands in which `vote` says what each voter answered so far.
    pub(super) fn outcome(&self, vote: impl Fn(NodeId) -> Option<bool>) -> Outcome {
        let incoming = majority_outcome(&self.voters, &vote);
        if self.outgoing.is_empty() {
            return incoming;
        }
        match (incoming, majority_outcome(&self.outgoing, &vote)) {
            (Outcome::Won, Outcome::Won) => Outcome::Won,
            (Outcome::Lost, _) | (_, Outcome::Lost) => Outcome::Lost,
            _ => Outcome::Pending,
        }
    }

    /// Whether a majority of each voter set is among those for whom `holds`.
    pub(super) fn has_quorum(&self, holds: impl Fn(NodeId) -> bool) -> bool {
        self.outcome(|node| holds(node).then_some(true)) == Outcome::Won
    }
}

/// The greatest index that a majority of `voters` has reached. Groups are small: counting beats sorting, and needs
/// no memory.
fn majority_reached(voters: &[NodeId], reached: impl Fn(NodeId) -> Index) -> Index {
    let majority = voters.len() / 2 + usize::from(!mutant!("commit-on-half"));
    let supported = |index: Index| voters.iter().filter(|&&node| reached(node) >= index).count() >= majority;
    voters.iter().map(|&node| reached(node)).filter(|&index| supported(index)).max().unwrap_or_default()
}

/// How an election stands among `voters`.
fn majority_outcome(voters: &[NodeId], vote: impl Fn(NodeId) -> Option<bool>) -> Outcome {
    let majority = voters.len() / 2 + usize::from(!mutant!("elected-by-half"));
    let is_yes = |answer: Option<bool>| answer == Some(true) || (mutant!("refusal-counts-as-vote") && answer.is_some());
    let granted = voters.iter().filter(|&&node| is_yes(vote(node))).count();
    let refused = voters.iter().filter(|&&node| vote(node) == Some(false)).count();
    if granted >= majority {
        Outcome::Won
    } else if voters.len() - refused < majority {
        Outcome::Lost
    } else {
        Outcome::Pending
    }
}
