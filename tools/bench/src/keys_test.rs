use raftkv_protocol::types::{ShardId, Slot};

use crate::keys::KeySpace;

fn key(space: &KeySpace, index: u32) -> String {
    let mut key = space.buffer();
    space.write(index, &mut key);
    String::from_utf8(key).unwrap()
}

#[test]
fn keys_are_printable_and_of_fixed_width() {
    let space = KeySpace::new(100_000, 16).unwrap();
    assert_eq!(key(&space, 0), "bench/0000000000");
    assert_eq!(key(&space, 99_999), "bench/0000099999");
    assert_eq!(space.prefix(), b"bench/");
}

#[test]
fn a_buffer_is_reused_without_traces_of_the_key_before() {
    let space = KeySpace::new(1_000, 8).unwrap();
    let mut buffer = space.buffer();
    space.write(999, &mut buffer);
    space.write(7, &mut buffer);
    assert_eq!(buffer, b"bench007");
}

#[test]
fn short_keys_give_up_their_prefix_before_their_digits() {
    assert_eq!(key(&KeySpace::new(1_000, 5).unwrap(), 42), "be042");
    assert_eq!(key(&KeySpace::new(1_000, 3).unwrap(), 42), "042");
    assert_eq!(key(&KeySpace::new(1, 1).unwrap(), 0), "0");
    assert!(KeySpace::new(1_001, 3).unwrap_err().contains("at least 4"));
    assert!(KeySpace::new(1_000, 2).unwrap_err().contains("at least 3"));
}

#[test]
fn every_key_belongs_to_the_shard_of_its_slot_and_to_no_other() {
    let space = KeySpace::new(5_000, 16).unwrap();
    let sets = space.by_shard(12);
    assert_eq!(sets.len(), 12);
    let mut seen = vec![false; 5_000];
    for (shard, set) in sets.iter().enumerate() {
        // 5,000 keys over 12 shards: 417 each, with a standard deviation of 20.
        assert!((317..517).contains(&set.len()), "shard {shard} has {} keys", set.len());
        for &index in set {
            assert_eq!(Slot::of(key(&space, index).as_bytes()).shard(12), ShardId(shard as u16));
            assert!(!std::mem::replace(&mut seen[index as usize], true), "key {index} is in two shards");
        }
    }
    assert!(seen.iter().all(|&seen| seen));
}
