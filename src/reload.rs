//! Reading the settings again while the node runs. The log level is taken over; whatever else has changed is named.

use std::env;

use raftkv::config::{self, Mode, Reading, Settings};

use crate::logging;

/// The one setting that a running node takes over.
const LOG_LEVEL: &str = "log-level";

/// Reads the settings again, as at the start, and says in one line what came of it. Settings that cannot be used change
/// nothing.
pub fn reload(running: &Settings) {
    let Some(file) = running.file() else {
        log::info!("told to read the settings again, but there is no file to read (--config): nothing changes");
        return;
    };
    let Reading { mode, settings, .. } = match config::read(env::args_os().skip(1).collect(), env::vars_os()) {
        Ok(reading) => reading,
        Err(error) => {
            log::warn!("cannot take the settings from {} again: {error}; everything stays as it is", file.display());
            return;
        }
    };
    let Mode::Node(config) = mode else {
        log::warn!("{} is no longer about one node; everything stays as it is", file.display());
        return;
    };
    let level = match logging::set_level(config.log_level) {
        Ok(()) => format!("the log level is {} now", config.log_level.as_str().to_lowercase()),
        Err(logging::FilteredByRustLog) => "the log level stays as RUST_LOG says".to_owned(),
    };
    let others: Vec<String> = settings.changed(running).into_iter().filter(|name| name != LOG_LEVEL).collect();
    if others.is_empty() {
        log::info!("read {} again: {level}", file.display());
    } else {
        let others = others.join(", ");
        log::warn!("read {} again: {level}; changed, and in force only after a restart: {others}", file.display());
    }
}
