//! `--print-config`: every setting of a node as a settings file, with where each comes from. Read again, it gives the same
//! node.

use std::fmt::Write;

use super::written::Settings;
use crate::error::Fatal;

/// The longest line that the others' origins are aligned with.
const ALIGNED_MAX: usize = 60;

/// The settings of a node as TOML.
pub(super) fn settings(settings: &Settings) -> Result<String, Fatal> {
    let mut lines = Vec::new();
    for setting in &settings.settings {
        let (name, value) = (&setting.name, setting.value.to_str());
        let value = value.ok_or_else(|| {
            Fatal::usage(format!("--{name} {} is not UTF-8, which a settings file must be", setting.value.display()))
        })?;
        let origin = setting.origin.as_ref().map_or("default".to_owned(), ToString::to_string);
        lines.push((format!("{name} = {}", as_toml(value)), origin));
    }
    let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0).min(ALIGNED_MAX);
    let mut text = String::from("# Every setting of this node, and where it comes from.\n");
    for (line, origin) in lines {
        writeln!(text, "{line:width$}  # {origin}").expect("strings can be written to");
    }
    Ok(text)
}

/// A number as it is, and anything else in quotes.
fn as_toml(value: &str) -> String {
    match value.parse::<i64>() {
        Ok(number) if number.to_string() == value => value.to_owned(),
        _ => toml::Value::String(value.to_owned()).to_string(),
    }
}
