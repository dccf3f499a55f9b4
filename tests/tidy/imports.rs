//! Who imports whom: every path of a layer's code against the table of layers.

use std::collections::BTreeSet;

use crate::source::{Source, Violation, is_word, words};

/// One row of the table: the code at `files` may use the modules in `uses` and its own, and none in `never`.
pub struct Layer {
    /// A file, or a folder with its `/` at the end. The first row that fits a file counts.
    pub files: &'static str,
    /// Its own module, as the others name it.
    pub module: &'static str,
    /// Paths of this repository's modules; each allows what lies below it.
    pub uses: &'static [&'static str],
    /// Paths of other crates, `std` first; each bans what lies below it.
    pub never: &'static [&'static str],
    /// The sentence that a violation ends with.
    pub why: &'static str,
}

/// The crates of this repository as the table names their paths.
const CRATES: &[(&str, &str)] = &[
    ("raftkv_protocol", "protocol"),
    ("raftkv_bench", "bench"),
    ("raftkv_nc", "nc"),
    ("raftkv_fuzz", "fuzz"),
    ("raftkv_history", "history"),
    ("raftkv_sim", "sim"),
    ("raftkv", ""),
    ("crate", ""),
];

/// Imports that the table does not allow, and source that it does not know.
pub fn check(layers: &[Layer], sources: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let banned = layers.iter().flat_map(|layer| layer.never);
    let foreign: BTreeSet<&str> = banned.filter_map(|path| path.split("::").next()).collect();
    for source in sources.iter().filter(|source| source.is_rust()) {
        let Some(layer) = layers.iter().find(|layer| covers(layer.files, &source.path)) else {
            if source.is_test_file() {
                continue;
            }
            violations.push(source.violation(0, "no layer of the table holds this file: every file has its place"));
            continue;
        };
        let paths = paths(source, &foreign).into_iter().filter(|(at, _)| !source.is_test(*at) || covers_tests(layer));
        violations.extend(paths.filter_map(|(at, path)| {
            refused(layer, &path, &foreign).then(|| source.violation(at, format!("uses `{path}`: {}", layer.why)))
        }));
    }
    violations
}

/// Whether `files` of a table names the file at `path`.
pub fn covers(files: &str, path: &str) -> bool {
    if files.ends_with('/') { path.starts_with(files) } else { path == files }
}

/// A row for a folder of tests means its tests; elsewhere tests may reach where the code may not.
fn covers_tests(layer: &Layer) -> bool {
    layer.files.starts_with("tests/") || layer.files.starts_with("benches/")
}

/// Paths of other crates may be used unless the row bans them, paths of ours only if the row has them.
fn refused(layer: &Layer, path: &str, foreign: &BTreeSet<&str>) -> bool {
    let below = |roots: &[&str]| roots.iter().any(|root| is_below(root, path));
    match path.split("::").next() {
        Some(first) if foreign.contains(first) => below(layer.never),
        _ => !below(layer.uses) && !is_below(layer.module, path),
    }
}

fn is_below(root: &str, path: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Every path in the code that begins at a crate, absolute and in full, with where it stands.
fn paths(source: &Source, foreign: &BTreeSet<&str>) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let (own_crate, depth) = place(&source.path);
    for root in foreign.iter().copied().chain(CRATES.iter().map(|(name, _)| *name)) {
        for at in words(&source.code, root).filter(|at| begins_path(&source.code, *at)) {
            let Some(rest) = source.code[at + root.len()..].strip_prefix("::") else { continue };
            let prefix = match CRATES.iter().find(|(name, _)| *name == root) {
                Some(("crate", _)) => own_crate,
                Some((_, prefix)) => prefix,
                None => root,
            };
            found.extend(expand(rest).into_iter().map(|path| (at, join(prefix, &path))));
        }
    }
    found.extend(climbs(&source.code, depth).map(|(at, rest)| (at, join(own_crate, &rest))));
    found
}

/// Paths made of so many `super` that they end at the crate's root.
fn climbs(code: &str, depth: usize) -> impl Iterator<Item = (usize, String)> {
    words(code, "super").filter(|at| begins_path(code, *at)).flat_map(move |at| {
        let mut rest = &code[at..];
        let mut steps = 0;
        while let Some(next) = rest.strip_prefix("super::") {
            (rest, steps) = (next, steps + 1);
        }
        let outside = if steps >= depth && depth > 0 { expand(rest) } else { Vec::new() };
        outside.into_iter().map(move |path| (at, path))
    })
}

/// The table's name for the crate of a file, and how many modules deep the file's own module lies in it; no depth
/// for tests and benches, whose files each say which module they are.
fn place(path: &str) -> (&'static str, usize) {
    let (own_crate, inner) = match path.split_once("src/") {
        Some(("protocol/", inner)) => ("protocol", inner),
        Some(("tools/bench/", inner)) => ("bench", inner),
        Some(("tools/nc/", inner)) => ("nc", inner),
        Some(("tools/fuzz/", inner)) => ("fuzz", inner),
        Some(("tools/history/", inner)) => ("history", inner),
        Some(("tools/sim/", inner)) => ("sim", inner),
        Some(("tools/http-load/", inner)) => ("http_load", inner),
        Some(("", inner)) => ("", inner),
        _ if path.starts_with("benches/") => ("benches", ""),
        _ => ("tests", ""),
    };
    let parts = inner.split('/').filter(|part| !["mod.rs", "lib.rs", "main.rs", ""].contains(part));
    (own_crate, parts.count())
}

fn begins_path(code: &str, at: usize) -> bool {
    !code[..at].ends_with("::") && !code[..at].ends_with('.')
}

fn join(prefix: &str, path: &str) -> String {
    match (prefix, path) {
        ("", path) => path.to_string(),
        (prefix, "") => prefix.to_string(),
        (prefix, path) => format!("{prefix}::{path}"),
    }
}

/// The paths that `a::{b, c::d}` stands for. What ends a path (a generic argument, a `*`, a call) is left off.
fn expand(text: &str) -> Vec<String> {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        return split_group(group).into_iter().flat_map(expand).collect();
    }
    let length = text.bytes().take_while(|byte| is_word(*byte)).count();
    let (name, rest) = text.split_at(length);
    match rest.strip_prefix("::") {
        Some(rest) if length > 0 => expand(rest).into_iter().map(|path| join(name, &path)).collect(),
        _ if name == "self" => vec![String::new()],
        _ => vec![name.to_string()],
    }
}

/// The parts of a group whose opening brace has been read, up to the brace that closes it.
fn split_group(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth > 0 => depth -= 1,
            b',' | b'}' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
                if byte == b'}' {
                    break;
                }
            }
            _ => {}
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
const SAMPLE: &[Layer] = &[
    Layer {
        files: "src/raft/",
        module: "raft",
        uses: &["protocol::types", "error"],
        never: &["std::fs", "std::time::Instant::now", "rand"],
        why: "raft knows types",
    },
    Layer { files: "src/server/", module: "server", uses: &["raft", "storage::data_dir"], never: &[], why: "server" },
];

#[test]
fn every_way_to_import_is_seen() {
    let bad = [
        "use crate::server::Node;",
        "use crate::{error::Fatal, server};",
        "use super::super::server;",
        "use raftkv::server;",
        "use raftkv_protocol::{types::{Term, Index}, frame};",
        "use std::{time::Duration, fs};",
        "fn f() { let now = std::time::Instant::now(); }",
        "fn f() -> crate::server::Node { rand::random() }",
    ];
    for (line, expected) in bad.into_iter().zip([1, 1, 1, 1, 1, 1, 1, 2]) {
        let found = check(SAMPLE, &[Source::new("src/raft/leader.rs", line)]);
        assert_eq!(found.len(), expected, "{line}: {found:?}");
    }
    let found = check(SAMPLE, &[Source::new("src/raft/mod.rs", "\nuse super::server::Node;")]);
    assert_eq!(found[0].to_string(), "src/raft/mod.rs:2: uses `server::Node`: raft knows types");
}

#[test]
fn what_the_table_allows_is_left_alone() {
    let good = "use crate::raft::quorum; use super::quorum; use crate::error::Fatal; use raftkv_protocol::types::*;
        use std::time::{Duration, Instant}; pub(in crate::raft) fn f() { self.crate_::server; \"crate::server\"; }
        // crate::server
        #[cfg(test)] mod tests { use crate::server::Node; }";
    assert_eq!(check(SAMPLE, &[Source::new("src/raft/leader.rs", good)]), []);
    let good = "use crate::storage::data_dir::{DataDir, self};";
    assert_eq!(check(SAMPLE, &[Source::new("src/server/mod.rs", good)]), []);
}

#[test]
fn a_part_of_a_layer_is_not_the_whole_and_no_file_is_without_a_layer() {
    let bad = [
        Source::new("src/server/mod.rs", "use crate::storage::{data_dir, core_log};"),
        Source::new("src/other/mod.rs", ""),
    ];
    let found: Vec<String> = check(SAMPLE, &bad).iter().map(ToString::to_string).collect();
    assert!(found[0].contains("`storage::core_log`"), "{found:?}");
    assert!(found[1].starts_with("src/other/mod.rs:1: no layer"), "{found:?}");
}
