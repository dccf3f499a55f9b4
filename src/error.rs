//! The error that ends the process: one line that says what failed, where, and what to do.

use std::fmt;

/// A failure that the node cannot go on from. Printed as one line; the process ends with [`Fatal::exit_code`].
#[derive(Debug)]
pub struct Fatal {
    message: String,
    exit_code: i32,
    is_failed_sync: bool,
}

impl Fatal {
    /// A failure while running: exit code 1.
    pub fn failure(message: impl Into<String>) -> Fatal {
        Fatal { message: message.into(), exit_code: 1, is_failed_sync: false }
    }

    /// A sync of a file that failed: exit code 1. Whoever would try again otherwise must not.
    pub fn failed_sync(message: impl Into<String>) -> Fatal {
        Fatal { message: message.into(), exit_code: 1, is_failed_sync: true }
    }

    /// Whether it is of a sync that failed.
    #[must_use]
    pub fn is_failed_sync(&self) -> bool {
        self.is_failed_sync
    }

    /// Bad usage (flags, configuration): exit code 2.
    pub fn usage(message: impl Into<String>) -> Fatal {
        Fatal { message: message.into(), exit_code: 2, is_failed_sync: false }
    }

    /// 1 for a failure, 2 for bad usage.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        self.exit_code
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fatal {}
