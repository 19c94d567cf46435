//! The options of `opsctl archive-audit`, and which of them go together.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Selection;
use crate::clock::Moment;

/// Archive audit rows that are old enough, as evidence that anybody can check without opsctl
///
/// Each closed window of a table of `[[audit]]` becomes a segment: its rows as lines of JSON, and a signed manifest with their
/// Merkle root and the hash of the manifest before. A segment is there when all was read back and computed again. Rows that arrive
/// late become a segment of their own. Nothing is overwritten, and no row is deleted from the table.
#[derive(Args, Debug)]
#[command(after_help = ARCHIVE_AUDIT_EXITS)]
pub(crate) struct ArchiveAuditArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ArchiveAuditCommand>,
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Only this table, as `[[audit]]` has it (repeatable)
    #[arg(long, value_name = "TABLE", global = true)]
    pub(crate) only: Vec<String>,
    /// Say what would be archived, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What else can be done about archives.
#[derive(Debug, Subcommand)]
pub(crate) enum ArchiveAuditCommand {
    /// List the segments
    #[command(after_help = LIST_EXITS)]
    List,
    /// Read everything back, and compare it with the manifests, their signatures and their chain
    #[command(after_help = VERIFY_EXITS)]
    Verify(ArchiveVerifyArgs),
    /// Put a question to the rows that are there as Parquet
    ///
    /// `DuckDB` answers it: its program, or Python's module. Without a question the statements are printed that make the tables there or
    /// in other engines.
    #[command(after_help = QUERY_EXITS)]
    Query(ArchiveQueryArgs),
}

/// What is asked, and of which time.
#[derive(Args, Debug)]
pub(crate) struct ArchiveQueryArgs {
    /// A SELECT; the tables have the names they have in PostgreSQL. The answer is CSV, or JSON with --json
    #[arg(value_name = "SQL")]
    pub(crate) sql: Option<String>,
    /// For which program the statements are printed
    #[arg(long, value_enum, default_value = "duckdb", conflicts_with = "sql")]
    pub(crate) r#for: QueryEngine,
    /// Only segments with rows from then on
    #[arg(long, value_name = "RFC3339")]
    pub(crate) from: Option<Moment>,
    /// Only segments with rows from before then
    #[arg(long, value_name = "RFC3339")]
    pub(crate) to: Option<Moment>,
}

/// What reads Parquet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum QueryEngine {
    Duckdb,
    Spark,
    Trino,
    Athena,
}

/// What the archive is compared with.
#[derive(Args, Debug)]
pub(crate) struct ArchiveVerifyArgs {
    /// A file, kept elsewhere, with the newest segment that was seen: it tells when the archive was shortened or rewritten. It is
    /// written anew when all is well
    #[arg(long, value_name = "FILE")]
    pub(crate) anchor: Option<PathBuf>,
}

impl ArchiveAuditArgs {
    /// Returns the command as it is typed.
    pub(super) fn name(&self) -> &'static str {
        match &self.command {
            None => "archive-audit",
            Some(ArchiveAuditCommand::List) => "archive-audit list",
            Some(ArchiveAuditCommand::Verify(_)) => "archive-audit verify",
            Some(ArchiveAuditCommand::Query(_)) => "archive-audit query",
        }
    }
}

const ARCHIVE_AUDIT_EXITS: &str = "\
Exit statuses: 0 every closed window is archived; 1 failed; 3 the archive is not as it was left: nothing is added
to it; 10 configuration, or it does not fit the table; 11 another one is at work on the database; 12 database;
13 storage; 14 deadline: the next run goes on; 130, 143 interrupted.";

const LIST_EXITS: &str = "\
Exit statuses: 0 listed; 1 failed; 10 configuration; 13 storage; 14 deadline; 130, 143 interrupted.";

const VERIFY_EXITS: &str = "\
Exit statuses: 0 everything is as it should be; 3 it is not, or there is no archive; 1 failed; 10 configuration;
13 storage; 14 deadline; 130, 143 interrupted.";

const QUERY_EXITS: &str = "\
Exit statuses: 0 answered, or printed; 3 there is nothing to ask; 1 failed, or no DuckDB is there; 10 configuration;
13 storage; 14 deadline; 130, 143 interrupted.";
