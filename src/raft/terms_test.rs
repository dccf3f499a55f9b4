//! The run-length encoded log against a plain vector.

use proptest::prelude::*;
use raftkv_protocol::types::{EntryId, Index, Term};

use super::terms::Terms;

/// A log as a vector: entry `i` has index `start + 1 + i`.
#[derive(Debug)]
struct Plain {
    start: EntryId,
    entries: Vec<(Term, u32)>,
}

impl Plain {
    fn ids(&self) -> Vec<EntryId> {
        let entry = |(at, &(term, _)): (usize, &(Term, u32))| EntryId {
            index: Index(self.start.index.0 + 1 + at as u64),
            term,
        };
        std::iter::once(self.start).chain(self.entries.iter().enumerate().map(entry)).collect()
    }
}

/// A log that starts somewhere, with terms that never fall.
fn plain() -> impl Strategy<Value = Plain> {
    (0u64..5, proptest::collection::vec((0u64..3, 0u32..50), 0..30)).prop_map(|(start, steps)| {
        let mut term = start;
        let entry = |(step, size): (u64, u32)| {
            term = (term + step / 2).max(1);
            (Term(term), size)
        };
        Plain { start: EntryId::new(start * 7, start), entries: steps.into_iter().map(entry).collect() }
    })
}

fn agree(terms: &Terms, plain: &Plain) -> Result<(), TestCaseError> {
    let ids = plain.ids();
    prop_assert_eq!(Some(&terms.last()), ids.last());
    for index in 0..60 {
        let known = ids.iter().find(|id| id.index.0 == index);
        prop_assert_eq!(terms.term_at(Index(index)), known.map(|id| id.term));
        for term in 0..6 {
            let wanted = EntryId::new(index, term);
            prop_assert_eq!(terms.matches(wanted), ids.contains(&wanted));
            let last = ids[1..].iter().rfind(|id| id.index.0 <= index && id.term.0 <= term).unwrap_or(&plain.start);
            prop_assert_eq!(terms.last_compatible(wanted), *last);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn terms_are_those_of_a_plain_log(mut plain in plain(), cut in 1u64..40, more in 0u64..3) {
        let mut terms = Terms::new(plain.start, &plain.entries);
        agree(&terms, &plain)?;
        let cut = Index(plain.start.index.0 + cut);
        terms.truncate_from(cut);
        plain.entries.truncate((cut.0 - plain.start.index.0 - 1) as usize);
        agree(&terms, &plain)?;
        let term = Term(terms.last().term.0 + more);
        terms.push(term, 1);
        plain.entries.push((term, 1));
        agree(&terms, &plain)?;
    }

    #[test]
    fn a_compacted_log_is_the_rest_of_it(mut plain in plain(), starts in proptest::collection::vec(0usize..30, 1..4)) {
        let mut terms = Terms::new(plain.start, &plain.entries);
        for start in starts {
            let start = start.min(plain.entries.len());
            let id = plain.ids()[start];
            terms.compact(id);
            plain.start = id;
            plain.entries.drain(..start);
            agree(&terms, &plain)?;
            prop_assert_eq!(terms.start(), id);
            let sizes: usize = plain.entries.iter().map(|&(_, size)| size as usize).sum();
            prop_assert_eq!(terms.bytes_between(id.index, terms.last().index), sizes);
        }
        let term = Term(terms.last().term.0.max(1));
        terms.push(term, 7);
        plain.entries.push((term, 7));
        agree(&terms, &plain)?;
    }

    #[test]
    fn a_chunk_is_the_longest_that_fits(plain in plain(), skip in 0usize..40, bytes_max in 0usize..200) {
        let terms = Terms::new(plain.start, &plain.entries);
        let skip = skip.min(plain.entries.len());
        let first = Index(plain.start.index.0 + 1 + skip as u64);
        let (end, bytes) = terms.chunk(first, bytes_max);
        let count = (end.0 - first.0) as usize;
        let sizes: Vec<usize> = plain.entries[skip..].iter().map(|&(_, size)| size as usize).collect();
        prop_assert_eq!(bytes, sizes[..count].iter().sum::<usize>());
        prop_assert_eq!(terms.bytes_between(first.prev(), end.prev()), bytes);
        prop_assert!(bytes <= bytes_max || count == 1);
        prop_assert!(count == sizes.len() || count > 0, "at least one entry goes");
        prop_assert!(count == sizes.len() || bytes + sizes[count] > bytes_max, "one more would have fitted");
    }
}
