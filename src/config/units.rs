//! How settings write durations and sizes (a whole number and its unit), ids, and levels.

use std::time::Duration;

use log::LevelFilter;

const DURATIONS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
const SIZES: [(&str, u64); 5] = [("B", 1), ("", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// The longest duration that a setting may have: far beyond any use, far below any overflow.
const DURATION_MS_MAX: u64 = 24 * 3_600_000;

/// Reads `250ms`, `1s`, `2m` or `1h`: at least a millisecond, at most a day.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let ms = quantity(text, &DURATIONS).ok_or("write a duration like 250ms, 1s or 2m")?;
    if !(1..=DURATION_MS_MAX).contains(&ms) {
        return Err("a duration must be from 1ms to 24h".into());
    }
    Ok(Duration::from_millis(ms))
}

/// How long leases last, if there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease(pub Option<Duration>);

/// Reads a duration, or `off`.
pub(super) fn lease(text: &str) -> Result<Lease, String> {
    if text == "off" {
        return Ok(Lease(None));
    }
    duration(text).map(|duration| Lease(Some(duration))).map_err(|words| format!("{words}, or off"))
}

/// Reads `1024`, `64KiB`, `64MiB` or `1GiB`: bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    quantity(text, &SIZES).ok_or_else(|| "write a size like 1024, 64KiB or 64MiB".into())
}

/// A size that bounds something in memory.
pub(super) fn memory_size(text: &str) -> Result<usize, String> {
    usize::try_from(size(text)?).map_err(|_| "it is more than this machine can address".into())
}

/// The id of a node.
pub(super) fn node_id(text: &str) -> Result<u64, String> {
    let id = text.parse().ok().filter(|id| *id > 0);
    id.ok_or_else(|| format!("write a whole number from 1 to {}, another for each node", u64::MAX))
}

/// How much is logged.
pub(super) fn log_level(text: &str) -> Result<LevelFilter, String> {
    text.parse().map_err(|_| "write off, error, warn, info, debug or trace".into())
}

fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A duration as a setting writes it.
pub(super) fn show_duration(duration: Duration) -> String {
    show(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &DURATIONS)
}

/// A size as a setting writes it.
pub(super) fn show_size(bytes: u64) -> String {
    show(bytes, &SIZES)
}

/// In the biggest unit that leaves a whole number.
fn show(number: u64, units: &[(&str, u64)]) -> String {
    let fits = units.iter().rev().find(|(_, factor)| number >= *factor && number.is_multiple_of(*factor));
    fits.map_or(number.to_string(), |(unit, factor)| format!("{}{unit}", number / factor))
}
