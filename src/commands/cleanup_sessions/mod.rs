//! `opsctl cleanup-sessions`: what is expired goes, and whose lock has lapsed may log in again.
//!
//! Rules are planned and applied one after the other, because what one deletes may be what another waits for. `rules.rs` makes them
//! of the configuration, `detect.rs` proposes a configuration, `incident.rs` revokes and locks, `report.rs` says what was done.

use crate::cli::cleanup_sessions::{CleanupSessionsArgs, CleanupSessionsCommand};
use crate::commands::exclusive::Exclusive;
use crate::commands::{Context, Report, Silence, open};
use crate::config::{Config, Overrides, Sessions};
use crate::db::{Connection, Target};
use crate::exit::{Exit, Failure};
use crate::failure;
use crate::sessions::apply::{self, Manner};
use crate::sessions::audit::Trail;
use crate::sessions::{self, plan, sample, unlock};

mod detect;
mod incident;
mod report;
mod rules;

use report::Part;

/// The oldest server whose tables can be walked through page by page.
const OLDEST: u32 = 14;

pub(super) fn run(context: &Context, args: &CleanupSessionsArgs) -> anyhow::Result<Report> {
    let config = context.load(&args.selection, Overrides::default())?.config;
    context.set_deadline(context.global.timeout);
    match &args.command {
        Some(CleanupSessionsCommand::Detect) => return detect::run(context, &config),
        Some(CleanupSessionsCommand::Revoke(revoke)) => {
            return incident::revoke(context, &config, revoke, args.dry_run);
        }
        Some(CleanupSessionsCommand::Lock(lock)) => {
            return incident::lock(context, &config, lock, args.dry_run);
        }
        None => {}
    }
    check_names(&config.sessions, &args.only)?;
    let mut parts: Vec<Part> = Vec::new();
    let single = config.databases.len() == 1;
    for database in &config.databases {
        let (target, name) = open::database(context, database)?;
        if !config.sessions.concern(&name) {
            tracing::info!("{name}: no rule is for this database");
            continue;
        }
        let work = || clean(context, &config, args, &target, &name);
        match context.note(&name, work, |part| (part.exit, part.json.clone())) {
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
    let json = serde_json::json!({ "dry_run": args.dry_run, "databases": json });
    let silence = if args.dry_run { Silence::Refused } else { Silence::Allowed };
    Ok(Report { exit, text, json, silence })
}

/// Is there anything to do, and does `--only` name it?
fn check_names(sessions: &Sessions, only: &[String]) -> anyhow::Result<()> {
    let rules = sessions.rules.iter().map(|rule| rule.name.as_str());
    let names: Vec<&str> = rules.chain(sessions.unlocks.iter().map(|u| u.name.as_str())).collect();
    if names.is_empty() {
        let failure = Failure::new(Exit::Configuration, "nothing says what is to be cleaned");
        let hint =
            "`opsctl cleanup-sessions detect` proposes [[sessions.rule]] and [[sessions.unlock]].";
        return Err(failure.hint(hint).into());
    }
    match only.iter().find(|name| !names.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(Failure::new(Exit::Usage, format!("there is no rule `{name}`"))
            .hint(format!("There are: {}.", names.join(", ")))
            .into()),
    }
}

/// Connects, and makes sure that the server is one that this works with.
fn connect(context: &Context, target: &Target) -> anyhow::Result<Connection> {
    let mut connection = sessions::connect(target, &context.stop)?;
    let version = connection.server_version()?;
    if version.major() < OLDEST {
        let message = format!("PostgreSQL {version} is too old: cleaning needs {OLDEST} or later");
        return Err(Failure::new(Exit::Failed, message).into());
    }
    Ok(connection)
}

/// Opens the audit table, if one is configured.
fn trail(
    context: &Context,
    sessions: &Sessions,
    connection: &mut Connection,
) -> anyhow::Result<Option<Trail>> {
    let Some(audit) = &sessions.audit else { return Ok(None) };
    let trail = Trail::open(connection, audit, &context.run.to_string())?;
    Ok(Some(trail.map_err(|reason| Failure::new(Exit::Configuration, reason))?))
}

fn clean(
    context: &Context,
    config: &Config,
    args: &CleanupSessionsArgs,
    target: &Target,
    name: &str,
) -> anyhow::Result<Part> {
    let sessions = &config.sessions;
    let mut connection = connect(context, target)?;
    let mut exclusive = if args.dry_run {
        None
    } else {
        let server = Some((target, "cleanup-sessions"));
        Some(Exclusive::acquire(context, config, ("cleanup-sessions", name), server)?)
    };
    let trail = trail(context, sessions, &mut connection)?;
    let mut part = Part::begin(name, plan::server_time(&mut connection)?, args.dry_run);
    let result = carry_out(
        context,
        args,
        sessions,
        &mut connection,
        &mut exclusive,
        trail.as_ref(),
        &mut part,
    );
    match result {
        Ok(()) => {}
        // What was done is worth a report.
        Err(_) if context.stop.reason().is_some() => part.stopped(),
        Err(error) => return Err(error),
    }
    if part.was_stopped()
        && let Some(reason) = context.stop.reason()
    {
        part.exit = failure::exit_of_stop(reason);
        tracing::error!("{name}: stopped before the end: the next run goes on");
    }
    Ok(part.end())
}

fn carry_out(
    context: &Context,
    args: &CleanupSessionsArgs,
    sessions: &Sessions,
    connection: &mut Connection,
    exclusive: &mut Option<Exclusive>,
    trail: Option<&Trail>,
    part: &mut Part,
) -> anyhow::Result<()> {
    let is_wanted = |name: &str, database: Option<&str>| {
        (args.only.is_empty() || args.only.iter().any(|only| only == name))
            && database.is_none_or(|database| database == part.database)
    };
    let rules: Vec<_> = sessions
        .rules
        .iter()
        .filter(|rule| is_wanted(&rule.name, rule.database.as_deref()))
        .collect();
    let unlocks: Vec<_> = sessions
        .unlocks
        .iter()
        .filter(|unlock| is_wanted(&unlock.name, unlock.database.as_deref()))
        .collect();
    let now = part.server_time;
    // Short, and somebody waits for it.
    for settings in unlocks {
        let lock = match rules::lock(connection, settings)? {
            Ok(lock) => lock,
            Err(refusal) => {
                part.refuse(refusal);
                continue;
            }
        };
        let (lock, grace) = lock;
        let how = (grace, settings.condition.as_deref());
        match unlock::plan(connection, &settings.name, lock, how, now)? {
            Err(refusal) => part.refuse(refusal),
            Ok(unlocking) if args.dry_run => part.would_unlock(&unlocking),
            Ok(unlocking) => part.unlocked(&unlocking.apply(connection, trail, &context.stop)?),
        }
    }
    for settings in rules {
        let expanded = match rules::rules(connection, settings)? {
            Ok(expanded) => expanded,
            Err(refusal) => {
                part.refuse(refusal);
                continue;
            }
        };
        for rule in expanded {
            context.stop.check()?;
            context.progress.set_message(format!("{} {}", part.database, rule.name));
            // What is too much is shown as well, when nothing is done about it.
            let goes_on = args.first_run || args.dry_run;
            let planned = plan::plan(connection, rule, now, goes_on, &context.stop)?;
            let cleaning = match planned {
                Ok(cleaning) => cleaning,
                Err(refusal) => {
                    part.refuse(refusal);
                    continue;
                }
            };
            part.warn(&cleaning);
            if args.dry_run {
                let sample = sample::sample(connection, &cleaning, &context.stop)?;
                part.would_delete(&cleaning, &sample);
                if let Some(refusal) = cleaning.is_too_much().filter(|_| !args.first_run) {
                    part.refuse(refusal);
                }
                continue;
            }
            let mut manner = Manner {
                batch: sessions.batch,
                pause_percent: sessions.pause_percent,
                max_replica_lag: sessions.max_replica_lag,
                stop: &context.stop,
                check: &mut || exclusive.as_mut().map_or(Ok(()), Exclusive::check),
            };
            part.deleted(&cleaning, apply::apply(connection, &cleaning, &mut manner)?);
        }
    }
    Ok(())
}
