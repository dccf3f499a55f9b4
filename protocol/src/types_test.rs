use crate::types::{ClusterId, EntryId, EntryKind, NodeId, SLOTS, ShardId, Slot};

fn members() -> Vec<(NodeId, String)> {
    vec![(NodeId(1), "10.0.0.1:7001".into()), (NodeId(2), "10.0.0.2:7001".into()), (NodeId(3), "10.0.0.3:7001".into())]
}

// rule 27
#[test]
fn only_the_first_tag_that_is_not_empty_is_hashed() {
    assert_eq!(Slot::of(b"{user7}:name"), Slot::of(b"user7"));
    assert_eq!(Slot::of(b"a{user7}b{other}c"), Slot::of(b"user7"));
    assert_eq!(Slot::of(b"a{b{c}d}"), Slot::of(b"b{c"));
    assert_ne!(Slot::of(b"a{}b{c}"), Slot::of(b"c"));
    assert_ne!(Slot::of(b"a{}b"), Slot::of(b"ab"));
    assert_ne!(Slot::of(b"}a{b"), Slot::of(b"b"));
    assert_eq!(Slot::of(b"}a{b}"), Slot::of(b"b"));
}

// rule 27
#[test]
fn the_ranges_of_the_shards_are_the_slots_without_gap_or_overlap() {
    for shards in [1, 2, 3, 5, 7, 12, 100, 1000, SLOTS] {
        let mut next = 0;
        for shard in (0..shards).map(ShardId) {
            let range = Slot::range(shard, shards);
            assert_eq!(range.start().0, next);
            assert!(!range.is_empty());
            assert_eq!(range.start().shard(shards), shard);
            assert_eq!(range.end().shard(shards), shard);
            next = range.end().0 + 1;
        }
        assert_eq!(next, SLOTS);
    }
}

// rule 22
#[test]
fn a_cluster_id_depends_on_everything_but_the_order_of_the_members() {
    let id = ClusterId::derive("raftkv", &members(), 12);
    let mut shuffled = members();
    shuffled.swap(0, 2);
    assert_eq!(ClusterId::derive("raftkv", &shuffled, 12), id);

    let mut moved = members();
    moved[1].1 = "10.0.0.9:7001".into();
    let mut renumbered = members();
    renumbered[2].0 = NodeId(4);
    for other in [
        ClusterId::derive("raftkw", &members(), 12),
        ClusterId::derive("raftkv", &moved, 12),
        ClusterId::derive("raftkv", &renumbered, 12),
        ClusterId::derive("raftkv", &members()[..2], 12),
        ClusterId::derive("raftkv", &members(), 13),
    ] {
        assert_ne!(other, id);
        assert_ne!(other, ClusterId::default());
    }
}

#[test]
fn what_is_displayed_can_be_read_back() {
    let id = ClusterId(0x0123_4567_89ab_cdef);
    assert_eq!(id.to_string(), "00000000000000000123456789abcdef");
    assert_eq!(id.to_string().parse(), Ok(id));
    assert_eq!("17".parse(), Ok(NodeId(17)));
    assert!("65536".parse::<ShardId>().is_err());
    assert_eq!(EntryId::new(7, 3).to_string(), "7@3");
}

#[test]
fn the_numbers_of_the_entry_kinds_are_fixed() {
    let kinds: Vec<_> = (0..=u8::MAX).filter_map(EntryKind::from_u8).map(|kind| kind as u8).collect();
    assert_eq!(kinds, [0, 1, 2]);
}
