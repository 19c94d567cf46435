//! `opsctl backup`, `backup list` and `backup prune`.

use std::fmt::Write as _;

use anyhow::Context as _;

use crate::backup::manifest::{Manifest, Scope};
use crate::backup::prune::{self, Applied, Plan, Planned};
use crate::backup::repository::Repository;
use crate::backup::retention::Condition;
use crate::backup::shrink;
use crate::backup::take::{self, Request, Taken};
use crate::cli::{BackupArgs, BackupCommand};
use crate::commands::{Context, Report, Silence, default_jobs, open};
use crate::config::{self, Config, Overrides, Retention};
use crate::db::Target;
use crate::db::advisory_lock::AdvisoryLock;
use crate::exit::{Exit, Failure};
use crate::lock::FileLock;
use crate::run::failure;
use crate::text::{Table, bytes, count};

pub(super) fn run(context: &Context, args: BackupArgs) -> anyhow::Result<Report> {
    let overrides = Overrides {
        compression: args.compression,
        jobs: args.jobs,
        exclude_table_data: args.exclude_table_data.clone(),
        exclude_schema: args.exclude_schema.clone(),
        schema_only: args.schema_only.then_some(true),
        role_passwords: args.role_passwords.then_some(true),
        fail_on_shrink: args.fail_on_shrink.then_some(true),
        ..Overrides::default()
    };
    let config = context.load(&args.selection, overrides)?.config;
    context.set_deadline(config.backup.timeout);
    match args.command {
        Some(BackupCommand::List) => list(context, &config),
        Some(BackupCommand::Prune(_)) => prune_all(context, &config, args.dry_run),
        None if args.dry_run => plan_all(context, &config),
        None => back_up_all(context, &config, !args.no_prune),
    }
}

/// What became of one database.
struct Outcome {
    database: String,
    exit: Exit,
    text: String,
    json: serde_json::Value,
}

/// Does `work` for every database, and goes on when one fails.
fn for_each_database(
    context: &Context,
    config: &Config,
    mut work: impl FnMut(&Target, &str, &config::Database) -> anyhow::Result<Outcome>,
) -> anyhow::Result<Report> {
    let single = config.databases.len() == 1;
    let mut outcomes = Vec::new();
    for database in &config.databases {
        context.stop.check()?;
        let label = database.label().unwrap_or("?").to_owned();
        let result = open::database(context, database)
            .and_then(|(target, name)| work(&target, &name, database));
        match result {
            Ok(outcome) => outcomes.push(outcome),
            // With one database its error is the run's.
            Err(error) if single => return Err(error),
            Err(error) => {
                let (exit, message) = (failure::exit(&error), failure::one_line(&error));
                tracing::error!("database `{label}`: {message}");
                let json = serde_json::json!({ "database": label, "exit": exit.number(), "error": message });
                outcomes.push(Outcome {
                    text: format!("{label}: FAILED: {message}\n"),
                    database: label,
                    exit,
                    json,
                });
            }
        }
    }
    let failed: Vec<_> = outcomes.iter().filter(|o| o.exit != Exit::Done).collect();
    let exit = match failed.as_slice() {
        [] => Exit::Done,
        [first, rest @ ..] if rest.iter().all(|o| o.exit == first.exit) => first.exit,
        _ => Exit::Failed,
    };
    for outcome in failed {
        tracing::debug!("database `{}` ended with {}", outcome.database, outcome.exit.number());
    }
    let text = outcomes.iter().map(|o| o.text.as_str()).collect();
    let json = serde_json::json!({ "databases": outcomes.into_iter().map(|o| o.json).collect::<Vec<_>>() });
    Ok(Report { exit, text, json, silence: Silence::Allowed })
}

fn back_up_all(context: &Context, config: &Config, prune: bool) -> anyhow::Result<Report> {
    let repositories = open::repositories(context, config)?;
    for_each_database(context, config, |target, name, database| {
        let _locks = lock(context, config, Some(target), name)?;
        back_up(context, config, &repositories, target, name, database, prune)
    })
}

/// Keeps other runs of this host (by a file) and of other hosts (by the database) from doing the same.
fn lock(
    context: &Context,
    config: &Config,
    target: Option<&Target>,
    database: &str,
) -> anyhow::Result<(FileLock, Option<AdvisoryLock>)> {
    let folder = crate::backup::repository::database_prefix(database);
    let name = format!("backup-{}", folder.trim_end_matches('/'));
    let holder = format!("run {} of process {}", context.run, std::process::id());
    let file = FileLock::acquire(&config.state_dir, &name, &holder)?;
    let Some(target) = target else { return Ok((file, None)) };
    match AdvisoryLock::try_acquire(target, "backup", &context.stop)? {
        Some(lock) => Ok((file, Some(lock))),
        None => {
            let by = AdvisoryLock::holder(target, "backup", &context.stop)?;
            let by = by.map_or(String::new(), |by| format!(" ({by})"));
            let message = format!("another host is backing up {}{by}", target.describe());
            Err(Failure::new(Exit::Locked, message).into())
        }
    }
}

fn back_up(
    context: &Context,
    config: &Config,
    repositories: &[Repository],
    target: &Target,
    name: &str,
    database: &config::Database,
    prune: bool,
) -> anyhow::Result<Outcome> {
    context.progress.set_message(name.to_owned());
    let settings = &config.backup;
    let taken = take::take(&Request {
        run: &context.run,
        begun_at: context.now,
        database: name,
        target,
        bin_dir: database.bin_dir.as_deref(),
        environment: &context.environment,
        scope: scope(settings),
        compression: settings.compression,
        jobs: default_jobs(settings.jobs),
        repositories,
        progress: &context.progress,
        stop: &context.stop,
    })?;
    let began = context.now;
    let mut results = Vec::new();
    for Taken { repository, manifest } in taken {
        let retention = retention_of(config, &repository);
        results.push(match manifest {
            Ok(manifest) => {
                finish(context, &repository, name, retention, manifest, settings, prune)
            }
            Err(error) => {
                tracing::error!(
                    "repository `{}` has no backup of `{name}`: {}",
                    repository.name,
                    failure::one_line(&error)
                );
                Stored {
                    repository: repository.name,
                    exit: failure::exit(&error),
                    text: failure::one_line(&error),
                    json: serde_json::Value::Null,
                    manifest: None,
                }
            }
        });
    }
    let seconds = crate::clock::now().signed_duration_since(began).as_seconds_f64();
    Ok(summarize(context, name, results, seconds))
}

fn scope(settings: &config::Backup) -> Scope {
    Scope {
        schema_only: settings.schema_only,
        exclude_table_data: settings.exclude_table_data.clone(),
        exclude_schema: settings.exclude_schema.clone(),
        role_passwords: settings.role_passwords,
    }
}

fn retention_of(config: &Config, repository: &Repository) -> Retention {
    config
        .repositories
        .iter()
        .find(|r| r.name == repository.name)
        .map(|r| r.retention)
        .unwrap_or_default()
}

/// What became of a backup in one repository.
struct Stored {
    repository: String,
    exit: Exit,
    text: String,
    json: serde_json::Value,
    manifest: Option<Manifest>,
}

/// Compares a new backup with the one before it, and applies retention. Neither can undo the backup: what
/// fails here is told, and changes nothing about it.
fn finish(
    context: &Context,
    repository: &Repository,
    name: &str,
    retention: Retention,
    manifest: Manifest,
    settings: &config::Backup,
    prune: bool,
) -> Stored {
    let mut suspicions = shrink::suspicions(&manifest, None, settings.shrink_percent);
    let mut pruned = serde_json::Value::Null;
    let mut problem = None;
    match prune::plan(repository, name, retention, crate::clock::now(), &context.stop) {
        Ok(plan) => {
            suspicions =
                shrink::suspicions(&manifest, previous(&plan, &manifest), settings.shrink_percent);
            // A backup that may be the ruin of a good one must not make room for itself.
            let keep = !suspicions.is_empty() && settings.fail_on_shrink;
            if prune && keep {
                tracing::warn!(
                    "repository `{}`: nothing is removed, because the backup is suspicious",
                    repository.name
                );
            } else if prune {
                let applied = plan.apply(repository, &context.run, &context.stop);
                for error in &applied.failures {
                    tracing::warn!("{}", failure::one_line(error));
                }
                pruned = applied_json(&applied);
            }
        }
        Err(error) => {
            let message = failure::one_line(&error);
            tracing::warn!(
                "retention was not applied to repository `{}`: {message}",
                repository.name
            );
            problem = Some(message);
        }
    }
    for suspicion in &suspicions {
        tracing::warn!(
            "the backup of `{name}` in repository `{}` is suspicious: {suspicion}",
            repository.name
        );
    }
    let exit =
        if settings.fail_on_shrink && !suspicions.is_empty() { Exit::BadNews } else { Exit::Done };
    let json = serde_json::json!({
        "repository": repository.name, "place": repository.storage.place(), "stored_bytes": manifest.totals.stored_bytes,
        "suspicions": suspicions, "pruned": pruned, "retention_error": problem,
    });
    let mut text =
        format!("{} in {}", bytes(manifest.totals.stored_bytes), repository.storage.place());
    for suspicion in &suspicions {
        write!(text, "; SUSPICIOUS: {suspicion}").ok();
    }
    Stored { repository: repository.name.clone(), exit, text, json, manifest: Some(manifest) }
}

/// Returns the newest good backup before `manifest`.
fn previous<'a>(plan: &'a Plan, manifest: &Manifest) -> Option<&'a Manifest> {
    let before = |p: &&Planned| {
        p.decision.backup.condition == Condition::Good
            && p.decision.backup.id != manifest.id
            && p.decision.backup.at <= manifest.begun_at
    };
    plan.backups.iter().find(before).and_then(|p| p.manifest.as_deref())
}

fn summarize(context: &Context, name: &str, results: Vec<Stored>, seconds: f64) -> Outcome {
    let lost = results.iter().filter(|r| r.manifest.is_none()).count();
    let exit = if lost == results.len() {
        // It is nowhere: the reason decides, if it is the same everywhere.
        let first = results.first().map_or(Exit::Failed, |r| r.exit);
        if results.iter().all(|r| r.exit == first) { first } else { Exit::Failed }
    } else if lost > 0 {
        Exit::Failed
    } else {
        results.iter().map(|r| r.exit).max().unwrap_or(Exit::Done)
    };
    let mut text = String::new();
    let totals = results.iter().find_map(|r| r.manifest.as_ref()).map(|m| m.totals);
    match &totals {
        Some(t) => {
            let (tables, rows) =
                (crate::text::counted(t.tables, "table"), crate::text::counted(t.rows, "row"));
            writeln!(
                text,
                "{name}: backup {} of {tables}, {rows}, {} in {seconds:.1} s",
                context.run,
                bytes(t.raw_bytes)
            )
            .ok();
        }
        None => {
            writeln!(text, "{name}: NO BACKUP").ok();
        }
    }
    for result in &results {
        let mark = if result.manifest.is_some() { "" } else { "FAILED: " };
        writeln!(text, "  {}: {mark}{}", result.repository, result.text).ok();
    }
    let repositories: Vec<_> = results
        .iter()
        .map(|r| match &r.manifest {
            Some(_) => r.json.clone(),
            None => serde_json::json!({ "repository": r.repository, "exit": r.exit.number(), "error": r.text }),
        })
        .collect();
    let json = serde_json::json!({
        "database": name, "exit": exit.number(), "backup": totals.map(|_| &context.run), "totals": totals,
        "seconds": seconds, "repositories": repositories,
    });
    Outcome { database: name.to_owned(), exit, text, json }
}

/// `backup --dry-run`: connects, looks, and changes nothing.
fn plan_all(context: &Context, config: &Config) -> anyhow::Result<Report> {
    let repositories = open::repositories(context, config)?;
    let report = for_each_database(context, config, |target, name, database| {
        let survey =
            take::survey(target, database.bin_dir.as_deref(), &context.environment, &context.stop)?;
        let mut text = format!(
            "{name}: would back up {} (PostgreSQL {}, {}, pg_dump {})\n",
            target.describe(),
            survey.server,
            bytes(survey.bytes),
            survey.pg_dump,
        );
        let mut places = Vec::new();
        for repository in &repositories {
            let plan = prune::plan(
                repository,
                name,
                retention_of(config, repository),
                context.now,
                &context.stop,
            )?;
            let free = repository.storage.free_bytes()?;
            let free_text = free.map_or(String::new(), |free| format!(", {} free", bytes(free)));
            writeln!(
                text,
                "  {}: into {}{free_text}; {} kept now",
                repository.name,
                repository.storage.place(),
                crate::text::counted(plan.backups.len() as u64, "backup")
            )?;
            places.push(serde_json::json!({ "repository": repository.name, "place": repository.storage.place(), "backups": plan.backups.len(), "free_bytes": free }));
        }
        let json = serde_json::json!({
            "database": name, "dry_run": true, "server": survey.server, "pg_dump": survey.pg_dump,
            "database_bytes": survey.bytes, "repositories": places,
        });
        Ok(Outcome { database: name.to_owned(), exit: Exit::Done, text, json })
    })?;
    Ok(Report { silence: Silence::Refused, ..report })
}

fn prune_all(context: &Context, config: &Config, dry_run: bool) -> anyhow::Result<Report> {
    let repositories = open::repositories(context, config)?;
    let report = for_each_database(context, config, |_, name, _| {
        let _lock = lock(context, config, None, name)?;
        let (mut text, mut json, mut failed) = (String::new(), Vec::new(), None);
        for repository in &repositories {
            let plan = prune::plan(
                repository,
                name,
                retention_of(config, repository),
                context.now,
                &context.stop,
            )?;
            writeln!(text, "{name} in {}:", repository.storage.place())?;
            let removed =
                plan.backups.iter().filter(|p| !p.decision.keeps()).count() + plan.leftovers.len();
            if dry_run {
                text.push_str(&table(&plan).to_string());
                json.push(serde_json::json!({ "repository": repository.name, "backups": plan_json(&plan), "would_remove": removed }));
                continue;
            }
            let applied = plan.apply(repository, &context.run, &context.stop);
            for id in &applied.removed {
                writeln!(text, "  removed {id}")?;
            }
            for id in &applied.swept {
                writeln!(text, "  removed the leftovers of run {id}")?;
            }
            writeln!(
                text,
                "  {} removed, {} freed",
                removed - applied.failures.len(),
                bytes(applied.freed_bytes)
            )?;
            json.push(serde_json::json!({ "repository": repository.name, "pruned": applied_json(&applied) }));
            for error in applied.failures {
                tracing::error!("{}", failure::one_line(&error));
                failed = Some(failure::exit(&error));
            }
        }
        let json =
            serde_json::json!({ "database": name, "dry_run": dry_run, "repositories": json });
        Ok(Outcome { database: name.to_owned(), exit: failed.unwrap_or(Exit::Done), text, json })
    })?;
    Ok(if dry_run { Report { silence: Silence::Refused, ..report } } else { report })
}

fn list(context: &Context, config: &Config) -> anyhow::Result<Report> {
    let repositories = open::repositories(context, config)?;
    let report = for_each_database(context, config, |_, name, _| {
        let (mut text, mut json) = (String::new(), Vec::new());
        for repository in &repositories {
            let plan = prune::plan(repository, name, retention_of(config, repository), context.now, &context.stop)?;
            writeln!(text, "{name} in {}:", repository.storage.place())?;
            text.push_str(&table(&plan).to_string());
            json.push(serde_json::json!({
                "repository": repository.name, "place": repository.storage.place(), "backups": plan_json(&plan),
                "leftovers": plan.leftovers, "in_progress": plan.in_progress,
            }));
        }
        let json = serde_json::json!({ "database": name, "repositories": json });
        Ok(Outcome { database: name.to_owned(), exit: Exit::Done, text, json })
    })
    .context("failed to list backups")?;
    Ok(Report { silence: Silence::Refused, ..report })
}

fn table(plan: &Plan) -> Table {
    let mut table = Table::new(&[
        "BACKUP",
        "BEGUN (UTC)",
        "SIZE",
        "TABLES",
        "ROWS",
        "VERIFIED",
        "KEPT BECAUSE",
    ]);
    for planned in &plan.backups {
        let Planned { decision, manifest, verified, .. } = planned;
        let figure = |f: fn(&Manifest) -> String| manifest.as_deref().map_or("?".to_owned(), f);
        let verdict = match verified {
            Some(v) if v.good => format!("good {}", v.at.format("%Y-%m-%d")),
            Some(v) => format!("DAMAGED {}", v.at.format("%Y-%m-%d")),
            None => "no".to_owned(),
        };
        let reasons: Vec<_> = decision.reasons.iter().map(ToString::to_string).collect();
        table.row([
            decision.backup.id.to_string(),
            figure(|m| m.begun_at.format("%Y-%m-%d %H:%M").to_string()),
            figure(|m| bytes(m.totals.stored_bytes)),
            figure(|m| count(m.totals.tables)),
            figure(|m| count(m.totals.rows)),
            verdict,
            if reasons.is_empty() { "(to be removed)".to_owned() } else { reasons.join(", ") },
        ]);
    }
    let others = plan.leftovers.iter().map(|id| (id, "(left by a crashed run, to be removed)"));
    for (id, what) in others.chain(plan.in_progress.iter().map(|id| (id, "(in progress)"))) {
        let empty = std::iter::repeat_n(String::new(), 5);
        table.row([id.to_string()].into_iter().chain(empty).chain([what.to_owned()]));
    }
    table
}

fn plan_json(plan: &Plan) -> Vec<serde_json::Value> {
    let backup = |planned: &Planned| {
        let Planned { decision, manifest, verified, problem } = planned;
        serde_json::json!({
            "backup": decision.backup.id,
            "begun_at": manifest.as_ref().map(|m| m.begun_at),
            "snapshot_at": manifest.as_ref().map(|m| m.snapshot_at),
            "totals": manifest.as_ref().map(|m| m.totals),
            "encrypted": manifest.as_ref().map(|m| m.is_encrypted()),
            "verified": verified,
            "problem": problem,
            "kept_because": decision.reasons.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    };
    plan.backups.iter().map(backup).collect()
}

fn applied_json(applied: &Applied) -> serde_json::Value {
    serde_json::json!({
        "removed": applied.removed, "swept": applied.swept, "freed_bytes": applied.freed_bytes,
        "failures": applied.failures.iter().map(failure::one_line).collect::<Vec<_>>(),
    })
}
