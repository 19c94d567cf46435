//! `DuckDB`, whose program or Python module carries a file of statements out. What they are is not decided here.

use crate::child::{self, Spec};
use crate::stop::Stop;

/// An answer may have so many bytes; it is kept in memory.
const MAX_ANSWER: u64 = 256 << 20;
/// Runs a file of statements with Python's module.
const PYTHON: &str = "import duckdb, sys; duckdb.connect().execute(open(sys.argv[1]).read())";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no DuckDB here to ask")]
    Missing,
    #[error("the answer has more than {} MiB: ask for less", MAX_ANSWER >> 20)]
    TooLarge,
    #[error("DuckDB did not answer")]
    Failed(#[source] child::Error),
}

/// Runs the statements in the file `path`, and returns what they write to /dev/stdout.
///
/// They are in a file because arguments can be seen by others. `environment` is what the child gets beside its own.
pub(crate) fn run(
    path: &str,
    environment: &[(String, String)],
    stop: &Stop,
) -> Result<Vec<u8>, Error> {
    let run = |program: &str, args: [&str; 3]| {
        let spec = Spec::new(program).args(args).envs(environment.iter().cloned());
        spec.output(stop, MAX_ANSWER + 1)
    };
    let read = format!(".read '{path}'");
    let answer = match run("duckdb", ["-bail", "-c", &read]) {
        Err(child::Error::Start(..)) => run("python3", ["-c", PYTHON, path]),
        answer => answer,
    };
    match answer {
        Ok(answer) if answer.len() as u64 > MAX_ANSWER => Err(Error::TooLarge),
        Ok(answer) => Ok(answer),
        Err(child::Error::Start(..)) => Err(Error::Missing),
        Err(child::Error::Failed { stderr, .. }) if stderr.contains("No module named 'duckdb'") => {
            Err(Error::Missing)
        }
        Err(error) => Err(Error::Failed(error)),
    }
}
