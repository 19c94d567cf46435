//! `health-check incident`: everything that still answers is kept, nobody's data is in it, and it takes seconds.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Cluster, Sandbox, installed, other_major, stock};

/// Takes a bundle and returns where it is.
fn take(sandbox: &Sandbox, args: &[&str]) -> (PathBuf, serde_json::Value) {
    let report = sandbox.json(0, &[&["health-check", "incident"], args].concat());
    (PathBuf::from(report["dir"].as_str().unwrap()), report)
}

/// Returns all that is in a folder, as one text.
fn everything(dir: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        text.push_str(&if path.is_dir() {
            everything(&path)
        } else {
            std::fs::read_to_string(&path).unwrap()
        });
    }
    text
}

fn is_missing(report: &serde_json::Value, path: &str) -> bool {
    let pieces = report["pieces"].as_array().unwrap();
    let piece = pieces.iter().find(|piece| piece["path"] == path);
    piece.unwrap_or_else(|| panic!("{path}: {report:#}")).get("missing").is_some()
}

#[test]
fn the_evidence_is_whole_and_has_nobodys_data() {
    let settings = [
        "-c",
        "shared_preload_libraries=pg_stat_statements",
        "-c",
        "logging_collector=on",
        "-c",
        "log_statement=all",
    ];
    let cluster = Cluster::start(&installed(), &settings, &[]);
    cluster.sql(
        "postgres",
        "CREATE EXTENSION pg_stat_statements; CREATE TABLE members (id int PRIMARY KEY, name text)",
    );
    cluster.sql("postgres", "INSERT INTO members VALUES (1, 'hush')");
    cluster.sql("postgres", "DO $$ BEGIN PERFORM 'hush'; END $$");
    let mut psql = cluster.program("psql");
    psql.args(["-Xqd", "postgres", "-c", "INSERT INTO members VALUES (1, 'hush')"]);
    assert!(!psql.stderr(std::process::Stdio::null()).status().unwrap().success());
    let mut sandbox = Sandbox::new(&cluster.url("postgres"));
    sandbox.write("opsctl.toml", "[database]\nname = \"ip2a\"\n");
    sandbox.set("OPSCTL_REPOSITORY", "/proc/no/such/place");
    assert_ne!(sandbox.run(&["backup"]).status, 0);
    let holder = cluster
        .program("psql")
        .args(["-Xqd", "postgres"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn();
    let mut holder = holder.unwrap();
    std::io::Write::write_all(
        holder.stdin.as_mut().unwrap(),
        b"BEGIN; LOCK TABLE members; SELECT 'hush';\n",
    )
    .unwrap();
    let idle = "SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction'";
    crate::support::running::eventually("the lock", || {
        Some(()).filter(|()| !cluster.sql("postgres", idle).is_empty())
    });

    let began = Instant::now();
    let (dir, report) = take(&sandbox, &[]);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let read = |path: &str| std::fs::read_to_string(dir.join(path)).unwrap();
    for piece in [
        "activity",
        "locks",
        "settings",
        "tables",
        "indexes",
        "statements",
        "log",
        "databases",
        "server",
    ] {
        let path = format!("databases/ip2a/{piece}.jsonl");
        assert!(!is_missing(&report, &path), "{piece}: {report:#}");
        for line in read(&path).lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
    }
    assert!(read("databases/ip2a/activity.jsonl").contains("idle in transaction"));
    assert!(read("databases/ip2a/locks.jsonl").contains("AccessExclusiveLock"));
    assert!(read("databases/ip2a/statements.jsonl").contains("INSERT INTO members"));
    assert!(
        read("databases/ip2a/log.jsonl").contains("duplicate key value violates unique constraint")
    );
    assert!(read("timeline.md").contains("opsctl backup ended with "), "{}", read("timeline.md"));
    assert!(read("health-check.txt").contains("idle-in-transaction/ip2a"));
    assert!(read("host/meminfo").contains("MemAvailable"));
    let all = everything(&dir);
    assert!(!all.contains("hush"), "{:?}", all.lines().find(|line| line.contains("hush")));

    let (dir, _) = take(&sandbox, &["--with-literals", "--out", "bundles"]);
    assert!(dir.parent().unwrap().ends_with("bundles") && everything(&dir).contains("hush"));
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn the_bundle_can_be_passed_on_as_one_file() {
    let cluster = Cluster::shared();
    let sandbox = Sandbox::new(&cluster.url(&cluster.database()));
    let (dir, report) = take(&sandbox, &["--out", "evidence"]);
    let archive = PathBuf::from(report["archive"].as_str().unwrap());
    assert_eq!(archive, PathBuf::from(format!("{}.tar.gz", dir.display())));
    assert_eq!(archive.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let unpacked = tempfile::tempdir().unwrap();
    stock(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(unpacked.path()));
    stock(
        Command::new("diff")
            .arg("-r")
            .arg(&dir)
            .arg(unpacked.path().join(dir.file_name().unwrap())),
    );
    // Nothing half is left beside it.
    assert_eq!(std::fs::read_dir(dir.parent().unwrap()).unwrap().count(), 2);
}

#[test]
fn what_does_not_answer_is_noted_and_the_rest_goes_on() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let cluster = Cluster::shared();
    let sandbox = Sandbox::new("");
    let config = format!(
        "[databases.alive]\nurl = \"{}\"\n[databases.down]\nurl = \"postgresql:///x?host=/nowhere\"\n\
        [databases.silent]\nurl = \"postgresql://u@127.0.0.1:{}/x\"\n",
        cluster.url("postgres"),
        silent.local_addr().unwrap().port()
    );
    sandbox.write("opsctl.toml", &config);
    let began = Instant::now();
    let (dir, report) = take(&sandbox, &["--timeout", "5s"]);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert!(is_missing(&report, "databases/down") && is_missing(&report, "databases/silent"));
    assert!(!is_missing(&report, "databases/alive/activity.jsonl"));
    // No extension, no log of its own: said, and nothing else is lost.
    assert!(is_missing(&report, "databases/alive/statements.jsonl"));
    assert!(
        dir.join("databases/alive/extensions.jsonl").exists() && dir.join("pieces.json").exists()
    );
    sandbox.run(&["health-check", "incident", "--out", "/proc/nowhere"]).ends_with(3);
}

#[test]
fn every_major_has_its_views() {
    for major in [16, 17, 18] {
        let cluster = Cluster::start(&other_major(major), &[], &[]);
        let (_, report) = take(&Sandbox::new(&cluster.url("postgres")), &[]);
        let pieces = report["pieces"].as_array().unwrap().iter();
        let missing: Vec<_> = pieces.filter(|piece| piece.get("missing").is_some()).collect();
        let of_database = missing
            .iter()
            .filter(|piece| piece["path"].as_str().unwrap().starts_with("databases/"));
        let names: Vec<_> = of_database.map(|piece| piece["path"].as_str().unwrap()).collect();
        assert_eq!(
            names,
            ["databases/postgres/statements.jsonl", "databases/postgres/log.jsonl"],
            "{major}: {report:#}"
        );
    }
}
