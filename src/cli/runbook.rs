//! The options of `opsctl runbook`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Read the runbooks, which are inside of this program
#[derive(Args, Debug)]
#[command(after_help = EXITS)]
pub(crate) struct RunbookArgs {
    #[command(subcommand)]
    pub(crate) command: RunbookCommand,
}

/// What is done with them.
#[derive(Debug, Subcommand)]
pub(crate) enum RunbookCommand {
    /// List the pages
    #[command(after_help = EXITS)]
    List,
    /// Print a page, or the part of it under a heading, with who is called, by the configuration
    #[command(after_help = EXITS)]
    Show {
        /// As `runbook list` has it, such as restore, or a part of it, such as health-check#xid-age
        #[arg(value_name = "PAGE[#PART]")]
        page: String,
    },
    /// Write all pages as Markdown into a folder, for a wiki or for printing, with who is called
    #[command(after_help = EXITS)]
    Render {
        /// Where to; it is made if it is not there
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Also replace pages that are there and differ
        #[arg(long)]
        force: bool,
    },
}

const EXITS: &str =
    "Exit statuses: 0 printed or written; 1 failed; 2 no such page, or a page would be replaced.";
