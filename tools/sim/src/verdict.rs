//! Judges what the clients were told, when the run is over.

use std::collections::{BTreeMap, BTreeSet};

use raftkv_history::{History, Kind, Limits, Operation, Outcome};

use crate::coverage::Coverage;
use crate::oracle::{Oracle, Violation};
use crate::transcript::{Glance, Sight, Transcript};

/// How long the search for an order of one key's operations may take: many writes of unknown outcome make it long.
pub const SEARCH_STEPS_MAX: u64 = 40_000_000;

/// What is known for certain of the writes to each key.
struct Writes<'a> {
    /// The versions that acknowledged puts have given, rising.
    versions: BTreeMap<&'a [u8], Vec<u64>>,
    /// Somebody has asked for these to be deleted, so that they may be gone.
    deleted: BTreeSet<&'a [u8]>,
}

/// Judges; the transcript's operations are gone then. The search for an order of a key's operations takes so many steps
/// at most: where that is not enough nothing is known, which is a violation too.
///
/// # Errors
/// The first violation.
pub fn judge(
    transcript: &mut Transcript,
    oracle: &Oracle,
    search_steps_max: u64,
    coverage: &mut Coverage,
) -> Result<(), Violation> {
    transcript.settle_batches(oracle, coverage)?;
    let writes = Writes::of(transcript);
    transcript.glances.iter().try_for_each(|glance| writes.judge_glance(glance))?;
    transcript.sights.iter().try_for_each(|sight| writes.judge_sight(sight, oracle))?;
    transcript.operations.iter().try_for_each(|operation| oracle.check_told(operation))?;
    transcript.strike_refused_batches();
    let history: History = transcript.operations.drain(..).collect();
    let limits = Limits { steps: search_steps_max };
    let (entry_of, removals) = (|one: &Operation| oracle.entry_of(one), |key: &[u8]| oracle.removals(key));
    raftkv_history::check_with_log(&history, &limits, entry_of, removals).map_err(|violation| {
        let is_unknown = matches!(violation, raftkv_history::Violation::TooHard { .. });
        let invariant = if is_unknown { "every history can be judged" } else { "every history is linearizable" };
        Violation::of(invariant, violation.to_string())
    })?;
    raftkv_history::check_indexes(&history)
        .map_err(|violation| Violation::of("versions are indexes of one log", violation.to_string()))
}

impl<'a> Writes<'a> {
    fn of(transcript: &'a Transcript) -> Writes<'a> {
        let mut writes = Writes { versions: BTreeMap::new(), deleted: BTreeSet::new() };
        for operation in &transcript.operations {
            match (&operation.kind, &operation.outcome) {
                (Kind::Put { .. }, Outcome::Put { version }) => {
                    writes.versions.entry(&operation.key).or_default().push(*version);
                }
                (Kind::Delete { .. }, _) => _ = writes.deleted.insert(&operation.key),
                _ => {}
            }
        }
        writes.versions.values_mut().for_each(|versions| versions.sort_unstable());
        writes
    }

    /// A version of the key that a read of its shard, up to some entry or further, cannot have missed, although it has
    /// shown this.
    fn missed(&self, key: &[u8], shown: Option<u64>, read_upto: u64) -> Option<u64> {
        if shown.is_none() && self.deleted.contains(key) {
            return None;
        }
        let versions = self.versions.get(key)?;
        let upto = versions.partition_point(|version| *version <= read_upto);
        versions[..upto].last().copied().filter(|version| Some(*version) > shown)
    }

    /// A read may be old, but not older than what every node had applied before it was asked: also a node that was
    /// started again since then has to catch up before it answers.
    fn judge_glance(&self, glance: &Glance) -> Result<(), Violation> {
        let Glance { key, applied_by_all, answer: Some(answer) } = glance else { return Ok(()) };
        let Some(missed) = self.missed(key, *answer, *applied_by_all) else { return Ok(()) };
        let key = key.escape_ascii();
        let what = format!("key {key} was read as {answer:?} after every node had applied version {missed}");
        Err(Violation::of("a stale read is no older than what every node has applied", what))
    }

    /// A page reads each shard at one index: what is older than something else that it shows of the shard cannot be
    /// missing.
    fn judge_sight(&self, sight: &Sight, oracle: &Oracle) -> Result<(), Violation> {
        let mut newest: BTreeMap<_, u64> = BTreeMap::new();
        for (key, version) in sight {
            let newest = newest.entry(oracle.shard_of(key)).or_default();
            *newest = (*newest).max(version.unwrap_or(0));
        }
        for (key, version) in sight {
            let shard = oracle.shard_of(key);
            if let Some(missed) = self.missed(key, *version, newest[&shard]) {
                let (key, newest) = (key.escape_ascii(), newest[&shard]);
                let what = format!(
                    "a page shows key {key} as {version:?}, which had version {missed}, and of the same shard {shard} \
                     version {newest}"
                );
                return Err(Violation::of("a page shows each shard at one index", what));
            }
        }
        Ok(())
    }
}
