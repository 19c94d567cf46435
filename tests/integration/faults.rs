//! Things that break while a backup is taken: the server, its programs, the disk. Each of these runs must
//! fail, say so in one line, and leave nothing; see `Patient::check`.

use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;

use crate::support::patient::{Patient, check_log, errors, folders};
use crate::support::running::{Gate, Running, children, eventually, send, spoiled};
use crate::support::{Cluster, Run, Sandbox, installed};

/// Makes a directory of client programs in which one is a script. `REAL` stands for the real program, and
/// `--version` is answered by it.
fn programs(sandbox: &Sandbox, name: &str, script: &str) -> String {
    let dir = sandbox.path("programs");
    std::fs::create_dir_all(&dir).unwrap();
    for program in ["pg_dump", "pg_dumpall", "pg_restore"] {
        let real = installed().join(program).display().to_string();
        let text = if program == name {
            script.replace("REAL", &real)
        } else {
            format!("exec {real} \"$@\"")
        };
        let path = dir.join(program);
        let version = format!("[ \"$*\" != --version ] || exec {real} --version");
        std::fs::write(&path, format!("#!/bin/bash\n{version}\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    dir.to_str().unwrap().to_owned()
}

/// Takes a backup with a script in the place of one program.
#[track_caller]
fn with_program(name: &str, script: &str, status: i32, says: &str) {
    let mut patient = Patient::new(Cluster::shared());
    let dir = programs(&patient.sandbox, name, script);
    patient.sandbox.set("OPSCTL_BIN_DIR", dir);
    let run = patient.sandbox.run(&["backup"]);
    patient.sandbox.unset("OPSCTL_BIN_DIR");
    patient.check(&run, status, says);
}

/// Takes a backup that `disturb` disturbs in the middle of a COPY. The gate opens only afterwards.
#[track_caller]
fn disturbed(status: i32, says: &str, disturb: impl FnOnce(&Patient<'_>)) {
    let patient = Patient::new(Cluster::shared());
    let gate = Gate::close(patient.cluster, &patient.database);
    let running = Running::start(&patient.sandbox, &["backup"]);
    gate.wait(&running);
    disturb(&patient);
    gate.open();
    patient.check(&running.end(), status, says);
}

/// Ends the one session of a run that a condition on `pg_stat_activity` tells.
fn terminate(patient: &Patient<'_>, condition: &str) {
    let sql = format!(
        "SELECT count(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity \
         WHERE datname = '{}' AND {condition}",
        patient.database
    );
    assert_eq!(patient.cluster.sql("postgres", &sql), "1", "{condition}");
}

#[test]
fn pg_dump_is_killed_while_rows_are_copied() {
    disturbed(1, "`pg_dump` was killed by signal 9", |patient| {
        let found = children(patient.cluster, &patient.database);
        let [(pid, name)] = &found[..] else { panic!("{found:?}") };
        assert_eq!(name, "pg_dump");
        send(*pid, Signal::KILL);
        let gone = || children(patient.cluster, &patient.database).is_empty().then_some(());
        eventually("pg_dump is gone", gone);
    });
}

#[test]
fn a_copy_is_not_waited_for_when_pg_dump_is_gone() {
    let patient = Patient::new(Cluster::shared());
    let gate = Gate::close(patient.cluster, &patient.database);
    let running = Running::start(&patient.sandbox, &["backup"]);
    gate.wait(&running);
    for (pid, _) in children(patient.cluster, &patient.database) {
        send(pid, Signal::KILL);
    }
    // The gate is closed: the copy would never have come to its end.
    let run = running.end();
    gate.open();
    patient.check(&run, 1, "`pg_dump` was killed by signal 9");
}

#[test]
fn the_session_of_pg_dump_may_end_after_it_has_described_everything() {
    let patient = Patient::new(Cluster::shared());
    let gate = Gate::close(patient.cluster, &patient.database);
    let running = Running::start(&patient.sandbox, &["backup"]);
    gate.wait(&running);
    // The snapshot's session holds the same locks.
    terminate(&patient, "application_name = 'pg_dump'");
    gate.open();
    let run = running.end().expect(0);
    assert!(run.stdout.contains("2 tables, 6,000 rows"), "{run:#?}");
    patient.check_afterwards(2);
}

#[test]
fn the_session_of_a_copy_is_ended() {
    let copies =
        "application_name = 'opsctl backup' AND query LIKE 'COPY%' AND wait_event = 'advisory'";
    disturbed(12, "lost the connection while trying to copy table public.gate", |patient| {
        terminate(patient, copies);
    });
}

#[test]
fn the_session_of_the_snapshot_is_ended() {
    let holds = "application_name = 'opsctl backup' AND state = 'idle in transaction'";
    disturbed(12, "keep the snapshot to the end", |patient| terminate(patient, holds));
}

#[test]
fn the_server_is_stopped_at_once() {
    let cluster = Cluster::start(&installed(), &[], &[]);
    let patient = Patient::new(&cluster);
    let gate = Gate::close(&cluster, &patient.database);
    let running = Running::start(&patient.sandbox, &["backup"]);
    gate.wait(&running);
    cluster.pg_ctl(&["stop", "-m", "immediate"]);
    let run = running.end();
    drop(gate);
    cluster.start_again();
    patient.check(&run, 12, "lost the connection while trying to");
}

#[test]
fn pg_dump_is_killed_before_it_says_anything() {
    with_program("pg_dump", "kill -9 $$", 1, "`pg_dump` was killed by signal 9");
}

#[test]
fn pg_dump_says_half_of_the_contents_and_claims_success() {
    with_program("pg_dump", "REAL \"$@\" | head -c 700; exit 0", 1, "table of contents");
}

#[test]
fn pg_dumpall_fails() {
    let script = "echo 'pg_dumpall: error: no way' >&2; exit 1";
    with_program(
        "pg_dumpall",
        script,
        1,
        "`pg_dumpall` ended with status 1: pg_dumpall: error: no way",
    );
}

#[test]
fn pg_dumpall_says_half_and_claims_success() {
    with_program(
        "pg_dumpall",
        "REAL \"$@\" | head -c 300; exit 0",
        1,
        "pg_dumpall's output has no end",
    );
}

#[test]
fn pg_dump_of_another_major_is_refused_before_anything_is_written() {
    let mut patient = Patient::new(Cluster::shared());
    let dir = programs(&patient.sandbox, "", "");
    for name in ["pg_dump", "pg_dumpall", "pg_restore"] {
        std::fs::write(
            format!("{dir}/{name}"),
            format!("#!/bin/sh\necho '{name} (PostgreSQL) 9.4.26'\n"),
        )
        .unwrap();
    }
    patient.sandbox.set("OPSCTL_BIN_DIR", dir);
    let repository = patient.sandbox.path("never-made");
    let run = patient.sandbox.run(&["backup", "--repository", repository.to_str().unwrap()]);
    assert!(!repository.exists(), "{run:#?}");
    patient.sandbox.unset("OPSCTL_BIN_DIR");
    assert!(
        run.stderr.contains("version 9.4.26; install them (`apt-get install postgresql-client-"),
        "{run:#?}"
    );
    patient.check(&run, 10, "found no pg_dump, pg_dumpall and pg_restore of version");
}

#[test]
fn a_table_that_may_not_be_read_is_named() {
    let mut patient = Patient::new(Cluster::shared());
    let role = format!("{}_reader", patient.database);
    let sql = format!(
        "CREATE ROLE {role} LOGIN; CREATE TABLE private AS SELECT 1; GRANT SELECT ON members TO {role}"
    );
    patient.cluster.sql(&patient.database, &sql);
    patient.sandbox.set(
        "DATABASE_URL",
        patient.cluster.url(&patient.database).replace("user=postgres", &format!("user={role}")),
    );
    let run = patient.sandbox.run(&["backup"]);
    patient.sandbox.set("DATABASE_URL", patient.cluster.url(&patient.database));
    patient.check(&run, 1, "permission denied for table private");
    patient.cluster.sql(&patient.database, &format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

/// Takes backups that meet an error at the n-th call of each thread, until one meets none.
fn errors_at_every(call: &str, error: &str, says: &str) {
    let patient = Patient::new(Cluster::shared());
    let mut n_backups = 1;
    for n in 1.. {
        let inject = format!("{call}:error={error}:when={n}");
        let run = Run::of(&mut spoiled(
            &patient.sandbox.command(&["backup", "--compression", "gzip"]),
            &inject,
        ));
        check_log(&run);
        let there = folders(&patient.folder());
        assert!(there.iter().all(|(_, is_complete)| *is_complete), "{inject}: {there:?} {run:#?}");
        if run.status == 0 {
            // What fails after the manifest is there is told and changes nothing about the backup.
            assert_eq!(there.len(), n_backups + 1, "{inject}: {run:#?}");
            n_backups += 1;
            if !run.stderr.contains(" WARN ") {
                assert!(n > 3, "strace spoils nothing");
                break;
            }
        } else {
            assert_eq!(run.status, 13, "{inject}: {run:#?}");
            assert_eq!(there.len(), n_backups, "{inject}: {run:#?}");
            assert!(matches!(&errors(&run)[..], [one] if one.contains(says)), "{inject}: {run:#?}");
        }
        assert!(n < 60, "it never ends");
    }
    patient.sandbox.run(&["verify-backup", "--all"]).expect(0).silence();
    patient.check_afterwards(n_backups);
}

#[test]
fn the_disk_is_full_at_every_fsync() {
    errors_at_every("fsync", "ENOSPC", "No space left on device");
}

#[test]
fn the_disk_is_full_at_every_rename() {
    errors_at_every("renameat2", "ENOSPC", "No space left on device");
}

#[test]
fn the_disk_breaks_at_every_fsync() {
    errors_at_every("fsync", "EIO", "Input/output error");
}

#[test]
fn the_repository_is_read_only() {
    let patient = Patient::new(Cluster::shared());
    // Root may write anywhere, so the kernel must say it.
    // The first folders are those of the history, twice, and of the locks.
    let inject = "mkdir,mkdirat:error=EROFS:when=4+";
    let run = Run::of(&mut spoiled(&patient.sandbox.command(&["backup"]), inject));
    patient.check(&run, 13, "Read-only file system");
}

#[test]
fn one_of_two_repositories_fails() {
    let mut patient = Patient::new(Cluster::shared());
    patient.sandbox.unset("OPSCTL_REPOSITORY");
    let (good, bad) =
        (patient.sandbox.path("backups"), patient.sandbox.write("file", "").join("below"));
    let config = format!(
        "[repositories.home]\nlocation = {good:?}\n[repositories.away]\nlocation = {bad:?}\n"
    );
    patient.sandbox.write("opsctl.toml", &config);
    let run = patient.sandbox.run(&["backup", "--json"]).expect(1);
    check_log(&run);
    assert!(
        matches!(&errors(&run)[..], [one] if one.contains("repository `away` has no backup")),
        "{run:#?}"
    );
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let text = report.to_string();
    assert_eq!(report["exit"], 1, "{text}");
    let stored = report["databases"][0]["repositories"].as_array().unwrap();
    let of = |name: &str| {
        stored.iter().find(|r| r["repository"] == name).unwrap_or_else(|| panic!("{text}"))
    };
    assert!(of("home")["stored_bytes"].as_u64() > Some(0), "{text}");
    assert!(of("away")["error"].as_str().unwrap().contains("Not a directory"), "{text}");
    patient.sandbox.set("OPSCTL_REPOSITORY", "home");
    patient.check_afterwards(2);
}
