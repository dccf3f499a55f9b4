//! The settings of a node as a person would write them: to be printed, and to be compared with those of another moment.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{Arg, CommandFactory};

use super::flags::Flags;
use super::layers::{Given, Layered, Origin};
use super::{Config, names, units};

/// One setting that has a value.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub name: String,
    pub value: OsString,
    /// `None` for a default.
    pub origin: Option<Origin>,
    /// The same for all ways to write the same.
    meaning: OsString,
}

/// All settings of a node that have a value, in the order of the flags.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub(super) settings: Vec<Setting>,
    /// The file that was read.
    file: Option<PathBuf>,
}

impl Settings {
    pub(super) fn new(layered: &Layered, config: &Config) -> Settings {
        let names = names::settings();
        let command = Flags::command();
        let settings = command.get_arguments().filter_map(|arg| {
            let name = arg.get_long().filter(|name| names.contains(*name))?;
            setting(arg, name, layered.given.iter().find(|given| given.name == name), config)
        });
        Settings { settings: settings.collect(), file: layered.flags.config.clone() }
    }

    /// The file that some of them may have come from.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The names of those that are not what they are in `others`.
    #[must_use]
    pub fn changed(&self, others: &Settings) -> Vec<String> {
        let of = |settings: &Settings, name: &str| {
            settings.settings.iter().find(|setting| setting.name == name).map(|setting| setting.meaning.clone())
        };
        names::settings().into_iter().filter(|name| of(self, name) != of(others, name)).collect()
    }
}

/// What has neither a value nor a default is not set.
fn setting(arg: &Arg, name: &str, given: Option<&Given>, config: &Config) -> Option<Setting> {
    let value = match given {
        Some(given) => given.value.clone(),
        None => derived(config, name).or_else(|| arg.get_default_values().first().map(|value| value.to_os_string()))?,
    };
    let origin = given.map(|given| given.origin.clone());
    Some(Setting { name: name.to_owned(), meaning: meaning(arg, &value), value, origin })
}

/// Settings whose default depends on others, as this node has them.
fn derived(config: &Config, name: &str) -> Option<OsString> {
    Some(match name {
        "http-listen" => config.http_listen.map_or("off".to_owned(), |address| address.to_string()).into(),
        "advertise" => config.advertise.clone().into(),
        "data-dir" => config.data_dir.clone().into(),
        "initial-cluster" => {
            let members = config.initial_cluster.iter().map(|(id, address)| format!("{id}={address}"));
            members.collect::<Vec<_>>().join(",").into()
        }
        "cores" => config.cores.to_string().into(),
        _ => return None,
    })
}

/// 1s is 1000ms.
fn meaning(arg: &Arg, value: &OsStr) -> OsString {
    let kind = arg.get_value_names().and_then(|names| names.first());
    let text = value.to_str().and_then(|text| match kind?.as_str() {
        "TIME" => units::duration(text).ok().map(units::show_duration),
        "SIZE" => units::size(text).ok().map(units::show_size),
        "LEVEL" => Some(text.to_lowercase()),
        _ => None,
    });
    text.map_or_else(|| value.to_owned(), OsString::from)
}
