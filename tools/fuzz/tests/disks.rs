//! What is checked of disks, for a while: nothing breaks, and what is broken is found.

use raftkv_fuzz::crash_images::{self, IMAGES_PER_RUN, Plan};
use raftkv_fuzz::flips;

// museum 29, 30, 39, 40, rule 10, rule 12, rule 13, rule 14
#[test]
fn crash_images_hold_what_was_acknowledged() {
    let plan = Plan { images: 4 * IMAGES_PER_RUN, seed: 1, run: None, jobs: 1 };
    let (tally, failures) = crash_images::run_all(&plan, &|_| {});
    assert!(failures.is_empty(), "{failures:?}");
    assert_eq!(tally.images, plan.images);
}

/// Whatever the number of jobs, and whatever else is run.
#[test]
fn one_seed_is_one_set_of_images() {
    let tally = |jobs, run| {
        let plan = Plan { images: 2 * IMAGES_PER_RUN, seed: 7, run, jobs };
        crash_images::run_all(&plan, &|_| {}).0.to_string()
    };
    assert_eq!(tally(1, None), tally(2, None));
    assert_eq!(tally(1, Some(1)), tally(2, Some(1)));
    assert_ne!(tally(1, Some(1)), tally(1, Some(0)));
}

// museum 32, 42, rule 12
#[test]
fn a_flip_in_a_sealed_segment_or_a_snapshot_is_noticed() {
    let plan = flips::Plan { every: 40, seed: 1, all_bits: false };
    let (segment, unnoticed) = flips::segment(&plan);
    assert!(unnoticed.is_empty(), "{unnoticed:?}");
    assert!(segment.bytes == segment.flips && segment.bytes >= 1638, "{segment:?}");
    assert!(segment.refused > 1000 && segment.in_a_gap > 300 && segment.detected() == segment.flips, "{segment:?}");
    let (snapshot, unnoticed) = flips::snapshot(&plan);
    assert!(unnoticed.is_empty(), "{unnoticed:?}");
    assert!(snapshot.bytes >= 1638 && snapshot.refused == snapshot.flips, "{snapshot:?}");
}

// rule 12
#[test]
fn a_flip_in_the_last_batch_is_refused_or_takes_that_batch_only() {
    let plan = flips::Plan { every: 20, seed: 1, all_bits: false };
    let (proved, unnoticed) = flips::tail(true, &plan);
    assert!(unnoticed.is_empty(), "{unnoticed:?}");
    let (torn, unnoticed) = flips::tail(false, &plan);
    assert!(unnoticed.is_empty(), "{unnoticed:?}");
    assert!(proved.refused > torn.refused && torn.cut > 300, "{proved:?}, {torn:?}");
}
