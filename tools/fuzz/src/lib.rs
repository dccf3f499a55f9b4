//! Fuzz targets of RaftKV that run on the stable toolchain.
//!
//! A [`Target`] is a function of bytes that panics on a defect and tells what it came across. The [`engine`] feeds it
//! what a deterministic [`mutator`] makes of a corpus, and keeps the inputs that led to something new: that is its
//! feedback, and no instrumented build is needed. A coverage-guided fuzzer can drive the same functions (`coverage/`).
//!
//! An input alone decides what a run does: no clock, no randomness, nothing left over from the run before. So the bytes
//! of a failure repeat it, and one seed and one number of jobs are one campaign.

pub mod allocations;
pub mod campaign;
pub mod choices;
pub mod crash_images;
pub mod engine;
pub mod feedback;
pub mod flips;
pub mod mutator;
pub mod panics;
pub mod random;
pub mod targets;

use std::cell::RefCell;

use feedback::Feedback;

/// Something that is fed bytes.
#[derive(Clone, Copy)]
pub struct Target {
    /// As it is called on the command line.
    pub name: &'static str,
    /// What it feeds, and what must hold, in one line.
    pub what: &'static str,
    /// Its part of the executions of a campaign, in percent of all targets together.
    pub share: u64,
    /// The longest input that the mutator makes.
    pub bytes_max: usize,
    /// Valid inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Runs one input. Panics on a defect.
    pub run: fn(&[u8], &mut Feedback),
    /// Repairs what a checksum protects, so that a mutated input gets past it. The engine calls it for half of them.
    pub fixup: fn(&mut [u8]),
}

/// For targets whose inputs hold no checksum.
pub fn no_fixup(_: &mut [u8]) {}

/// Runs one input for a fuzzer that has its own feedback and its own way to learn of a panic.
pub fn run_input(run: fn(&[u8], &mut Feedback), input: &[u8]) {
    thread_local! {
        static FEEDBACK: RefCell<Feedback> = RefCell::new(Feedback::default());
    }
    FEEDBACK.with_borrow_mut(|feedback| {
        run(input, feedback);
        feedback.end_run();
    });
}
