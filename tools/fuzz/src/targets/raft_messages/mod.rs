//! Raft, fed message by message: one replica whose peers send whatever they like, or three honest ones over a network
//! and disks that do everything that these may do.
//!
//! A crash-fault protocol does not promise that liars cannot make two replicas differ. So among liars (`liars`) what
//! needs no honest peer must hold: no panic, and every invariant that looks at one replica. Among honest ones
//! (`honest`), whatever is lost, doubled, late or restarted, everything holds: one leader a term, committed entries
//! never differ, and reads miss nothing that was committed before they were asked.

mod honest;
mod liars;
mod log;
mod replica;

pub use replica::Disk;

use crate::choices::Choices;
use crate::feedback::Feedback;

/// The target.
pub fn run(data: &[u8], feedback: &mut Feedback) {
    run_on(Disk::Honest, data, feedback);
}

/// The same on another kind of disk.
pub fn run_on(disk: Disk, data: &[u8], feedback: &mut Feedback) {
    let mut choices = Choices::new(data);
    if choices.below(3) == 0 {
        liars::run(disk, &mut choices, feedback);
    } else {
        honest::run(disk, &mut choices, feedback);
    }
}

/// Sequences that lead somewhere: elections, commits, restarts, reads, transfers.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    [liars::seeds(), honest::seeds()].concat()
}
