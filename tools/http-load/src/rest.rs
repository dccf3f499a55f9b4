//! REST on one connection of HTTP/1.1, one request after the other.
//!
//! No more than what the load needs is looked at, so that little of the shared processors goes into it: the status, and
//! where the body ends.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::link::CallError;

/// The longest response that is understood.
const RESPONSE_BYTES_MAX: usize = 2 << 20;

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    authority: String,
    request: Vec<u8>,
    response: Vec<u8>,
}

impl Connection {
    /// Dials.
    pub async fn connect(address: SocketAddr, timeout: Duration) -> Result<Connection, CallError> {
        let dialled = tokio::time::timeout(timeout, TcpStream::connect(address)).await;
        let stream = dialled.map_err(CallError::broken)?.map_err(CallError::broken)?;
        stream.set_nodelay(true).map_err(CallError::broken)?;
        Ok(Connection { stream, authority: address.to_string(), request: Vec::new(), response: Vec::new() })
    }

    /// Reads a key, which must be there.
    pub async fn get(&mut self, key: &[u8]) -> Result<(), CallError> {
        self.begin("GET", key);
        self.request.extend_from_slice(b"\r\n");
        self.exchange().await
    }

    /// Writes a key.
    pub async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), CallError> {
        self.begin("PUT", key);
        write!(self.request, "content-length: {}\r\n\r\n", value.len()).expect("a vector takes everything");
        self.request.extend_from_slice(value);
        self.exchange().await
    }

    /// The connection alone, which does not block.
    pub fn into_std(self) -> io::Result<std::net::TcpStream> {
        self.stream.into_std()
    }

    /// The keys of a load need no escapes.
    fn begin(&mut self, method: &str, key: &[u8]) {
        self.request.clear();
        let request = &mut self.request;
        request.extend_from_slice(method.as_bytes());
        request.extend_from_slice(b" /v1/kv/");
        request.extend_from_slice(key);
        request.extend_from_slice(b" HTTP/1.1\r\nhost: ");
        request.extend_from_slice(self.authority.as_bytes());
        request.extend_from_slice(b"\r\n");
    }

    async fn exchange(&mut self) -> Result<(), CallError> {
        self.stream.write_all(&self.request).await.map_err(CallError::broken)?;
        self.response.clear();
        let mut whole = None;
        loop {
            if self.stream.read_buf(&mut self.response).await.map_err(CallError::broken)? == 0 {
                return Err(CallError::Broken("the server has closed the connection".into()));
            }
            if whole.is_none() {
                whole = head(&self.response)?;
            }
            match whole {
                Some((status, bytes)) if self.response.len() == bytes => return check(status),
                Some((_, bytes)) if self.response.len() > bytes => {
                    return Err(CallError::Broken("more came than was asked for".into()));
                }
                _ if self.response.len() > RESPONSE_BYTES_MAX => {
                    return Err(CallError::Broken("the response does not end".into()));
                }
                _ => {}
            }
        }
    }
}

/// The status, and how many bytes head and body have; `None` if the head has not come yet.
fn head(response: &[u8]) -> Result<Option<(u16, usize)>, CallError> {
    let garbled = || CallError::Broken("this is no response of HTTP/1.1 with its length".into());
    let Some(head_end) = response.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&response[..head_end]).map_err(CallError::broken)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let (status, length) = status.zip(length).ok_or_else(garbled)?;
    Ok(Some((status, head_end + 4 + length)))
}

fn check(status: u16) -> Result<(), CallError> {
    match status {
        200 => Ok(()),
        404 => Err(CallError::Status("not_found")),
        503 => Err(CallError::Status("unavailable")),
        504 => Err(CallError::Status("timeout")),
        _ => Err(CallError::Status("other_http_status")),
    }
}
