//! A store that does one thing after the other, at a random moment between each call and its reply.

use std::collections::BTreeMap;

use raftkv_history::{Condition, History, Kind, Operation, Outcome};

use super::Random;

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub clients: u32,
    pub keys: usize,
    pub operations: usize,
    /// How many of a hundred calls are given up, before or after they took effect.
    pub given_up: usize,
}

/// An entry of the store's log, whether its condition held or not.
#[derive(Clone, Debug)]
pub struct Entry {
    pub index: u64,
    pub key: Vec<u8>,
    pub kind: Kind,
}

struct Store {
    log: Vec<Entry>,
    keys: BTreeMap<Vec<u8>, (u64, Vec<u8>)>,
    index: u64,
}

impl Store {
    fn holds(&self, key: &[u8], condition: Condition) -> bool {
        let version = self.keys.get(key).map(|(version, _)| *version);
        match condition {
            Condition::None => true,
            Condition::Version(wanted) => version == Some(wanted),
            Condition::Exists => version.is_some(),
            Condition::Absent => version.is_none(),
        }
    }

    fn apply(&mut self, operation: &Operation, random: &mut Random) -> Outcome {
        if operation.kind.is_write() {
            // Others write to the same log.
            self.index += 1 + random.below(3) as u64;
            let (key, kind) = (operation.key.clone(), operation.kind.clone());
            self.log.push(Entry { index: self.index, key, kind });
        }
        if !self.holds(&operation.key, operation.kind.condition()) {
            return Outcome::ConditionFailed;
        }
        match &operation.kind {
            Kind::Get => Outcome::Value(self.keys.get(&operation.key).cloned()),
            Kind::Put { value, .. } => {
                self.keys.insert(operation.key.clone(), (self.index, value.clone()));
                Outcome::Put { version: self.index }
            }
            Kind::Delete { .. } => {
                let existed = Some(self.keys.remove(&operation.key).is_some());
                Outcome::Deleted { existed, index: random.percent(50).then_some(self.index) }
            }
        }
    }
}

/// A call that has no reply yet, and its effect once it had one.
struct Call {
    operation: Operation,
    applied: Option<Outcome>,
}

struct Run {
    random: Random,
    load: Load,
    store: Store,
    now: u64,
    called: usize,
    /// By client.
    calls: Vec<Option<Call>>,
    /// Nobody waits for these, but they may still happen.
    given_up: Vec<Operation>,
    history: History,
}

/// A history of so many operations. Every value is put once.
pub fn good(seed: u64, load: Load) -> History {
    good_with_log(seed, load).0
}

/// The same, and the log of the store.
pub fn good_with_log(seed: u64, load: Load) -> (History, Vec<Entry>) {
    let mut run = Run {
        random: Random(seed),
        load,
        store: Store { log: Vec::new(), keys: BTreeMap::new(), index: 0 },
        now: 0,
        called: 0,
        calls: (0..load.clients).map(|_| None).collect(),
        given_up: Vec::new(),
        history: History::new(),
    };
    while run.called < load.operations {
        run.turn();
    }
    while let Some(call) = run.calls.iter_mut().find_map(Option::take) {
        run.give_up(call);
    }
    (run.history, run.store.log)
}

impl Run {
    fn turn(&mut self) {
        self.now += 1;
        if self.random.percent(5) && !self.given_up.is_empty() {
            let late = self.random.below(self.given_up.len());
            let late = self.given_up.swap_remove(late);
            self.store.apply(&late, &mut self.random);
            return;
        }
        let client = self.random.below(self.calls.len());
        let Some(mut call) = self.calls[client].take() else {
            self.calls[client] = Some(self.call(client as u32));
            return;
        };
        let fate = self.random.below(200);
        if fate < self.load.given_up {
            return self.give_up(call);
        }
        match call.applied.take() {
            Some(outcome) => self.end(call.operation, outcome),
            None if fate < 2 * self.load.given_up => self.end(call.operation, Outcome::Failed),
            None => {
                call.applied = Some(self.store.apply(&call.operation, &mut self.random));
                self.calls[client] = Some(call);
            }
        }
    }

    fn call(&mut self, client: u32) -> Call {
        self.called += 1;
        let key = format!("key{}", self.random.below(self.load.keys)).into_bytes();
        // A client's view is now and then a little old.
        let version = self.store.keys.get(&key).map_or(1, |(version, _)| *version);
        let condition = match self.random.below(10) {
            0 | 1 => Condition::Version(version),
            2 => Condition::Exists,
            3 => Condition::Absent,
            _ => Condition::None,
        };
        let kind = match self.random.below(10) {
            0..=3 => Kind::Get,
            4..=8 => Kind::Put { value: format!("value{}", self.called).into_bytes(), condition },
            _ => Kind::Delete { condition },
        };
        let operation = Operation { client, key, kind, call: self.now, outcome: Outcome::Unknown, ret: u64::MAX };
        Call { operation, applied: None }
    }

    fn end(&mut self, mut operation: Operation, outcome: Outcome) {
        operation.outcome = outcome;
        operation.ret = self.now;
        self.history.push(operation);
    }

    fn give_up(&mut self, call: Call) {
        if call.applied.is_none() {
            self.given_up.push(call.operation.clone());
        }
        self.history.push(call.operation);
    }
}
