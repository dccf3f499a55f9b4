//! `--print-config`: every setting of a node as a settings file, with where each comes from. Read again, it gives the same
//! node.

use std::ffi::OsStr;
use std::fmt::Write;

use clap::CommandFactory;

use super::flags::Flags;
use super::layers::Layered;
use super::{Config, names};
use crate::error::Fatal;

/// The settings of a node as TOML.
pub(super) fn settings(layered: &Layered, config: &Config) -> Result<String, Fatal> {
    let mut text = String::from("# Every setting of this node, and where it comes from.\n");
    let mut lines = Vec::new();
    let settings = names::settings();
    for arg in Flags::command().get_arguments() {
        let Some(name) = arg.get_long().filter(|name| settings.contains(*name)) else { continue };
        let given = layered.given.iter().find(|given| given.name == name);
        let value = match given {
            Some(given) => Some(as_text(name, &given.value)?),
            None => match derived(config, name)? {
                Some(derived) => Some(derived),
                None => arg.get_default_values().first().map(|value| as_text(name, value)).transpose()?,
            },
        };
        // What has neither a value nor a default is not set, and nothing else can say so in the file.
        let Some(value) = value else { continue };
        let origin = given.map_or("default".to_owned(), |given| given.origin.to_string());
        lines.push((format!("{name} = {}", as_toml(&value)), origin));
    }
    let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0).min(60);
    for (line, origin) in lines {
        writeln!(text, "{line:width$}  # {origin}").expect("strings can be written to");
    }
    Ok(text)
}

/// Settings whose default depends on others, as this node has them.
fn derived(config: &Config, name: &str) -> Result<Option<String>, Fatal> {
    Ok(Some(match name {
        "http-listen" => config.http_listen.map_or("off".to_owned(), |address| address.to_string()),
        "advertise" => config.advertise.clone(),
        "data-dir" => as_text(name, config.data_dir.as_os_str())?,
        "initial-cluster" => {
            let members = config.initial_cluster.iter().map(|(id, address)| format!("{id}={address}"));
            members.collect::<Vec<_>>().join(",")
        }
        "cores" => config.cores.to_string(),
        _ => return Ok(None),
    }))
}

fn as_text(name: &str, value: &OsStr) -> Result<String, Fatal> {
    let text = value.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        Fatal::usage(format!("--{name} {} is not UTF-8, which a settings file must be", value.display()))
    })
}

/// A number as it is, and anything else in quotes.
fn as_toml(value: &str) -> String {
    match value.parse::<i64>() {
        Ok(number) if number.to_string() == value => value.to_owned(),
        _ => toml::Value::String(value.to_owned()).to_string(),
    }
}
