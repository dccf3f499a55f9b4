//! Signs of life of a node's cores, for whoever asks from outside whether the node lives and serves. Each core writes its
//! own down as it turns, so that asking costs nothing, and waits for nothing.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use raftkv_protocol::types::{CoreId, ShardId};

use super::message::ReplyTo;
use crate::shard::Shard;

/// A core that has not turned for so long hangs: an idle one turns each second.
pub const HANGS_AFTER: Duration = Duration::from_secs(5);

/// What one core shows.
#[derive(Debug, Default)]
struct CoreVitals {
    /// When it last turned, in milliseconds since the start.
    turned_ms: AtomicU64,
    /// Shards without a known leader: how many, and the first of them.
    leaderless: AtomicU64,
    /// Shards that have not caught up, or do not serve for another reason.
    behind: AtomicU64,
}

/// See the module.
#[derive(Debug)]
pub struct Vitals {
    /// When the first core turned first.
    started: OnceLock<Instant>,
    cores: Vec<CoreVitals>,
}

/// What the cores of a node look like at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Which core.
    pub core: CoreId,
    /// How long ago it turned.
    pub turned: Duration,
    /// How many of its shards have no known leader, and the first of them.
    pub leaderless: (u16, ShardId),
    /// How many of its shards do not serve although they have a leader, and the first of them.
    pub behind: (u16, ShardId),
}

impl Look {
    /// What is wrong if the core hangs.
    #[must_use]
    pub fn turns_fault(&self) -> Option<String> {
        let hangs = self.turned >= HANGS_AFTER;
        hangs.then(|| format!("the event loop has not turned for {:?}; if that goes on, end the process", self.turned))
    }

    /// What is wrong if shards have no leader.
    #[must_use]
    pub fn leaderless_fault(&self) -> Option<String> {
        let (shards, first) = self.leaderless;
        (shards > 0)
            .then(|| format!("{shards} shards have no known leader, {first} first: is a majority of the nodes up?"))
    }

    /// What is wrong if shards lag behind their leaders.
    #[must_use]
    pub fn behind_fault(&self) -> Option<String> {
        let (shards, first) = self.behind;
        (shards > 0)
            .then(|| format!("{shards} shards have not caught up with their leaders since the start, {first} first"))
    }
}

impl Vitals {
    /// Of a node with so many cores, none of which has turned.
    #[must_use]
    pub fn new(cores: u16) -> Vitals {
        let cores = (0..cores).map(|_| CoreVitals { leaderless: pack(1, ShardId(0)).into(), ..CoreVitals::default() });
        Vitals { started: OnceLock::new(), cores: cores.collect() }
    }

    /// A core turns.
    pub(super) fn note(&self, core: CoreId, now: Instant, shards: &[Shard<ReplyTo>]) {
        let vitals = &self.cores[usize::from(core.0)];
        let started = *self.started.get_or_init(|| now);
        let now_ms = millis(now.saturating_duration_since(started));
        // A busy core turns thousands of times a second, and nobody looks that often.
        if vitals.turned_ms.swap(now_ms, Ordering::Relaxed) == now_ms && now_ms > 0 {
            return;
        }
        let leaderless = tally(shards, |shard| shard.raft().leader().is_none());
        let behind = tally(shards, |shard| shard.raft().leader().is_some() && !shard.is_ready());
        vitals.leaderless.store(leaderless, Ordering::Relaxed);
        vitals.behind.store(behind, Ordering::Relaxed);
    }

    /// What all cores look like.
    pub fn looks(&self, now: Instant) -> impl Iterator<Item = Look> {
        let started = self.started.get().copied().unwrap_or(now);
        let now_ms = millis(now.saturating_duration_since(started));
        (0..).map(CoreId).zip(&self.cores).map(move |(core, vitals)| Look {
            core,
            turned: Duration::from_millis(now_ms.saturating_sub(vitals.turned_ms.load(Ordering::Relaxed))),
            leaderless: unpack(vitals.leaderless.load(Ordering::Relaxed)),
            behind: unpack(vitals.behind.load(Ordering::Relaxed)),
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn tally(shards: &[Shard<ReplyTo>], matches: impl Fn(&Shard<ReplyTo>) -> bool) -> u64 {
    let mut matching = shards.iter().filter(|shard| matches(shard));
    let Some(first) = matching.next() else { return 0 };
    pack(1 + matching.count() as u64, first.id())
}

/// How many, and the first of them, in one number.
fn pack(count: u64, first: ShardId) -> u64 {
    count << 16 | u64::from(first.0)
}

fn unpack(packed: u64) -> (u16, ShardId) {
    ((packed >> 16) as u16, ShardId(packed as u16))
}
