use std::collections::VecDeque;

use proptest::prelude::*;
use raftkv_protocol::types::Index;

use super::state_hash::{CHECKPOINTS_KEPT, Checkpoint, Latest, StateHash};

/// What happens to the checkpoints of a shard.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// This many more are remembered.
    Remembered(usize),
    SnapshotTaken,
    /// This one of those that are held is let go.
    SnapshotDropped(usize),
}

fn random_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (1..CHECKPOINTS_KEPT + 2).prop_map(Event::Remembered),
        3 => Just(Event::SnapshotTaken),
        2 => (0..4_usize).prop_map(Event::SnapshotDropped),
    ]
}

proptest! {
    // rule 20
    #[test]
    fn a_snapshot_keeps_the_checkpoints_of_its_time(events in prop::collection::vec(random_event(), 1..24)) {
        let (mut hash, mut last) = (StateHash::default(), 0);
        let mut right: VecDeque<Checkpoint> = VecDeque::new();
        let mut held: Vec<(Latest, VecDeque<Checkpoint>)> = Vec::new();
        for event in events {
            match event {
                Event::Remembered(count) => for _ in 0..count {
                    last += 1;
                    let checkpoint = Checkpoint { index: Index(last), hash: last.into() };
                    hash.remember(checkpoint);
                    right.push_back(checkpoint);
                    if right.len() > CHECKPOINTS_KEPT {
                        right.pop_front();
                    }
                },
                Event::SnapshotTaken => held.push((hash.share_checkpoints(), right.clone())),
                Event::SnapshotDropped(at) => if at < held.len() {
                    held.swap_remove(at);
                },
            }
            prop_assert!(hash.checkpoints().eq(right.iter().copied()));
            for (shared, of_its_time) in &held {
                prop_assert!(shared.iter().eq(of_its_time));
            }
        }
    }
}
