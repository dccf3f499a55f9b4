//! The search for an order of one key's operations that explains them all.
//!
//! Operations are put in order from the first on. The next may be any whose call lies before the end of every one that
//! is still to come. Four things keep the search short, none of which excludes an order that a longer search would
//! find:
//!
//! - An operation that changes nothing goes first as soon as it fits. It fits no better later.
//! - A write without an outcome goes only where it makes the very next operation possible. Elsewhere it could go later
//!   or, if what follows hides it, be left out; it may, as it has no end.
//! - What is said to have come first is tried first, see [`check_with_hints`](crate::check_with_hints).
//! - A set of operations that led to a state once is not tried again in another order (Lowe), nor with more of the
//!   writes without an outcome spent on it.

mod follow;

use std::collections::HashMap;

use crate::key::{Register, State, Step, Version};

pub(crate) use follow::follow;

/// What came of a search.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// There is an order.
    Linearizable { steps: u64 },
    /// There is none.
    Contradiction { steps: u64, deepest: Deepest },
    /// It was not found out.
    TooHard { steps: u64 },
}

/// The end of the longest order that was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deepest {
    /// How many operations with an outcome it has.
    pub fitted: usize,
    /// The state after them.
    pub state: State,
}

/// Searches with at most so many steps.
pub(crate) fn search(register: &Register, steps_max: u64) -> Verdict {
    let mut search = Search::new(register);
    let mut steps = 0;
    let mut orders = vec![Frame::new(State::Absent, None, None)];
    while !search.is_whole() {
        let Some(frame) = orders.last_mut() else {
            return Verdict::Contradiction { steps, deepest: search.deepest };
        };
        let Some(choice) = search.next_choice(frame) else {
            let taken = orders.pop().and_then(|frame| frame.taken);
            taken.into_iter().for_each(|choice| search.set(choice, false));
            continue;
        };
        if steps == steps_max {
            return Verdict::TooHard { steps };
        }
        steps += 1;
        let before = frame.state;
        let after = search.after(choice, before);
        search.set(choice, true);
        if search.is_known(choice, after) {
            search.set(choice, false);
            continue;
        }
        search.note(after);
        let only_now = matches!(choice, Choice::Open(..)).then_some(before);
        orders.push(Frame::new(after, only_now, Some(choice)));
    }
    Verdict::Linearizable { steps }
}

/// The next operation of an order, by its place in the register.
#[derive(Clone, Copy, Debug)]
enum Choice {
    Ended(usize),
    /// Without an outcome, giving this version.
    Open(usize, Version),
}

/// An order so far, and what may come next.
#[derive(Debug)]
struct Frame {
    state: State,
    /// After a write without an outcome, the state before it. What fits there need not follow here.
    before: Option<State>,
    /// The last operation.
    taken: Option<Choice>,
    choices: Vec<Choice>,
    tried: usize,
    stage: Stage,
}

/// Which choices were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    None,
    Ended,
    All,
}

impl Frame {
    fn new(state: State, before: Option<State>, taken: Option<Choice>) -> Frame {
        Frame { state, before, taken, choices: Vec::new(), tried: 0, stage: Stage::None }
    }
}

/// Operations without an outcome, by their places, with the versions that they have given.
type Spent = Vec<(usize, Version)>;

struct Search<'a> {
    register: &'a Register,
    /// Which operations the order holds.
    ended: Vec<bool>,
    /// The same for those without an outcome, with the version that each has given.
    open: Vec<Option<Version>>,
    /// The first with an outcome that it does not hold.
    first: usize,
    /// How many with an outcome it holds.
    fitted: usize,
    /// For the operations with an outcome that an order held, and the state that it led to: what was spent on it of
    /// those without. Everything behind it was tried. Only looked up, never walked through.
    known: HashMap<(Vec<u64>, State), Vec<Spent>>,
    deepest: Deepest,
}

impl<'a> Search<'a> {
    fn new(register: &'a Register) -> Search<'a> {
        Search {
            register,
            ended: vec![false; register.ended.len()],
            open: vec![None; register.open.len()],
            first: 0,
            fitted: 0,
            known: HashMap::new(),
            deepest: Deepest { fitted: 0, state: State::Absent },
        }
    }

    /// Whether the order holds every operation that has an outcome.
    fn is_whole(&self) -> bool {
        self.first == self.register.ended.len()
    }

    fn next_choice(&self, frame: &mut Frame) -> Option<Choice> {
        while frame.tried == frame.choices.len() {
            frame.stage = match frame.stage {
                Stage::None => {
                    frame.choices = self.ended_choices(frame);
                    if self.is_open_hinted_before(&frame.choices) {
                        frame.choices.extend(self.open_choices(frame));
                        frame.choices.sort_by_key(|choice| self.place_of(*choice));
                        Stage::All
                    } else {
                        Stage::Ended
                    }
                }
                Stage::Ended if !self.looks(frame.choices.first()) => {
                    frame.choices.extend(self.open_choices(frame));
                    Stage::All
                }
                Stage::Ended | Stage::All => return None,
            };
        }
        frame.tried += 1;
        Some(frame.choices[frame.tried - 1])
    }

    fn place_of(&self, choice: Choice) -> u64 {
        match choice {
            Choice::Ended(at) => self.register.ended[at].place(),
            Choice::Open(at, _) => self.register.open[at].0.place(),
        }
    }

    /// Whether an operation without an outcome is said to come before all of these, unless one of them looks.
    fn is_open_hinted_before(&self, choices: &[Choice]) -> bool {
        let first = choices.iter().map(|choice| self.place_of(*choice)).min().unwrap_or(u64::MAX);
        let mut open = self.register.open.iter().zip(&self.open);
        !self.looks(choices.first()) && open.any(|((step, _), taken)| taken.is_none() && step.place() < first)
    }

    /// Whether this is an operation that changes nothing, which is then the only choice.
    fn looks(&self, choice: Option<&Choice>) -> bool {
        matches!(choice, Some(Choice::Ended(at)) if self.register.ended[*at].says.only_looks())
    }

    /// The operations with an outcome that are not in the order and may be next, whether they fit or not; and the time
    /// by which one of them must be.
    fn ready(&self) -> (Vec<usize>, u64) {
        let mut earliest_ret = u64::MAX;
        let mut ready = Vec::new();
        for (at, step) in self.register.ended.iter().enumerate().skip(self.first) {
            if step.call > earliest_ret {
                break;
            }
            if !self.ended[at] {
                ready.push(at);
                earliest_ret = earliest_ret.min(step.ret.unwrap_or(u64::MAX));
            }
        }
        (ready, earliest_ret)
    }

    fn ended_choices(&self, frame: &Frame) -> Vec<Choice> {
        let (mut ready, _) = self.ready();
        ready.retain(|at| {
            let says = self.register.ended[*at].says;
            says.fits(frame.state) && frame.before.is_none_or(|before| !says.fits(before))
        });
        if let Some(at) = ready.iter().find(|at| self.register.ended[**at].says.only_looks()) {
            return vec![Choice::Ended(*at)];
        }
        // Indexes of a log tell which went first. Where they are not known, the first to end is a good guess.
        ready.sort_by_key(|at| {
            let step = &self.register.ended[*at];
            (step.place(), step.says.returned().unwrap_or(0), step.ret)
        });
        ready.into_iter().map(Choice::Ended).collect()
    }

    fn open_choices(&self, frame: &Frame) -> Vec<Choice> {
        let (ready, earliest_ret) = self.ready();
        let ended = ready.into_iter().map(|at| &self.register.ended[at]);
        let is_open = |at: usize, step: &Step| self.open[at].is_none() && step.call <= earliest_ret;
        let open: Vec<(usize, &(Step, Vec<Version>))> =
            self.register.open.iter().enumerate().filter(|(at, (step, _))| is_open(*at, step)).collect();
        // Of several that say the same, the one that was called first will do in the place of any.
        let is_first = |(at, one): &(usize, &(Step, Vec<Version>))| {
            let mut before = open.iter().take_while(|(other, _)| other < at);
            !before.any(|(_, other)| other.0.says == one.0.says && other.1 == one.1)
        };
        let open: Vec<(usize, &(Step, Vec<Version>))> = open.iter().copied().filter(is_first).collect();
        let waiting: Vec<&Step> = ended.chain(open.iter().map(|(_, (step, _))| step)).collect();
        // One that fits before a write without an outcome need not come after it.
        let waiting: Vec<&Step> = waiting.into_iter().filter(|step| !step.says.fits(frame.state)).collect();
        let mut choices = Vec::new();
        for (at, (step, versions)) in open {
            if frame.before.is_some_and(|before| step.says.fits(before)) {
                continue;
            }
            for version in versions {
                let Some(after) = step.says.after(frame.state, *version) else { break };
                if *version != Version::Unseen && self.open.contains(&Some(*version)) {
                    continue;
                }
                if waiting.iter().any(|waiting| waiting.says.fits(after)) {
                    choices.push(Choice::Open(at, *version));
                }
            }
        }
        choices
    }

    fn after(&self, choice: Choice, state: State) -> State {
        let after = match choice {
            Choice::Ended(at) => self.register.ended[at].says.after(state, Version::Unseen),
            Choice::Open(at, version) => self.register.open[at].0.says.after(state, version),
        };
        after.expect("only what fits is chosen")
    }

    /// Puts an operation into the order, or takes it out.
    fn set(&mut self, choice: Choice, taken: bool) {
        match choice {
            Choice::Open(at, version) => self.open[at] = taken.then_some(version),
            Choice::Ended(at) if taken => {
                self.ended[at] = true;
                self.fitted += 1;
                while self.ended.get(self.first) == Some(&true) {
                    self.first += 1;
                }
            }
            Choice::Ended(at) => {
                self.ended[at] = false;
                self.fitted -= 1;
                self.first = self.first.min(at);
            }
        }
    }

    /// Whether everything from here on was tried before, with as much or more left to spend. What was the only choice,
    /// or does not stand by itself, is not worth remembering.
    fn is_known(&mut self, choice: Choice, state: State) -> bool {
        match choice {
            Choice::Ended(at) if !self.register.ended[at].says.only_looks() => {}
            _ => return false,
        }
        let open = self.open.iter().enumerate().filter_map(|(at, version)| Some((at, (*version)?)));
        let spent: Spent = open.collect();
        let known = self.known.entry((self.place(), state)).or_default();
        let is_known = known.iter().any(|less| less.iter().all(|one| spent.contains(one)));
        if !is_known {
            known.push(spent);
        }
        is_known
    }

    /// Which operations with an outcome the order holds, as few words.
    fn place(&self) -> Vec<u64> {
        let after_first = &self.ended[self.first..];
        let last = after_first.iter().rposition(|taken| *taken).map_or(0, |at| at + 1);
        let word = |flags: &[bool]| flags.iter().rev().fold(0, |word, flag| word << 1 | u64::from(*flag));
        let words = after_first[..last].chunks(64).map(word);
        [self.first as u64, last as u64].into_iter().chain(words).collect()
    }

    fn note(&mut self, state: State) {
        if self.fitted > self.deepest.fitted {
            self.deepest = Deepest { fitted: self.fitted, state };
        }
    }
}
