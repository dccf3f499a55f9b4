//! Commands: words with a meaning.

use raftkv_protocol::client::{BatchBuffer, BatchOperation, Change, Condition, Consistency};
use raftkv_protocol::types::Index;

use crate::words;

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Put { key: Vec<u8>, value: Vec<u8>, condition: Condition },
    Get { key: Vec<u8>, consistency: Consistency, version: ShowVersion },
    Delete { key: Vec<u8>, condition: Condition },
    Batch(BatchBuffer),
    Scan(Scan),
    Slots,
    Status,
    Ping,
    Snapshot,
    Raw(Vec<u8>),
    Help,
}

/// Whether a value is printed with its version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShowVersion {
    #[default]
    No,
    Yes,
}

/// What a scan is to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    pub prefix: Vec<u8>,
    pub start: Vec<u8>,
    pub end: Vec<u8>,
    pub cursor: Vec<u8>,
    /// Over all pages; `None` for everything.
    pub limit: Option<u32>,
    pub reverse: bool,
    pub consistency: Consistency,
}

/// Reads a command from its words.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn parse(words: Vec<Vec<u8>>) -> Result<Command, String> {
    let mut words = Words(words.into_iter());
    let name = words.next("a command")?;
    let command = match name.as_slice() {
        b"put" => {
            let (key, value) = (words.key()?, words.next("a value")?);
            Command::Put { key, value, condition: words.condition()? }
        }
        b"get" => words.get()?,
        b"del" | b"delete" => Command::Delete { key: words.key()?, condition: words.condition()? },
        b"batch" => Command::Batch(words.batch()?),
        b"scan" => Command::Scan(words.scan()?),
        b"slots" => Command::Slots,
        b"status" => Command::Status,
        b"ping" => Command::Ping,
        b"snapshot" => Command::Snapshot,
        b"raw" => Command::Raw(words::parse_hex(&words.0.by_ref().collect::<Vec<_>>().concat())?),
        b"help" => Command::Help,
        _ => return Err(format!("unknown command {}; 'help' lists them", words::quote(&name))),
    };
    match words.0.next() {
        Some(word) => Err(format!("{} does not belong there; 'help' shows what does", words::quote(&word))),
        None => Ok(command),
    }
}

/// The words that are not read yet.
struct Words(std::vec::IntoIter<Vec<u8>>);

impl Words {
    fn next(&mut self, what: &str) -> Result<Vec<u8>, String> {
        self.0.next().ok_or_else(|| format!("{what} is missing; 'help' shows what belongs where"))
    }

    /// A key travels with a length of 16 bits. All lower limits are the server's to judge.
    fn key(&mut self) -> Result<Vec<u8>, String> {
        let key = self.next("a key")?;
        if key.len() > usize::from(u16::MAX) {
            return Err(format!("a key of {} bytes does not fit into the protocol", key.len()));
        }
        Ok(key)
    }

    fn number<N: std::str::FromStr>(&mut self, what: &str) -> Result<N, String> {
        let word = self.next(what)?;
        let number = std::str::from_utf8(&word).ok().and_then(|text| text.parse().ok());
        number.ok_or_else(|| format!("{} is not {what}", words::quote(&word)))
    }

    fn condition(&mut self) -> Result<Condition, String> {
        let mut condition = Condition::None;
        while let Some(option) = self.option() {
            let new = match option.as_slice() {
                b"--if-version" => Condition::Version(Index(self.number("a version")?)),
                b"--if-exists" => Condition::Exists,
                b"--if-absent" => Condition::Absent,
                _ => return Err(unknown_option(&option)),
            };
            if std::mem::replace(&mut condition, new) != Condition::None {
                return Err("one condition is enough".into());
            }
        }
        Ok(condition)
    }

    /// The next word, if it begins like an option.
    fn option(&mut self) -> Option<Vec<u8>> {
        self.0.as_slice().first().is_some_and(|word| word.starts_with(b"--")).then(|| self.0.next())?
    }

    fn batch(&mut self) -> Result<BatchBuffer, String> {
        let mut batch = BatchBuffer::default();
        let mut operation = self.next("an operation")?;
        loop {
            let (key, value) = match operation.as_slice() {
                b"put" => (self.key()?, Some(self.next("a value")?)),
                b"del" | b"delete" => (self.key()?, None),
                name => return Err(format!("{} is no operation of a batch: put or del", words::quote(name))),
            };
            let change = value.as_deref().map_or(Change::Delete, Change::Put);
            let condition = self.condition()?;
            let pushed = batch.push(&BatchOperation { key: &key, condition, change });
            pushed.map_err(|too_long| format!("a key of {} bytes does not fit into the protocol", too_long.0))?;
            match self.0.next() {
                Some(next) => operation = next,
                None => return Ok(batch),
            }
        }
    }

    fn get(&mut self) -> Result<Command, String> {
        let key = self.key()?;
        let (mut consistency, mut version) = (Consistency::default(), ShowVersion::default());
        for option in self.0.by_ref() {
            match option.as_slice() {
                b"--version" => version = ShowVersion::Yes,
                other => consistency = parse_consistency(other)?,
            }
        }
        Ok(Command::Get { key, consistency, version })
    }

    fn scan(&mut self) -> Result<Scan, String> {
        let mut scan = Scan::default();
        let mut prefix = None;
        while let Some(word) = self.0.next() {
            match word.as_slice() {
                b"--start" => scan.start = self.key()?,
                b"--end" => scan.end = self.key()?,
                b"--cursor" => scan.cursor = self.key()?,
                b"--limit" => scan.limit = Some(self.number("a number of items")?),
                b"--reverse" => scan.reverse = true,
                option if option.starts_with(b"--") => scan.consistency = parse_consistency(option)?,
                _ if prefix.is_none() && word.len() <= usize::from(u16::MAX) => prefix = Some(word),
                _ => return Err(format!("{} does not belong there", words::quote(&word))),
            }
        }
        scan.prefix = prefix.unwrap_or_default();
        Ok(scan)
    }
}

fn parse_consistency(option: &[u8]) -> Result<Consistency, String> {
    match option {
        b"--stale" => Ok(Consistency::Stale),
        b"--lease" => Ok(Consistency::Lease),
        _ => Err(unknown_option(option)),
    }
}

fn unknown_option(option: &[u8]) -> String {
    format!("unknown option {}; 'help' lists them", words::escape(option))
}
