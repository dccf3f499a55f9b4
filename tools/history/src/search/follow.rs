//! The order that a log tells of, where one is known: it needs no search.
//!
//! Versions are indexes of a log, so whoever has read the log knows in which order the writes took effect. They are put
//! into it one by one, those without an outcome too, unless they do not fit: a write whose condition did not hold has had
//! no effect. What changes nothing goes in as soon as it fits. A log does not say who has asked for a removal. Of those
//! that may have, on the same condition, it is the one that had to end first; one without an outcome only where there is
//! no other.
//!
//! The log is believed in nothing: whatever is put into the order fits there, and comes after all that had ended when it
//! was called, as in the search. So an order with every operation that has an outcome explains them all, whoever told of
//! it. That this one does not says nothing.

use std::collections::BTreeMap;

use super::{Choice, Search};
use crate::key::{Register, Says, State, Step, Version};
use crate::operation::{Condition, Removal};

/// Steps to an order of all operations along the log; `None` if it tells of none in at most so many.
pub(crate) fn follow(register: &Register, removals: &[Removal], steps_max: u64) -> Option<u64> {
    let mut walk = Walk { search: Search::new(register), state: State::Absent, steps: 0 };
    for (index, write) in writes(register, removals) {
        walk.look();
        if walk.search.is_whole() || walk.steps > steps_max {
            break;
        }
        walk.write(index, write)?;
    }
    walk.look();
    (walk.search.is_whole() && walk.steps <= steps_max).then_some(walk.steps)
}

/// An entry of the log.
#[derive(Clone, Copy, Debug)]
enum Write {
    /// An operation with an outcome, by its place in the register.
    Ended(usize),
    /// One without.
    Open(usize),
    /// Somebody's, on this condition.
    Removal(Condition),
}

/// What the log has of the key, by index; of what is said to be at one index, the operation with an outcome.
fn writes(register: &Register, removals: &[Removal]) -> BTreeMap<u64, Write> {
    let removals = removals.iter().map(|removal| (removal.index, Write::Removal(removal.condition)));
    let open = register.open.iter().enumerate().map(|(at, (step, _))| (step.place(), Write::Open(at)));
    let ended = register.ended.iter().enumerate().filter(|(_, step)| !step.says.only_looks());
    let ended = ended.map(|(at, step)| (step.says.returned().unwrap_or(step.place()), Write::Ended(at)));
    removals.chain(open).chain(ended).filter(|(index, _)| *index != u64::MAX).collect()
}

struct Walk<'a> {
    search: Search<'a>,
    state: State,
    steps: u64,
}

impl Walk<'_> {
    fn take(&mut self, choice: Choice) {
        self.state = self.search.after(choice, self.state);
        self.search.set(choice, true);
        self.steps += 1;
    }

    /// Takes everything that changes nothing and fits.
    fn look(&mut self) {
        let ended = &self.search.register.ended;
        let fits = |at: &usize, state: State| ended[*at].says.only_looks() && ended[*at].says.fits(state);
        while let Some(at) = self.search.ready().0.into_iter().find(|at| fits(at, self.state)) {
            self.take(Choice::Ended(at));
        }
    }

    /// Takes what the log has at this index; `None` if that cannot come next, but must be in the order.
    fn write(&mut self, index: u64, write: Write) -> Option<()> {
        let (ready, earliest_ret) = self.search.ready();
        let register = self.search.register;
        let choice = match write {
            Write::Ended(at) => {
                let fits = ready.contains(&at) && register.ended[at].says.fits(self.state);
                return fits.then(|| self.take(Choice::Ended(at)));
            }
            Write::Open(at) => {
                let step = &register.open[at].0;
                let fits = step.call <= earliest_ret && step.says.fits(self.state);
                fits.then_some(Choice::Open(at, Version::Known(index)))
            }
            Write::Removal(condition) => self.remover(condition, &ready, earliest_ret),
        };
        choice.into_iter().for_each(|choice| self.take(choice));
        Some(())
    }

    /// Who has removed the key now; nobody if there was nothing to remove, or the condition does not hold.
    fn remover(&self, condition: Condition, ready: &[usize], earliest_ret: u64) -> Option<Choice> {
        let Search { register, open: taken, .. } = &self.search;
        let removes = |step: &Step| {
            let is_such = matches!(step.says, Says::Delete { condition: own, .. } if own == condition);
            is_such && step.place() == u64::MAX && step.says.fits(self.state)
        };
        let ended = ready.iter().copied().filter(|at| removes(&register.ended[*at]));
        let ended = ended.min_by_key(|at| register.ended[*at].ret).map(Choice::Ended);
        let mut open = register.open.iter().zip(taken);
        let open = || {
            let is_free = |step: &Step| step.call <= earliest_ret && self.state != State::Absent && removes(step);
            let at = open.position(|((step, _), taken)| taken.is_none() && is_free(step))?;
            Some(Choice::Open(at, Version::Unseen))
        };
        ended.or_else(open)
    }
}
