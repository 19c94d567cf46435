//! When a row is expired, as SQL. Pure: names are quoted, values are parameters.
//!
//! `$1` is the cutoff, as a time or a number; its value is known when the statement is planned, so that nothing about it is computed
//! for each row. NULL is never expired. A row whose time can be read in two ways, in the hour that a
//! change of the clocks repeats, is taken for the later one and stays.

use std::time::SystemTime;

use postgres::types::ToSql;

use crate::clock::Moment;
use crate::config::{Child, ChildAction, TableName, Time};
use crate::db::quote_identifier;
use crate::sessions::rule::Rule;

/// The beginning of the year 2000, in seconds. A number before it is no time, and never over.
pub(crate) const YEAR_2000: i64 = 946_684_800;

/// What a rule's queries are made of. The table is `t`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expired {
    /// The column with the time.
    pub(crate) time: String,
    /// The same, NULL where it is never.
    pub(crate) dated: String,
    /// Behind `FROM`.
    pub(crate) source: String,
    /// Behind `FROM`, also with the rows that have no time in another table.
    pub(crate) all: String,
    /// The tables whose rows are locked, so that nobody prolongs what is being deleted.
    pub(crate) locked: &'static str,
    /// In a form that an index on the column can serve.
    pub(crate) by_index: String,
    /// The same, in a form that no index serves: for walking page by page.
    pub(crate) by_page: String,
    /// How the column has times.
    kind: Time,
}

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Moment(SystemTime),
    Number(i64),
    Text(String),
}

impl Value {
    /// Returns it as the `postgres` crate takes it.
    pub(crate) fn as_sql(&self) -> &(dyn ToSql + Sync) {
        match self {
            Value::Moment(moment) => moment,
            Value::Number(number) => number,
            Value::Text(text) => text,
        }
    }
}

/// Returns the values of the parameters of [`is_over`]: the cutoff, and the zone where there is one.
pub(crate) fn values(time: &Time, cutoff: Moment) -> Vec<Value> {
    match time {
        Time::Timestamptz => vec![Value::Moment(cutoff.into())],
        Time::Timestamp { zone } => {
            vec![Value::Moment(cutoff.into()), Value::Text(zone.clone())]
        }
        // Whole numbers: what is begun is not over.
        Time::EpochSeconds => vec![Value::Number(cutoff.timestamp())],
        Time::EpochMilliseconds => vec![Value::Number(cutoff.timestamp_millis())],
    }
}

/// Quotes the name of a table.
pub(crate) fn quote_table(table: &TableName) -> String {
    let name = quote_identifier(&table.name);
    match &table.schema {
        Some(schema) => format!("{}.{name}", quote_identifier(schema)),
        None => name,
    }
}

/// Returns how many of a unit are in a second, where a time is a number.
pub(crate) fn unit(time: &Time) -> Option<i64> {
    match time {
        Time::EpochSeconds => Some(1),
        Time::EpochMilliseconds => Some(1000),
        Time::Timestamptz | Time::Timestamp { .. } => None,
    }
}

/// Writes a time that is NULL where it is never: the greatest number there is means that, as Spring Session has it.
pub(crate) fn dated(column: &str, time: &Time) -> String {
    match unit(time) {
        Some(_) => format!("nullif({column}::int8, {})", i64::MAX),
        None => column.to_owned(),
    }
}

/// Writes the condition that a column is over at the cutoff: once for an index, once against it.
///
/// `$1` is the cutoff, `$2` the zone where there is one.
pub(crate) fn is_over(column: &str, time: &Time) -> (String, String) {
    const CUTOFF: &str = "$1::timestamptz";
    match time {
        Time::Timestamptz => (
            format!("{column} < {CUTOFF}"),
            format!("({column} AT TIME ZONE 'UTC') < ({CUTOFF} AT TIME ZONE 'UTC')"),
        ),
        // The first half is for the index; the second is exact, and of two readings takes the later.
        Time::Timestamp { .. } => {
            let exact = format!("({column} AT TIME ZONE $2::text) < {CUTOFF}");
            (format!("{column} < ({CUTOFF} AT TIME ZONE $2::text) AND {exact}"), exact)
        }
        Time::EpochSeconds | Time::EpochMilliseconds => {
            let first = YEAR_2000 * unit(time).unwrap_or(1);
            let between = |column: &str| format!("{column} < $1::int8 AND {column} >= {first}");
            (between(column), between(&format!("{column} + 0")))
        }
    }
}

impl Expired {
    /// Writes the condition of a rule on one table, which may be a partition of the rule's.
    pub(crate) fn new(rule: &Rule, table: &TableName) -> Expired {
        let column = quote_identifier(&rule.column);
        let own = format!("ONLY {} AS t", quote_table(table));
        let mut and = String::new();
        let (source, all, time, locked) = match &rule.via {
            None => (own.clone(), own, format!("t.{column}"), "t"),
            Some(via) => {
                let (key, refers) = (quote_identifier(&via.key), quote_identifier(&via.column));
                let join = format!("JOIN {} AS v ON v.{key} = t.{refers}", quote_table(&via.table));
                let (source, all) = (format!("{own} {join}"), format!("{own} LEFT {join}"));
                (source, all, format!("v.{column}"), "t, v")
            }
        };
        for condition in &rule.conditions {
            // On lines of its own, so that a comment in it ends.
            and.push_str(&format!(" AND (\n{condition}\n)"));
        }
        for child in rule.children.iter().filter(|child| child.action == ChildAction::Keep) {
            and.push_str(&format!(
                " AND NOT EXISTS (SELECT FROM {} AS k WHERE k.{} = t.{})",
                quote_table(&child.table),
                quote_identifier(&child.column),
                quote_identifier(&child.key)
            ));
        }
        let (by_index, by_page) = is_over(&time, &rule.time);
        let (by_index, by_page) = (by_index + &and, by_page + &and);
        let dated = dated(&time, &rule.time);
        Expired { time, dated, source, all, locked, by_index, by_page, kind: rule.time.clone() }
    }

    /// Returns the values of the parameters.
    pub(crate) fn values(&self, cutoff: Moment) -> Vec<Value> {
        values(&self.kind, cutoff)
    }
}

/// Writes the statement that deletes the rows that `chosen` returns with their `ctid`, and what goes with them.
///
/// `chosen` has locked them. The statement returns how many were chosen, how many deleted, how many children changed, and the last place
/// (`at`) of the chosen as text.
pub(crate) fn delete_chosen(table: &TableName, chosen: &str, children: &[Child]) -> String {
    let parents = format!(
        "DELETE FROM ONLY {} AS t WHERE t.ctid = ANY (ARRAY(SELECT d.ctid FROM d))",
        quote_table(table)
    );
    let (with, changed) = with_children(&parents, children);
    format!(
        "WITH d AS MATERIALIZED ({chosen}), {with} SELECT (SELECT count(*) FROM d), (SELECT count(*) FROM p), {changed}, \
         (SELECT max(d.at)::text FROM d)"
    )
}

/// Writes the statement that deletes all expired rows for which `place` is true, and what goes with them.
///
/// If that [changes children](changes_children) it returns what [`delete_chosen`] returns, without a last place. It looks for the
/// rows once only, which makes it several times as fast, but it waits for those that somebody has locked. The condition is part of the deletion itself, so that a row that was prolonged
/// while it was waited for stays; it knows only times that are in the table itself.
pub(crate) fn delete_all(
    table: &TableName,
    expired: &Expired,
    place: &str,
    children: &[Child],
) -> String {
    let parents = format!(
        "DELETE FROM ONLY {} AS t WHERE {place} AND {}",
        quote_table(table),
        expired.by_page
    );
    if !changes_children(children) {
        return parents;
    }
    let (with, changed) = with_children(&parents, children);
    format!(
        "WITH {with} SELECT (SELECT count(*) FROM p), (SELECT count(*) FROM p), {changed}, NULL::text"
    )
}

/// Does anything happen to rows of other tables?
pub(crate) fn changes_children(children: &[Child]) -> bool {
    children.iter().any(|child| child.action != ChildAction::Keep)
}

/// Writes what follows WITH: the deletion, as `p`, and what becomes of the children; and the number of these.
///
/// What becomes of children is decided by the parents that really went, so that no half of anything is left.
fn with_children(parents: &str, children: &[Child]) -> (String, String) {
    let changed: Vec<&Child> =
        children.iter().filter(|child| child.action != ChildAction::Keep).collect();
    let mut keys: Vec<String> =
        changed.iter().map(|child| format!("t.{}", quote_identifier(&child.key))).collect();
    keys.sort();
    keys.dedup();
    let returning = if keys.is_empty() { "1 AS one".to_owned() } else { keys.join(", ") };
    let mut with = format!("p AS ({parents} RETURNING {returning})");
    let mut counts = vec!["0::int8".to_owned()];
    for (n, child) in changed.iter().enumerate() {
        let (table, column) = (quote_table(&child.table), quote_identifier(&child.column));
        let refers = format!("c.{column} = p.{}", quote_identifier(&child.key));
        let change = match child.action {
            ChildAction::SetNull => {
                format!("UPDATE {table} AS c SET {column} = NULL FROM p WHERE {refers}")
            }
            _ => format!("DELETE FROM {table} AS c USING p WHERE {refers}"),
        };
        with.push_str(&format!(", c{n} AS ({change} RETURNING 1 AS one)"));
        counts.push(format!("(SELECT count(*) FROM c{n})"));
    }
    (with, counts.join(" + "))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::sessions::rule::Via;

    fn rule(time: Time) -> Rule {
        Rule {
            name: "r".to_owned(),
            table: "public.sessions".parse().unwrap(),
            column: "expires".to_owned(),
            time,
            via: None,
            grace: Duration::ZERO,
            conditions: Vec::new(),
            children: Vec::new(),
            max_percent: 50,
        }
    }

    fn child(action: ChildAction) -> Child {
        let (column, key) = ("session".to_owned(), "id".to_owned());
        Child { table: "notes".parse().unwrap(), column, key, action }
    }

    #[test]
    fn each_kind_of_time_has_its_condition() {
        let of = |time| {
            let rule = rule(time);
            let expired = Expired::new(&rule, &rule.table);
            let values = expired.values("2026-11-21T02:15:00.9995Z".parse().unwrap());
            (expired.by_index, expired.by_page, values)
        };
        let (by_index, by_page, values) = of(Time::Timestamptz);
        assert_eq!(by_index, "t.\"expires\" < $1::timestamptz");
        assert!(by_page.starts_with("(t.\"expires\" AT TIME ZONE 'UTC') < ("), "{by_page}");
        assert_eq!(values.len(), 1);
        let (by_index, by_page, values) = of(Time::Timestamp { zone: "Europe/Berlin".to_owned() });
        assert_eq!(by_page, "(t.\"expires\" AT TIME ZONE $2::text) < $1::timestamptz");
        assert!(by_index.ends_with(&format!(" AND {by_page}")), "{by_index}");
        assert_eq!(values[1], Value::Text("Europe/Berlin".to_owned()));
        let (by_index, by_page, values) = of(Time::EpochSeconds);
        assert_eq!(by_index, "t.\"expires\" < $1::int8 AND t.\"expires\" >= 946684800");
        assert_eq!(by_page, "t.\"expires\" + 0 < $1::int8 AND t.\"expires\" + 0 >= 946684800");
        assert_eq!(values, [Value::Number(1_795_227_300)]);
        let (by_index, _, values) = of(Time::EpochMilliseconds);
        assert!(by_index.ends_with(">= 946684800000"), "{by_index}");
        assert_eq!(values, [Value::Number(1_795_227_300_999)]);
    }

    #[test]
    fn conditions_children_and_other_tables_are_part_of_it() {
        let mut rule = rule(Time::Timestamptz);
        rule.conditions = vec!["t.kind = 'a' -- or b".to_owned(), "true".to_owned()];
        rule.children = vec![child(ChildAction::Keep), child(ChildAction::Delete)];
        let via = Via { table: "a".parse().unwrap(), key: "id".into(), column: "a_id".into() };
        rule.via = Some(via);
        let expired = Expired::new(&rule, &rule.table);
        assert_eq!(
            expired.source,
            "ONLY \"public\".\"sessions\" AS t JOIN \"a\" AS v ON v.\"id\" = t.\"a_id\""
        );
        assert!(expired.all.contains(" AS t LEFT JOIN \"a\" AS v ON "), "{}", expired.all);
        assert_eq!(expired.locked, "t, v");
        assert!(expired.by_index.starts_with("v.\"expires\" < "), "{}", expired.by_index);
        let and = " AND (\nt.kind = 'a' -- or b\n) AND (\ntrue\n) \
                   AND NOT EXISTS (SELECT FROM \"notes\" AS k WHERE k.\"session\" = t.\"id\")";
        assert!(expired.by_page.ends_with(and), "{}", expired.by_page);
    }

    #[test]
    fn children_follow_the_rows_that_really_went() {
        let children =
            [child(ChildAction::Delete), child(ChildAction::SetNull), child(ChildAction::Keep)];
        let sql = delete_chosen(&"s".parse().unwrap(), "SELECT", &children);
        assert!(sql.contains("RETURNING t.\"id\")"), "{sql}");
        assert!(
            sql.contains(
                "c0 AS (DELETE FROM \"notes\" AS c USING p WHERE c.\"session\" = p.\"id\""
            )
        );
        assert!(
            sql.contains("c1 AS (UPDATE \"notes\" AS c SET \"session\" = NULL FROM p"),
            "{sql}"
        );
        assert!(!sql.contains("c2"), "{sql}");
        let rule = rule(Time::Timestamptz);
        let sql = delete_all(&rule.table, &Expired::new(&rule, &rule.table), "true", &children);
        let delete = "DELETE FROM ONLY \"public\".\"sessions\" AS t WHERE true AND (t.";
        assert!(sql.contains(delete) && sql.contains("RETURNING t.\"id\")"), "{sql}");
    }

    proptest! {
        #[test]
        fn no_name_leaves_its_quotes(name in "[^\\x00.]{1,20}", column in "[^\\x00]{1,20}") {
            let mut rule = rule(Time::Timestamptz);
            rule.table = TableName { schema: None, name: name.clone() };
            rule.column = column.clone();
            let expired = Expired::new(&rule, &rule.table);
            let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
            prop_assert_eq!(expired.source, format!("ONLY {} AS t", quoted(&name)));
            prop_assert_eq!(
                expired.by_index,
                format!("t.{} < $1::timestamptz", quoted(&column))
            );
        }
    }
}
