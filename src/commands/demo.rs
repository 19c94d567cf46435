//! `opsctl demo`: the main job, seen at work on a sample database and throwaway servers.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::backup::manifest::Scope;
use crate::backup::repository::{Folder, Repository};
use crate::backup::take;
use crate::backup::verify::{self, Verification};
use crate::cli::DemoArgs;
use crate::commands::{Context, Report, Silence, default_jobs, open};
use crate::config::{self, Compression, Location, Retention};
use crate::db::throwaway::ThrowawayServer;
use crate::exit::{Exit, Failure};
use crate::text::{bytes, counted};

const SAMPLE: &str = include_str!("../demo/sample.sql");
const DATABASE: &str = "union_office";
/// Says that a directory is a demo's, so that the next demo may use it.
const MARK: &str = ".opsctl-demo";

pub(super) fn run(context: &Context, args: &DemoArgs) -> anyhow::Result<Report> {
    context.set_deadline(context.global.timeout);
    let dir = prepare(args.dir.as_deref().unwrap_or(Path::new("opsctl-demo")))?;
    let bin_dir = args.bin_dir.clone().map_or_else(newest_server, Ok)?;
    let mut text = String::new();

    tracing::info!(
        "starting a throwaway PostgreSQL server with the programs in {}",
        bin_dir.display()
    );
    let server = ThrowawayServer::start(&bin_dir, &context.stop)?;
    tracing::info!("loading the sample database");
    let began = crate::clock::now();
    let mut connection = server.target("postgres")?.connect("opsctl demo", &context.stop)?;
    connection.client().batch_execute(&format!("CREATE DATABASE {DATABASE}"))?;
    let target = server.target(DATABASE)?;
    target.connect("opsctl demo", &context.stop)?.client().batch_execute(SAMPLE)?;
    let seconds = |since| crate::clock::now().signed_duration_since(since).as_seconds_f64();
    writeln!(
        text,
        "Loaded a sample database of a union's office into a throwaway server: {:.1} s.",
        seconds(began)
    )?;

    let repository = open::repository(
        context,
        &config::Repository {
            name: "demo".to_owned(),
            location: Location::Directory(dir.join("backups")),
            retention: Retention::default(),
            recipients: Vec::new(),
            identity_file: None,
        },
    )?;
    tracing::info!("backing it up into {}", repository.storage.place());
    let began = crate::clock::now();
    let taken = take::take(&take::Request {
        run: &context.run,
        begun_at: context.now,
        database: DATABASE,
        target: &target,
        bin_dir: Some(&bin_dir),
        environment: &context.environment,
        scope: Scope::default(),
        compression: Compression::Auto,
        jobs: default_jobs(None),
        shrink_accepted: false,
        repositories: std::slice::from_ref(&repository),
        progress: &context.progress,
        stop: &context.stop,
    })?;
    let manifest = taken.into_iter().next().context("no repository")?.manifest?;
    let totals = manifest.totals;
    writeln!(
        text,
        "Backed up {} and {} ({} as {}, {}): {:.1} s.",
        counted(totals.tables, "table"),
        counted(totals.rows, "row"),
        bytes(totals.raw_bytes),
        bytes(totals.stored_bytes),
        manifest.compression.suffix().trim_start_matches('.'),
        seconds(began),
    )?;

    let began = crate::clock::now();
    let folder = Folder::new(DATABASE, &context.run);
    let result = verify(context, &repository, &folder, &bin_dir)?;
    let verdict = if result.good { "everything is as it was dumped" } else { "DAMAGED" };
    writeln!(
        text,
        "Verified it ({}, {}, listed by pg_restore {}): {verdict}: {:.1} s.",
        counted(result.chunks, "chunk"),
        counted(result.rows, "row"),
        result.pg_restore.as_deref().unwrap_or("-"),
        seconds(began),
    )?;
    if let Some(test) = &result.restore {
        writeln!(
            text,
            "Restored it into a second throwaway server in {:.1} s, and compared what came out: {}, {}, {} of all \
             kinds{}.",
            test.seconds,
            counted(test.tables, "table"),
            counted(test.rows, "row"),
            counted(test.objects, "object"),
            if test.amcheck { ", and pg_amcheck found the indexes sound" } else { "" },
        )?;
    }
    drop(connection);
    drop(server);
    let place = dir.join("backups").join(folder.path());
    text.push_str(&where_to_look(&place, &dir.join("backups")));
    let json = serde_json::json!({ "backup": context.run, "folder": place, "totals": totals, "verification": result });
    let exit = if result.good { Exit::Done } else { Exit::BadNews };
    Ok(Report { exit, text, json, silence: Silence::Allowed })
}

/// Says what can be looked at and tried afterwards.
fn where_to_look(place: &Path, repository: &Path) -> String {
    let program = std::env::current_exe();
    let program = program.map_or_else(|_| "opsctl".to_owned(), |path| path.display().to_string());
    let mut text = format!(
        "The servers are gone. The backup is in\n  {}\nLook at manifest.json, at RESTORE.md (how to restore it without \
         opsctl), and try\n",
        place.display()
    );
    for command in ["backup list", "verify-backup", "verify-backup report"] {
        text.push_str(&format!(
            "  {program} {command} --repository {} --database {DATABASE}\n",
            repository.display()
        ));
    }
    text
}

fn verify(
    context: &Context,
    repository: &Repository,
    folder: &Folder,
    bin_dir: &Path,
) -> anyhow::Result<Verification> {
    tracing::info!("verifying the backup");
    let result = verify::verify(&verify::Request {
        repository,
        folder,
        identities: None,
        restore: Some(verify::Server::Throwaway),
        sample: None,
        run: &context.run,
        queries: &[],
        bin_dir: Some(bin_dir),
        environment: &context.environment,
        jobs: default_jobs(None),
        progress: &context.progress,
        stop: &context.stop,
    })?;
    verify::record(repository, folder, &result)?;
    Ok(result)
}

/// Makes the directory, or checks that it is an earlier demo's: a demo must not litter somebody's files.
fn prepare(dir: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(dir).with_context(|| format!("failed to make `{}`", dir.display()))?;
    let dir = dir.canonicalize()?;
    let mark = dir.join(MARK);
    if !mark.exists() && std::fs::read_dir(&dir)?.next().is_some() {
        return Err(Failure::new(
            Exit::Failed,
            format!("`{}` is not empty and not of an earlier demo", dir.display()),
        )
        .hint("Name another directory with --dir.")
        .into());
    }
    std::fs::OpenOptions::new().create(true).append(true).open(&mark)?;
    Ok(dir)
}

/// Finds the newest installed PostgreSQL server.
fn newest_server() -> anyhow::Result<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        let major = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let bin_dir = entry.path().join("bin");
        let whole = ["initdb", "postgres", "pg_dump", "pg_restore"]
            .iter()
            .all(|p| bin_dir.join(p).exists());
        found.extend(major.filter(|_| whole).map(|major| (major, bin_dir)));
    }
    found.sort();
    found.pop().map(|(_, bin_dir)| bin_dir).ok_or_else(|| {
        Failure::new(
            Exit::Failed,
            "no PostgreSQL server programs were found in /usr/lib/postgresql",
        )
        .hint("Install them (`apt-get install postgresql`), or say where they are with --bin-dir.")
        .into()
    })
}
