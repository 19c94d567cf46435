//! opsctl.

mod backup;
mod child;
mod cli;
mod clock;
mod commands;
mod compression;
mod config;
mod db;
mod encryption;
mod environment;
mod exit;
mod failure;
mod id;
mod lock;
mod log;
mod run;
mod secret;
mod stop;
mod storage;
mod sync;
mod text;

use std::process::ExitCode;

/// Runs opsctl with the arguments and environment of this process, and returns its exit status.
pub fn main() -> ExitCode {
    run::main()
}
