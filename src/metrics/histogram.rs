//! Histograms whose buckets end at powers of two, so that a value finds its bucket without a search.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts values in `BUCKETS` buckets, the first of which ends at 2^`LEAST`, and those that are greater than the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<const LEAST: u32, const BUCKETS: usize> {
    counts: [u64; BUCKETS],
    above: u64,
    sum: u64,
}

/// Times in microseconds: from 16 µs to 33 s.
pub type Times = Histogram<4, 22>;
/// A time as it is noted in [`Times`].
#[must_use]
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Bytes: from 4 KiB to 64 MiB.
pub type Sizes = Histogram<12, 15>;
/// Bytes of files: from 64 KiB to 32 GiB.
pub type SnapshotSizes = Histogram<16, 20>;
/// Small numbers: from 1 to 16,384.
pub type Numbers = Histogram<0, 15>;

/// What can be shown of a histogram of any shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The bounds of the buckets, which belong to them, and how many values each holds that the one before it does not.
    pub buckets: Vec<(u64, u64)>,
    /// How many values were greater.
    pub above: u64,
    /// The sum of all values.
    pub sum: u64,
}

impl Shape {
    /// How many values there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.above + self.buckets.iter().map(|(_, count)| count).sum::<u64>()
    }
}

impl<const LEAST: u32, const BUCKETS: usize> Default for Histogram<LEAST, BUCKETS> {
    fn default() -> Self {
        Histogram { counts: [0; BUCKETS], above: 0, sum: 0 }
    }
}

/// The place of the bucket that a value is in.
fn place(least: u32, value: u64) -> usize {
    let exponent = u64::BITS - value.saturating_sub(1).leading_zeros();
    exponent.saturating_sub(least) as usize
}

impl<const LEAST: u32, const BUCKETS: usize> Histogram<LEAST, BUCKETS> {
    /// Counts a value.
    pub fn note(&mut self, value: u64) {
        *self.counts.get_mut(place(LEAST, value)).unwrap_or(&mut self.above) += 1;
        self.sum = self.sum.wrapping_add(value);
    }

    /// Adds what another has counted.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.above += other.above;
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// What can be shown of it.
    #[must_use]
    pub fn shape(&self) -> Shape {
        let bounds = (LEAST..).map(|exponent| 1 << exponent);
        Shape { buckets: bounds.zip(self.counts).collect(), above: self.above, sum: self.sum }
    }
}

/// A histogram that one thread fills while others look at it.
#[derive(Debug)]
pub struct SharedHistogram<const LEAST: u32, const BUCKETS: usize> {
    counts: [AtomicU64; BUCKETS],
    above: AtomicU64,
    sum: AtomicU64,
}

impl<const LEAST: u32, const BUCKETS: usize> Default for SharedHistogram<LEAST, BUCKETS> {
    fn default() -> Self {
        SharedHistogram { counts: std::array::from_fn(|_| AtomicU64::new(0)), above: 0.into(), sum: 0.into() }
    }
}

impl<const LEAST: u32, const BUCKETS: usize> SharedHistogram<LEAST, BUCKETS> {
    /// Counts a value.
    pub fn note(&self, value: u64) {
        self.counts.get(place(LEAST, value)).unwrap_or(&self.above).fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// What was counted until now.
    #[must_use]
    pub fn copy(&self) -> Histogram<LEAST, BUCKETS> {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Histogram { counts: self.counts.each_ref().map(load), above: load(&self.above), sum: load(&self.sum) }
    }
}
