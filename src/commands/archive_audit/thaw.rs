//! `archive-audit thaw`: asks S3 for segments that are in Glacier, and waits for them if that is wanted.

use std::time::Duration;

use serde_json::json;

use super::report::Part;
use super::{Archive, named, only};
use crate::archive::folder::Folder;
use crate::archive::manifest::Manifest;
use crate::archive::thaw::{Thawed, Wish, thaw as ask};
use crate::cli::archive_audit::{ArchiveThawArgs, ThawOptions, ThawTier};
use crate::commands::Context;
use crate::config::AuditTable;

/// It takes hours, and each look costs a request for each object.
const PAUSE: Duration = Duration::from_secs(60);
/// How long it takes, by S3's documentation of `RestoreObject`.
pub(super) const PATIENCE: &str =
    "Standard takes 3 to 5 hours (DEEP_ARCHIVE: 12), bulk 5 to 12 (48), expedited minutes.";

pub(super) fn thaw(
    context: &Context,
    database: &str,
    audits: &[&AuditTable],
    args: &ArchiveThawArgs,
) -> anyhow::Result<Part> {
    let audit = only(database, audits)?;
    let folder = Archive::open(context, audit)?.folder;
    let contents = folder.contents()?;
    let segments = named(&contents, audit, &args.segment)?;
    let Thawed { readable, thawing } = ready(context, &folder, &segments, args.thaw)?;
    let mut text = format!("{database} {}: {readable} objects can be read", audit.table);
    if thawing > 0 {
        text.push_str(&format!(", {thawing} are being thawed. {PATIENCE}"));
    }
    text.push('\n');
    let json = json!({ "table": audit.table.to_string(), "segments": args.segment, "readable": readable, "thawing": thawing });
    Ok(Part::answer(database, text, json))
}

/// Asks for what is frozen, and waits for it with `--wait`.
pub(super) fn ready(
    context: &Context,
    folder: &Folder,
    segments: &[(&str, &Manifest)],
    options: ThawOptions,
) -> anyhow::Result<Thawed> {
    let tier = match options.thaw_tier {
        ThawTier::Standard => "Standard",
        ThawTier::Bulk => "Bulk",
        ThawTier::Expedited => "Expedited",
    };
    loop {
        let thawed = ask(folder, segments, Wish { days: options.thaw_days, tier })?;
        if thawed.thawing == 0 || !options.wait {
            return Ok(thawed);
        }
        context.progress.set_message(format!("{} objects are being thawed", thawed.thawing));
        context.stop.sleep(PAUSE)?;
    }
}
