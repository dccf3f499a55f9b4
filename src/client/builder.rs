//! The settings of a client.

use std::time::Duration;

use raftkv_protocol::types::ClusterId;

use super::{Client, Error, ErrorKind, Result};

/// Settings of a [`Client`]; start with [`Client::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    pub(super) endpoints: Vec<String>,
    pub(super) settings: Settings,
}

/// What the I/O thread is told.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Of a whole call, from the moment it is made.
    pub timeout: Duration,
    /// To dial and greet one node.
    pub connect_timeout: Duration,
    /// A connection that owes replies and is silent for so long is dead.
    pub silence_timeout: Duration,
    /// Pauses between attempts grow from the first to the second.
    pub backoff: (Duration, Duration),
    pub connections_per_node: usize,
    pub inflight_max: usize,
    pub queue_max: usize,
    pub cluster: ClusterId,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            endpoints: Vec::new(),
            settings: Settings {
                timeout: Duration::from_secs(5),
                connect_timeout: Duration::from_secs(2),
                silence_timeout: Duration::from_secs(2),
                backoff: (Duration::from_millis(10), Duration::from_secs(1)),
                connections_per_node: 1,
                inflight_max: 1_023,
                queue_max: 1_024,
                cluster: ClusterId(0),
            },
        }
    }
}

impl Builder {
    /// Nodes to begin with, as `host:port`; one is enough, as any node names the others, but several survive the
    /// failure of one at start.
    pub fn endpoints<E: Into<String>>(mut self, endpoints: impl IntoIterator<Item = E>) -> Builder {
        self.endpoints.extend(endpoints.into_iter().map(Into::into));
        self
    }

    /// How long a call may take in all, waiting for room and retries included. 5 s unless set.
    pub fn timeout(mut self, timeout: Duration) -> Builder {
        self.settings.timeout = timeout;
        self
    }

    /// How long dialling and greeting one node may take. 2 s unless set.
    pub fn connect_timeout(mut self, timeout: Duration) -> Builder {
        self.settings.connect_timeout = timeout;
        self
    }

    /// A connection that owes replies is asked for a sign of life after half this time, and given up if the other half
    /// brings none. 2 s unless set.
    pub fn silence_timeout(mut self, timeout: Duration) -> Builder {
        self.settings.silence_timeout = timeout;
        self
    }

    /// Pauses between attempts, of a request and of a connection: they double from `first` up to `longest`, and each is
    /// shortened by a random part. 10 ms and 1 s unless set.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Builder {
        self.settings.backoff = (first, longest);
        self
    }

    /// Connections to each node, at least 1. A server with several cores serves each connection on one of them, so that
    /// one connection per core spares it work. 1 unless set.
    pub fn connections_per_node(mut self, connections: usize) -> Builder {
        self.settings.connections_per_node = connections.max(1);
        self
    }

    /// Requests in flight on one connection, at least 1. 1,023 unless set: one less than the server's own limit, beyond
    /// which it reads no further and would not see the question for a sign of life
    /// ([`silence_timeout`](Builder::silence_timeout)).
    pub fn inflight_max(mut self, requests: usize) -> Builder {
        self.settings.inflight_max = requests.max(1);
        self
    }

    /// Requests that may wait inside the client for a connection or for room on it, and as many again on their way to
    /// its I/O thread; at least 1. Beyond that callers wait ([`WhenFull`](super::WhenFull)). 1,024 unless set.
    pub fn queue_max(mut self, requests: usize) -> Builder {
        self.settings.queue_max = requests.max(1);
        self
    }

    /// Talk only to this cluster. Unless set, to the one that answers first.
    pub fn cluster(mut self, cluster: ClusterId) -> Builder {
        self.settings.cluster = cluster;
        self
    }

    /// Starts the client and learns the slot table from the first endpoint that answers.
    ///
    /// # Errors
    /// As soon as every endpoint has failed once: [`Unreachable`](super::ErrorKind::Unreachable),
    /// [`WrongCluster`](super::ErrorKind::WrongCluster) or [`Version`](super::ErrorKind::Version). No endpoint at all is
    /// [`BadRequest`](super::ErrorKind::BadRequest).
    pub fn connect(self) -> Result<Client> {
        let client = self.start()?;
        client.learn_slots()?;
        Ok(client)
    }

    /// Starts the client without contacting anybody: the first call dials, within its own deadline, and waits there for
    /// servers that have yet to start.
    ///
    /// # Errors
    /// [`BadRequest`](super::ErrorKind::BadRequest) without an endpoint; [`Closed`](super::ErrorKind::Closed) if the
    /// operating system grants no thread or poll descriptor.
    pub fn start(self) -> Result<Client> {
        let (endpoints, settings) = self.into_parts()?;
        Client::start(&endpoints, settings)
    }

    pub(super) fn into_parts(self) -> Result<(Vec<String>, Settings)> {
        if self.endpoints.is_empty() {
            return Err(Error::new(ErrorKind::BadRequest, "a client needs at least one endpoint, as host:port"));
        }
        Ok((self.endpoints, self.settings))
    }
}
