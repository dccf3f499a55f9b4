//! The reference for REST: its keys out of a map in memory, served by axum and hyper on tokio's runtime of several
//! threads, as such servers ordinarily are. The responses have the same status, headers and bodies as RaftKV's. Its router
//! has the paths of RaftKV's, so that finding a handler costs the same, but only the keys are served.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{any, get, post};
use axum::serve::ListenerExt as _;
use http::header::{CONTENT_TYPE, ETAG, HeaderValue};
use http::{HeaderMap, StatusCode};
use percent_encoding::percent_decode_str;
use tokio::net::TcpListener;
use tokio::runtime::Builder;

use crate::args::Serve;

const KEYS: &str = "/v1/kv/";
const VALUE_BYTES_MAX: usize = 1 << 20;

const KEY_PATH: &str = "/v1/kv/{*key}";
/// What else the REST face has: what any method is for, what is posted, and what is got.
const NO_KEY_PATH: &str = "/v1/kv/";
const BATCH_PATH: &str = "/v1/batch";
const OTHER_PATHS: [&str; 9] =
    ["/v1/kv", "/v1/status", "/v1/cluster", "/metrics", "/livez", "/readyz", "/openapi.json", "/", "/v1/ui"];

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
        axum::serve(listener, router()).await
    });
    served.map_err(|error| error.to_string())
}

fn router() -> Router {
    let keys = get(get_key).put(put_key).delete(delete_key).fallback(no_method);
    let others = OTHER_PATHS
        .into_iter()
        .fold(Router::new(), |router, path| router.route(path, get(not_served).fallback(no_method)));
    others
        .route(KEY_PATH, keys)
        .route(NO_KEY_PATH, any(not_served))
        .route(BATCH_PATH, post(not_served).fallback(no_method))
        .with_state(Store::default())
        .fallback(no_path)
}

async fn not_served() -> StatusCode {
    StatusCode::NOT_IMPLEMENTED
}

async fn no_method() -> StatusCode {
    StatusCode::METHOD_NOT_ALLOWED
}

async fn no_path() -> StatusCode {
    StatusCode::NOT_FOUND
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{BATCH_PATH, KEY_PATH, NO_KEY_PATH, OTHER_PATHS};

    #[test]
    fn the_paths_are_those_of_the_rest_face() {
        let face = [include_str!("../../../src/api/rest/mod.rs"), include_str!("../../../src/api/rest/ui/mod.rs")];
        let routes = face.iter().flat_map(|source| source.split(".route(\"").skip(1));
        let paths: BTreeSet<&str> = routes.filter_map(|rest| rest.split('"').next()).collect();
        let own = OTHER_PATHS.into_iter().chain([KEY_PATH, NO_KEY_PATH, BATCH_PATH]);
        assert_eq!(own.collect::<BTreeSet<_>>(), paths);
    }
}
