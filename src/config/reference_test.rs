//! `docs/configuration.md` is made of the flags as they are parsed and checked, and this holds it so.

use std::fmt::Write;
use std::path::Path;

use clap::{Arg, CommandFactory};

use super::config_test::read_with;
use super::flags::Flags;
use super::{names, units};

const INTRODUCTION: &str = "\
# Settings

Made of the flags that `raftkv-server` understands; not to be edited by hand. The command that writes it:

```sh
UPDATE_GOLDEN=1 cargo test -p raftkv --lib reference
```

A setting is a flag, an environment variable and a key of the TOML file that `--config` names; the first of these that has
it counts, else the default ([how they are read](operations.md#settings)). Durations are whole numbers with `ms`, `s`, `m` or
`h`, sizes with `B`, `KiB`, `MiB` or `GiB` or without a unit, which means bytes. In the file both stand in quotes, as all
that is not a bare number does.

What a setting may be is what a start takes while all others have their defaults; where it depends on another, the
refusal names it. What each limit refuses, and what counts it: [limits](operations.md#limits).
";

/// What a number counts.
#[derive(Clone, Copy)]
enum Unit {
    Milliseconds,
    Bytes,
    Nothing,
}

impl Unit {
    fn of(arg: &Arg) -> Option<Unit> {
        match value_name(arg).as_str() {
            "TIME" => Some(Unit::Milliseconds),
            "SIZE" => Some(Unit::Bytes),
            "N" | "ID" => Some(Unit::Nothing),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Unit::Milliseconds => "duration",
            Unit::Bytes => "size",
            Unit::Nothing => "number",
        }
    }

    fn parse(self, text: &str) -> u64 {
        match self {
            Unit::Milliseconds => {
                units::duration(text).expect("a duration").as_millis().try_into().expect("a day at most")
            }
            Unit::Bytes => units::size(text).expect("a size"),
            Unit::Nothing => text.parse().expect("a number"),
        }
    }

    fn show(self, number: u64) -> String {
        match self {
            Unit::Milliseconds => units::show_duration(std::time::Duration::from_millis(number)),
            Unit::Bytes => units::show_size(number),
            Unit::Nothing => number.to_string(),
        }
    }
}

fn value_name(arg: &Arg) -> String {
    arg.get_value_names().and_then(|names| Some(names.first()?.to_string())).unwrap_or_default()
}

/// Whether a start would take this value of a setting, all others as they are by default.
fn is_taken(name: &str, unit: Unit, number: u64) -> bool {
    let value = match unit {
        Unit::Milliseconds => format!("--{name}={number}ms"),
        Unit::Bytes | Unit::Nothing => format!("--{name}={number}"),
    };
    read_with(&["--data-dir=/nowhere", &value], &[]).is_ok()
}

/// The least and the greatest number that is taken, found by trying, and the step between two.
fn range(name: &str, unit: Unit, start: u64) -> (u64, Option<u64>, u64) {
    assert!(is_taken(name, unit, start), "--{name}: its default");
    let step = (0..32)
        .map(|bits| 1 << bits)
        .find(|step| is_taken(name, unit, start + step) || is_taken(name, unit, start.saturating_sub(*step)));
    let step = step.unwrap_or_else(|| panic!("--{name} may be nothing but its default"));
    // `inside` is taken, `outside` steps from it is not.
    let edge = |at: &dyn Fn(u64) -> Option<u64>, steps: u64| {
        let taken = |n| at(n).is_some_and(|number| is_taken(name, unit, number));
        let (mut inside, mut outside) = (0, steps + 1);
        while outside - inside > 1 {
            let middle = inside + (outside - inside) / 2;
            if taken(middle) { inside = middle } else { outside = middle }
        }
        (inside, at(inside).expect("it is taken"))
    };
    let (_, least) = edge(&|n| start.checked_sub(n * step), start / step);
    let steps = (u64::MAX - start) / step - 1;
    let (up, most) = edge(&|n| start.checked_add(n * step), steps);
    (least, (up < steps).then_some(most), step)
}

fn values(arg: &Arg, name: &str, default: Option<&str>) -> String {
    if let Some(unit) = Unit::of(arg) {
        let (least, most, step) = range(name, unit, default.map_or(1, |default| unit.parse(default)));
        let most = most.map_or("more".to_owned(), |most| unit.show(most));
        let step = if step > 1 { format!(", a multiple of {}", unit.show(step)) } else { String::new() };
        return match &*most {
            "more" => format!("{}, at least {}{step}", unit.name(), unit.show(least)),
            most => format!("{}, {} to {most}{step}", unit.name(), unit.show(least)),
        };
    }
    let possible: Vec<String> =
        arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    if possible.is_empty() { format!("`{}`", value_name(arg)) } else { possible.join(", ") }
}

/// The help, and the default that it tells of where that depends on other settings.
fn help(arg: &Arg) -> (String, Option<String>) {
    let help = arg
        .get_help()
        .expect("every flag is explained")
        .to_string()
        .replace('\n', " ")
        .replace('|', "\\|")
        .replace('<', "\\<");
    match help.split_once(" [default: ") {
        Some((help, default)) => (help.to_owned(), Some(default.trim_end_matches(']').to_owned())),
        None => (help, None),
    }
}

fn row(arg: &Arg) -> String {
    let name = arg.get_long().expect("every flag has a long name");
    let variable = names::variable(name);
    if !names::settings().contains(name) {
        let (variable, value) = match name {
            names::CONFIG => (format!("`{variable}`"), value_name(arg)),
            _ => (String::new(), String::new()),
        };
        return format!("| `{}` | {variable} | | | {} |\n", format!("--{name} {value}").trim(), help(arg).0);
    }
    let default = arg.get_default_values().first().map(|value| value.to_str().expect("text"));
    let values = values(arg, name, default);
    let (help, told) = help(arg);
    let default = match default {
        Some(default) if default.parse::<u64>().is_ok() => format!("`{name} = {default}`"),
        Some(default) => format!("`{name} = \"{default}\"`"),
        None => format!("`{name}`: {}", told.unwrap_or_else(|| "not set".to_owned())),
    };
    format!("| `--{name}` | `{variable}` | {default} | {values} | {help} |\n")
}

fn reference() -> String {
    let command = Flags::command();
    let mut text = INTRODUCTION.to_owned();
    let mut headings: Vec<Option<&str>> = Vec::new();
    for arg in command.get_arguments() {
        if !headings.contains(&arg.get_help_heading()) {
            headings.push(arg.get_help_heading());
        }
    }
    for heading in headings {
        write!(text, "\n## {}\n\n", heading.unwrap_or("The node")).expect("strings can be written to");
        text.push_str("| flag | environment | in the file, with its default | may be | what it is |\n");
        text.push_str("| --- | --- | --- | --- | --- |\n");
        command.get_arguments().filter(|arg| arg.get_help_heading() == heading).for_each(|arg| text += &row(arg));
    }
    text
}

#[test]
fn the_reference_is_what_the_flags_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let reference = reference();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &reference).expect("written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = written.lines().zip(reference.lines()).find(|(written, made)| written != made);
    assert!(
        written == reference,
        "docs/configuration.md is not what the flags say (see {differs:?}); to write it anew:\n\
         UPDATE_GOLDEN=1 cargo test -p raftkv --lib reference"
    );
}

#[test]
fn ranges_are_found_by_trying() {
    assert_eq!(range("shards", Unit::Nothing, 12), (1, Some(4_096), 1));
    assert_eq!(range("segment-size", Unit::Bytes, 64 << 20), (64 << 10, Some(1 << 30), 4 << 10));
    assert_eq!(range("heartbeat", Unit::Milliseconds, 100), (1, Some(400), 1));
    assert_eq!(range("log-tail-bytes", Unit::Bytes, 16 << 20), (0, None, 1));
}
