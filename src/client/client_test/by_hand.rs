//! The client moved by hand: what leaves, how often, and at what time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mio::Token;
use raftkv_protocol::client::{Code, Operation, Request};
use raftkv_protocol::types::{EntryId, Index, NodeId, Term};

use super::memory::{Memory, Rig, Trace, address, builder, ready};
use super::scripted::{Next, lock, refuse, serve, serve_at, table_of};
use crate::client::by_hand::ByHand;
use crate::client::{Client, Condition, Consistency, ErrorKind, Pending, Value, Version};

const TIMEOUT: Duration = Duration::from_secs(5);
/// Long enough for anything that a client might still do of its own accord.
const AFTERWARDS: Duration = Duration::from_secs(60);

fn put(rig: &mut Rig, key: &str, value: &[u8]) -> Pending<Version> {
    rig.client.put_if(key, value, Condition::None, rig.now, TIMEOUT)
}

fn get(rig: &mut Rig, key: &str) -> Pending<Option<Value>> {
    rig.client.get_with(key, Consistency::Linearizable, rig.now, TIMEOUT)
}

fn hang_up(_: &Request<'_>, _: &mut Vec<u8>) -> Next {
    Next::HangUp
}

fn be_silent(_: &Request<'_>, _: &mut Vec<u8>) -> Next {
    Next::Go
}

#[test]
fn a_redirect_is_followed_and_remembered() {
    let (network, table) = (Memory::default(), table_of(1));
    let one = network.node(1, &table, |request, out| {
        refuse(out, request.id, Code::NotLeader, Some(2));
        Next::Go
    });
    let two = network.node(2, &table, serve);
    let mut rig = Rig::new(&network, &[1], 0);
    let slots = rig.client.slots(rig.now, TIMEOUT);
    rig.outcome(slots).unwrap();
    for _ in 0..5 {
        let put = put(&mut rig, "k", b"v");
        assert_eq!(rig.outcome(put), Ok(Index(1)));
    }
    assert_eq!((one.requests(), two.requests()), (1, 5));
}

#[test]
fn a_write_whose_connection_breaks_is_unknown_and_sent_once() {
    // museum 45
    let (network, table) = (Memory::default(), table_of(1));
    let (one, two) = (network.node(1, &table, hang_up), network.node(2, &table, serve));
    let mut rig = Rig::new(&network, &[1, 2], 0);
    let put = put(&mut rig, "k", b"v");
    let error = rig.outcome(put).unwrap_err();
    assert_eq!((error.kind(), error.maybe_applied()), (ErrorKind::ConnectionLost, true));
    rig.run_for(AFTERWARDS);
    assert_eq!((one.requests(), two.requests()), (1, 0));
}

#[test]
fn a_write_to_a_node_that_is_cut_off_is_unknown_after_the_silence_and_sent_once() {
    // museum 45
    let (network, table) = (Memory::default(), table_of(1));
    let (one, two) = (network.node(1, &table, serve), network.node(2, &table, serve));
    let silence = Duration::from_secs(1);
    let mut rig = Rig::with(&network, builder(&[1, 2]).silence_timeout(silence), 0);
    let first = put(&mut rig, "k", b"v");
    rig.outcome(first).unwrap();
    network.unplug(1);
    let begun = rig.elapsed();
    let (write, read) = (put(&mut rig, "k", b"w"), get(&mut rig, "k"));
    let error = rig.outcome(write).unwrap_err();
    assert_eq!((error.kind(), error.maybe_applied()), (ErrorKind::ConnectionLost, true));
    assert_eq!(rig.elapsed() - begun, silence);
    assert_eq!(rig.outcome(read).unwrap().unwrap().bytes, b"v");
    network.plug_in(1);
    rig.run_for(AFTERWARDS);
    assert_eq!((one.requests(), two.requests()), (1, 1), "the first write; the read");
}

/// A node that answers at once, but puts never.
fn without_puts(request: &Request<'_>, out: &mut Vec<u8>) -> Next {
    if matches!(request.operation, Operation::Put { .. }) { Next::Go } else { serve(request, out) }
}

#[test]
fn a_slow_reply_is_waited_for_while_the_node_answers_pings() {
    let (network, table) = (Memory::default(), table_of(1));
    let node = network.node(1, &table, without_puts);
    let silence = Duration::from_millis(300);
    let mut rig = Rig::with(&network, builder(&[1]).silence_timeout(silence), 0);
    let put = put(&mut rig, "k", b"v");
    let error = rig.outcome(put).unwrap_err();
    assert_eq!((error.kind(), rig.elapsed()), (ErrorKind::Timeout, TIMEOUT), "the connection was not given up");
    assert_eq!(node.requests(), 1 + 33, "the put, and a ping after each half of the time");
}

/// The client's own thread may stand still for longer than nodes may be silent.
#[test]
fn a_node_that_is_asked_late_has_as_much_time_to_answer() {
    let (network, table) = (Memory::default(), table_of(1));
    network.node(1, &table, without_puts);
    let silence = Duration::from_secs(1);
    for asked_after in [silence / 2, silence * 9 / 10, silence * 3] {
        let mut rig = Rig::with(&network, builder(&[1]).silence_timeout(silence), 0);
        let ping = rig.client.ping(NodeId(1), rig.now, TIMEOUT);
        rig.outcome(ping).unwrap();
        let put = rig.client.put_if("k", "v", Condition::None, rig.now, AFTERWARDS);
        rig.turn();
        network.unplug(1);
        rig.set_now(rig.now + asked_after);
        rig.turn();
        rig.run_for(silence / 2 - Duration::from_millis(1));
        assert!(!put.is_ready(), "asked after {asked_after:?}");
        network.plug_in(1);
        rig.run_for(silence);
        assert!(!put.is_ready(), "it has answered");
        network.unplug(1);
        rig.run_for(silence);
        let error = put.try_wait().expect("the node is silent now").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionLost);
        network.plug_in(1);
    }
}

/// Between learning which sockets are ready and reading the clock the client's thread may have stood still.
#[test]
fn what_has_come_by_then_counts_before_a_node_is_given_up() {
    let (network, table) = (Memory::default(), table_of(1));
    network.node(1, &table, without_puts);
    let silence = Duration::from_secs(1);
    let mut rig = Rig::with(&network, builder(&[1]).silence_timeout(silence), 0);
    let ping = rig.client.ping(NodeId(1), rig.now, TIMEOUT);
    rig.outcome(ping).unwrap();
    let put = put(&mut rig, "k", b"v");
    rig.turn();
    rig.set_now(rig.now + silence / 2);
    rig.turn();
    rig.set_now(rig.now + silence);
    rig.client.turn(rig.now, &[]);
    assert!(!put.is_ready(), "the answer to the ping was there");
    assert_eq!(rig.outcome(put).unwrap_err().kind(), ErrorKind::Timeout);
}

#[test]
fn a_write_is_moved_while_its_last_byte_has_not_left_and_unknown_afterwards() {
    // museum 45
    for held_back in [1, 0] {
        let (network, table) = (Memory::default(), table_of(1));
        let (one, two) = (network.node(1, &table, serve), network.node(2, &table, serve));
        let mut rig = Rig::new(&network, &[1, 2], 0);
        for _ in 0..2 {
            let put = put(&mut rig, "k", &[7; 1_000]);
            rig.outcome(put).unwrap();
        }
        let bytes = network.trace().last().expect("a put was sent").2.len();
        network.limit_room(1, bytes - held_back);
        let write = put(&mut rig, "k", &[8; 1_000]);
        rig.turn();
        network.cut(1);
        let outcome = rig.outcome(write);
        rig.run_for(AFTERWARDS);
        if held_back == 0 {
            let error = outcome.unwrap_err();
            assert_eq!((error.kind(), error.maybe_applied()), (ErrorKind::ConnectionLost, true));
            assert_eq!((one.requests(), two.requests()), (3, 0));
        } else {
            assert_eq!(outcome, Ok(Index(1)));
            assert_eq!((one.requests(), two.requests()), (2, 1));
        }
    }
}

#[test]
fn a_read_whose_connection_breaks_is_sent_to_another_node() {
    let (network, table) = (Memory::default(), table_of(1));
    let (one, two) = (network.node(1, &table, hang_up), network.node(2, &table, serve));
    let mut rig = Rig::new(&network, &[1, 2], 0);
    let get = get(&mut rig, "k");
    assert_eq!(rig.outcome(get).unwrap().unwrap().bytes, b"v");
    assert_eq!((one.requests(), two.requests()), (1, 1));
}

#[test]
fn requests_end_exactly_at_their_deadlines() {
    let timeout = Duration::from_millis(300);
    let (network, table) = (Memory::default(), table_of(1));
    network.node(1, &table, be_silent);
    let mut rig = Rig::new(&network, &[1], 0);
    let sent = rig.client.put_if("k", "v", Condition::None, rig.now, timeout);
    let later = rig.client.put_if("k", "v", Condition::None, rig.now, 2 * timeout);
    let error = rig.outcome(sent).unwrap_err();
    assert_eq!((error.kind(), error.maybe_applied(), rig.elapsed()), (ErrorKind::Timeout, true, timeout));
    assert!(!later.is_ready());
    assert!(rig.outcome(later).is_err());
    assert_eq!(rig.elapsed(), 2 * timeout);

    network.unplug(1);
    let mut rig = Rig::new(&network, &[1], 0);
    let unsent = rig.client.put_if("k", "v", Condition::None, rig.now, timeout);
    let error = rig.outcome(unsent).unwrap_err();
    assert_eq!((error.kind(), error.maybe_applied(), rig.elapsed()), (ErrorKind::Timeout, false, timeout));
}

#[test]
fn pauses_between_attempts_double_and_lose_at_most_half() {
    let (network, table) = (Memory::default(), table_of(1));
    let node = network.node(1, &table, |request, out| {
        refuse(out, request.id, Code::Overloaded, None);
        Next::Go
    });
    let (first, longest) = (Duration::from_millis(10), Duration::from_millis(200));
    let mut rig = Rig::with(&network, builder(&[1]).backoff(first, longest), 3);
    let put = put(&mut rig, "k", b"v");
    let error = rig.outcome(put).unwrap_err();
    assert_eq!((error.kind(), error.maybe_applied(), rig.elapsed()), (ErrorKind::Overloaded, false, TIMEOUT));
    let hello_then_puts = network.trace();
    let times: Vec<Duration> = hello_then_puts[1..].iter().map(|(time, ..)| *time).collect();
    assert_eq!(times.len(), node.requests());
    assert!(times.len() > 20, "{}", times.len());
    for (attempt, pair) in times.windows(2).enumerate() {
        let full = (first * (1 << attempt.min(10))).min(longest);
        let pause = pair[1] - pair[0];
        assert!(pause <= full && pause >= full / 2, "attempt {attempt}: {pause:?} of {full:?}");
    }
}

#[test]
fn a_later_term_in_a_reply_makes_the_client_ask_for_the_table() {
    let (network, table) = (Memory::default(), table_of(1));
    let forward = |request: &Request<'_>, out: &mut Vec<u8>| serve_at(EntryId::new(9, 2), request, out);
    let (one, two) = (network.node(1, &table, forward), network.node(2, &table, forward));
    let mut rig = Rig::new(&network, &[1, 2], 0);
    let first = put(&mut rig, "k", b"v");
    rig.outcome(first).unwrap();
    lock(&table).leaders[0] = (Some(NodeId(2)), Term(2));
    for _ in 0..2 {
        rig.run_for(Duration::from_secs(1));
        let put = put(&mut rig, "k", b"v");
        rig.outcome(put).unwrap();
    }
    assert_eq!((one.requests(), two.requests()), (2, 1));
    assert_eq!(one.slots_requests() + two.slots_requests(), 2, "the first table and the newer one");
}

#[test]
fn a_node_that_starts_later_is_found() {
    let network = Memory::default();
    let mut rig = Rig::new(&network, &[1], 0);
    let put = put(&mut rig, "k", b"v");
    rig.run_for(Duration::from_secs(3));
    assert!(!put.is_ready());
    let node = network.node(1, &table_of(1), serve);
    assert_eq!(rig.outcome(put), Ok(Index(1)));
    assert_eq!(node.requests(), 1);
}

/// A run with everything that goes wrong, and with many requests in flight when it does.
fn troubled_run(seed: u64) -> (Trace, Vec<String>) {
    let (network, table) = (Memory::default(), table_of(4));
    lock(&table).leaders = [1, 2, 3, 1].map(|leader| (Some(NodeId(leader)), Term(1))).to_vec();
    let seen = AtomicUsize::new(0);
    network.node(1, &table, move |request, out| match seen.fetch_add(1, Ordering::SeqCst) % 16 {
        0..8 => be_silent(request, out),
        15 => Next::HangUp,
        _ => serve(request, out),
    });
    let refused = AtomicUsize::new(0);
    network.node(2, &table, move |request, out| match refused.fetch_add(1, Ordering::SeqCst) {
        0..10 => {
            refuse(out, request.id, Code::NoLeader, None);
            Next::Go
        }
        10..20 => {
            refuse(out, request.id, Code::NotLeader, Some(3));
            Next::Go
        }
        _ => serve(request, out),
    });
    // Node 3 is in the table, and nobody is there.
    lock(&table).nodes.push((NodeId(3), address(3).to_string()));
    let mut rig = Rig::new(&network, &[1, 2], seed);
    let reads: Vec<_> = (0..60).map(|n| get(&mut rig, &format!("key/{n}"))).collect();
    let writes: Vec<_> = (0..60).map(|n| put(&mut rig, &format!("key/{n}"), b"v")).collect();
    rig.run_for(AFTERWARDS);
    let reads = reads.into_iter().map(|read| format!("{:?}", read.try_wait()));
    let outcomes = reads.chain(writes.into_iter().map(|write| format!("{:?}", write.try_wait()))).collect();
    (network.trace(), outcomes)
}

#[test]
fn the_same_seed_sends_the_same_bytes_at_the_same_times() {
    let (trace, outcomes) = troubled_run(1);
    assert!(trace.len() > 20, "{}", trace.len());
    for part in ["Ok(Ok(", "ConnectionLost"] {
        assert!(outcomes.iter().any(|outcome| outcome.contains(part)), "{part} in {outcomes:?}");
    }
    assert!(troubled_run(1) == (trace.clone(), outcomes));
    assert!(troubled_run(2).0 != trace, "the seed makes no difference");
}

#[test]
fn what_cannot_be_handed_over_fails_at_once() {
    let network = Memory::default();
    let node = network.node(1, &table_of(1), serve);
    let mut rig = Rig::with(&network, builder(&[1]).queue_max(1), 0);
    let large = put(&mut rig, &"k".repeat(70_000), b"v");
    assert_eq!(large.try_wait().expect("ready").unwrap_err().kind(), ErrorKind::TooLarge);
    let first = put(&mut rig, "k", b"v");
    let second = put(&mut rig, "k", b"v").try_wait().expect("ready").unwrap_err();
    assert_eq!((second.kind(), second.maybe_applied()), (ErrorKind::QueueFull, false));
    assert!(rig.client.wake_at() <= rig.now, "the first is to be sent at once");
    rig.outcome(first).unwrap();
    assert_eq!(node.requests(), 1);
}

#[test]
fn what_is_pending_ends_with_the_client() {
    let network = Memory::default();
    network.node(1, &table_of(1), without_puts);
    let mut rig = Rig::new(&network, &[1], 0);
    let ping = rig.client.ping(address(1).to_string(), rig.now, TIMEOUT);
    rig.outcome(ping).unwrap();
    let sent = put(&mut rig, "k", b"v");
    rig.turn();
    let unsent = put(&mut rig, "k", b"v");
    drop(rig);
    let (sent, unsent) = (sent.wait().unwrap_err(), unsent.wait().unwrap_err());
    assert_eq!((sent.kind(), sent.maybe_applied()), (ErrorKind::Closed, true));
    assert_eq!((unsent.kind(), unsent.maybe_applied()), (ErrorKind::Closed, false));
}

#[test]
fn every_kind_of_request_has_its_outcome() {
    let (network, table) = (Memory::default(), table_of(1));
    network.node(1, &table, |request, out| match request.operation {
        Operation::Delete { .. } => {
            refuse(out, request.id, Code::NotFound, None);
            Next::Go
        }
        Operation::Scan(_) | Operation::Status => {
            refuse(out, request.id, Code::Unauthorized, None);
            Next::Go
        }
        _ => serve(request, out),
    });
    let mut rig = Rig::new(&network, &[1], 0);
    let deleted = rig.client.delete_if("k", Condition::Absent, rig.now, TIMEOUT);
    assert_eq!(rig.outcome(deleted), Ok(false));
    let slots = rig.client.slots(rig.now, TIMEOUT);
    assert_eq!(rig.outcome(slots).as_ref(), Ok(&*lock(&table)));
    let page = rig.client.scan(crate::client::ScanOptions::all(), rig.now, TIMEOUT);
    assert_eq!(rig.outcome(page).unwrap_err().kind(), ErrorKind::Unauthorized);
    let status = rig.client.status(NodeId(1), rig.now, TIMEOUT);
    assert_eq!(rig.outcome(status).unwrap_err().kind(), ErrorKind::Unauthorized);
}

/// It would close the connection, and with it whatever else is in flight there.
#[test]
fn a_node_that_does_not_know_a_request_is_not_asked() {
    let (network, table) = (Memory::default(), table_of(1));
    let node = network.node(1, &table, serve);
    let mut rig = Rig::new(&network, &[1], 0);
    let ping = rig.client.ping(NodeId(1), rig.now, TIMEOUT);
    rig.outcome(ping).unwrap();
    let before = node.requests();
    let snapshot = rig.client.snapshot(NodeId(1), rig.now, TIMEOUT);
    let error = rig.outcome(snapshot).unwrap_err();
    assert_eq!((error.kind(), error.maybe_applied()), (ErrorKind::BadRequest, false));
    assert_eq!(node.requests(), before);
    let put = put(&mut rig, "k", b"v");
    assert_eq!(rig.outcome(put), Ok(Index(1)));
}

#[test]
fn names_are_not_resolved_and_no_endpoint_is_an_error() {
    let network = Memory::default();
    let mut rig = Rig::with(&network, Client::builder().endpoints(["localhost:7001"]), 0);
    let put = put(&mut rig, "k", b"v");
    let error = rig.outcome(put).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.message().contains("localhost:7001: this client resolves no names"), "{error}");
    let error = ByHand::new(Client::builder(), network, 0, rig.now).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadRequest);
}

#[test]
fn readiness_of_sockets_that_are_not_there_does_no_harm() {
    let network = Memory::default();
    network.node(1, &table_of(1), serve);
    let mut rig = Rig::new(&network, &[1], 0);
    rig.client.turn(rig.now, &[ready(Token(0)), ready(Token(1)), ready(Token(usize::MAX))]);
    let put = put(&mut rig, "k", b"v");
    assert_eq!(rig.outcome(put), Ok(Index(1)));
}
