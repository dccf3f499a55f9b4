//! `raftkv-manual DIR`: writes the man pages and shell completions of RaftKV's programs into a directory.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Write the man pages and shell completions of raftkv-server, raftkv-nc and raftkv-bench.
#[derive(Debug, Parser)]
#[command(name = "raftkv-manual", version)]
struct Arguments {
    /// Where: man1/, bash/, zsh/ and fish/ are made there
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

fn main() -> ExitCode {
    let Arguments { dir } = Arguments::parse();
    match raftkv_manual::write(&dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("raftkv-manual: cannot write to {}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}
