//! The options of `opsctl db-maintain`, and which of them go together.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Selection;

/// Do what autovacuum left: VACUUM, ANALYZE, and what concurrent builds left behind
///
/// What is needed is decided by each table's own thresholds, tables near wraparound first. Every statement waits only a moment for
/// locks and blocks no reads or writes. It stops when the application, a replica or the budget suffers. Bloated indexes
/// are built anew only with `--reindex` or `[maintain] reindex`. What blocks is never done, but printed.
#[derive(Args, Debug)]
#[command(after_help = DB_MAINTAIN_EXITS)]
pub(crate) struct DbMaintainArgs {
    #[command(subcommand)]
    pub(crate) command: Option<DbMaintainCommand>,
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Say what would be done, and do nothing: `db-maintain plan`
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Go on beyond `max_time` and `max_wal_megabytes`; replicas, slots, the probe and the disk still stop it
    #[arg(long)]
    pub(crate) no_limits: bool,
    #[command(flatten)]
    pub(crate) what: MaintainWhat,
}

/// What is to be done, and how it is shown.
#[derive(Args, Clone, Debug)]
pub(crate) struct MaintainWhat {
    /// How a plan or the report looks
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: PlanFormat,
    /// Statements at once [default: 2, or `maintain.jobs`]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(crate) jobs: Option<u32>,
    /// Build bloated indexes anew as well (REINDEX CONCURRENTLY)
    #[arg(long)]
    pub(crate) reindex: bool,
    /// Only this table, with its partitions and indexes, such as public.members (repeatable)
    #[arg(long, value_name = "SCHEMA.TABLE")]
    pub(crate) only: Vec<String>,
}

impl DbMaintainArgs {
    /// Returns the command as it is typed.
    pub(super) fn name(&self) -> &'static str {
        match &self.command {
            None => "db-maintain",
            Some(DbMaintainCommand::Plan(_)) => "db-maintain plan",
            Some(DbMaintainCommand::Report(_)) => "db-maintain report",
        }
    }

    /// Is the report to be one JSON document, without `--json`?
    pub(super) fn wants_json(&self) -> bool {
        match &self.command {
            None => self.what.format == PlanFormat::Json,
            Some(DbMaintainCommand::Plan(plan)) => plan.format == PlanFormat::Json,
            Some(DbMaintainCommand::Report(report)) => report.format == ReportFormat::Json,
        }
    }
}

/// What else can be done about maintenance.
#[derive(Debug, Subcommand)]
pub(crate) enum DbMaintainCommand {
    /// Say what would be done, why, in which order, for how long, and what it locks
    #[command(after_help = PLAN_EXITS)]
    Plan(MaintainWhat),
    /// Look at sizes, growth, bloat, indexes, sequences, settings and slow queries, and say what is worth a look
    #[command(after_help = REPORT_EXITS)]
    Report(MaintainReportArgs),
}

/// How the report looks, and where it goes.
#[derive(Args, Debug)]
pub(crate) struct MaintainReportArgs {
    /// For whom it is
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: ReportFormat,
    /// Write it into this file instead of printing it
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// How a plan looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlanFormat {
    /// For people
    Table,
    /// One document
    Json,
    /// Statements to be run by hand
    Sql,
}

/// How a report looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// For people, worst first
    Text,
    /// One document, as docs/db-maintain-report.schema.json has it
    Json,
    /// A page that needs nothing else
    Html,
}

const DB_MAINTAIN_EXITS: &str = "\
Exit statuses: 0 what was needed is done, or the budget is used up, or somebody had it locked; 1 failed, a standby, or a \
statement failed; 3 given up for the application's or a replica's sake, or a table of critical age is not frozen; 10 configuration; 11 another one is at work on the \
database; 12 database; 14 deadline; 130, 143 interrupted. After any of them the next run goes on.";

const PLAN_EXITS: &str = "\
Exit statuses: 0 looked; 1 failed; 10 configuration; 12 database; 14 deadline; 130, 143 interrupted.";

const REPORT_EXITS: &str = "\
Exit statuses: 0 looked; 1 failed; 10 configuration; 12 database; 14 deadline; 130, 143 interrupted.";
