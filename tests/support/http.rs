//! Raw HTTP connections: requests byte by byte as a test wants them, responses taken apart.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use socket2::SockRef;

use super::cluster::Cluster;
use super::wait::PATIENCE;

/// The port of HTTP lies so far above that of `--listen`.
const PORT_OFFSET: u16 = 1_000;

/// Where a node that listens at `listen` listens for HTTP.
pub fn http_address(listen: SocketAddr) -> SocketAddr {
    SocketAddr::new(listen.ip(), listen.port() + PORT_OFFSET)
}

/// A connection to a node.
pub fn http(cluster: &Cluster, id: u64) -> Http {
    Http::connect(http_address(cluster.address(id)))
}

/// Bytes as they stand in JSON (RFC 4648 §4).
pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// One HTTP/1.1 connection.
#[derive(Debug)]
pub struct Http {
    stream: TcpStream,
    /// Read and not taken yet.
    unread: Vec<u8>,
}

/// A response, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Its code.
    pub status: u16,
    /// Names in lower case, in their order.
    pub headers: Vec<(String, String)>,
    /// What came behind them.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The body, as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }
}

impl Http {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Http {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("the delay can be switched off");
        Http { stream, unread: Vec::new() }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sent");
    }

    /// Sends bytes, unless the other side has had enough.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Says that nothing more will come.
    pub fn end(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("half closed");
    }

    /// Ends the connection with a reset, as a process does that ends with bytes unread.
    pub fn reset(self) {
        let lingering = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        lingering.expect("the end of a socket can be chosen");
    }

    /// Whether something comes within `patience`, or has come.
    pub fn answers_within(&mut self, patience: Duration) -> bool {
        self.stream.set_read_timeout(Some(patience)).expect("a timeout can be set");
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        !self.unread.is_empty() || peeked.is_ok()
    }

    /// A request with a body, and its response.
    pub fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.send(&request(method, path, headers, body));
        self.response(method == "HEAD").expect("a response")
    }

    /// The next response; `None` if the connection ends instead.
    pub fn response(&mut self, is_head: bool) -> Option<Response> {
        let mut response = self.head()?;
        if is_head || response.status == 304 {
            return Some(response);
        }
        if response.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk()? {
                response.body.extend_from_slice(&chunk);
            }
            return Some(response);
        }
        let length = response.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        response.body = self.take(length)?;
        Some(response)
    }

    /// The head of the next response; `None` if the connection ends instead.
    pub fn head(&mut self) -> Option<Response> {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            self.read().then_some(())?;
        };
        let head = String::from_utf8(self.unread.drain(..end).collect()).expect("heads are text");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        Some(Response { status: status.expect("a status line"), headers, body: Vec::new() })
    }

    /// The next chunk of a body in chunks (RFC 9112 §7.1): `Some(None)` at its end, `None` if the connection ends instead.
    pub fn chunk(&mut self) -> Option<Option<Vec<u8>>> {
        let end = loop {
            if let Some(end) = self.unread.windows(2).position(|bytes| bytes == b"\r\n") {
                break end;
            }
            self.read().then_some(())?;
        };
        let line = self.take(end + 2)?;
        let length = std::str::from_utf8(&line[..end]).ok().and_then(|length| usize::from_str_radix(length, 16).ok());
        let mut chunk = self.take(length.expect("the length of a chunk") + 2)?;
        assert!(chunk.ends_with(b"\r\n"), "what follows a chunk");
        chunk.truncate(chunk.len() - 2);
        Some(Some(chunk).filter(|chunk| !chunk.is_empty()))
    }

    /// The next bytes; `None` if the connection ends before.
    fn take(&mut self, bytes: usize) -> Option<Vec<u8>> {
        while self.unread.len() < bytes {
            self.read().then_some(())?;
        }
        Some(self.unread.drain(..bytes).collect())
    }

    /// Whether the other side ends the connection within `patience`, whatever it sends before.
    pub fn ends_within(&mut self, patience: Duration) -> bool {
        self.stream.set_read_timeout(Some(patience)).expect("a timeout can be set");
        let mut buffer = [0; 4_096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return true,
                Err(_) => return false,
            }
        }
    }

    /// Reads what comes next; false at the end.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 64 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(got) => {
                self.unread.extend_from_slice(&buffer[..got]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("no response within {PATIENCE:?}: {error}"),
        }
    }
}

/// A request as bytes.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method == "PUT" {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
