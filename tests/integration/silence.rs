//! `opsctl silence`: nobody is told of anything for a while, and nothing is forgotten.

use crate::support::receiver::Receiver;
use crate::support::{Cluster, Sandbox};

#[test]
fn nobody_is_told_and_what_remains_is_told_afterwards() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE members AS SELECT 1 AS id");
    let mut sandbox = Sandbox::new(&cluster.url(&database));
    let receiver = Receiver::start();
    sandbox.write("hook", &receiver.url(""));
    sandbox.write("opsctl.toml", "[notify.channels.ops]\nwebhook_file = \"hook\"\n");
    sandbox.set("SUDO_USER", "kim");
    let count = || receiver.requests().len();
    let at = |time: &str, args: &[&str]| {
        sandbox.run(&[args, &["--now", &format!("2026-11-21T{time}:00Z")]].concat())
    };
    let fail = |time: &str, command: &str| {
        let run = at(time, &[command, "--repository", "/proc/no/such/place"]);
        assert_ne!(run.status, 0, "{run:#?}");
    };

    assert_eq!(at("02:00", &["silence", "list"]).expect(0).stdout, "There was no silence.\n");
    fail("02:00", "backup");
    assert_eq!(count(), 1);
    let begun = at("03:00", &["silence", "--for", "2h", "--why", "new disks"]).expect(0);
    assert!(begun.stdout.contains("until 2026-11-21 05:00 UTC"), "{begun:#?}");
    fail("03:10", "backup");
    fail("03:20", "verify-backup");
    let status = at("03:30", &["status", "--notify"]).expect(3).stdout;
    assert!(status.contains("until 2026-11-21 05:00 UTC (kim@") && status.contains("new disks"));
    let status = at("03:30", &["status", "--json"]).expect(3).stdout;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["silences"][0]["why"], "new disks");
    // The end of what was told before the silence waits for the end of the silence.
    at("03:40", &["backup"]).ends_with(0);
    assert_eq!(count(), 1);
    // Afterwards any run tells what is still not well.
    at("05:00", &["verify-backup"]).ends_with(0);
    assert_eq!(count(), 2, "{:?}", receiver.requests());
    assert!(receiver.requests()[1].body.contains("\"recovered\""));

    at("06:00", &["silence", "--for", "30d", "--why", "more disks"]).ends_with(0);
    fail("06:10", "verify-backup");
    assert_eq!(count(), 2);
    assert_eq!(at("06:20", &["silence", "end"]).expect(0).stdout, "The silence is over.\n");
    assert_eq!(count(), 3);
    assert!(receiver.requests()[2].body.contains("\"failed\""));
    let list = at("06:30", &["silence", "list"]).expect(0).stdout;
    assert_eq!(list.matches(" over ").count(), 2, "{list}");
    assert!(list.contains("06:20"), "{list}");
    assert_eq!(at("06:40", &["silence", "end"]).expect(0).stdout, "There was no silence.\n");
}

#[test]
fn a_silence_has_an_end_and_a_reason() {
    let sandbox = Sandbox::new("");
    for wrong in [
        &["silence"][..],
        &["silence", "--for", "2h"],
        &["silence", "--why", "x"],
        &["silence", "--for", "31d", "--why", "x"],
        &["silence", "end", "--for", "2h"],
    ] {
        sandbox.run(wrong).ends_with(2);
    }
}
