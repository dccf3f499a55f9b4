//! One key: its states, and what each operation says of the states before and after it.

use std::collections::{BTreeMap, BTreeSet};

use crate::operation::{Condition, Hint, Kind, Operation, Outcome, Quoted};

/// The state of a key. Values are numbered, so that a state is small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    Absent,
    Present { version: Version, value: usize },
}

/// A key's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Version {
    Known(u64),
    /// Given by a put without an outcome, and none of those that any operation names.
    Unseen,
}

/// An operation without its names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub call: u64,
    /// `None` while the outcome is unknown.
    pub ret: Option<u64>,
    pub says: Says,
    pub hint: Hint,
}

/// What an operation shows, and does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// The key is in this state, and stays so.
    Is(State),
    /// The condition does not hold, and the key stays as it is.
    Refused(Condition),
    /// The condition holds, and the key gets a value. Without an outcome the version is `None`.
    Put { condition: Condition, version: Option<u64>, value: usize },
    /// The condition holds, and the key is removed. Without an outcome it is not known whether it existed.
    Delete { condition: Condition, existed: Option<bool> },
}

impl Condition {
    fn holds(self, state: State) -> bool {
        match self {
            Condition::None => true,
            Condition::Version(wanted) => {
                matches!(state, State::Present { version: Version::Known(version), .. } if version == wanted)
            }
            Condition::Exists => state != State::Absent,
            Condition::Absent => state == State::Absent,
        }
    }
}

impl Says {
    /// The state after it if it takes effect in this one; `None` if it cannot. `version` is that of a put without an
    /// outcome.
    pub(crate) fn after(self, state: State, version: Version) -> Option<State> {
        match self {
            Says::Is(shown) => (state == shown).then_some(state),
            Says::Refused(condition) => (!condition.holds(state)).then_some(state),
            Says::Put { condition, version: returned, value } => {
                let version = returned.map_or(version, Version::Known);
                condition.holds(state).then_some(State::Present { version, value })
            }
            Says::Delete { condition, existed } => {
                let told = existed.is_none_or(|existed| existed == (state != State::Absent));
                (told && condition.holds(state)).then_some(State::Absent)
            }
        }
    }

    /// Whether it can take effect in this state.
    pub(crate) fn fits(self, state: State) -> bool {
        self.after(state, Version::Unseen).is_some()
    }

    /// Whether it shows a version, or was on condition of one.
    pub(crate) fn names_a_version(self) -> bool {
        self.shown().is_some() || self.version_met().is_some()
    }

    /// Whether it leaves every state as it is.
    pub(crate) fn only_looks(self) -> bool {
        matches!(self, Says::Is(_) | Says::Refused(_))
    }

    /// The condition that has held if it took effect.
    fn condition_met(self) -> Condition {
        match self {
            Says::Is(_) | Says::Refused(_) => Condition::None,
            Says::Put { condition, .. } | Says::Delete { condition, .. } => condition,
        }
    }

    /// Whether this write, right before the other operation, can be what makes the other possible. True if in doubt.
    /// `returned` are the versions of puts with an outcome, which no other put can give.
    pub(crate) fn may_explain(self, other: Says, returned: &BTreeSet<u64>) -> bool {
        let indifferent = matches!(
            other,
            Says::Put { condition: Condition::None, .. } | Says::Delete { condition: Condition::None, existed: None }
        );
        let left = match self {
            Says::Is(_) | Says::Refused(_) => return false,
            Says::Delete { .. } => State::Absent,
            Says::Put { version: Some(version), value, .. } => {
                State::Present { version: Version::Known(version), value }
            }
            Says::Put { version: None, value, .. } => match (other.shown(), other.version_met()) {
                (Some((version, shown)), _) => return shown == value && !returned.contains(&version),
                (None, Some(version)) => return !returned.contains(&version),
                (None, None) => State::Present { version: Version::Unseen, value },
            },
        };
        !indifferent && other.fits(left)
    }
}

/// All operations on a key.
#[derive(Debug)]
pub(crate) struct Digest<'a> {
    pub steps: Vec<Step>,
    /// By number.
    values: Vec<&'a [u8]>,
}

/// The operations that are to be put in order.
#[derive(Debug)]
pub(crate) struct Register {
    /// With an outcome, in the order of their calls.
    pub ended: Vec<Step>,
    /// Without one, in the order of their calls, each with the versions that it may give.
    pub open: Vec<(Step, Vec<Version>)>,
}

impl<'a> Digest<'a> {
    /// Operations that count and are in the order of their calls.
    pub(crate) fn new(operations: &[&'a Operation], hint: &impl Fn(&Operation) -> Hint) -> Digest<'a> {
        let mut numbers: BTreeMap<&'a [u8], usize> = BTreeMap::new();
        let mut values = Vec::new();
        let mut number = |value: &'a [u8]| {
            *numbers.entry(value).or_insert_with(|| {
                values.push(value);
                values.len() - 1
            })
        };
        let step = |operation: &&'a Operation| Step { hint: hint(operation), ..Step::new(operation, &mut number) };
        let steps = operations.iter().map(step).collect();
        Digest { steps, values }
    }

    /// All of them.
    pub(crate) fn register(&self) -> Register {
        Register::new(self.steps.iter().copied())
    }

    /// Some of them, by their places in ascending order.
    pub(crate) fn register_of(&self, places: &[usize]) -> Register {
        Register::new(places.iter().map(|at| self.steps[*at]))
    }

    /// Whether some operations without an outcome are said never to have happened.
    pub(crate) fn has_fictions(&self) -> bool {
        self.steps.iter().any(Step::is_fiction)
    }

    /// All but those.
    pub(crate) fn register_without_fictions(&self) -> Register {
        Register::new(self.steps.iter().copied().filter(|step| !step.is_fiction()))
    }

    /// A state for people.
    pub(crate) fn describe(&self, state: State) -> String {
        match state {
            State::Absent => "absent".to_owned(),
            State::Present { version: Version::Known(version), value } => {
                format!("{} @{version}", Quoted(self.values[value]))
            }
            State::Present { version: Version::Unseen, value } => {
                format!("{} with a version that nobody saw", Quoted(self.values[value]))
            }
        }
    }
}

impl Step {
    /// Where it comes in the order that is tried first; the last if nobody knows.
    pub(crate) fn place(&self) -> u64 {
        match self.hint {
            Hint::At(index) => index,
            Hint::Never | Hint::Unknown => u64::MAX,
        }
    }

    fn is_fiction(&self) -> bool {
        self.ret.is_none() && self.hint == Hint::Never
    }

    fn new<'a>(operation: &'a Operation, number: &mut impl FnMut(&'a [u8]) -> usize) -> Step {
        let ended = operation.outcome != Outcome::Unknown;
        let says = match (&operation.kind, &operation.outcome) {
            (_, Outcome::ConditionFailed) => Says::Refused(operation.kind.condition()),
            (Kind::Get, Outcome::Value(Some((version, value)))) => {
                Says::Is(State::Present { version: Version::Known(*version), value: number(value) })
            }
            (Kind::Get, _) => Says::Is(State::Absent),
            (Kind::Put { value, condition }, outcome) => {
                let version = match outcome {
                    Outcome::Put { version } => Some(*version),
                    _ => None,
                };
                Says::Put { condition: *condition, version, value: number(value) }
            }
            // What found nothing to remove changed nothing.
            (
                Kind::Delete { condition: Condition::None | Condition::Absent },
                Outcome::Deleted { existed: Some(false), .. },
            ) => Says::Is(State::Absent),
            (Kind::Delete { condition }, outcome) => {
                let existed = match outcome {
                    Outcome::Deleted { existed, .. } => *existed,
                    _ => None,
                };
                Says::Delete { condition: *condition, existed }
            }
        };
        Step { call: operation.call, ret: ended.then_some(operation.ret), says, hint: Hint::Unknown }
    }
}

impl Register {
    fn new(steps: impl Iterator<Item = Step>) -> Register {
        let (ended, open): (Vec<Step>, Vec<Step>) = steps.partition(|step| step.ret.is_some());
        let returned: BTreeSet<u64> = ended.iter().filter_map(|step| step.says.returned()).collect();
        let shown: BTreeSet<(u64, usize)> = ended.iter().filter_map(|step| step.says.shown()).collect();
        let seen: BTreeSet<u64> = shown.iter().map(|(version, _)| *version).collect();
        // Versions that only a condition names: whichever put gave them, it is one without an outcome.
        let named = ended.iter().chain(&open).filter_map(|step| step.says.version_met());
        let named: BTreeSet<u64> =
            named.filter(|version| !returned.contains(version) && !seen.contains(version)).collect();
        let versions = |says: Says| -> Vec<Version> {
            let Says::Put { value, .. } = says else { return vec![Version::Unseen] };
            let of_value = shown.iter().filter(|(_, shown)| *shown == value).map(|(version, _)| version);
            let of_value = of_value.filter(|version| !returned.contains(version));
            of_value.chain(&named).map(|version| Version::Known(*version)).chain([Version::Unseen]).collect()
        };
        let open = open.into_iter().map(|step| (step, versions(step.says))).collect();
        Register { ended, open }
    }
}

impl Says {
    /// The version that a put returned.
    pub(crate) fn returned(self) -> Option<u64> {
        match self {
            Says::Put { version, .. } => version,
            _ => None,
        }
    }

    /// The version and the value that a read returned.
    fn shown(self) -> Option<(u64, usize)> {
        match self {
            Says::Is(State::Present { version: Version::Known(version), value }) => Some((version, value)),
            _ => None,
        }
    }

    /// The version that a write was on condition of, if it took effect.
    fn version_met(self) -> Option<u64> {
        match self.condition_met() {
            Condition::Version(version) => Some(version),
            _ => None,
        }
    }
}
