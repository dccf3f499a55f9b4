//! The names of settings, as flags, in the environment and in the file, and the one that was probably meant.

use std::collections::BTreeSet;

use clap::CommandFactory;

use super::flags::Flags;

/// Flags that are not settings: they say where settings are, or what is to be done with them.
const NO_SETTINGS: [&str; 3] = [CONFIG, "check-config", "print-config"];

/// The flag that names the file. It may stand in the environment, though not in the file.
pub(super) const CONFIG: &str = "config";

/// The names of all settings, as flags and as keys of the file.
pub(super) fn settings() -> BTreeSet<String> {
    flags().filter(|name| !NO_SETTINGS.contains(&name.as_str())).collect()
}

/// The names of all flags.
pub(super) fn flags() -> impl Iterator<Item = String> {
    let names: Vec<String> =
        Flags::command().get_arguments().filter_map(|arg| Some(arg.get_long()?.to_owned())).collect();
    names.into_iter()
}

/// What the environment variables of settings begin with.
pub(super) const PREFIX: &str = "RAFTKV_";

/// The environment variable of a setting: `RAFTKV_NODE_ID` of `node-id`.
pub(super) fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.replace('-', "_").to_uppercase())
}

/// The setting whose environment variable this would be: `node-id` of `RAFTKV_NODE_ID`.
pub(super) fn of_variable(variable: &str) -> Option<String> {
    Some(variable.strip_prefix(PREFIX)?.replace('_', "-").to_lowercase())
}

/// The name that differs least from `name`, if any is close.
pub(super) fn nearest<'n>(name: &str, names: &'n BTreeSet<String>) -> Option<&'n str> {
    let (distance, nearest) = names.iter().map(|known| (edit_distance(name, known), known)).min()?;
    (distance <= 1 + name.len() / 4).then_some(nearest)
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
