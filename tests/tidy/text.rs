//! Words that may stand only in listed files, or nowhere.

use crate::imports::covers;
use crate::source::{Source, Violation, words};

/// A word of code that only listed files may hold.
pub struct Confined {
    /// Any of these.
    pub words: &'static [&'static str],
    /// Only code in these files or folders is looked at; empty for all.
    pub within: &'static [&'static str],
    /// The files or folders where it may stand, each with the reason.
    pub listed: &'static [(&'static str, &'static str)],
    /// Whether code that is compiled for tests only is looked at too.
    pub tests: Tests,
    /// The sentence that a violation ends with.
    pub why: &'static str,
}

/// Whether a rule holds in tests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tests {
    /// It does.
    Held,
    /// They are free.
    Free,
}

/// Confined words outside their files, and listed files that need no listing any more.
pub fn confined(rule: &Confined, sources: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut needed = vec![false; rule.listed.len()];
    for source in sources.iter().filter(|source| source.is_rust() && within(rule, &source.path)) {
        for (at, word) in rule.words.iter().flat_map(|word| words(&source.code, word).map(move |at| (at, word))) {
            if rule.tests == Tests::Free && source.is_test(at) {
                continue;
            }
            match rule.listed.iter().position(|(files, _)| covers(files, &source.path)) {
                Some(row) => needed[row] = true,
                None => violations.push(source.violation(at, format!("`{word}`: {}", rule.why))),
            }
        }
    }
    let idle = rule.listed.iter().zip(needed).filter(|(_, needed)| !needed);
    violations.extend(idle.map(|((files, _), _)| {
        Source::new(files, "").violation(0, format!("is listed but holds no {:?}: take it off the list", rule.words))
    }));
    violations
}

fn within(rule: &Confined, path: &str) -> bool {
    rule.within.is_empty() || rule.within.iter().any(|files| covers(files, path))
}

/// Words that no file may hold in any place, comments and documents included; each with the reason.
pub fn banned(banned: &[(String, &str)], sources: &[Source]) -> Vec<Violation> {
    let found = sources.iter().flat_map(|source| {
        banned.iter().flat_map(move |(word, why)| {
            words(&source.text, word).map(move |at| source.violation(at, format!("`{word}`: {why}")))
        })
    });
    found.collect()
}

/// Folders of the machine that something was written on, at the start of a path.
pub fn machine_paths(folders: &[String], sources: &[Source]) -> Vec<Violation> {
    let found = sources.iter().flat_map(|source| {
        folders.iter().flat_map(move |folder| {
            let starts = words(&source.text, folder).filter(|at| starts_path(&source.text[..*at]));
            starts.map(move |at| source.violation(at, format!("`{folder}`: nobody else's machine has it")))
        })
    });
    found.collect()
}

fn starts_path(before: &str) -> bool {
    !before.ends_with(|last: char| last.is_alphanumeric() || "_-.}*/>".contains(last))
}

#[cfg(test)]
const SAMPLE: Confined = Confined {
    words: &["unsafe"],
    within: &["src/"],
    listed: &[("src/map.rs", "maps files")],
    tests: Tests::Free,
    why: "only where listed",
};

#[test]
fn a_confined_word_is_found_outside_its_files() {
    let there = Source::new("src/map.rs", "unsafe {}");
    let bad = Source::new("src/raft.rs", "// unsafe\nfn f() { unsafe { g() } }");
    let good = Source::new("src/loop.rs", "#![forbid(unsafe_code)] #[cfg(test)] fn f() { unsafe {} }");
    let found = confined(&SAMPLE, &[there, bad, good, Source::new("tools/x.rs", "unsafe {}")]);
    assert_eq!(
        found.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["src/raft.rs:2: `unsafe`: only where listed"]
    );
}

#[test]
fn a_list_shrinks_with_the_code() {
    let found = confined(&SAMPLE, &[Source::new("src/map.rs", "fn f() {}")]);
    assert!(found[0].to_string().starts_with("src/map.rs:1: is listed but"), "{found:?}");
}

#[test]
fn banned_words_are_found_in_comments_and_documents_too() {
    let rule = [("LATER".to_string(), "do it now")];
    let sources =
        [Source::new("a.rs", "\n// LATER: all"), Source::new("b.md", "LATER"), Source::new("c.rs", "LATERAL")];
    let found: Vec<String> = banned(&rule, &sources).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["a.rs:2: `LATER`: do it now", "b.md:1: `LATER`: do it now"]);
}

#[test]
fn a_machine_path_is_one_at_the_start_only() {
    let rule = ["/place".to_string()];
    let good = "a/place/b ./place /places {x}/place";
    let found = machine_paths(&rule, &[Source::new("a.md", &format!("{good}\nsee /place/x and \"/place\""))]);
    assert_eq!(found.len(), 2, "{found:?}");
}
