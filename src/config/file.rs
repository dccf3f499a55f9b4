//! The settings file: TOML whose keys are the names of the flags.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::names;
use crate::error::Fatal;

/// What a file says of one setting.
#[derive(Debug)]
pub(super) struct Entry {
    pub name: String,
    pub value: OsString,
    /// Counted from 1.
    pub line: usize,
}

/// Reads a settings file. Every key must be one of `settings`.
pub(super) fn read(path: &Path, settings: &BTreeSet<String>) -> Result<Vec<Entry>, Fatal> {
    let shown = path.display();
    let text =
        fs::read_to_string(path).map_err(|error| Fatal::usage(format!("cannot read --config {shown}: {error}")))?;
    let line_of = |span: Range<usize>| text[..span.start.min(text.len())].matches('\n').count() + 1;
    let refused = |line, words: String| Fatal::usage(format!("{shown}, line {line}: {words}"));
    let table = DeTable::parse(&text)
        .map_err(|error| refused(error.span().map_or(1, line_of), error.message().replace('\n', ", ")))?;
    let entries = table.into_inner().into_iter().map(|(key, value)| {
        let (line, name) = (line_of(key.span()), key.into_inner().into_owned());
        if !settings.contains(&name) {
            let nearest =
                names::nearest(&name, settings).map_or(String::new(), |name| format!("; did you mean `{name}`?"));
            return Err(refused(line, format!("there is no setting `{name}`{nearest}")));
        }
        match written(value.into_inner()) {
            Some(value) => Ok(Entry { name, value: value.into(), line }),
            None => Err(refused(line, format!("`{name}` must be a number or a string in quotes"))),
        }
    });
    entries.collect()
}

/// The value as a flag would be given it.
fn written(value: DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.into_owned()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number.to_string())
        }
        _ => None,
    }
}
