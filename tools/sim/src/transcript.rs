//! What the clients asked and were told, taken down for the judges.
//!
//! A page of a scan tells of many keys at once: of each that it shows, and of each that it would show if it were there.
//! To the judges each is a read of one key between the question for the page and its answer, since every shard is read
//! after the question; that they were read together in one shard counts besides.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use raftkv::client::{Item, Page};
use raftkv_history::{Kind, Operation, Outcome};
use raftkv_protocol::types::ShardId;

use crate::batches::{self, AskedBatch};
use crate::coverage::Coverage;
use crate::oracle::{Oracle, Violation};
use crate::plan::{Plan, number_in};
use crate::scan::Scan;
use crate::user::{Answer, Question, What};

/// What a request is known by until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticket {
    /// An operation of the history, by its place.
    Operation(usize),
    /// A read of one key by any node, by its place.
    Glance(usize),
    /// A batch, by its place.
    Batch(usize),
    /// A page of a scan, by its number.
    Page(u64),
    /// Snapshots of a node, by the number of the request.
    Snapshots(u64),
}

/// A read that any node may answer from what it has.
#[derive(Debug)]
pub(crate) struct Glance {
    pub key: Vec<u8>,
    /// Up to here every node had applied the log when it was asked.
    pub applied_by_all: u64,
    /// The version that was read; none if there was no such key.
    pub answer: Option<Option<u64>>,
}

/// What a page shows of each key: its version, or that there is no such key.
pub(crate) type Sight = Vec<(Vec<u8>, Option<u64>)>;

/// What reads have shown of each put, by its number: its version, and when it was told first.
#[derive(Debug, Default)]
pub(crate) struct Shown(pub BTreeMap<u64, (u64, u64)>);

/// A page that was asked for.
#[derive(Debug)]
struct Asked {
    scan: Scan,
    /// Who asked, and as whom: see [`crate::user::User::name`].
    user: usize,
    client: u32,
    timeout: Duration,
    call: u64,
    /// By shard: up to here every node had applied the log.
    applied_by_all: Vec<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Transcript {
    /// Everything that is to be linearizable. Of values only the numbers are kept; see [`Plan::is_whole`].
    pub operations: Vec<Operation>,
    /// Every key that somebody has asked to be written.
    pub written: BTreeSet<Vec<u8>>,
    /// The last version that somebody was told, for conditions.
    pub last_version: Option<u64>,
    pub(crate) glances: Vec<Glance>,
    pub(crate) sights: Vec<Sight>,
    asked: BTreeMap<u64, Asked>,
    pub(crate) batches: Vec<AskedBatch>,
    pub(crate) shown: Shown,
    /// Counts calls and returns, so that no two happen at once.
    pub(crate) stamp: u64,
}

/// What answers are held against as they come, and where they are counted.
pub struct Witness<'a> {
    /// What was drawn.
    pub plan: &'a Plan,
    /// Knows what nodes have written.
    pub oracle: &'a Oracle,
    /// Counts.
    pub coverage: &'a mut Coverage,
}

impl Transcript {
    /// How many calls and returns there were.
    #[must_use]
    pub fn stamp(&self) -> u64 {
        self.stamp
    }

    /// Takes a request down. `user` asks under the name of `client`.
    pub fn asks(&mut self, question: &Question, user: usize, client: u32, oracle: &Oracle) -> Ticket {
        match &question.what {
            What::Page(scan) => {
                self.stamp += 1;
                let (scan, timeout, call) = (scan.clone(), question.timeout, self.stamp);
                let applied_by_all = (0..oracle.shards()).map(|shard| oracle.applied_by_all(ShardId(shard))).collect();
                self.asked.insert(call, Asked { scan, user, client, timeout, call, applied_by_all });
                Ticket::Page(call)
            }
            What::Snapshots(_) => {
                self.stamp += 1;
                Ticket::Snapshots(self.stamp)
            }
            What::Key { key, stale: true, .. } => {
                let applied_by_all = oracle.applied_by_all(oracle.shard_of(key));
                self.glances.push(Glance { key: key.clone(), applied_by_all, answer: None });
                Ticket::Glance(self.glances.len() - 1)
            }
            What::Batch(wish) => Ticket::Batch(self.asks_batch(wish, client)),
            What::Key { key, kind, .. } => {
                self.stamp += 1;
                self.takes_down(key, kind, client);
                Ticket::Operation(self.operations.len() - 1)
            }
        }
    }

    /// Something that is asked for now and not answered yet.
    pub(crate) fn takes_down(&mut self, key: &[u8], kind: &Kind, client: u32) {
        let kind = match kind {
            Kind::Put { value, condition } => {
                self.written.insert(key.to_vec());
                Kind::Put { value: number(value), condition: *condition }
            }
            other => other.clone(),
        };
        let (key, call, outcome, ret) = (key.to_vec(), self.stamp, Outcome::Unknown, u64::MAX);
        self.operations.push(Operation { client, key, kind, call, outcome, ret });
    }

    /// Takes down what came of a request. If it was a page, and the scan goes on: who asks for the next, and how.
    ///
    /// # Errors
    /// If it cannot be true whatever else is told.
    pub fn told(
        &mut self,
        ticket: Ticket,
        answer: Answer,
        witness: Witness<'_>,
    ) -> Result<Option<(usize, Question)>, Violation> {
        match (ticket, answer) {
            (Ticket::Operation(place), Answer::Outcome(outcome)) => self.told_operation(place, outcome, witness)?,
            (Ticket::Glance(place), Answer::Outcome(Outcome::Value(value))) => {
                self.told_glance(place, value, witness)?
            }
            (Ticket::Batch(place), Answer::Batch(answer)) => self.told_batch(place, &answer, witness)?,
            (Ticket::Page(number), Answer::Page(Some(page))) => return self.told_page(number, page, witness),
            (Ticket::Page(number), _) => {
                self.asked.remove(&number);
                witness.coverage.note("scan refused");
            }
            _ => {}
        }
        Ok(None)
    }

    fn told_glance(
        &mut self,
        place: usize,
        value: Option<(u64, Vec<u8>)>,
        witness: Witness<'_>,
    ) -> Result<(), Violation> {
        witness.coverage.note("stale read answered");
        let glance = &mut self.glances[place];
        glance.answer = Some(value.as_ref().map(|(version, _)| *version));
        value.map_or(Ok(()), |(version, value)| self.shown.look(&witness, self.stamp, &glance.key, version, &value))
    }

    fn told_operation(&mut self, place: usize, outcome: Outcome, witness: Witness<'_>) -> Result<(), Violation> {
        self.stamp += 1;
        let operation = &mut self.operations[place];
        operation.ret = if outcome == Outcome::Unknown { u64::MAX } else { self.stamp };
        operation.outcome = match outcome {
            Outcome::Value(Some((version, value))) => {
                self.shown.look(&witness, self.stamp, &operation.key, version, &value)?;
                Outcome::Value(Some((version, number(&value))))
            }
            other => other,
        };
        if let Outcome::Put { version } | Outcome::Value(Some((version, _))) = &operation.outcome {
            self.last_version = Some(*version);
        }
        witness.coverage.note(match &operation.outcome {
            Outcome::Put { .. } | Outcome::Deleted { .. } => "write acknowledged",
            Outcome::Value(_) => "read answered",
            Outcome::ConditionFailed => "condition failed",
            Outcome::Failed => "request refused",
            Outcome::Unknown => "write of unknown outcome",
        });
        Ok(())
    }

    fn told_page(
        &mut self,
        number: u64,
        page: Page,
        mut witness: Witness<'_>,
    ) -> Result<Option<(usize, Question)>, Violation> {
        let Some(asked) = self.asked.remove(&number) else { return Ok(None) };
        self.stamp += 1;
        asked.scan.check(&page)?;
        for Item { key, version, value } in &page.items {
            self.shown.look(&witness, self.stamp, key, version.0, value)?;
        }
        let absent = self.absent(&asked.scan, &page);
        witness.count(&asked.scan, &page, absent.len());
        let next = asked.scan.next(&page).map(|scan| Question { what: What::Page(scan), timeout: asked.timeout });
        self.take_page_apart(&asked, page.items, absent, witness.oracle);
        Ok(next.map(|next| (asked.user, next)))
    }

    /// The keys that the page would show if there were such keys. What nobody has ever written says nothing.
    fn absent(&self, scan: &Scan, page: &Page) -> Vec<Vec<u8>> {
        let shown: BTreeSet<&[u8]> = page.items.iter().map(|item| &item.key[..]).collect();
        let is_absent = |key: &&Vec<u8>| scan.covers(page, key) && !shown.contains(&key[..]);
        self.written.iter().filter(is_absent).cloned().collect()
    }

    /// A page as reads of single keys.
    fn take_page_apart(&mut self, asked: &Asked, items: Vec<Item>, absent: Vec<Vec<u8>>, oracle: &Oracle) {
        let shown = items.into_iter().map(|item| (item.key, Some((item.version.0, number(&item.value)))));
        let mut sight = Sight::new();
        for (key, seen) in shown.chain(absent.into_iter().map(|key| (key, None))) {
            let version = seen.as_ref().map(|(version, _)| *version);
            sight.push((key.clone(), version));
            if asked.scan.wish.stale {
                let applied_by_all = asked.applied_by_all[usize::from(oracle.shard_of(&key).0)];
                self.glances.push(Glance { key, applied_by_all, answer: Some(version) });
            } else {
                let (client, call, ret) = (asked.client, asked.call, self.stamp);
                let outcome = Outcome::Value(seen);
                self.operations.push(Operation { client, key, kind: Kind::Get, call, outcome, ret });
            }
        }
        self.sights.push(sight);
    }

    /// A client has gone away and will not be told.
    pub fn forget(&mut self, ticket: Ticket, coverage: &mut Coverage) {
        match ticket {
            Ticket::Operation(_) => coverage.note("write of unknown outcome"),
            Ticket::Batch(_) => coverage.note(batches::UNKNOWN),
            Ticket::Glance(_) | Ticket::Snapshots(_) => {}
            Ticket::Page(number) => _ = self.asked.remove(&number),
        }
    }
}

impl Shown {
    fn look(
        &mut self,
        witness: &Witness<'_>,
        now: u64,
        key: &[u8],
        version: u64,
        value: &[u8],
    ) -> Result<(), Violation> {
        if let Some(number) = number_in(value) {
            self.0.entry(number).or_insert((version, now));
        }
        witness.check(key, version, value)
    }
}

impl Witness<'_> {
    /// What a read shows was written so.
    fn check(&self, key: &[u8], version: u64, value: &[u8]) -> Result<(), Violation> {
        if !self.plan.is_whole(value) {
            let (key, begins) = (key.escape_ascii(), value[..value.len().min(40)].escape_ascii());
            let what = format!("key {key} was read with {} bytes @{version}: \"{begins}\"", value.len());
            return Err(Violation::of("a value is what somebody has written, to the last byte", what));
        }
        self.oracle.check_shown(key, version, value)
    }

    fn count(&mut self, scan: &Scan, page: &Page, absent: usize) {
        let mut shards = page.items.iter().map(|item| self.oracle.shard_of(&item.key));
        let first = shards.next();
        let is_over_shards = shards.any(|shard| Some(shard) != first);
        let happened = [
            ("scan page answered", true),
            ("scan page answered in reverse", scan.wish.reverse),
            ("scan page answered, stale", scan.wish.stale),
            ("scan page answered, not the first", scan.is_under_way()),
            ("scan page over several shards", is_over_shards),
        ];
        for (what, _) in happened.into_iter().filter(|(_, happened)| *happened) {
            self.coverage.note(what);
        }
        self.coverage.add("key missing from a page", absent as u64);
    }
}

/// The number that a value begins with, as bytes: it stands for the value.
fn number(value: &[u8]) -> Vec<u8> {
    value[..value.len().min(8)].to_vec()
}
