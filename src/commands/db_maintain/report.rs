//! `opsctl db-maintain report`: only looks, also at a standby.

use crate::cli::db_maintain::{MaintainReportArgs, ReportFormat};
use crate::commands::{Context, Report, Silence, file, open};
use crate::config::Config;
use crate::db::Target;
use crate::exit::{Exit, Failure};
use crate::failure;
use crate::maintain;
use crate::maintain::report::{self, Earlier, Report as Seen, Wish};

/// So far back sizes are looked at.
const REMEMBERED: chrono::TimeDelta = chrono::TimeDelta::days(90);
const COMMAND: &str = "db-maintain report";
/// Raised when a field is removed or changes its meaning; fields may be added at any time.
const VERSION: u32 = 1;

pub(super) fn run(
    context: &Context,
    config: &Config,
    args: &MaintainReportArgs,
) -> anyhow::Result<Report> {
    let (mut seen, mut failed) = (Vec::new(), Vec::new());
    let mut exits = Vec::new();
    let single = config.databases.len() == 1;
    for database in &config.databases {
        let (target, name) = open::database(context, database)?;
        let work = || one(context, config, &target, &name);
        match context.note(&name, work, |seen| (Exit::Done, seen.notes())) {
            Ok(report) => seen.push(report),
            // With one database its error is the run's.
            Err(error) if single => return Err(error),
            Err(error) => {
                let message = failure::one_line(&error);
                tracing::error!("database `{name}`: {message}");
                exits.push(failure::exit(&error));
                failed.push((name, message));
            }
        }
    }
    let exit = match exits.first() {
        None => Exit::Done,
        Some(first) if exits.iter().all(|exit| exit == first) => *first,
        Some(_) => Exit::Failed,
    };
    let json = document(&seen, &failed, &exits);
    let mut text = match args.format {
        ReportFormat::Html => report::html::page(&seen, &failed),
        ReportFormat::Text => words(&seen, &failed),
        ReportFormat::Json => whole(context, exit, &json)?,
    };
    let mut json = json;
    if let Some(path) = &args.out {
        file::put(path, text.as_bytes(), file::READABLE)?;
        text = format!("{}\n", path.display());
        json = serde_json::json!({ "out": path });
    }
    Ok(Report { exit, text, json, silence: Silence::Refused })
}

fn one(context: &Context, config: &Config, target: &Target, name: &str) -> anyhow::Result<Seen> {
    let settings = &config.maintain;
    let mut connection = maintain::connect(target, settings.lock_timeout, &context.stop)?;
    let server = maintain::server(&mut connection)?;
    if server.version.major() < super::OLDEST {
        let message = format!(
            "PostgreSQL {} is too old: a report needs {} or later",
            server.version,
            super::OLDEST
        );
        return Err(Failure::new(Exit::Failed, message).into());
    }
    let earlier = earlier(context, name);
    let wish = Wish {
        database: name,
        min_index_bytes: settings.reindex_min_bytes,
        earlier: &earlier,
        now: context.now,
        stop: &context.stop,
    };
    Ok(report::look(&mut connection, server, wish)?)
}

/// Reads what earlier reports noted of a database. Without a history nothing is known of growth.
fn earlier(context: &Context, database: &str) -> Earlier {
    let since = context.now - REMEMBERED;
    let runs = context.history.read(|store| store.runs(since, &[COMMAND]));
    let runs = runs.unwrap_or_else(|error| {
        tracing::warn!("nothing is known of earlier reports: {}", error.in_full());
        Vec::new()
    });
    let ours = runs.into_iter().filter(|run| run.command == COMMAND);
    let parts = ours.flat_map(|run| {
        let at = run.begun_at;
        let those = run.databases.into_iter().filter(|part| part.database == database);
        those.map(move |part| (at, part.figures)).collect::<Vec<_>>()
    });
    Earlier(parts.collect())
}

fn document(seen: &[Seen], failed: &[(String, String)], exits: &[Exit]) -> serde_json::Value {
    let failed = failed.iter().zip(exits).map(|((database, why), exit)| {
        serde_json::json!({ "database": database, "exit": exit.number(), "error": why })
    });
    let databases = seen.iter().map(|seen| serde_json::json!(seen)).chain(failed);
    serde_json::json!({ "version": VERSION, "databases": databases.collect::<Vec<_>>() })
}

/// Returns the document as a run prints it, for a file.
fn whole(context: &Context, exit: Exit, json: &serde_json::Value) -> anyhow::Result<String> {
    let mut whole =
        serde_json::json!({ "command": COMMAND, "run": context.run, "exit": exit.number() });
    if let (Some(whole), Some(fields)) = (whole.as_object_mut(), json.as_object()) {
        whole.extend(fields.clone());
    }
    Ok(serde_json::to_string_pretty(&whole)? + "\n")
}

fn words(seen: &[Seen], failed: &[(String, String)]) -> String {
    let failed = failed.iter().map(|(name, why)| format!("{name}: FAILED: {why}\n"));
    failed.chain(seen.iter().map(report::text::text)).collect::<Vec<_>>().join("\n")
}
