//! What a node puts on record while it runs, in small files of its data directory: the data directories of its peers, that it
//! is admitted, that a shard is whole again, how long promises last.
//!
//! Each is written and synced by a thread of its own: a disk that hangs must not hold up a loop, and the cores share these
//! files. A loop says what it wants, goes on, and asks again later what has become of it. Whatever hangs on a record waits
//! until it is durable.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use raftkv_protocol::types::{Incarnation, NodeId, ShardId};

use crate::error::Fatal;

/// Something to be put on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// Which data directory a peer has.
    Peer(NodeId, Incarnation),
    /// This node is admitted.
    Admitted,
    /// A shard has everything back that its log had lost.
    Healed(ShardId),
    /// No promise of a lease lasts any more that was longer than those that are made now.
    Promised,
}

impl Record {
    /// Whether both say something of the same: then one of them is enough at a time.
    fn is_of_same(self, other: Record) -> bool {
        match (self, other) {
            (Record::Peer(one, _), Record::Peer(other, _)) => one == other,
            _ => self == other,
        }
    }
}

/// What has become of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is being written.
    Pending,
    /// It is durable.
    Durable,
    /// It could not be written, and is not wanted any more: it may be tried again, unless a sync has failed. In words.
    Failed(String),
}

#[derive(Debug)]
struct State {
    /// The peers whose data directories are on record.
    peers: BTreeMap<NodeId, Incarnation>,
    /// The first is being written.
    wanted: VecDeque<Record>,
    /// Nobody has asked about these yet.
    done: Vec<(Record, Outcome)>,
}

/// See the module.
#[derive(Debug)]
pub struct Records {
    state: Mutex<State>,
    /// Something is wanted.
    bell: Condvar,
    failure: OnceLock<String>,
}

impl Records {
    /// With the peers that are on record.
    #[must_use]
    pub fn new(peers: BTreeMap<NodeId, Incarnation>) -> Records {
        let state = State { peers, wanted: VecDeque::new(), done: Vec::new() };
        Records { state: Mutex::new(state), bell: Condvar::new(), failure: OnceLock::new() }
    }

    /// The data directory that is on record for a peer.
    #[must_use]
    pub fn peer(&self, peer: NodeId) -> Option<Incarnation> {
        self.lock().peers.get(&peer).copied()
    }

    /// What has become of a record. It is wanted from now on, if it is not on its way already.
    pub fn want(&self, record: Record) -> Outcome {
        let mut state = self.lock();
        if let Some(at) = state.done.iter().position(|(done, _)| done.is_of_same(record)) {
            return state.done.swap_remove(at).1;
        }
        if !state.wanted.iter().any(|wanted| wanted.is_of_same(record)) {
            state.wanted.push_back(record);
            self.bell.notify_one();
        }
        Outcome::Pending
    }

    /// A sync of such a file that failed, in one line. The next one would prove nothing: the node is to end.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Has the next record written that is wanted, and takes in what came of it: of a peer, also which data directory is on
    /// record for it. Whether there was one. No loop waits meanwhile.
    pub(super) fn work(&self, write: impl FnOnce(Record) -> Result<Option<Incarnation>, Fatal>) -> bool {
        let Some(record) = self.lock().wanted.front().copied() else { return false };
        let written = write(record);
        let mut state = self.lock();
        state.wanted.pop_front();
        match (record, written) {
            (Record::Peer(peer, _), Ok(Some(incarnation))) => drop(state.peers.insert(peer, incarnation)),
            (_, Ok(_)) => state.done.push((record, Outcome::Durable)),
            (_, Err(error)) => {
                if error.is_failed_sync() {
                    // The first says it all.
                    let _ = self.failure.set(error.to_string());
                }
                state.done.push((record, Outcome::Failed(error.to_string())));
            }
        }
        true
    }

    /// Returns when something is wanted.
    pub(super) fn wait(&self) {
        let nothing = |state: &mut State| state.wanted.is_empty();
        drop(self.bell.wait_while(self.lock(), nothing));
    }

    /// Held for moments only, and whole whoever panicked.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
