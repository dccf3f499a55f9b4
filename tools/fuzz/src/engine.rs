//! One worker: a corpus, a mutator and a target, and nothing shared with other workers.

use crate::Target;
use crate::feedback::Feedback;
use crate::mutator::Mutator;
use crate::panics;
use crate::random::mix;

/// A corpus grows no further than this; by then new features are rare.
const CORPUS_MAX: usize = 8192;
/// How many smaller inputs are tried to make a failing one easier to read.
const SHRINK_EXECUTIONS_MAX: usize = 4_000;

/// An input that a target panicked on.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Whose.
    pub target: &'static str,
    /// The input, made as small as it could be with the same panic.
    pub input: Vec<u8>,
    /// What the panic said, and where.
    pub words: String,
}

/// Feeds one target.
pub struct Worker {
    target: Target,
    mutator: Mutator,
    corpus: Vec<Vec<u8>>,
    feedback: Feedback,
    executions: u64,
    /// Seeds that have not run yet.
    seeds_left: usize,
    input: Vec<u8>,
}

impl Worker {
    /// A worker that does the same for the same seed.
    #[must_use]
    pub fn new(target: Target, seed: u64) -> Worker {
        let corpus = (target.seeds)();
        Worker {
            target,
            mutator: Mutator::new(mix(seed)),
            seeds_left: corpus.len(),
            corpus,
            feedback: Feedback::default(),
            executions: 0,
            input: Vec::new(),
        }
    }

    /// Runs so many inputs: first the seeds, then what the mutator makes of the corpus.
    pub fn run(&mut self, executions: u64) -> Result<(), Failure> {
        for _ in 0..executions {
            let is_seed = self.seeds_left > 0;
            if is_seed {
                self.seeds_left -= 1;
                self.input.clone_from(&self.corpus[self.seeds_left]);
            } else {
                self.make_input();
            }
            self.executions += 1;
            let (run, input, feedback) = (self.target.run, &self.input, &mut self.feedback);
            if let Err(words) = panics::catch(|| run(input, feedback)) {
                let input = self.shrink(&words);
                return Err(Failure { target: self.target.name, input, words });
            }
            if self.feedback.end_run() && !is_seed && self.corpus.len() < CORPUS_MAX {
                self.corpus.push(self.input.clone());
            }
        }
        Ok(())
    }

    fn make_input(&mut self) {
        let parent = self.pick();
        let other = self.pick();
        let none = Vec::new();
        self.input.clone_from(self.corpus.get(parent).unwrap_or(&none));
        self.mutator.mutate(&mut self.input, self.corpus.get(other).unwrap_or(&none), self.target.bytes_max);
        if self.mutator.random().one_in(2) {
            (self.target.fixup)(&mut self.input);
        }
    }

    /// Half of the time one of the newest: they are on the way to something.
    fn pick(&mut self) -> usize {
        let len = self.corpus.len().max(1);
        let random = self.mutator.random();
        if random.one_in(2) { random.below(len) } else { len - 1 - random.below(len.min(32)) }
    }

    /// Takes out whatever the panic does not need.
    fn shrink(&self, words: &str) -> Vec<u8> {
        let run = self.target.run;
        let fails = |input: &[u8]| {
            let panicked = panics::catch(|| run(input, &mut Feedback::default()));
            panicked.is_err_and(|again| place(&again) == place(words))
        };
        let mut smallest = self.input.clone();
        let mut length = smallest.len();
        let mut left = SHRINK_EXECUTIONS_MAX;
        while length > 0 && left > 0 {
            let mut at = 0;
            while at < smallest.len() && left > 0 {
                let mut smaller = smallest.clone();
                smaller.drain(at..(at + length).min(smallest.len()));
                left -= 1;
                if fails(&smaller) { smallest = smaller } else { at += length }
            }
            length /= 2;
        }
        smallest
    }

    /// How many inputs were run.
    #[must_use]
    pub fn executions(&self) -> u64 {
        self.executions
    }

    /// How many inputs are worth mutating.
    #[must_use]
    pub fn corpus(&self) -> usize {
        self.corpus.len()
    }

    /// What was seen.
    #[must_use]
    pub fn feedback(&self) -> &Feedback {
        &self.feedback
    }
}

/// Where a panic happened: its words may hold numbers that differ from input to input.
fn place(words: &str) -> &str {
    words.rsplit_once(" (").map_or(words, |(_, place)| place)
}
