//! The reference for REST: its keys out of a map in memory, served by axum and hyper on tokio's runtime of several
//! threads, as such servers ordinarily are. The responses have the same status, headers and bodies as RaftKV's.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;
use axum::serve::ListenerExt as _;
use http::header::{CONTENT_TYPE, ETAG, HeaderValue};
use http::{HeaderMap, StatusCode};
use percent_encoding::percent_decode_str;
use tokio::net::TcpListener;
use tokio::runtime::Builder;

use crate::args::Serve;

const KEYS: &str = "/v1/kv/";
const VALUE_BYTES_MAX: usize = 1 << 20;

/// Keys, and their values and versions.
#[derive(Debug, Default)]
struct Map {
    values: HashMap<Vec<u8>, (u64, Bytes)>,
    writes: u64,
}

#[derive(Clone, Debug, Default)]
struct Store(Arc<RwLock<Map>>);

impl Store {
    fn read(&self) -> RwLockReadGuard<'_, Map> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Map> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves until the process is ended.
pub fn serve(args: &Serve) -> Result<(), String> {
    let runtime = Builder::new_multi_thread().worker_threads(args.threads as usize).enable_all().build();
    let served = runtime.map_err(|error| error.to_string())?.block_on(async {
        let listener = TcpListener::bind(args.listen).await?;
        writeln!(io::stdout(), "http-load serves on {}", listener.local_addr()?)?;
        let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
        let keys = get(get_key).put(put_key).delete(delete_key);
        let router = Router::new().route("/v1/kv/{*key}", keys).with_state(Store::default());
        axum::serve(listener, router).await
    });
    served.map_err(|error| error.to_string())
}

fn key(request: &Request) -> Vec<u8> {
    percent_decode_str(request.uri().path().strip_prefix(KEYS).unwrap_or_default()).collect()
}

async fn get_key(State(store): State<Store>, request: Request) -> Response {
    let found = store.read().values.get(&key(&request)).cloned();
    match found {
        Some((version, value)) => respond(StatusCode::OK, "application/octet-stream", Some(version), value),
        None => respond(StatusCode::NOT_FOUND, "application/problem+json", None, Bytes::new()),
    }
}

async fn put_key(State(store): State<Store>, request: Request) -> Response {
    let key = key(&request);
    let Ok(value) = to_bytes(request.into_body(), VALUE_BYTES_MAX).await else {
        return respond(StatusCode::PAYLOAD_TOO_LARGE, "application/problem+json", None, Bytes::new());
    };
    let version = {
        let mut map = store.write();
        map.writes += 1;
        let version = map.writes;
        map.values.insert(key, (version, value));
        version
    };
    let body = format!("{{\"version\":{version}}}");
    respond(StatusCode::OK, "application/json", Some(version), body.into())
}

async fn delete_key(State(store): State<Store>, request: Request) -> Response {
    let deleted = store.write().values.remove(&key(&request)).is_some();
    respond(StatusCode::OK, "application/json", None, format!("{{\"deleted\":{deleted}}}").into())
}

fn respond(status: StatusCode, kind: &'static str, version: Option<u64>, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(version) = version {
        let tag = HeaderValue::try_from(format!("\"{version}\"")).expect("digits in quotes can stand in a header");
        headers.insert(ETAG, tag);
    }
    response
}
