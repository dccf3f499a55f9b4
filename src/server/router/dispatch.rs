//! Who serves a call: a shard here, another core of this node, or the leader's node; or whoever is next, for whom it is
//! parked.

use std::time::Instant;

use raftkv_protocol::client::{Code, Operation, Refusal};
use raftkv_protocol::peer::{Forward, ForwardReply, PeerFrame};
use raftkv_protocol::types::{CoreId, EntryId, NodeId};

use crate::server::batches::NO_BATCHES_THERE;
use crate::server::calls::{decode_operation, is_stale, own, refusal_of, shard_scan, write_bytes};
use crate::server::desk::Forwarded;
use crate::server::message::{CoreMessage, Origin, OwnedCall};
use crate::server::transport::Transport;
use crate::shard::{Declined, Outbox, Read, ReadKind, Write};
use crate::storage::{CoreLog, Space};

use super::{Call, NOT_LED_HERE, Router};

impl<L: CoreLog> Router<L> {
    pub(super) fn owned_call(&mut self, call: &OwnedCall, transport: &mut impl Transport) {
        let OwnedCall { shard, to, deadline, .. } = *call;
        if let Some(operation) = decode_operation(&call.frame) {
            self.call(Call { operation, shard, to, deadline }, transport);
        }
    }

    /// Serves a call here if the shard is led here, or finds out who does.
    pub(in crate::server) fn call(&mut self, call: Call<'_>, transport: &mut impl Transport) {
        let owner = self.node.owner(call.shard);
        if owner != self.core {
            return self.call_elsewhere(owner, call, transport);
        }
        let at = self.position(call.shard);
        let weight = write_bytes(&call.operation);
        if let Some(message) = self.congestion(at, weight) {
            return self.refuse(call.to, Code::Overloaded, None, message, transport);
        }
        match self.serve(at, call, transport) {
            Ok(()) => self.uncommitted_bytes += weight,
            Err(Declined::NotLeader(leader)) => self.not_leader(call, leader, transport),
            Err(declined) => {
                self.counters.overloaded_uncommitted += u64::from(declined == Declined::Overloaded);
                let (code, message) = refusal_of(declined);
                self.refuse(call.to, code, None, message, transport);
            }
        }
    }

    /// The shard belongs to another core: if it is led by another node, the call goes there straight away.
    fn call_elsewhere(&mut self, owner: CoreId, call: Call<'_>, transport: &mut impl Transport) {
        let leader = self.node.leaders.get(call.shard).0;
        let remote = leader.filter(|leader| *leader != self.node.config.node_id);
        let may_forward = !matches!(call.to.origin, Origin::Peer { .. }) && !is_stale(&call.operation);
        if let Some(leader) = remote
            && may_forward
        {
            return self.forward(call, leader, transport);
        }
        let owned = own(&call);
        if transport.core(owner, CoreMessage::Call(owned)).is_err() {
            self.counters.inbox_full += 1;
            self.counters.overloaded_inbox += 1;
            let message = "the core that owns the shard has too much to do; try again later";
            self.refuse(call.to, Code::Overloaded, None, message, transport);
        }
    }

    /// Why a write of so many bytes that is led here must be tried again later; `None` if it need not.
    fn congestion(&mut self, at: usize, weight: usize) -> Option<&'static str> {
        if weight == 0 || !self.shards[at].leads() {
            return None;
        }
        let limits = &self.node.config.limits;
        if self.log.backlog_bytes() > limits.core_backlog_bytes_max {
            self.counters.overloaded_backlog += 1;
            return Some("the disk of the shard's leader does not keep up; try again later");
        }
        if self.uncommitted_bytes + weight > limits.core_uncommitted_bytes_max {
            self.counters.overloaded_uncommitted += 1;
            return Some("too many bytes of the leader's shards wait for a majority; try again later");
        }
        None
    }

    /// A put that no majority has room for would time out, and take what the others keep for votes and for the first entry of
    /// a leader.
    fn space_for_puts(&self) -> Space {
        if self.node.health.majority_has_space() { self.log.space() } else { Space::ReserveOnly }
    }

    fn serve(&mut self, at: usize, call: Call<'_>, transport: &mut impl Transport) -> Result<(), Declined> {
        self.touched[at] = true;
        let space = self.space_for_puts();
        let limits = &self.node.config.limits;
        let (items_max, bytes_max) = (limits.scan_items_max, limits.scan_bytes_max);
        let (shard, _, mut exit) = self.parts(at, transport);
        let Call { to, deadline, .. } = call;
        match call.operation {
            Operation::Put { key, value, condition } => {
                shard.write(Write::Put { key, value, condition }, to, deadline, space)
            }
            Operation::Delete { key, condition } => shard.write(Write::Delete { key, condition }, to, deadline, space),
            Operation::Batch(batch) => shard.write(Write::Batch(batch), to, deadline, space),
            Operation::Get { key, consistency } => {
                shard.read(Read { consistency, kind: ReadKind::Get { key: key.into() } }, to, deadline, &mut exit)
            }
            Operation::Scan(scan) => {
                let kind = ReadKind::Scan(Box::new(shard_scan(&scan, items_max, bytes_max)));
                shard.read(Read { consistency: scan.consistency, kind }, to, deadline, &mut exit)
            }
            _ => {
                let message = "only put, delete, batch, get and scan are served for a shard";
                exit.reply(to, EntryId::ZERO, Err(Refusal { code: Code::BadRequest, leader: None, message }));
                Ok(())
            }
        }
    }

    /// The shard is not led here: sends the call on, once, or waits for a leader.
    fn not_leader(&mut self, call: Call<'_>, leader: Option<NodeId>, transport: &mut impl Transport) {
        if let Origin::Peer { .. } = call.to.origin {
            return self.refuse(call.to, Code::NotLeader, leader, NOT_LED_HERE, transport);
        }
        match leader {
            Some(leader) if leader != self.node.config.node_id => self.forward(call, leader, transport),
            _ => self.exit(transport).park(own(&call)),
        }
    }

    fn forward(&mut self, call: Call<'_>, leader: NodeId, transport: &mut impl Transport) {
        if self.node.is_stopping() && matches!(call.to.origin, Origin::Client { .. }) {
            // The client is better off with the leader itself; what it sends here is soon lost with the connection.
            let message = "this node is being stopped and does not lead the key's shard; nothing was written";
            return self.refuse(call.to, Code::NotLeader, Some(leader), message, transport);
        }
        if !self.leader_knows(&call.operation, leader) {
            return self.refuse(call.to, Code::NotReady, None, NO_BATCHES_THERE, transport);
        }
        let owned = own(&call);
        if !self.desk.may_forward(&owned) {
            self.counters.overloaded_forwarded += 1;
            let message = "too many requests wait for other nodes' answers already; try again later";
            return self.refuse(call.to, Code::Overloaded, None, message, transport);
        }
        let Some(out) = transport.peer(leader) else {
            return self.exit(transport).park(owned);
        };
        let timeout = call.deadline.saturating_duration_since(self.desk.now());
        let id = self.desk.forward(self.core, leader, owned);
        let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        PeerFrame::Forward(Forward { id, shard: call.shard, operation: call.operation, timeout_ms }).encode(out);
        self.counters.forwards_sent += 1;
    }

    /// A peer has answered. A definite *not me* sends the call on its way again; anything else is the answer.
    pub(super) fn forward_reply(&mut self, mut reply: ForwardReply<'_>, transport: &mut impl Transport) {
        if let (Err(refusal), true) = (&mut reply.reply.result, mutant!("unknown-forward-retried")) {
            refusal.code = if refusal.code == Code::Timeout { Code::NotLeader } else { refusal.code };
        }
        let Some(Forwarded { call, .. }) = self.desk.take_forward(reply.id.serial) else {
            return;
        };
        match &reply.reply.result {
            Err(refusal) if refusal.code == Code::NotLeader => self.exit(transport).park(call),
            _ => self.exit(transport).reply(call.to, reply.reply.at, reply.reply.result),
        }
    }

    /// Calls that wait for a leader are tried again when the leader table has news, and now and then.
    pub(super) fn retry_parked(&mut self, now: Instant, transport: &mut impl Transport) {
        for call in self.desk.take_retries(now) {
            self.owned_call(&call, transport);
        }
    }
}
