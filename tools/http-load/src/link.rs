//! A connection to whatever answers, and the two calls that a load makes on it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::args::Target;
use crate::{etcd, rest, tonics};

/// Why a call failed.
#[derive(Debug)]
pub enum CallError {
    /// The server said so, with this status.
    Status(&'static str),
    /// The connection is of no use any more.
    Broken(String),
}

impl CallError {
    /// What ends a connection.
    pub fn broken(error: impl ToString) -> CallError {
        CallError::Broken(error.to_string())
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Status(name) => f.write_str(name),
            CallError::Broken(reason) => f.write_str(reason),
        }
    }
}

/// One connection, or one user of a connection that several share.
#[derive(Debug)]
pub enum Link {
    Etcd(etcd::Channel),
    EtcdTonic(tonics::Etcd),
    Tonic(tonics::RaftKv),
    Rest(rest::Connection),
}

impl Link {
    /// Dials once, for so many users of the connection.
    pub async fn connect(
        target: Target,
        address: SocketAddr,
        users: u32,
        timeout: Duration,
    ) -> Result<Vec<Link>, CallError> {
        let copies = 0..users;
        Ok(match target {
            Target::Etcd => {
                let channel = etcd::Channel::connect(address, timeout).await?;
                copies.map(|_| Link::Etcd(channel.clone())).collect()
            }
            Target::EtcdTonic => {
                let etcd = tonics::Etcd::connect(address, timeout).await?;
                copies.map(|_| Link::EtcdTonic(etcd.clone())).collect()
            }
            Target::Tonic => {
                let raftkv = tonics::RaftKv::connect(address, timeout).await?;
                copies.map(|_| Link::Tonic(raftkv.clone())).collect()
            }
            Target::Rest | Target::Reference => vec![Link::Rest(rest::Connection::connect(address, timeout).await?)],
        })
    }

    /// Writes a key.
    pub async fn put(&mut self, key: &[u8], value: Bytes) -> Result<(), CallError> {
        match self {
            Link::Etcd(channel) => channel.put(Bytes::copy_from_slice(key), value).await,
            Link::EtcdTonic(etcd) => etcd.put(Bytes::copy_from_slice(key), value).await,
            Link::Tonic(raftkv) => raftkv.put(Bytes::copy_from_slice(key), value).await,
            Link::Rest(connection) => connection.put(key, &value).await,
        }
    }

    /// Reads a key, which must be there.
    pub async fn get(&mut self, key: &[u8]) -> Result<(), CallError> {
        match self {
            Link::Etcd(channel) => channel.get(Bytes::copy_from_slice(key)).await,
            Link::EtcdTonic(etcd) => etcd.get(Bytes::copy_from_slice(key)).await,
            Link::Tonic(raftkv) => raftkv.get(Bytes::copy_from_slice(key)).await,
            Link::Rest(connection) => connection.get(key).await,
        }
    }
}
