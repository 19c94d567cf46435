//! `opsctl doctor`: what it says of installations that are sound, and of those that are not, each in its way.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::s3::S3;
use crate::support::{Cluster, Run, Sandbox, stock, unique};

/// The PATH in which the binary is found as `opsctl`.
fn bin_dir() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_opsctl")).parent().unwrap()
}

/// Returns a sandbox that says all in its file, as cron's runs have it.
fn installed(url: &str, more: &str) -> Sandbox {
    let mut sandbox = Sandbox::new("");
    for name in ["DATABASE_URL", "OPSCTL_REPOSITORY", "OPSCTL_STATE_DIR", "TMPDIR", "TZ"] {
        sandbox.unset(name);
    }
    let dir = sandbox.dir.path().display();
    let toml = format!(
        "state_dir = \"{dir}/state\"\n[database]\nname = \"members\"\nurl = \"{url}\"\n[health.disk]\nwarning = 100\ncritical = 100\n{more}"
    );
    let file = sandbox.write("opsctl.toml", &toml);
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
    sandbox
}

/// Returns what was seen that is bad: the part, what, and what to do.
fn bad(report: &Value) -> Vec<(String, String, String)> {
    let text = |seen: &Value, key: &str| seen[key].as_str().unwrap().to_owned();
    let seen = report["seen"].as_array().unwrap().iter();
    for seen in seen.clone().filter(|seen| seen["grade"] != "good") {
        assert!(seen["why"] != "" && seen["advice"] != "", "{seen}");
    }
    let bad = seen.filter(|seen| seen["grade"] == "bad");
    bad.map(|seen| (text(seen, "area"), text(seen, "what"), text(seen, "advice"))).collect()
}

/// Runs opsctl where `crontab -l` lists `crontab` and a cron runs, both of them real, and the system's own are not seen.
fn beside_cron(sandbox: &Sandbox, crontab: &str, args: &[&str]) -> Run {
    const SCRIPT: &str = "
        set -e
        mount -t tmpfs tmpfs /var/spool/cron
        mount -t tmpfs tmpfs /run
        mount -t tmpfs tmpfs /etc/cron.d
        mkdir -m 1730 /var/spool/cron/crontabs
        crontab \"$1\"
        cron -f </dev/null >/dev/null 2>&1 & cron=$!
        trap 'kill $cron' EXIT
        shift
        \"$@\"";
    let file = sandbox.write("crontab", crontab);
    let opsctl = sandbox.command(args);
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "bash", "-c", SCRIPT, "cron"]).arg(file);
    command.arg(opsctl.get_program()).args(opsctl.get_args());
    command.env_clear().envs(opsctl.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    Run::of(command.current_dir(sandbox.dir.path()).stdin(Stdio::null()))
}

#[test]
fn a_sound_installation_has_no_findings() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE members AS SELECT 1 AS id");
    let sandbox = installed(&cluster.url(&database), "[repository]\nlocation = \"backups\"\n");
    let file = sandbox.path("opsctl.toml").display().to_string();
    let program = bin_dir().join("opsctl").display().to_string();
    let print = ["schedule", "print", "--config", &file, "--program", &program];
    let crontab = sandbox.run(&print).expect(0).stdout;
    let run = beside_cron(&sandbox, &crontab, &["doctor", "--json"]).expect(0);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(bad(&report), [], "{report:#}");
    let areas: Vec<_> = report["seen"]
        .as_array()
        .unwrap()
        .iter()
        .map(|seen| seen["area"].as_str().unwrap())
        .collect();
    let all = [
        "configuration",
        "database",
        "programs",
        "repository",
        "state",
        "space",
        "cron",
        "notices",
    ];
    for area in all {
        assert!(areas.contains(&area), "{area}: {report:#}");
    }
    // Nothing is left of it, not even folders that another user's run could not write into.
    for name in ["backups", "state"] {
        assert!(!sandbox.path(name).exists(), "{name}");
    }
    // Without cron's mail: not a word.
    let quiet = beside_cron(&sandbox, &crontab, &["doctor", "--quiet"]).expect(0);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
}

#[test]
fn what_cron_starts_otherwise_than_it_should_is_said() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let mut sandbox = installed(&cluster.url(&database), "[repository]\nlocation = \"backups\"\n");
    sandbox.set("PGPASSWORD", "geheim");
    let crontab = "0 3 * * * opsctl backup --quiet\n0 5 * * * opsctl verify-backup >/tmp/x-%F\n";
    let args =
        ["doctor", "--json", "--skip", "database", "--skip", "programs", "--skip", "notices"];
    let run = beside_cron(&sandbox, crontab, &args).expect(3);
    assert!(!run.stdout.contains("geheim"), "{run:#?}");
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    let bad: Vec<String> = bad(&report).into_iter().map(|(_, what, _)| what).collect();
    let has = |part: &str| bad.iter().filter(|what| what.contains(part)).count();
    assert_eq!(
        has("starts `backup` at `0 3 * * *`, and [schedule] says `0 2 * * *`"),
        1,
        "{bad:#?}"
    );
    assert_eq!(
        has("nothing starts `verify-backup --restore-test`, `health-check`, `status`"),
        1,
        "{bad:#?}"
    );
    assert_eq!(has("`opsctl` is not found in cron's PATH (/usr/bin:/bin)"), 2, "{bad:#?}");
    assert_eq!(has("cron takes `%` for the end of the command"), 1, "{bad:#?}");
    assert_eq!(has("set here, and not for what cron starts: PGPASSWORD"), 1, "{bad:#?}");
    assert_eq!(bad.len(), 6, "{bad:#?}");
}

#[test]
fn everything_is_looked_at_whatever_fails() {
    let sandbox = installed(
        "postgresql://127.0.0.1:1/members",
        "[repository]\nlocation = \"opsctl.toml/x\"\n",
    );
    sandbox.write("home/.pgpass", "*:*:*:*:geheim\n");
    let pgpass = sandbox.path("home/.pgpass");
    std::fs::set_permissions(&pgpass, std::fs::Permissions::from_mode(0o644)).unwrap();
    let report = sandbox.json(3, &["doctor", "--skip", "cron"]);
    let found = bad(&report);
    let advice = |area: &str| {
        let found = found.iter().find(|(of, ..)| of == area);
        &found.unwrap_or_else(|| panic!("{area}: {report:#}")).2
    };
    assert_eq!(*advice("configuration"), format!("chmod 600 '{}'", pgpass.display()));
    assert!(advice("database").contains("psql"), "{report:#}");
    assert!(advice("repository").contains("location"), "{report:#}");
    assert!(report["seen"].as_array().unwrap().iter().any(|seen| seen["area"] == "state"));
    let said = sandbox.run(&["doctor", "--skip", "cron"]).expect(3).stdout;
    assert!(said.contains("BAD   database members: failed to reach"), "{said}");
    assert!(said.contains("\n      do:  chmod 600 '"), "{said}");

    sandbox.write("opsctl.toml", "[repository]\nlocatoin = \"x\"\n");
    let report = sandbox.json(3, &["doctor"]);
    let found = bad(&report);
    assert!(found[0].0 == "configuration" && found[0].1.contains("locatoin"), "{found:?}");
    let seen = report["seen"].as_array().unwrap().iter();
    assert_eq!(seen.filter(|seen| seen["area"] == "state").count(), 1, "{report:#}");
}

#[test]
fn a_role_is_told_what_it_lacks_and_has_enough_with_that() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let role = format!("doctor_{}", unique());
    cluster.sql(
        &database,
        &format!(
            "CREATE ROLE {role} LOGIN; CREATE TABLE members AS SELECT 1 AS id; CREATE SEQUENCE numbers; \
             CREATE TABLE notes (id int); ALTER TABLE notes ENABLE ROW LEVEL SECURITY"
        ),
    );
    let url = cluster.url(&database).replace("user=postgres", &format!("user={role}"));
    let sandbox = installed(&url, "[repository]\nlocation = \"backups\"\n");
    let args = ["doctor", "--skip", "cron", "--skip", "space"];
    let found = bad(&sandbox.json(3, &args));
    let [(area, what, grant)] = &found[..] else { panic!("{found:?}") };
    assert_eq!(area, "database");
    assert!(
        what.contains("may not read 3 tables or sequences: public.members, public.notes"),
        "{what}"
    );
    sandbox.run(&["backup"]).ends_with(1);
    cluster.sql(&database, grant);
    let found = bad(&sandbox.json(3, &args));
    let [(_, what, bypass)] = &found[..] else { panic!("{found:?}") };
    assert!(what.contains("row-level security hides rows of 1 tables"), "{what}");
    cluster.sql(&database, bypass);
    let report = sandbox.json(0, &args);
    let notes = report["seen"].as_array().unwrap().iter().filter(|seen| seen["grade"] == "note");
    let monitor =
        notes.filter_map(|seen| seen["advice"].as_str()).any(|a| a.contains("pg_monitor"));
    assert!(monitor, "{report:#}");
    sandbox.run(&["backup"]).ends_with(0);
}

#[test]
fn what_a_bucket_refuses_is_said_and_a_lock_is_seen() {
    let (cluster, s3) = (Cluster::shared(), S3::shared());
    let database = cluster.database();
    let (plain, locked) = (s3.bucket(), s3.bucket_with_lock());
    let repository = |bucket: &str, more: &str| {
        let toml = format!("[repository]\nlocation = \"s3://{bucket}/ops\"\n{more}");
        let mut sandbox = installed(&cluster.url(&database), &toml);
        s3.set_up(&mut sandbox);
        sandbox
    };
    let args = ["doctor", "--skip", "cron", "--skip", "space"];
    let good = repository(&plain, "").json(0, &args);
    assert_eq!(bad(&good), []);
    assert_eq!(s3.list(&plain, ""), Vec::<String>::new());

    let lock = "[repository.s3]\nobject_lock = \"governance\"\nobject_lock_days = 1\n";
    let report = repository(&locked, lock).json(0, &args);
    let seen = report["seen"].as_array().unwrap().iter();
    let stays = |seen: &&Value| seen["what"].as_str().unwrap().contains("stays for 1 day");
    assert_eq!(seen.filter(stays).count(), 1, "{report:#}");
    // A delete marker hides it.
    assert_eq!(s3.list(&locked, ""), Vec::<String>::new());

    for (action, part) in
        [("s3:PutObject", "cannot be written"), ("s3:DeleteObject", "cannot be removed")]
    {
        deny(s3, &plain, action);
        let found = bad(&repository(&plain, "").json(3, &args));
        let [(area, what, advice)] = &found[..] else { panic!("{found:?}") };
        assert!(area == "repository" && what.contains(part), "{what}");
        assert!(advice.contains(action), "{advice}");
    }
    let left = s3.list(&plain, "");
    assert!(left.len() == 1 && left[0].starts_with("ops/opsctl-doctor-"), "{left:?}");
}

#[test]
fn an_archive_that_nobody_can_clean_is_as_it_should_be_and_at_most_one_probe_stays() {
    let (cluster, s3) = (Cluster::shared(), S3::shared());
    let database = cluster.database();
    let rows = "CREATE TABLE audit_logs (id bigserial PRIMARY KEY, at timestamptz NOT NULL); \
        INSERT INTO audit_logs (at) VALUES ('2024-03-05 00:00Z')";
    cluster.sql(&database, rows);
    let (plain, locked) = (s3.bucket(), s3.bucket_with_lock());
    let archive = |bucket: &str, more: &str| {
        let toml = format!(
            "[repository]\nlocation = \"backups\"\n[[audit]]\ntable = \"audit_logs\"\ntime_column = \"at\"\n\
             location = \"s3://{bucket}/evidence\"\nsigning_key = \"key\"\n{more}"
        );
        let mut sandbox = installed(&cluster.url(&database), &toml);
        s3.set_up(&mut sandbox);
        let key = sandbox.path("key");
        stock(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(key));
        sandbox
    };
    let args = ["doctor", "--skip", "cron", "--skip", "space"];
    let notes = |report: &Value, what: &str| {
        let seen = report["seen"].as_array().unwrap().iter();
        let notes = seen.filter(|seen| seen["grade"] == "note");
        notes.filter(|seen| seen["what"].as_str().unwrap().contains(what)).count()
    };
    let sandbox = archive(&plain, "");
    assert_eq!(bad(&sandbox.json(0, &args)), []);
    assert_eq!(s3.list(&plain, ""), Vec::<String>::new());
    deny(s3, &plain, "s3:DeleteObject");
    for _ in 0..3 {
        let report = sandbox.json(0, &args);
        assert_eq!(notes(&report, "nothing can be removed"), 1, "{report:#}");
    }
    assert_eq!(s3.list(&plain, ""), ["evidence/opsctl-doctor"]);
    deny(s3, &plain, "s3:PutObject");
    let found = bad(&sandbox.json(3, &args));
    assert!(found[0].1.contains("cannot be written"), "{found:?}");

    // What is locked for seven years is not tried.
    let lock = "[audit.s3]\nobject_lock = \"governance\"\nobject_lock_days = 2555\n";
    let sandbox = archive(&locked, lock);
    let versions = || stock(s3.curl(&format!("/{locked}?versions=")).args(["-X", "GET"]));
    for _ in 0..2 {
        let report = sandbox.json(0, &args);
        assert_eq!(notes(&report, "was not tried"), 1, "{report:#}");
    }
    assert!(!versions().contains("<Key>"), "{}", versions());
    sandbox.run(&["archive-audit"]).ends_with(0);
    let before = versions().matches("<Key>").count();
    let report = sandbox.json(0, &args);
    assert!(report.to_string().contains("what it has is locked"), "{report:#}");
    assert_eq!(versions().matches("<Key>").count(), before);
    // An archive of which nothing is locked, whatever the configuration says.
    let open = s3.bucket();
    archive(&open, "").run(&["archive-audit"]).ends_with(0);
    let found = bad(&archive(&open, lock).json(3, &args));
    assert!(found[0].1.contains("manifest.json` is not locked for 2,555 days"), "{found:?}");
}

/// Has a bucket refuse something to everybody.
fn deny(s3: &S3, bucket: &str, action: &str) {
    let policy = serde_json::json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Deny", "Principal": "*", "Action": action, "Resource": format!("arn:aws:s3:::{bucket}/*"),
    }] });
    stock(s3.curl(&format!("/{bucket}?policy=")).args([
        "-X",
        "PUT",
        "--data",
        &policy.to_string(),
    ]));
}

#[test]
fn what_hangs_is_a_finding_in_time() {
    // It takes connections, and says nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("postgresql://127.0.0.1:{port}/members?connect_timeout=300");
    let sandbox = installed(&url, "[repository]\nlocation = \"backups\"\n");
    let began = Instant::now();
    let report = sandbox.json(3, &["doctor", "--skip", "cron", "--timeout", "1s"]);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let found = bad(&report);
    assert!(found.iter().all(|(area, ..)| area == "database"), "{found:?}");
    assert!(!found.is_empty(), "{report:#}");
    let seen = report["seen"].as_array().unwrap().iter();
    assert!(seen.filter(|seen| seen["area"] == "repository").all(|seen| seen["grade"] == "good"));
}
