//! Executing commands: from words to a connection to printed lines.

use std::io::{self, Write};
use std::time::Instant;

use raftkv_protocol::client::{self as wire, Answer, Code, Operation, Refusal, Reply, SnapshotOutcome};

use raftkv_nc::arguments::HELP;

use crate::command::{Command, Scan, ShowVersion};
use crate::print;
use crate::session::{Session, SessionError, Settings};
use crate::words;

/// How a command, or many, ended; the order is from best to worst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    #[default]
    Done,
    NotFound,
    Failed,
    BadUsage,
}

impl Ending {
    /// For the shell.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Ending::Done => 0,
            Ending::NotFound => 3,
            Ending::Failed => 1,
            Ending::BadUsage => 2,
        }
    }
}

/// Whether `get` prints a value's bytes as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Escaped,
    Raw,
}

/// Why a command did not do what it should.
#[derive(Debug)]
pub enum Failure {
    /// The key does not exist.
    NotFound,
    /// The node refused, in one line.
    Refused(String),
    /// There is no reply, and the connection is of no more use.
    Session(SessionError),
    /// Nobody reads what is printed.
    Output(io::Error),
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Failure {
        Failure::Session(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Output(error)
    }
}

impl From<&Refusal<'_>> for Failure {
    fn from(refusal: &Refusal<'_>) -> Failure {
        let message = words::escape(refusal.message.as_bytes());
        match (refusal.code, refusal.leader) {
            (Code::NotFound, _) => Failure::NotFound,
            (code, Some(leader)) => Failure::Refused(format!("{code}: {message} (leader: node {leader})")),
            (code, None) => Failure::Refused(format!("{code}: {message}")),
        }
    }
}

/// Executes commands on a node, over one connection as long as that lasts.
#[derive(Debug)]
pub struct Runner {
    settings: Settings,
    output: Output,
    session: Option<Session>,
}

impl Runner {
    /// Nothing is connected until the first command needs it.
    #[must_use]
    pub fn new(settings: Settings, output: Output) -> Runner {
        Runner { settings, output, session: None }
    }

    /// Executes one command and prints what came of it: results to `out`, failures to the error output.
    ///
    /// # Errors
    /// `out`'s.
    pub fn run(&mut self, command: &Command, out: &mut dyn Write) -> io::Result<Ending> {
        let result = self.execute(command, out);
        out.flush()?;
        match result {
            Ok(()) => Ok(Ending::Done),
            Err(Failure::NotFound) => {
                eprintln!("raftkv-nc: not found");
                Ok(Ending::NotFound)
            }
            Err(Failure::Refused(message)) => {
                eprintln!("raftkv-nc: {message}");
                Ok(Ending::Failed)
            }
            Err(Failure::Session(error)) => {
                self.session = None;
                eprintln!("raftkv-nc: {error}");
                Ok(Ending::Failed)
            }
            Err(Failure::Output(error)) => Err(error),
        }
    }

    fn execute(&mut self, command: &Command, out: &mut dyn Write) -> Result<(), Failure> {
        match command {
            Command::Help => Ok(out.write_all(HELP.as_bytes())?),
            Command::Raw(bytes) => self.raw(bytes, out),
            Command::Scan(scan) => self.scan(scan, out),
            Command::Ping => {
                let asked = Instant::now();
                self.ask(Operation::Ping, |_, _| Some(Ok(())))?;
                Ok(writeln!(out, "pong after {:.3} ms", asked.elapsed().as_secs_f64() * 1e3)?)
            }
            Command::Put { key, value, condition } => self
                .ask(Operation::Put { key, value, condition: *condition }, |reply, answer| {
                    matches!(answer, Answer::Put).then(|| writeln!(out, "version {}", reply.at.index))
                }),
            Command::Delete { key, condition } => self.delete(key, *condition, out),
            Command::Batch(batch) => self.ask(Operation::Batch(batch.as_batch()), |reply, answer| match answer {
                Answer::Batch { existed } => Some(print::batch(out, batch.as_batch(), reply.at.index, *existed)),
                _ => None,
            }),
            Command::Get { key, consistency, version } => {
                let raw = self.output == Output::Raw;
                self.ask(Operation::Get { key, consistency: *consistency }, |_, answer| match answer {
                    Answer::Value { value, .. } if raw => Some(out.write_all(value)),
                    Answer::Value { version: number, value } => Some(match version {
                        ShowVersion::Yes => writeln!(out, "@{number} {}", words::escape(value)),
                        ShowVersion::No => writeln!(out, "{}", words::escape(value)),
                    }),
                    _ => None,
                })
            }
            Command::Snapshot => self.snapshot(out),
            Command::Slots => self.ask(Operation::Slots, |_, answer| match answer {
                Answer::Slots(table) => Some(print::slots(out, table)),
                _ => None,
            }),
            Command::Status => self.ask(Operation::Status, |_, answer| match answer {
                Answer::Status(status) => Some(print::status(out, status)),
                _ => None,
            }),
        }
    }

    fn delete(&mut self, key: &[u8], condition: wire::Condition, out: &mut dyn Write) -> Result<(), Failure> {
        let mut gone = false;
        self.ask(Operation::Delete { key, condition }, |_, answer| match answer {
            Answer::Deleted { existed: true } => Some(writeln!(out, "deleted")),
            Answer::Deleted { existed: false } => {
                gone = true;
                Some(Ok(()))
            }
            _ => None,
        })?;
        if gone { Err(Failure::NotFound) } else { Ok(()) }
    }

    /// One line for each shard. The node is to answer before the patience with its connection ends.
    fn snapshot(&mut self, out: &mut dyn Write) -> Result<(), Failure> {
        let wait = self.settings.timeout * 9 / 10;
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1);
        let (mut all, mut failed) = (0, 0);
        self.ask(Operation::Snapshot { wait_ms }, |_, answer| match answer {
            Answer::Snapshots(snapshots) => {
                all = snapshots.len();
                failed = snapshots.iter().filter(|shard| matches!(shard.outcome, SnapshotOutcome::Failed(_))).count();
                Some(snapshots.iter().try_for_each(|snapshot| print::snapshot(out, snapshot)))
            }
            _ => None,
        })?;
        if failed > 0 {
            return Err(Failure::Refused(format!("{failed} of {all} shards have no new snapshot")));
        }
        Ok(())
    }

    /// Page after page, until the limit or the end.
    fn scan(&mut self, scan: &Scan, out: &mut dyn Write) -> Result<(), Failure> {
        let mut cursor = scan.cursor.clone();
        let mut left = scan.limit.unwrap_or(u32::MAX);
        while left > 0 {
            let operation = Operation::Scan(wire::Scan {
                prefix: &scan.prefix,
                start: &scan.start,
                end: &scan.end,
                cursor: &cursor,
                limit: if scan.limit.is_some() { left } else { 0 },
                reverse: scan.reverse,
                consistency: scan.consistency,
                shard: None,
            });
            let mut next = None;
            self.ask(operation, |_, answer| match answer {
                Answer::Page(page) => {
                    left = left.saturating_sub(page.items.len() as u32);
                    next = page.items.last().filter(|_| page.more).map(|item| item.key.to_vec());
                    Some(page.items.iter().try_for_each(|item| print::item(out, item)))
                }
                _ => None,
            })?;
            match next {
                Some(next) => cursor = next,
                None => break,
            }
        }
        Ok(())
    }

    fn raw(&mut self, bytes: &[u8], out: &mut dyn Write) -> Result<(), Failure> {
        if !self.session()?.raw(bytes, out)?? {
            self.session = None;
        }
        Ok(())
    }

    /// Asks and lets `show` print the answer, or say with `None` that it is another question's.
    fn ask(
        &mut self,
        operation: Operation<'_>,
        show: impl FnOnce(&Reply<'_>, &Answer<'_>) -> Option<io::Result<()>>,
    ) -> Result<(), Failure> {
        self.session()?.call(operation, |reply| match &reply.result {
            Ok(answer) => match show(reply, answer) {
                Some(shown) => Ok(shown?),
                None => Err(Failure::Refused(format!("the node answered {} with something else", operation.name()))),
            },
            Err(refusal) => Err(Failure::from(refusal)),
        })?
    }

    fn session(&mut self) -> Result<&mut Session, SessionError> {
        let session = match self.session.take() {
            Some(session) => session,
            None => Session::open(&self.settings)?,
        };
        Ok(self.session.insert(session))
    }
}
