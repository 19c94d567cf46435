//! `opsctl verify-backup`: is what lies in the repositories what was written?

use std::fmt::Write as _;

use crate::backup::evidence;
use crate::backup::repository::{Folder, Found, Repository};
use crate::backup::sample::Sample;
use crate::backup::verified::Depth;
use crate::backup::verify::{self, Request, Server, Verification};
use crate::cli::{VerifyBackupArgs, VerifyBackupCommand, Which};
use crate::commands::{Context, Report, Silence, default_jobs, open};
use crate::config::{self, Config, Overrides};
use crate::db::Target;
use crate::encryption::Identities;
use crate::exit::{Exit, Failure};
use crate::id::RunId;
use crate::text::{bytes, counted};

mod report;
mod server;

pub(in crate::commands) fn run(
    context: &Context,
    args: &VerifyBackupArgs,
) -> anyhow::Result<Report> {
    if let Some(VerifyBackupCommand::Report(report)) = &args.command {
        return report::run(context, args, report);
    }
    let config = context
        .load(&args.selection, Overrides { jobs: args.jobs, ..Overrides::default() })?
        .config;
    context.set_deadline(context.global.timeout);
    context.pings.start();
    let server = args.server.as_deref();
    let server = server.map(|url| server::resolve(context, args, url)).transpose()?;
    let mut sums = Sums { text: String::new(), json: Vec::new(), exit: Exit::Done };
    for database in &config.databases {
        let name = open::database_name(context, database)?;
        for settings in &config.repositories {
            let what = (database, name.as_str(), settings);
            let work =
                || verify_repository(context, &config, args, what, server.as_ref(), &mut sums);
            context.note(&name, work, |(exit, report)| (*exit, report.clone()))?;
        }
    }
    let json = serde_json::json!({ "verifications": sums.json });
    Ok(Report { exit: sums.exit, text: sums.text, json, silence: Silence::Allowed })
}

/// What all verifications of the run come to.
struct Sums {
    text: String,
    json: Vec<serde_json::Value>,
    exit: Exit,
}

fn verify_repository(
    context: &Context,
    config: &Config,
    args: &VerifyBackupArgs,
    (database, name, settings): (&config::Database, &str, &config::Repository),
    server: Option<&Target>,
    sums: &mut Sums,
) -> anyhow::Result<(Exit, serde_json::Value)> {
    let mut exit = Exit::Done;
    let mut last = serde_json::Value::Null;
    let repository = open::repository(context, settings)?;
    let identity = args.identity.as_deref().or(settings.identity_file.as_deref());
    let identities = identity.map(Identities::read).transpose()?;
    let chosen = choose(context, &repository, name, &args.which)?;
    if chosen.is_empty() {
        let what =
            format!("there is no backup of `{name}` to verify in {}", repository.storage.place());
        tracing::error!("{what}");
        writeln!(sums.text, "{name}: {what}")?;
        sums.json.push(serde_json::json!({ "database": name, "repository": repository.name, "good": false, "error": what }));
        exit = Exit::BadNews;
    }
    for id in chosen {
        context.progress.set_message(format!("{name} {id}"));
        context.progress.set_position(0);
        let folder = Folder::new(name, &id);
        let restore = args.restore_test.then(|| server.map_or(Server::Throwaway, Server::Given));
        let next_sample = |percent| -> anyhow::Result<Sample> {
            let last = evidence::last_sample(&repository, name, restore.is_some(), &context.stop)?;
            Ok(Sample::next(percent, last.as_ref()))
        };
        let result = verify::verify(&Request {
            repository: &repository,
            folder: &folder,
            identities: identities.as_ref(),
            restore,
            sample: args.sample.map(next_sample).transpose()?,
            run: &context.run,
            queries: &config.queries,
            bin_dir: database.bin_dir.as_deref(),
            environment: &context.environment,
            jobs: default_jobs(config.backup.jobs),
            progress: &context.progress,
            stop: &context.stop,
        })?;
        if !args.no_record {
            verify::record(&repository, &folder, &result)?;
        }
        if !result.good {
            exit = Exit::BadNews;
        }
        describe(name, &repository, &result, sums)?;
        last = serde_json::to_value(&result)?;
    }
    sums.exit = sums.exit.max(exit);
    Ok((exit, last))
}

/// Returns the ids of the backups to verify, newest first.
fn choose(
    context: &Context,
    repository: &Repository,
    name: &str,
    which: &Which,
) -> anyhow::Result<Vec<RunId>> {
    if let Some(id) = &which.backup {
        let id = RunId::parse(id).ok_or_else(|| {
            Failure::new(Exit::Usage, format!("`{id}` is no backup id"))
                .hint("`opsctl backup list` shows the ids; they read like 20261121T021500Z-4f3a9c.")
        })?;
        return Ok(vec![id]);
    }
    let since = which.within.and_then(|within| {
        context.now.checked_sub_signed(chrono::TimeDelta::from_std(within).ok()?)
    });
    let mut chosen = Vec::new();
    for found in repository.backups(name, context.now, &context.stop)? {
        match found {
            Found::Backup(manifest, _) if since.is_none_or(|since| manifest.begun_at >= since) => {
                chosen.push(manifest.id);
            }
            // What cannot be read may be anything, also the newest: it is looked at, and found wanting.
            Found::Unreadable(id, _) => chosen.push(id),
            Found::Backup(..) | Found::InProgress(_) | Found::Leftover(_) => {}
        }
    }
    if !which.all && since.is_none() {
        chosen.truncate(1);
    }
    Ok(chosen)
}

fn describe(
    name: &str,
    repository: &Repository,
    result: &Verification,
    sums: &mut Sums,
) -> anyhow::Result<()> {
    let place = repository.storage.place();
    let Verification { backup, artifacts, chunks, rows, stored_bytes, .. } = result;
    let sample = result.sample.as_ref();
    let piece =
        sample.map_or(String::new(), |sample| format!(" ({sample}; {})", sample.coverage()));
    let looked_at = match (&result.restore, result.depth) {
        (Some(test), _) => format!(
            "{}; restored into PostgreSQL {} in {:.1} s, everything equal to what was dumped{}",
            counted(*rows, "row"),
            test.server,
            test.seconds,
            if test.amcheck { ", indexes checked" } else { "" },
        ),
        (None, Depth::Stored) => {
            "sizes and SHA-256 only: no identity was given to decrypt it".to_owned()
        }
        _ => format!(
            "{}, listed by pg_restore {}",
            counted(*rows, "row"),
            result.pg_restore.as_deref().unwrap_or("-")
        ),
    };
    if result.good {
        writeln!(
            sums.text,
            "{name}: backup {backup} in {place} is good: {}, {}, {}, {looked_at}{piece}",
            counted(*artifacts, "artifact"),
            counted(*chunks, "chunk"),
            bytes(*stored_bytes),
        )?;
    } else {
        let n = result.findings.len() as u64 + result.findings_not_listed;
        tracing::error!(
            "backup {backup} of `{name}` in {place} is DAMAGED: {}",
            counted(n, "finding")
        );
        writeln!(sums.text, "{name}: backup {backup} in {place} is DAMAGED:")?;
        for finding in &result.findings {
            writeln!(sums.text, "  {finding}")?;
        }
        if result.findings_not_listed > 0 {
            writeln!(sums.text, "  and {} more", result.findings_not_listed)?;
        }
    }
    let mut json = serde_json::to_value(result)?;
    if let Some(fields) = json.as_object_mut() {
        fields.insert("database".to_owned(), name.into());
        fields.insert("place".to_owned(), place.into());
    }
    sums.json.push(json);
    Ok(())
}
