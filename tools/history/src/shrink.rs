//! A contradiction, reduced to the operations that make it one.
//!
//! Not every operation may be left out for it: without the put of its value, any read contradicts. What is left out is
//! only what explains nothing of the rest, so that the rest contradicts itself *because* the whole history does: if the
//! rest had an order, so would the whole. A read changes nothing. A write that is no possible cause of any operation
//! right behind it could only stand before an operation that hides it.

use std::ops::Range;

use crate::key::{Digest, Step};
use crate::search::{Verdict, search};

/// How many searches' worth of steps may go into it.
const SEARCHES: u64 = 4;

/// The places, in ascending order, of operations that contradict each other, none of which can be left out; or more
/// than are needed, if each search takes long. The digest as a whole is a contradiction.
pub(crate) fn shrink(digest: &Digest<'_>, steps_max: u64) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..digest.steps.len()).collect();
    let mut steps = steps_max.saturating_mul(SEARCHES);
    let mut size = kept.len().div_ceil(2);
    loop {
        let before = kept.len();
        let mut end = kept.len();
        while end > 0 {
            let start = end.saturating_sub(size);
            let rest = leave_out(digest, &kept, start..end);
            if rest.len() < kept.len() && contradicts(digest, &rest, steps_max.min(steps), &mut steps) {
                kept = rest;
            }
            end = start;
        }
        match size {
            1 if kept.len() == before => return kept,
            1 => {}
            _ => size /= 2,
        }
    }
}

/// Whether these have no order. In doubt they may have.
fn contradicts(digest: &Digest<'_>, places: &[usize], steps_max: u64, left: &mut u64) -> bool {
    let (steps, contradicts) = match search(&digest.register_of(places), steps_max) {
        Verdict::Linearizable { steps } | Verdict::TooHard { steps } => (steps, false),
        Verdict::Contradiction { steps, .. } => (steps, true),
    };
    *left = left.saturating_sub(steps);
    contradicts
}

/// These places without those of the range that explain none of the others.
pub(crate) fn leave_out(digest: &Digest<'_>, places: &[usize], range: Range<usize>) -> Vec<usize> {
    let step = |at: usize| &digest.steps[places[at]];
    let mut kept = vec![true; places.len()];
    for at in range.clone().filter(|at| step(*at).says.only_looks()) {
        kept[at] = false;
    }
    loop {
        let before = kept.clone();
        for at in range.clone().rev() {
            kept[at] &= (0..places.len()).any(|other| other != at && kept[other] && may_explain(step(at), step(other)));
        }
        if kept == before {
            break;
        }
    }
    places.iter().zip(kept).filter(|(_, kept)| *kept).map(|(place, _)| *place).collect()
}

/// Whether a write may be what makes the other operation possible.
fn may_explain(write: &Step, other: &Step) -> bool {
    let before = other.ret.is_some_and(|ret| ret < write.call);
    !before && write.says.may_explain(other.says)
}
