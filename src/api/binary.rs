//! The binary protocol's face: who may talk to this node, and which requests make sense.

use raftkv_protocol::client::{Batch, Change, Code, Operation};
use raftkv_protocol::frame::{DecodeError, FrameError};
use raftkv_protocol::hello::{Hello, HelloRefusal, HelloRole, negotiate};
use raftkv_protocol::types::{ClusterId, NodeId};

use crate::limits::Limits;

/// The most bytes of a key that a refusal shows.
const SHOWN_BYTES_MAX: usize = 64;

/// What a request's operands are checked against; `Err` is the refusal's code and words.
pub fn check(operation: &Operation<'_>, limits: &Limits) -> Result<(), (Code, String)> {
    match operation {
        Operation::Put { key, value, .. } => {
            check_key(key, limits)?;
            within("the value", value.len(), limits.value_bytes_max, "--value-bytes-max")
        }
        Operation::Delete { key, .. } | Operation::Get { key, .. } => check_key(key, limits),
        Operation::Batch(batch) => check_batch(batch, limits),
        Operation::Scan(scan) => {
            for bound in [scan.prefix, scan.start, scan.end, scan.cursor] {
                within("a bound of the scan", bound.len(), limits.key_bytes_max, "--key-bytes-max")?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// How many operations a batch may have.
pub fn check_count(count: usize, limits: &Limits) -> Result<(), (Code, String)> {
    let max = limits.batch_operations_max;
    if count == 0 {
        return Err((Code::BadRequest, "the batch has no operation: it has at least one".to_owned()));
    }
    if count > max {
        let words =
            format!("the batch has {count} operations, the limit is {max} (--batch-operations-max of the server)");
        return Err((Code::TooLarge, words));
    }
    Ok(())
}

/// That the keys lie in one shard is seen to by whoever knows how many shards there are.
fn check_batch(batch: &Batch<'_>, limits: &Limits) -> Result<(), (Code, String)> {
    check_count(batch.len(), limits)?;
    for operation in batch.operations() {
        check_key(operation.key, limits)?;
        if let Change::Put(value) = operation.change {
            within("a value of the batch", value.len(), limits.value_bytes_max, "--value-bytes-max")?;
        }
    }
    within("the batch, keys and values together,", batch.bytes(), limits.batch_bytes_max, "--batch-bytes-max")?;
    match batch.key_twice() {
        Some(key) => {
            let shown = key[..key.len().min(SHOWN_BYTES_MAX)].escape_ascii();
            Err((Code::BadRequest, format!("the batch names the key \"{shown}\" twice: each operation needs another")))
        }
        None => Ok(()),
    }
}

fn check_key(key: &[u8], limits: &Limits) -> Result<(), (Code, String)> {
    if key.is_empty() {
        return Err((Code::BadRequest, "the key is empty: a key has at least one byte".to_owned()));
    }
    within("the key", key.len(), limits.key_bytes_max, "--key-bytes-max")
}

fn within(what: &str, length: usize, max: usize, flag: &str) -> Result<(), (Code, String)> {
    if length <= max {
        return Ok(());
    }
    Err((Code::TooLarge, format!("{what} has {length} bytes, the limit is {max} ({flag} of the server)")))
}

/// The protocol version to speak with a side that speaks `min` to `max`.
pub fn check_versions(min: u16, max: u16) -> Result<u16, (HelloRefusal, String)> {
    negotiate(min, max).ok_or_else(|| {
        let words = format!(
            "you speak protocol versions {min} to {max}, this server {} to {}",
            raftkv_protocol::hello::VERSION_MIN,
            raftkv_protocol::hello::VERSION_MAX
        );
        (HelloRefusal::Version, words)
    })
}

/// Checks what a hello of a version that is spoken here says against this node.
pub fn check_hello(
    hello: &Hello<'_>,
    cluster: ClusterId,
    own: NodeId,
    is_member: impl FnOnce(NodeId) -> bool,
) -> Result<(), (HelloRefusal, String)> {
    if hello.auth.method != 0 {
        let words = format!("authentication method {} is not known here", hello.auth.method);
        return Err((HelloRefusal::Unauthorized, words));
    }
    match hello.role {
        HelloRole::Client { .. } if hello.cluster == ClusterId(0) || hello.cluster == cluster => Ok(()),
        HelloRole::Peer { node, .. } | HelloRole::Snapshots { node, .. } if hello.cluster == cluster => {
            if node == own || !is_member(node) {
                let words = format!("node {node} is not another member of this cluster (this is node {own})");
                return Err((HelloRefusal::UnknownNode, words));
            }
            Ok(())
        }
        _ => {
            let words = format!(
                "this is cluster {cluster}, you mean {}: do name, members and shards agree on all nodes?",
                hello.cluster
            );
            Err((HelloRefusal::Cluster, words))
        }
    }
}

/// What a client is told before its connection is closed because of bytes that are no frame.
#[must_use]
pub fn bad_frame(error: FrameError) -> (Code, String) {
    match error {
        FrameError::Length { announced, max } => {
            (Code::TooLarge, format!("a frame of {announced} bytes was announced, the limit is {max}; closing"))
        }
        FrameError::Checksum => (Code::BadRequest, "the frame's checksum does not match; closing".to_owned()),
        _ => (Code::BadRequest, "the bytes are not a frame; closing".to_owned()),
    }
}

/// What a client is told before its connection is closed because of a frame that is no request.
#[must_use]
pub fn bad_message(error: DecodeError) -> (Code, String) {
    let words = match error {
        DecodeError::Kind(kind) => format!("frames of kind 0x{kind:02x} are not requests; closing"),
        DecodeError::Truncated(field) => format!("the request ends inside its {field}; closing"),
        DecodeError::Invalid(field) => format!("the request's {field} has a value that it cannot have; closing"),
        _ => "the frame is not a request; closing".to_owned(),
    };
    (Code::BadRequest, words)
}
