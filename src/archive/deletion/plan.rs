//! Which segments may have their rows deleted, and why the others may not. Only this module makes a [`Deletable`], and not without
//! having read the segment back.

use anyhow::Context as _;

use crate::archive::deletion::Task;
use crate::archive::deletion::condition::{Known, Lock, Stay, why_not};
use crate::archive::deletion::proven::Proven;
use crate::archive::folder::Segment;
use crate::archive::hold::Holds;
use crate::archive::manifest::{MANIFEST, Manifest};
use crate::archive::retention::{self, Kept};
use crate::archive::signature::SUFFIX;
use crate::archive::source::Facts;
use crate::archive::verify::Finding;

/// A segment whose rows may be deleted: it was read back in this run, and no condition is against it.
pub(crate) struct Deletable<'s> {
    pub(super) segment: &'s Segment,
    pub(super) manifest: &'s Manifest,
    pub(super) proven: Proven,
}

/// What is to become of a segment.
pub(crate) enum Planned<'s> {
    Delete(Deletable<'s>),
    Stay(Stay),
    /// It is not what it was.
    Damaged(Vec<Finding>),
}

/// Returns until when the archive of a segment must be kept, if anything says so.
pub(crate) fn kept(task: &Task<'_>, manifest: &Manifest) -> Option<Kept> {
    task.audit.retention.map(|retention| retention::kept(retention, manifest.window))
}

/// Asks whether the rows of a segment may go; what is cheap first, and reading it back at last.
pub(crate) fn plan<'s>(
    task: &Task<'_>,
    facts: &Facts,
    segment: &'s Segment,
    holds: &Holds,
) -> anyhow::Result<Planned<'s>> {
    let Ok(manifest) = &segment.manifest else {
        anyhow::bail!("the manifest of `{}` cannot be read", segment.name);
    };
    if let Some(why) = why_not_these(facts, manifest) {
        return Ok(Planned::Stay(Stay::Refused { why }));
    }
    let kept = kept(task, manifest);
    let head = |name: &str| -> anyhow::Result<_> {
        let key = task.folder.key(&format!("{}/{name}", segment.name))?;
        Ok(task.folder.storage.head(&key)?)
    };
    let written_at = head(MANIFEST)?.modified_at.max(manifest.taken_at);
    let mut locked_until = None;
    if task.is_locked && kept.is_some() {
        let files = manifest.files.iter().map(|file| file.name.clone());
        let mut until = Vec::new();
        for name in files.chain([MANIFEST.to_owned(), format!("{MANIFEST}{SUFFIX}")]) {
            until.push(head(&name)?.locked_until);
        }
        let earliest = until.into_iter().collect::<Option<Vec<_>>>();
        let earliest = earliest.and_then(|until| until.into_iter().min());
        locked_until = Some(earliest.map_or(Lock::Missing, Lock::Until));
    }
    let known = Known {
        now: task.now,
        written_at,
        min_age: task.audit.delete_min_age,
        hold: holds.over(manifest.window),
        kept: kept.as_ref(),
        locked_until,
    };
    if let Some(stay) = why_not(&known) {
        return Ok(Planned::Stay(stay));
    }
    let proven = Proven::read(task, &segment.name, manifest);
    let proven = proven.with_context(|| format!("failed to read `{}` back", segment.name))?;
    Ok(match proven {
        Ok(proven) => Planned::Delete(Deletable { segment, manifest, proven }),
        Err(findings) => Planned::Damaged(findings),
    })
}

/// Returns why a segment is not of this table as it is now. Columns that were added since are looked at row by row.
fn why_not_these(facts: &Facts, manifest: &Manifest) -> Option<String> {
    if manifest.database != facts.database || manifest.table != facts.table {
        return Some(format!("it is of {} of {}", manifest.table, manifest.database));
    }
    if manifest.key != facts.key {
        return Some(format!("its key was {} when it was archived", manifest.key.join(", ")));
    }
    let lost = manifest.columns.iter().find(|column| !facts.columns.contains(column));
    lost.map(|column| {
        format!("the table has no column `{}` of type {} any more", column.name, column.type_name)
    })
}
