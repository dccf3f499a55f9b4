//! The gRPC face: `raftkv.v1.KV` and `raftkv.v1.Cluster`, and the services by which tools find out what there is.
//!
//! What the services are is told in `protocol/proto/`; the code that `tools/codegen` generates from that turns messages
//! into calls of the handlers here. Like REST it knows HTTP and what can be asked of a node, neither sockets nor shards.
//! Deadlines (`grpc-timeout`), the memory that messages may take, and the metadata of refusals are the same for all
//! methods and held here, around the generated code.

mod body;
mod cluster;
mod codec;
mod deadline;
mod health;
mod kv;
mod reflection;
mod scan;
mod status;

#[cfg(test)]
mod deadline_test;
#[cfg(test)]
mod limits_test;
#[cfg(test)]
mod status_test;

/// What `tools/codegen` writes.
mod generated {
    pub mod raftkv {
        include!("generated/raftkv.v1.rs");
    }

    #[expect(clippy::enum_variant_names, reason = "the names are those of the standard")]
    pub mod reflection {
        include!("generated/grpc.reflection.v1.rs");
    }

    /// The messages are those of the first version.
    pub mod reflection_alpha {
        include!("generated/grpc.reflection.v1alpha.rs");
    }
}

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http_body::Body;
use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, Request, Response, StatusCode};
use raftkv_protocol::client::Code;
use tonic::codegen::{BoxFuture, Service as _, StdError};
use tonic::server::NamedService;
use tonic_health::pb::health_server::HealthServer;

use super::ask::OwnedRefusal;
use super::node_handle::{First, NodeHandle, first};
use crate::limits::KEY_BYTES_MAX;
use crate::metrics::requests::Task;
use body::{RequestBody, Whole};
use cluster::Nodes;
use deadline::Clock;
use generated::raftkv::cluster_server::ClusterServer;
use generated::raftkv::kv_server::KvServer;
use generated::reflection::server_reflection_server::ServerReflectionServer;
use generated::reflection_alpha::server_reflection_server::ServerReflectionServer as ServerReflectionAlphaServer;
use health::Vitals;
use kv::Keys;
use reflection::Reflector;

pub use body::ResponseBody;

/// What HTTP calls the messages of gRPC.
const GRPC: &str = "application/grpc";

/// The paths of the methods whose requests are streams begin so.
const REFLECTION: &str = "/grpc.reflection.";

/// The longest message but those of `raftkv.v1.KV`: names, and what it takes to encode them.
const SMALL_BYTES_MAX: usize = KEY_BYTES_MAX;
/// What stands before each message.
const PREFIX_BYTES: usize = 5;

/// What becomes of a call.
type Dispatched = BoxFuture<Response<tonic::body::Body>, Infallible>;

/// The services.
#[derive(Clone)]
pub struct Grpc {
    node: Arc<NodeHandle>,
    /// The longest message of `raftkv.v1.KV`.
    write_bytes_max: usize,
    kv: KvServer<Keys>,
    cluster: ClusterServer<Nodes>,
    health: HealthServer<Vitals>,
    reflection: ServerReflectionServer<Reflector>,
    reflection_alpha: ServerReflectionAlphaServer<Reflector>,
}

impl fmt::Debug for Grpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grpc").finish_non_exhaustive()
    }
}

/// Whether a request is meant for this face.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(GRPC.as_bytes()))
}

impl Grpc {
    /// The services of a node.
    #[must_use]
    pub fn new(node: Arc<NodeHandle>) -> Grpc {
        let write_bytes_max = node.limits.write_bytes_max();
        let (vitals, reflector) = (Vitals(node.clone()), Arc::new(Reflector(node.clone())));
        let reflection_alpha = ServerReflectionAlphaServer::from_arc(Arc::clone(&reflector));
        Grpc {
            kv: KvServer::new(Keys(node.clone())).max_decoding_message_size(write_bytes_max),
            cluster: ClusterServer::new(Nodes(node.clone())).max_decoding_message_size(SMALL_BYTES_MAX),
            health: HealthServer::new(vitals).max_decoding_message_size(SMALL_BYTES_MAX),
            reflection: ServerReflectionServer::from_arc(reflector).max_decoding_message_size(SMALL_BYTES_MAX),
            reflection_alpha: reflection_alpha.max_decoding_message_size(SMALL_BYTES_MAX),
            write_bytes_max,
            node,
        }
    }

    /// Serves a call, up to the head of its response. Nothing is served beyond the call's own deadline.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<StdError>,
    {
        if !speaks_protobuf(request.headers()) {
            let mut response = Response::new(self.response_body(tonic::body::Body::empty(), None));
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return response;
        }
        let task = task(request.uri().path());
        let mut clock = match deadline::timeout(request.headers()) {
            Ok(timeout) => timeout.and_then(|timeout| Clock::new(timeout, &self.node)),
            Err(refusal) => return self.refuse(Some(task), refusal),
        };
        let share = Arc::new(self.node.bodies.hold(0));
        let asks_on = request.uri().path().starts_with(REFLECTION);
        let bytes_max = PREFIX_BYTES + self.message_bytes_max(request.uri().path());
        let request = request.map(|body| match asks_on {
            true => RequestBody::stream(body, &self.node, task),
            false => RequestBody::whole(body, &self.node, task, Whole::new(Arc::clone(&share), bytes_max)),
        });
        let answered = match &mut clock {
            Some(clock) => first(self.dispatch(request), clock).await,
            None => First::Done(self.dispatch(request).await),
        };
        drop(share);
        match answered {
            First::Done(Ok(response)) => {
                status::complete(response, &self.node, task).map(|body| self.response_body(body, clock))
            }
            // If the node was asked, it counts what becomes of that.
            First::Late => self.refuse(None, deadline::passed(&self.node)),
        }
    }

    /// The longest message of a call.
    fn message_bytes_max(&self, path: &str) -> usize {
        if service(path) == Some(KvServer::<Keys>::NAME) { self.write_bytes_max } else { SMALL_BYTES_MAX }
    }

    fn dispatch(&self, request: Request<RequestBody>) -> Dispatched {
        match service(request.uri().path()) {
            Some(KvServer::<Keys>::NAME) => self.kv.clone().call(request),
            Some(ClusterServer::<Nodes>::NAME) => self.cluster.clone().call(request),
            Some(HealthServer::<Vitals>::NAME) => self.health.clone().call(request),
            Some(ServerReflectionServer::<Reflector>::NAME) => self.reflection.clone().call(request),
            Some(ServerReflectionAlphaServer::<Reflector>::NAME) => self.reflection_alpha.clone().call(request),
            _ => Box::pin(std::future::ready(Ok(tonic::Status::unimplemented("").into_http()))),
        }
    }

    fn refuse(&self, task: Option<Task>, refusal: OwnedRefusal) -> Response<ResponseBody> {
        let response = status::of(refusal, &self.node, task).into_http::<tonic::body::Body>();
        response.map(|body| self.response_body(body, None))
    }

    fn response_body(&self, body: tonic::body::Body, clock: Option<Clock>) -> ResponseBody {
        ResponseBody::new(body, &self.node, clock)
    }
}

/// The service that a call is for, by its path.
fn service(path: &str) -> Option<&str> {
    path.split('/').nth(1)
}

/// What a call asks for, by its path.
fn task(path: &str) -> Task {
    match path {
        "/raftkv.v1.KV/Put" | "/raftkv.v1.KV/CompareAndSet" => Task::Put,
        "/raftkv.v1.KV/Get" => Task::Get,
        "/raftkv.v1.KV/Delete" => Task::Delete,
        "/raftkv.v1.KV/Batch" => Task::Batch,
        "/raftkv.v1.KV/Scan" => Task::Scan,
        "/raftkv.v1.Cluster/Status" => Task::Status,
        "/grpc.health.v1.Health/Check" | "/grpc.health.v1.Health/Watch" => Task::Health,
        _ if path.starts_with(REFLECTION) => Task::Reflection,
        _ => Task::Other,
    }
}

/// Whether messages are encoded as they are understood here.
fn speaks_protobuf(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim_ascii();
    matches!(kind.strip_prefix(GRPC), Some("" | "+proto"))
}

/// A refusal of a request that makes no sense.
fn bad(message: impl Into<String>) -> OwnedRefusal {
    OwnedRefusal::new(Code::BadRequest, message)
}
