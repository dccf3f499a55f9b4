//! `grpc.health.v1.Health`: whether the node serves, which is what `/readyz` says.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::Sleep;
use raftkv_protocol::client::Code;
use tonic::codegen::tokio_stream::Stream;
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::cluster::Nodes;
use super::generated::raftkv::cluster_server::ClusterServer;
use super::generated::raftkv::kv_server::KvServer;
use super::kv::Keys;
use super::status;
use crate::api::ask::OwnedRefusal;
use crate::api::node_handle::NodeHandle;
use crate::metrics::requests::Task;

/// How often a watch looks. Looking asks nobody.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// The health of a node.
#[derive(Debug)]
pub struct Vitals(pub Arc<NodeHandle>);

/// Whether there is a service of this name; the empty one stands for the node.
fn is_known(service: &str) -> bool {
    ["", KvServer::<Keys>::NAME, ClusterServer::<Nodes>::NAME].contains(&service)
}

/// All services of a node serve, or none does.
fn serving(node: &NodeHandle) -> ServingStatus {
    let checks = node.health.ready(node.timer.now());
    if checks.iter().all(|check| check.fault.is_none()) { ServingStatus::Serving } else { ServingStatus::NotServing }
}

#[tonic::async_trait]
impl Health for Vitals {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !is_known(&service) {
            let refusal = OwnedRefusal::new(Code::NotFound, format!("there is no service `{service}` here"));
            return Err(status::of(refusal, &self.0, Some(Task::Health)));
        }
        Ok(Response::new(HealthCheckResponse { status: serving(&self.0).into() }))
    }

    type WatchStream = Watch;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Watch>, Status> {
        let is_known = is_known(&request.into_inner().service);
        let sleep = self.0.timer.sleep(LOOK_INTERVAL);
        Ok(Response::new(Watch { node: self.0.clone(), is_known, told: None, sleep }))
    }
}

/// Tells the status and each change of it, until the node stops.
pub struct Watch {
    node: Arc<NodeHandle>,
    is_known: bool,
    /// What the client knows.
    told: Option<ServingStatus>,
    sleep: Pin<Box<dyn Sleep>>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("told", &self.told).finish_non_exhaustive()
    }
}

impl Stream for Watch {
    type Item = Result<HealthCheckResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let status = if self.is_known { serving(&self.node) } else { ServingStatus::ServiceUnknown };
            if self.told != Some(status) {
                self.told = Some(status);
                return Poll::Ready(Some(Ok(HealthCheckResponse { status: status.into() })));
            }
            if self.node.health.is_stopping() {
                return Poll::Ready(None);
            }
            ready!(self.sleep.as_mut().poll(context));
            self.sleep = self.node.timer.sleep(LOOK_INTERVAL);
        }
    }
}
