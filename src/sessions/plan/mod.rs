//! What a rule would delete, and every reason not to. Only this module makes a [`Cleaning`], and `apply` takes nothing else.
//!
//! It changes nothing. `fit.rs` asks whether a rule fits the tables, `figures.rs` counts.

use std::time::{Duration, SystemTime};

use crate::clock::Moment;
use crate::config::TableName;
use crate::db::{Connection, Error};
use crate::sessions::catalogue::{self, Leaf, OnDelete, Reference, Relation};
use crate::sessions::preset;
use crate::sessions::rule::Rule;
use crate::stop::Stop;

mod figures;
mod fit;

pub(crate) use figures::{Figures, bad_condition, implausible};
pub(crate) use fit::fits;

use figures::NoFigures;

/// From how many rows on a missing index is worth a warning.
const LARGE: u64 = 100_000;

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
    #[serde(skip)]
    pub(crate) kind: RefusalKind,
}

/// What is to be done about a rule that is not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusalKind {
    /// Change the configuration.
    Configuration,
    /// Look at the database.
    Database,
    /// It was tried, and failed.
    Failed,
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
            kind: RefusalKind::Database,
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
    let refuse = |reason: String, kind| Ok(Err(Refusal { rule: name.clone(), reason, kind }));
    let (configuration, database) = (RefusalKind::Configuration, RefusalKind::Database);
    let Some(relation) = catalogue::find(connection, &rule.table)? else {
        return refuse(format!("there is no table {}", rule.table), configuration);
    };
    if let Some(reason) = preset::left_alone(&relation.name, &relation.columns) {
        return refuse(format!("{} is left alone: {reason}", relation.name), configuration);
    }
    if let Some(reason) = fit::misfit(connection, &rule, &relation)? {
        return refuse(reason, configuration);
    }
    if let Some(reason) = fit::unusable(&relation) {
        return refuse(reason, database);
    }
    let references = references(connection, &relation)?;
    if let Some(reason) = fit::blocked(connection, &rule, &references)? {
        return refuse(reason, configuration);
    }
    let cutoff = cutoff(now, rule.grace);
    let figures = match figures::figures(connection, &rule, &relation, cutoff, stop)? {
        Ok(figures) => figures,
        Err(NoFigures::Condition(reason)) => return refuse(reason, configuration),
        Err(NoFigures::NoEstimate(reason)) => return refuse(reason, database),
    };
    if let Some(reason) = implausible(&rule.time, [&figures.earliest, &figures.latest]) {
        let column = format!("{}.{}", relation.name, rule.column);
        return refuse(format!("{column}: {reason}"), configuration);
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

fn references(connection: &mut Connection, relation: &Relation) -> Result<Vec<Reference>, Error> {
    let mut oids = vec![relation.oid];
    oids.extend(relation.leaves.iter().map(|leaf| leaf.oid).filter(|oid| *oid != relation.oid));
    let mut references = Vec::new();
    for oid in oids {
        references.extend(catalogue::references(connection, oid)?);
    }
    Ok(references)
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
}
