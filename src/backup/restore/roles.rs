//! The roles that a backup's objects belong to, out of its `globals.sql`: those that are missing, and no others.
//!
//! Roles that are there keep their attributes, passwords and memberships. Tablespaces are left out: their directories
//! belong to another machine. The decision is pure; [`create_missing`] carries it out.

use std::collections::BTreeSet;

use crate::backup::chunk::Source;
use crate::backup::manifest::Kind;
use crate::backup::restore::sql::{identifier, statements};
use crate::db::{self, Connection};

/// Creates the roles of a backup that the server does not have; returns their names.
///
/// A statement that fails is a warning: what needs the role will say so.
pub(crate) fn create_missing(
    source: Source<'_>,
    connection: &mut Connection,
) -> anyhow::Result<Vec<String>> {
    let globals = source.manifest.artifacts.iter().find(|a| a.kind == Kind::Globals);
    let globals = globals.map(|artifact| source.read_all(artifact)).transpose()?;
    let script = String::from_utf8_lossy(globals.as_deref().unwrap_or_default()).into_owned();
    let client = connection.client();
    let rows = client.query("SELECT rolname::text FROM pg_catalog.pg_roles", &[]);
    let rows = rows.map_err(|e| db::Error::query("list the roles", e))?;
    let existing: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    let mut created = Vec::new();
    for statement in missing(&script, &existing) {
        match client.batch_execute(&statement) {
            Ok(()) => created.extend(named(&statement, CREATE)),
            Err(error) => {
                let error = db::Error::query("restore a role", error);
                tracing::warn!("{:#}", anyhow::Error::from(error));
            }
        }
    }
    Ok(created)
}

const CREATE: &str = "CREATE ROLE ";

/// Returns the role that a statement is about, which begins with `prefix`.
fn named(statement: &str, prefix: &str) -> Option<String> {
    identifier(statement.strip_prefix(prefix)?).map(|(name, _)| name)
}

/// Returns the statements of a `globals.sql` that make the roles that are not in `existing`, and what they are.
fn missing(script: &str, existing: &BTreeSet<String>) -> Vec<String> {
    let all = statements(script);
    let new: BTreeSet<String> = all
        .iter()
        .filter_map(|statement| named(statement, CREATE))
        .filter(|name| !existing.contains(name))
        .collect();
    let is_new = |name: Option<String>| name.is_some_and(|name| new.contains(&name));
    let wanted = |statement: &String| {
        if let Some(rest) = statement.strip_prefix("GRANT ") {
            let Some((group, rest)) = identifier(rest) else { return false };
            let member = rest.strip_prefix(" TO ").and_then(identifier).map(|(name, _)| name);
            return member.is_some() && (is_new(Some(group)) || is_new(member));
        }
        [CREATE, "ALTER ROLE ", "COMMENT ON ROLE "]
            .iter()
            .any(|prefix| is_new(named(statement, prefix)))
    };
    all.into_iter().filter(wanted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_made() {
        let script = "\
            SET client_encoding = 'UTF8';\n\
            CREATE ROLE app;\nALTER ROLE app WITH NOSUPERUSER LOGIN;\n\
            CREATE ROLE \"odd \"\"one\";\nALTER ROLE \"odd \"\"one\" WITH LOGIN PASSWORD 'a;b';\n\
            ALTER ROLE app SET work_mem TO '1GB';\nALTER ROLE \"odd \"\"one\" SET a TO 'b';\n\
            COMMENT ON ROLE app IS 'x';\nGRANT app TO \"odd \"\"one\" GRANTED BY postgres;\nGRANT app TO app2;\n\
            CREATE TABLESPACE t OWNER app LOCATION '/x';\nGRANT ALL ON TABLESPACE t TO \"odd \"\"one\";\n";
        let existing = ["app", "app2", "postgres"].map(str::to_owned).into();
        let expected = [
            "CREATE ROLE \"odd \"\"one\"",
            "ALTER ROLE \"odd \"\"one\" WITH LOGIN PASSWORD 'a;b'",
            "ALTER ROLE \"odd \"\"one\" SET a TO 'b'",
            "GRANT app TO \"odd \"\"one\" GRANTED BY postgres",
        ];
        assert_eq!(missing(script, &existing), expected);
    }
}
