//! Each check of a PostgreSQL server goes from ok to warning to critical, and to unknown, on a real server that is made sick.

use std::io::Write as _;
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime};

use crate::support::running::{by_another_clock, eventually};
use crate::support::{Cluster, Run, Sandbox, installed, other_major};

/// A session that stays open, as long as this lives.
struct Session {
    psql: Child,
    name: String,
}

impl Session {
    /// Opens one that is called `name`, and does `sql` in it without waiting for its end.
    fn open(cluster: &Cluster, database: &str, name: &str, sql: &str) -> Session {
        let mut command = cluster.program("psql");
        command.args(["-XAtq", "-d", database]).env("PGAPPNAME", name);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let psql = command.spawn().unwrap();
        let mut session = Session { psql, name: name.to_owned() };
        session.does(sql);
        session
    }

    fn does(&mut self, sql: &str) {
        writeln!(self.psql.stdin.as_mut().unwrap(), "{sql};").unwrap();
    }

    /// Waits until the server says of it what is wanted.
    fn until(self, cluster: &Cluster, condition: &str) -> Session {
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
        self.psql.kill().ok();
        self.psql.wait().ok();
    }
}

/// A server, and what opsctl says of it.
struct Patient {
    sandbox: Sandbox,
    database: String,
}

impl Patient {
    fn new(cluster: &Cluster, database: &str) -> Patient {
        Patient { sandbox: Sandbox::new(&cluster.url(database)), database: database.to_owned() }
    }

    /// Returns how a check stands with these limits, and what it says.
    fn check(&self, kind: &str, limits: &str) -> (String, String) {
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
    fn is(&self, kind: &str, limits: &str, status: &str, says: &str) {
        let found = self.check(kind, limits);
        assert!(found.0 == status && found.1.contains(says), "{kind} with {limits}: {found:?}");
    }

    /// Asserts that it gets worse and worse as the limits get tighter.
    #[track_caller]
    fn worsens(&self, kind: &str, says: &str) {
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
    drop((waiting, idle));

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
fn archiving_that_fails() {
    let cluster = Cluster::start(
        &installed(),
        &["-c", "archive_mode=on", "-c", "archive_command=false"],
        &[],
    );
    let patient = Patient::new(&cluster, "postgres");
    patient.is("archiver", "", "ok", "0 segments have been archived");
    cluster.sql("postgres", "SELECT txid_current(); SELECT pg_switch_wal()");
    eventually("the failure", || {
        Some(()).filter(|()| patient.check("archiver", "").0 == "warning")
    });
    patient.is("archiver", "", "warning", "archiving `0000000");
    patient.is("archiver", "critical = 0", "critical", "fails; nothing has been archived for ");
    cluster.sql("postgres", "ALTER SYSTEM SET archive_command = 'true'");
    cluster.sql("postgres", "SELECT pg_reload_conf(); SELECT pg_switch_wal()");
    // Asked with a limit that was just exceeded, it has recovered all the same.
    eventually("the recovery", || Some(()).filter(|()| patient.check("archiver", "").0 == "ok"));
}

#[test]
fn archiving_that_does_not_even_fail() {
    let cluster =
        Cluster::start(&installed(), &["-c", "archive_mode=on", "-c", "archive_command="], &[]);
    let patient = Patient::new(&cluster, "postgres");
    cluster.sql("postgres", "SELECT txid_current(); SELECT pg_switch_wal()");
    patient.is("archiver", "", "ok", "1 wait");
    let since = |minutes: u64| {
        let waiting = format!("{}/data/pg_wal/archive_status", cluster.dir);
        for entry in std::fs::read_dir(waiting).unwrap().flatten() {
            let file = std::fs::File::open(entry.path()).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(minutes * 60)).unwrap();
        }
    };
    since(2);
    patient.is("archiver", "", "warning", "1 segments wait, the oldest for 2 min");
    since(16);
    patient.is("archiver", "", "critical", "archiving does not go on");
}

#[test]
fn a_standby_that_has_replayed_nothing_does_not_know_how_old_it_is() {
    let primary = Cluster::start(&installed(), &[], &[]);
    primary.sql("postgres", "SELECT pg_create_physical_replication_slot('standby', true)");
    let standby = Cluster::standby(&primary, "standby");
    primary.sql("postgres", "CREATE TABLE t (id int)");
    primary.sql("postgres", "CHECKPOINT");
    let end = primary.sql("postgres", "SELECT pg_current_wal_flush_lsn()");
    eventually("the checkpoint", || {
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'");
        Some(()).filter(|()| standby.sql("postgres", &replayed) == "t")
    });
    standby.sql("postgres", "CHECKPOINT");
    primary.pg_ctl(&["stop", "-w", "-m", "immediate"]);
    standby.pg_ctl(&["stop", "-w", "-m", "fast"]);
    standby.start_again();
    let patient = Patient::new(&standby, "postgres");
    let says = "it receives nothing from its primary; how old what it shows is, nobody knows";
    patient.is("replication-lag", "", "unknown", says);
}

#[test]
fn a_standby_that_lags_stops_and_loses_its_slot() {
    let settings = [
        "-c",
        "wal_level=replica",
        "-c",
        "max_slot_wal_keep_size=1MB",
        "-c",
        "hot_standby_feedback=on",
    ];
    let primary = Cluster::start(&installed(), &settings, &[]);
    let patient = Patient::new(&primary, "postgres");
    patient.is("replication-lag", "", "ok", "no standby is connected");
    let mut backup = primary.program("pg_basebackup");
    backup.args(["--max-rate=32k", "--wal-method=none", "--checkpoint=fast", "--format=tar"]);
    backup.arg("--pgdata").arg(patient.sandbox.path("base")).stderr(Stdio::null());
    let mut backup = backup.spawn().unwrap();
    eventually("the base backup", || {
        let begun = "SELECT FROM pg_stat_replication WHERE state = 'backup'";
        Some(()).filter(|()| primary.sql("postgres", &format!("SELECT EXISTS ({begun})")) == "t")
    });
    patient.is("replication-lag", "", "ok", "no standby is connected");
    backup.kill().unwrap();
    backup.wait().unwrap();
    patient.is("replication-slots", "", "ok", "there is no replication slot");
    primary.sql(
        "postgres",
        "CREATE TABLE t (id int); SELECT pg_create_physical_replication_slot('standby', true)",
    );
    patient.is(
        "replication-slots",
        "",
        "warning",
        "physical slot `standby` is read by nobody and holds ",
    );

    let standby = Cluster::standby(&primary, "standby");
    let streams = || Some(()).filter(|()| patient.check("replication-slots", "").0 == "ok");
    eventually("the standby", streams);
    patient.is(
        "replication-lag",
        "",
        "ok",
        "1 standby connection connected, the slowest: `walreceiver`",
    );
    let other = Patient::new(&standby, "postgres");
    primary.sql("postgres", "INSERT INTO t VALUES (1)");
    eventually("the row", || {
        Some(()).filter(|()| standby.sql("postgres", "SELECT count(*) FROM t") == "1")
    });
    other.is("replication-lag", "", "ok", "what it shows is 0.0 s old");
    other.is("archiver", "", "ok", "WAL is not archived");
    let run = other
        .sandbox
        .run(&["health-check", "--tag", "postgres", "--skip", "minor-version"])
        .expect(0);
    assert!(run.stdout.starts_with("OK: 18 ok"), "{run:#?}");

    standby.sql("postgres", "SELECT pg_wal_replay_pause()");
    primary.sql("postgres", "INSERT INTO t VALUES (2)");
    let lags = |status: &'static str, limits: &'static str| {
        eventually(status, || {
            Some(()).filter(|()| other.check("replication-lag", limits).0 == status)
        });
    };
    lags("warning", "warning = 0\ncritical = 3600");
    lags("critical", "warning = 0\ncritical = 0");
    other.is("replication-lag", "warning = 0", "warning", "; its replay is paused");
    let behind =
        || Some(()).filter(|()| patient.check("replication-lag", "warning = 0").0 == "warning");
    eventually("the primary sees it", behind);
    standby.sql("postgres", "SELECT pg_wal_replay_resume()");

    standby.pg_ctl(&["stop", "-w", "-m", "fast"]);
    patient.is("replication-slots", "", "warning", "physical slot `standby` is read by nobody");
    patient.is("replication-lag", "", "ok", "no standby is connected");
    primary.sql("postgres", "INSERT INTO t VALUES (3); SELECT pg_switch_wal()");
    patient.is("replication-slots", "warning = 0\ncritical = 0", "critical", "slot `standby`");
    for _ in 0..3 {
        primary.sql("postgres", "INSERT INTO t VALUES (3); SELECT pg_switch_wal(); CHECKPOINT");
    }
    patient.is(
        "replication-slots",
        "",
        "critical",
        "physical slot `standby` is lost: whoever reads",
    );
    standby.start_again();
    // What it wants is gone; and then its primary as well.
    primary.pg_ctl(&["stop", "-w", "-m", "fast"]);
    other.is("replication-lag", "", "warning", "it receives nothing from its primary");
    other.is("replication-lag", "critical = 0", "critical", "it receives nothing from its primary");
    patient.is("replication-lag", "", "unknown", "failed to reach");
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
    let (status, says) = patient.check("minor-version", "");
    assert!(["ok", "warning"].contains(&status.as_str()), "{says}");
    assert!(
        says.contains(cluster.sql("postgres", "SHOW server_version").split(' ').next().unwrap()),
        "{says}"
    );

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
            "role `monitor` may not see 1 of 1 sequences: GRANT pg_read_all_data TO \"monitor\""
        ),
        "{run:#?}"
    );
    cluster.sql("postgres", "GRANT pg_read_all_data TO monitor");
    sandbox_of("monitor")
        .run(&["health-check", "--tag", "postgres", "--skip", "minor-version"])
        .ends_with(0);
    let run = sandbox_of("nobody_much").run(&["health-check", "--tag", "postgres"]).expect(3);
    assert!(
        run.stdout
            .contains("role `nobody_much` may not see it: GRANT pg_monitor TO \"nobody_much\""),
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
        std::fs::set_permissions(
            data.join("server.key"),
            std::os::unix::fs::PermissionsExt::from_mode(0o600),
        )
        .unwrap();
        let owner = std::os::unix::fs::MetadataExt::uid(&data.metadata().unwrap());
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
