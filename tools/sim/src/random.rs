//! Randomness from a seed (xoshiro256++, seeded by splitmix64, as their authors recommend). Nothing else in a run is random.

/// A generator; the same seed gives the same numbers for ever.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// A generator of its own for each seed.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        let mut mixer = seed;
        let mut next = || {
            mixer = mixer.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = mixer;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        };
        Random { state: [next(), next(), next(), next()] }
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A generator that is independent of what this one gives afterwards.
    pub fn fork(&mut self) -> Random {
        Random::new(self.number())
    }

    /// A number below `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { ((u128::from(self.number()) * u128::from(end)) >> 64) as u64 }
    }

    /// A number from `first` to `last`.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last.saturating_sub(first) + 1)
    }

    /// True `parts` times in a million.
    pub fn chance(&mut self, parts: u32) -> bool {
        parts > 0 && self.below(1_000_000) < u64::from(parts)
    }

    /// Each with the same probability.
    pub fn coin(&mut self) -> bool {
        self.number() >> 63 == 1
    }

    /// One of them.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    /// A number from `min` to `max` of any order of magnitude in between, each as likely as the others.
    pub fn skewed(&mut self, min: u64, max: u64) -> u64 {
        let min = min.max(1);
        let doublings = (max.max(min) / min).ilog2();
        let low = min << self.below(u64::from(doublings) + 1);
        self.between(low, (2 * low).min(max.max(low)))
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn a_seed_gives_the_same_numbers_and_another_seed_others() {
        let numbers = |seed| {
            (0..8).map(|_| Random::new(seed).number()).chain([Random::new(seed).fork().number()]).collect::<Vec<_>>()
        };
        assert_eq!(numbers(1), numbers(1));
        assert_ne!(numbers(1), numbers(2));
    }

    #[test]
    fn ranges_are_kept_and_reached() {
        let mut random = Random::new(7);
        let seen: std::collections::BTreeSet<u64> = (0..1_000).map(|_| random.between(3, 6)).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [3, 4, 5, 6]);
        assert_eq!(random.below(0), 0);
        assert!(!(0..1_000).any(|_| random.chance(0)) && (0..1_000).all(|_| random.chance(1_000_000)));
        assert!((0..1_000).map(|_| random.skewed(1, 100)).all(|n| (1..=100).contains(&n)));
    }
}
