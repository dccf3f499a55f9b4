//! The files of the repository, and Rust source seen as code alone: comments and literals blanked, tests marked.
//! No rule lives here.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::{fmt, fs};

/// One text file of the repository.
pub struct Source {
    /// From the repository's root, with `/`.
    pub path: String,
    /// As it stands.
    pub text: String,
    /// Rust only, else empty: `text` with comments, strings and characters blanked; every byte keeps its place.
    pub code: String,
    /// Ranges of `code` that are compiled for tests only.
    tests: Vec<Range<usize>>,
}

impl Source {
    /// The file as one read it, or as a self-test made it up.
    pub fn new(path: &str, text: &str) -> Source {
        let code = if path.ends_with(".rs") { code_of(text) } else { String::new() };
        let whole = path.rsplit('/').any(|part| ["tests", "benches", "examples"].contains(&part));
        let tests = if whole { std::iter::once(0..code.len()).collect() } else { test_items(&code) };
        Source { path: path.to_string(), text: text.to_string(), code, tests }
    }

    /// Whether the byte at `offset` of `code` is compiled for tests only.
    pub fn is_test(&self, offset: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&offset))
    }

    /// Whether all of it is compiled for tests only.
    pub fn is_test_file(&self) -> bool {
        self.tests.contains(&(0..self.code.len()))
    }

    /// Whether it is Rust.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The line, counted from 1, of a byte.
    pub fn line(&self, offset: usize) -> usize {
        self.text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// A violation at a byte of this file.
    pub fn violation(&self, offset: usize, what: impl Into<String>) -> Violation {
        Violation { path: self.path.clone(), line: self.line(offset), what: what.into() }
    }

    /// The files of the modules that this one declares where it is compiled for tests only; both places where each
    /// may lie.
    fn test_modules(&self) -> Vec<String> {
        let (folder, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let within = match name {
            "mod.rs" | "lib.rs" | "main.rs" => folder.to_string(),
            _ => format!("{folder}/{}", name.trim_end_matches(".rs")),
        };
        let declared = words(&self.code, "mod").filter(|at| self.is_test(*at)).filter_map(|at| {
            let (module, _) = self.code[at + "mod".len()..].split_once(';')?;
            module.trim().bytes().all(is_word).then(|| module.trim())
        });
        declared.flat_map(|module| [format!("{within}/{module}.rs"), format!("{within}/{module}/mod.rs")]).collect()
    }
}

/// What a rule found: `file:line: what, why`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Every text file of the repository at `root`, apart from what `.gitignore` names and what git itself keeps.
pub fn repository(root: &Path) -> Vec<Source> {
    let ignored = fs::read_to_string(root.join(".gitignore")).expect(".gitignore can be read");
    // What a tool generates is as the tool writes it.
    let ignored: Vec<&str> =
        ignored.lines().chain([".git", "generated"]).map(|line| line.trim_end_matches('/')).collect();
    let mut sources = Vec::new();
    collect(root, "", &ignored, &mut sources);
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    mark_test_modules(&mut sources);
    sources
}

fn collect(root: &Path, folder: &str, ignored: &[&str], sources: &mut Vec<Source>) {
    for entry in fs::read_dir(root.join(folder)).expect("a folder of the repository can be listed") {
        let entry = entry.expect("a folder of the repository can be listed");
        let name = entry.file_name().into_string().expect("names in the repository are text");
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        let kind = entry.file_type().expect("a file's type can be read");
        if ignored.iter().any(|line| is_ignored(line, &name, &path)) {
            continue;
        } else if kind.is_dir() {
            collect(root, &path, ignored, sources);
        } else if let (true, Ok(text)) = (kind.is_file(), fs::read_to_string(entry.path())) {
            sources.push(Source::new(&path, &text));
        }
    }
}

/// Whether a line of `.gitignore` means this file: a place from the root on, or a name anywhere.
fn is_ignored(line: &str, name: &str, path: &str) -> bool {
    line.strip_prefix('/').map_or(line == name, |place| place == path)
}

/// A file that is declared under `#[cfg(test)]` is a test as a whole, and so are the files that it declares.
pub fn mark_test_modules(sources: &mut [Source]) {
    loop {
        let modules: BTreeSet<String> = sources.iter().flat_map(Source::test_modules).collect();
        let found = sources.iter_mut().filter(|source| !source.is_test_file() && modules.contains(&source.path));
        if found.map(|source| source.tests = std::iter::once(0..source.code.len()).collect()).count() == 0 {
            return;
        }
    }
}

/// Whether a byte can be part of a Rust name.
pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Where `word` stands in `text` as a whole word: not as a part of a longer name.
pub fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = text.as_bytes();
    let (first, last) = (word.as_bytes()[0], word.as_bytes()[word.len() - 1]);
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = is_word(first) && at > 0 && is_word(bytes[at - 1]);
        let after = is_word(last) && bytes.get(at + word.len()).is_some_and(|byte| is_word(*byte));
        !before && !after
    })
}

/// Where the item that begins at `start` ends: behind its `;`, or behind the brace that closes its body.
pub fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b'}' if depth <= 1 => return at + 1,
            b'}' => depth -= 1,
            b';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

fn test_items(code: &str) -> Vec<Range<usize>> {
    let attributes = code.match_indices("#[cfg(").filter_map(|(start, _)| {
        let end = start + code[start..].find(']')? + 1;
        let condition = &code[start..end];
        let for_tests = words(condition, "test").next().is_some() && !condition.contains("not(test)");
        for_tests.then_some((start, end))
    });
    attributes.map(|(start, end)| start..item_end(code, behind_attributes(code, end))).collect()
}

fn behind_attributes(code: &str, mut at: usize) -> usize {
    loop {
        at += code[at..].len() - code[at..].trim_start().len();
        match (code[at..].starts_with("#["), code[at..].find(']')) {
            (true, Some(length)) => at += length + 1,
            _ => return at,
        }
    }
}

/// `text` with comments, strings and character literals blanked, byte for byte; line ends stay.
fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let length = blank_length(bytes, at);
        for byte in &mut code[at..at + length] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at += length.max(1);
    }
    String::from_utf8(code).expect("whole comments and literals are blanked, so whole characters")
}

/// How many bytes from `at` on are one comment or literal; 0 if what begins there is code.
fn blank_length(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let in_name = at > 0 && is_word(bytes[at - 1]);
    match rest {
        [b'/', b'/', ..] => rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => comment_length(rest),
        [b'"', ..] => string_length(rest),
        [b'r', b'"' | b'#', ..] if !in_name => raw_string_length(rest, 1),
        [b'b' | b'c', b'r', b'"' | b'#', ..] if !in_name => raw_string_length(rest, 2),
        [b'\'', ..] => char_length(rest),
        _ => 0,
    }
}

/// Block comments nest.
fn comment_length(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at + 1 < rest.len() {
        match &rest[at..at + 2] {
            b"/*" => (at, depth) = (at + 2, depth + 1),
            b"*/" => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn string_length(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// A raw string with its `r` and hashes, or 0 for a raw name such as `r#type`.
fn raw_string_length(rest: &[u8], prefix: usize) -> usize {
    let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
    let open = prefix + hashes;
    if rest.get(open) != Some(&b'"') {
        return 0;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = &rest[open + 1..];
    let length = body.windows(close.len()).position(|window| window == close).unwrap_or(body.len());
    (open + 1 + length + close.len()).min(rest.len())
}

/// A character literal, or 0 for a lifetime.
fn char_length(rest: &[u8]) -> usize {
    match rest {
        [_, b'\\', _, tail @ ..] => 3 + tail.iter().position(|byte| *byte == b'\'').map_or(0, |end| end + 1),
        [_, first, tail @ ..] if *first >= 0x80 => {
            let end = tail.iter().take(4).position(|byte| *byte == b'\'');
            end.map_or(0, |end| end + 3)
        }
        [_, _, b'\'', ..] => 3,
        _ => 0,
    }
}

#[test]
fn comments_and_literals_are_not_code() {
    let text =
        "a /* b /* c */ d */ e \"f\\\"g\" h 'i' '\\'' '\u{e9}' &'j k r#\"l\"m\"# n // o\np b\"q\" r#type br\"s\" ";
    let code = code_of(text);
    assert_eq!(code.len(), text.len());
    assert_eq!(code.split_whitespace().collect::<String>(), "aeh&'jknpbr#type");
}

#[test]
fn test_items_are_marked_and_nothing_else() {
    let text = "fn a() {}\n#[cfg(test)]\n#[path = \"x\"]\nmod b { fn c() {} }\n#[cfg(not(test))]\nfn d() {}";
    let source = Source::new("src/raft/mod.rs", text);
    let marked = |name: &str| source.is_test(text.find(name).unwrap());
    assert_eq!(["fn a", "mod b", "fn c", "fn d"].map(marked), [false, true, true, false]);
}

#[test]
fn the_file_of_a_test_module_is_a_test() {
    let parent = "#[cfg(test)]\nmod cluster;\nmod leader;\n#[cfg(all(test, unix))]\npub(super) mod peer;";
    let mut sources = vec![Source::new("src/raft/mod.rs", parent), Source::new("src/raft/peer/mod.rs", "mod link;")];
    let leaves = ["src/raft/cluster.rs", "src/raft/leader.rs", "src/raft/peer/link.rs"];
    sources.extend(leaves.map(|path| Source::new(path, "fn f() {}")));
    mark_test_modules(&mut sources);
    let marked: Vec<bool> = sources.iter().map(Source::is_test_file).collect();
    assert_eq!(marked, [false, true, true, false, true]);
}

#[test]
fn ignored_files_are_left_out() {
    assert!(is_ignored("/data", "data", "data") && !is_ignored("/data", "data", "src/data"));
    assert!(is_ignored("target", "target", "tools/x/target") && !is_ignored("target", "targets", "targets"));
}

#[test]
fn words_are_whole() {
    assert_eq!(words("a::now nows known now()", "now").collect::<Vec<_>>(), [3, 18]);
    assert_eq!(words("x.unwrap() y.unwrap_or()", ".unwrap()").collect::<Vec<_>>(), [1]);
}
