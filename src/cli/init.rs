//! The options of `opsctl init`.

use clap::Args;

/// Set opsctl up: check database and repository, write a configuration, take a first backup and prove it
///
/// What is not given is asked for. Nothing is written before both are found to be well, and no file is replaced. At
/// its end it prints what is left to a person: privileges to grant, and the schedule to install.
#[derive(Args, Debug)]
#[command(after_help = EXITS)]
pub(crate) struct InitArgs {
    /// The database, such as <postgresql://opsctl@db.example.com/members> [default: `DATABASE_URL`, or it is asked for]
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Where backups go: a directory, or <s3://bucket/prefix> [default: it is asked for]
    #[arg(long, value_name = "WHERE")]
    pub(crate) repository: Option<String>,
    /// Prove backups by their checksums only: this host has no PostgreSQL server to restore into
    #[arg(long)]
    pub(crate) no_restore_test: bool,
    /// Check everything and print the configuration; write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

const EXITS: &str = "\
Exit statuses: 0 written, backed up and proven; 1 failed; 2 wrong command line, or the file is there already; \
3 something is not as it must be, or the backup does not verify; 10 configuration; 12 database; 13 storage.";
