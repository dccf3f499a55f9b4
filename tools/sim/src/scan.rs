//! What clients scan, and what a page says by itself: its order, its range, where the next one begins.

use raftkv::client::{Consistency, Page, ScanOptions};

use crate::oracle::Violation;
use crate::plan::Plan;
use crate::random::Random;

/// What a client wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Only keys that begin with this.
    pub prefix: Vec<u8>,
    /// The first key; empty: the lowest.
    pub start: Vec<u8>,
    /// The first key that is not wanted; empty: beyond the highest.
    pub end: Vec<u8>,
    /// From the highest key down.
    pub reverse: bool,
    /// At most so many items a page; 0: as many as the server gives.
    pub limit: u32,
    /// Whether any node may answer what it has, however old.
    pub stale: bool,
    /// The client has seen enough after so many pages.
    pub pages_max: u64,
}

/// A scan and how far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// What is wanted.
    pub wish: Wish,
    /// The last key of the page before; empty for the first page.
    cursor: Vec<u8>,
    /// Pages so far.
    pages: u64,
}

impl Wish {
    /// Every key, as many as the server gives at a time; not without end if that is few.
    #[must_use]
    pub fn everything(reverse: bool) -> Wish {
        Wish { reverse, pages_max: 16, ..Wish::default() }
    }

    /// What a client might want to see: mostly keys that are in use, sometimes all or none.
    #[must_use]
    pub fn draw(plan: &Plan, now: u64, random: &mut Random) -> Wish {
        let generation = now / plan.keys_live;
        let earlier = generation.saturating_sub(random.below(2));
        let prefix = match random.below(8) {
            0..3 => String::new(),
            3..6 => format!("{generation}/"),
            6 => format!("{earlier}/{}", random.below(3)),
            _ => earlier.to_string(),
        };
        let mut bound = || match random.below(3) {
            0 => plan.key(generation.saturating_sub(random.below(2)), random.below(plan.keys)),
            _ => Vec::new(),
        };
        Wish {
            prefix: prefix.into_bytes(),
            start: bound(),
            end: bound(),
            reverse: random.coin(),
            limit: match random.below(8) {
                0..4 => random.between(1, 4) as u32,
                4..7 => random.between(5, 40) as u32,
                _ => 0,
            },
            stale: random.below(4) == 0,
            pages_max: random.skewed(1, 32),
        }
    }

    fn wants(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix) && key >= &self.start[..] && (self.end.is_empty() || key < &self.end[..])
    }

    /// Whether the second key comes behind the first.
    fn is_behind(&self, first: &[u8], second: &[u8]) -> bool {
        if self.reverse { second < first } else { second > first }
    }
}

impl Scan {
    /// Before its first page.
    #[must_use]
    pub fn of(wish: Wish) -> Scan {
        Scan { wish, ..Scan::default() }
    }

    /// Whether this is not the first page.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        self.pages > 0
    }

    /// What the client library is asked for, `fresh` unless it may be old.
    #[must_use]
    pub fn options(&self, fresh: Consistency) -> ScanOptions {
        let Wish { prefix, start, end, reverse, limit, stale, .. } = &self.wish;
        let options = ScanOptions::prefix(prefix).start(start).end(end).cursor(&self.cursor).limit(*limit);
        let options = if *reverse { options.reverse() } else { options };
        options.consistency(if *stale { Consistency::Stale } else { fresh })
    }

    /// Whether the page, from where the one before ended to where it ends itself, would show the key if there were one.
    #[must_use]
    pub fn covers(&self, page: &Page, key: &[u8]) -> bool {
        let begins_before = self.cursor.is_empty() || self.wish.is_behind(&self.cursor, key);
        let ends_before = page.cursor.as_ref().is_some_and(|last| self.wish.is_behind(last, key));
        self.wish.wants(key) && begins_before && !ends_before
    }

    /// What must hold of any page: its keys are wanted, in order, and behind those of the page before; there are no
    /// more than asked for; the next page begins behind the last key, and if there is one, there is such a key.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self, page: &Page) -> Result<(), Violation> {
        let keys = || page.items.iter().map(|item| &item.key[..]);
        let wrong = |what: &str| {
            let keys: Vec<_> = keys().map(|key| key.escape_ascii().to_string()).collect();
            let cursor = page.cursor.as_deref().map(|key| key.escape_ascii().to_string());
            let what = format!("{what}: {self:?} has the page {keys:?} with the cursor {cursor:?}");
            Err(Violation::of("a page is a part of what was asked for, in order", what))
        };
        if !keys().all(|key| self.wish.wants(key)) {
            return wrong("a key is out of range");
        }
        let before = Some(&self.cursor[..]).filter(|cursor| !cursor.is_empty());
        let in_order =
            before.into_iter().chain(keys()).is_sorted_by(|first, second| self.wish.is_behind(first, second));
        if !in_order {
            return wrong("a key is out of order, or is shown twice");
        }
        if self.wish.limit > 0 && page.items.len() > self.wish.limit as usize {
            return wrong("there are too many items");
        }
        if page.cursor.is_some() && page.cursor.as_deref() != keys().next_back() {
            return wrong("the next page does not begin behind the last key");
        }
        Ok(())
    }

    /// The next page, if there is one and the client wants to see it.
    #[must_use]
    pub fn next(&self, page: &Page) -> Option<Scan> {
        let pages = self.pages + 1;
        let cursor = page.cursor.clone().filter(|_| pages < self.wish.pages_max)?;
        Some(Scan { wish: self.wish.clone(), cursor, pages })
    }
}
