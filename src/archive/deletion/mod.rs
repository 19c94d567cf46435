//! Rows of a table go whose segment was read back in this run, and which are as they were archived.
//!
//! `condition` says when a segment is not to be touched, `guard` what stands before a table, `proven` reads a segment back and cuts
//! its lines into batches. `plan` asks all of them: only it makes a [`plan::Deletable`], and `apply` takes nothing else. A row that
//! is not as it was archived stays, and so does one that was never archived. No trigger is disabled here.
//!
//! Where the configuration wants it, rows go with their partitions only: `partition` takes one out, back in, and away, `whole` decides.

use std::collections::BTreeMap;

use anyhow::Context as _;
use postgres::GenericClient;

use crate::archive::deletion::apply::Outcome;
use crate::archive::deletion::condition::Stay;
use crate::archive::deletion::guard::Guard;
use crate::archive::deletion::partition::Partition;
use crate::archive::deletion::plan::Planned;
use crate::archive::deletion::whole::{Plan, Seen, Whole};
use crate::archive::folder::{Contents, Folder};
use crate::archive::hold::Holds;
use crate::archive::retention::Kept;
use crate::archive::row::Column;
use crate::archive::signature::Signers;
use crate::archive::source::Source;
use crate::archive::verify::{self, Finding};
use crate::archive::window::Window;
use crate::clock::Moment;
use crate::config::AuditTable;
use crate::db::{Error, Target};
use crate::stop::Stop;

pub(crate) mod apply;
pub(crate) mod condition;
mod guard;
mod partition;
mod plan;
mod proven;
#[cfg(test)]
mod tests;
pub(crate) mod whole;

/// So many rows go in one transaction, or fewer if they are large.
pub(crate) const BATCH_ROWS: usize = 500;

/// What to delete from, and by what.
pub(crate) struct Task<'t> {
    pub(crate) target: &'t Target,
    pub(crate) audit: &'t AuditTable,
    pub(crate) folder: &'t Folder,
    pub(crate) signers: &'t Signers,
    pub(crate) now: Moment,
    /// Was the storage told to lock what is stored?
    pub(crate) is_locked: bool,
    pub(crate) batch_rows: usize,
    /// Only compare.
    pub(crate) dry_run: bool,
    pub(crate) stop: &'t Stop,
    /// Says when to stop cleaning up, too.
    pub(crate) abort: &'t Stop,
}

/// What became of a table.
#[derive(Default)]
pub(crate) struct Report {
    /// What is odd about the table's triggers.
    pub(crate) warning: Option<String>,
    /// Why no row of it may be deleted.
    pub(crate) refused: Option<String>,
    /// What is wrong with the archive as a whole: then nothing is deleted.
    pub(crate) findings: Vec<Finding>,
    pub(crate) segments: Vec<Segment>,
    /// Where rows go with their partitions.
    pub(crate) partitions: Vec<Whole>,
}

/// What became of the rows of a segment.
pub(crate) struct Segment {
    pub(crate) name: String,
    pub(crate) window: Window,
    pub(crate) kept: Option<Kept>,
    pub(crate) became: Became,
}

pub(crate) enum Became {
    Deleted(Outcome),
    Stayed(Stay),
    /// The segment is not what it was.
    Damaged(Vec<Finding>),
}

/// Deletes the rows of some segments, or of all that have rows in the table.
///
/// `check` returns an error if another host may be at work.
pub(crate) fn run(
    task: &Task<'_>,
    wanted: Option<&[String]>,
    check: &mut dyn FnMut() -> Result<(), Error>,
) -> anyhow::Result<Report> {
    let contents = task.folder.contents()?;
    let findings = verify::manifests(&contents, task.signers);
    if !findings.is_empty() {
        return Ok(Report { findings, ..Report::default() });
    }
    let mut source = Source::open_to_write(task.target, task.audit, task.stop)?;
    if task.audit.drop_partitions {
        return partitions(task, &mut source, &contents, wanted, check);
    }
    let guard = Guard::read(&mut source)?;
    let (warning, refused) = (guard.warning(), guard.why_not());
    let mut report = Report { warning, refused, ..Report::default() };
    if report.refused.is_some() {
        return Ok(report);
    }
    let holds = Holds::read(task.folder, task.signers)?;
    let mut there: BTreeMap<Window, bool> = BTreeMap::new();
    for segment in &contents.segments {
        task.stop.check()?;
        let Ok(manifest) = &segment.manifest else { continue };
        let is_wanted = match wanted {
            Some(names) => names.contains(&segment.name),
            None => manifest.rows > 0 && is_there(&mut source, &mut there, manifest.window)?,
        };
        if !is_wanted {
            continue;
        }
        let facts = source.facts.clone();
        let became = match plan::plan(task, &facts, segment, &holds)? {
            Planned::Stay(stay) => Became::Stayed(stay),
            Planned::Damaged(findings) => Became::Damaged(findings),
            Planned::Delete(deletable) => {
                let outcome = apply::apply(task, &mut source, &deletable, check);
                Became::Deleted(outcome.with_context(|| format!("segment `{}`", segment.name))?)
            }
        };
        report.segments.push(Segment {
            name: segment.name.clone(),
            window: manifest.window,
            kept: plan::kept(task, manifest),
            became,
        });
    }
    Ok(report)
}

/// Drops partitions whose rows are all archived; all whose time is archived, or those that some segments have whole.
fn partitions(
    task: &Task<'_>,
    source: &mut Source,
    contents: &Contents,
    wanted: Option<&[String]>,
    check: &mut dyn FnMut() -> Result<(), Error>,
) -> anyhow::Result<Report> {
    let mut report = Report { refused: partition::why_not(source)?, ..Report::default() };
    if report.refused.is_some() {
        return Ok(report);
    }
    let holds = Holds::read(task.folder, task.signers)?;
    let (mut plan, mut seen) = (Plan::new(task, &holds, contents), Seen::default());
    for partition in Partition::list(source)? {
        task.stop.check()?;
        match plan.carry_out(source, &partition, wanted, &mut seen, check) {
            Ok(whole) => report.partitions.extend(whole),
            Err(error) => {
                // What went before is to be known all the same.
                let became = whole::Became::Failed(error);
                report.partitions.push(Whole { name: partition.name.clone(), became });
                break;
            }
        }
    }
    if wanted.is_some() && report.partitions.is_empty() {
        let why = "rows go with whole partitions (`partitions`), and none has all of its time in these segments";
        report.refused = Some(why.to_owned());
    }
    Ok(report)
}

/// Makes partitions part of a table again that a run which was killed had taken out; returns the names.
pub(crate) fn take_back(
    target: &Target,
    audit: &AuditTable,
    stop: &Stop,
) -> anyhow::Result<Vec<String>> {
    let mut source = Source::open_to_write(target, audit, stop)?;
    if partition::out(&mut source)?.is_empty() {
        return Ok(Vec::new());
    }
    Ok(partition::take_back(&mut source)?)
}

/// Names the partitions that a run which was killed may have left out of a table.
pub(crate) fn out_of_table(source: &mut Source) -> Result<Vec<String>, Error> {
    partition::out(source)
}

/// Returns the columns of a table, as the catalogue has them now.
fn columns(client: &mut impl GenericClient, oid: u32) -> Result<Vec<Column>, postgres::Error> {
    let sql = "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute \
               WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    let rows = client.query(sql, &[&oid])?;
    Ok(rows.iter().map(|row| Column { name: row.get(0), type_name: row.get(1) }).collect())
}

/// Has the table any row of a window? Each is looked for once.
fn is_there(
    source: &mut Source,
    known: &mut BTreeMap<Window, bool>,
    window: Window,
) -> anyhow::Result<bool> {
    if let Some(is_there) = known.get(&window) {
        return Ok(*is_there);
    }
    let is_there = source.has_rows(window)?;
    known.insert(window, is_there);
    Ok(is_there)
}
