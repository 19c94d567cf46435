//! One of opsctl's own commands, run as a person would run it, and what came of it.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;

use crate::child::{Error, Spec};
use crate::stop::Stop;

/// What a command said on stdout, and how it failed, if it did.
pub(crate) struct Step {
    pub(crate) said: String,
    pub(crate) failure: Option<String>,
}

/// Runs this program with a configuration, and waits for its end.
pub(crate) fn run(
    args: &[&str],
    config: &Path,
    environment: &BTreeMap<String, String>,
    stop: &Stop,
) -> anyhow::Result<Step> {
    let program = std::env::current_exe().context("failed to find this program")?;
    let mut arguments: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    arguments.extend(["--config".to_owned(), config.display().to_string()]);
    let mut child = Spec::new(program).args(arguments).envs(environment.clone()).spawn(stop)?;
    let mut said = String::new();
    if let Some(mut stdout) = child.take_stdout() {
        stdout.read_to_string(&mut said).context("failed to read what opsctl says")?;
    }
    let failure = match child.wait() {
        Ok(()) => None,
        Err(Error::Failed { ending, stderr, .. }) => {
            Some(format!("{ending}: {stderr}").trim_end_matches(": ").to_owned())
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Step { said, failure })
}
