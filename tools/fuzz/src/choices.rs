//! Decisions read from the bytes of an input, for targets that are fed a sequence of steps.

/// What is left of the input. When nothing is left every decision is 0.
#[derive(Clone, Copy, Debug)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// Decides by these bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Choices<'a> {
        Choices(bytes)
    }

    /// Whether all bytes were used.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        byte
    }

    /// A number below `bound` (at most 256) from one byte.
    pub fn below(&mut self, bound: u64) -> u64 {
        u64::from(self.byte()) % bound
    }

    /// A number from two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// A number from as many bytes as it takes: small, near a power of two, near the largest, or any at all.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            byte @ 0..0xc0 => u64::from(byte % 24),
            byte @ 0xc0..0xe0 => (1_u64 << ((byte & 31) * 2)).wrapping_add(u64::from(self.byte() % 3)).wrapping_sub(1),
            byte @ 0xe0..0xf0 => u64::MAX - u64::from(byte & 15),
            _ => (0..8).fold(0, |number, _| (number << 8) | u64::from(self.byte())),
        }
    }

    /// Up to `len` bytes as they stand.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
