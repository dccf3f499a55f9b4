//! `raftkv-nc`: talk to a RaftKV node by hand, as with nc.
//!
//! It speaks the protocol itself over one blocking connection to one node, so that what it shows is what that node said:
//! no redirects are followed and nothing is retried. `log`, `snapshot` and `check` in the address's place connect to nobody
//! and read a node's files.

mod check;
mod command;
mod frames;
mod log_dir;
mod print;
mod run;
mod session;
mod snapshots;
mod words;

#[cfg(test)]
mod check_test;
#[cfg(test)]
mod command_test;
#[cfg(test)]
mod frames_test;
#[cfg(test)]
mod words_test;

use std::ffi::OsString;
use std::io::{self, BufRead, BufWriter, IsTerminal, Write};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use clap::Parser;

use raftkv_nc::arguments::Arguments;

use run::{Ending, Output, Runner};
use session::{Greeting, Settings, Trace};
use snapshots::Show;

/// The first words that read files instead of talking to a node.
const LOG: &str = "log";
const SNAPSHOT: &str = "snapshot";
const CHECK: &str = "check";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ending = match &*arguments.target {
        LOG => print_log(&arguments.command),
        SNAPSHOT => print_snapshots(&arguments.command),
        CHECK => check_directory(&arguments.command),
        _ => talk(arguments),
    };
    match ending {
        Ok(ending) => ExitCode::from(ending.exit_code()),
        // Whoever stopped reading, as `head` does, has what was wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("raftkv-nc: {error}");
            ExitCode::from(Ending::Failed.exit_code())
        }
    }
}

fn print_log(words: &[OsString]) -> io::Result<Ending> {
    let [dir] = words else {
        eprintln!("raftkv-nc: 'log' wants one directory, as in: raftkv-nc log data/node1");
        return Ok(Ending::BadUsage);
    };
    log_dir::print(dir.as_ref(), &mut BufWriter::new(io::stdout().lock()))
}

fn print_snapshots(words: &[OsString]) -> io::Result<Ending> {
    let (path, show) = match words {
        [path] => (path, Show::Summary),
        [path, items] | [items, path] if items == "--items" => (path, Show::Items),
        _ => {
            eprintln!(
                "raftkv-nc: 'snapshot' wants one file or directory, as in: raftkv-nc snapshot data/node1 --items"
            );
            return Ok(Ending::BadUsage);
        }
    };
    snapshots::print(path.as_ref(), show, &mut BufWriter::new(io::stdout().lock()))
}

fn check_directory(words: &[OsString]) -> io::Result<Ending> {
    let [dir] = words else {
        eprintln!("raftkv-nc: 'check' wants one data directory, as in: raftkv-nc check data/node1");
        return Ok(Ending::BadUsage);
    };
    check::run(dir.as_ref(), &mut io::stdout().lock())
}

fn talk(arguments: Arguments) -> io::Result<Ending> {
    if !arguments.target.contains(':') {
        let target = words::escape(arguments.target.as_bytes());
        eprintln!("raftkv-nc: {target} is no address, which would be HOST:PORT, as in 127.0.0.1:7001");
        return Ok(Ending::BadUsage);
    }
    let settings = Settings {
        target: arguments.target,
        timeout: arguments.timeout,
        greeting: if arguments.no_hello { Greeting::Nothing } else { Greeting::Hello },
        trace: if arguments.frames { Trace::Frames } else { Trace::Nothing },
    };
    let mut runner = Runner::new(settings, if arguments.raw_output { Output::Raw } else { Output::Escaped });
    if arguments.command.is_empty() {
        return run_lines(&mut runner);
    }
    let words = arguments.command.into_iter().map(|word| words::unescape(&word.into_vec()));
    run_words(&mut runner, words.collect(), &mut io::stdout().lock())
}

/// Commands from the standard input; the worst ending counts.
fn run_lines(runner: &mut Runner) -> io::Result<Ending> {
    let (mut input, mut out) = (io::stdin().lock(), io::stdout().lock());
    let interactive = io::stdin().is_terminal();
    let mut worst = Ending::default();
    let mut line = Vec::new();
    loop {
        if interactive {
            write!(out, "raftkv> ")?;
            out.flush()?;
        }
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(worst);
        }
        match line.trim_ascii() {
            b"" => {}
            b"quit" | b"exit" => return Ok(worst),
            comment if comment.starts_with(b"#") => {}
            command => worst = worst.max(run_words(runner, words::split(command), &mut out)?),
        }
    }
}

fn run_words(runner: &mut Runner, words: Result<Vec<Vec<u8>>, String>, out: &mut dyn Write) -> io::Result<Ending> {
    match words.and_then(command::parse) {
        Ok(command) => runner.run(&command, out),
        Err(error) => {
            eprintln!("raftkv-nc: {error}");
            Ok(Ending::BadUsage)
        }
    }
}
