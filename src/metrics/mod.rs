//! What a node counts. Each core counts for itself in plain integers; a reader adds the cores up, but for what is the greatest
//! or longest of something: of that the node's is the greatest of its cores'.

pub mod figures;
pub mod histogram;
pub mod latest;
pub mod requests;
pub mod stopwatch;

use raftkv_protocol::client::Code;

macro_rules! together {
    ($own:expr, $other:expr) => {
        $own += $other
    };
    ($own:expr, $other:expr, greatest) => {
        $own = $own.max($other)
    };
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident $(: $how:ident)?,)*) => {
        /// The counters of one core, or of several together.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Adds another core's counters.
            pub fn add(&mut self, other: &Counters) {
                $(together!(self.$name, other.$name $(, $how)?);)*
            }

            /// Sets the counter with this name, so that a test can see where it shows.
            #[cfg(test)]
            pub fn set(&mut self, name: &str, value: u64) {
                match name {
                    $(stringify!($name) => self.$name = value,)*
                    _ => panic!("there is no counter {name}"),
                }
            }

            /// Every counter by its name, in alphabetical order.
            #[must_use]
            pub fn named(&self) -> Vec<(String, u64)> {
                let mut named = vec![$((stringify!($name).to_owned(), self.$name)),*];
                named.sort();
                named
            }
        }
    };
}

counters! {
    /// Connections accepted.
    connections_accepted,
    /// Connections refused because the node has too many.
    connections_refused,
    /// Client connections that are open.
    connections_open,
    /// HTTP connections accepted.
    http_connections_accepted,
    /// HTTP connections that are open.
    http_connections_open,
    /// HTTP connections closed because they rested, hung, or did not send a head in time.
    http_connections_late,
    /// HTTP connections closed because of bytes that are no HTTP, over a limit or broken off.
    http_connections_broken,
    /// Streams of HTTP/2 connections that were ended because their clients did not take the responses.
    http_streams_late,
    /// Streams of HTTP/2 connections that were refused because their connections had as many as they may.
    http_streams_refused,
    /// Streams of HTTP/2 connections that were ended for what their clients sent.
    http_streams_broken,
    /// HTTP/2 connections that were ended because their clients reset or broke too many streams, or sent too much that asks
    /// for nothing.
    http_floods,
    /// Calls over gRPC that were ended because their own deadlines had passed.
    grpc_deadlines,
    /// Requests over HTTP.
    http_requests,
    /// Those that were answered with a status from 400 to 499.
    http_refused_4xx,
    /// Those that were answered with a status from 500 on.
    http_refused_5xx,
    /// Requests over HTTP whose bodies did not come in time.
    http_bodies_late,
    /// Requests over HTTP whose bodies had no room.
    overloaded_bodies,
    /// Requests for the node's metrics over the limit of those that are served.
    overloaded_scrapes,
    /// Times that a core has gathered the node's metrics, for all who had asked it for them.
    scrapes_gathered,
    /// Hellos refused: wrong magic, version, cluster, node or incarnation.
    hellos_refused,
    /// Connections closed because no hello came in time.
    hellos_timed_out,
    /// Connections closed because of bytes that are no frame: checksum, or length over the cap.
    frames_bad,
    /// Connections closed because of frames that are no message.
    messages_bad,
    /// Requests taken in.
    requests,
    /// Requests refused because a key, a value or a batch is over its limit.
    refused_too_large,
    /// Requests refused because they make no sense.
    refused_bad_request,
    /// Writes refused because the key's version was not the one that their condition asks for.
    refused_precondition,
    /// Batches refused because their keys lie in different shards.
    refused_cross_shard,
    /// Requests that a node which does not lead the shard sent back with the leader's name.
    refused_not_leader,
    /// Requests refused because the node has not caught up, or is being stopped.
    refused_not_ready,
    /// Requests refused because too much was in flight; why is counted by those that begin with `overloaded_`.
    refused_overloaded,
    /// Writes over the limit of uncommitted bytes, of the shard or of the core.
    overloaded_uncommitted,
    /// Writes while too much waited for the disk.
    overloaded_backlog,
    /// Requests over the limit of those that wait for a leader.
    overloaded_parked,
    /// Requests over the limit of those that wait for other nodes' answers.
    overloaded_forwarded,
    /// Requests over the limit of those that wait for another core.
    overloaded_inbox,
    /// Requests for snapshots over the limit of those that are not done.
    overloaded_snapshots,
    /// Scans over the limit of those that wait for others, or that waited too long.
    overloaded_scans,
    /// Reads over the core's limit of reply bytes.
    overloaded_replies,
    /// Reads for another node whose link was half full.
    overloaded_link,
    /// Puts refused because the disk is full.
    refused_no_space,
    /// Requests refused because the replica's state is another than that of others.
    refused_diverged,
    /// Requests for which no leader was found in time.
    refused_no_leader,
    /// Requests whose outcome was not known in time.
    timeouts,
    /// Times that a connection was not read from because its replies were not taken.
    reads_paused,
    /// Replies replaced by a refusal because their reader had left too many unread.
    replies_dropped,
    /// Requests sent on to a shard's leader.
    forwards_sent,
    /// Requests served for another node.
    forwards_served,
    /// Raft messages received.
    raft_messages_received,
    /// Raft messages sent.
    raft_messages_sent,
    /// Messages to a peer that were dropped because its link was down or full.
    raft_messages_dropped,
    /// Messages that were not heeded because their sender has made a newer link.
    raft_messages_outdated,
    /// Messages to another core that were dropped because its inbox was full.
    inbox_full,
    /// Vote requests left unanswered because this node may have lost its disk and is not admitted again yet.
    votes_withheld,
    /// Messages of leaders left unanswered because this node may have lost its disk, and few others have welcomed it.
    leaders_unheeded,
    /// Rounds that confirmed, or were to confirm, that this node leads a shard, for reads.
    read_rounds,
    /// Times that a replica learned of another leader than the one it knew last.
    leader_changes,
    /// Leadership transfers begun to bring a shard back to its preferred node.
    transfers,
    /// Leadership transfers begun because the node's disk was slow or full, or its state of the shard another than the majority's.
    transfers_away,
    /// Times that the node's disk was found to be slow.
    disk_slow,
    /// Times that the node's disk was found to be full.
    disk_full,
    /// Hashes of their replicas that peers have told.
    checkpoints_received,
    /// Times that a replica was found to differ from others, or to be corrupt.
    divergences,
    /// Times that a wrong state was built anew while the node ran.
    states_rebuilt,
    /// Times that this began with another node's snapshot.
    states_rebuilt_from_others,
    /// States that were read as a whole, beside the loop, to see whether memory has kept them.
    states_scrubbed,
    /// Bytes of states for which that was begun, 64 more for each key.
    state_scrub_bytes,
    /// Reads that a leader answered by its lease.
    lease_reads,
    /// Reads that asked for it and waited for a round, as the leader held no lease.
    lease_reads_fallen_back,
    /// Votes and pre-votes that were withheld because of a promise that a lease rests on.
    lease_votes_withheld,
    /// Elections that this node has put off because of one.
    lease_elections_put_off,
    /// Leases that were given up to hand a shard over.
    leases_given_up,
    /// Turns of the event loops.
    turns,
    /// The longest turn of the event loops in the last minute, in microseconds.
    turn_us_max: greatest,
    /// Events that the polls reported.
    events,
    /// Log batches made durable, one sync each.
    log_syncs,
    /// Bytes handed to the disk by the log.
    log_bytes_written,
    /// Microseconds that syncs of the log took, in all.
    log_sync_us_total,
    /// The longest sync of the log since the start, in microseconds.
    log_sync_us_max: greatest,
    /// Damaged logs of which the node kept what was sound, at this start.
    log_salvages,
    /// Spots of the logs that are not what was written, found at this start: nothing is lost, but the disk is not to be trusted.
    log_blemishes,
    /// Shards that are being repaired from the peers after their log has lost something.
    shards_repairing,
    /// Log segments taken into use since the start.
    log_segments,
    /// Log segments that there are.
    log_segments_held,
    /// Bytes that the files of the log take, spares included.
    log_disk_bytes,
    /// Times that a batch of the log had no place and waited, for a segment or for space.
    log_space_waits,
    /// Bytes of the log's entries in memory.
    log_memory_bytes,
    /// Snapshots of shards that were taken.
    snapshots_taken,
    /// Snapshots that could not be written, received or loaded.
    snapshots_failed,
    /// Snapshots of other nodes that took the place of a shard's log and state.
    snapshots_installed,
    /// Bytes of snapshots sent to other nodes.
    snapshot_bytes_sent,
    /// Bytes of snapshots received from other nodes.
    snapshot_bytes_received,
    /// Times that nothing came from a node of which a snapshot was fetched.
    snapshot_timeouts,
    /// How long the last snapshot took, in microseconds: of each core its last, and of these the longest.
    snapshot_us_last: greatest,
    /// The most that snapshots have taken of one turn of an event loop since the start, in microseconds of processor time.
    snapshot_hold_us_max: greatest,
}

impl Counters {
    /// Counts a refusal.
    pub fn refused(&mut self, code: Code) {
        match code {
            Code::BadRequest => self.refused_bad_request += 1,
            Code::TooLarge => self.refused_too_large += 1,
            Code::PreconditionFailed => self.refused_precondition += 1,
            Code::CrossShard => self.refused_cross_shard += 1,
            Code::NotLeader => self.refused_not_leader += 1,
            Code::NotReady => self.refused_not_ready += 1,
            Code::NoLeader => self.refused_no_leader += 1,
            Code::Overloaded => self.refused_overloaded += 1,
            Code::NoSpace => self.refused_no_space += 1,
            Code::Diverged => self.refused_diverged += 1,
            Code::Timeout => self.timeouts += 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod metrics_test;
