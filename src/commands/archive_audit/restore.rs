//! `archive-audit restore`: segments go back into a table.

use serde_json::json;

use super::open_archive;
use super::report::Part;
use crate::archive::folder::Segment;
use crate::archive::manifest::Manifest;
use crate::archive::{restore, verify};
use crate::cli::archive_audit::ArchiveRestoreArgs;
use crate::commands::{Context, open};
use crate::config::{self, AuditTable};
use crate::exit::{Exit, Failure};

pub(super) fn restore(
    context: &Context,
    database: &config::Database,
    audits: &[&AuditTable],
    args: &ArchiveRestoreArgs,
) -> anyhow::Result<Part> {
    let (mut target, name) = open::database(context, database)?;
    let [audit] = audits else {
        let failure = Failure::new(Exit::Usage, format!("several tables of {name} are archived"));
        return Err(failure.hint("Name one with --only.").into());
    };
    if let Some(other) = &args.to_database {
        target = target.with_database(other);
    }
    let (folder, _, signers) = open_archive(context, audit)?;
    let contents = folder.contents()?;
    let damaged = |segment: &str, what: &str| {
        let message = format!("segment {segment} of {} is not restored: {what}", audit.table);
        let failure = Failure::new(Exit::BadNews, message);
        failure.hint("`opsctl archive-audit verify` says all that is wrong.")
    };
    // A segment that somebody else signed is none.
    if let Some(finding) = verify::manifests(&contents, &signers).first() {
        return Err(damaged(&finding.segment, &finding.what).into());
    }
    let mut segments: Vec<(&str, &Manifest)> = Vec::new();
    for wanted in &args.segment {
        let is_it = |segment: &&Segment| segment.name == *wanted;
        let Some(segment) = contents.segments.iter().find(is_it) else {
            let message = format!("there is no segment {wanted} of {}", audit.table);
            let failure = Failure::new(Exit::Usage, message);
            return Err(failure.hint("`opsctl archive-audit list` has their names.").into());
        };
        if let Ok(manifest) = &segment.manifest {
            segments.push((&segment.name, manifest));
        }
    }
    context.progress.set_message(format!("{} {}", audit.table, args.segment.join(" ")));
    let rows = match restore::restore(&target, &folder, &segments, &args.to, &context.stop)? {
        Ok(rows) => rows,
        Err(finding) => return Err(damaged(&finding.segment, &finding.what).into()),
    };
    let (to, into) = (&args.to, target.database_name());
    let text = format!(
        "{name} {}: {rows} rows are in {to} of {into}, as they were archived\n",
        audit.table
    );
    let json = json!({ "table": audit.table.to_string(), "segments": args.segment, "to": to.to_string(), "database": into, "rows": rows });
    Ok(Part::answer(&name, text, json))
}
