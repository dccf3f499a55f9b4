//! Addresses as settings write them: `HOST:PORT`, and lists of `ID=HOST:PORT`.

use std::net::{SocketAddr, ToSocketAddrs};

use raftkv_protocol::types::NodeId;

use crate::error::Fatal;

/// The address to listen on. A host name is looked up now.
pub(super) fn resolve(setting: &str, address: &str) -> Result<SocketAddr, Fatal> {
    split(setting, address)?;
    let mut found = address.to_socket_addrs().map_err(|error| Fatal::usage(format!("{setting} {address}: {error}")))?;
    found.next().ok_or_else(|| Fatal::usage(format!("{setting} {address}: the name has no address")))
}

/// Refuses an address that nobody could dial.
pub(super) fn check_dialable(setting: &str, address: &str) -> Result<(), Fatal> {
    let (host, _) = split(setting, address)?;
    if matches!(host, "0.0.0.0" | "[::]") {
        return Err(Fatal::usage(format!(
            "{setting} {address} is no address that others can dial; set --advertise HOST:PORT"
        )));
    }
    Ok(())
}

/// Reads `1=HOST:PORT,2=HOST:PORT`; the result is sorted by id.
pub(super) fn parse_members(list: &str) -> Result<Vec<(NodeId, String)>, Fatal> {
    const SETTING: &str = "--initial-cluster";
    let mut members: Vec<(NodeId, String)> = Vec::new();
    for member in list.split(',') {
        let parsed = member.split_once('=').and_then(|(id, address)| Some((id.parse().ok()?, address)));
        let Some((id @ 1.., address)) = parsed else {
            return Err(Fatal::usage(format!(
                "{SETTING}: `{}` is not ID=HOST:PORT with an id of at least 1",
                member.escape_debug()
            )));
        };
        check_dialable(SETTING, address)?;
        if members.iter().any(|(other, _)| other.0 == id) {
            return Err(Fatal::usage(format!("{SETTING} names node {id} twice; every node needs its own id")));
        }
        if let Some((other, _)) = members.iter().find(|(_, other)| other == address) {
            return Err(Fatal::usage(format!(
                "{SETTING} gives nodes {other} and {id} the same address {address}; every node needs its own"
            )));
        }
        members.push((NodeId(id), address.to_owned()));
    }
    members.sort_unstable_by_key(|(id, _)| *id);
    Ok(members)
}

/// Host and port. An IPv6 address is written in brackets.
pub(super) fn split<'a>(setting: &str, address: &'a str) -> Result<(&'a str, u16), Fatal> {
    let parsed = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let is_host = |host: &str| {
        let name = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let bracketed = name.is_some();
        let name = name.unwrap_or(host);
        !name.is_empty() && name.contains(':') == bracketed && name.chars().all(|c| c.is_ascii_graphic() && c != ',')
    };
    match parsed {
        Some((host, port @ 1..)) if is_host(host) => Ok((host, port)),
        _ => Err(Fatal::usage(format!(
            "{setting} `{}` is not HOST:PORT with a port from 1 to 65535",
            address.escape_debug()
        ))),
    }
}
