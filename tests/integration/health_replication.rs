//! What leaves a server as WAL, on real servers: standbys that lag, stop and lose their slots, an archive that fails.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use crate::health_postgres::Patient;
use crate::support::running::eventually;
use crate::support::{Cluster, installed};

#[test]
fn archiving_that_fails() {
    let cluster = Cluster::start(
        &installed(),
        &["-c", "archive_mode=on", "-c", "archive_command=false"],
        &[],
    );
    let patient = Patient::new(&cluster, "postgres");
    patient.is("archiver", "", "ok", "0 segments have been archived");
    cluster.sql("postgres", "SELECT txid_current(); SELECT pg_switch_wal()");
    eventually("the failure", || {
        Some(()).filter(|()| patient.check("archiver", "").0 == "warning")
    });
    patient.is("archiver", "", "warning", "archiving `0000000");
    patient.is("archiver", "critical = 0", "critical", "fails; nothing has been archived for ");
    cluster.sql("postgres", "ALTER SYSTEM SET archive_command = 'true'");
    cluster.sql("postgres", "SELECT pg_reload_conf(); SELECT pg_switch_wal()");
    // Asked with a limit that was just exceeded, it has recovered all the same.
    eventually("the recovery", || Some(()).filter(|()| patient.check("archiver", "").0 == "ok"));
}

#[test]
fn archiving_that_does_not_even_fail() {
    let cluster =
        Cluster::start(&installed(), &["-c", "archive_mode=on", "-c", "archive_command="], &[]);
    let patient = Patient::new(&cluster, "postgres");
    cluster.sql("postgres", "SELECT txid_current(); SELECT pg_switch_wal()");
    patient.is("archiver", "", "ok", "1 wait");
    let since = |minutes: u64| {
        let waiting = format!("{}/data/pg_wal/archive_status", cluster.dir);
        for entry in std::fs::read_dir(waiting).unwrap().flatten() {
            let file = std::fs::File::open(entry.path()).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(minutes * 60)).unwrap();
        }
    };
    since(2);
    patient.is("archiver", "", "warning", "1 segments wait, the oldest for 2 min");
    since(16);
    patient.is("archiver", "", "critical", "archiving does not go on");
}

#[test]
fn a_standby_that_has_replayed_nothing_does_not_know_how_old_it_is() {
    let primary = Cluster::start(&installed(), &[], &[]);
    primary.sql("postgres", "SELECT pg_create_physical_replication_slot('standby', true)");
    let standby = Cluster::standby(&primary, "standby");
    primary.sql("postgres", "CREATE TABLE t (id int)");
    primary.sql("postgres", "CHECKPOINT");
    let end = primary.sql("postgres", "SELECT pg_current_wal_flush_lsn()");
    eventually("the checkpoint", || {
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'");
        Some(()).filter(|()| standby.sql("postgres", &replayed) == "t")
    });
    standby.sql("postgres", "CHECKPOINT");
    primary.pg_ctl(&["stop", "-w", "-m", "immediate"]);
    standby.pg_ctl(&["stop", "-w", "-m", "fast"]);
    standby.start_again();
    let patient = Patient::new(&standby, "postgres");
    let says = "it receives nothing from its primary; how old what it shows is, nobody knows";
    patient.is("replication-lag", "", "unknown", says);
}

#[test]
fn a_standby_that_lags_stops_and_loses_its_slot() {
    let settings = [
        "-c",
        "wal_level=replica",
        "-c",
        "max_slot_wal_keep_size=1MB",
        "-c",
        "hot_standby_feedback=on",
    ];
    let primary = Cluster::start(&installed(), &settings, &[]);
    let patient = Patient::new(&primary, "postgres");
    patient.is("replication-lag", "", "ok", "no standby is connected");
    let mut backup = primary.program("pg_basebackup");
    backup.args(["--max-rate=32k", "--wal-method=none", "--checkpoint=fast", "--format=tar"]);
    backup.arg("--pgdata").arg(patient.sandbox.path("base")).stderr(Stdio::null());
    let mut backup = backup.spawn().unwrap();
    eventually("the base backup", || {
        let begun = "SELECT FROM pg_stat_replication WHERE state = 'backup'";
        Some(()).filter(|()| primary.sql("postgres", &format!("SELECT EXISTS ({begun})")) == "t")
    });
    patient.is("replication-lag", "", "ok", "no standby is connected");
    backup.kill().unwrap();
    backup.wait().unwrap();
    patient.is("replication-slots", "", "ok", "there is no replication slot");
    primary.sql(
        "postgres",
        "CREATE TABLE t (id int); SELECT pg_create_physical_replication_slot('standby', true)",
    );
    patient.is(
        "replication-slots",
        "",
        "warning",
        "physical slot `standby` is read by nobody and holds ",
    );

    let standby = Cluster::standby(&primary, "standby");
    let streams = || Some(()).filter(|()| patient.check("replication-slots", "").0 == "ok");
    eventually("the standby", streams);
    patient.is(
        "replication-lag",
        "",
        "ok",
        "1 standby connection connected, the slowest: `walreceiver`",
    );
    let other = Patient::new(&standby, "postgres");
    primary.sql("postgres", "INSERT INTO t VALUES (1)");
    eventually("the row", || {
        Some(()).filter(|()| standby.sql("postgres", "SELECT count(*) FROM t") == "1")
    });
    other.is("replication-lag", "", "ok", "what it shows is 0.0 s old");
    other.is("archiver", "", "ok", "WAL is not archived");
    let run = other
        .sandbox
        .run(&["health-check", "--tag", "postgres", "--skip", "minor-version"])
        .expect(0);
    assert!(run.stdout.starts_with("OK: 18 ok"), "{run:#?}");

    standby.sql("postgres", "SELECT pg_wal_replay_pause()");
    primary.sql("postgres", "INSERT INTO t VALUES (2)");
    let lags = |status: &'static str, limits: &'static str| {
        eventually(status, || {
            Some(()).filter(|()| other.check("replication-lag", limits).0 == status)
        });
    };
    lags("warning", "warning = 0\ncritical = 3600");
    lags("critical", "warning = 0\ncritical = 0");
    other.is("replication-lag", "warning = 0", "warning", "; its replay is paused");
    let behind =
        || Some(()).filter(|()| patient.check("replication-lag", "warning = 0").0 == "warning");
    eventually("the primary sees it", behind);
    standby.sql("postgres", "SELECT pg_wal_replay_resume()");

    standby.pg_ctl(&["stop", "-w", "-m", "fast"]);
    patient.is("replication-slots", "", "warning", "physical slot `standby` is read by nobody");
    patient.is("replication-lag", "", "ok", "no standby is connected");
    primary.sql("postgres", "INSERT INTO t VALUES (3); SELECT pg_switch_wal()");
    patient.is("replication-slots", "warning = 0\ncritical = 0", "critical", "slot `standby`");
    for _ in 0..3 {
        primary.sql("postgres", "INSERT INTO t VALUES (3); SELECT pg_switch_wal(); CHECKPOINT");
    }
    patient.is(
        "replication-slots",
        "",
        "critical",
        "physical slot `standby` is lost: whoever reads",
    );
    standby.start_again();
    // What it wants is gone; and then its primary as well.
    primary.pg_ctl(&["stop", "-w", "-m", "fast"]);
    other.is("replication-lag", "", "warning", "it receives nothing from its primary");
    other.is("replication-lag", "critical = 0", "critical", "it receives nothing from its primary");
    patient.is("replication-lag", "", "unknown", "failed to reach");
}

#[test]
fn a_standby_that_catches_up_is_behind_though_nobody_knows_for_how_long() {
    let primary = Cluster::start(&installed(), &[], &[]);
    primary.sql("postgres", "SELECT pg_create_physical_replication_slot('standby', true)");
    let standby = Cluster::standby(&primary, "standby");
    let narrow = narrow_way_to(&primary, 1 << 20);
    standby.sql(
        "postgres",
        &format!(
            "ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port={narrow} user=postgres'"
        ),
    );
    standby.pg_ctl(&["stop", "-w", "-m", "fast"]);
    for _ in 0..5 {
        primary.sql("postgres", "SELECT txid_current(); SELECT pg_switch_wal()");
    }
    standby.start_again();
    let patient = Patient::new(&primary, "postgres");
    let state = "SELECT count(*) FROM pg_stat_replication WHERE state = 'catchup'";
    eventually("the connection", || Some(()).filter(|()| primary.sql("postgres", state) == "1"));
    patient.is("replication-lag", "", "warning", "catchup: it is catching up, ");
    primary.pg_ctl(&["stop", "-w", "-m", "immediate"]);
}

/// Lets so many bytes from a server through, to whoever connects to the port that is returned, and then no more.
fn narrow_way_to(server: &Cluster, most: u64) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, server) = (listener.local_addr().unwrap().port(), server.port.clone());
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let Ok(mut there) = TcpStream::connect(format!("127.0.0.1:{server}")) else { continue };
            let (mut back, mut forth) = (there.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut forth, &mut there));
            std::thread::spawn(move || {
                std::io::copy(&mut (&mut back).take(most), &mut client).ok();
                client.flush().ok();
                // Both ends stay open, and nothing moves any more.
                std::thread::park();
            });
        }
    });
    port
}

#[test]
fn commits_that_wait_for_a_standby_that_is_not_there() {
    let primary = Cluster::start(&installed(), &[], &[]);
    let patient = Patient::new(&primary, "postgres");
    patient.is("replication-lag", "", "ok", "no standby is connected");
    primary.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'walreceiver'");
    primary.sql("postgres", "SELECT pg_reload_conf()");
    eventually("the setting", || {
        Some(()).filter(|()| patient.check("replication-lag", "").0 == "critical")
    });
    patient.is(
        "replication-lag",
        "",
        "critical",
        "commits wait for a synchronous standby, and none is connected",
    );
    primary.sql("postgres", "SELECT pg_create_physical_replication_slot('standby', true)");
    let _standby = Cluster::standby(&primary, "standby");
    eventually("the standby", || {
        Some(()).filter(|()| patient.check("replication-lag", "").0 == "ok")
    });
}
