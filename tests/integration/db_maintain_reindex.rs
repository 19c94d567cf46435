//! `opsctl db-maintain --reindex`: bloated indexes are built anew, and nothing is left of what did not come to its end.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::running::{Running, eventually};
use crate::support::sessions::{Site, Somebody};

/// An index of which most is waste, and one of somebody else that is invalid.
const BLOATED: &str = "
    CREATE TABLE orders (id int, x int); CREATE INDEX orders_id ON orders (id);
    CREATE TABLE foreign_work (id int); CREATE INDEX theirs ON foreign_work (id); CREATE INDEX theirs_ccnew ON foreign_work (id);
    INSERT INTO orders SELECT n, n FROM generate_series(1, 200000) n";

const CONFIGURATION: &str = "[maintain]\nreindex = true\nreindex_min_megabytes = 1\n";

fn site() -> Site {
    let site = Site::new(BLOATED, CONFIGURATION);
    for sql in [
        "VACUUM ANALYZE orders, foreign_work",
        "DELETE FROM orders WHERE id % 10 <> 0",
        "VACUUM ANALYZE orders",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'theirs_ccnew'::regclass",
    ] {
        site.sql(sql);
    }
    site
}

fn maintain(site: &Site, status: i32) -> Value {
    site.sandbox.json(status, &["db-maintain"])["databases"][0].clone()
}

fn bytes(site: &Site) -> u64 {
    site.sql("SELECT pg_relation_size('orders_id')").parse().unwrap()
}

/// Returns the invalid indexes.
fn invalid(site: &Site) -> String {
    site.sql("SELECT coalesce(string_agg(indexrelid::regclass::text, ' ' ORDER BY indexrelid::regclass::text), '') FROM pg_index WHERE NOT indisvalid")
}

/// Starts a run whose REINDEX waits for somebody, in the middle.
fn in_the_middle(site: &Site) -> (Somebody, Running) {
    let somebody = site.somebody("INSERT INTO orders VALUES (1, 1)");
    let running = Running::start(&site.sandbox, &["db-maintain", "--jobs", "1"]);
    eventually("the new index is there", || {
        assert!(!running.is_over(), "the run did not wait");
        invalid(site).contains("orders_id_ccnew").then_some(())
    });
    (somebody, running)
}

#[test]
fn a_bloated_index_is_built_anew_once_and_a_plan_only_says_so() {
    let site = site();
    let before = bytes(&site);
    site.sandbox.write("opsctl.toml", "[maintain]\nreindex_min_megabytes = 1\n");
    let part = maintain(&site, 0);
    assert!(part["advice"].to_string().contains("REINDEX INDEX CONCURRENTLY"), "{part:#}");
    assert_eq!(bytes(&site), before);
    site.sandbox.write("opsctl.toml", CONFIGURATION);
    let part = maintain(&site, 0);
    assert_eq!(part["reindexed"], 1, "{part:#}");
    let sizes = &part["indexes"]["public.orders_id"];
    assert_eq!(
        (&sizes["bytes_before"], &sizes["bytes_after"]),
        (&before.into(), &bytes(&site).into())
    );
    assert!(bytes(&site) * 2 < before && part["reclaimed_bytes"].as_u64().unwrap() > 0, "{part:#}");
    let part = maintain(&site, 0);
    assert_eq!(part["reindexed"], 0, "{part:#}");
    assert_eq!(invalid(&site), "theirs_ccnew");
}

#[test]
fn ended_in_the_middle_it_removes_what_it_began() {
    let site = site();
    let (somebody, running) = in_the_middle(&site);
    running.signal(Signal::TERM);
    eventually("its statement is cancelled", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'REINDEX%'";
        (site.sql(sql) == "0").then_some(())
    });
    drop(somebody);
    let run = running.end().expect(143);
    assert_eq!(invalid(&site), "theirs_ccnew", "{run:#?}");
    assert_eq!(maintain(&site, 0)["reindexed"], 1);
    assert_eq!(invalid(&site), "theirs_ccnew");
}

#[test]
fn killed_in_the_middle_the_next_run_removes_what_it_began_and_nothing_of_others() {
    let site = site();
    let (somebody, running) = in_the_middle(&site);
    running.signal(Signal::KILL);
    let _run = running.end().expect(137);
    // The server notices by itself that nobody is there any more.
    site.wait_for_its_end();
    assert_eq!(invalid(&site), "orders_id_ccnew theirs_ccnew");
    drop(somebody);
    let part = maintain(&site, 0);
    assert_eq!((&part["removed"], &part["reindexed"]), (&1.into(), &1.into()), "{part:#}");
    assert_eq!(invalid(&site), "theirs_ccnew");
}

#[test]
fn for_a_transaction_that_is_open_for_long_nothing_is_begun() {
    let site = site();
    site.sandbox.write("opsctl.toml", &format!("{CONFIGURATION}lock_timeout = \"1s\"\n"));
    // Sixteen seconds are more than fifteen times the lock timeout.
    let somebody = site.somebody("INSERT INTO foreign_work VALUES (1)");
    eventually("it is open for long", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'somebody' AND datname = current_database() \
                   AND xact_start < now() - interval '16 s'";
        (site.sql(sql) == "1").then_some(())
    });
    let part = maintain(&site, 0);
    assert!(part["done"].to_string().contains("a transaction is open for"), "{part:#}");
    assert_eq!(invalid(&site), "theirs_ccnew");
    drop(somebody);
}

#[test]
fn when_the_application_becomes_slower_what_runs_is_cancelled() {
    let site = site();
    // It is slower while an index is being built.
    let probe = "SELECT pg_sleep(CASE WHEN EXISTS (SELECT FROM pg_stat_progress_create_index \
                 WHERE datname = current_database()) THEN 0.12 ELSE 0.03 END)";
    site.sandbox.write("opsctl.toml", &format!("{CONFIGURATION}probe = \"{probe}\"\n"));
    let (somebody, running) = in_the_middle(&site);
    eventually("its statement is cancelled", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'REINDEX%'";
        (site.sql(sql) == "0").then_some(())
    });
    drop(somebody);
    let run = running.end().expect(3);
    assert!(run.stdout.contains("stopped before the end: the probe takes"), "{run:#?}");
    assert_eq!(invalid(&site), "theirs_ccnew", "{run:#?}");
}
