//! The second judge: versions are indexes of a log.
//!
//! It needs no search, and what it does not see the first one does. It holds for a key, and where keys share a log for
//! the writes of all of them, that an operation that began after another had ended has no smaller index.

use std::collections::BTreeMap;

use crate::history::History;
use crate::operation::{Condition, Kind, Operation, Outcome};
use crate::violation::Violation;

/// Whether the versions of each key can be indexes of a log: acknowledged writes have distinct ones, they grow over real
/// time, a read shows what the write of that very index wrote, nothing comes between a version and the write on
/// condition of it, and no write happened twice.
///
/// # Errors
/// The first violation, in the order of the keys.
pub fn check_indexes(history: &History) -> Result<(), Violation> {
    history.well_formed()?;
    history.by_key().values().try_for_each(|operations| {
        let open = Open::new(operations);
        let written = written(operations)?;
        let shown = shown(operations, &written, &open)?;
        none_twice(&shown, &open)?;
        conditions_met(operations, &written, &shown, &open)?;
        rising(operations, |operation, floor| {
            let read = operation.version_met().or(operation.index_seen());
            operation.index_written().is_some_and(|index| index <= floor) || read.is_some_and(|read| read < floor)
        })
    })
}

/// Whether indexes also fit each other where keys share a log: `shard_of` tells which.
///
/// # Errors
/// The first violation, in the order of the shards.
pub fn check_shard_indexes(history: &History, shard_of: impl Fn(&[u8]) -> u16) -> Result<(), Violation> {
    history.well_formed()?;
    let mut shards: BTreeMap<u16, Vec<&Operation>> = BTreeMap::new();
    for (key, operations) in history.by_key() {
        shards.entry(shard_of(key)).or_default().extend(operations);
    }
    shards.values_mut().try_for_each(|operations| {
        let mut owners: BTreeMap<u64, &Operation> = BTreeMap::new();
        for operation in operations.iter() {
            let Some(index) = operation.index_seen() else { continue };
            let owner = owners.entry(index).or_insert(operation);
            if owner.key != operation.key {
                return Err(two("one index on two keys of a shard", owner, operation));
            }
        }
        operations.sort_by_key(|operation| (operation.call, operation.ret));
        rising(operations, |operation, floor| operation.index_written().is_some_and(|index| index <= floor))
    })
}

fn two(what: &str, first: &Operation, second: &Operation) -> Violation {
    Violation::Index(format!("{what}:\n  {first}\n  {second}"))
}

fn one(what: &str, operation: &Operation) -> Violation {
    Violation::Index(format!("{what}:\n  {operation}"))
}

impl Operation {
    /// The index of its own log entry.
    fn index_written(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Put { version } => Some(version),
            Outcome::Deleted { index, .. } => index,
            _ => None,
        }
    }

    /// The greatest index that its outcome shows.
    fn index_seen(&self) -> Option<u64> {
        match &self.outcome {
            Outcome::Value(Some((version, _))) => Some(*version),
            _ => self.index_written(),
        }
    }

    /// The version that it was on condition of, if it took place.
    fn version_met(&self) -> Option<u64> {
        match (self.kind.condition(), &self.outcome) {
            (Condition::Version(version), Outcome::Put { .. } | Outcome::Deleted { .. }) => Some(version),
            _ => None,
        }
    }
}

/// Puts without an outcome, in the order of their calls.
struct Open<'a> {
    all: Vec<&'a Operation>,
    by_value: BTreeMap<&'a [u8], Vec<&'a Operation>>,
}

impl<'a> Open<'a> {
    fn new(operations: &[&'a Operation]) -> Open<'a> {
        let mut open = Open { all: Vec::new(), by_value: BTreeMap::new() };
        for operation in operations.iter().filter(|operation| operation.outcome == Outcome::Unknown) {
            if let Kind::Put { value, .. } = &operation.kind {
                open.all.push(operation);
                open.by_value.entry(value).or_default().push(operation);
            }
        }
        open
    }

    /// Those of this value.
    fn of(&self, value: &[u8]) -> &[&'a Operation] {
        self.by_value.get(value).map_or(&[], Vec::as_slice)
    }
}

/// Whether one of these may have happened before the operation ended.
fn any_before(open: &[&Operation], operation: &Operation) -> bool {
    open.first().is_some_and(|put| !operation.precedes(put))
}

/// Acknowledged writes by their index.
fn written<'a>(operations: &[&'a Operation]) -> Result<BTreeMap<u64, &'a Operation>, Violation> {
    let mut written: BTreeMap<u64, &Operation> = BTreeMap::new();
    for operation in operations {
        let Some(index) = operation.index_written() else { continue };
        if let Some(other) = written.insert(index, operation) {
            return Err(two("two writes with one index", other, operation));
        }
    }
    Ok(written)
}

/// Every read shows what the write of its version wrote. The versions that reads show and no acknowledged write has,
/// each with the first such read.
fn shown<'a>(
    operations: &[&'a Operation],
    written: &BTreeMap<u64, &'a Operation>,
    open: &Open<'_>,
) -> Result<BTreeMap<u64, &'a Operation>, Violation> {
    let mut unacknowledged: BTreeMap<u64, &Operation> = BTreeMap::new();
    for read in operations {
        let Outcome::Value(Some((version, value))) = &read.outcome else { continue };
        if let Some(write) = written.get(version) {
            let same = matches!(&write.kind, Kind::Put { value: put, .. } if put == value);
            if !same || read.precedes(write) {
                return Err(two("a read shows what the write of that index did not write", write, read));
            }
            continue;
        }
        if !any_before(open.of(value), read) {
            return Err(one("a read shows what nobody wrote", read));
        }
        let first = unacknowledged.entry(*version).or_insert(read);
        if first.outcome != read.outcome {
            return Err(two("two values of one version", first, read));
        }
    }
    Ok(unacknowledged)
}

/// No value has more versions than there are puts without an outcome that can have given it one.
fn none_twice(unacknowledged: &BTreeMap<u64, &Operation>, open: &Open<'_>) -> Result<(), Violation> {
    let mut reads: BTreeMap<&[u8], Vec<&Operation>> = BTreeMap::new();
    for read in unacknowledged.values() {
        if let Outcome::Value(Some((_, value))) = &read.outcome {
            reads.entry(value).or_default().push(read);
        }
    }
    for (value, reads) in reads {
        let last = reads.iter().map(|read| read.ret).max();
        let puts = open.of(value).iter().filter(|put| Some(put.call) <= last);
        if puts.clone().count() < reads.len() {
            let lines: Vec<String> = puts.chain(&reads).map(|operation| format!("\n  {operation}")).collect();
            return Err(Violation::Index(format!("a put took effect more than once:{}", lines.concat())));
        }
    }
    Ok(())
}

/// A write that was on condition of a version has the next one.
fn conditions_met(
    operations: &[&Operation],
    written: &BTreeMap<u64, &Operation>,
    unacknowledged: &BTreeMap<u64, &Operation>,
    open: &Open<'_>,
) -> Result<(), Violation> {
    for operation in operations {
        let Some(version) = operation.version_met() else { continue };
        match written.get(&version) {
            Some(write) if matches!(write.kind, Kind::Put { .. }) && !operation.precedes(write) => {}
            Some(write) => return Err(two("a condition was met by what is no version of the key", write, operation)),
            None if any_before(&open.all, operation) => {}
            None => return Err(one("a condition was met by a version that nobody wrote", operation)),
        }
        let Some(index) = operation.index_written() else { continue };
        if index <= version {
            return Err(one("a write took place before the version that it was on condition of", operation));
        }
        let within = version + 1..index;
        let between = written.range(within.clone()).chain(unacknowledged.range(within)).next();
        if let Some((_, other)) = between {
            return Err(two("a version changed although a write was on condition of it", other, operation));
        }
    }
    Ok(())
}

/// Indexes do not fall over real time. `fell` compares an operation with the highest index that was seen before its
/// call. The operations are in the order of their calls.
fn rising(operations: &[&Operation], fell: impl Fn(&Operation, u64) -> bool) -> Result<(), Violation> {
    let mut ended: Vec<&Operation> =
        operations.iter().copied().filter(|operation| operation.index_seen().is_some()).collect();
    ended.sort_by_key(|operation| operation.ret);
    let mut ended = ended.into_iter().peekable();
    let mut highest: Option<(u64, &Operation)> = None;
    for operation in operations {
        while let Some(before) = ended.next_if(|before| before.precedes(operation)) {
            let seen = before.index_seen().unwrap_or(0);
            if highest.is_none_or(|(index, _)| seen > index) {
                highest = Some((seen, before));
            }
        }
        if let Some((_, before)) = highest.filter(|(floor, _)| fell(operation, *floor)) {
            return Err(two("an index fell", before, operation));
        }
    }
    Ok(())
}
