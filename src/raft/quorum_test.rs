//! Quorums against naive counts.

use proptest::prelude::*;
use raftkv_protocol::types::{Index, NodeId};

use super::quorum::{Configuration, Outcome};

fn nodes(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

/// The `majority`-th greatest of sorted indexes.
fn naive_committed(voters: &[u64], reached: &[u64]) -> u64 {
    let mut indexes: Vec<u64> = voters.iter().map(|&id| reached[id as usize]).collect();
    indexes.sort_unstable();
    indexes.reverse();
    indexes.get(voters.len() / 2).copied().unwrap_or(0)
}

fn naive_outcome(voters: &[u64], votes: &[Option<bool>]) -> Outcome {
    let count = |answer| voters.iter().filter(|&&id| votes[id as usize] == answer).count();
    let (yes, no, all) = (count(Some(true)), count(Some(false)), voters.len());
    if 2 * yes > all {
        Outcome::Won
    } else if 2 * (all - no) <= all {
        Outcome::Lost
    } else {
        Outcome::Pending
    }
}

fn voters() -> impl Strategy<Value = Vec<u64>> {
    proptest::sample::subsequence((0..8).collect::<Vec<u64>>(), 1..8).prop_shuffle()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn committed_is_what_a_majority_reached(
        // museum 10
        incoming in voters(),
        outgoing in voters(),
        reached in proptest::collection::vec(0u64..20, 8),
    ) {
        let look = |node: NodeId| Index(reached[node.0 as usize]);
        let simple = Configuration::new(&nodes(&incoming), &[], &nodes(&[7]));
        prop_assert_eq!(simple.committed(look).0, naive_committed(&incoming, &reached));
        let joint = Configuration::new(&nodes(&incoming), &nodes(&outgoing), &[]);
        let both = naive_committed(&incoming, &reached).min(naive_committed(&outgoing, &reached));
        prop_assert_eq!(joint.committed(look).0, both);
    }

    #[test]
    fn an_election_is_won_by_a_majority_of_each_set(
        incoming in voters(),
        outgoing in voters(),
        votes in proptest::collection::vec(any::<Option<bool>>(), 8),
    ) {
        let look = |node: NodeId| votes[node.0 as usize];
        let simple = Configuration::new(&nodes(&incoming), &[], &[]);
        prop_assert_eq!(simple.outcome(look), naive_outcome(&incoming, &votes));
        let joint = Configuration::new(&nodes(&incoming), &nodes(&outgoing), &[]);
        let expected = match (naive_outcome(&incoming, &votes), naive_outcome(&outgoing, &votes)) {
            (Outcome::Won, Outcome::Won) => Outcome::Won,
            (a, b) if a == Outcome::Lost || b == Outcome::Lost => Outcome::Lost,
            _ => Outcome::Pending,
        };
        prop_assert_eq!(joint.outcome(look), expected);
        prop_assert_eq!(joint.has_quorum(|node| look(node) == Some(true)), expected == Outcome::Won);
    }
}

// rule 9
#[test]
fn learners_are_members_without_a_vote() {
    let configuration = Configuration::new(&nodes(&[3, 1, 2, 3]), &nodes(&[4]), &nodes(&[5]));
    assert_eq!(configuration.members(), nodes(&[1, 2, 3, 4, 5]));
    assert!(configuration.is_voter(NodeId(4)) && configuration.contains(NodeId(5)));
    assert!(!configuration.is_voter(NodeId(5)) && !configuration.contains(NodeId(6)));
}
