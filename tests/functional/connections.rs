//! Connections that ask for much, take little, stay silent, or are too many.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use raftkv_protocol::client::{Code, Request};
use raftkv_protocol::types::RequestId;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::support::cluster::Cluster;
use crate::support::http::{Http, http_address, request};
use crate::support::process::{Process, server};
use crate::support::wait::{PATIENCE, eventually, pause};
use crate::support::wire::{Said, Wire, client_hello, encoded, get, put};

#[test]
fn more_requests_than_may_be_in_flight_are_all_answered() {
    let cluster = Cluster::start(3);
    for id in cluster.ids() {
        let mut wire = cluster.wire(id);
        let keys: Vec<String> = (0..3_000).map(|n| format!("key{}", n % 500)).collect();
        for batch in [&keys[..1_024], &keys] {
            let requests = encoded(|out| {
                for (n, key) in (0..).zip(batch) {
                    Request { id: RequestId(n), operation: put(key.as_bytes(), b"value") }.encode(out);
                }
            });
            wire.send(&requests).expect("sent");
            let answered: BTreeSet<u64> = batch
                .iter()
                .map(|_| {
                    let replied = wire.reply().expect("readable").expect("a reply");
                    assert_eq!(replied.said, Said::Put);
                    replied.id
                })
                .collect();
            assert_eq!(answered.len(), batch.len(), "each request has one reply");
        }
        assert!(wire.get("key499").is_some(), "the connection stays usable");
    }
}

/// Raw bytes until the socket takes nothing more for a while; returns whole requests and the rest of a cut one.
fn send_until_blocked(stream: &mut TcpStream, request: &[u8], requests_max: usize) -> (usize, usize) {
    stream.set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout can be set");
    let mut sent = 0;
    while sent < request.len() * requests_max {
        match stream.write(&request[sent % request.len()..]) {
            Ok(written) => sent += written,
            Err(_) => break,
        }
    }
    (sent / request.len(), sent % request.len())
}

// rule 29
#[test]
fn a_client_that_does_not_read_costs_bounded_memory_and_hurts_nobody() {
    const VALUE_BYTES: usize = 256 << 10;
    let mut cluster = Cluster::start(1);
    let mut other = cluster.wire(1);
    let value: Vec<u8> = (0..VALUE_BYTES).map(|at| (at % 253) as u8).collect();
    other.put("large", &value);
    let before = cluster.process(1).rss_bytes();

    // Every get asks for 256 KiB; a long key makes the requests fill the socket's buffers sooner.
    let mut slow = TcpStream::connect(cluster.address(1)).expect("connects");
    slow.write_all(&encoded(|out| client_hello().encode(out))).expect("sent");
    let request = encoded(|out| Request { id: RequestId(1), operation: get(b"large") }.encode(out));
    let (whole, cut) = send_until_blocked(&mut slow, &request, 200_000);
    assert!(whole >= 1_024, "only {whole} requests were taken");
    eventually(PATIENCE, "the server stops reading", || (other.counter("reads_paused") > 0).then_some(()));
    let asked = (whole * VALUE_BYTES) as u64;
    let grown = cluster.process(1).rss_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more for {asked} bytes of replies that nobody reads");

    let started = Instant::now();
    for n in 0..50 {
        let key = format!("key{n}");
        let version = other.put(&key, "value");
        assert_eq!(other.get(&key), Some((version, b"value".to_vec())));
    }
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "100 requests beside a slow reader took {:?}",
        started.elapsed()
    );

    // It begins to read after all, and gets what it has asked for.
    slow.write_all(&request[cut..]).ok();
    slow.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let mut bytes = vec![0; 1 << 20];
    let mut read = 0;
    while read < 50 * VALUE_BYTES {
        read += match slow.read(&mut bytes).expect("readable") {
            0 => panic!("closed after {read} bytes"),
            more => more,
        };
    }
}

/// The replies come from another node here, on the link that carries heartbeats too.
#[test]
fn a_client_that_does_not_read_through_another_node_unseats_no_leader() {
    const VALUE_BYTES: usize = 256 << 10;
    let mut cluster = Cluster::start(3);
    let key = "large";
    let leader = cluster.leader_of(key);
    let asked = cluster.ids().into_iter().find(|id| *id != leader).expect("there are three");
    let mut other = cluster.wire(asked);
    other.put(key, vec![7; VALUE_BYTES]);
    cluster.await_convergence();
    let terms = |cluster: &Cluster| -> Vec<u64> {
        cluster.wire(leader).status().shards.iter().map(|shard| shard.term.0).collect()
    };
    let terms_before = terms(&cluster);
    let rss_before: Vec<u64> = cluster.ids().into_iter().map(|id| cluster.process(id).rss_bytes()).collect();

    let mut slow = TcpStream::connect(cluster.address(asked)).expect("connects");
    slow.write_all(&encoded(|out| client_hello().encode(out))).expect("sent");
    let request = encoded(|out| Request { id: RequestId(1), operation: get(key.as_bytes()) }.encode(out));
    let (whole, _) = send_until_blocked(&mut slow, &request, 200_000);
    assert!(whole >= 1_024, "only {whole} requests were taken");
    let started = Instant::now();
    for n in 0..50 {
        let key = format!("key{n}");
        let version = other.put(&key, "value");
        assert_eq!(other.get(&key), Some((version, b"value".to_vec())));
    }
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "100 requests beside a slow reader took {:?}",
        started.elapsed()
    );
    assert_eq!(terms(&cluster), terms_before, "nobody was unseated");
    for (id, before) in cluster.ids().into_iter().zip(rss_before) {
        let grown = cluster.process(id).rss_bytes().saturating_sub(before);
        assert!(grown < 128 << 20, "node {id} (asked was {asked}, the leader is {leader}) took {grown} bytes more");
    }
}

/// museum 25
#[test]
fn a_node_whose_complaints_nobody_reads_goes_on() {
    let mut cluster = Cluster::of(1).idle();
    let mut command = server();
    let process = &mut Process::spawn_unheard("unheard", command.args(cluster.args(1)), cluster.files());
    process.await_listening();
    // A pipe holds 64 KiB, about 450 of these complaints.
    for _ in 0..1_000 {
        let mut wire = Wire::dial(cluster.address(1)).expect("connects");
        wire.send(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
        wire.greeting().expect("a refusal").expect_err("not welcome");
    }
    let mut wire = cluster.wire(1);
    assert_eq!(wire.counter("hellos_refused"), 1_000);
    let version = wire.put("k", "v");
    assert_eq!(wire.get("k"), Some((version, b"v".to_vec())));
    process.signal("TERM");
    assert_eq!(process.await_end(PATIENCE).code, Some(0));
    cluster.restart_all();
    assert_eq!(cluster.wire(1).get("k"), Some((version, b"v".to_vec())));
}

/// Peers, the log and those who are connected already come first when a node may open few files only.
// museum 52
#[test]
fn a_node_that_may_open_few_files_keeps_serving() {
    let mut cluster = Cluster::of(3).idle();
    for id in cluster.ids() {
        let plain = server();
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -n 100; exec \"$@\"", "sh"]).arg(plain.get_program());
        cluster.spawn_with(id, limited);
    }
    cluster.restart_all();
    let mut witness = cluster.wire(1);
    let idle: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(cluster.address(1)).expect("connects")).collect();
    let mut greeted: Vec<Wire> = (0..60)
        .filter_map(|_| {
            let mut wire = Wire::dial(cluster.address(1)).ok()?;
            wire.set_read_timeout(Duration::from_millis(50));
            wire.greet(&client_hello()).ok()?.ok()?;
            Some(wire)
        })
        .collect();
    for n in 0..50 {
        let key = format!("key{n}");
        let version = witness.put(&key, "value");
        assert_eq!(witness.get(&key), Some((version, b"value".to_vec())));
    }
    // It can still be reached by a node that comes back, and the log can still begin segments.
    cluster.kill_9(2);
    cluster.restart_all();
    cluster.await_convergence();
    for n in 0..3 {
        witness.put(format!("large{n}"), vec![0; 1 << 20]);
    }
    greeted.clear();
    drop(idle);
    eventually(PATIENCE, "there is room again", || Wire::connect(cluster.address(1)).ok());
    assert!(cluster.ids().into_iter().all(|id| !cluster.process(id).has_ended()));
}

#[test]
fn replies_after_the_last_request_are_sent_before_the_connection_ends() {
    let cluster = Cluster::start(3);
    let mut wire = cluster.wire(1);
    for n in 0..100 {
        wire.submit(put(format!("key{n}").as_bytes(), b"value")).expect("sent");
    }
    wire.finish_sending();
    let mut answered = 0;
    while let Some(replied) = wire.reply().expect("readable") {
        assert_eq!(replied.said, Said::Put);
        answered += 1;
    }
    assert_eq!(answered, 100);
}

#[test]
fn one_client_too_many_is_told_so_and_finds_room_when_another_leaves() {
    let cluster = Cluster::of(3).flag("--connections-max=3").start();
    eventually(PATIENCE, "the connections of the start are gone", || {
        (cluster.wire(1).counter("connections_open") == 1).then_some(())
    });
    let mut clients: Vec<Wire> = Vec::new();
    let mut refused = None;
    for _ in 0..4 {
        let mut wire = Wire::dial(cluster.address(1)).expect("connects");
        match wire.greet(&client_hello()).expect("an answer") {
            Ok(_) => clients.push(wire),
            Err(refusal) => refused = Some(refusal),
        }
    }
    assert_eq!(clients.len(), 3);
    let (reason, words) = refused.expect("one too many");
    assert_eq!(reason, "connections");
    assert!(words.contains("--connections-max"), "{words}");
    for wire in &mut clients {
        wire.put("k", "v");
    }
    assert!(clients[0].counter("connections_refused") >= 1);
    assert_eq!(clients[0].counter("connections_open"), 3);
    clients.pop();
    eventually(PATIENCE, "there is room again", || Wire::connect(cluster.address(1)).ok());
    // Peers have a share of their own: they were never turned away.
    clients[0].put("still", "replicated");
}

// museum 52
#[test]
fn who_says_no_hello_in_time_is_dropped() {
    const TIMEOUT: Duration = Duration::from_secs(1);
    let cluster = Cluster::of(1).flag("--hello-timeout=1s").start();
    let mut witness = cluster.wire(1);
    let mut silent = Wire::dial(cluster.address(1)).expect("connects");
    let mut slow = Wire::dial(cluster.address(1)).expect("connects");
    let hello = encoded(|out| client_hello().encode(out));
    let started = Instant::now();
    let sent = hello[..hello.len() - 1].iter().filter(|byte| {
        pause(TIMEOUT / 20);
        slow.send(&[**byte]).is_ok()
    });
    let sent = sent.count();
    assert_eq!(silent.frame().expect("readable"), None, "closed without a word");
    assert_eq!(slow.frame().expect("readable"), None, "closed after {sent} bytes");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(witness.counter("hellos_timed_out"), 2);
    pause(TIMEOUT);
    let version = witness.put("k", "v");
    assert_eq!(witness.get("k"), Some((version, b"v".to_vec())), "who said hello may be silent for long");
}

// rule 29
#[test]
fn too_much_that_no_majority_has_confirmed_is_refused_as_overloaded() {
    let mut cluster = Cluster::of(3).flag("--uncommitted-bytes-max=2MiB").flag("--request-timeout=2s").start();
    let key = "key";
    let leader = cluster.leader_of(key);
    let others: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    let mut wire = cluster.wire(leader);
    for id in &others {
        cluster.process(*id).pause();
    }
    let value = vec![0; 256 << 10];
    for _ in 0..32 {
        wire.submit(put(key.as_bytes(), &value)).expect("sent");
    }
    let mut codes = Vec::new();
    for _ in 0..32 {
        let said = wire.reply().expect("readable").expect("a reply").said;
        codes.push(said.code().expect("without a majority nothing is written"));
    }
    let overloaded = codes.iter().filter(|code| **code == Code::Overloaded).count();
    assert!(overloaded >= 16, "8 MiB were proposed, 2 MiB may be: {codes:?}");
    assert!(codes.iter().all(|code| matches!(code, Code::Overloaded | Code::Timeout | Code::NoLeader)), "{codes:?}");
    for id in &others {
        cluster.process(*id).resume();
    }
    cluster.await_leaders();
    let version = cluster.wire(leader).put(key, "small");
    assert_eq!(cluster.wire(others[0]).get(key), Some((version, b"small".to_vec())));
}

/// How many files a process has open.
fn open_files(pid: u32) -> u64 {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("the process is there").count() as u64
}

/// Allows a process so many open files.
fn limit_open_files(pid: u32, files: u64) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process id"));
    let limits = Rlimit { current: Some(files), maximum: getrlimit(Resource::Nofile).maximum };
    prlimit(pid, Resource::Nofile, limits).expect("the limit can be set");
}

#[test]
fn http_clients_that_come_while_no_file_may_be_opened_are_served_when_one_may() {
    let mut cluster = Cluster::start(1);
    let mut wire = cluster.wire(1);
    wire.put("k", "v");
    let address = http_address(cluster.address(1));
    let mut known = Http::connect(address);
    assert_eq!(known.ask("GET", "/livez", &[], b"").status, 200);
    let pid = cluster.process(1).pid();
    let come = || {
        let mut http = Http::connect(address);
        http.send(&request("GET", "/v1/kv/k", &[], b""));
        http
    };
    let mut waiting = Vec::new();
    // Whatever the node closes meanwhile makes room for one.
    eventually(PATIENCE, "there is no room for another client", || {
        limit_open_files(pid, open_files(pid));
        waiting.push(come());
        cluster.process(1).stderr().contains("cannot accept connections").then_some(())
    });
    waiting.extend([come(), come()]);
    for _ in 0..20 {
        assert_eq!(known.ask("GET", "/v1/kv/k", &[], b"").body, b"v", "who is in already is served");
    }
    assert!(wire.get("k").is_some());
    limit_open_files(pid, 10_000);
    for mut http in waiting {
        assert_eq!(http.response(false).expect("a response").body, b"v");
    }
    assert_eq!(Http::connect(address).ask("GET", "/livez", &[], b"").status, 200, "and whoever comes later");
}
