//! `opsctl backup`: taking backups, judging them, and applying retention afterwards.

use std::fmt::Write as _;

use super::retain::applied_json;
use super::{Outcome, for_each_database, plan_of};
use crate::backup::manifest::{Manifest, Scope};
use crate::backup::prune::{Plan, Planned};
use crate::backup::repository::Repository;
use crate::backup::retention::Condition;
use crate::backup::shrink;
use crate::backup::take::{self, Request, Taken};
use crate::cli::BackupArgs;
use crate::commands::exclusive::Exclusive;
use crate::commands::{Context, Report, default_jobs, open};
use crate::config::{self, Config};
use crate::db::Target;
use crate::exit::Exit;
use crate::failure;
use crate::text::bytes;

/// Backs every database up into every repository.
pub(super) fn back_up_all(
    context: &Context,
    config: &Config,
    args: &BackupArgs,
) -> anyhow::Result<Report> {
    let repositories = open::repositories(context, config)?;
    for_each_database(context, config, |target, name, database| {
        let server = Some((target, "backup"));
        let mut exclusive = Exclusive::acquire(context, config, ("backup", name), server)?;
        let began = std::time::Instant::now();
        let taken =
            back_up(context, config, &repositories, args.accept_shrink, (target, name, database))?;
        // Without the lock, another host may be at work on the same folders.
        let check = exclusive.check();
        let locked = check.inspect_err(|e| tracing::warn!("nothing is removed: {e}")).is_ok();
        let results: Vec<_> = taken
            .into_iter()
            .map(|taken| finish(context, config, name, taken, locked && !args.no_prune))
            .collect();
        Ok(summarize(context, name, &results, began.elapsed().as_secs_f64()))
    })
}

fn back_up(
    context: &Context,
    config: &Config,
    repositories: &[Repository],
    shrink_accepted: bool,
    (target, name, database): (&Target, &str, &config::Database),
) -> anyhow::Result<Vec<Taken>> {
    context.progress.set_message(name.to_owned());
    let settings = &config.backup;
    take::take(&Request {
        run: &context.run,
        begun_at: context.now,
        database: name,
        target,
        bin_dir: database.bin_dir.as_deref(),
        environment: &context.environment,
        scope: scope(settings),
        compression: settings.compression,
        jobs: default_jobs(settings.jobs),
        shrink_accepted,
        repositories,
        progress: &context.progress,
        stop: &context.stop,
    })
}

fn scope(settings: &config::Backup) -> Scope {
    Scope {
        schema_only: settings.schema_only,
        exclude_table_data: settings.exclude_table_data.clone(),
        exclude_schema: settings.exclude_schema.clone(),
        role_passwords: settings.role_passwords,
    }
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
fn finish(context: &Context, config: &Config, name: &str, taken: Taken, prune: bool) -> Stored {
    let settings = &config.backup;
    let Taken { repository, manifest } = taken;
    let manifest = match manifest {
        Ok(manifest) => manifest,
        Err(error) => {
            let text = failure::one_line(&error);
            tracing::error!("repository `{}` has no backup of `{name}`: {text}", repository.name);
            let (repository, exit) = (repository.name, failure::exit(&error));
            return Stored {
                repository,
                exit,
                text,
                json: serde_json::Value::Null,
                manifest: None,
            };
        }
    };
    let mut suspicions = shrink::suspicions(&manifest, [], settings.shrink_percent);
    let mut pruned = serde_json::Value::Null;
    let mut problem = None;
    match plan_of(context, config, &repository, name) {
        Ok(plan) => {
            let earlier = earlier(&plan, &manifest);
            suspicions = shrink::suspicions(&manifest, earlier, settings.shrink_percent);
            // A backup that may be the ruin of a good one must not make room for itself.
            let keep = !suspicions.is_empty() && settings.fail_on_shrink;
            if prune && keep {
                tracing::warn!(
                    "repository `{}`: nothing is removed, because the backup is suspicious",
                    repository.name
                );
            } else if prune {
                let applied = plan.apply(&repository, &context.run, &context.stop);
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
    if !suspicions.is_empty() {
        tracing::warn!(
            "if that is right, take one with --accept-shrink: later ones are compared with it"
        );
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

/// Returns the good backups before `manifest`, oldest first.
fn earlier<'a>(plan: &'a Plan, manifest: &Manifest) -> impl Iterator<Item = &'a Manifest> {
    let (id, begun_at) = (manifest.id.clone(), manifest.begun_at);
    let before = move |p: &&Planned| {
        p.decision.backup.condition == Condition::Good
            && p.decision.backup.id != id
            && p.decision.backup.at <= begun_at
    };
    plan.backups.iter().rev().filter(before).filter_map(|p| p.manifest.as_deref())
}

fn summarize(context: &Context, name: &str, results: &[Stored], seconds: f64) -> Outcome {
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
    for result in results {
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
