use std::collections::BTreeSet;

use raftkv_history::{Condition, Kind, Outcome};
use raftkv_protocol::types::Slot;

use super::batches::{BatchAnswer, BatchWish, Flaw};
use super::coverage::Coverage;
use super::oracle::Oracle;
use super::plan::Plan;
use super::random::Random;
use super::transcript::{Transcript, Witness};
use super::verdict::{SEARCH_STEPS_MAX, judge};

const NUMBER: u64 = 7;

fn put(condition: Condition) -> Kind {
    Kind::Put { value: NUMBER.to_be_bytes().to_vec(), condition }
}

/// A batch on `a`, if it is absent, and `b`.
fn wish(flaw: Option<Flaw>) -> BatchWish {
    let operations = vec![(b"a".to_vec(), put(Condition::Absent)), (b"b".to_vec(), put(Condition::None))];
    BatchWish { number: NUMBER, operations, flaw }
}

/// What is said of a batch that was answered so, after which keys were read.
fn verdict(flaw: Option<Flaw>, answer: &BatchAnswer, reads: &[(&str, Option<u64>)]) -> &'static str {
    let (oracle, mut coverage) = (Oracle::new(3, 1, 0), Coverage::default());
    let plan = Plan::draw(&mut Random::new(1));
    let mut transcript = Transcript::default();
    let place = transcript.asks_batch(&wish(flaw), 1);
    let witness = Witness { plan: &plan, oracle: &oracle, coverage: &mut coverage };
    if let Err(violation) = transcript.told_batch(place, answer, witness) {
        return violation.invariant;
    }
    for (key, version) in reads {
        transcript.stamp += 1;
        transcript.takes_down(key.as_bytes(), &Kind::Get, 2);
        transcript.stamp += 1;
        let read = transcript.operations.last_mut().expect("just taken down");
        read.ret = transcript.stamp;
        read.outcome = Outcome::Value(version.map(|version| (version, NUMBER.to_be_bytes().to_vec())));
        if let Some(version) = version {
            transcript.shown.0.entry(NUMBER).or_insert((*version, transcript.stamp));
        }
    }
    judge(&mut transcript, &oracle, SEARCH_STEPS_MAX, &mut coverage)
        .err()
        .map_or("right", |violation| violation.invariant)
}

// rule 18
#[test]
fn what_is_seen_of_a_batch_without_an_answer_is_there_under_all_its_keys() {
    let of = |reads: &[(&str, Option<u64>)]| verdict(None, &BatchAnswer::Unknown, reads);
    assert_eq!(of(&[]), "right");
    assert_eq!(of(&[("a", None), ("b", None)]), "right");
    assert_eq!(of(&[("a", None), ("b", Some(4)), ("a", Some(4))]), "right");
    assert_eq!(of(&[("b", Some(4)), ("a", None)]), "every history is linearizable");
    assert_eq!(of(&[("b", Some(4)), ("a", Some(5))]), "every history is linearizable");
}

#[test]
fn of_a_batch_that_was_refused_nothing_is_read() {
    let there = "nothing of a batch that was refused is there";
    for answer in [BatchAnswer::ConditionFailed, BatchAnswer::Failed] {
        assert_eq!(verdict(None, &answer, &[("b", Some(4))]), there);
    }
    assert_eq!(verdict(None, &BatchAnswer::Failed, &[("a", None), ("b", None)]), "right");
    // A condition that nothing is there fails only where something is.
    assert_eq!(verdict(None, &BatchAnswer::ConditionFailed, &[("b", None)]), "every history is linearizable");
}

// rule 18
#[test]
fn what_no_server_takes_is_refused_and_never_read() {
    let refused = "a batch over shards, or with a key twice, is refused";
    for flaw in [Flaw::OverShards, Flaw::KeyTwice] {
        assert_eq!(verdict(Some(flaw), &BatchAnswer::Flawed(flaw), &[]), "right");
        assert_eq!(verdict(Some(flaw), &BatchAnswer::ConditionFailed, &[]), refused);
        assert_eq!(verdict(Some(flaw), &BatchAnswer::Unknown, &[("a", Some(4))]), refused);
        assert_eq!(verdict(None, &BatchAnswer::Flawed(flaw), &[]), "a batch is refused for a reason");
    }
}

#[test]
fn a_batch_has_different_keys_of_one_shard_unless_it_is_to_be_refused() {
    let mut flaws = BTreeSet::new();
    for seed in 0..500 {
        let mut random = Random::new(seed);
        let plan = Plan::draw(&mut random);
        let BatchWish { operations, flaw, .. } = BatchWish::draw(&plan, seed << 20, NUMBER, None, &mut random);
        let keys: BTreeSet<_> = operations.iter().map(|(key, _)| key).collect();
        let shards: BTreeSet<_> = keys.iter().map(|key| Slot::of(key).shard(plan.shards)).collect();
        let conditions = operations.iter().filter(|(_, kind)| kind.condition() != Condition::None).count();
        assert!((2..=5).contains(&operations.len()) && conditions <= 1, "{operations:?}");
        assert_eq!(keys.len() < operations.len(), flaw == Some(Flaw::KeyTwice), "{operations:?}");
        assert_eq!(shards.len() > 1, flaw == Some(Flaw::OverShards), "{operations:?}");
        flaws.insert(flaw.map(|flaw| flaw == Flaw::KeyTwice));
    }
    assert_eq!(flaws.len(), 3);
}
