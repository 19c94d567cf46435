//! `opsctl status`: what is late or failing, after days in which cron ran, did not run, or ran and failed.

use serde_json::Value;

use crate::support::{Cluster, Sandbox};

fn sandbox() -> (String, Sandbox) {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE members AS SELECT 1 AS id");
    let mut sandbox = Sandbox::new(&cluster.url(&database));
    sandbox.set("TZ", "UTC");
    sandbox.write(
        "opsctl.toml",
        "[schedule]\nrestore_test = \"off\"\nhealth_check = \"off\"\ngrace = \"1h\"\n",
    );
    (database, sandbox)
}

/// Returns the lines of `backup` and of `verify-backup`.
fn standings(sandbox: &Sandbox, status: i32, args: &[&str]) -> [Value; 2] {
    let report = sandbox.json(status, &[&["status"], args].concat());
    let lines = report["standings"].as_array().unwrap().clone();
    lines.try_into().expect("two commands are scheduled")
}

/// What cron would run on a day.
fn a_day(sandbox: &Sandbox, day: &str, status: i32) {
    sandbox.run(&["backup", "--now", &format!("{day}T02:00:00Z")]).ends_with(status);
    sandbox.run(&["verify-backup", "--now", &format!("{day}T05:00:00Z")]).ends_with(0);
}

#[test]
fn what_never_ran_is_late() {
    let (database, sandbox) = sandbox();
    let [backup, _] = standings(&sandbox, 3, &[]);
    assert_eq!((&backup["command"], &backup["database"]), (&"backup".into(), &database.into()));
    assert_eq!((&backup["late"], &backup["last_success"]), (&true.into(), &Value::Null));
    assert!(sandbox.run(&["status", "--quiet"]).expect(3).stdout.contains("LATE"));
}

#[test]
fn three_days_of_cron_are_judged_rightly() {
    let (_, sandbox) = sandbox();
    for day in ["2026-11-16", "2026-11-17", "2026-11-18"] {
        a_day(&sandbox, day, 0);
    }
    // It ran: all is well until the next time, and an hour.
    let [backup, verify] = standings(&sandbox, 0, &["--now", "2026-11-19T02:59:00Z"]);
    assert_eq!(backup["last_success"], "2026-11-18T02:00:00Z");
    assert_eq!(backup["due"], "2026-11-19T02:00:00Z");
    assert_eq!(verify["due"], "2026-11-19T05:00:00Z");
    assert_eq!(
        sandbox.run(&["status", "--quiet", "--now", "2026-11-19T02:59:00Z"]).expect(0).stdout,
        ""
    );
    let [backup, verify] = standings(&sandbox, 3, &["--now", "2026-11-19T03:01:00Z"]);
    assert_eq!((&backup["late"], &verify["late"]), (&true.into(), &false.into()));

    // It did not run for three days.
    let [backup, verify] = standings(&sandbox, 3, &["--now", "2026-11-21T12:00:00Z"]);
    assert_eq!((&backup["late"], &verify["late"]), (&true.into(), &true.into()));
    assert_eq!((&backup["failing"], &backup["last_error"]), (&false.into(), &Value::Null));
    let text = sandbox.run(&["status", "--now", "2026-11-21T12:00:00Z"]).expect(3).stdout;
    assert!(text.contains("LATE by 2 d"), "{text}");

    // The greatest age that somebody allows takes the place of the schedule.
    let now = ["--now", "2026-11-19T03:59:00Z"];
    let allowed = ["--max-age", "backup=26h", "--max-age", "verify-backup=2d"];
    standings(&sandbox, 0, &[&allowed[..], &now].concat());
    standings(&sandbox, 3, &[&["--max-age", "backup=25h"][..], &now].concat());
    sandbox.run(&["status", "--max-age", "no-such=1h"]).ends_with(2);
    sandbox.run(&["status", "--max-age", "backup"]).ends_with(2);
}

#[test]
fn three_days_of_failures_are_judged_rightly() {
    let (database, mut sandbox) = sandbox();
    a_day(&sandbox, "2026-11-16", 0);
    let url = Cluster::shared().url("no_such_database");
    let good = Cluster::shared().url(&database);
    for day in ["2026-11-17", "2026-11-18", "2026-11-19"] {
        sandbox.write("opsctl.toml", "nonsense");
        sandbox.run(&["backup", "--now", &format!("{day}T02:00:00Z")]).ends_with(10);
        sandbox.write(
            "opsctl.toml",
            "[schedule]\nrestore_test = \"off\"\nhealth_check = \"off\"\ngrace = \"1h\"\n",
        );
        let [backup, verify] = standings(&sandbox, 3, &["--now", &format!("{day}T02:10:00Z")]);
        assert_eq!((&backup["failing"], &verify["failing"]), (&true.into(), &false.into()));
        assert!(backup["last_error"].as_str().unwrap().contains("not valid TOML"), "{backup}");
        sandbox.run(&["verify-backup", "--now", &format!("{day}T05:00:00Z")]).ends_with(0);
    }
    let [backup, verify] = standings(&sandbox, 3, &["--now", "2026-11-19T06:00:00Z"]);
    assert_eq!((&backup["late"], &backup["failing"]), (&true.into(), &true.into()));
    assert_eq!((&verify["late"], &verify["failing"]), (&false.into(), &false.into()));
    // Another database's failure is not this one's, and a success ends it.
    sandbox.set("DATABASE_URL", url);
    sandbox.run(&["backup", "--now", "2026-11-19T06:10:00Z"]).ends_with(12);
    sandbox.set("DATABASE_URL", good);
    sandbox.run(&["backup", "--now", "2026-11-19T06:20:00Z"]).ends_with(0);
    standings(&sandbox, 0, &["--now", "2026-11-19T06:30:00Z"]);
}
