//! Whose sessions are meant, as SQL about a table named `s`. Pure: names are quoted, values are parameters.
//!
//! An address is read from whatever the application has stored: as `inet`, or as text, also one with a port, or of IPv4 within IPv6. Text
//! that is no address is not an error, or nobody could be revoked because of one row.

use std::collections::BTreeMap;

use postgres::types::ToSql;

use crate::config::Revocable;
use crate::db::quote_identifier;
use crate::sessions::catalogue::castable;

/// Whose sessions: all conditions that are given hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Cohort {
    /// Empty: of anybody.
    pub(crate) users: Vec<String>,
    /// Begun since this time of the server's clock, as text in UTC.
    pub(crate) since: Option<String>,
    /// From this network, such as `192.0.2.0/24`.
    pub(crate) network: Option<String>,
}

/// Which rows of a table are meant.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    /// They are the cohort's, revoked or not.
    pub(super) of_cohort: String,
    /// They are to be revoked.
    pub(super) meant: String,
    /// Rows of which that cannot be said, because they have no address that can be read. They stay.
    pub(super) unreadable: Option<String>,
}

/// `$1` to `$3`: the accounts, the time, the network.
pub(super) const ANYBODY: &str =
    "$1::text[] IS NOT NULL AND coalesce($2::text, $3::text, '') IS NOT NULL";

const TEXTS: [&str; 4] = ["text", "character varying", "character", "citext"];

impl Cohort {
    /// Is it everybody?
    pub(super) fn is_all(&self) -> bool {
        *self == Cohort::default()
    }

    /// Is it their sessions alone that say who is meant?
    pub(super) fn is_of_sessions(&self) -> bool {
        self.since.is_some() || self.network.is_some()
    }

    pub(super) fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        vec![&self.users, &self.since, &self.network]
    }

    /// Writes the condition on a table with sessions, whose columns have these types, or says what it lacks.
    pub(super) fn condition(
        &self,
        revocable: &Revocable,
        columns: &BTreeMap<String, String>,
    ) -> Result<Condition, String> {
        let Revocable { table, user, ip, since, set_true, set_now } = revocable;
        let column = |column: &Option<String>, key: &str, types: &[&str]| {
            let Some(column) = column else {
                return Err(format!(
                    "[[sessions.revoke.from]] has no `{key}` for {table}: only --all can revoke there"
                ));
            };
            must_be(&table.to_string(), columns, column, types)?;
            Ok(format!("s.{}", quote_identifier(column)))
        };
        let mut of_cohort = ANYBODY.to_owned();
        if !self.users.is_empty() {
            let name = column(user, "user", &[])?;
            let kind = user.as_ref().and_then(|user| columns.get(user));
            of_cohort.push_str(&format!(" AND {}", is_one_of(&name, kind)));
        }
        if self.since.is_some() {
            let name = column(since, "since", &["timestamp with time zone"])?;
            of_cohort.push_str(&format!(" AND {name} >= $2::text::timestamptz"));
        }
        // What is revoked already is not revoked again.
        let is_true = set_true.iter().map(|c| format!("s.{} IS TRUE", quote_identifier(c)));
        let is_set = set_now.iter().map(|c| format!("s.{} IS NOT NULL", quote_identifier(c)));
        let already: Vec<String> = is_true.chain(is_set).collect();
        let is_left = match &already[..] {
            [] => String::new(),
            _ => format!(" AND NOT ({})", already.join(" AND ")),
        };
        let mut unreadable = None;
        if self.network.is_some() {
            let address = address(&column(ip, "ip", &[&TEXTS[..], &["inet", "cidr"]].concat())?);
            unreadable = Some(format!(
                "{of_cohort}{is_left} AND $3::text IS NOT NULL AND {address} IS NULL"
            ));
            of_cohort.push_str(&format!(" AND {address} <<= $3::text::inet"));
        }
        let meant = format!("{of_cohort}{is_left}");
        Ok(Condition { of_cohort, meant, unreadable })
    }
}

/// Writes that a column is one of the accounts, in a form that an index on it can serve.
pub(super) fn is_one_of(column: &str, kind: Option<&String>) -> String {
    format!("{column} = ANY ($1::text[]::{}[])", castable(kind.map_or("text", String::as_str)))
}

/// Says that a column is not there, or of none of these types; of any, if none are given.
pub(super) fn must_be(
    table: &str,
    columns: &BTreeMap<String, String>,
    column: &str,
    types: &[&str],
) -> Result<(), String> {
    match columns.get(column) {
        None => Err(format!("{table} has no column `{column}`")),
        Some(is) if !types.is_empty() && !types.contains(&is.as_str()) => {
            Err(format!("{table}.{column} is {is}, not {}", types.join(" or ")))
        }
        Some(_) => Ok(()),
    }
}

/// Writes the address in a column, NULL where it has none: the cast sees nothing that it would refuse.
fn address(column: &str) -> String {
    // `192.0.2.7:443`, `[2001:db8::7]:443`, and `::ffff:192.0.2.7`, which is 192.0.2.7.
    let dressed =
        r"^(?:(?:::ffff:)?(\d+(?:\.\d+){3})(?:/128|:\d+)?|\[(?:::ffff:)?([0-9a-f:.]+)\](?::\d+)?)$";
    let text = format!(r"pg_catalog.regexp_replace({column}::text, '{dressed}', '\1\2', 'i')");
    let byte = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)";
    let v4 = format!(r"{byte}(?:\.{byte}){{3}}(?:/(?:3[0-2]|[12]?\d))?");
    // Up to seven groups before `::` and as many behind it as there is room for.
    let group = "[0-9a-f]{1,4}";
    let short = (1..7).map(|n| format!("(?:{group}:){{1,{n}}}(?::{group}){{1,{}}}", 7 - n));
    let whole = [
        format!("(?:{group}:){{7}}{group}"),
        format!("(?:{group}:){{1,7}}:"),
        format!(":(?::{group}){{1,7}}"),
        "::".to_owned(),
    ];
    let v6 = short.chain(whole).collect::<Vec<_>>().join("|");
    let v6 = format!(r"(?:{v6})(?:/(?:12[0-8]|1[01]\d|[1-9]?\d))?");
    format!("CASE WHEN {text} ~* '^(?:{v4}|{v6})$' THEN {text}::inet END")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> BTreeMap<String, String> {
        let columns = [
            ("owner", "integer"),
            ("ip", "character varying"),
            ("at", "timestamp without time zone"),
            ("gone", "boolean"),
        ];
        columns.map(|(name, kind)| (name.to_owned(), kind.to_owned())).into()
    }

    fn revocable() -> Revocable {
        Revocable {
            table: "s".parse().unwrap(),
            user: Some("owner".to_owned()),
            ip: Some("ip".to_owned()),
            since: Some("at".to_owned()),
            set_true: vec!["gone".to_owned()],
            set_now: Vec::new(),
        }
    }

    #[test]
    fn accounts_are_compared_in_the_type_of_their_column() {
        let cohort = Cohort { users: vec!["7".to_owned()], ..Cohort::default() };
        let condition = cohort.condition(&revocable(), &columns()).unwrap();
        let of_cohort = format!("{ANYBODY} AND s.\"owner\" = ANY ($1::text[]::integer[])");
        assert_eq!(condition.meant, format!("{of_cohort} AND NOT (s.\"gone\" IS TRUE)"));
        assert_eq!((condition.of_cohort, condition.unreadable), (of_cohort, None));
        // char(36), not char(1).
        assert!(is_one_of("s.a", Some(&"character".to_owned())).ends_with("::bpchar[])"));
    }

    #[test]
    fn what_the_table_lacks_is_said() {
        let since = Cohort { since: Some("2026-11-21".to_owned()), ..Cohort::default() };
        let said = since.condition(&revocable(), &columns()).unwrap_err();
        assert_eq!(said, "s.at is timestamp without time zone, not timestamp with time zone");
        let without = Revocable { since: None, ..revocable() };
        let said = since.condition(&without, &columns()).unwrap_err();
        assert!(said.contains("has no `since` for s: only --all"), "{said}");
        let gone = Revocable { since: Some("begun".to_owned()), ..revocable() };
        let said = since.condition(&gone, &columns()).unwrap_err();
        assert_eq!(said, "s has no column `begun`");
    }
}
