//! The leader's view of one follower: what it has, what it is sent next, and how much may be on the way.
//!
//! A progress moves between three states. In `Probe` the leader does not know where the logs agree and sends one append
//! at a time; the first acknowledgement moves it to `Replicate`, where appends are pipelined ahead of their
//! acknowledgements; a rejection or a new link moves it back. From either it gets to `Snapshot` when the append that is
//! due would need an entry from before the start of the log: the follower is offered a snapshot instead, again with each
//! beat, and is sent no appends. An acknowledgement that reaches the start of the log moves it on to `Replicate`; a new
//! link, or a refusal that shows that the follower's log reaches that far, moves it back to `Probe`. So does an
//! acknowledgement of the whole log of which something was not sent, as the follower has yet to hear how far that is committed.

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use raftkv_protocol::types::{Index, NodeId};

/// How a follower is sent entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// One append at a time, because it is not known where the logs agree.
    Probe(Probe),
    /// Pipelined.
    Replicate,
    /// The log no longer holds what the follower needs: it is offered a snapshot, and is sent nothing else. The first one that
    /// it was offered ends with the entry `first`.
    Snapshot { first: Index },
}

/// Whether the one append of a probe is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// It may be sent.
    Due,
    /// It was sent and nothing was heard since.
    Sent,
}

/// What a follower that lives may need once a beat, so that nothing waits for ever for what was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Revival {
    /// Nothing.
    None,
    /// To be asked whether the appends on their way arrived.
    Question,
    /// To be offered the snapshot again.
    Offer,
    /// To be told that there is a newer snapshot, though it does not need it.
    Notice,
}

/// Appends on their way to one follower, oldest first.
#[derive(Debug, Default)]
pub(super) struct Inflight {
    /// The last index and the bytes of each.
    appends: VecDeque<(Index, usize)>,
    bytes: usize,
}

/// The leader's view of one follower.
#[derive(Debug)]
pub(super) struct Progress {
    /// Whose.
    pub(super) node: NodeId,
    /// Counts the links to the follower; answers that belong to an earlier one are dropped.
    pub(super) link: u32,
    /// Its log matches the leader's, durably, up to here.
    pub(super) matched: Index,
    /// The first entry of the next append.
    pub(super) next: Index,
    pub(super) state: State,
    pub(super) inflight: Inflight,
    /// Heard from since the last quorum check.
    pub(super) active: bool,
    /// Heard from in the whole window before that.
    was_active: bool,
    /// Has answered the read round in flight.
    pub(super) confirmed: bool,
    /// Has answered a heartbeat since the last beat.
    pub(super) answered: bool,
    /// Until when it has promised not to help to depose this leader, by the leader's clock.
    pub(super) promised_until: Option<Instant>,
    /// `matched` at the last beat that was answered.
    matched_at_beat: Index,
    /// The last entry of the newest snapshot that it was told of on this link.
    told: Index,
}

impl Inflight {
    /// How many appends.
    pub(super) fn len(&self) -> usize {
        self.appends.len()
    }

    /// The bytes of their entries.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn push(&mut self, last: Index, bytes: usize) {
        self.appends.push_back((last, bytes));
        self.bytes += bytes;
    }

    fn answered(&mut self, matched: Index) {
        while let Some(&(last, bytes)) = self.appends.front()
            && last <= matched
        {
            self.appends.pop_front();
            self.bytes -= bytes;
        }
    }

    fn clear(&mut self) {
        self.appends.clear();
        self.bytes = 0;
    }
}

impl Progress {
    /// The view of a follower of whom nothing is known.
    pub(super) fn new(node: NodeId) -> Progress {
        Progress {
            node,
            link: 0,
            matched: Index(0),
            next: Index(1),
            state: State::Probe(Probe::Due),
            inflight: Inflight::default(),
            active: false,
            was_active: false,
            confirmed: false,
            answered: false,
            promised_until: None,
            matched_at_beat: Index(0),
            told: Index(0),
        }
    }

    /// Forgets everything but the link: a new leader knows nothing and guesses that the logs are alike (§5.3).
    pub(super) fn reset(&mut self, last: Index) {
        self.matched = if mutant!("match-index-kept") { self.matched } else { Index(0) };
        self.active = false;
        self.was_active = false;
        self.confirmed = false;
        self.answered = false;
        self.promised_until = None;
        self.matched_at_beat = Index(0);
        self.told = Index(0);
        self.probe_from(last.next());
    }

    /// What was sent may be lost, and answers to it no longer count. A probe asks its question again; a pipeline starts
    /// anew after what was acknowledged. But that no longer counts either until it is said again: at the other end there
    /// may be another process now, whose disk has lost it.
    pub(super) fn link_up(&mut self) {
        self.link = self.link.wrapping_add(1);
        match self.state {
            State::Probe(_) => self.probe_from(self.next),
            State::Replicate | State::Snapshot { .. } => self.probe_from(self.matched.next()),
        }
        self.matched = Index(0);
        self.told = Index(0);
    }

    /// Whether an append of so many bytes may be sent now.
    pub(super) fn has_room(&self, bytes: usize, bytes_max: usize, messages_max: usize) -> bool {
        match self.state {
            State::Probe(probe) => probe == Probe::Due,
            State::Replicate => {
                self.inflight.len() == 0
                    || (self.inflight.len() < messages_max && self.inflight.bytes() + bytes <= bytes_max)
            }
            State::Snapshot { .. } => false,
        }
    }

    /// An append with the entries from `next` up to `end` (exclusive) leaves.
    pub(super) fn sent(&mut self, end: Index, bytes: usize) {
        match self.state {
            State::Probe(_) => self.state = State::Probe(Probe::Sent),
            State::Replicate if end > self.next => {
                self.inflight.push(end.prev(), bytes);
                self.next = end;
            }
            State::Replicate | State::Snapshot { .. } => {}
        }
    }

    /// The log no longer holds what the follower needs next; the newest snapshot ends with the entry `newest`.
    pub(super) fn needs_snapshot(&mut self, newest: Index) {
        let first = if let State::Snapshot { first } = self.state { first } else { newest };
        self.state = State::Snapshot { first };
        self.inflight.clear();
    }

    /// A quorum check has looked who was heard from.
    pub(super) fn window_ends(&mut self) {
        self.was_active = std::mem::take(&mut self.active);
    }

    /// The last entry of the first snapshot that the follower was offered and has not got past, if it was heard from lately.
    pub(super) fn awaits_from(&self) -> Option<Index> {
        match self.state {
            State::Snapshot { first } if self.active || self.was_active => Some(first),
            _ => None,
        }
    }

    /// The follower's log matches up to here; the leader's begins after `start` and ends with `last`. Returns whether that
    /// is news.
    pub(super) fn accepted(&mut self, matched: Index, start: Index, last: Index) -> bool {
        let news = matched > self.matched;
        self.matched = self.matched.max(matched);
        let still_lacks = matches!(self.state, State::Snapshot { .. }) && self.matched < start;
        // Most likely what it has and was not sent came with a snapshot.
        let is_unheard = match self.state {
            State::Snapshot { .. } => true,
            State::Probe(probe) => probe == Probe::Due,
            State::Replicate => self.matched >= self.next,
        };
        match self.state {
            State::Snapshot { .. } if still_lacks => {}
            // There is nothing to send, but it is to hear how far what it has is committed; also if this is the second of
            // two answers that come at once.
            _ if is_unheard && self.matched == last => self.probe_from(last.next()),
            State::Replicate => {}
            State::Snapshot { .. } | State::Probe(_) => {
                self.inflight.clear();
                self.state = State::Replicate;
                self.next = self.matched.next();
            }
        }
        self.next = self.next.max(self.matched.next());
        self.inflight.answered(self.matched);
        news
    }

    /// The follower does not have the entry at `prev`; it may agree up to `hint`; the leader's log begins after
    /// `start`. Returns false if the answer is to an append that no longer matters.
    pub(super) fn rejected(&mut self, prev: Index, hint: Index, start: Index) -> bool {
        if mutant!("refusal-advances-match") {
            self.matched = self.matched.max(hint);
        }
        match self.state {
            // The pipeline broke somewhere after `matched`. If the log no longer reaches back there, it may reach back
            // to what the follower has and could not acknowledge yet.
            State::Replicate if prev > self.matched && self.matched < start => {
                self.probe_from(hint.max(self.matched).next());
            }
            State::Replicate if prev > self.matched => self.probe_from(self.matched.next()),
            State::Probe(_) if prev == self.next.prev() && prev > self.matched => {
                self.probe_from(prev.min(hint.next()).max(self.matched.next()));
            }
            State::Snapshot { .. } if hint >= start => self.probe_from(hint.next()),
            _ => return false,
        }
        true
    }

    /// A beat has passed. If the follower answered a heartbeat in it, and so lives, a probe that got no answer is sent
    /// again, an offer too, and a pipeline is asked about that stands still: not one of its appends was acknowledged
    /// in the whole beat. One that moves is told once of the newest snapshot, which ends with the entry `newest`, as soon
    /// as it has all that is in it.
    pub(super) fn beat(&mut self, newest: Index) -> Revival {
        if !std::mem::take(&mut self.answered) {
            return Revival::None;
        }
        let is_still = self.matched == std::mem::replace(&mut self.matched_at_beat, self.matched);
        match self.state {
            State::Probe(_) => self.state = State::Probe(Probe::Due),
            State::Replicate if self.inflight.len() > 0 && is_still => return Revival::Question,
            State::Replicate if self.told < newest && newest <= self.matched => {
                self.told = newest;
                return Revival::Notice;
            }
            State::Replicate => {}
            State::Snapshot { .. } => return Revival::Offer,
        }
        Revival::None
    }

    fn probe_from(&mut self, next: Index) {
        self.state = State::Probe(Probe::Due);
        self.inflight.clear();
        self.next = next;
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Probe(Probe::Due) => "probe",
            State::Probe(Probe::Sent) => "probe sent",
            State::Replicate => "replicate",
            State::Snapshot { .. } => "snapshot",
        };
        write!(f, "{}:{}>{} {state}", self.node, self.matched, self.next)?;
        if self.inflight.len() > 0 {
            write!(f, " inflight={}", self.inflight.len())?;
        }
        Ok(())
    }
}
