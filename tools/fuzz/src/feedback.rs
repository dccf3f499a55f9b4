//! What the runs came across: the stand-in for the coverage that an instrumented build would report.
//!
//! A target names *features*: which message was refused for which field, which role met which message, which batch of a
//! log was lost. Inputs that show a feature for the first time are worth mutating further.

use crate::random::mix;

const FEATURES: usize = 1 << 16;
const COMBINATIONS: usize = 1 << 18;

/// The features that one worker has seen, and those of the run in progress.
#[derive(Clone, Debug)]
pub struct Feedback {
    features: Bits,
    combinations: Bits,
    /// All features of this run together.
    run: u64,
    is_new: bool,
}

impl Default for Feedback {
    fn default() -> Feedback {
        Feedback { features: Bits::new(FEATURES), combinations: Bits::new(COMBINATIONS), run: 0, is_new: false }
    }
}

impl Feedback {
    /// The run came across something. Different things may share a number, so that little may be missed.
    pub fn saw(&mut self, feature: u64) {
        let mixed = mix(feature);
        self.is_new |= self.features.set(mixed);
        self.run = self.run.wrapping_add(mixed);
    }

    /// The run came across `what` with a detail.
    pub fn saw_with(&mut self, what: u64, detail: u64) {
        self.saw(mix(what).wrapping_add(detail));
    }

    /// Ends a run. Whether it showed a feature for the first time.
    pub fn end_run(&mut self) -> bool {
        self.combinations.set(mix(self.run));
        self.run = 0;
        std::mem::take(&mut self.is_new)
    }

    /// How many features were seen.
    #[must_use]
    pub fn features(&self) -> usize {
        self.features.count()
    }

    /// How many different sets of features runs showed; beyond some 100,000 many are counted as one.
    #[must_use]
    pub fn combinations(&self) -> usize {
        self.combinations.count()
    }

    /// Adds what another worker has seen.
    pub fn merge(&mut self, other: &Feedback) {
        self.features.merge(&other.features);
        self.combinations.merge(&other.combinations);
    }
}

/// The power of two that a number lies below: small numbers apart, large ones in few classes.
#[must_use]
pub fn magnitude(number: u64) -> u64 {
    u64::from(u64::BITS - number.leading_zeros())
}

/// A number for a name.
#[must_use]
pub fn named(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// A set of numbers, each standing for all that are equal in their highest bits.
#[derive(Clone, Debug)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(bits: usize) -> Bits {
        Bits(vec![0; bits / 64])
    }

    /// Whether the number was not in it.
    fn set(&mut self, number: u64) -> bool {
        let bits = self.0.len() as u64 * 64;
        let at = ((u128::from(number) * u128::from(bits)) >> 64) as usize;
        let (word, bit) = (&mut self.0[at / 64], 1 << (at % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    fn merge(&mut self, other: &Bits) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
    }
}
