//! A history, and the verdict on each of its keys.

use std::collections::BTreeMap;
use std::fmt;

use crate::key::Digest;
use crate::operation::{Hint, Operation, Outcome, Removal};
use crate::search::{Verdict, follow, search};
use crate::shrink::shrink;
use crate::violation::Violation;

/// What clients asked and were told, in any order.
#[derive(Clone, Debug, Default)]
pub struct History {
    operations: Vec<Operation>,
}

/// How much work a verdict may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most steps of the search for one key. A step takes a few microseconds and may keep 100 bytes.
    pub steps: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { steps: 1_000_000 }
    }
}

/// What was judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Keys with operations that count.
    pub keys: usize,
    /// Operations that count: all but those that failed for certain, and reads without an answer.
    pub operations: usize,
    /// Writes among them whose outcome is unknown.
    pub unknown: usize,
    /// Steps of the search, over all keys.
    pub steps: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { keys, operations, unknown, steps } = self;
        write!(f, "{operations} operations on {keys} keys, {unknown} of them without an outcome, in {steps} steps")
    }
}

impl History {
    /// A history in which nothing has happened yet.
    #[must_use]
    pub fn new() -> History {
        History::default()
    }

    /// Adds an operation.
    pub fn push(&mut self, operation: Operation) {
        self.operations.push(operation);
    }

    /// How many operations it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The operations, in the order in which they were added.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The operations that count, by key, in the order of their calls.
    #[must_use]
    pub fn by_key(&self) -> BTreeMap<&[u8], Vec<&Operation>> {
        let mut keys: BTreeMap<&[u8], Vec<&Operation>> = BTreeMap::new();
        for operation in self.operations.iter().filter(|operation| operation.counts()) {
            keys.entry(&operation.key).or_default().push(operation);
        }
        for operations in keys.values_mut() {
            operations.sort_by_key(|operation| (operation.call, operation.ret));
        }
        keys
    }

    /// Whether every operation can have been recorded as it is.
    pub(crate) fn well_formed(&self) -> Result<(), Violation> {
        let mut wrong = self.operations.iter().filter_map(|operation| Some((operation, operation.malformed()?)));
        wrong.next().map_or(Ok(()), |(operation, why)| Err(Violation::Malformed(format!("{why}: {operation}"))))
    }
}

impl FromIterator<Operation> for History {
    fn from_iter<I: IntoIterator<Item = Operation>>(operations: I) -> History {
        History { operations: operations.into_iter().collect() }
    }
}

/// Whether the history is linearizable.
///
/// # Errors
/// The first key, in the order of their bytes, that is not; if there is none, the first for which the limits do not
/// suffice to tell.
pub fn check(history: &History, limits: &Limits) -> Result<Summary, Violation> {
    check_with_hints(history, limits, |_| Hint::Unknown)
}

/// The same, by somebody who may know more than the clients. The verdict does not rely on it: hints say what is tried
/// first, and so shorten the search where many outcomes are unknown.
///
/// # Errors
/// As [`check`].
pub fn check_with_hints(
    history: &History,
    limits: &Limits,
    hint: impl Fn(&Operation) -> Hint,
) -> Result<Summary, Violation> {
    check_keys(history, limits, hint, |_, digest| search_all(digest, limits.steps))
}

/// The same, by somebody who has read the log of the store: `removals` are its entries that remove a key. If the order of
/// the log explains all operations on a key it is the one that is looked for; if not, the key is judged as if the log were
/// not known.
///
/// # Errors
/// As [`check`].
pub fn check_with_log(
    history: &History,
    limits: &Limits,
    hint: impl Fn(&Operation) -> Hint,
    removals: impl Fn(&[u8]) -> Vec<Removal>,
) -> Result<Summary, Violation> {
    check_keys(history, limits, hint, |key, digest| {
        let along_the_log = follow(&digest.register_without_fictions(), &removals(key), limits.steps);
        along_the_log.map_or_else(|| search_all(digest, limits.steps), |steps| Verdict::Linearizable { steps })
    })
}

fn check_keys(
    history: &History,
    limits: &Limits,
    hint: impl Fn(&Operation) -> Hint,
    judge: impl Fn(&[u8], &Digest<'_>) -> Verdict,
) -> Result<Summary, Violation> {
    history.well_formed()?;
    let (mut summary, mut too_hard) = (Summary::default(), None);
    for (key, operations) in history.by_key() {
        let unknown = operations.iter().filter(|operation| operation.outcome == Outcome::Unknown).count();
        let digest = Digest::new(&operations, &hint);
        match judge(key, &digest) {
            Verdict::Linearizable { steps } => summary.steps += steps,
            Verdict::Contradiction { .. } => return Err(contradiction(key, &operations, &digest, limits)),
            Verdict::TooHard { steps } => {
                let key = key.to_vec();
                too_hard.get_or_insert(Violation::TooHard { key, operations: operations.len(), unknown, steps });
            }
        }
        summary.keys += 1;
        summary.operations += operations.len();
        summary.unknown += unknown;
    }
    too_hard.map_or(Ok(summary), Err)
}

/// Without what is said never to have happened at first; an order without it is one, too.
fn search_all(digest: &Digest<'_>, steps: u64) -> Verdict {
    if digest.has_fictions() {
        let verdict = search(&digest.register_without_fictions(), steps);
        if matches!(verdict, Verdict::Linearizable { .. }) {
            return verdict;
        }
    }
    search(&digest.register(), steps)
}

/// The violation, reduced to the operations that make it one.
fn contradiction(key: &[u8], operations: &[&Operation], digest: &Digest<'_>, limits: &Limits) -> Violation {
    let kept = shrink(digest, limits.steps);
    let counter_example = kept.iter().map(|at| operations[*at].clone()).collect();
    let explanation = match search(&digest.register_of(&kept), limits.steps) {
        Verdict::Contradiction { deepest, .. } => format!(
            "in the best order {} of {} operations fit, after which the key is {}, and that fits none that may be next",
            deepest.fitted,
            kept.len(),
            digest.describe(deepest.state)
        ),
        Verdict::Linearizable { .. } | Verdict::TooHard { .. } => "no order explains all operations".to_owned(),
    };
    Violation::NotLinearizable { key: key.to_vec(), counter_example, explanation }
}
