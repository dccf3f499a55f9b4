//! The way out of a core's shards: to clients, to other nodes, and to the other cores.

use raftkv_protocol::client::{Answer, Code, Refusal, Reply};
use raftkv_protocol::peer::{ForwardReply, Message, PeerFrame};
use raftkv_protocol::types::{CoreId, Entry, EntryId, NodeId, RequestId, ShardId};

use crate::metrics::Counters;
use crate::metrics::requests::Requests;
use crate::shard::{Outbox, ReadKind};

use super::budget;
use super::calls::{own, read_again};
use super::desk::Desk;
use super::message::{CoreMessage, Origin, OwnedCall, ReplyTo};
use super::router::{Call, NOT_LED_HERE};
use super::transport::Transport;
use std::time::Instant;

/// The way out: implements the shards' outbox over the transport.
pub(super) struct Exit<'a, T> {
    pub(super) core: CoreId,
    pub(super) link_bytes_max: usize,
    pub(super) desk: &'a mut Desk,
    pub(super) counters: &'a mut Counters,
    pub(super) requests: &'a mut Requests,
    pub(super) transport: &'a mut T,
}

impl<T: Transport> Outbox<ReplyTo> for Exit<'_, T> {
    fn send<'e>(&mut self, message: &Message, entries: impl Iterator<Item = &'e Entry>) {
        match self.transport.peer(message.to) {
            Some(out) => {
                message.encode_with(entries, out);
                self.counters.raft_messages_sent += 1;
            }
            None => self.counters.raft_messages_dropped += 1,
        }
    }

    fn reply(&mut self, to: ReplyTo, at: EntryId, result: Result<Answer<'_>, Refusal<'_>>) {
        if let Err(refusal) = &result {
            self.counters.refused(refusal.code);
        }
        match to.origin {
            Origin::Peer { node, id } => {
                self.counters.forwards_served += 1;
                let Some(out) = self.transport.peer(node) else { return };
                // Raft's own messages need the rest.
                let is_half_full = out.len() >= self.link_bytes_max / 2;
                let result = match result {
                    Ok(Answer::Value { .. } | Answer::Page(_)) if is_half_full => {
                        self.counters.overloaded_link += 1;
                        let message = "too many answers wait for the node that was asked; try again later";
                        Err(Refusal { code: Code::Overloaded, leader: None, message })
                    }
                    result => result,
                };
                let reply = Reply { id: RequestId(0), at, result };
                PeerFrame::ForwardReply(ForwardReply { id, reply }).encode(out);
            }
            origin if to.core != self.core => {
                let id = if let Origin::Client { request, .. } = origin { request } else { RequestId(0) };
                let mut frame = Vec::with_capacity(budget::room(&result));
                Reply { id, at, result }.encode(&mut frame);
                self.transport.answer(to.core, CoreMessage::Reply { origin, frame });
            }
            Origin::Client { connection, request, charge, taken } => {
                self.requests.answered(taken, result.as_ref().err().map(|refusal| refusal.code), self.desk.now());
                self.transport.reply(connection, request, charge, at, result);
            }
            Origin::Exchange { exchange, charge, taken } => {
                self.requests.answered(taken, result.as_ref().err().map(|refusal| refusal.code), self.desk.now());
                self.transport.exchange(exchange, charge, at, result);
            }
            Origin::Gather { job, shard } => self.desk.gathers.part(job, shard, at, result),
        }
    }

    /// A read has no effect, so that it can be asked again: of the next leader, as soon as there is one.
    fn read_lost(&mut self, shard: ShardId, read: &ReadKind, to: ReplyTo, deadline: Instant, leader: Option<NodeId>) {
        if let Origin::Peer { .. } = to.origin {
            return self.reply(
                to,
                EntryId::ZERO,
                Err(Refusal { code: Code::NotLeader, leader, message: NOT_LED_HERE }),
            );
        }
        self.park(own(&Call { operation: read_again(read, shard), shard, to, deadline }));
    }
}

impl<T: Transport> Exit<'_, T> {
    /// Keeps a call until a leader is known.
    pub(super) fn park(&mut self, call: OwnedCall) {
        if let Err(call) = self.desk.park(call) {
            self.counters.overloaded_parked += 1;
            let message = "too many requests wait for a leader already; try again later";
            self.reply(call.to, EntryId::ZERO, Err(Refusal { code: Code::Overloaded, leader: None, message }));
        }
    }
}
