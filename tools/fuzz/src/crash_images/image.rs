//! One crash image: a start on it, and whether what it finds is what it must find.

use std::collections::BTreeMap;
use std::sync::Arc;

use raftkv::storage::BatchNumber;
use raftkv::storage::simulated_disk::{Fate, Survivors};

use super::SHARDS;
use super::disks::{DISKS, Disks, Image};
use super::model::{Logs, check_pair};
use super::node::{Legacy, Memory, Node, Opened};
use crate::panics;
use crate::random::Random;

/// What is tried of an image.
#[derive(Clone)]
pub(super) struct Trial {
    pub(super) image: Image,
    /// The start dies at so many operations of the log's disk, and leaves this.
    dies_again: Option<(u64, Image)>,
    /// Whether more is tried than to read it: it stays found after another loss of power, and takes new entries.
    goes_on: bool,
}

impl Trial {
    pub(super) fn random(random: &mut Random) -> Trial {
        let image = Image::random(random);
        let dies_again = random.one_in(6).then(|| (random.below(25) as u64, Image::random(random)));
        Trial { image, dies_again, goes_on: random.one_in(4) }
    }
}

/// What an image showed, to see that images show everything.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sight {
    pub(super) torn: bool,
    pub(super) names_lost: bool,
    pub(super) cut: bool,
    pub(super) kept: bool,
    /// The batch that was in flight is there.
    pub(super) in_flight: bool,
    /// A snapshot that was about to get its name is there, or is not.
    pub(super) new_snapshot: Option<bool>,
    pub(super) died_again: bool,
}

/// The logs as they are found. The batch that was in flight is there as a whole, or not at all.
fn judge_logs(opened: &Opened, memory: &Memory) -> Result<(Logs, bool), String> {
    let next = BatchNumber(memory.durable.0 + 1);
    let live = memory.logs_after(BatchNumber(u64::MAX));
    for (batch, is_in_flight) in [(memory.durable, false), (next, true)] {
        let shards = memory.logs_after(batch).iter().zip(&opened.shards);
        let found: Option<Logs> = shards
            .map(|((shard, log), (known, entries))| {
                let told = memory.ahead.get(shard).copied();
                Some((*shard, Arc::new(log.found(known, entries, &live[shard], told)?)))
            })
            .collect();
        if let Some(logs) = found {
            return Ok((logs, is_in_flight));
        }
    }
    let told: Vec<String> = memory.logs_after(memory.durable).values().map(|log| log.told()).collect();
    let found: Vec<String> = opened
        .shards
        .iter()
        .map(|(known, entries)| {
            let last = known.start.index.0 + entries.len() as u64;
            format!("starts after {}, ends with index {last}, {:?}", known.start, known.hard_state)
        })
        .collect();
    Err(format!("the log holds something else than was acknowledged: found {found:?}, acknowledged {told:?}"))
}

/// What a start has found, if it is what it must find.
pub(super) fn judge(opened: &Opened, memory: &Memory) -> Result<(Logs, Sight), String> {
    let (logs, in_flight) = judge_logs(opened, memory)?;
    let mut sight = Sight { in_flight, ..Sight::default() };
    for (number, shard) in SHARDS.iter().enumerate() {
        let (kept, found) = (&memory.kept[number], &opened.snapshots[number]);
        kept.may_be(found).map_err(|line| format!("shard {shard}: {line}"))?;
        let resets = &memory.resets[number];
        check_pair(logs[shard].start(), found, resets).map_err(|line| format!("shard {shard}: {line}"))?;
        if let Some(finishing) = kept.finishing {
            sight.new_snapshot = Some(found.first().is_some_and(|(at, _)| *at == finishing));
        }
    }
    let report = opened.report();
    if report.blemishes > 0 {
        return Err("what a crash left is taken for a blemish of the disk".to_owned());
    }
    (sight.cut, sight.kept) = (report.torn_bytes > 0, report.batches_kept > 0);
    Ok((logs, sight))
}

/// What must be found of an image that was found so.
fn memory_of(opened: &Opened, logs: &Logs, memory: &Memory) -> Memory {
    let durable = BatchNumber::default();
    let kept = opened.snapshots.iter().map(|taken| super::model::Kept { taken: taken.clone(), finishing: None });
    let after = BTreeMap::from([(durable, logs.clone())]);
    Memory { after, durable, ahead: BTreeMap::new(), kept: kept.collect(), resets: memory.resets.clone() }
}

/// The power goes, and nothing is left but what was durable.
fn nothing_survives() -> Image {
    Image { survivors: [Survivors::None; DISKS], given: Default::default() }
}

fn try_on(disks: &Disks, trial: &Trial, memory: &Memory) -> Result<Sight, String> {
    let (mut disks, _) = disks.crash(&trial.image);
    let (torn, names_lost) = disks.torn_and_names_lost();
    let mut died_again = false;
    if let Some((operation, image)) = &trial.dies_again {
        disks.log().die_at(*operation);
        let started = Opened::open(&disks);
        died_again = disks.is_off();
        if let (Err(line), false) = (started, died_again) {
            return Err(line);
        }
        disks = disks.crash(image).0;
    }
    let opened = Opened::open(&disks)?;
    let (logs, sight) = judge(&opened, memory)?;
    if trial.goes_on {
        go_on(&disks, opened, logs, memory)?;
    }
    Ok(Sight { torn, names_lost, died_again, ..sight })
}

/// What was found stays found, and what is added is kept.
fn go_on(disks: &Disks, opened: Opened, logs: Logs, memory: &Memory) -> Result<(), String> {
    let found = memory_of(&opened, &logs, memory);
    let again = Opened::open(&disks.crash(&nothing_survives()).0)?;
    judge(&again, &found).map_err(|line| format!("what was found is gone after another start: {line}"))?;
    let mut node = Node::start(opened, logs, memory.resets.clone(), Legacy::none());
    node.settle()?;
    let after = Opened::open(&disks.crash(&nothing_survives()).0)?;
    judge(&after, &node.memory).map_err(|line| format!("what was added is gone after another start: {line}"))?;
    Ok(())
}

/// Makes the image and starts on it. An error says what is wrong with what was found.
pub(super) fn attempt(disks: &Disks, trial: &Trial, memory: &Memory) -> Result<Sight, String> {
    let mut outcome = Err("it ended without a word".to_owned());
    panics::catch(|| outcome = try_on(disks, trial, memory))?;
    outcome
}

/// The image with the least that must be lost for it to fail: everything else has reached the medium.
pub(super) fn smallest(disks: &Disks, trial: &Trial, memory: &Memory) -> (Trial, Vec<String>) {
    let fates = |trial: &Trial| disks.crash(&trial.image).1;
    // What was decided is written down, so that a change changes nothing else.
    let settled = |mut trial: Trial| {
        for (disk, decided) in fates(&trial).iter().enumerate() {
            trial.image.given[disk] = decided.iter().map(|fate| fate.survived).collect();
        }
        trial
    };
    let fails = |trial: &Trial| attempt(disks, trial, memory).is_err();
    let plain = Trial { image: trial.image.clone(), dies_again: None, goes_on: false };
    let mut trial = settled(if fails(&plain) { plain } else { trial.clone() });
    for disk in 0..DISKS {
        let mut number = 0;
        while number < trial.image.given[disk].len() {
            let mut with_one_more = trial.clone();
            if !std::mem::replace(&mut with_one_more.image.given[disk][number], true) {
                // A file that is longer has more to lose: all of that is there.
                with_one_more.image.survivors[disk] = Survivors::All;
                if fails(&with_one_more) {
                    trial = settled(with_one_more);
                }
            }
            number += 1;
        }
    }
    let describe = |(disk, decided): (usize, &Vec<Fate>)| {
        let lost = decided.iter().filter(|fate| !fate.survived);
        lost.map(|fate| disks.describe(disk, fate)).collect::<Vec<_>>()
    };
    let lost = fates(&trial).iter().enumerate().flat_map(describe).collect();
    (trial, lost)
}
