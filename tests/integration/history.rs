//! `opsctl history`: every run is remembered, however it ended, and a broken history stops none.

use std::os::unix::fs::PermissionsExt as _;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::running::{Gate, Running};
use crate::support::{Cluster, Sandbox};

fn sandbox() -> (&'static Cluster, String, Sandbox) {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE members AS SELECT 1 AS id");
    let sandbox = Sandbox::new(&cluster.url(&database));
    (cluster, database, sandbox)
}

fn runs(sandbox: &Sandbox, args: &[&str]) -> Vec<Value> {
    let report = sandbox.json(0, &[&["history"], args].concat());
    report["runs"].as_array().unwrap().clone()
}

#[test]
fn every_run_is_remembered_however_it_ended() {
    let (_, database, mut sandbox) = sandbox();
    assert!(sandbox.run(&["history"]).expect(0).stdout.contains("Nothing ran."));
    sandbox.run(&["backup", "--dry-run"]).ends_with(0);
    sandbox.back_up(&[]);
    sandbox.run(&["verify-backup"]).ends_with(0);
    sandbox.run(&["backup", "--database", "no_such"]).ends_with(12);
    sandbox.write("opsctl.toml", "nonsense = 1\n");
    sandbox.run(&["backup", "prune"]).ends_with(10);
    sandbox.write("opsctl.toml", "");
    sandbox.set("OPSCTL_REPOSITORY", "/proc/no/such/place");
    sandbox.run(&["verify-backup"]).ends_with(3);
    // A line of a crontab with a slip in it, which nobody sees.
    let wrong = sandbox.run(&["backup", "--quite"]).expect(2).stderr;
    assert!(
        wrong.contains("backup failed: wrong command line: unexpected argument '--quite' found")
    );
    assert!(wrong.contains("a similar argument exists: '--quiet'"), "{wrong}");
    let report = sandbox.json(2, &["verify-backup", "--latest", "--jobs", "many"]);
    assert_eq!(report["exit"], 2);
    // These are for people.
    sandbox.run(&["history", "--no-such"]).ends_with(2);

    let all = runs(&sandbox, &[]);
    let said = |run: &Value| {
        let field = |name: &str| run[name].to_string().trim_matches('"').to_owned();
        [field("command"), field("dry_run"), field("state"), field("exit")].join(" ")
    };
    let said: Vec<_> = all.iter().map(said).collect();
    assert_eq!(
        said,
        [
            "backup true ended 0",
            "backup false ended 0",
            "verify-backup false ended 0",
            "backup false ended 12",
            "backup prune false ended 10",
            "verify-backup false ended 3",
            "backup false ended 2",
            "verify-backup false ended 2",
        ]
    );
    let taken = &all[1]["databases"][0];
    assert_eq!((&taken["database"], &taken["exit"]), (&database.as_str().into(), &0.into()));
    assert_eq!(taken["figures"]["totals.rows"], 1, "{taken}");
    assert!(all[3]["error"].as_str().unwrap().contains("no_such"), "{}", all[3]);
    assert!(all[1]["ended_at"].as_str() > all[1]["begun_at"].as_str());

    assert_eq!(runs(&sandbox, &["--command", "verify-backup"]).len(), 3);
    assert_eq!(runs(&sandbox, &["--database", &database]).len(), 4);
    assert!(runs(&sandbox, &["--now", "2031-01-01T00:00:00Z"]).is_empty());
    let text = sandbox.run(&["history"]).expect(0).stdout;
    assert!(text.contains("FAILED (12): ") && text.contains("backup --dry-run"), "{text}");
    let mode = |name: &str| sandbox.path(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("state/history.db"), 0o600);
    assert_eq!(std::fs::read_dir(sandbox.path("state/running")).unwrap().count(), 0);
}

#[test]
fn a_killed_run_is_shown_as_killed_and_blocks_nobody() {
    let (cluster, database, sandbox) = sandbox();
    let gate = Gate::close(cluster, &database);
    let running = Running::start(&sandbox, &["backup"]);
    gate.wait(&running);
    assert_eq!(runs(&sandbox, &[])[0]["state"], "running");
    running.signal(Signal::KILL);
    assert_eq!(running.end().status, 137);
    gate.open();
    let [killed] = &runs(&sandbox, &[])[..] else { panic!("one run") };
    assert_eq!((&killed["state"], &killed["exit"]), (&"killed".into(), &Value::Null));
    assert_eq!(killed["databases"][0]["database"], database.as_str());
    assert!(sandbox.run(&["history"]).expect(0).stdout.contains("KILLED"));
    sandbox.back_up(&[]);
    assert_eq!(runs(&sandbox, &[])[1]["exit"], 0);
    assert_eq!(std::fs::read_dir(sandbox.path("state/running")).unwrap().count(), 0);
}

#[test]
fn the_worst_of_several_repositories_is_remembered() {
    let (_, database, sandbox) = sandbox();
    sandbox.write(
        "opsctl.toml",
        "[repositories.bad]\nlocation = \"bad\"\n[repositories.good]\nlocation = \"good\"\n",
    );
    let back_up = |repository: &str| sandbox.run(&["backup", "--repository", repository]);
    back_up("good").ends_with(0);
    std::fs::create_dir_all(sandbox.path("bad")).unwrap();
    sandbox.run(&["verify-backup"]).ends_with(3);
    let all = runs(&sandbox, &["--command", "verify-backup"]);
    assert_eq!((&all[0]["exit"], &all[0]["databases"][0]["exit"]), (&3.into(), &3.into()));
    assert_eq!(all[0]["databases"][0]["database"], database.as_str());
}

#[test]
fn a_broken_history_is_set_aside_and_begun_anew() {
    let (_, _, sandbox) = sandbox();
    sandbox.back_up(&[]);
    let path = sandbox.path("state/history.db");
    for suffix in ["-wal", "-shm"] {
        std::fs::remove_file(sandbox.path(&format!("state/history.db{suffix}"))).ok();
    }
    std::fs::write(&path, "no database at all ".repeat(1000)).unwrap();
    let run = sandbox.run(&["verify-backup"]).expect(0);
    assert!(run.stderr.contains("the history is broken and was set aside as"), "{run:#?}");
    assert_eq!(runs(&sandbox, &[]).len(), 1);
    let aside = std::fs::read_dir(sandbox.path("state")).unwrap().flatten();
    let aside = aside.filter(|e| e.file_name().to_str().unwrap().contains("history.db.broken-"));
    assert_eq!(aside.count(), 1);
    // Nor does one stop a run that cannot be written at all.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let run = sandbox.run(&["verify-backup"]).expect(0);
    assert!(run.stderr.contains("this run will not be in the history"), "{run:#?}");
}

#[test]
fn runs_at_the_same_time_are_all_remembered() {
    let (_, _, sandbox) = sandbox();
    sandbox.back_up(&[]);
    let children: Vec<_> = (0..16).map(|_| Running::start(&sandbox, &["backup", "list"])).collect();
    for child in children {
        let run = child.end();
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{run:#?}");
    }
    let listed = runs(&sandbox, &["--command", "backup list"]);
    assert_eq!(listed.iter().filter(|run| run["exit"] == 0).count(), 16);
}

#[test]
fn old_runs_are_forgotten() {
    let (_, _, sandbox) = sandbox();
    sandbox.run(&["backup", "list", "--now", "2025-01-01T00:00:00Z"]).ends_with(0);
    sandbox.run(&["backup", "list", "--now", "2025-06-01T00:00:00Z"]).ends_with(0);
    let long = ["--since", "365d", "--now", "2025-06-01T00:01:00Z"];
    assert_eq!(runs(&sandbox, &long).len(), 2);
    sandbox.run(&["backup", "list", "--now", "2026-06-01T00:00:00Z"]).ends_with(0);
    assert_eq!(runs(&sandbox, &long).len(), 2, "the last one is not before then");
    let first = runs(&sandbox, &long)[0]["begun_at"].clone();
    assert_eq!(first, "2025-06-01T00:00:00Z");
}
