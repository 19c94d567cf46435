//! The options of `opsctl generate`, which packages call and people do not: it is not in the help.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Write what a package installs beside the program: man pages and completions
///
/// All of it is made of the same definition as the command line and its help.
#[derive(Args, Debug)]
#[command(hide = true, after_help = EXITS)]
pub(crate) struct GenerateArgs {
    #[command(subcommand)]
    pub(crate) command: GenerateCommand,
}

/// What is made.
#[derive(Debug, Subcommand)]
pub(crate) enum GenerateCommand {
    /// Write a man page for each command, and one for the configuration file
    #[command(after_help = EXITS)]
    Man {
        /// Where to; it is made if it is not there
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Print what completes the command line in a shell
    #[command(after_help = EXITS)]
    Completions {
        /// For whom
        #[arg(value_name = "SHELL", value_enum)]
        shell: Shell,
    },
}

/// The shells that packages have files for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

const EXITS: &str = "Exit statuses: 0 written or printed; 1 failed; 2 wrong command line.";
