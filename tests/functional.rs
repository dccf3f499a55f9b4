//! What a node and a cluster do for their users, with real processes, sockets and disks: every operation, restarts,
//! the command line, reloads and the service manager, wrong bytes, limits of connections, snapshots, HTTP and its
//! description, metrics, who may join, and what goes on while a disk hangs.

mod support;

#[path = "functional/batches.rs"]
mod batches;
#[path = "functional/command_line.rs"]
mod command_line;
#[path = "functional/connections.rs"]
mod connections;
#[path = "functional/cores.rs"]
mod cores;
#[path = "functional/grpc_limits.rs"]
mod grpc_limits;
#[path = "functional/hanging_disks.rs"]
mod hanging_disks;
#[path = "functional/hostile_bytes.rs"]
mod hostile_bytes;
#[path = "functional/http2_floods.rs"]
mod http2_floods;
#[path = "functional/http_limits.rs"]
mod http_limits;
#[path = "functional/http_readers.rs"]
mod http_readers;
#[path = "functional/identity.rs"]
mod identity;
#[path = "functional/image.rs"]
mod image;
#[path = "functional/limits.rs"]
mod limits;
#[path = "functional/links.rs"]
mod links;
#[path = "functional/long_scans.rs"]
mod long_scans;
#[path = "functional/members.rs"]
mod members;
#[path = "functional/metrics.rs"]
mod metrics;
#[path = "functional/openapi.rs"]
mod openapi;
#[path = "functional/operations.rs"]
mod operations;
#[path = "functional/reload.rs"]
mod reload;
#[path = "functional/rest.rs"]
mod rest;
#[path = "functional/restarts.rs"]
mod restarts;
#[path = "functional/resting_http.rs"]
mod resting_http;
#[path = "functional/service_manager.rs"]
mod service_manager;
#[path = "functional/slow_http.rs"]
mod slow_http;
#[path = "functional/snapshots.rs"]
mod snapshots;
#[path = "functional/status_page.rs"]
mod status_page;
