//! Every command works with exactly the privileges that `opsctl setup sql` prints for it.

use std::process::Command;

use serde_json::Value;

use crate::support::running::{by_another_clock, eventually};
use crate::support::{Cluster, Run, Sandbox, other_major, stock};

/// A database of an application's role, with what makes trouble: row-level security, a large object, a schema that nobody may use.
const TABLES: &str = "
    CREATE TABLE members (id bigserial PRIMARY KEY, name text NOT NULL);
    INSERT INTO members (name) SELECT 'member ' || n FROM generate_series(1, 50) n;
    CREATE SCHEMA private; CREATE TABLE private.notes (id int PRIMARY KEY, owner text, note text);
    INSERT INTO private.notes VALUES (1, 'a', 'b');
    ALTER TABLE private.notes ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON private.notes USING (owner = current_user);
    CREATE SEQUENCE private.numbers;
    SELECT lo_from_bytea(0, 'large');
    CREATE TABLE users (id int PRIMARY KEY, must_change boolean NOT NULL DEFAULT false, locked_until timestamptz);
    INSERT INTO users SELECT n, false, CASE WHEN n = 4 THEN now() - interval '1 day' END FROM generate_series(1, 4) n;
    CREATE TABLE tokens (id serial PRIMARY KEY, user_id int, expires_at timestamptz, revoked boolean NOT NULL DEFAULT false);
    CREATE TABLE token_uses (token int NOT NULL REFERENCES tokens, at timestamptz);
    CREATE INDEX ON token_uses (token);
    INSERT INTO tokens (user_id, expires_at) SELECT n % 4 + 1, now() + (n - 10) * interval '1 hour' FROM generate_series(1, 100) n;
    INSERT INTO token_uses SELECT id, now() FROM tokens;
    CREATE TABLE django_session (session_key varchar(40) PRIMARY KEY, session_data text NOT NULL, expire_date timestamptz NOT NULL);
    INSERT INTO django_session SELECT md5(n::text), '', now() + (n - 5) * interval '1 day' FROM generate_series(1, 60) n;
    CREATE TABLE events (id bigserial, at timestamptz, what text, who text);
    CREATE TABLE audit_logs (id bigserial, at timestamptz NOT NULL, who text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE march PARTITION OF audit_logs FOR VALUES FROM ('2024-03-01 00:00Z') TO ('2024-04-01 00:00Z');
    CREATE TABLE later PARTITION OF audit_logs FOR VALUES FROM ('2024-04-01 00:00Z') TO ('2999-04-01 00:00Z');
    INSERT INTO audit_logs (at, who) SELECT timestamptz '2024-03-05Z' + n * interval '1 hour', 'user' FROM generate_series(1, 20) n;
    INSERT INTO audit_logs (at, who) VALUES (now(), 'hot');
    CREATE TABLE bloated (id int PRIMARY KEY, x text) WITH (autovacuum_enabled = off);
    INSERT INTO bloated SELECT n, repeat('x', 100) FROM generate_series(1, 20000) n; DELETE FROM bloated WHERE id % 2 = 0";

const CONFIGURATION: &str = r#"
[[sessions.rule]]
name = "tokens"
table = "tokens"
column = "expires_at"
kind = "timestamptz"
[[sessions.rule.children]]
table = "token_uses"
column = "token"
key = "id"
action = "delete"
[[sessions.rule]]
name = "django"
preset = "django"
schema = "public"
[[sessions.unlock]]
name = "locks"
table = "users"
column = "locked_until"
kind = "timestamptz"
id = "id"
[sessions.revoke]
users = "users"
password_reset = "must_change"
lock = "locked_until"
[[sessions.revoke.from]]
table = "tokens"
user = "user_id"
set_true = ["revoked"]
[sessions.audit]
table = "events"
action = "what"
subject = "who"
at = "at"

[maintain]

[[audit]]
table = "audit_logs"
time_column = "at"
location = "archive"
signing_key = "key"
delete = "after-verify"
"#;

/// A database of an application, and a role that has nothing yet.
struct Site<'c> {
    cluster: &'c Cluster,
    database: String,
    role: String,
    sandbox: Sandbox,
}

impl Site<'_> {
    fn new<'c>(cluster: &'c Cluster, more: &str) -> Site<'c> {
        let database = cluster.database();
        let (app, role) = (format!("app_{database}"), format!("Ops-{database}"));
        cluster.sql(
            "postgres",
            &format!("CREATE ROLE {app}; ALTER DATABASE {database} OWNER TO {app}; REVOKE CONNECT ON DATABASE {database} FROM PUBLIC"),
        );
        // Nothing of it is anybody's but the application's.
        cluster.sql(
            &database,
            &format!("ALTER SCHEMA public OWNER TO {app}; REVOKE ALL ON SCHEMA public FROM PUBLIC"),
        );
        cluster.sql(&database, &format!("SET ROLE {app}; {TABLES}"));
        let mut sandbox =
            Sandbox::new(&cluster.url(&database).replace("user=postgres", &format!("user={role}")));
        sandbox.set("OPSCTL_BIN_DIR", cluster.bin_dir.display().to_string());
        let key = sandbox.path("key");
        stock(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(key));
        sandbox.write("opsctl.toml", &format!("{CONFIGURATION}{more}"));
        Site { cluster, database, role, sandbox }
    }

    /// Runs what is printed for some commands, twice.
    fn grant(&self, args: &[&str]) {
        let sql = self.sandbox.run(&[&["setup", "sql"], args].concat()).expect(0).stdout;
        let file = self.sandbox.write("grants.sql", &sql);
        for _ in 0..2 {
            let mut psql = self.cluster.program("psql");
            psql.args(["-qX", "-v", "ON_ERROR_STOP=1", "--single-transaction", "-f"]).arg(&file);
            stock(psql.arg(self.cluster.url(&self.database)));
        }
    }

    #[track_caller]
    fn runs(&self, args: &[&str]) -> String {
        self.sandbox.run(args).expect(0).stdout
    }

    fn sql(&self, sql: &str) -> String {
        self.cluster.sql(&self.database, sql)
    }
}

#[test]
fn nothing_is_done_without_grants_and_all_of_it_with_them_in_every_version() {
    for major in [14, 15, 16, 17, 18] {
        let cluster = Cluster::start(&other_major(major), &[], &[]);
        let site = Site::new(&cluster, "");
        site.grant(&["--for", "backup"]);
        // There is no package with just the programs of version 14.
        if cluster.bin_dir.join("pg_dump").exists() {
            site.runs(&["backup"]);
            site.runs(&["verify-backup"]);
        }
        site.sandbox.run(&["cleanup-sessions"]).ends_with(1);
        site.grant(&["--for", "health-check"]);
        // All that is asked of the server is answered, whether it is good news or not.
        let health =
            site.sandbox.run(&["health-check", "--json", "--tag", "postgres", "--profile", "full"]);
        let health: Value = serde_json::from_str(&health.stdout).unwrap();
        let checks = health["checks"].as_array().unwrap();
        let lacks = |check: &&Value| check.to_string().contains("needs ");
        assert!(checks.len() > 15 && !checks.iter().any(|check| lacks(&check)), "{health:#}");
        // The doctor knows what is missing yet, and by what.
        let doctor = [
            "doctor", "--skip", "cron", "--skip", "notices", "--skip", "space", "--skip",
            "programs",
        ];
        let said = site.sandbox.run(&doctor).expect(3).stdout;
        for lacking in [
            "lacks UPDATE, DELETE on tokens",
            "lacks INSERT on events",
            "lacks UPDATE, DELETE on public.django_session",
            "may not maintain",
        ] {
            assert!(said.contains(lacking), "{lacking}: {said}");
        }
        site.grant(&["--for", "cleanup-sessions"]);
        site.runs(&["cleanup-sessions", "--first-run"]);
        assert_eq!(
            site.sql("SELECT count(*) FROM tokens WHERE expires_at < now() - interval '1 minute'"),
            "0"
        );
        assert_eq!(site.sql("SELECT count(*) FROM django_session WHERE expire_date < now() - interval '1 minute'"), "0");
        assert_eq!(site.sql("SELECT count(*) FROM events"), "1");
        site.runs(&[
            "cleanup-sessions",
            "revoke",
            "--user",
            "1",
            "--force-password-reset",
            "--yes",
            "23",
        ]);
        site.grant(&["--for", "archive-audit"]);
        site.runs(&["archive-audit"]);
        site.runs(&["archive-audit", "verify", "--with-table"]);
        site.grant(&["--for", "db-maintain"]);
        // Version 14 counts a while after the fact.
        eventually("there is something to do", || {
            site.runs(&["db-maintain", "plan"]).contains("bloated").then_some(())
        });
        site.runs(&["db-maintain"]);
        let vacuumed = "SELECT count(*) FROM pg_stat_user_tables WHERE relname = 'bloated' AND last_vacuum IS NOT NULL";
        eventually("it is vacuumed", || (site.sql(vacuumed) == "1").then_some(()));
        let said = site.sandbox.run(&doctor).expect(0).stdout;
        assert!(!["lacks", "may not", "sees no"].iter().any(|bad| said.contains(bad)), "{said}");
        // The roles are what was asked for, and no more: it can neither make roles nor read what no purpose reads.
        let attributes =
            "SELECT rolsuper::text || rolcreaterole || rolcreatedb FROM pg_roles WHERE rolname = ";
        assert_eq!(site.sql(&format!("{attributes}'{}'", site.role)), "falsefalsefalse");
    }
}

#[test]
fn a_role_for_restores_makes_a_database_and_gives_it_to_its_owners() {
    for major in [15, 16, 17, 18] {
        let cluster = Cluster::start(&other_major(major), &[], &[]);
        let site = Site::new(&cluster, "");
        site.grant(&["--for", "backup", "--for", "restore"]);
        site.runs(&["backup"]);
        site.runs(&["restore", "--create", "copy"]);
        assert_eq!(cluster.sql("copy", "SELECT count(*) FROM members"), "50");
        let owner = "SELECT relowner::regrole FROM pg_class WHERE relname = 'members'";
        assert_eq!(cluster.sql("copy", owner), format!("app_{}", site.database));
    }
}

#[test]
fn the_history_has_a_schema_that_is_made_for_it_and_partitions_need_their_owner() {
    let cluster = Cluster::start(&other_major(17), &[], &[]);
    let site = Site::new(&cluster, "");
    let url = cluster.url(&site.database).replace("user=postgres", &format!("user={}", site.role));
    let more = format!("partitions = \"drop\"\n[history]\nurl = \"{url}\"\n");
    site.sandbox.write("opsctl.toml", &format!("{CONFIGURATION}{more}"));
    // All that the configuration uses.
    site.grant(&[]);
    site.runs(&["archive-audit"]);
    site.runs(&["db-maintain", "--dry-run"]);
    assert_ne!(site.sql("SELECT count(*) FROM opsctl.run"), "0");
    let dry = site.sandbox.command(&["archive-audit", "--dry-run"]);
    let mut dry = by_another_clock(&dry, "+8d");
    let run = Run::of(dry.env("NO_FAKE_STAT", "1")).expect(0);
    assert!(run.stdout.contains("public.march: would drop it, with 20 rows"), "{run:#?}");
}

#[test]
fn what_cannot_be_a_role_is_refused() {
    let sandbox = Sandbox::new("postgresql:///x?user=ops");
    for name in ["", "pg_ops", &"x".repeat(49)] {
        sandbox.run(&["setup", "sql", "--role", name]).ends_with(2);
    }
    let run = sandbox.run(&["setup", "sql", "--role", "it's \"me\" \\"]).expect(0);
    assert!(run.stdout.contains(r#"CREATE ROLE "it's ""me"" \" LOGIN"#), "{run:#?}");
}

const DROP: &str = "[[audit]]\ntable = \"audit_logs\"\ndatabase = \"one\"\ntime_column = \"at\"\nlocation = \"archive\"\n\
                    signing_key = \"key\"\ndelete = \"after-verify\"\npartitions = \"drop\"\n";

#[test]
fn ownership_is_given_where_it_is_needed_and_nowhere_else() {
    let cluster = Cluster::start(&other_major(16), &[], &[]);
    let table = "CREATE TABLE audit_logs (id bigint, at timestamptz, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)";
    cluster
        .sql("postgres", "CREATE ROLE boss; CREATE ROLE ops LOGIN; CREATE ROLE member IN ROLE ops");
    cluster.sql("postgres", "CREATE DATABASE one");
    cluster.sql("one", &format!("{table}; ALTER TABLE audit_logs OWNER TO ops"));
    cluster.sql("postgres", "CREATE DATABASE two");
    cluster.sql("two", &format!("{table}; ALTER TABLE audit_logs OWNER TO boss"));
    let sandbox = Sandbox::new("");
    let databases = ["one", "two"].map(|name| {
        format!(
            "[databases.{name}]\nurl = \"{}\"\n",
            cluster.url(name).replace("user=postgres", "user=ops")
        )
    });
    sandbox.write("opsctl.toml", &format!("{}{DROP}", databases.concat()));
    let sql = sandbox.run(&["setup", "sql", "--for", "archive-audit"]).expect(0).stdout;
    let file = sandbox.write("grants.sql", &sql);
    let run = |database: &str| {
        let mut psql = cluster.program("psql");
        psql.args(["-qX", "-v", "ON_ERROR_STOP=1", "--single-transaction", "-f"]).arg(&file);
        stock(psql.arg(cluster.url(database)));
    };
    // In one it is the owner, in two the table is another one.
    run("one");
    run("two");
    assert_eq!(cluster.sql("two", "SELECT pg_has_role('ops', 'boss', 'MEMBER')"), "f");
    // The owner is a member of the login, which cannot be one of it in turn: that is said, and the rest is granted.
    cluster.sql("one", "ALTER TABLE audit_logs OWNER TO member");
    run("one");
    cluster.sql("one", "ALTER TABLE audit_logs OWNER TO boss");
    run("one");
    assert_eq!(cluster.sql("one", "SELECT pg_has_role('ops', 'boss', 'MEMBER')"), "t");
}

#[test]
fn a_name_that_is_a_line_of_sql_stays_a_name() {
    let sandbox = Sandbox::new("postgresql://ops@h/x%0ACREATE%20ROLE%20evil%20SUPERUSER%3B");
    let sql = sandbox.run(&["setup", "sql"]).expect(0).stdout;
    assert!(!sql.lines().any(|line| line.trim_start().starts_with("CREATE ROLE evil")), "{sql}");
    sandbox.run(&["setup", "sql", "--role", "x\ny"]).ends_with(2);
}

#[test]
fn the_doctor_names_what_is_lacking_also_in_a_schema_that_is_closed() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let role = format!("closed_{database}");
    cluster.sql(
        &database,
        &format!(
            "CREATE ROLE {role} LOGIN; CREATE SCHEMA private; CREATE TABLE private.logs (id int); \
             CREATE TABLE audit_logs (id int); GRANT SELECT, UPDATE, DELETE ON audit_logs TO {role}"
        ),
    );
    let sandbox =
        Sandbox::new(&cluster.url(&database).replace("user=postgres", &format!("user={role}")));
    stock(
        Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(sandbox.path("key")),
    );
    let closed = "[[audit]]\ntable = \"private.logs\"\ntime_column = \"at\"\nlocation = \"other\"\nsigning_key = \"key\"\n";
    sandbox.write("opsctl.toml", &format!("{}{closed}", DROP.replace("database = \"one\"\n", "")));
    let said = sandbox.run(&["doctor", "--skip", "cron"]).expect(3).stdout;
    for lacking in [
        "lacks USAGE on the schema, SELECT on private.logs",
        "lacks membership in the owner on audit_logs",
    ] {
        assert!(said.contains(lacking), "{lacking}: {said}");
    }
    cluster.sql(&database, &format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}
