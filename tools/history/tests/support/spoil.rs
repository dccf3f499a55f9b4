//! Ways to make a history wrong, each of which no order of operations can explain. They rely on that every value is put
//! once.

use raftkv_history::{Condition, History, Kind, Operation, Outcome};

use super::Random;

/// What a broken store does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A read shows what was overwritten before it began.
    StaleRead,
    /// An acknowledged write is gone.
    LostWrite,
    /// A read shows what nobody wrote.
    ValueFromNowhere,
    /// Two writes on condition of one version take place.
    ConditionMetTwice,
    /// A read shows what was deleted before it began.
    ReadAfterDelete,
    /// A write takes effect again after it was overwritten.
    AppliedTwice,
}

pub const FAULTS: [Fault; 6] = [
    Fault::StaleRead,
    Fault::LostWrite,
    Fault::ValueFromNowhere,
    Fault::ConditionMetTwice,
    Fault::ReadAfterDelete,
    Fault::AppliedTwice,
];

/// The history with this fault; `None` if it has no place for one.
pub fn spoil(history: &History, fault: Fault, random: &mut Random) -> Option<History> {
    let mut operations = history.operations().to_vec();
    match fault {
        Fault::StaleRead => shown_again(&mut operations, random, |put| matches!(put.kind, Kind::Put { .. })),
        Fault::ReadAfterDelete => shown_again(&mut operations, random, |delete| {
            matches!(
                (&delete.kind, &delete.outcome),
                (Kind::Delete { .. }, Outcome::Deleted { existed: Some(true), .. })
            )
        }),
        Fault::LostWrite => lost(&mut operations, random),
        Fault::ValueFromNowhere => from_nowhere(&mut operations, random),
        Fault::ConditionMetTwice => met_twice(&mut operations, random),
        Fault::AppliedTwice => applied_twice(&mut operations, random),
    }?;
    Some(operations.into_iter().collect())
}

fn precedes(first: &Operation, second: &Operation) -> bool {
    first.outcome != Outcome::Unknown && first.ret < second.call
}

/// Version and value of an acknowledged put.
fn put(operation: &Operation) -> Option<(u64, &Vec<u8>)> {
    match (&operation.kind, &operation.outcome) {
        (Kind::Put { value, .. }, Outcome::Put { version }) => Some((*version, value)),
        _ => None,
    }
}

fn is_answered_read(operation: &Operation) -> bool {
    matches!(operation.outcome, Outcome::Value(_))
}

fn has_changed(operation: &Operation) -> bool {
    matches!(operation.outcome, Outcome::Put { .. } | Outcome::Deleted { existed: Some(true), .. })
}

fn end_of(operations: &[Operation]) -> u64 {
    operations
        .iter()
        .flat_map(|operation| [operation.call, operation.ret])
        .filter(|time| *time < u64::MAX)
        .max()
        .unwrap_or(0)
}

fn late_read(operations: &[Operation], key: &[u8], shown: Option<(u64, Vec<u8>)>) -> Operation {
    let call = end_of(operations) + 1;
    Operation { client: 99, key: key.to_vec(), kind: Kind::Get, call, outcome: Outcome::Value(shown), ret: call + 1 }
}

/// A read shows a put that an operation has hidden that began after the put and ended before the read.
fn shown_again(operations: &mut [Operation], random: &mut Random, hides: impl Fn(&Operation) -> bool) -> Option<()> {
    let mut places = Vec::new();
    for (at, read) in operations.iter().enumerate().filter(|(_, read)| is_answered_read(read)) {
        let same_key = || operations.iter().filter(|other| other.key == read.key);
        for hider in same_key().filter(|other| has_changed(other) && hides(other) && precedes(other, read)) {
            let hidden = same_key().filter(|other| precedes(other, hider)).filter_map(put);
            places.extend(hidden.map(|(version, value)| (at, (version, value.clone()))));
        }
    }
    let (at, shown) = random.pick(&places)?.clone();
    operations[at].outcome = Outcome::Value(Some(shown));
    Some(())
}

/// A last read finds nothing, although no delete may have come after an acknowledged put.
fn lost(operations: &mut Vec<Operation>, random: &mut Random) -> Option<()> {
    let safe = |write: &&Operation| {
        let deletes = operations.iter().filter(|other| {
            other.key == write.key && matches!(other.kind, Kind::Delete { .. }) && other.outcome != Outcome::Failed
        });
        put(write).is_some() && deletes.into_iter().all(|delete| precedes(delete, write))
    };
    let places: Vec<&Operation> = operations.iter().filter(safe).collect();
    let key = random.pick(&places)?.key.clone();
    let read = late_read(operations, &key, None);
    operations.push(read);
    Some(())
}

fn from_nowhere(operations: &mut [Operation], random: &mut Random) -> Option<()> {
    let reads: Vec<usize> = (0..operations.len()).filter(|at| is_answered_read(&operations[*at])).collect();
    let at = *random.pick(&reads)?;
    let version = match &operations[at].outcome {
        Outcome::Value(Some((version, _))) => *version,
        _ => 1,
    };
    operations[at].outcome = Outcome::Value(Some((version, b"nobody's".to_vec())));
    Some(())
}

fn met_twice(operations: &mut Vec<Operation>, random: &mut Random) -> Option<()> {
    let met = |operation: &&Operation| {
        matches!(operation.kind.condition(), Condition::Version(_)) && put(operation).is_some()
    };
    let places: Vec<&Operation> = operations.iter().filter(met).collect();
    let mut twin = (*random.pick(&places)?).clone();
    twin.client = 99;
    twin.kind = Kind::Put { value: b"the twin's".to_vec(), condition: twin.kind.condition() };
    twin.outcome = Outcome::Put { version: highest(operations) + 1 };
    operations.push(twin);
    Some(())
}

/// A put that is overwritten for certain comes back with another version.
fn applied_twice(operations: &mut Vec<Operation>, random: &mut Random) -> Option<()> {
    let places: Vec<Operation> = operations.iter().filter(|operation| put(operation).is_some()).cloned().collect();
    let first = random.pick(&places)?;
    let version = highest(operations) + 1;
    let shown = |version, operation: &Operation| put(operation).map(|(_, value)| (version, value.clone()));
    let again = late_read(operations, &first.key, shown(version, first));
    operations.push(again);
    Some(())
}

pub fn highest(operations: &[Operation]) -> u64 {
    let index = |operation: &Operation| match operation.outcome {
        Outcome::Put { version } | Outcome::Value(Some((version, _))) => version,
        Outcome::Deleted { index, .. } => index.unwrap_or(0),
        _ => 0,
    };
    operations.iter().map(index).max().unwrap_or(0)
}
