//! The mutants of the table and those in the code are the same, each of them once.

use std::collections::BTreeMap;

use crate::source::{Source, Violation, words};

/// Mutants that stand nowhere or twice, or that the file at `table` does not list once. Whoever calls the macro in a
/// test would call it in the code under test next: tests count too.
pub fn check(table: &str, sources: &[Source]) -> Vec<Violation> {
    let in_code = sources.iter().filter(|source| source.path.starts_with("src/") && source.path != table);
    let used: Vec<_> = in_code.flat_map(|source| named(source, "mutant!")).collect();
    let listed: Vec<_> = sources.iter().filter(|source| source.path == table).flat_map(|s| named(s, "bug")).collect();
    let mut violations = twice(&used, "is used in another place too: one mutant is one line");
    violations.extend(twice(&listed, "is listed twice"));
    violations.extend(missing(&used, &listed, "is not in the table"));
    violations.extend(missing(&listed, &used, "is used nowhere"));
    violations
}

/// A name with where it stands.
type Named<'s> = (&'s str, &'s Source, usize);

/// Every `word("name"…` of a file. (The definitions of macro and function have no literal there.)
fn named<'s>(source: &'s Source, word: &'static str) -> Vec<Named<'s>> {
    let name = |at: usize| {
        let rest = source.text[at + word.len()..].strip_prefix('(')?.trim_start();
        let (name, _) = rest.strip_prefix('"')?.split_once('"')?;
        Some((name, source, at))
    };
    words(&source.code, word).filter_map(name).collect()
}

fn twice(named: &[Named<'_>], what: &str) -> Vec<Violation> {
    let mut seen = BTreeMap::new();
    let mut again = |name| seen.insert(name, ()).is_some();
    named.iter().filter(|(name, ..)| again(*name)).map(|found| violation(found, what)).collect()
}

fn missing(named: &[Named<'_>], from: &[Named<'_>], what: &str) -> Vec<Violation> {
    let is_missing = |name: &str| !from.iter().any(|(other, ..)| *other == name);
    named.iter().filter(|(name, ..)| is_missing(name)).map(|found| violation(found, what)).collect()
}

fn violation((name, source, at): &Named<'_>, what: &str) -> Violation {
    source.violation(*at, format!("the mutant `{name}` {what}"))
}

#[test]
fn names_are_compared_both_ways() {
    let sources = [
        Source::new("src/table.rs", "macro_rules! mutant {}\nfn bug(name: &str) {}\nbug(\"a\", \"\"), bug(\n \"c\"),"),
        Source::new("src/x.rs", "if mutant!(\"a\") {} // mutant!(\"comment\")"),
        Source::new("src/y.rs", "mutant!(\"a\")\nmutant!(\"b\")"),
        Source::new("tests/z.rs", "mutant!(\"elsewhere\")"),
    ];
    let mut found: Vec<String> = check("src/table.rs", &sources).iter().map(ToString::to_string).collect();
    found.sort();
    assert_eq!(
        found,
        [
            "src/table.rs:3: the mutant `c` is used nowhere",
            "src/y.rs:1: the mutant `a` is used in another place too: one mutant is one line",
            "src/y.rs:2: the mutant `b` is not in the table",
        ]
    );
}
