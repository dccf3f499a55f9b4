//! The tables of exhibits and rules, and the tests that carry their numbers: a number stands in a comment of a test,
//! as in `museum 13, rule 2`, and the tables name the tests.

use std::collections::BTreeMap;

use crate::source::{Source, Violation, item_end, words};

/// A table's heading, and the word before its numbers.
const TABLES: [(&str, &str); 2] = [("## Exhibits", "museum"), ("## Rules", "rule")];
/// What a row says instead of a test.
const LATER: &str = "later:";

/// A row of one of the tables.
struct Row<'a> {
    word: &'static str,
    number: u32,
    /// Where it stands in the document.
    at: usize,
    text: &'a str,
}

/// Rows without a test, names of tests that are not there, tests without their row's number, numbers without a row.
pub fn violations(document: &str, sources: &[Source]) -> Vec<Violation> {
    let Some(document) = sources.iter().find(|source| source.path == document) else {
        return vec![Source::new(document, "").violation(0, "is missing: it says which test holds what")];
    };
    let rows = rows(&document.text);
    let mut violations: Vec<Violation> = rows.iter().flat_map(|row| of_row(row, document, sources)).collect();
    for (_, word) in TABLES {
        let of_word = || rows.iter().filter(|row| row.word == word);
        for (expected, row) in (1..).zip(of_word()).filter(|(expected, row)| *expected != row.number) {
            violations.push(document.violation(row.at, format!("row {} stands where {expected} should", row.number)));
        }
        let tests = sources.iter().filter(|source| source.is_rust() || source.path.contains("/testdata/"));
        for source in tests.filter(|source| !source.path.starts_with("tests/tidy")) {
            let unknown = numbers(&source.text, word).filter(|(_, number)| of_word().all(|row| row.number != *number));
            violations
                .extend(unknown.map(|(at, number)| source.violation(at, format!("{word} {number} is in no table"))));
        }
    }
    violations
}

fn of_row(row: &Row<'_>, document: &Source, sources: &[Source]) -> Vec<Violation> {
    let quoted: Vec<&str> = row.text.split('`').skip(1).step_by(2).collect();
    let tests: Vec<&str> = quoted.into_iter().filter(|text| text.contains("::") || text.ends_with(".txt")).collect();
    if tests.is_empty() && !row.text.contains(LATER) {
        return vec![
            document.violation(row.at, format!("{} {} names no test and nothing `{LATER}`", row.word, row.number)),
        ];
    }
    let missing = |test: &&str| match text_of(test, sources) {
        None => Some(format!("{} {} names `{test}`, which is not there", row.word, row.number)),
        Some(text) if numbers(text, row.word).any(|(_, number)| number == row.number) => None,
        Some(_) => Some(format!("`{test}` does not carry {} {}", row.word, row.number)),
    };
    tests.iter().filter_map(missing).map(|what| document.violation(row.at, what)).collect()
}

fn rows(text: &str) -> Vec<Row<'_>> {
    let (mut word, mut at, mut rows) = (None, 0, Vec::new());
    for line in text.split_inclusive('\n') {
        if line.starts_with("## ") {
            word = TABLES.iter().find(|(heading, _)| line.trim_end() == *heading).map(|(_, word)| *word);
        }
        let number = line.strip_prefix("| ").and_then(|line| line.split_once(" |")?.0.parse().ok());
        if let (Some(word), Some(number)) = (word, number) {
            rows.push(Row { word, number, at, text: line });
        }
        at += line.len();
    }
    rows
}

/// A test with the comments above it, `path::function`, or the whole of a golden script.
fn text_of<'a>(test: &str, sources: &'a [Source]) -> Option<&'a str> {
    let (path, function) = test.split_once("::").unwrap_or((test, ""));
    let source = sources.iter().find(|source| source.path == path)?;
    if function.is_empty() {
        return Some(&source.text);
    }
    let at = words(&source.code, function).find(|at| source.code[..*at].trim_end().ends_with("fn"))?;
    Some(&source.text[start_of_comments(&source.text, at)..item_end(&source.code, at)])
}

/// Where the comments and attributes above the line of `at` begin.
fn start_of_comments(text: &str, at: usize) -> usize {
    let line_start = |at: usize| text[..at].rfind('\n').map_or(0, |end| end + 1);
    let mut start = line_start(at);
    while start > 0 {
        let before = line_start(start - 1);
        let line = text[before..start].trim_start();
        if !line.starts_with("//") && !line.starts_with("#[") {
            break;
        }
        start = before;
    }
    start
}

/// The numbers behind a word, one or several: `museum 13` and `museum 2, 15, 38`.
fn numbers<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = (usize, u32)> + 'a {
    let lists = words(text, word).filter_map(move |at| Some((at, text[at + word.len()..].strip_prefix(' ')?)));
    lists.flat_map(|(at, list)| {
        let end = list.find(|letter: char| !letter.is_ascii_digit() && !", ".contains(letter)).unwrap_or(list.len());
        list[..end].split(", ").map_while(|number| number.trim().parse().ok()).map(move |number| (at, number))
    })
}

#[test]
fn numbers_are_read_from_lists() {
    let mut found: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    let text = "// museum 2, 15, 38: words, 9\n// museum 8, museum 9, rule 3\n// a museum of rules 7, museums 5\n";
    for word in ["museum", "rule"] {
        found.insert(word, numbers(text, word).map(|(_, number)| number).collect());
    }
    assert_eq!(found, BTreeMap::from([("museum", vec![2, 15, 38, 8, 9]), ("rule", vec![3])]));
}

#[test]
fn every_way_to_be_wrong_is_found() {
    let tests = Source::new(
        "src/a_test.rs",
        "// museum 1\n#[test]\nfn one() {\n    two();\n}\n\n#[test]\nfn two() {\n    // museum 9, rule 1\n}\n",
    );
    let script = Source::new("a/testdata/x.txt", "# museum 1\n");
    let wrong = |document: &str| -> Vec<String> {
        let sources = [
            Source::new("E.md", document),
            Source::new("src/a_test.rs", &tests.text),
            Source::new("a/testdata/x.txt", &script.text),
        ];
        violations("E.md", &sources).iter().map(ToString::to_string).collect()
    };
    let head = "## Exhibits\n| 1 | a | `src/a_test.rs::one`, `a/testdata/x.txt` |\n";
    let middle = "| 2 | b | later: c |\n";
    let rules = "## Rules\n| 1 | r | `src/a_test.rs::two` |\n## Else\n| 7 | x | |\n";
    assert_eq!(wrong(&[head, middle, rules].concat()), ["src/a_test.rs:9: museum 9 is in no table"]);
    let bad = "| 3 | b | nothing |\n| 4 | c | `src/a_test.rs::three` `src/a_test.rs::two` |\n";
    let found = wrong(&[head, bad, rules].concat());
    let expected =
        ["names no test", "`src/a_test.rs::three`, which is not there", "`src/a_test.rs::two` does not carry"];
    for what in expected.into_iter().chain(["row 3 stands where 2 should", "row 4 stands where 3 should"]) {
        assert!(found.iter().any(|line| line.contains(what)), "{what}: {found:?}");
    }
    assert_eq!(found.len(), 6, "{found:?}");
    assert_eq!(violations("E.md", &[]).len(), 1);
}
