//! Each check of a PostgreSQL server goes from ok to warning to critical, and to unknown, on a real server that is made sick.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Child, Stdio};

use crate::support::running::{by_another_clock, eventually};
use crate::support::{Cluster, Run, Sandbox, installed, other_major};

/// A program with a session that stays open, as long as this lives.
pub(crate) struct Session {
    program: Child,
    name: String,
}

impl Session {
    /// Opens one that is called `name`, and does `sql` in it without waiting for its end.
    pub(crate) fn open(cluster: &Cluster, database: &str, name: &str, sql: &str) -> Session {
        Session::of("postgres", cluster, database, name, sql)
    }

    /// The same of a role.
    pub(crate) fn of(
        role: &str,
        cluster: &Cluster,
        database: &str,
        name: &str,
        sql: &str,
    ) -> Session {
        let mut command = cluster.program("psql");
        command.args(["-XAtq", "-d", database]).env("PGAPPNAME", name).env("PGUSER", role);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let psql = command.spawn().unwrap();
        let mut session = Session { program: psql, name: name.to_owned() };
        session.does(sql);
        session
    }

    pub(crate) fn does(&mut self, sql: &str) {
        writeln!(self.program.stdin.as_mut().unwrap(), "{sql};").unwrap();
    }

    /// Waits until the server says of it what is wanted.
    pub(crate) fn until(self, cluster: &Cluster, condition: &str) -> Session {
        let sql = format!(
            "SELECT pid FROM pg_stat_activity WHERE application_name = '{}' AND {condition}",
            self.name
        );
        let found = || Some(cluster.sql("postgres", &sql)).filter(|pid| !pid.is_empty());
        eventually(condition, found);
        self
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.program.kill().ok();
        self.program.wait().ok();
    }
}

/// A server, and what opsctl says of it.
pub(crate) struct Patient {
    pub(crate) sandbox: Sandbox,
    pub(crate) database: String,
}

impl Patient {
    pub(crate) fn new(cluster: &Cluster, database: &str) -> Patient {
        Patient { sandbox: Sandbox::new(&cluster.url(database)), database: database.to_owned() }
    }

    /// Returns how a check stands with these limits, and what it says.
    pub(crate) fn check(&self, kind: &str, limits: &str) -> (String, String) {
        self.sandbox.write("opsctl.toml", &format!("[health.{kind}]\n{limits}\n"));
        let run = self.sandbox.run(&["health-check", "--only", kind, "--json"]);
        let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        let check = &report["checks"][0];
        assert_eq!(check["name"], format!("{kind}/{}", self.database), "{report:#}");
        let status = check["status"].as_str().unwrap();
        let expected = ["ok", "warning", "critical", "unknown"];
        assert_eq!(expected[usize::try_from(run.status).unwrap()], status);
        (status.to_owned(), check["message"].as_str().unwrap().to_owned())
    }

    /// Asserts how it stands, and that it says so.
    #[track_caller]
    pub(crate) fn is(&self, kind: &str, limits: &str, status: &str, says: &str) {
        let found = self.check(kind, limits);
        assert!(found.0 == status && found.1.contains(says), "{kind} with {limits}: {found:?}");
    }

    /// Asserts that it gets worse and worse as the limits get tighter.
    #[track_caller]
    pub(crate) fn worsens(&self, kind: &str, says: &str) {
        self.is(kind, "warning = 1e18\ncritical = 1e18", "ok", says);
        self.is(kind, "warning = 0\ncritical = 1e18", "warning", says);
        self.is(kind, "warning = 0\ncritical = 0", "critical", says);
    }
}

#[test]
fn sessions_that_wait_hold_and_take_too_long() {
    let cluster = Cluster::start(&installed(), &["-c", "max_connections=20"], &[]);
    let patient = Patient::new(&cluster, "postgres");
    for (kind, says) in [
        ("connections", "1 of 17 connections are used (6 %)"),
        ("idle-in-transaction", "no session is idle in a transaction"),
        ("longest-query", "no query is running"),
        ("lock-waits", "nobody waits for a lock"),
        ("xmin-horizon", "nobody holds VACUUM back"),
    ] {
        patient.is(kind, "", "ok", says);
    }
    cluster.sql("postgres", "CREATE TABLE t (id serial, secret text)");
    let idle = Session::open(
        &cluster,
        "postgres",
        "idler",
        "BEGIN ISOLATION LEVEL REPEATABLE READ; LOCK TABLE t; SELECT 'hush' FROM t",
    )
    .until(&cluster, "state = 'idle in transaction'");
    patient.worsens("idle-in-transaction", "(idler) has been idle in a transaction for ");
    for _ in 0..9 {
        cluster.sql("postgres", "SELECT txid_current()");
    }
    patient.is(
        "xmin-horizon",
        "warning = 5",
        "warning",
        "of postgres (idler), idle in transaction",
    );
    patient.is("xmin-horizon", "warning = 2\ncritical = 5", "critical", "(idler)");
    drop(idle);
    // Who has no snapshot but has written holds it back as well.
    let idle = Session::open(
        &cluster,
        "postgres",
        "idler",
        "BEGIN; LOCK TABLE t; INSERT INTO t DEFAULT VALUES; SELECT 'hush' FROM t",
    )
    .until(&cluster, "state = 'idle in transaction' AND backend_xmin IS NULL");
    for _ in 0..9 {
        cluster.sql("postgres", "SELECT txid_current()");
    }
    patient.is(
        "xmin-horizon",
        "warning = 5",
        "warning",
        "of postgres (idler), idle in transaction",
    );

    let waiting = Session::open(&cluster, "postgres", "waiter", "UPDATE t SET secret = 'hush'")
        .until(&cluster, "wait_event_type = 'Lock'");
    patient.worsens("lock-waits", "(waiter) has waited for a lock for ");
    let (_, says) = patient.check("lock-waits", "");
    let blocker = format!(
        "behind pid {} of postgres (idler), idle in transaction, ",
        cluster
            .sql("postgres", "SELECT pid FROM pg_stat_activity WHERE application_name = 'idler'")
    );
    assert!(says.contains(&blocker) && says.contains("SELECT ? FROM t"), "{says}");
    patient.worsens("longest-query", "(waiter)");

    // Everything else is answered while the table is locked, and nobody's data is shown.
    let run =
        patient.sandbox.run(&["health-check", "--tag", "postgres", "--verbose", "--timeout", "5s"]);
    assert!(!run.stdout.contains("hush") && !run.stdout.contains("UNKNOWN"), "{run:#?}");
    // Another queue, which is longer and not as old, has a blocker of its own.
    cluster.sql("postgres", "CREATE TABLE other (id int)");
    let other = Session::open(&cluster, "postgres", "other", "BEGIN; LOCK TABLE other")
        .until(&cluster, "state = 'idle in transaction'");
    let queue: Vec<Session> = (0..2)
        .map(|n| {
            Session::open(&cluster, "postgres", &format!("queue{n}"), "TABLE other")
                .until(&cluster, "wait_event_type = 'Lock'")
        })
        .collect();
    patient.is("lock-waits", "", "ok", &blocker);
    drop((waiting, idle));
    eventually("the other queue is left", || {
        Some(()).filter(|()| patient.check("lock-waits", "").1.contains("of postgres (other)"))
    });
    drop((queue, other));

    let many: Vec<Session> = (0..13)
        .map(|n| {
            Session::open(&cluster, "postgres", &format!("many{n}"), "SELECT 1")
                .until(&cluster, "state = 'idle'")
        })
        .collect();
    patient.is("connections", "", "warning", "14 of 17 connections are used (82 %)");
    let more: Vec<Session> = (0..3)
        .map(|n| {
            Session::open(&cluster, "postgres", &format!("more{n}"), "SELECT 1")
                .until(&cluster, "state = 'idle'")
        })
        .collect();
    patient.is("connections", "", "critical", "17 of 17 connections are used (100 %)");
    // The superuser still gets in, the application does not.
    cluster.sql("postgres", "CREATE ROLE app LOGIN");
    let last =
        Session::open(&cluster, "postgres", "last", "SELECT 1").until(&cluster, "state = 'idle'");
    let url = cluster.url("postgres").replace("user=postgres", "user=app");
    let run = Sandbox::new(&url).run(&["health-check", "--profile", "smoke"]).expect(2);
    assert!(run.stdout.contains("remaining connection slots are reserved"), "{run:#?}");
    drop((many, more, last));
}

#[test]
fn numbers_that_run_out() {
    let cluster = Cluster::start(&installed(), &["-c", "max_prepared_transactions=5"], &[]);
    let patient = Patient::new(&cluster, "postgres");
    cluster.sql("postgres", "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    patient.worsens("xid-age", "transaction numbers since its last freeze");
    patient.is("multixact-age", "warning = 0", "ok", "has used 0 multixact numbers");
    let share = "BEGIN; SELECT * FROM t FOR KEY SHARE";
    let sessions = ["one", "two"].map(|name| {
        Session::open(&cluster, "postgres", name, share)
            .until(&cluster, "state = 'idle in transaction'")
    });
    patient.worsens("multixact-age", "multixact numbers");
    drop(sessions);

    patient.is("prepared-transactions", "", "ok", "there is no prepared transaction");
    cluster.sql("postgres", "BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'forgotten'");
    patient.worsens("prepared-transactions", "`forgotten` of postgres in `postgres`");
    for _ in 0..9 {
        cluster.sql("postgres", "SELECT txid_current()");
    }
    patient.is(
        "xmin-horizon",
        "warning = 5",
        "warning",
        "prepared transaction `forgotten` of postgres",
    );

    patient.is("sequences", "", "ok", "there is no sequence");
    cluster.sql("postgres", "CREATE TABLE s (a int GENERATED ALWAYS AS IDENTITY, b bigserial, c smallint DEFAULT nextval('plain'));".replace("c smallint DEFAULT nextval('plain')", "c smallint").as_str());
    cluster.sql(
        "postgres",
        "CREATE SEQUENCE plain; ALTER TABLE s ALTER c SET DEFAULT nextval('plain')",
    );
    cluster
        .sql("postgres", "CREATE SEQUENCE turns AS smallint CYCLE; SELECT setval('turns', 32767)");
    patient.is("sequences", "", "ok", "none of 3 sequences has been used");
    cluster.sql(
        "postgres",
        "SELECT setval('s_a_seq', 1073741823); SELECT setval('s_b_seq', 2000000000)",
    );
    patient.is(
        "sequences",
        "",
        "ok",
        "`public.s_a_seq`, for public.s.a, is at 1073741823 of 2147483647 (50.00 %)",
    );
    // The sequence itself is a bigint; the column is not.
    cluster.sql("postgres", "SELECT setval('plain', 26000)");
    patient.is(
        "sequences",
        "",
        "warning",
        "`public.plain`, for public.s.c, is at 26000 of 32767 (79.3",
    );
    cluster.sql("postgres", "SELECT setval('plain', 32000)");
    patient.is("sequences", "", "critical", "is at 32000 of 32767 (97.6");
    cluster.sql(
        "postgres",
        "CREATE SEQUENCE down AS int INCREMENT -1 MINVALUE -1000; SELECT setval('down', -999)",
    );
    patient.is("sequences", "", "critical", "`public.down` is at -999 of -1000 (99.");
    // Somebody changes one: the check gives up at once and says so.
    let _alters =
        Session::open(&cluster, "postgres", "alters", "BEGIN; ALTER SEQUENCE s_a_seq RESTART")
            .until(&cluster, "state = 'idle in transaction'");
    patient.is("sequences", "", "unknown", "canceling statement due to lock timeout");
}

#[test]
fn objects_that_are_broken() {
    let cluster = Cluster::start(&installed(), &[], &[]);
    let patient = Patient::new(&cluster, "postgres");
    patient.is("invalid-indexes", "", "ok", "every index is valid");
    cluster.sql("postgres", "CREATE TABLE t AS SELECT 1 AS id FROM generate_series(1, 2000); CREATE INDEX plain ON t (id)");
    cluster.sql(
        "postgres",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'plain'::regclass",
    );
    patient.is("invalid-indexes", "", "warning", "index `public.plain` of `public.t` is invalid");
    let mut psql = cluster.program("psql");
    psql.args(["-Xqd", "postgres", "-c", "CREATE UNIQUE INDEX CONCURRENTLY twice ON t (id)"]);
    assert!(!psql.stderr(Stdio::null()).status().unwrap().success());
    patient.is(
        "invalid-indexes",
        "",
        "critical",
        "unique index `public.twice` of `public.t` is invalid, and 1 more",
    );

    patient.is("extensions", "", "ok", "every extension is of the version of its files");
    cluster.sql("postgres", "CREATE EXTENSION pg_stat_statements VERSION '1.4'");
    patient.is("extensions", "", "warning", "`pg_stat_statements` is 1.4, its files are of ");
    patient.is("extensions", "critical = 0", "critical", "`pg_stat_statements`");
    cluster.sql(
        "postgres",
        "UPDATE pg_extension SET extname = 'gone' WHERE extname = 'pg_stat_statements'",
    );
    patient.is("extensions", "", "warning", "`gone` is 1.4, and its files are missing");

    patient.is("checksum-failures", "", "ok", "the cluster has no checksums");
    let file = cluster.sql("postgres", "SELECT pg_relation_filepath('t')");
    cluster.pg_ctl(&["stop", "-w", "-m", "fast"]);
    let data = std::path::Path::new(&cluster.dir).join("data");
    let mut checksums = std::process::Command::new(cluster.bin_dir.join("pg_checksums"));
    checksums.args(["--enable", "--no-sync", "-D"]).arg(&data).stdout(Stdio::null());
    assert!(checksums.status().unwrap().success());
    cluster.start_again();
    patient.is("checksum-failures", "", "ok", "no page with a wrong checksum was read");
    cluster.pg_ctl(&["stop", "-w", "-m", "fast"]);
    let mut content = std::fs::read(data.join(&file)).unwrap();
    content[8000] ^= 1;
    std::fs::write(data.join(&file), content).unwrap();
    cluster.start_again();
    let mut psql = cluster.program("psql");
    psql.args(["-Xqd", "postgres", "-c", "SELECT count(*) FROM t"]).stderr(Stdio::null());
    assert!(!psql.status().unwrap().success());
    let failures = || Some(()).filter(|()| patient.check("checksum-failures", "").0 == "critical");
    eventually("the failure in the statistics", failures);
    patient.is("checksum-failures", "", "critical", "1 pages with a wrong checksum were read");
    patient.is("checksum-failures", "warning = 0\ncritical = 5", "warning", "in postgres (1)");
}

#[test]
fn the_server_and_the_way_to_it() {
    let cluster = Cluster::shared();
    let patient = Patient::new(cluster, "postgres");
    patient.worsens("connect", ", a primary, answered after ");
    patient.is("clock-skew", "", "ok", "the server's clock is 0.0 s ");
    for (by, status, says) in [("-10s", 1, "s ahead of"), ("+1m", 2, " behind ")] {
        let command = patient.sandbox.command(&["health-check", "--only", "clock-skew"]);
        let run = Run::of(&mut by_another_clock(&command, by)).expect(status);
        assert!(run.stdout.contains(says), "{run:#?}");
    }
    let version = cluster.sql("postgres", "SHOW server_version");
    let version = version.split(' ').next().unwrap();
    patient.is("minor-version", "warning = 1000", "ok", version);
    patient.is("minor-version", "warning = -1", "warning", version);
    patient.is("minor-version", "critical = -1", "critical", version);
    let late = ["health-check", "--only", "minor-version", "--now", "2040-01-01T00:00:00Z"];
    let run = patient.sandbox.run(&late).expect(2);
    assert!(run.stdout.contains("has had no more fixes since "), "{run:#?}");

    let dead = Patient {
        sandbox: Sandbox::new("postgresql:///postgres?host=/nowhere"),
        database: "postgres".to_owned(),
    };
    dead.is("connect", "", "critical", "failed to reach");
    let list = dead.sandbox.json(0, &["health-check", "list", "--tag", "postgres"]);
    for check in list["checks"].as_array().unwrap() {
        let kind = check["kind"].as_str().unwrap();
        // Nobody looks for a certificate behind a socket.
        if !["connect", "server-certificate"].contains(&kind) {
            dead.is(kind, "", "unknown", "failed to reach");
        }
    }
}

#[test]
fn an_index_that_is_being_built_is_not_broken() {
    let cluster = Cluster::start(&installed(), &[], &[]);
    cluster.sql(
        "postgres",
        "CREATE TABLE t (id int PRIMARY KEY, name text UNIQUE); CREATE ROLE nobody_much LOGIN",
    );
    let writer = Session::open(&cluster, "postgres", "writer", "BEGIN; INSERT INTO t VALUES (1)")
        .until(&cluster, "state = 'idle in transaction'");
    // It makes all new indexes first, those of the long values, too, and waits for who writes.
    let builder = Session::open(&cluster, "postgres", "builder", "REINDEX TABLE CONCURRENTLY t")
        .until(&cluster, "wait_event_type = 'Lock'");
    let invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid AND indisunique";
    assert_eq!(cluster.sql("postgres", invalid), "3");
    let patient = Patient::new(&cluster, "postgres");
    patient.is("invalid-indexes", "", "ok", "every index is valid");
    let url = cluster.url("postgres").replace("user=postgres", "user=nobody_much");
    let stranger = Patient { sandbox: Sandbox::new(&url), database: "postgres".to_owned() };
    stranger.is("invalid-indexes", "", "unknown", "needs GRANT pg_monitor");
    let end =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'builder'";
    cluster.sql("postgres", end);
    eventually("its end", || {
        Some(()).filter(|()| patient.check("invalid-indexes", "").0 == "critical")
    });
    drop((builder, writer));
}

#[test]
fn thousands_of_sequences_are_not_locked_at_once() {
    let cluster = Cluster::start(&installed(), &["-c", "max_connections=10"], &[]);
    for schema in 0..10 {
        let many = format!(
            "DO $$ BEGIN FOR n IN 1..500 LOOP EXECUTE format('CREATE SEQUENCE s%s_{schema}', n); END LOOP; END $$"
        );
        cluster.sql("postgres", &many);
    }
    let patient = Patient::new(&cluster, "postgres");
    patient.is("sequences", "", "ok", "none of 5000 sequences has been used");
    cluster.sql("postgres", "CREATE TABLE t (id int); ALTER SEQUENCE s7_0 OWNED BY t.id; SELECT setval('s7_0', 2000000000)");
    patient.is(
        "sequences",
        "",
        "critical",
        "`public.s7_0`, for public.t.id, is at 2000000000 of 2147483647",
    );
}

#[test]
fn little_is_needed_and_what_is_missing_is_said() {
    let cluster = Cluster::start(&installed(), &[], &[]);
    cluster.sql(
        "postgres",
        "CREATE ROLE monitor LOGIN; GRANT pg_monitor TO monitor; CREATE ROLE nobody_much LOGIN",
    );
    let sandbox_of = |role: &str| {
        Sandbox::new(&cluster.url("postgres").replace("user=postgres", &format!("user={role}")))
    };
    let run = sandbox_of("monitor")
        .run(&["health-check", "--tag", "postgres", "--skip", "minor-version"])
        .expect(0);
    assert!(run.stdout.starts_with("OK: 18 ok"), "{run:#?}");
    cluster.sql("postgres", "CREATE TABLE t (id serial)");
    let run = sandbox_of("monitor")
        .run(&["health-check", "--tag", "postgres", "--skip", "minor-version"])
        .expect(3);
    assert!(
        run.stdout.contains(
            "role `monitor` may not see 1 of 1 sequences: needs GRANT pg_read_all_data TO \"monitor\""
        ),
        "{run:#?}"
    );
    cluster.sql("postgres", "GRANT pg_read_all_data TO monitor");
    sandbox_of("monitor")
        .run(&["health-check", "--tag", "postgres", "--skip", "minor-version"])
        .ends_with(0);
    let run = sandbox_of("nobody_much").run(&["health-check", "--tag", "postgres"]).expect(3);
    assert!(
        run.stdout.contains(
            "role `nobody_much` may not see it: needs GRANT pg_monitor TO \"nobody_much\""
        ),
        "{run:#?}"
    );
}

#[test]
fn every_major_is_understood() {
    for major in [16, 17, 18] {
        let cluster = Cluster::start(&other_major(major), &[], &[]);
        let patient = Patient::new(&cluster, "postgres");
        let run = patient
            .sandbox
            .run(&["health-check", "--verbose", "--tag", "postgres", "--skip", "minor-version"])
            .expect(0);
        assert!(run.stdout.contains("OK: 18 ok"), "PostgreSQL {major}: {run:#?}");
        let holder = Session::open(
            &cluster,
            "postgres",
            "holder",
            "CREATE TABLE t (id int); BEGIN; LOCK TABLE t",
        )
        .until(&cluster, "state = 'idle in transaction'");
        let waiter = Session::open(&cluster, "postgres", "waiter", "TABLE t")
            .until(&cluster, "wait_event_type = 'Lock'");
        patient.worsens("lock-waits", "(waiter) has waited for a lock");
        drop((holder, waiter));
    }
}

#[test]
fn the_certificate_of_the_server_itself() {
    let cluster = Cluster::start(&installed(), &[], &[]);
    let data = std::path::Path::new(&cluster.dir).join("data");
    let renew = |days: &str| {
        let mut openssl = std::process::Command::new("openssl");
        openssl.args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=db.example.com",
            "-days",
            days,
        ]);
        openssl.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
        openssl
            .arg("-keyout")
            .arg(data.join("server.key"))
            .arg("-out")
            .arg(data.join("server.crt"));
        assert!(openssl.stderr(Stdio::null()).status().unwrap().success());
        std::fs::set_permissions(data.join("server.key"), PermissionsExt::from_mode(0o600))
            .unwrap();
        let owner = MetadataExt::uid(&data.metadata().unwrap());
        std::os::unix::fs::chown(data.join("server.key"), Some(owner), None).unwrap();
        cluster.sql("postgres", "ALTER SYSTEM SET ssl = on");
        cluster.sql("postgres", "SELECT pg_reload_conf()");
        std::fs::read_to_string(data.join("server.crt")).unwrap()
    };
    Patient::new(&cluster, "postgres").is(
        "server-certificate",
        "",
        "ok",
        "there is no certificate",
    );
    let url = |options: &str| {
        format!("postgresql://postgres@127.0.0.1:{}/postgres?{options}", cluster.port)
    };
    let patient = |options: &str| Patient {
        sandbox: Sandbox::new(&url(options)),
        database: "postgres".to_owned(),
    };
    let becomes = |options: &str, status: &str, says: &str| {
        let patient = patient(options);
        eventually(says, || {
            let (found, message) = patient.check("server-certificate", "");
            Some(()).filter(|()| found == status && message.contains(says))
        });
    };
    for (days, status, says) in [
        ("400", "ok", "expires in 400 days"),
        ("20", "warning", "expires in 20 days"),
        ("3", "critical", "expires in 3 days"),
    ] {
        renew(days);
        becomes("sslmode=require", status, says);
    }
    let roots = cluster.dir.clone() + "/root.crt";
    std::fs::write(&roots, renew("400")).unwrap();
    becomes(&format!("sslmode=verify-full&sslrootcert={roots}"), "ok", "expires in 400 days");
    renew("400");
    becomes(&format!("sslmode=verify-full&sslrootcert={roots}"), "critical", "not trusted");
    cluster.pg_ctl(&["stop", "-w", "-m", "fast"]);
    patient("sslmode=require").is("server-certificate", "", "unknown", "refused");
}
