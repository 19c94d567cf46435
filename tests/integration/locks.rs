//! Two at once: runs that exclude each other, runs that do not, and others who lock tables meanwhile.

use std::process::{Child, Stdio};

use rustix::process::Signal;
use sha2::{Digest as _, Sha256};

use crate::support::patient::{Patient, check_log, errors};
use crate::support::running::{Gate, Running, eventually, send};
use crate::support::{Cluster, Sandbox};

/// Runs SQL in the background; it is over when it has done all of it.
fn background(patient: &Patient<'_>, sql: &[&str]) -> Child {
    let mut psql = patient.cluster.program("psql");
    psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", &patient.database]);
    for statement in sql {
        psql.args(["-c", statement]);
    }
    psql.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

/// Waits until somebody holds, or waits for, an exclusive lock on a table.
fn wait_for_lock(patient: &Patient<'_>, table: &str, is_granted: bool) {
    let granted = if is_granted { "granted" } else { "NOT granted" };
    let sql = format!(
        "SELECT count(*) FROM pg_locks WHERE relation = '{table}'::regclass AND mode = 'AccessExclusiveLock' AND {granted}"
    );
    let is_there = || {
        (patient
            .cluster
            .sql("postgres", &sql.replace(&format!("'{table}'::regclass"), &oid(patient, table)))
            == "1")
            .then_some(())
    };
    eventually("an exclusive lock", is_there);
}

fn oid(patient: &Patient<'_>, table: &str) -> String {
    // Not by name, which would wait for the lock.
    patient
        .cluster
        .sql(&patient.database, &format!("SELECT oid FROM pg_class WHERE relname = '{table}'"))
}

/// Begins a second backup while the first is before the gate.
#[track_caller]
fn second(other_host: bool, says: &str) {
    let mut patient = Patient::new(Cluster::shared());
    let gate = Gate::close(patient.cluster, &patient.database);
    let first = Running::start(&patient.sandbox, &["backup"]);
    gate.wait(&first);
    if other_host {
        let state = patient.sandbox.path("another-state");
        patient.sandbox.set("OPSCTL_STATE_DIR", state.to_str().unwrap());
    }
    let run = patient.sandbox.run(&["backup"]).expect(11);
    check_log(&run);
    assert!(matches!(&errors(&run)[..], [one] if one.contains(says)), "{run:#?}");
    if !other_host {
        assert!(run.stderr.contains(&format!("of process {})", first.pid)), "{run:#?}");
    }
    // Listing is for everybody, and shows the one in progress.
    let list = patient.sandbox.run(&["backup", "list"]).expect(0);
    assert!(list.stdout.contains("(in progress)"), "{list:#?}");
    gate.open();
    first.end().expect(0).silence();
    patient.check_afterwards(2);
}

#[test]
fn the_second_backup_on_a_host_is_refused_and_told_of_the_first() {
    second(false, "another run holds the lock");
}

#[test]
fn the_second_backup_on_another_host_is_refused_and_told_of_the_first() {
    second(true, "another host runs `opsctl backup` on");
}

/// Has two hosts begin at the same moment, again and again: each time one of them backs up.
fn two_hosts(rounds: usize) {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE members AS SELECT 1 AS id");
    let hosts = [(); 2].map(|()| Sandbox::new(&cluster.url(&database)));
    for _ in 0..rounds {
        let runs = hosts.each_ref().map(|host| Running::start(host, &["backup"]));
        let mut ends = runs.map(Running::end);
        ends.sort_by_key(|run| run.status);
        let [one, other] = ends;
        assert_eq!((one.status, other.status), (0, 11), "{one:#?} {other:#?}");
        assert!(other.stderr.contains("another host runs `opsctl backup` on"), "{other:#?}");
    }
    let exits = hosts.each_ref().map(|host| {
        let report = host.json(0, &["history"]);
        let runs = report["runs"].as_array().unwrap().clone();
        runs.iter().map(|run| run["exit"].as_u64().unwrap()).collect::<Vec<_>>()
    });
    let [here, there] = exits;
    assert_eq!((here.len(), there.len()), (rounds, rounds));
    for pair in here.into_iter().zip(there) {
        assert!(pair == (0, 11) || pair == (11, 0), "{pair:?}");
    }
}

#[test]
fn of_two_hosts_that_begin_at_the_same_moment_one_is_refused_a_hundred_times() {
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| two_hosts(10));
        }
    });
}

#[test]
fn two_hosts_do_not_restore_the_same_database_at_once() {
    let mut patient = Patient::new(Cluster::shared());
    let name = format!("{}_copy", patient.database);
    let restore = ["restore", "--create", &name];
    // Whoever restores it now holds this lock.
    let key = Sha256::digest(format!("opsctl:restore {name}"));
    let key = i64::from_be_bytes(key[..8].try_into().unwrap());
    let mut psql = patient.cluster.program("psql");
    psql.args(["-XAtq", "-d", "postgres", "-c", &format!("SELECT pg_advisory_lock({key})")]);
    let mut holder = psql.args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let locks = format!(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND (classid::int8 << 32) | objid::int8 = {key}"
    );
    eventually("the lock is taken", || {
        (patient.cluster.sql("postgres", &locks) == "1").then_some(())
    });
    let state = patient.sandbox.path("another-state");
    patient.sandbox.set("OPSCTL_STATE_DIR", state.to_str().unwrap());
    let run = patient.sandbox.run(&restore).expect(11);
    assert!(run.stderr.contains(&format!("another host runs `opsctl restore` on `{name}`")));
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    patient.sandbox.run(&restore).ends_with(0);
}

#[test]
fn backups_of_two_databases_do_not_disturb_each_other() {
    let mut patient = Patient::new(Cluster::shared());
    let gate = Gate::close(patient.cluster, &patient.database);
    let first = Running::start(&patient.sandbox, &["backup"]);
    gate.wait(&first);
    let other = patient.cluster.database();
    patient.sandbox.set("DATABASE_URL", patient.cluster.url(&other));
    patient.sandbox.run(&["backup"]).expect(0).silence();
    patient.sandbox.set("DATABASE_URL", patient.cluster.url(&patient.database));
    gate.open();
    first.end().expect(0).silence();
    patient.check_afterwards(2);
}

#[test]
fn the_locks_of_a_killed_run_go_with_it() {
    let patient = Patient::new(Cluster::shared());
    let gate = Gate::close(patient.cluster, &patient.database);
    let first = Running::start(&patient.sandbox, &["backup"]);
    gate.wait(&first);
    first.signal(Signal::KILL);
    first.end().expect(137).silence();
    // The copy of the killed run still stands before the gate, and pg_dump's: they hold no lock of ours.
    let next = Running::start(&patient.sandbox, &["backup"]);
    eventually("the next run comes as far", || {
        assert!(!next.is_over(), "the next run was refused");
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND application_name = 'opsctl backup' \
             AND wait_event = 'advisory'",
            patient.database
        );
        (patient.cluster.sql("postgres", &sql) == "2").then_some(())
    });
    gate.open();
    next.end().expect(0).silence();
    patient.check_afterwards(2);
}

#[test]
fn a_server_that_is_slow_to_notice_the_end_of_a_run_is_given_a_moment() {
    let patient = Patient::new(Cluster::shared());
    let gate = Gate::close(patient.cluster, &patient.database);
    let first = Running::start(&patient.sandbox, &["backup"]);
    gate.wait(&first);
    let holds = format!("datname = '{}' AND application_name = 'opsctl lock'", patient.database);
    let sql = |what: &str| {
        patient
            .cluster
            .sql("postgres", &format!("SELECT {what} FROM pg_stat_activity WHERE {holds}"))
    };
    let session: u32 = sql("pid").parse().unwrap();
    send(session, Signal::STOP);
    first.signal(Signal::KILL);
    first.end().expect(137).silence();
    gate.open();
    let next = Running::start(&patient.sandbox, &["backup"]);
    eventually("the next run has asked for the lock", || (sql("count(*)") != "1").then_some(()));
    send(session, Signal::CONT);
    next.end().expect(0).silence();
    patient.check_afterwards(2);
}

#[test]
fn a_table_that_somebody_waits_to_truncate_is_whole() {
    let patient = Patient::new(Cluster::shared());
    patient
        .cluster
        .sql(&patient.database, "CREATE TABLE later AS SELECT generate_series(1, 500) AS n");
    // Copied one after the other, the largest first: the gate, then this one.
    let gate = Gate::close(patient.cluster, &patient.database);
    let running = Running::start(&patient.sandbox, &["backup", "--jobs", "1", "-v"]);
    gate.wait(&running);
    let mut truncate = background(&patient, &["TRUNCATE later"]);
    wait_for_lock(&patient, "later", false);
    gate.open();
    let run = running.end().expect(0);
    assert!(run.stderr.contains("table public.later, it will be copied last"), "{run:#?}");
    assert!(truncate.wait().unwrap().success());
    assert_eq!(patient.cluster.sql(&patient.database, "SELECT count(*) FROM later"), "0");
    assert!(run.stdout.contains("6,500 rows"), "{run:#?}");
    patient.check_afterwards(2);
}

#[test]
fn a_table_that_somebody_waits_to_alter_is_whole_even_while_it_is_copied() {
    let patient = Patient::new(Cluster::shared());
    let gate = Gate::close(patient.cluster, &patient.database);
    let running = Running::start(&patient.sandbox, &["backup"]);
    gate.wait(&running);
    let mut alter = background(&patient, &["ALTER TABLE gate DROP COLUMN filler"]);
    wait_for_lock(&patient, "gate", false);
    gate.open();
    let run = running.end().expect(0);
    assert!(run.stdout.contains("6,000 rows"), "{run:#?}");
    assert!(alter.wait().unwrap().success());
    patient.check_afterwards(2);
}

#[test]
fn a_table_that_is_locked_at_the_beginning_is_waited_for() {
    let patient = Patient::new(Cluster::shared());
    let mut holder = background(&patient, &["BEGIN", "LOCK TABLE members", "\\! read _", "COMMIT"]);
    wait_for_lock(&patient, "members", true);
    let running = Running::start(&patient.sandbox, &["backup"]);
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND application_name = 'pg_dump' \
         AND wait_event_type = 'Lock'",
        patient.database
    );
    eventually("pg_dump waits", || (patient.cluster.sql("postgres", &sql) == "1").then_some(()));
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    let run = running.end().expect(0);
    assert!(run.stdout.contains("1,000 rows"), "{run:#?}");
    patient.check_afterwards(2);
}

#[test]
fn a_table_that_is_emptied_between_snapshot_and_lock_makes_the_backup_begin_again() {
    let patient = Patient::new(Cluster::shared());
    let statements = [
        "BEGIN",
        "TRUNCATE members",
        "INSERT INTO members VALUES (1, 'one')",
        "\\! read _",
        "COMMIT",
    ];
    let mut holder = background(&patient, &statements);
    wait_for_lock(&patient, "members", true);
    let running = Running::start(&patient.sandbox, &["backup"]);
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND application_name = 'pg_dump' \
         AND wait_event_type = 'Lock'",
        patient.database
    );
    eventually("pg_dump waits", || (patient.cluster.sql("postgres", &sql) == "1").then_some(()));
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    // What was there at the snapshot is gone for good, and an empty table would be a lie.
    let run = running.end().expect(0);
    check_log(&run);
    assert!(run.stderr.contains("beginning again"), "{run:#?}");
    assert!(run.stdout.contains("1 table, 1 row,"), "{run:#?}");
    patient.check_afterwards(2);
}
