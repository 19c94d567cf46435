//! `opsctl db-maintain --reindex`: bloated indexes are built anew, and nothing is left of what did not come to its end.

use std::io::Read as _;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::running::{Running, eventually, on_a_terminal};
use crate::support::sessions::{Site, Somebody};
use crate::support::{Cluster, Sandbox, other_major};

const CONFIGURATION: &str = "[maintain]\nreindex = true\nreindex_min_megabytes = 1\n";

/// An index of which most is waste.
const BLOATED_ORDERS: [&str; 4] = [
    "CREATE TABLE orders (id int, x int); CREATE INDEX orders_id ON orders (id); INSERT INTO orders SELECT n, n FROM generate_series(1, 200000) n",
    "VACUUM ANALYZE orders",
    "DELETE FROM orders WHERE id % 10 <> 0",
    "VACUUM ANALYZE orders",
];

/// An index of which most is waste, and one of somebody else that is invalid.
fn site() -> Site {
    let site = Site::new(
        "CREATE TABLE foreign_work (id int); CREATE INDEX theirs ON foreign_work (id); CREATE INDEX theirs_ccnew ON foreign_work (id)",
        CONFIGURATION,
    );
    for sql in BLOATED_ORDERS {
        site.sql(sql);
    }
    for sql in [
        "VACUUM ANALYZE foreign_work",
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

#[test]
fn what_was_begun_is_known_by_a_history_on_a_server_to_another_container() {
    let mut site = site();
    let history = site.cluster.database();
    site.sandbox.set("OPSCTL_HISTORY_URL", site.cluster.url(&history));
    let (somebody, running) = in_the_middle(&site);
    running.signal(Signal::KILL);
    let _run = running.end().expect(137);
    site.wait_for_its_end();
    drop(somebody);
    let state = site.sandbox.path("elsewhere").display().to_string();
    site.sandbox.set("OPSCTL_STATE_DIR", state);
    let part = maintain(&site, 0);
    assert_eq!((&part["removed"], &part["reindexed"]), (&1.into(), &1.into()), "{part:#}");
    let figures =
        site.sandbox.json(0, &["history", "--command", "db-maintain"])["runs"].to_string();
    assert!(figures.contains("indexes.public.orders_id.bytes_after"), "{figures}");
    assert_eq!(invalid(&site), "theirs_ccnew");
}

#[test]
fn a_function_of_an_index_that_needs_another_search_path_fails_alone_and_it_is_said_why() {
    let site = site();
    site.sql(
        "CREATE FUNCTION public.same(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
         CREATE FUNCTION public.needs(x int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN same(x); END';
         CREATE INDEX foreign_needs ON foreign_work (public.needs(id));
         INSERT INTO foreign_work SELECT n FROM generate_series(1, 200000) n",
    );
    // Somebody whose own path has what the function needs.
    site.sql("VACUUM ANALYZE foreign_work");
    site.sql("DELETE FROM foreign_work WHERE id % 10 <> 0");
    site.sql("VACUUM ANALYZE foreign_work");
    let part = maintain(&site, 1);
    let done = part["done"].as_array().unwrap();
    let end = |object: &str| done.iter().find(|done| done["object"] == object).unwrap();
    let why = end("public.foreign_needs")["why"].as_str().unwrap();
    assert!(why.contains("ALTER FUNCTION … SET search_path"), "{part:#}");
    assert_eq!(end("public.orders_id")["end"], "done", "{part:#}");
    assert_eq!(invalid(&site), "theirs_ccnew");
    site.sql("ALTER FUNCTION public.needs SET search_path = public");
    let part = maintain(&site, 0);
    assert!(part["reindexed"].as_u64().unwrap() >= 1, "{part:#}");
}

#[test]
fn on_a_terminal_it_is_shown_how_far_it_is() {
    for major in [14, 15, 16, 17, 18] {
        let cluster = Cluster::start(&other_major(major), &[], &[]);
        let database = cluster.database();
        for sql in BLOATED_ORDERS {
            cluster.sql(&database, sql);
        }
        let sandbox = Sandbox::new(&cluster.url(&database));
        sandbox.write("opsctl.toml", CONFIGURATION);
        let somebody = Somebody::begin(&cluster, &database, "INSERT INTO orders VALUES (1, 1)");
        // Nothing is drawn on a terminal without a size or a name.
        let opsctl = sandbox.command(&["db-maintain"]);
        let mut sized = Command::new("sh");
        sized
            .args(["-c", "stty rows 40 cols 200; exec $0 $1"])
            .arg(opsctl.get_program())
            .args(opsctl.get_args());
        sized.envs(opsctl.get_envs().filter_map(|(name, value)| Some((name, value?))));
        sized.current_dir(sandbox.dir.path()).env("TERM", "xterm");
        let mut terminal = on_a_terminal(&sized);
        let mut terminal = terminal.stdout(Stdio::piped()).spawn().unwrap();
        let mut shown = String::new();
        let mut output = terminal.stdout.take().unwrap();
        let mut more = [0; 4096];
        while !shown.contains("orders_id: waiting for writers before build") {
            let n = output.read(&mut more).unwrap();
            assert!(n > 0, "{major}: {shown}");
            shown += &String::from_utf8_lossy(&more[..n]);
        }
        drop(somebody);
        std::io::copy(&mut output, &mut std::io::sink()).unwrap();
        assert!(terminal.wait().unwrap().success());
    }
}
