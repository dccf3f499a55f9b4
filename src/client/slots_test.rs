use raftkv_protocol::client::SlotTable;
use raftkv_protocol::types::{NodeId, ShardId, Slot, Term};

use super::slots::SlotMap;

/// One shard for each (leader, term); leader 0 is none.
fn map(leaders: &[(u64, u64)]) -> SlotMap {
    SlotMap::new(table(leaders))
}

fn table(leaders: &[(u64, u64)]) -> SlotTable {
    let leader = |(node, term): &(u64, u64)| ((*node > 0).then_some(NodeId(*node)), Term(*term));
    SlotTable {
        nodes: (1..=3).map(|node| (NodeId(node), format!("node{node}:7001"))).collect(),
        leaders: leaders.iter().map(leader).collect(),
        ..SlotTable::default()
    }
}

#[test]
fn a_key_leads_to_its_leaders_address() {
    let map = map(&[(1, 1), (2, 1), (0, 1)]);
    let key = |shard| {
        let mut keys = (0..).map(|n: u32| n.to_string());
        keys.find(|key| Slot::of(key.as_bytes()).shard(3) == ShardId(shard)).unwrap()
    };
    assert_eq!(map.shard_of(key(1).as_bytes()), Some(ShardId(1)));
    assert_eq!(map.leader_address(key(0).as_bytes()), Some("node1:7001"));
    assert_eq!(map.leader_address(key(1).as_bytes()), Some("node2:7001"));
    assert_eq!(map.leader_address(key(2).as_bytes()), None);
    assert_eq!(map.led_by(NodeId(2)).collect::<Vec<_>>(), [ShardId(1)]);
    assert_eq!(SlotMap::default().shard_of(b"k"), None);
}

#[test]
fn a_merge_takes_the_higher_term_of_each_shard() {
    let mut known = map(&[(1, 5), (1, 5), (1, 5), (0, 5), (1, 5)]);
    known.merge(table(&[(2, 6), (2, 4), (2, 5), (2, 5), (0, 6)]));
    assert_eq!(known, map(&[(2, 6), (1, 5), (1, 5), (2, 5), (0, 6)]));
}

#[test]
fn a_first_table_is_taken_whole() {
    let mut known = SlotMap::default();
    known.merge(table(&[(2, 6)]));
    assert_eq!(known, map(&[(2, 6)]));
}

#[test]
fn a_redirect_is_believed_about_its_sender_and_about_later_terms() {
    let redirected = |leader, term, from| {
        let mut known = map(&[(1, 5)]);
        known.redirect(ShardId(0), Some(NodeId(leader)), Term(term), Some(NodeId(from)));
        known
    };
    assert_eq!(redirected(2, 0, 1), map(&[(2, 5)]), "the known leader says it is another");
    assert_eq!(redirected(3, 0, 2), map(&[(1, 5)]), "somebody else's news may be old");
    assert_eq!(redirected(3, 6, 2), map(&[(3, 6)]));
    let mut leaderless = map(&[(0, 5)]);
    leaderless.redirect(ShardId(0), Some(NodeId(2)), Term(0), Some(NodeId(3)));
    assert_eq!(leaderless, map(&[(2, 5)]));
}

#[test]
fn a_reply_of_a_later_term_or_from_an_unknown_leader_tells_that_the_table_is_old() {
    let map = map(&[(1, 5), (0, 5)]);
    assert!(!map.is_behind(ShardId(0), Term(5)) && map.is_behind(ShardId(0), Term(6)));
    assert!(!map.is_behind(ShardId(1), Term(4)) && map.is_behind(ShardId(1), Term(5)));
}
