//! Campaigns that take several sittings: a file with a line for each stretch of seeds that has run to its end. Of a seed
//! that is in several lines the last one counts; a stretch of which a seed has failed is run again in the next sitting.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use crate::run::Campaign;

/// Seeds in a line of a record, at most.
const STRETCH: usize = 500;

/// Seeds that are done, and what came of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Which.
    pub seeds: Range<u64>,
    /// How many of them failed.
    pub failed: u64,
    /// Events of all of them.
    pub events: u64,
    /// Simulated milliseconds of all of them.
    pub simulated_ms: u64,
}

impl Stretch {
    /// What to write down of a campaign.
    #[must_use]
    pub fn of(seeds: Range<u64>, campaign: &Campaign) -> Stretch {
        let failed = campaign.failures.len() as u64;
        Stretch { seeds, failed, events: campaign.events, simulated_ms: campaign.simulated / 1_000_000 }
    }
}

impl fmt::Display for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stretch { seeds, failed, events, simulated_ms } = self;
        write!(f, "{}..{} failed {failed} events {events} simulated_ms {simulated_ms}", seeds.start, seeds.end)
    }
}

impl FromStr for Stretch {
    type Err = String;

    fn from_str(line: &str) -> Result<Stretch, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let bad = || format!("`{line}` is no line of a record of seeds");
        let [seeds, "failed", failed, "events", events, "simulated_ms", simulated_ms] = words[..] else {
            return Err(bad());
        };
        let number = |text: &str| text.parse::<u64>().map_err(|_| bad());
        let (first, end) = seeds.split_once("..").ok_or_else(bad)?;
        Ok(Stretch {
            seeds: number(first)?..number(end)?,
            failed: number(failed)?,
            events: number(events)?,
            simulated_ms: number(simulated_ms)?,
        })
    }
}

/// What is done so far; nothing if there is no such file.
///
/// # Errors
/// If it cannot be read, or is no such record.
pub fn read(path: &Path) -> io::Result<Vec<Stretch>> {
    match std::fs::read_to_string(path) {
        Ok(text) => text.lines().map(|line| line.parse().map_err(io::Error::other)).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Adds a stretch.
///
/// # Errors
/// If it cannot be written.
pub fn append(path: &Path, stretch: &Stretch) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "{stretch}")
}

/// The lines that still count: of those before, every seed has run again.
#[must_use]
pub fn latest(done: &[Stretch]) -> Vec<&Stretch> {
    let counts = |(at, stretch): &(usize, &Stretch)| {
        let later = done[at + 1..].iter();
        !later.fold(vec![stretch.seeds.clone()], |seeds, later| without(seeds, &later.seeds)).is_empty()
    };
    done.iter().enumerate().filter(counts).map(|(_, stretch)| stretch).collect()
}

/// What is left of `seeds`: those that are in no stretch, or, in the last one, with some that have failed.
#[must_use]
pub fn left(seeds: &Range<u64>, done: &[Stretch]) -> Vec<Range<u64>> {
    let mut left = vec![seeds.clone()];
    for stretch in done {
        left = without(left, &stretch.seeds);
        let again = stretch.seeds.start.max(seeds.start)..stretch.seeds.end.min(seeds.end);
        if stretch.failed > 0 && !again.is_empty() {
            left.push(again);
        }
    }
    left.sort_by_key(|range| range.start);
    left
}

fn without(ranges: Vec<Range<u64>>, taken: &Range<u64>) -> Vec<Range<u64>> {
    let parts = |range: Range<u64>| [range.start..range.end.min(taken.start), range.start.max(taken.end)..range.end];
    ranges.into_iter().flat_map(parts).filter(|part| !part.is_empty()).collect()
}

/// One sitting: runs what is left, stretch by stretch, until so many seeds have failed. `run` is told how many more may.
/// A stretch that was not run to its end is not taken down.
///
/// # Errors
/// If the record cannot be read or written.
pub fn go_on(
    path: &Path,
    seeds: &Range<u64>,
    failures_max: usize,
    mut run: impl FnMut(Range<u64>, usize) -> Campaign,
) -> io::Result<Campaign> {
    let mut sitting = Campaign::default();
    for range in left(seeds, &read(path)?) {
        for start in range.clone().step_by(STRETCH) {
            if sitting.failures.len() >= failures_max {
                return Ok(sitting);
            }
            let seeds = start..range.end.min(start + STRETCH as u64);
            let campaign = run(seeds.clone(), failures_max - sitting.failures.len());
            if campaign.runs == seeds.end - seeds.start {
                append(path, &Stretch::of(seeds, &campaign))?;
            }
            sitting.merge(campaign);
        }
    }
    Ok(sitting)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Report;

    fn stretch(seeds: Range<u64>, failed: u64) -> Stretch {
        Stretch { seeds, failed, events: 22, simulated_ms: 333 }
    }

    /// Of ranges, for people.
    fn told(ranges: &[Range<u64>]) -> String {
        let ranges: Vec<String> = ranges.iter().map(|range| format!("{}..{}", range.start, range.end)).collect();
        ranges.join(" ")
    }

    /// Runs nothing: of these seeds some fail, and after the last failure that is allowed no other comes.
    fn run(seeds: Range<u64>, failures_max: usize, bad: &[u64]) -> Campaign {
        let mut campaign = Campaign::default();
        for seed in seeds {
            let mut report = Report::impossible(seed, "it is made up");
            report.failure = report.failure.filter(|_| bad.contains(&seed));
            campaign.add(report);
            if campaign.failures.len() == failures_max {
                break;
            }
        }
        campaign
    }

    #[test]
    fn lines_are_read_as_they_were_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("seeds");
        assert_eq!(read(&path).expect("nothing yet"), []);
        for seeds in [1..501, 501..700] {
            append(&path, &stretch(seeds, 1)).expect("room");
        }
        assert_eq!(read(&path).expect("what was written"), [stretch(1..501, 1), stretch(501..700, 1)]);
        std::fs::write(&path, "garbage").expect("room");
        assert!(read(&path).is_err());
    }

    #[test]
    fn what_is_left_are_gaps_and_what_has_failed() {
        let done = [stretch(1..501, 0), stretch(501..1_001, 1), stretch(1_501..2_001, 0)];
        assert_eq!(told(&left(&(1..3_001), &done)), "501..1001 1001..1501 2001..3001");
        assert_eq!(told(&left(&(1..501), &done)), "");
        assert_eq!(told(&left(&(400..600), &done)), "501..600");
        assert_eq!(told(&left(&(1..3_001), &[])), "1..3001");
    }

    #[test]
    fn the_last_line_of_a_stretch_counts() {
        let mended = [stretch(1..501, 2), stretch(501..1_001, 0), stretch(1..501, 0)];
        assert_eq!(told(&left(&(1..1_001), &mended)), "");
        assert_eq!(latest(&mended), [&mended[1], &mended[2]]);
        let broken = [stretch(1..501, 0), stretch(1..501, 1)];
        assert_eq!(told(&left(&(1..501), &broken)), "1..501");
        let in_parts = [stretch(1..501, 1), stretch(1..101, 0), stretch(101..501, 0)];
        assert_eq!(told(&left(&(1..501), &in_parts)), "");
        assert_eq!(latest(&in_parts), [&in_parts[1], &in_parts[2]]);
    }

    #[test]
    fn a_sitting_goes_on_with_what_is_left_and_records_what_ran_to_its_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("seeds");
        let sit = |bad: &[u64]| {
            let mut ran = Vec::new();
            let sitting = go_on(&path, &(1..1_701), 2, |seeds, failures_max| {
                ran.push(seeds.clone());
                run(seeds, failures_max, bad)
            });
            (sitting.expect("room"), told(&ran))
        };
        // One may fail; with the second the sitting ends, in the middle of a stretch.
        let (sitting, ran) = sit(&[7, 600, 601]);
        assert_eq!((sitting.runs, sitting.failures.len(), &*ran), (600, 2, "1..501 501..1001"));
        let lines = || -> Vec<(Range<u64>, u64)> {
            read(&path).expect("a record").into_iter().map(|stretch| (stretch.seeds, stretch.failed)).collect()
        };
        assert_eq!(lines(), [(1..501, 1)]);
        let (sitting, ran) = sit(&[600]);
        assert_eq!((sitting.failures.len(), &*ran), (1, "1..501 501..1001 1001..1501 1501..1701"));
        assert_eq!(lines()[1..], [(1..501, 0), (501..1_001, 1), (1_001..1_501, 0), (1_501..1_701, 0)]);
        assert_eq!(sit(&[]).1, "501..1001");
        assert_eq!(sit(&[]).1, "");
    }
}
