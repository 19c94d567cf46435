//! What can go wrong with a database, sorted by what a caller can do about it.

use std::error::Error as _;
use std::fmt;

use postgres::error::{DbError, Severity, SqlState};

use crate::secret::redact;
use crate::stop::{Stop, Stopped};

/// The cause beneath an [`Error`].
pub(crate) type Source = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong with a database.
///
/// What was being done is a verb phrase, so that it reads "failed to …". No variant ever holds a
/// password: `connection::tests::outcome` looks for one in every error it sees.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The connection parameters are malformed, contradictory or not supported.
    #[error("{0}")]
    Parameters(String),
    /// No server answered there.
    #[error("failed to reach {target}")]
    Unreachable { target: String, source: Source },
    /// A server answered and said no: authentication, certificates, privileges, no such database.
    #[error("failed to {target}")]
    Refused {
        /// What was asked of whom.
        target: String,
        source: Source,
    },
    /// The connection broke.
    #[error("lost the connection while trying to {what}")]
    Lost { what: String, source: Source },
    /// A statement failed.
    #[error("failed to {what}")]
    Query { what: String, source: Source },
    /// It was time to stop.
    #[error("stopped")]
    Stopped,
    /// The client programs are missing or of another version.
    #[error("{0}")]
    Programs(String),
}

impl Error {
    /// Classifies the failure of a statement; `what` is a verb phrase such as "read the sizes".
    pub(crate) fn query(what: impl Into<String>, error: postgres::Error) -> Error {
        let what = what.into();
        let lost = error.as_db_error().map_or_else(|| is_transport(&error), is_end_of_session);
        let refused = error.code().is_some_and(is_refusal);
        let source = source(error);
        match (lost, refused) {
            (true, _) => Error::Lost { what, source },
            (false, true) => Error::Refused { target: what, source },
            (false, false) => Error::Query { what, source },
        }
    }

    /// Classifies the failure of a COPY stream, which hides PostgreSQL's error in an I/O error.
    pub(crate) fn copy(what: impl Into<String>, error: std::io::Error) -> Error {
        let what = what.into();
        match error.downcast::<postgres::Error>() {
            Ok(inner) => Error::query(what, inner),
            Err(error) => Error::Query { what, source: error.into() },
        }
    }

    /// Returns [`Error::Stopped`] in place of a failure that stopping caused.
    ///
    /// A cancelled statement is an ordinary SQL error to the server; only the token tells why. Any
    /// failure after the wish to stop counts, because the cancel may meet the statement anywhere.
    pub(crate) fn or_stopped(self, stop: &Stop) -> Error {
        let cancelled = self.sqlstate() == Some(&SqlState::QUERY_CANCELED);
        let cut_off = matches!(self, Error::Lost { .. } | Error::Unreachable { .. });
        if (cancelled || cut_off) && stop.reason().is_some() { Error::Stopped } else { self }
    }

    /// Returns the server's SQLSTATE, if it was the server that objected.
    pub(crate) fn sqlstate(&self) -> Option<&SqlState> {
        self.source()?.downcast_ref::<ServerMessage>().map(|message| message.0.code())
    }
}

impl From<Stopped> for Error {
    fn from(_: Stopped) -> Error {
        Error::Stopped
    }
}

/// What the server said, on one line and with its SQLSTATE.
#[derive(Debug)]
pub(crate) struct ServerMessage(DbError);

impl fmt::Display for ServerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |text: &str| redact(text).replace(['\n', '\r'], " ");
        write!(f, "{}: {}", self.0.severity(), line(self.0.message()))?;
        write!(f, " (SQLSTATE {})", self.0.code().code())?;
        if let Some(detail) = self.0.detail() {
            write!(f, "; {}", line(detail))?;
        }
        if let Some(hint) = self.0.hint() {
            write!(f, "; {}", line(hint))?;
        }
        Ok(())
    }
}

impl std::error::Error for ServerMessage {}

/// Returns what stands beneath an error of ours: the server's own words where it spoke.
pub(crate) fn source(error: postgres::Error) -> Source {
    match error.as_db_error() {
        Some(said) => Box::new(ServerMessage(said.clone())),
        None => Box::new(error),
    }
}

/// Is this the failure of a TLS handshake (or the server's unwillingness to begin one)?
///
/// The crate keeps the kinds of its errors to itself, so their fixed texts have to do.
pub(crate) fn is_tls(error: &postgres::Error) -> bool {
    error.to_string().starts_with("error performing TLS handshake")
}

/// Is this a failure of the bytes' way rather than of what was asked?
pub(crate) fn is_transport(error: &postgres::Error) -> bool {
    let text = error.to_string();
    error.is_closed()
        || ["error communicating", "error connecting", "timeout waiting"]
            .iter()
            .any(|start| text.starts_with(start))
}

/// Did the server end the session with this message?
pub(crate) fn is_end_of_session(said: &DbError) -> bool {
    let fatal = matches!(said.parsed_severity(), Some(Severity::Fatal | Severity::Panic));
    let code = said.code();
    fatal && !is_refusal(code)
        || code.code().starts_with("08")
        || matches!(code.code(), "57P01" | "57P02" | "57P03" | "57P05")
}

fn is_refusal(code: &SqlState) -> bool {
    code.code().starts_with("28") || matches!(code.code(), "42501" | "3D000" | "53300")
}

/// Joins an error and all beneath it to one line.
pub(crate) fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = redact(&error.to_string());
    let mut next = error.source();
    while let Some(source) = next {
        let text = redact(&source.to_string());
        // Some errors repeat their source's text in their own.
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = source.source();
    }
    line.replace(['\n', '\r'], " ")
}
