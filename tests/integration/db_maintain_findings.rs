//! `opsctl db-maintain report`: each kind of finding on a real server, beside what is as it should be; how things grow; many tables,
//! and many databases.

use crate::db_maintain_report::{all, evidence, objects, report, validate};
use crate::support::running::eventually;
use crate::support::sessions::{Site, Somebody};
use crate::support::{Cluster, Sandbox, installed};

#[test]
fn dead_rows_are_compared_with_each_tables_own_threshold() {
    let site = Site::new(
        "CREATE TABLE few (id int); CREATE TABLE more (id int); CREATE TABLE many (id int);
         CREATE TABLE patient (id int) WITH (autovacuum_vacuum_threshold = 5000);
         CREATE TABLE off (id int) WITH (autovacuum_enabled = false); CREATE TABLE \"on\" (id int) WITH (autovacuum_enabled = true);
         INSERT INTO few SELECT generate_series(1, 1000); INSERT INTO more SELECT generate_series(1, 1000);
         INSERT INTO many SELECT generate_series(1, 1000); INSERT INTO patient SELECT generate_series(1, 1000)",
        "",
    );
    site.sql("VACUUM ANALYZE");
    // The threshold of a table of a thousand rows is 250.
    for (table, times) in
        [("few", 0.2), ("more", 1.0), ("patient", 1.0), ("many", 1.0), ("many", 1.0)]
    {
        site.sql(&format!("UPDATE {table} SET id = id WHERE id <= 1000 * {times}"));
    }
    let part = eventually("it is counted", || {
        let part = report(&site.sandbox);
        let own =
            all(&part, "dead-rows").into_iter().filter(|object| object.starts_with("public."));
        (own.count() == 2).then_some(part)
    });
    assert!(objects(&part, "dead-rows", "warning").contains(&"public.many".to_owned()), "{part:#}");
    assert!(objects(&part, "dead-rows", "note").contains(&"public.more".to_owned()), "{part:#}");
    assert!(
        evidence(&part, "public.many").contains("8.0 times its own threshold of 250"),
        "{part:#}"
    );
    assert_eq!(objects(&part, "autovacuum-switched-off", "warning"), ["public.off"], "{part:#}");
}

#[test]
fn waste_is_an_estimate_and_room_that_was_asked_for_is_none() {
    let site = Site::new(
        "CREATE TABLE gone AS SELECT n AS a, n AS b, n AS c, n AS d, n AS e, n AS f, n AS g FROM generate_series(1::bigint, 800000) n;
         CREATE TABLE full_ AS SELECT * FROM gone; CREATE TABLE loose (LIKE gone) WITH (fillfactor = 30);
         INSERT INTO loose SELECT * FROM gone WHERE a <= 250000;
         CREATE INDEX gone_a ON gone (a); CREATE INDEX full_a ON full_ (a); CREATE TABLE strange (x text); ",
        "[maintain]\nreindex_min_megabytes = 2\n",
    );
    site.sql("DELETE FROM gone WHERE a % 5 <> 0");
    site.sql("VACUUM ANALYZE gone, full_, loose");
    let part = report(&site.sandbox);
    assert_eq!(all(&part, "bloat-estimate"), ["public.gone", "public.gone_a"], "{part:#}");
    assert!(
        evidence(&part, "public.gone").starts_with("an estimate, perhaps far off: 8"),
        "{part:#}"
    );
}

#[test]
fn invalid_indexes_are_told_apart_by_whose_they_are() {
    let site = Site::new(
        "CREATE TABLE t (id int); CREATE INDEX t_id ON t (id); CREATE INDEX t_id_ccnew ON t (id); CREATE INDEX by_hand ON t (id DESC);
         UPDATE pg_index SET indisvalid = false WHERE indexrelid IN ('t_id_ccnew'::regclass, 'by_hand'::regclass)",
        "",
    );
    let part = report(&site.sandbox);
    assert_eq!(objects(&part, "invalid-index", "warning"), ["public.by_hand", "public.t_id_ccnew"]);
    assert!(
        evidence(&part, "public.by_hand").contains("failed CREATE INDEX CONCURRENTLY"),
        "{part:#}"
    );
    let _somebody = site.somebody("LOCK t IN SHARE UPDATE EXCLUSIVE MODE");
    let part = report(&site.sandbox);
    assert_eq!(objects(&part, "invalid-index", "note"), ["public.by_hand", "public.t_id_ccnew"]);
}

#[test]
fn settings_that_lose_data_are_critical_and_what_is_as_it_should_be_is_not_said() {
    let cluster = Cluster::start(
        &installed(),
        &["-c", "work_mem=1GB", "-c", "fsync=on", "-c", "autovacuum=on", "-c", "lock_timeout=5s"],
        &[],
    );
    let part = report(&Sandbox::new(&cluster.url("postgres")));
    // The throwaway servers of these tests have no full_page_writes.
    assert_eq!(objects(&part, "setting", "critical"), ["full_page_writes"], "{part:#}");
    assert_eq!(objects(&part, "setting", "warning"), Vec::<String>::new(), "{part:#}");
    let notes = objects(&part, "setting", "note");
    assert!(
        notes.contains(&"work_mem".to_owned()) && !notes.contains(&"lock_timeout".to_owned()),
        "{notes:?}"
    );
    assert!(evidence(&part, "work_mem").contains("100 GB"), "{part:#}");
    cluster.sql("postgres", "ALTER SYSTEM SET full_page_writes = on");
    cluster.sql("postgres", "ALTER SYSTEM SET track_counts = off");
    cluster.sql("postgres", "SELECT pg_reload_conf()");
    eventually("the settings are in force", || {
        let part = report(&Sandbox::new(&cluster.url("postgres")));
        let (critical, warning) =
            (objects(&part, "setting", "critical"), objects(&part, "setting", "warning"));
        (critical.is_empty() && warning == ["track_counts"]).then_some(())
    });
}

#[test]
fn a_cache_that_is_too_small_is_seen_once_enough_was_read() {
    let site = Site::new(
        "CREATE TABLE large WITH (fillfactor = 10) AS SELECT n, repeat('x', 500) AS x FROM generate_series(1, 12000) n",
        "",
    );
    assert_eq!(all(&report(&site.sandbox), "cache-hit"), Vec::<String>::new());
    site.sql("DO $$ BEGIN FOR n IN 1..15 LOOP PERFORM count(*) FROM large; END LOOP; END $$");
    let part = eventually("it is counted", || {
        let part = report(&site.sandbox);
        (!all(&part, "cache-hit").is_empty()).then_some(part)
    });
    assert_eq!(objects(&part, "cache-hit", "warning"), ["shared_buffers"], "{part:#}");
}

#[test]
fn connections_that_run_out_are_a_warning_with_what_they_do() {
    let cluster = Cluster::start(&installed(), &["-c", "max_connections=10"], &[]);
    let sandbox = Sandbox::new(&cluster.url("postgres"));
    assert_eq!(all(&report(&sandbox), "connections"), Vec::<String>::new());
    let others: Vec<Somebody> =
        (0..5).map(|_| Somebody::begin(&cluster, "postgres", "SELECT 1")).collect();
    let part = eventually("all of them are there", || {
        let part = report(&sandbox);
        (!all(&part, "connections").is_empty()).then_some(part)
    });
    assert_eq!(objects(&part, "connections", "warning"), ["max_connections"], "{part:#}");
    assert!(evidence(&part, "max_connections").contains("6 of 7 are used (86 %)"), "{part:#}");
    assert!(evidence(&part, "max_connections").contains("5 idle in a transaction"), "{part:#}");
    drop(others);
}

#[test]
fn what_grew_for_days_is_projected_and_drawn() {
    let site = Site::new("CREATE TABLE grows (x text)", "");
    let mut rows = 0;
    for day in 1..=4 {
        site.sql("INSERT INTO grows SELECT repeat('x', 100) FROM generate_series(1, 20000)");
        site.sql("ANALYZE grows");
        rows += 20_000;
        site.sandbox
            .run(&["db-maintain", "report", "--now", &format!("2026-11-{:02}T06:00:00Z", 20 + day)])
            .ends_with(0);
    }
    let document =
        site.sandbox.json(0, &["db-maintain", "report", "--now", "2026-11-24T06:00:01Z"]);
    validate(&document.to_string());
    let table = &document["databases"][0]["tables"]["listed"][0];
    let (bytes, growth) = (table["bytes"].as_f64().unwrap(), &table["growth"]);
    let per_day = bytes / f64::from(rows) * 20_000.0;
    assert!((growth["per_day"].as_f64().unwrap() / per_day - 1.0).abs() < 0.05, "{table:#}");
    assert!(
        (growth["projected"].as_f64().unwrap() / (bytes + 90.0 * per_day) - 1.0).abs() < 0.05,
        "{table:#}"
    );
    let page = ["db-maintain", "report", "--format", "html", "--now", "2026-11-24T06:00:02Z"];
    let page = site.sandbox.run(&page).expect(0).stdout;
    assert!(page.contains("<polyline points=\"1.0,"), "{page}");
}

#[test]
fn a_database_that_is_not_there_keeps_no_other_from_being_reported_on() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let sandbox = Sandbox::new("");
    let url = |name: &str| cluster.url(name);
    sandbox.write(
        "opsctl.toml",
        &format!(
            "[databases.gone]\nurl = \"{}\"\n[databases.there]\nurl = \"{}\"\n",
            url("no_such_database"),
            url(&database)
        ),
    );
    let mut sandbox = sandbox;
    sandbox.unset("DATABASE_URL");
    let document = sandbox.json(12, &["db-maintain", "report"]);
    validate(&document.to_string());
    let databases = document["databases"].as_array().unwrap();
    assert_eq!(
        (&databases[0]["database"], &databases[0]["exit"]),
        (&"there".into(), &0.into()),
        "{document:#}"
    );
    assert_eq!(
        (&databases[1]["database"], &databases[1]["exit"]),
        (&"gone".into(), &12.into()),
        "{document:#}"
    );
    let page = sandbox.run(&["db-maintain", "report", "--format", "html"]).expect(12).stdout;
    assert!(page.contains("gone failed: ") && page.contains("<h2>there</h2>"), "{page}");
    let text = sandbox.run(&["db-maintain", "report"]).expect(12).stdout;
    assert!(text.contains("gone: FAILED: ") && text.contains("there: PostgreSQL"), "{text}");
    // The same holds for maintenance itself.
    let document = sandbox.json(12, &["db-maintain"]);
    assert_eq!(document["databases"][0]["exit"], 12, "{document:#}");
    assert_eq!(document["databases"][1]["exit"], 0, "{document:#}");
}

#[test]
fn of_thousands_of_tables_the_worst_are_listed_and_the_rest_is_counted() {
    let site = Site::new("", "");
    for thousand in 0..5 {
        site.sql(&format!(
            "DO $$ BEGIN FOR n IN {thousand}000..{thousand}999 LOOP EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, x int REFERENCES t%s)', n, n); \
             END LOOP; END $$"
        ));
    }
    site.sql("INSERT INTO t7 SELECT n, n FROM generate_series(1, 1000) n");
    let began = std::time::Instant::now();
    let part = report(&site.sandbox);
    assert_eq!(part["tables"]["total"], 5000, "{part:#}");
    let keys = part["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|topic| topic["name"] == "foreign-key-without-index");
    let keys = keys.unwrap();
    assert_eq!((&keys["total"], keys["listed"].as_array().unwrap().len()), (&5000.into(), 20));
    let page = site.sandbox.run(&["db-maintain", "report", "--format", "html"]).expect(0).stdout;
    assert!(page.len() < 500_000, "{}", page.len());
    let plan = site.sandbox.json(0, &["db-maintain", "plan"])["databases"][0].clone();
    assert!(
        plan["tables"].as_u64().unwrap() > 5000 && plan["planned"].as_u64().unwrap() < 20,
        "{plan:#}"
    );
    // With one question for each table it would be minutes.
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
}
