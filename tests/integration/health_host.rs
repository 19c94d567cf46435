//! health-check of the machine and its logs: a file system that fills up, figures of /proc, and the logs of a real nginx
//! and a real PostgreSQL.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::running::{apart, eventually};
use crate::support::{Cluster, Run, Sandbox, installed, stock, unpacked};

/// Asks for checks by name or kind, and returns the report.
fn report(sandbox: &Sandbox, only: &[&str]) -> Value {
    let mut args = vec!["health-check", "--json"];
    args.extend(only.iter().flat_map(|name| ["--only", name]));
    parse(&sandbox.run(&args))
}

fn parse(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {run:#?}"))
}

/// Returns the status of a check, and what it says.
fn status(report: &Value, name: &str) -> (String, String) {
    let checks = report["checks"].as_array().unwrap().iter();
    let mut found = checks.filter(|check| check["name"] == name);
    let check = found.next().unwrap_or_else(|| panic!("{name}: {report:#}"));
    let text = |key: &str| check[key].as_str().unwrap().to_owned();
    (text("status"), text("message"))
}

#[track_caller]
fn expect(report: &Value, name: &str, expected: &str, message: &str) {
    let (status, said) = status(report, name);
    assert!(status == expected && said.contains(message), "{name}: {status}: {said}");
}

#[test]
fn a_file_system_fills_up() {
    let sandbox = Sandbox::new("postgresql:///nowhere?host=/nowhere");
    let small = sandbox.path("small").display().to_string();
    std::fs::create_dir(&small).unwrap();
    let name = |kind: &str| format!("{kind}{small}");
    let look = |size: &str, fill: &str, settings: &str| {
        let text = format!("[health.disk]\npaths = [\"small\"]\n{settings}");
        sandbox.write("opsctl.toml", &text);
        let mount =
            format!("mount -t tmpfs -o size={size},nr_inodes=100 opsctl-test small; {fill}");
        let names = [name("disk"), name("inodes")];
        let args = ["health-check", "--json", "--only", &names[0], "--only", &names[1]];
        parse(&Run::of(&mut apart(&sandbox.command(&args), &mount)))
    };
    let half = look("8M", "head -c 4M /dev/zero >small/filler", "");
    expect(&half, &name("disk"), "ok", "50.0 % of 8.00 MiB used, 4.00 MiB left");
    expect(&half, &name("inodes"), "ok", "% of 100 used");
    // There is more room left than 5 GB, in memory that nobody uses.
    let large = look("60G", "head -c 4M /dev/zero >small/filler", "warning = \"0%\"\n");
    expect(&large, &name("disk"), "warning", "left");
    let full = look("8M", "head -c 9M /dev/zero >small/filler 2>/dev/null || true", "");
    expect(&full, &name("disk"), "critical", "100.0 % of 8.00 MiB used, 0 B left");
    let many = look("8M", "for i in {1..85}; do : >small/$i; done", "");
    expect(&many, &name("inodes"), "warning", "left");
    let most = look("8M", "for i in {1..97}; do : >small/$i; done", "");
    expect(&most, &name("inodes"), "critical", "left");
    // A disk that should be there, and is not mounted.
    sandbox.write("opsctl.toml", "[health.disk]\npaths = [\"missing\"]\n");
    let (status, said) = status(&report(&sandbox, &["disk"]), "disk");
    assert!(["unknown", "critical"].contains(&status.as_str()), "{status}");
    assert!(said.contains("/missing` is not there"), "{said}");
}

#[test]
fn a_file_system_that_will_be_full_is_seen_coming() {
    let sandbox = Sandbox::new("postgresql:///nowhere?host=/nowhere");
    let small = sandbox.path("small").display().to_string();
    std::fs::create_dir(&small).unwrap();
    sandbox.write("opsctl.toml", "[health.disk]\npaths = [\"small\"]\n");
    let first: chrono::DateTime<chrono::Utc> = "2026-11-01T00:00:00Z".parse().unwrap();
    let (disk, full) = (format!("disk{small}"), format!("disk-full{small}"));
    let look = |hours: i64, percent: i64| {
        let now = (first + chrono::TimeDelta::hours(hours)).to_rfc3339();
        let args = ["health-check", "--json", "--now", &now, "--only", &disk, "--only", &full];
        let mount = format!(
            "mount -t tmpfs -o size=20M opsctl-test small; head -c {}K /dev/zero >small/filler",
            percent * 20 * 1024 / 100
        );
        parse(&Run::of(&mut apart(&sandbox.command(&args), &mount)))
    };
    // Two percent a day, seen twice a day.
    for n in 0..24 {
        expect(&look(12 * n, 40 + n), &full, "ok", "");
    }
    expect(&look(12 * 24, 64), &full, "ok", "full in 18 days");
    for n in 25..48 {
        let _passed = look(12 * n, 40 + n);
    }
    expect(&look(12 * 48, 88), &full, "warning", "full in 6 days");
    // Nobody looked for a while.
    expect(&look(12 * 59, 99), &full, "critical", "full in 0 days");
}

#[test]
fn the_figures_of_the_machine_are_judged() {
    let sandbox = Sandbox::new("postgresql:///nowhere?host=/nowhere");
    let kinds = ["memory", "cpu", "load"];
    let look = |[memory, cpu, load]: [&str; 3]| {
        let text = format!(
            "[health.memory]\n{memory}\n[health.cpu]\nfor = 1\n{cpu}\n[health.load]\nfor = 1\n{load}\n"
        );
        sandbox.write("opsctl.toml", &text);
        report(&sandbox, &kinds)
    };
    let all = |report: &Value, expected: &str| {
        for kind in kinds {
            expect(report, kind, expected, "");
        }
    };
    let never = [
        "warning = \"0%\"\ncritical = \"0%\"",
        "warning = \"100%\"\ncritical = \"100%\"",
        "warning = 1e6\ncritical = 1e6",
    ];
    all(&look(never), "ok");
    let early = [
        "warning = \"100%\"\ncritical = \"0%\"",
        "warning = \"-1%\"\ncritical = \"100%\"",
        "warning = -1\ncritical = 1e6",
    ];
    all(&look(early), "warning");
    let always = ["critical = \"100%\"", "critical = \"-1%\"", "critical = -1"];
    all(&look(always), "critical");
    let blind = "for file in meminfo stat loadavg; do mount --bind /dev/null /proc/$file; done";
    let mut args = vec!["health-check", "--json"];
    args.extend(kinds.iter().flat_map(|kind| ["--only", kind]));
    let unknown = parse(&Run::of(&mut apart(&sandbox.command(&args), blind)));
    all(&unknown, "unknown");
    expect(&unknown, "memory", "unknown", "`/proc/meminfo` is not written as expected");
}

/// A web server of the test's own, on a socket.
struct Nginx {
    dir: PathBuf,
    child: Child,
}

impl Nginx {
    fn start(dir: &Path) -> Nginx {
        let at = dir.display();
        let conf = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;
             events {{ }}
             http {{
                log_format json escape=json '{{\"time_iso8601\":\"$time_iso8601\",\"status\":\"$status\",\"uri\":\"$request_uri\"}}';
                access_log {at}/access.log combined; access_log {at}/json.log json;
                client_body_temp_path {at}; proxy_temp_path {at}; fastcgi_temp_path {at}; uwsgi_temp_path {at}; scgi_temp_path {at};
                server {{
                    listen unix:{at}/socket;
                    location = /well {{ return 200; }} location = /broken {{ return 503; }} location = /private {{ return 401; }}
                    location / {{ root {at}/nothing; }}
                }}
             }}"
        );
        std::fs::write(dir.join("nginx.conf"), conf).unwrap();
        let mut command = unpacked("nginx");
        command.arg("-p").arg(dir).arg("-c").arg(dir.join("nginx.conf")).stderr(Stdio::null());
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let nginx = Nginx { dir: dir.to_owned(), child };
        eventually("nginx answers", || {
            nginx.curl(&["http://h/well"]).output().ok()?.status.success().then_some(())
        });
        nginx
    }

    fn curl(&self, args: &[&str]) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-o", "/dev/null", "--unix-socket"]).arg(self.dir.join("socket"));
        curl.args(args).stderr(Stdio::null());
        curl
    }

    /// Asks for a path so many times.
    fn ask(&self, path: &str, times: u32) {
        stock(&mut self.curl(&[&format!("http://h/{path}?[1-{times}]")]));
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn an_access_log_says_who_was_refused() {
    let sandbox = Sandbox::new("postgresql:///nowhere?host=/nowhere");
    let nginx = Nginx::start(sandbox.dir.path());
    let look = |settings: &str| {
        let text = format!(
            "[[health.log]]\nname = \"combined\"\npath = \"access.log\"\n{settings}\n\
             [[health.log]]\nname = \"json\"\npath = \"json.log\"\n{settings}\n"
        );
        sandbox.write("opsctl.toml", &text);
        report(&sandbox, &["log"])
    };
    let both = |report: &Value, expected: &str, message: &str| {
        expect(report, "log/combined", expected, message);
        expect(report, "log/json", expected, message);
    };
    nginx.ask("well", 100);
    both(&look(""), "ok", "0 errors in 15 min 0 s and 101 requests");
    // Also if a minute ends among them.
    nginx.ask("missing", 110);
    both(&look(""), "warning", " times 404 in a minute");
    both(&look("not_found = 5"), "critical", " times 404 in a minute");
    both(&look("not_found = 1000"), "ok", "");
    nginx.ask("private", 30);
    both(&look("not_found = 1000"), "warning", " times 401 in a minute");
    let calm = "not_found = 1000\nrefused = 1000";
    nginx.ask("broken", 8);
    both(&look(calm), "warning", " % of the answers are 5xx");
    both(&look(&format!("{calm}\nserver_errors = 0.5")), "critical", " % of the answers are 5xx");

    // A rotation hides nothing.
    let log = |name: &str| nginx.dir.join(name);
    for name in ["access.log", "json.log"] {
        std::fs::rename(log(name), log(&format!("{name}.1"))).unwrap();
    }
    crate::support::running::send(nginx.child.id(), rustix::process::Signal::USR1);
    eventually("the log is opened anew", || log("access.log").exists().then_some(()));
    nginx.ask("well", 1);
    both(&look(calm), "warning", "and 250 requests");
    // What is not there is not well.
    for name in ["access.log", "json.log"] {
        std::fs::remove_file(log(name)).unwrap();
    }
    both(&look(calm), "unknown", "cannot be read");
}

#[test]
fn a_log_of_errors_counts_them_and_shows_no_secret() {
    let cluster = Cluster::start(
        &installed(),
        &[],
        &[("PGTEST_AUTH", "scram-sha-256"), ("PGTEST_PASSWORD", "right")],
    );
    let sandbox = Sandbox::new("postgresql:///nowhere?host=/nowhere");
    let psql = |password: &str, sql: &str| {
        let mut command = cluster.program("psql");
        command.args(["-XAtq", "-d", "postgres", "-c", sql]).env("PGPASSWORD", password);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    };
    let look = |settings: &str| {
        let text =
            format!("[[health.log]]\nname = \"pg\"\npath = \"{}/l*g\"\n{settings}\n", cluster.dir);
        sandbox.write("opsctl.toml", &text);
        report(&sandbox, &["log/pg"])
    };
    expect(&look(""), "log/pg", "ok", "0 errors in 15 min 0 s");
    psql("right", "DO $$ BEGIN RAISE EXCEPTION 'no login 17 with password=geheim'; END $$");
    psql("right", "DO $$ BEGIN RAISE EXCEPTION 'no login 18 with password=geheim'; END $$");
    let two = look("");
    expect(&two, "log/pg", "ok", "2 errors in 15 min 0 s");
    let details = two["checks"][0]["details"].to_string();
    assert!(
        details.contains("2 × ") && details.contains("ERROR: no login # with password=***"),
        "{details}"
    );
    assert!(!two.to_string().contains("geheim"), "{two:#}");
    let sql: String = (0..11).map(|_| "SELECT 1/0;\n").collect();
    let mut many = cluster.program("psql");
    let input = sandbox.write("many.sql", &sql);
    many.args(["-XAtq", "-d", "postgres"]).env("PGPASSWORD", "right").stderr(Stdio::null());
    stock(many.stdin(std::fs::File::open(input).unwrap()));
    expect(&look(""), "log/pg", "warning", "13 errors");
    expect(&look("critical = 12"), "log/pg", "critical", "13 errors");
    expect(
        &look("warning = 20\npatterns = [\"(?i)DIVISION by zero$\"]"),
        "log/pg",
        "warning",
        "24 errors",
    );
    for _ in 0..6 {
        psql("wrong", "SELECT 1");
    }
    expect(
        &look("warning = 100\nfailed_logins = 2"),
        "log/pg",
        "warning",
        " failed logins in a minute",
    );
    // A window of the past has other errors.
    let run =
        sandbox.run(&["health-check", "--json", "--only", "log", "--now", "2020-01-01T00:00:00Z"]);
    expect(&parse(&run), "log/pg", "unknown", "lie ahead");
}
