//! A queue in blocks: whatever is added at its end or dropped at its front, nothing of it is moved, and its memory comes
//! and goes a block at a time. In one piece a million items would be moved whenever the piece grows or shrinks, for a
//! millisecond at a time, and to give its memory back takes the kernel as long.

use std::collections::{VecDeque, vec_deque};

/// See the module. A block has room for `N` items.
#[derive(Debug)]
pub(crate) struct Blocks<T, const N: usize> {
    /// All of them are full but the first and the last, and none is empty.
    blocks: VecDeque<VecDeque<T>>,
    len: usize,
}

impl<T, const N: usize> Default for Blocks<T, N> {
    fn default() -> Blocks<T, N> {
        Blocks { blocks: VecDeque::new(), len: 0 }
    }
}

impl<T, const N: usize> FromIterator<T> for Blocks<T, N> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Blocks<T, N> {
        let mut blocks = Blocks::default();
        items.into_iter().for_each(|item| blocks.push(item));
        blocks
    }
}

impl<T, const N: usize> Blocks<T, N> {
    /// How many items there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds one behind the last.
    pub(crate) fn push(&mut self, item: T) {
        self.len += 1;
        if let Some(block) = self.blocks.back_mut().filter(|block| block.len() < N) {
            return block.push_back(item);
        }
        // The first grows with what is in it: many queues are short.
        let capacity = if self.blocks.is_empty() { 0 } else { N };
        let mut block = VecDeque::with_capacity(capacity);
        block.push_back(item);
        self.blocks.push_back(block);
    }

    /// The one behind the first `skip`.
    pub(crate) fn get(&self, skip: usize) -> Option<&T> {
        let (block, at) = self.position(skip);
        self.blocks.get(block)?.get(at)
    }

    /// Those behind the first `skip`, in order.
    pub(crate) fn behind(&self, skip: usize) -> impl Iterator<Item = &T> {
        let (block, mut at) = self.position(skip.min(self.len));
        let blocks = self.blocks.range(block.min(self.blocks.len())..);
        blocks.flat_map(move |block| block.range(std::mem::take(&mut at)..))
    }

    /// Takes out the first `count`, and hands them to `each`, those of a block at a time.
    pub(crate) fn drop_first(&mut self, count: usize, mut each: impl FnMut(vec_deque::Drain<'_, T>)) {
        let mut left = count.min(self.len);
        self.len -= left;
        while left > 0
            && let Some(first) = self.blocks.front_mut()
        {
            let gone = left.min(first.len());
            left -= gone;
            each(first.drain(..gone));
            if first.is_empty() {
                self.blocks.pop_front();
            }
        }
    }

    /// Takes out all but the first `count`, and hands them to `each`, those of a block at a time.
    pub(crate) fn truncate(&mut self, count: usize, mut each: impl FnMut(vec_deque::Drain<'_, T>)) {
        let mut left = self.len.saturating_sub(count);
        self.len -= left;
        while left > 0
            && let Some(last) = self.blocks.back_mut()
        {
            let kept = last.len().saturating_sub(left);
            left -= last.len() - kept;
            each(last.drain(kept..));
            if last.is_empty() {
                self.blocks.pop_back();
            }
        }
    }

    /// In which block the item behind the first `skip` is, and where in it.
    fn position(&self, skip: usize) -> (usize, usize) {
        let first = self.blocks.front().map_or(0, VecDeque::len);
        match skip.checked_sub(first) {
            Some(behind) => (1 + behind / N, behind % N),
            None => (0, skip),
        }
    }
}
