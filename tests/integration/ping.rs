//! Pings: a monitor hears when a run begins and how it ended, and nothing that it does changes a run.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::receiver::{Received, Receiver};
use crate::support::running::{Gate, Running};
use crate::support::{Cluster, Sandbox};

/// Makes a database, and a sandbox that tells the receiver of every command.
fn sandbox(receiver: &Receiver) -> (String, Sandbox) {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE members AS SELECT 1 AS id");
    let mut sandbox = Sandbox::new(&cluster.url(&database));
    sandbox.set("OPSCTL_PING_URL", receiver.url("key/{command}"));
    (database, sandbox)
}

/// Takes the `rid` out of what was told; the same number for the same.
fn told(requests: &[Received]) -> Vec<String> {
    let mut rids: Vec<&str> = Vec::new();
    let mut told = Vec::new();
    for request in requests {
        assert_eq!(request.method, "POST");
        let (path, query) = request.target.split_once("?rid=").unwrap();
        let rid = query.get(..36).unwrap();
        let number = rids.iter().position(|known| *known == rid).unwrap_or_else(|| {
            rids.push(rid);
            rids.len() - 1
        });
        told.push(format!("{path} {number}{}", &query[36..]));
    }
    told
}

#[test]
fn a_monitor_hears_of_the_beginning_and_the_end() {
    let receiver = Receiver::start();
    let (database, sandbox) = sandbox(&receiver);
    let run = sandbox.run(&["backup"]).expect(0);
    sandbox.run(&["verify-backup", "--quiet"]).ends_with(0);
    for args in [
        &["backup", "--dry-run"][..],
        &["backup", "list"],
        &["verify-backup", "report"],
        &["history"],
        &["config", "check"],
    ] {
        sandbox.run(args).ends_with(0);
    }
    sandbox.run(&["restore", "--create", &format!("{database}_copy")]).ends_with(0);
    sandbox.run(&["backup", "prune"]).ends_with(0);
    let requests = receiver.requests();
    let expected = [
        "/key/backup/start 0&create=1",
        "/key/backup/0 0&create=1",
        "/key/verify-backup/start 1&create=1",
        "/key/verify-backup/0 1&create=1",
        "/key/restore/start 2&create=1",
        "/key/restore/0 2&create=1",
        "/key/backup-prune/start 3&create=1",
        "/key/backup-prune/0 3&create=1",
    ];
    assert_eq!(told(&requests), expected);
    assert_eq!((requests[0].body.as_str(), &requests[1].body), ("", &run.stdout));
    assert!(run.stdout.contains(&database), "{run:#?}");
    // Also what `--quiet` does not print.
    assert!(requests[3].body.contains(" is good: "), "{}", requests[3].body);
}

#[test]
fn each_command_can_have_a_check_of_its_own_and_say_nothing() {
    let receiver = Receiver::start();
    let (_, mut sandbox) = sandbox(&receiver);
    sandbox.unset("OPSCTL_PING_URL");
    let config = |mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        let url = receiver.url("uuid");
        let text = format!("[ping]\nbody = \"none\"\n[ping.commands]\nverify-backup = \"{url}\"\n");
        let path = sandbox.write("opsctl.toml", &text);
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    config(0o644);
    let run = sandbox.run(&["backup"]).expect(10);
    assert!(run.stderr.contains("is a secret that others can read"), "{run:#?}");
    config(0o600);
    sandbox.run(&["backup"]).ends_with(0);
    sandbox.run(&["verify-backup", "--restore-test"]).ends_with(0);
    assert_eq!(receiver.requests().len(), 0);
    sandbox.run(&["verify-backup"]).ends_with(0);
    let requests = receiver.requests();
    assert_eq!(told(&requests), ["/uuid/start 0", "/uuid/0 0"]);
    assert_eq!(requests[1].body, "");
    let shown = sandbox.run(&["config", "show"]).expect(0).stdout;
    assert!(shown.contains(&receiver.url("***")) && !shown.contains("uuid"), "{shown}");
}

#[test]
fn failures_are_told_however_early_they_are() {
    let receiver = Receiver::start();
    let (_, mut sandbox) = sandbox(&receiver);
    sandbox.run(&["verify-backup"]).ends_with(3);
    sandbox.set("DATABASE_URL", Cluster::shared().url("no_such_database"));
    sandbox.run(&["backup"]).ends_with(12);
    sandbox.write("opsctl.toml", "nonsense");
    sandbox.run(&["backup"]).ends_with(10);
    sandbox.run(&["backup", "--no-such-flag"]).ends_with(2);
    let requests = receiver.requests();
    let told = told(&requests);
    assert_eq!(
        told[..2],
        ["/key/verify-backup/start 0&create=1", "/key/verify-backup/3 0&create=1"]
    );
    let last: Vec<_> = told[2..].iter().filter(|told| !told.contains("/start")).collect();
    assert_eq!(last.len(), 3, "{told:?}");
    assert!(last[0].starts_with("/key/backup/12 ") && last[1].starts_with("/key/backup/10 "));
    assert!(last[2].starts_with("/key/backup/2 "), "{told:?}");
    let said: Vec<_> = requests.iter().map(|request| request.body.as_str()).collect();
    assert!(said.iter().any(|said| said.contains("no_such_database")), "{said:?}");
    assert!(said.iter().any(|said| said.contains("not valid TOML")), "{said:?}");
}

#[test]
fn a_refused_run_leaves_the_word_to_the_one_at_work_and_a_killed_one_says_no_more() {
    let (cluster, receiver) = (Cluster::shared(), Receiver::start());
    let (database, sandbox) = sandbox(&receiver);
    let gate = Gate::close(cluster, &database);
    let first = Running::start(&sandbox, &["backup"]);
    gate.wait(&first);
    sandbox.run(&["backup"]).ends_with(11);
    let expected = ["/key/backup/start 0&create=1", "/key/backup/log 1&create=1"];
    assert_eq!(told(&receiver.requests()), expected);
    first.signal(Signal::KILL);
    assert_eq!(first.end().status, 137);
    let stopped = Running::start(&sandbox, &["backup"]);
    // A session of the killed one stands before the gate still.
    receiver.wait_for(3);
    stopped.signal(Signal::TERM);
    assert_eq!(stopped.end().status, 143);
    gate.open();
    let more = ["/key/backup/start 2&create=1", "/key/backup/143 2&create=1"];
    assert_eq!(told(&receiver.requests()), [expected, more].concat());
}

#[test]
fn the_end_is_told_again_and_cut_to_what_the_server_keeps() {
    let receiver = Receiver::start();
    receiver.with_header("Ping-Body-Limit", "100").answer_next(&[200, 500, 429]);
    let (_, sandbox) = sandbox(&receiver);
    let run = sandbox.run(&["backup"]).expect(0);
    assert!(!run.stderr.contains("the monitor was not told"), "{run:#?}");
    let requests = receiver.requests();
    let end = "/key/backup/0 0&create=1";
    assert_eq!(told(&requests)[1..], [end, end, end]);
    let sent = &requests[3].body;
    let (notice, rest) = sent.split_once('\n').unwrap();
    assert!(notice.ends_with(" bytes before this were left out]"), "{sent}");
    assert!(sent.len() <= 100 && run.stdout.ends_with(rest) && !rest.is_empty(), "{sent}");
}

/// Backs up, and expects that only a warning tells what became of the pings.
#[track_caller]
fn only_warns(sandbox: &Sandbox, says: &str) -> Duration {
    let begun = Instant::now();
    let run = sandbox.run(&["backup"]).expect(0);
    let warnings = run.stderr.lines().filter(|line| line.contains("the monitor was not told of"));
    let warnings: Vec<_> = warnings.collect();
    assert_eq!(warnings.len(), 2, "{run:#?}");
    assert!(warnings.iter().all(|line| line.contains(" WARN ") && line.contains(says)), "{run:#?}");
    assert!(run.stdout.contains("backup ") && !run.stderr.contains("ERROR"), "{run:#?}");
    begun.elapsed()
}

#[test]
fn a_monitor_that_is_not_there_changes_nothing() {
    let receiver = Receiver::start();
    let (_, mut sandbox) = sandbox(&receiver);
    for (status, says) in [
        (404, "status 404: there is no such check"),
        (409, "status 409: several checks have this name"),
        (302, "status 302: it is somewhere else"),
    ] {
        receiver.answer(status);
        only_warns(&sandbox, says);
    }
    // What will not become better is not repeated.
    assert_eq!(receiver.requests().len(), 6);
    receiver.close();
    only_warns(&sandbox, "broke off");
    assert_eq!(receiver.requests().len(), 10);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    sandbox.set("OPSCTL_PING_URL", format!("http://{closed}/key/{{command}}"));
    only_warns(&sandbox, "Connection refused");
}

#[test]
fn a_monitor_that_hangs_holds_nobody_for_long() {
    let receiver = Receiver::start();
    let (_, sandbox) = sandbox(&receiver);
    receiver.hang();
    // The work and the beginning go on beside each other; then 30 seconds for the end. The rest is a busy machine.
    let took = only_warns(&sandbox, "did not answer within");
    assert!((20..60).contains(&took.as_secs()), "{took:?}");
}

#[test]
fn a_second_signal_ends_the_pings() {
    let receiver = Receiver::start();
    let (_, sandbox) = sandbox(&receiver);
    receiver.answer_next(&[200]).hang();
    let running = Running::start(&sandbox, &["backup"]);
    receiver.wait_for(2);
    // Two of one kind may arrive as one, and either of two as the first.
    running.signal(Signal::INT);
    running.signal(Signal::TERM);
    let run = running.end();
    // The work was done, and its report printed, before.
    assert!(run.status == 0 && run.stdout.contains("backup "), "{run:#?}");
    let is_told = |how: &str| run.stderr.contains(&format!("of the end of this run: {how}"));
    assert!(is_told("terminated") || is_told("interrupted"), "{run:#?}");
    assert_eq!(receiver.requests().len(), 2);
}
