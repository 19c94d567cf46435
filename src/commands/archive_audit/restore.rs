//! `archive-audit restore`: segments go back into a table.

use serde_json::json;

use super::report::Part;
use super::{Archive, named, thaw};
use crate::archive::{restore, verify};
use crate::cli::archive_audit::ArchiveRestoreArgs;
use crate::commands::{Context, open};
use crate::config::{self, AuditTable};
use crate::exit::{Exit, Failure};

pub(super) fn restore(
    context: &Context,
    database: &config::Database,
    audit: &AuditTable,
    (args, dry_run): (&ArchiveRestoreArgs, bool),
) -> anyhow::Result<Part> {
    let (mut target, name) = open::database(context, database)?;
    if let Some(other) = &args.to_database {
        target = target.with_database(other);
    }
    let Archive { folder, signers, .. } = Archive::open(context, audit)?;
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
    let segments = named(&contents, audit, &args.segment)?;
    let thawed = thaw::ready(context, &folder, &segments, (args.thaw, dry_run))?;
    if thawed.readable < thawed.all() {
        let message = format!("{}: {}", args.segment.join(", "), thaw::how_far(thawed));
        let hint =
            format!("Run this again when they can be read, or with --wait. {}", thaw::PATIENCE);
        return Err(Failure::new(Exit::Storage, message).hint(hint).into());
    }
    context.progress.set_message(format!("{} {}", audit.table, args.segment.join(" ")));
    let rows =
        match restore::restore(&target, &folder, &segments, (&args.to, dry_run), &context.stop)? {
            Ok(rows) => rows,
            Err(finding) => return Err(damaged(&finding.segment, &finding.what).into()),
        };
    let (to, into) = (&args.to, target.database_name());
    let are = if dry_run { "would be" } else { "are" };
    let text = format!(
        "{name} {}: {rows} rows {are} in {to} of {into}, as they were archived\n",
        audit.table
    );
    let json = json!({ "table": audit.table.to_string(), "segments": args.segment, "to": to.to_string(), "database": into, "rows": rows });
    Ok(Part::answer(&name, text, json))
}
