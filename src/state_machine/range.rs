//! Which keys a scan wants: prefix, start, end, cursor and direction, made into one pair of bounds.

use std::ops::Bound;

use raftkv_protocol::client::Scan;

use super::tree::Bounds;

/// The keys that a page of a scan may hold, lowest bound first whatever the direction. It may be empty.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ScanRange<'a> {
    lower: &'a [u8],
    lower_included: bool,
    /// Exclusive; `None` is beyond every key.
    upper: Option<Upper<'a>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Upper<'a> {
    Given(&'a [u8]),
    /// The first key behind all that begin with the prefix.
    BehindPrefix(Vec<u8>),
}

impl<'a> ScanRange<'a> {
    pub(super) fn of(scan: &Scan<'a>) -> ScanRange<'a> {
        let mut range = ScanRange {
            lower: scan.start.max(scan.prefix),
            lower_included: true,
            upper: behind_prefix(scan.prefix).map(Upper::BehindPrefix),
        };
        if !scan.end.is_empty() {
            range.cut_above(scan.end);
        }
        if !scan.cursor.is_empty() {
            if scan.reverse {
                range.cut_above(scan.cursor);
            } else {
                range.cut_below(scan.cursor);
            }
        }
        range
    }

    /// Only keys after `cursor`.
    fn cut_below(&mut self, cursor: &'a [u8]) {
        if cursor >= self.lower {
            self.lower = cursor;
            self.lower_included = mutant!("scan-cursor-included");
        }
    }

    /// Only keys before `end`.
    fn cut_above(&mut self, end: &'a [u8]) {
        if self.upper.as_ref().is_none_or(|upper| end < upper.bytes()) {
            self.upper = Some(Upper::Given(end));
        }
    }

    /// The bounds to ask the map for; `None` if nothing lies between them.
    pub(super) fn bounds(&self) -> Option<Bounds<'_>> {
        let lower = if self.lower_included { Bound::Included(self.lower) } else { Bound::Excluded(self.lower) };
        match self.upper.as_ref().map(Upper::bytes) {
            None => Some((lower, Bound::Unbounded)),
            Some(upper) if self.lower < upper => Some((lower, Bound::Excluded(upper))),
            Some(_) => None,
        }
    }
}

impl Upper<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Upper::Given(end) => end,
            Upper::BehindPrefix(end) => end,
        }
    }
}

/// The first key that is greater than all that begin with `prefix`, if there is any.
fn behind_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}
