//! How long a function and a file may be.

use std::collections::BTreeMap;

use crate::source::{Source, Violation, item_end, words};

/// Files of more than `lines_max` lines, tests apart.
pub fn files(lines_max: usize, sources: &[Source]) -> Vec<Violation> {
    let code = sources.iter().filter(|source| source.is_rust() && !source.is_test_file());
    let long = code.map(|source| (source, source.text.lines().count())).filter(|(_, lines)| *lines > lines_max);
    long.map(|(source, lines)| {
        source.violation(0, format!("has {lines} lines, over {lines_max}: a file holds one subject, split it"))
    })
    .collect()
}

/// Functions of more than `lines_max` lines, from `fn` to the closing brace, tests included; `excepted` names those
/// that may be longer as (file, function), each with the reason.
pub fn functions(lines_max: usize, excepted: &[(&str, &str, &str)], sources: &[Source]) -> Vec<Violation> {
    let mut unused: BTreeMap<(&str, &str), ()> = excepted.iter().map(|(file, name, _)| ((*file, *name), ())).collect();
    let mut violations = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        for at in words(&source.code, "fn") {
            let name = name_at(&source.code[at + 2..]);
            let lines = source.line(item_end(&source.code, at) - 1) - source.line(at) + 1;
            if name.is_empty() || lines <= lines_max || unused.remove(&(source.path.as_str(), name)).is_some() {
                continue;
            }
            let what = format!("`fn {name}` has {lines} lines, over {lines_max}: a reader has to scroll, split it");
            violations.push(source.violation(at, what));
        }
    }
    violations.extend(unused.into_keys().map(|(file, name)| {
        Source::new(file, "")
            .violation(0, format!("`fn {name}` is excepted from the length of functions but need not be"))
    }));
    violations
}

/// The function's name; nothing for a type such as `fn(u8)`.
fn name_at(text: &str) -> &str {
    let text = text.trim_start();
    &text[..text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len())]
}

#[test]
fn a_long_function_is_found_and_a_type_of_functions_is_none() {
    let text = "type F = fn(u8);\ntrait T { fn a(&self) -> [u8; 4]; }\nfn b<const N: usize>(x: [u8; 3])\n{\n{}\n}\n\nfn c() {}\n";
    let source = Source::new("src/x.rs", text);
    let found = functions(3, &[], std::slice::from_ref(&source));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].to_string().starts_with("src/x.rs:3: `fn b` has 4 lines, over 3"), "{found:?}");
    assert_eq!(functions(3, &[("src/x.rs", "b", "one table")], std::slice::from_ref(&source)), []);
    assert_eq!(functions(4, &[("src/x.rs", "b", "one table")], &[source]).len(), 1, "an exception that nothing needs");
}

#[test]
fn a_long_file_is_found_unless_it_is_a_test() {
    let found = files(2, &[Source::new("src/x.rs", "a\nb\nc\n"), Source::new("tests/x.rs", "a\nb\nc\n")]);
    assert_eq!(found.len(), 1, "{found:?}");
}
