//! Runs that are told to stop: they end soon, with a status that says why, and leave nothing.

use rustix::process::Signal;

use crate::support::Cluster;
use crate::support::patient::{Patient, check_log};
use crate::support::running::{Gate, Running, children, eventually};

/// Stops a backup in the middle of a COPY that would never end by itself.
#[track_caller]
fn stopped(args: &[&str], status: i32, says: &str, stop: impl FnOnce(&Running)) {
    let patient = Patient::new(Cluster::shared());
    let gate = Gate::close(patient.cluster, &patient.database);
    let running = Running::start(&patient.sandbox, &[&["backup"], args].concat());
    gate.wait(&running);
    assert!(!children(patient.cluster, &patient.database).is_empty(), "pg_dump waits");
    stop(&running);
    let run = running.end();
    // The gate has been closed to the end, and the lock can be taken at once.
    gate.open();
    assert_eq!(run.stdout, "", "{run:#?}");
    patient.check(&run, status, says);
}

#[test]
fn an_interruption_ends_with_130() {
    stopped(&[], 130, "interrupted", |running| running.signal(Signal::INT));
}

#[test]
fn a_termination_ends_with_143() {
    stopped(&[], 143, "terminated by a signal", |running| running.signal(Signal::TERM));
}

#[test]
fn a_second_interruption_changes_nothing_about_the_status() {
    stopped(&[], 130, "interrupted", |running| {
        running.signal(Signal::INT);
        running.signal(Signal::INT);
    });
}

#[test]
fn the_deadline_ends_with_14() {
    stopped(&["--timeout", "2s"], 14, "the deadline passed", |_| {});
}

#[test]
fn the_deadline_counts_while_a_table_is_locked_by_somebody_else() {
    let patient = Patient::new(Cluster::shared());
    let mut psql = patient.cluster.program("psql");
    psql.args([
        "-XAtq",
        "-d",
        &patient.database,
        "-c",
        "BEGIN",
        "-c",
        "LOCK TABLE members",
        "-f",
        "-",
    ]);
    let mut holder = psql.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let locks = "SELECT count(*) FROM pg_locks WHERE relation = 'members'::regclass AND granted";
    eventually("the table is locked", || {
        (patient.cluster.sql(&patient.database, locks) == "1").then_some(())
    });
    let run = patient.sandbox.run(&["backup", "--timeout", "1s"]);
    assert_eq!(run.status, 14, "{run:#?}");
    check_log(&run);
    drop(holder.stdin.take());
    holder.wait().unwrap();
    patient.check(&run, 14, "the deadline passed");
}
