//! The pages about a database that is sick, read while it is: their lines are typed, and what they say is to be seen.

use std::os::unix::process::CommandExt;

use crate::health_postgres::Session;
use crate::support::reader::{But, Reader};
use crate::support::running::eventually;
use crate::support::{Cluster, Run, Sandbox, installed, stock};

const NO_SYSTEMD: But = But::IsLeftOut("the server of a test is no unit of systemd");

/// Makes the database `members` on a server, and a sandbox whose shell finds it as a person's does.
fn site(cluster: &Cluster, configuration: &str) -> Sandbox {
    cluster.sql("postgres", "CREATE DATABASE members TEMPLATE template0");
    cluster.sql("members", "CREATE TABLE dues AS SELECT n AS id FROM generate_series(1, 100) n");
    reached_by(cluster, configuration)
}

fn reached_by(cluster: &Cluster, configuration: &str) -> Sandbox {
    let mut sandbox = Sandbox::new(&cluster.url("members"));
    let programs = cluster.bin_dir.display();
    sandbox.set("PATH", format!("{programs}:/usr/local/bin:/usr/bin:/bin"));
    sandbox.set("PGHOST", &cluster.dir).set("PGPORT", &cluster.port).set("PGUSER", "postgres");
    // A machine that is busy with other tests is slow, and not down.
    let patient = "[health.connect]\nwarning = 60\ncritical = 60\n";
    sandbox.write("opsctl.toml", &format!("{patient}{configuration}"));
    sandbox
}

/// Returns the number of the process that a check names.
fn pid(seen: &[Run], check: &str) -> String {
    let lines = seen.iter().flat_map(|run| run.stdout.lines());
    let line = lines.into_iter().find(|line| line.contains(check)).unwrap();
    let (_, rest) = line.split_once("pid ").unwrap_or_else(|| panic!("{line}"));
    rest.split(' ').next().unwrap().to_owned()
}

#[test]
fn a_database_that_was_killed_is_up_again_by_the_page() {
    let cluster = Cluster::start(&installed(), &[], &[]);
    let sandbox = site(&cluster, "");
    sandbox.back_up(&[]);
    cluster.pg_ctl(&["stop", "-m", "immediate"]);
    let (uid, gid) = cluster.owner();
    let reader = Reader::of("database-down", &sandbox)
        .with("/var/log/postgresql/postgresql-17-main.log", &format!("{}/log", cluster.dir))
        .with("/var/lib/postgresql/17/main", &format!("{}/data", cluster.dir))
        .with(
            "pg_ctl start",
            &format!("setpriv --reuid={uid} --regid={gid} --clear-groups pg_ctl start"),
        );
    let kernel = But::IsLeftOut("the kernel's log is not everybody's in a container");
    let seen = reader.does(
        "Check",
        &[("opsctl health-check", But::Ends(2)), ("systemctl", NO_SYSTEMD), ("dmesg", kernel)],
    );
    assert!(seen[0].stdout.contains("No such file or directory"), "{seen:#?}");
    // A run that fails for it leads to the page.
    let run = sandbox.run(&["backup"]).expect(12);
    assert!(run.stderr.contains("`opsctl runbook show database-down`"), "{run:#?}");
    reader.does("It was stopped or killed", &[("systemctl", NO_SYSTEMD)]);
    reader.does("Verify", &[]);

    // Another one, which has a standby, and does not come up.
    let primary = Cluster::start(&installed(), &["-c", "wal_level=replica"], &[]);
    primary.sql("postgres", "SELECT pg_create_physical_replication_slot('standby')");
    let here = site(&primary, "");
    let standby = Cluster::standby(&primary, "standby");
    eventually("the standby has it all", || {
        let sql = "SELECT count(*) FROM pg_database WHERE datname = 'members'";
        let has = standby.sql("postgres", sql) == "1";
        (has && standby.sql("members", "SELECT to_regclass('dues') IS NOT NULL") == "t")
            .then_some(())
    });
    let lost = reader.elsewhere(&here);
    lost.finds("/var/lib/postgresql/17/main", &format!("{}/data", primary.dir));
    primary.pg_ctl(&["stop", "-m", "immediate"]);
    lost.does("First keep the old primary from coming back", &[("systemctl", NO_SYSTEMD)]);
    let there = reached_by(&standby, "");
    reader.elsewhere(&there).does("Then promote the standby", &[]);
    standby.sql("members", "INSERT INTO dues VALUES (0)");
    // Somebody starts the old one all the same.
    primary.start_again();
    let mut psql = primary.program("psql");
    let write = Run::of(psql.args(["-X", "-d", "members", "-c", "INSERT INTO dues VALUES (0)"]));
    assert!(write.stderr.contains("in a read-only transaction"), "{write:#?}");
}

#[test]
fn connections_that_are_used_up_are_free_again_by_the_page() {
    let cluster = Cluster::start(&installed(), &["-c", "max_connections=20"], &[]);
    let sandbox = site(&cluster, "");
    cluster.sql("postgres", "CREATE ROLE web LOGIN");
    // One more is that of opsctl itself, which has a superuser's reserved ones left.
    let idle = |_| Session::of("web", &cluster, "members", "members-site", "SELECT 1");
    let sessions: Vec<Session> = (0..15).map(idle).collect();
    // Somebody else's, which only calls itself so.
    let other = Session::open(&cluster, "members", "web", "SELECT 1");
    let idle = |whose: &str| {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle' AND ";
        cluster.sql("postgres", &format!("{sql}{whose}"))
    };
    eventually("all of them are idle", || {
        let all = idle("usename = 'web'") == "15" && idle("application_name = 'web'") == "1";
        all.then_some(())
    });
    let reader = Reader::of("connections-exhausted", &sandbox);
    let seen = reader.does("Check", &[("opsctl", But::Ends(2))]);
    let said = &seen[0].stdout;
    assert!(said.contains("17 of 17 connections are used (100 %)"), "{said}");
    assert!(said.contains("15 of web by members-site, idle"), "{said}");
    reader.does("Act", &[]);
    assert_eq!(idle("application_name = 'web'"), "1");
    drop((sessions, other));
    reader.does("Verify", &[]);
    assert_eq!(
        cluster.sql("postgres", "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'web'"),
        "20"
    );
}

#[test]
fn a_query_that_takes_too_long_is_ended_by_the_page() {
    let cluster = Cluster::start(&installed(), &[], &[]);
    // How busy the machine of the tests is says nothing of the query.
    let quiet = "[health.cpu]\nwarning = \"100%\"\ncritical = \"100%\"\n[health.load]\nwarning = 1e6\ncritical = 1e6\n";
    let limits = format!("[health.longest-query]\nwarning = \"1s\"\n{quiet}");
    let sandbox = site(&cluster, &limits);
    let report =
        Session::open(&cluster, "members", "report", "SELECT pg_sleep(600), 'hush' FROM dues");
    let report = report.until(&cluster, "now() - query_start > interval '1 second'");
    let reader =
        Reader::of("slow-queries", &sandbox).with("/var/tmp", sandbox.dir.path().to_str().unwrap());
    let seen = reader.does("Check", &[("opsctl health-check", But::Ends(1))]);
    assert!(!seen[0].stdout.contains("hush"), "{seen:#?}");
    reader.finds("PID", &pid(&seen, "longest-query/"));
    let done = reader.does("Act", &[]);
    // The evidence names it, and was kept before it was gone.
    let folder = std::fs::read_dir(sandbox.dir.path()).unwrap().flatten().map(|entry| entry.path());
    let mut folders = folder.filter(|path| path.is_dir());
    let is_evidence =
        |path: &std::path::PathBuf| path.to_str().unwrap().contains("opsctl-incident-");
    let folder = folders.find(is_evidence).unwrap_or_else(|| panic!("{done:#?}"));
    let activity =
        std::fs::read_to_string(folder.join("databases/members/activity.jsonl")).unwrap();
    assert!(activity.contains("pg_sleep") && !activity.contains("hush"), "{activity}");
    let report = report.until(&cluster, "state = 'idle'");
    reader.does("Verify", &[]);
    drop(report);
}

#[test]
fn a_standby_that_is_behind_catches_up_and_one_that_is_gone_is_forgotten_by_the_page() {
    let primary = Cluster::start(&installed(), &[], &[]);
    let sandbox = site(&primary, "[health.replication-lag]\nwarning = \"1s\"\n");
    primary.sql("postgres", "SELECT pg_create_physical_replication_slot('standby1', true)");
    let standby = Cluster::standby(&primary, "standby1");
    // It knows how old it is once it has replayed something.
    primary.sql("members", "INSERT INTO dues SELECT 0");
    eventually("the standby has it", || {
        (standby.sql("members", "SELECT count(*) FROM dues WHERE id = 0") == "1").then_some(())
    });
    standby.sql("postgres", "SELECT pg_wal_replay_pause()");
    primary.sql("members", "INSERT INTO dues SELECT 1");
    let there = reached_by(&standby, "[health.replication-lag]\nwarning = \"1s\"\n");
    for sandbox in [&sandbox, &there] {
        eventually("the standby is behind", || {
            primary.sql("members", "INSERT INTO dues SELECT 1");
            let run = sandbox.run(&["health-check", "--only", "replication-lag"]);
            (run.status == 1).then_some(())
        });
    }
    let here = Reader::of("replication-lag", &sandbox);
    let there_too = here.elsewhere(&there);
    let seen = here.does("The primary", &[("opsctl", But::Ends(1))]);
    assert!(seen[1].stdout.contains("streaming"), "{seen:#?}");
    let seen = there_too.does("The standby", &[("opsctl", But::Ends(1))]);
    assert!(seen[1].stdout.contains('t'), "{seen:#?}");
    there_too.does("Replay was paused", &[]);
    eventually("it has caught up", || {
        let run = sandbox.run(&["health-check", "--only", "replication-lag"]);
        (run.status == 0).then_some(())
    });
    here.does("Verify", &[]);

    standby.pg_ctl(&["stop", "-w", "-m", "fast"]);
    let seen = here.does("The primary", &[("opsctl", But::Ends(1))]);
    assert!(seen[0].stdout.contains("standby1"), "{seen:#?}");
    eventually("the slot is free", || {
        let active = "SELECT active FROM pg_replication_slots";
        (primary.sql("postgres", active) == "f").then_some(())
    });
    here.does("It is gone for good", &[]);
    here.does("Verify", &[]);
}

#[test]
fn transaction_numbers_are_free_again_by_the_page() {
    let settings =
        ["-c", "autovacuum_freeze_max_age=100000", "-c", "vacuum_freeze_table_age=50000"];
    let cluster = Cluster::start(&installed(), &settings, &[]);
    let limits = "[health.xid-age]\nwarning = 50000\n[health.xmin-horizon]\nwarning = 50000\n";
    let sandbox = site(&cluster, limits);
    let holder = Session::open(
        &cluster,
        "members",
        "forgotten",
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM dues",
    );
    let holder = holder.until(&cluster, "state = 'idle in transaction'");
    let uses =
        "DO $$ BEGIN FOR n IN 1..60000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$";
    cluster.sql("members", uses);
    let reader = Reader::of("wraparound", &sandbox);
    let seen = reader.does("Check", &[("opsctl health-check", But::Ends(1))]);
    assert!(seen[0].stdout.contains("(forgotten)"), "{seen:#?}");
    reader.finds("PID", &pid(&seen, "xmin-horizon/"));
    reader.does("Writes go on", &[]);
    drop(holder);
    // The other databases of the server, which opsctl was not told to look after.
    for other in ["postgres", "template1"] {
        cluster.sql(other, "VACUUM (FREEZE)");
    }
    let other = "UPDATE pg_database SET datallowconn = true WHERE datname = 'template0'";
    cluster.sql("postgres", other);
    cluster.sql("template0", "VACUUM (FREEZE)");
    reader.does("Verify", &[]);

    let settings = ["-c", "wal_level=logical", "-c", "autovacuum_naptime=1"];
    let cluster = Cluster::start(&installed(), &settings, &[]);
    let sandbox = site(&cluster, "");
    cluster.sql("members", "SELECT pg_create_logical_replication_slot('forgotten', 'pgoutput')");
    use_up(&cluster);
    let write = |sql: &str| {
        let mut psql = cluster.program("psql");
        Run::of(psql.args(["-X", "-d", "members", "-c", sql]))
    };
    let refused = write("INSERT INTO dues VALUES (0)");
    assert!(refused.stderr.contains("database is not accepting commands"), "{refused:#?}");
    // What the page warns of.
    let full = write("VACUUM (FULL) dues");
    assert!(full.stderr.contains("database is not accepting commands"), "{full:#?}");
    let reader = reader.elsewhere(&sandbox);
    let seen = reader.does("Check", &[("opsctl health-check", But::Ends(2))]);
    assert!(seen[0].stdout.contains("replication slot `forgotten`"), "{seen:#?}");
    reader.finds("SLOT", "forgotten");
    reader.does("Writes are refused", &[]);
    // Autovacuum goes on with the other databases, also with the one that nobody may connect to.
    eventually("writes go on", || (write("INSERT INTO dues VALUES (0)").status == 0).then_some(()));
    reader.does("Verify", &[]);
}

/// Lets a server believe that it has used up nearly all transaction numbers there are.
fn use_up(cluster: &Cluster) {
    cluster.pg_ctl(&["stop", "-w", "-m", "fast"]);
    let data = format!("{}/data", cluster.dir);
    let control = stock(cluster.program("pg_controldata").arg(&data));
    let oldest = control.lines().find_map(|line| line.split_once("oldestXID:")).unwrap().1;
    // Writes are refused when three million are left.
    let next = oldest.trim().parse::<u32>().unwrap() + i32::MAX.unsigned_abs() - 2_500_000;
    let segment = format!("{data}/pg_xact/{:04X}", next / (32 * 32_768));
    std::fs::write(&segment, vec![0; 32 * 8192]).unwrap();
    let (uid, gid) = cluster.owner();
    std::os::unix::fs::chown(&segment, Some(uid), Some(gid)).unwrap();
    let mut reset = cluster.program("pg_resetwal");
    stock(reset.args(["-x", &next.to_string(), "-D", &data]).uid(uid).gid(gid).current_dir("/"));
    cluster.start_again();
}
