//! Frames for people: every field by name, and every byte in hexadecimal.

use std::io::{self, Write};

use raftkv_protocol::client::{Answer, Change, Condition, Operation, Reply, Request};
use raftkv_protocol::frame::{self, Frame, HEADER_LEN, PEER_FRAME_MAX};
use raftkv_protocol::hello::{Auth, Hello, HelloReply, HelloRole};
use raftkv_protocol::kind;
use raftkv_protocol::peer::{Body, ChunkResult, Message, PeerFrame};

use crate::words::{escape, quote};

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Sent,
    Received,
}

impl Direction {
    fn arrow(self) -> char {
        match self {
            Direction::Sent => '>',
            Direction::Received => '<',
        }
    }
}

/// Fields in the order of the specification, with their values.
type Fields = Vec<(&'static str, String)>;

/// Prints the frames that `bytes` begin with, and whatever follows them as bytes.
///
/// # Errors
/// `out`'s.
pub fn print_all(out: &mut dyn Write, direction: Direction, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while let Ok(Some(frame)) = frame::parse(rest, PEER_FRAME_MAX) {
        let (bytes, after) = rest.split_at(frame.consumed);
        print(out, direction, &frame, bytes)?;
        rest = after;
    }
    if !rest.is_empty() {
        writeln!(out, "{} {} bytes that are no frame", direction.arrow(), rest.len())?;
        hex_dump(out, rest)?;
    }
    Ok(())
}

/// Prints one frame: a headline, its fields, its bytes.
fn print(out: &mut dyn Write, direction: Direction, frame: &Frame<'_>, bytes: &[u8]) -> io::Result<()> {
    let name = kind::name(frame.kind).unwrap_or("unknown");
    writeln!(out, "{} {name}, {} bytes", direction.arrow(), bytes.len())?;
    let field = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let mut fields: Fields = vec![
        ("length", field(0).to_string()),
        ("crc", format!("{:#010x}", field(4))),
        ("kind", format!("{:#04x}", frame.kind)),
    ];
    match decode(frame.kind, frame.payload) {
        Ok(decoded) => fields.extend(decoded),
        Err(error) => fields.push(("payload", format!("{} bytes: {error}", bytes.len() - HEADER_LEN))),
    }
    for (name, value) in fields {
        writeln!(out, "    {name:<12} {value}")?;
    }
    hex_dump(out, bytes)
}

/// Prints bytes as offset, hexadecimal and ASCII, 16 a line.
pub fn hex_dump(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    for (line, chunk) in bytes.chunks(16).enumerate() {
        let mut hex = String::with_capacity(49);
        for (at, byte) in chunk.iter().enumerate() {
            hex.push_str(if at == 8 { "  " } else { " " });
            hex.push_str(&format!("{byte:02x}"));
        }
        let shown = |byte: &u8| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' };
        let ascii: String = chunk.iter().map(shown).collect();
        writeln!(out, "    {:08x} {hex:<49}  |{ascii}|", line * 16)?;
    }
    Ok(())
}

fn decode(kind: u8, payload: &[u8]) -> Result<Fields, String> {
    let readable = |error: raftkv_protocol::frame::DecodeError| error.to_string();
    match kind {
        kind::HELLO => Hello::decode(kind, payload).map(|hello| hello_fields(&hello)).map_err(readable),
        kind::WELCOME | kind::HELLO_REFUSED => {
            HelloReply::decode(kind, payload).map(hello_reply_fields).map_err(readable)
        }
        kind::PUT..kind::REFUSAL => {
            Request::decode(kind, payload).map(|request| request_fields(&request)).map_err(readable)
        }
        kind::REFUSAL..kind::PRE_VOTE => {
            Reply::decode(kind, payload).map(|reply| reply_fields(&reply)).map_err(readable)
        }
        kind::SNAPSHOT_OFFER | kind::SNAPSHOT_READ | kind::SNAPSHOT_CHUNK => {
            PeerFrame::decode(kind, payload).map(|frame| snapshot_fields(&frame)).map_err(readable)
        }
        _ => Err("not a frame between a client and a server, nor of a snapshot".into()),
    }
}

fn hello_fields(hello: &Hello<'_>) -> Fields {
    let mut fields = vec![
        ("versions", format!("{} to {}", hello.version_min, hello.version_max)),
        ("cluster", hello.cluster.to_string()),
    ];
    match hello.role {
        HelloRole::Client { home } => {
            fields.push(("role", "client".into()));
            fields.push(("home", home.map_or("none".into(), |shard| format!("shard {shard}"))));
        }
        HelloRole::Peer { node, incarnation, core } => {
            fields.push(("role", format!("peer: node {node}, core {core}")));
            fields.push(("incarnation", format!("{:016x}", incarnation.0)));
        }
        HelloRole::Snapshots { node, incarnation, core } => {
            fields.push(("role", format!("snapshots: node {node}, core {core}")));
            fields.push(("incarnation", format!("{:016x}", incarnation.0)));
        }
    }
    fields.push(("features", format!("{:#x}", hello.features)));
    fields.push(("auth", auth(&hello.auth)));
    fields
}

fn hello_reply_fields(reply: HelloReply<'_>) -> Fields {
    match reply {
        HelloReply::Welcome { version, cluster, node, incarnation, shards, cores, features, http, auth: proof } => {
            vec![
                ("version", version.to_string()),
                ("cluster", cluster.to_string()),
                ("node", node.to_string()),
                ("incarnation", format!("{:016x}", incarnation.0)),
                ("shards", shards.to_string()),
                ("cores", cores.to_string()),
                ("features", format!("{features:#x}")),
                ("http", quote(http.as_bytes())),
                ("auth", auth(&proof)),
            ]
        }
        HelloReply::Refused { reason, message } => {
            vec![("reason", reason.name().into()), ("message", escape(message.as_bytes()))]
        }
    }
}

fn auth(auth: &Auth<'_>) -> String {
    match auth.method {
        0 => "none".into(),
        method => format!("method {method}, nonce {}, mac {}", quote(auth.nonce), quote(auth.mac)),
    }
}

/// What nodes say while a follower gets a snapshot.
fn snapshot_fields(frame: &PeerFrame<'_>) -> Fields {
    match frame {
        PeerFrame::Message(Message { shard, from, to, term, body: Body::Snapshot { link, meta } }) => vec![
            ("shard", shard.to_string()),
            ("from", from.to_string()),
            ("to", to.to_string()),
            ("term", term.to_string()),
            ("link", link.to_string()),
            ("snapshot", meta.id.to_string()),
            ("at", meta.at.to_string()),
            ("bytes", meta.bytes.to_string()),
        ],
        PeerFrame::SnapshotRead(read) => vec![
            ("shard", read.shard.to_string()),
            ("snapshot", read.id.to_string()),
            ("offset", read.offset.to_string()),
            ("length_max", read.length_max.to_string()),
        ],
        PeerFrame::SnapshotChunk(chunk) => {
            let mut fields = vec![
                ("shard", chunk.shard.to_string()),
                ("snapshot", chunk.id.to_string()),
                ("offset", chunk.offset.to_string()),
            ];
            match chunk.result {
                ChunkResult::Ok { total, bytes } => {
                    fields.push(("total", total.to_string()));
                    fields.push(("piece", format!("{} bytes", bytes.len())));
                }
                ChunkResult::Gone => fields.push(("result", "gone".into())),
            }
            fields
        }
        _ => Vec::new(),
    }
}

fn request_fields(request: &Request<'_>) -> Fields {
    let mut fields = vec![("id", request.id.to_string())];
    match request.operation {
        Operation::Put { key, value, condition } => {
            fields.push(("condition", show_condition(condition)));
            fields.push(("key", quote(key)));
            fields.push(("value", quote(value)));
        }
        Operation::Delete { key, condition } => {
            fields.push(("condition", show_condition(condition)));
            fields.push(("key", quote(key)));
        }
        Operation::Batch(batch) => fields.extend(batch.operations().map(|operation| {
            let what = match operation.change {
                Change::Put(value) => format!("put {} {}", quote(operation.key), quote(value)),
                Change::Delete => format!("delete {}", quote(operation.key)),
            };
            ("operation", format!("{what}, condition: {}", show_condition(operation.condition)))
        })),
        Operation::Get { key, consistency } => {
            fields.push(("consistency", consistency.name().into()));
            fields.push(("key", quote(key)));
        }
        Operation::Scan(scan) => fields.extend([
            ("consistency", scan.consistency.name().into()),
            ("reverse", scan.reverse.to_string()),
            ("limit", scan.limit.to_string()),
            ("shard", scan.shard.map_or("all".into(), |shard| shard.to_string())),
            ("prefix", quote(scan.prefix)),
            ("start", quote(scan.start)),
            ("end", quote(scan.end)),
            ("cursor", quote(scan.cursor)),
        ]),
        _ => {}
    }
    fields
}

fn show_condition(condition: Condition) -> String {
    match condition {
        Condition::None => "none".into(),
        Condition::Version(version) => format!("version {version}"),
        Condition::Exists => "exists".into(),
        Condition::Absent => "absent".into(),
    }
}

fn reply_fields(reply: &Reply<'_>) -> Fields {
    let mut fields = vec![("id", reply.id.to_string()), ("at", reply.at.to_string())];
    match &reply.result {
        Ok(answer) => fields.extend(answer_fields(answer)),
        Err(refusal) => fields.extend([
            ("code", refusal.code.name().into()),
            ("leader", refusal.leader.map_or("none".into(), |node| node.to_string())),
            ("message", escape(refusal.message.as_bytes())),
        ]),
    }
    fields
}

fn answer_fields(answer: &Answer<'_>) -> Fields {
    match answer {
        Answer::Deleted { existed } => vec![("existed", existed.to_string())],
        Answer::Batch { existed } => vec![("existed", format!("{:#b}", existed.0))],
        Answer::Value { version, value } => vec![("version", version.to_string()), ("value", quote(value))],
        Answer::Page(page) => {
            let items = page.items.iter();
            let items =
                items.map(|item| ("item", format!("{} @{} {}", quote(item.key), item.version, quote(item.value))));
            std::iter::once(("more", page.more.to_string())).chain(items).collect()
        }
        Answer::Slots(table) => {
            let nodes = table.nodes.iter().map(|(node, address)| ("node", format!("{node} at {address}")));
            let leaders = table.leaders.iter().enumerate().map(|(shard, (leader, term))| {
                let leader = leader.map_or("none".into(), |node| format!("node {node}"));
                ("leader", format!("of shard {shard}: {leader}, term {term}"))
            });
            std::iter::once(("cluster", table.cluster.to_string())).chain(nodes).chain(leaders).collect()
        }
        Answer::Snapshots(snapshots) => {
            snapshots.iter().map(|snapshot| ("snapshot", format!("{snapshot:?}"))).collect()
        }
        Answer::Status(status) => {
            let mut fields = vec![
                ("cluster", status.cluster.to_string()),
                ("node", status.node.to_string()),
                ("incarnation", format!("{:016x}", status.incarnation.0)),
                ("version", escape(status.version.as_bytes())),
            ];
            fields.extend(status.nodes.iter().map(|(node, address)| ("node", format!("{node} at {address}"))));
            fields.extend(status.shards.iter().map(|shard| ("shard", format!("{shard:?}"))));
            fields.extend(status.holds.iter().map(|hold| ("hold", format!("{hold:?}"))));
            fields.extend(status.counters.iter().map(|(name, value)| ("counter", format!("{name} {value}"))));
            fields
        }
        _ => Vec::new(),
    }
}
