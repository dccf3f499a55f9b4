use std::time::Duration;

use super::backoff::Backoff;

#[test]
fn pauses_double_up_to_the_longest_and_lose_at_most_half() {
    let (first, longest) = (Duration::from_millis(10), Duration::from_secs(1));
    for seed in 0..100 {
        let mut backoff = Backoff::new((first, longest), seed);
        for attempt in 1..50 {
            let full = first.saturating_mul(1 << (attempt - 1).min(20)).min(longest);
            let pause = backoff.pause(attempt);
            assert!(pause <= full && pause >= full / 2, "seed {seed}, attempt {attempt}: {pause:?} of {full:?}");
        }
    }
}

#[test]
fn pauses_differ() {
    let mut backoff = Backoff::new((Duration::from_secs(1), Duration::from_secs(1)), 7);
    assert_ne!(backoff.pause(1), backoff.pause(1));
}
