//! The tool as its users run it, against a node that keeps a map.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use raftkv_protocol::client::{
    Answer, Batch, Change, Code, Condition, Existed, HoldReason, Item, LogHold, Operation, Page, Refusal, Reply,
    Request, ShardSnapshot, ShardStatus, SlotTable, SnapshotOutcome, Status,
};
use raftkv_protocol::frame::{self, CLIENT_FRAME_MAX};
use raftkv_protocol::health::{DiskHealth, Divergence, Verdict};
use raftkv_protocol::hello::{Auth, Hello, HelloRefusal, HelloReply};
use raftkv_protocol::types::{ClusterId, CoreId, EntryId, Incarnation, Index, NodeId, RequestId, ShardId, Term};

const DIVERGENCE: Divergence =
    Divergence { verdict: Verdict::Diverged, agreed: Index(1024), differs: Index(2048), own: 10, other: 11 };

/// A node of one shard. Pages hold two items. The connection ends at a frame of a kind that no client sends.
struct Node {
    target: String,
}

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

impl Node {
    fn start() -> Node {
        Node::serving(serve)
    }

    fn serving(serve: impl Fn(TcpStream, &Mutex<Map>) + Send + Sync + 'static) -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap().to_string();
        let shared = Arc::new((serve, Mutex::default()));
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                thread::spawn(move || (shared.0)(stream, &shared.1));
            }
        });
        Node { target }
    }

    fn nc(&self, arguments: &[&str]) -> Output {
        nc(&self.target, arguments)
    }

    fn nc_lines(&self, options: &[&str], lines: &[u8]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_raftkv-nc"))
            .args(options)
            .arg(&self.target)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(lines).unwrap();
        child.wait_with_output().unwrap()
    }
}

fn nc(target: &str, arguments: &[&str]) -> Output {
    let (options, words): (Vec<&str>, Vec<&str>) =
        match arguments.iter().position(|argument| !argument.starts_with("--")) {
            Some(first) => (arguments[..first].to_vec(), arguments[first..].to_vec()),
            None => (arguments.to_vec(), Vec::new()),
        };
    Command::new(env!("CARGO_BIN_EXE_raftkv-nc"))
        .args(options)
        .arg(target)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn serve(mut stream: TcpStream, map: &Mutex<Map>) {
    let mut input = Vec::new();
    let mut chunk = [0; 4096];
    let mut greeted = false;
    loop {
        while let Ok(Some(frame)) = frame::parse(&input, CLIENT_FRAME_MAX) {
            let mut out = Vec::new();
            if !greeted {
                Hello::decode(frame.kind, frame.payload).unwrap();
                welcome().encode(&mut out);
                greeted = true;
            } else {
                let Ok(request) = Request::decode(frame.kind, frame.payload) else { return };
                answer(&request, &mut map.lock().unwrap(), &mut out);
            }
            let consumed = frame.consumed;
            input.drain(..consumed);
            stream.write_all(&out).unwrap();
        }
        match stream.read(&mut chunk) {
            Ok(read) if read > 0 => input.extend_from_slice(&chunk[..read]),
            _ => return,
        }
    }
}

/// Closes in order: with bytes unread the end would be a reset, which may overtake what was said.
fn say_and_close(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
}

fn welcome() -> HelloReply<'static> {
    HelloReply::Welcome {
        version: 1,
        cluster: ClusterId(0xc1),
        node: NodeId(1),
        incarnation: Incarnation(5),
        shards: 1,
        cores: 1,
        features: 0,
        http: "",
        auth: Auth::default(),
    }
}

fn apply(batch: &Batch<'_>, map: &mut Map) -> Existed {
    let mut existed = Existed::default();
    for (number, operation) in batch.operations().enumerate() {
        match operation.change {
            Change::Put(value) => _ = map.insert(operation.key.to_vec(), value.to_vec()),
            Change::Delete if map.remove(operation.key).is_some() => existed.insert(number),
            Change::Delete => {}
        }
    }
    existed
}

fn answer(request: &Request<'_>, map: &mut Map, out: &mut Vec<u8>) {
    let refuse = |code, message| Err(Refusal { code, leader: None, message });
    let result = match request.operation {
        Operation::Put { key, condition: Condition::Absent, .. } if map.contains_key(key) => {
            refuse(Code::PreconditionFailed, "the key exists")
        }
        Operation::Put { key, value, .. } => {
            map.insert(key.to_vec(), value.to_vec());
            Ok(Answer::Put)
        }
        Operation::Delete { key, .. } => Ok(Answer::Deleted { existed: map.remove(key).is_some() }),
        Operation::Batch(batch) => match batch.operations().position(|operation| map.contains_key(operation.key)) {
            Some(_) if batch.operations().all(|operation| operation.condition == Condition::Absent) => {
                refuse(Code::PreconditionFailed, "the condition of operation 1 of 1 does not hold")
            }
            _ => Ok(Answer::Batch { existed: apply(&batch, map) }),
        },
        Operation::Get { key, .. } => match map.get(key) {
            Some(value) => Ok(Answer::Value { version: Index(7), value }),
            None => refuse(Code::NotFound, ""),
        },
        Operation::Scan(scan) => {
            let size = if scan.limit == 0 { 2 } else { scan.limit.min(2) };
            let mut after = map.iter().filter(|(key, _)| key.starts_with(scan.prefix) && &key[..] > scan.cursor);
            let items = after.by_ref().take(size as usize).map(|(key, value)| Item { key, version: Index(7), value });
            let items = items.collect();
            Ok(Answer::Page(Page { items, more: after.next().is_some() }))
        }
        Operation::Slots => Ok(Answer::Slots(SlotTable {
            cluster: ClusterId(0xc1),
            nodes: vec![(NodeId(1), "10.0.0.1:7001".into())],
            leaders: vec![(Some(NodeId(1)), Term(3)), (None, Term(2))],
        })),
        Operation::Status => Ok(Answer::Status(Box::new(Status {
            node: NodeId(1),
            version: "0.1.0".into(),
            shards: vec![
                ShardStatus { last: EntryId::new(7, 3), keys: 2, ..ShardStatus::default() },
                ShardStatus { id: ShardId(1), divergence: Some(DIVERGENCE), ..ShardStatus::default() },
                ShardStatus { id: ShardId(2), is_repairing: true, ..ShardStatus::default() },
            ],
            counters: vec![("connections".into(), 4)],
            disk: DiskHealth::Slow,
            sync_ms: 1234,
            holds: vec![hold(0, HoldReason::NoQuorum, ""), hold(1, HoldReason::Failed, "no space\x1b")],
            ..Status::default()
        }))),
        Operation::Snapshot { wait_ms: 9_000 } => Ok(Answer::Snapshots(vec![
            snapshot(
                0,
                SnapshotOutcome::Taken { at: EntryId::new(7, 3), bytes: 4096, took: Duration::from_millis(12) },
            ),
            snapshot(1, SnapshotOutcome::Unchanged { at: EntryId::new(5, 2), bytes: 300 }),
            snapshot(2, SnapshotOutcome::Unchanged { at: EntryId::ZERO, bytes: 0 }),
        ])),
        Operation::Snapshot { .. } => {
            let outcome = SnapshotOutcome::Failed("the disk\x1b[2J is full".into());
            Ok(Answer::Snapshots(vec![snapshot(0, outcome)]))
        }
        _ => Ok(Answer::Pong),
    };
    Reply { id: request.id, at: EntryId::new(7, 3), result }.encode(out);
}

fn hold(shard: u16, reason: HoldReason, message: &str) -> LogHold {
    let (log_bytes, log_bytes_max, bytes) = (700, 500, 64);
    let (core, shard, message) = (CoreId(1), ShardId(shard), message.to_owned());
    LogHold { core, log_bytes, log_bytes_max, shard, bytes, reason, message }
}

fn snapshot(shard: u16, outcome: SnapshotOutcome) -> ShardSnapshot {
    ShardSnapshot { shard: ShardId(shard), outcome }
}

/// The exit code and what was printed.
fn told(output: &Output) -> (i32, &str) {
    (output.status.code().unwrap(), std::str::from_utf8(&output.stdout).unwrap())
}

fn complaint(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn one_command_from_the_arguments() {
    let node = Node::start();
    assert_eq!(told(&node.nc(&["put", "greeting", "hello world"])), (0, "version 7\n"));
    assert_eq!(told(&node.nc(&["get", "greeting"])), (0, "hello world\n"));
    assert_eq!(told(&node.nc(&["get", "greeting", "--version"])), (0, "@7 hello world\n"));
    assert_eq!(told(&node.nc(&["del", "greeting"])), (0, "deleted\n"));
    assert!(told(&node.nc(&["ping"])).1.starts_with("pong after "));
}

#[test]
fn exit_codes_tell_missing_keys_failures_and_bad_usage_apart() {
    let node = Node::start();
    let missing = node.nc(&["get", "nothing"]);
    assert_eq!((told(&missing), complaint(&missing)), ((3, ""), "raftkv-nc: not found\n"));
    assert_eq!(told(&node.nc(&["del", "nothing"])), (3, ""));

    node.nc(&["put", "k", "v"]);
    let refused = node.nc(&["put", "k", "v", "--if-absent"]);
    let refusal = "raftkv-nc: precondition_failed: the key exists\n";
    assert_eq!((told(&refused), complaint(&refused)), ((1, ""), refusal));

    for arguments in [&["put", "k"][..], &["frobnicate"], &["get", "\\q"], &["--timeout=0", "ping"], &["--what"]] {
        assert_eq!(told(&node.nc(arguments)).0, 2, "{arguments:?}");
    }
}

#[test]
fn many_commands_from_the_input_end_with_the_worst() {
    let node = Node::start();
    let output = node.nc_lines(&[], b"put a \"1 2\"\n\n# a comment\nget a\nget b\nget a\n");
    assert_eq!(told(&output), (3, "version 7\n1 2\n1 2\n"));
    assert_eq!(told(&node.nc_lines(&[], b"get b\nput\nget a\nquit\nfrobnicate\n")), (2, "1 2\n"));
    assert_eq!(told(&node.nc_lines(&[], b"get a")), (0, "1 2\n"), "the last line needs no end");
}

#[test]
fn a_batch_prints_its_version_and_what_became_of_each_delete() {
    let node = Node::start();
    node.nc(&["put", "{t}b", "old"]);
    let batch = ["batch", "put", "{t}a", "1", "--if-absent", "del", "{t}b", "del", "{t}c"];
    assert_eq!(told(&node.nc(&batch)), (0, "version 7\ndeleted {t}b\nnot found {t}c\n"));
    assert_eq!(told(&node.nc(&["get", "{t}a"])), (0, "1\n"));
    let refused = node.nc(&["batch", "put", "{t}a", "2", "--if-absent"]);
    assert_eq!(told(&refused), (1, ""));
    assert!(complaint(&refused).contains("precondition_failed: the condition of operation 1"));
    assert_eq!(told(&node.nc(&["batch", "get", "k"])).0, 2);
}

#[test]
fn any_byte_can_be_typed_and_is_shown_so_that_it_can_be_typed_again() {
    let node = Node::start();
    assert_eq!(told(&node.nc(&["put", r"k\x00", r"v\xff\n"])), (0, "version 7\n"));
    assert_eq!(told(&node.nc_lines(&[], br#"get "k\x00""#)), (0, "v\\xff\\n\n"));
    assert_eq!(node.nc(&["--raw-output", "get", r"k\x00"]).stdout, b"v\xff\n");
    assert_eq!(told(&node.nc(&["scan"])), (0, "k\\x00 @7 v\\xff\\n\n"));
}

#[test]
fn a_scan_follows_its_pages_up_to_the_limit() {
    let node = Node::start();
    node.nc_lines(&[], b"put a1 v\nput a2 v\nput a3 v\nput a4 \"\"\nput a5 v\nput b v\n");
    assert_eq!(told(&node.nc(&["scan", "a"])).1.lines().count(), 5);
    assert_eq!(told(&node.nc(&["scan", "--limit", "3"])), (0, "a1 @7 v\na2 @7 v\na3 @7 v\n"));
    assert_eq!(told(&node.nc(&["scan", "a", "--cursor", "a3"])), (0, "a4 @7 \"\"\na5 @7 v\n"));
    assert_eq!(told(&node.nc(&["scan", "none"])), (0, ""));
}

#[test]
fn the_cluster_is_described() {
    let node = Node::start();
    let slots = node.nc(&["slots"]);
    let lines: Vec<&str> = told(&slots).1.lines().collect();
    assert_eq!(lines[1], "shard 0 slots 0-8191 leader node 1 at 10.0.0.1:7001 term 3");
    assert_eq!(lines[2], "shard 1 slots 8192-16383 no leader term 2");
    let status = node.nc(&["status"]);
    assert!(told(&status).1.contains("shard 0 follower term 0 leader none"), "{}", told(&status).1);
    assert!(told(&status).1.contains("last 7@3") && told(&status).1.contains("counter connections 4\n"));
    let zeros = "0".repeat(31);
    let (healthy, diverged) = (
        format!("keys 2 hash {zeros}0\n"),
        format!("hash {zeros}0 diverged after index 1024, at index 2048: hash {zeros}a here, {zeros}b elsewhere\n"),
    );
    let repairing = format!("hash {zeros}0 repairing\n");
    let holds = [
        "hold core 1 log 700 of 500 shard 0 bytes 64 no_quorum\n",
        "hold core 1 log 700 of 500 shard 1 bytes 64 failed: no space\\x1b\n",
    ];
    for line in ["disk slow sync-ms 1234\n", &healthy, &diverged, &repairing, holds[0], holds[1]] {
        assert!(told(&status).1.contains(line), "{line}: {}", told(&status).1);
    }
}

#[test]
fn snapshots_are_asked_for() {
    let node = Node::start();
    let expected = "shard 0 taken at 7@3, 4096 bytes, in 12.000 ms\n\
                    shard 1 nothing new since 5@2, 300 bytes\n\
                    shard 2 nothing was ever written\n";
    assert_eq!(told(&node.nc(&["snapshot"])), (0, expected));
    // A shorter patience is told to the node.
    let failed = node.nc(&["--timeout=5", "snapshot"]);
    assert_eq!(told(&failed), (1, "shard 0 failed: the disk\\x1b[2J is full\n"));
    assert_eq!(complaint(&failed), "raftkv-nc: 1 of 1 shards have no new snapshot\n");
}

#[test]
fn frames_are_shown_on_the_error_output() {
    let node = Node::start();
    let output = node.nc(&["--frames", "put", "k", "v"]);
    assert_eq!(told(&output), (0, "version 7\n"));
    let shown = complaint(&output);
    let headlines: Vec<_> = shown.lines().filter_map(|line| line.split_once(',').map(|(name, _)| name)).collect();
    let headlines: Vec<_> = headlines.into_iter().filter(|name| name.starts_with(['>', '<'])).collect();
    assert_eq!(headlines, ["> hello", "< welcome", "> put", "< put_reply"]);
    for field in ["role         client", "shards       1", "key          k", "at           7@3", "RAFTKV.|"] {
        assert!(shown.contains(field), "{field} in\n{shown}");
    }
}

#[test]
fn raw_bytes_are_sent_as_they_are() {
    let node = Node::start();
    let mut ping = Vec::new();
    Request { id: RequestId(9), operation: Operation::Ping }.encode(&mut ping);
    let hex: String = ping.iter().map(|byte| format!("{byte:02x} ")).collect();
    let output = node.nc(&["raw", &hex]);
    let (code, shown) = told(&output);
    assert_eq!(code, 0);
    assert!(shown.starts_with("< ping_reply") && shown.contains("id           9"), "{shown}");

    // A reply kind is nothing that a client may send; afterwards there is a new connection.
    let mut nonsense = Vec::new();
    frame::write(&mut nonsense, raftkv_protocol::kind::PUT_REPLY, |_| ());
    let hex: String = nonsense.iter().map(|byte| format!("{byte:02x}")).collect();
    let output = node.nc_lines(&[], format!("raw {hex}\nput k v\n").as_bytes());
    assert_eq!(told(&output), (0, "the node closed the connection\nversion 7\n"));
}

#[test]
fn without_a_hello_the_node_sees_the_raw_bytes_first() {
    let echo = Node::serving(|mut stream, _| {
        let mut bytes = [0; 3];
        stream.read_exact(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    let output = echo.nc(&["--no-hello", "raw", "41 42", "43"]);
    let (code, shown) = told(&output);
    assert_eq!(code, 0);
    assert!(shown.starts_with("< 3 bytes that are no frame\n") && shown.contains("|ABC|"), "{shown}");
}

#[test]
fn a_node_that_cannot_be_talked_to_is_named_with_the_reason() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let output = nc(&nobody, &["ping"]);
    assert_eq!(told(&output).0, 1);
    let expected = format!("raftkv-nc: cannot connect to {nobody}: connection refused; is raftkv-server running?\n");
    assert_eq!(complaint(&output), expected);

    let refusing = Node::serving(|mut stream, _| {
        let mut out = Vec::new();
        HelloReply::Refused { reason: HelloRefusal::Connections, message: "full" }.encode(&mut out);
        say_and_close(&mut stream, &out);
    });
    assert!(complaint(&refusing.nc(&["ping"])).contains("refused the hello (connections): full"));

    let web = Node::serving(|mut stream, _| say_and_close(&mut stream, b"HTTP/1.1 400 Bad Request\r\n"));
    assert!(complaint(&web.nc(&["ping"])).contains("is not RaftKV's protocol"));

    let giving_up = Node::serving(|mut stream, _| {
        let mut out = Vec::new();
        welcome().encode(&mut out);
        let refusal = Refusal { code: Code::TooLarge, leader: None, message: "closing\x1b[2J" };
        Reply { id: RequestId(0), at: EntryId::ZERO, result: Err(refusal) }.encode(&mut out);
        say_and_close(&mut stream, &out);
    });
    assert_eq!(complaint(&giving_up.nc(&["ping"])), "raftkv-nc: too_large: closing\\x1b[2J\n");

    let silent = Node::serving(|mut stream, _| while stream.read(&mut [0; 64]).is_ok_and(|read| read > 0) {});
    let output = silent.nc(&["--timeout=0.1", "ping"]);
    assert!(complaint(&output).contains("did not answer within 100ms"), "{}", complaint(&output));
    assert_eq!(told(&output).0, 1);

    let nonsense = nc("nonsense", &["ping"]);
    assert_eq!(told(&nonsense).0, 2);
    assert!(complaint(&nonsense).contains("HOST:PORT"));
}

#[test]
fn help_needs_no_node() {
    let help = nc("127.0.0.1:1", &["help"]);
    assert_eq!(told(&help).0, 0);
    assert!(told(&help).1.contains("scan [PREFIX]"));
    let usage = nc("127.0.0.1:1", &["--help"]);
    assert!(told(&usage).1.contains("Examples:") && told(&usage).1.contains("Exit code:"));
}
