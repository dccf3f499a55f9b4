//! A contradiction, reduced to the operations that make it one.
//!
//! Not every operation may be left out for it: without the put of its value, any read contradicts. What is left out is
//! only what explains nothing of the rest, so that the rest contradicts itself *because* the whole history does: if the
//! whole had an order, so would the rest. A read changes nothing. Writes of which none is a possible cause of any other
//! operation right behind it can only stand before operations that hide them.

use std::collections::BTreeSet;

use crate::key::{Digest, Step};
use crate::search::{Verdict, search};

/// How many searches' worth of steps may go into it.
const SEARCHES: u64 = 4;

/// The places, in ascending order, of operations that contradict each other, none of which can be left out together
/// with what it may explain; or more than are needed, if each search takes long. The digest as a whole is a contradiction.
pub(crate) fn shrink(digest: &Digest<'_>, steps_max: u64) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..digest.steps.len()).collect();
    let mut steps = steps_max.saturating_mul(SEARCHES);
    let mut try_without = |kept: &mut Vec<usize>, left_out: &[usize]| {
        let rest = leave_out(digest, kept, left_out);
        if rest.len() < kept.len() && contradicts(digest, &rest, steps_max.min(steps), &mut steps) {
            *kept = rest;
        }
    };
    let mut size = kept.len().div_ceil(2);
    while size > 1 {
        let mut end = kept.len();
        while end > 0 {
            let start = end.saturating_sub(size);
            try_without(&mut kept, &(start..end).collect::<Vec<usize>>());
            end = start;
        }
        size /= 2;
    }
    loop {
        let before = kept.len();
        let mut at = kept.len();
        while at > 0 {
            at -= 1;
            let dependent = with_dependents(digest, &kept, at);
            try_without(&mut kept, &dependent);
            at = at.min(kept.len());
        }
        if kept.len() == before {
            return kept;
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

/// These places without as many as may be of some of them, which are given by their numbers in the list.
fn leave_out(digest: &Digest<'_>, places: &[usize], some: &[usize]) -> Vec<usize> {
    let causes = Causes::new(digest, places);
    let mut idle = vec![false; places.len()];
    some.iter().for_each(|at| idle[*at] = true);
    loop {
        let before = idle.clone();
        for at in some {
            idle[*at] &= !(0..places.len()).any(|other| !before[other] && causes.may_explain(*at, other));
        }
        if idle == before {
            break;
        }
    }
    places.iter().zip(idle).filter(|(_, idle)| !*idle).map(|(place, _)| *place).collect()
}

/// An operation with all that it may explain, directly or not: they can only be left out together. By their numbers in
/// the list of places.
pub(crate) fn with_dependents(digest: &Digest<'_>, places: &[usize], at: usize) -> Vec<usize> {
    let causes = Causes::new(digest, places);
    let (mut found, mut new) = (BTreeSet::from([at]), vec![at]);
    while let Some(cause) = new.pop() {
        new.extend((0..places.len()).filter(|other| causes.may_explain(cause, *other) && found.insert(*other)));
    }
    found.into_iter().collect()
}

/// Which operation may be the cause of which, among some.
struct Causes<'a> {
    digest: &'a Digest<'a>,
    places: &'a [usize],
    /// The versions of puts with an outcome, which no other put can give.
    returned: BTreeSet<u64>,
    /// For each, when the first ended of those that began after it had ended.
    passed: Vec<u64>,
}

impl<'a> Causes<'a> {
    fn new(digest: &'a Digest<'a>, places: &'a [usize]) -> Causes<'a> {
        let steps = || places.iter().map(|place| &digest.steps[*place]);
        let mut earliest_ret = vec![u64::MAX; places.len() + 1];
        for (at, step) in steps().enumerate().rev() {
            earliest_ret[at] = earliest_ret[at + 1].min(step.ret.unwrap_or(u64::MAX));
        }
        let passed = |step: &Step| {
            let ret = step.ret.unwrap_or(u64::MAX);
            earliest_ret[places.partition_point(|place| digest.steps[*place].call <= ret)]
        };
        let returned = steps().filter_map(|step| step.says.returned()).collect();
        Causes { digest, places, returned, passed: steps().map(passed).collect() }
    }

    /// Whether one operation can stand right before another and be what makes the other possible. Whoever names a
    /// version is shown with the write of it even so: that makes the example one that people can read.
    fn may_explain(&self, at: usize, other: usize) -> bool {
        let (step, next) = (&self.digest.steps[self.places[at]], &self.digest.steps[self.places[other]]);
        let ended_before = next.ret.is_some_and(|ret| ret < step.call);
        let others_between = self.passed[at] < next.call && !next.says.names_a_version();
        !ended_before && !others_between && step.says.may_explain(next.says, &self.returned)
    }
}
