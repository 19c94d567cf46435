//! Are the rows that are still in the table what they were when they were archived? The evidence was verified before; here it is believed.

use std::collections::{BTreeMap, HashMap};

use anyhow::Context as _;
use twox_hash::XxHash3_128;

use crate::archive::deletion;
use crate::archive::evidence;
use crate::archive::folder::{Contents, Folder};
use crate::archive::line::{Shape, fingerprint};
use crate::archive::manifest::Manifest;
use crate::archive::row::Row;
use crate::archive::source::{Source, positions};
use crate::archive::verify::{Finding, Kind};
use crate::archive::window::Window;
use crate::stop::Stop;

/// So many rows that differ are named.
const NAMED: usize = 20;

/// What became of archived rows in the table.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// They are as they were.
    pub(crate) same: u64,
    pub(crate) changed: u64,
    /// They were deleted, or have another key or time by now.
    pub(crate) gone: u64,
    /// They are in a window that is archived, and came since.
    pub(crate) new: u64,
    /// Names some that changed.
    pub(crate) findings: Vec<Finding>,
}

/// Compares window by window; of the largest one a few dozen bytes a row are kept in memory.
pub(crate) fn compare(
    source: &mut Source,
    folder: &Folder,
    contents: &Contents,
    stop: &Stop,
) -> anyhow::Result<Compared> {
    let mut windows: BTreeMap<Window, Vec<(&str, &Manifest)>> = BTreeMap::new();
    for segment in &contents.segments {
        if let Ok(manifest) = &segment.manifest {
            windows.entry(manifest.window).or_default().push((&segment.name, manifest));
        }
    }
    let mut compared = Compared::default();
    for (window, segments) in windows {
        stop.check()?;
        if source.has_rows(window)? {
            of_window(source, folder, window, &segments, stop, &mut compared)?;
        } else {
            compared.gone += segments.iter().map(|(_, manifest)| manifest.rows).sum::<u64>();
        }
    }
    for name in deletion::out_of_table(source)? {
        let what = "it is, or may be, out of its table: a run that was to drop it was killed. `opsctl archive-audit` takes it back";
        compared.findings.push(Finding::new(&name, Kind::Changed, what));
    }
    Ok(compared)
}

fn of_window(
    source: &mut Source,
    folder: &Folder,
    window: Window,
    segments: &[(&str, &Manifest)],
    stop: &Stop,
    compared: &mut Compared,
) -> anyhow::Result<()> {
    let columns = source.facts.columns.clone();
    // By their keys: which segment has them, and a fingerprint of the line.
    let mut archived: HashMap<u128, (&str, u128)> = HashMap::new();
    let mut row = Row::default();
    for (name, manifest) in segments {
        if manifest.columns != columns || manifest.key != source.facts.key {
            let what =
                "the table has other columns or another key by now: its rows were not compared";
            compared.findings.push(Finding::new(name, Kind::Changed, what));
            return Ok(());
        }
        let shape = Shape::of(&manifest.columns);
        let key = positions(&manifest.columns, &manifest.key);
        let reading = evidence::read(folder, name, &manifest.files, stop, |line| {
            shape.read(line, &mut row).context("a line is no row")?;
            let key = fingerprint(key.iter().map(|n| row.get(*n)));
            archived.insert(key, (*name, XxHash3_128::oneshot(line)));
            Ok(())
        })?;
        reading.whole(name)?;
    }
    let (shape, key, mut line) = (Shape::of(&columns), source.facts.key_positions(), Vec::new());
    source.rows(window, |row| {
        let Some((segment, was)) = archived.remove(&fingerprint(key.iter().map(|n| row.get(*n))))
        else {
            compared.new += 1;
            return Ok(());
        };
        line.clear();
        shape.write(row, &mut line)?;
        if XxHash3_128::oneshot(&line) == was {
            compared.same += 1;
            return Ok(());
        }
        compared.changed += 1;
        if compared.findings.len() < NAMED {
            let value = |n: &usize| row.get(*n).map_or("NULL".into(), String::from_utf8_lossy);
            let key: Vec<_> = key.iter().map(value).collect();
            let what = format!("the row {} in the table is not as it was archived", key.join(", "));
            compared.findings.push(Finding::new(segment, Kind::Changed, what));
        }
        Ok(())
    })?;
    compared.gone += archived.len() as u64;
    Ok(())
}
