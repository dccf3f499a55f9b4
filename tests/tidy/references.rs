//! What the files say of each other: documents name files that exist, and golden files are read by a test.

use std::collections::BTreeSet;

use crate::source::{Source, Violation};

/// Links in documents, and paths between backquotes in documents and source, that lead nowhere.
pub fn dangling(sources: &[Source]) -> Vec<Violation> {
    let known = known_paths(sources);
    let folders: BTreeSet<&str> = known.iter().filter_map(|path| Some(path.split_once('/')?.0)).collect();
    let named = |source: &Source| {
        let folder = source.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let linked = links(source).into_iter().filter_map(|(at, link)| Some((at, resolve(folder, link)?)));
        let quoted = quoted(source).into_iter().filter(|(_, text)| is_path(text, &folders));
        linked.chain(quoted.map(|(at, text)| (at, text.to_string()))).collect::<Vec<_>>()
    };
    let all = sources.iter().flat_map(|source| named(source).into_iter().map(move |(at, path)| (source, at, path)));
    all.filter(|(_, _, path)| !known.contains(path.trim_end_matches('/')))
        .map(|(source, at, path)| source.violation(at, format!("names `{path}`, which is not there")))
        .collect()
}

/// The targets of a document's links, `[text](target)`.
fn links(source: &Source) -> Vec<(usize, &str)> {
    let document = source.path.ends_with(".md");
    let starts = source.text.match_indices("](").map(|(at, mark)| at + mark.len()).filter(|_| document);
    starts.filter_map(|at| Some((at, &source.text[at..at + source.text[at..].find(')')?]))).collect()
}

/// What stands between backquotes on one line of a document or of source.
fn quoted(source: &Source) -> Vec<(usize, &str)> {
    let (mut at, mut found) = (0, Vec::new());
    for line in source.text.split_inclusive('\n').filter(|_| source.is_rust() || source.path.ends_with(".md")) {
        for (piece, text) in line.split('`').enumerate() {
            if piece % 2 == 1 {
                found.push((at, text));
            }
            at += text.len() + 1;
        }
        at -= 1;
    }
    found
}

/// Whether a quoted text means a file of this repository: one word that begins with one of its folders.
fn is_path(text: &str, folders: &BTreeSet<&str>) -> bool {
    let plain = text.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-./".contains(letter));
    plain && text.split_once('/').is_some_and(|(folder, _)| folders.contains(folder))
}

/// A link's file from the repository's root; nothing for another site or a heading of the same document.
fn resolve(folder: &str, link: &str) -> Option<String> {
    let file = link.split('#').next().filter(|file| !file.is_empty() && !file.contains("://"))?;
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in file.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Every file, and every folder that holds one.
fn known_paths(sources: &[Source]) -> BTreeSet<&str> {
    let within = |path| str::match_indices(path, '/').map(move |(at, _)| &path[..at]).chain(std::iter::once(path));
    sources.iter().flat_map(|source| within(source.path.as_str())).collect()
}

/// Golden files that no source beside or below their `testdata` reads: by name, by stem, or by listing their folder.
pub fn unread_golden(sources: &[Source]) -> Vec<Violation> {
    let golden = sources.iter().filter_map(|source| Some((source, source.path.split_once("testdata/")?)));
    let unread = golden.filter(|(_, (owner, place))| {
        let (folder, name) = place.rsplit_once('/').map_or(("testdata", *place), |(folder, name)| (folder, name));
        let stem = name.split('.').next().expect("split yields something");
        let reads = |text: &str| {
            let lists = text.contains("read_dir") && text.contains(folder);
            text.contains(&format!("{name}\"")) || text.contains(&format!("\"{stem}\"")) || lists
        };
        !sources.iter().any(|source| source.is_rust() && source.path.starts_with(owner) && reads(&source.text))
    });
    unread
        .map(|(file, _)| file.violation(0, "no source file reads it: a golden file that nothing compares is dead"))
        .collect()
}

#[test]
fn a_document_names_what_is_there() {
    let text = "[a](guide/there.md) [b](https://x.y/z) [c](#part) `src/lib.rs` `src/raft/` `src/…` `cargo/x` `a b`";
    let good = [Source::new("README.md", text), Source::new("guide/there.md", "[up](../README.md#x)")];
    let files = ["src/lib.rs", "src/raft/mod.rs"].map(|path| Source::new(path, "//! `guide/there.md`"));
    assert_eq!(dangling(&good.into_iter().chain(files).collect::<Vec<_>>()), []);

    let text = "[a](guide/gone.md)\n`guide/gone/`\n";
    let bad = [
        Source::new("README.md", text),
        Source::new("guide/x.md", "[up](README.md)\n"),
        Source::new("guide/x.rs", "//!\n//! `guide/y.md`"),
    ];
    let found: Vec<String> = dangling(&bad).iter().map(ToString::to_string).collect();
    let lines: Vec<&str> = found.iter().map(|line| line.split(": names").next().unwrap()).collect();
    assert_eq!(lines, ["README.md:1", "README.md:2", "guide/x.md:1", "guide/x.rs:2"], "{found:?}");
}

#[test]
fn a_golden_file_that_nothing_reads_is_found() {
    let golden = ["a.hex", "b.hex", "c.hex"].map(|name| Source::new(&format!("protocol/testdata/{name}"), ""));
    let reader = Source::new("protocol/tests/golden.rs", "[\"a\", include_str!(\"testdata/b.hex\")]");
    let elsewhere = Source::new("src/x.rs", "\"c\" read_dir(\"testdata\")");
    let found = unread_golden(&golden.into_iter().chain([reader, elsewhere]).collect::<Vec<_>>());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].to_string().starts_with("protocol/testdata/c.hex:1:"), "{found:?}");

    let script = Source::new("src/raft/testdata/scripts/one.txt", "");
    let reader = Source::new("src/raft/script_test.rs", "fs::read_dir(\"src/raft/testdata/scripts\")");
    assert_eq!(unread_golden(&[script, reader]), []);
}
