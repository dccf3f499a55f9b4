//! Runs compared with a map that says of each entry where it is.

use std::collections::BTreeMap;

use proptest::prelude::*;
use raftkv_protocol::types::Index;

use super::runs::{Runs, Whereabouts};

/// Says the same of each entry for itself.
#[derive(Debug, Default)]
struct Naive {
    start: u64,
    last: u64,
    live: BTreeMap<u64, u64>,
    copies: BTreeMap<u64, u64>,
}

impl Naive {
    fn entry(&mut self, index: u64, at: u64) {
        self.live.split_off(&index);
        self.copies.split_off(&index);
        self.live.insert(index, at);
        self.last = index;
    }

    fn copy(&mut self, index: u64, at: u64) {
        if self.copies.last_key_value().is_none_or(|(last, _)| last + 1 != index) {
            self.copies.clear();
        }
        self.copies.insert(index, at);
    }

    fn copied(&mut self, first: u64, last: u64) {
        for (index, at) in std::mem::take(&mut self.copies) {
            if first <= index && index <= last && self.live.contains_key(&index) {
                self.live.insert(index, at);
            }
        }
    }

    fn compact(&mut self, start: u64) {
        self.start = start;
        self.live = self.live.split_off(&(start + 1));
    }
}

#[derive(Clone, Debug)]
enum Op {
    Entry(u64),
    /// So many copies, from where the last ones end, or else from so far behind the start.
    Copies(u64, u64),
    /// Of what is copied, all but so much at either end.
    Copied(u64, u64),
    Compact(u64),
    Reset(u64),
    NextPlace,
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0u64..6).prop_map(Op::Entry),
        4 => (0u64..20, 0u64..8).prop_map(|(skip, count)| Op::Copies(skip, count)),
        2 => (0u64..3, 0u64..3).prop_map(|(first, last)| Op::Copied(first, last)),
        1 => (0u64..12).prop_map(Op::Compact),
        1 => (0u64..3).prop_map(Op::Reset),
        4 => Just(Op::NextPlace),
    ]
}

fn run(ops: &[Op]) {
    let (mut naive, mut runs, mut place) = (Naive::default(), Whereabouts::default(), 1);
    for op in ops {
        match *op {
            Op::Entry(back) => {
                let index = (naive.last + 1).saturating_sub(back / 2 * back).max(naive.start + 1);
                naive.entry(index, place);
                runs.entry(Index(index), place);
            }
            Op::Copies(skip, count) => {
                let next = naive.copies.last_key_value().map(|(last, _)| last + 1);
                let first = next.filter(|_| skip > 3).unwrap_or(naive.start + 1 + skip);
                for index in first..=(first + count).min(naive.last) {
                    naive.copy(index, place);
                    runs.copy(Index(index), place);
                }
            }
            Op::Copied(skip, less) => {
                let (Some((first, _)), Some((last, _))) =
                    (naive.copies.first_key_value(), naive.copies.last_key_value())
                else {
                    assert_eq!(runs.copies_first(), None);
                    continue;
                };
                let (first, last) = (first + skip, last - less.min(*last));
                naive.copied(first, last);
                let end = Index(naive.last);
                if let Some(copied) = runs.copied(Index(naive.start), Index(first), Index(last).min(end)) {
                    runs.use_copies(copied, end);
                }
                runs.drop_copies();
            }
            Op::Compact(by) => {
                naive.compact((naive.start + by).min(naive.last));
                runs.compact(Index(naive.start), Index(naive.last));
            }
            Op::Reset(by) => {
                let start = naive.last + by;
                naive = Naive { start, last: start, ..Naive::default() };
                runs.reset();
            }
            Op::NextPlace => place += 1,
        }
        check(&naive, runs.live());
    }
    check(&naive, runs.map(|place| place * 2).map(|place| place / 2).live());
}

fn check(naive: &Naive, runs: &Runs<u64>) {
    assert_eq!(runs.oldest(), naive.live.values().min().copied());
    assert!(runs.len() <= naive.live.len());
    let last = Index(naive.last);
    for first in naive.start + 1..=naive.last {
        let parts = runs.parts(Index(first), last, last);
        let told: Vec<(u64, u64)> =
            parts.flat_map(|part| (part.first.0..=part.last.0).map(move |index| (index, part.at))).collect();
        let known: Vec<(u64, u64)> = naive.live.range(first..).map(|(index, at)| (*index, *at)).collect();
        assert_eq!(told, known);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn runs_say_where_each_entry_is(ops in proptest::collection::vec(any_op(), 0..60)) {
        run(&ops);
    }
}
