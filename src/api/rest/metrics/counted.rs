//! The counters of all cores, under the names that Prometheus would have them have. Those that belong together are one
//! family, and a label tells them apart.

use std::fmt;

use super::page::{About, Labels, Page, Value, label};
use crate::metrics::Counters;

/// What a family's numbers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    /// A gauge that is counted in microseconds.
    Micros,
}

/// A series of a family: the value of its label, and its number.
type Series = (&'static str, fn(&Counters) -> u64);

/// Counters that are one family.
struct Family {
    kind: Kind,
    about: About,
    /// What tells its series apart; empty if there is only one.
    label: &'static str,
    series: &'static [Series],
}

const fn counter(about: About, label: &'static str, series: &'static [Series]) -> Family {
    Family { kind: Kind::Counter, about, label, series }
}

const fn gauge(about: About, label: &'static str, series: &'static [Series]) -> Family {
    Family { kind: Kind::Gauge, about, label, series }
}

const fn micros(about: About, series: &'static [Series]) -> Family {
    Family { kind: Kind::Micros, about, label: "", series }
}

/// Writes them all.
pub fn write(counters: &Counters, page: &mut Page<'_>) -> fmt::Result {
    for family in CLIENTS.iter().chain(&PEERS).chain(&DISK).chain(&SNAPSHOTS) {
        let series = family.series.iter().map(|(value, number)| {
            let labels: Labels = if family.label.is_empty() { Vec::new() } else { label(family.label, value) };
            let number = number(counters);
            let number = if family.kind == Kind::Micros { Value::Real(number as f64 / 1e6) } else { number.into() };
            (labels, number)
        });
        match family.kind {
            Kind::Counter => page.counter(&family.about, series)?,
            Kind::Gauge | Kind::Micros => page.gauge(&family.about, series)?,
        }
    }
    Ok(())
}

static CLIENTS: [Family; 14] = [
    counter(
        About::new("raftkv_connections_accepted", "Connections accepted, by where they were dialled"),
        "listener",
        &[("binary", |c| c.connections_accepted), ("http", |c| c.http_connections_accepted)],
    ),
    counter(
        About::new("raftkv_connections_refused", "Connections closed at once because the node has as many as it may"),
        "",
        &[("", |c| c.connections_refused)],
    ),
    gauge(
        About::new("raftkv_connections_open", "Connections of clients that are open"),
        "listener",
        &[("binary", |c| c.connections_open), ("http", |c| c.http_connections_open)],
    ),
    counter(
        About::new(
            "raftkv_connection_faults",
            "What came on connections and was no protocol, and what did not come, or was not taken, in time",
        ),
        "kind",
        &[
            ("hello_refused", |c| c.hellos_refused),
            ("hello_late", |c| c.hellos_timed_out),
            ("frame_bad", |c| c.frames_bad),
            ("message_bad", |c| c.messages_bad),
            ("http_late", |c| c.http_connections_late),
            ("http_broken", |c| c.http_connections_broken),
            ("http_body_late", |c| c.http_bodies_late),
            ("http_stream_late", |c| c.http_streams_late),
            ("http_stream_refused", |c| c.http_streams_refused),
            ("http_stream_broken", |c| c.http_streams_broken),
            ("http_flood", |c| c.http_floods),
        ],
    ),
    counter(
        About::new("raftkv_requests_received", "Requests taken in by the router, on all faces"),
        "",
        &[("", |c| c.requests)],
    ),
    counter(About::new("raftkv_http_requests", "Requests over HTTP, to any path"), "", &[("", |c| c.http_requests)]),
    counter(
        About::new("raftkv_http_refused", "Requests over HTTP that a handler answered with a status from 400 on"),
        "class",
        &[("4xx", |c| c.http_refused_4xx), ("5xx", |c| c.http_refused_5xx)],
    ),
    counter(
        About::new(
            "raftkv_grpc_deadlines",
            "Calls over gRPC that were ended because their own deadlines (grpc-timeout) had passed",
        ),
        "",
        &[("", |c| c.grpc_deadlines)],
    ),
    counter(
        About::new(
            "raftkv_refusals",
            "Refusals by this node, before or after it was asked, also of what other nodes have forwarded",
        ),
        "code",
        &[
            ("bad_request", |c| c.refused_bad_request),
            ("too_large", |c| c.refused_too_large),
            ("precondition_failed", |c| c.refused_precondition),
            ("cross_shard", |c| c.refused_cross_shard),
            ("not_leader", |c| c.refused_not_leader),
            ("no_leader", |c| c.refused_no_leader),
            ("not_ready", |c| c.refused_not_ready),
            ("overloaded", |c| c.refused_overloaded),
            ("no_space", |c| c.refused_no_space),
            ("diverged", |c| c.refused_diverged),
            ("timeout", |c| c.timeouts),
        ],
    ),
    counter(
        About::new("raftkv_limit_hits", "Requests over a limit of what may be under way at once"),
        "limit",
        &[
            ("uncommitted", |c| c.overloaded_uncommitted),
            ("backlog", |c| c.overloaded_backlog),
            ("parked", |c| c.overloaded_parked),
            ("forwarded", |c| c.overloaded_forwarded),
            ("inbox", |c| c.overloaded_inbox),
            ("snapshots", |c| c.overloaded_snapshots),
            ("scans", |c| c.overloaded_scans),
            ("replies", |c| c.overloaded_replies),
            ("link", |c| c.overloaded_link),
            ("bodies", |c| c.overloaded_bodies),
            ("scrapes", |c| c.overloaded_scrapes),
        ],
    ),
    counter(
        About::new(
            "raftkv_scrapes_gathered",
            "Times that a core has gathered the node's metrics, for all who had asked it for them",
        ),
        "",
        &[("", |c| c.scrapes_gathered)],
    ),
    counter(
        About::new(
            "raftkv_reads_paused",
            "Times that a connection was not read from because its replies were not taken",
        ),
        "",
        &[("", |c| c.reads_paused)],
    ),
    counter(
        About::new("raftkv_replies_dropped", "Replies replaced by a refusal because too many waited unread"),
        "",
        &[("", |c| c.replies_dropped)],
    ),
    counter(
        About::new("raftkv_forwards", "Requests sent on to a shard's leader, and served for another node"),
        "direction",
        &[("sent", |c| c.forwards_sent), ("served", |c| c.forwards_served)],
    ),
];

static PEERS: [Family; 14] = [
    counter(
        About::new("raftkv_raft_messages", "Raft messages sent, received, dropped for want of a link, and outdated"),
        "event",
        &[
            ("sent", |c| c.raft_messages_sent),
            ("received", |c| c.raft_messages_received),
            ("dropped", |c| c.raft_messages_dropped),
            ("outdated", |c| c.raft_messages_outdated),
        ],
    ),
    counter(
        About::new("raftkv_inbox_full", "Messages to another core that were dropped because its inbox was full"),
        "",
        &[("", |c| c.inbox_full)],
    ),
    counter(
        About::new("raftkv_unheeded_messages", "Messages unanswered because this node may have lost its disk"),
        "kind",
        &[("vote", |c| c.votes_withheld), ("append", |c| c.leaders_unheeded)],
    ),
    counter(
        About::new("raftkv_read_rounds", "Rounds begun to confirm that this node leads a shard, for reads"),
        "",
        &[("", |c| c.read_rounds)],
    ),
    counter(
        About::new("raftkv_leader_changes", "Times that a replica learned of another leader than the one it knew last"),
        "",
        &[("", |c| c.leader_changes)],
    ),
    counter(
        About::new("raftkv_leadership_transfers", "Leadership transfers that this node has begun"),
        "reason",
        &[("placement", |c| c.transfers), ("health", |c| c.transfers_away)],
    ),
    counter(
        About::new("raftkv_checkpoints_received", "Hashes of their replicas that peers have told"),
        "",
        &[("", |c| c.checkpoints_received)],
    ),
    counter(
        About::new("raftkv_divergences", "Times that a replica was found to differ from others, or to be corrupt"),
        "",
        &[("", |c| c.divergences)],
    ),
    counter(
        About::new(
            "raftkv_states_rebuilt",
            "Times that a wrong state was built anew in the running node, by whose snapshot it began with",
        ),
        "from",
        &[("own", |c| c.states_rebuilt), ("other", |c| c.states_rebuilt_from_others)],
    ),
    counter(
        About::new("raftkv_states_scrubbed", "Large states that were read to see whether memory has kept them"),
        "",
        &[("", |c| c.states_scrubbed)],
    ),
    counter(
        About::new("raftkv_state_scrub_bytes", "Bytes of such states, 64 more for each key"),
        "",
        &[("", |c| c.state_scrub_bytes)],
    ),
    counter(
        About::new("raftkv_lease_reads", "Reads by a lease: answered by it, or by a round as the leader held none"),
        "by",
        &[("lease", |c| c.lease_reads), ("round", |c| c.lease_reads_fallen_back)],
    ),
    counter(
        About::new(
            "raftkv_lease_promises_kept",
            "Votes withheld and elections put off because of a promise to a leader",
        ),
        "kind",
        &[("vote", |c| c.lease_votes_withheld), ("election", |c| c.lease_elections_put_off)],
    ),
    counter(
        About::new("raftkv_leases_given_up", "Leases that were given up to hand a shard over"),
        "",
        &[("", |c| c.leases_given_up)],
    ),
];

static DISK: [Family; 10] = [
    counter(
        About::new("raftkv_disk_faults", "Times that the node's disk was found to be slow, or full"),
        "kind",
        &[("slow", |c| c.disk_slow), ("full", |c| c.disk_full)],
    ),
    counter(
        About::bytes("raftkv_log_written", "Bytes that the logs have handed to the disk"),
        "",
        &[("", |c| c.log_bytes_written)],
    ),
    micros(
        About::seconds("raftkv_log_sync_longest", "The longest sync of a log since the start"),
        &[("", |c| c.log_sync_us_max)],
    ),
    counter(About::new("raftkv_log_segments_begun", "Log segments taken into use"), "", &[("", |c| c.log_segments)]),
    gauge(About::new("raftkv_log_segments", "Log segments that there are"), "", &[("", |c| c.log_segments_held)]),
    gauge(
        About::bytes("raftkv_log_disk", "Bytes that the files of the logs take, spares included"),
        "",
        &[("", |c| c.log_disk_bytes)],
    ),
    gauge(
        About::bytes("raftkv_log_memory", "Bytes of the logs' entries in memory"),
        "",
        &[("", |c| c.log_memory_bytes)],
    ),
    counter(
        About::new("raftkv_log_space_waits", "Times that a batch of the log waited for a segment or for space"),
        "",
        &[("", |c| c.log_space_waits)],
    ),
    gauge(
        About::new(
            "raftkv_log_faults",
            "Faults of the logs found at this start: logs salvaged, and spots that are not what was written",
        ),
        "kind",
        &[("salvaged", |c| c.log_salvages), ("blemish", |c| c.log_blemishes)],
    ),
    gauge(
        About::new("raftkv_shards_repairing", "Shards that get back from the others what the log has lost"),
        "",
        &[("", |c| c.shards_repairing)],
    ),
];

static SNAPSHOTS: [Family; 4] = [
    counter(
        About::new("raftkv_snapshots", "Snapshots of shards taken, installed from other nodes, and failed"),
        "event",
        &[
            ("taken", |c| c.snapshots_taken),
            ("installed", |c| c.snapshots_installed),
            ("failed", |c| c.snapshots_failed),
        ],
    ),
    counter(
        About::bytes("raftkv_snapshot_transferred", "Bytes of snapshots sent to other nodes and received from them"),
        "direction",
        &[("sent", |c| c.snapshot_bytes_sent), ("received", |c| c.snapshot_bytes_received)],
    ),
    counter(
        About::new("raftkv_snapshot_fetch_timeouts", "Times that nothing came from a node whose snapshot was fetched"),
        "",
        &[("", |c| c.snapshot_timeouts)],
    ),
    micros(
        About::seconds(
            "raftkv_snapshot_hold_longest",
            "The most time of a processor that snapshots took of one turn of an event loop since the start",
        ),
        &[("", |c| c.snapshot_hold_us_max)],
    ),
];
