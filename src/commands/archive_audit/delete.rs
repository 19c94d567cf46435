//! Deleting what is archived: by runs where the configuration says so, or by hand with the segments' names typed.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::Context as _;

use super::report::Part;
use super::{Archive, archive_table, named};
use crate::archive::deletion::{self, BATCH_ROWS, Task};
use crate::archive::retention;
use crate::archive::run::Outcome;
use crate::archive::window::Window;
use crate::cli::archive_audit::ArchiveDeleteArgs;
use crate::commands::exclusive::Exclusive;
use crate::commands::{Context, open};
use crate::config::{AuditTable, Config, Database, Location};
use crate::db::Target;
use crate::exit::{Exit, Failure};

/// A table, and how to look at its archive.
pub(super) struct Work<'w> {
    pub(super) context: &'w Context,
    pub(super) config: &'w Config,
    pub(super) target: &'w Target,
    pub(super) audit: &'w AuditTable,
    pub(super) archive: &'w Archive,
    pub(super) dry_run: bool,
}

impl Work<'_> {
    /// Deletes the rows of some segments, or of all, and says so.
    pub(super) fn delete(
        &self,
        wanted: Option<&[String]>,
        exclusive: &mut Option<Exclusive>,
        part: &mut Part,
    ) -> anyhow::Result<()> {
        let table = self.audit.table.to_string();
        if let Some(other) = self.other_place() {
            let why = format!("it is archived to {other} as well, and one place is looked at here");
            let report = deletion::Report { refused: Some(why), ..deletion::Report::default() };
            part.deleted(&table, &report, wanted.is_some(), self.dry_run);
            return Ok(());
        }
        let task = Task {
            target: self.target,
            audit: self.audit,
            folder: &self.archive.folder,
            signers: &self.archive.signers,
            now: self.context.now,
            is_locked: match &self.audit.location {
                Location::S3(s3) => s3.object_lock.is_some(),
                Location::Directory(_) => false,
            },
            batch_rows: BATCH_ROWS,
            dry_run: self.dry_run,
            stop: &self.context.stop,
            abort: &self.context.abort,
        };
        let mut check = || exclusive.as_mut().map_or(Ok(()), Exclusive::check);
        let report = deletion::run(&task, wanted, &mut check);
        let report = report.with_context(|| format!("failed to delete rows of {table}"))?;
        if let Some(warning) = &report.warning {
            tracing::warn!("{table}: {warning}");
        }
        part.deleted(&table, &report, wanted.is_some(), self.dry_run);
        Ok(())
    }

    /// Returns another place to which the same table is archived: what is missing there would be missing for ever.
    fn other_place(&self) -> Option<String> {
        let (table, database) = (&self.audit.table, &self.audit.database);
        let is_other = |other: &&AuditTable| {
            let schemas = [&other.table.schema, &table.schema];
            let is_same_schema = schemas[0] == schemas[1] || schemas.contains(&&None);
            !std::ptr::eq(*other, self.audit)
                && other.table.name == table.name
                && is_same_schema
                && (other.database == *database || other.database.is_none())
        };
        let other = self.config.audits.iter().find(is_other)?;
        Some(match &other.location {
            Location::Directory(path) => format!("`{}`", path.display()),
            Location::S3(s3) => format!("`{}`", s3.bucket),
        })
    }
}

/// Deletes the rows of the segments that are named.
pub(super) fn by_hand(
    context: &Context,
    config: &Config,
    database: &Database,
    audit: &AuditTable,
    (args, dry_run): (&ArchiveDeleteArgs, bool),
) -> anyhow::Result<Part> {
    let (target, name) = open::database(context, database)?;
    let archive = Archive::open(context, audit)?;
    let contents = archive.folder.contents()?;
    let segments = named(&contents, audit, &args.segments)?;
    let windows: Vec<Window> = segments.iter().map(|(_, manifest)| manifest.window).collect();
    if !dry_run {
        for (segment, window) in args.segments.iter().zip(&windows) {
            confirm(audit, segment, *window, &args.yes)?;
        }
    }
    let mut exclusive = if dry_run {
        None
    } else {
        let server = Some((&target, "archive-audit"));
        Some(Exclusive::acquire(context, config, ("archive-audit", &name), server)?)
    };
    let mut part = Part::new(&name);
    // What came late has a segment of its own before anything goes.
    let late: Outcome =
        archive_table(context, &target, audit, &archive, (Some(&windows), dry_run))?;
    let is_well = late.findings.is_empty();
    if !is_well || !late.segments.is_empty() {
        part.archived(&audit.table.to_string(), &late, dry_run);
    }
    if is_well {
        let work = Work { context, config, target: &target, audit, archive: &archive, dry_run };
        work.delete(Some(&args.segments), &mut exclusive, &mut part)?;
    }
    Ok(part)
}

/// Has the name of a segment typed, unless the command line has it twice.
fn confirm(
    audit: &AuditTable,
    segment: &str,
    window: Window,
    yes: &[String],
) -> anyhow::Result<()> {
    if yes.iter().any(|name| name == segment) {
        return Ok(());
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let failure = Failure::new(Exit::Usage, format!("nobody confirms `{segment}`"));
        let hint = format!("Without a terminal nobody can be asked: --yes {segment}");
        return Err(failure.hint(hint).into());
    }
    let kept = audit.retention.map(|rule| retention::kept(rule, window)).map_or_else(
        || "nothing says how long the archive must be kept".to_owned(),
        |kept| {
            format!("its archive must be kept until {} ({})", kept.until.date_naive(), kept.source)
        },
    );
    let mut stderr = std::io::stderr();
    write!(
        stderr,
        "Rows of {} from {} to {} are deleted from the table; {kept}.\nType the name of the segment to go on: ",
        audit.table, window.from, window.to
    )?;
    stderr.flush()?;
    let mut typed = String::new();
    stdin.lock().read_line(&mut typed)?;
    if typed.trim() == segment {
        return Ok(());
    }
    let message = format!("`{}` is not the name of the segment: nothing was changed", typed.trim());
    Err(Failure::new(Exit::Failed, message).into())
}
