//! A queue in blocks: whatever is added at its end or dropped at its front, nothing of it is moved, and its memory comes
//! and goes a block at a time. In one piece a million entries would be moved whenever the piece grows, and to give its
//! memory back takes the kernel milliseconds.

use std::collections::VecDeque;

/// Items in a block.
pub(super) const BLOCK: usize = 256;

/// See the module.
#[derive(Debug)]
pub(super) struct Blocks<T> {
    /// All of them are full but the first and the last, and none is empty but an only one.
    blocks: VecDeque<VecDeque<T>>,
    len: usize,
}

impl<T> Default for Blocks<T> {
    fn default() -> Blocks<T> {
        Blocks { blocks: VecDeque::new(), len: 0 }
    }
}

impl<T> FromIterator<T> for Blocks<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Blocks<T> {
        let mut blocks = Blocks::default();
        items.into_iter().for_each(|item| blocks.push(item));
        blocks
    }
}

impl<T> Blocks<T> {
    /// How many items there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds one behind the last.
    pub(super) fn push(&mut self, item: T) {
        self.len += 1;
        if let Some(block) = self.blocks.back_mut().filter(|block| block.len() < BLOCK) {
            return block.push_back(item);
        }
        // The first grows with what is in it: many queues are short.
        let capacity = if self.blocks.is_empty() { 0 } else { BLOCK };
        let mut block = VecDeque::with_capacity(capacity);
        block.push_back(item);
        self.blocks.push_back(block);
    }

    /// The one behind the first `skip`.
    pub(super) fn get(&self, skip: usize) -> Option<&T> {
        let (block, at) = self.position(skip);
        self.blocks.get(block)?.get(at)
    }

    /// Those behind the first `skip`, in order.
    pub(super) fn behind(&self, skip: usize) -> impl Iterator<Item = &T> {
        let (block, mut at) = self.position(skip.min(self.len));
        let blocks = self.blocks.range(block.min(self.blocks.len())..);
        blocks.flat_map(move |block| block.range(std::mem::take(&mut at)..))
    }

    /// Takes out the first `count`, and hands each of them to `each`.
    pub(super) fn drop_first(&mut self, count: usize, mut each: impl FnMut(T)) {
        let mut left = count.min(self.len);
        self.len -= left;
        while left > 0
            && let Some(first) = self.blocks.front_mut()
        {
            let gone = left.min(first.len());
            left -= gone;
            first.drain(..gone).for_each(&mut each);
            if first.is_empty() && self.blocks.len() > 1 {
                self.blocks.pop_front();
            }
        }
    }

    /// Takes out all but the first `count`, and hands each of them to `each`.
    pub(super) fn truncate(&mut self, count: usize, mut each: impl FnMut(T)) {
        let mut left = self.len.saturating_sub(count);
        self.len -= left;
        while left > 0
            && let Some(last) = self.blocks.back_mut()
        {
            let kept = last.len().saturating_sub(left);
            left -= last.len() - kept;
            last.drain(kept..).for_each(&mut each);
            if last.is_empty() && self.blocks.len() > 1 {
                self.blocks.pop_back();
            }
        }
    }

    /// In which block the item behind the first `skip` is, and where in it.
    fn position(&self, skip: usize) -> (usize, usize) {
        let first = self.blocks.front().map_or(0, VecDeque::len);
        match skip.checked_sub(first) {
            Some(behind) => (1 + behind / BLOCK, behind % BLOCK),
            None => (0, skip),
        }
    }
}
