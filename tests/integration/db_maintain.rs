//! `opsctl db-maintain`: what is planned and done on real servers, and what is left alone.

use serde_json::Value;

use crate::support::running::eventually;
use crate::support::sessions::Site;
use crate::support::{Cluster, Sandbox, other_major};

/// Returns the database's part of a plan.
fn plan(sandbox: &Sandbox, args: &[&str]) -> Value {
    sandbox.json(0, &[&["db-maintain", "plan"], args].concat())["databases"][0].clone()
}

/// Maintains, expects the status, and returns the database's part of the report.
fn maintain(sandbox: &Sandbox, status: i32, args: &[&str]) -> Value {
    sandbox.json(status, &[&["db-maintain"], args].concat())["databases"][0].clone()
}

/// Returns the statements of a plan that are about objects of `public`.
fn statements(part: &Value) -> Vec<String> {
    let steps = part["steps"].as_array().unwrap().iter();
    let own = steps.filter(|step| step["object"]["schema"] == "public");
    own.map(|step| step["sql"].as_str().unwrap().to_owned()).collect()
}

/// Makes an index that REINDEX CONCURRENTLY might have left.
fn invalidate(site: &Site, index: &str) {
    site.sql(&format!(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'public.\"{index}\"'::regclass"
    ));
}

fn indexes(site: &Site) -> String {
    site.sql("SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relkind = 'i' AND relnamespace = 'public'::regnamespace")
}

#[test]
fn a_standby_is_refused_and_reported_on() {
    let primary = Cluster::start(&crate::support::installed(), &["-c", "wal_level=replica"], &[]);
    primary.sql("postgres", "SELECT pg_create_physical_replication_slot('standby')");
    let standby = Cluster::standby(&primary, "standby");
    let sandbox = Sandbox::new(&standby.url("postgres"));
    let run = sandbox.run(&["db-maintain"]).expect(1);
    assert!(run.stderr.contains("this server is a standby"), "{run:#?}");
    sandbox.run(&["db-maintain", "plan"]).ends_with(1);
    let part = sandbox.json(0, &["db-maintain", "report"])["databases"][0].clone();
    assert_eq!(part["is_standby"], true, "{part:#}");
    let failed = part["findings"].to_string();
    assert!(!failed.contains("failed to ask"), "{part:#}");
}

const TABLES: &str = "
    CREATE TABLE quiet (id int PRIMARY KEY);
    CREATE TABLE usual (id int PRIMARY KEY, x int);
    CREATE TABLE strict (id int PRIMARY KEY, x int) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10);
    CREATE TABLE \"Odd \"\"name\" (id int);
    CREATE TABLE events (at int, x text) PARTITION BY RANGE (at);
    CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (1000);
    CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (1000) TO (5000);
    INSERT INTO quiet SELECT generate_series(1, 1000);
    INSERT INTO usual SELECT n, n FROM generate_series(1, 10000) n;
    INSERT INTO strict SELECT n, n FROM generate_series(1, 10000) n;
    INSERT INTO \"Odd \"\"name\" SELECT generate_series(1, 100);
    INSERT INTO events SELECT n, 'x' FROM generate_series(1, 4000) n";

/// An index of which most is waste, and what a rebuild left of another.
const BLOATED: [&str; 5] = [
    "SET ROLE owner; CREATE TABLE orders (id int, x int); INSERT INTO orders SELECT n, n FROM generate_series(1, 100000) n; \
     CREATE INDEX orders_id ON orders (id); CREATE INDEX orders_x ON orders (x); CREATE INDEX orders_x_ccnew ON orders (x)",
    "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'orders_x_ccnew'::regclass",
    "DELETE FROM orders WHERE id % 10 <> 0",
    "VACUUM ANALYZE orders",
    "REINDEX INDEX orders_x",
];

/// Brings the statistics to where only dead rows of `strict`, `Odd "name` and the partitioned table are left.
fn settle(cluster: &Cluster, database: &str) {
    for sql in [
        "VACUUM",
        "VACUUM ANALYZE quiet, usual, strict, events_1, events_2",
        "UPDATE usual SET x = x + 1 WHERE id <= 200",
        "UPDATE strict SET x = x + 1 WHERE id <= 200",
    ] {
        // A session counts what it did when it ends, after its client has gone.
        eventually("the sessions before have ended", || {
            let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'");
            (cluster.sql("postgres", &sql) == "0").then_some(())
        });
        cluster.sql(database, sql);
    }
}

#[test]
fn every_version_is_planned_for_and_maintained_by_whoever_may() {
    for major in [14, 15, 16, 17, 18] {
        let cluster = Cluster::start(&other_major(major), &[], &[]);
        let database = cluster.database();
        cluster.sql(
            "postgres",
            "CREATE ROLE owner LOGIN; CREATE ROLE watcher LOGIN IN ROLE pg_monitor; CREATE ROLE stranger LOGIN",
        );
        cluster.sql(
            &database,
            &format!("GRANT CREATE ON SCHEMA public TO owner; SET ROLE owner; {TABLES}"),
        );
        for sql in BLOATED {
            cluster.sql(&database, sql);
        }
        settle(&cluster, &database);
        let as_role = |role: &str| {
            Sandbox::new(&cluster.url(&database).replace("user=postgres", &format!("user={role}")))
        };
        let unknown = |part: &Value| part["unknown"].to_string();
        let is_expected = |part: &Value| {
            let found = statements(part);
            let of = |what: &&str| found.iter().any(|sql| sql.contains(what));
            ["\"strict\"", "\"Odd \"\"name\"", "\"events\""].iter().all(of)
                && !["\"quiet\"", "\"usual\"", "\"events_1\""].iter().any(of)
        };
        // Version 14 counts a while after the fact.
        let part = eventually("the statistics are those of the tables", || {
            let part = plan(&Sandbox::new(&cluster.url(&database)), &[]);
            is_expected(&part).then_some(part)
        });
        assert_eq!(
            part["unknown"].as_array().unwrap().len(),
            1,
            "autovacuum is off here: {part:#}"
        );
        let part = plan(&as_role("owner"), &[]);
        assert!(is_expected(&part), "{major}: {part:#}");
        assert!(unknown(&part).contains("needs GRANT pg_monitor TO"), "{part:#}");
        for role in ["watcher", "stranger"] {
            let part = plan(&as_role(role), &[]);
            assert_eq!(statements(&part), Vec::<String>::new(), "{major} {role}");
            assert!(
                unknown(&part).contains("needs the owner of the table"),
                "{major} {role}: {part:#}"
            );
            assert_eq!(unknown(&part).contains("pg_monitor"), role == "stranger");
        }
        let owner = as_role("owner");
        owner.write("opsctl.toml", "[maintain]\nreindex_min_megabytes = 1\n");
        // Now nobody knows how long the invalid one has been there, later it was seen before.
        let part = maintain(&owner, 0, &["--reindex", "--now", "2026-11-26T00:30:00Z"]);
        assert_eq!((&part["failed"], &part["locked"]), (&0.into(), &0.into()), "{major}: {part:#}");
        assert!(part["done"].as_array().unwrap().len() >= 3, "{major}: {part:#}");
        assert_eq!((&part["reindexed"], &part["removed"]), (&1.into(), &0.into()), "{part:#}");
        let part = maintain(&owner, 0, &["--now", "2026-11-26T01:30:00Z"]);
        assert_eq!((&part["failed"], &part["removed"]), (&0.into(), &1.into()), "{part:#}");
        eventually("nothing is left to do", || {
            statements(&plan(&owner, &[])).is_empty().then_some(())
        });
        let part = maintain(&Sandbox::new(&cluster.url(&database)), 0, &[]);
        assert_eq!(part["failed"], 0, "{major}: {part:#}");
    }
}

#[test]
fn a_plan_is_shown_as_a_table_or_as_sql_that_runs() {
    let site = Site::new(TABLES, "");
    settle(site.cluster, &site.database);
    let text =
        site.sandbox.run(&["db-maintain", "plan", "--only", "public.strict"]).expect(0).stdout;
    assert!(
        text.contains("VACUUM  public.strict") && text.contains("times its own threshold"),
        "{text}"
    );
    let sql = site.sandbox.run(&["db-maintain", "--dry-run", "--format", "sql"]).expect(0).stdout;
    let file = site.sandbox.write("plan.sql", &sql);
    crate::support::stock(
        site.cluster
            .program("psql")
            .args(["-Xqv", "ON_ERROR_STOP=1", "-d", &site.database, "-f"])
            .arg(file),
    );
    eventually("nothing is left to do", || {
        statements(&plan(&site.sandbox, &[])).is_empty().then_some(())
    });
    let run = site.sandbox.run(&["db-maintain", "--only", "nowhere"]).expect(2);
    assert!(run.stderr.contains("there is no table `nowhere`"), "{run:#?}");
    let document: Value = serde_json::from_str(
        &site.sandbox.run(&["db-maintain", "plan", "--format", "json"]).expect(0).stdout,
    )
    .unwrap();
    assert_eq!(document["command"], "db-maintain plan");
}

#[test]
fn tables_near_wraparound_come_first_with_the_cause_of_what_holds_them_back() {
    let cluster = Cluster::start(
        &crate::support::installed(),
        &[
            "-c",
            "autovacuum_freeze_max_age=100000",
            "-c",
            "vacuum_freeze_table_age=50000",
            "-c",
            "max_prepared_transactions=2",
        ],
        &[],
    );
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE old AS SELECT 1 AS id; CREATE TABLE dead (id int)");
    cluster.sql(&database, "INSERT INTO dead SELECT generate_series(1, 1000)");
    let age =
        "DO $$ BEGIN FOR n IN 1..60000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$";
    cluster.sql(&database, age);
    let sandbox = Sandbox::new(&cluster.url(&database));
    let part = plan(&sandbox, &[]);
    let classes: Vec<&str> = part["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["class"].as_str().unwrap())
        .collect();
    assert_eq!(classes[0], "wraparound", "{part:#}");
    assert!(classes.is_sorted_by_key(|class| *class != "wraparound"), "{classes:?}");
    maintain(&sandbox, 0, &[]);
    let part = plan(&sandbox, &[]);
    assert!(!part["steps"].to_string().contains("wraparound"), "{part:#}");
    // Somebody holds it back: to read everything would be in vain.
    let prepared = "BEGIN; CREATE TABLE held (id int); SELECT pg_current_xact_id(); PREPARE TRANSACTION 'forgotten'";
    cluster.sql(&database, prepared);
    cluster.sql(&database, age);
    let part = plan(&sandbox, &[]);
    assert!(!part["steps"].to_string().contains("wraparound"), "{part:#}");
    assert!(part["advice"].to_string().contains("prepared transaction `forgotten`"), "{part:#}");
    cluster.sql(&database, "ROLLBACK PREPARED 'forgotten'");
}

#[test]
fn of_invalid_indexes_only_what_a_rebuild_left_goes_and_no_valid_one_whatever_its_name() {
    let long = "i".repeat(57);
    let site = Site::new(
        &format!(
            "CREATE TABLE orders (id int, x int, y int, z int);
            CREATE INDEX orders_ccnew ON orders (id);
            CREATE INDEX orders_x ON orders (x); CREATE INDEX orders_x_ccnew1 ON orders (x);
            CREATE INDEX orders_y ON orders (y); CREATE INDEX orders_y_ccold ON orders (y);
            CREATE INDEX {long}ab ON orders (x, y); CREATE INDEX {long}_ccnew ON orders (x, y);
            CREATE INDEX orders_z_ccnew ON orders (z);
            CREATE INDEX by_hand ON orders (x);
            CREATE INDEX orders_other_ccnew ON orders (x DESC);
            CREATE UNIQUE INDEX orders_nulls ON orders (y); CREATE UNIQUE INDEX orders_nulls_ccnew ON orders (y) NULLS NOT DISTINCT"
        ),
        "",
    );
    let left: Vec<String> = [
        "orders_x_ccnew1",
        "orders_y_ccold",
        "orders_z_ccnew",
        "by_hand",
        "orders_other_ccnew",
        "orders_nulls_ccnew",
    ]
    .iter()
    .map(|name| (*name).to_owned())
    .chain([format!("{long}_ccnew")])
    .collect();
    for index in &left {
        invalidate(&site, index);
    }
    let at = |time: &str| maintain(&site.sandbox, 0, &["--now", time]);
    // Nobody knows how long they have been there.
    let part = at("2026-11-26T00:30:00Z");
    assert_eq!(part["removed"], 0, "{part:#}");
    assert!(part["advice"].to_string().contains("it is seen for the first time"), "{part:#}");
    let part = at("2026-11-26T01:00:00Z");
    assert_eq!(part["removed"], 0, "{part:#}");
    // Somebody is at work on the table.
    let somebody = site.somebody("LOCK orders IN SHARE UPDATE EXCLUSIVE MODE");
    assert_eq!(at("2026-11-26T01:40:00Z")["removed"], 0);
    drop(somebody);
    site.wait_for_its_end();
    let part = eventually("nobody is at work", || {
        let part = at("2026-11-26T01:50:00Z");
        (part["removed"] != 0).then_some(part)
    });
    assert_eq!(part["removed"], 3, "{part:#}");
    let stay = [
        "by_hand",
        "orders_ccnew",
        "orders_nulls",
        "orders_nulls_ccnew",
        "orders_other_ccnew",
        "orders_x",
        "orders_y",
        "orders_z_ccnew",
    ];
    let mut stay: Vec<String> = stay.map(str::to_owned).to_vec();
    stay.push(format!("{long}ab"));
    stay.sort();
    assert_eq!(indexes(&site), stay.join(" "));
    // What stays is said, with the statement.
    assert!(
        part["advice"]
            .to_string()
            .contains("DROP INDEX CONCURRENTLY \\\"public\\\".\\\"by_hand\\\""),
        "{part:#}"
    );
}

#[test]
fn what_is_locked_is_left_and_a_waiting_alter_table_hangs_nothing() {
    let site = Site::new(TABLES, "[maintain]\nlock_timeout = \"1s\"\n");
    settle(site.cluster, &site.database);
    let reader = site.somebody("SELECT FROM strict LIMIT 1");
    let mut alter = site.cluster.program("psql");
    alter.args(["-Xq", "-d", &site.database, "-c", "ALTER TABLE strict ADD COLUMN more int"]);
    let mut alter = alter.spawn().unwrap();
    eventually("ALTER TABLE waits", || {
        let sql =
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'strict'::regclass";
        (site.sql(sql) == "1").then_some(())
    });
    let began = std::time::Instant::now();
    plan(&site.sandbox, &[]);
    let part = maintain(&site.sandbox, 0, &["--reindex"]);
    assert!(began.elapsed().as_secs() < 20, "{part:#}");
    assert_eq!(part["locked"], 1, "{part:#}");
    assert!(
        part["vacuumed"].as_u64().unwrap() + part["analyzed"].as_u64().unwrap() >= 2,
        "{part:#}"
    );
    drop(reader);
    assert!(alter.wait().unwrap().success());
    assert_eq!(maintain(&site.sandbox, 0, &[])["locked"], 0);
}
