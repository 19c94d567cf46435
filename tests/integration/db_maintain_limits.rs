//! `opsctl db-maintain`: when it stops, waits, or does not begin, because of replicas, WAL, the disk, or the application itself.

use std::fs::File;
use std::process::Stdio;

use serde_json::Value;

use crate::support::running::{Running, apart, eventually};
use crate::support::sessions::{Site, Somebody};
use crate::support::{Cluster, Run, Sandbox, installed, version};

/// Tables that need something, and an index of which most is waste.
const BUSY: [&str; 4] = [
    "CREATE TABLE strict (id int PRIMARY KEY, x int) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10); \
     CREATE TABLE orders (id int, x int); CREATE INDEX orders_id ON orders (id); \
     INSERT INTO strict SELECT n, n FROM generate_series(1, 1000) n; INSERT INTO orders SELECT n, n FROM generate_series(1, 200000) n",
    "VACUUM ANALYZE",
    "DELETE FROM orders WHERE id % 10 <> 0",
    "VACUUM ANALYZE orders",
];

const SMALL: &str = "[maintain]\nreindex = true\nreindex_min_megabytes = 1\n";

/// Makes the tables, and a sandbox for their database.
fn busy(cluster: &Cluster) -> (String, Sandbox) {
    let database = cluster.database();
    for sql in BUSY {
        cluster.sql(&database, sql);
    }
    let sandbox = Sandbox::new(&cluster.url(&database));
    (database, sandbox)
}

/// Makes `strict` need a VACUUM.
fn change(cluster: &Cluster, database: &str) {
    cluster.sql(database, "UPDATE strict SET x = x + 1 WHERE id <= 200");
}

/// Maintains, expects the status, and returns the database's part of the report.
#[track_caller]
fn maintain(sandbox: &Sandbox, status: i32) -> Value {
    sandbox.json(status, &["db-maintain"])["databases"][0].clone()
}

/// Returns what became of a step.
fn end<'v>(part: &'v Value, object: &str) -> &'v Value {
    let done = part["done"].as_array().unwrap().iter();
    done.into_iter().find(|done| done["object"] == object).unwrap_or_else(|| panic!("{part:#}"))
}

#[test]
fn a_slot_that_holds_wal_back_and_a_probe_that_fails_stop_it() {
    let cluster = Cluster::start(&installed(), &["-c", "wal_level=replica"], &[]);
    let (database, sandbox) = busy(&cluster);
    change(&cluster, &database);
    cluster.sql(&database, "SELECT pg_create_physical_replication_slot('idle', true)");
    cluster.sql(&database, "SELECT pg_logical_emit_message(false, 'x', repeat('x', 2000000))");
    sandbox.write("opsctl.toml", "[maintain]\nmax_retained_wal_megabytes = 1\n");
    let part = maintain(&sandbox, 3);
    assert_eq!(part["vacuumed"], 0, "{part:#}");
    assert!(part["error"].as_str().unwrap().contains("a replication slot holds"), "{part:#}");
    assert!(part["left"].as_u64().unwrap() >= 1, "{part:#}");
    cluster.sql(&database, "SELECT pg_drop_replication_slot('idle')");
    sandbox.write("opsctl.toml", "[maintain]\nprobe = \"SELECT FROM nowhere\"\n");
    let run = sandbox.run(&["db-maintain"]).expect(1);
    assert!(run.stderr.contains("run the probe"), "{run:#?}");
    sandbox.write("opsctl.toml", "");
    assert_eq!(maintain(&sandbox, 0)["left"], 0);
}

#[test]
fn for_a_replica_that_is_behind_nothing_is_done() {
    let primary = Cluster::start(&installed(), &["-c", "wal_level=replica"], &[]);
    primary.sql("postgres", "SELECT pg_create_physical_replication_slot('standby')");
    let (database, sandbox) = busy(&primary);
    let standby = Cluster::standby(&primary, "standby");
    standby.sql("postgres", "ALTER SYSTEM SET wal_receiver_status_interval = '1s'");
    standby.sql("postgres", "SELECT pg_reload_conf(), pg_wal_replay_pause()");
    change(&primary, &database);
    eventually("the standby is seen to be behind", || {
        primary.sql(&database, "SELECT pg_logical_emit_message(true, 'x', 'x')");
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE replay_lag > '3s'";
        (primary.sql("postgres", sql) == "1").then_some(())
    });
    sandbox.write("opsctl.toml", "[maintain]\nmax_replica_lag = \"2s\"\n");
    let part = maintain(&sandbox, 3);
    assert!(part["error"].as_str().unwrap().contains("a replica is"), "{part:#}");
    assert_eq!(end(&part, "public.strict")["end"], "left", "{part:#}");
    standby.sql("postgres", "SELECT pg_wal_replay_resume()");
    eventually("the standby has caught up", || {
        primary.sql(&database, "SELECT pg_logical_emit_message(true, 'x', 'x')");
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE replay_lag < '1s'";
        (primary.sql("postgres", sql) == "1").then_some(())
    });
    let part = maintain(&sandbox, 0);
    assert_eq!(end(&part, "public.strict")["end"], "done", "{part:#}");
}

#[test]
fn what_would_write_more_wal_than_is_left_is_not_begun() {
    let cluster = Cluster::start(&installed(), &[], &[]);
    let (database, sandbox) = busy(&cluster);
    sandbox.write("opsctl.toml", &format!("{SMALL}max_wal_megabytes = 1\n"));
    let part = maintain(&sandbox, 0);
    let why = end(&part, "public.orders_id")["why"].as_str().unwrap();
    assert!(why.contains("more WAL than is left"), "{part:#}");
    // Others use the budget up while it is at work: that comes to its end, and nothing more is begun.
    sandbox.write("opsctl.toml", &format!("{SMALL}max_wal_megabytes = 20\njobs = 1\n"));
    for sql in [
        "CREATE TABLE zoo AS SELECT n AS id FROM generate_series(1, 150000) n",
        "CREATE INDEX zoo_id ON zoo (id)",
        "DELETE FROM zoo WHERE id % 10 <> 0",
        "VACUUM ANALYZE zoo",
    ] {
        cluster.sql(&database, sql);
    }
    let somebody = Somebody::begin(&cluster, &database, "INSERT INTO orders VALUES (1, 1)");
    let running = Running::start(&sandbox, &["db-maintain"]);
    let active = |what: &str| {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'opsctl/db-maintain' AND {what}"
        );
        cluster.sql("postgres", &sql) != "0"
    };
    eventually("the index is being built", || {
        assert!(!running.is_over(), "the run did not wait");
        active("query LIKE 'REINDEX%' AND wait_event_type = 'Lock'").then_some(())
    });
    cluster.sql(&database, "SELECT pg_logical_emit_message(false, 'x', repeat('x', 30000000))");
    let written = cluster.sql("postgres", "SELECT clock_timestamp()");
    eventually("the WAL is looked at", || {
        active(&format!(
            "query LIKE '%pg_stat_replication%' AND state = 'idle' AND query_start > '{written}'"
        ))
        .then_some(())
    });
    drop(somebody);
    let run = running.end().expect(0);
    assert!(run.stdout.contains("stopped before the end: the server has written"), "{run:#?}");
    assert!(run.stdout.contains("1 built anew"), "{run:#?}");
    assert!(run.stdout.contains("left: it was stopped before"), "{run:#?}");
    sandbox.write("opsctl.toml", &format!("{SMALL}max_wal_megabytes = 1\n"));
    let part = sandbox.json(0, &["db-maintain", "--no-limits"])["databases"][0].clone();
    assert_eq!(end(&part, "public.zoo_id")["end"], "done", "{part:#}");
}

/// Uses so many transaction numbers up that everything is old.
fn age(cluster: &Cluster, database: &str) {
    let uses =
        "DO $$ BEGIN FOR n IN 1..60000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$";
    cluster.sql(database, uses);
}

#[test]
fn an_old_table_for_which_there_was_no_time_is_bad_news_and_frozen_without_limits() {
    let settings = ["autovacuum_freeze_max_age=100000", "vacuum_freeze_table_age=50000"];
    let settings = settings.map(|setting| ["-c", setting]).concat();
    let cluster = Cluster::start(
        &installed(),
        &[settings, vec!["-c", "max_prepared_transactions=1"]].concat(),
        &[],
    );
    let database = cluster.database();
    // At 100 MB a second, which is what a first run believes, it takes longer than a second.
    cluster.sql(
        &database,
        "CREATE TABLE big (x text); ALTER TABLE big ALTER x SET STORAGE PLAIN; \
         INSERT INTO big SELECT repeat('x', 7500) FROM generate_series(1, 14000); ANALYZE big",
    );
    age(&cluster, &database);
    let sandbox = Sandbox::new(&cluster.url(&database));
    let limits = "[health.xid-age]\nwarning = 40000\ncritical = ";
    let small = "[maintain]\nmax_time = \"1s\"\njobs = 1\n";
    sandbox.write("opsctl.toml", &format!("{small}{limits}1000000\n"));
    let part = maintain(&sandbox, 0);
    assert!(end(&part, "public.big")["why"].to_string().contains("`max_time`"), "{part:#}");
    assert_eq!(part["not_frozen"], serde_json::json!([]), "{part:#}");
    sandbox.write("opsctl.toml", &format!("{small}{limits}50000\n"));
    let run = sandbox.run(&["db-maintain"]).expect(3);
    let said = "  not frozen, and its age is critical: public.big, 60,";
    assert!(run.stdout.contains(said), "{run:#?}");
    let part = maintain(&sandbox, 3);
    assert_eq!(part["not_frozen"][0]["object"], "public.big", "{part:#}");
    assert!(part["error"].as_str().unwrap().contains("public.big is not frozen"), "{part:#}");
    let part = sandbox.json(0, &["db-maintain", "--no-limits"])["databases"][0].clone();
    assert_eq!(end(&part, "public.big")["end"], "done", "{part:#}");
    assert_eq!(part["not_frozen"], serde_json::json!([]), "{part:#}");
    let frozen = "SELECT age(relfrozenxid) < 100 FROM pg_class WHERE relname = 'big'";
    assert_eq!(cluster.sql(&database, frozen), "t");
    // What somebody holds back is no good news either.
    let prepared = "BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'forgotten'";
    cluster.sql(&database, prepared);
    age(&cluster, &database);
    let part = maintain(&sandbox, 3);
    let not_frozen = part["not_frozen"].to_string();
    assert!(not_frozen.contains("public.big"), "{part:#}");
    cluster.sql(&database, "ROLLBACK PREPARED 'forgotten'");
}

#[test]
fn where_there_is_no_room_for_a_second_index_none_is_built() {
    let cluster = Cluster::start(&installed(), &[], &[]);
    let (database, sandbox) = busy(&cluster);
    sandbox.write("opsctl.toml", SMALL);
    // Only this run sees that its disk is full.
    let full = format!("mount -t tmpfs -o size=1M opsctl-test {}/data/base", cluster.dir);
    let run = Run::of(&mut apart(&sandbox.command(&["db-maintain", "--json"]), &full)).expect(0);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    let part = &report["databases"][0];
    let why = end(part, "public.orders_id")["why"].as_str().unwrap();
    assert!(why.contains("1.00 MiB are free where it lies, too little beside"), "{part:#}");
    assert!(part["unknown"].to_string().find("room").is_none(), "{part:#}");
    cluster.sql(
        &database,
        "CREATE ROLE owner LOGIN; ALTER TABLE orders OWNER TO owner; GRANT CREATE ON SCHEMA public TO owner",
    );
    let owner = Sandbox::new(&cluster.url(&database).replace("user=postgres", "user=owner"));
    owner.write("opsctl.toml", SMALL);
    let part = maintain(&owner, 0);
    assert!(part["unknown"].to_string().contains("how much room is left"), "{part:#}");
    assert_eq!(end(&part, "public.orders_id")["end"], "done", "{part:#}");
}

#[test]
fn a_version_that_damages_indexes_builds_none() {
    let cluster = Cluster::start(&version("14.3"), &[], &[]);
    let (_database, sandbox) = busy(&cluster);
    sandbox.write("opsctl.toml", SMALL);
    let part = maintain(&sandbox, 0);
    assert_eq!(part["reindexed"], 0, "{part:#}");
    assert!(part["advice"].to_string().contains("PostgreSQL 14.3 damages indexes"), "{part:#}");
}

#[test]
fn while_the_application_is_slower_nothing_more_is_begun() {
    let site = Site::new("CREATE TABLE slow (x int)", "");
    for sql in BUSY {
        site.sql(sql);
    }
    site.sql("CREATE INDEX orders_x ON orders (x); INSERT INTO orders SELECT n, n FROM generate_series(1, 200000) n");
    for sql in
        ["VACUUM ANALYZE orders", "DELETE FROM orders WHERE id % 10 <> 0", "VACUUM ANALYZE orders"]
    {
        site.sql(sql);
    }
    let probe = "SELECT pg_sleep(CASE WHEN EXISTS (SELECT FROM slow) THEN 0.12 ELSE 0.03 END)";
    site.configure(&format!("{SMALL}jobs = 1\nlock_timeout = \"10s\"\nprobe = \"{probe}\"\n"));
    let somebody = site.somebody("INSERT INTO orders VALUES (1, 1)");
    let log = site.sandbox.path("log");
    let mut command = site.sandbox.command(&["db-maintain", "-v", "--only", "orders"]);
    let mut running =
        command.stderr(File::create(&log).unwrap()).stdout(Stdio::null()).spawn().unwrap();
    let said = |what: &str| eventually(what, || std::fs::read_to_string(&log).unwrap().find(what));
    eventually("an index is being built", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'REINDEX%' AND wait_event_type = 'Lock' AND datname = current_database()";
        (site.sql(sql) == "1").then_some(())
    });
    site.sql("INSERT INTO slow VALUES (1)");
    let waiting = said("waiting: the probe takes");
    drop(somebody);
    let first = said(": done in");
    site.sql("DELETE FROM slow");
    let on = said("going on");
    assert!(running.wait().unwrap().success());
    let log = std::fs::read_to_string(&log).unwrap();
    assert_eq!(log.matches(": done in").count(), 2, "{log}");
    let second = log.rfind(": done in").unwrap();
    assert!(waiting < first && first < on && on < second, "{log}");
}
