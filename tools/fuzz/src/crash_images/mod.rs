//! Crash images: a log and snapshots are written as a node writes them, the power goes, and a start on whatever the
//! disks may have kept must find all that was acknowledged.
//!
//! A *run* is a few lives of one core: entries of two shards, some of which replace others, votes, segments that fill up
//! and are let go, copies, snapshots that are taken and that come from a peer. Each life ends at some operation of some
//! disk. Of that moment many *images* are made: any blocks of 512 or 4,096 bytes that were not synced are there or not,
//! any names, any lengths. A start on some images dies itself. What must hold of each:
//!
//! - every entry, vote and term that was told to be durable is there; the batch that was in flight is there as a whole or
//!   not at all; nothing else is;
//! - a snapshot is there as a whole or not at all, and the newest two that were taken are there;
//! - the log begins at or before the snapshots, so that log and snapshot go on from each other without a gap;
//! - what was found is found again after another loss of power, and takes new entries.
//!
//! One seed is one set of images, whatever the number of jobs.

mod disks;
mod image;
mod model;
mod node;
mod snapshots;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use raftkv_protocol::types::ShardId;

use crate::panics;
use crate::random::{Random, mix};
use disks::{Disks, Image};
use image::{Sight, Trial, attempt, judge, smallest};
use model::{Logs, ShardLog};
use node::{Deeds, Legacy, Memory, Node, Opened};

/// The shards of the core.
const SHARDS: [ShardId; 2] = [ShardId(0), ShardId(5)];
/// A run has so many lives.
const LIVES: u64 = 4;
/// So many images are made of the end of each.
const IMAGES_PER_LIFE: u64 = 10;
/// The images of one run.
pub const IMAGES_PER_RUN: u64 = LIVES * IMAGES_PER_LIFE;
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);
/// So many images show everything that is counted, whatever the seed.
const TELLING_IMAGES: u64 = 10_000;

/// What was counted over all images.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Images on which a start was tried.
    pub images: u64,
    torn: u64,
    names_lost: u64,
    cut: u64,
    kept: u64,
    in_flight: u64,
    new_snapshot: u64,
    old_snapshot: u64,
    died_again: u64,
    deeds: Deeds,
}

impl Tally {
    fn see(&mut self, sight: Sight) {
        self.images += 1;
        self.torn += u64::from(sight.torn);
        self.names_lost += u64::from(sight.names_lost);
        self.cut += u64::from(sight.cut);
        self.kept += u64::from(sight.kept);
        self.in_flight += u64::from(sight.in_flight);
        self.new_snapshot += u64::from(sight.new_snapshot == Some(true));
        self.old_snapshot += u64::from(sight.new_snapshot == Some(false));
        self.died_again += u64::from(sight.died_again);
    }

    fn add(&mut self, other: &Tally) {
        let own = self.fields().map(|(_, count)| count);
        let sums = std::array::from_fn(|field| own[field] + other.fields()[field].1);
        *self = Tally::of(self.images + other.images, sums);
    }

    fn of(images: u64, counts: [u64; 16]) -> Tally {
        let [torn, names_lost, cut, kept, in_flight, new_snapshot, old_snapshot, died_again, deeds @ ..] = counts;
        let [taken, received, resumed, compacted, reset, reset_at_start, copied, let_go] = deeds;
        let deeds = Deeds { taken, received, resumed, compacted, reset, reset_at_start, copied, let_go };
        Tally { images, torn, names_lost, cut, kept, in_flight, new_snapshot, old_snapshot, died_again, deeds }
    }

    fn fields(&self) -> [(&'static str, u64); 16] {
        let deeds = &self.deeds;
        [
            ("with a block in part", self.torn),
            ("with a name lost", self.names_lost),
            ("with a tail cut", self.cut),
            ("with a tail kept", self.kept),
            ("with the batch in flight", self.in_flight),
            ("with the new snapshot", self.new_snapshot),
            ("with the old one only", self.old_snapshot),
            ("whose start died too", self.died_again),
            ("snapshots taken", deeds.taken),
            ("received", deeds.received),
            ("resumed", deeds.resumed),
            ("compactions", deeds.compacted),
            ("resets", deeds.reset),
            ("resets made up for at a start", deeds.reset_at_start),
            ("copies completed", deeds.copied),
            ("lives that let segments go", deeds.let_go),
        ]
    }

    /// What never happened, where so many images were made that it must have.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let is_telling = self.images >= TELLING_IMAGES;
        self.fields().into_iter().filter(|(_, count)| is_telling && *count == 0).map(|(name, _)| name).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} images", self.images)?;
        self.fields().into_iter().try_for_each(|(name, count)| write!(f, ", {count} {name}"))
    }
}

/// An image on which a start did not find what it must.
#[derive(Debug)]
pub struct Failure {
    /// The run that made it.
    pub run: u64,
    /// What is wrong, and the least that must be lost for it.
    pub words: String,
}

/// Makes the images of one run.
pub fn run(seed: u64, run: u64) -> Result<Tally, Failure> {
    let mut random = Random::new(mix(seed).wrapping_add(mix(run)));
    let mut tally = Tally::default();
    let disks = Disks::new(random.next_u64());
    let first = Opened::open(&disks).map_err(|line| Failure { run, words: line })?;
    let logs: Logs = SHARDS.iter().map(|shard| (*shard, Arc::new(ShardLog::empty()))).collect();
    let mut node = Node::start(first, logs, vec![Vec::new(); SHARDS.len()], Legacy::none());
    let mut disks = disks;
    for life in 0..LIVES {
        let fail = |words: String| Failure { run, words: format!("life {life}: {words}") };
        live(&disks, &mut node, &mut random).map_err(fail)?;
        node.count();
        let deeds = Tally { deeds: node.deeds, ..Tally::default() };
        tally.add(&deeds);
        disks.turn_off();
        let memory = node.memory.clone();
        for number in 0..IMAGES_PER_LIFE {
            let trial = Trial::random(&mut random);
            match attempt(&disks, &trial, &memory) {
                Ok(sight) => tally.see(sight),
                Err(words) => return Err(fail(explain(&disks, &trial, &memory, number, &words))),
            }
        }
        let legacy = node.legacy();
        disks = next_disks(disks, &mut random);
        let opened = Opened::open(&disks).map_err(fail)?;
        let (logs, _) = judge(&opened, &memory).map_err(fail)?;
        node = Node::start(opened, logs, memory.resets, legacy);
    }
    Ok(tally)
}

/// A life, until the power goes or for so many steps.
fn live(disks: &Disks, node: &mut Node, random: &mut Random) -> Result<(), String> {
    disks.die(random);
    for _ in 0..80 + random.below(160) {
        let step = node.step(random);
        if disks.is_off() {
            return Ok(());
        }
        step?;
    }
    Ok(())
}

/// Either the power went, or only the process died.
fn next_disks(disks: Disks, random: &mut Random) -> Disks {
    if random.one_in(4) {
        disks.restart();
        return disks;
    }
    disks.crash(&Image::random(random)).0
}

fn explain(disks: &Disks, trial: &Trial, memory: &Memory, image: u64, words: &str) -> String {
    let (least, lost) = smallest(disks, trial, memory);
    let then = attempt(disks, &least, memory).err().unwrap_or_default();
    let lost = if lost.is_empty() { "nothing".to_owned() } else { lost.join("; ") };
    format!("image {image}: {words}\n  it fails as well if all but this has reached the medium: {lost}\n  then: {then}")
}

/// How many images are made, and of what.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// At least so many.
    pub images: u64,
    /// The same seed makes the same images.
    pub seed: u64,
    /// Only the images of this run.
    pub run: Option<u64>,
    /// Threads.
    pub jobs: u64,
}

/// Makes images. `progress` is called now and then with how many there are so far.
pub fn run_all(plan: &Plan, progress: &(dyn Fn(u64) + Sync)) -> (Tally, Vec<Failure>) {
    let runs = match plan.run {
        Some(run) => run..run + 1,
        None => 0..plan.images.div_ceil(IMAGES_PER_RUN),
    };
    let (next, done, is_over) = (AtomicU64::new(runs.start), AtomicU64::new(0), AtomicBool::new(false));
    let work = || {
        let (mut tally, mut failures, mut told) = (Tally::default(), Vec::new(), Instant::now());
        while !is_over.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= runs.end {
                break;
            }
            let mut outcome = Ok(Tally::default());
            let caught = panics::catch(|| outcome = run(plan.seed, number));
            match caught.map_err(|words| Failure { run: number, words }).and(outcome) {
                Ok(own) => tally.add(&own),
                Err(failure) => {
                    failures.push(failure);
                    is_over.store(true, Ordering::Relaxed);
                }
            }
            let images = done.fetch_add(IMAGES_PER_RUN, Ordering::Relaxed) + IMAGES_PER_RUN;
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                progress(images);
            }
        }
        (tally, failures)
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.jobs).map(|_| scope.spawn(work)).collect();
        let (mut sum, mut failures) = (Tally::default(), Vec::new());
        for worker in workers {
            let (tally, own) = worker.join().expect("a worker catches what panics in it");
            sum.add(&tally);
            failures.extend(own);
        }
        (sum, failures)
    })
}
