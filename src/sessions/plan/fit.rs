//! Does a rule fit the tables as the catalogue has them, and could its rows be deleted at all? Each answer is the reason if not.

use postgres::error::SqlState;

use crate::config::{ChildAction, Time};
use crate::db::{Connection, Error};
use crate::sessions::catalogue::{self, OnDelete, Reference, Relation, Rights};
use crate::sessions::expired::quote_table;
use crate::sessions::preset;
use crate::sessions::rule::Rule;

/// Says what in a rule does not fit the tables.
pub(super) fn misfit(
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
        // Its rows are locked, too: who prolongs a session does it there.
        if other.leaves.iter().any(|leaf| leaf.rights < Rights::Lock) {
            let table = quote_table(&other.name);
            let message = "this role may not lock the rows that have the time";
            return Ok(Some(format!("{message}: GRANT SELECT, UPDATE ON {table} TO …")));
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
            return match error.sqlstate().map(SqlState::code) {
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
        let left_alone = preset::left_alone(&other.name, &other.columns);
        if let Some(reason) = left_alone.filter(|_| child.action != ChildAction::Keep) {
            return Ok(Some(format!("its child {} is left alone: {reason}", other.name)));
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
pub(super) fn unusable(relation: &Relation) -> Option<String> {
    let foreign = relation.leaves.iter().find(|leaf| !leaf.is_local);
    let forbidden = relation.leaves.iter().find(|leaf| leaf.rights < Rights::Delete);
    let hidden = relation.leaves.iter().find(|leaf| leaf.hides_rows);
    if let Some(leaf) = hidden {
        return Some(format!(
            "row-level security hides rows of {} from this role: ALTER ROLE … BYPASSRLS, or let its owner clean it",
            leaf.name
        ));
    }
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

/// Says which foreign key would refuse a deletion.
pub(super) fn blocked(
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
