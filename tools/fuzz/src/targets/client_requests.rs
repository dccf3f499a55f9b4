//! Requests of clients on their way through the API's checks into the state machine.
//!
//! The checks agree with the limits whatever the request. What they accept can be encoded, applied and read back, and a
//! scan returns what its bounds say: **no accepted request may be able to panic a replica** or to stop it.

use std::collections::BTreeSet;

use bytes::Bytes;
use raftkv::api::binary;
use raftkv::limits::Limits;
use raftkv::state_machine::{Outcome, StateMachine, encode_batch, encode_delete, encode_put};
use raftkv_protocol::client::{Batch, BatchOperation, Change, Code, Condition, Operation, Request, Scan};
use raftkv_protocol::frame::{self, CLIENT_FRAME_MAX, Frame};
use raftkv_protocol::hello::{Hello, HelloRole};
use raftkv_protocol::kind;
use raftkv_protocol::types::{ClusterId, Entry, EntryId, EntryKind, Index, NodeId};

use crate::feedback::{Feedback, magnitude, named};

/// The node that is asked.
const OWN: NodeId = NodeId(1);
const MEMBERS: std::ops::RangeInclusive<u64> = 1..=3;

/// The check of a request: the API's, or in a test of these checks a broken one.
pub type Check = fn(&Operation<'_>, &Limits) -> Result<(), (Code, String)>;

/// The target.
pub fn run(data: &[u8], feedback: &mut Feedback) {
    run_with(binary::check, data, feedback);
}

/// The same with another check.
pub fn run_with(check: Check, data: &[u8], feedback: &mut Feedback) {
    let mut rest = data;
    loop {
        match frame::parse(rest, CLIENT_FRAME_MAX) {
            Ok(Some(frame)) => {
                on_frame(check, &frame, feedback);
                rest = &rest[frame.consumed..];
            }
            Ok(None) => return,
            Err(error) => {
                let (code, words) = binary::bad_frame(error);
                check_words(&words);
                feedback.saw_with(1, code as u64);
                return;
            }
        }
    }
}

fn on_frame(check: Check, frame: &Frame<'_>, feedback: &mut Feedback) {
    if frame.kind == kind::HELLO {
        return on_hello(frame, feedback);
    }
    match Request::decode(frame.kind, frame.payload) {
        Ok(request) => {
            assert_eq!(Request::id_of(frame.payload), Some(request.id), "a refusal would carry another id");
            on_operation(check, &request.operation, feedback);
        }
        Err(error) => {
            let (code, words) = binary::bad_message(error);
            check_words(&words);
            feedback.saw_with(2, code as u64 ^ named(&words));
        }
    }
}

fn on_hello(frame: &Frame<'_>, feedback: &mut Feedback) {
    let Ok(hello) = Hello::decode(frame.kind, frame.payload) else { return feedback.saw(3) };
    let versions = binary::check_versions(hello.version_min, hello.version_max);
    assert_eq!(
        versions.is_ok(),
        hello.version_min <= 1 && hello.version_max >= 1 && hello.version_max >= hello.version_min
    );
    // Whichever cluster it means, and another one.
    for cluster in [hello.cluster, ClusterId(7)] {
        let is_member = |node: NodeId| MEMBERS.contains(&node.0);
        let checked = binary::check_hello(&hello, cluster, OWN, is_member);
        feedback.saw_with(4, checked.as_ref().map_or_else(|(reason, _)| named(reason.name()), |()| 0));
        let is_welcome = match hello.role {
            HelloRole::Client { .. } => hello.cluster == ClusterId(0) || hello.cluster == cluster,
            HelloRole::Peer { node, .. } | HelloRole::Snapshots { node, .. } => {
                hello.cluster == cluster && node != OWN && is_member(node)
            }
        };
        assert_eq!(checked.is_ok(), is_welcome && hello.auth.method == 0, "{checked:?} for {hello:?}");
        if let Err((_, words)) = checked {
            check_words(&words);
        }
    }
}

fn on_operation(check: Check, operation: &Operation<'_>, feedback: &mut Feedback) {
    let tiny = Limits {
        key_bytes_max: 3,
        value_bytes_max: 4,
        batch_operations_max: 2,
        batch_bytes_max: 6,
        ..Limits::default()
    };
    for (at, limits) in [tiny, Limits::default()].iter().enumerate() {
        let checked = check(operation, limits);
        let code = checked.as_ref().err().map(|(code, _)| *code);
        assert_eq!(code, expected(operation, limits), "{operation}");
        feedback.saw_with(5, named(operation.name()) ^ code.map_or(0, |code| code as u64) << 8 ^ at as u64);
        if let Err((_, words)) = checked {
            check_words(&words);
        }
    }
    if check(operation, &Limits::default()).is_ok() {
        serve(operation, feedback);
    }
}

/// The rule of the documents, said again: no empty keys, and nothing over its limit.
fn expected(operation: &Operation<'_>, limits: &Limits) -> Option<Code> {
    let longest = |bytes: &[&[u8]]| bytes.iter().map(|bytes| bytes.len()).max().unwrap_or(0);
    let (key, value) = match operation {
        Operation::Put { key, value, .. } => (*key, value.len()),
        Operation::Delete { key, .. } | Operation::Get { key, .. } => (*key, 0),
        Operation::Scan(Scan { prefix, start, end, cursor, .. }) => {
            let over = longest(&[prefix, start, end, cursor]) > limits.key_bytes_max;
            return over.then_some(Code::TooLarge);
        }
        Operation::Batch(batch) => return expected_of_batch(batch, limits),
        _ => return None,
    };
    expected_of(key, value, limits)
}

fn expected_of(key: &[u8], value: usize, limits: &Limits) -> Option<Code> {
    if key.is_empty() {
        return Some(Code::BadRequest);
    }
    (key.len() > limits.key_bytes_max || value > limits.value_bytes_max).then_some(Code::TooLarge)
}

/// The first thing that is wrong with a batch: too few or many operations, one of them, all of it together, or a key twice.
fn expected_of_batch(batch: &Batch<'_>, limits: &Limits) -> Option<Code> {
    let operations: Vec<BatchOperation<'_>> = batch.operations().collect();
    let value_len = |operation: &BatchOperation<'_>| match operation.change {
        Change::Put(value) => value.len(),
        Change::Delete => 0,
    };
    if operations.is_empty() {
        return Some(Code::BadRequest);
    }
    if operations.len() > limits.batch_operations_max {
        return Some(Code::TooLarge);
    }
    let of_one = |operation: &BatchOperation<'_>| expected_of(operation.key, value_len(operation), limits);
    let bytes: usize = operations.iter().map(|operation| operation.key.len() + value_len(operation)).sum();
    let keys: BTreeSet<&[u8]> = operations.iter().map(|operation| operation.key).collect();
    operations
        .iter()
        .find_map(of_one)
        .or_else(|| (bytes > limits.batch_bytes_max).then_some(Code::TooLarge))
        .or_else(|| (keys.len() < operations.len()).then_some(Code::BadRequest))
}

/// A refusal is one line for people.
fn check_words(words: &str) {
    assert!(!words.is_empty() && !words.contains('\n'), "no line for people: {words:?}");
}

/// Applies a request to a small state and reads what came of it.
fn serve(operation: &Operation<'_>, feedback: &mut Feedback) {
    let mut state = Replica::default();
    match *operation {
        Operation::Put { key, value, condition } => {
            let version = Index(state.next);
            let outcome = state.apply(|out| encode_put(key, value, condition, out));
            let takes_place = matches!(condition, Condition::None | Condition::Absent);
            assert_eq!(outcome, if takes_place { Outcome::Put } else { Outcome::ConditionFailed }, "{operation}");
            let wanted = takes_place.then_some((version, value));
            assert_eq!(state.machine.get(key), wanted, "{operation} is not what is read");
        }
        Operation::Delete { key, condition } => {
            state.apply(|out| encode_put(key, b"old", Condition::None, out));
            let outcome = state.apply(|out| encode_delete(key, condition, out));
            let takes_place = match condition {
                Condition::Version(version) => version == Index(1),
                condition => condition != Condition::Absent,
            };
            let wanted = if takes_place { Outcome::Deleted { existed: true } } else { Outcome::ConditionFailed };
            assert_eq!(outcome, wanted, "{operation}");
            assert_eq!(state.machine.get(key).is_none(), takes_place, "{operation} is not what is read");
        }
        Operation::Batch(batch) => {
            let outcome = state.apply(|out| encode_batch(batch.operations(), out).expect("it was accepted"));
            // Nothing is there yet.
            let holds =
                |operation: &BatchOperation<'_>| matches!(operation.condition, Condition::None | Condition::Absent);
            let takes_place = batch.operations().all(|operation| holds(&operation));
            let is_refused = matches!(outcome, Outcome::ConditionFailed | Outcome::BatchConditionFailed { .. });
            assert_eq!(is_refused, !takes_place, "{operation}");
            for operation in batch.operations() {
                let wanted = match operation.change {
                    Change::Put(value) if takes_place => Some((Index(1), value)),
                    _ => None,
                };
                assert_eq!(state.machine.get(operation.key), wanted, "{operation} is not what is read");
            }
        }
        Operation::Scan(scan) => check_scan(&mut state, &scan, feedback),
        _ => {}
    }
}

/// Keys around the bounds of a scan, whatever these are.
fn check_scan(state: &mut Replica, scan: &Scan<'_>, feedback: &mut Feedback) {
    let bounds = [scan.prefix, scan.start, scan.end, scan.cursor];
    let mut keys: Vec<Vec<u8>> = Vec::with_capacity(12);
    for bound in bounds {
        keys.push(bound.to_vec());
        keys.push([bound, &[0]].concat());
        keys.push([bound, &[0xff]].concat());
    }
    keys.retain(|key| !key.is_empty());
    for key in &keys {
        state.apply(|out| encode_put(key, b"v", Condition::None, out));
    }
    keys.sort();
    keys.dedup();
    keys.retain(|key| is_wanted(scan, key));
    if scan.reverse {
        keys.reverse();
    }
    let mut wanted = keys.iter();
    state.machine.scan(scan, |key, _, _| {
        assert_eq!(Some(key), wanted.next().map(Vec::as_slice), "another key than the bounds of {scan:?} say");
        true
    });
    assert_eq!(wanted.next(), None, "{scan:?} returned too little");
    feedback.saw_with(6, magnitude(keys.len() as u64) << 1 | u64::from(scan.reverse));
}

/// What a scan says it returns, key by key.
fn is_wanted(scan: &Scan<'_>, key: &[u8]) -> bool {
    let is_after_cursor = if scan.reverse { key < scan.cursor } else { key > scan.cursor };
    key.starts_with(scan.prefix)
        && key >= scan.start
        && (scan.end.is_empty() || key < scan.end)
        && (scan.cursor.is_empty() || is_after_cursor)
}

/// A state machine that is fed one command after the other.
struct Replica {
    machine: StateMachine,
    next: u64,
}

impl Default for Replica {
    fn default() -> Replica {
        Replica { machine: StateMachine::default(), next: 1 }
    }
}

impl Replica {
    fn apply(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> Outcome {
        let mut body = Vec::new();
        encode(&mut body);
        let entry = Entry { id: EntryId::new(self.next, 1), kind: EntryKind::Command, body: Bytes::from(body) };
        self.next += 1;
        self.machine.apply(&entry).unwrap_or_else(|error| panic!("an accepted request stops the replica: {error}"))
    }
}
