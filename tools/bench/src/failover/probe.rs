//! Puts, every 5 ms, until they are acknowledged.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use raftkv_protocol::client::{Condition, Operation, Reply, Request};
use raftkv_protocol::types::{RequestId, ShardId, Slot};

use crate::blocking::Connection;
use crate::link::{Link, READ_BUFFER_LEN, garbled};

/// How often a put is sent.
const EVERY: Duration = Duration::from_millis(5);
/// A write that nobody acknowledges for so long fails the measurement.
const PATIENCE: Duration = Duration::from_secs(30);
/// Puts that find no leader stay in flight, of which a connection takes a limited number: turns go to so many.
const LINKS_PER_NODE: usize = 32;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections to the survivors, made before the node dies.
pub struct Probe {
    poll: Poll,
    /// `LINKS_PER_NODE` for each node, one node after the other. `None` once one has broken.
    links: Vec<Option<Link>>,
    keys: BTreeMap<ShardId, Vec<u8>>,
}

impl Probe {
    /// Connects to every survivor.
    pub fn open(survivors: &[&str], shards: u16) -> io::Result<Probe> {
        let poll = Poll::new()?;
        let mut links = Vec::new();
        for address in survivors {
            for _ in 0..LINKS_PER_NODE {
                let stream = Connection::open(address, CONNECT_TIMEOUT)?.into_stream()?;
                links.push(Some(Link::new(stream, poll.registry(), Token(links.len()))?));
            }
        }
        Ok(Probe { poll, links, keys: one_key_each(shards) })
    }

    /// For each shard, the time from `died` to the first acknowledged put.
    pub fn wait_for_writes(
        &mut self,
        shards: &[ShardId],
        died: Instant,
        stop: &AtomicBool,
    ) -> io::Result<Vec<(ShardId, Duration)>> {
        let mut outages: BTreeMap<ShardId, Duration> = BTreeMap::new();
        let mut events = Events::with_capacity(256);
        let mut buffer = vec![0; READ_BUFFER_LEN];
        for turn in 0.. {
            let open: Vec<ShardId> = shards.iter().copied().filter(|shard| !outages.contains_key(shard)).collect();
            if open.is_empty() {
                break;
            }
            if died.elapsed() > PATIENCE || stop.load(Ordering::Relaxed) {
                return Err(io::Error::other(format!("no writes on {} shards after {:?}", open.len(), died.elapsed())));
            }
            self.send(&open, turn)?;
            let next = died + EVERY * (turn as u32 + 1);
            while let Some(left) = next.checked_duration_since(Instant::now()) {
                self.poll.poll(&mut events, Some(left))?;
                for event in &events {
                    self.receive(event.token(), &mut buffer, |shard| {
                        outages.entry(shard).or_insert_with(|| died.elapsed());
                    })?;
                }
            }
        }
        Ok(outages.into_iter().collect())
    }

    /// One put for each shard to each node.
    fn send(&mut self, shards: &[ShardId], turn: usize) -> io::Result<()> {
        for first in (0..self.links.len()).step_by(LINKS_PER_NODE) {
            let Some(link) = &mut self.links[first + turn % LINKS_PER_NODE] else { continue };
            for shard in shards {
                let key = self.keys.get(shard).ok_or_else(|| io::Error::other("a shard without a key"))?;
                let operation = Operation::Put { key, value: b"probe", condition: Condition::None };
                Request { id: id_of(turn, *shard), operation }.encode(&mut link.out);
            }
            link.flush()?;
        }
        Ok(())
    }

    fn receive(&mut self, token: Token, buffer: &mut Vec<u8>, mut acknowledged: impl FnMut(ShardId)) -> io::Result<()> {
        let Some(link) = self.links.get_mut(token.0).and_then(Option::as_mut) else { return Ok(()) };
        let read = link.receive(buffer, |frame, _| {
            let reply = Reply::decode(frame.kind, frame.payload).map_err(garbled)?;
            if reply.result.is_ok() {
                acknowledged(ShardId((reply.id.0 & 0xffff) as u16));
            }
            Ok(())
        });
        if read.and_then(|()| link.flush()).is_err() {
            self.links[token.0] = None;
        }
        Ok(())
    }
}

/// Unique on a connection, and tells the shard.
fn id_of(turn: usize, shard: ShardId) -> RequestId {
    RequestId((turn as u64) << 16 | u64::from(shard.0))
}

/// A key of every shard.
pub(crate) fn one_key_each(shards: u16) -> BTreeMap<ShardId, Vec<u8>> {
    let mut keys = BTreeMap::new();
    for number in 0u64.. {
        if keys.len() == usize::from(shards) {
            break;
        }
        let key = format!("bench/probe/{number}").into_bytes();
        keys.entry(Slot::of(&key).shard(shards)).or_insert(key);
    }
    keys
}
