//! The body size of every entry in the log, in blocks: to add a million, or to let them go, moves none of them. In one piece
//! they would be moved whenever it grows or shrinks, for a millisecond at a time.

use std::collections::VecDeque;

/// Sizes in a block.
pub(super) const BLOCK: usize = 4_096;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    /// All of them are full but the last, which is not empty.
    blocks: VecDeque<Vec<u32>>,
    /// Sizes at the beginning of the first block that were let go of; less than a block.
    gone: usize,
    /// How many there are besides.
    count: usize,
}

impl Sizes {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Adds one behind the last.
    pub(super) fn push(&mut self, size: u32) {
        self.count += 1;
        if let Some(block) = self.blocks.back_mut().filter(|block| block.len() < BLOCK) {
            return block.push(size);
        }
        // The first of a log grows with it: many logs are short.
        let capacity = if self.blocks.is_empty() { 0 } else { BLOCK };
        let mut block = Vec::with_capacity(capacity);
        block.push(size);
        self.blocks.push_back(block);
    }

    /// Lets go of all but the first `count`.
    pub(super) fn truncate(&mut self, count: usize) {
        if count >= self.count {
            return;
        }
        if count == 0 {
            return self.clear();
        }
        self.count = count;
        let end = self.gone + count;
        self.blocks.truncate(end.div_ceil(BLOCK));
        let before = (self.blocks.len() - 1) * BLOCK;
        if let Some(last) = self.blocks.back_mut() {
            last.truncate(end - before);
        }
    }

    /// Lets go of the first `count`.
    pub(super) fn drop_first(&mut self, count: usize) {
        if count >= self.count {
            return self.clear();
        }
        self.count -= count;
        self.gone += count;
        self.blocks.drain(..self.gone / BLOCK);
        self.gone %= BLOCK;
    }

    fn clear(&mut self) {
        *self = Sizes::default();
    }

    /// Those behind the first `skip`, in order.
    pub(super) fn behind(&self, skip: usize) -> impl Iterator<Item = u32> {
        let at = self.gone + skip.min(self.count);
        let mut skip = at % BLOCK;
        let blocks = self.blocks.range((at / BLOCK).min(self.blocks.len())..);
        blocks.flat_map(move |block| block[std::mem::take(&mut skip).min(block.len())..].iter().copied())
    }
}
