//! Which mutant is chosen.

use std::env;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::table::ALL;

/// One wrong line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// Its name in the sources.
    pub name: &'static str,
    /// What goes wrong.
    pub what: &'static str,
    /// What it breaks: a rule of the design, an exhibit of the bug museum, a section of the literature.
    pub cites: &'static str,
}

/// Names the mutant for a program that knows nothing of mutants.
const VARIABLE: &str = "RAFTKV_MUTANT";

const NONE: usize = usize::MAX;
/// The environment was not asked yet.
const UNKNOWN: usize = usize::MAX - 1;

/// Position in the table.
static CHOSEN: AtomicUsize = AtomicUsize::new(UNKNOWN);

/// Switches this mutant on, in the whole process, and any other off.
///
/// # Panics
///
/// If there is no such mutant.
pub fn choose(name: Option<&str>) {
    CHOSEN.store(name.map_or(NONE, position), Ordering::Relaxed);
}

#[inline]
pub(crate) fn is_chosen(position: usize) -> bool {
    match CHOSEN.load(Ordering::Relaxed) {
        UNKNOWN => {
            choose(env::var(VARIABLE).ok().filter(|name| !name.is_empty()).as_deref());
            is_chosen(position)
        }
        chosen => chosen == position,
    }
}

/// Where the table has this name.
pub(crate) const fn position(name: &str) -> usize {
    let mut at = 0;
    while at < ALL.len() {
        if is_same(ALL[at].name.as_bytes(), name.as_bytes()) {
            return at;
        }
        at += 1;
    }
    panic!("there is no mutant of this name")
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}
