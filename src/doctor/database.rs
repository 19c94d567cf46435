//! What a role may do on a server, asked of the server: can it back this database up, and look at it?

use std::path::Path;

use super::{Area, Grade, Seen};
use crate::clock;
use crate::db::programs::{ClientPrograms, find_server};
use crate::db::{Connection, DETACHING, Error, ServerVersion, one_line};
use crate::environment::Environment;
use crate::health::postgres::Row;
use crate::stop::Stop;

/// What the server says of itself and of the role.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rights {
    pub(crate) version: u32,
    pub(crate) role: String,
    pub(crate) is_superuser: bool,
    pub(crate) is_standby: bool,
    /// May it see what other sessions do (`pg_monitor`)?
    pub(crate) may_monitor: bool,
    /// How many tables and sequences it may not read, and the first of them.
    pub(crate) unreadable: u64,
    pub(crate) unreadable_names: String,
    /// In how many tables row-level security hides rows from it.
    pub(crate) filtered: u64,
    /// How many large objects it may not read.
    pub(crate) large_objects: u64,
    /// How many bytes the database has.
    pub(crate) size: u64,
    /// How far the server's clock is ahead of this host's, in seconds.
    pub(crate) skew: f64,
}

/// `pg_dump` locks every table, and so needs to read it, and refuses one of which rows are hidden from it. Of large objects
/// those count that have an owner it is no member of, and no grant at all. All of it is one transaction, with which the settings
/// end: behind a pooler the session is somebody else's afterwards.
const SQL: &str = "\
SET LOCAL search_path = pg_catalog; SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '20s'; \
WITH relations AS (
    SELECT c.oid, c.relkind, c.relrowsecurity, format('%I.%I', n.nspname, c.relname) AS name,
        has_schema_privilege(n.oid, 'USAGE') AND CASE WHEN c.relkind = 'S'
            THEN has_sequence_privilege(c.oid, 'SELECT') ELSE has_table_privilege(c.oid, 'SELECT') END AS readable
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't' AND n.nspname <> 'information_schema'
        AND n.nspname NOT LIKE 'pg\\_%'
        AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'))
SELECT current_setting('server_version_num') AS version, current_user AS role,
    (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS super, pg_is_in_recovery() AS standby,
    pg_has_role('pg_monitor', 'USAGE') AS monitors,
    (SELECT count(*) FROM relations WHERE NOT readable) AS unreadable,
    (SELECT string_agg(name, ', ') FROM (SELECT name FROM relations WHERE NOT readable ORDER BY name LIMIT 5) first) AS names,
    (SELECT count(*) FROM relations WHERE readable AND relrowsecurity AND row_security_active(oid)) AS filtered,
    (SELECT count(*) FROM pg_largeobject_metadata WHERE lomacl IS NULL AND NOT pg_has_role(lomowner, 'USAGE')) AS blobs,
    pg_database_size(current_database()) AS size, extract(epoch FROM clock_timestamp()) AS clock";

/// Asks for the rights of the role that is connected.
pub(crate) fn rights(connection: &mut Connection) -> anyhow::Result<Rights> {
    let before = clock::now();
    let messages = connection.simple_query(SQL);
    let messages = messages.map_err(|e| Error::query("ask what the role may do".to_owned(), e))?;
    let here = before + (clock::now() - before) / 2;
    let rows = Row::all(messages);
    let row = rows
        .first()
        .ok_or_else(|| anyhow::anyhow!("the server did not say what the role may do"))?;
    let count = |column: &str| row.text(column).parse().unwrap_or(0);
    #[expect(clippy::cast_precision_loss, reason = "microseconds fit for the next two centuries")]
    let here = here.timestamp_micros() as f64 / 1e6;
    Ok(Rights {
        version: row.text("version").parse().unwrap_or(0),
        role: row.text("role").to_owned(),
        is_superuser: row.is("super"),
        is_standby: row.is("standby"),
        may_monitor: row.is("monitors"),
        unreadable: count("unreadable"),
        unreadable_names: row.text("names").to_owned(),
        filtered: count("filtered"),
        large_objects: count("blobs"),
        size: count("size"),
        skew: row.number("clock")? - here,
    })
}

/// Judges what the role may do. `most_skew` is how many seconds the clocks may differ.
pub(crate) fn judge(rights: &Rights, most_skew: f64) -> Vec<Seen> {
    let Rights { role, unreadable, unreadable_names, filtered, large_objects, skew, .. } = rights;
    let bad =
        |what: String, why: &str, advice: String| Seen::bad(Area::Database, what, why, advice);
    let mut seen = Vec::new();
    let standby = if rights.is_standby { ", a standby" } else { "" };
    let version = ServerVersion(rights.version);
    seen.push(Seen::good(
        Area::Database,
        format!("PostgreSQL {version}{standby} answers to role `{role}`"),
    ));
    let quoted = crate::db::quote_identifier(role);
    if *unreadable > 0 {
        let what = format!(
            "role `{role}` may not read {unreadable} tables or sequences: {unreadable_names}"
        );
        let advice = if version.major() >= 14 {
            format!("GRANT pg_read_all_data TO {quoted};")
        } else {
            format!("GRANT USAGE on their schemas and SELECT on them TO {quoted};")
        };
        seen.push(bad(
            what,
            "pg_dump refuses a database of which it may not read everything.",
            advice,
        ));
    }
    if *filtered > 0 {
        let what = format!("row-level security hides rows of {filtered} tables from role `{role}`");
        let advice = format!("ALTER ROLE {quoted} BYPASSRLS;");
        seen.push(bad(what, "pg_dump refuses rather than leave rows out.", advice));
    }
    // A superuser is no member of the owners, and reads all the same.
    if *large_objects > 0 && !rights.is_superuser {
        let what = format!("role `{role}` may not read {large_objects} large objects");
        let advice =
            format!("GRANT SELECT ON LARGE OBJECT … TO {quoted}; for each, as their owner.");
        seen.push(bad(what, "A backup fails where it comes to them.", advice));
    }
    if !rights.may_monitor && !rights.is_superuser {
        let what = format!("role `{role}` may not see what other sessions do");
        let why = "Half of `opsctl health-check` is unknown without it.";
        seen.push(Seen::note(Area::Database, what, why, format!("GRANT pg_monitor TO {quoted};")));
    }
    if rights.is_superuser {
        let what = format!("role `{role}` is a superuser");
        let why = "Whoever reads its password may do anything; backups and checks need far less.";
        let advice = "Use a role of its own: docs/security.md has its rights.";
        seen.push(Seen::note(Area::Database, what, why, advice));
    }
    if skew.abs() > most_skew {
        let side = if *skew < 0.0 { "behind" } else { "ahead of" };
        let what = format!("the server's clock is {:.1} s {side} this host's", skew.abs());
        let why = "Ages of backups, rules for sessions and signatures for S3 go by clocks.";
        seen.push(bad(what, why, "Let both synchronise: `timedatectl`, chrony.".to_owned()));
    } else {
        seen.push(Seen::good(
            Area::Database,
            format!("its clock and this host's differ by {:.1} s", skew.abs()),
        ));
    }
    seen
}

/// What a command needs on a table of the configuration.
pub(crate) struct Wanted {
    pub(crate) schema: Option<String>,
    pub(crate) table: String,
    /// With commas between them.
    pub(crate) rights: &'static str,
    /// Is its owner needed, or a member of that?
    pub(crate) owner: bool,
}

/// What a role lacks on a table; NULL in its first column if it may not even use the schema.
const LACKS: &str = "\
SELECT has_schema_privilege(n.oid, 'USAGE'), NOT pg_has_role(c.relowner, 'USAGE'),
    (SELECT string_agg(p, ', ') FROM unnest($3::text[]) p WHERE NOT has_table_privilege(c.oid, p))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relname = $2
    AND CASE WHEN $1::text IS NULL THEN pg_table_is_visible(c.oid) ELSE n.nspname = $1 END";

/// Asks what the role may do with the tables that the configuration names, whether it may maintain the others, if it is to, and whether
/// partitions are out of their table.
pub(crate) fn tables(
    connection: &mut Connection,
    role: &str,
    wanted: &[Wanted],
    maintains: bool,
) -> Result<Vec<Seen>, Error> {
    let failed = |e| Error::query("ask what the role may do with tables", e);
    let advice = "`opsctl setup sql` prints what it needs, for a superuser to read and to run.";
    let (mut seen, mut well) = (Vec::new(), 0);
    for Wanted { schema, table, rights, owner } in wanted {
        let name = schema.iter().chain([table]).map(String::as_str).collect::<Vec<_>>().join(".");
        let rights: Vec<&str> = rights.split(", ").collect();
        let row = connection.query_opt(LACKS, &[schema, table, &rights]).map_err(failed)?;
        let Some(row) = row else {
            let what = format!("role `{role}` sees no table {name}");
            let why = "What is said of it in the configuration has no effect.";
            let advice = "Nothing, if this version of the application has none. Else: GRANT USAGE on its schema, or mend the name.";
            seen.push(Seen::note(Area::Database, what, why, advice));
            continue;
        };
        let mut lacking = Vec::new();
        if !row.get::<_, bool>(0) {
            lacking.push("USAGE on the schema".to_owned());
        }
        lacking.extend(row.get::<_, Option<String>>(2));
        if *owner && row.get(1) {
            lacking.push("membership in the owner".to_owned());
        }
        if lacking.is_empty() {
            well += 1;
            continue;
        }
        let what = format!("role `{role}` lacks {} on {name}", lacking.join(", "));
        let why = "The command that the configuration has for it fails.";
        seen.push(Seen::bad(Area::Database, what, why, advice));
    }
    let sql = "SELECT string_agg(objoid::regclass::text, ', ') FROM pg_description \
               WHERE classoid = 'pg_class'::regclass AND objsubid = 0 AND starts_with(description, $1)";
    let row = connection.query_one(sql, &[&DETACHING]).map_err(failed)?;
    if let Some(names) = row.get::<_, Option<String>>(0) {
        let what = format!("partitions are, or may be, out of their table: {names}");
        let why = "A run of archive-audit that was to drop them was killed; queries of the table may miss their rows.";
        let advice =
            "opsctl archive-audit takes them back. Their comments say what they were part of.";
        seen.push(Seen::bad(Area::Database, what, why, advice));
    }
    if well > 0 {
        let what = format!("role `{role}` may do what is to be done with {well} tables");
        seen.push(Seen::good(Area::Database, what));
    }
    if maintains {
        let may = if connection.server_version()?.major() >= 17 {
            "has_table_privilege(c.oid, 'MAINTAIN')"
        } else {
            "pg_has_role(relowner, 'USAGE')"
        };
        let sql = format!(
            "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind IN ('r', 'm') \
             AND nspname !~ '^pg_' AND nspname <> 'information_schema' AND NOT {may}"
        );
        let cannot: i64 = connection.query_one(&sql, &[]).map_err(failed)?.get(0);
        if cannot > 0 {
            let what = format!("role `{role}` may not maintain {cannot} tables");
            let why = "db-maintain leaves them out.";
            seen.push(Seen::note(Area::Database, what, why, advice));
        }
    }
    Ok(seen)
}

/// Looks for the programs of a major version; the server's are needed here only if restore tests are.
pub(crate) fn programs(
    version: ServerVersion,
    bin_dir: Option<&Path>,
    environment: &Environment,
    tests_restores: bool,
    stop: &Stop,
) -> Vec<Seen> {
    let major = version.major();
    let mut seen = Vec::new();
    match ClientPrograms::find(major, bin_dir, environment, stop) {
        Ok(programs) => {
            let place = programs.pg_dump().parent().unwrap_or(Path::new("/")).display().to_string();
            let version = programs.version();
            seen.push(Seen::good(
                Area::Programs,
                format!("pg_dump {version} and its like are in `{place}`"),
            ));
        }
        Err(error) => {
            let why = "A dump must be made by the programs of the server's own major version.";
            let advice = format!(
                "apt-get install postgresql-client-{major}, or dnf install postgresql{major}"
            );
            seen.push(Seen::bad(Area::Programs, one_line(&error), why, advice));
        }
    }
    match find_server(major, bin_dir, environment, stop) {
        Ok(place) => {
            seen.push(Seen::good(
                Area::Programs,
                format!("a server for restore tests is in `{}`", place.display()),
            ));
        }
        Err(error) => {
            let why =
                "`verify-backup --restore-test` restores into a throwaway server of that version.";
            let advice =
                format!("apt-get install postgresql-{major}, or test with --server elsewhere.");
            let grade = if tests_restores { Grade::Bad } else { Grade::Note };
            seen.push(Seen { grade, ..Seen::bad(Area::Programs, one_line(&error), why, advice) });
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(rights: &Rights) -> (Grade, String) {
        let seen = judge(rights, 2.0);
        let worst = seen.iter().max_by_key(|seen| seen.grade).unwrap();
        (worst.grade, worst.advice.clone())
    }

    #[test]
    fn what_a_backup_would_fail_for_is_bad() {
        let good = Rights {
            version: 170_002,
            role: "opsctl".to_owned(),
            may_monitor: true,
            ..Rights::default()
        };
        assert_eq!(worst(&good).0, Grade::Good);
        let cases = [
            (Rights { unreadable: 1, ..good.clone() }, "GRANT pg_read_all_data TO \"opsctl\";"),
            (Rights { filtered: 1, ..good.clone() }, "ALTER ROLE \"opsctl\" BYPASSRLS;"),
            (Rights { skew: -3.0, ..good.clone() }, "Let both synchronise: `timedatectl`, chrony."),
        ];
        for (rights, advice) in cases {
            assert_eq!(worst(&rights), (Grade::Bad, advice.to_owned()));
        }
        let old = Rights { version: 130_000, unreadable: 1, ..good.clone() };
        assert!(worst(&old).1.contains("SELECT on them"));
        assert_eq!(worst(&Rights { large_objects: 1, ..good.clone() }).0, Grade::Bad);
        assert_eq!(worst(&Rights { may_monitor: false, ..good.clone() }).0, Grade::Note);
        let superuser = Rights { is_superuser: true, large_objects: 1, ..good };
        assert_eq!(worst(&superuser).0, Grade::Note);
    }
}
