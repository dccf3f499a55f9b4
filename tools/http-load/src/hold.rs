//! Connections that do nothing, or little: what they take of a server, and what they do to others.
//!
//! Idle connections have been of use once before they rest. Slow ones are of HTTP/1.1: a half of them send a put byte by
//! byte, the others ask for a large value and read it as slowly; each begins again when it is through, or thrown out.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use raftkv_bench::blocking;
use raftkv_bench::json::{Object, optional, quoted, rounded};
use raftkv_bench::process::Usage;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::sleep;

use crate::args::{Hold, Kind};
use crate::rest;

/// The key that idle connections have asked for, and its value.
const SMALL: (&[u8], &[u8]) = (b"hold/small", b"a small value");
/// The key whose value is read slowly.
const LARGE_KEY: &[u8] = b"hold/large";
const LARGE_BYTES: usize = 256 << 10;
/// How much a slow reader takes at a time, and what its system keeps for it.
const SIP_BYTES: usize = 1 << 10;
const RECEIVE_BUFFER_BYTES: u32 = 4 << 10;
/// How long everything may take that does not go slowly on purpose.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the server's memory is left alone before it is looked at.
const REST: Duration = Duration::from_secs(2);

/// A connection that rests.
enum Held {
    Stream(StdStream),
    /// Without anybody who may send requests, the connection would end.
    Http2 {
        connection: JoinHandle<()>,
        _requests: h2::client::SendRequest<bytes::Bytes>,
    },
}

impl Held {
    fn is_open(&self) -> bool {
        match self {
            Held::Stream(stream) => {
                matches!(stream.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Held::Http2 { connection, .. } => !connection.is_finished(),
        }
    }
}

/// Opens and holds.
pub fn execute(args: &Hold) -> Result<(), String> {
    let runtime = crate::runtime()?;
    LocalSet::new().block_on(&runtime, hold(args))
}

async fn hold(args: &Hold) -> Result<(), String> {
    if args.slow > 0 || args.kind != Kind::Binary {
        let mut writer = rest::Connection::connect(args.endpoint, PATIENCE).await.map_err(|error| error.to_string())?;
        writer.put(SMALL.0, SMALL.1).await.map_err(|error| error.to_string())?;
        writer.put(LARGE_KEY, &vec![b'.'; LARGE_BYTES]).await.map_err(|error| error.to_string())?;
        sleep(REST).await;
    }
    let anonymous = || args.pid.map(|pid| Usage::of(&[pid]).map(|usage| usage.rss_anon_bytes)).transpose();
    let before = anonymous()?;
    let mut held = Vec::with_capacity(args.idle as usize);
    for number in 0..args.idle {
        held.push(open(args).await.map_err(|error| format!("connection {number}: {error}"))?);
    }
    for number in 0..args.slow {
        let (endpoint, pause) = (args.endpoint, args.pause);
        drop(match number % 2 {
            0 => spawn_local(async move { over_and_over(async || send_slowly(endpoint, pause, number).await).await }),
            _ => spawn_local(async move { over_and_over(async || read_slowly(endpoint, pause).await).await }),
        });
    }
    sleep(REST).await;
    let after = anonymous()?;
    let asked = Instant::now();
    drop(open(args).await.map_err(|error| format!("one more connection: {error}"))?);
    let one_more_ms = asked.elapsed().as_secs_f64() * 1e3;
    let open = held.iter().filter(|held| held.is_open()).count();
    if open < held.len() {
        return Err(format!("{} of {} connections are open no more", held.len() - open, held.len()));
    }
    let each = before.zip(after).map(|(before, after)| (after as f64 - before as f64) / f64::from(args.idle.max(1)));
    print(args, each, one_more_ms)?;
    if !args.once {
        std::future::pending::<()>().await;
    }
    Ok(())
}

fn print(args: &Hold, each: Option<f64>, one_more_ms: f64) -> Result<(), String> {
    let mut json = Object::default();
    let kind = match args.kind {
        Kind::Http => "http",
        Kind::Http2 => "http2",
        Kind::Binary => "binary",
    };
    json.field("kind", quoted(kind)).field("idle", args.idle).field("slow", args.slow);
    json.field("rss_anon_bytes_each", optional(each.map(rounded))).field("one_more_ms", rounded(one_more_ms));
    writeln!(io::stdout(), "{}", json.finish()).map_err(|error| error.to_string())
}

/// A connection that has been of use once.
async fn open(args: &Hold) -> Result<Held, String> {
    match args.kind {
        Kind::Http => {
            let mut connection = rest::Connection::connect(args.endpoint, PATIENCE).await.map_err(text)?;
            connection.get(SMALL.0).await.map_err(text)?;
            connection.into_std().map(Held::Stream).map_err(text)
        }
        Kind::Binary => {
            let connection = blocking::Connection::open(&args.endpoint.to_string(), PATIENCE).map_err(text)?;
            let stream = connection.into_stream().map_err(text)?;
            Ok(Held::Stream(OwnedFd::from(stream).into()))
        }
        Kind::Http2 => {
            let stream = TcpStream::connect(args.endpoint).await.map_err(text)?;
            open_http2(stream, args.endpoint).await.map_err(text)
        }
    }
}

async fn open_http2(stream: TcpStream, endpoint: SocketAddr) -> Result<Held, h2::Error> {
    let (mut requests, connection) = h2::client::handshake(stream).await?;
    let connection = spawn_local(async move { drop(connection.await) });
    let key = String::from_utf8_lossy(SMALL.0);
    let uri = format!("http://{endpoint}/v1/kv/{key}");
    let request = http::Request::get(uri).body(()).expect("a fixed path is valid");
    let (response, _) = requests.send_request(request, true)?;
    let mut body = response.await?.into_body();
    while let Some(chunk) = body.data().await {
        body.flow_control().release_capacity(chunk?.len())?;
    }
    Ok(Held::Http2 { connection, _requests: requests })
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

async fn over_and_over(request: impl AsyncFn() -> io::Result<()>) {
    loop {
        // However it has ended, by the server's clock too, the next one begins.
        if request().await.is_err() {
            sleep(Duration::from_secs(1)).await;
        }
    }
}

async fn send_slowly(endpoint: SocketAddr, pause: Duration, number: u32) -> io::Result<()> {
    let mut stream = TcpStream::connect(endpoint).await?;
    stream.set_nodelay(true)?;
    let value = "a value";
    let length = value.len();
    let request = format!("PUT /v1/kv/hold/{number} HTTP/1.1\r\nhost: slow\r\ncontent-length: {length}\r\n\r\n{value}");
    for byte in request.bytes() {
        stream.write_all(&[byte]).await?;
        sleep(pause).await;
    }
    stream.read(&mut [0; SIP_BYTES]).await.map(drop)
}

async fn read_slowly(endpoint: SocketAddr, pause: Duration) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    let mut stream = socket.connect(endpoint).await?;
    let key = String::from_utf8_lossy(LARGE_KEY);
    stream.write_all(format!("GET /v1/kv/{key} HTTP/1.1\r\nhost: slow\r\n\r\n").as_bytes()).await?;
    let (mut sip, mut left) = ([0; SIP_BYTES], LARGE_BYTES);
    while left > 0 {
        let got = stream.read(&mut sip).await?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left = left.saturating_sub(got);
        sleep(pause).await;
    }
    Ok(())
}
