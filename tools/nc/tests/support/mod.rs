//! Directories that the storage layer wrote.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use raftkv::state_machine::{encode_delete, encode_put};
use raftkv::storage::{CoreLog, FileLog, Options};
use raftkv_protocol::client::Condition;
use raftkv_protocol::types::{Entry, EntryId, EntryKind, HardState, NodeId, ShardId, Term};

/// How long the log may take for one answer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// An entry of term 2.
pub fn entry(index: u64, kind: EntryKind, encode: impl FnOnce(&mut Vec<u8>)) -> Entry {
    let mut body = Vec::new();
    encode(&mut body);
    Entry { id: EntryId::new(index, 2), kind, body: body.into() }
}

/// A core's log with one shard, with a vote, a no-op, a put and a delete in it, all durable; it is open still.
pub fn written_log(dir: &Path, shard: ShardId) -> FileLog {
    let (wake, woken) = mpsc::channel();
    let wake = Arc::new(move || {
        // Nobody listens any more once everything is durable.
        let _ = wake.send(());
    });
    let options = Options { segment_size: 64 << 10, ..Options::new(dir, vec![shard], wake) };
    let (mut log, _) = FileLog::open(options).unwrap();
    log.set_hard_state(shard, HardState { term: Term(2), vote: Some(NodeId(1)) });
    let mut entries = vec![
        entry(1, EntryKind::Noop, |_| ()),
        entry(2, EntryKind::Command, |out| encode_put(b"greeting", b"hello", Condition::None, out)),
        entry(3, EntryKind::Command, |out| encode_delete(b"greeting", Condition::Exists, out)),
    ];
    log.append(shard, &mut entries);
    settle(&mut log, &woken);
    log
}

/// Makes everything durable that was added.
pub fn settle(log: &mut FileLog, woken: &mpsc::Receiver<()>) {
    let last = log.last_batch();
    log.flush();
    while log.durable().unwrap() < last {
        woken.recv_timeout(PATIENCE).unwrap();
        log.flush();
    }
}
