//! What a rule would delete, and every reason not to. Only this module makes a [`Cleaning`], and `apply` takes nothing else.
//!
//! It looks at a table once, within a time; where that is not enough, the server's estimates have to do, and it is said. It changes
//! nothing.

use std::time::{Duration, Instant, SystemTime};

use postgres::types::ToSql;

use crate::clock::Moment;
use crate::config::{ChildAction, TableName, Time};
use crate::db::{Connection, Error};
use crate::sessions::catalogue::{self, Leaf, OnDelete, Reference, Relation};
use crate::sessions::expired::{Expired, Value, quote_table};
use crate::sessions::rule::Rule;
use crate::sessions::{LOCK_TIMEOUT, LOOK_TIMEOUT, limits, preset, unsigned};
use crate::stop::Stop;

/// From how many rows on a missing index is worth a warning.
const LARGE: u64 = 100_000;
/// Epochs outside of these years are of another unit: 2000 and 2100, in seconds.
const PLAUSIBLE: std::ops::Range<i128> = 946_684_800..4_102_444_800;
/// Where the whole is too much, the times of so many rows are looked at.
const SAMPLE: &str = "100000";

/// A rule that may be applied: everything about it was checked.
#[derive(Debug)]
pub(crate) struct Cleaning {
    rule: Rule,
    relation: Relation,
    cutoff: Moment,
    /// Is there an index on the time of each leaf?
    indexed: Vec<bool>,
    figures: Figures,
    cascades: Vec<Cascade>,
    warnings: Vec<String>,
}

/// What a table looks like at the cutoff.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub(crate) struct Figures {
    pub(crate) rows: u64,
    pub(crate) expired: u64,
    /// Rows that never expire, because they have no time.
    pub(crate) without_time: u64,
    /// The first and last time, as the column has them.
    pub(crate) earliest: Option<String>,
    pub(crate) latest: Option<String>,
    /// Are the numbers the server's estimates, because to count took too long?
    pub(crate) estimated: bool,
}

/// Rows of other tables that the database itself changes with those of a rule.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Cascade {
    pub(crate) table: String,
    /// Are they deleted, or only made to refer to nothing?
    pub(crate) deleted: bool,
    /// An estimate.
    pub(crate) about: u64,
}

/// Why a rule is not applied.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Refusal {
    pub(crate) rule: String,
    pub(crate) reason: String,
    /// Is the configuration to be changed?
    #[serde(skip)]
    pub(crate) is_configuration: bool,
}

/// What became of planning a rule.
pub(crate) type Planned = Result<Cleaning, Refusal>;

impl Cleaning {
    pub(crate) fn rule(&self) -> &Rule {
        &self.rule
    }

    pub(crate) fn relation(&self) -> &Relation {
        &self.relation
    }

    pub(crate) fn cutoff(&self) -> Moment {
        self.cutoff
    }

    pub(crate) fn figures(&self) -> &Figures {
        &self.figures
    }

    pub(crate) fn cascades(&self) -> &[Cascade] {
        &self.cascades
    }

    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Says that more is expired than is believed without a look, if it is.
    pub(crate) fn is_too_much(&self) -> Option<Refusal> {
        let (Figures { rows, expired, .. }, max_percent) = (&self.figures, self.rule.max_percent);
        is_too_much(&self.figures, max_percent).then(|| Refusal {
            rule: self.rule.name.clone(),
            reason: format!(
                "{expired} of the {rows} rows of {} are expired, more than {max_percent} %: look at `--dry-run`, and use \
                 `--first-run` if that is right, or `max_percent` if it is so every night",
                self.relation.name
            ),
            is_configuration: false,
        })
    }

    /// Returns the tables that hold rows, and whether there is an index on the time of each.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = (&Leaf, bool)> {
        self.relation.leaves.iter().zip(self.indexed.iter().copied())
    }
}

/// Returns the server's time: the only clock that counts.
pub(crate) fn server_time(connection: &mut Connection) -> Result<Moment, Error> {
    let row = connection.query_one("SELECT pg_catalog.clock_timestamp()", &[]);
    let row = row.map_err(|e| Error::query("ask the server for the time", e))?;
    Ok(row.get::<_, SystemTime>(0).into())
}

/// Returns the moment before which a time is over.
pub(crate) fn cutoff(now: Moment, grace: Duration) -> Moment {
    let grace = chrono::TimeDelta::from_std(grace).unwrap_or_default();
    now.checked_sub_signed(grace).unwrap_or(now)
}

/// Looks at what a rule would do at a time of the server.
pub(crate) fn plan(
    connection: &mut Connection,
    rule: Rule,
    now: Moment,
    first_run: bool,
    stop: &Stop,
) -> Result<Planned, Error> {
    let name = rule.name.clone();
    let refuse = |reason: String, is_configuration| {
        Ok(Err(Refusal { rule: name.clone(), reason, is_configuration }))
    };
    let Some(relation) = catalogue::find(connection, &rule.table)? else {
        return refuse(format!("there is no table {}", rule.table), true);
    };
    if let Some(reason) = preset::left_alone(&relation.name, &relation.columns) {
        return refuse(format!("{} is left alone: {reason}", relation.name), true);
    }
    if let Some(reason) = misfit(connection, &rule, &relation)? {
        return refuse(reason, true);
    }
    if let Some(reason) = unusable(&relation) {
        return refuse(reason, false);
    }
    let references = references(connection, &relation)?;
    if let Some(reason) = blocked(connection, &rule, &references)? {
        return refuse(reason, true);
    }
    let cutoff = cutoff(now, rule.grace);
    let figures = match figures(connection, &rule, &relation, cutoff, stop)? {
        Ok(figures) => figures,
        Err(NoFigures::Condition(reason)) => return refuse(reason, true),
        Err(NoFigures::NoEstimate(reason)) => return refuse(reason, false),
    };
    if let Some(reason) = implausible(&rule.time, &figures) {
        return refuse(format!("{}.{}: {reason}", relation.name, rule.column), true);
    }
    let mut indexed = Vec::new();
    for leaf in &relation.leaves {
        indexed
            .push(rule.via.is_none() && catalogue::has_index(connection, leaf.oid, &rule.column)?);
    }
    let warnings = warnings(connection, &rule, &relation, &references, &indexed, figures.rows)?;
    let cascades = cascades(&references, &figures);
    let cleaning = Cleaning { rule, relation, cutoff, indexed, figures, cascades, warnings };
    Ok(match cleaning.is_too_much().filter(|_| !first_run) {
        Some(refusal) => Err(refusal),
        None => Ok(cleaning),
    })
}

/// Says what in a rule does not fit the tables.
fn misfit(
    connection: &mut Connection,
    rule: &Rule,
    relation: &Relation,
) -> Result<Option<String>, Error> {
    let has = |relation: &Relation, column: &str| {
        let there = relation.columns.contains_key(column);
        (!there).then(|| format!("{} has no column `{column}`", relation.name))
    };
    let mut with_time = relation.clone();
    if let Some(via) = &rule.via {
        let Some(other) = catalogue::find(connection, &via.table)? else {
            return Ok(Some(format!("there is no table {}", via.table)));
        };
        if let Some(reason) = has(relation, &via.column).or_else(|| has(&other, &via.key)) {
            return Ok(Some(reason));
        }
        with_time = other;
    }
    if let Some(reason) = has(&with_time, &rule.column) {
        return Ok(Some(reason));
    }
    let is = with_time.columns.get(&rule.column).map_or("", String::as_str);
    if !fits(&rule.time, is) {
        let (table, column, word) = (&with_time.name, &rule.column, rule.time.word());
        return Ok(Some(format!("{table}.{column} is {is}, which does not fit `{word}`")));
    }
    if let Time::Timestamp { zone } = &rule.time {
        let known =
            connection.query_one("SELECT pg_catalog.now() AT TIME ZONE $1::text IS NULL", &[zone]);
        if let Err(error) = known {
            let error = Error::query("look up the time zone", error);
            return match error.sqlstate().map(postgres::error::SqlState::code) {
                Some("22023") => Ok(Some(format!("the server knows no time zone `{zone}`"))),
                _ => Err(error),
            };
        }
    }
    for child in &rule.children {
        let Some(other) = catalogue::find(connection, &child.table)? else {
            return Ok(Some(format!(
                "there is no table {}, which is named as a child",
                child.table
            )));
        };
        if let Some(reason) = has(&other, &child.column).or_else(|| has(relation, &child.key)) {
            return Ok(Some(reason));
        }
    }
    Ok(None)
}

/// Does a column of this type hold such a time?
pub(crate) fn fits(time: &Time, is: &str) -> bool {
    match time {
        Time::Timestamptz => is == "timestamp with time zone",
        Time::Timestamp { .. } => is == "timestamp without time zone",
        Time::EpochSeconds | Time::EpochMilliseconds => ["integer", "bigint"].contains(&is),
    }
}

/// Says why nothing can be deleted from a table at all.
fn unusable(relation: &Relation) -> Option<String> {
    let foreign = relation.leaves.iter().find(|leaf| !leaf.is_local);
    let forbidden = relation.leaves.iter().find(|leaf| !leaf.may_delete);
    match (foreign, forbidden) {
        (Some(leaf), _) => Some(format!("{} is on another server", leaf.name)),
        (_, Some(leaf)) => {
            let table = quote_table(&leaf.name);
            Some(format!(
                "this role may not clean it: GRANT SELECT, UPDATE, DELETE ON {table} TO …"
            ))
        }
        _ => None,
    }
}

fn references(connection: &mut Connection, relation: &Relation) -> Result<Vec<Reference>, Error> {
    let mut oids = vec![relation.oid];
    oids.extend(relation.leaves.iter().map(|leaf| leaf.oid).filter(|oid| *oid != relation.oid));
    let mut references = Vec::new();
    for oid in oids {
        references.extend(catalogue::references(connection, oid)?);
    }
    Ok(references)
}

/// Says which foreign key would refuse a deletion.
fn blocked(
    connection: &mut Connection,
    rule: &Rule,
    references: &[Reference],
) -> Result<Option<String>, Error> {
    let of_child = |reference: &Reference, of: &str| {
        let Reference { constraint, table, columns, .. } = reference;
        format!(
            "rows of {table} may refer to {of} by `{constraint}` ({}), which refuses to let them go: name it under `children`",
            columns.join(", ")
        )
    };
    let mut found = Vec::new();
    for reference in references.iter().filter(|r| r.action == OnDelete::Refuse) {
        let mut is_named = false;
        for child in &rule.children {
            let table = catalogue::find(connection, &child.table)?.map(|found| found.name);
            is_named |= table.as_ref() == Some(&reference.table)
                && reference.columns == std::slice::from_ref(&child.column);
        }
        if !is_named {
            found.push(of_child(reference, &rule.table.to_string()));
        }
    }
    for child in rule.children.iter().filter(|child| child.action == ChildAction::Delete) {
        let Some(relation) = catalogue::find(connection, &child.table)? else { continue };
        let grandchildren = catalogue::references(connection, relation.oid)?;
        let refuse = grandchildren.iter().filter(|r| r.action == OnDelete::Refuse);
        found.extend(refuse.map(|reference| of_child(reference, &child.table.to_string())));
    }
    Ok((!found.is_empty()).then(|| found.join("; ")))
}

/// Why nothing is known of how much is expired.
enum NoFigures {
    /// The rule's condition is wrong.
    Condition(String),
    /// It took too long to count, and there are no statistics.
    NoEstimate(String),
}

/// Counts, within a time.
fn figures(
    connection: &mut Connection,
    rule: &Rule,
    relation: &Relation,
    cutoff: Moment,
    stop: &Stop,
) -> Result<Result<Figures, NoFigures>, Error> {
    let failed =
        |e| Error::query(format!("count the expired rows of {}", rule.name), e).or_stopped(stop);
    let began = Instant::now();
    let mut figures = Figures::default();
    for leaf in &relation.leaves {
        let expired = Expired::new(rule, &leaf.name);
        let time = &expired.time;
        // The rule's condition may be wrong, and says so here.
        let counts = format!(
            "SELECT count(*), count(*) FILTER (WHERE {}), count(*) FILTER (WHERE {time} IS NULL), \
             min({time})::text, max({time})::text FROM {}",
            expired.by_page,
            expired.source.replacen(" JOIN ", " LEFT JOIN ", 1)
        );
        let values = expired.values(cutoff);
        let parameters: Vec<_> = values.iter().map(Value::as_sql).collect();
        let left = LOOK_TIMEOUT.saturating_sub(began.elapsed());
        let counted = if left.is_zero() {
            None
        } else {
            match look(connection, &counts, &parameters, left) {
                Ok(rows) => rows.into_iter().next(),
                Err(e) if is_timeout(&e) && stop.reason().is_none() => None,
                Err(e) if e.code().is_some_and(|code| code.code().starts_with("42")) => {
                    let error = failed(e);
                    let source = std::error::Error::source(&error).map(ToString::to_string);
                    return Ok(Err(NoFigures::Condition(format!(
                        "its condition cannot be used: {}",
                        source.unwrap_or_default()
                    ))));
                }
                Err(e) => return Err(failed(e)),
            }
        };
        let of_leaf = match counted {
            Some(row) => Figures {
                rows: unsigned(row.get(0)),
                expired: unsigned(row.get(1)),
                without_time: unsigned(row.get(2)),
                earliest: row.get(3),
                latest: row.get(4),
                estimated: false,
            },
            None if leaf.rows == 0 && leaf.pages > 0 => {
                return Ok(Err(NoFigures::NoEstimate(format!(
                    "how much is expired could not be counted in {} s, nor can it be estimated: ANALYZE {}",
                    LOOK_TIMEOUT.as_secs(),
                    quote_table(&leaf.name)
                ))));
            }
            None => estimate(connection, &expired, leaf, cutoff).map_err(failed)?,
        };
        figures.add(&of_leaf, &rule.time);
    }
    Ok(Ok(figures))
}

/// Asks within a time.
fn look(
    connection: &mut Connection,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
    timeout: Duration,
) -> Result<Vec<postgres::Row>, postgres::Error> {
    let mut transaction = connection.transaction()?;
    transaction.batch_execute(&limits(LOCK_TIMEOUT, timeout))?;
    let rows = transaction.query(sql, parameters)?;
    transaction.commit()?;
    Ok(rows)
}

fn is_timeout(error: &postgres::Error) -> bool {
    error.code() == Some(&postgres::error::SqlState::QUERY_CANCELED)
}

/// Asks the planner, and a few rows for their times.
fn estimate(
    connection: &mut Connection,
    expired: &Expired,
    leaf: &Leaf,
    cutoff: Moment,
) -> Result<Figures, postgres::Error> {
    let Expired { time, source, by_index, .. } = expired;
    let values = expired.values(cutoff);
    let parameters: Vec<_> = values.iter().map(Value::as_sql).collect();
    let explain = format!("EXPLAIN SELECT FROM {source} WHERE {by_index}");
    // The first line of several is about the whole.
    let explained = look(connection, &explain, &parameters, LOOK_TIMEOUT)?;
    let line: String = explained.first().map(|row| row.get(0)).unwrap_or_default();
    let rows = line.split("rows=").nth(1).and_then(|text| text.split(' ').next()?.parse().ok());
    let sample = format!(
        "SELECT min(s.at)::text, max(s.at)::text FROM (SELECT {time} AS at FROM {source} LIMIT {SAMPLE}) AS s"
    );
    let sample = look(connection, &sample, &[], LOOK_TIMEOUT)?;
    let sampled = |column| sample.first().and_then(|row| row.get(column));
    Ok(Figures {
        rows: leaf.rows,
        expired: rows.unwrap_or(leaf.rows).min(leaf.rows),
        without_time: 0,
        earliest: sampled(0),
        latest: sampled(1),
        estimated: true,
    })
}

impl Figures {
    fn add(&mut self, other: &Figures, time: &Time) {
        self.rows += other.rows;
        self.expired += other.expired;
        self.without_time += other.without_time;
        self.estimated |= other.estimated;
        // Numbers are compared as numbers, times by their text, which is in order.
        let less = |a: &str, b: &str| match time {
            Time::EpochSeconds | Time::EpochMilliseconds => number(a) < number(b),
            _ => a < b,
        };
        if let Some(earliest) = &other.earliest
            && self.earliest.as_ref().is_none_or(|mine| less(earliest, mine))
        {
            self.earliest = Some(earliest.clone());
        }
        if let Some(latest) = &other.latest
            && self.latest.as_ref().is_none_or(|mine| less(mine, latest))
        {
            self.latest = Some(latest.clone());
        }
    }
}

fn number(text: &str) -> i128 {
    text.parse().unwrap_or(0)
}

/// Says why numbers are no epochs of the unit.
fn implausible(time: &Time, figures: &Figures) -> Option<String> {
    let factor = match time {
        Time::EpochSeconds => 1,
        Time::EpochMilliseconds => 1000,
        Time::Timestamptz | Time::Timestamp { .. } => return None,
    };
    let values = [&figures.earliest, &figures.latest].into_iter().flatten();
    let outside = values.map(|text| number(text)).find(|n| !PLAUSIBLE.contains(&(n / factor)));
    outside.map(|n| {
        format!("{n} is no time from 2000 to 2100 as `{}`: is it another unit?", time.word())
    })
}

/// Is more expired than is believed without a look?
fn is_too_much(figures: &Figures, max_percent: u32) -> bool {
    u128::from(figures.expired) * 100 > u128::from(figures.rows) * u128::from(max_percent)
}

fn cascades(references: &[Reference], figures: &Figures) -> Vec<Cascade> {
    let follows = references.iter().filter(|reference| reference.action != OnDelete::Refuse);
    let cascade = |reference: &Reference| {
        let about = u128::from(reference.rows) * u128::from(figures.expired);
        let about = about / u128::from(figures.rows.max(1));
        Cascade {
            table: reference.table.to_string(),
            deleted: reference.action == OnDelete::Cascade,
            about: u64::try_from(about).unwrap_or(u64::MAX),
        }
    };
    follows.map(cascade).collect()
}

/// Says what makes it slow, and what to do about it.
fn warnings(
    connection: &mut Connection,
    rule: &Rule,
    relation: &Relation,
    references: &[Reference],
    indexed: &[bool],
    rows: u64,
) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    if rule.via.is_none() && rows >= LARGE && indexed.contains(&false) {
        let create = catalogue::create_index(&relation.name, &rule.column);
        found.push(format!(
            "{} has no index on `{}`, and is read as a whole each time: {create}",
            relation.name, rule.column
        ));
    }
    let slow = |table: &TableName, column: &str| {
        let create = catalogue::create_index(table, column);
        format!(
            "{table} has no index on `{column}`, and is searched as a whole again and again: {create}"
        )
    };
    for reference in references.iter().filter(|r| !r.indexed && r.rows >= LARGE) {
        found.push(slow(&reference.table, reference.columns.first().map_or("", String::as_str)));
    }
    for child in &rule.children {
        let Some(other) = catalogue::find(connection, &child.table)? else { continue };
        let rows: u64 = other.leaves.iter().map(|leaf| leaf.rows).sum();
        let is_known = references.iter().any(|r| r.table == other.name);
        if rows >= LARGE
            && !is_known
            && !catalogue::has_index(connection, other.oid, &child.column)?
        {
            found.push(slow(&other.name, &child.column));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(rows: u64, expired: u64) -> Figures {
        Figures { rows, expired, ..Figures::default() }
    }

    #[test]
    fn more_than_half_is_too_much() {
        assert!(!is_too_much(&figures(0, 0), 50));
        assert!(!is_too_much(&figures(100, 50), 50));
        assert!(is_too_much(&figures(100, 51), 50));
        assert!(!is_too_much(&figures(100, 100), 100));
    }

    #[test]
    fn numbers_of_another_unit_are_implausible() {
        let of = |earliest: &str, latest: &str, time: &Time| {
            let text = |text: &str| Some(text.to_owned());
            let figures =
                Figures { earliest: text(earliest), latest: text(latest), ..figures(2, 1) };
            implausible(time, &figures).is_some()
        };
        assert!(!of("1700000000", "1800000000", &Time::EpochSeconds));
        assert!(of("1700000000000", "1800000000000", &Time::EpochSeconds));
        assert!(of("1700000000", "1800000000", &Time::EpochMilliseconds));
        assert!(!of("1700000000000", "1800000000000", &Time::EpochMilliseconds));
        assert!(of("0", "1800000000", &Time::EpochSeconds));
        assert!(!of("0", "0", &Time::Timestamptz));
        assert!(implausible(&Time::EpochSeconds, &figures(0, 0)).is_none());
    }

    #[test]
    fn the_figures_of_partitions_add_up() {
        let part = |earliest: &str, latest: &str| Figures {
            earliest: Some(earliest.to_owned()),
            latest: Some(latest.to_owned()),
            estimated: latest == "20",
            ..figures(10, 4)
        };
        let mut sum = Figures::default();
        for of in [part("9", "11"), part("10", "20"), Figures::default()] {
            sum.add(&of, &Time::EpochSeconds);
        }
        assert_eq!((sum.rows, sum.expired, sum.estimated), (20, 8, true));
        assert_eq!((sum.earliest.as_deref(), sum.latest.as_deref()), (Some("9"), Some("20")));
    }
}
