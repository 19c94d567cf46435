//! `opsctl demo`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Sandbox, installed, stock};

/// Returns the command lines of all processes that mention `needle`.
fn processes(needle: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let commands = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let commands = commands.map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "));
    commands.filter(|command| command.contains(needle)).collect()
}

#[test]
fn it_shows_a_proven_backup_works_twice_and_leaves_no_server() {
    let sandbox = Sandbox::new("");
    let bin_dir = installed();
    let args = ["demo", "--dir", "kept", "--bin-dir", bin_dir.to_str().unwrap()];
    let first = sandbox.json(0, &args);
    assert!(first["totals"]["rows"].as_u64().unwrap() >= 300_000, "{first}");
    assert_eq!(first["verification"]["good"], true);
    assert_eq!(first["verification"]["depth"], "restored");
    let folder = Path::new(first["folder"].as_str().unwrap()).to_owned();
    for name in ["manifest.json", "RESTORE.md", "SHA256SUMS", "toc.dat", "verifications"] {
        assert!(folder.join(name).exists(), "{name}");
    }

    let second = sandbox.run(&args).expect(0);
    // What it tells to try works.
    let program = format!("{} ", env!("CARGO_BIN_EXE_opsctl"));
    let hints = second.stdout.lines().filter_map(|line| line.trim().strip_prefix(&program));
    let hints: Vec<Vec<&str>> = hints.map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(hints.len(), 3, "{second:#?}");
    for hint in hints {
        sandbox.run(&hint).ends_with(0);
    }
    let listed = sandbox
        .json(0, &["backup", "list", "--repository", "kept/backups", "--database", "union_office"]);
    assert_eq!(listed["databases"][0]["repositories"][0]["backups"].as_array().unwrap().len(), 2);
}

/// Returns how far the bar was and how much there was, each time that it was drawn.
fn drawn(terminal: &str) -> Vec<(f64, f64)> {
    let bytes = |text: &str| {
        let (number, unit) = text.trim().split_once(' ')?;
        let power = ["B", "KiB", "MiB", "GiB"].iter().position(|known| *known == unit)?;
        Some(number.parse::<f64>().ok()? * 1024_f64.powi(i32::try_from(power).ok()?))
    };
    let one = |text: &str| {
        let (done, rest) = text.split_once('/')?;
        let mut words = rest.split(' ');
        let all = format!("{} {}", words.next()?, words.next()?);
        Some((bytes(done)?, bytes(&all)?))
    };
    terminal.split("] ").filter_map(one).collect()
}

#[test]
fn the_bar_begins_anew_with_each_step() {
    let sandbox = Sandbox::new("");
    let (program, bin_dir) = (env!("CARGO_BIN_EXE_opsctl"), installed());
    let line = format!("{program} demo --dir kept --bin-dir {}", bin_dir.display());
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).current_dir(sandbox.dir.path());
    script.env("HOME", sandbox.path("home")).stdin(Stdio::null());
    let terminal = stock(&mut script);
    let drawn = drawn(&terminal);
    assert!(drawn.iter().any(|(done, _)| *done > 0.0), "no bar was drawn: {terminal}");
    // They are rounded.
    let beyond: Vec<_> = drawn.iter().filter(|(done, all)| *done > all * 1.01).collect();
    assert!(beyond.is_empty(), "{beyond:?}");
}

#[test]
fn somebody_elses_files_are_left_alone() {
    let sandbox = Sandbox::new("");
    std::fs::create_dir(sandbox.path("mine")).unwrap();
    sandbox.write("mine/letter.txt", "dear");
    let run = sandbox.run(&["demo", "--dir", "mine"]).expect(1);
    assert!(run.stderr.contains("is not empty"), "{run:#?}");
    assert_eq!(std::fs::read_dir(sandbox.path("mine")).unwrap().count(), 1);
}

#[test]
fn an_interruption_leaves_no_server() {
    let sandbox = Sandbox::new("");
    let bin_dir = installed();
    let mut command =
        sandbox.command(&["demo", "--dir", "kept", "--bin-dir", bin_dir.to_str().unwrap()]);
    // Whoever runs the server must be able to enter, which the sandbox does not allow.
    let folder = tempfile::Builder::new().prefix("opsctl-demo-").tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let temporary = folder.path().display().to_string();
    let mut child = command
        .env("TMPDIR", &temporary)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = || processes(&temporary).iter().any(|command| command.contains("postgres"));
    let deadline = Instant::now() + Duration::from_secs(60);
    while !server() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was interrupted");
        assert!(Instant::now() < deadline, "no server was started");
        std::thread::sleep(Duration::from_millis(20));
    }
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!server(), "{:#?}", processes(&temporary));
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "something was left in TMPDIR");
}
