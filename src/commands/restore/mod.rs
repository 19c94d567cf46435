//! `opsctl restore`: a backup becomes a database again, or a directory for the stock pg_restore.
//!
//! `plan.rs` finds out what would be made and replaced, and asks if it must.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;

use crate::backup::chunk::Source;
use crate::backup::manifest::{Contents as Known, Detail, Manifest};
use crate::backup::repository::{Folder, Found, Repository};
use crate::backup::restore::database::{self, Like, Unfinished};
use crate::backup::restore::{self, Contents, Request, Restored, Selection, roles};
use crate::backup::verify;
use crate::cli::RestoreArgs;
use crate::commands::exclusive::Exclusive;
use crate::commands::{Context, Report, Silence, default_jobs, open};
use crate::config::{self, Config, Overrides};
use crate::db::{self, Target};
use crate::encryption::Identities;
use crate::exit::{Exit, Failure};
use crate::id::RunId;
use crate::text::{bytes, counted};

mod plan;

use plan::Plan;

pub(super) fn run(context: &Context, args: &RestoreArgs) -> anyhow::Result<Report> {
    let overrides = Overrides { jobs: args.jobs, ..Overrides::default() };
    let config = context.load(&args.selection, overrides)?.config;
    context.set_deadline(context.global.timeout);
    let database = one(&config.databases, "database", "--database")?;
    let settings = one(&config.repositories, "repository", "--repository")?;
    let (configured, name) = open::database(context, database)?;
    let repository = open::repository(context, settings)?;
    let identity = args.identity.as_deref().or(settings.identity_file.as_deref());
    let identities = identity.map(Identities::read).transpose()?;
    let folder = Folder::new(&name, &choose(context, &repository, &name, &args.backup)?);
    let manifest = read_manifest(&repository, &folder)?;
    let detail = unseal(&manifest, identities.as_ref())?;
    let source = Source {
        repository: &repository,
        folder: &folder,
        manifest: &manifest,
        identities: identities.as_ref(),
    };
    let contents = restore::contents(source)?;
    let selection = Selection {
        tables: args.table.clone(),
        schemas: args.schema.clone(),
        schema_only: args.schema_only,
    };
    let chosen = contents.choose(&selection).map_err(|what| Failure::new(Exit::Usage, what))?;
    let backup = Chosen { source, detail: &detail, contents: &contents, entries: &chosen };
    let work = || restore_to(context, &config, args, backup, (&configured, &name, database));
    context.note(&name, work, |report| (report.exit, report.json.clone()))
}

/// Restores a backup that was found and can be read.
fn restore_to(
    context: &Context,
    config: &Config,
    args: &RestoreArgs,
    backup: Chosen<'_>,
    (configured, name, database): (&Target, &str, &config::Database),
) -> anyhow::Result<Report> {
    if let Some(dir) = &args.to.to_dir {
        return lay_out(context, backup, dir, args.dry_run);
    }
    let plan = plan::make(context, args, configured)?;
    if args.dry_run {
        return plan::describe(context, backup, name, &plan);
    }
    if plan.must_ask {
        plan::ask(&plan, &plan::describe(context, backup, name, &plan)?.text)?;
    }
    let bin_dir = database.bin_dir.as_deref();
    if plan.rows_only {
        return apply_rows(context, config, backup, &plan, bin_dir);
    }
    apply(context, config, args, backup, plan, bin_dir)
}

/// A backup, ready to be restored.
#[derive(Clone, Copy)]
struct Chosen<'a> {
    source: Source<'a>,
    detail: &'a Detail,
    contents: &'a Contents,
    entries: &'a BTreeSet<i32>,
}

/// Returns the only one of several that a command can work with.
fn one<'a, T>(all: &'a [T], what: &str, option: &str) -> anyhow::Result<&'a T> {
    match all {
        [one] => Ok(one),
        _ => Err(Failure::new(Exit::Usage, format!("a restore works with one {what}"))
            .hint(format!("There are {} configured: name one with {option}.", all.len()))
            .into()),
    }
}

/// Finds the backup that is meant.
fn choose(
    context: &Context,
    repository: &Repository,
    name: &str,
    backup: &str,
) -> anyhow::Result<RunId> {
    if backup != "latest" {
        return RunId::parse(backup).ok_or_else(|| {
            Failure::new(Exit::Usage, format!("`{backup}` is no backup id"))
                .hint("`opsctl backup list` shows the ids; they read like 20261121T021500Z-4f3a9c.")
                .into()
        });
    }
    let found = repository.backups(name, context.now, &context.stop)?;
    let newest = found.into_iter().find_map(|found| match found {
        // One that cannot be read is not passed over in silence: it may be the newest.
        Found::Backup(manifest, _) => Some(manifest.id),
        Found::Unreadable(id, _) => Some(id),
        Found::InProgress(_) | Found::Leftover(_) => None,
    });
    newest.ok_or_else(|| none(repository, name))
}

fn none(repository: &Repository, name: &str) -> anyhow::Error {
    let place = repository.storage.place();
    Failure::new(Exit::BadNews, format!("there is no such backup of `{name}` in {place}"))
        .hint("`opsctl backup list` shows what there is; --database and --repository say where to look.")
        .into()
}

fn read_manifest(repository: &Repository, folder: &Folder) -> anyhow::Result<Manifest> {
    match repository.manifest(folder)? {
        None => Err(none(repository, folder.path())),
        Some(Ok((manifest, _))) if manifest.id == folder.id => Ok(manifest),
        Some(Ok((manifest, _))) => {
            let message =
                format!("the manifest of backup {} is that of {}", folder.id, manifest.id);
            Err(Failure::new(Exit::BadNews, message).into())
        }
        Some(Err(error)) => {
            let message = format!("the manifest of backup {} cannot be used: {error}", folder.id);
            Err(Failure::new(Exit::BadNews, message).into())
        }
    }
}

fn unseal(manifest: &Manifest, identities: Option<&Identities>) -> anyhow::Result<Detail> {
    match (&manifest.contents, identities) {
        (Known::Open(detail), _) => Ok(detail.clone()),
        (Known::Sealed(sealed), Some(identities)) => verify::unseal(manifest, sealed, identities)
            .with_context(|| format!("backup {} cannot be decrypted", manifest.id)),
        (Known::Sealed(_), None) => {
            let message = format!("backup {} is encrypted", manifest.id);
            let hint = "Name the file with the age identity: --identity.";
            Err(Failure::new(Exit::Configuration, message).hint(hint).into())
        }
    }
}

/// Restores, under a name of its own until it is whole.
fn apply(
    context: &Context,
    config: &Config,
    args: &RestoreArgs,
    backup: Chosen<'_>,
    plan: Plan,
    bin_dir: Option<&Path>,
) -> anyhow::Result<Report> {
    let Plan { admin, name, present, replace, .. } = plan;
    let _exclusive = exclusive(context, config, &admin, &name)?;
    // Read first: a file that is not there is no reason to have restored for an hour.
    let anonymize = args.anonymize.as_deref().map(read_sql).transpose()?;
    let began = Instant::now();
    if args.globals {
        let mut connection = admin.connect("opsctl restore", &context.stop)?;
        let created = roles::create_missing(backup.source, &mut connection)?;
        tracing::info!("{} created", counted(created.len() as u64, "missing role"));
    }
    context.progress.set_message(format!("{} {}", name, backup.source.manifest.id));
    let like =
        Like { no_owner: args.no_owner, no_privileges: args.no_privileges, ..Like::default() };
    let unfinished =
        Unfinished::create(&admin, &context.run, backup.contents, like, &context.stop)?;
    let mut options = Vec::new();
    if args.no_owner {
        options.push("--no-owner".to_owned());
    }
    if args.no_privileges {
        options.push("--no-privileges".to_owned());
    }
    let target = unfinished.target();
    let restored = restore::restore(&request(context, config, backup, &target, options, bin_dir))?;
    if let Some(sql) = anonymize {
        tracing::info!("anonymizing");
        let mut connection = unfinished.target().connect("opsctl restore", &context.stop)?;
        let done = connection.client().batch_execute(&sql);
        done.map_err(|e| db::Error::query("anonymize what was restored; it is dropped again", e))?;
    }
    // One that was empty when it was looked at makes room as any other does: somebody may have begun to use it.
    let in_the_way = (replace || present.is_some()).then_some(&context.run);
    let mut old = unfinished.finish(&name, backup.contents, like, in_the_way, &context.stop)?;
    let seconds = began.elapsed().as_secs_f64();
    if let Some(kept) = old.as_deref()
        && args.drop_old
    {
        tracing::info!("dropping `{kept}`");
        database::drop_database(&admin, kept, &context.stop)
            .with_context(|| format!("`{name}` is restored, and `{kept}` could not be dropped"))?;
        old = None;
    }
    Ok(report(context, backup, &admin, &name, &restored, old.as_deref(), seconds))
}

fn read_sql(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).map_err(|error| {
        let message = format!("`{}` cannot be read: {error}", path.display());
        Failure::new(Exit::Usage, message).into()
    })
}

/// Restores rows alone, into the tables that are there.
fn apply_rows(
    context: &Context,
    config: &Config,
    backup: Chosen<'_>,
    plan: &Plan,
    bin_dir: Option<&Path>,
) -> anyhow::Result<Report> {
    let _exclusive = exclusive(context, config, &plan.admin, &plan.name)?;
    let began = Instant::now();
    let target = plan.admin.with_database(&plan.name);
    let request = request(context, config, backup, &target, Vec::new(), bin_dir);
    let restored = restore::restore_rows(&request)?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(report(context, backup, &plan.admin, &plan.name, &restored, None, seconds))
}

/// Keeps other restores away from a database. It may not exist yet: the lock is in the one that `admin` is connected to.
fn exclusive(
    context: &Context,
    config: &Config,
    admin: &Target,
    name: &str,
) -> anyhow::Result<Exclusive> {
    let key = format!("restore {name}");
    Exclusive::acquire(context, config, ("restore", name), Some((admin, &key)))
}

fn request<'a>(
    context: &'a Context,
    config: &Config,
    backup: Chosen<'a>,
    target: &'a Target,
    options: Vec<String>,
    bin_dir: Option<&'a Path>,
) -> Request<'a> {
    Request {
        source: backup.source,
        detail: backup.detail,
        contents: backup.contents,
        chosen: backup.entries,
        sample: None,
        target,
        options,
        bin_dir,
        environment: &context.environment,
        jobs: default_jobs(config.backup.jobs),
        progress: &context.progress,
        stop: &context.stop,
    }
}

fn report(
    context: &Context,
    backup: Chosen<'_>,
    admin: &Target,
    name: &str,
    restored: &Restored,
    old: Option<&str>,
    seconds: f64,
) -> Report {
    let manifest = backup.source.manifest;
    let age = context.now.signed_duration_since(manifest.snapshot_at);
    let mut text = format!(
        "{name}: restored backup {} at {} in {seconds:.1} s: {}, {}, {}, counts and digests as they were dumped\n  It has the state of {}, {} before this restore.\n",
        manifest.id,
        admin.host_label(),
        counted(restored.tables, "table"),
        counted(restored.rows, "row"),
        counted(restored.large_objects, "large object"),
        manifest.snapshot_at.format("%Y-%m-%d %H:%M:%S UTC"),
        crate::text::duration(age),
    );
    if let Some(old) = old {
        writeln!(
            text,
            "  What it replaced is kept as `{old}`: drop it when it is not needed any more."
        )
        .ok();
    }
    let json = serde_json::json!({
        "database": name, "server": admin.host_label(), "backup": manifest.id, "snapshot_at": manifest.snapshot_at,
        "age_seconds": age.num_seconds(), "seconds": seconds, "restored": restored, "kept": old,
    });
    Report { exit: Exit::Done, text, json, silence: Silence::Allowed }
}

/// Lays out what pg_dump's directory format would be.
fn lay_out(
    context: &Context,
    backup: Chosen<'_>,
    dir: &Path,
    dry_run: bool,
) -> anyhow::Result<Report> {
    let manifest = backup.source.manifest;
    let size: u64 = manifest.artifacts.iter().map(|artifact| artifact.size).sum();
    let what = format!("{}, {}", counted(manifest.artifacts.len() as u64, "file"), bytes(size));
    let json = serde_json::json!({
        "backup": manifest.id, "directory": dir, "files": manifest.artifacts.len(), "bytes": size, "dry_run": dry_run,
    });
    let text = if dry_run {
        format!("Would lay out backup {} in `{}`: {what}.\n", manifest.id, dir.display())
    } else {
        restore::directory::lay_out(backup.source, dir, &context.progress, &context.stop)?;
        format!(
            "Laid out backup {} in `{}`: {what}. Restore it with\n  pg_restore --dbname=NEWDB --jobs=4 --exit-on-error {}\n",
            manifest.id,
            dir.display(),
            dir.display()
        )
    };
    Ok(Report { exit: Exit::Done, text, json, silence: Silence::Allowed })
}
