//! Runs cases over faces, and compares what they were told.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use raftkv::client::Item;
use raftkv_protocol::client::{BatchBuffer, BatchOperation, Change, Code, Condition, Consistency, Operation, Scan};
use raftkv_protocol::types::Index;

use crate::face::{self, Face, More, Outcome, Page};
use crate::support::cluster::{Cluster, SHARDS};

/// What is to be told, once for all faces.
pub type Case = (&'static str, fn(&mut Run<'_>));

/// One case on one face, with keys that no other has.
pub struct Run<'a> {
    face: &'a mut (dyn Face + Send),
    /// Before all its keys; equally long for all.
    space: String,
    /// Differs from run to run.
    pub number: u8,
    /// Of each key, in the order in which they were told.
    versions: BTreeMap<Vec<u8>, Vec<u64>>,
    /// What was told, in words that are the same for all runs.
    told: Vec<String>,
}

/// Runs every case on every face of every node.
pub fn all(cluster: &Cluster, cases: &[Case]) {
    let mut faces = face::of_nodes(cluster, &cluster.ids());
    let mut failures = Vec::new();
    for (name, case) in cases {
        let mut first: Option<(String, Vec<String>)> = None;
        for (number, face) in (0..).zip(&mut faces) {
            let on = face.name();
            let mut run = Run {
                face: &mut **face,
                space: format!("{number:02}/{name}/"),
                number,
                versions: BTreeMap::new(),
                told: Vec::new(),
            };
            if catch_unwind(AssertUnwindSafe(|| case(&mut run))).is_err() {
                failures.push(format!("{name}, over {on}: it panicked, see above"));
                continue;
            }
            match &first {
                None => first = Some((on, run.told)),
                Some((other, told)) => failures.extend(
                    difference(told, &run.told)
                        .map(|(theirs, own)| format!("{name}: {other} tells {theirs}, {on} {own}")),
                ),
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

fn difference<'a>(told: &'a [String], other: &'a [String]) -> Option<(&'a str, &'a str)> {
    let at = (0..told.len().max(other.len())).find(|at| told.get(*at) != other.get(*at))?;
    let line = |told: &'a [String]| told.get(at).map_or("nothing more", String::as_str);
    Some((line(told), line(other)))
}

impl Run<'_> {
    /// A key of this run.
    pub fn key(&self, name: impl AsRef<[u8]>) -> Vec<u8> {
        [self.space.as_bytes(), name.as_ref()].concat()
    }

    /// A key of this run that lies in one shard with the others that are made so.
    pub fn tagged(&self, name: impl AsRef<[u8]>) -> Vec<u8> {
        [b"{", self.space.as_bytes(), b"}", name.as_ref()].concat()
    }

    /// Keys of this run in two shards.
    pub fn keys_of_two_shards(&self) -> [Vec<u8>; 2] {
        let shard = |key: &Vec<u8>| raftkv::client::Slot::of(key).shard(SHARDS);
        let first = self.key("k0");
        let other = (1..).map(|n| self.key(format!("k{n}"))).find(|key| shard(key) != shard(&first));
        [first, other.expect("there are several shards")]
    }

    /// Asks, and takes down what is told.
    pub fn ask(&mut self, operation: Operation<'_>) -> Outcome {
        let outcome = self.face.ask(operation);
        let words = match (operation, &outcome) {
            (Operation::Put { key, .. }, Outcome::Put { version }) => format!("put {}", self.rank(key, *version)),
            (Operation::Batch(batch), Outcome::Batch { version, deleted }) => {
                let ranks =
                    batch.operations().map(|operation| version.map(|version| self.rank(operation.key, version)));
                format!("batch {:?} {deleted:?}", ranks.collect::<Vec<_>>())
            }
            (Operation::Get { key, .. }, Outcome::Value { version, bytes }) => {
                format!("value {} of {} bytes", self.rank(key, *version), bytes.len())
            }
            // Whether more follow is compared by those who ask for pages: gRPC does not always tell.
            (_, Outcome::Page(page)) => {
                let mut item = |item: &Item| {
                    let (rank, bytes) = (self.rank(&item.key, item.version.0), item.value.len());
                    format!("{} {rank} of {bytes} bytes", self.without_space(&item.key))
                };
                format!("page {:?}", page.items.iter().map(&mut item).collect::<Vec<_>>())
            }
            (_, other) => format!("{other:?}"),
        };
        self.told.push(words);
        outcome
    }

    /// Versions are other numbers for every run; which of a key's are the same, and which is new, must be alike.
    fn rank(&mut self, key: &[u8], version: u64) -> usize {
        let versions = self.versions.entry(key.to_vec()).or_default();
        let known = versions.iter().position(|known| *known == version);
        known.unwrap_or_else(|| {
            versions.push(version);
            versions.len() - 1
        })
    }

    fn without_space(&self, key: &[u8]) -> String {
        key.strip_prefix(self.space.as_bytes()).unwrap_or(key).escape_ascii().to_string()
    }

    #[track_caller]
    pub fn put(&mut self, key: &[u8], value: impl AsRef<[u8]>) -> u64 {
        self.put_if(key, value, Condition::None).expect("written")
    }

    #[track_caller]
    pub fn put_if(&mut self, key: &[u8], value: impl AsRef<[u8]>, condition: Condition) -> Result<u64, Code> {
        match self.ask(Operation::Put { key, value: value.as_ref(), condition }) {
            Outcome::Put { version } => Ok(version),
            outcome => Err(code(outcome)),
        }
    }

    #[track_caller]
    pub fn delete_if(&mut self, key: &[u8], condition: Condition) -> Result<bool, Code> {
        match self.ask(Operation::Delete { key, condition }) {
            Outcome::Deleted { existed } => Ok(existed),
            outcome => Err(code(outcome)),
        }
    }

    #[track_caller]
    pub fn get(&mut self, key: &[u8]) -> Result<(u64, Vec<u8>), Code> {
        self.get_with(key, Consistency::Linearizable)
    }

    #[track_caller]
    pub fn get_with(&mut self, key: &[u8], consistency: Consistency) -> Result<(u64, Vec<u8>), Code> {
        match self.ask(Operation::Get { key, consistency }) {
            Outcome::Value { version, bytes } => Ok((version, bytes)),
            outcome => Err(code(outcome)),
        }
    }

    /// The version of what was put, and what was deleted.
    #[track_caller]
    pub fn batch(&mut self, operations: &[BatchOperation<'_>]) -> Result<(Option<u64>, Vec<bool>), Code> {
        let mut batch = BatchBuffer::default();
        operations.iter().for_each(|operation| batch.push(operation).expect("short keys"));
        match self.ask(Operation::Batch(batch.as_batch())) {
            Outcome::Batch { version, deleted } => Ok((version, deleted)),
            outcome => Err(code(outcome)),
        }
    }

    #[track_caller]
    pub fn page(&mut self, scan: Scan<'_>) -> Result<Page, Code> {
        match self.ask(Operation::Scan(scan)) {
            Outcome::Page(page) => Ok(page),
            outcome => Err(code(outcome)),
        }
    }

    /// Everything that a scan gives within its limit: the keys without what all of this run begin with.
    #[track_caller]
    pub fn whole(&mut self, scan: Scan<'_>) -> Vec<String> {
        let items = self.face.whole(&scan);
        let keys: Vec<String> = items.iter().map(|item| self.without_space(&item.key)).collect();
        self.told.push(format!("{keys:?}"));
        keys
    }

    /// All pages of a scan, one after the other: the keys without what all of this run begin with.
    #[track_caller]
    pub fn pages(&mut self, scan: Scan<'_>) -> Vec<Vec<String>> {
        let mut pages = Vec::new();
        let (mut cursor, mut is_told) = (Vec::new(), true);
        loop {
            let page = self.page(Scan { cursor: &cursor, ..scan }).expect("a page");
            if page.items.is_empty() {
                assert!(pages.is_empty() || !is_told, "an empty page follows another");
                // Other faces have not had to ask.
                let _ = (!is_told).then(|| self.told.pop());
                return pages;
            }
            pages.push(page.items.iter().map(|item| self.without_space(&item.key)).collect());
            is_told = !matches!(page.more, More::Untold(_));
            cursor = match page.more {
                More::No => return pages,
                More::Yes(cursor) | More::Untold(cursor) => cursor,
            };
            assert!(pages.len() <= 100, "the scan does not end");
        }
    }
}

#[track_caller]
fn code(outcome: Outcome) -> Code {
    match outcome {
        Outcome::Refused(code) => code,
        outcome => panic!("this is answered with something else: {outcome:?}"),
    }
}

/// What a batch does to a key.
pub fn put<'a>(key: &'a [u8], value: &'a [u8], condition: Condition) -> BatchOperation<'a> {
    BatchOperation { key, condition, change: Change::Put(value) }
}

/// What a batch does to a key.
pub fn delete(key: &[u8], condition: Condition) -> BatchOperation<'_> {
    BatchOperation { key, condition, change: Change::Delete }
}

/// The key has exactly this version.
pub fn at(version: u64) -> Condition {
    Condition::Version(Index(version))
}
