//! The roles and privileges that commands need, as SQL for a person to read and run. Nothing is executed, and no password is set.
//!
//! Each purpose has a role of its own that nobody can log in as, and the role that opsctl connects as is a member of those that were
//! asked for: what a command may do can be seen with `\du`, given to another login, or taken away. The statements can be run any
//! number of times. What they cannot know before they are run, such as the server's version, they ask the server.

use std::fmt::Write as _;

use crate::config::{AuditTable, Child, ChildAction, Sessions, TableName, UnlockWhat, What};
use crate::sessions::preset::PRESETS;

/// What opsctl is to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Purpose {
    Backup,
    /// Also for doctor, status and health-check incident.
    HealthCheck,
    CleanupSessions,
    ArchiveAudit,
    DbMaintain,
    Restore,
    /// The history in a database, in place of a file.
    History,
}

/// For what, and as whom.
pub(crate) struct Request<'r> {
    pub(crate) purposes: &'r [Purpose],
    /// The role that opsctl connects as.
    pub(crate) login: &'r str,
    pub(crate) sessions: &'r Sessions,
    pub(crate) audits: &'r [AuditTable],
    /// The name of the database that has the history.
    pub(crate) history: Option<&'r str>,
}

/// Rights on a table.
pub(crate) struct Grant {
    /// Only in this database.
    database: Option<String>,
    pub(crate) table: TableName,
    /// With commas between them.
    pub(crate) rights: &'static str,
    /// Is it to be its owner, or a member of that, as well?
    pub(crate) owner: bool,
}

impl Grant {
    /// Is the table in this database?
    pub(crate) fn is_in(&self, database: &str) -> bool {
        self.database.as_deref().is_none_or(|only| only == database)
    }

    /// Returns the table as SQL wants it.
    fn name(&self) -> String {
        let schema = self.table.schema.as_deref();
        let schema = schema.map(|schema| format!("{}.", identifier(schema))).unwrap_or_default();
        format!("{schema}{}", identifier(&self.table.name))
    }
}

/// Returns what commands need on the tables that the configuration names.
pub(crate) fn on_tables(of_sessions: &Sessions, of_audits: &[AuditTable]) -> Vec<Grant> {
    sessions(of_sessions).into_iter().chain(of_audits.iter().map(audit)).collect()
}

impl Purpose {
    /// Returns what a role is called by, behind the name of the login.
    fn suffix(self) -> &'static str {
        match self {
            Purpose::Backup => "backup",
            Purpose::HealthCheck => "monitor",
            Purpose::CleanupSessions => "sessions",
            Purpose::ArchiveAudit => "audit",
            Purpose::DbMaintain => "maintain",
            Purpose::Restore => "restore",
            Purpose::History => "history",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Purpose::Backup => "backup reads everything, and changes nothing.",
            Purpose::HealthCheck => {
                "health-check, incident and doctor look at the server's statistics, and at no rows."
            }
            Purpose::CleanupSessions => {
                "cleanup-sessions deletes what is expired, from the tables of [sessions]. UPDATE is for locking rows, and for locks and \
                 revocations."
            }
            Purpose::ArchiveAudit => {
                "archive-audit reads the tables of [[audit]], and deletes from them where `delete` says so."
            }
            Purpose::DbMaintain => {
                "db-maintain runs VACUUM, ANALYZE and REINDEX; before PostgreSQL 17 only a table's owner may."
            }
            Purpose::Restore => "restore makes databases, and gives what is in them to its owners.",
            Purpose::History => "the history has a schema of its own.",
        }
    }
}

/// Writes the statements.
pub(crate) fn sql(request: &Request<'_>) -> String {
    let login = request.login;
    let mut text = format!(
        "-- The role that opsctl connects as. A password, if it needs one: \\password {}\n{}",
        identifier(login),
        role(login, "LOGIN")
    );
    let connect = format!(
        "EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), {});",
        literal(login)
    );
    text.push_str(&block("", &connect));
    for purpose in request.purposes {
        let group = format!("{login}_{}", purpose.suffix());
        let body = match purpose {
            Purpose::Backup => backup(login, &group),
            Purpose::HealthCheck => health_check(&group),
            Purpose::CleanupSessions => tables(&sessions(request.sessions), login, &group),
            Purpose::ArchiveAudit => audits(request.audits, login, &group),
            Purpose::DbMaintain => maintain(login, &group),
            Purpose::Restore => restore(login, &group),
            Purpose::History => history(request.history, &group),
        };
        write!(
            text,
            "\n-- {}\n{}{body}GRANT {} TO {};\n",
            purpose.about(),
            role(&group, "NOLOGIN"),
            identifier(&group),
            identifier(login)
        )
        .ok();
    }
    text
}

/// Makes a role, if there is none.
fn role(name: &str, kind: &str) -> String {
    let body = format!(
        "IF to_regrole({}) IS NULL THEN
    CREATE ROLE {} {kind};
END IF;",
        literal(&identifier(name)),
        identifier(name)
    );
    block("", &body)
}

/// Has a block carried out, between marks that are not in it.
fn block(declarations: &str, body: &str) -> String {
    let declare =
        if declarations.is_empty() { String::new() } else { format!("DECLARE {declarations}\n") };
    let mut mark = "opsctl".to_owned();
    while body.contains(&format!("${mark}$")) {
        mark.push('_');
    }
    let body = body.replace('\n', "\n    ");
    format!("DO ${mark}$\n{declare}BEGIN\n    {body}\nEND ${mark}$;\n")
}

/// Everything is read; rows that row-level security would hide, and large objects, need more than that.
fn backup(login: &str, group: &str) -> String {
    let (role, login) = (literal(group), literal(login));
    block(
        "s record; o oid;",
        &format!(
            "IF current_setting('server_version_num')::int >= 140000 THEN
    EXECUTE format('GRANT pg_read_all_data TO %I', {role});
ELSE
    FOR s IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', s.nspname, {role});
        EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO %I', s.nspname, {role});
        EXECUTE format('GRANT SELECT ON ALL SEQUENCES IN SCHEMA %I TO %I', s.nspname, {role});
    END LOOP;
    RAISE NOTICE 'tables that are made later need this again';
END IF;
IF EXISTS (SELECT FROM pg_class WHERE relrowsecurity) THEN
    RAISE NOTICE 'row-level security would hide rows from backups: BYPASSRLS';
    EXECUTE format('ALTER ROLE %I BYPASSRLS', {login});
END IF;
FOR o IN SELECT oid FROM pg_largeobject_metadata LOOP
    EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO %I', o, {role});
END LOOP;"
        ),
    )
}

/// The values of sequences are shown to those who may read them.
fn health_check(group: &str) -> String {
    let role = literal(group);
    block(
        "s record;",
        &format!(
            "EXECUTE format('GRANT pg_monitor TO %I', {role});
FOR s IN SELECT c.oid::regclass AS name FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind = 'S' AND nspname !~ '^pg_' LOOP
    EXECUTE format('GRANT SELECT ON SEQUENCE %s TO %I', s.name, {role});
END LOOP;"
        ),
    )
}

/// Rights on some tables, where these are; and on the sequences that number their rows, where rows are added.
fn tables(grants: &[Grant], login: &str, group: &str) -> String {
    if grants.is_empty() {
        return "-- The configuration names no table for it.\n".to_owned();
    }
    let (role, login) = (literal(group), literal(login));
    let rows: Vec<String> = grants
        .iter()
        .map(|grant| {
            let database = grant.database.as_deref().map_or_else(|| "NULL".to_owned(), literal);
            format!("        ({database}, {}, '{}')", literal(&grant.name()), grant.rights)
        })
        .collect();
    block(
        "g record; t regclass; s record;",
        &format!(
            "FOR g IN SELECT * FROM (VALUES
{}
    ) AS v(only_in, name, rights) WHERE coalesce(only_in::text, current_database()) = current_database()
LOOP
    t := to_regclass(g.name);
    IF t IS NULL THEN
        RAISE NOTICE 'there is no table %: nothing is granted on it', g.name;
        CONTINUE;
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', (SELECT relnamespace::regnamespace::name FROM pg_class WHERE oid = t), {role});
    EXECUTE format('GRANT %s ON %s TO %I', g.rights, t, {role});
    IF (SELECT relrowsecurity FROM pg_class WHERE oid = t) THEN
        RAISE NOTICE 'row-level security would hide rows of %: BYPASSRLS', t;
        EXECUTE format('ALTER ROLE %I BYPASSRLS', {login});
    END IF;
    FOR s IN SELECT objid::regclass AS name FROM pg_depend JOIN pg_class c ON c.oid = objid
        WHERE refobjid = t AND deptype = 'a' AND relkind = 'S' AND g.rights LIKE '%INSERT%' LOOP
        EXECUTE format('GRANT USAGE ON SEQUENCE %s TO %I', s.name, {role});
    END LOOP;
END LOOP;",
            rows.join(",\n")
        ),
    )
}

const READ: &str = "SELECT";
const CHANGE: &str = "SELECT, UPDATE";
const REMOVE: &str = "SELECT, UPDATE, DELETE";
const ADD: &str = "INSERT";

fn grant(database: Option<&String>, table: &TableName, rights: &'static str) -> Grant {
    Grant { database: database.cloned(), table: table.clone(), rights, owner: false }
}

fn sessions(sessions: &Sessions) -> Vec<Grant> {
    let mut grants = Vec::new();
    for rule in &sessions.rules {
        let mut add = |table: TableName, rights| {
            grants.push(grant(rule.database.as_ref(), &table, rights));
        };
        match &rule.what {
            What::Table { table, children, .. } => {
                add(table.clone(), REMOVE);
                for Child { table, action, .. } in children {
                    add(table.clone(), of_child(*action));
                }
            }
            What::Preset { preset, schema, .. } => {
                let named =
                    |name: &str| TableName { schema: schema.clone(), name: name.to_owned() };
                let Some(preset) = PRESETS.iter().find(|known| known.name == preset) else {
                    continue;
                };
                for known in preset.rules {
                    add(named(known.table), REMOVE);
                    if let Some((via, ..)) = known.via {
                        add(named(via), READ);
                    }
                    for (table, _, _, action) in known.children {
                        add(named(table), of_child(*action));
                    }
                }
            }
        }
    }
    for unlock in &sessions.unlocks {
        let tables = match &unlock.what {
            UnlockWhat::Table(lock) => vec![lock.table.clone()],
            UnlockWhat::Preset { preset, schema, .. } => {
                let preset = PRESETS.iter().find(|known| known.name == preset);
                let named =
                    |name: &str| TableName { schema: schema.clone(), name: name.to_owned() };
                preset
                    .and_then(|preset| preset.lock)
                    .map(|lock| named(lock.table))
                    .into_iter()
                    .collect()
            }
        };
        let of = |table| grant(unlock.database.as_ref(), &table, CHANGE);
        grants.extend(tables.into_iter().map(of));
    }
    if let Some(revoke) = &sessions.revoke {
        let database = &revoke.database;
        grants.push(grant(database.as_ref(), &revoke.users, CHANGE));
        for from in &revoke.from {
            let rights =
                if from.set_true.is_empty() && from.set_now.is_empty() { REMOVE } else { CHANGE };
            grants.push(grant(database.as_ref(), &from.table, rights));
        }
    }
    if let Some(audit) = &sessions.audit {
        grants.push(grant(None, &audit.table, ADD));
    }
    grants
}

fn of_child(action: ChildAction) -> &'static str {
    match action {
        ChildAction::Delete => REMOVE,
        ChildAction::SetNull => CHANGE,
        ChildAction::Keep => READ,
    }
}

fn audit(audit: &AuditTable) -> Grant {
    let rights = if audit.delete { REMOVE } else { READ };
    let owner = audit.delete && audit.drop_partitions;
    Grant { owner, ..grant(audit.database.as_ref(), &audit.table, rights) }
}

fn audits(audits: &[AuditTable], login: &str, group: &str) -> String {
    let grants: Vec<Grant> = audits.iter().map(audit).collect();
    let mut text = tables(&grants, login, group);
    for grant in grants.iter().filter(|grant| grant.owner) {
        let only_in = grant.database.as_deref().map_or_else(|| "NULL".to_owned(), literal);
        let owner = format!(
            "SELECT relowner::regrole AS name FROM pg_class
    WHERE oid = to_regclass({}) AND coalesce({only_in}, current_database()) = current_database()",
            literal(&grant.name())
        );
        text.push_str("-- Only its owner may detach partitions of a table, and drop them.\n");
        text.push_str(&owners(&owner, login, group));
    }
    text
}

/// Makes a role a member of others, but of no superuser, and not of those that are members of it.
fn owners(query: &str, login: &str, group: &str) -> String {
    let (role, login) = (literal(group), literal(login));
    block(
        "o record;",
        &format!(
            "FOR o IN {query} LOOP
    IF pg_has_role({role}::name, o.name::oid, 'MEMBER') OR pg_has_role({login}::name, o.name::oid, 'MEMBER') THEN
        CONTINUE;
    ELSIF (SELECT rolsuper FROM pg_roles WHERE oid = o.name) THEN
        RAISE WARNING 'what the superuser % owns stays out of reach: let another role own it', o.name;
    ELSIF pg_has_role(o.name::oid, {role}::name, 'MEMBER') OR pg_has_role(o.name::oid, {login}::name, 'MEMBER') THEN
        RAISE WARNING '% is a member of this role, which cannot become one of it', o.name;
    ELSE
        EXECUTE format('GRANT %s TO %I', o.name, {role});
    END IF;
END LOOP;"
        ),
    )
}

const OWNERS: &str = "SELECT DISTINCT relowner::regrole AS name FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind IN ('r', 'p', 'm') AND nspname !~ '^pg_' AND nspname <> 'information_schema'";

fn maintain(login: &str, group: &str) -> String {
    let role = literal(group);
    let before_17 = format!("{OWNERS} AND current_setting('server_version_num')::int < 170000");
    let body = format!(
        "EXECUTE format('GRANT pg_monitor TO %I', {role});
IF current_setting('server_version_num')::int >= 170000 THEN
    EXECUTE format('GRANT pg_maintain TO %I', {role});
END IF;"
    );
    block("", &body) + &owners(&before_17, login, group)
}

fn restore(login: &str, group: &str) -> String {
    let body = format!("EXECUTE format('ALTER ROLE %I CREATEDB', {});", literal(login));
    block("", &body) + &owners(OWNERS, login, group)
}

fn history(database: Option<&str>, group: &str) -> String {
    let Some(database) = database else {
        return "-- The configuration has no `url` in [history]: it is a file, and needs nothing here.\n".to_owned();
    };
    let body = format!(
        "IF current_database() = {} THEN
    EXECUTE format('CREATE SCHEMA IF NOT EXISTS opsctl AUTHORIZATION %I', {});
END IF;",
        literal(database),
        literal(group)
    );
    block("", &body)
}

/// Writes a name as SQL wants it.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Writes a string on one line, whatever `standard_conforming_strings` is.
fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains(['\\', '\n', '\r']) {
        let escaped = quoted.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
        format!("E'{escaped}'")
    } else {
        format!("'{quoted}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_ends_what_it_stands_in() {
        assert_eq!(literal("it's \\\nx"), "E'it''s \\\\\\nx'");
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        let text = block("", "x $opsctl$ y");
        assert!(text.starts_with("DO $opsctl_$\n") && text.ends_with("END $opsctl_$;\n"), "{text}");
        let role = role("a$opsctl$b", "LOGIN");
        assert_eq!(role.matches("$opsctl_$").count(), 2, "{role}");
    }
}
