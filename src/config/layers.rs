//! Where settings come from: flags, then the environment, then the file.
//!
//! Each later layer is turned into flags for what the earlier ones left open, so that a value means the same and is
//! refused with the same words wherever it was written.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use super::flags::Flags;
use super::{file, names};
use crate::error::Fatal;

/// The flags after all layers, and which were given by any of them.
#[derive(Debug)]
pub(super) struct Layered {
    pub flags: Flags,
    pub given: Vec<Given>,
    /// Variables of the environment that look like settings, and are not.
    pub ignored: Vec<String>,
}

/// A setting that is not left to its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub name: String,
    pub value: OsString,
    pub origin: Origin,
}

/// Where a setting was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Flag,
    /// The name of the variable.
    Environment(String),
    /// The file, and the line in it.
    File(PathBuf, usize),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag => f.write_str("flag"),
            Origin::Environment(variable) => write!(f, "environment, {variable}"),
            Origin::File(path, line) => write!(f, "{}, line {line}", path.display()),
        }
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub(super) enum Asked {
    /// To run.
    Run(Box<Layered>),
    /// To print this: help or version.
    Print(String),
}

/// Reads all layers. `args` are those after the program's name, `env` the variables of the environment.
pub(super) fn read(args: Vec<OsString>, env: &BTreeMap<OsString, OsString>) -> Result<Asked, Fatal> {
    let mut layers = Layers { args, names: names::settings(), origins: BTreeMap::new() };
    let matches = match Flags::command().try_get_matches_from(layers.argv()) {
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return Ok(Asked::Print(error.to_string()));
        }
        other => other.map_err(|error| Fatal::usage(one_line(&error)))?,
    };
    let ignored = unknown_variables(env, &layers.names)?;
    let matches = layers.add(from_environment(env, &layers.names), matches)?;
    let matches = match matches.get_one::<PathBuf>(names::CONFIG).cloned() {
        None => matches,
        Some(path) => {
            let given = |entry: file::Entry| Given {
                name: entry.name,
                value: entry.value,
                origin: Origin::File(path.clone(), entry.line),
            };
            let from_file = file::read(&path, &layers.names)?.into_iter().map(given).collect();
            layers.add(from_file, matches)?
        }
    };
    let given = layers.given(&matches);
    let flags = Flags::from_arg_matches(&matches).map_err(|error| Fatal::usage(one_line(&error)))?;
    Ok(Asked::Run(Box::new(Layered { flags, given, ignored })))
}

/// What the environment says.
fn from_environment(env: &BTreeMap<OsString, OsString>, settings: &BTreeSet<String>) -> Vec<Given> {
    let names = settings.iter().map(String::as_str).chain([names::CONFIG]);
    let given = names.filter_map(|name| {
        let variable = names::variable(name);
        let value = env.get(OsStr::new(&variable))?.clone();
        Some(Given { name: name.to_owned(), value, origin: Origin::Environment(variable) })
    });
    given.collect()
}

/// The variables that are named like settings and are none. One that is close to a setting's is refused; others may have
/// another reason: Kubernetes, for one, tells of a service `raftkv` in `RAFTKV_SERVICE_HOST`.
fn unknown_variables(env: &BTreeMap<OsString, OsString>, settings: &BTreeSet<String>) -> Result<Vec<String>, Fatal> {
    let mut unknown = Vec::new();
    for variable in env.keys().map(|variable| variable.to_string_lossy()) {
        let Some(name) = names::of_variable(&variable) else { continue };
        if (settings.contains(&name) || name == names::CONFIG) && *variable == names::variable(&name) {
            continue;
        }
        if let Some(nearest) = names::nearest(&name, settings) {
            return Err(Fatal::usage(format!(
                "the environment has {variable}, which is no setting; did you mean {}?",
                names::variable(nearest)
            )));
        }
        unknown.push(variable.into_owned());
    }
    Ok(unknown)
}

struct Layers {
    args: Vec<OsString>,
    names: BTreeSet<String>,
    /// Of what was not given by a flag.
    origins: BTreeMap<String, Origin>,
}

impl Layers {
    fn argv(&self) -> impl Iterator<Item = OsString> + '_ {
        std::iter::once(OsString::from("raftkv-server")).chain(self.args.iter().cloned())
    }

    /// Adds what a layer says about flags that `matches` has no value for.
    fn add(&mut self, layer: Vec<Given>, matches: ArgMatches) -> Result<ArgMatches, Fatal> {
        let missing: Vec<Given> = layer.into_iter().filter(|given| !is_given(&matches, &given.name)).collect();
        if missing.is_empty() {
            return Ok(matches);
        }
        self.args.splice(0..0, missing.iter().map(|given| flag(&given.name, &given.value)));
        self.origins.extend(missing.into_iter().map(|given| (given.name, given.origin)));
        Flags::command().try_get_matches_from(self.argv()).map_err(|error| self.refusal(&error))
    }

    /// The complaint about a value, with the place where it was given.
    fn refusal(&self, error: &clap::Error) -> Fatal {
        let name = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(arg)) => arg.trim_start_matches('-').split(' ').next(),
            _ => None,
        };
        Fatal::usage(match name.and_then(|name| self.origins.get(name)) {
            Some(origin) => format!("{origin}: {}", one_line(error)),
            None => one_line(error),
        })
    }

    fn given(&self, matches: &ArgMatches) -> Vec<Given> {
        let given = self.names.iter().filter(|name| is_given(matches, name)).filter_map(|name| {
            let value = matches.get_raw(&id(name))?.next()?.into();
            Some(Given { name: name.clone(), value, origin: self.origins.get(name).cloned().unwrap_or(Origin::Flag) })
        });
        given.collect()
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
