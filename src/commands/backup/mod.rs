//! `opsctl backup`, `backup list` and `backup prune`.
//!
//! Here is what they share: which databases, and how the results of several become one.

use crate::backup::prune::{self, Plan};
use crate::backup::repository::Repository;
use crate::cli::{BackupArgs, BackupCommand};
use crate::commands::{Context, Report, Silence, open};
use crate::config::{self, Config, Overrides};
use crate::db::Target;
use crate::exit::Exit;
use crate::failure;

mod plan;
mod retain;
mod take;

pub(in crate::commands) fn run(context: &Context, args: &BackupArgs) -> anyhow::Result<Report> {
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
        Some(BackupCommand::List) => retain::list(context, &config),
        Some(BackupCommand::Prune(_)) => retain::prune_all(context, &config, args.dry_run),
        None if args.dry_run => plan::plan_all(context, &config),
        None => take::back_up_all(context, &config, args),
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
        let result = open::database(context, database).and_then(|(target, name)| {
            let says = |outcome: &Outcome| (outcome.exit, outcome.json.clone());
            context.note(&name, || work(&target, &name, database), says)
        });
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

/// Looks at what a repository has of a database, and decides by the repository's retention.
fn plan_of(
    context: &Context,
    config: &Config,
    repository: &Repository,
    database: &str,
) -> anyhow::Result<Plan> {
    let settings = config.repositories.iter().find(|r| r.name == repository.name);
    let retention = settings.map(|r| r.retention).unwrap_or_default();
    prune::plan(repository, database, retention, context.now, &context.stop)
}
