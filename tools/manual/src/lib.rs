//! The man pages and shell completions of RaftKV's programs, made of the definitions by which each parses its own command
//! line. A program of its own, so that the others need not carry what makes them.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

/// The shells that there are completions for.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// The programs that people start.
#[must_use]
pub fn programs() -> [Command; 3] {
    [raftkv::config::command(), raftkv_nc::arguments::Arguments::command(), raftkv_bench::args::Cli::command()]
}

/// Writes `man1/` and, for each shell, a folder of its name into `dir`, which is made if need be.
///
/// # Errors
/// What cannot be written.
pub fn write(dir: &Path) -> io::Result<()> {
    let pages = dir.join("man1");
    fs::create_dir_all(&pages)?;
    for program in programs() {
        clap_mangen::generate_to(program.clone(), &pages)?;
        for shell in SHELLS {
            let folder = dir.join(shell.to_string());
            fs::create_dir_all(&folder)?;
            let name = program.get_name().to_owned();
            clap_complete::generate_to(shell, &mut program.clone(), name, &folder)?;
        }
    }
    Ok(())
}
