//! Refusals as gRPC statuses, with what all faces say of them as metadata.

use hyper::Response;
use raftkv_protocol::client::Code;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code as GrpcCode, Status};

use crate::api::ask::OwnedRefusal;
use crate::api::node_handle::NodeHandle;
use crate::metrics::requests::Task;

/// The code that all faces share, as metadata.
const CODE: &str = "raftkv-code";
/// Who leads the shard, as metadata.
const LEADER: &str = "raftkv-leader";

fn grpc_code(code: Code) -> GrpcCode {
    match code {
        Code::NotFound => GrpcCode::NotFound,
        Code::PreconditionFailed => GrpcCode::FailedPrecondition,
        Code::TooLarge | Code::Overloaded | Code::NoSpace => GrpcCode::ResourceExhausted,
        Code::NotLeader | Code::NoLeader | Code::NotReady | Code::Diverged => GrpcCode::Unavailable,
        Code::Timeout => GrpcCode::DeadlineExceeded,
        Code::Unauthorized => GrpcCode::PermissionDenied,
        _ => GrpcCode::InvalidArgument,
    }
}

/// The status of a refusal. One that the node has not counted is counted as one of this task.
pub fn of(refusal: OwnedRefusal, node: &NodeHandle, task: Option<Task>) -> Status {
    if let (false, Some(task)) = (refusal.is_counted, task) {
        node.backend.refused(node.face, task, refusal.code);
    }
    let mut metadata = with_code(refusal.code);
    let leader = refusal.leader.and_then(|leader| node.members.iter().find(|(id, _)| *id == leader));
    let leader = leader.and_then(|(id, address)| MetadataValue::try_from(format!("{id} {address}")).ok());
    if let Some(leader) = leader {
        metadata.insert(LEADER, leader);
    }
    Status::with_metadata(grpc_code(refusal.code), refusal.message, metadata)
}

fn with_code(code: Code) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    metadata.insert(CODE, MetadataValue::from_static(code.name()));
    metadata
}

/// A status that the generated code has made up, in the words of this server, and counted as one of this task.
pub fn own(status: Status, node: &NodeHandle, task: Task) -> Status {
    if status.metadata().contains_key(CODE) {
        return status;
    }
    let (grpc, code, words) = match status.code() {
        GrpcCode::OutOfRange => (GrpcCode::ResourceExhausted, Code::TooLarge, "the message is over its limit"),
        GrpcCode::Unimplemented if status.message().is_empty() => {
            (GrpcCode::Unimplemented, Code::BadRequest, "there is no such method; see docs/grpc.md for what there is")
        }
        GrpcCode::Unimplemented => (GrpcCode::Unimplemented, Code::BadRequest, "this is not understood"),
        _ => (GrpcCode::InvalidArgument, Code::BadRequest, "the call is no gRPC call with a message of this method"),
    };
    node.backend.refused(node.face, task, code);
    let message = match status.message() {
        "" => words.to_owned(),
        told => format!("{words}: {told}"),
    };
    Status::with_metadata(grpc, message, with_code(code))
}

/// The head of a response that the generated code has made up: a refusal in it has the server's own words.
pub fn complete(response: Response<tonic::body::Body>, node: &NodeHandle, task: Task) -> Response<tonic::body::Body> {
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != GrpcCode::Ok && !status.metadata().contains_key(CODE) => {
            own(status, node, task).into_http()
        }
        _ => response,
    }
}
