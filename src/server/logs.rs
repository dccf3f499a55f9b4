//! The logs of a node at its start: written anew for another number of cores, and where they are damaged.
//!
//! A node that has others keeps what is sound of a damaged log, remembers durably which shards may have forgotten
//! something, and gets the rest from its peers. Alone it refuses to start, as nobody else has what is lost.

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use raftkv_protocol::types::{CoreId, ShardId};

use crate::config::{self, Config};
use crate::error::Fatal;
use crate::event_loop::Wake;
use crate::storage::disk::RealDisk;
use crate::storage::{self, FileLog, LogError, LogIo, LogSync, RecoveredShard, SalvagedLog};

use super::node::{self, Node};

/// A log and what it held.
pub(super) type Opened = (FileLog, Vec<RecoveredShard>);

/// Opens the log of every core; `wakes` are the cores' in order. What must not be forgotten of them is durable.
pub(super) fn open(node: &Node, wakes: &[Wake]) -> Result<Vec<Opened>, Fatal> {
    let cores = node.config.cores;
    let before = node.data_dir()?.cores_before();
    if let Some(before) = before {
        log::info!("started with --cores {cores}, last time with {before}: moving the shards to their new logs");
        write_anew(node, before)?;
    }
    let logs = match open_all(node, wakes) {
        Err(_) if damage(node, cores)?.is_some() => {
            write_anew(node, cores)?;
            open_all(node, wakes)
        }
        logs => logs,
    };
    let logs = logs.map_err(fatal)?;
    node.logs_have_begun()?;
    Ok(logs)
}

fn open_all(node: &Node, wakes: &[Wake]) -> Result<Vec<Opened>, LogError> {
    let open = |(core, wake): (CoreId, &Wake)| {
        let dir = storage::data_dir::log_dir(&node.config.data_dir, core);
        FileLog::open(options(&node.config, dir, node.shards_of(core).collect(), Arc::clone(wake)))
    };
    // Each has a thread: what it reads takes a processor, and what it syncs waits for the disk.
    thread::scope(|threads| {
        let open = &open;
        let opening: Vec<_> = (0..).map(CoreId).zip(wakes).map(|log| threads.spawn(move || open(log))).collect();
        opening.into_iter().map(|log| log.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

/// What is wrong with the first log that is damaged, of so many.
fn damage(node: &Node, cores: u16) -> Result<Option<String>, Fatal> {
    for core in (0..cores).map(CoreId) {
        let dir = storage::data_dir::log_dir(&node.config.data_dir, core);
        if let Some(damage) = storage::damage(&RealDisk::read_only(&dir)).map_err(fatal)? {
            return Ok(Some(damage));
        }
    }
    Ok(None)
}

/// Brings the shards from the logs of so many cores to new ones, as far as they are sound.
fn write_anew(node: &Node, before: u16) -> Result<(), Fatal> {
    if node.peers.is_empty()
        && let Some(damage) = damage(node, before)?
    {
        return Err(alone(&damage));
    }
    let Config { cores, shards, data_dir, .. } = &node.config;
    let log = |dir, core, cores| {
        let shards = node::shards_of(core, cores, *shards).collect();
        options(&node.config, dir, shards, Arc::new(|| ()))
    };
    let old = |core| log(storage::data_dir::log_dir(data_dir, core), core, before);
    let old = (0..before).map(CoreId).map(old).collect();
    let new = |core| Ok(log(node.data_dir()?.next_log_dir(core)?, core, *cores));
    let new = (0..*cores).map(CoreId).map(new).collect::<Result<_, Fatal>>()?;
    let salvaged = match node.peers.is_empty() {
        true => storage::move_shards(old, new).map(|()| Vec::new()),
        false => storage::salvage_shards(old, new),
    };
    remember(node, &salvaged.map_err(fatal)?)?;
    node.data_dir()?.switch_logs(*cores)
}

/// Why a node that has no others does not start.
pub(super) fn alone(damage: &str) -> Fatal {
    Fatal::failure(format!(
        "{damage}; no other node has what is lost: restore the file from a copy of this very state, or start a new \
         cluster from a backup"
    ))
}

/// Seconds since 1970, for people.
pub(super) fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Remembers durably what is about to be forgotten.
fn remember(node: &Node, salvaged: &[SalvagedLog]) -> Result<(), Fatal> {
    let now_s = seconds_now();
    for log in salvaged {
        log::warn!(
            "{}; what is sound of this log is kept, and this node gets the rest from its peers: until it has it, it \
             votes for nobody and leads nothing of shards {}",
            log.damage,
            names(&log.shards)
        );
        node.remember_damage(log, now_s)?;
    }
    Ok(())
}

fn names(shards: &[ShardId]) -> String {
    let names: Vec<String> = shards.iter().map(ToString::to_string).collect();
    names.join(", ")
}

fn options(config: &Config, dir: PathBuf, shards: Vec<ShardId>, wake: Wake) -> storage::Options {
    let mut options = storage::Options::new(dir, shards, wake);
    options.segment_size = config.segment_size;
    options.tail_bytes_max = config.limits.core_log_memory_max;
    options.io = match config.log_io {
        config::LogIo::Map => LogIo::Map,
        config::LogIo::Buffered => LogIo::Buffered,
        config::LogIo::Direct => LogIo::Direct,
    };
    options.sync = match config.log_sync {
        config::LogSync::Thread => LogSync::Thread,
        config::LogSync::Inline => LogSync::Inline,
    };
    options
}

fn fatal(error: LogError) -> Fatal {
    Fatal::failure(error.to_string())
}
