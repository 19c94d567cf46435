//! Every way to fail, and the status that tells it. Whatever happens, stdout carries the report or nothing, and
//! stderr one line per event.

use std::path::Path;

use crate::support::patient::{check_log, errors, sandbox};
use crate::support::s3::S3;
use crate::support::{Cluster, Run, Sandbox};

/// Runs the arguments as they are and with `--json`, and asserts what every failure has in common. `says` must stand in
/// the one error.
#[track_caller]
fn fails(sandbox: &Sandbox, status: i32, args: &[&str], says: &str) {
    let run = sandbox.run(args);
    assert_eq!(run.status, status, "{args:?}: {run:#?}");
    if status == 2 && errors(&run).is_empty() {
        // The parser's own words, before there is a log.
        assert!(run.stdout.is_empty() && run.stderr.contains(says), "{args:?}: {says}: {run:#?}");
        return;
    }
    check_log(&run);
    // What was asked for is the report's; all else is an event.
    let is_report = args.contains(&"check");
    let said = if is_report { &run.stdout } else { &run.stderr };
    assert!(said.contains(says), "{args:?}: {says}: {run:#?}");
    check_json(sandbox, status, &[args, &["--json"]].concat(), says);
    check_json_log(sandbox, status, &[args, &["--log-format", "json"]].concat(), says);
}

fn check_json(sandbox: &Sandbox, status: i32, args: &[&str], says: &str) {
    let run = sandbox.run(args);
    assert_eq!(run.status, status, "{args:?}: {run:#?}");
    check_log(&run);
    let report: serde_json::Value =
        serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {run:#?}"));
    assert_eq!(report["exit"], status, "{args:?}: {report:#}");
    assert!(report["run"].is_string() && report["command"].is_string(), "{report:#}");
    let message = report["error"]["message"].as_str().unwrap_or(&run.stdout).to_owned();
    assert!(status == 3 || message.contains(says), "{args:?}: {says}: {report:#}");
}

fn check_json_log(sandbox: &Sandbox, status: i32, args: &[&str], says: &str) {
    let run = sandbox.run(args);
    assert_eq!(run.status, status, "{args:?}: {run:#?}");
    let mut messages = Vec::new();
    for line in run.stderr.lines() {
        let event: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(event["at"].is_string() && event["run"].is_string(), "{line}");
        if event["level"] != "info" {
            messages.push(event["message"].as_str().unwrap().to_owned());
        }
    }
    let is_said = messages.iter().any(|message| message.contains(says));
    assert!(is_said || args.contains(&"check"), "{args:?}: {says}: {run:#?}");
}

fn url(sandbox: &mut Sandbox, url: &str) {
    sandbox.set("DATABASE_URL", url);
}

#[test]
fn a_wrong_command_line_is_2() {
    let sandbox = sandbox(&Cluster::shared().url("postgres"));
    for (args, says) in [
        (&[][..], "Usage"),
        (&["backups"], "unrecognized subcommand"),
        (&["backup", "--colour"], "unexpected argument"),
        (&["backup", "--jobs", "0"], "0 is not in 1..=64"),
        (&["backup", "--jobs", "many"], "invalid"),
        (&["backup", "--timeout", "soon"], "soon"),
        (&["backup", "--compression", "lzma"], "lzma"),
        (&["backup", "--compression", "gzip:10"], "gzip"),
        (&["backup", "--quiet", "--verbose"], "cannot be used with"),
        (&["backup", "--now", "yesterday"], "yesterday"),
        (&["backup", "lists"], "unrecognized subcommand"),
        (&["backup", "--log-format", "xml"], "invalid value"),
        (&["verify-backup", "--all", "--latest"], "cannot be used with"),
        (&["verify-backup", "--within", "a week"], "a week"),
        (&["verify-backup", "--backup", "the-last-one"], "the-last-one"),
        (&["verify-backup", "a", "b"], "unrecognized subcommand"),
        (&["verify-backup", "report", "--since", "ever"], "ever"),
        (&["restore"], "required"),
        (&["restore", "--create", "a", "--replace", "b"], "cannot be used with"),
        (&["restore", "--create", "a", "--backup", "the-last-one"], "the-last-one"),
        (&["config"], "Usage"),
        (&["config", "edit"], "unrecognized subcommand"),
        (&["demo", "--dir"], "a value is required"),
    ] {
        fails(&sandbox, 2, args, says);
    }
}

#[test]
fn a_wrong_configuration_is_10() {
    let mut sandbox = sandbox(&Cluster::shared().url("postgres"));
    fails(&sandbox, 10, &["backup", "--config", "nowhere.toml"], "nowhere.toml");
    fails(&sandbox, 10, &["verify-backup", "--config", "nowhere.toml"], "nowhere.toml");
    for (text, says) in [
        ("[backup]\njob = 1\n", "opsctl.toml:2"),
        ("[backup]\njobs = \"many\"\n", "opsctl.toml:2"),
        ("[backup\n", "opsctl.toml:1"),
        ("[repository]\nlocation = \"ftp://x\"\n", "opsctl.toml:2"),
        ("[database]\nurl = \"a\"\n[databases.b]\nurl = \"c\"\n", "opsctl.toml"),
    ] {
        sandbox.write("opsctl.toml", text);
        for args in [
            &["backup"][..],
            &["backup", "list"],
            &["backup", "prune"],
            &["verify-backup"],
            &["config", "check"],
            &["config", "show"],
        ] {
            fails(&sandbox, 10, args, says);
        }
    }
    std::fs::remove_file(sandbox.path("opsctl.toml")).unwrap();
    fails(&sandbox, 10, &["backup", "--repository", "s3://"], "bucket's name");
    fails(&sandbox, 10, &["backup", "--database", "a=b"], "--database");
    sandbox.set("OPSCTL_JOBS", "many");
    fails(&sandbox, 10, &["backup"], "OPSCTL_JOBS");
    sandbox.unset("OPSCTL_JOBS").set("OPSCTL_BIN_DIR", "/nowhere");
    fails(&sandbox, 10, &["backup"], "in `/nowhere`");
    sandbox.unset("OPSCTL_BIN_DIR");
    sandbox.write("identity", "no key\n");
    fails(&sandbox, 10, &["verify-backup", "--identity", "nowhere"], "nowhere");
    url(&mut sandbox, "postgresql://h:port/x");
    fails(&sandbox, 10, &["backup"], "port");
    url(&mut sandbox, "host=h colour=red");
    fails(&sandbox, 10, &["backup", "--dry-run"], "colour");
}

#[test]
fn a_database_that_is_not_there_or_refuses_is_12() {
    let cluster = Cluster::shared();
    let mut sandbox = sandbox(&cluster.url("nobody_made_this"));
    fails(&sandbox, 12, &["backup"], "nobody_made_this");
    fails(&sandbox, 12, &["backup", "--dry-run"], "nobody_made_this");
    url(&mut sandbox, "postgresql://u@127.0.0.1:1/x");
    fails(&sandbox, 12, &["backup"], "127.0.0.1");
    url(&mut sandbox, "postgresql://u@nowhere.invalid/x");
    fails(&sandbox, 12, &["backup"], "nowhere.invalid");
    url(&mut sandbox, "postgresql:///x?host=/nowhere&user=u");
    fails(&sandbox, 12, &["backup"], "/nowhere");
    url(&mut sandbox, &cluster.url("postgres").replace("user=postgres", "user=nobody_made_this"));
    fails(&sandbox, 12, &["backup"], "nobody_made_this");
    // It must not have begun to write.
    assert!(!sandbox.path("backups").exists());
}

#[test]
fn a_storage_that_is_not_there_or_refuses_is_13() {
    let cluster = Cluster::shared();
    let mut sandbox = sandbox(&cluster.url(&cluster.database()));
    let file = sandbox.write("file", "").join("below");
    for command in [&["backup"][..], &["backup", "list"], &["verify-backup"]] {
        let args = [command, &["--repository", file.to_str().unwrap()]].concat();
        fails(&sandbox, 13, &args, "ot a directory");
    }
    let s3 = S3::shared();
    s3.set_up(&mut sandbox);
    let bucket = format!("s3://{}/x", s3.bucket());
    for command in [&["backup"][..], &["backup", "list"], &["verify-backup"]] {
        fails(
            &sandbox,
            13,
            &[command, &["--repository", "s3://nobody-made-this/x"]].concat(),
            "NoSuchBucket",
        );
    }
    sandbox.set("AWS_SECRET_ACCESS_KEY", "wrong");
    fails(&sandbox, 13, &["backup", "--repository", &bucket], "SignatureDoesNotMatch");
    sandbox.set("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    fails(&sandbox, 13, &["backup", "list", "--repository", &bucket], "127.0.0.1:1");
    // A secret that is missing must never become an unsigned request.
    sandbox.unset("AWS_SECRET_ACCESS_KEY").set("AWS_EC2_METADATA_DISABLED", "true");
    let run = sandbox.run(&["backup", "list", "--repository", &bucket]);
    assert!([10, 13].contains(&run.status) && errors(&run).len() == 1, "{run:#?}");
}

#[test]
fn bad_news_is_3() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let sandbox = sandbox(&cluster.url(&database));
    fails(&sandbox, 3, &["verify-backup"], "there is no backup");
    fails(&sandbox, 3, &["verify-backup", "--within", "1d"], "there is no backup");
    fails(&sandbox, 3, &["backup", "--fail-on-shrink"], "suspicious");
    cluster.sql(&database, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n");
    let id = sandbox.back_up(&["--fail-on-shrink"]);
    let folder = sandbox.path("backups").join(&database).join(&id);
    std::fs::remove_file(folder.join("toc.dat")).unwrap();
    fails(&sandbox, 3, &["verify-backup", "--backup", &id], "DAMAGED");
    let nobody = "20200101T000000Z-000000";
    fails(&sandbox, 3, &["verify-backup", "--backup", nobody], nobody);
}

#[test]
fn a_deadline_is_14_and_a_lock_that_cannot_be_made_is_1() {
    let cluster = Cluster::shared();
    let mut sandbox = sandbox(&cluster.url(&cluster.database()));
    // Nobody answers there: the network is for documentation only.
    let state = sandbox.write("file", "").join("below");
    fails(&sandbox, 1, &["backup", "--state-dir", state.to_str().unwrap()], "failed to lock");
    fails(
        &sandbox,
        1,
        &["backup", "prune", "--state-dir", state.to_str().unwrap()],
        "failed to lock",
    );
    url(&mut sandbox, "postgresql://u@198.51.100.1/x?connect_timeout=60");
    let run = sandbox.run(&["backup", "--timeout", "1s"]);
    // A machine without a route says so at once.
    assert!([12, 14].contains(&run.status) && errors(&run).len() == 1, "{run:#?}");
}

#[test]
fn of_several_databases_each_says_for_itself() {
    let cluster = Cluster::shared();
    let (one, two) = (cluster.database(), cluster.database());
    let sandbox = sandbox("");
    let text = |second: &str| {
        format!(
            "[databases.one]\nurl = \"{}\"\n[databases.two]\nurl = \"{second}\"\n",
            cluster.url(&one)
        )
    };
    sandbox.write("opsctl.toml", &text(&cluster.url(&two)));
    sandbox.json(0, &["backup"]);
    sandbox.write("opsctl.toml", &text(&cluster.url("nobody_made_this")));
    let report = sandbox.json(12, &["backup"]);
    let exits: Vec<_> =
        report["databases"].as_array().unwrap().iter().map(|d| d["exit"].as_i64()).collect();
    assert_eq!(exits.last(), Some(&Some(12)), "{report:#}");
    fails(&sandbox, 10, &["backup", "--database", "three"], "three");
    sandbox.json(0, &["backup", "--database", "one"]);
}

#[test]
fn a_success_that_is_asked_to_be_quiet_says_nothing_at_all() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE t AS SELECT 1 AS n");
    let sandbox = sandbox(&cluster.url(&database));
    for args in [
        &["backup", "-q"][..],
        &["verify-backup", "-q"],
        &["backup", "prune", "--quiet"],
        &["config", "check", "-q"],
    ] {
        let Run { stdout, stderr, .. } = sandbox.run(args).expect(0);
        assert_eq!((stdout.as_str(), stderr.as_str()), ("", ""), "{args:?}");
    }
    // What was asked for is not noise.
    let list = sandbox.run(&["backup", "list", "-q"]).expect(0);
    assert!(list.stdout.contains(&database) && list.stderr.is_empty(), "{list:#?}");
}

#[test]
fn a_report_that_nobody_reads_is_no_failure_and_one_that_cannot_be_written_is() {
    let sandbox = sandbox(&Cluster::shared().url("postgres"));
    let mut command = sandbox.command(&["config", "example"]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = command.stdout(full).status().unwrap();
    assert_eq!(status.code(), Some(1));
    let mut shell = std::process::Command::new("bash");
    shell.args([
        "-c",
        "\"$0\" config example | head -c 1; exit ${PIPESTATUS[0]}",
        env!("CARGO_BIN_EXE_opsctl"),
    ]);
    assert_eq!(Run::of(shell.current_dir(Path::new("/"))).status, 0);
}
