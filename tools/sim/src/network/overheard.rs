//! What is heard of what connections carry: what nodes tell each other, and who is answered without having asked.

use raftkv_protocol::client::Request;
use raftkv_protocol::frame::{self, Frame};
use raftkv_protocol::kind;
use raftkv_protocol::peer::{ForwardId, Message, PeerFrame};
use raftkv_protocol::types::RequestId;

use super::{ACCEPTER, Connection, DIALLER, Side};
use crate::agenda::HostId;

/// From a request's kind to its answer's.
const ANSWER: u8 = kind::PUT_REPLY - kind::PUT;

/// Something that was said, as it left whoever said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A node tells another something about a shard. Appends are left out: they are the most, and promise nothing.
    Raft(Message),
    /// A node sends a client's request on to another.
    Forward {
        /// Who waits for the answer.
        from: HostId,
        /// Who is to answer.
        to: HostId,
        /// The name of the request.
        id: ForwardId,
    },
    /// A node answers such a request.
    ForwardReply {
        /// Who answers.
        from: HostId,
        /// Who has asked.
        to: HostId,
        /// The name of the request.
        id: ForwardId,
    },
    /// A node answers on a connection what was not asked there, or with an answer to another question.
    Unasked {
        /// Who answers.
        from: HostId,
        /// The name of the request.
        id: RequestId,
        /// What was asked under this name, if anything was that is not answered yet.
        asked: Option<u8>,
        /// What it is answered.
        answer: u8,
    },
    /// Bytes that are no frame.
    Nonsense {
        /// Who says them.
        from: HostId,
    },
}

impl Connection {
    /// Takes down what one side says, as far as it makes whole frames.
    pub(super) fn overhear(&mut self, from: Side, bytes: &[u8], told: &mut Vec<Told>) {
        let mut begun = std::mem::take(&mut self.flows[from].overheard);
        let is_fresh = begun.is_empty();
        if !is_fresh {
            begun.extend_from_slice(bytes);
        }
        let said = if is_fresh { bytes } else { &begun };
        let mut at = 0;
        loop {
            match frame::parse(&said[at..], frame::PEER_FRAME_MAX) {
                Ok(Some(found)) => {
                    self.hear(from, &found, told);
                    at += found.consumed;
                }
                Ok(None) => break,
                Err(_) => {
                    told.push(Told::Nonsense { from: self.ends[from].host });
                    break;
                }
            }
        }
        if is_fresh {
            begun.extend_from_slice(&bytes[at..]);
        } else {
            begun.drain(..at);
        }
        self.flows[from].overheard = begun;
    }

    fn hear(&mut self, from: Side, found: &Frame<'_>, told: &mut Vec<Told>) {
        match (self.between_nodes, from) {
            (true, DIALLER) if found.kind != kind::APPEND => self.hear_node(found, told),
            (false, DIALLER) if found.kind != kind::HELLO => {
                self.asked.extend(Request::id_of(found.payload).map(|id| (id, found.kind)));
            }
            (false, ACCEPTER) if found.kind >= kind::REFUSAL => self.hear_answer(found, told),
            // Greetings and appends.
            _ => {}
        }
    }

    fn hear_node(&self, found: &Frame<'_>, told: &mut Vec<Told>) {
        let (from, to) = (self.ends[DIALLER].host, self.ends[ACCEPTER].host);
        told.extend(match PeerFrame::decode(found.kind, found.payload) {
            Ok(PeerFrame::Message(message)) => Some(Told::Raft(message)),
            Ok(PeerFrame::Forward(forward)) => Some(Told::Forward { from, to, id: forward.id }),
            Ok(PeerFrame::ForwardReply(reply)) => Some(Told::ForwardReply { from, to, id: reply.id }),
            _ => None,
        });
    }

    /// Answers begin with the name of the request, as requests do.
    fn hear_answer(&mut self, found: &Frame<'_>, told: &mut Vec<Told>) {
        let id = Request::id_of(found.payload).unwrap_or_default();
        let asked = self.asked.remove(&id);
        let fits = |asked: u8| found.kind == kind::REFUSAL || found.kind == asked + ANSWER;
        // Who closes a connection for what came on it names no request.
        let is_farewell = id == RequestId(0) && found.kind == kind::REFUSAL;
        if !asked.map_or(is_farewell, fits) {
            told.push(Told::Unasked { from: self.ends[ACCEPTER].host, id, asked, answer: found.kind });
        }
    }
}
