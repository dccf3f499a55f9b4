//! One blocking connection to one node.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use raftkv_protocol::client::{Operation, Reply, Request};
use raftkv_protocol::frame::{self, CLIENT_FRAME_MAX, Frame, PEER_FRAME_MAX};
use raftkv_protocol::hello::{Auth, Hello, HelloReply, HelloRole, VERSION_MAX, VERSION_MIN};
use raftkv_protocol::types::{ClusterId, RequestId};

use crate::frames::{self, Direction};
use crate::words::escape;

/// Once something came for `raw`, what does not follow within this time is not waited for.
const RAW_QUIET: Duration = Duration::from_millis(200);

/// How to talk to the node.
#[derive(Clone, Debug)]
pub struct Settings {
    /// As `host:port`.
    pub target: String,
    /// For the connection and for each reply.
    pub timeout: Duration,
    pub greeting: Greeting,
    pub trace: Trace,
}

/// Whether a connection begins with the hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    Hello,
    Nothing,
}

/// Whether frames are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    Nothing,
    Frames,
}

/// Why there is no reply.
#[derive(Debug)]
pub struct SessionError(String);

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for SessionError {
    fn from(message: String) -> SessionError {
        SessionError(message)
    }
}

/// A connection that has been greeted. After an error it is of no more use.
#[derive(Debug)]
pub struct Session {
    stream: TcpStream,
    settings: Settings,
    input: Vec<u8>,
    next_id: u64,
}

impl Session {
    /// Connects and says hello.
    pub fn open(settings: &Settings) -> Result<Session, SessionError> {
        let stream = connect(&settings.target, settings.timeout)?;
        stream.set_nodelay(true).map_err(|error| format!("{}: {error}", settings.target))?;
        let mut session = Session { stream, settings: settings.clone(), input: Vec::new(), next_id: 1 };
        if settings.greeting == Greeting::Hello {
            session.greet()?;
        }
        Ok(session)
    }

    fn greet(&mut self) -> Result<(), SessionError> {
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            cluster: ClusterId(0),
            role: HelloRole::Client { home: None },
            features: 0,
            auth: Auth::default(),
        };
        let mut bytes = Vec::new();
        hello.encode(&mut bytes);
        self.send(&bytes)?;
        let deadline = Instant::now() + self.settings.timeout;
        let target = self.settings.target.clone();
        self.receive(deadline, |frame| match HelloReply::decode(frame.kind, frame.payload) {
            Ok(HelloReply::Welcome { .. }) => Some(Ok(())),
            Ok(HelloReply::Refused { reason, message }) => {
                let message = escape(message.as_bytes());
                Some(Err(format!("{target} refused the hello ({}): {message}", reason.name()).into()))
            }
            Err(error) => Some(Err(format!("{target} answered the hello with something else: {error}").into())),
        })?
    }

    /// Asks, waits, and lets `read` have the reply.
    pub fn call<T>(&mut self, operation: Operation<'_>, read: impl FnOnce(&Reply<'_>) -> T) -> Result<T, SessionError> {
        let id = RequestId(self.next_id);
        self.next_id += 1;
        let mut bytes = Vec::new();
        Request { id, operation }.encode(&mut bytes);
        if bytes.len() > CLIENT_FRAME_MAX {
            let message = format!("the request has {} bytes, a frame holds at most {CLIENT_FRAME_MAX}", bytes.len());
            return Err(message.into());
        }
        self.send(&bytes)?;
        let deadline = Instant::now() + self.settings.timeout;
        let mut read = Some(read);
        self.receive(deadline, |frame| match Reply::decode(frame.kind, frame.payload) {
            // The node's last word before it closes the connection, as it could not read what was sent.
            Ok(Reply { id: RequestId(0), result: Err(refusal), .. }) => {
                Some(Err(escape(refusal.to_string().as_bytes()).into()))
            }
            // Replies to what `raw` sent may still come in between.
            Ok(reply) if reply.id != id => None,
            Ok(reply) => read.take().map(|read| Ok(read(&reply))),
            Err(error) => Some(Err(format!("the node's reply cannot be read: {error}").into())),
        })?
    }

    /// Sends bytes as they are and prints what comes back, until the node closes the connection or is quiet. Returns
    /// whether the connection still stands.
    ///
    /// # Errors
    /// The session's inside, `out`'s outside.
    pub fn raw(&mut self, bytes: &[u8], out: &mut dyn Write) -> io::Result<Result<bool, SessionError>> {
        if let Err(error) = self.send(bytes) {
            return Ok(Err(error));
        }
        let mut until = Instant::now() + self.settings.timeout;
        let end = loop {
            match self.fill(until) {
                Ok(0) => break Ok(false),
                Ok(_) => until = Instant::now() + RAW_QUIET.min(self.settings.timeout),
                Err(error) if is_timeout(&error) && !self.input.is_empty() => break Ok(true),
                Err(error) => break Err(self.broken(&error)),
            }
        };
        frames::print_all(out, Direction::Received, &std::mem::take(&mut self.input))?;
        if let Ok(false) = end {
            writeln!(out, "the node closed the connection")?;
        }
        Ok(end)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        self.trace(Direction::Sent, bytes);
        self.stream.write_all(bytes).map_err(|error| self.broken(&error))
    }

    /// Hands frames to `on_frame` until it has what it wants.
    fn receive<T>(
        &mut self,
        deadline: Instant,
        mut on_frame: impl FnMut(&Frame<'_>) -> Option<T>,
    ) -> Result<T, SessionError> {
        loop {
            let unreadable = |error| {
                self.trace(Direction::Received, &self.input);
                format!("what {} sends is not RaftKV's protocol: {error}", self.settings.target)
            };
            if let Some(frame) = frame::parse(&self.input, PEER_FRAME_MAX).map_err(unreadable)? {
                let consumed = frame.consumed;
                self.trace(Direction::Received, &self.input[..consumed]);
                let wanted = on_frame(&frame);
                self.input.drain(..consumed);
                match wanted {
                    Some(wanted) => return Ok(wanted),
                    None => continue,
                }
            }
            match self.fill(deadline) {
                Ok(0) => return Err(format!("{} closed the connection", self.settings.target).into()),
                Ok(_) => {}
                Err(error) => return Err(self.broken(&error)),
            }
        }
    }

    /// Reads once, waiting until the deadline at most. 0 is the end of the stream.
    fn fill(&mut self, deadline: Instant) -> io::Result<usize> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; 16 << 10];
        let read = self.stream.read(&mut chunk)?;
        self.input.extend_from_slice(&chunk[..read]);
        Ok(read)
    }

    fn trace(&self, direction: Direction, bytes: &[u8]) {
        if self.settings.trace == Trace::Frames {
            // Who closed the error output does not want to see it.
            let _ = frames::print_all(&mut io::stderr().lock(), direction, bytes);
        }
    }

    fn broken(&self, error: &io::Error) -> SessionError {
        let target = &self.settings.target;
        if is_timeout(error) {
            return format!("{target} did not answer within {:?}", self.settings.timeout).into();
        }
        format!("the connection to {target} broke: {}", error.kind()).into()
    }
}

/// Both kinds occur, by platform, when a read's timeout passes.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn connect(target: &str, timeout: Duration) -> Result<TcpStream, SessionError> {
    let addresses = target.to_socket_addrs().map_err(|error| format!("{target} is no address (HOST:PORT): {error}"))?;
    let mut reason = "the name has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => reason = error.kind().to_string(),
        }
    }
    Err(format!("cannot connect to {target}: {reason}; is raftkv-server running?").into())
}
