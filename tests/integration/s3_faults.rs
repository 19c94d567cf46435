//! An S3 server, or the way to it, that misbehaves while a backup is written or read. What could not be stored for
//! certain is no backup; what a moment's patience can overcome is overcome.

use std::time::Duration;

use crate::support::patient::{check_log, errors, sandbox};
use crate::support::proxy::{Fate, Proxy, Request};
use crate::support::s3::S3;
use crate::support::{Cluster, Run, Sandbox};

const SLOW_DOWN: &str = "<Error><Code>SlowDown</Code><Message>not now</Message></Error>";
const INTERNAL: &str = "<Error><Code>InternalError</Code><Message>oh no</Message></Error>";
const DENIED: &str = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>";

/// A database with one good backup in a bucket.
struct Bucket {
    s3: &'static S3,
    name: String,
    database: String,
    sandbox: Sandbox,
    earlier: String,
}

impl Bucket {
    fn new() -> Bucket {
        let cluster = Cluster::shared();
        let database = cluster.database();
        let sql = "CREATE TABLE members AS SELECT n, md5(n::text) AS name FROM generate_series(1, 1000) n";
        cluster.sql(&database, sql);
        let mut sandbox = sandbox(&cluster.url(&database));
        let s3 = S3::shared();
        let name = s3.bucket();
        s3.set_up(&mut sandbox);
        sandbox.set("OPSCTL_REPOSITORY", format!("s3://{name}/backups"));
        let earlier = sandbox.back_up(&[]);
        Bucket { s3, name, database, sandbox, earlier }
    }

    /// Runs opsctl behind a proxy; the requests that came are returned too.
    fn run(
        &mut self,
        args: &[&str],
        rule: impl Fn(&Request) -> Fate + Send + Sync + 'static,
    ) -> (Run, Vec<Request>) {
        let proxy = Proxy::start(self.s3.endpoint.strip_prefix("http://").unwrap(), rule);
        self.sandbox.set("AWS_ENDPOINT_URL", proxy.url());
        let run = self.sandbox.run(args);
        self.sandbox.set("AWS_ENDPOINT_URL", self.s3.endpoint.clone());
        check_log(&run);
        (run, proxy.requests())
    }

    /// Returns the ids of the backups that have a manifest.
    fn backups(&self) -> Vec<String> {
        let prefix = format!("backups/{}/", self.database);
        let keys = self.s3.list(&self.name, &prefix);
        let manifests =
            keys.iter().filter_map(|key| key.strip_prefix(&prefix)?.strip_suffix("/manifest.json"));
        manifests.map(str::to_owned).collect()
    }

    /// Takes a backup behind a proxy that must fail, and looks at what is left of it.
    #[track_caller]
    fn fails(mut self, says: &str, rule: impl Fn(&Request) -> Fate + Send + Sync + 'static) {
        let (run, _) = self.run(&["backup"], rule);
        assert_eq!(run.status, 13, "{run:#?}");
        assert!(matches!(&errors(&run)[..], [one] if one.contains(says)), "{says}: {run:#?}");
        assert_eq!(self.backups(), [self.earlier.clone()], "{run:#?}");
        self.check_next(1);
    }

    /// Takes a backup behind a proxy that must succeed all the same.
    #[track_caller]
    fn succeeds(mut self, rule: impl Fn(&Request) -> Fate + Send + Sync + 'static) {
        let (run, requests) = self.run(&["backup"], rule);
        assert_eq!(run.status, 0, "{run:#?}");
        assert!(requests.len() > 10, "{requests:?}");
        assert_eq!(self.backups().len(), 2, "{run:#?}");
        self.check_next(2);
    }

    /// The next backup succeeds and tidies up, and all of them are good.
    #[track_caller]
    fn check_next(&mut self, n_backups: usize) {
        let next = self.sandbox.back_up(&[]);
        let backups = self.backups();
        assert!(backups.len() == n_backups + 1 && backups.contains(&next), "{backups:?}");
        let known = |key: &String| {
            backups.iter().any(|id| key.contains(id.as_str())) && !key.ends_with("lease.json")
        };
        let keys = self.s3.list(&self.name, "");
        assert!(keys.iter().all(known), "{keys:?}");
        let report = self.sandbox.json(0, &["verify-backup", "--all"]);
        assert_eq!(
            report["verifications"].as_array().map(Vec::len),
            Some(n_backups + 1),
            "{report:#}"
        );
    }
}

fn is_manifest(request: &Request) -> bool {
    request.method == "PUT" && request.target.ends_with("/manifest.json")
}

fn is_data(request: &Request) -> bool {
    request.method == "PUT" && request.target.contains(".dat")
}

#[test]
fn a_server_that_is_busy_for_a_while_is_waited_for() {
    Bucket::new().succeeds(|request| match (request.method.as_str(), request.number) {
        ("PUT", 1 | 3 | 4) | ("HEAD", 2) | ("GET", 1) => Fate::Answer(503, SLOW_DOWN),
        _ => Fate::Pass,
    });
}

#[test]
fn a_server_that_is_busy_for_ever_is_given_up() {
    Bucket::new().fails("SlowDown", |_| Fate::Answer(503, SLOW_DOWN));
}

#[test]
fn a_server_that_takes_no_rows_is_given_up() {
    Bucket::new()
        .fails("SlowDown", |r| if is_data(r) { Fate::Answer(503, SLOW_DOWN) } else { Fate::Pass });
}

#[test]
fn a_success_with_an_error_inside_is_a_failure() {
    Bucket::new().fails("InternalError", |r| {
        if is_data(r) { Fate::FalseAnswer(200, INTERNAL) } else { Fate::Pass }
    });
}

#[test]
fn another_etag_is_a_failure() {
    let etag = "\"00000000000000000000000000000000\"";
    Bucket::new()
        .fails("MD5", move |r| if is_data(r) { Fate::Header("ETag", etag) } else { Fate::Pass });
}

#[test]
fn a_denied_object_is_a_failure() {
    Bucket::new()
        .fails("AccessDenied", |r| if is_data(r) { Fate::Answer(403, DENIED) } else { Fate::Pass });
}

#[test]
fn connections_that_are_closed_are_opened_again() {
    Bucket::new().succeeds(|r| if r.number % 4 == 1 { Fate::Refuse } else { Fate::Pass });
}

#[test]
fn a_server_that_closes_every_connection_is_given_up() {
    Bucket::new().fails("put", |r| if is_data(r) { Fate::Refuse } else { Fate::Pass });
}

#[test]
fn lost_answers_are_asked_for_again() {
    Bucket::new().succeeds(|r| {
        if r.method == "PUT" && r.number % 2 == 1 { Fate::LoseAnswer } else { Fate::Pass }
    });
}

#[test]
fn without_its_manifest_it_is_no_backup() {
    Bucket::new().fails("manifest.json", |r| {
        if is_manifest(r) { Fate::Answer(503, SLOW_DOWN) } else { Fate::Pass }
    });
}

#[test]
fn the_lost_answer_to_the_manifest_is_asked_for_again() {
    let lost = std::sync::atomic::AtomicBool::new(false);
    Bucket::new().succeeds(move |request| {
        let is_first =
            is_manifest(request) && !lost.swap(true, std::sync::atomic::Ordering::SeqCst);
        if is_first { Fate::LoseAnswer } else { Fate::Pass }
    });
}

#[test]
fn a_manifest_that_is_there_but_never_confirmed_is_taken_back() {
    // The server stores it; no answer ever says so.
    Bucket::new().fails("manifest.json", |request| {
        let is_about_it = request.target.ends_with("/manifest.json");
        if is_about_it && request.method != "DELETE" { Fate::LoseAnswer } else { Fate::Pass }
    });
}

#[test]
fn a_stalled_request_ends_with_the_deadline() {
    let mut bucket = Bucket::new();
    let rule =
        |r: &Request| if is_data(r) { Fate::Stall(Duration::from_secs(40)) } else { Fate::Pass };
    let (run, _) = bucket.run(&["backup", "--timeout", "2s"], rule);
    assert_eq!(run.status, 14, "{run:#?}");
    let rule = |r: &Request| {
        if r.method == "GET" { Fate::Stall(Duration::from_secs(40)) } else { Fate::Pass }
    };
    let (read, _) = bucket.run(&["verify-backup", "--timeout", "1s"], rule);
    assert_eq!(read.status, 14, "{read:#?}");
    assert_eq!(bucket.backups(), [bucket.earlier.clone()], "{run:#?}");
    bucket.check_next(1);
}

#[test]
fn a_body_that_is_cut_once_is_read_again_and_one_that_is_always_cut_is_no_proof() {
    let mut bucket = Bucket::new();
    let is_read = |r: &Request| r.method == "GET" && r.target.contains(".dat");
    let once = std::sync::atomic::AtomicBool::new(false);
    let (run, _) = bucket.run(&["verify-backup"], move |request| {
        let is_first = is_read(request) && !once.swap(true, std::sync::atomic::Ordering::SeqCst);
        if is_first { Fate::Cut(100) } else { Fate::Pass }
    });
    run.expect(0).silence();
    let (run, _) = bucket
        .run(&["verify-backup"], move |r| if is_read(r) { Fate::Cut(100) } else { Fate::Pass });
    // Not damage: nobody knows.
    assert_eq!(run.status, 13, "{run:#?}");
    let (run, _) =
        bucket.run(&["verify-backup"], move |r| if is_read(r) { Fate::Flip } else { Fate::Pass });
    assert_eq!(run.status, 3, "{run:#?}");
    bucket.check_next(1);
}

#[test]
fn one_repository_fails_in_the_middle_and_the_other_has_the_backup() {
    let mut bucket = Bucket::new();
    let directory = bucket.sandbox.path("home-repository");
    let location = format!("s3://{}/backups", bucket.name);
    bucket.sandbox.write(
        "opsctl.toml",
        &format!("[repositories.home]\nlocation = {directory:?}\n[repositories.away]\nlocation = {location:?}\n"),
    );
    bucket.sandbox.unset("OPSCTL_REPOSITORY");
    let (run, _) = bucket.run(&["backup", "--json"], |r| {
        if is_data(r) { Fate::Answer(403, DENIED) } else { Fate::Pass }
    });
    assert_eq!(run.status, 1, "{run:#?}");
    assert!(
        matches!(&errors(&run)[..], [one] if one.contains("repository `away` has no backup")),
        "{run:#?}"
    );
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let id = report["databases"][0]["backup"].as_str().unwrap();
    bucket
        .sandbox
        .run(&["verify-backup", "--repository", "home", "--backup", id])
        .expect(0)
        .silence();
    assert_eq!(bucket.backups(), [bucket.earlier.clone()], "{run:#?}");
    bucket.sandbox.set("OPSCTL_REPOSITORY", "away");
    bucket.check_next(1);
}

/// Is it a request for a table's chunk?
fn is_table(request: &Request) -> bool {
    request.method == "GET" && request.target.contains(".dat.")
}

#[test]
fn a_restore_from_a_bucket_survives_a_moment_and_gives_up_on_more() {
    let mut bucket = Bucket::new();
    let cluster = Cluster::shared();
    let name = format!("restored_{}", crate::support::unique());
    let args = ["restore", "--create", &name];
    let databases = format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'");

    let (run, requests) =
        bucket.run(&args, |request| if is_table(request) { Fate::Cut(100) } else { Fate::Pass });
    assert_eq!(run.status, 13, "{run:#?}");
    assert!(
        requests.iter().filter(|request| is_table(request)).count() > 1,
        "it was not tried again"
    );
    assert_eq!(cluster.sql("postgres", &databases), "0");

    let tried = std::sync::atomic::AtomicU32::new(0);
    let (run, _) = bucket.run(&args, move |request| {
        let first =
            is_table(request) && tried.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        if first { Fate::Cut(100) } else { Fate::Pass }
    });
    assert_eq!(run.status, 0, "{run:#?}");
    assert_eq!(cluster.sql(&name, "SELECT count(*) FROM members"), "1000");
    let (run, _) = bucket.run(&["verify-backup", "--restore-test"], |_| Fate::Pass);
    assert_eq!(run.status, 0, "{run:#?}");
}
