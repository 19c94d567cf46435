//! What can be asked of something over the network: whether a name resolves and a port answers, which certificates are
//! shown, how a Redis does, what waits in a queue.
//!
//! Everything here only looks: no queue is declared, no key is written. The answers are plain data; what of it is bad
//! is the matter of `health`. No configuration is known here, and nothing waits longer than its [`Deadline`].

use std::time::{Duration, Instant};

pub(crate) mod dns;
pub(crate) mod dramatiq;
pub(crate) mod rabbitmq;
pub(crate) mod redis;
pub(crate) mod tcp;
pub(crate) mod tls;

/// Why there is no answer. No text holds a user, a password or the path of a URL.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// What is to be asked was stated wrongly.
    #[error("{0}")]
    Settings(String),
    /// The name is not known, or nobody could be asked for it.
    #[error("`{name}` does not resolve: {reason}")]
    Lookup { name: String, reason: String },
    /// Nobody is there.
    #[error("cannot connect to {at}: {reason}")]
    Unreachable { at: String, reason: String },
    /// Somebody may be there, and says nothing.
    #[error("{at} did not answer within {} s", .after.as_secs_f32())]
    Timeout { at: String, after: Duration },
    /// TLS could not be agreed on.
    #[error("no secure connection to {at}: {reason}")]
    Tls { at: String, reason: String },
    /// A PostgreSQL that does without.
    #[error("{at} has TLS turned off")]
    NoTls { at: String },
    /// The answer is a no: a wrong password, no permission.
    #[error("{at} refused: {reason}")]
    Refused { at: String, reason: String },
    /// The answer is not what such a server says, or it broke off.
    #[error("{at} answered something unexpected: {reason}")]
    Answer { at: String, reason: String },
    #[error(transparent)]
    Http(#[from] crate::http::Error),
}

/// When to give up, for everything that one question takes together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    start: Instant,
    limit: Duration,
}

impl Deadline {
    /// Starts the clock.
    pub(crate) fn after(limit: Duration) -> Deadline {
        Deadline { start: Instant::now(), limit }
    }

    /// Returns how long it has been.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Returns how much time is left; none is an error about `at`.
    pub(crate) fn left(&self, at: &str) -> Result<Duration, Error> {
        let left = self.limit.saturating_sub(self.start.elapsed());
        // The system takes a timeout of zero for none at all.
        if left < Duration::from_millis(1) { Err(self.over(at)) } else { Ok(left) }
    }

    /// Returns the error of having waited in vain.
    fn over(&self, at: &str) -> Error {
        Error::Timeout { at: at.to_owned(), after: self.limit }
    }

    /// Makes an error of what the system said about a connection.
    fn failed(&self, at: &str, error: &std::io::Error) -> Error {
        use std::io::ErrorKind::{TimedOut, UnexpectedEof, WouldBlock};
        let (at, reason) = (at.to_owned(), error.to_string());
        match error.kind() {
            TimedOut | WouldBlock => self.over(&at),
            UnexpectedEof => Error::Answer { at, reason: "it closed the connection".to_owned() },
            _ => Error::Unreachable { at, reason },
        }
    }
}

/// Writes host and port as people do.
fn place(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
