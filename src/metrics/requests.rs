//! Requests by what they ask for, by the face that they came through, and by what became of them.

use std::time::Instant;

use raftkv_protocol::client::{Code, Operation};

use super::histogram::{Times, micros};

/// Where a client has come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// The binary protocol.
    Binary,
    /// REST.
    Rest,
    /// gRPC.
    Grpc,
}

impl Face {
    /// All of them.
    pub const ALL: [Face; 3] = [Face::Binary, Face::Rest, Face::Grpc];

    /// Its name, as in `rest`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Face::Binary => "binary",
            Face::Rest => "rest",
            Face::Grpc => "grpc",
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// A key is to be written.
    Put,
    /// A key is to be removed.
    Delete,
    /// Several keys are to be written and removed together.
    Batch,
    /// A key is read.
    Get,
    /// Keys are read in their order.
    Scan,
    /// Who leads which shard.
    Slots,
    /// The state of the node.
    Status,
    /// Its metrics.
    Metrics,
    /// Whether anybody is there.
    Ping,
    /// A snapshot of every shard.
    Snapshot,
    /// Whether the node serves, by the protocol that gRPC has for it.
    Health,
    /// Which services there are.
    Reflection,
    /// What this version does not know.
    Other,
}

impl Task {
    /// All of them, in their order.
    pub const ALL: [Task; 13] = [
        Task::Put,
        Task::Delete,
        Task::Batch,
        Task::Get,
        Task::Scan,
        Task::Slots,
        Task::Status,
        Task::Metrics,
        Task::Ping,
        Task::Snapshot,
        Task::Health,
        Task::Reflection,
        Task::Other,
    ];

    /// What an operation asks for.
    #[must_use]
    pub fn of(operation: &Operation<'_>) -> Task {
        match operation {
            Operation::Put { .. } => Task::Put,
            Operation::Delete { .. } => Task::Delete,
            Operation::Batch(_) => Task::Batch,
            Operation::Get { .. } => Task::Get,
            Operation::Scan(_) => Task::Scan,
            Operation::Slots => Task::Slots,
            Operation::Status => Task::Status,
            Operation::Ping => Task::Ping,
            Operation::Snapshot { .. } => Task::Snapshot,
            _ => Task::Other,
        }
    }

    /// Its name, as in `put`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Task::Put => "put",
            Task::Delete => "delete",
            Task::Batch => "batch",
            Task::Get => "get",
            Task::Scan => "scan",
            Task::Slots => "slots",
            Task::Status => "status",
            Task::Metrics => "metrics",
            Task::Ping => "ping",
            Task::Snapshot => "snapshot",
            Task::Health => "health",
            Task::Reflection => "reflection",
            Task::Other => "other",
        }
    }

    /// Whether it is about keys, so that how long it takes matters to every client.
    #[must_use]
    pub fn is_data(self) -> bool {
        matches!(self, Task::Put | Task::Delete | Task::Batch | Task::Get | Task::Scan)
    }
}

/// A request as it was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// When: the time of that turn.
    pub at: Instant,
    /// Where.
    pub face: Face,
    /// For what.
    pub task: Task,
}

/// Good, and every code.
const RESULTS: usize = Code::Unauthorized as usize + 1;

/// What became of requests of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results {
    /// How many were answered with which result: 0 is good, the others are the numbers of the codes.
    results: [u64; RESULTS],
    /// How long they took, whatever became of them.
    pub times: Times,
}

impl Results {
    /// Every result that was seen, and the good one always.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let codes = Code::all().filter_map(|code| Some((code.name(), *self.results.get(code as usize)?)));
        [("ok", self.results[0])].into_iter().chain(codes.filter(|(_, count)| *count > 0))
    }

    fn add(&mut self, other: &Results) {
        for (count, more) in self.results.iter_mut().zip(&other.results) {
            *count += more;
        }
        self.times.add(&other.times);
    }
}

/// What became of a core's requests, or of several cores'.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests([[Results; Task::ALL.len()]; Face::ALL.len()]);

impl Requests {
    /// A request is answered: with this code, or with what it asked for.
    pub fn answered(&mut self, taken: Taken, code: Option<Code>, now: Instant) {
        let results = &mut self.0[taken.face as usize][taken.task as usize];
        count(results, code);
        results.times.note(micros(now.saturating_duration_since(taken.at)));
    }

    /// A request was refused before it was taken in.
    pub fn refused(&mut self, face: Face, task: Task, code: Code) {
        count(&mut self.0[face as usize][task as usize], Some(code));
    }

    /// Adds another core's.
    pub fn add(&mut self, other: &Requests) {
        for (results, more) in self.0.iter_mut().flatten().zip(other.0.iter().flatten()) {
            results.add(more);
        }
    }

    /// All kinds of requests.
    pub fn kinds(&self) -> impl Iterator<Item = (Face, Task, &Results)> {
        let faces = Face::ALL.into_iter().zip(&self.0);
        faces.flat_map(|(face, tasks)| {
            Task::ALL.into_iter().zip(tasks).map(move |(task, results)| (face, task, results))
        })
    }
}

fn count(results: &mut Results, code: Option<Code>) {
    if let Some(count) = results.results.get_mut(code.map_or(0, |code| code as usize)) {
        *count += 1;
    }
}
