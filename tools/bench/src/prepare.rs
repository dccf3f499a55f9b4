//! What happens before the load: learning the cluster, and writing every key once.

use std::io;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use raftkv_protocol::types::{NodeId, RequestId, Slot};

use crate::blocking::{Connection, resolve};
use crate::operations::{Mix, Operations};
use crate::topology::Topology;

/// How long to wait for the cluster to have all its leaders.
const LEADERS_WAIT: Duration = Duration::from_secs(30);
/// How long to wait between two questions.
const ASK_PAUSE: Duration = Duration::from_millis(50);
/// How long the prefill may make no headway.
const PREFILL_PATIENCE: Duration = Duration::from_secs(30);
/// The most puts, and bytes of values, that the prefill has in flight at a node.
const BURST_PUTS_MAX: usize = 256;
const BURST_BYTES_MAX: usize = 8 << 20;

/// Asks the endpoints, one after the other and again, until one knows the leader of every shard.
pub fn discover(endpoints: &[String], timeout: Duration) -> Result<Topology, String> {
    let deadline = Instant::now() + LEADERS_WAIT;
    let mut known: Option<Topology> = None;
    let mut trouble = String::new();
    loop {
        for endpoint in endpoints {
            match Connection::open(endpoint, timeout).and_then(|mut connection| connection.slots()) {
                Ok(table) => match &mut known {
                    Some(topology) => drop(topology.merge(table)),
                    None => known = Some(Topology::new(table)),
                },
                Err(error) => trouble = format!("{endpoint}: {error}"),
            }
        }
        match &known {
            Some(topology) if topology.leaderless() == 0 && topology.shards() > 0 => return Ok(topology.clone()),
            Some(topology) => trouble = format!("{} shards have no leader", topology.leaderless()),
            // Nobody answers at all: a mistyped address should not take half a minute to find out.
            None if endpoints.iter().all(|endpoint| refused(endpoint)) => return Err(trouble),
            None => {}
        }
        if Instant::now() >= deadline {
            return Err(trouble);
        }
        thread::park_timeout(ASK_PAUSE);
    }
}

fn refused(endpoint: &str) -> bool {
    match resolve(endpoint).and_then(TcpStream::connect) {
        Err(error) => error.kind() != io::ErrorKind::TimedOut,
        Ok(_) => false,
    }
}

/// Writes every key once, each through the node that leads its shard. What is refused or lost is written again.
pub fn prefill(
    topology: &mut Topology,
    key_sets: &[Vec<u32>],
    mix: &Mix,
    seed: u64,
    timeout: Duration,
) -> Result<(), String> {
    let mut missing: Vec<Vec<u32>> = key_sets.to_vec();
    let mut headway = Instant::now();
    loop {
        let before: usize = missing.iter().map(Vec::len).sum();
        if before == 0 {
            return Ok(());
        }
        let trouble = prefill_once(topology, &mut missing, mix, seed, timeout);
        let after: usize = missing.iter().map(Vec::len).sum();
        if after < before {
            headway = Instant::now();
        } else if headway.elapsed() > PREFILL_PATIENCE {
            return Err(format!("the prefill is stuck with {after} keys to go: {}", trouble.unwrap_or_default()));
        }
        if after > 0 {
            thread::park_timeout(ASK_PAUSE);
            let endpoints: Vec<String> = topology.nodes().map(|(_, address)| address.to_owned()).collect();
            *topology = discover(&endpoints, timeout)?;
        }
    }
}

/// One pass: a thread for each node. Leaves in `missing`, by shard, what was not acknowledged.
fn prefill_once(
    topology: &Topology,
    missing: &mut [Vec<u32>],
    mix: &Mix,
    seed: u64,
    timeout: Duration,
) -> Option<String> {
    let mut jobs: Vec<(NodeId, &str, Vec<u32>)> = Vec::new();
    for (node, address) in topology.nodes() {
        let keys = topology.led_by(node).flat_map(|shard| std::mem::take(&mut missing[usize::from(shard.0)])).collect();
        jobs.push((node, address, keys));
    }
    let results: Vec<(Vec<u32>, Option<String>)> = thread::scope(|scope| {
        let threads: Vec<_> = jobs
            .into_iter()
            .map(|(node, address, keys)| {
                let operations = Operations::new(mix.clone(), seed ^ node.0);
                scope.spawn(move || write_keys(address, keys, operations, mix.value_size, timeout))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("the prefill does not panic")).collect()
    });
    let mut trouble = None;
    let mut key = mix.keys.buffer();
    for (left, error) in results {
        trouble = error.or(trouble);
        for index in left {
            mix.keys.write(index, &mut key);
            let shard = Slot::of(&key).shard(topology.shards());
            missing[usize::from(shard.0)].push(index);
        }
    }
    trouble
}

/// Writes keys through one node, in the order given. Returns those that were not acknowledged, and the last error.
fn write_keys(
    address: &str,
    keys: Vec<u32>,
    mut operations: Operations,
    value_size: usize,
    timeout: Duration,
) -> (Vec<u32>, Option<String>) {
    if keys.is_empty() {
        return (keys, None);
    }
    let mut connection = match Connection::open(address, timeout) {
        Ok(connection) => connection,
        Err(error) => return (keys, Some(format!("{address}: {error}"))),
    };
    let burst = BURST_PUTS_MAX.min(BURST_BYTES_MAX / value_size.max(1)).max(1);
    let mut left = Vec::new();
    let mut trouble = None;
    let mut keys = keys.into_iter();
    while keys.len() > 0 {
        let now: Vec<u32> = keys.by_ref().take(burst).collect();
        match write_burst(&mut connection, &now, &mut operations) {
            Ok((refused, reason)) => {
                left.extend(refused);
                trouble = reason.or(trouble);
            }
            Err(error) => {
                left.extend(now);
                left.extend(keys.by_ref());
                trouble = Some(format!("{address}: {error}"));
            }
        }
    }
    (left, trouble)
}

/// Sends all, then waits for all replies. Returns the keys that were refused, and why.
fn write_burst(
    connection: &mut Connection,
    keys: &[u32],
    operations: &mut Operations,
) -> io::Result<(Vec<u32>, Option<String>)> {
    let ids: Vec<RequestId> = keys.iter().map(|&index| connection.queue(operations.put(index))).collect();
    connection.flush()?;
    let mut refused = Vec::new();
    let mut reason = None;
    for _ in keys {
        connection.receive(|reply| {
            if let Err(refusal) = &reply.result {
                refused.extend(ids.iter().position(|&id| id == reply.id).map(|at| keys[at]));
                reason = Some(format!("{}: {}", refusal.code.name(), refusal.message));
            }
        })?;
    }
    Ok((refused, reason))
}
