//! What stands in a request's path, query and headers. Keys may be any bytes, so that none of it is taken for UTF-8.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{ACCEPT, IF_MATCH, IF_NONE_MATCH};
use percent_encoding::percent_decode;
use raftkv_protocol::client::{Code, Condition, Consistency};
use raftkv_protocol::types::Index;

use crate::api::ask::{OwnedRefusal, OwnedScan};

fn bad(message: impl Into<String>) -> OwnedRefusal {
    OwnedRefusal::new(Code::BadRequest, message)
}

/// The bytes that percent-encoded text stands for (RFC 3986 §2.1).
pub fn decode(text: &str) -> Bytes {
    match Cow::from(percent_decode(text.as_bytes())) {
        Cow::Borrowed(plain) => Bytes::copy_from_slice(plain),
        Cow::Owned(decoded) => decoded.into(),
    }
}

/// The parameters of a query in their order. As in forms, `+` stands for a space.
fn pairs(query: Option<&str>) -> impl Iterator<Item = (&str, Bytes)> {
    let parts = query.unwrap_or_default().split('&').filter(|part| !part.is_empty());
    parts.map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (name, decode(&value.replace('+', " ")))
    })
}

fn text<'a>(name: &str, value: &'a [u8]) -> Result<&'a str, OwnedRefusal> {
    std::str::from_utf8(value).map_err(|_| bad(format!("the parameter `{name}` is not UTF-8")))
}

fn unknown(name: &str, known: &str) -> OwnedRefusal {
    bad(format!("there is no parameter `{name}` here; known are {known}"))
}

/// How fresh the read of one key must be.
pub fn consistency(query: Option<&str>) -> Result<Consistency, OwnedRefusal> {
    let mut consistency = Consistency::default();
    for (name, value) in pairs(query) {
        match name {
            "consistency" => consistency = text(name, &value)?.parse().map_err(bad)?,
            _ => return Err(unknown(name, "`consistency`")),
        }
    }
    Ok(consistency)
}

/// Refuses any parameter.
pub fn none(query: Option<&str>) -> Result<(), OwnedRefusal> {
    match pairs(query).next() {
        Some((name, _)) => Err(bad(format!("there is no parameter `{name}` here"))),
        None => Ok(()),
    }
}

/// Whether all checks are to be named.
pub fn verbose(query: Option<&str>) -> Result<bool, OwnedRefusal> {
    let mut verbose = false;
    for (name, value) in pairs(query) {
        match name {
            "verbose" => verbose = flag(name, text(name, &value)?)?,
            _ => return Err(unknown(name, "`verbose`")),
        }
    }
    Ok(verbose)
}

/// Whether a batch must be written as a whole, if the query says so.
pub fn atomic(query: Option<&str>) -> Result<Option<bool>, OwnedRefusal> {
    let mut atomic = None;
    for (name, value) in pairs(query) {
        match name {
            "atomic" => atomic = Some(flag(name, text(name, &value)?)?),
            _ => return Err(unknown(name, "`atomic`")),
        }
    }
    Ok(atomic)
}

/// A scan as a query asks for it.
#[derive(Debug, Default)]
pub struct AskedScan {
    /// What is to be read.
    pub scan: OwnedScan,
    /// One page of it, and no more.
    pub is_page: bool,
}

/// The scan that a query asks for.
pub fn scan(query: Option<&str>) -> Result<AskedScan, OwnedRefusal> {
    let mut asked = AskedScan::default();
    let scan = &mut asked.scan;
    for (name, value) in pairs(query) {
        match name {
            "prefix" => scan.prefix = value,
            "start" => scan.start = value,
            "end" => scan.end = value,
            "cursor" => scan.cursor = cursor(&value)?,
            "limit" => scan.limit = limit(text(name, &value)?)?,
            "reverse" => scan.reverse = flag(name, text(name, &value)?)?,
            "consistency" => scan.consistency = text(name, &value)?.parse().map_err(bad)?,
            "page" => asked.is_page = flag(name, text(name, &value)?)?,
            _ => {
                let known = "`prefix`, `start`, `end`, `limit`, `page`, `reverse`, `cursor` and `consistency`";
                return Err(unknown(name, known));
            }
        }
    }
    Ok(asked)
}

/// A cursor is the last key that has come; for clients it means nothing.
fn cursor(value: &[u8]) -> Result<Bytes, OwnedRefusal> {
    let key = URL_SAFE_NO_PAD.decode(value).map_err(|_| bad("the cursor is none that a scan has named"))?;
    Ok(key.into())
}

/// The cursor behind a key.
pub fn cursor_behind(key: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(key)
}

fn limit(value: &str) -> Result<u32, OwnedRefusal> {
    value.parse().map_err(|_| bad(format!("the limit `{value}` is no number from 0 to {}", u32::MAX)))
}

fn flag(name: &str, value: &str) -> Result<bool, OwnedRefusal> {
    match value {
        "true" | "1" | "" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(bad(format!("`{name}={value}` is neither `true` nor `false`"))),
    }
}

/// What the headers of a write say must hold of the key (RFC 9110 §13.1).
pub fn condition(headers: &HeaderMap) -> Result<Condition, OwnedRefusal> {
    let one = |name: &hyper::header::HeaderName| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(_), Some(_)) => Err(bad(format!("there is more than one {name}"))),
            (value, _) => Ok(value.map(|value| value.as_bytes().trim_ascii())),
        }
    };
    match (one(&IF_MATCH)?, one(&IF_NONE_MATCH)?) {
        (None, None) => Ok(Condition::None),
        (Some(b"*"), None) => Ok(Condition::Exists),
        (Some(tag), None) => version(tag).map(Condition::Version),
        (None, Some(b"*")) => Ok(Condition::Absent),
        (None, Some(_)) => Err(bad("If-None-Match of a write must be `*`: only if the key does not exist")),
        (Some(_), Some(_)) => Err(bad("If-Match and If-None-Match exclude each other: send one of them")),
    }
}

/// The version in an entity tag: a number in quotes.
fn version(tag: &[u8]) -> Result<Index, OwnedRefusal> {
    let number = tag.strip_prefix(b"\"").and_then(|tag| tag.strip_suffix(b"\""));
    let number = number.and_then(|number| std::str::from_utf8(number).ok());
    let is_plain = |number: &&str| number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.filter(is_plain).and_then(|number| number.parse().ok());
    number.map(Index).ok_or_else(|| bad("If-Match must be `*` or one version in quotes, as in the ETag of a read"))
}

/// Whether the client names a media type in `Accept`, however it ranks it.
pub fn accepts(headers: &HeaderMap, named: &str) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut kinds = accepted.flat_map(|kinds| kinds.split(','));
    kinds.any(|kind| kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(named)))
}

/// Whether If-None-Match of a read names this version, so that the client has it already.
pub fn has_already(headers: &HeaderMap, version_now: Index) -> bool {
    let tags = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = tags.flat_map(|tags| tags.split(',')).map(str::trim);
    let weak_too = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
    tags.any(|tag| tag == "*" || weak_too(tag) == format!("\"{version_now}\""))
}
