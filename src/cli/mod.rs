//! The command line: what can be typed, and its help. No command is carried out here.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::clock::Moment;
use crate::config::{Compression, Percent};
use crate::exit::Exit;
use crate::log::LogFormat;
use archive_audit::ArchiveAuditArgs;
use cleanup_sessions::CleanupSessionsArgs;
use db_maintain::DbMaintainArgs;
use generate::{GenerateArgs, GenerateCommand};
use init::InitArgs;
use runbook::{RunbookArgs, RunbookCommand};
use setup::SetupArgs;

pub(crate) mod archive_audit;
pub(crate) mod cleanup_sessions;
pub(crate) mod db_maintain;
mod doctor;
pub(crate) mod generate;
mod health_check;
mod help;
pub(crate) mod init;
pub(crate) mod runbook;
mod schedule;
pub(crate) mod setup;

pub(crate) use doctor::DoctorArgs;
pub(crate) use health_check::{
    ExplainArgs, Format, HealthCheckArgs, HealthCheckCommand, IncidentArgs, ServeArgs,
};
pub(crate) use schedule::{ScheduleArgs, ScheduleCommand, ScheduleFormat, SchedulePrintArgs};

/// Proven backups and operations for PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "opsctl", version, max_term_width = 100, after_help = exit_statuses())]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Configuration file [default: ./opsctl.toml, /etc/opsctl/opsctl.toml, or none]
    #[arg(long, global = true, value_name = "FILE", env = "OPSCTL_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Where locks and the history are kept
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Print the report as one JSON document
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say nothing on success
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Log more (-vv: even more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// The log on stderr
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value = "human")]
    pub(crate) log_format: LogFormat,
    /// Stop after so long, such as 90s, 15m, 4h (exit 14)
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Work only in this window, or in `any` (else exit 11; at its end 14)
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) window: Option<String>,
    /// Take this for the current time in all decisions
    #[arg(long, global = true, value_name = "RFC3339", hide = true)]
    pub(crate) now: Option<Moment>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Backup(BackupArgs),
    VerifyBackup(VerifyBackupArgs),
    Restore(RestoreArgs),
    CleanupSessions(CleanupSessionsArgs),
    DbMaintain(DbMaintainArgs),
    ArchiveAudit(ArchiveAuditArgs),
    Status(StatusArgs),
    HealthCheck(HealthCheckArgs),
    History(HistoryArgs),
    Silence(SilenceArgs),
    Notify(NotifyArgs),
    Schedule(ScheduleArgs),
    Init(InitArgs),
    Setup(SetupArgs),
    Doctor(DoctorArgs),
    Runbook(RunbookArgs),
    Config(ConfigArgs),
    Demo(DemoArgs),
    Generate(GenerateArgs),
}

/// The commands about opsctl itself.
const ABOUT_OPSCTL: &[&str] = &[
    "status",
    "health-check list",
    "health-check explain",
    "history",
    "silence",
    "silence list",
    "silence end",
    "notify",
    "notify test",
    "schedule",
    "init",
    "setup",
    "setup sql",
    "doctor",
    "runbook",
    "runbook list",
    "runbook show",
    "runbook render",
    "config",
    "demo",
    "generate",
    "generate man",
    "generate completions",
];

/// What is a question: nobody but who asks is told how it ended.
const QUESTIONS: &[&str] = &[
    "backup list",
    "verify-backup report",
    "health-check incident",
    "health-check serve",
    "cleanup-sessions detect",
    "db-maintain plan",
    "db-maintain report",
    "archive-audit list",
    "archive-audit query",
    "archive-audit prove",
    "archive-audit export",
    "archive-audit thaw",
    "archive-audit hold",
    "archive-audit hold list",
];

impl Command {
    /// Returns the name as it is typed.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Command::Backup(BackupArgs { command: Some(BackupCommand::List), .. }) => "backup list",
            Command::Backup(BackupArgs { command: Some(BackupCommand::Prune(_)), .. }) => {
                "backup prune"
            }
            Command::Backup(_) => "backup",
            Command::VerifyBackup(VerifyBackupArgs { command: Some(_), .. }) => {
                "verify-backup report"
            }
            Command::VerifyBackup(_) => "verify-backup",
            Command::Restore(_) => "restore",
            Command::CleanupSessions(args) => args.name(),
            Command::DbMaintain(args) => args.name(),
            Command::ArchiveAudit(args) => args.name(),
            Command::Status(_) => "status",
            Command::HealthCheck(HealthCheckArgs { command: None, .. }) => "health-check",
            Command::HealthCheck(HealthCheckArgs { command: Some(command), .. }) => match command {
                HealthCheckCommand::List => "health-check list",
                HealthCheckCommand::Explain(_) => "health-check explain",
                HealthCheckCommand::Incident(_) => "health-check incident",
                HealthCheckCommand::Serve(_) => "health-check serve",
            },
            Command::History(_) => "history",
            Command::Silence(SilenceArgs { command: None, .. }) => "silence",
            Command::Silence(SilenceArgs { command: Some(SilenceCommand::List), .. }) => {
                "silence list"
            }
            Command::Silence(SilenceArgs { command: Some(SilenceCommand::End), .. }) => {
                "silence end"
            }
            Command::Notify(_) => "notify test",
            Command::Schedule(_) => "schedule",
            Command::Init(_) => "init",
            Command::Setup(_) => "setup sql",
            Command::Doctor(_) => "doctor",
            Command::Runbook(args) => match args.command {
                RunbookCommand::List => "runbook list",
                RunbookCommand::Show { .. } => "runbook show",
                RunbookCommand::Render { .. } => "runbook render",
            },
            Command::Config(_) => "config",
            Command::Demo(_) => "demo",
            Command::Generate(args) => match args.command {
                GenerateCommand::Man { .. } => "generate man",
                GenerateCommand::Completions { .. } => "generate completions",
            },
        }
    }
}

impl Command {
    /// Does it only say what it would do?
    pub(crate) fn is_dry_run(&self) -> bool {
        match self {
            Command::Backup(args) => args.dry_run,
            Command::Restore(args) => args.dry_run,
            Command::CleanupSessions(args) => args.dry_run,
            Command::DbMaintain(args) => args.dry_run,
            Command::ArchiveAudit(args) => args.dry_run,
            _ => false,
        }
    }

    /// Returns the name under which the history has it: a restore test is scheduled apart.
    pub(crate) fn remembered_as(&self) -> &'static str {
        match self {
            Command::VerifyBackup(args) if args.restore_test && args.command.is_none() => {
                "verify-backup --restore-test"
            }
            _ => self.name(),
        }
    }

    /// Is the report to be one JSON document by an option of its own?
    pub(crate) fn wants_json(&self) -> bool {
        matches!(self, Command::DbMaintain(args) if args.wants_json())
    }

    /// Is it about opsctl itself? Such runs are not worth remembering.
    pub(crate) fn is_about_opsctl(&self) -> bool {
        ABOUT_OPSCTL.contains(&self.name())
    }

    /// Is somebody told how it ended?
    pub(crate) fn is_told_of(&self) -> bool {
        !(QUESTIONS.contains(&self.name()) || self.is_dry_run() || self.is_about_opsctl())
    }
}

/// What can still be told of a command line that is wrong.
pub(crate) struct Guess {
    pub(crate) global: Global,
    /// As the history has it.
    pub(crate) command: String,
}

impl Guess {
    /// Picks out what is understood; nothing, if not even the command is known, or is not worth remembering.
    pub(crate) fn of(arguments: &[OsString]) -> Option<Guess> {
        let cli = Cli::command();
        let mut understood = vec![OsString::from("opsctl")];
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let Some(long) = argument.to_str().and_then(|text| text.strip_prefix("--")) else {
                continue;
            };
            let (name, value) = long.split_once('=').map_or((long, None), |(n, v)| (n, Some(v)));
            let Some(option) = cli.get_arguments().find(|o| o.get_long() == Some(name)) else {
                continue;
            };
            understood.push(argument.clone());
            if option.get_action().takes_values() && value.is_none() {
                understood.extend(rest.next().cloned());
            }
        }
        let matches = cli.clone().ignore_errors(true).try_get_matches_from(understood).ok()?;
        let global = Global::from_arg_matches(&matches).ok()?;
        let above = arguments.iter().find_map(|word| cli.find_subcommand(word))?;
        let below = arguments.iter().find_map(|word| above.find_subcommand(word));
        let command = match below {
            Some(below) => format!("{} {}", above.get_name(), below.get_name()),
            None if arguments.iter().any(|word| word == "--restore-test") => {
                format!("{} --restore-test", above.get_name())
            }
            None => above.get_name().to_owned(),
        };
        (!ABOUT_OPSCTL.contains(&above.get_name())).then_some(Guess { global, command })
    }
}

impl Cli {
    /// Returns the definition of the command line, with its help.
    pub(crate) fn definition() -> clap::Command {
        help::on_one_screen(Cli::command())
    }

    /// Understands a command line, or says what is wrong with it.
    pub(crate) fn read(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
        let mut definition = Cli::definition();
        let arguments = help::asked_in_front(&definition, arguments);
        let matches = definition.try_get_matches_from_mut(arguments)?;
        Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut definition))
    }

    /// Tells in which form `health-check` was asked to answer, also by a command line that is wrong otherwise.
    ///
    /// Monitors read a status of 2 as critical: for this command alone a wrong command line is 3, unknown.
    pub(crate) fn wants_answer(arguments: &[OsString]) -> Option<Format> {
        let matches = Cli::command().ignore_errors(true).try_get_matches_from(arguments).ok()?;
        let (name, matches) = matches.subcommand()?;
        if name != "health-check" {
            return None;
        }
        let json = matches.try_get_one("json").ok().flatten().copied().unwrap_or(false);
        let format = matches.try_get_one("format").ok().flatten().copied();
        Some(if json { Format::Json } else { format.unwrap_or(Format::Human) })
    }
}

/// Which databases and repositories.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Selection {
    /// A configured database, or the one to connect to (repeatable) [default: all configured]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) database: Vec<String>,
    /// A configured repository, a directory, or <s3://bucket/prefix> [default: all configured, or ./backups]
    #[arg(long, global = true, value_name = "WHERE")]
    pub(crate) repository: Option<String>,
}

/// Back databases up into all their repositories
///
/// Rows are copied by several workers from one snapshot, counted and fingerprinted on the way, and
/// written to every repository at once. A backup exists when its manifest does, which is written last.
/// After a success, retention is applied to each repository that has the backup.
#[derive(Args, Debug)]
#[command(after_help = BACKUP_EXITS)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that can be typed")]
pub(crate) struct BackupArgs {
    #[command(subcommand)]
    pub(crate) command: Option<BackupCommand>,
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// auto, none, gzip[:1..9] or zstd[:1..19] [default: auto]
    #[arg(long, value_name = "CODEC")]
    pub(crate) compression: Option<Compression>,
    /// Tables, or parts of one table, copied at once [default: as many as processors, 8 at most]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) jobs: Option<u32>,
    /// Leave all rows out
    #[arg(long)]
    pub(crate) schema_only: bool,
    /// Leave out the rows of tables that match, as pg_dump's option (repeatable)
    #[arg(long, value_name = "PATTERN")]
    pub(crate) exclude_table_data: Vec<String>,
    /// Leave out schemas that match, as pg_dump's option (repeatable)
    #[arg(long, value_name = "PATTERN")]
    pub(crate) exclude_schema: Vec<String>,
    /// Put the roles' password hashes into globals.sql (needs a superuser)
    #[arg(long)]
    pub(crate) role_passwords: bool,
    /// End with status 3 if the backup is suddenly much smaller than the previous one
    #[arg(long)]
    pub(crate) fail_on_shrink: bool,
    /// It may be much smaller than the previous one: compare later ones with it
    #[arg(long)]
    pub(crate) accept_shrink: bool,
    /// Do not apply retention afterwards
    #[arg(long)]
    pub(crate) no_prune: bool,
    /// Say what would be done, and do nothing
    #[arg(long, global = true)]
    pub(crate) dry_run: bool,
}

/// What else can be done about backups.
#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// List the backups in each repository, and why each is kept
    #[command(after_help = LIST_EXITS)]
    List,
    /// Apply retention, and remove what crashed runs left
    #[command(after_help = PRUNE_EXITS)]
    Prune(PruneArgs),
}

/// Nothing of its own: `--dry-run` is the backup's.
#[derive(Args, Debug)]
pub(crate) struct PruneArgs {}

/// Read backups back from their repository and compare everything with the manifest
///
/// Every artifact and chunk is read, its SHA-256 compared, decompressed whole, its rows counted and
/// fingerprinted, and the table of contents given to the stock pg_restore. The result is stored beside
/// the backup as evidence.
#[derive(Args, Debug)]
#[command(after_help = VERIFY_EXITS)]
pub(crate) struct VerifyBackupArgs {
    #[command(subcommand)]
    pub(crate) command: Option<VerifyBackupCommand>,
    #[command(flatten)]
    pub(crate) selection: Selection,
    #[command(flatten)]
    pub(crate) which: Which,
    /// File with age identities, to look into encrypted backups
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// Restore it into a throwaway PostgreSQL server of the same version as well, and compare what comes out
    #[arg(long)]
    pub(crate) restore_test: bool,
    /// Restore it into a database of this server instead, which is dropped again
    #[arg(long, value_name = "URL", requires = "restore_test")]
    pub(crate) server: Option<String>,
    /// Allow a server that is one of the configured databases' own
    #[arg(long, requires = "server")]
    pub(crate) on_production: bool,
    /// Look at a part of the rows, another one each time until all were looked at
    #[arg(long, value_name = "N%")]
    pub(crate) sample: Option<Percent>,
    /// Chunks read at once [default: as many as processors, 8 at most]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) jobs: Option<u32>,
    /// Do not store the result beside the backup (for a repository that is read-only)
    #[arg(long)]
    pub(crate) no_record: bool,
}

/// What else can be done about verifications.
#[derive(Debug, Subcommand)]
pub(crate) enum VerifyBackupCommand {
    /// Print the evidence for an auditor: which backups were proven, when and how, and which were not
    #[command(after_help = LIST_EXITS)]
    Report(VerificationReportArgs),
}

/// Of which time.
#[derive(Args, Debug)]
pub(crate) struct VerificationReportArgs {
    /// Backups begun within this time
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = parse_duration)]
    pub(crate) since: Duration,
}

/// Which backups.
#[derive(Args, Clone, Debug)]
#[group(multiple = false)]
pub(crate) struct Which {
    /// The newest one (the default)
    #[arg(long)]
    pub(crate) latest: bool,
    /// All of them
    #[arg(long)]
    pub(crate) all: bool,
    /// Those begun within this time, such as 7d
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) within: Option<Duration>,
    /// This one
    #[arg(long, value_name = "ID")]
    pub(crate) backup: Option<String>,
}

/// Restore a backup into a new database, or in the place of one
///
/// The rows go straight from the repository into the database, chunks of one table side by side, and are compared
/// with the manifest on the way. The database is built under another name and gets its own when it is whole; a
/// database that is replaced is renamed in the same moment, and kept until you drop it.
#[derive(Args, Debug)]
#[command(after_help = RESTORE_EXITS)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that can be typed")]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// The backup's id, or `latest`
    #[arg(long, value_name = "ID", default_value = "latest")]
    pub(crate) backup: String,
    #[command(flatten)]
    pub(crate) to: RestoreTo,
    /// File with age identities, for an encrypted backup
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// Only this table, with all that is its own and all that it needs, such as public.members (repeatable)
    #[arg(long, value_name = "SCHEMA.TABLE", conflicts_with = "to_dir")]
    pub(crate) table: Vec<String>,
    /// Only this schema (repeatable)
    #[arg(long, value_name = "NAME", conflicts_with = "to_dir")]
    pub(crate) schema: Vec<String>,
    /// Leave all rows out
    #[arg(long, conflicts_with = "to_dir")]
    pub(crate) schema_only: bool,
    /// Only rows, large objects and sequences' values, in one transaction, into empty tables that --to has already
    #[arg(long, conflicts_with_all = ["create", "replace", "to_dir", "schema_only", "globals", "no_owner", "no_privileges", "anonymize"])]
    pub(crate) data_only: bool,
    /// Create the roles that are missing first, as they were on the server that was dumped
    #[arg(long, conflicts_with = "to_dir")]
    pub(crate) globals: bool,
    /// SQL to run in the restored database before anybody else may connect to it
    #[arg(long, value_name = "FILE", conflicts_with = "to_dir")]
    pub(crate) anonymize: Option<PathBuf>,
    /// Leave everything to the role that restores
    #[arg(long)]
    pub(crate) no_owner: bool,
    /// Leave out GRANT and REVOKE
    #[arg(long)]
    pub(crate) no_privileges: bool,
    /// Chunks loaded at once, and indexes built at once [default: as many as processors, 8 at most]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) jobs: Option<u32>,
    /// Drop the replaced database at the end, instead of keeping it under its new name
    #[arg(long, conflicts_with_all = ["create", "to", "to_dir"])]
    pub(crate) drop_old: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Where a backup is restored to.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct RestoreTo {
    /// Make this database on the configured server; it must not exist yet
    #[arg(long, value_name = "NEWDB")]
    pub(crate) create: Option<String>,
    /// Take the place of this database on the configured server; without its name, you are asked for it
    #[arg(long, value_name = "DATABASE", num_args = 0..=1, default_missing_value = "")]
    pub(crate) replace: Option<String>,
    /// Make the database that a connection string names, on any server; it must not exist yet, or be empty
    #[arg(long, value_name = "URL")]
    pub(crate) to: Option<String>,
    /// Lay out a directory as pg_dump writes it, joined and decrypted, for the stock pg_restore
    #[arg(long, value_name = "DIR")]
    pub(crate) to_dir: Option<PathBuf>,
}

/// Say what is late or failing, by the schedule in the configuration and what ran
///
/// One line for each scheduled command and database: its last success, when the next is due, and the last error. What never
/// ran at all is late, too.
#[derive(Args, Debug)]
#[command(after_help = STATUS_EXITS)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// How old the last success of a command may be, in place of its schedule, such as backup=26h (repeatable)
    #[arg(long, value_name = "COMMAND=TIME", value_parser = parse_max_age)]
    pub(crate) max_age: Vec<(String, Duration)>,
    /// Tell the configured channels what is late, what was killed, and what is not late any more: for the crontab's line
    #[arg(long)]
    pub(crate) notify: bool,
}

/// Tell nobody of anything for a while, during planned work
///
/// Whatever is found meanwhile is written down. What is still not well when the silence is over is told then, by the next
/// run. Statuses, reports, metrics and the history are as always.
#[derive(Args, Debug)]
#[command(after_help = SILENCE_EXITS, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct SilenceArgs {
    #[command(subcommand)]
    pub(crate) command: Option<SilenceCommand>,
    /// For how long, such as 90m or 2h: 30d at most
    #[arg(long = "for", value_name = "TIME", value_parser = parse_silence, required = true)]
    pub(crate) duration: Option<Duration>,
    /// What is being done, for those who wonder
    #[arg(long, value_name = "TEXT", required = true)]
    pub(crate) why: Option<String>,
}

/// What else can be done about silences.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum SilenceCommand {
    /// List the silences that are on, and those that were
    #[command(after_help = SILENCE_EXITS)]
    List,
    /// End the silence now, and tell what is not well
    #[command(after_help = SILENCE_EXITS)]
    End,
}

/// Try the channels by which failures are told
#[derive(Args, Debug)]
#[command(after_help = NOTIFY_EXITS)]
pub(crate) struct NotifyArgs {
    #[command(subcommand)]
    pub(crate) command: NotifyCommand,
}

/// What can be done with channels.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum NotifyCommand {
    /// Send a test message to each channel, and say what came back
    #[command(after_help = NOTIFY_EXITS)]
    Test {
        /// Only to this one (repeatable)
        #[arg(long, value_name = "NAME")]
        channel: Vec<String>,
    },
}

/// Show what ran, and how it ended
///
/// Every run of every command is noted in the state directory when it begins and when it ends, with what became of each
/// database. One that never said how it ended was killed. Runs are remembered for 400 days, of
/// health checks after 14 days only the first of each day.
#[derive(Args, Debug)]
#[command(after_help = LIST_EXITS)]
pub(crate) struct HistoryArgs {
    /// Only this command, such as backup or "backup prune"
    #[arg(long, value_name = "NAME")]
    pub(crate) command: Option<String>,
    /// Only runs that had to do with this database
    #[arg(long, value_name = "NAME")]
    pub(crate) database: Option<String>,
    /// Runs begun within this time
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = parse_duration)]
    pub(crate) since: Duration,
}

/// Look at the configuration
#[derive(Args, Debug)]
#[command(after_help = CONFIG_EXITS)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
    #[command(flatten)]
    pub(crate) selection: Selection,
}

/// What can be done with the configuration.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check the configuration and list everything that is wrong
    #[command(after_help = CONFIG_EXITS)]
    Check,
    /// Show every setting and where it comes from; secrets are not shown
    #[command(after_help = CONFIG_EXITS)]
    Show,
    /// Print a commented configuration file
    #[command(after_help = CONFIG_EXITS)]
    Example,
}

/// See backup, verification and restore at work on throwaway PostgreSQL servers
///
/// Starts a private server (never an existing one), loads a sample database, backs it up, verifies the
/// backup, restores it into a second one and compares, and removes the servers.
#[derive(Args, Debug)]
#[command(after_help = DEMO_EXITS)]
pub(crate) struct DemoArgs {
    /// Keep everything in this directory, which must be new, empty, or of an earlier demo
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Where the PostgreSQL server programs are [default: the newest in /usr/lib/postgresql]
    #[arg(long, value_name = "DIR")]
    pub(crate) bin_dir: Option<PathBuf>,
}

/// Returns the table of exit statuses as the help shows it.
fn exit_statuses() -> String {
    let line = |(exit, meaning): &(Exit, &str)| format!("  {:>3}  {meaning}\n", exit.number());
    let table: String = Exit::TABLE.iter().map(line).collect();
    format!("Exit statuses (any other number means failure):\n{}", table.trim_end())
}

const BACKUP_EXITS: &str = "\
Exit statuses: 0 every database is in every repository; 1 failed, or a repository lacks the backup; \
3 suddenly smaller (with --fail-on-shrink); 10 configuration; 11 another backup of it is running; \
12 database; 13 storage; 14 deadline; 130, 143 interrupted.";

const LIST_EXITS: &str = "\
Exit statuses: 0 listed; 1 failed; 10 configuration; 13 storage; 14 deadline; 130, 143 interrupted.";

const PRUNE_EXITS: &str = "\
Exit statuses: 0 what is not kept is removed; 1 failed, or something could not be removed; \
10 configuration; 11 a backup is running; 13 storage; 14 deadline; 130, 143 interrupted.";

const RESTORE_EXITS: &str = "\
Exit statuses: 0 restored; 1 failed; 3 the backup is damaged, or there is none; 10 configuration; \
11 another restore of it is running; 12 database; 13 storage; 14 deadline; 130, 143 interrupted. \
After any failure the old database is in its place, untouched.";

const CONFIG_EXITS: &str = "\
Exit statuses: 0 the configuration is in order; 10 it is not; 1 failed.";

const DEMO_EXITS: &str = "\
Exit statuses: 0 all of it worked; 1 failed; 14 deadline; 130, 143 interrupted, the server is stopped. \
Else as backup and verify-backup end.";

const VERIFY_EXITS: &str = "\
Exit statuses: 0 everything is as it should be; 3 a backup is damaged, or there is none; \
1 failed; 10 configuration; 13 storage; 14 deadline; 130, 143 interrupted.";

const STATUS_EXITS: &str = "\
Exit statuses: 0 nothing is late or failing; 3 something is; 1 failed; 10 configuration.";

const SILENCE_EXITS: &str = "\
Exit statuses: 0 done; 1 failed; 2 wrong command line; 10 configuration; 12 the server of the history.";

const NOTIFY_EXITS: &str = "\
Exit statuses: 0 every channel took the message; 1 one did not; 10 configuration, or there is no channel.";

fn parse_silence(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    let most = Duration::from_secs(30 * 86_400);
    // One that is forgotten must come to its end.
    if duration <= most { Ok(duration) } else { Err("use 30d at most".to_owned()) }
}

fn parse_max_age(text: &str) -> Result<(String, Duration), String> {
    let (command, age) = text.split_once('=').ok_or("use COMMAND=TIME, such as backup=26h")?;
    Ok((command.to_owned(), parse_duration(age)?))
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    crate::config::parse_duration(text).map_err(|e| e.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::definition().debug_assert();
    }

    #[test]
    fn a_wrong_command_line_tells_what_it_was_to_be() {
        let guess =
            |line: &str| Guess::of(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        let command = |line: &str| guess(line).map(|guess| guess.command);
        assert_eq!(command("opsctl backup --jobs x").as_deref(), Some("backup"));
        assert_eq!(command("opsctl --no-such backup prune").as_deref(), Some("backup prune"));
        assert_eq!(command("opsctl backup prune --no-such").as_deref(), Some("backup prune"));
        let test = "verify-backup --restore-test";
        assert_eq!(command(&format!("opsctl {test} --sample x")).as_deref(), Some(test));
        assert_eq!(command("opsctl restore --replace").as_deref(), Some("restore"));
        assert_eq!(command("opsctl status --no-such"), None);
        assert_eq!(command("opsctl bakcup"), None);
        let global =
            guess("opsctl backup --config /a --state-dir /b --json --nope").unwrap().global;
        assert_eq!(global.config, Some("/a".into()));
        assert_eq!((global.state_dir, global.json), (Some("/b".into()), true));
    }

    #[test]
    fn a_monitor_can_be_told_of_every_command_that_works() {
        let told = |name: &str| crate::config::PINGED.contains(&name);
        let is_missing = |name: &&str| !ABOUT_OPSCTL.contains(name) && !told(name);
        let cli = Cli::command();
        let names: Vec<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
        let missing: Vec<_> = names.iter().copied().filter(is_missing).collect();
        assert!(missing.is_empty(), "add to COMMANDS in config/ping.rs: {missing:?}");
        for name in crate::config::PINGED {
            assert!(names.iter().any(|known| name.starts_with(known)), "{name}");
        }
    }

    #[test]
    fn a_wrong_command_line_of_health_check_is_known_as_such() {
        let wants = |line: &str| {
            Cli::wants_answer(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
        };
        assert_eq!(wants("opsctl health-check --bad"), Some(Format::Human));
        assert_eq!(wants("opsctl --config x health-check --json --bad"), Some(Format::Json));
        assert_eq!(wants("opsctl health-check --format nagios --tag"), Some(Format::Nagios));
        assert_eq!(wants("opsctl history --command health-check --bad"), None);
        assert_eq!(wants("opsctl --bad"), None);
    }
}
