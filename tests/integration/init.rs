//! From nothing to a backup that is proven and scheduled, as somebody does it who has never seen opsctl.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::running::{Running, apart, eventually, on_a_terminal};
use crate::support::{Cluster, Run, Sandbox, stock};

/// A database, and a host on which nothing of opsctl is set up.
fn host() -> (&'static Cluster, String, Sandbox) {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster
        .sql(&database, "CREATE TABLE members AS SELECT n AS id FROM generate_series(1, 1000) n");
    let mut sandbox = Sandbox::new("");
    sandbox.unset("DATABASE_URL").unset("OPSCTL_REPOSITORY").unset("OPSCTL_STATE_DIR");
    (cluster, database, sandbox)
}

/// Reads a line out of what `opsctl init` says at its end, where a person would copy it.
fn line<'t>(said: &'t str, with: &str) -> &'t str {
    said.lines().find(|line| line.contains(with)).unwrap_or_else(|| panic!("{with}: {said}")).trim()
}

/// cron reads only what is there since the minute began, so this takes one minute, and seconds for all the rest.
#[test]
fn in_ten_minutes_from_nothing_to_a_backup_that_is_proven_and_scheduled() {
    let began = Instant::now();
    let (cluster, database, mut sandbox) = host();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_opsctl")).parent().unwrap();
    sandbox.set("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin", program.display()));
    let (config, state) = (sandbox.path("etc/opsctl.toml"), sandbox.path("state"));
    let (config, state) = (config.to_str().unwrap(), state.to_str().unwrap());
    let repository = sandbox.path("backups");
    let args =
        ["init", "--url", &cluster.url(&database), "--repository", repository.to_str().unwrap()];
    let said = sandbox
        .run(&[&args[..], &["--config", config, "--state-dir", state]].concat())
        .expect(0)
        .stdout;
    assert!(said.contains("$ opsctl verify-backup --restore-test"), "{said}");
    assert!(said.contains("There is a backup, and it is proven."), "{said}");
    // It connects as a superuser, so what it needs is shown.
    assert!(
        said.contains("GRANT pg_read_all_data") && said.contains("CREATE ROLE \"opsctl\" LOGIN"),
        "{said}"
    );
    // What it says to type is typed. Then, not to wait until the night, the clock of the schedule is every minute.
    let install = line(&said, "| crontab -").to_owned();
    let script = format!(
        "set +e; {install}
         set -e
         crontab -l | sed -E 's/^.* (opsctl backup)/* * * * * \\1/' > every-minute
         grep -q '^[*] [*] [*] [*] [*] opsctl backup' every-minute
         crontab every-minute
         cron -f & cron=$!
         until [ \"$(opsctl backup list --json --config {config} | grep -c '\"backup\":')\" -ge 2 ]; do sleep 1; done
         kill $cron"
    );
    let script = sandbox.write("ten-minutes.sh", &script);
    let mut bash = std::process::Command::new("timeout");
    bash.args(["150", "bash", "-eu"]).arg(script).current_dir(sandbox.dir.path());
    bash.env(
        "PATH",
        sandbox.command(&[]).get_envs().find(|(n, _)| *n == "PATH").unwrap().1.unwrap(),
    );
    // A cron of its own, with nobody else's lines.
    let mounts = "mount -t tmpfs -o mode=1730 tmpfs /var/spool/cron/crontabs; chgrp crontab /var/spool/cron/crontabs; \
                  mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /etc/cron.d; mount --bind /dev/null /etc/crontab";
    stock(&mut apart(&bash, mounts));
    sandbox.run(&["verify-backup", "--restore-test", "--config", config]).ends_with(0);
    let status = sandbox.run(&["status", "--config", config]).expect(0);
    assert!(status.stdout.contains("backup"), "{status:#?}");
    assert!(began.elapsed() < Duration::from_secs(600));
}

#[test]
fn what_is_not_well_is_said_and_nothing_is_written() {
    let (cluster, database, mut sandbox) = host();
    let config = sandbox.path("opsctl.toml");
    let repository = sandbox.path("backups").display().to_string();
    let with = |url: &str, repository: &str| {
        sandbox.run(&[
            "init",
            "--url",
            url,
            "--repository",
            repository,
            "--state-dir",
            "state",
            "--config",
            "opsctl.toml",
        ])
    };
    let run = with("postgresql://ops@127.0.0.1:1/x", &repository).expect(12);
    assert!(run.stderr.contains("127.0.0.1:1"), "{run:#?}");
    let run = with("postgresql://ops:secret@h/x", &repository).expect(2);
    assert!(run.stderr.contains("has a password") && !run.stderr.contains("secret"), "{run:#?}");
    for url in [
        "postgresql://ops:ge'heim@h/x",
        "postgresql://ops:ge heim@h/x",
        r"host=h password='ge\'heim'",
    ] {
        let run = with(url, &repository).expect(2);
        assert!(run.stderr.contains("has a password") && !run.stderr.contains("heim"), "{run:#?}");
    }
    // A file is where the folder is to be.
    let run = with(&cluster.url(&database), "/dev/null/backups").expect(3);
    assert!(
        run.stdout.contains("BAD   repository") && run.stdout.contains("Nothing was written"),
        "{run:#?}"
    );
    // A role that may not read everything is told what it needs.
    let role = format!("poor_{database}");
    cluster.sql("postgres", &format!("CREATE ROLE {role} LOGIN"));
    let url = cluster.url(&database).replace("user=postgres", &format!("user={role}"));
    let run = with(&url, &repository).expect(3);
    assert!(run.stdout.contains(&format!("GRANT \"{role}_backup\" TO \"{role}\";")), "{run:#?}");
    assert!(!config.exists());
    cluster.sql("postgres", &format!("DROP ROLE {role}"));
    // Nobody is asked where nobody is.
    sandbox.run(&["init", "--config", "opsctl.toml"]).ends_with(2);
    // A dry run looks at everything, and shows the file. Elsewhere a password is no argument, and stays out of sight.
    let socket = format!("{database}?host={}&port={}", cluster.dir, cluster.port);
    for url in [
        format!("{} password=geheim", pairs(cluster, &database)),
        format!(r"{} password='ge\'heim'", pairs(cluster, &database)),
        format!("postgresql://postgres:ge'heim@/{socket}"),
        format!("postgresql://postgres:ge%27'\"heim@/{socket}"),
    ] {
        sandbox.set("DATABASE_URL", url);
        let dry = sandbox
            .run(&["init", "--repository", &repository, "--config", "opsctl.toml", "--dry-run"])
            .expect(0);
        assert!(dry.stdout.contains("keep_days = 14") && !dry.stdout.contains("heim"), "{dry:#?}");
    }
    assert!(!config.exists());
    // What is there stays.
    sandbox.write("opsctl.toml", "# mine");
    let run =
        sandbox.run(&["init", "--repository", &repository, "--config", "opsctl.toml"]).expect(2);
    assert!(run.stderr.contains("is there already"), "{run:#?}");
    assert_eq!(std::fs::read_to_string(config).unwrap(), "# mine");
    assert!(!run.stderr.contains("docs/faq.md"), "{run:#?}");
    // That of the package has to be set up by another user than root.
    sandbox.write("opsctl.toml", "#[database]\nstate_dir = \"/var/lib/opsctl\"\n");
    let run =
        sandbox.run(&["init", "--repository", &repository, "--config", "opsctl.toml"]).expect(2);
    assert!(run.stderr.contains("docs/faq.md has the lines"), "{run:#?}");
}

fn pairs(cluster: &Cluster, database: &str) -> String {
    format!("host={} port={} user=postgres dbname={database}", cluster.dir, cluster.port)
}

#[test]
fn at_a_terminal_it_asks_and_without_a_server_it_proves_by_checksums() {
    let (cluster, database, sandbox) = host();
    let args = ["init", "--config", "opsctl.toml", "--state-dir", "state", "--no-restore-test"];
    let mut script = on_a_terminal(&sandbox.command(&args));
    script.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = script.spawn().unwrap();
    let typed = format!("{}\n{}\n", cluster.url(&database), sandbox.path("backups").display());
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("it is proven"), "{said}");
    assert!(said.contains("$ opsctl verify-backup\r\n"), "{said}");
    let file = std::fs::read_to_string(sandbox.path("opsctl.toml")).unwrap();
    assert!(file.contains("restore_test = \"off\""), "{file}");
    let checked: Run = sandbox.run(&["config", "check", "--config", "opsctl.toml"]);
    checked.ends_with(0);
}

/// Starts `opsctl init`, and waits until it has begun to look whether all is well; nothing is written before that is known.
fn looking(cluster: &Cluster, database: &str, sandbox: &Sandbox) -> Running {
    let (url, repository) = (cluster.url(database), sandbox.path("backups"));
    let args = ["init", "--url", &url, "--repository", repository.to_str().unwrap()];
    let more = ["--state-dir", "state", "--config", "opsctl.toml", "--no-restore-test"];
    let running = Running::start(sandbox, &[&args[..], &more].concat());
    eventually("doctor", || {
        assert!(!running.is_over(), "it ended before it was seen");
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        // Behind the name in parentheses: the state, and the parent.
        let mut stats =
            processes.filter_map(|p| std::fs::read_to_string(p.path().join("stat")).ok());
        let parent = running.pid.to_string();
        stats.find(|stat| {
            let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
            behind.split_whitespace().nth(1) == Some(&parent)
        })
    });
    running
}

#[test]
fn a_file_that_appears_meanwhile_stays() {
    let (cluster, database, sandbox) = host();
    let running = looking(cluster, &database, &sandbox);
    running.signal(Signal::STOP);
    let config = sandbox.write("opsctl.toml", "# somebody else's");
    running.signal(Signal::CONT);
    let run = running.end().expect(2);
    assert!(run.stderr.contains("is there already"), "{run:#?}");
    assert_eq!(std::fs::read_to_string(config).unwrap(), "# somebody else's");
    assert!(!sandbox.path("backups").exists(), "{run:#?}");
}

#[test]
fn killed_it_leaves_nothing_with_a_password() {
    let (cluster, database, mut sandbox) = host();
    let temporary = sandbox.path("tmp");
    std::fs::create_dir(&temporary).unwrap();
    sandbox.set("TMPDIR", temporary.to_str().unwrap());
    let running = looking(cluster, &database, &sandbox);
    running.signal(Signal::KILL);
    let run = running.end().expect(137);
    let left: Vec<_> = temporary.read_dir().unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?} {run:#?}");
}

#[test]
fn what_it_says_to_type_can_be_typed_whatever_the_file_is_called() {
    let (cluster, database, mut sandbox) = host();
    let programs = sandbox.path("bin");
    std::fs::create_dir(&programs).unwrap();
    let crontab = sandbox
        .write("bin/crontab", "#!/bin/sh\n[ \"$1\" != -l ] || exit 1\nexec cat >installed\n");
    std::fs::set_permissions(crontab, std::fs::Permissions::from_mode(0o755)).unwrap();
    let opsctl = std::path::Path::new(env!("CARGO_BIN_EXE_opsctl")).parent().unwrap();
    let path = format!("{}:{}:/usr/bin:/bin", programs.display(), opsctl.display());
    sandbox.set("PATH", path.as_str());
    let config = sandbox.path("my conf/o'p.toml");
    let (url, repository) = (cluster.url(&database), sandbox.path("back ups"));
    let args = ["init", "--url", &url, "--repository", repository.to_str().unwrap()];
    let more = ["--state-dir", "state", "--config", config.to_str().unwrap(), "--no-restore-test"];
    let said = sandbox.run(&[&args[..], &more].concat()).expect(0).stdout;
    let mut install = std::process::Command::new("bash");
    install.args(["-uc", line(&said, "| crontab -")]).current_dir(sandbox.dir.path());
    stock(install.env_clear().env("PATH", path));
    let installed = std::fs::read_to_string(sandbox.path("installed")).unwrap();
    let quoted = format!("--config '{}'", config.to_str().unwrap().replace('\'', r"'\''"));
    assert!(installed.contains(&quoted), "{installed}");
    // Nobody reads what is sent to an example; without a word about it cron tells the owner of the crontab.
    assert!(!installed.lines().any(|line| line.starts_with("MAILTO")), "{installed}");
    let test = line(&said, "opsctl notify test");
    assert!(test.ends_with(&format!("opsctl notify test {quoted}")), "{test}");
}

#[test]
fn a_place_that_only_looks_like_a_directory_is_none() {
    let (cluster, database, sandbox) = host();
    let url = cluster.url(&database);
    let at = |place: &str| {
        let args = ["init", "--url", &url, "--repository", place, "--state-dir", "state"];
        sandbox.run(&[&args[..], &["--config", "opsctl.toml", "--dry-run"]].concat())
    };
    let home = sandbox.path("home");
    let said = at("~/backups").expect(0).stdout;
    assert!(said.contains(&format!("location = \"{}/backups\"", home.display())), "{said}");
    for (place, why) in [
        ("file:///srv/b", "`file:`"),
        ("S3://b/x", "`S3:`"),
        ("s3:b/x", "`s3:`"),
        ("sftp://ops:geheim@host/b", "`sftp:`"),
        ("~ann/backups", "`~`"),
    ] {
        let run = at(place).expect(2);
        assert!(run.stderr.contains(why) && !run.stderr.contains("geheim"), "{run:#?}");
    }
    at("./file:b").ends_with(0);
}
