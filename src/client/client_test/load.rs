//! Many requests at once: order, limits, threads.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use raftkv_protocol::client::{Answer, Operation};
use raftkv_protocol::types::{EntryId, Index, RequestId};

use super::fake_node::FakeNode;
use super::scripted::{Next, answer, lock, table_of};
use super::{builder, connect, eventually};
use crate::client::{ErrorKind, Pending, WhenFull};

/// A node that keeps replies back until `batch` puts are there, and then answers the last first. The version of a put
/// is the number in its key.
fn reversing_node(batch: usize, held_max: &Arc<Mutex<usize>>) -> FakeNode {
    let held: Mutex<Vec<(RequestId, u64)>> = Mutex::default();
    let held_max = Arc::clone(held_max);
    FakeNode::start(1, &table_of(1), move |request, out| {
        let Operation::Put { key, .. } = request.operation else { unreachable!("only puts are sent") };
        let number = std::str::from_utf8(key).unwrap().parse().unwrap();
        let mut held = lock(&held);
        held.push((request.id, number));
        let mut held_max = lock(&held_max);
        *held_max = held.len().max(*held_max);
        if held.len() == batch {
            while let Some((id, number)) = held.pop() {
                answer(out, id, EntryId::new(number, 1), Answer::Put);
            }
        }
        Next::Go
    })
}

#[test]
fn replies_find_their_requests_in_any_order() {
    let node = reversing_node(100, &Arc::default());
    let client = connect(&[&node]);
    let pipeline = client.pipeline();
    let pending: Vec<_> = (1..=100).map(|n| (n, pipeline.put(n.to_string(), "v").unwrap())).collect();
    for (number, put) in pending {
        assert_eq!(put.wait().unwrap(), Index(number));
    }
}

#[test]
fn no_more_are_in_flight_than_allowed() {
    let held_max = Arc::default();
    let node = reversing_node(4, &held_max);
    let client = builder(&[&node]).inflight_max(4).queue_max(2).connect().unwrap();
    let pipeline = client.pipeline();
    let pending: Vec<_> = (1..=40).map(|n| pipeline.put(n.to_string(), "v").unwrap()).collect();
    for put in pending {
        put.wait().unwrap();
    }
    assert_eq!(*lock(&held_max), 4);
}

#[test]
fn a_full_queue_refuses_or_blocks_until_the_deadline() {
    let node = reversing_node(usize::MAX, &Arc::default());
    let client = builder(&[&node]).inflight_max(1).queue_max(1).connect().unwrap();
    let eager = client.pipeline().when_full(WhenFull::Fail);
    let mut pending = Vec::new();
    let error = loop {
        match eager.put("1", "v") {
            Ok(put) => pending.push(put),
            Err(error) => break error,
        }
        assert!(pending.len() <= 3, "one in flight, one waiting, one handed over");
    };
    assert_eq!((error.kind(), error.maybe_applied()), (ErrorKind::QueueFull, false));

    eventually("the I/O thread has taken what it can", || match eager.put("1", "v") {
        Ok(put) => {
            pending.push(put);
            false
        }
        Err(_) => pending.len() == 3,
    });
    let patient = client.pipeline().timeout(Duration::from_millis(50));
    let error = patient.put("1", "v").unwrap_err();
    assert_eq!((error.kind(), error.maybe_applied()), (ErrorKind::Timeout, false));
}

#[test]
fn requests_in_the_queue_expire_unsent() {
    let node = reversing_node(usize::MAX, &Arc::default());
    // So long that the node is asked for no sign of life.
    let silence = Duration::from_secs(60);
    let client = builder(&[&node]).inflight_max(1).silence_timeout(silence).connect().unwrap();
    let pipeline = client.pipeline().timeout(Duration::from_secs(1));
    let (sent, queued) = (pipeline.put("1", "v").unwrap(), pipeline.put("2", "v").unwrap());
    assert!(sent.wait().unwrap_err().maybe_applied());
    let error = queued.wait().unwrap_err();
    // The first may expire a moment earlier and leave its place to the second.
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.maybe_applied(), node.requests() == 2);
}

#[test]
fn what_never_left_whole_is_sent_elsewhere_and_the_rest_is_unknown() {
    // museum 45
    const PUTS: usize = 40;
    let table = table_of(1);
    let (release, blocked) = mpsc::channel::<()>();
    let (reached, arrived) = mpsc::channel();
    let blocked = Mutex::new(blocked);
    // It stops reading at the first request, so that the others fill the sockets' buffers and then the client's.
    let one = FakeNode::start(1, &table, move |_, _| {
        reached.send(()).unwrap();
        let _ = lock(&blocked).recv();
        Next::HangUp
    });
    let two = FakeNode::start(2, &table, |request, out| {
        answer(out, request.id, EntryId::new(1, 1), Answer::Put);
        Next::Go
    });
    let client = connect(&[&one, &two]);
    let pipeline = client.pipeline();
    let value = vec![7; 500_000];
    let puts: Vec<_> = (0..PUTS).map(|n| pipeline.put(n.to_string(), &value).unwrap()).collect();
    arrived.recv_timeout(Duration::from_secs(5)).unwrap();
    drop(release);
    let outcomes: Vec<_> = puts.into_iter().map(Pending::wait).collect();
    let done = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let unknown = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    for error in unknown.clone() {
        assert_eq!((error.kind(), error.maybe_applied()), (ErrorKind::ConnectionLost, true), "{error}");
    }
    assert_eq!(two.requests(), done, "each was sent to one node only");
    // Where the client took in the last ones after the first had failed, it has dialled that node again.
    assert!(one.requests() <= unknown.count(), "{} requests, {done} of {PUTS} done", one.requests());
    assert!(one.requests() > 0 && done > 0, "{done} of {PUTS} done");
}

#[test]
fn threads_share_a_client() {
    let node = FakeNode::start(1, &table_of(4), |request, out| {
        let Operation::Put { key, .. } = request.operation else { unreachable!("only puts are sent") };
        let number = std::str::from_utf8(key).unwrap().parse().unwrap();
        answer(out, request.id, EntryId::new(number, 1), Answer::Put);
        Next::Go
    });
    let client = connect(&[&node]);
    thread::scope(|scope| {
        for thread in 0..8_u64 {
            let client = client.clone();
            scope.spawn(move || {
                for n in 1..=200 {
                    let number = thread * 1_000 + n;
                    assert_eq!(client.put(number.to_string(), "v").unwrap(), Index(number));
                }
            });
        }
    });
    assert_eq!((node.requests(), node.open_connections()), (1_600, 1));
}

#[test]
fn try_wait_gives_the_request_back_until_it_is_done() {
    let node = reversing_node(2, &Arc::default());
    let client = connect(&[&node]);
    let pipeline = client.pipeline();
    let first = pipeline.put("1", "v").unwrap();
    let first = first.try_wait().expect_err("the node answers in pairs");
    let second = pipeline.put("2", "v").unwrap();
    eventually("both are answered", || first.is_ready() && second.is_ready());
    assert_eq!(first.try_wait().expect("ready").unwrap(), Index(1));
}
