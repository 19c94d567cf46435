//! health-check of services and journals: a systemd and a journald of the test's own, with real units.
//!
//! What Docker answers is tried beside `service/docker.rs`, over a real socket with recorded answers: the daemon itself needs
//! privileges (its own control groups, mounts and packet filter) that a test has not everywhere.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Run, Sandbox};

/// Runs opsctl beside a systemd of its own, which was given some units first.
fn beside_systemd(sandbox: &Sandbox, prepare: &str, args: &[&str]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/support/systemd.sh");
    let mounts = sandbox.path("mounts");
    std::fs::create_dir(&mounts).unwrap();
    let opsctl = sandbox.command(args);
    let mut command = Command::new("bash");
    command.arg(script).arg(mounts).arg(prepare).arg(opsctl.get_program()).args(opsctl.get_args());
    command.env_clear().stdin(Stdio::null()).current_dir(sandbox.dir.path());
    command.envs(opsctl.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let run = Run::of(&mut command);
    serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {run:#?}"))
}

#[test]
fn units_and_their_journals_are_judged() {
    let sandbox = Sandbox::new("postgresql:///nowhere?host=/nowhere");
    let service = |name: &str| {
        format!("[[health.service]]\nname = \"{name}\"\nkind = \"systemd\"\nuser = true\n")
    };
    let log = |name: &str, unit: &str, settings: &str| {
        format!("[[health.log]]\nname = \"{name}\"\njournal = \"{unit}\"\n{settings}\n")
    };
    let mut text: String =
        ["good", "flaky", "looping", "dead", "absent", "timer.timer"].map(service).concat();
    // The machine's own systemd is not there.
    text += "[[health.service]]\nname = \"system\"\nkind = \"systemd\"\nservice = \"good\"\n";
    text += &log("quiet", "good", "");
    text += &log("talker", "talker", "");
    text += &log("strict", "talker", "critical = 11");
    text += &log("absent", "absent", "");
    sandbox.write("opsctl.toml", &text);
    let prepare = r#"
        run() { systemd-run --user --quiet "$@"; }
        run --unit=good sh -c 'echo well; exec sleep 600'
        run --unit=flaky -p Restart=on-failure -p RestartSec=10ms sh -c 'test -e /run/once || { : >/run/once; exit 1; }; exec sleep 600'
        run --unit=looping -p Restart=always -p RestartSec=600 false
        run --unit=dead false
        run --unit=timer --on-active=1h true
        run --unit=talker sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo "<3>connection $i with token=geheim refused"; done; exec sleep 600'
        is() { [ "$(systemctl --user show -P "$2" "$1")" = "$3" ]; }
        for _ in $(seq 400); do
            is flaky NRestarts 1 && is flaky SubState running && is looping SubState auto-restart && is dead SubState failed &&
                [ "$(journalctl -q --unit=talker -p err -o cat | wc -l)" = 12 ] && journalctl -q --unit=good | grep -q well && exit
            sleep 0.05
        done
        exit 1"#;
    let args = ["health-check", "--json", "--only", "service", "--only", "log"];
    let report = beside_systemd(&sandbox, prepare, &args);
    let expect = |name: &str, status: &str, message: &str| {
        let mut checks = report["checks"].as_array().unwrap().iter();
        let check = checks.find(|check| check["name"] == name);
        let check = check.unwrap_or_else(|| panic!("{name}: {report:#}"));
        let said = check["message"].as_str().unwrap();
        assert!(check["status"] == status && said.contains(message), "{name}: {check:#}");
        check.to_string()
    };
    expect("service/good", "ok", "active (running), for ");
    expect("service/timer.timer", "ok", "active (waiting)");
    expect("service/flaky", "warning", "started again 1 time");
    expect("service/looping", "critical", "activating (auto-restart), exit-code 1");
    expect("service/dead", "critical", "failed (failed), exit-code 1");
    expect("service/absent", "critical", "no such unit");
    expect("service/system", "unknown", "systemd could not be asked");
    expect("log/quiet", "ok", "0 errors");
    let talker = expect("log/talker", "warning", "12 errors");
    assert!(talker.contains("12 × connection # with token=# refused"), "{talker}");
    expect("log/strict", "critical", "12 errors");
    expect("log/absent", "unknown", "nothing of it that this user may read");
    assert!(!report.to_string().contains("geheim"), "{report:#}");
}
