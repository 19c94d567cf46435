//! The pages about maintenance and about checks, read where a table is full of dead rows, an index is invalid, and somebody waits for
//! a lock.

use crate::health_postgres::Session;
use crate::support::reader::{But, Reader};
use crate::support::running::eventually;
use crate::support::{Cluster, Sandbox, installed};

fn site(configuration: &str) -> (Cluster, Sandbox) {
    let cluster = Cluster::start(&installed(), &[], &[]);
    cluster.sql("postgres", "CREATE DATABASE members TEMPLATE template0");
    cluster.sql(
        "members",
        "CREATE TABLE orders AS SELECT n AS id, 1 AS member FROM generate_series(1, 5000) n",
    );
    let sandbox = Sandbox::new(&cluster.url("members"));
    sandbox.write("opsctl.toml", configuration);
    (cluster, sandbox)
}

#[test]
fn what_autovacuum_left_is_done_by_the_page() {
    let (cluster, sandbox) = site(
        "[schedule]\nbackup = \"off\"\nverify_backup = \"off\"\nrestore_test = \"off\"\nhealth_check = \"off\"\n[maintain]\n",
    );
    cluster.sql("members", "UPDATE orders SET member = 1");
    let mut psql = cluster.program("psql");
    let unique = "CREATE UNIQUE INDEX CONCURRENTLY orders_member ON orders (member)";
    let failed = psql.args(["-X", "-d", "members", "-c", unique]).output().unwrap();
    assert!(!failed.status.success(), "each member has many");
    eventually("the dead rows are counted", || {
        let dead = "SELECT n_dead_tup >= 5000 FROM pg_stat_user_tables WHERE relname = 'orders'";
        (cluster.sql("members", dead) == "t").then_some(())
    });
    sandbox.run(&["health-check", "--only", "invalid-indexes"]).ends_with(2);
    let reader = Reader::of("db-maintain", &sandbox);
    let seen = reader.does("Check", &[]);
    let plan = &seen[1].stdout;
    assert!(plan.contains("public.orders") && plan.contains("5,000 dead rows"), "{plan}");
    reader.does("Act", &[]);
    let dead = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'orders'";
    eventually("they are gone", || (cluster.sql("members", dead) == "0").then_some(()));
    // The page says to ask whose it is, and then to run what the plan prints.
    let drop = plan.lines().find_map(|line| Some(&line[line.find("DROP INDEX CONCURRENTLY")?..]));
    cluster.sql("members", drop.unwrap_or_else(|| panic!("{plan}")).split(';').next().unwrap());
    reader.does("Verify", &[]);
}

#[test]
fn somebody_who_waits_for_a_lock_is_found_by_the_page() {
    // What the machine of the tests, its packages and its backups are like is nobody's news here.
    let skip = "[health]\nskip = [\"minor-version\", \"disk\", \"inodes\", \"disk-full\", \"memory\", \"cpu\", \"load\", \"repository\", \
        \"backup\", \"restore-proof\", \"schedule\"]\n[health.lock-waits]\nwarning = \"1s\"\n";
    let (cluster, sandbox) = site(skip);
    let migration = Session::open(&cluster, "members", "migration", "BEGIN; LOCK TABLE orders");
    let migration = migration.until(&cluster, "state = 'idle in transaction'");
    let web = Session::open(&cluster, "members", "web", "SELECT count(*) FROM orders");
    let web = web
        .until(&cluster, "wait_event_type = 'Lock' AND now() - query_start > interval '1 second'");
    let reader = Reader::of("health-check", &sandbox).with("--only NAME", "--only lock-waits");
    let lines =
        [("opsctl health-check explain", But::Ends(0)), ("opsctl health-check", But::Ends(1))];
    let seen = reader.does("Check", &lines);
    let first = seen[0].stdout.lines().next().unwrap();
    assert!(first.starts_with("WARNING   lock-waits/members"), "{first}");
    assert!(
        first.contains("(web) has waited for a lock for ") && first.contains("(migration)"),
        "{first}"
    );
    // Each part leads on.
    let explained = sandbox.run(&["health-check", "explain", "connections"]).expect(0).stdout;
    assert!(explained.contains("`opsctl runbook show connections-exhausted`"), "{explained}");
    drop((migration, web));
    reader.does("Verify", &[]);
}
