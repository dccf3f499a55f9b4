//! Snapshots of a core's shards: when one is taken by itself, what becomes of those that others offer, pieces for other nodes, and
//! shards that hold on to the oldest segments of the log. The worker does what takes time; here is what the loop decides.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use raftkv_protocol::peer::{ChunkResult, SnapshotChunk, SnapshotMeta, SnapshotRead};
use raftkv_protocol::types::{ShardId, SnapshotId};

use crate::limits::{Limits, SNAPSHOT_CHUNK_BYTES_MAX, SNAPSHOT_WORDS_BYTES_MAX};
use crate::metrics::histogram::micros;
use crate::shard::Shard;
use crate::shard::snapshots::{Done, Failure, Job, PieceFor, Snapshots};
use crate::storage::{CoreLog, Space};

use super::demand::Demands;
use super::fetcher::{Fetcher, Verdict};
use super::message::{ConnectionId, CoreMessage};
use super::router::Router;
use super::scrubs::Scrubs;
use super::transport::Transport;

/// Answers of the worker that are taken in one turn, of which one is a piece: those are long.
const DONE_MAX: usize = 4;
/// How often a core asks again whether it may take a snapshot, while another core takes one.
const TOKEN_RETRY: Duration = Duration::from_millis(50);
/// How often a log that is too long is looked at.
const PUSH_PAUSE: Duration = Duration::from_millis(200);

/// What a core has under way.
#[derive(Debug)]
pub(super) struct SnapshotDesk {
    pub(super) worker: Snapshots,
    pub(super) fetcher: Fetcher,
    pub(super) demands: Demands,
    /// The shards whose last snapshot could not be written or received, and why.
    failures: BTreeMap<ShardId, String>,
    /// The shard whose snapshot is being taken, since when, and whether the worker has it. The core has the node's leave
    /// meanwhile.
    taking: Option<(ShardId, Instant)>,
    pub(super) scrubs: Scrubs,
    /// The shard whose state is being built anew.
    pub(super) rebuilding: Option<ShardId>,
    /// Asks again then.
    retry_at: Option<Instant>,
    /// The log is not looked at before.
    push_at: Instant,
    /// The shard that was told last to take a snapshot because it held on to the log.
    pushed: Option<ShardId>,
    /// What snapshots have taken of this turn.
    held: Duration,
}

impl SnapshotDesk {
    pub(super) fn new(worker: Snapshots, limits: &Limits, now: Instant) -> SnapshotDesk {
        let fetcher = Fetcher::new(limits.snapshot_rate, limits.snapshot_timeout, now);
        let (demands, scrubs) = (Demands::default(), Scrubs::new(limits.scrub_rate));
        let failures = BTreeMap::new();
        SnapshotDesk {
            worker,
            fetcher,
            demands,
            failures,
            taking: None,
            scrubs,
            rebuilding: None,
            retry_at: None,
            push_at: now,
            pushed: None,
            held: Duration::ZERO,
        }
    }

    /// The shards whose last snapshot could not be written or received, and why.
    pub(super) fn failures(&self) -> &BTreeMap<ShardId, String> {
        &self.failures
    }

    /// What has failed does not matter any more.
    pub(super) fn forget_failure(&mut self, shard: ShardId) {
        self.failures.remove(&shard);
    }

    /// A snapshot is not to be what this node starts from.
    pub(super) fn set_aside(&self, shard: ShardId, meta: SnapshotMeta) {
        self.worker.send(Job::SetAside { shard, meta });
    }

    pub(super) fn is_busy(&self) -> bool {
        self.worker.has_done()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.fetcher.deadline().into_iter().chain(self.retry_at).min()
    }
}

/// Why something failed, in so many words as are told to others.
fn short(failure: &Failure) -> &str {
    let words = failure.words();
    &words[..words.floor_char_boundary(SNAPSHOT_WORDS_BYTES_MAX)]
}

/// A connection's name for the worker, and back.
fn piece_for(connection: ConnectionId) -> PieceFor {
    PieceFor(u64::from(connection.slot) << 32 | u64::from(connection.generation))
}

fn connection_of(piece_for: PieceFor) -> ConnectionId {
    ConnectionId { slot: (piece_for.0 >> 32) as u32, generation: piece_for.0 as u32 }
}

impl<L: CoreLog> Router<L> {
    /// Another node asks for a piece of a snapshot.
    pub(super) fn snapshot_read(&mut self, connection: ConnectionId, read: &SnapshotRead) {
        let SnapshotRead { shard, id, offset, length_max } = *read;
        let length_max = length_max.min(SNAPSHOT_CHUNK_BYTES_MAX) as usize;
        self.snapshots.worker.send(Job::Read { piece_for: piece_for(connection), shard, id, offset, length_max });
    }

    /// A piece of a snapshot that is being fetched has come.
    pub(super) fn snapshot_chunk(&mut self, chunk: &SnapshotChunk<'_>, now: Instant) -> Verdict {
        let SnapshotDesk { worker, fetcher, .. } = &mut self.snapshots;
        fetcher.chunk(chunk, now, worker)
    }

    /// The connection on which snapshots are fetched broke.
    pub(super) fn snapshot_source_lost(&mut self) {
        self.snapshots.fetcher.source_lost();
    }

    /// Takes in what the worker has done since the last turn.
    pub(super) fn take_snapshot_results(&mut self, now: Instant, transport: &mut impl Transport) {
        if self.snapshots.worker.has_done() {
            self.hold_turn(|router| router.take_results(now, transport));
        }
    }

    /// Does something for snapshots, and measures for how long that holds the turn.
    pub(super) fn hold_turn(&mut self, work: impl FnOnce(&mut Self)) {
        let begun = self.begin_hold();
        work(self);
        self.end_hold(begun);
    }

    /// Something is done for snapshots that this router has only a part in.
    pub(super) fn begin_hold(&self) -> Duration {
        self.stopwatch.read()
    }

    /// It is done.
    pub(super) fn end_hold(&mut self, begun: Duration) {
        self.snapshots.held += self.stopwatch.read().saturating_sub(begun);
    }

    /// Notes what snapshots took of this turn, when it is over.
    pub(super) fn note_hold(&mut self) {
        let held = std::mem::take(&mut self.snapshots.held);
        if held > Duration::ZERO {
            let held = micros(held);
            self.measures.snapshot_holds.note(held);
            self.counters.snapshot_hold_us_max = self.counters.snapshot_hold_us_max.max(held);
        }
    }

    fn take_results(&mut self, now: Instant, transport: &mut impl Transport) {
        for _ in 0..DONE_MAX {
            let Some(done) = self.snapshots.worker.done() else { return };
            match done {
                Done::Taken { shard, meta } => self.snapshot_taken(shard, meta, now),
                Done::NotTaken { shard, failure } => {
                    self.end_taking(now);
                    self.snapshot_not_taken(shard, &failure, now);
                }
                Done::Corrupt { shard, at, found, expected } => {
                    self.end_taking(now);
                    self.counters.snapshots_failed += 1;
                    let position = self.position(shard);
                    self.shards[position].snapshot_corrupt(at, found, expected, now);
                }
                Done::Scrubbed { shard, at, found, expected } => self.scrubbed(shard, at, found, expected),
                Done::Piece { piece_for, shard, id, offset, piece } => {
                    let result = match &piece {
                        Some((total, bytes)) => ChunkResult::Ok { total: *total, bytes },
                        None => ChunkResult::Gone,
                    };
                    let sent = piece.as_ref().map_or(0, |(_, bytes)| bytes.len() as u64);
                    self.counters.snapshot_bytes_sent += sent;
                    transport.snapshot_chunk(connection_of(piece_for), &SnapshotChunk { shard, id, offset, result });
                    return;
                }
                Done::Rotten { shard, id } => {
                    let owner = self.node.owner(shard);
                    if owner == self.core {
                        self.snapshot_rotten(shard, id);
                    } else {
                        transport.answer(owner, CoreMessage::SnapshotRotten(shard, id));
                    }
                }
                Done::Received { shard, id, upto } => {
                    let SnapshotDesk { worker, fetcher, .. } = &mut self.snapshots;
                    fetcher.received(shard, id, upto, now, worker);
                }
                Done::Installed { shard, loaded } => {
                    self.snapshots.fetcher.installed(shard);
                    let at = self.position(shard);
                    if let Some(useless) = self.shards[at].install(*loaded) {
                        self.snapshots.worker.send(Job::LetGo(useless.machine.into()));
                    }
                }
                Done::Reloaded { shard, loaded } => self.reloaded(shard, *loaded, now),
                Done::NotReloaded { shard, failure } => self.not_reloaded(shard, &failure, now),
                Done::NotInstalled { shard, id, failure } => {
                    self.snapshots.fetcher.failed(shard, id, now);
                    self.snapshot_failed(shard, &failure);
                }
            }
        }
    }

    fn snapshot_taken(&mut self, shard: ShardId, meta: SnapshotMeta, now: Instant) {
        self.counters.snapshots_taken += 1;
        self.snapshots.failures.remove(&shard);
        let took = self.end_taking(now);
        self.counters.snapshot_us_last = micros(took);
        self.measures.snapshot_times.note(self.counters.snapshot_us_last);
        self.measures.snapshot_bytes.note(meta.bytes);
        log::debug!("shard {shard}: a snapshot of entry {}, {} bytes, in {took:?}", meta.at, meta.bytes);
        let at = self.position(shard);
        let patient = self.patient_log_bytes();
        match self.shards[at].snapshot_taken(meta, &mut self.log, patient) {
            Some(wrong) => self.snapshots.set_aside(shard, wrong),
            None => self.snapshots.demands.taken(at, shard, meta, took),
        }
        self.touched[at] = true;
    }

    /// A snapshot of an own shard is not what was written.
    pub(super) fn snapshot_rotten(&mut self, shard: ShardId, id: SnapshotId) {
        self.snapshots.rebuilding.take_if(|rebuilding| *rebuilding == shard);
        let at = self.position(shard);
        if let Some(meta) = self.shards[at].snapshot_rotten(id) {
            self.counters.snapshots_failed += 1;
            log::warn!("shard {shard}: the snapshot of entry {} is damaged: taking another", meta.at);
            self.snapshots.set_aside(shard, meta);
        }
    }

    /// The node's leave to take a snapshot goes to others. Returns how long it was had.
    fn end_taking(&mut self, now: Instant) -> Duration {
        let Some((_, since)) = self.snapshots.taking.take() else { return Duration::ZERO };
        self.node.together.end_snapshot();
        now.saturating_duration_since(since)
    }

    /// Whoever waits for it is told, unless a later one does as well or is about to.
    fn snapshot_not_taken(&mut self, shard: ShardId, failure: &Failure, now: Instant) {
        let at = self.position(shard);
        self.shards[at].snapshot_failed(now);
        self.snapshot_failed(shard, failure);
        let SnapshotDesk { demands, fetcher, .. } = &mut self.snapshots;
        if matches!(failure, Failure::Superseded(_)) {
            if fetcher.is_installing(shard) {
                return;
            }
            if let Some(newest) = self.shards[at].newest_snapshot() {
                demands.taken(at, shard, newest, Duration::ZERO);
            }
        }
        demands.failed(at, shard, short(failure));
    }

    /// A snapshot was not taken, or not installed. The status tells why, unless there is one already that does as well.
    pub(super) fn snapshot_failed(&mut self, shard: ShardId, failure: &Failure) {
        if matches!(failure, Failure::Superseded(_)) {
            return log::debug!("shard {shard}: {}", failure.words());
        }
        self.counters.snapshots_failed += 1;
        log::warn!("shard {shard}: {}; trying again later", failure.words());
        self.snapshots.failures.insert(shard, short(failure).to_owned());
    }

    /// Lets snapshots that were fetched take their place.
    pub(super) fn settle_snapshots(&mut self, now: Instant, transport: &mut impl Transport) {
        if self.shards.iter().any(Shard::has_snapshot_to_settle) {
            self.hold_turn(|router| router.settle_all(now, transport));
        }
    }

    fn settle_all(&mut self, now: Instant, transport: &mut impl Transport) {
        for at in 0..self.shards.len() {
            let (shard, _, mut exit) = self.parts(at, transport);
            let shard_id = shard.id();
            let settled = shard.settle_snapshot(&mut exit);
            if let Some(meta) = settled.installed {
                log::info!("shard {shard_id}: goes on from the snapshot of entry {}", meta.at);
                self.counters.snapshots_installed += 1;
                self.snapshots.failures.remove(&shard_id);
                self.touched[at] = true;
            }
            if let Some(meta) = settled.rebuilt {
                self.rebuilt_from_fetched(at, &meta);
            }
            if let Some(machine) = settled.useless {
                self.snapshots.worker.send(Job::LetGo(machine.into()));
            }
            if let Some(state) = settled.begun {
                self.end_taking(now);
                self.snapshots.worker.send(Job::LetGo((*state).into()));
            }
        }
    }

    fn tend_fetches(&mut self, now: Instant, transport: &mut impl Transport) {
        let (shards, cores) = (&self.shards, self.node.config.cores);
        let is_wanted = |shard: ShardId, meta: &_| shards[usize::from(shard.0 / cores)].lacks(meta);
        let SnapshotDesk { worker, fetcher, .. } = &mut self.snapshots;
        fetcher.tend(now, is_wanted, worker, transport);
        self.counters.snapshot_bytes_received = fetcher.bytes_received;
        self.counters.snapshot_timeouts = fetcher.timeouts;
    }

    /// Looks whether there is something to fetch, to take, or to push on, after everything else of a turn.
    pub(super) fn tend_snapshots(&mut self, now: Instant, transport: &mut impl Transport) {
        for shard in &mut self.shards {
            if let Some((source, meta)) = shard.take_offer() {
                self.snapshots.fetcher.offer(shard.id(), source, meta, now);
            }
        }
        match self.snapshots.fetcher.is_busy() {
            true => self.hold_turn(|router| router.tend_fetches(now, transport)),
            // To measure would take longer.
            false => self.tend_fetches(now, transport),
        }
        self.write_begun();
        self.settle_demands(transport);
        self.begin_due(now);
        self.push_pinning(now);
        self.tend_scrubs(now);
    }

    /// The snapshot that was begun goes to the worker, once the log is durable up to it.
    fn write_begun(&mut self) {
        if let Some((shard, _)) = self.snapshots.taking {
            let at = self.position(shard);
            if let Some(state) = self.shards[at].snapshot_to_write() {
                let is_full = self.log.space() == Space::ReserveOnly;
                self.snapshots.worker.send(Job::Take { shard, state, is_full });
            }
        }
    }

    /// Begins a snapshot of a shard of which somebody wants one, or else of the one that needs it most, if one does.
    fn begin_due(&mut self, now: Instant) {
        self.snapshots.retry_at = None;
        let SnapshotDesk { demands, fetcher, .. } = &self.snapshots;
        let is_wanted = |(at, shard): &(usize, &Shard<_>)| {
            demands.want(*at) && shard.may_snapshot() && !fetcher.is_installing(shard.id())
        };
        if let Some((at, _)) = self.shards.iter().enumerate().find(is_wanted) {
            self.begin_snapshot(at, now);
            return;
        }
        let bytes = self.node.config.limits.snapshot_log_bytes;
        let is_due = |at: &usize| self.shards[*at].snapshot_is_due(bytes, now);
        let due = (0..self.shards.len()).filter(is_due).max_by_key(|at| self.shards[*at].bytes_since_snapshot());
        if let Some(at) = due {
            self.begin_snapshot(at, now);
        }
    }

    /// Begins a snapshot of a shard, if no other is being taken on this node. Whether it did.
    fn begin_snapshot(&mut self, at: usize, now: Instant) -> bool {
        let shard = self.shards[at].id();
        if self.snapshots.taking.is_some() || self.snapshots.fetcher.is_installing(shard) {
            return false;
        }
        if !self.node.together.may_snapshot() {
            self.snapshots.retry_at = Some(now + TOKEN_RETRY);
            return false;
        }
        self.snapshots.taking = Some((shard, now));
        self.hold_turn(|router| {
            router.shards[at].begin_snapshot();
            router.write_begun();
        });
        true
    }

    /// Up to which length the log waits for followers that are fetching snapshots.
    fn patient_log_bytes(&self) -> u64 {
        if self.log.space() == Space::ReserveOnly { 0 } else { self.node.config.limits.core_log_bytes_max }
    }

    /// If the log is longer than it should be, the shard that holds on to its oldest segment lets go of it: by a
    /// snapshot, or, where that costs more or does not help, by writing its entries anew. Wrong states are
    /// built anew first: their entries are all needed for that. On a full disk it lets go however long
    /// the log is: each segment that becomes a spare is one more to write to.
    fn push_pinning(&mut self, now: Instant) {
        let (bytes, bytes_max) = (self.log.held_bytes(), self.node.config.limits.core_log_bytes_max);
        let is_full = self.log.space() == Space::ReserveOnly;
        self.snapshots.worker.hurry(is_full || bytes > bytes_max / 2);
        if now < self.snapshots.push_at || (bytes <= bytes_max && !is_full) {
            return;
        }
        self.snapshots.push_at = now + PUSH_PAUSE;
        if self.rebuild_states(now) {
            return;
        }
        let needed: u64 = self.shards.iter().map(Shard::log_bytes).sum();
        let is_sparse = bytes / 2 >= needed;
        let Some((pinning, _)) = self.log.pinned_by().filter(|_| is_sparse || is_full) else { return };
        let at = self.position(pinning);
        let patient = self.patient_log_bytes();
        if self.shards[at].wait_no_longer(&mut self.log, patient) {
            return;
        }
        let shard = &self.shards[at];
        if shard.is_taking_snapshot() {
            return;
        }
        let helps = self.snapshots.pushed != Some(pinning) && shard.snapshot_is_due(1, now);
        if helps && (is_full || shard.log_bytes() > shard.state_bytes()) {
            if self.begin_snapshot(at, now) {
                self.snapshots.pushed = Some(pinning);
            }
            return;
        }
        self.snapshots.pushed = None;
        if is_sparse {
            self.log.copy_forward(pinning);
        }
    }
}
