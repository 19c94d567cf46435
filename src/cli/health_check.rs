//! The options of `opsctl health-check`: which checks, and how to answer.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{Selection, parse_duration};
use crate::health::kind::Profile;

/// Ask everything that the person on call looks at first, all at once
///
/// Each check is ok, warning, critical or unknown; nothing is changed anywhere, and no check waits behind a lock or keeps the
/// others from being answered. `--timeout` is the time for all of them (10s). It ends as monitoring plugins do.
#[derive(Args, Debug)]
#[command(after_help = HEALTH_EXITS)]
pub(crate) struct HealthCheckArgs {
    #[command(subcommand)]
    pub(crate) command: Option<HealthCheckCommand>,
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Only this check, such as connect/ip2a, or all of this kind (repeatable)
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// Not this check, or none of this kind (repeatable)
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) skip: Vec<String>,
    /// Only checks with this tag (repeatable)
    #[arg(long, global = true, value_name = "TAG")]
    pub(crate) tag: Vec<String>,
    /// How much to ask
    #[arg(long, global = true, value_enum, default_value = "full")]
    pub(crate) profile: Profile,
    /// How to answer
    #[arg(long, global = true, value_enum, default_value = "human", conflicts_with = "json")]
    pub(crate) format: Format,
}

/// What else can be done about checks.
#[derive(Debug, Subcommand)]
pub(crate) enum HealthCheckCommand {
    /// List the checks that are asked for, with their limits
    #[command(after_help = HEALTH_EXITS)]
    List,
    /// Say what a check asks, why that matters, and what to do
    #[command(after_help = HEALTH_EXITS)]
    Explain(ExplainArgs),
    /// Keep the evidence at the start of an incident, before anything is changed: one folder
    ///
    /// All checks, the servers' views of sessions, locks, replication, settings, statements, tables and indexes, the host's
    /// figures, errors of the server's log, what ran, and a timeline to go on with. It reads only; what does not answer is
    /// noted. `--timeout` is the time for all of it (20s).
    #[command(after_help = INCIDENT_EXITS)]
    Incident(IncidentArgs),
    /// Answer over HTTP: /health/live, /health/ready and /metrics
    ///
    /// Read only. What is asked for often is answered from the last report. /health/ready has the checks of `--profile ready`,
    /// as a whole; who has the token sees each of them. /metrics has all checks.
    #[command(after_help = SERVE_EXITS)]
    Serve(ServeArgs),
}

/// Where to listen, and to whom.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Listen on this address and port
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8008")]
    pub(crate) listen: SocketAddr,
    /// Answer also when called by this name (repeatable) [always: localhost and the loopback addresses]
    #[arg(long, value_name = "HOST")]
    pub(crate) allow_host: Vec<String>,
    /// File with the token for details and metrics [default: what `OPSCTL_HEALTH_TOKEN` says, or none]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// How old a report may be that is given again
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub(crate) max_age: Duration,
}

/// What to keep, and where.
#[derive(Args, Debug)]
pub(crate) struct IncidentArgs {
    /// Make the folder in this one [default: the working directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Leave the literals in queries and the statements in logs: other people's data
    #[arg(long)]
    pub(crate) with_literals: bool,
}

/// What to explain.
#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// A check, or a kind of checks
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// How `health-check` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// What is bad, worst first; with --verbose all of it
    Human,
    /// One document, as docs/health-check.schema.json has it
    Json,
    /// One line with performance data, for Nagios, Icinga and Checkmk
    Nagios,
    /// Metrics
    Prometheus,
    /// As the expired draft draft-inadarei-api-health-check-06 has it
    #[value(name = "health+json")]
    HealthJson,
    /// Test results for CI servers
    Junit,
}

const HEALTH_EXITS: &str = "\
Exit statuses, as monitoring plugins have them: 0 ok; 1 warning; 2 critical; 3 unknown, which is also \
a wrong command line or configuration. The worst counts: critical, then unknown, then warning.";

const INCIDENT_EXITS: &str = "\
Exit statuses: 0 the folder is there, with whatever could be had; 3 it could not be made, or a wrong \
command line or configuration.";

const SERVE_EXITS: &str = "\
Exit statuses: 0 told to stop; 3 it cannot listen, or a wrong command line or configuration.";
