//! Refusals, moved leaders, lost connections, deadlines.

use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use raftkv_protocol::client::{Answer, Code, Request};
use raftkv_protocol::hello::HelloRefusal;
use raftkv_protocol::types::{ClusterId, EntryId, NodeId, Term};

use super::fake_node::FakeNode;
use super::scripted::{CLUSTER, Greeting, Next, SharedTable, answer, lock, refuse, serve, serve_at, table_of};
use super::{builder, connect, eventually};
use crate::client::{Batch, Client, Error, ErrorKind};

/// A node whose first `count` requests meet `fault`; afterwards it serves.
fn faulty(
    count: usize,
    table: &SharedTable,
    fault: impl Fn(&Request<'_>, &mut Vec<u8>) -> Next + Send + Sync + 'static,
) -> FakeNode {
    let seen = AtomicUsize::new(0);
    FakeNode::start(1, table, move |request, out| {
        if seen.fetch_add(1, Ordering::SeqCst) < count { fault(request, out) } else { serve(request, out) }
    })
}

/// What a put ends with that is refused until its deadline. On a stalled machine the deadline may fall on an attempt whose
/// reply is still on its way, which rightly leaves the outcome open: then another put is made.
fn refused_to_the_end(client: &Client, timeout: Duration) -> (Error, usize) {
    let mut puts = 0;
    loop {
        puts += 1;
        let error = client.pipeline().timeout(timeout).put("k", "v").unwrap().wait().unwrap_err();
        if error.kind() != ErrorKind::Timeout || puts == 10 {
            return (error, puts);
        }
        assert!(error.maybe_applied() && error.message().contains("no reply"), "{error}");
    }
}

#[test]
fn a_redirect_is_followed_and_remembered() {
    let table = table_of(1);
    let one = FakeNode::start(1, &table, |request, out| {
        refuse(out, request.id, Code::NotLeader, Some(2));
        Next::Go
    });
    let two = FakeNode::start(2, &table, serve);
    let client = connect(&[&one]);
    for _ in 0..5 {
        client.put("k", "v").unwrap();
    }
    assert_eq!((one.requests(), two.requests()), (1, 5));
}

#[test]
fn nodes_that_redirect_to_each_other_do_not_make_a_storm() {
    let table = table_of(1);
    let toss = |to| {
        move |request: &Request<'_>, out: &mut Vec<u8>| {
            refuse(out, request.id, Code::NotLeader, Some(to));
            Next::Go
        }
    };
    let (one, two) = (FakeNode::start(1, &table, toss(2)), FakeNode::start(2, &table, toss(1)));
    let client = connect(&[&one]);
    let (error, puts) = refused_to_the_end(&client, Duration::from_secs(1));
    assert_eq!((error.kind(), error.maybe_applied()), (ErrorKind::NotLeader, false));
    // At most one attempt every 10 ms once the pauses have grown, and some before.
    assert!(one.requests() + two.requests() < 130 * puts, "{} + {}, {puts} puts", one.requests(), two.requests());
}

#[test]
fn definite_refusals_are_retried() {
    for code in [Code::NoLeader, Code::NotReady, Code::Overloaded, Code::Diverged, Code::NotLeader] {
        let node = faulty(3, &table_of(1), move |request, out| {
            refuse(out, request.id, code, None);
            Next::Go
        });
        connect(&[&node]).put("k", "v").unwrap();
        assert_eq!(node.requests(), 4, "{code:?}");
    }
}

#[test]
fn a_refusal_that_lasts_is_reported_at_the_deadline() {
    let node = faulty(usize::MAX, &table_of(1), |request, out| {
        refuse(out, request.id, Code::NoLeader, None);
        Next::Go
    });
    let client = connect(&[&node]);
    let (error, _) = refused_to_the_end(&client, Duration::from_secs(1));
    assert_eq!(error.code(), Some(Code::NoLeader));
    assert!(error.is_retryable() && !error.maybe_applied());
    assert!(error.message().contains(&node.endpoint()) && error.message().contains("attempts"), "{error}");
}

#[test]
fn final_refusals_are_not_retried() {
    for code in [Code::BadRequest, Code::TooLarge, Code::NoSpace, Code::Unauthorized, Code::CrossShard] {
        let node = faulty(1, &table_of(1), move |request, out| {
            refuse(out, request.id, code, None);
            Next::Go
        });
        let error = connect(&[&node]).put("k", "v").unwrap_err();
        assert_eq!((error.code(), error.maybe_applied(), node.requests()), (Some(code), false, 1));
    }
}

#[test]
fn a_write_whose_connection_breaks_is_unknown_and_sent_once() {
    // museum 45
    let table = table_of(1);
    let one = faulty(usize::MAX, &table, |_, _| Next::HangUp);
    let two = FakeNode::start(2, &table, serve);
    let client = connect(&[&one, &two]);
    let error = client.put("k", "v").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionLost);
    assert!(error.maybe_applied() && !error.is_retryable());
    assert!(error.to_string().contains("may have been applied"), "{error}");
    assert_eq!((one.requests(), two.requests()), (1, 0));
}

#[test]
fn a_batch_whose_connection_breaks_is_unknown_and_sent_once() {
    // museum 45
    let table = table_of(1);
    let one = faulty(usize::MAX, &table, |_, _| Next::HangUp);
    let two = FakeNode::start(2, &table, serve);
    let error = connect(&[&one, &two]).batch(Batch::new().put("k", "v").delete("l")).unwrap_err();
    assert_eq!((error.kind(), error.maybe_applied()), (ErrorKind::ConnectionLost, true));
    assert_eq!((one.requests(), two.requests()), (1, 0));
}

#[test]
fn a_write_that_the_server_gave_up_on_is_unknown_and_sent_once() {
    // museum 45
    let node = faulty(1, &table_of(1), |request, out| {
        refuse(out, request.id, Code::Timeout, None);
        Next::Go
    });
    let error = connect(&[&node]).put("k", "v").unwrap_err();
    assert_eq!((error.code(), error.maybe_applied(), node.requests()), (Some(Code::Timeout), true, 1));
}

#[test]
fn an_unanswered_write_is_unknown_at_the_deadline_and_sent_once() {
    // museum 45
    let node = faulty(1, &table_of(1), |_, _| Next::Go);
    // So long that the node is asked for no sign of life.
    let client = builder(&[&node]).silence_timeout(Duration::from_secs(60)).connect().unwrap();
    let error = client.pipeline().timeout(Duration::from_secs(1)).put("k", "v").unwrap().wait().unwrap_err();
    assert_eq!((error.kind(), error.maybe_applied(), node.requests()), (ErrorKind::Timeout, true, 1));
    client.put("k", "v").expect("the connection still stands");
    assert_eq!(node.open_connections(), 1);
}

#[test]
fn a_read_whose_connection_breaks_is_sent_to_another_node() {
    let table = table_of(1);
    let one = faulty(usize::MAX, &table, |_, _| Next::HangUp);
    let two = FakeNode::start(2, &table, serve);
    let client = connect(&[&one, &two]);
    assert_eq!(client.get("k").unwrap().unwrap().bytes, b"v");
    assert_eq!((one.requests(), two.requests()), (1, 1));
}

#[test]
fn garbage_breaks_one_connection_only() {
    let node = faulty(1, &table_of(1), |_, out| {
        out.extend_from_slice(&[0xff; 64]);
        Next::Go
    });
    let client = connect(&[&node]);
    let error = client.put("k", "v").unwrap_err();
    assert_eq!((error.kind(), error.maybe_applied()), (ErrorKind::Protocol, true));
    client.put("k", "v").expect("a new connection");
}

#[test]
fn an_answer_to_another_question_is_an_error() {
    let node = faulty(1, &table_of(1), |request, out| {
        answer(out, request.id, EntryId::ZERO, Answer::Deleted { existed: true });
        Next::Go
    });
    let error = connect(&[&node]).put("k", "v").unwrap_err();
    assert_eq!((error.kind(), error.maybe_applied()), (ErrorKind::Protocol, true));
}

#[test]
fn a_silent_node_is_given_up() {
    let table = table_of(1);
    // It does not even answer pings.
    let one = FakeNode::start(1, &table, |_, _| Next::Go);
    let two = FakeNode::start(2, &table, serve);
    let silence = Duration::from_secs(2);
    let client = builder(&[&one, &two]).silence_timeout(silence).timeout(10 * silence).connect().unwrap();
    let asked = Instant::now();
    assert_eq!(client.get("k").unwrap().unwrap().bytes, b"v");
    assert!(asked.elapsed() >= silence);
    assert_eq!(one.requests(), 2, "the read and a ping");
}

#[test]
fn a_later_term_in_a_reply_makes_the_client_ask_for_the_table() {
    let table = table_of(1);
    // Node 1 has lost its leadership and forwards.
    let one = FakeNode::start(1, &table, |request, out| serve_at(EntryId::new(9, 2), request, out));
    let two = FakeNode::start(2, &table, |request, out| serve_at(EntryId::new(9, 2), request, out));
    let client = connect(&[&one, &two]);
    lock(&table).leaders[0] = (Some(NodeId(2)), Term(2));
    eventually("requests go to the new leader", || {
        client.put("k", "v").unwrap();
        two.requests() > 0
    });
    let before = one.requests();
    client.put("k", "v").unwrap();
    assert_eq!(one.requests(), before);
    assert_eq!(one.slots_requests() + two.slots_requests(), 2, "the first table and the newer one");
}

#[test]
fn a_node_that_comes_back_is_dialled_again() {
    let table = table_of(1);
    let node = FakeNode::start(1, &table, serve);
    let client = connect(&[&node]);
    client.put("k", "v").unwrap();
    let address = node.address;
    drop(node);
    let node = FakeNode::start_at(address, 1, Greeting::Welcome, &table, serve);
    // The first write may have left on the old connection before its end was noticed.
    eventually("writes succeed again", || client.put("k", "v").is_ok());
    assert!(node.requests() > 0);
}

#[test]
fn connecting_to_nobody_fails_at_once() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let asked = Instant::now();
    let error = Client::builder()
        .endpoints([address.to_string(), address.to_string(), "127.0.0.1:1".into()])
        .timeout(Duration::from_secs(60))
        .connect()
        .unwrap_err();
    assert!(asked.elapsed() < Duration::from_secs(5));
    assert_eq!((error.kind(), error.maybe_applied()), (ErrorKind::Unreachable, false));
    for part in [&address.to_string(), "127.0.0.1:1", "connection refused", "is raftkv-server running?"] {
        assert!(error.message().contains(part), "{part} in {error}");
    }
    assert_eq!(Client::builder().connect().unwrap_err().kind(), ErrorKind::BadRequest);
    assert!(Client::connect("no.such.host.invalid:1").unwrap_err().message().contains("resolved"));
}

#[test]
fn the_second_endpoint_will_do() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let node = FakeNode::start(1, &table_of(1), serve);
    let client = Client::builder().endpoints([address.to_string(), node.endpoint()]).connect().unwrap();
    client.put("k", "v").unwrap();
}

#[test]
fn a_client_started_before_its_server_waits_for_it() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = Client::builder()
        .endpoints([address.to_string()])
        .backoff(Duration::from_millis(1), Duration::from_millis(10))
        .start()
        .unwrap();
    let put = client.pipeline().put("k", "v").unwrap();
    let node = FakeNode::start_at(address, 1, Greeting::Welcome, &table_of(1), serve);
    put.wait().unwrap();
    assert_eq!(node.requests(), 1);
}

#[test]
fn without_a_server_a_call_ends_at_its_deadline_and_nothing_was_sent() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = Client::builder().endpoints([address.to_string()]).timeout(Duration::from_secs(1)).start().unwrap();
    let error = client.put("k", "v").unwrap_err();
    assert_eq!((error.kind(), error.maybe_applied()), (ErrorKind::Unreachable, false));
    assert!(error.is_retryable());
}

#[test]
fn refused_hellos_become_errors_of_their_kind() {
    for (refusal, kind) in [
        (HelloRefusal::Cluster, ErrorKind::WrongCluster),
        (HelloRefusal::Version, ErrorKind::Version),
        (HelloRefusal::Unauthorized, ErrorKind::Unauthorized),
        (HelloRefusal::Connections, ErrorKind::Overloaded),
        (HelloRefusal::Malformed, ErrorKind::Protocol),
    ] {
        let node = FakeNode::greeting_with(Greeting::Refuse(refusal));
        let error = builder(&[&node]).connect().unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.message().contains(&node.endpoint()), "{error}");
    }
}

#[test]
fn another_protocol_and_no_answer_become_errors_of_their_kind() {
    let web = FakeNode::greeting_with(Greeting::Garbage);
    let error = builder(&[&web]).connect().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(error.message().contains("client port"), "{error}");

    let silent = FakeNode::greeting_with(Greeting::Silence);
    let error = builder(&[&silent]).connect_timeout(Duration::from_millis(50)).connect().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.message().contains("no answer within 50ms"), "{error}");
}

#[test]
fn a_node_of_another_cluster_is_not_used() {
    let (ours, theirs) = (table_of(1), table_of(1));
    lock(&theirs).cluster = ClusterId(8);
    let stranger = FakeNode::start(1, &theirs, serve);
    let error = builder(&[&stranger]).cluster(CLUSTER).connect().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongCluster);

    let node = FakeNode::start(1, &ours, serve);
    let client = builder(&[&node, &stranger]).connect().unwrap();
    let error = client.status(stranger.endpoint()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongCluster, "{error}");
    assert_eq!(stranger.requests(), 0);
}

#[test]
fn a_client_dropped_with_requests_in_flight_ends_them() {
    let (seen, arrived) = mpsc::channel();
    let node = FakeNode::start(1, &table_of(1), move |_, _| {
        seen.send(()).unwrap();
        Next::Go
    });
    let client = connect(&[&node]);
    let pipeline = client.pipeline();
    let (put, get) = (pipeline.put("k", "v").unwrap(), pipeline.get("k").unwrap());
    for _ in 0..2 {
        arrived.recv_timeout(Duration::from_secs(5)).unwrap();
    }
    assert!(!put.is_ready());
    drop((client, pipeline));
    let (put, get) = (put.wait().unwrap_err(), get.wait().unwrap_err());
    assert_eq!((put.kind(), put.maybe_applied()), (ErrorKind::Closed, true));
    assert_eq!((get.kind(), get.maybe_applied()), (ErrorKind::Closed, false));
}
