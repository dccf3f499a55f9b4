//! Makes new inputs of old ones: the small changes that parsers trip over.

use crate::random::Random;

/// Numbers that stand at the edges of lengths, counts, indexes and kinds.
const INTERESTING: [u64; 18] = [
    0,
    1,
    2,
    5,
    8,
    16,
    32,
    64,
    100,
    127,
    255,
    256,
    4096,
    65535,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// The most changes to one input.
const CHANGES_MAX: usize = 5;
/// The longest range that is moved, doubled or removed, but for one time in sixteen.
const RANGE_MAX: usize = 24;

/// Changes inputs; the same seed makes the same changes.
#[derive(Clone, Debug)]
pub struct Mutator {
    random: Random,
    /// A range on its way from one place to another.
    range: Vec<u8>,
}

impl Mutator {
    /// A mutator.
    #[must_use]
    pub fn new(seed: u64) -> Mutator {
        Mutator { random: Random::new(seed), range: Vec::new() }
    }

    /// Its generator, for whatever else one worker decides.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// Changes `data` a few times, with parts of `other` if need be. It is at most `bytes_max` long afterwards.
    pub fn mutate(&mut self, data: &mut Vec<u8>, other: &[u8], bytes_max: usize) {
        for _ in 0..1 + self.random.below(CHANGES_MAX) {
            self.change(data, other);
        }
        data.truncate(bytes_max);
    }

    fn change(&mut self, data: &mut Vec<u8>, other: &[u8]) {
        match self.random.below(16) {
            0 | 1 => self.flip_bit(data),
            2 | 3 => self.set_byte(data),
            4 => self.add_to_byte(data),
            5..8 => self.set_number(data),
            8 | 9 => self.insert(data),
            10 => self.remove(data),
            11 => self.double(data),
            12 => self.overwrite(data),
            13 => self.truncate(data),
            14 => self.splice(data, other),
            _ => self.cross(data, other),
        }
    }

    /// Half of the changes hit the first bytes, where heads and kinds are.
    fn place(&mut self, len: usize) -> usize {
        let within = if self.random.one_in(2) { len.min(64) } else { len };
        self.random.below(within.max(1))
    }

    /// A range of at least one byte, unless there is none.
    fn some_range(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.place(len).min(len);
        let most = if self.random.one_in(16) { len } else { RANGE_MAX };
        let length = 1 + self.random.below(most.max(1));
        start..(start + length).min(len)
    }

    fn flip_bit(&mut self, data: &mut [u8]) {
        let (at, bit) = (self.place(data.len()), self.random.below(8));
        if let Some(byte) = data.get_mut(at) {
            *byte ^= 1 << bit;
        }
    }

    fn set_byte(&mut self, data: &mut [u8]) {
        let (at, value) = (self.place(data.len()), self.random.next_u64() as u8);
        if let Some(byte) = data.get_mut(at) {
            *byte = value;
        }
    }

    fn add_to_byte(&mut self, data: &mut [u8]) {
        let at = self.place(data.len());
        let step = [1, 2, 0xff, 0xfe][self.random.below(4)];
        if let Some(byte) = data.get_mut(at) {
            *byte = byte.wrapping_add(step);
        }
    }

    /// Writes a number of 1, 2, 4 or 8 bytes: one at an edge, one near what is left of the input, or any.
    fn set_number(&mut self, data: &mut [u8]) {
        let at = self.place(data.len());
        let width = 1 << self.random.below(4);
        let Some(left) = data.len().checked_sub(at + width) else { return };
        let number = match self.random.below(4) {
            0 => (left as u64).wrapping_add(self.random.below(3) as u64).wrapping_sub(1),
            1 => self.random.next_u64() >> self.random.below(64),
            _ => INTERESTING[self.random.below(INTERESTING.len())],
        };
        data[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
    }

    fn insert(&mut self, data: &mut Vec<u8>) {
        let (at, length) = (self.place(data.len() + 1), 1 + self.random.below(RANGE_MAX));
        let filler = self.random.next_u64();
        let is_random = self.random.one_in(2);
        self.range.clear();
        self.range.extend((0..length).map(|at| if is_random { filler.rotate_left(at as u32 * 5) as u8 } else { 0 }));
        self.put_in(data, at);
    }

    fn remove(&mut self, data: &mut Vec<u8>) {
        let range = self.some_range(data.len());
        data.drain(range);
    }

    fn double(&mut self, data: &mut Vec<u8>) {
        let range = self.some_range(data.len());
        let at = self.place(data.len() + 1);
        self.range.clear();
        self.range.extend_from_slice(&data[range]);
        self.put_in(data, at);
    }

    /// Copies a range over another one.
    fn overwrite(&mut self, data: &mut [u8]) {
        let range = self.some_range(data.len());
        let to = self.place(data.len()).min(data.len() - range.len());
        data.copy_within(range, to);
    }

    fn truncate(&mut self, data: &mut Vec<u8>) {
        let length = self.random.below(data.len() + 1);
        data.truncate(length);
    }

    /// Puts a range of another input in.
    fn splice(&mut self, data: &mut Vec<u8>, other: &[u8]) {
        let range = self.some_range(other.len());
        let at = self.place(data.len() + 1);
        self.range.clear();
        self.range.extend_from_slice(&other[range]);
        self.put_in(data, at);
    }

    /// The beginning of this input and the end of another.
    fn cross(&mut self, data: &mut Vec<u8>, other: &[u8]) {
        let keep = self.random.below(data.len() + 1);
        let from = self.random.below(other.len() + 1);
        data.truncate(keep);
        data.extend_from_slice(&other[from..]);
    }

    /// Inserts the range at `at`.
    fn put_in(&self, data: &mut Vec<u8>, at: usize) {
        let (len, at) = (data.len(), at.min(data.len()));
        data.resize(len + self.range.len(), 0);
        data.copy_within(at..len, at + self.range.len());
        data[at..at + self.range.len()].copy_from_slice(&self.range);
    }
}
