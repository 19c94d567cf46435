//! `opsctl cleanup-sessions`: what is expired goes, and whose lock has lapsed may log in again.
//!
//! Rules are planned and applied one after the other, because what one deletes may be what another waits for. `rules.rs` makes them
//! of the configuration, `detect.rs` proposes a configuration, `incident.rs` revokes and locks, `report.rs` says what was done.

use crate::cli::cleanup_sessions::{CleanupSessionsArgs, CleanupSessionsCommand};
use crate::commands::exclusive::Exclusive;
use crate::commands::{Context, Report, Silence, open};
use crate::config::{self, Config, Overrides, Sessions};
use crate::db::{self, Connection, Target};
use crate::exit::{Exit, Failure};
use crate::failure;
use crate::sessions::apply::{self, Manner};
use crate::sessions::audit::Trail;
use crate::sessions::plan::{Refusal, RefusalKind};
use crate::sessions::replicas::Replicas;
use crate::sessions::rule::Rule;
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
    let exclusive = if args.dry_run {
        None
    } else {
        let server = Some((target, "cleanup-sessions"));
        Some(Exclusive::acquire(context, config, ("cleanup-sessions", name), server)?)
    };
    let trail = trail(context, sessions, &mut connection)?;
    let part = Part::begin(name, plan::server_time(&mut connection)?, args.dry_run);
    let replicas = Replicas::new(sessions.max_replica_lag, &sessions.ignore_replicas);
    let mut work = Work { context, args, sessions, connection, exclusive, trail, replicas, part };
    let result = work.carry_out();
    let mut part = work.part;
    match result {
        Ok(()) => {}
        // What was done is worth a report.
        Err(_) if context.stop.reason().is_some() => part.stopped(),
        Err(error) => part.broken(&error.into()),
    }
    if part.was_stopped()
        && let Some(reason) = context.stop.reason()
    {
        part.exit = failure::exit_of_stop(reason);
        tracing::error!("{name}: stopped before the end: the next run goes on");
    }
    Ok(part.end())
}

/// The work on one database.
struct Work<'a> {
    context: &'a Context,
    args: &'a CleanupSessionsArgs,
    sessions: &'a Sessions,
    connection: Connection,
    exclusive: Option<Exclusive>,
    trail: Option<Trail>,
    replicas: Replicas,
    part: Part,
}

impl Work<'_> {
    /// Unlocks, then cleans. An error is one that ends it all; that of one rule is in the report, and the others go on.
    fn carry_out(&mut self) -> Result<(), db::Error> {
        let Work { args, sessions, .. } = *self;
        let database = self.part.database.clone();
        let is_wanted = |name: &String, of: &Option<String>| {
            (args.only.is_empty() || args.only.contains(name))
                && of.as_ref().is_none_or(|of| *of == database)
        };
        // Short, and somebody waits for it.
        for settings in sessions.unlocks.iter().filter(|u| is_wanted(&u.name, &u.database)) {
            let result = self.unlock(settings);
            self.settle(&settings.name, result)?;
        }
        for settings in sessions.rules.iter().filter(|r| is_wanted(&r.name, &r.database)) {
            let rules = rules::rules(&mut self.connection, settings);
            for rule in self.settle(&settings.name, rules)?.into_iter().flatten() {
                let name = rule.name.clone();
                let result = self.clean(rule);
                self.settle(&name, result)?;
            }
        }
        Ok(())
    }

    /// Notes why a rule was not applied, if it was not. An error stays one if it is not the rule's alone.
    fn settle<T>(
        &mut self,
        rule: &str,
        result: Result<Result<T, Refusal>, db::Error>,
    ) -> Result<Option<T>, db::Error> {
        let refusal = match result {
            Ok(Ok(done)) => return Ok(Some(done)),
            Ok(Err(refusal)) => refusal,
            Err(error @ (db::Error::Query { .. } | db::Error::Refused { .. }))
                if self.context.stop.reason().is_none() =>
            {
                let (rule, reason) = (rule.to_owned(), failure::one_line(&error.into()));
                Refusal { rule, reason, kind: RefusalKind::Failed }
            }
            Err(error) => return Err(error),
        };
        self.part.refuse(refusal);
        Ok(None)
    }

    fn unlock(&mut self, settings: &config::Unlock) -> Result<Result<(), Refusal>, db::Error> {
        let (connection, stop) = (&mut self.connection, &self.context.stop);
        let (lock, grace) = match rules::lock(connection, settings)? {
            Ok(lock) => lock,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let how = (grace, settings.condition.as_deref());
        match unlock::plan(connection, &settings.name, lock, how, self.part.server_time)? {
            Err(refusal) => return Ok(Err(refusal)),
            Ok(unlocking) if self.args.dry_run => self.part.would_unlock(&unlocking),
            Ok(unlocking) => {
                let (outcome, result) = unlocking.apply(connection, self.trail.as_ref(), stop);
                self.part.unlocked(&outcome);
                result?;
            }
        }
        Ok(Ok(()))
    }

    fn clean(&mut self, rule: Rule) -> Result<Result<(), Refusal>, db::Error> {
        let Work { context, args, sessions, connection, exclusive, part, .. } = self;
        let stop = &context.stop;
        stop.check()?;
        context.progress.set_message(format!("{} {}", part.database, rule.name));
        // What is too much is shown as well, when nothing is done about it.
        let goes_on = args.first_run || args.dry_run;
        let cleaning = match plan::plan(connection, rule, part.server_time, goes_on, stop)? {
            Ok(cleaning) => cleaning,
            Err(refusal) => return Ok(Err(refusal)),
        };
        part.warn(&cleaning);
        if args.dry_run {
            let sample = sample::sample(connection, &cleaning, stop)?;
            part.would_delete(&cleaning, &sample);
            let refusal = cleaning.is_too_much().filter(|_| !args.first_run);
            return Ok(refusal.map_or(Ok(()), Err));
        }
        let mut manner = Manner {
            batch: sessions.batch,
            pause_percent: sessions.pause_percent,
            replicas: &mut self.replicas,
            stop,
            check: &mut || exclusive.as_mut().map_or(Ok(()), Exclusive::check),
        };
        let (outcome, result) = apply::apply(connection, &cleaning, &mut manner);
        part.deleted(&cleaning, outcome);
        result.map(Ok)
    }
}
