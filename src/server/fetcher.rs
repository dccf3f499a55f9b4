//! Fetching snapshots from other nodes: what is asked for when, and what becomes of it. No socket is in here.
//!
//! A core fetches one snapshot at a time; the others that its shards were offered wait, and one that was taken meanwhile
//! comes first: it has the least log behind it. It is a pull: this side asks for a piece when there is room for it and the
//! rate allows it, so that neither side ever holds more than a few pieces. The pieces go to the snapshot worker, which
//! writes them to a file; what is there already, also from before the connection broke, is not asked for again. A source
//! that has the snapshot no longer, or from which nothing comes for a while, is given up; the leader offers what it has
//! then with each beat.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use raftkv_protocol::peer::{ChunkResult, PeerFrame, SnapshotChunk, SnapshotMeta, SnapshotRead};
use raftkv_protocol::types::{NodeId, ShardId, SnapshotId};

use crate::limits::SNAPSHOT_CHUNK_BYTES_MAX;
use crate::shard::snapshots::{Job, Snapshots};

use super::transport::Transport;

/// Pieces that are asked for and not written yet.
const PIECES_MAX: u64 = 2;
const PIECE: u64 = SNAPSHOT_CHUNK_BYTES_MAX as u64;
/// After a snapshot that could not be received or was not whole, the shard waits so long for the next; each time twice
/// as long.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A shard that has waited so long is overtaken no more.
const OVERTAKEN_MAX: Duration = Duration::from_secs(30);

/// What a shard was offered, and by whom.
#[derive(Debug)]
struct Offer {
    shard: ShardId,
    source: NodeId,
    meta: SnapshotMeta,
    /// Since when it waits for one.
    since: Instant,
}

/// For how long nothing, not a byte, may come. How long a piece takes does not matter: that is up to the link.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// Then the source is given up.
    source: Duration,
    /// Then the connection is made anew.
    connection: Duration,
    /// Then what another node offers is fetched instead.
    other_offer: Duration,
}

impl Patience {
    fn of(timeout: Duration) -> Patience {
        Patience { source: timeout, connection: timeout * 3 / 10, other_offer: timeout / 10 }
    }
}

/// For how long nothing is fetched.
#[derive(Clone, Copy, Debug)]
struct Pause {
    until: Instant,
    length: Duration,
}

impl Pause {
    /// The first, or the next, which is twice as long.
    fn behind(before: Option<Pause>, now: Instant) -> Pause {
        let length = before.map_or(PAUSE_MIN, |pause| (pause.length * 2).min(PAUSE_MAX));
        Pause { until: now + length, length }
    }
}

/// How many bytes may be asked for now.
#[derive(Debug)]
struct Bucket {
    /// Bytes a second.
    rate: u64,
    /// In bytes times nanoseconds.
    filled_at: Instant,
    tokens: u64,
}

impl Bucket {
    fn new(rate: u64, now: Instant) -> Bucket {
        Bucket { rate, filled_at: now, tokens: PIECES_MAX * PIECE }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled_at);
        let gained = (u128::from(self.rate) * passed.as_nanos() / 1_000_000_000).min(u128::from(u64::MAX)) as u64;
        // What is too short for a byte counts later.
        if gained > 0 {
            self.tokens = self.tokens.saturating_add(gained).min(PIECES_MAX * PIECE);
            self.filled_at = now;
        }
    }

    /// When there will be so many.
    fn filled_with(&self, bytes: u64) -> Instant {
        let missing = u128::from(bytes.saturating_sub(self.tokens));
        let nanos = (missing * 1_000_000_000).div_ceil(u128::from(self.rate));
        self.filled_at + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// A snapshot that is on its way.
#[derive(Debug)]
struct Fetch {
    shard: ShardId,
    source: NodeId,
    meta: SnapshotMeta,
    /// The worker has said how much of it is there.
    is_open: bool,
    /// Everything up to here was asked for.
    asked: u64,
    /// Everything up to here has come.
    came: u64,
    /// Everything up to here is in the file.
    written: u64,
    /// Questions that were not answered yet.
    unanswered: u32,
    /// When the oldest of them was asked, or a byte came last.
    waits_since: Instant,
    /// When something came last, or could have been asked for if the rate allowed it.
    progress_at: Instant,
}

/// What a core does about an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on.
    Fine,
    /// Nobody asked for that: the connection is not to be trusted.
    Nonsense,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Fetcher {
    bucket: Bucket,
    patience: Patience,
    active: Option<Fetch>,
    /// What other shards were offered; one for each shard.
    offers: VecDeque<Offer>,
    /// Received as a whole: the worker checks and loads them.
    installing: BTreeMap<ShardId, SnapshotId>,
    /// Shards that had no luck.
    paused: BTreeMap<ShardId, Pause>,
    /// What was offered to shards and was no longer there: any other one is fetched. That is nobody's failure where
    /// snapshots follow each other fast, and must not make a shard wait longer after one.
    gone: BTreeMap<ShardId, (SnapshotId, Pause)>,
    /// Bytes that came.
    pub(super) bytes_received: u64,
    /// Sources that were given up because nothing came.
    pub(super) timeouts: u64,
}

impl Fetcher {
    pub(super) fn new(rate: u64, timeout: Duration, now: Instant) -> Fetcher {
        Fetcher {
            bucket: Bucket::new(rate, now),
            patience: Patience::of(timeout),
            active: None,
            offers: VecDeque::new(),
            installing: BTreeMap::new(),
            paused: BTreeMap::new(),
            gone: BTreeMap::new(),
            bytes_received: 0,
            timeouts: 0,
        }
    }

    /// A shard lacks this snapshot, which `source` has. It is said again and again.
    pub(super) fn offer(&mut self, shard: ShardId, source: NodeId, meta: SnapshotMeta, now: Instant) {
        if let Some(fetch) = self.active.as_ref().filter(|fetch| fetch.shard == shard) {
            let is_silent = fetch.is_silent(self.patience.other_offer, now);
            if fetch.source == source || !is_silent {
                return;
            }
            log::info!("shard {shard}: nothing comes from node {}: fetching from node {source} instead", fetch.source);
            self.active = None;
        }
        let is_paused = self.paused.get(&shard).is_some_and(|pause| pause.until > now);
        let is_gone = self.gone.get(&shard).is_some_and(|(id, pause)| *id == meta.id && pause.until > now);
        if is_paused || is_gone || self.installing.contains_key(&shard) {
            return;
        }
        let Some(at) = self.offers.iter().position(|offer| offer.shard == shard) else {
            return self.offers.push_back(Offer { shard, source, meta, since: now });
        };
        let offer = &mut self.offers[at];
        let is_newer = offer.meta.at.index < meta.at.index;
        (offer.source, offer.meta) = (source, meta);
        // It was taken just now: the log behind it is short as long as it is fetched soon.
        if is_newer && let Some(newer) = self.offers.remove(at) {
            self.offers.push_front(newer);
        }
    }

    /// Whether something is being fetched, or is to be.
    pub(super) fn is_busy(&self) -> bool {
        self.active.is_some() || !self.offers.is_empty()
    }

    /// Whether the worker is about to put another state in the place of the shard's.
    pub(super) fn is_installing(&self, shard: ShardId) -> bool {
        self.installing.contains_key(&shard)
    }

    /// Forgets what is not wanted any more, asks for what may be asked for.
    pub(super) fn tend(
        &mut self,
        now: Instant,
        is_wanted: impl Fn(ShardId, &SnapshotMeta) -> bool,
        worker: &Snapshots,
        transport: &mut impl Transport,
    ) {
        self.bucket.fill(now);
        self.offers.retain(|offer| is_wanted(offer.shard, &offer.meta));
        if self.active.as_ref().is_some_and(|fetch| !is_wanted(fetch.shard, &fetch.meta)) {
            self.abandon(worker);
        }
        if self.active.as_ref().is_some_and(|fetch| fetch.is_silent(self.patience.source, now)) {
            self.give_up(now, transport);
        }
        if self.active.is_none() {
            self.begin_next(now, worker);
        }
        match &mut self.active {
            Some(fetch) => fetch.ask(now, self.patience, &mut self.bucket, transport),
            None => transport.leave_source(),
        }
    }

    fn begin_next(&mut self, now: Instant, worker: &Snapshots) {
        let overdue = |at: &usize| now.saturating_duration_since(self.offers[*at].since) >= OVERTAKEN_MAX;
        let longest = (0..self.offers.len()).filter(overdue).min_by_key(|at| self.offers[*at].since);
        let Some(Offer { shard, source, meta, .. }) = self.offers.remove(longest.unwrap_or(0)) else { return };
        log::info!("shard {shard}: fetching the snapshot {} of {} bytes from node {source}", meta.at, meta.bytes);
        worker.send(Job::Receive { shard, meta });
        self.active = Some(Fetch {
            shard,
            source,
            meta,
            is_open: false,
            asked: 0,
            came: 0,
            written: 0,
            unanswered: 0,
            waits_since: now,
            progress_at: now,
        });
    }

    fn abandon(&mut self, worker: &Snapshots) {
        if let Some(Fetch { shard, meta, .. }) = self.active.take() {
            worker.send(Job::Abandon { shard, id: meta.id });
        }
    }

    /// The source is given up; what has come of its snapshot stays, should it be offered again.
    fn give_up(&mut self, now: Instant, transport: &mut impl Transport) {
        if let Some(fetch) = self.active.take() {
            log::warn!("shard {}: nothing comes from node {}: waiting for another offer", fetch.shard, fetch.source);
            self.pause(fetch.shard, now);
            self.timeouts += 1;
        }
        transport.leave_source();
    }

    fn pause(&mut self, shard: ShardId, now: Instant) {
        let before = self.paused.get(&shard).copied();
        self.paused.insert(shard, Pause::behind(before, now));
    }

    /// Bytes have come on the connection: the source is at it, however long a piece takes.
    pub(super) fn bytes_came(&mut self, now: Instant) {
        if let Some(fetch) = self.active.as_mut().filter(|fetch| fetch.unanswered > 0) {
            (fetch.waits_since, fetch.progress_at) = (now, now);
        }
    }

    /// The connection broke: what was asked for on it does not come.
    pub(super) fn source_lost(&mut self) {
        if let Some(fetch) = &mut self.active {
            fetch.asked = fetch.came;
            fetch.unanswered = 0;
        }
    }

    /// A piece has come.
    pub(super) fn chunk(&mut self, chunk: &SnapshotChunk<'_>, now: Instant, worker: &Snapshots) -> Verdict {
        let Some(fetch) = &mut self.active else { return Verdict::Fine };
        if (chunk.shard, chunk.id) != (fetch.shard, fetch.meta.id) {
            // An answer about an earlier one.
            return Verdict::Fine;
        }
        if fetch.unanswered == 0 {
            return Verdict::Nonsense;
        }
        fetch.unanswered -= 1;
        fetch.waits_since = now;
        let verdict = match chunk.result {
            ChunkResult::Gone => {
                let Fetch { shard, source, meta, .. } = *fetch;
                log::info!("shard {shard}: node {source} has the snapshot {} no longer", meta.at);
                self.abandon(worker);
                // Whoever cannot read what it offers may go on to offer it with each beat.
                let before = self.gone.get(&shard).filter(|(id, _)| *id == meta.id).map(|(_, pause)| *pause);
                self.gone.insert(shard, (meta.id, Pause::behind(before, now)));
                return Verdict::Fine;
            }
            ChunkResult::Ok { total, bytes } => fetch.take(chunk.offset, total, bytes, now, worker),
        };
        if let ChunkResult::Ok { bytes, .. } = chunk.result {
            self.bytes_received += bytes.len() as u64;
        }
        verdict
    }

    /// The worker has opened the file of a snapshot, or written to it.
    pub(super) fn received(&mut self, shard: ShardId, id: SnapshotId, upto: u64, now: Instant, worker: &Snapshots) {
        let Some(fetch) = self.active.as_mut().filter(|fetch| (fetch.shard, fetch.meta.id) == (shard, id)) else {
            return;
        };
        if !fetch.is_open {
            (fetch.is_open, fetch.asked, fetch.came) = (true, upto, upto);
            fetch.waits_since = now;
        }
        (fetch.written, fetch.progress_at) = (upto, now);
        if fetch.written >= fetch.meta.bytes {
            worker.send(Job::Install { shard, id });
            self.installing.insert(shard, id);
            self.active = None;
        }
    }

    /// What was received is loaded.
    pub(super) fn installed(&mut self, shard: ShardId) {
        self.installing.remove(&shard);
        self.paused.remove(&shard);
        self.gone.remove(&shard);
    }

    /// What was received, or was to be, is given up.
    pub(super) fn failed(&mut self, shard: ShardId, id: SnapshotId, now: Instant) {
        if self.active.as_ref().is_some_and(|fetch| (fetch.shard, fetch.meta.id) == (shard, id)) {
            self.active = None;
        }
        if self.installing.get(&shard) == Some(&id) {
            self.installing.remove(&shard);
        }
        self.pause(shard, now);
    }

    /// When there is something to do even if nothing comes.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let fetch = self.active.as_ref()?;
        let hopeless = fetch.waits_for_source().then(|| fetch.progress_at + self.patience.source);
        let stalled = (fetch.unanswered > 0).then(|| fetch.waits_since + self.patience.connection);
        let rate = fetch.next_piece().filter(|bytes| *bytes > self.bucket.tokens);
        let room = rate.map(|bytes| self.bucket.filled_with(bytes));
        [hopeless, stalled, room].into_iter().flatten().min()
    }
}

impl Fetch {
    /// How long the next piece is, if one may be asked for as far as memory goes.
    fn next_piece(&self) -> Option<u64> {
        let left = self.meta.bytes.saturating_sub(self.asked);
        let has_room = self.asked - self.written < PIECES_MAX * PIECE;
        (self.is_open && left > 0 && has_room).then(|| left.min(PIECE))
    }

    /// Asks for as much as there is room and rate for.
    fn ask(&mut self, now: Instant, patience: Patience, bucket: &mut Bucket, transport: &mut impl Transport) {
        if self.unanswered > 0 && now.saturating_duration_since(self.waits_since) >= patience.connection {
            log::debug!("shard {}: nothing comes from node {}: dialling anew", self.shard, self.source);
            transport.leave_source();
            (self.asked, self.unanswered) = (self.came, 0);
        }
        while let Some(bytes) = self.next_piece() {
            if bytes > bucket.tokens {
                // It is this side that waits.
                self.progress_at = now;
                return;
            }
            let Some(out) = transport.source(self.source) else { return };
            let length_max = u32::try_from(bytes).unwrap_or(SNAPSHOT_CHUNK_BYTES_MAX);
            let read = SnapshotRead { shard: self.shard, id: self.meta.id, offset: self.asked, length_max };
            PeerFrame::SnapshotRead(read).encode(out);
            if self.unanswered == 0 {
                self.waits_since = now;
            }
            self.unanswered += 1;
            self.asked += bytes;
            bucket.tokens -= bytes;
        }
    }

    /// A piece of the file.
    fn take(&mut self, offset: u64, total: u64, bytes: &[u8], now: Instant, worker: &Snapshots) -> Verdict {
        let fits = self.asked.checked_sub(self.came).is_some_and(|asked| bytes.len() as u64 <= asked);
        if total != self.meta.bytes || (offset == self.came && (!fits || bytes.is_empty())) {
            return Verdict::Nonsense;
        }
        if offset == self.came {
            self.came += bytes.len() as u64;
            self.progress_at = now;
            worker.send(Job::Write { shard: self.shard, id: self.meta.id, offset, bytes: bytes.to_vec() });
        }
        if self.unanswered == 0 {
            // A source may send shorter pieces than it was asked for: the gap is asked for again.
            self.asked = self.came;
        }
        Verdict::Fine
    }

    /// Everything that came is written: if nothing goes on, it is not for the worker's sake.
    fn waits_for_source(&self) -> bool {
        self.is_open && self.written >= self.came
    }

    /// Whether the source owes something, and nothing has come for so long.
    fn is_silent(&self, patience: Duration, now: Instant) -> bool {
        self.waits_for_source() && now.saturating_duration_since(self.progress_at) >= patience
    }
}
