//! gRPC, by the client that tonic generates.

use std::net::SocketAddr;

use hyper::Uri;
use raftkv::client::Item;
use raftkv_protocol::client::{self as ask, Change, Code, Operation, Scan};
use raftkv_protocol::types::Index;

use crate::binary::sorted;
use crate::calls::{Channel, Connection};
use crate::face::{Face, More, NodeState, Outcome, Page, ShardState};
use crate::support::http::http_address;

/// What `tools/codegen` writes for clients.
mod generated {
    include!("../../tools/grpc-check/src/generated/raftkv.v1.rs");
}

use generated::cluster_client::ClusterClient;
use generated::compare_and_set_request::Change as Set;
use generated::condition::Kind;
use generated::kv_client::KvClient;
use generated::{
    BatchOperation, BatchRequest, CompareAndSetRequest, Condition, Consistency, DeleteRequest, GetRequest, PutRequest,
    ScanRequest, ScanResponse, Shard, StatusRequest, StatusResponse, batch_operation,
};

pub struct Grpc {
    node: u64,
    connection: Connection,
    kv: KvClient<Channel>,
    cluster: ClusterClient<Channel>,
}

impl Grpc {
    pub fn connect(node: u64, listen: SocketAddr) -> Grpc {
        let connection = Connection::connect(http_address(listen));
        let origin = Uri::from_static("http://test");
        let kv = KvClient::with_origin(connection.channel(), origin.clone());
        let cluster = ClusterClient::with_origin(connection.channel(), origin);
        Grpc { node, connection, kv, cluster }
    }

    fn put(&mut self, key: &[u8], value: &[u8], condition: ask::Condition) -> Result<Outcome, tonic::Status> {
        let (key, value) = (key.to_vec().into(), value.to_vec().into());
        let version = match condition_of(condition) {
            None => self.connection.wait(self.kv.put(PutRequest { key, value }))?.into_inner().version,
            condition => {
                let request = CompareAndSetRequest { key, condition, change: Some(Set::Value(value)) };
                self.connection.wait(self.kv.compare_and_set(request))?.into_inner().version
            }
        };
        Ok(Outcome::Put { version })
    }

    /// That a removal under a condition has removed something, its condition tells.
    fn delete(&mut self, key: &[u8], condition: ask::Condition) -> Result<Outcome, tonic::Status> {
        let key = key.to_vec().into();
        let existed = match condition_of(condition) {
            None => self.connection.wait(self.kv.delete(DeleteRequest { key }))?.into_inner().deleted,
            wanted => {
                let request = CompareAndSetRequest { key, condition: wanted, change: Some(Set::Delete(true)) };
                self.connection.wait(self.kv.compare_and_set(request))?;
                condition != ask::Condition::Absent
            }
        };
        Ok(Outcome::Deleted { existed })
    }

    fn batch(&mut self, batch: ask::Batch<'_>) -> Result<Outcome, tonic::Status> {
        let operations = batch.operations().map(|operation| BatchOperation {
            key: operation.key.to_vec().into(),
            condition: condition_of(operation.condition),
            change: Some(match operation.change {
                Change::Put(value) => batch_operation::Change::Value(value.to_vec().into()),
                Change::Delete => batch_operation::Change::Delete(true),
            }),
        });
        let request = BatchRequest { operations: operations.collect() };
        let done = self.connection.wait(self.kv.batch(request))?.into_inner();
        Ok(Outcome::Batch { version: batch.has_puts().then_some(done.version), deleted: done.deleted })
    }

    /// The first page of a scan, and whether there is another.
    fn page(&mut self, scan: &Scan<'_>) -> Result<Page, tonic::Status> {
        let mut pages = self.connection.wait(self.kv.scan(request_of(scan)))?.into_inner();
        let Some(first) = self.connection.wait(pages.message())? else {
            return Ok(Page { items: Vec::new(), more: More::No });
        };
        let is_followed = self.connection.wait(pages.message())?.is_some();
        let items = items(first);
        let last = items.last().expect("no message is empty").key.clone();
        let more = match is_followed {
            true => More::Yes(last),
            false if items.len() == scan.limit as usize => More::Untold(last),
            false => More::No,
        };
        Ok(Page { items, more })
    }
}

impl Face for Grpc {
    fn name(&self) -> String {
        format!("gRPC by way of node {}", self.node)
    }

    fn ask(&mut self, operation: Operation<'_>) -> Outcome {
        let outcome = match operation {
            Operation::Put { key, value, condition } => self.put(key, value, condition),
            Operation::Delete { key, condition } => self.delete(key, condition),
            Operation::Batch(batch) => self.batch(batch),
            Operation::Get { key, consistency } => {
                let request = GetRequest { key: key.to_vec().into(), consistency: consistency_of(consistency).into() };
                let found = self.connection.wait(self.kv.get(request)).map(tonic::Response::into_inner);
                found.map(|found| Outcome::Value { version: found.version, bytes: found.value.to_vec() })
            }
            Operation::Scan(scan) => self.page(&scan).map(Outcome::Page),
            operation => panic!("no case asks for {operation:?}"),
        };
        outcome.unwrap_or_else(|status| Outcome::Refused(refusal(&status)))
    }

    fn whole(&mut self, scan: &Scan<'_>) -> Vec<Item> {
        let mut pages = self.connection.wait(self.kv.scan(request_of(scan))).expect("a scan").into_inner();
        let mut whole = Vec::new();
        while let Some(page) = self.connection.wait(pages.message()).expect("a page") {
            whole.extend(items(page));
        }
        whole
    }

    fn status(&mut self) -> NodeState {
        state(self.connection.wait(self.cluster.status(StatusRequest {})).expect("answered").into_inner())
    }
}

fn request_of(scan: &Scan<'_>) -> ScanRequest {
    ScanRequest {
        prefix: scan.prefix.to_vec().into(),
        start: scan.start.to_vec().into(),
        end: scan.end.to_vec().into(),
        cursor: scan.cursor.to_vec().into(),
        reverse: scan.reverse,
        limit: scan.limit.into(),
        consistency: consistency_of(scan.consistency).into(),
    }
}

fn condition_of(condition: ask::Condition) -> Option<Condition> {
    let kind = match condition {
        ask::Condition::None => return None,
        ask::Condition::Version(version) => Kind::Version(version.0),
        ask::Condition::Exists => Kind::Exists(true),
        ask::Condition::Absent => Kind::Exists(false),
    };
    Some(Condition { kind: Some(kind) })
}

fn consistency_of(consistency: ask::Consistency) -> Consistency {
    match consistency {
        ask::Consistency::Linearizable => Consistency::Linearizable,
        ask::Consistency::Lease => Consistency::Lease,
        ask::Consistency::Stale => Consistency::Stale,
    }
}

fn items(page: ScanResponse) -> Vec<Item> {
    let item = |item: generated::Item| Item {
        key: item.key.to_vec(),
        version: Index(item.version),
        value: item.value.to_vec(),
    };
    page.items.into_iter().map(item).collect()
}

/// The code of a refusal, which has the status that the .proto file gives it.
fn refusal(status: &tonic::Status) -> Code {
    let name = status.metadata().get("raftkv-code").unwrap_or_else(|| panic!("no code: {status:?}"));
    let code = Code::all().find(|code| code.name() == name).unwrap_or_else(|| panic!("no such code: {status:?}"));
    let expected = match code {
        Code::BadRequest | Code::CrossShard => tonic::Code::InvalidArgument,
        Code::NotFound => tonic::Code::NotFound,
        Code::PreconditionFailed => tonic::Code::FailedPrecondition,
        Code::TooLarge | Code::Overloaded | Code::NoSpace => tonic::Code::ResourceExhausted,
        Code::Timeout => tonic::Code::DeadlineExceeded,
        _ => tonic::Code::Unavailable,
    };
    assert_eq!(status.code(), expected, "{status:?}");
    assert!(!status.message().is_empty(), "{status:?}");
    code
}

fn shard(shard: Shard) -> ShardState {
    ShardState {
        id: shard.id.into(),
        role: shard.role,
        term: shard.term,
        leader: shard.leader,
        commit: shard.commit,
        applied: shard.applied,
        persisted: shard.persisted,
        last_index: shard.last_index,
        last_term: shard.last_term,
        snapshot_index: shard.snapshot_index,
        keys: shard.keys,
        state_hash: u128::from_be_bytes(shard.state_hash[..].try_into().expect("16 bytes")),
        is_repairing: shard.repairing,
        is_diverged: shard.diverged,
    }
}

fn state(status: StatusResponse) -> NodeState {
    NodeState {
        cluster: status.cluster_id,
        node: status.node_id,
        incarnation: status.incarnation,
        version: status.version,
        disk: status.disk,
        members: status.members.into_iter().map(|member| (member.id, member.address)).collect(),
        shards: status.shards.into_iter().map(shard).collect(),
        counters: sorted(status.counters.into_keys()),
    }
}
