//! Where settings come from: flags, then the environment, then the file.
//!
//! Each later layer is turned into flags for what the earlier ones left open, so that a value means the same and is
//! refused with the same words wherever it was written.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use super::flags::Flags;
use crate::error::Fatal;

/// The flags after all layers, and which were given by any of them.
#[derive(Debug)]
pub(super) struct Layered {
    pub flags: Flags,
    pub given: Vec<Given>,
}

/// A setting that is not left to its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub name: String,
    pub value: OsString,
}

/// What the command line asks for.
#[derive(Debug)]
pub(super) enum Asked {
    /// To run.
    Run(Box<Layered>),
    /// To print this: help or version.
    Print(String),
}

/// Reads all layers. `args` are those after the program's name.
pub(super) fn read(args: Vec<OsString>, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Asked, Fatal> {
    let mut layers = Layers { args, names: names() };
    let matches = match Flags::command().try_get_matches_from(layers.argv()) {
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return Ok(Asked::Print(error.to_string()));
        }
        other => other.map_err(|error| Fatal::usage(one_line(&error)))?,
    };
    let from_env = layers.names.iter().filter_map(|name| Some((name.clone(), env(&variable(name))?))).collect();
    let matches = layers.add(from_env, matches, "the environment")?;
    let matches = match matches.get_one::<std::path::PathBuf>("config").cloned() {
        None => matches,
        Some(path) => {
            let from_file = read_file(&path, &layers.names)?;
            layers.add(from_file, matches, &path.display().to_string())?
        }
    };
    let given = layers.given(&matches);
    let flags = Flags::from_arg_matches(&matches).map_err(|error| Fatal::usage(one_line(&error)))?;
    Ok(Asked::Run(Box::new(Layered { flags, given })))
}

/// The environment variable of a flag: `RAFTKV_NODE_ID` of `node-id`.
pub(super) fn variable(name: &str) -> String {
    format!("RAFTKV_{}", name.replace('-', "_").to_uppercase())
}

/// The names of all flags.
pub(super) fn names() -> BTreeSet<String> {
    Flags::command().get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect()
}

struct Layers {
    args: Vec<OsString>,
    names: BTreeSet<String>,
}

impl Layers {
    fn argv(&self) -> impl Iterator<Item = OsString> + '_ {
        std::iter::once(OsString::from("raftkv-server")).chain(self.args.iter().cloned())
    }

    /// Adds what a layer says about flags that `matches` has no value for.
    fn add(&mut self, layer: Vec<(String, OsString)>, matches: ArgMatches, place: &str) -> Result<ArgMatches, Fatal> {
        let missing: Vec<OsString> = layer
            .into_iter()
            .filter(|(name, _)| !is_given(&matches, name))
            .map(|(name, value)| flag(&name, &value))
            .collect();
        if missing.is_empty() {
            return Ok(matches);
        }
        self.args.splice(0..0, missing);
        let in_place = |error| Fatal::usage(format!("in {place}: {}", one_line(&error)));
        Flags::command().try_get_matches_from(self.argv()).map_err(in_place)
    }

    fn given(&self, matches: &ArgMatches) -> Vec<Given> {
        let given = self.names.iter().filter(|name| is_given(matches, name));
        given
            .filter_map(|name| Some(Given { name: name.clone(), value: matches.get_raw(&id(name))?.next()?.into() }))
            .collect()
    }
}

fn id(name: &str) -> String {
    name.replace('-', "_")
}

fn is_given(matches: &ArgMatches, name: &str) -> bool {
    matches.value_source(&id(name)) == Some(ValueSource::CommandLine)
}

/// `--name=value` as one argument.
pub(super) fn flag(name: &str, value: &OsStr) -> OsString {
    let mut flag = OsString::from(format!("--{name}="));
    flag.push(value);
    flag
}

fn read_file(path: &Path, names: &BTreeSet<String>) -> Result<Vec<(String, OsString)>, Fatal> {
    let shown = path.display();
    let text =
        fs::read_to_string(path).map_err(|error| Fatal::usage(format!("cannot read --config {shown}: {error}")))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        Fatal::usage(format!("{shown}, line {line}: {}", error.message().replace('\n', ", ")))
    })?;
    let settings = table.into_iter().map(|(key, value)| {
        if key == "config" || !names.contains(&key) {
            let nearest = nearest(&key, names).map_or(String::new(), |name| format!("; did you mean `{name}`?"));
            return Err(Fatal::usage(format!("{shown}: there is no setting `{key}`{nearest}")));
        }
        match value {
            toml::Value::String(text) => Ok((key, text.into())),
            toml::Value::Integer(number) => Ok((key, number.to_string().into())),
            _ => Err(Fatal::usage(format!("{shown}: `{key}` must be a number or a string in quotes"))),
        }
    });
    settings.collect()
}

/// The name that differs least from `key`, if any is close.
fn nearest<'n>(key: &str, names: &'n BTreeSet<String>) -> Option<&'n str> {
    let distances = names.iter().filter(|name| *name != "config").map(|name| (edit_distance(key, name), name));
    let (distance, name) = distances.min()?;
    (distance <= 1 + key.len() / 4).then_some(name)
}

/// How many insertions, removals and replacements of a character turn one word into the other (Levenshtein).
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, c) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, d) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(c != *d);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

/// The parser's complaint without its layout, and what to do.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let complaint = first.strip_prefix("error: ").unwrap_or(first);
    let words = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.clone()),
        Some(ContextValue::Strings(words)) if !words.is_empty() => Some(words.join(", ")),
        _ => None,
    };
    let hint = words(ContextKind::SuggestedArg).map(|flag| format!("did you mean {flag}?"));
    let hint = hint.or_else(|| words(ContextKind::ValidValue).map(|values| format!("it may be {values}")));
    format!("{complaint}; {}", hint.unwrap_or_else(|| "see --help".into()))
}
