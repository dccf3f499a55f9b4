//! Campaigns that take several sittings: a file with a line for each stretch of seeds that is done.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use crate::run::Campaign;

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

/// What is left of `seeds`: everything behind what is done.
#[must_use]
pub fn left(seeds: &Range<u64>, done: &[Stretch]) -> Range<u64> {
    let upto = done.iter().map(|stretch| stretch.seeds.end).max().unwrap_or(seeds.start);
    upto.clamp(seeds.start, seeds.end)..seeds.end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_campaign_goes_on_where_it_stopped() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("seeds");
        assert_eq!(read(&path).expect("nothing yet"), []);
        let stretch = |seeds| Stretch { seeds, failed: 1, events: 22, simulated_ms: 333 };
        for seeds in [1..501, 501..700] {
            append(&path, &stretch(seeds)).expect("room");
        }
        let done = read(&path).expect("what was written");
        assert_eq!(done, [stretch(1..501), stretch(501..700)]);
        assert_eq!(left(&(1..1_000), &done), 700..1_000);
        assert!(left(&(1..600), &done).is_empty());
        std::fs::write(&path, "garbage").expect("room");
        assert!(read(&path).is_err());
    }
}
