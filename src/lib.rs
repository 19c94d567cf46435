//! opsctl.

mod backup;
mod child;
mod compression;
mod encryption;
mod clock;
mod config;
mod db;
mod environment;
mod id;
mod secret;
mod stop;
mod storage;

use std::process::ExitCode;

/// Runs opsctl with the arguments and environment of this process.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
