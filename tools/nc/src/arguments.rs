//! The command line of `raftkv-nc`.

use std::ffi::OsString;
use std::time::Duration;

use clap::Parser;

/// What `help` prints.
pub const HELP: &str = r#"Commands:
  put KEY VALUE [--if-version N | --if-exists | --if-absent]
                     write a key; prints its version
  get KEY [--version] [--stale | --lease]
                     print a value; --version: as '@VERSION VALUE'
  del KEY [--if-version N | --if-exists]
                     remove a key
  batch OPERATION…   write and remove keys of one shard together, or none of
                     them if a condition does not hold; each OPERATION is
                     a put or del as above, one behind the other:
                     batch put {t}a 1 --if-absent del {t}b put {t}c 2
                     prints the version, and what became of each del
  scan [PREFIX] [--start KEY] [--end KEY] [--cursor KEY] [--limit N]
       [--reverse] [--stale | --lease]
                     print keys in order, one a line, as 'KEY @VERSION VALUE':
                     from --start on, before --end, after --cursor, at most
                     --limit over all pages
  slots              print the shards, their slots and their leaders
  status             print the state of the node and of its shards
  ping               print how long the node takes to answer
  snapshot           have the node snapshot its shards now, and wait for it:
                     --timeout says how long
  raw HEX…           send these bytes as they are and print what comes
  help               print this
Words:
  separated by spaces; "…" holds spaces; \xNN is any byte;
  \n \t \r \\ \" as elsewhere; the same escapes show bytes that are not
  printable, unless --raw-output is given
"#;

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

/// Talk to a RaftKV node by hand, or read its files.
#[derive(Debug, Parser)]
#[command(name = "raftkv-nc", version, max_term_width = 100, after_help = format!("{HELP}\n{EXAMPLES}\n\n{DETAILS}"))]
#[command(override_usage = "raftkv-nc [OPTIONS] HOST:PORT [COMMAND]...
       raftkv-nc log DIR
       raftkv-nc snapshot FILE|DIR [--items]
       raftkv-nc check DIR")]
pub struct Arguments {
    /// The node to talk to, or 'log', 'snapshot' or 'check'
    #[arg(value_name = "HOST:PORT")]
    pub target: String,
    /// One command and its words; 'help' lists the commands
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub command: Vec<OsString>,
    /// Show every frame in both directions, field by field and as bytes, on the error output
    #[arg(long)]
    pub frames: bool,
    /// How long to wait for the connection and for each reply
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = parse_seconds)]
    pub timeout: Duration,
    /// Print the value of a get as it is, byte by byte and without an end of line
    #[arg(long)]
    pub raw_output: bool,
    /// Send no hello: whatever the node should see first, 'raw' can send
    #[arg(long)]
    pub no_hello: bool,
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|timeout| !timeout.is_zero()).ok_or_else(|| "a number of seconds above 0 is wanted".into())
}
