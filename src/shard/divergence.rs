//! Whether the replicas of a shard hold the same state: compares the hashes that they had after the same entries.
//!
//! Every replica tells every other its checkpoints, and each judges for itself by what it has been told. At an index at
//! which a majority of the voters, this one counted, has the same hash, that hash is right. A replica that has another
//! one has *diverged*, and stays so until its state is built anew: what it holds is not what the log says. Where the
//! hashes differ and no majority can be found, nobody knows who is right, and all of them stop until one is.
//!
//! A replica whose memory is found not to hold what was put there is wrong whatever the others say.
//!
//! A replica that lags, or is down, is missing in the count and may still decide it. The others wait for it for
//! [`PATIENCE`], and then stop too.
//!
//! Knows no clock and no node but by its name: what was told, and the time, are handed in.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use raftkv_protocol::health::{Divergence, Verdict};
use raftkv_protocol::types::{Index, NodeId};

use crate::state_machine::{CHECKPOINTS_KEPT, Checkpoint, Corruption};

/// How long a difference may wait for the voter that decides it.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// What has changed with a judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// This replica serves no more.
    Found(Divergence),
    /// This replica was found to be corrupt; another's state has taken the place of its own since.
    Replaced(Divergence),
    /// A majority has been found, and this replica is part of it: it serves again.
    Settled,
    /// A peer's replica differs from the majority, which this one is part of.
    Stranger {
        /// Whose.
        peer: NodeId,
        /// At which index.
        index: Index,
        /// This replica's hash, and the majority's.
        own: u128,
        /// The peer's.
        other: u128,
    },
}

/// What one replica knows of the states of all.
#[derive(Debug)]
pub(super) struct Comparison {
    voters: usize,
    /// What each peer has told last, ascending, at most [`CHECKPOINTS_KEPT`].
    told: BTreeMap<NodeId, VecDeque<Checkpoint>>,
    /// The own replica was like a majority here.
    agreed: Index,
    /// Why this replica does not serve.
    divergence: Option<Divergence>,
    /// Since when a difference waits to be decided.
    in_doubt_since: Option<Instant>,
    /// Peers that differ from the majority, of which this replica is part.
    strangers: Vec<NodeId>,
    /// The newest own checkpoint that was looked at.
    seen: Index,
    /// Something was told, or a checkpoint was reached, since the last judgement.
    is_stale: bool,
    /// A checkpoint was passed since, at which a majority has another hash.
    is_outvoted: bool,
    /// This replica was found to be corrupt, and the next judgement is to say so, whatever has become of its state.
    untold: Option<Divergence>,
}

/// How the voters stand at an index.
enum Count {
    /// A majority is like this replica.
    Agreed,
    /// A majority has another hash.
    Outvoted(u128),
    /// Some have another hash than this replica; there is no majority, though there may be one yet.
    Open { other: u128, may_settle: bool },
    /// All that are known are like this replica.
    Quiet,
}

impl Comparison {
    pub(super) fn new(voters: usize) -> Comparison {
        Comparison {
            voters,
            told: BTreeMap::new(),
            agreed: Index(0),
            divergence: None,
            in_doubt_since: None,
            strangers: Vec::new(),
            seen: Index(0),
            is_stale: false,
            is_outvoted: false,
            untold: None,
        }
    }

    /// Why this replica does not serve, if it does not.
    pub(super) fn divergence(&self) -> Option<&Divergence> {
        self.divergence.as_ref()
    }

    /// Whether this replica's state may be shown.
    pub(super) fn serves(&self) -> bool {
        self.divergence.is_none() && !self.is_outvoted
    }

    /// This replica has just come to this checkpoint. If others were there before, nothing of its state is shown until that
    /// is judged.
    pub(super) fn passed(&mut self, reached: Checkpoint) {
        self.is_outvoted |= matches!(self.count(reached), Count::Outvoted(_));
    }

    /// Whether this replica's state is wrong: a majority has another, or it is corrupt.
    pub(super) fn is_wrong(&self) -> bool {
        self.divergence.is_some_and(|found| matches!(found.verdict, Verdict::Diverged | Verdict::Corrupt))
    }

    /// Whether a peer's replica is known to differ from the majority; by a replica that is outvoted, whether it is not
    /// known to be part of it.
    pub(super) fn is_stranger(&self, peer: NodeId) -> bool {
        match self.divergence {
            Some(found) if found.verdict == Verdict::Diverged => self.hash_of(peer, found.differs) != Some(found.other),
            _ => self.strangers.contains(&peer),
        }
    }

    /// When the judgement changes by itself.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.in_doubt_since.filter(|_| self.divergence.is_none()).map(|since| since + PATIENCE)
    }

    /// A peer has told a checkpoint of its replica. The same index told again, by a process that was started again, is
    /// what counts.
    pub(super) fn told(&mut self, peer: NodeId, checkpoint: Checkpoint) {
        let told = self.told.entry(peer).or_default();
        match told.binary_search_by_key(&checkpoint.index, |known| known.index) {
            Ok(at) => told[at] = checkpoint,
            Err(at) => told.insert(at, checkpoint),
        }
        if told.len() > CHECKPOINTS_KEPT {
            told.pop_front();
        }
        self.is_stale = true;
    }

    /// This replica has another state now, and other checkpoints; up to `sound` it was like a majority.
    pub(super) fn state_replaced(&mut self, sound: Index) {
        (self.agreed, self.seen, self.divergence, self.in_doubt_since) = (self.agreed.min(sound), Index(0), None, None);
        self.is_outvoted = false;
        self.strangers.clear();
        self.is_stale = true;
    }

    /// This replica's newest checkpoint, if there is one.
    pub(super) fn reached(&mut self, newest: Option<Checkpoint>) {
        let newest = newest.map_or(Index(0), |checkpoint| checkpoint.index);
        self.is_stale |= newest != self.seen;
        self.seen = newest;
    }

    /// Whether a judgement may come to something new.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.is_stale || self.deadline().is_some_and(|at| at <= now)
    }

    /// Compares all that is known with the `own` checkpoints, ascending.
    pub(super) fn judge(&mut self, own: &[Checkpoint], now: Instant) -> Vec<News> {
        (self.is_stale, self.is_outvoted) = (false, false);
        let of_corrupt = if self.is_wrong() { News::Found } else { News::Replaced };
        let mut news: Vec<News> = self.untold.take().map(of_corrupt).into_iter().collect();
        if !self.is_wrong() {
            self.judge_self(own, now, &mut news);
        }
        let serves = self.divergence.is_none();
        let strangers = if serves { self.find_strangers(own) } else { Vec::new() };
        news.extend(
            strangers
                .iter()
                .filter(|(peer, ..)| !self.strangers.contains(peer))
                .map(|&(peer, Checkpoint { index, hash }, other)| News::Stranger { peer, index, own: hash, other }),
        );
        self.strangers = strangers.into_iter().map(|(peer, ..)| peer).collect();
        news
    }

    fn judge_self(&mut self, own: &[Checkpoint], now: Instant, news: &mut Vec<News>) {
        // The first index at which somebody differs, after the last at which a majority did not.
        let mut open: Option<(Checkpoint, u128, bool)> = None;
        for &checkpoint in own {
            if checkpoint.index <= self.agreed {
                continue;
            }
            match self.count(checkpoint) {
                Count::Quiet => {}
                Count::Agreed => {
                    self.agreed = checkpoint.index;
                    open = None;
                }
                Count::Open { other, may_settle } => {
                    // A later index that cannot be settled decides for the earlier ones, as states do not heal.
                    let (first, first_other, may) = open.unwrap_or((checkpoint, other, may_settle));
                    open = Some((first, first_other, may && may_settle));
                }
                Count::Outvoted(other) => {
                    let (first, other) = self.first_difference(own, checkpoint.index, other);
                    return self.find(Verdict::Diverged, first, other, news);
                }
            }
        }
        let Some((first, other, may_settle)) = open else {
            self.in_doubt_since = None;
            if self.divergence.take().is_some() {
                news.push(News::Settled);
            }
            return;
        };
        let since = *self.in_doubt_since.get_or_insert(now);
        if self.divergence.is_none() && (!may_settle || now.saturating_duration_since(since) >= PATIENCE) {
            self.find(Verdict::Undecided, first, other, news);
        }
    }

    /// The own state is not what it should be, which says nothing of the others'. The next judgement tells.
    pub(super) fn corrupt(&mut self, corruption: &Corruption) {
        if self.is_wrong() {
            return;
        }
        self.was_corrupt(corruption);
        self.divergence = self.untold;
    }

    /// The state that this replica had was not what it should have been. The next judgement tells.
    pub(super) fn was_corrupt(&mut self, corruption: &Corruption) {
        let Corruption { sound, at, found, expected } = *corruption;
        let found = Divergence { verdict: Verdict::Corrupt, agreed: sound, differs: at, own: found, other: expected };
        (self.untold, self.is_stale) = (Some(found), true);
    }

    fn find(&mut self, verdict: Verdict, own: Checkpoint, other: u128, news: &mut Vec<News>) {
        let found = Divergence { verdict, agreed: self.agreed, differs: own.index, own: own.hash, other };
        self.divergence = Some(found);
        news.push(News::Found(found));
    }

    /// The first own checkpoint at which those differ who outvote this replica at `outvoted`, and their hash there.
    fn first_difference(&self, own: &[Checkpoint], outvoted: Index, other: u128) -> (Checkpoint, u128) {
        let outvotes = |peer: &&NodeId| self.hash_of(**peer, outvoted) == Some(other);
        let differs = |checkpoint: &Checkpoint| {
            let hashes = self.told.keys().filter(outvotes).filter_map(|peer| self.hash_of(*peer, checkpoint.index));
            hashes.into_iter().find(|hash| *hash != checkpoint.hash).map(|hash| (*checkpoint, hash))
        };
        let unsettled = own.iter().filter(|checkpoint| checkpoint.index > self.agreed);
        unsettled.into_iter().find_map(differs).expect("they differ where they outvote it")
    }

    /// Counts who has which hash at an index.
    fn count(&self, own: Checkpoint) -> Count {
        let mut hashes: Vec<(u128, usize)> = vec![(own.hash, 1)];
        for hash in self.told.keys().filter_map(|peer| self.hash_of(*peer, own.index)) {
            match hashes.iter_mut().find(|(known, _)| *known == hash) {
                Some((_, count)) => *count += 1,
                None => hashes.push((hash, 1)),
            }
        }
        let majority = self.voters / 2 + 1;
        let missing = self.voters.saturating_sub(hashes.iter().map(|(_, count)| count).sum());
        if hashes[0].1 >= majority {
            return Count::Agreed;
        }
        let others = hashes[1..].iter().max_by_key(|(_, count)| *count);
        match others {
            None => Count::Quiet,
            Some(&(other, count)) if count >= majority => Count::Outvoted(other),
            Some(&(other, count)) => Count::Open { other, may_settle: count.max(hashes[0].1) + missing >= majority },
        }
    }

    fn hash_of(&self, peer: NodeId, index: Index) -> Option<u128> {
        let told = self.told.get(&peer)?;
        told.binary_search_by_key(&index, |known| known.index).ok().map(|at| told[at].hash)
    }

    /// The peers that differ from the majority that this replica is part of, at the newest index for which they have
    /// told their hash; with the own checkpoint there and that hash.
    fn find_strangers(&self, own: &[Checkpoint]) -> Vec<(NodeId, Checkpoint, u128)> {
        let settled = own.partition_point(|checkpoint| checkpoint.index <= self.agreed);
        let differs = |peer: NodeId| {
            let told = |own: &Checkpoint| Some((*own, self.hash_of(peer, own.index)?));
            let (own, hash) = own[..settled].iter().rev().find_map(told)?;
            (hash != own.hash).then_some((peer, own, hash))
        };
        self.told.keys().filter_map(|peer| differs(*peer)).collect()
    }
}
