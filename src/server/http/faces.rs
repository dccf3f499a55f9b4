//! The faces that share the port of HTTP, and which of them a request is for.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::{Request, Response};
#[cfg(feature = "rest")]
use tower_service::Service as _;

#[cfg(feature = "grpc")]
use crate::api::grpc::{self, Grpc};
use crate::api::node_handle::NodeHandle;
#[cfg(feature = "rest")]
use crate::api::rest;
use crate::config::Config;
use crate::metrics::requests::Face;

/// The faces of a core.
#[derive(Debug)]
pub(super) struct Faces {
    #[cfg(feature = "rest")]
    node: Arc<NodeHandle>,
    #[cfg(feature = "rest")]
    rest: axum::Router,
    #[cfg(feature = "grpc")]
    grpc: Grpc,
}

impl Faces {
    pub(super) fn new(node: NodeHandle, config: &Config) -> Faces {
        #[cfg(not(feature = "rest"))]
        let _ = config;
        #[cfg(feature = "grpc")]
        let grpc = Grpc::new(Arc::new(NodeHandle { face: Face::Grpc, ..node.clone() }));
        #[cfg(feature = "rest")]
        let node = Arc::new(node);
        Faces {
            #[cfg(feature = "rest")]
            rest: rest::router(Arc::clone(&node), ui_settings(config)),
            #[cfg(feature = "grpc")]
            grpc,
            #[cfg(feature = "rest")]
            node,
        }
    }

    /// Answers a request over HTTP/2: gRPC has messages of its own kind, all else is for REST. What a face needs for that is in a
    /// box of its own, as it would be moved several times on its way to the loop's tasks.
    pub(super) async fn either(&self, request: Request<Incoming>) -> Response<FaceBody> {
        #[cfg(feature = "grpc")]
        if grpc::is_grpc(request.headers()) {
            return Box::pin(self.grpc.answer(request)).await.map(FaceBody::Grpc);
        }
        Box::pin(self.rest(request)).await
    }

    /// Answers a request for REST.
    #[cfg(feature = "rest")]
    pub(super) async fn rest(&self, request: Request<Incoming>) -> Response<FaceBody> {
        let task = rest::task(request.method(), request.uri().path());
        let Ok(response) = self.rest.clone().call(request.map(axum::body::Body::new)).await;
        if let (Some(task), Some(rest::Uncounted(code))) = (task, response.extensions().get()) {
            self.node.backend.refused(Face::Rest, task, *code);
        }
        response.map(FaceBody::Rest)
    }

    #[cfg(not(feature = "rest"))]
    pub(super) async fn rest(&self, _request: Request<Incoming>) -> Response<FaceBody> {
        let mut response = Response::new(FaceBody::Empty);
        *response.status_mut() = hyper::StatusCode::NOT_FOUND;
        response
    }
}

/// What the page for people has to know.
#[cfg(feature = "rest")]
fn ui_settings(config: &Config) -> rest::UiSettings {
    let slow_sync_ms = u64::try_from(config.slow_sync.as_millis()).unwrap_or(u64::MAX);
    rest::UiSettings { write: config.ui_write, slow_sync_ms }
}

/// The body of a face's response.
pub(super) enum FaceBody {
    #[cfg(feature = "rest")]
    Rest(axum::body::Body),
    #[cfg(feature = "grpc")]
    Grpc(grpc::ResponseBody),
    #[cfg(not(feature = "rest"))]
    Empty,
}

impl FaceBody {
    /// By when the call that this answers is to be over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            #[cfg(feature = "grpc")]
            FaceBody::Grpc(body) => body.deadline(),
            #[cfg(feature = "rest")]
            FaceBody::Rest(_) => None,
            #[cfg(not(feature = "rest"))]
            FaceBody::Empty => None,
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Body for FaceBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            #[cfg(feature = "rest")]
            FaceBody::Rest(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            #[cfg(feature = "grpc")]
            FaceBody::Grpc(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            #[cfg(not(feature = "rest"))]
            FaceBody::Empty => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            #[cfg(feature = "rest")]
            FaceBody::Rest(body) => body.is_end_stream(),
            #[cfg(feature = "grpc")]
            FaceBody::Grpc(body) => body.is_end_stream(),
            #[cfg(not(feature = "rest"))]
            FaceBody::Empty => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            #[cfg(feature = "rest")]
            FaceBody::Rest(body) => body.size_hint(),
            #[cfg(feature = "grpc")]
            FaceBody::Grpc(_) => SizeHint::default(),
            #[cfg(not(feature = "rest"))]
            FaceBody::Empty => SizeHint::with_exact(0),
        }
    }
}
