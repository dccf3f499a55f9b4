//! The switch from one set of logs to another, after a start with another number of cores.
//!
//! The new logs are prepared in `logs-next` while `logs` is untouched. One write of the identity, with the new number of
//! cores and the mark that a switch is under way, decides: before it the old logs hold, after it the new ones. The
//! renames that follow are done again by the next start if a crash comes between them.

use std::fs;
use std::io;
use std::path::Path;

use raftkv_protocol::types::CoreId;

use super::text_file::{self, Fields};
use super::{DataDir, IDENTITY, create_dir};
use crate::error::Fatal;

const LOGS: &str = "logs";
const NEXT: &str = "logs-next";
const OLD: &str = "logs-old";
/// The field of the identity that says that the directories are yet to be renamed.
const SWITCHING: &str = "logs-switching";

/// The directory that has the logs of the cores that this identity names: that of a switch which was decided, until it is
/// renamed.
pub(super) fn logs(path: &Path, identity: &Fields) -> &'static str {
    if identity.contains_key(SWITCHING) && path.join(NEXT).exists() { NEXT } else { LOGS }
}

impl DataDir {
    /// With how many cores the logs were written that are here, if that is not how many the node has now. Then they are
    /// to be written anew in [`DataDir::next_log_dir`] and switched to before anything else.
    #[must_use]
    pub fn cores_before(&self) -> Option<u16> {
        self.cores_before
    }

    /// Where the log of a core is prepared; empty and durably there.
    pub fn next_log_dir(&self, core: CoreId) -> Result<std::path::PathBuf, Fatal> {
        let dir = self.path.join(format!("{NEXT}/core-{core}"));
        create_dir(&dir)?;
        Ok(dir)
    }

    /// The logs in [`DataDir::next_log_dir`] are complete and durable: they are the node's from now on.
    pub fn switch_logs(&mut self, cores: u16) -> Result<(), Fatal> {
        self.decide_switch(cores)?;
        self.finish_switch()
    }

    /// From here on the new logs are the node's, whatever they are called.
    pub(super) fn decide_switch(&mut self, cores: u16) -> Result<(), Fatal> {
        self.remove(OLD)?;
        self.identity.insert("cores".to_owned(), cores.to_string());
        self.identity.insert(SWITCHING.to_owned(), "yes".to_owned());
        text_file::write(&self.path.join(IDENTITY), IDENTITY, &self.identity)?;
        self.cores_before = None;
        Ok(())
    }

    /// Goes on with a switch that was decided, or removes what was prepared for one that was not.
    pub(super) fn finish_switch(&mut self) -> Result<(), Fatal> {
        if !self.identity.contains_key(SWITCHING) {
            return if self.path.join(NEXT).exists() { self.remove(NEXT) } else { Ok(()) };
        }
        if self.path.join(NEXT).exists() {
            // If both are there, the first rename is still to come.
            self.rename(LOGS, OLD)?;
            self.rename(NEXT, LOGS)?;
        }
        self.remove(OLD)?;
        self.identity.remove(SWITCHING);
        text_file::write(&self.path.join(IDENTITY), IDENTITY, &self.identity)
    }

    /// Renames durably; what is not there was renamed before.
    fn rename(&self, from: &str, to: &str) -> Result<(), Fatal> {
        let (from, to) = (self.path.join(from), self.path.join(to));
        match fs::rename(&from, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let (from, to) = (from.display(), to.display());
                return Err(Fatal::failure(format!("cannot rename {from} to {to}: {error}; start again")));
            }
            _ => {}
        }
        text_file::sync_parent(&to)
    }

    fn remove(&self, name: &str) -> Result<(), Fatal> {
        let path = self.path.join(name);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot("remove", &path, &error)),
            _ => text_file::sync_parent(&path),
        }
    }
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Fatal {
    Fatal::failure(format!("cannot {what} {}: {error}; check the disk, then start again", path.display()))
}
