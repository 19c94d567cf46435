//! The exit statuses: the one table of numbers, and the error that carries one.
//!
//! Which error of which layer has which status is decided in `failure.rs`.

use std::fmt;

/// How a run ended, as its caller sees it. An unknown number must be read as failure; none is ever reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// Did what was asked, or there was nothing to do.
    Done = 0,
    /// Could not do its job.
    Failed = 1,
    /// Wrong command line.
    Usage = 2,
    /// Did its job, and the news is bad.
    BadNews = 3,
    /// Configuration missing or wrong.
    Configuration = 10,
    /// Another run holds the lock, or the maintenance window is closed.
    Locked = 11,
    /// Database unreachable, or it refused.
    Database = 12,
    /// Storage unreachable, or it refused.
    Storage = 13,
    /// The deadline passed.
    Deadline = 14,
    /// Interrupted by SIGINT.
    Interrupted = 130,
    /// Ended by SIGTERM.
    Terminated = 143,
}

impl Exit {
    /// All of them with their meaning, for the help and the documents.
    pub(crate) const TABLE: [(Exit, &'static str); 11] = [
        (Exit::Done, "did what was asked, or there was nothing to do"),
        (Exit::Failed, "could not do its job"),
        (Exit::Usage, "wrong command line"),
        (
            Exit::BadNews,
            "did its job, and the news is bad: a backup that does not verify, a finding",
        ),
        (Exit::Configuration, "configuration missing or wrong"),
        (Exit::Locked, "another run holds the lock, or the maintenance window is closed"),
        (Exit::Database, "database unreachable, or it refused"),
        (Exit::Storage, "storage unreachable, or it refused"),
        (Exit::Deadline, "the deadline passed"),
        (Exit::Interrupted, "interrupted (SIGINT); children ended, nothing half-written left"),
        (Exit::Terminated, "ended (SIGTERM); children ended, nothing half-written left"),
    ];

    /// Returns the number.
    pub(crate) fn number(self) -> u8 {
        self as u8
    }

    /// Returns what it means.
    pub(crate) fn meaning(self) -> &'static str {
        Exit::TABLE.iter().find(|(exit, _)| *exit == self).map_or("", |(_, meaning)| meaning)
    }
}

/// An error that knows its exit status and what to do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    message: String,
    /// A full sentence with the next step.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// Makes an error with a status.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), hint: None }
    }

    /// Adds what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_complete_and_in_order() {
        let numbers: Vec<_> = Exit::TABLE.iter().map(|(exit, _)| exit.number()).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 10, 11, 12, 13, 14, 130, 143]);
    }
}
