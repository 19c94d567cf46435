//! Partitions go as a whole, with all their rows: out of the table, compared with the archive under a lock, dropped.
//!
//! Only a partition goes every row of which has its line in segments that were read back in this run, and that nothing is said against.
//! It is compared twice: before it is taken out, so that queries do not miss what is to stay, and when nobody can change it any more.
//! What can be in the way is looked for before. Killed anywhere, it is there, with a comment that says so, and the next run takes it back.

use std::collections::BTreeMap;

use anyhow::Context as _;
use postgres::{IsolationLevel, Transaction};
use sha2::{Digest as _, Sha256};

use crate::archive::deletion::Task;
use crate::archive::deletion::condition::Stay;
use crate::archive::deletion::partition::{self, Partition};
use crate::archive::deletion::plan::{self, Deletable, Planned};
use crate::archive::folder::{Contents, Segment};
use crate::archive::hold::Holds;
use crate::archive::line::Shape;
use crate::archive::row::Row;
use crate::archive::source::{Facts, Source, copy, positions, quote, within};
use crate::archive::verify::{Finding, Kind};
use crate::archive::window::Window;
use crate::db::Error;

/// So many rows that differ are named.
const NAMED: usize = 20;

/// What became of a partition.
pub(crate) struct Whole {
    /// `schema.table`
    pub(crate) name: String,
    pub(crate) became: Became,
}

pub(crate) enum Became {
    /// Gone with so many rows; in a dry run it would be.
    Dropped(u64),
    Stayed(Stay),
    /// It is there, because not all is as it was archived.
    Differs(Vec<Finding>),
    /// Nothing more was done. Where it is, the error says, or `taken_back` of the next run.
    Failed(anyhow::Error),
}

/// A partition that may go: all segments of its time are [`Deletable`]. Only [`Plan::of`] makes one.
struct Droppable<'p, 's> {
    partition: &'p Partition,
    segments: BTreeMap<Window, Vec<&'p Deletable<'s>>>,
}

/// What is known of segments, each read back once.
pub(super) struct Plan<'t, 's> {
    task: &'t Task<'t>,
    holds: &'t Holds,
    contents: &'s Contents,
    planned: BTreeMap<&'s str, Planned<'s>>,
}

impl<'t, 's> Plan<'t, 's> {
    pub(super) fn new(task: &'t Task<'t>, holds: &'t Holds, contents: &'s Contents) -> Self {
        Plan { task, holds, contents, planned: BTreeMap::new() }
    }

    /// Asks whether a partition may go; `None` if it is not archived whole, or not asked for.
    fn of<'p>(
        &'p mut self,
        facts: &Facts,
        partition: &'p Partition,
        wanted: Option<&[String]>,
    ) -> anyhow::Result<Option<Result<Droppable<'p, 's>, Became>>> {
        let Some(window) = partition.window else { return Ok(None) };
        let mut segments: Vec<(&'s Segment, Window)> = Vec::new();
        for segment in &self.contents.segments {
            if let Ok(manifest) = &segment.manifest
                && manifest.window.from < window.to
                && window.from < manifest.window.to
            {
                segments.push((segment, manifest.window));
            }
        }
        let is_named = |segment: &Segment| wanted.is_none_or(|w| w.contains(&segment.name));
        if !covers(segments.iter().map(|(_, window)| *window), window)
            || !segments.iter().all(|(segment, _)| is_named(segment))
        {
            return Ok(None);
        }
        if let Some(why) = partition.odd {
            return Ok(Some(Err(Became::Stayed(Stay::Refused { why: why.to_owned() }))));
        }
        for (segment, _) in &segments {
            if !self.planned.contains_key(segment.name.as_str()) {
                let planned = plan::plan(self.task, facts, segment, self.holds)?;
                self.planned.insert(&segment.name, planned);
            }
        }
        let mut deletable: BTreeMap<Window, Vec<&Deletable<'s>>> = BTreeMap::new();
        for (segment, window) in segments {
            match self.planned.get(segment.name.as_str()) {
                Some(Planned::Delete(segment)) => {
                    deletable.entry(window).or_default().push(segment);
                }
                Some(Planned::Stay(stay)) => {
                    let why = format!("{}: {}", segment.name, stay.why());
                    let stay = match stay {
                        Stay::Wait { .. } => Stay::Wait { why },
                        Stay::Refused { .. } => Stay::Refused { why },
                    };
                    return Ok(Some(Err(Became::Stayed(stay))));
                }
                Some(Planned::Damaged(findings)) => {
                    return Ok(Some(Err(Became::Differs(findings.clone()))));
                }
                None => anyhow::bail!("`{}` was not looked at", segment.name),
            }
        }
        Ok(Some(Ok(Droppable { partition, segments: deletable })))
    }

    /// Lets a partition go, if it may; `None` if it is not its time.
    pub(super) fn carry_out(
        &mut self,
        source: &mut Source,
        partition: &Partition,
        wanted: Option<&[String]>,
        seen: &mut Seen,
        check: &mut dyn FnMut() -> Result<(), Error>,
    ) -> anyhow::Result<Option<Whole>> {
        let task = self.task;
        let facts = source.facts.clone();
        let became = match self.of(&facts, partition, wanted)? {
            None => return Ok(None),
            Some(Err(became)) => became,
            Some(Ok(droppable)) => droppable.apply(task, source, seen, check)?,
        };
        Ok(Some(Whole { name: partition.name.clone(), became }))
    }
}

/// Is all of a time covered by windows?
fn covers(windows: impl Iterator<Item = Window>, time: Window) -> bool {
    let mut windows: Vec<Window> = windows.collect();
    windows.sort_unstable();
    let mut until = time.from;
    for window in windows {
        if window.from > until {
            return false;
        }
        until = until.max(window.to);
    }
    until >= time.to
}

impl Droppable<'_, '_> {
    fn apply(
        &self,
        task: &Task<'_>,
        source: &mut Source,
        Seen { lines, busy }: &mut Seen,
        check: &mut dyn FnMut() -> Result<(), Error>,
    ) -> anyhow::Result<Became> {
        let partition = self.partition;
        let stop = source.stop.clone();
        let what = format!("compare {}", partition.name);
        let failed = |e| Error::query(&*what, e).or_stopped(&stop);
        let key = source.facts.key.clone();
        let mut snapshot = source
            .connection
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .map_err(failed)?;
        let found = self.compare(task, &mut snapshot, &key, lines)?;
        snapshot.rollback().map_err(failed)?;
        if let Found::Findings(findings) = found {
            return Ok(Became::Differs(findings));
        }
        let stays = |why: String| Ok(Became::Stayed(Stay::Refused { why }));
        if let Some(dependent) = partition.dependent(source)? {
            return stays(format!("{dependent} depends on it, and would have to go with it"));
        }
        if let (Found::Same(rows), true) = (&found, task.dry_run) {
            return Ok(Became::Dropped(*rows));
        }
        if let Some(held) = self.held(task)? {
            return Ok(Became::Stayed(held));
        }
        // In most cases it is the same for all partitions, and waited for once.
        if busy.is_none() {
            *busy = partition::wait_for_users(source, partition)?;
        }
        if let Some(pid) = busy {
            let why = format!("a transaction uses the table (process {pid}), and does not end");
            return Ok(Became::Stayed(Stay::Wait { why }));
        }
        let detached = partition.detach(source, check).map_err(Into::into);
        let dropped = detached.and_then(|()| self.drop(task, source, &key, lines, check));
        if matches!(dropped, Ok(Became::Dropped(_))) {
            return dropped;
        }
        // Whatever it is, the rows belong into the table; unless somebody else is at work by now.
        check()?;
        let back = super::take_back(task.target, task.audit, task.abort);
        match (dropped, back) {
            (dropped, Ok(_)) => dropped,
            (Err(error), Err(back)) => Err(error.context(format!("{}: {back:#}", self.is_out()))),
            (Ok(_), Err(back)) => Err(back.context(self.is_out())),
        }
    }

    fn is_out(&self) -> String {
        format!(
            "{} may be OUT of its table until the next run of archive-audit",
            self.partition.name
        )
    }

    /// Returns the hold that covers any of it by now.
    fn held(&self, task: &Task<'_>) -> anyhow::Result<Option<Stay>> {
        let holds = Holds::read(task.folder, task.signers)?;
        let hold = self.segments.keys().find_map(|window| holds.over(*window));
        Ok(hold.map(|hold| Stay::Wait {
            why: format!("the legal hold `{}` is in force ({})", hold.hold, hold.why),
        }))
    }

    /// Compares what is out of the table, and drops it, in one transaction.
    fn drop(
        &self,
        task: &Task<'_>,
        source: &mut Source,
        key: &[String],
        lines: &mut Lines,
        check: &mut dyn FnMut() -> Result<(), Error>,
    ) -> anyhow::Result<Became> {
        let stop = source.stop.clone();
        let what = format!("drop {}", self.partition.name);
        let failed = |e| Error::query(&*what, e).or_stopped(&stop);
        let mut transaction = source.connection.transaction().map_err(failed)?;
        let is_it = self.partition.lock(&mut transaction).map_err(failed)?;
        anyhow::ensure!(is_it, "{} is not what was detached", self.partition.name);
        let rows = match self.compare(task, &mut transaction, key, lines)? {
            Found::Same(rows) => rows,
            Found::Findings(findings) => return Ok(Became::Differs(findings)),
        };
        // All of it can have taken long.
        if let Some(held) = self.held(task)? {
            return Ok(Became::Stayed(held));
        }
        self.partition.drop(&mut transaction).map_err(failed)?;
        check()?;
        transaction.commit().map_err(failed)?;
        Ok(Became::Dropped(rows))
    }

    /// Looks for the line of each row in the archive, by the columns that it has now.
    fn compare(
        &self,
        task: &Task<'_>,
        transaction: &mut Transaction<'_>,
        key: &[String],
        lines: &mut Lines,
    ) -> anyhow::Result<Found> {
        let what = format!("read the rows of {}", self.partition.name);
        let failed = |e| Error::query(&*what, e).or_stopped(task.stop);
        transaction.batch_execute(&Source::set_settings("SET LOCAL")).map_err(failed)?;
        let mut there = self.partition.columns(transaction).map_err(failed)?;
        there.sort();
        let (mut rows, mut same, mut findings, mut line) = (0_u64, 0_u64, Vec::new(), Vec::new());
        for (window, segments) in &self.segments {
            task.stop.check()?;
            let Some(newest) = segments.last() else { continue };
            let (columns, name) = (&newest.manifest.columns, newest.segment.name.as_str());
            let mut archived = columns.clone();
            archived.sort();
            if archived != there || segments.iter().any(|s| s.manifest.columns != *columns) {
                let what = "the table has other columns by now: its partitions stay";
                return Ok(Found::Findings(vec![Finding::new(name, Kind::Changed, what)]));
            }
            let key = positions(columns, key);
            let list: Vec<String> = columns.iter().map(|c| quote(&c.name)).collect();
            let shape = Shape::of(columns);
            lines.load(task, *window, segments)?;
            let sql = format!(
                "COPY (SELECT {} FROM {} WHERE {}) TO STDOUT",
                list.join(", "),
                self.partition.quoted,
                within(&task.audit.time_column, *window)
            );
            let reader = transaction.copy_out(&sql).map_err(failed)?;
            copy(reader, &what, task.stop, &mut |row: &mut Row| {
                rows += 1;
                line.clear();
                shape.write(row, &mut line)?;
                let has_key = key.iter().all(|n| row.get(*n).is_some());
                if has_key && lines.has(&line) {
                    same += 1;
                } else if findings.len() < NAMED {
                    let value =
                        |n: &usize| row.get(*n).map_or("NULL".into(), String::from_utf8_lossy);
                    let key: Vec<_> = key.iter().map(value).collect();
                    let (key, partition) = (key.join(", "), &self.partition.name);
                    let what =
                        format!("the row {key} is not as it was archived: {partition} stays");
                    findings.push(Finding::new(name, Kind::Changed, what));
                }
                Ok(())
            })?;
        }
        let sql = format!("SELECT count(*) FROM {}", self.partition.quoted);
        let all: i64 = transaction.query_one(&sql, &[]).map_err(failed)?.get(0);
        anyhow::ensure!(
            u64::try_from(all) == Ok(rows),
            "{} has {all} rows, and {rows} of its time",
            self.partition.name
        );
        Ok(if same == rows { Found::Same(rows) } else { Found::Findings(findings) })
    }
}

/// What a comparison came to.
enum Found {
    /// So many rows, all of them as they were archived.
    Same(u64),
    Findings(Vec<Finding>),
}

/// What was found out for one partition, and holds for the next.
#[derive(Default)]
pub(super) struct Seen {
    lines: Lines,
    /// Whose transaction uses the table, and does not end.
    busy: Option<String>,
}

/// The lines that are archived of a window, by their hashes: 16 bytes each. The window that was asked for last is kept.
#[derive(Default)]
struct Lines {
    window: Option<Window>,
    sorted: Vec<u128>,
}

impl Lines {
    /// Reads the lines of a window, which are those that were proven.
    fn load(
        &mut self,
        task: &Task<'_>,
        window: Window,
        segments: &[&Deletable<'_>],
    ) -> anyhow::Result<()> {
        if self.window == Some(window) {
            return Ok(());
        }
        (self.window, self.sorted) = (None, Vec::new());
        for Deletable { segment, manifest, proven } in segments {
            let name = &segment.name;
            let read = proven.batches(task.folder, name, manifest, task.stop, |lines| {
                self.sorted.extend(lines.iter().map(|line| hash(line)));
                Ok(())
            });
            read.with_context(|| format!("failed to read `{name}` again"))?;
        }
        self.sorted.sort_unstable();
        self.window = Some(window);
        Ok(())
    }

    fn has(&self, line: &[u8]) -> bool {
        self.sorted.binary_search(&hash(line)).is_ok()
    }
}

/// Half of a line's SHA-256: nobody finds two rows with the same one.
fn hash(line: &[u8]) -> u128 {
    let sha256 = Sha256::digest(line);
    sha256.iter().take(16).fold(0, |sum, byte| sum << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(from: i64, to: i64) -> Window {
        let day = |n| chrono::DateTime::from_timestamp(n * 86_400, 0).unwrap();
        Window { from: day(from), to: day(to) }
    }

    #[test]
    fn a_time_is_covered_if_windows_leave_nothing_out() {
        let covers = |windows: &[(i64, i64)], time: (i64, i64)| {
            super::covers(
                windows.iter().map(|(from, to)| window(*from, *to)),
                window(time.0, time.1),
            )
        };
        assert!(covers(&[(0, 31)], (0, 31)));
        assert!(covers(&[(0, 31)], (3, 4)));
        assert!(covers(&[(31, 59), (0, 31), (0, 31)], (0, 59)));
        assert!(!covers(&[(0, 31)], (0, 32)));
        assert!(!covers(&[(1, 31)], (0, 31)));
        assert!(!covers(&[(0, 10), (11, 31)], (0, 31)));
        assert!(!covers(&[], (0, 1)));
    }
}
