//! `archive-audit thaw`: asks S3 for segments that are in Glacier, and waits for them if that is wanted.

use std::time::Duration;

use serde_json::json;

use super::report::Part;
use super::{Archive, named};
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
    audit: &AuditTable,
    (args, dry_run): (&ArchiveThawArgs, bool),
) -> anyhow::Result<Part> {
    let folder = Archive::open(context, audit)?.folder;
    let contents = folder.contents()?;
    let segments = named(&contents, audit, &args.segment)?;
    let thawed = ready(context, &folder, &segments, (args.thaw, dry_run))?;
    let patience = if thawed.readable < thawed.all() { PATIENCE } else { "" };
    let text = format!("{database} {}: {}. {patience}", audit.table, how_far(thawed));
    let Thawed { readable, thawing, frozen } = thawed;
    let json = json!({
        "table": audit.table.to_string(), "segments": args.segment,
        "readable": readable, "thawing": thawing, "frozen": frozen,
    });
    Ok(Part::answer(database, text.trim_end().to_owned() + "\n", json))
}

/// Says how many objects can be read.
pub(super) fn how_far(thawed: Thawed) -> String {
    let Thawed { readable, thawing, frozen } = thawed;
    let mut text = format!("{readable} of {} objects can be read", thawed.all());
    if thawing > 0 {
        text.push_str(&format!(", {thawing} are being thawed"));
    }
    if frozen > 0 {
        text.push_str(&format!(", {frozen} have to be asked for"));
    }
    text
}

/// Asks for what is frozen, and waits for it with `--wait`. A dry run only looks.
pub(super) fn ready(
    context: &Context,
    folder: &Folder,
    segments: &[(&str, &Manifest)],
    (options, dry_run): (ThawOptions, bool),
) -> anyhow::Result<Thawed> {
    let tier = match options.thaw_tier {
        ThawTier::Standard => "Standard",
        ThawTier::Bulk => "Bulk",
        ThawTier::Expedited => "Expedited",
    };
    let wish = (!dry_run).then_some(Wish { days: options.thaw_days, tier });
    loop {
        let thawed = ask(folder, segments, wish)?;
        if thawed.readable == thawed.all() || dry_run || !options.wait {
            return Ok(thawed);
        }
        let waiting = thawed.all() - thawed.readable;
        context.progress.set_message(format!("{waiting} objects are being thawed"));
        context.stop.sleep(PAUSE)?;
    }
}
