//! `opsctl schedule print`: what it prints is read by those who are to read it, and every line of the crontab runs as cron
//! runs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use chrono::{DateTime, TimeZone as _, Utc};

use crate::support::{Cluster, Run, Sandbox, stock};

const BINARY: &str = env!("CARGO_BIN_EXE_opsctl");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns a sandbox whose configuration is all in a file, with a name that has to be quoted everywhere.
fn with_file(url: &str, more: &str) -> (Sandbox, PathBuf) {
    let mut sandbox = Sandbox::new(url);
    for name in ["DATABASE_URL", "OPSCTL_REPOSITORY", "OPSCTL_STATE_DIR"] {
        sandbox.unset(name);
    }
    let dir = sandbox.dir.path().display();
    let toml = format!(
        "state_dir = \"{dir}/the 'state' 5%\"\n[database]\nurl = \"{url}\"\n[repository]\nlocation = \"{dir}/back ups\"\n{more}"
    );
    let file = sandbox.write("it's 100% opsctl.toml", &toml);
    (sandbox, file)
}

fn print(sandbox: &Sandbox, args: &[&str]) -> Run {
    sandbox.run(&[&["schedule", "print"], args].concat())
}

#[test]
fn the_example_is_what_is_printed() {
    let mut sandbox = Sandbox::new("");
    sandbox.unset("OPSCTL_REPOSITORY");
    let printed = print(&sandbox, &["--format", "crontab"]).expect(0).stdout;
    let example = std::fs::read_to_string(root().join("crontab.example")).unwrap();
    assert_eq!(example, printed, "write it anew: opsctl schedule print >crontab.example");
}

/// Returns the command of a crontab's line as cron gives it to the shell; a line that is commented out counts as well.
fn command(line: &str) -> Option<String> {
    let line = line.strip_prefix("# ").unwrap_or(line);
    let mut rest = line;
    for _ in 0..5 {
        let (field, behind) = rest.split_once(' ')?;
        if !field.chars().all(|c| c.is_ascii_digit() || "*/,-".contains(c)) {
            return None;
        }
        rest = behind.trim_start();
    }
    // A bare percent sign would end the command; one behind a backslash is itself, without it.
    let bare = rest.replace(r"\%", "");
    assert!(!bare.contains('%'), "{line}");
    Some(rest.replace(r"\%", "%"))
}

#[test]
fn every_line_of_the_crontab_runs_as_cron_runs_it() {
    let cluster = Cluster::shared();
    let (database, staging) = (cluster.database(), cluster.database());
    cluster.sql(&database, "CREATE TABLE members AS SELECT generate_series(1, 100) AS id");
    let (sandbox, file) = with_file(&cluster.url(&database), "");
    let args = ["--program", BINARY, "--config", file.to_str().unwrap()];
    let crontab = print(&sandbox, &args).expect(0).stdout;
    let variable = |name: &str| {
        let line = crontab.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {name}: {crontab}")).to_owned()
    };
    assert!(variable("PATH").starts_with(Path::new(BINARY).parent().unwrap().to_str().unwrap()));
    let home = sandbox.path("home");
    let mut commands = Vec::new();
    for command in crontab.lines().filter_map(command) {
        // Those that are commented out say nothing of the file.
        let named = format!("--config '{}'", file.to_str().unwrap().replace('\'', r"'\''"));
        let command =
            if command.contains("--config") { command } else { format!("{command} {named}") };
        let command = command.replace("members_staging", &staging);
        let mut cron = Command::new("env");
        cron.arg("-i")
            .arg(format!("SHELL={}", variable("SHELL")))
            .arg(format!("PATH={}", variable("PATH")));
        cron.arg(format!("HOME={}", home.display())).arg("LOGNAME=root");
        cron.arg(variable("SHELL")).args(["-c", &command]).current_dir(&home).stdin(Stdio::null());
        let run = Run::of(&mut cron);
        // A mail is news. What the checks of the server find is another test's doing, and no failure of the line.
        let said = (run.status, run.stdout.as_str(), run.stderr.as_str());
        match said {
            (1 | 2, answer, "") if command.contains("health-check") => assert!(!answer.is_empty()),
            said => assert_eq!(said, (0, "", ""), "{command}"),
        }
        commands.push(command);
    }
    assert_eq!(commands.len(), 8, "{commands:#?}");
    assert_eq!(cluster.sql(&staging, "SELECT count(*) FROM members"), "100");
    let history = sandbox.json(0, &["history", "--config", file.to_str().unwrap()]);
    assert_eq!(history["runs"].as_array().unwrap().len(), 7, "{history:#}");
}

#[test]
fn systemd_reads_the_units_and_finds_little_that_they_may_do() {
    let more = "[metrics]\ntextfile_dir = \"textfiles\"\n[schedule]\nbackup = \"30 1 1,15 jan-jun mon-fri\"\n";
    for odd in [true, false] {
        let (sandbox, file) = with_file("postgresql://ann:geheim@db.example.com/members", more);
        let dir = sandbox.path("units");
        std::fs::create_dir(&dir).unwrap();
        let config = if odd {
            file.to_str().unwrap().to_owned()
        } else {
            sandbox.write("none.toml", "").display().to_string()
        };
        set_private(Path::new(&config));
        let args = [
            "--format",
            "systemd",
            "--program",
            BINARY,
            "--config",
            &config,
            "--out",
            dir.to_str().unwrap(),
        ];
        let listed = print(&sandbox, &args).expect(0).stdout;
        let (timers, services): (Vec<&str>, Vec<&str>) =
            listed.lines().partition(|path| path.ends_with(".timer"));
        assert_eq!((timers.len(), services.len()), (5, 5), "{listed}");
        let verified = Run::of(
            Command::new("systemd-analyze").args(["verify", "--man=no"]).args(listed.lines()),
        );
        assert_eq!(verified.status, 0, "{verified:#?}");
        // Others of the machine are not our business; unknown settings are said, with status 0.
        assert!(!verified.stderr.contains("opsctl"), "{verified:#?}");
        for service in services {
            let text = std::fs::read_to_string(service).unwrap();
            assert!(!text.contains("geheim"), "{text}");
            // In tenths: most services of a distribution are at 9 and more.
            let mut security = Command::new("systemd-analyze");
            stock(security.args([
                "security",
                "--no-pager",
                "--offline=true",
                "--threshold=20",
                service,
            ]));
            if odd {
                for path in ["back ups", "textfiles", "the 'state' 5%%"] {
                    let path = sandbox.path(path).display().to_string();
                    assert!(
                        text.lines().any(|l| l.starts_with("ReadWritePaths=") && l.contains(&path)),
                        "{path}: {text}"
                    );
                }
            }
        }
    }
}

/// A file with a password in it is taken only if nobody else can read it.
fn set_private(file: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Returns the next times of a calendar expression, as systemd has it.
fn systemd_times(expression: &str, base: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let mut analyze = Command::new("systemd-analyze");
    analyze.env("TZ", "UTC").env("LC_ALL", "C").args(["calendar", "--iterations=12"]);
    analyze.arg(format!("--base-time={}", base.format("%Y-%m-%d %H:%M:%S UTC"))).arg(expression);
    let text = stock(&mut analyze);
    let times = text.lines().filter_map(|line| {
        let (what, time) = line.split_once(": ")?;
        let is_time = what.trim() == "Next elapse"
            || what.trim().starts_with("Iter. #")
            || what.trim().starts_with("Iteration #");
        let (_, time) = time.trim().split_once(' ').filter(|_| is_time)?;
        let time = chrono::NaiveDateTime::parse_from_str(time, "%Y-%m-%d %H:%M:%S UTC").unwrap();
        Some(Utc.from_utc_datetime(&time))
    });
    let times: Vec<_> = times.collect();
    assert_eq!(times.len(), 12, "{text}");
    times
}

#[test]
fn timers_elapse_when_cron_would_run() {
    let base: DateTime<Utc> = "2026-11-25T18:00:30Z".parse().unwrap();
    for times in [
        "0 2 * * *",
        "45 * * * *",
        "*/5 * * * *",
        "7-59/13 1-5 * * *",
        "0 7 * * sat",
        "30 3 * * 7",
        "0 0 1,15 * *",
        "15 2 1-7 * 0",
        "0 0 29 2 *",
        "1,2,3 4 5-8 jan,apr-jun mon-fri",
        "0 12 31 */2 *",
        "0 22,23 */10 * *",
    ] {
        let mut sandbox = Sandbox::new("");
        sandbox.unset("OPSCTL_REPOSITORY");
        sandbox.write("opsctl.toml", &format!("[schedule]\nbackup = \"{times}\"\n"));
        let json = print(&sandbox, &["--format", "systemd", "--json"]).expect(0).stdout;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let files = json["files"].as_array().unwrap();
        let timer = files.iter().find(|file| file["name"] == "opsctl-backup.timer").unwrap();
        let lines = timer["text"].as_str().unwrap().lines();
        let expressions = lines.filter_map(|line| line.strip_prefix("OnCalendar="));
        let mut by_systemd: Vec<_> = expressions.flat_map(|e| systemd_times(e, base)).collect();
        by_systemd.sort();
        by_systemd.dedup();
        by_systemd.truncate(12);
        let cron: croner::Cron = times.parse().unwrap();
        let by_cron: Vec<_> = cron.iter_after(base).take(12).collect();
        assert_eq!(by_systemd, by_cron, "{times}");
    }
}

fn kubernetes_validate(file: &Path) -> Run {
    let script = root().join("scripts/install-kubernetes-validate.sh");
    let output = stock(Command::new("bash").arg(script).stdin(Stdio::null()));
    let program = output.lines().last().expect("install-kubernetes-validate.sh says where");
    Run::of(Command::new(program).arg("--strict").arg(file))
}

#[test]
fn the_schemas_of_kubernetes_accept_the_manifests() {
    let (sandbox, file) = with_file("postgresql://ann:geheim@db.example.com/members", "");
    set_private(&file);
    let config = file.to_str().unwrap();
    let args = [
        "--format",
        "kubernetes",
        "--config",
        config,
        "--namespace",
        "ops",
        "--image",
        "registry.example.com/opsctl:1.2.3",
        "--secret",
        "opsctl-secret",
        "--config-map",
        "opsctl-config",
        "--time-zone",
        "Europe/Berlin",
    ];
    let run = print(&sandbox, &args).expect(0);
    assert!(run.stderr.contains("back ups` is a directory"), "{run:#?}");
    assert!(!run.stdout.contains("geheim") && !run.stdout.contains(config), "{run:#?}");
    for (text, times) in [
        ("kind: CronJob", 5),
        ("namespace: ops", 5),
        ("timeZone: Europe/Berlin", 5),
        ("suspend: true", 1),
        ("image: registry.example.com/opsctl:1.2.3", 5),
        ("secretRef: { name: opsctl-secret }", 5),
        ("configMap: { name: opsctl-config }", 5),
        ("readOnlyRootFilesystem: true", 5),
    ] {
        assert_eq!(run.stdout.matches(text).count(), times, "{text}: {}", run.stdout);
    }
    // With a history that lasts there is something to judge by.
    let (lasting, file) = with_file(
        "postgresql://db.example.com/members",
        "[history]\nurl = \"postgresql://db.example.com/opsctl\"\n",
    );
    let lasting = print(&lasting, &["--format", "kubernetes", "--config", file.to_str().unwrap()]);
    assert!(!lasting.expect(0).stdout.contains("suspend"));
    let good = sandbox.write("good.yaml", &run.stdout);
    let validated = kubernetes_validate(&good);
    assert_eq!(validated.status, 0, "{validated:#?}");
    assert_eq!((validated.stdout + &validated.stderr).matches(" passed ").count(), 5);
    // It would say so otherwise.
    let wrong =
        sandbox.write("wrong.yaml", &run.stdout.replace("concurrencyPolicy", "concurencyPolicy"));
    assert_ne!(kubernetes_validate(&wrong).status, 0);
}

#[test]
fn files_are_not_overwritten_unless_it_is_said() {
    let sandbox = Sandbox::new("");
    let dir = sandbox.path("out");
    let out = ["--format", "systemd", "--out", dir.to_str().unwrap()];
    let run = print(&sandbox, &out).expect(1);
    assert!(run.stderr.contains("failed to write"), "{run:#?}");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("opsctl-status.timer"), "mine").unwrap();
    let run = print(&sandbox, &out).expect(1);
    assert!(
        run.stderr.contains("opsctl-status.timer` is there already")
            && run.stderr.contains("--force"),
        "{run:#?}"
    );
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    assert_eq!(print(&sandbox, &[&out[..], &["--force", "--quiet"]].concat()).expect(0).stdout, "");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 10);
    // On stdout each begins with its place, and is otherwise the same.
    let printed = print(&sandbox, &out[..2]).expect(0).stdout;
    for entry in std::fs::read_dir(&dir).unwrap().map(Result::unwrap) {
        let (name, text) = (entry.file_name(), std::fs::read_to_string(entry.path()).unwrap());
        let expected = format!("# /etc/systemd/system/{}\n{text}\n", name.display());
        assert!(printed.contains(&expected), "{expected}");
    }
}

#[test]
fn what_cannot_be_printed_is_refused() {
    let sandbox = Sandbox::new("");
    for args in [
        &["--image", "opsctl"][..],
        &["--format", "kubernetes", "--user", "ann"],
        &["--format", "systemd", "--mail-to", "ann@example.com"],
        &["--force"],
        &["--mail-to", "ann@example.com\nPATH=/tmp"],
        &["--program", "opsctl"],
        &["--program", "/usr/bin/rm"],
        &["--format", "kubernetes", "--time-zone", "Mars/Base"],
        &["--format", "kubernetes", "--namespace", "Ops"],
    ] {
        print(&sandbox, args).ends_with(2);
    }
    sandbox.write("opsctl.toml", "[schedule]\nbackup = \"0 2 L * *\"\n");
    let run = print(&sandbox, &[]).expect(10);
    assert!(run.stderr.contains("opsctl.toml:2: `backup` in [schedule]"), "{run:#?}");
    let off: String = ["backup", "verify_backup", "restore_test", "health_check", "status"]
        .map(|key| format!("{key} = \"off\"\n"))
        .concat();
    sandbox.write("opsctl.toml", &format!("[schedule]\n{off}"));
    assert!(print(&sandbox, &[]).expect(10).stderr.contains("nothing to print"));
}
