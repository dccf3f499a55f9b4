//! A file that is read for as long as a test wants, as if its disk hung: a named pipe.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::wait::{PATIENCE, eventually};

/// `O_NONBLOCK`: a pipe that nobody reads is not there for whoever would write to it.
const NONBLOCK: i32 = 0o4000;

/// See the module.
#[derive(Debug)]
pub struct HangingFile {
    path: PathBuf,
}

impl HangingFile {
    /// Takes the place of a file.
    pub fn instead_of(path: &Path) -> HangingFile {
        fs::remove_file(path).expect("the file is there");
        assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo runs").success());
        HangingFile { path: path.to_owned() }
    }

    /// Waits until somebody reads it. They have read it when what this returns is dropped.
    #[track_caller]
    pub fn await_reader(&self) -> File {
        let mut end = OpenOptions::new();
        end.write(true).custom_flags(NONBLOCK);
        eventually(PATIENCE, "the file is read", || end.open(&self.path).ok())
    }
}
