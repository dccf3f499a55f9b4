//! What the cores of a node do once between them, and not each for itself: hand a shard back, take a snapshot, say that a
//! peer is there or not, complain about whoever keeps being refused.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use raftkv_protocol::types::NodeId;

/// The least time between two transfers of leadership that a node begins to spread its leaders.
pub const TRANSFER_PAUSE: Duration = Duration::from_secs(1);
/// How often the same complaint is said about whoever dials again and again.
pub const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);
/// Complaints that are remembered; others are said each time.
const COMPLAINTS_MAX: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub struct Together {
    transferred_at: Mutex<Option<Instant>>,
    /// A core takes a snapshot.
    is_snapshotting: AtomicBool,
    /// What was last said of the links to each peer.
    links: Mutex<BTreeMap<NodeId, String>>,
    /// What was said about a hello, to whom, and when.
    complaints: Mutex<BTreeMap<(IpAddr, String), Instant>>,
}

impl Together {
    /// Whether a transfer may begin now; if so, it has begun.
    pub fn may_transfer(&self, now: Instant) -> bool {
        let mut transferred_at = lock(&self.transferred_at);
        let may = transferred_at.is_none_or(|at| now.saturating_duration_since(at) >= TRANSFER_PAUSE);
        if may {
            *transferred_at = Some(now);
        }
        may
    }

    /// Whether a snapshot may be begun now; if so, it is, and no other is until it has ended.
    pub fn may_snapshot(&self) -> bool {
        !self.is_snapshotting.swap(true, Ordering::AcqRel)
    }

    /// The snapshot that was begun has ended.
    pub fn end_snapshot(&self) {
        self.is_snapshotting.store(false, Ordering::Release);
    }

    /// Whether it is news that the links to a peer are as `words` say: every core has one, and they share a fate.
    pub fn is_link_news(&self, peer: NodeId, words: &str) -> bool {
        let mut links = lock(&self.links);
        let said = links.entry(peer).or_default();
        let is_news = said != words;
        if is_news {
            words.clone_into(said);
        }
        is_news
    }

    /// Whether a complaint about a hello is worth saying: it was not said to this address for a while.
    pub fn is_worth_saying(&self, remote: IpAddr, words: &str, now: Instant) -> bool {
        let mut complaints = lock(&self.complaints);
        complaints.retain(|_, said_at| now.saturating_duration_since(*said_at) < COMPLAINT_PAUSE);
        let complaint = (remote, words.to_owned());
        let is_new = !complaints.contains_key(&complaint);
        if is_new && complaints.len() < COMPLAINTS_MAX {
            complaints.insert(complaint, now);
        }
        is_new
    }
}

/// Whatever another thread did before it panicked, it left these whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
