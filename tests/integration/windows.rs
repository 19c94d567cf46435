//! `--window`: a command refuses to work while its maintenance window is closed, and stops before it closes.

use std::time::{Duration, Instant};

use crate::support::patient::Patient;
use crate::support::running::{Gate, Running};
use crate::support::{Cluster, Sandbox};

fn sandbox() -> Sandbox {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE members AS SELECT 1 AS id");
    Sandbox::new(&cluster.url(&database))
}

// Sundays are 2026-11-22 and 2026-11-29; the first of a month is 2026-12-06.

#[test]
fn outside_it_is_refused_and_that_is_no_failure() {
    let sandbox = sandbox();
    sandbox.write(
        "opsctl.toml",
        "[schedule]\nverify_backup = \"off\"\nrestore_test = \"off\"\nhealth_check = \"off\"\n",
    );
    sandbox.run(&["backup", "--window", "weekly", "--now", "2026-11-22T02:30:00Z"]).ends_with(0);
    let backups =
        || sandbox.json(0, &["backup", "list"])["databases"][0]["repositories"].to_string();
    let before = backups();
    for (name, now, opens) in [
        ("weekly", "2026-11-22T04:00:00Z", "2026-11-29 02:00 UTC"),
        ("weekly", "2026-11-29T01:59:59Z", "2026-11-29 02:00 UTC"),
        ("monthly", "2026-11-22T02:30:00Z", "2026-12-06 01:00 UTC"),
        ("any", "2026-11-22T04:30:00Z", "2026-11-29 02:00 UTC"),
    ] {
        let run = sandbox.run(&["backup", "--window", name, "--now", now]).expect(11);
        assert!(run.stderr.contains(&format!("the window `{name}`")), "{run:#?}");
        assert_eq!(
            run.stderr.matches(opens).count(),
            2,
            "in the message and in the hint: {run:#?}"
        );
        let json = sandbox.json(11, &["backup", "--window", name, "--now", now]);
        assert!(json["error"]["hint"].as_str().unwrap().contains(opens), "{json}");
    }
    assert_eq!(backups(), before);
    // The history has it, with the reason, as it has a run that a lock kept from working.
    let history = sandbox.json(
        0,
        &["history", "--command", "backup", "--now", "2026-12-01T00:00:00Z", "--since", "30d"],
    );
    let runs = history["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 9, "{history:#}");
    let refused: Vec<_> = runs.iter().filter(|run| run["exit"] == 11).collect();
    assert_eq!(refused.len(), 8, "{history:#}");
    assert!(
        refused.iter().all(|run| run["error"].as_str().unwrap().contains("is closed")),
        "{history:#}"
    );
    let status = sandbox.json(0, &["status", "--now", "2026-11-22T04:30:00Z"]);
    assert_eq!(status["standings"][0]["failing"], false, "{status:#}");
}

#[test]
fn inside_it_works_and_stops_before_it_closes() {
    let patient = Patient::new(Cluster::shared());
    let gate = Gate::close(patient.cluster, &patient.database);
    // Ten seconds before it closes it begins to clean up.
    let begun = Instant::now();
    let args = ["backup", "--window", "weekly", "--now", "2026-11-22T03:59:47Z", "--timeout", "1h"];
    let run = Running::start(&patient.sandbox, &args).end().expect(14);
    assert!(begun.elapsed() >= Duration::from_secs(2), "{run:#?}");
    assert!(
        run.stderr.contains("the deadline passed") && run.stderr.contains("--window"),
        "{run:#?}"
    );
    // The other limit is still one.
    let args = ["backup", "--window", "weekly", "--now", "2026-11-22T02:00:00Z", "--timeout", "1s"];
    Running::start(&patient.sandbox, &args).end().ends_with(14);
    gate.open();
    let args = ["backup", "--window", "any", "--now", "2026-11-22T03:00:00Z"];
    patient.sandbox.run(&args).ends_with(0);
}

#[test]
fn windows_are_configured_by_name() {
    let mut sandbox = sandbox();
    sandbox.set("TZ", "Pacific/Auckland");
    sandbox.write(
        "opsctl.toml",
        "[windows]\nweekly = \"off\"\nnight = \"daily 23:00-02:00 Europe/Berlin\"\n",
    );
    let run = |status, window, now| {
        sandbox.run(&["backup", "--window", window, "--now", now]).expect(status)
    };
    // Berlin is an hour ahead in winter, whatever this host's zone is.
    run(0, "night", "2026-11-22T22:00:00Z").ends_with(0);
    run(0, "any", "2026-11-23T00:59:00Z").ends_with(0);
    assert!(
        run(11, "night", "2026-11-23T01:00:00Z").stderr.contains("it opens 2026-11-23 22:00 UTC")
    );
    let unknown = run(10, "weekly", "2026-11-22T03:00:00Z");
    assert!(unknown.stderr.contains("there is no window `weekly`"), "{unknown:#?}");
    assert!(unknown.stderr.contains("monthly, night"), "{unknown:#?}");
    let shown = sandbox.run(&["config", "show"]).expect(0).stdout;
    for (key, value) in [
        ("windows.night", "daily 23:00-02:00 Europe/Berlin"),
        ("windows.weekly", "off"),
        ("windows.monthly", "first Sun 01:00-05:00 UTC"),
    ] {
        let line = shown.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        assert!(line.contains(value), "{shown}");
    }
    // What does not act needs none.
    for command in [&["status"][..], &["history"], &["config", "show"], &["schedule", "print"]] {
        sandbox.run(&[command, &["--window", "night"]].concat()).ends_with(2);
    }
    // Every command that acts keeps to it.
    let now = ["--window", "night", "--now", "2026-11-23T12:00:00Z"];
    for command in [&["backup", "prune"][..], &["verify-backup"], &["restore", "--create", "other"]]
    {
        sandbox.run(&[command, &now].concat()).ends_with(11);
    }
}
