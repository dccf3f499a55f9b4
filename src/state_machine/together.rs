//! Items whose values are fetched together before they are looked at: they lie anywhere in memory, and one after the other
//! each would be waited for.

use std::hint::black_box;

use arrayvec::ArrayVec;

use super::key::SmallKey;
use super::stored::Stored;

/// So many at a time.
const GROUP: usize = 16;

/// See the module.
pub(super) struct Together<'t, I> {
    items: I,
    group: arrayvec::IntoIter<&'t (SmallKey, Stored), GROUP>,
}

impl<'t, I: Iterator<Item = &'t (SmallKey, Stored)>> Together<'t, I> {
    pub(super) fn of(items: I) -> Together<'t, I> {
        Together { items, group: ArrayVec::new().into_iter() }
    }
}

/// Something of either end of a value, so that it is fetched.
fn touch(stored: &Stored) -> u64 {
    stored.version().0 ^ stored.value().last().copied().map_or(0, u64::from)
}

impl<'t, I: Iterator<Item = &'t (SmallKey, Stored)>> Iterator for Together<'t, I> {
    type Item = &'t (SmallKey, Stored);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let item = self.group.next();
        if item.is_some() {
            return item;
        }
        let group: ArrayVec<_, GROUP> = self.items.by_ref().take(GROUP).collect();
        black_box(group.iter().fold(0, |sum, (_, stored)| sum ^ touch(stored)));
        self.group = group.into_iter();
        self.group.next()
    }
}
