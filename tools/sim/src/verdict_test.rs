use raftkv_history::{Condition, Kind, Operation, Outcome};

use super::coverage::Coverage;
use super::oracle::Oracle;
use super::transcript::{Glance, Transcript};
use super::verdict::{SEARCH_STEPS_MAX, judge};

/// A put of each key, acknowledged with this version, one after the other.
fn after_puts(puts: &[(&str, u64)]) -> Transcript {
    let mut transcript = Transcript::default();
    for (key, version) in puts {
        let kind = Kind::Put { value: version.to_be_bytes().to_vec(), condition: Condition::None };
        push(&mut transcript, key, kind, Outcome::Put { version: *version });
    }
    transcript
}

fn push(transcript: &mut Transcript, key: &str, kind: Kind, outcome: Outcome) {
    let call = 2 * transcript.operations.len() as u64;
    let (key, ret) = (key.as_bytes().to_vec(), call + 1);
    transcript.operations.push(Operation { client: 1, key, kind, call, outcome, ret });
}

fn delete(transcript: &mut Transcript, key: &str) {
    push(
        transcript,
        key,
        Kind::Delete { condition: Condition::None },
        Outcome::Deleted { existed: Some(true), index: None },
    );
}

fn verdict(transcript: Transcript) -> &'static str {
    verdict_within(SEARCH_STEPS_MAX, transcript)
}

fn verdict_within(search_steps_max: u64, mut transcript: Transcript) -> &'static str {
    judge(&mut transcript, &Oracle::new(3, 1, 0), search_steps_max, &mut Coverage::default())
        .err()
        .map_or("right", |violation| violation.invariant)
}

#[test]
fn a_page_that_shows_a_new_key_cannot_lack_an_older_one_of_the_shard() {
    let torn = "a page shows each shard at one index";
    let with_page = |keys: &[(&str, Option<u64>)]| {
        let mut transcript = after_puts(&[("a", 4), ("b", 6), ("a", 8)]);
        transcript.sights.push(keys.iter().map(|(key, version)| (key.as_bytes().to_vec(), *version)).collect());
        transcript
    };
    assert_eq!(verdict(with_page(&[("a", Some(8)), ("b", Some(6))])), "right");
    assert_eq!(verdict(with_page(&[("a", Some(4)), ("b", Some(6))])), "right");
    assert_eq!(verdict(with_page(&[("a", Some(4)), ("b", None)])), "right");
    assert_eq!(verdict(with_page(&[("a", Some(8)), ("b", None)])), torn);
    assert_eq!(verdict(with_page(&[("a", None), ("b", Some(6))])), torn);
    let mut deleted = with_page(&[("a", Some(8)), ("b", None)]);
    delete(&mut deleted, "b");
    assert_eq!(verdict(deleted), "right");
    let mut deleted = with_page(&[("a", Some(4)), ("c", Some(9))]);
    delete(&mut deleted, "a");
    assert_eq!(verdict(deleted), torn);
}

#[test]
fn what_every_node_has_applied_is_in_every_stale_read() {
    let old = "a stale read is no older than what every node has applied";
    let with_glance = |applied_by_all, answer| {
        let mut transcript = after_puts(&[("a", 4), ("a", 8)]);
        transcript.glances.push(Glance { key: b"a".to_vec(), applied_by_all, answer: Some(answer) });
        transcript
    };
    assert_eq!(verdict(with_glance(3, None)), "right");
    assert_eq!(verdict(with_glance(4, None)), old);
    assert_eq!(verdict(with_glance(7, Some(4))), "right");
    assert_eq!(verdict(with_glance(8, Some(4))), old);
    let mut deleted = with_glance(8, None);
    delete(&mut deleted, "a");
    assert_eq!(verdict(deleted), "right");
    let mut deleted = with_glance(8, Some(4));
    delete(&mut deleted, "a");
    assert_eq!(verdict(deleted), old);
}

#[test]
fn a_history_that_is_too_hard_to_judge_is_not_taken_for_a_good_one() {
    let long = || after_puts(&[("a", 4), ("a", 6), ("a", 8), ("a", 10)]);
    assert_eq!(verdict_within(100, long()), "right");
    assert_eq!(verdict_within(2, long()), "every history can be judged");
}
