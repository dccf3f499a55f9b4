//! Arithmetic of the trials: what is counted, and what comes of many values.

use raftkv_protocol::client::Status;

/// Every key's length.
pub(crate) const KEY_BYTES: u32 = 16;
/// What a record of the log has besides the entry (`docs/formats.md`), and a put's command besides key and value.
const RECORD_HEAD_BYTES: u64 = 28;
const COMMAND_HEAD_BYTES: u64 = 14;
/// The head of a batch.
pub(crate) const BATCH_HEAD_BYTES: u64 = 56;

/// Bytes that a put of such a value takes in the log, without the batch around it.
pub(crate) fn record_bytes(value_bytes: u32) -> u64 {
    RECORD_HEAD_BYTES + COMMAND_HEAD_BYTES + u64::from(KEY_BYTES) + u64::from(value_bytes)
}

/// Bytes that it takes in memory while it is among the log's newest entries: its command, and 64 for what is around
/// it, as the server reckons.
pub(crate) fn tail_entry_bytes(value_bytes: u32) -> u64 {
    record_bytes(value_bytes) - RECORD_HEAD_BYTES + 64
}

/// Bytes of its key and value.
pub(crate) fn user_bytes(value_bytes: u32) -> u64 {
    u64::from(KEY_BYTES) + u64::from(value_bytes)
}

/// A node's counter.
pub(crate) fn counter(status: &Status, name: &str) -> Result<u64, String> {
    let found = status.counters.iter().find(|(counter, _)| counter == name);
    found.map(|&(_, value)| value).ok_or_else(|| format!("node {} counts no {name}", status.node))
}

/// The same, of all nodes together.
pub(crate) fn sum(statuses: &[Status], name: &str) -> Result<u64, String> {
    statuses.iter().map(|status| counter(status, name)).sum()
}

/// The greatest of what the nodes count under this name.
pub(crate) fn greatest(statuses: &[Status], name: &str) -> Result<u64, String> {
    statuses.iter().map(|status| counter(status, name)).try_fold(0, |greatest, value| Ok(greatest.max(value?)))
}

/// How many entries all shards have committed, as the nodes that know most of each tell.
pub(crate) fn committed(statuses: &[Status]) -> Vec<u64> {
    let shards = statuses.iter().map(|status| status.shards.len()).max().unwrap_or(0);
    let of =
        |shard: usize| statuses.iter().filter_map(|status| status.shards.get(shard)).map(|shard| shard.commit.0).max();
    (0..shards).map(|shard| of(shard).unwrap_or(0)).collect()
}

/// Entries of a node's log that no snapshot holds, over all shards.
pub(crate) fn entries_behind_snapshots(status: &Status) -> u64 {
    status.shards.iter().map(|shard| shard.last.index.0.saturating_sub(shard.snapshot.index.0)).sum()
}

/// The median; the mean of the two in the middle of an even number. 0 of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        length if length % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The largest. 0 of none.
pub(crate) fn largest(values: &[f64]) -> f64 {
    values.iter().copied().max_by(f64::total_cmp).unwrap_or(0.0)
}

/// One over the other; 0 if there is nothing to divide by.
pub(crate) fn ratio(value: f64, by: f64) -> f64 {
    if by == 0.0 { 0.0 } else { value / by }
}

/// Whether values, oldest first, stand still: they differ by no more than a hundredth of the largest.
pub(crate) fn stands_still(values: &[u64]) -> bool {
    let (least, most) = (values.iter().min(), values.iter().max());
    least.zip(most).is_some_and(|(least, most)| most - least <= most / 100)
}

/// A number of bytes to be read.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}
