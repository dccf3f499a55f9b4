//! Who listens hears whole frames, once each, and who has asked for what.

use std::collections::BTreeMap;

use raftkv_protocol::client::{Answer, Code, Operation, Refusal, Reply, Request};
use raftkv_protocol::kind;
use raftkv_protocol::peer::{Body, Message, PeerFrame, ReadContext};
use raftkv_protocol::types::{EntryId, Incarnation, NodeId, RequestId, ShardId, Term};

use super::overheard::Told;
use super::{ACCEPTER, Connection, DIALLER, End, Flow, node_address};
use crate::agenda::HostId;

fn connection(between_nodes: bool) -> Connection {
    let end = |host| End::new(HostId(host), node_address(host), true);
    Connection {
        ends: [end(1), end(0)],
        flows: [Flow::default(), Flow::default()],
        established: true,
        between_nodes,
        asked: BTreeMap::new(),
    }
}

fn request(id: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    Request { id: RequestId(id), operation: Operation::Ping }.encode(&mut bytes);
    bytes
}

fn reply(id: u64, result: Result<Answer<'_>, Refusal<'_>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    Reply { id: RequestId(id), at: EntryId::ZERO, result }.encode(&mut bytes);
    bytes
}

fn hear(connection: &mut Connection, from: usize, bytes: &[u8]) -> Vec<Told> {
    let mut told = Vec::new();
    connection.overhear(from, bytes, &mut told);
    told
}

#[test]
fn frames_are_heard_once_however_they_are_cut() {
    let context = ReadContext { incarnation: Incarnation(3), term: Term(2), counter: 1 };
    let body = Body::HeartbeatReply { context, promise: Default::default() };
    let message = Message { shard: ShardId(1), from: NodeId(2), to: NodeId(1), term: Term(2), body };
    let mut bytes = Vec::new();
    PeerFrame::Message(message.clone()).encode(&mut bytes);
    PeerFrame::Message(message.clone()).encode(&mut bytes);
    for cut in 0..bytes.len() {
        let mut connection = connection(true);
        let mut told = hear(&mut connection, DIALLER, &bytes[..cut]);
        told.extend(hear(&mut connection, DIALLER, &bytes[cut..]));
        assert_eq!(told, [Told::Raft(message.clone()), Told::Raft(message.clone())], "cut at {cut}");
    }
    bytes[10] ^= 1;
    assert_eq!(hear(&mut connection(true), DIALLER, &bytes), [Told::Nonsense { from: HostId(1) }]);
}

#[test]
fn an_answer_belongs_to_a_request_of_its_connection() {
    let mut connection = connection(false);
    assert_eq!(hear(&mut connection, DIALLER, &[request(7), request(8)].concat()), []);
    assert_eq!(hear(&mut connection, ACCEPTER, &reply(7, Ok(Answer::Pong))), []);
    let refusal = Refusal { code: Code::Overloaded, leader: None, message: "" };
    assert_eq!(hear(&mut connection, ACCEPTER, &reply(8, Err(refusal))), []);
    assert_eq!(hear(&mut connection, ACCEPTER, &reply(0, Err(refusal))), [], "a farewell answers nothing");
    let unasked = |id, asked, answer| [Told::Unasked { from: HostId(0), id: RequestId(id), asked, answer }];
    let twice = hear(&mut connection, ACCEPTER, &reply(7, Ok(Answer::Pong)));
    assert_eq!(twice, unasked(7, None, kind::PING_REPLY));
    hear(&mut connection, DIALLER, &request(9));
    let other = hear(&mut connection, ACCEPTER, &reply(9, Ok(Answer::Put)));
    assert_eq!(other, unasked(9, Some(kind::PING), kind::PUT_REPLY));
}
