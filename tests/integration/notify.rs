//! Notifications, by real receivers: one message for each incident and one for its end, whatever the receivers do, and
//! never another exit status.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::mail::{Mail, PASSWORD};
use crate::support::receiver::Receiver;
use crate::support::running::{Gate, Running};
use crate::support::{Cluster, Run, Sandbox, authority};

const BROKEN: &str = "/proc/no/such/place";

/// A database, a receiver of its news, and a state without either good or bad news.
fn sandbox() -> (String, Sandbox, Receiver) {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE members AS SELECT 1 AS id");
    let sandbox = Sandbox::new(&cluster.url(&database));
    let receiver = Receiver::start();
    sandbox.write("hook", &receiver.url("hook/geheim"));
    configure(&sandbox, "[notify.channels.ops]\nwebhook_file = \"hook\"\n");
    (database, sandbox, receiver)
}

fn configure(sandbox: &Sandbox, channels: &str) {
    let text = format!(
        "[schedule]\nrestore_test = \"off\"\nverify_backup = \"off\"\nhealth_check = \"off\"\n{channels}"
    );
    sandbox.write("opsctl.toml", &text);
}

/// Fails as it does when the repository is gone.
fn fail(sandbox: &Sandbox) -> Run {
    sandbox.run(&["backup", "--repository", BROKEN]).expect(13)
}

fn bodies(receiver: &Receiver) -> Vec<Value> {
    receiver.requests().iter().map(|r| serde_json::from_str(&r.body).unwrap()).collect()
}

fn events(receiver: &Receiver) -> Vec<String> {
    let event = |body: Value| body["event"].as_str().unwrap().to_owned();
    bodies(receiver).into_iter().map(event).collect()
}

#[test]
fn five_failures_are_one_message_and_the_end_is_another() {
    let (database, sandbox, receiver) = sandbox();
    sandbox.run(&["backup"]).ends_with(0);
    for _ in 0..5 {
        let _failed = fail(&sandbox);
    }
    sandbox.run(&["backup", "list"]).ends_with(0);
    sandbox.run(&["backup", "--dry-run"]).ends_with(0);
    sandbox.run(&["verify-backup"]).ends_with(0);
    assert_eq!(events(&receiver), ["failed"]);
    sandbox.run(&["backup"]).ends_with(0);
    sandbox.run(&["backup"]).ends_with(0);
    let [failed, recovered] = &bodies(&receiver)[..] else { panic!("{:?}", bodies(&receiver)) };
    assert_eq!(failed["version"], 1);
    assert_eq!((&failed["command"], &failed["severity"]), (&"backup".into(), &"P2".into()));
    assert_eq!(failed["database"], database.as_str());
    assert!(failed["what"].as_str().unwrap().contains(BROKEN), "{failed}");
    assert_eq!(failed["runbook"], "runbooks/backup-failed.md");
    assert_eq!(recovered["event"], "recovered");
    assert_eq!(
        (&recovered["incident"], &recovered["since"]),
        (&failed["incident"], &failed["since"])
    );
    let history = sandbox.json(0, &["history", "--command", "backup"]);
    assert_eq!(
        (&failed["run"], &recovered["run"]),
        (&history["runs"][1]["id"], &history["runs"][7]["id"])
    );
    let request = &receiver.requests()[0];
    assert_eq!((&*request.method, &*request.target), ("POST", "/hook/geheim"));
    assert_eq!(request.headers["content-type"], "application/json");
}

#[test]
fn a_failure_before_any_database_is_one_of_each() {
    let (_, mut sandbox, receiver) = sandbox();
    let url = Cluster::shared().url("postgres");
    configure(
        &sandbox,
        &format!(
            "[notify.channels.ops]\nwebhook_file = \"hook\"\n\
             [databases.a]\nurl = \"{url}\"\n[databases.b]\nurl = \"{url}\"\n"
        ),
    );
    sandbox.set("SSL_CERT_FILE", "/nowhere/ca.pem");
    sandbox.run(&["backup", "--repository", "s3://bucket/x"]).ends_with(13);
    let bodies = bodies(&receiver);
    let databases: Vec<_> = bodies.iter().map(|body| body["database"].clone()).collect();
    assert_eq!(databases, ["a", "b"]);
    assert_eq!(bodies[0]["what"], bodies[1]["what"]);
}

#[test]
fn a_wrong_line_in_the_crontab_is_told() {
    let (_, sandbox, receiver) = sandbox();
    sandbox.run(&["backup", "--no-such-flag"]).ends_with(2);
    sandbox.run(&["status", "--no-such-flag"]).ends_with(2);
    let [body] = &bodies(&receiver)[..] else { panic!("{:?}", bodies(&receiver)) };
    assert!(body["what"].as_str().unwrap().contains("--no-such-flag"), "{body}");
    sandbox.run(&["backup"]).ends_with(0);
    assert_eq!(events(&receiver), ["failed", "recovered"]);
}

#[test]
fn what_cannot_be_delivered_waits_and_changes_nothing() {
    let (_, sandbox, receiver) = sandbox();
    receiver.answer(500);
    let run = fail(&sandbox);
    assert!(
        run.stderr.contains("`ops` could not be told (attempt 1), the next run tries again"),
        "{run:#?}"
    );
    assert!(run.stderr.contains("it answered with status 500") && !run.stderr.contains("geheim"));
    let run = sandbox.run(&["backup"]).expect(0);
    assert!(run.stderr.contains("(attempt 2)"), "{run:#?}");
    // One after the other, and what was first remains first.
    receiver.answer(200);
    sandbox.run(&["backup"]).ends_with(0);
    assert_eq!(events(&receiver), ["failed", "failed", "failed", "recovered"]);
    sandbox.run(&["backup"]).ends_with(0);
    assert_eq!(receiver.requests().len(), 4);

    // After a week nobody wants to know any more.
    receiver.close();
    let _failed = fail(&sandbox);
    receiver.answer(500);
    let now = (chrono::Utc::now() + chrono::TimeDelta::days(8)).to_rfc3339();
    let run = sandbox.run(&["backup", "--repository", BROKEN, "--now", &now]).expect(13);
    assert!(run.stderr.contains("could not be told for 7 days"), "{run:#?}");
    receiver.answer(200);
    let n_before = receiver.requests().len();
    let run = sandbox.run(&["backup", "--repository", BROKEN, "--now", &now]).expect(13);
    assert_eq!(receiver.requests().len(), n_before, "{run:#?}");
}

#[test]
fn a_message_that_is_refused_keeps_others_from_nobody() {
    let (_, sandbox, receiver) = sandbox();
    receiver.answer_next(&[400, 400]);
    let _failed = fail(&sandbox);
    sandbox.run(&["verify-backup", "--repository", BROKEN]).ends_with(3);
    // The end of the first waits until its beginning was taken.
    receiver.answer_next(&[422]);
    sandbox.run(&["backup"]).ends_with(0);
    sandbox.run(&["verify-backup"]).ends_with(0);
    let told = bodies(&receiver).into_iter().map(|body| {
        let [command, event] =
            ["command", "event"].map(|key| body[key].as_str().unwrap().to_owned());
        format!("{command} {event}")
    });
    let expected = [
        "backup failed",
        "backup failed",
        "verify-backup failed",
        "backup failed",
        "backup failed",
        "backup recovered",
        "verify-backup recovered",
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected);
}

#[test]
fn receivers_that_hang_are_given_up_side_by_side() {
    let (_, sandbox, receiver) = sandbox();
    let hanging = Receiver::start();
    hanging.hang();
    sandbox.write("hanging", &hanging.url(""));
    let channel =
        |name: &str, url: &str| format!("[notify.channels.{name}]\nwebhook_file = \"{url}\"\n");
    configure(
        &sandbox,
        &(channel("a", "hanging") + &channel("b", "hanging") + &channel("c", "hook")),
    );
    let begun = Instant::now();
    let run = fail(&sandbox);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(run.stderr.matches("did not answer within 10 s").count(), 2, "{run:#?}");
    assert_eq!((hanging.requests().len(), events(&receiver)), (2, vec!["failed".to_owned()]));
}

#[test]
fn what_is_late_is_told_by_status_if_it_is_asked_to() {
    let (_, sandbox, receiver) = sandbox();
    sandbox.run(&["backup", "--now", "2026-11-16T02:00:00Z"]).ends_with(0);
    let late = ["--now", "2026-11-17T12:00:00Z"];
    sandbox.run(&[&["status"][..], &late].concat()).ends_with(3);
    assert_eq!(receiver.requests().len(), 0);
    sandbox.run(&[&["status", "--notify"][..], &late].concat()).ends_with(3);
    sandbox.run(&[&["status", "--notify"][..], &late].concat()).ends_with(3);
    let [body] = &bodies(&receiver)[..] else { panic!("{:?}", bodies(&receiver)) };
    assert_eq!((&body["event"], &body["since"]), (&"late".into(), &"2026-11-17T02:00:00Z".into()));
    // It runs at last, and fails: that is another thing.
    sandbox.run(&["backup", "--repository", BROKEN, "--now", "2026-11-17T13:00:00Z"]).ends_with(13);
    sandbox.run(&["backup", "--now", "2026-11-17T14:00:00Z"]).ends_with(0);
    assert_eq!(events(&receiver), ["late", "failed", "recovered", "recovered"]);
    sandbox.run(&["status", "--notify", "--now", "2026-11-17T15:00:00Z"]).ends_with(0);
    assert_eq!(receiver.requests().len(), 4);
}

#[test]
fn a_killed_run_is_told_by_the_next_status() {
    let (database, sandbox, receiver) = sandbox();
    let cluster = Cluster::shared();
    let gate = Gate::close(cluster, &database);
    let running = Running::start(&sandbox, &["backup"]);
    gate.wait(&running);
    running.signal(Signal::KILL);
    assert_eq!(running.end().status, 137);
    gate.open();
    sandbox.run(&["status", "--notify"]).ends_with(3);
    sandbox.run(&["status", "--notify"]).ends_with(3);
    let [killed] = &bodies(&receiver)[..] else { panic!("{:?}", bodies(&receiver)) };
    assert_eq!((&killed["event"], &killed["what"]), (&"failed".into(), &"it was killed".into()));
    sandbox.back_up(&[]);
    assert_eq!(events(&receiver)[1..], ["recovered"]);
}

#[test]
fn two_runs_at_once_do_not_tell_twice() {
    let (_, sandbox, receiver) = sandbox();
    receiver.answer(500);
    let _failed = fail(&sandbox);
    receiver.answer(200);
    let runs: Vec<_> = (0..6).map(|_| Running::start(&sandbox, &["silence", "end"])).collect();
    for run in runs {
        run.end().ends_with(0);
    }
    assert_eq!(receiver.requests().len(), 2);
    // Nor do two that find the same.
    sandbox.run(&["backup"]).ends_with(0);
    let find = ["status", "--notify", "--now", "2031-01-01T00:00:00Z"];
    let runs: Vec<_> = (0..6).map(|_| Running::start(&sandbox, &find)).collect();
    for run in runs {
        run.end().ends_with(3);
    }
    assert_eq!(events(&receiver)[2..], ["recovered", "late"]);
}

#[test]
fn killed_while_it_tells_it_is_told_again_later() {
    let (_, sandbox, receiver) = sandbox();
    receiver.hang();
    let now = "2026-11-21T02:00:00Z";
    let args = ["backup", "--repository", BROKEN, "--now", now];
    let running = Running::start(&sandbox, &args);
    receiver.wait_for(1);
    running.signal(Signal::KILL);
    assert_eq!(running.end().status, 137);
    receiver.answer(200);
    // As far as anybody knows, the other run is at it.
    sandbox.run(&["silence", "end", "--now", "2026-11-21T02:01:00Z"]).ends_with(0);
    assert_eq!(receiver.requests().len(), 1);
    sandbox.run(&["silence", "end", "--now", "2026-11-21T02:03:00Z"]).ends_with(0);
    sandbox.run(&["silence", "end", "--now", "2026-11-21T02:06:00Z"]).ends_with(0);
    assert_eq!(events(&receiver), ["failed", "failed"]);
    // The report was there before.
    let runs = sandbox.json(0, &["history", "--now", "2026-11-21T02:06:00Z"]);
    assert_eq!(runs["runs"][0]["exit"], 13);
}

#[test]
fn a_stopped_run_still_tells() {
    let (database, sandbox, receiver) = sandbox();
    let gate = Gate::close(Cluster::shared(), &database);
    let running = Running::start(&sandbox, &["backup"]);
    gate.wait(&running);
    running.signal(Signal::TERM);
    assert_eq!(running.end().status, 143);
    gate.open();
    assert_eq!(events(&receiver), ["failed"]);
}

#[test]
fn each_channel_is_told_what_is_urgent_enough() {
    let (_, sandbox, receiver) = sandbox();
    let slack = Receiver::start();
    sandbox.write("slack", &slack.url("services/geheim"));
    configure(
        &sandbox,
        "[notify.severity]\nbackup = \"P1\"\nrestore = \"P4\"\n\
         [notify.channels.urgent]\nwebhook_file = \"hook\"\nat_least = \"P1\"\n\
         [notify.channels.all]\nslack_file = \"slack\"\n",
    );
    sandbox.run(&["restore", "--create", "never", "--repository", BROKEN]).ends_with(3);
    assert_eq!((receiver.requests().len(), slack.requests().len()), (0, 1));
    let _failed = fail(&sandbox);
    assert_eq!((receiver.requests().len(), slack.requests().len()), (1, 2));
    let body: Value = serde_json::from_str(&slack.requests()[1].body).unwrap();
    assert_eq!(body.as_object().unwrap().len(), 1);
    let text = body["text"].as_str().unwrap();
    assert!(text.starts_with("[opsctl P1] backup of ") && text.contains(" failed on "), "{text}");
}

#[test]
fn mails_are_sent_encrypted_and_the_end_answers_the_beginning() {
    let (database, mut sandbox, _) = sandbox();
    let ca = authority(sandbox.dir.path(), "own");
    let (leaf, key) = (sandbox.path("own-leaf.pem"), sandbox.path("own-leaf.key"));
    let (starttls, implicit, plain) = (
        Mail::start("starttls", &[&leaf, &key]),
        Mail::start("implicit", &[&leaf, &key]),
        Mail::start("none", &[]),
    );
    sandbox.write("password", &format!("{PASSWORD}\n"));
    let channel = |name: &str, mail: &Mail, more: &str| {
        let port = &mail.port;
        format!(
            "[notify.channels.{name}]\nemail = [\"ops@example.com\", \"kim@example.com\"]\n\
             from = \"opsctl <opsctl@db1.example.com>\"\nsmtp = \"localhost:{port}\"\n{more}"
        )
    };
    let login = "smtp_user = \"opsctl\"\nsmtp_password_file = \"password\"\n";
    configure(
        &sandbox,
        &[
            channel("a", &starttls, login),
            channel("b", &implicit, &format!("smtp_tls = \"implicit\"\n{login}")),
            channel("c", &plain, "smtp_tls = \"none\"\n"),
        ]
        .concat(),
    );
    sandbox.set("SSL_CERT_FILE", ca.to_str().unwrap());
    let _failed = fail(&sandbox);
    sandbox.run(&["backup"]).ends_with(0);
    for mail in [&starttls, &implicit, &plain] {
        let mails = mail.mails();
        let [failed, recovered] = &mails[..] else { panic!("{mails:?}") };
        assert!(failed.starts_with("ops@example.com, kim@example.com\r\n"), "{failed}");
        assert!(failed.contains(&format!("Subject: [opsctl P2] backup of {database} failed on ")));
        let header = |mail: &str, name: &str| {
            let line = mail.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.trim_start_matches(name).trim().to_owned()
        };
        let id = header(failed, "Message-ID:");
        assert!(id.ends_with("@db1.example.com>"), "{failed}");
        assert_eq!(header(recovered, "In-Reply-To:"), id);
    }

    // Neither a wrong password nor an authority that nobody trusts is passed over.
    sandbox.write("password", "another");
    let test = |channel: &str| sandbox.run(&["notify", "test", "--channel", channel]);
    let run = test("a").expect(1);
    assert!(run.stdout.contains("a: FAILED: localhost:") && run.stdout.contains("535"), "{run:#?}");
    sandbox.write("password", PASSWORD);
    test("a").ends_with(0);
    let other = authority(sandbox.dir.path(), "other");
    sandbox.set("SSL_CERT_FILE", other.to_str().unwrap());
    for channel in ["a", "b"] {
        let run = sandbox.run(&["notify", "test", "--channel", channel]).expect(1);
        assert!(run.stdout.contains("certificate"), "{run:#?}");
    }
    sandbox.run(&["notify", "test", "--channel", "c"]).ends_with(0);
    assert_eq!((starttls.mails().len(), implicit.mails().len(), plain.mails().len()), (3, 2, 3));
}

#[test]
fn each_check_is_told_by_itself() {
    let (database, sandbox, receiver) = sandbox();
    let health = |args: &[&str], status: i32| {
        sandbox
            .run(&[&["health-check", "--only", "connections"][..], args].concat())
            .ends_with(status);
    };
    let channel = "[notify.channels.ops]\nwebhook_file = \"hook\"\n";
    let limits = |critical: u8| {
        let limits = format!("[health.connections]\nwarning = 0\ncritical = {critical}\n");
        configure(&sandbox, &format!("{channel}{limits}"));
    };
    limits(100);
    health(&[], 1);
    health(&[], 1);
    limits(0);
    health(&[], 2);
    health(&[], 2);
    limits(100);
    health(&[], 1);
    // Evidence is kept, and nobody told of that.
    sandbox.run(&["health-check", "incident", "--out", "evidence"]).ends_with(0);
    configure(&sandbox, channel);
    health(&[], 0);
    let told = bodies(&receiver);
    let [failed, worse, recovered] = &told[..] else { panic!("{told:?}") };
    assert_eq!(failed["subject"], format!("connections/{database}"));
    for (message, event, severity, outcome) in [
        (failed, "failed", "P3", "warning: "),
        (worse, "worse", "P2", "critical: "),
        (recovered, "recovered", "P2", "critical: "),
    ] {
        assert_eq!((&message["event"], &message["severity"]), (&event.into(), &severity.into()));
        assert_eq!(message["command"], "health-check");
        assert!(message["what"].as_str().unwrap().starts_with(outcome), "{message}");
    }
    // That nothing can be asked is another thing.
    health(&["--skip", "no-such"], 3);
    health(&[], 0);
    assert_eq!(events(&receiver)[3..], ["failed", "recovered"]);
}

#[test]
fn channels_can_be_tried() {
    let (_, sandbox, receiver) = sandbox();
    let report = sandbox.json(0, &["notify", "test"]);
    assert_eq!(report["channels"][0]["error"], Value::Null);
    assert_eq!(events(&receiver), ["test"]);
    receiver.answer(403);
    let run = sandbox.run(&["notify", "test"]).expect(1);
    assert_eq!(run.stdout, "ops: FAILED: it answered with status 403\n");
    sandbox.run(&["notify", "test", "--channel", "no-such"]).ends_with(2);
    std::fs::remove_file(sandbox.path("hook")).unwrap();
    let run = sandbox.run(&["notify", "test"]).expect(1);
    assert!(run.stdout.contains("hook"), "{run:#?}");
    // That is no reason not to back up.
    sandbox.run(&["backup"]).ends_with(0);
    sandbox.run(&["config", "check"]).ends_with(10);
    configure(&sandbox, "");
    sandbox.run(&["notify", "test"]).ends_with(10);
}

#[test]
fn without_a_history_it_is_told_at_each_run() {
    let (_, sandbox, receiver) = sandbox();
    std::fs::create_dir_all(sandbox.path("state/history.db")).unwrap();
    for _ in 0..2 {
        let run = fail(&sandbox);
        assert!(run.stderr.contains("notifications do not know what was told before"), "{run:#?}");
    }
    sandbox.run(&["backup"]).ends_with(0);
    assert_eq!(events(&receiver), ["failed", "failed"]);
}
