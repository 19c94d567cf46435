//! The table that is told of every unlock and revocation, in the transaction that does it: what it was not told did not happen.

use std::collections::BTreeMap;

use crate::config::Audit;
use crate::db::{Connection, Error, quote_identifier};
use crate::sessions::catalogue::{self, castable};
use crate::sessions::expired::quote_table;

/// An audit table whose columns were looked at.
#[derive(Clone, Debug)]
pub(crate) struct Trail {
    audit: Audit,
    /// What a value is cast to for each column. Any kind of text stays text: a cast would cut it, and to insert it does not.
    types: BTreeMap<String, String>,
    run: String,
}

impl Trail {
    /// Looks at the table, or says what is wrong with it.
    pub(crate) fn open(
        connection: &mut Connection,
        audit: &Audit,
        run: &str,
    ) -> Result<Result<Trail, String>, Error> {
        let Some(relation) = catalogue::find(connection, &audit.table)? else {
            return Ok(Err(format!(
                "there is no table {}, which [sessions.audit] names",
                audit.table
            )));
        };
        let named = [Some(&audit.action), Some(&audit.subject)].into_iter();
        let named = named.chain([audit.at.as_ref(), audit.run.as_ref(), audit.detail.as_ref()]);
        for column in named.flatten() {
            if !relation.columns.contains_key(column) {
                let message = format!(
                    "{} has no column `{column}`, which [sessions.audit] names",
                    relation.name
                );
                return Ok(Err(message));
            }
        }
        let sql = "SELECT a.attname::text, CASE WHEN t.typcategory = 'S' THEN 'text' ELSE pg_catalog.format_type(a.atttypid, NULL) END \
                   FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
                   WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped";
        let types = connection.query(sql, &[&relation.oid]);
        let types = types.map_err(|e| Error::query("look at the audit table", e))?;
        let types = types.iter().map(|row| (row.get(0), row.get(1))).collect();
        let audit = Audit { table: relation.name, ..audit.clone() };
        Ok(Ok(Trail { audit, types, run: run.to_owned() }))
    }

    /// Writes the statement that tells of the rows of `from`, whose column `id` is the account's.
    ///
    /// Its parameters are numbered from `first`; their values are added to `values`.
    pub(crate) fn insert(
        &self,
        from: &str,
        action: &str,
        detail: &serde_json::Value,
        first: usize,
        values: &mut Vec<String>,
    ) -> String {
        let mut number = first;
        let (mut columns, mut expressions) = (Vec::new(), Vec::new());
        let mut add = |column: &str, expression: String| {
            let kind = self.types.get(column).map_or("text", String::as_str);
            columns.push(quote_identifier(column));
            expressions.push(format!("CAST({expression} AS {})", castable(kind)));
        };
        let mut value = |text: String| {
            values.push(text);
            number += 1;
            format!("${}::text", number - 1)
        };
        add(&self.audit.action, value(action.to_owned()));
        add(&self.audit.subject, format!("{from}.id::text"));
        if let Some(at) = &self.audit.at {
            add(at, "pg_catalog.clock_timestamp()".to_owned());
        }
        if let Some(run) = &self.audit.run {
            add(run, value(self.run.clone()));
        }
        if let Some(column) = &self.audit.detail {
            add(column, value(detail.to_string()));
        }
        format!(
            "INSERT INTO {} ({}) SELECT {} FROM {from}",
            quote_table(&self.audit.table),
            columns.join(", "),
            expressions.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_parameters_and_columns_have_their_types() {
        let audit = Audit {
            table: "ops.events".parse().unwrap(),
            action: "what".to_owned(),
            subject: "who".to_owned(),
            at: Some("at".to_owned()),
            run: None,
            detail: Some("more".to_owned()),
        };
        let types = [
            ("who", "integer"),
            ("what", "text"),
            ("at", "timestamp with time zone"),
            ("more", "jsonb"),
        ];
        let types = types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).into();
        let trail = Trail { audit, types, run: "r".to_owned() };
        let mut values = vec!["cutoff".to_owned()];
        let sql = trail.insert("u", "un'lock", &serde_json::json!({ "rule": "x" }), 2, &mut values);
        assert_eq!(
            sql,
            "INSERT INTO \"ops\".\"events\" (\"what\", \"who\", \"at\", \"more\") SELECT CAST($2::text AS text), \
             CAST(u.id::text AS integer), CAST(pg_catalog.clock_timestamp() AS timestamp with time zone), \
             CAST($3::text AS jsonb) FROM u"
        );
        assert_eq!(values, ["cutoff", "un'lock", "{\"rule\":\"x\"}"]);
    }
}
