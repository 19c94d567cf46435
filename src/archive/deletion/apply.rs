//! Deletes rows that are as they were archived, batch by batch, in transactions of their own.
//!
//! Each one reads its rows again under a lock, writes their lines as they were written for the archive, and compares. Killed
//! anywhere, a row is in the table unless its line is in a segment that was read back.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::archive::deletion::plan::Deletable;
use crate::archive::deletion::{Task, columns};
use crate::archive::hold::Holds;
use crate::archive::line::{Shape, fingerprint};
use crate::archive::row::{Column, Row};
use crate::archive::source::{Facts, Source, copy, positions, quote};
use crate::archive::verify::{Finding, Kind};
use crate::db::Error;

/// So many rows that differ are named.
const NAMED: usize = 20;
/// How often it is looked for a hold that came while rows are deleted.
const LOOK_FOR_HOLDS: Duration = Duration::from_secs(5);

/// What became of the rows of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Outcome {
    /// Gone from the table; in a dry run those that would be.
    pub(crate) deleted: u64,
    /// Still there, because they are not as they were archived.
    pub(crate) differ: u64,
    /// Still there, because somebody has them locked.
    pub(crate) locked: u64,
    /// Were not there any more.
    pub(crate) absent: u64,
    #[serde(skip)]
    pub(crate) findings: Vec<Finding>,
}

impl Outcome {
    /// Names what stays, up to a number.
    fn note(&mut self, segment: &str, what: String) {
        if self.findings.len() < NAMED {
            self.findings.push(Finding::new(segment, Kind::Changed, what));
        }
    }
}

/// Deletes the rows of a segment.
pub(crate) fn apply(
    task: &Task<'_>,
    source: &mut Source,
    deletable: &Deletable<'_>,
    check: &mut dyn FnMut() -> Result<(), Error>,
) -> anyhow::Result<Outcome> {
    let Deletable { segment, manifest, proven } = deletable;
    let mut outcome = Outcome::default();
    let table = (source.oid, source.quoted.as_str());
    let batch = Batch::new(&source.facts, table, &manifest.columns, task.dry_run);
    let mut looked = Instant::now();
    proven.batches(task.folder, &segment.name, manifest, task.stop, |lines| {
        task.stop.check()?;
        check()?;
        if looked.elapsed() > LOOK_FOR_HOLDS {
            let holds = Holds::read(task.folder, task.signers)?;
            if let Some(hold) = holds.over(manifest.window) {
                anyhow::bail!("the legal hold `{}` was added in the meantime", hold.hold);
            }
            looked = Instant::now();
        }
        batch.run(source, &segment.name, lines, &mut outcome)
    })?;
    Ok(outcome)
}

/// The statements for some rows of a segment.
struct Batch<'m> {
    oid: u32,
    /// The columns of the table, when it was opened.
    there: Vec<Column>,
    /// As they were archived.
    columns: &'m [Column],
    shape: Shape,
    key: Vec<usize>,
    /// The columns of the select list: those that were archived, and what was added since.
    list: String,
    table: String,
    /// `k` has the keys, `t` the rows.
    join: String,
    /// What a transaction begins with: behind a pooler the next one may be in another session.
    begin: String,
    dry_run: bool,
}

impl<'m> Batch<'m> {
    fn new(
        facts: &Facts,
        (oid, table): (u32, &str),
        columns: &'m [Column],
        dry_run: bool,
    ) -> Batch<'m> {
        let added = facts.columns.iter().filter(|column| !columns.contains(column));
        let list: Vec<String> =
            columns.iter().chain(added).map(|c| format!("t.{}", quote(&c.name))).collect();
        let key = positions(columns, &facts.key);
        let same: Vec<String> = key
            .iter()
            .enumerate()
            .filter_map(|(n, at)| Some((n, columns.get(*at)?)))
            .map(|(n, c)| format!("t.{} = k.k{n}::{}", quote(&c.name), c.type_name))
            .collect();
        Batch {
            oid,
            there: facts.columns.clone(),
            columns,
            shape: Shape::of(columns),
            key,
            list: list.join(", "),
            table: table.to_owned(),
            join: same.join(" AND "),
            begin: format!(
                "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE; {} SET LOCAL standard_conforming_strings = on; \
                 SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '5min'",
                Source::set_settings("SET LOCAL")
            ),
            dry_run,
        }
    }

    /// Deletes those of some archived rows that are as they were, in one transaction.
    fn run(
        &self,
        source: &mut Source,
        segment: &str,
        lines: &[Vec<u8>],
        outcome: &mut Outcome,
    ) -> anyhow::Result<()> {
        let mut archived: HashMap<u128, (&[u8], String)> = HashMap::new();
        let (mut without_key, mut row) = (0, Row::default());
        for line in lines {
            self.shape.read(line, &mut row).context("a line is no row")?;
            let key = self.key.iter().map(|n| row.get(*n));
            let fingerprint = fingerprint(key.clone());
            match key.map(|value| value.map(literal)).collect::<Option<Vec<_>>>() {
                Some(key) => {
                    archived.insert(fingerprint, (line, format!("({})", key.join(", "))));
                }
                // A unique index lets NULL be there any number of times.
                None => without_key += 1,
            }
        }
        if without_key > 0 {
            outcome.differ += without_key;
            let what =
                format!("{without_key} rows have a key with NULL, which names none: they stay");
            outcome.note(segment, what);
        }
        if archived.is_empty() {
            return Ok(());
        }
        let keys: Vec<&str> = archived.values().map(|(_, key)| key.as_str()).collect();
        let (found, deleted) = self.within(source, &keys, &archived, segment, outcome)?;
        let missing = (archived.len() as u64).saturating_sub(found);
        if missing > 0 {
            // Rows that somebody has locked are passed over, as if they were not there.
            let passed_over = self.count(source, &keys)?.saturating_sub(found - deleted);
            outcome.locked += passed_over.min(missing);
            outcome.absent += missing - passed_over.min(missing);
        }
        Ok(())
    }

    /// Carries the transaction out; returns how many rows were found, and how many of them are gone now.
    fn within(
        &self,
        source: &mut Source,
        keys: &[&str],
        archived: &HashMap<u128, (&[u8], String)>,
        segment: &str,
        outcome: &mut Outcome,
    ) -> anyhow::Result<(u64, u64)> {
        let stop = source.stop.clone();
        let what = format!("delete rows of {}", source.facts.table);
        let failed = |e| Error::query(&*what, e).or_stopped(&stop);
        let mut transaction = source.connection.transaction().map_err(failed)?;
        transaction.batch_execute(&self.begin).map_err(failed)?;
        let lock = if self.dry_run { "" } else { " FOR UPDATE OF t SKIP LOCKED" };
        let sql = format!(
            "COPY (SELECT {} FROM {} t JOIN {} ON {}{lock}) TO STDOUT",
            self.list,
            self.table,
            self.values(keys),
            self.join
        );
        let (mut found, mut same, mut line) = (0_u64, Vec::new(), Vec::new());
        let mut differing = Vec::new();
        let reader = transaction.copy_out(&sql).map_err(failed)?;
        copy(reader, &what, &stop, &mut |row: &mut Row| {
            found += 1;
            let has_nothing_new = row.shorten(self.columns.len());
            let fingerprint = fingerprint(self.key.iter().map(|n| row.get(*n)));
            line.clear();
            self.shape.write(row, &mut line)?;
            match archived.get(&fingerprint) {
                Some((archived, key)) if has_nothing_new && *archived == line => {
                    same.push(key.as_str());
                }
                _ => differing.push(self.name(row)),
            }
            Ok(())
        })?;
        // Since the rows were read nobody can change the table's columns; before, somebody may have.
        let now = columns(&mut transaction, self.oid).map_err(failed)?;
        anyhow::ensure!(
            now == self.there,
            "the columns of {} were changed while its rows were deleted: these stay",
            source.facts.table
        );
        if !self.dry_run && !same.is_empty() {
            let sql = format!(
                "DELETE FROM {} t USING {} WHERE {}",
                self.table,
                self.values(&same),
                self.join
            );
            let deleted = transaction.execute(&sql, &[]).map_err(failed)?;
            anyhow::ensure!(
                deleted == same.len() as u64,
                "{} rows of {} were to be deleted, and the server deleted {deleted}: taken back",
                same.len(),
                source.facts.table
            );
        }
        transaction.commit().map_err(failed)?;
        outcome.deleted += same.len() as u64;
        outcome.differ += differing.len() as u64;
        for key in differing {
            outcome
                .note(segment, format!("the row with {key} is not as it was archived: it stays"));
        }
        Ok((found, if self.dry_run { 0 } else { same.len() as u64 }))
    }

    /// Counts the rows with some keys, locked or not.
    fn count(&self, source: &mut Source, keys: &[&str]) -> Result<u64, Error> {
        let sql = format!(
            "SELECT count(*) FROM {} t JOIN {} ON {}",
            self.table,
            self.values(keys),
            self.join
        );
        let row = source.connection.query_one(&sql, &[]);
        let row =
            row.map_err(|e| Error::query("count what is left", e).or_stopped(&source.stop))?;
        Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or_default())
    }

    fn values(&self, keys: &[&str]) -> String {
        let names: Vec<String> = (0..self.key.len()).map(|n| format!("k{n}")).collect();
        format!("(VALUES {}) k({})", keys.join(", "), names.join(", "))
    }

    /// Names a row by its key.
    fn name(&self, row: &Row) -> String {
        let value = |n: &usize| {
            let value = row.get(*n).map_or("NULL".into(), String::from_utf8_lossy);
            let name = self.columns.get(*n).map_or("", |column| column.name.as_str());
            format!("{name} {value}")
        };
        self.key.iter().map(value).collect::<Vec<_>>().join(", ")
    }
}

/// Writes a value of a key; the session has `standard_conforming_strings`.
fn literal(value: &[u8]) -> String {
    format!("'{}'", String::from_utf8_lossy(value).replace('\'', "''"))
}
