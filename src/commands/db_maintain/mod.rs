//! `opsctl db-maintain`: plans what a database needs, and does of it what nobody notices.
//!
//! `part.rs` says what is planned and what became of it, `report.rs` looks at all the rest and changes nothing.

use std::sync::Mutex;

use indicatif::ProgressStyle;

use crate::cli::db_maintain::{DbMaintainArgs, DbMaintainCommand, MaintainWhat, PlanFormat};
use crate::commands::exclusive::Exclusive;
use crate::commands::{Context, Report, Silence, open};
use crate::config::{Config, Overrides};
use crate::db::{Connection, Target};
use crate::exit::{Exit, Failure};
use crate::failure;
use crate::health::kind;
use crate::maintain::apply::{self, Manner};
use crate::maintain::past::{Past, Work};
use crate::maintain::plan::{self, Ages, Plan, Wish};
use crate::maintain::{self, Server, look};
use crate::sync::lock;

mod part;
mod report;

use part::Part;

/// The oldest server that tells what has to be known.
const OLDEST: u32 = 14;
/// So far back notes of earlier runs are looked for.
const REMEMBERED: chrono::TimeDelta = chrono::TimeDelta::days(60);
/// The commands whose runs leave such notes.
const COMMANDS: [&str; 2] = ["db-maintain", "db-maintain plan"];

pub(super) fn run(context: &Context, args: &DbMaintainArgs) -> anyhow::Result<Report> {
    let mut config = context.load(&args.selection, Overrides::default())?.config;
    if args.no_limits {
        config.maintain = config.maintain.without_budget();
    }
    context.set_deadline(context.global.timeout);
    match &args.command {
        Some(DbMaintainCommand::Report(report)) => report::run(context, &config, report),
        Some(DbMaintainCommand::Plan(what)) => maintain(context, &config, what, true),
        None => maintain(context, &config, &args.what, args.dry_run),
    }
}

fn maintain(
    context: &Context,
    config: &Config,
    what: &MaintainWhat,
    dry_run: bool,
) -> anyhow::Result<Report> {
    let mut parts: Vec<Part> = Vec::new();
    let single = config.databases.len() == 1;
    for database in &config.databases {
        let (target, name) = open::database(context, database)?;
        let work = || one(context, config, what, &target, &name, dry_run);
        match context.note(&name, work, |part| (part.exit, part.noted())) {
            Ok(part) => parts.push(part),
            // With one database its error is the run's.
            Err(error) if single => return Err(error),
            Err(error) => {
                let (exit, message) = (failure::exit(&error), failure::one_line(&error));
                tracing::error!("database `{name}`: {message}");
                parts.push(Part::failed(&name, exit, &message));
            }
        }
    }
    let mut failed = parts.iter().map(|part| part.exit).filter(|exit| *exit != Exit::Done);
    let exit = match failed.next() {
        None => Exit::Done,
        Some(first) if failed.all(|exit| exit == first) => first,
        Some(_) => Exit::Failed,
    };
    let text = parts.iter().map(|part| part.text.as_str()).collect();
    let json: Vec<_> = parts.into_iter().map(|part| part.json).collect();
    let json = serde_json::json!({ "dry_run": dry_run, "databases": json });
    let silence = if dry_run { Silence::Refused } else { Silence::Allowed };
    Ok(Report { exit, text, json, silence })
}

/// Returns the ages that the health check calls critical.
fn critical(config: &Config) -> Ages {
    let of = |name: &str| {
        let kind = kind::find(name)?;
        config.health.of_kind(kind).critical.or(kind.limits.critical)
    };
    let age = |name: &str| of(name).unwrap_or(f64::INFINITY);
    Ages { xid: age("xid-age"), multixact: age("multixact-age") }
}

/// Connects, and makes sure that the server is one that this works with.
fn connect(
    context: &Context,
    config: &Config,
    target: &Target,
) -> anyhow::Result<(Connection, Server)> {
    let lock_timeout = config.maintain.lock_timeout;
    let mut connection = maintain::connect(target, lock_timeout, &context.stop)?;
    let server = maintain::server(&mut connection)?;
    if server.version.major() < OLDEST {
        let version = server.version;
        let message =
            format!("PostgreSQL {version} is too old: maintenance needs {OLDEST} or later");
        return Err(Failure::new(Exit::Failed, message).into());
    }
    if server.is_standby {
        let failure =
            Failure::new(Exit::Failed, "this server is a standby: it follows its primary");
        return Err(failure
            .hint("Run it on the primary; `report` looks at a standby, too.")
            .into());
    }
    Ok((connection, server))
}

/// Plans for one database, and, unless it is a dry run, applies the plan.
fn one(
    context: &Context,
    config: &Config,
    what: &MaintainWhat,
    target: &Target,
    name: &str,
    dry_run: bool,
) -> anyhow::Result<Part> {
    let settings = &config.maintain;
    let (mut connection, server) = connect(context, config, target)?;
    let exclusive = if dry_run {
        None
    } else {
        let server = Some((target, "db-maintain"));
        Some(Exclusive::acquire(context, config, ("db-maintain", name), server)?)
    };
    let look = look::look(&mut connection, server, settings.reindex_min_bytes)?;
    let remembered = past(context, name);
    let wish = Wish {
        settings,
        reindex: what.reindex || settings.reindex,
        only: &what.only,
        now: context.now,
        critical: critical(config),
    };
    let planned = plan::plan(&look, &remembered, wish).map_err(|only| {
        Failure::new(Exit::Usage, format!("there is no table `{only}` in `{name}`"))
            .hint("Write it as the catalogue has it, without quotes: schema.table.")
    })?;
    if dry_run {
        let part = Part::planned(name, planned);
        return Ok(if what.format == PlanFormat::Sql { part.into_sql() } else { part });
    }
    drop(connection);
    carry_out(context, config, what, target, (name, &look.server), planned, exclusive)
}

fn carry_out(
    context: &Context,
    config: &Config,
    what: &MaintainWhat,
    target: &Target,
    (name, server): (&str, &Server),
    planned: Plan,
    exclusive: Option<Exclusive>,
) -> anyhow::Result<Part> {
    let part = Part::planned(name, planned.clone());
    let exclusive = Mutex::new(exclusive);
    let remember = |work: &[Work]| {
        // Another host may be at work if the lock is lost.
        let held = lock(&exclusive).as_mut().map_or(Ok(()), Exclusive::check);
        held.map_err(|error| error.to_string())?;
        let noted = context.history.note_ahead(name, &Work::figures(work));
        noted.map_err(|error| error.in_full())
    };
    // How much is to be read in all is known to nobody.
    if let Ok(style) = ProgressStyle::with_template("{msg}") {
        context.progress.set_style(style);
    }
    let show = |text: String| context.progress.set_message(format!("{name}: {text}"));
    let manner = Manner {
        target,
        server,
        settings: &config.maintain,
        jobs: usize::try_from(what.jobs.unwrap_or(config.maintain.jobs)).unwrap_or(1),
        now: context.now,
        stop: &context.stop,
        abort: &context.abort,
        remember: &remember,
        progress: if context.progress.is_hidden() { None } else { Some(&show) },
    };
    let mut part = part.applied(apply::apply(planned, &manner)?);
    if let Some(reason) = context.stop.reason() {
        part.stopped(failure::exit_of_stop(reason));
    }
    Ok(part)
}

/// Reads what earlier runs noted of a database. Without a history nothing is known, and less is done.
fn past(context: &Context, database: &str) -> Past {
    let since = context.now - REMEMBERED;
    let runs = context.history.read(|store| store.runs(since, &COMMANDS));
    let runs = runs.unwrap_or_else(|error| {
        tracing::warn!("nothing is known of earlier runs: {}", error.in_full());
        Vec::new()
    });
    let ours = runs.iter().filter(|run| COMMANDS.contains(&run.command.as_str()));
    let parts = ours.flat_map(|run| &run.databases).filter(|part| part.database == database);
    Past::of(parts.map(|part| &part.figures))
}
