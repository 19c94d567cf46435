//! opsctl itself killed at every step: whatever the moment, the repository lists only complete backups, and the
//! next run succeeds and tidies up at once, because it sees that the process is gone.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::patient::{folders, sandbox, unfinished};
use crate::support::proxy::{Fate, Proxy};
use crate::support::running::{Running, eventually, send, spoiled};
use crate::support::s3::S3;
use crate::support::{Cluster, Run, Sandbox};

/// Retention that lets each run remove a backup, so that removals are interrupted too.
const RETENTION: &str = "[repository.retention]\nkeep_last = 2\n";

/// Makes a tiny database, and a sandbox for it that keeps two backups at `location`.
fn set_up(location: Option<&str>) -> Sandbox {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let sql = "CREATE TABLE members AS SELECT 1 AS n; CREATE TABLE dues AS SELECT generate_series(1, 10) AS n";
    cluster.sql(&database, sql);
    let mut sandbox = sandbox(&cluster.url(&database));
    sandbox.unset("OPSCTL_REPOSITORY");
    let default = format!("{}/{database}", sandbox.path("backups").display());
    let location = location.unwrap_or(&default);
    sandbox.write("opsctl.toml", &format!("[repository]\nlocation = \"{location}\"\n{RETENTION}"));
    sandbox
}

/// Takes two backups and removes none; returns their ids, the newest first.
fn two(sandbox: &Sandbox) -> [String; 2] {
    let older = sandbox.back_up(&["--no-prune"]);
    [sandbox.back_up(&["--no-prune"]), older]
}

/// Returns the ids in a repository, the newest first: those of backups, and those of folders that are none.
fn listed(sandbox: &Sandbox) -> (Vec<String>, Vec<String>) {
    let report = sandbox.json(0, &["backup", "list"]);
    let repository = &report["databases"][0]["repositories"][0];
    let ids = |list: &Value| -> Vec<String> {
        let id = |entry: &Value| entry.as_str().or(entry["backup"].as_str()).unwrap().to_owned();
        list.as_array().unwrap().iter().map(id).collect()
    };
    for backup in repository["backups"].as_array().unwrap() {
        assert_eq!(backup["problem"], Value::Null, "{report:#}");
    }
    (
        ids(&repository["backups"]),
        [ids(&repository["leftovers"]), ids(&repository["in_progress"])].concat(),
    )
}

/// Is there nothing in a folder but an empty file that was to become the lease?
fn is_unknown(sandbox: &Sandbox, id: &str) -> bool {
    let found = unfinished(&sandbox.path("backups"));
    let inside: Vec<_> = found.iter().filter(|path| path.to_string_lossy().contains(id)).collect();
    matches!(&inside[..], [path] if path.to_string_lossy().contains("/.lease.json.") && path.metadata().unwrap().len() == 0)
}

/// What a killed run leaves is not more than this, and after the next run it is gone.
fn check(sandbox: &Sandbox, how: &str, run: &Run, before: &[String]) -> [String; 2] {
    assert_eq!(run.status, 137, "{how}: {run:#?}");
    let (backups, others) = listed(sandbox);
    assert!(!backups.is_empty(), "{how}: nothing is left of {before:?}");
    assert!(others.len() <= 2, "{how}: {others:?}");
    // The newest that was there is never touched.
    assert!(backups.contains(&before[0]), "{how}: {before:?} {backups:?}");
    // With nothing but an empty file, which was to become its lease, a folder could be anybody's for a day.
    let unknown = others.iter().filter(|id| is_unknown(sandbox, id)).cloned().collect::<Vec<_>>();
    let next = sandbox.json(0, &["backup"]);
    let id = next["databases"][0]["backup"].as_str().unwrap().to_owned();
    let verified = sandbox.run(&["verify-backup", "--all"]);
    assert_eq!(verified.status, 0, "{how}: {verified:#?}");
    let (backups, others) = listed(sandbox);
    assert!(backups.contains(&id), "{how}");
    assert_eq!(others, unknown, "{how}: {next:#}");
    if !unknown.is_empty() {
        let tomorrow = chrono::Utc::now() + chrono::TimeDelta::hours(25);
        sandbox.run(&["backup", "prune", "--now", &tomorrow.to_rfc3339()]).expect(0).silence();
        assert_eq!(listed(sandbox).1, [] as [String; 0], "{how}: {next:#}");
    }
    backups.try_into().unwrap_or_else(|backups| panic!("{how}: {backups:?} {next:#}"))
}

/// Kills runs of a command at the n-th such call of any thread, for every n until one is not killed.
fn killed_at_every(call: &str, at_least: usize, args: &[&str]) {
    let sandbox = set_up(None);
    let mut before = two(&sandbox);
    for n in 1.. {
        if args.contains(&"prune") {
            // So that there is something to remove.
            before = [sandbox.back_up(&["--no-prune"]), before[0].clone()];
        }
        let how = format!("{args:?} killed at {call} {n}");
        let inject = format!("{call}:signal=KILL:when={n}");
        let run = Run::of(&mut spoiled(&sandbox.command(args), &inject));
        if run.status == 0 {
            assert!(n > at_least, "{how}: strace kills nothing");
            break;
        }
        before = check(&sandbox, &how, &run, &before);
        let folder = sandbox.path("backups");
        let database = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
        let inside = std::fs::read_dir(&database).unwrap().next().unwrap().unwrap().path();
        assert_eq!(unfinished(&inside), [] as [std::path::PathBuf; 0], "{how}");
        assert!(folders(&inside).iter().all(|(_, is_complete)| *is_complete), "{how}");
        assert!(n < 100, "{how}: it never ends");
    }
}

#[test]
fn killed_at_every_rename() {
    killed_at_every("renameat2,rename", 3, &["backup"]);
}

#[test]
fn killed_at_every_fsync() {
    killed_at_every("fsync", 8, &["backup"]);
}

#[test]
fn killed_at_every_new_folder() {
    killed_at_every("mkdir,mkdirat", 1, &["backup"]);
}

#[test]
fn killed_at_every_write() {
    killed_at_every("write", 5, &["backup"]);
}

#[test]
fn killed_at_every_removal_of_a_file() {
    killed_at_every("unlink", 5, &["backup"]);
}

#[test]
fn a_prune_is_killed_at_every_removal_of_a_file() {
    killed_at_every("unlink", 5, &["backup", "prune"]);
}

/// A proxy that kills a process when the n-th request comes.
struct Killer {
    /// Whom to kill; 0 is nobody.
    victim: AtomicUsize,
    /// At which request from now on.
    after: AtomicUsize,
    /// Does the server still get that request?
    passes: AtomicBool,
    is_dead: Mutex<bool>,
}

impl Killer {
    fn judge(&self) -> Fate {
        let victim = self.victim.load(Ordering::SeqCst);
        if victim == 0 {
            return Fate::Pass;
        }
        let mut is_dead = self.is_dead.lock().unwrap();
        if *is_dead {
            return Fate::Refuse;
        }
        if self.after.fetch_sub(1, Ordering::SeqCst) > 1 {
            return Fate::Pass;
        }
        *is_dead = true;
        send(u32::try_from(victim).unwrap(), Signal::KILL);
        if self.passes.load(Ordering::SeqCst) { Fate::LoseAnswer } else { Fate::Refuse }
    }
}

/// Kills runs at the n-th request, for every n until one is not killed.
fn killed_at_every_request(passes: bool) {
    let killer: &'static Killer = Box::leak(Box::new(Killer {
        victim: AtomicUsize::new(0),
        after: AtomicUsize::new(0),
        passes: AtomicBool::new(passes),
        is_dead: Mutex::new(false),
    }));
    let s3 = S3::shared();
    let proxy = Proxy::start(s3.endpoint.strip_prefix("http://").unwrap(), move |_| killer.judge());
    let mut sandbox = set_up(Some(&format!("s3://{}/some/prefix", s3.bucket())));
    s3.set_up(&mut sandbox);
    sandbox.set("AWS_ENDPOINT_URL", proxy.url());
    let mut before = two(&sandbox);
    for n in 1.. {
        *killer.is_dead.lock().unwrap() = false;
        killer.after.store(n, Ordering::SeqCst);
        // The process must not ask before it is known whom to kill.
        let mut stopped = std::process::Command::new("sh");
        let command = sandbox.command(&["backup"]);
        stopped
            .args(["-c", "kill -STOP $$; exec \"$0\" \"$@\""])
            .arg(command.get_program())
            .args(command.get_args());
        stopped.env_clear().envs(command.get_envs().filter_map(|(n, v)| Some((n, v?))));
        stopped.current_dir(command.get_current_dir().unwrap());
        let running = Running::spawn(&mut stopped);
        let stat = format!("/proc/{}/stat", running.pid);
        let is_stopped = || std::fs::read_to_string(&stat).unwrap().contains(") T ").then_some(());
        eventually("the shell has stopped itself", is_stopped);
        killer.victim.store(usize::try_from(running.pid).unwrap(), Ordering::SeqCst);
        running.signal(Signal::CONT);
        let run = running.end();
        killer.victim.store(0, Ordering::SeqCst);
        if run.status == 0 {
            assert!(n > 20, "the proxy kills nothing");
            break;
        }
        before = check(&sandbox, &format!("killed at request {n}"), &run, &before);
        assert!(n < 200, "it never ends");
    }
}

#[test]
fn killed_at_every_request_to_s3_before_the_server_sees_it() {
    killed_at_every_request(false);
}

#[test]
fn killed_at_every_request_to_s3_after_the_server_did_it() {
    killed_at_every_request(true);
}
