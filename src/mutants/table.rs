//! The mutants, in the order of the layers.

use super::Mutant;

/// Every mutant, by the layer that it is in.
pub const ALL: &[Mutant] = &[
    // Raft: votes, terms, elections.
    bug("vote-before-sync", "a granted vote leaves before it is durable", "rule 1, museum 2"),
    bug("vote-not-written", "the term is written to the log, the vote is not", "rule 1, museum 1"),
    bug("vote-twice", "a node that has voted in a term votes for others in it too", "Raft §5.2, museum 1"),
    bug("vote-lost-on-role-change", "whoever becomes a follower forgets its vote of the same term", "museum 1"),
    bug("vote-kept-across-terms", "the vote of an earlier term counts as that of the new one", "museum 3"),
    bug("vote-for-shorter-log", "of logs that end in the same term the shorter one gets votes too", "Raft §5.4.1"),
    bug("refusal-counts-as-vote", "a candidate counts answers instead of grants", "Raft §5.2"),
    bug("pre-vote-counts-as-vote", "a granted pre-vote that comes late counts as a vote", "thesis §9.6"),
    bug("elected-by-half", "half of the voters, rounded down, elect and confirm", "museum 10"),
    bug("leader-ignores-later-term", "a leader that hears of a later term goes on leading", "Raft §5.1, museum 6"),
    // Raft: replication, commitment, durability.
    bug("commit-on-half", "half of the voters, rounded down, commit", "museum 10"),
    bug("older-term-committed", "an entry of an earlier term is committed by counting", "museum 11"),
    bug("leader-counts-unsynced", "a leader counts its own log before it is durable", "rule 1, museum 15"),
    bug("unsynced-acknowledged", "a follower acknowledges what is not durable yet", "rule 3, museum 2"),
    bug(
        "match-index-kept",
        "a new leader believes what it knew of the followers' logs when it led before",
        "museum 10",
    ),
    bug(
        "refusal-advances-match",
        "a follower that refuses an append is taken to have all before the hint",
        "museum 12",
    ),
    bug("previous-term-unchecked", "a follower looks for the previous entry's index only", "Raft §5.3, museum 12"),
    bug("conflict-kept", "an entry whose index is taken is passed over, whatever its term", "Raft §5.3, museum 7"),
    bug(
        "matching-entries-cut",
        "an append cuts the log where it begins, also if its entries match",
        "rule 10, museum 17",
    ),
    bug("hint-past-conflict", "a refusal names the end of the log instead of where the logs may agree", "museum 7"),
    bug("verified-kept-across-terms", "what matched an earlier leader's log counts as verified", "rule 3, museum 12"),
    bug("stale-completion-counts", "a completed write counts for what was truncated meanwhile", "rule 2, museum 13"),
    bug("truncation-keeps-persisted", "truncation does not lower what counts as durable", "rule 2, museum 13"),
    bug("completion-counts-later-writes", "a completed write counts for those after it too", "rule 2, museum 13"),
    bug("restart-commits-all", "after a start everything in the log counts as committed", "museum 12, museum 24"),
    // Raft: reads.
    bug("read-before-own-commit", "a new leader serves reads before it has committed in its term", "rule 4, museum 19"),
    bug("read-unconfirmed", "a leader serves reads without asking anybody", "rule 4, museum 22"),
    bug("read-context-reused", "all read rounds of a term have one context", "rule 4, museum 21"),
    bug("read-confirmation-kept", "who confirmed a read round counts in all later ones", "rule 4, museum 21"),
    bug("read-at-applied", "a read round takes what is applied for what is committed", "rule 4, museum 20"),
    // Raft: repair after damage.
    bug("votes-while-damaged", "a replica that may have forgotten its votes grants others", "rule 15, museum 42"),
    bug("heals-without-fence", "a replica is healed before it knows all terms that it forgot", "rule 15, museum 42"),
    bug("heals-at-older-term", "a leader's commit index of earlier terms heals a replica", "rule 15, museum 42"),
    bug(
        "damaged-acknowledges-all",
        "a replica acknowledges entries before it knows its promises",
        "rule 15, museum 42",
    ),
    bug("damaged-confirms-reads", "a replica confirms reads before it knows its promises", "rule 15, museum 42"),
    // The shard.
    bug("sync-not-awaited", "a batch counts as durable as soon as it is handed over", "rule 1, museum 2"),
    bug("after-sync-at-once", "messages that wait for a sync leave without it", "rule 1, museum 2"),
    bug("completed-a-batch-early", "a write counts as durable with the batch before its own", "rule 2, museum 13"),
    bug("overwritten-write-confirmed", "a write whose index another entry took is confirmed", "rule 25, museum 16"),
    bug("waiting-write-refused", "who steps down refuses the writes that it has proposed", "rule 25, museum 45"),
    bug("expired-write-refused", "a proposed write that takes too long is a definite no", "rule 25, museum 45"),
    bug("stale-read-unready", "a stale read is served before the log is applied again", "rule 8, museum 24"),
    bug("read-served-locally", "a linearizable read is served like a stale one", "museum 22"),
    bug("scan-unconfirmed", "a leader reads its part of a scan without asking anybody", "rules 4 and 28, museum 22"),
    // Leases.
    bug("lease-from-answer", "a lease counts from when the answer came", "rule 6, museum 23"),
    bug("lease-ignores-drift", "a lease lasts as long as the promise, whatever the clocks do", "rule 6, museum 23"),
    bug("lease-judged-before-reading", "a lease is held at the time before its request was read", "rule 6, museum 23"),
    bug("hint-waives-promise", "a broken link frees a voter from what it has promised", "rule 6, museum 23"),
    bug("restarted-voter-is-free", "a voter forgets over a restart what it has promised", "rule 6, museum 23"),
    bug("transfer-keeps-lease", "a leader that hands over keeps its lease", "rule 6, museum 23"),
    // The log.
    bug("sync-skipped", "the log is written and not synced", "rule 1, museum 2"),
    bug("sync-error-ignored", "a failed write or sync is taken for a good one", "museum 38"),
    bug("durable-upto-ahead", "a batch says of itself that it is durable", "rule 12, museum 39"),
    bug("last-batch-cut", "a start cuts whatever no later batch has proved durable", "rule 12, museum 39"),
    bug("corruption-cut", "a start cuts a damaged batch that was durable, with all behind it", "rule 12, museum 42"),
    bug("checksum-ignored", "the checksums of records are not compared", "rule 12, museum 39"),
    bug("kept-batches-not-rewritten", "a start cuts what may be in the page cache only, and relies on it", "rule 13"),
    bug("segment-named-early", "a segment gets its name before its beginning is durable", "rule 13, museum 40"),
    bug("segment-name-unsynced", "the name of a new segment is not made durable", "museum 40"),
    bug(
        "replay-keeps-overwritten",
        "at a start the first entry of an index counts, not the last",
        "rule 10, museum 30",
    ),
    bug("hard-state-dropped", "a hard state is dropped where the batch has something already", "rule 1, museum 2"),
    bug("needed-segment-released", "a segment is let go although a shard has entries in it", "rule 14, museum 30"),
    bug("released-before-restated", "a segment is let go before a later one says what it said", "rule 14, museum 30"),
    bug("copied-in-part", "copies are declared complete when the first of them are written", "rule 14, museum 30"),
    bug("reset-forgets-vote", "at a start a reset of the log is taken to reset term and vote too", "rule 10, museum 1"),
    // Snapshots.
    bug("compacted-to-the-newest", "the log is let go up to the newer of two snapshots", "rule 14, museum 32"),
    bug("one-snapshot-kept", "an older snapshot is removed at once", "rule 14, museum 32"),
    bug("snapshot-ahead-of-the-log", "a snapshot is taken of what this node's disk does not have", "rule 8"),
    bug("snapshot-named-early", "a snapshot gets its name before it is durable", "rule 10, museum 29"),
    bug("snapshot-name-unsynced", "the name of a snapshot is not made durable", "rule 10, museum 40"),
    bug("reset-not-written", "a snapshot takes the place of the log, and the log is not told", "rule 10, museum 26"),
    bug("cut-short-install-ignored", "a snapshot ahead of the log is loaded, and the log kept", "rule 10, museum 29"),
    bug("earlier-snapshot-told", "who asks for a snapshot is told of one that covers less", "rule 10"),
    bug("snapshots-told-in-part", "who asks for snapshots is told of those of the first core", "rule 10"),
    bug("reset-keeps-claims", "what was durable before the log was reset counts for the new one", "rule 10"),
    bug("offer-taken-for-done", "a snapshot that is offered is acknowledged before it is there", "rule 1, museum 31"),
    // The state machine.
    bug("version-is-the-term", "a key's version is the term of the entry that wrote it", "rule 18"),
    bug("later-version-matches", "a condition holds for later versions than its own too", "rule 32"),
    bug("delete-always-finds", "a delete says that the key existed", "Linearizability"),
    bug("scan-cursor-included", "the last key of a page is the first of the next", "rule 28"),
    // The server.
    bug("forwarded-write-resent", "a forwarded write is sent again after its link broke", "rule 25, museum 45"),
    bug("unknown-forward-retried", "a forwarded call whose outcome is unknown is tried again", "rule 25, museum 45"),
    bug("expired-forward-refused", "a forwarded write without an answer is a definite no", "rule 25, museum 45"),
    bug("forward-reply-misdelivered", "a peer's answer goes to the oldest forwarded call", "rule 25"),
    bug("forward-serials-from-zero", "answers meant for the process before the restart are taken", "museum 21"),
    bug("connection-generation-kept", "a reply goes to whoever has the connection's place now", "rule 26"),
    bug("admission-ignored", "a node that may have lost its disk votes all the same", "rule 22, museum 34"),
    bug("stranger-followed", "a node that may have lost its disk follows whoever never met it", "rule 22, museum 34"),
    bug("new-incarnation-accepted", "a node that lost its disk is taken for the one that it was", "rule 22, museum 34"),
    bug("scan-without-a-shard", "a page goes out without the shard that has refused its part", "rule 28"),
    bug("scan-cut-ignored", "a page goes on behind where the part of one shard has ended", "rule 28"),
    bug("scan-cut-at-the-farthest", "in reverse, a page goes on to where the last part ends", "rule 28"),
    bug("scan-ends-at-a-cut", "a page that ends where a part has ended is taken for the last", "rule 28"),
    // The client.
    bug("sent-write-resent", "a write whose connection broke is sent again", "rule 25, museum 45"),
    bug("unknown-write-retried", "a write that the server does not know the outcome of is sent again", "museum 45"),
    bug("unknown-outcome-denied", "a write without an answer is reported as not done", "rule 25, museum 45"),
];

const fn bug(name: &'static str, what: &'static str, cites: &'static str) -> Mutant {
    Mutant { name, what, cites }
}
