//! How the parts of a core that know no socket reach the world.

use std::sync::Arc;

use raftkv_protocol::client::{Answer, Refusal};
use raftkv_protocol::peer::SnapshotChunk;
use raftkv_protocol::types::{CoreId, EntryId, NodeId, RequestId};

use crate::metrics::figures::Figures;

use super::message::{Charge, ConnectionId, CoreMessage, ExchangeId};

/// The way to clients, peers and the other cores.
pub trait Transport {
    /// Answers a client. A connection that is gone swallows it. `charge` is what the request was charged with.
    fn reply(
        &mut self,
        connection: ConnectionId,
        request: RequestId,
        charge: Charge,
        at: EntryId,
        result: Result<Answer<'_>, Refusal<'_>>,
    );

    /// Answers somebody who came over HTTP. Nobody does where there is no such face.
    fn exchange(
        &mut self,
        _exchange: ExchangeId,
        _charge: Charge,
        _at: EntryId,
        _result: Result<Answer<'_>, Refusal<'_>>,
    ) {
    }

    /// Hands the node's figures to somebody who came over HTTP for them.
    fn figures(&mut self, _exchange: ExchangeId, _charge: Charge, _figures: Arc<Figures>) {}

    /// Where to append frames for a peer; `None` while its link is down or full.
    fn peer(&mut self, node: NodeId) -> Option<&mut Vec<u8>>;

    /// Sends to another core, or gives the message back if its inbox is full.
    fn core(&mut self, core: CoreId, message: CoreMessage) -> Result<(), CoreMessage>;

    /// Sends to another core what it has asked for.
    fn answer(&mut self, core: CoreId, message: CoreMessage);

    /// Answers another node that fetches a snapshot. A connection that is gone swallows it.
    fn snapshot_chunk(&mut self, connection: ConnectionId, chunk: &SnapshotChunk<'_>);

    /// Where to append questions for a node whose snapshot is fetched; `None` while the connection for them does not
    /// stand. It is dialled then.
    fn source(&mut self, node: NodeId) -> Option<&mut Vec<u8>>;

    /// Ends that connection: nothing comes on it, or nothing more is wanted.
    fn leave_source(&mut self);
}
