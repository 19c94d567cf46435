//! `archive-audit export`: archived rows of a time, as NDJSON or CSV. What was read is verified before anything of it is shown.

use std::io::{BufWriter, Seek as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::Archive;
use super::report::Part;
use crate::archive::export::{Export, Form, Wanted};
use crate::archive::verify;
use crate::cli::archive_audit::{ArchiveExportArgs, ExportFormat};
use crate::commands::Context;
use crate::config::AuditTable;
use crate::exit::{Exit, Failure};

pub(super) fn export(
    context: &Context,
    database: &str,
    audit: &AuditTable,
    args: &ArchiveExportArgs,
) -> anyhow::Result<Part> {
    let Some(path) = &args.out else { return to_stdout(context, database, audit, args) };
    // Beside its place.
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let file = tempfile::NamedTempFile::new_in(dir);
    let file = file.with_context(|| format!("failed to make a file in `{}`", dir.display()))?;
    let (rows, segments) = write(context, audit, &wanted(args), file.as_file())?;
    file.as_file().sync_all().context("failed to sync the file")?;
    file.persist(path).with_context(|| format!("failed to write `{}`", path.display()))?;
    let hidden = if args.redact.is_empty() {
        String::new()
    } else {
        format!(", without {}", args.redact.join(", "))
    };
    let text = format!(
        "{database} {}: {rows} rows of {segments} segments are in {}{hidden}\n",
        audit.table,
        path.display()
    );
    let json = json!({ "table": audit.table.to_string(), "rows": rows, "segments": segments, "redacted": args.redact });
    Ok(Part::answer(database, text, json))
}

fn wanted(args: &ArchiveExportArgs) -> Wanted {
    let form = match args.format {
        ExportFormat::Ndjson => Form::Ndjson,
        ExportFormat::Csv => Form::Csv,
    };
    Wanted { from: args.from, to: args.to, redact: args.redact.clone(), form }
}

/// Nothing is shown before all is verified, and it may be larger than the memory: until then it is in a file without a name, of which
/// nothing is left when this is killed.
fn to_stdout(
    context: &Context,
    database: &str,
    audit: &AuditTable,
    args: &ArchiveExportArgs,
) -> anyhow::Result<Part> {
    if context.global.json {
        let failure = Failure::new(Exit::Usage, "rows and a report do not go to one place");
        return Err(failure.hint("With --json, --out says where the rows go.").into());
    }
    let mut file = tempfile::tempfile().context("failed to make a temporary file")?;
    write(context, audit, &wanted(args), &file)?;
    file.rewind().context("failed to read the temporary file")?;
    let mut stdout = std::io::stdout().lock();
    std::io::copy(&mut file, &mut stdout).context("failed to write to standard output")?;
    stdout.flush().context("failed to write to standard output")?;
    Ok(Part::answer(database, String::new(), Value::Null))
}

/// Writes the rows; returns how many there are, and of how many segments.
fn write(
    context: &Context,
    audit: &AuditTable,
    wanted: &Wanted,
    to: &std::fs::File,
) -> anyhow::Result<(u64, usize)> {
    let Archive { folder, signers, .. } = Archive::open(context, audit)?;
    let contents = folder.contents()?;
    let refuse = |segment: &str, what: String| {
        let message = format!("segment {segment} of {} is not exported: {what}", audit.table);
        let failure = Failure::new(Exit::BadNews, message);
        failure.hint("`opsctl archive-audit verify` says all that is wrong.")
    };
    if let Some(finding) = verify::manifests(&contents, &signers).into_iter().next() {
        return Err(refuse(&finding.segment, finding.what).into());
    }
    let mut segments = Vec::new();
    for segment in &contents.segments {
        let Ok(manifest) = &segment.manifest else { continue };
        if wanted.from.is_none_or(|from| manifest.window.to > from)
            && wanted.to.is_none_or(|to| manifest.window.from < to)
        {
            segments.push((segment, manifest));
        }
    }
    // A column whose name is not written right must not be shown.
    for name in &wanted.redact {
        let has =
            segments.iter().any(|(_, manifest)| manifest.columns.iter().any(|c| c.name == *name));
        if !has {
            let message = format!("no segment of {} has a column `{name}`", audit.table);
            return Err(Failure::new(Exit::Usage, message).into());
        }
    }
    segments.sort_by_key(|(_, manifest)| (manifest.window, manifest.number));
    let mut export = Export::new(wanted, BufWriter::with_capacity(1 << 20, to));
    for (segment, manifest) in &segments {
        context.stop.check()?;
        context.progress.set_message(format!("{} {}", audit.table, segment.name));
        if let Some(finding) = export.add(&folder, &segment.name, manifest, &context.stop)? {
            return Err(refuse(&segment.name, finding.what).into());
        }
    }
    Ok((export.end()?, segments.len()))
}
