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
use std::time::Duration;

use clap::Parser;

use command::HELP;
use run::{Ending, Output, Runner};
use session::{Greeting, Settings, Trace};
use snapshots::Show;

const EXAMPLES: &str = r#"Examples:
  raftkv-nc 127.0.0.1:7001 put greeting 'hello world'
  raftkv-nc 127.0.0.1:7001 get greeting
  raftkv-nc 127.0.0.1:7001 scan user/ --limit 10
  printf 'put a 1\nget a\n' | raftkv-nc 127.0.0.1:7001
  raftkv-nc --frames 127.0.0.1:7001 ping
  raftkv-nc 127.0.0.1:7001 help
  raftkv-nc --timeout 600 127.0.0.1:7001 snapshot      have the node take snapshots
  raftkv-nc snapshot data/node1/snapshots/shard-0 --items    print those that it has
  raftkv-nc log data/node1
  raftkv-nc check data/node1"#;

/// Paragraphs that the terminal's width breaks.
const DETAILS: &str = "\
Without a command, commands are read from the standard input, one a line; empty lines and lines that begin with # are \
skipped, 'quit' ends. As arguments, the shell splits and quotes the words; the escapes are the same.\n\n\
'log' prints every record of a node's log, read-only, while the node runs or after: segment by segment, batch by batch, \
each record with its offset in the file. DIR is a data directory or one of its logs/core-N.\n\n\
'snapshot' without an address prints what a snapshot says of itself, with --items every key, version and value too, and checks all of it. \
FILE is any snapshot; of a data directory, or one of its snapshots/shard-N, all are printed. \
Behind HOST:PORT it is a command: the node takes snapshots of its shards, and prints one line for each.\n\n\
'check' reads all of a node's data directory, changes nothing, and says in one line each whether the identity, the \
peers, every log and every snapshot are right. A node that runs goes on meanwhile.\n\n\
Exit code: 0 done, 3 key not found, 1 failed, 2 bad usage; of many commands the worst, in the order 2, 1, 3, 0.";

/// The first words that read files instead of talking to a node.
const LOG: &str = "log";
const SNAPSHOT: &str = "snapshot";
const CHECK: &str = "check";

/// Talk to a RaftKV node by hand, or read its files.
#[derive(Debug, Parser)]
#[command(name = "raftkv-nc", version, max_term_width = 100, after_help = format!("{HELP}\n{EXAMPLES}\n\n{DETAILS}"))]
#[command(override_usage = "raftkv-nc [OPTIONS] HOST:PORT [COMMAND]...
       raftkv-nc log DIR
       raftkv-nc snapshot FILE|DIR [--items]
       raftkv-nc check DIR")]
struct Arguments {
    /// The node to talk to, or 'log', 'snapshot' or 'check'
    #[arg(value_name = "HOST:PORT")]
    target: String,
    /// One command and its words; 'help' lists the commands
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    command: Vec<OsString>,
    /// Show every frame in both directions, field by field and as bytes, on the error output
    #[arg(long)]
    frames: bool,
    /// How long to wait for the connection and for each reply
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = parse_seconds)]
    timeout: Duration,
    /// Print the value of a get as it is, byte by byte and without an end of line
    #[arg(long)]
    raw_output: bool,
    /// Send no hello: whatever the node should see first, 'raw' can send
    #[arg(long)]
    no_hello: bool,
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|timeout| !timeout.is_zero()).ok_or_else(|| "a number of seconds above 0 is wanted".into())
}

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
