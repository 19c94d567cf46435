//! What is wrong with a configuration, and where: every problem names its place.

use std::fmt;
use std::path::PathBuf;

use crate::secret::redact;

/// A configuration that cannot be used, with all that was found wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{}", one_line(.problems))]
pub(crate) struct Error {
    problems: Vec<Problem>,
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    source: Source,
    message: String,
}

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nobody said anything.
    Default,
    /// A line of a file; without a line, the file as a whole.
    File { path: PathBuf, line: Option<usize> },
    /// An environment variable.
    Environment(String),
    /// A flag, with its dashes.
    Flag(String),
}

impl Error {
    /// Returns all problems, in the order of the file; never empty.
    pub(crate) fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Makes an error of what was found; `Ok` if that is nothing.
    pub(super) fn unless_empty(problems: Vec<Problem>) -> Result<(), Error> {
        if problems.is_empty() { Ok(()) } else { Err(Error { problems }) }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Error {
        Error { problems: vec![problem] }
    }
}

impl Problem {
    /// States a problem. The message is kept to one line and free of secrets.
    pub(super) fn new(source: Source, message: impl AsRef<str>) -> Problem {
        let message = redact(message.as_ref()).replace(char::is_control, " ");
        Problem { source, message }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Default => f.write_str(&self.message),
            source => write!(f, "{source}: {}", self.message),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Source::File { path, line: None } => write!(f, "{}", path.display()),
            Source::Environment(name) => write!(f, "environment {name}"),
            Source::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

impl Source {
    /// Names a flag.
    pub(super) fn flag(name: &str) -> Source {
        Source::Flag(name.to_owned())
    }

    /// Names an environment variable.
    pub(super) fn environment(name: &str) -> Source {
        Source::Environment(name.to_owned())
    }

    /// Returns how strong the source is; a stronger one wins.
    pub(super) fn strength(&self) -> u8 {
        match self {
            Source::Default => 0,
            Source::File { .. } => 1,
            Source::Environment(_) => 2,
            Source::Flag(_) => 3,
        }
    }
}

fn one_line(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
}
