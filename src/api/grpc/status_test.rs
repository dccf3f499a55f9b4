use std::sync::Arc;
use std::time::Instant;

use raftkv_protocol::client::Code;
use raftkv_protocol::types::NodeId;
use tonic::Code as GrpcCode;

use super::status;
use crate::api::ask::{Backend, OwnedRefusal};
use crate::api::held::Held;
use crate::api::node_handle::{Check, Health, NodeHandle};
use crate::event_loop::LoopTimer;
use crate::limits::Limits;
use crate::metrics::figures::ProcessFigures;
use crate::metrics::requests::{Face, Task};

struct Well;

impl Health for Well {
    fn live(&self, _now: Instant) -> Vec<Check> {
        Vec::new()
    }

    fn ready(&self, _now: Instant) -> Vec<Check> {
        Vec::new()
    }

    fn process(&self) -> ProcessFigures {
        ProcessFigures::default()
    }

    fn is_stopping(&self) -> bool {
        false
    }
}

pub(super) fn node() -> NodeHandle {
    NodeHandle {
        face: Face::Grpc,
        backend: Backend::default(),
        limits: Arc::new(Limits::default()),
        shards: 12,
        timer: Arc::new(LoopTimer::new(Instant::now())),
        bodies: Held::new(1),
        bodies_late: Arc::default(),
        deadlines: Arc::default(),
        scrapes: Held::new(usize::MAX),
        replies: Held::new(1),
        health: Arc::new(Well),
        members: [(NodeId(1), "127.0.0.1:7001".to_owned()), (NodeId(2), "[::1]:7002".to_owned())].into(),
    }
}

#[test]
fn every_code_has_a_status() {
    for code in Code::all() {
        let expected = match code {
            Code::BadRequest | Code::CrossShard => GrpcCode::InvalidArgument,
            Code::NotFound => GrpcCode::NotFound,
            Code::PreconditionFailed => GrpcCode::FailedPrecondition,
            Code::TooLarge | Code::Overloaded | Code::NoSpace => GrpcCode::ResourceExhausted,
            Code::NotLeader | Code::NoLeader | Code::NotReady | Code::Diverged => GrpcCode::Unavailable,
            Code::Timeout => GrpcCode::DeadlineExceeded,
            Code::Unauthorized => GrpcCode::PermissionDenied,
            _ => panic!("{code} has no status here"),
        };
        let status = status::of(OwnedRefusal::new(code, "words"), &node(), None);
        let told = status.metadata().get("raftkv-code").and_then(|code| code.to_str().ok());
        assert_eq!((status.code(), status.message(), told), (expected, "words", Some(code.name())));
        // Only an unknown outcome may look like one: a client repeats the others without asking.
        assert_eq!(status.code() == GrpcCode::DeadlineExceeded, code.maybe_applied(), "{code}");
    }
}

#[test]
fn the_leader_is_named_where_it_is_known() {
    for (leader, expected) in [(None, None), (Some(NodeId(2)), Some("2 [::1]:7002")), (Some(NodeId(3)), None)] {
        let refusal = OwnedRefusal { leader, ..OwnedRefusal::new(Code::NotLeader, "") };
        let status = status::of(refusal, &node(), None);
        assert_eq!(status.metadata().get("raftkv-leader").and_then(|leader| leader.to_str().ok()), expected);
    }
}

#[test]
fn what_the_node_has_not_counted_is_counted() {
    let node = node();
    let by_face = OwnedRefusal::new(Code::TooLarge, "");
    let by_node = OwnedRefusal { is_counted: true, ..by_face.clone() };
    status::of(by_face.clone(), &node, Some(Task::Put));
    status::of(by_face, &node, None);
    status::of(by_node, &node, Some(Task::Put));
    assert_eq!(node.backend.take_refused(), [(Face::Grpc, Task::Put, Code::TooLarge)]);
}
