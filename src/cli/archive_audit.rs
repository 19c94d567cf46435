//! The options of `opsctl archive-audit`, and which of them go together.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Selection;
use crate::clock::Moment;
use crate::config::TableName;

/// Archive old audit rows as evidence that anybody can check without opsctl
///
/// Each closed window of a table of `[[audit]]` becomes a segment: its rows as lines of JSON, and a signed manifest with their
/// Merkle root and the hash of the manifest before. A segment is there when all was read back and computed again. Rows that arrive
/// late become a segment of their own. Nothing is overwritten. Rows are deleted from the table only with `delete = "after-verify"` or
/// by `delete`, if their segment was read back in the same run and they are as they were archived.
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
    /// Say what would be archived, deleted, restored or thawed, and do nothing
    #[arg(long, global = true)]
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
    /// Prove that a row was archived, to somebody who may not see the others
    ///
    /// The proof is JSON: the row, the hashes from it to the root of its segment, and the signed manifest. `verify_proof.py` checks it
    /// without opsctl. Of other rows it discloses the time and key of the segment's first and last one, which are in the manifest.
    #[command(after_help = PROVE_EXITS)]
    Prove(ArchiveProveArgs),
    /// Write archived rows of a time as NDJSON or CSV
    ///
    /// All segments of that time are read back and verified first; of a damaged one nothing is shown.
    #[command(after_help = EXPORT_EXITS)]
    Export(ArchiveExportArgs),
    /// Load segments into a table
    ///
    /// The table is made, or must be empty and have the same columns. Rows are loaded, read back and compared in one transaction. What is
    /// in Glacier is asked for first.
    #[command(after_help = RESTORE_EXITS)]
    Restore(ArchiveRestoreArgs),
    /// Ask S3 for segments that are in Glacier, so that they can be read
    #[command(after_help = THAW_EXITS)]
    Thaw(ArchiveThawArgs),
    /// Delete the rows of segments from the table, if they are as they were archived
    #[command(after_help = DELETE_EXITS)]
    Delete(ArchiveDeleteArgs),
    /// Legal holds: while one is in force, no row that it covers is deleted
    #[command(subcommand, after_help = HOLD_EXITS)]
    Hold(ArchiveHoldCommand),
}

/// What is thawed.
#[derive(Args, Debug)]
pub(crate) struct ArchiveThawArgs {
    /// As `archive-audit list` has it
    #[arg(value_name = "SEGMENT", required = true)]
    pub(crate) segment: Vec<String>,
    #[command(flatten)]
    pub(crate) thaw: ThawOptions,
}

/// How it is thawed.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct ThawOptions {
    /// For so many days it can be read
    #[arg(long, value_name = "DAYS", default_value = "7", value_parser = clap::value_parser!(u32).range(1..=365))]
    pub(crate) thaw_days: u32,
    /// How fast, and how dear
    #[arg(long, value_enum, value_name = "TIER", default_value = "standard")]
    pub(crate) thaw_tier: ThawTier,
    /// Wait until it can be read, for hours; --timeout bounds it
    #[arg(long)]
    pub(crate) wait: bool,
}

/// As S3 calls them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ThawTier {
    Standard,
    Bulk,
    Expedited,
}

/// Which rows, and what of them.
#[derive(Args, Debug)]
pub(crate) struct ArchiveExportArgs {
    /// Only rows from then on
    #[arg(long, value_name = "RFC3339")]
    pub(crate) from: Option<Moment>,
    /// Only rows from before then
    #[arg(long, value_name = "RFC3339")]
    pub(crate) to: Option<Moment>,
    /// Write `[redacted]` in place of what is in this column (repeatable)
    #[arg(long, value_name = "COLUMN")]
    pub(crate) redact: Vec<String>,
    /// How rows are written
    #[arg(long, value_enum, default_value = "ndjson")]
    pub(crate) format: ExportFormat,
    /// Write to a file, and not to standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ExportFormat {
    Ndjson,
    Csv,
}

/// Which segments go where.
#[derive(Args, Debug)]
pub(crate) struct ArchiveRestoreArgs {
    /// As `archive-audit list` has it
    #[arg(value_name = "SEGMENT", required = true)]
    pub(crate) segment: Vec<String>,
    /// The table, as `name` or `schema.name`
    #[arg(long, value_name = "TABLE")]
    pub(crate) to: TableName,
    /// In another database of the same server
    #[arg(long, value_name = "NAME")]
    pub(crate) to_database: Option<String>,
    #[command(flatten)]
    pub(crate) thaw: ThawOptions,
}

/// Which row, or which proof.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(crate) struct ArchiveProveArgs {
    /// The row's key: a value for each of its columns, as PostgreSQL writes them
    #[arg(value_name = "KEY", group = "what")]
    pub(crate) key: Vec<String>,
    /// Only look in this segment
    #[arg(long, value_name = "NAME", conflicts_with = "check")]
    pub(crate) segment: Option<String>,
    /// Write the proof to a file, and not to standard output
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    pub(crate) out: Option<PathBuf>,
    /// Check a proof
    #[arg(long, value_name = "FILE", group = "what")]
    pub(crate) check: Option<PathBuf>,
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

/// Whose rows are deleted.
#[derive(Args, Debug)]
pub(crate) struct ArchiveDeleteArgs {
    /// Segments as `list` names them, such as 2024/2024-03-01_2024-03-31
    #[arg(value_name = "SEGMENT", required = true)]
    pub(crate) segments: Vec<String>,
    /// Do not ask for this segment (repeatable)
    #[arg(long, value_name = "SEGMENT")]
    pub(crate) yes: Vec<String>,
}

/// What is said about a hold.
#[derive(Debug, Subcommand)]
pub(crate) enum ArchiveHoldCommand {
    /// Put a hold on all rows of the selected tables, or on those of a time
    #[command(after_help = HOLD_EXITS)]
    Add(HoldAddArgs),
    /// End a hold
    #[command(after_help = HOLD_EXITS)]
    Remove(HoldRemoveArgs),
    /// Show all holds, those that are over as well
    #[command(after_help = HOLD_EXITS)]
    List,
}

/// A new hold.
#[derive(Args, Debug)]
pub(crate) struct HoldAddArgs {
    /// Its name, such as that of a case
    #[arg(value_name = "HOLD", value_parser = parse_hold)]
    pub(crate) hold: String,
    /// Why, in a few words
    #[arg(long, value_name = "TEXT")]
    pub(crate) why: String,
    /// Only rows from this day on (UTC)
    #[arg(long, value_name = "DAY", value_parser = parse_day)]
    pub(crate) from: Option<Moment>,
    /// Only rows before this day (UTC)
    #[arg(long, value_name = "DAY", value_parser = parse_day)]
    pub(crate) to: Option<Moment>,
}

/// A hold that ends.
#[derive(Args, Debug)]
pub(crate) struct HoldRemoveArgs {
    /// Its name
    #[arg(value_name = "HOLD")]
    pub(crate) hold: String,
    /// Why, in a few words
    #[arg(long, value_name = "TEXT")]
    pub(crate) why: String,
}

fn parse_hold(text: &str) -> Result<String, String> {
    let is_plain = !text.trim().is_empty() && !text.contains(char::is_control);
    is_plain.then(|| text.to_owned()).ok_or_else(|| "a hold needs a name".to_owned())
}

fn parse_day(text: &str) -> Result<Moment, String> {
    let day = text.parse::<chrono::NaiveDate>();
    let day = day.map_err(|_| format!("`{text}` is not a day like 2024-03-01"))?;
    Ok(day.and_time(chrono::NaiveTime::MIN).and_utc())
}

/// What the archive is compared with.
#[derive(Args, Debug)]
pub(crate) struct ArchiveVerifyArgs {
    /// What was seen last, kept elsewhere: a file, <s3://bucket/name>, or a URL, which is only read. It tells when the archive was shortened or
    /// rewritten. It is written anew when all is well
    #[arg(long, value_name = "WHERE")]
    pub(crate) anchor: Option<String>,
    /// When all is well, compare with the rows that are still in the table, as well
    #[arg(long)]
    pub(crate) with_table: bool,
}

impl ArchiveAuditArgs {
    /// Returns the command as it is typed.
    pub(crate) fn name(&self) -> &'static str {
        match &self.command {
            None => "archive-audit",
            Some(ArchiveAuditCommand::List) => "archive-audit list",
            Some(ArchiveAuditCommand::Verify(_)) => "archive-audit verify",
            Some(ArchiveAuditCommand::Query(_)) => "archive-audit query",
            Some(ArchiveAuditCommand::Prove(_)) => "archive-audit prove",
            Some(ArchiveAuditCommand::Export(_)) => "archive-audit export",
            Some(ArchiveAuditCommand::Restore(_)) => "archive-audit restore",
            Some(ArchiveAuditCommand::Thaw(_)) => "archive-audit thaw",
            Some(ArchiveAuditCommand::Delete(_)) => "archive-audit delete",
            Some(ArchiveAuditCommand::Hold(ArchiveHoldCommand::List)) => "archive-audit hold list",
            Some(ArchiveAuditCommand::Hold(_)) => "archive-audit hold",
        }
    }
}

const ARCHIVE_AUDIT_EXITS: &str = "\
Exit statuses: 0 every closed window is archived; 1 failed; 3 the archive is not as it was left: nothing is added \
to it and nothing is deleted, or rows are not as they were archived: they stay; 10 configuration, or it does not \
fit the table; 11 another one is at work on the database; 12 database; 13 storage; 14 deadline: the next run goes on; 130, 143 interrupted.";

const LIST_EXITS: &str = "\
Exit statuses: 0 listed; 1 failed; 10 configuration; 13 storage; 14 deadline; 130, 143 interrupted.";

const VERIFY_EXITS: &str = "\
Exit statuses: 0 everything is as it should be; 3 it is not, or there is no archive; 1 failed; 10 configuration; \
13 storage; 14 deadline; 130, 143 interrupted.";

const QUERY_EXITS: &str = "\
Exit statuses: 0 answered, or printed; 3 there is nothing to ask; 1 failed, or no DuckDB is there; 10 configuration; \
13 storage; 14 deadline; 130, 143 interrupted.";

const PROVE_EXITS: &str = "\
Exit statuses: 0 proven; 3 there is no such row, the segment is damaged, or the proof is none; 1 failed; 2 wrong usage; \
10 configuration; 13 storage; 14 deadline; 130, 143 interrupted.";

const EXPORT_EXITS: &str = "\
Exit statuses: 0 written; 3 a segment is damaged: nothing is written; 1 failed; 2 wrong usage; 10 configuration; \
13 storage; 14 deadline; 130, 143 interrupted.";

const THAW_EXITS: &str = "\
Exit statuses: 0 it can be read, or was asked for; 1 failed; 2 wrong usage; 10 configuration; 13 storage; \
14 deadline; 130, 143 interrupted.";

const RESTORE_EXITS: &str = "\
Exit statuses: 0 restored, read back and equal; 3 a segment is damaged, or what came back is something else: nothing \
is restored; 1 failed; 2 wrong usage, or a table that cannot take the rows; 10 configuration; 12 database; \
13 storage, or it is being thawed: run it again; 14 deadline; 130, 143 interrupted.";

const DELETE_EXITS: &str = "\
Exit statuses: 0 what is in the segments is not in the table any more, but for rows that somebody has locked; 1 failed, \
not confirmed, or it is not time yet; 2 nobody to ask: --yes is missing, or no such segment; 3 the archive is not as it \
was left, or rows are not as they were archived: they stay; 10 configuration, or something protects the table; \
11 another one is at work on the database; 12 database; 13 storage; 14 deadline; 130, 143 interrupted. \
After any of them a row is in the table unless it is in the archive.";

const HOLD_EXITS: &str = "\
Exit statuses: 0 said, or listed; 1 failed, or it is so already; 10 configuration; 13 storage; 130, 143 interrupted.";
