//! Clients that do everything on few keys at once, and the record of what they saw.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use raftkv::client::{Client, Condition, Error, ErrorKind, Result, Slot, Version};
use raftkv_history::{self as history, History, Kind, Limits, Operation, Outcome};
use raftkv_protocol::client::Code;

use super::cluster::Cluster;
use super::random::Random;
use super::wait::{PATIENCE, eventually, pause};
use super::wire::{Replied, Said, Wire, get};

/// Keys that are in use at one time.
const KEYS: u64 = 5;
/// After so many calls all clients turn to fresh keys, so that what never got an outcome is left behind.
const CALLS_PER_KEYS: u64 = 2_000;
/// Added to a node's id: the number of a client that reads through that node alone.
const THROUGH_NODE: u32 = 1_000;
/// How long such a client waits before it asks again.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// How many questions it leaves open before it starts afresh.
const WAITING_MAX: usize = 50;

/// What all clients share.
#[derive(Debug, Default)]
struct Shared {
    /// Numbers calls and replies in the order in which they happen.
    clock: AtomicU64,
    calls: AtomicU64,
    answered: AtomicU64,
    stop: AtomicBool,
}

/// Threads that call until they are told to stop, each with a client of its own.
#[derive(Debug)]
pub struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Vec<Operation>>>,
}

/// What clients saw.
#[derive(Debug)]
pub struct Record {
    shared: Arc<Shared>,
    history: History,
}

impl Clients {
    /// Starts so many clients that give up each call after `timeout`, and for each node one that reads through no other.
    /// `prefix` keeps their keys apart from everybody else's.
    pub fn start(cluster: &Cluster, prefix: &str, clients: u32, timeout: Duration, random: &mut Random) -> Clients {
        let shared = Arc::new(Shared::default());
        let spawn = |number: u32| {
            let mut caller = Caller {
                number,
                client: cluster.client_with(timeout),
                prefix: prefix.to_owned(),
                random: Random(random.below(u64::MAX)),
                shared: Arc::clone(&shared),
                seen: BTreeMap::new(),
                record: Vec::new(),
            };
            thread::spawn(move || {
                while !caller.shared.stop.load(Ordering::Relaxed) {
                    caller.call();
                }
                caller.record
            })
        };
        let mut threads: Vec<_> = (1..=clients).map(spawn).collect();
        for node in cluster.ids() {
            let mut stubborn = Stubborn {
                node,
                address: cluster.address(node),
                prefix: prefix.to_owned(),
                random: Random(random.below(u64::MAX)),
                shared: Arc::clone(&shared),
                waiting: BTreeMap::new(),
                record: Vec::new(),
            };
            threads.push(thread::spawn(move || {
                while !stubborn.shared.stop.load(Ordering::Relaxed) {
                    stubborn.read_on_one_connection();
                }
                stubborn.record
            }));
        }
        Clients { shared, threads }
    }

    /// Waits until so many more calls are answered.
    #[track_caller]
    pub fn await_progress(&self, calls: u64) {
        let answered = || self.shared.answered.load(Ordering::Relaxed);
        let goal = answered() + calls;
        eventually(PATIENCE, format!("{calls} more calls are answered"), || (answered() >= goal).then_some(()));
    }

    /// Stops them; what they saw.
    #[track_caller]
    pub fn stop(mut self) -> Record {
        self.shared.stop.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut self.threads).into_iter();
        let history = threads.flat_map(|thread| thread.join().expect("a client's expectations hold")).collect();
        Record { shared: Arc::clone(&self.shared), history }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Record {
    /// Reads every key through each of these nodes; these reads are part of the record, and so must be answered.
    #[track_caller]
    pub fn read_all(&mut self, cluster: &Cluster, nodes: &[u64]) {
        let keys: Vec<Vec<u8>> = self.history.by_key().into_keys().map(<[u8]>::to_vec).collect();
        for id in nodes {
            let mut wire = cluster.wire(*id);
            for key in &keys {
                let call = self.shared.now();
                let outcome = Outcome::Value(wire.get(key));
                let ret = self.shared.now();
                self.history.push(Operation {
                    client: THROUGH_NODE + *id as u32,
                    key: key.clone(),
                    kind: Kind::Get,
                    call,
                    outcome,
                    ret,
                });
            }
        }
    }

    /// Judges what was seen of a cluster of so many shards.
    #[track_caller]
    pub fn check(&self, shards: u16) {
        let shard_of = |key: &[u8]| Slot::of(key).shard(shards).0;
        let judged = history::check(&self.history, &Limits::default())
            .and_then(|summary| history::check_indexes(&self.history).map(|()| summary))
            .and_then(|summary| history::check_shard_indexes(&self.history, shard_of).map(|()| summary));
        match judged {
            Ok(summary) => println!("linearizable: {summary}"),
            Err(violation) => panic!("{violation}"),
        }
    }
}

impl Shared {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// A key that is in use at the time of this call.
    fn key(&self, prefix: &str, call: u64, random: &mut Random) -> Vec<u8> {
        format!("{prefix}/{}/{}", call / CALLS_PER_KEYS, random.below(KEYS)).into_bytes()
    }
}

/// One client.
struct Caller {
    number: u32,
    client: Client,
    prefix: String,
    random: Random,
    shared: Arc<Shared>,
    /// The last version that it saw of each key.
    seen: BTreeMap<Vec<u8>, Version>,
    record: Vec<Operation>,
}

impl Caller {
    fn call(&mut self) {
        let number = self.shared.calls.fetch_add(1, Ordering::Relaxed);
        let key = self.shared.key(&self.prefix, number, &mut self.random);
        let condition = self.condition(&key);
        let kind = match self.random.below(20) {
            0..=7 => Kind::Get,
            8..=16 => Kind::Put { value: format!("{number}").into_bytes(), condition: recorded(condition) },
            _ => Kind::Delete { condition: recorded(condition) },
        };
        let call = self.shared.now();
        let outcome = self.ask(&key, &kind, condition);
        let ret = self.shared.now();
        let counts = match outcome {
            Outcome::Failed => false,
            Outcome::Unknown => kind.is_write(),
            _ => true,
        };
        if outcome != Outcome::Unknown && counts {
            self.shared.answered.fetch_add(1, Ordering::Relaxed);
        }
        if counts {
            let ret = if outcome == Outcome::Unknown { u64::MAX } else { ret };
            self.record.push(Operation { client: self.number, key, kind, call, outcome, ret });
        }
    }

    fn condition(&mut self, key: &[u8]) -> Condition {
        match self.random.below(8) {
            0..=2 => self.seen.get(key).map_or(Condition::Absent, |version| Condition::Version(*version)),
            3 => Condition::Absent,
            4 => Condition::Exists,
            _ => Condition::None,
        }
    }

    fn ask(&mut self, key: &[u8], kind: &Kind, condition: Condition) -> Outcome {
        match kind {
            Kind::Get => match self.client.get(key) {
                Ok(value) => {
                    self.saw(key, value.as_ref().map(|value| value.version));
                    Outcome::Value(value.map(|value| (value.version.0, value.bytes)))
                }
                Err(_) => Outcome::Unknown,
            },
            Kind::Put { value, .. } => {
                let written: Result<Version> = self.client.put_if(key, value, condition);
                self.saw(key, written.as_ref().ok().copied());
                written.map_or_else(|error| failed(&error), |version| Outcome::Put { version: version.0 })
            }
            Kind::Delete { .. } => {
                let deleted = self.client.delete_if(key, condition);
                deleted.map_or_else(
                    |error| failed(&error),
                    |existed| Outcome::Deleted { existed: Some(existed), index: None },
                )
            }
        }
    }

    fn saw(&mut self, key: &[u8], version: Option<Version>) {
        if let Some(version) = version {
            self.seen.insert(key.to_vec(), version);
        }
    }
}

/// A client that reads through one node, however little it answers: it asks again and again on the same connection, so
/// that a node that finds itself behind the times has fresh questions waiting.
struct Stubborn {
    node: u64,
    address: SocketAddr,
    prefix: String,
    random: Random,
    shared: Arc<Shared>,
    /// Key and time of the call, by the request's id.
    waiting: BTreeMap<u64, (Vec<u8>, u64)>,
    record: Vec<Operation>,
}

impl Stubborn {
    fn read_on_one_connection(&mut self) {
        self.waiting.clear();
        let Ok(mut wire) = Wire::connect_within(ASK_AGAIN, self.address) else {
            pause(Duration::from_millis(10));
            return;
        };
        while !self.shared.stop.load(Ordering::Relaxed) && self.waiting.len() < WAITING_MAX {
            let key = self.shared.key(&self.prefix, self.shared.calls.load(Ordering::Relaxed), &mut self.random);
            let call = self.shared.now();
            let Ok(id) = wire.submit(get(&key)) else { return };
            self.waiting.insert(id, (key, call));
            while !self.waiting.is_empty() {
                match wire.reply() {
                    Ok(Some(replied)) => self.take(replied),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Ok(None) | Err(_) => return,
                }
            }
        }
    }

    fn take(&mut self, replied: Replied) {
        let ret = self.shared.now();
        let Some((key, call)) = self.waiting.remove(&replied.id) else { return };
        let shown = match replied.said {
            Said::Value { version, bytes } => Some((version, bytes)),
            said if said.code() == Some(Code::NotFound) => None,
            // It has been told that there is no answer.
            _ => return pause(Duration::from_millis(10)),
        };
        let client = THROUGH_NODE + self.node as u32;
        self.record.push(Operation { client, key, kind: Kind::Get, call, outcome: Outcome::Value(shown), ret });
    }
}

fn failed(error: &Error) -> Outcome {
    match error.kind() {
        ErrorKind::PreconditionFailed => Outcome::ConditionFailed,
        _ if error.maybe_applied() => Outcome::Unknown,
        _ => Outcome::Failed,
    }
}

fn recorded(condition: Condition) -> history::Condition {
    match condition {
        Condition::None => history::Condition::None,
        Condition::Version(version) => history::Condition::Version(version.0),
        Condition::Exists => history::Condition::Exists,
        Condition::Absent => history::Condition::Absent,
    }
}
