//! `raftkv.v1.KV`: keys and values.

use std::sync::Arc;

use raftkv_protocol::client as ask;
use raftkv_protocol::types::Index;
use tonic::{Request, Response, Status};

use super::generated::raftkv::kv_server::Kv;
use super::generated::raftkv::{
    BatchOperation, BatchRequest, BatchResponse, CompareAndSetRequest, CompareAndSetResponse, Condition, Consistency,
    DeleteRequest, DeleteResponse, GetRequest, GetResponse, PutRequest, PutResponse, ScanRequest, batch_operation,
    compare_and_set_request, condition,
};
use super::scan::Scanned;
use super::{bad, status};
use crate::api::ask::{OwnedAnswer, OwnedOperation, OwnedRefusal, OwnedScan};
use crate::api::node_handle::NodeHandle;
use crate::metrics::requests::Task;

/// The keys of all shards, by way of one node.
#[derive(Debug)]
pub struct Keys(pub Arc<NodeHandle>);

impl Keys {
    fn refuse(&self, task: Task, refusal: OwnedRefusal) -> Status {
        status::of(refusal, &self.0, Some(task))
    }

    /// Asks the node; the index of the log that the answer was given at comes with it.
    async fn ask(&self, operation: OwnedOperation) -> Result<(Index, OwnedAnswer), Status> {
        let task = Task::of(&operation.borrow());
        let (at, answer) = self.0.ask(operation).await.map_err(|refusal| self.refuse(task, refusal))?;
        Ok((at.index, answer))
    }

    fn unexpected<T>(&self) -> Result<Response<T>, Status> {
        // The node has counted its answer.
        Err(status::of(self.0.unexpected(), &self.0, None))
    }
}

#[tonic::async_trait]
impl Kv for Keys {
    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let PutRequest { key, value } = request.into_inner();
        let (at, _) = self.ask(OwnedOperation::Put { key, value, condition: ask::Condition::None }).await?;
        Ok(Response::new(PutResponse { version: at.0 }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let GetRequest { key, consistency } = request.into_inner();
        let consistency = consistency_of(consistency).map_err(|refusal| self.refuse(Task::Get, refusal))?;
        let (_, answer) = self.ask(OwnedOperation::Get { key, consistency }).await?;
        let OwnedAnswer::Value { version, value } = answer else { return self.unexpected() };
        Ok(Response::new(GetResponse { value, version: version.0 }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let DeleteRequest { key } = request.into_inner();
        let (_, answer) = self.ask(OwnedOperation::Delete { key, condition: ask::Condition::None }).await?;
        let OwnedAnswer::Deleted { existed } = answer else { return self.unexpected() };
        Ok(Response::new(DeleteResponse { deleted: existed }))
    }

    async fn compare_and_set(
        &self,
        request: Request<CompareAndSetRequest>,
    ) -> Result<Response<CompareAndSetResponse>, Status> {
        let operation = conditional(request.into_inner()).map_err(|refusal| self.refuse(Task::Put, refusal))?;
        let (at, _) = self.ask(operation).await?;
        Ok(Response::new(CompareAndSetResponse { version: at.0 }))
    }

    async fn batch(&self, request: Request<BatchRequest>) -> Result<Response<BatchResponse>, Status> {
        let operations = request.into_inner().operations;
        let batch = batch_of(&operations).map_err(|refusal| self.refuse(Task::Batch, refusal))?;
        let (at, answer) = self.ask(OwnedOperation::Batch(batch)).await?;
        let OwnedAnswer::Batch { existed } = answer else { return self.unexpected() };
        let deleted = (0..operations.len()).map(|operation| existed.contains(operation)).collect();
        Ok(Response::new(BatchResponse { version: at.0, deleted }))
    }

    type ScanStream = Scanned;

    async fn scan(&self, request: Request<ScanRequest>) -> Result<Response<Scanned>, Status> {
        let request = request.into_inner();
        let consistency = consistency_of(request.consistency).map_err(|refusal| self.refuse(Task::Scan, refusal))?;
        let scan = OwnedScan {
            prefix: request.prefix,
            start: request.start,
            end: request.end,
            cursor: request.cursor,
            limit: 0,
            reverse: request.reverse,
            consistency,
        };
        Ok(Response::new(Scanned::new(self.0.clone(), scan, request.limit)))
    }
}

/// How fresh a read must be.
fn consistency_of(number: i32) -> Result<ask::Consistency, OwnedRefusal> {
    match Consistency::try_from(number) {
        Ok(Consistency::Linearizable) => Ok(ask::Consistency::Linearizable),
        Ok(Consistency::Lease) => Ok(ask::Consistency::Lease),
        Ok(Consistency::Stale) => Ok(ask::Consistency::Stale),
        Err(_) => Err(bad(format!("there is no consistency {number}: it is linearizable (0), lease (1) or stale (2)"))),
    }
}

fn condition_of(condition: Condition) -> Result<ask::Condition, OwnedRefusal> {
    match condition.kind {
        Some(condition::Kind::Version(version)) => Ok(ask::Condition::Version(Index(version))),
        Some(condition::Kind::Exists(true)) => Ok(ask::Condition::Exists),
        Some(condition::Kind::Exists(false)) => Ok(ask::Condition::Absent),
        None => Err(bad("the condition is empty: set `version` or `exists` of it")),
    }
}

/// A write under a condition.
fn conditional(request: CompareAndSetRequest) -> Result<OwnedOperation, OwnedRefusal> {
    let CompareAndSetRequest { key, condition, change } = request;
    let condition = condition.ok_or_else(|| bad("there is no condition: set it, or call Put or Delete"))?;
    let condition = condition_of(condition)?;
    match change {
        Some(compare_and_set_request::Change::Value(value)) => Ok(OwnedOperation::Put { key, value, condition }),
        Some(compare_and_set_request::Change::Delete(true)) => Ok(OwnedOperation::Delete { key, condition }),
        Some(compare_and_set_request::Change::Delete(false)) => Err(no_delete()),
        None => Err(no_change()),
    }
}

fn no_delete() -> OwnedRefusal {
    bad("`delete` must be true where it is set")
}

fn no_change() -> OwnedRefusal {
    bad("nothing is to be changed: set `value` or `delete`")
}

/// The operations of a batch.
fn batch_of(operations: &[BatchOperation]) -> Result<ask::BatchBuffer, OwnedRefusal> {
    let mut batch = ask::BatchBuffer::default();
    for BatchOperation { key, condition, change } in operations {
        let condition = condition.map_or(Ok(ask::Condition::None), condition_of)?;
        let change = match change {
            Some(batch_operation::Change::Value(value)) => ask::Change::Put(value),
            Some(batch_operation::Change::Delete(true)) => ask::Change::Delete,
            Some(batch_operation::Change::Delete(false)) => return Err(no_delete()),
            None => return Err(no_change()),
        };
        let operation = ask::BatchOperation { key, condition, change };
        batch.push(&operation).map_err(|ask::KeyTooLong(bytes)| {
            OwnedRefusal::new(ask::Code::TooLarge, format!("a key of the batch has {bytes} bytes, no key has so many"))
        })?;
    }
    Ok(batch)
}
