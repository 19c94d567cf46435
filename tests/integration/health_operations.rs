//! health-check of what opsctl looks after itself: backups, their proof, repositories and the schedule.

use serde_json::Value;

use crate::support::archive::Archive;
use crate::support::s3::S3;
use crate::support::{Cluster, Sandbox};

fn sandbox() -> (String, Sandbox) {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE members AS SELECT * FROM generate_series(1, 100) id");
    let mut sandbox = Sandbox::new(&cluster.url(&database));
    sandbox.set("TZ", "UTC");
    (database, sandbox)
}

/// Asks for a check at some time; returns its status and what it says.
fn look(sandbox: &Sandbox, name: &str, now: &str) -> (String, String) {
    let run = sandbox.run(&["health-check", "--json", "--only", name, "--now", now]);
    let report: Value =
        serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {run:#?}"));
    let check = &report["checks"][0];
    assert!(check["name"].as_str().is_some_and(|found| found == name), "{report:#}");
    let text = |key: &str| check[key].as_str().unwrap().to_owned();
    (text("status"), text("message"))
}

#[track_caller]
fn expect(sandbox: &Sandbox, name: &str, now: &str, expected: &str, message: &str) {
    let (status, said) = look(sandbox, name, now);
    assert!(status == expected && said.contains(message), "{name}: {status}: {said}");
}

#[test]
fn a_backup_gets_old_and_is_suddenly_small() {
    let (database, sandbox) = sandbox();
    let name = format!("backup/{database}");
    expect(&sandbox, &name, "2026-11-20T02:00:00Z", "critical", "there is no good backup");
    sandbox.run(&["backup", "--now", "2026-11-20T02:00:00Z"]).ends_with(0);
    // The state that it holds is of the server's now.
    let hours = |hours: i64| {
        let manifest = sandbox.json(0, &["backup", "list"]).to_string();
        let at = manifest.split("\"snapshot_at\":\"").nth(1).unwrap().split('"').next().unwrap();
        let at: chrono::DateTime<chrono::Utc> = at.parse().unwrap();
        (at + chrono::TimeDelta::hours(hours)).to_rfc3339()
    };
    let times = [1, 27, 51].map(hours);
    expect(&sandbox, &name, &times[0], "ok", "1 h 0 min old");
    expect(&sandbox, &name, &times[1], "warning", "1 d 3 h old");
    expect(&sandbox, &name, &times[2], "critical", "2 d 3 h old");
    Cluster::shared().sql(&database, "DELETE FROM members WHERE id > 10");
    sandbox.run(&["backup", "--now", "2026-11-20T03:00:00Z"]).ends_with(0);
    expect(
        &sandbox,
        &name,
        &times[0],
        "warning",
        "suspicious: 10 rows, 100 in the previous backup",
    );
    // Its first byte is another: it is no manifest any more.
    let manifest = sandbox.path("backups").join(&database);
    let mut folders: Vec<_> = manifest.read_dir().unwrap().map(|e| e.unwrap().path()).collect();
    folders.sort();
    std::fs::write(folders.last().unwrap().join("manifest.json"), "nonsense").unwrap();
    expect(&sandbox, &name, &times[0], "critical", "cannot be read");
}

#[test]
fn a_repository_that_cannot_be_used_is_the_news() {
    let (database, mut sandbox) = sandbox();
    expect(&sandbox, "repository/default", "2026-11-20T02:00:00Z", "ok", "0 databases in it");
    sandbox.write("opsctl.toml", "[health.repository]\nwarning = -1\n");
    expect(&sandbox, "repository/default", "2026-11-20T02:00:00Z", "warning", "0 databases in it");
    let file = sandbox.write("file", "").join("below").display().to_string();
    sandbox.set("OPSCTL_REPOSITORY", file);
    expect(&sandbox, "repository/default", "2026-11-20T02:00:00Z", "critical", "failed to list");
    let run = sandbox.run(&["health-check", "--json", "--tag", "backup"]);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    let because = report["checks"].as_array().unwrap().iter();
    let mut because = because.filter(|check| check["name"] == format!("backup/{database}"));
    let check = because.next().unwrap();
    assert_eq!(
        (&check["status"], &check["because_of"]),
        (&"unknown".into(), &"repository/default".into())
    );
}

#[test]
fn a_bucket_is_asked_as_well() {
    let (database, mut sandbox) = sandbox();
    let s3 = S3::shared();
    s3.set_up(&mut sandbox);
    sandbox.set("OPSCTL_REPOSITORY", format!("s3://{}/health", s3.bucket()));
    sandbox.back_up(&[]);
    let now = chrono::Utc::now().to_rfc3339();
    expect(&sandbox, "repository/default", &now, "ok", "1 database in it");
    expect(&sandbox, &format!("backup/{database}"), &now, "ok", " old, ");
    expect(
        &sandbox,
        &format!("restore-proof/{database}"),
        &now,
        "critical",
        "no backup was ever restored",
    );
}

#[test]
fn a_proof_gets_old() {
    let (database, sandbox) = sandbox();
    let name = format!("restore-proof/{database}");
    sandbox.back_up(&[]);
    sandbox.run(&["verify-backup"]).ends_with(0);
    let days = |days: i64| (chrono::Utc::now() + chrono::TimeDelta::days(days)).to_rfc3339();
    expect(&sandbox, &name, &days(0), "critical", "no backup was ever restored");
    sandbox.run(&["verify-backup", "--restore-test"]).ends_with(0);
    expect(&sandbox, &name, &days(0), "ok", "a backup was restored and compared");
    expect(&sandbox, &name, &days(9), "warning", "9 d 0 h ago");
    expect(&sandbox, &name, &days(16), "critical", "16 d 0 h ago");
}

#[test]
fn what_cron_did_not_start_is_said() {
    let (database, mut sandbox) = sandbox();
    let name = format!("schedule/backup/{database}");
    sandbox.write("opsctl.toml", "[schedule]\nrestore_test = \"off\"\ngrace = \"1h\"\n");
    sandbox.run(&["backup", "--now", "2026-11-16T02:00:00Z"]).ends_with(0);
    expect(&sandbox, &name, "2026-11-17T02:30:00Z", "ok", "last success 1 d 0 h ago");
    expect(&sandbox, &name, "2026-11-17T03:30:00Z", "critical", "late by 1 h 30 min");
    let good = Cluster::shared().url(&database);
    sandbox.set("DATABASE_URL", Cluster::shared().url("no_such_database"));
    sandbox.set("OPSCTL_CONFIG", sandbox.path("named.toml").display().to_string());
    sandbox.write(
        "named.toml",
        &format!("[database]\nname = \"{database}\"\n[schedule]\ngrace = \"1h\"\n"),
    );
    sandbox.run(&["backup", "--now", "2026-11-17T02:10:00Z"]).ends_with(12);
    sandbox.set("DATABASE_URL", good);
    expect(&sandbox, &name, "2026-11-17T02:30:00Z", "warning", "since then it failed");
    // A history that cannot be read says nothing.
    std::fs::remove_dir_all(sandbox.path("state")).unwrap();
    std::fs::create_dir_all(sandbox.path("state/history.db")).unwrap();
    expect(&sandbox, &name, "2026-11-17T02:30:00Z", "unknown", "the history cannot be read");
}

#[test]
fn an_audit_archive_falls_behind() {
    let archive = Archive::new(
        "CREATE TABLE audit_logs (id int PRIMARY KEY, at timestamptz NOT NULL);
        INSERT INTO audit_logs VALUES (1, '2024-05-05 10:00+00')",
    );
    let name = format!("archive/{}/audit_logs", archive.database);
    let ask = |now: &str, expected: &str, message: &str| {
        expect(&archive.sandbox, &name, now, expected, message);
    };
    ask("2025-06-10T03:00:00Z", "unknown", "nothing was ever archived");
    archive.json(0, &["--now", "2025-05-20T03:00:00Z"]);
    ask("2025-05-20T04:00:00Z", "ok", "no row was old enough yet");
    archive.json(0, &["--now", "2025-06-10T03:00:00Z"]);
    ask("2025-06-30T23:00:00Z", "ok", "archived until 2024-06-01");
    ask(
        "2025-07-04T00:00:00Z",
        "warning",
        "archived until 2024-06-01, what follows is due since 3 d",
    );
    ask("2025-07-16T00:00:00Z", "critical", "what follows is due since 15 d");
    archive.json(0, &["--now", "2025-07-16T03:00:00Z"]);
    ask("2025-07-16T04:00:00Z", "ok", "archived until 2024-07-01");
    let manifest = archive.folder().join("2024/2024-06-01_2024-06-30/manifest.json");
    std::fs::write(&manifest, "nonsense").unwrap();
    ask(
        "2025-07-16T04:00:00Z",
        "critical",
        "the manifest of 2024/2024-06-01_2024-06-30 cannot be read",
    );
    // A disk that is not mounted.
    std::fs::remove_dir_all(archive.folder()).unwrap();
    ask("2025-07-16T04:00:00Z", "critical", "there is no segment, where a run left 2 segments");
}
