//! `history.url`: the same history in a PostgreSQL schema, for hosts whose disk does not outlive a run; and what a server
//! that is gone, or frozen, does to a run: nothing.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::receiver::Receiver;
use crate::support::running::{Gate, Running, eventually, send};
use crate::support::{Cluster, Sandbox, installed};

/// A database to back up, and another one on the same server for the history.
fn sandbox() -> (String, String, Sandbox) {
    let cluster = Cluster::shared();
    let (database, history) = (cluster.database(), cluster.database());
    cluster.sql(&database, "CREATE TABLE members AS SELECT 1 AS id");
    let mut sandbox = Sandbox::new(&cluster.url(&database));
    sandbox.set("OPSCTL_HISTORY_URL", cluster.url(&history));
    (database, history, sandbox)
}

#[test]
fn hosts_without_a_disk_share_what_they_remember() {
    let (database, history, mut sandbox) = sandbox();
    let cluster = Cluster::shared();
    let receiver = Receiver::start();
    sandbox.write("hook", &receiver.url(""));
    sandbox.write(
        "opsctl.toml",
        "[schedule]\nrestore_test = \"off\"\nverify_backup = \"off\"\n[notify.channels.ops]\nwebhook_file = \"hook\"\n",
    );
    assert!(sandbox.run(&["history"]).expect(0).stdout.contains("Nothing ran."));
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'opsctl'";
    assert_eq!(cluster.sql(&history, schemas), "0");
    for n in 0..3 {
        // Each time as if in a new container.
        sandbox.set(
            "OPSCTL_STATE_DIR",
            sandbox.path(&format!("state-{n}")).to_str().unwrap().to_owned(),
        );
        sandbox.run(&["backup", "--repository", "/proc/no/such/place"]).ends_with(13);
    }
    sandbox.run(&["status"]).ends_with(3);
    sandbox.run(&["backup"]).ends_with(0);
    sandbox.run(&["status"]).ends_with(0);
    let bodies: Vec<_> = receiver.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies.len(), 2, "{bodies:?}");
    assert!(bodies[0].contains("\"failed\"") && bodies[1].contains("\"recovered\""));

    let runs = sandbox.json(0, &["history"])["runs"].clone();
    let exits: Vec<_> = runs.as_array().unwrap().iter().map(|run| run["exit"].clone()).collect();
    assert_eq!(exits, [13, 13, 13, 0]);
    assert_eq!(runs[3]["databases"][0]["database"], database.as_str());
    assert_eq!(runs[3]["databases"][0]["figures"]["totals.rows"], 1);
    let sql = "SELECT count(*), count(ended_at), min(begun_at) > now() - interval '1 hour' FROM opsctl.run";
    assert_eq!(cluster.sql(&history, sql), "4|4|t");
    sandbox.run(&["silence", "--for", "2h", "--why", "new disks"]).ends_with(0);
    assert!(sandbox.run(&["status"]).expect(0).stdout.contains("new disks"));
    assert!(
        !sandbox.path("state/history.db").exists() && !sandbox.path("state-1/history.db").exists()
    );
}

#[test]
fn a_killed_run_is_known_by_the_lock_that_it_does_not_hold() {
    let (database, _, sandbox) = sandbox();
    let gate = Gate::close(Cluster::shared(), &database);
    let running = Running::start(&sandbox, &["backup"]);
    gate.wait(&running);
    let state = || sandbox.json(0, &["history"])["runs"][0]["state"].clone();
    assert_eq!(state(), "running");
    running.signal(Signal::KILL);
    assert_eq!(running.end().status, 137);
    gate.open();
    eventually("the run is seen to be killed", || (state() == "killed").then_some(()));
    sandbox.back_up(&[]);
}

#[test]
fn a_server_that_cannot_be_reached_stops_no_run() {
    let (_, _, mut sandbox) = sandbox();
    let receiver = Receiver::start();
    sandbox.write("hook", &receiver.url(""));
    sandbox.write("opsctl.toml", "[notify.channels.ops]\nwebhook_file = \"hook\"\n");
    for url in ["postgresql://u@127.0.0.1:1/x", "postgresql://u@127.0.0.1:1/x?sslmode=maybe"] {
        sandbox.set("OPSCTL_HISTORY_URL", url);
        let run = sandbox.run(&["backup"]).expect(0);
        assert!(run.stderr.contains("history"), "{run:#?}");
    }
    // A failure is told all the same.
    sandbox.run(&["backup", "--repository", "/proc/no/such/place"]).ends_with(13);
    assert_eq!(receiver.requests().len(), 1);
    sandbox.set("OPSCTL_HISTORY_URL", "postgresql://u@127.0.0.1:1/x");
    for asks in [&["history"][..], &["status"], &["silence", "list"]] {
        sandbox.run(asks).ends_with(12);
    }
    sandbox.set("OPSCTL_HISTORY_URL", "nonsense");
    sandbox.run(&["backup"]).ends_with(10);
}

#[test]
fn a_server_that_is_frozen_in_the_middle_costs_seconds() {
    let (database, _, mut sandbox) = sandbox();
    let own = Cluster::start(&installed(), &[], &[]);
    sandbox.set("OPSCTL_HISTORY_URL", own.url("postgres"));
    let receiver = Receiver::start();
    sandbox.write("hook", &receiver.url(""));
    sandbox.write("opsctl.toml", "[notify.channels.ops]\nwebhook_file = \"hook\"\n");
    let gate = Gate::close(Cluster::shared(), &database);
    let running = Running::start(&sandbox, &["backup"]);
    gate.wait(&running);
    let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'opsctl history'";
    let pids = [own.sql("postgres", sql).parse().unwrap(), own.pid()];
    for pid in pids {
        send(pid, Signal::STOP);
    }
    gate.open();
    let begun = Instant::now();
    let run = running.end();
    for pid in pids {
        send(pid, Signal::CONT);
    }
    assert_eq!(run.status, 0, "{run:#?}");
    assert!(
        run.stderr.contains("the history could not be written: the history in database"),
        "{run:#?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn a_session_that_is_lost_on_the_way_is_replaced() {
    let (database, history, sandbox) = sandbox();
    let gate = Gate::close(Cluster::shared(), &database);
    let running = Running::start(&sandbox, &["backup"]);
    gate.wait(&running);
    let sql = format!(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{history}' AND pid <> pg_backend_pid()"
    );
    assert_eq!(Cluster::shared().sql("postgres", &sql), "t");
    gate.open();
    assert_eq!(running.end().status, 0);
    let runs = sandbox.json(0, &["history"]);
    assert_eq!((&runs["runs"][0]["state"], &runs["runs"][0]["exit"]), (&"ended".into(), &0.into()));
}
