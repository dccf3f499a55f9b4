//! Every limit of the server and how they hang together.

use std::time::Duration;

pub use raftkv_protocol::client::BATCH_OPERATIONS_MAX;
use raftkv_protocol::frame;
use raftkv_protocol::types::SLOTS;

/// The limits of one node. Each can be configured; the defaults are the constants below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest key, in bytes.
    pub key_bytes_max: usize,
    /// The longest value, in bytes.
    pub value_bytes_max: usize,
    /// The most operations of a batch.
    pub batch_operations_max: usize,
    /// The most bytes of a batch's keys and values.
    pub batch_bytes_max: usize,
    /// The most keys in a page of a scan.
    pub scan_items_max: usize,
    /// The most bytes of keys and values in a page of a scan (one item may exceed it).
    pub scan_bytes_max: usize,
    /// The most client connections of a node.
    pub connections_max: usize,
    /// The most requests in flight on one connection.
    pub inflight_max: usize,
    /// Reply bytes that may wait for a slow reader before its requests are no longer read.
    pub reply_bytes_max: usize,
    /// Proposed but uncommitted bytes of a shard, then `overloaded`.
    pub uncommitted_bytes_max: usize,
    /// Proposed but uncommitted bytes of all shards of a core, then `overloaded`.
    pub core_uncommitted_bytes_max: usize,
    /// Bytes that a core's log has taken in and its disk has not, then writes are `overloaded`.
    pub core_backlog_bytes_max: usize,
    /// Bytes of requests of a core that wait for a leader, then `overloaded`.
    pub core_parked_bytes_max: usize,
    /// Bytes of requests of a core that wait for other nodes' answers, then `overloaded`.
    pub core_forwarded_bytes_max: usize,
    /// Bytes of requests that wait for a core, sent by the node's other cores, then `overloaded`.
    pub core_inbox_bytes_max: usize,
    /// Reply bytes that wait for readers or may be asked for already, on all connections of a core; then reads are
    /// `overloaded`.
    pub core_reply_bytes_max: usize,
    /// Scans over all shards that a core works on at a time; each may hold a page of every shard.
    pub core_scans_max: usize,
    /// Scans over all shards that wait for others of the core to be done, then `overloaded`.
    pub core_scans_waiting_max: usize,
    /// Requests for the node's metrics that a core serves at a time, then `overloaded`.
    pub core_scrapes_max: usize,
    /// Unsent bytes above which a core's link to a peer takes nothing more.
    pub link_bytes_max: usize,
    /// Bytes of a shard's entries since its last snapshot after which the next is taken.
    pub snapshot_log_bytes: u64,
    /// Bytes of a shard's newest entries that stay in the log for followers that lag, even if snapshots cover them.
    pub log_tail_bytes: u64,
    /// Bytes of a core's log above which shards that hold up the release of its oldest segments are pushed on.
    pub core_log_bytes_max: u64,
    /// Bytes of the newest entries of a core's log that stay in memory; followers that lag more are sent what is read
    /// from the disk.
    pub core_log_memory_max: usize,
    /// Bytes of snapshots that a core takes from other nodes in a second.
    pub snapshot_rate: u64,
    /// Bytes of keys and values that a node writes into snapshots of its own in a second at most, as long as no log waits for
    /// them.
    pub snapshot_write_rate: u64,
    /// Bytes of large states, 64 more for each key, that a core has read again in a second to see whether memory has kept them.
    pub scrub_rate: u64,
    /// For how long nothing may come of a snapshot from the node that it is fetched from, not a byte.
    pub snapshot_timeout: Duration,
    /// The longest head of an HTTP request, in bytes.
    pub http_header_bytes_max: usize,
    /// Requests in flight on an HTTP/2 connection.
    pub http_streams_max: usize,
    /// Bytes of bodies of HTTP requests that a core may hold before they are whole, then `overloaded`.
    pub core_http_body_bytes_max: usize,
    /// How long the head of an HTTP request may take.
    pub http_header_timeout: Duration,
    /// How long the body of an HTTP request may take.
    pub http_body_timeout: Duration,
    /// How long an HTTP connection may rest.
    pub http_idle_timeout: Duration,
    /// How long a connection may take to say hello.
    pub hello_timeout: Duration,
    /// How long a request may take before it is answered `timeout` or `no_leader`.
    pub request_timeout: Duration,
    /// How long an ordered stop may take before the node ends with requests unanswered.
    pub stop_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            key_bytes_max: KEY_BYTES_MAX,
            value_bytes_max: VALUE_BYTES_MAX,
            batch_operations_max: BATCH_OPERATIONS_MAX,
            batch_bytes_max: BATCH_BYTES_MAX,
            scan_items_max: 1_000,
            scan_bytes_max: SCAN_BYTES_MAX,
            connections_max: 10_000,
            inflight_max: 1_024,
            reply_bytes_max: 8 << 20,
            uncommitted_bytes_max: 64 << 20,
            core_uncommitted_bytes_max: 256 << 20,
            core_backlog_bytes_max: 64 << 20,
            core_parked_bytes_max: 64 << 20,
            core_forwarded_bytes_max: 64 << 20,
            core_inbox_bytes_max: 64 << 20,
            core_reply_bytes_max: 512 << 20,
            core_scans_max: 16,
            core_scans_waiting_max: 4_096,
            core_scrapes_max: 64,
            link_bytes_max: 64 << 20,
            snapshot_log_bytes: 64 << 20,
            log_tail_bytes: 16 << 20,
            core_log_bytes_max: 4 << 30,
            core_log_memory_max: 8 << 20,
            snapshot_rate: 8 << 20,
            snapshot_write_rate: 16 << 20,
            scrub_rate: 16 << 20,
            snapshot_timeout: Duration::from_secs(10),
            http_header_bytes_max: 16 << 10,
            http_streams_max: 128,
            core_http_body_bytes_max: 64 << 20,
            http_header_timeout: Duration::from_secs(10),
            http_body_timeout: Duration::from_secs(30),
            http_idle_timeout: Duration::from_secs(60),
            hello_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(5),
            stop_timeout: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// Whether these limits go together and stay below those of the formats; if not, what does not, in one line.
    pub fn check(&self) -> Result<(), String> {
        within("--key-bytes-max", self.key_bytes_max, 1, KEY_BYTES_MAX)?;
        within("--value-bytes-max", self.value_bytes_max, 1, VALUE_BYTES_MAX)?;
        within("--batch-operations-max", self.batch_operations_max, 1, BATCH_OPERATIONS_MAX)?;
        within("--batch-bytes-max", self.batch_bytes_max, 1, BATCH_BYTES_MAX)?;
        within("--scan-items-max", self.scan_items_max, 1, SCAN_ITEMS_MAX as usize)?;
        within("--scan-bytes-max", self.scan_bytes_max, 1, SCAN_BYTES_MAX)?;
        let item = self.item_bytes_max();
        let page = self.page_bytes_max();
        at_least("--reply-bytes-max", self.reply_bytes_max, item.max(page), "the longest reply")?;
        at_least("--core-reply-bytes-max", self.core_reply_bytes_max, item.max(page), "the longest reply")?;
        for (setting, value) in [
            ("--uncommitted-bytes-max", self.uncommitted_bytes_max),
            ("--core-uncommitted-bytes-max", self.core_uncommitted_bytes_max),
            ("--core-backlog-bytes-max", self.core_backlog_bytes_max),
            ("--core-parked-bytes-max", self.core_parked_bytes_max),
            ("--core-forwarded-bytes-max", self.core_forwarded_bytes_max),
            ("--core-inbox-bytes-max", self.core_inbox_bytes_max),
            ("--core-http-body-bytes-max", self.core_http_body_bytes_max),
        ] {
            at_least(setting, value, self.write_bytes_max(), "the longest write")?;
        }
        at_least("--link-bytes-max", self.link_bytes_max, LINK_BYTES_MIN, "appends and answers between nodes")?;
        within("--http-header-bytes-max", self.http_header_bytes_max, HTTP_HEADER_BYTES_MIN, HTTP_HEADER_BYTES_MAX)?;
        self.check_snapshots()
    }

    fn check_snapshots(&self) -> Result<(), String> {
        for (setting, value, least, why) in [
            ("--snapshot-log-bytes", self.snapshot_log_bytes, SNAPSHOT_LOG_BYTES_MIN, "a node would do little else"),
            ("--core-log-bytes-max", self.core_log_bytes_max, 4 * SEGMENT_BYTES_MIN, "a log could not go on"),
            ("--snapshot-rate", self.snapshot_rate, SNAPSHOT_RATE_MIN, "no follower would catch up"),
            ("--snapshot-write-rate", self.snapshot_write_rate, SNAPSHOT_RATE_MIN, "no snapshot would be done"),
            ("--scrub-rate", self.scrub_rate, SCRUB_RATE_MIN, "bad memory would stay unseen for days"),
        ] {
            if value < least {
                return Err(format!("{setting} {value} must be at least {least}, or {why}"));
            }
        }
        Ok(())
    }

    /// The longest put, or value of one key, as a frame.
    #[must_use]
    pub fn item_bytes_max(&self) -> usize {
        self.key_bytes_max + self.value_bytes_max + OVERHEAD_BYTES_MAX
    }

    /// The longest write of a client, as a frame.
    #[must_use]
    pub fn write_bytes_max(&self) -> usize {
        self.item_bytes_max().max(self.batch_bytes_max + BATCH_OVERHEAD_BYTES_MAX)
    }

    /// The longest page of a scan, as a frame.
    #[must_use]
    pub fn page_bytes_max(&self) -> usize {
        self.scan_bytes_max + self.scan_items_max * SCAN_ITEM_OVERHEAD_BYTES + OVERHEAD_BYTES_MAX
    }
}

fn within(setting: &str, value: usize, least: usize, most: usize) -> Result<(), String> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(format!("{setting} {value} must be from {least} to {most}"))
}

fn at_least(setting: &str, value: usize, least: usize, what: &str) -> Result<(), String> {
    if value >= least {
        return Ok(());
    }
    Err(format!("{setting} {value} must be at least {least}, or {what} would never fit"))
}

/// The longest key that any configuration may allow, and the default.
pub const KEY_BYTES_MAX: usize = 4 << 10;
/// The longest value that any configuration may allow, and the default.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Room for everything but key and value in a frame, an entry or a record.
pub const OVERHEAD_BYTES_MAX: usize = 1 << 10;
/// The most bytes of keys and values of a batch that any configuration may allow, and the default.
pub const BATCH_BYTES_MAX: usize = 1280 << 10;
/// Room for everything of a batch but keys and values, in a frame or an entry: kind, condition and lengths of each operation.
pub const BATCH_OVERHEAD_BYTES_MAX: usize = BATCH_OPERATIONS_MAX * 32 + OVERHEAD_BYTES_MAX;
/// The longest body of a log entry.
pub const ENTRY_BYTES_MAX: usize = BATCH_BYTES_MAX + BATCH_OVERHEAD_BYTES_MAX;
/// The most bytes of entries that the leader puts into one append message, unless a single entry is longer.
pub const APPEND_BYTES_MAX: usize = 1 << 20;
/// The least that a link must be able to hold: half of it is kept for Raft, and the longest append fits into that.
pub const LINK_BYTES_MIN: usize = 2 * (APPEND_BYTES_MAX + ENTRY_BYTES_MAX + OVERHEAD_BYTES_MAX);
/// The most Raft groups of a cluster: each costs heartbeats and memory whether it is used or not.
pub const SHARDS_MAX: u16 = 4_096;
/// The most keys in a page of a scan that any configuration may allow.
pub const SCAN_ITEMS_MAX: u32 = 10_000;
/// The most that a clock may be allowed to be wrong, in millionths: leases last four fifths of what is promised then.
pub const CLOCK_DRIFT_PPM_MAX: u32 = 100_000;
/// The most bytes of keys and values in a page of a scan that any configuration may allow, and the default.
pub const SCAN_BYTES_MAX: usize = 1 << 20;
/// Room for everything but key and value of an item in a page of a scan.
pub const SCAN_ITEM_OVERHEAD_BYTES: usize = 32;
/// The least that the head of an HTTP request must be allowed: browsers send some KiB.
pub const HTTP_HEADER_BYTES_MIN: usize = 8 << 10;
/// The most that it may be allowed.
pub const HTTP_HEADER_BYTES_MAX: usize = 1 << 20;
/// The least bytes of a log segment.
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// The most bytes of a log segment.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// The least entries after which a shard may be told to be snapshotted.
pub const SNAPSHOT_LOG_BYTES_MIN: u64 = 4 << 10;
/// The most bytes of a snapshot in one answer between nodes.
pub const SNAPSHOT_CHUNK_BYTES_MAX: u32 = 256 << 10;
/// The least bytes of snapshots that a core may be told to take in a second: a chunk must not take longer.
pub const SNAPSHOT_RATE_MIN: u64 = SNAPSHOT_CHUNK_BYTES_MAX as u64;
/// The least bytes of states that a core may be told to read again in a second.
pub const SCRUB_RATE_MIN: u64 = 64 << 10;
/// Requests for snapshots that a core has taken in and that are not done, then `overloaded`.
pub const SNAPSHOT_REQUESTS_MAX: usize = 16;
/// The longest that an answer to such a request is waited for.
pub const SNAPSHOT_WAIT_MAX: Duration = Duration::from_secs(3_600);
/// The most bytes of words that tell why a snapshot failed.
pub const SNAPSHOT_WORDS_BYTES_MAX: usize = 512;
/// Segments are multiples of this: batches start on its boundaries.
pub const SEGMENT_BLOCK_BYTES: u64 = 4 << 10;

const _: () = assert!(SHARDS_MAX <= SLOTS);
// The longest page of a scan fits a client frame.
const _: () = assert!(
    SCAN_BYTES_MAX + SCAN_ITEMS_MAX as usize * SCAN_ITEM_OVERHEAD_BYTES + OVERHEAD_BYTES_MAX <= frame::CLIENT_FRAME_MAX
);
// The longest put is no longer than the longest batch, which fits a client frame; the longest append fits a peer frame.
const _: () = assert!(KEY_BYTES_MAX + VALUE_BYTES_MAX + OVERHEAD_BYTES_MAX <= ENTRY_BYTES_MAX);
const _: () = assert!(ENTRY_BYTES_MAX <= frame::CLIENT_FRAME_MAX);
const _: () = assert!(APPEND_BYTES_MAX + ENTRY_BYTES_MAX + OVERHEAD_BYTES_MAX <= frame::PEER_FRAME_MAX);
// What is told of every shard's failed snapshot, in the answer to a request or in the status, fits a reply's frame.
const _: () = assert!(SHARDS_MAX as usize * (SNAPSHOT_WORDS_BYTES_MAX + OVERHEAD_BYTES_MAX) <= frame::PEER_FRAME_MAX);
// A chunk of a snapshot fits a peer frame.
const _: () = assert!(SNAPSHOT_CHUNK_BYTES_MAX as usize + OVERHEAD_BYTES_MAX <= frame::PEER_FRAME_MAX);
