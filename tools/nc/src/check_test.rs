use std::collections::BTreeMap;

use raftkv_protocol::types::{EntryId, ShardId};

use super::check::Check;

#[test]
fn what_a_log_no_longer_has_must_be_in_a_snapshot() {
    let starts = [(0, EntryId::ZERO), (1, EntryId::new(50, 3)), (2, EntryId::new(50, 3)), (3, EntryId::new(50, 3))];
    let reached = [(1, EntryId::new(50, 3)), (2, EntryId::new(49, 3))];
    let by_shard = |entries: &[(u16, EntryId)]| -> BTreeMap<ShardId, EntryId> {
        entries.iter().map(|(shard, at)| (ShardId(*shard), *at)).collect()
    };
    let mut printed = Vec::new();
    let mut check = Check {
        out: &mut printed,
        right: 0,
        damaged: 0,
        blemishes: 0,
        starts: by_shard(&starts),
        reached: by_shard(&reached),
    };
    check.starts().expect("a vector takes it");
    assert_eq!(check.damaged, 2);
    let printed = String::from_utf8(printed).expect("text");
    let expected = "shard 2: DAMAGED: its log starts after 50@3, and its newest right snapshot is as of 49@3\n\
                    shard 3: DAMAGED: its log starts after 50@3, and its newest right snapshot is as of 0@0\n";
    assert_eq!(printed, expected);
}
