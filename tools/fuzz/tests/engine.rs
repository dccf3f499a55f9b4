//! The engine itself: it repeats itself, finds what is hidden, and reports it in few bytes.

use std::time::Duration;

use raftkv_fuzz::Target;
use raftkv_fuzz::campaign::{self, Budget, Plan};
use raftkv_fuzz::engine::Worker;
use raftkv_fuzz::feedback::Feedback;
use raftkv_fuzz::mutator::Mutator;
use raftkv_fuzz::targets;

fn target(run: fn(&[u8], &mut Feedback)) -> Target {
    let (name, what, seeds) = ("sample", "a sample", || vec![b"a longer seed to begin with".to_vec()]);
    Target { name, what, share: 1, bytes_max: 64, seeds, run, fixup: raftkv_fuzz::no_fixup }
}

/// Panics on a word of which every letter is a step of its own.
fn hidden(data: &[u8], feedback: &mut Feedback) {
    let letters = data.iter().zip(b"RaftKV").take_while(|(byte, letter)| byte == letter).count();
    feedback.saw(letters as u64);
    assert!(letters < 6, "found");
}

#[test]
fn feedback_leads_to_what_chance_would_not_find() {
    let failure = Worker::new(target(hidden), 1).run(2_000_000).expect_err("each letter is rewarded");
    assert_eq!(failure.input, b"RaftKV", "all other bytes were taken out");
    assert!(failure.words.starts_with("found (") && failure.words.contains("engine.rs"), "{}", failure.words);

    fn without_feedback(data: &[u8], _: &mut Feedback) {
        hidden(data, &mut Feedback::default());
    }
    Worker::new(target(without_feedback), 1).run(20_000).expect("six letters are not guessed");
}

#[test]
fn the_same_seed_makes_the_same_campaign() {
    let all = targets::all();
    let client_frames = all[0];
    let run = |seed, jobs| {
        let plan = Plan { budget: Budget::Executions(6_000), seed, jobs };
        let outcome = campaign::run(client_frames, &plan, client_frames.share, &mut |_| {});
        assert!(outcome.failures.is_empty());
        assert_eq!(outcome.executions, 6_000);
        (outcome.corpus, outcome.features, outcome.combinations)
    };
    assert_eq!(run(1, 2), run(1, 2));
    assert_ne!(run(1, 2), run(2, 2));
}

#[test]
fn a_campaign_of_some_time_ends() {
    fn nothing(_: &[u8], _: &mut Feedback) {}
    let time = Duration::from_secs(1);
    let plan = Plan { budget: Budget::Time(time), seed: 1, jobs: 2 };
    let outcome = campaign::run(target(nothing), &plan, 1, &mut |_| {});
    assert!(outcome.executions > 0 && outcome.elapsed >= time);
}

#[test]
fn a_failure_of_one_worker_is_reported_once_for_each() {
    let plan = Plan { budget: Budget::Executions(4_000_000), seed: 3, jobs: 2 };
    let outcome = campaign::run(target(hidden), &plan, 1, &mut |_| {});
    assert_eq!(outcome.failures.len(), 2);
    assert!(outcome.executions < 4_000_000);
}

#[test]
fn mutations_keep_to_the_longest_input_and_change_nearly_always() {
    let (mut mutator, mut again) = (Mutator::new(5), Mutator::new(5));
    let mut changed = 0;
    for length in 0..600 {
        let seed: Vec<u8> = (0..length % 60).map(|byte| byte as u8).collect();
        let (mut one, mut other) = (seed.clone(), seed.clone());
        mutator.mutate(&mut one, b"another input", 50);
        again.mutate(&mut other, b"another input", 50);
        assert_eq!(one, other);
        assert!(one.len() <= 50);
        changed += u32::from(one != seed);
    }
    assert!(changed > 550, "{changed} of 600");
}
