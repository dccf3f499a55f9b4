//! What is wrong with a history.

use std::fmt;

use crate::operation::{Operation, Quoted};

/// Why a history is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The operations on a key have no order that explains them all.
    NotLinearizable {
        /// The key.
        key: Vec<u8>,
        /// Operations on the key that contradict each other, in the order of their calls; none of them can be left
        /// out.
        counter_example: Vec<Operation>,
        /// How far an order goes that explains as many as possible.
        explanation: String,
    },
    /// The search gave up, so that nothing is known: as bad as a violation, because it would hide one.
    TooHard {
        /// The key.
        key: Vec<u8>,
        /// How many operations on it count.
        operations: usize,
        /// How many of those have no known outcome.
        unknown: usize,
        /// How many steps were made.
        steps: u64,
    },
    /// Versions are not what indexes of a log can be.
    Index(String),
    /// An operation that cannot be: whoever recorded it has made a mistake.
    Malformed(String),
}

impl fmt::Display for Violation {
    /// A line, then a line for each operation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::NotLinearizable { key, counter_example, explanation } => {
                write!(f, "key {} is not linearizable: {explanation}", Quoted(key))?;
                counter_example.iter().try_for_each(|operation| write!(f, "\n  {operation}"))
            }
            Violation::TooHard { key, operations, unknown, steps } => write!(
                f,
                "key {} is not judged: {operations} operations, {unknown} of them with an unknown outcome, are too many \
                 for {steps} steps",
                Quoted(key)
            ),
            Violation::Index(what) => f.write_str(what),
            Violation::Malformed(what) => write!(f, "the history is recorded wrongly: {what}"),
        }
    }
}

impl std::error::Error for Violation {}
