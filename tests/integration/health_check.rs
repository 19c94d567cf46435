//! health-check as a whole: selecting, answering in every form, and ending in time whatever is dead.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::running::apart;
use crate::support::{Cluster, Run, Sandbox, promtool, stock};

/// The check of a report with this name.
fn named<'a>(report: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let checks = report["checks"].as_array().unwrap();
    checks
        .iter()
        .find(|check| check["name"] == name)
        .unwrap_or_else(|| panic!("{name}: {report:#}"))
}

/// Compares a document with the schema that the project promises.
fn validate(document: &str) {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/health-check.schema.json");
    let script = "import json, jsonschema, sys; schema = json.load(open(sys.argv[1])); \
        jsonschema.Draft7Validator.check_schema(schema); jsonschema.validate(json.load(sys.stdin), schema)";
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", script]).arg(schema).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = python.spawn().unwrap();
    child.stdin.take().unwrap().write_all(document.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{document}", String::from_utf8_lossy(&output.stderr));
}

/// Reads a number with an optional unit off the front of performance data, as the guidelines write it.
fn number(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.parse().ok().filter(|_| plain)
}

/// Checks a plugin's output by the grammar of the Monitoring Plugins Development Guidelines: status and text, `|`, and
/// `'label'=value[UOM];[warn];[crit];[min];[max]`; lines behind it.
fn expect_plugin_output(run: &Run) {
    let first = run.stdout.lines().next().unwrap();
    let word = ["OK", "WARNING", "CRITICAL", "UNKNOWN"][usize::try_from(run.status).unwrap()];
    assert!(first.starts_with(&format!("OPSCTL {word} - ")), "{first}");
    assert!(first.matches('|').count() <= 1, "{first}");
    let mut rest = first.split_once(" | ").map(|(_, data)| data).unwrap_or_default();
    while !rest.is_empty() {
        let (label, behind) = rest.strip_prefix('\'').unwrap().split_once("'=").unwrap();
        assert!(!label.contains(['=', '\'', '|']), "{label}");
        let (datum, next) = behind.split_once(' ').unwrap_or((behind, ""));
        let fields: Vec<&str> = datum.split(';').collect();
        assert!(fields.len() <= 5, "{datum}");
        let value = fields[0].trim_end_matches(['s', '%', 'B', 'c']);
        assert!(value == "U" || number(value).is_some(), "{datum}");
        for range in fields.iter().skip(1).filter(|field| !field.is_empty()) {
            assert!(number(range.trim_end_matches(':')).is_some(), "{datum}");
        }
        rest = next;
    }
}

#[test]
fn a_healthy_server_is_ok_in_every_form() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let sandbox = Sandbox::new(&cluster.url(&database));
    // The distribution's server may lack the last fixes, and the machine and the backups are not what is asked here.
    sandbox.write(
        "opsctl.toml",
        "[health]\nskip = [\"minor-version\", \"disk\", \"inodes\", \"disk-full\", \"memory\", \"cpu\", \"load\", \"repository\", \
         \"backup\", \"restore-proof\", \"schedule\"]\n[metrics]\ntextfile_dir = \".\"\n",
    );
    let run = sandbox.run(&["health-check"]).expect(0);
    assert!(run.stdout.starts_with("OK: 18 ok in "), "{run:#?}");
    assert!(!run.stdout.contains('\x1b'));
    let run = sandbox.run(&["health-check", "--verbose"]).expect(0);
    assert!(run.stdout.contains(&format!("OK        connect/{database} ")), "{run:#?}");
    assert_eq!(sandbox.run(&["health-check", "--quiet"]).expect(0).stdout, "");

    let run = sandbox.run(&["health-check", "--json"]).expect(0);
    validate(&run.stdout);
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&report["status"], &report["counts"]["ok"]), (&"ok".into(), &18.into()));
    let connections = &named(&report, &format!("connections/{database}"))["value"];
    assert_eq!((&connections["unit"], &connections["warning"]), (&"percent".into(), &80.0.into()));

    expect_plugin_output(&sandbox.run(&["health-check", "--format", "nagios"]).expect(0));
    let run = sandbox.run(&["health-check", "--format", "prometheus"]).expect(0);
    let file = sandbox.write("printed.prom", &run.stdout);
    for file in [file, sandbox.path("opsctl_health-check.prom")] {
        stock(promtool().args(["check", "metrics"]).stdin(std::fs::File::open(file).unwrap()));
    }
    let run = sandbox.run(&["health-check", "--format", "health+json"]).expect(0);
    let document: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(document["status"], "pass");
    let run = sandbox.run(&["health-check", "--format", "junit"]).expect(0);
    let script = "import sys, xml.etree.ElementTree as t; s = t.parse(sys.argv[1]).getroot(); \
        print(s.get('tests'), s.get('failures'), len(s.findall('testsuite/testcase')))";
    let file = sandbox.write("junit.xml", &run.stdout);
    assert_eq!(stock(Command::new("python3").args(["-c", script]).arg(file)), "18 0 18\n");
}

#[test]
fn every_form_is_what_it_should_be_for_all_kinds_and_outcomes() {
    let sandbox = Sandbox::new("");
    let closed = "127.0.0.1:1";
    let config = format!(
        "[databases.alive]\nurl = \"{}\"\n[databases.down]\nurl = \"postgresql:///down?host=/nowhere\"\n\
        [metrics]\ntextfile_dir = \".\"\n\
        [health.memory]\nwarning = \"100%\"\ncritical = \"0%\"\n[health.xid-age]\ncritical = 0\n\
        [[health.http]]\nname = \"it\"\nurl = \"http://{closed}/\"\nretries = 0\n\
        [[health.tls]]\nname = \"it\"\nhost = \"127.0.0.1\"\nport = 1\nretries = 0\n\
        [[health.dns]]\nname = \"it\"\nhost = \"127.0.0.1\"\n\
        [[health.tcp]]\nname = \"it\"\nhost = \"127.0.0.1\"\nport = 1\nretries = 0\n\
        [[health.redis]]\nname = \"it\"\nurl = \"redis://{closed}\"\nretries = 0\n\
        [[health.queue]]\nname = \"it\"\nbroker = \"redis\"\nurl = \"redis://{closed}\"\nretries = 0\n\
        [[health.service]]\nname = \"it\"\nkind = \"docker\"\nsocket = \"nowhere.sock\"\n\
        [[health.log]]\nname = \"it\"\npath = \"nowhere.log\"\n\
        [[audit]]\ndatabase = \"alive\"\ntable = \"it\"\ntime_column = \"at\"\nlocation = \"archive\"\nsigning_key = \"key\"\n",
        Cluster::shared().url("postgres")
    );
    sandbox.write("opsctl.toml", &config);
    let ask = |form: &str| sandbox.run(&["health-check", "--format", form]).expect(2);
    let run = ask("json");
    validate(&run.stdout);
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    for outcome in ["ok", "warning", "unknown", "critical"] {
        assert!(report["counts"][outcome].as_u64() > Some(0), "{outcome}: {report:#}");
    }
    let checks = report["checks"].as_array().unwrap();
    let found: BTreeSet<&str> = checks.iter().map(|c| c["kind"].as_str().unwrap()).collect();
    let runbook = include_str!("../../runbooks/health-check.md");
    let kinds: BTreeSet<&str> =
        runbook.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(found, kinds);

    expect_plugin_output(&ask("nagios"));
    let file = sandbox.write("printed.prom", &ask("prometheus").stdout);
    for file in [file, sandbox.path("opsctl_health-check.prom")] {
        stock(promtool().args(["check", "metrics"]).stdin(std::fs::File::open(file).unwrap()));
    }
    let document: serde_json::Value = serde_json::from_str(&ask("health+json").stdout).unwrap();
    assert_eq!(document["status"], "fail");
    let file = sandbox.write("junit.xml", &ask("junit").stdout);
    let script = "import sys, xml.etree.ElementTree as t; s = t.parse(sys.argv[1]).getroot(); \
        print(len(s.findall('testsuite/testcase')), s.get('tests'))";
    let all = checks.len();
    assert_eq!(
        stock(Command::new("python3").args(["-c", script]).arg(file)),
        format!("{all} {all}\n")
    );
}

#[test]
fn what_was_found_is_in_the_history_and_counts_as_a_run() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let sandbox = Sandbox::new(&cluster.url(&database));
    sandbox.write("opsctl.toml", "[health.connections]\nwarning = 0\ncritical = 0\n");
    sandbox.run(&["health-check", "--only", "connections", "--only", "xid-age"]).ends_with(2);
    let history = sandbox.json(0, &["history"]);
    let run = &history["runs"][0];
    assert_eq!((&run["command"], &run["exit"]), (&"health-check".into(), &2.into()));
    let part = &run["databases"][0];
    assert_eq!((&part["database"], &part["exit"]), (&database.as_str().into(), &2.into()));
    assert_eq!(part["figures"][format!("connections/{database}.status")], 2);
    assert!(part["figures"][format!("xid-age/{database}.value")].as_f64().unwrap() > 0.0);
    let text = sandbox.run(&["history"]).expect(0).stdout;
    assert!(text.trim_end().ends_with("CRITICAL"), "{text}");
}

#[test]
fn what_cannot_begin_is_unknown_in_the_form_that_was_asked_for() {
    let mut sandbox = Sandbox::new("postgresql:///nowhere?host=/nowhere");
    for wrong in [&["--no-such"][..], &["--only", "conect"], &["--profile", "all"], &["--tag", "x"]]
    {
        let args = [&["health-check", "--json"], wrong].concat();
        let run = sandbox.run(&args).expect(3);
        validate(&run.stdout);
        let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!((&report["status"], &report["exit"]), (&"unknown".into(), &3.into()));
        assert!(report["error"]["message"].as_str().unwrap().len() > 5, "{report}");
    }
    sandbox.set("OPSCTL_CONFIG", "/nowhere/opsctl.toml");
    for form in ["json", "nagios", "health+json", "human", "junit", "prometheus"] {
        let run = sandbox.run(&["health-check", "--format", form]).expect(3);
        assert!(run.stderr.contains("/nowhere/opsctl.toml"), "{run:#?}");
        match form {
            "json" => validate(&run.stdout),
            "nagios" => expect_plugin_output(&run),
            "health+json" => assert!(run.stdout.contains("\"status\": \"fail\""), "{run:#?}"),
            _ => assert_eq!(run.stdout, ""),
        }
    }
    sandbox.run(&["health-check", "explain", "no-such"]).ends_with(3);
    sandbox.run(&["backup", "--no-such"]).ends_with(2);
}

#[test]
fn a_dead_server_is_critical_and_the_rest_says_why_it_was_not_asked() {
    let sandbox = Sandbox::new("postgresql:///ip2a?host=/nowhere");
    let run = sandbox.run(&["health-check", "--json"]).expect(2);
    validate(&run.stdout);
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["status"], "critical");
    assert_eq!(named(&report, "connect/ip2a")["status"], "critical");
    let other = named(&report, "sequences/ip2a");
    assert_eq!(
        (&other["status"], &other["because_of"]),
        (&"unknown".into(), &"connect/ip2a".into())
    );
    expect_plugin_output(&sandbox.run(&["health-check", "--format", "nagios"]).expect(2));
    let text = sandbox.run(&["health-check"]).expect(2).stdout;
    assert!(text.contains("17 more could not be asked, because of connect/ip2a\n"), "{text}");
    // Alone it is not known how it stands.
    sandbox.run(&["health-check", "--only", "sequences"]).ends_with(3);
}

#[test]
fn checks_are_listed_and_explained() {
    let sandbox = Sandbox::new("postgresql:///ip2a?host=/nowhere");
    let list = sandbox.json(0, &["health-check", "list", "--profile", "smoke"]);
    assert_eq!(list["checks"][0]["name"], "connect/ip2a");
    assert_eq!(list["checks"].as_array().unwrap().len(), 1);
    let text = sandbox.run(&["health-check", "explain", "lock-waits/ip2a"]).expect(0).stdout;
    for part in ["Asks: ", "Why: ", "Do: ", "Needs: pg_monitor."] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn whatever_is_dead_the_answer_comes_in_time_and_names_it() {
    let cluster = Cluster::shared();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let sandbox = Sandbox::new("");
    sandbox.write(
        "opsctl.toml",
        &format!(
            "[databases.alive]\nurl = \"{}\"\n\
            [databases.down]\nurl = \"postgresql:///down?host=/nowhere\"\n\
            [databases.unnamed]\nurl = \"postgresql://name.invalid/unnamed\"\n\
            [databases.silent]\nurl = \"postgresql://u@127.0.0.1:{port}/silent\"\n\
            [health]\nskip = [\"minor-version\"]\n[health.connect]\ntimeout = \"1s\"\n\
            [health.disk]\npaths = [\"small\"]\n\
            [[health.http]]\nname = \"api\"\nurl = \"http://127.0.0.1:{port}/ready\"\ntimeout = \"1s\"\n\
            [[health.dns]]\nname = \"www\"\nhost = \"name.invalid\"\n",
            cluster.url("postgres"),
            port = silent.local_addr().unwrap().port()
        ),
    );
    let small = sandbox.path("small").display().to_string();
    std::fs::create_dir(&small).unwrap();
    let fill = "mount -t tmpfs -o size=1M none small; head -c 2M /dev/zero >small/filler || true";
    let began = Instant::now();
    let command = sandbox.command(&["health-check", "--json", "--timeout", "4s"]);
    let run = Run::of(&mut apart(&command, fill)).expect(2);
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    validate(&run.stdout);
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    for (database, says) in [
        ("down", "No such file or directory"),
        ("unnamed", "name.invalid"),
        ("silent", "no answer within 1 s"),
    ] {
        let connect = named(&report, &format!("connect/{database}"));
        assert_eq!(connect["status"], "critical");
        assert!(connect["message"].as_str().unwrap().contains(says), "{connect}");
    }
    assert_eq!(named(&report, "http/api")["status"], "unknown");
    assert_eq!(named(&report, "dns/www")["status"], "critical");
    assert_eq!(named(&report, "sequences/alive")["status"], "ok");
    assert_eq!(named(&report, &format!("disk{small}"))["status"], "critical");
    // All are there, of the dead as of the living.
    let of = |database: &str| {
        let checks = report["checks"].as_array().unwrap();
        checks.iter().filter(|check| check["database"] == database).count()
    };
    assert!(["down", "unnamed", "silent"].iter().all(|dead| of(dead) == of("alive")), "{report:#}");
    // Even if there is no time at all.
    let began = Instant::now();
    let run =
        sandbox.run(&["health-check", "--json", "--timeout", "1s", "--only", "connect/silent"]);
    assert!(began.elapsed() < Duration::from_secs(3));
    validate(&run.expect(2).stdout);
}

#[test]
fn what_lasts_one_run_is_no_alarm_and_what_was_bad_must_be_well_for_sure() {
    let cluster = Cluster::shared();
    let sandbox = Sandbox::new(&cluster.url("postgres"));
    let ask = |limits: &str| {
        sandbox.write("opsctl.toml", &format!("[health.xid-age]\n{limits}\n"));
        let run = sandbox.run(&["health-check", "--only", "xid-age", "--json"]);
        let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        let check = report["checks"][0].clone();
        let text = |key: &str| check[key].as_str().unwrap().to_owned();
        (run.status, text("found"), text("message"))
    };
    let bad = "critical = 0\nfor = 3";
    let (status, found, message) = ask(bad);
    assert_eq!((status, found.as_str()), (0, "critical"));
    assert!(message.starts_with("critical, for 1 of 3 runs: database "), "{message}");
    // What somebody asks in between is no run of this check.
    sandbox.run(&["health-check", "--only", "connect"]).ends_with(0);
    assert!(ask(bad).2.starts_with("critical, for 2 of 3 runs: "));
    assert_eq!(ask(bad).0, 2);
    assert_eq!(ask("for = 3").0, 0);
    assert_eq!(ask(bad).0, 0);

    // A limit that is just not exceeded any more, and one that is so by far.
    let age: f64 =
        cluster.sql("postgres", "SELECT max(age(datfrozenxid)) FROM pg_database").parse().unwrap();
    assert_eq!(ask("critical = 1").0, 2);
    assert_eq!(ask(&format!("critical = {}", age * 1.02)).0, 2);
    assert_eq!(ask(&format!("critical = {}", age * 1.5)).0, 0);
    assert_eq!(ask(&format!("critical = {}", age * 1.02 + 20.0)).0, 0);
}

#[test]
fn cron_hears_what_is_new_and_no_more() {
    let cluster = Cluster::shared();
    let sandbox = Sandbox::new(&cluster.url(&cluster.database()));
    let quiet = |critical: u8, status: i32| {
        let limits = format!("[health.connections]\nwarning = 0\ncritical = {critical}\n");
        sandbox.write("opsctl.toml", if critical == u8::MAX { "" } else { &limits });
        let run = sandbox.run(&["health-check", "--only", "connections", "--quiet"]).expect(status);
        run.stdout.split([' ', ':']).next().unwrap().to_owned()
    };
    let well = u8::MAX;
    let said: Vec<_> =
        [(well, 0), (100, 1), (100, 1), (0, 2), (0, 2), (100, 1), (well, 0), (well, 0)]
            .map(|(critical, status)| quiet(critical, status))
            .into();
    assert_eq!(said, ["", "WARNING", "", "CRITICAL", "", "WARNING", "OK", ""]);
    // Without a history everything is new.
    std::fs::remove_dir_all(sandbox.path("state")).unwrap();
    sandbox.write("state", "in the way");
    assert_eq!(quiet(0, 2), "CRITICAL");
}

#[test]
fn what_another_host_found_counts_for_nothing_here() {
    let sandbox = Sandbox::new("postgresql:///nowhere?host=/nowhere");
    sandbox.write("opsctl.toml", "[health.memory]\ncritical = 101\nfor = 2\n");
    let here = ["health-check", "--only", "memory"];
    sandbox.run(&here).ends_with(0);
    let opsctl = sandbox.command(&here);
    let mut elsewhere = Command::new("unshare");
    elsewhere.args([
        "--user",
        "--map-root-user",
        "--uts",
        "sh",
        "-c",
        "hostname elsewhere && exec \"$@\"",
        "sh",
    ]);
    elsewhere.arg(opsctl.get_program()).args(opsctl.get_args());
    elsewhere.env_clear().current_dir(sandbox.dir.path());
    elsewhere.envs(opsctl.get_envs().filter_map(|(name, value)| Some((name, value?))));
    // It is bad for the first time there, and for the second time here.
    Run::of(&mut elsewhere).ends_with(0);
    sandbox.run(&here).ends_with(2);
}

#[test]
fn a_history_that_cannot_be_used_holds_no_alarm_back() {
    let mut sandbox = Sandbox::new(&Cluster::shared().url("postgres"));
    sandbox.write("opsctl.toml", "[health.xid-age]\ncritical = 0\nfor = 3\n");
    sandbox.set("OPSCTL_STATE_DIR", "/proc/nowhere");
    let run = sandbox.run(&["health-check", "--only", "xid-age"]).expect(2);
    assert!(run.stderr.contains("how checks stood before is not known"), "{run:#?}");
}
