//! The node as a whole: what it is, its process, its disk and its cores.

use std::fmt;

use raftkv_protocol::health::DiskHealth;

use super::page::{About, MICROS, Page, Value, label};
use crate::metrics::figures::{CoreFigures, Figures, ProcessFigures};
use crate::metrics::histogram::{Histogram, Shape};

/// What can be left out of a build, and is in this one.
const FEATURES: &str = if cfg!(feature = "grpc") { "rest,grpc" } else { "rest" };

const DISK_STATES: [DiskHealth; 4] = [DiskHealth::Healthy, DiskHealth::Recovering, DiskHealth::Slow, DiskHealth::Full];

/// Writes them.
pub fn write(figures: &Figures, process: &ProcessFigures, page: &mut Page<'_>) -> fmt::Result {
    let status = &figures.status;
    let build = vec![("version", status.version.clone().into()), ("features", FEATURES.into())];
    page.info(&About::new("raftkv_build", "What the server was built as"), &build)?;
    let node = [("node", status.node.to_string()), ("cluster", status.cluster.to_string())];
    let node = node.map(|(name, value)| (name, value.into())).to_vec();
    page.info(&About::new("raftkv_node", "Which node of which cluster this is"), &node)?;
    self::process(process, page)?;
    disk(figures, page)?;
    logs(figures, page)?;
    cores(figures, page)?;
    links(figures, page)
}

/// Under the names that every program of this kind has.
fn process(process: &ProcessFigures, page: &mut Page<'_>) -> fmt::Result {
    let alone = |value: Value| [(Vec::new(), value)];
    page.counter(
        &About::seconds("process_cpu", "Time of processors that the process has used"),
        alone(process.cpu_s.into()),
    )?;
    page.gauge(
        &About::bytes("process_resident_memory", "Memory that the process has in use"),
        alone(process.resident_bytes.into()),
    )?;
    page.gauge(
        &About::bytes("process_virtual_memory", "Addresses that the process has in use"),
        alone(process.virtual_bytes.into()),
    )?;
    page.gauge(&About::new("process_threads", "Threads of the process"), alone(process.threads.into()))?;
    page.gauge(&About::new("process_open_fds", "Files and sockets that are open"), alone(process.open_fds.into()))?;
    page.gauge(
        &About::new("process_max_fds", "How many files and sockets may be open"),
        alone(process.max_fds.into()),
    )?;
    page.gauge(
        &About::seconds("process_start_time", "When the process started, since 1970"),
        alone(process.started_s.into()),
    )
}

fn disk(figures: &Figures, page: &mut Page<'_>) -> fmt::Result {
    let status = &figures.status;
    page.gauge(
        &About::new("raftkv_disk_state", "1 for the state that the node takes its disk to be in, 0 for the others"),
        DISK_STATES.map(|state| (label("state", state.name()), state == status.disk)),
    )?;
    page.gauge(
        &About::seconds("raftkv_log_sync_pending", "For how long the longest sync in flight has taken, 0 if none is"),
        [(Vec::new(), status.sync_ms as f64 / 1_000.0)],
    )?;
    let holds = figures.status.holds.iter();
    page.gauge(
        &About::bytes(
            "raftkv_log_held",
            "Bytes of a log that is over its size which go when this shard lets go of them",
        ),
        holds.map(|hold| {
            let mut labels = label("shard", hold.shard);
            labels.push(("reason", hold.reason.name().into()));
            (labels, hold.bytes)
        }),
    )
}

fn cores(figures: &Figures, page: &mut Page<'_>) -> fmt::Result {
    let cores = || figures.cores.iter().map(|core| (label("core", core.core), &core.measures));
    page.counter(
        &About::new("raftkv_core_turns", "Turns of the core's event loop"),
        cores().map(|(labels, measures)| (labels, measures.turn_times.shape().count())),
    )?;
    page.counter(
        &About::seconds("raftkv_core_busy", "Time that the core's event loop was not waiting: 1 a second is all of it"),
        cores().map(|(labels, measures)| (labels, measures.turn_times.shape().sum as f64 / MICROS)),
    )?;
    page.gauge(
        &About::seconds("raftkv_core_turn_longest", "The longest turn of the core's event loop in the last minute"),
        cores().map(|(labels, measures)| (labels, measures.longest_turn.greatest() as f64 / MICROS)),
    )?;
    page.counter(
        &About::new("raftkv_core_events", "Events that the polls of the core's event loop have reported"),
        cores().map(|(labels, measures)| (labels, measures.turn_events.shape().sum)),
    )?;
    page.counter(
        &About::new("raftkv_core_inbox_messages", "Messages of other cores that the core has taken from its inbox"),
        cores().map(|(labels, measures)| (labels, measures.inbox_depths.shape().sum)),
    )?;
    let alone = |shape: Shape| [(Vec::new(), shape)];
    page.histogram(
        &About::seconds("raftkv_turn", "How long turns of the event loops took, of all cores"),
        MICROS,
        alone(sum(figures, |core| &core.measures.turn_times)),
    )?;
    page.histogram(
        &About::new("raftkv_turn_events", "Events that one poll has reported, of all cores"),
        1.0,
        alone(sum(figures, |core| &core.measures.turn_events)),
    )?;
    page.histogram(
        &About::new("raftkv_inbox_depth", "Messages that waited when a core looked into its inbox and found some"),
        1.0,
        alone(sum(figures, |core| &core.measures.inbox_depths)),
    )
}

/// Their links to the other nodes.
fn links(figures: &Figures, page: &mut Page<'_>) -> fmt::Result {
    let links = figures.cores.iter().flat_map(|core| core.links.iter().map(|(node, is_up)| (core.core, node, is_up)));
    page.gauge(
        &About::new("raftkv_link_up", "1 while the core's link to another node is up, and 0 while it is not"),
        links.map(|(core, node, is_up)| {
            let mut labels = label("core", core);
            labels.push(("node", node.to_string().into()));
            (labels, *is_up)
        }),
    )
}

/// What the cores have measured, added up.
fn sum<const LEAST: u32, const BUCKETS: usize>(
    figures: &Figures,
    of: impl Fn(&CoreFigures) -> &Histogram<LEAST, BUCKETS>,
) -> Shape {
    let mut sum = Histogram::default();
    figures.cores.iter().for_each(|core| sum.add(of(core)));
    sum.shape()
}

/// The logs of the cores, added up, and the snapshots of their shards.
fn logs(figures: &Figures, page: &mut Page<'_>) -> fmt::Result {
    let alone = |shape: Shape| [(Vec::new(), shape)];
    page.histogram(
        &About::seconds("raftkv_log_sync", "How long it took to write a batch of a log and make it durable"),
        MICROS,
        alone(sum(figures, |core| &core.log.sync_times)),
    )?;
    page.histogram(
        &About::bytes("raftkv_log_batch", "Bytes that one sync made durable, padding included"),
        1.0,
        alone(sum(figures, |core| &core.log.batch_bytes)),
    )?;
    page.histogram(
        &About::new("raftkv_log_batch_entries", "New entries that one sync made durable"),
        1.0,
        alone(sum(figures, |core| &core.log.batch_entries)),
    )?;
    let all = |of: fn(&CoreFigures) -> u64| [(Vec::new(), figures.cores.iter().map(of).sum::<u64>())];
    page.gauge(
        &About::bytes("raftkv_log_backlog", "Bytes of the logs that are not durable yet"),
        all(|core| core.log.backlog_bytes),
    )?;
    page.gauge(
        &About::bytes("raftkv_log_spare", "Bytes of files that wait to be used as segments of the logs"),
        all(|core| core.log.spare_bytes),
    )?;
    page.histogram(
        &About::seconds("raftkv_snapshot_duration", "How long it took to write a snapshot of a shard"),
        MICROS,
        alone(sum(figures, |core| &core.measures.snapshot_times)),
    )?;
    page.histogram(
        &About::bytes("raftkv_snapshot_size", "Bytes of the snapshots that were written"),
        1.0,
        alone(sum(figures, |core| &core.measures.snapshot_bytes)),
    )?;
    page.histogram(
        &About::seconds(
            "raftkv_snapshot_hold",
            "Time of processors that snapshots took of turns of the event loops, of each turn that had to do with them",
        ),
        MICROS,
        alone(sum(figures, |core| &core.measures.snapshot_holds)),
    )
}
