//! Partitions go as a whole where the configuration wants it, and only with rows that are all in the archive.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::Run;
use crate::support::archive::Archive;
use crate::support::running::{Running, by_another_clock, eventually};

/// Two months of rows, 40 each, and one that is hot. A trigger keeps rows from being deleted one by one.
const ROWS: &str = "
    CREATE TABLE audit_logs (id bigserial, at timestamptz NOT NULL, who text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE march PARTITION OF audit_logs FOR VALUES FROM ('2024-03-01 00:00Z') TO ('2024-04-01 00:00Z');
    CREATE TABLE april (note text DEFAULT 'x', who text, at timestamptz NOT NULL, id bigint NOT NULL DEFAULT 0);
    ALTER TABLE april DROP COLUMN note;
    ALTER TABLE audit_logs ATTACH PARTITION april FOR VALUES FROM ('2024-04-01 00:00Z') TO ('2024-05-01 00:00Z');
    CREATE TABLE hot PARTITION OF audit_logs FOR VALUES FROM ('2024-05-01 00:00Z') TO ('2999-01-01 00:00Z');
    INSERT INTO audit_logs (at, who)
        SELECT timestamptz '2024-03-05Z' + (n / 40) * interval '1 month' + (n % 40) * interval '10 hours', 'user' || n
        FROM generate_series(0, 79) n;
    INSERT INTO audit_logs (at, who) VALUES (now(), 'hot');
    COMMENT ON TABLE april IS 'it''s \\april';
    CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
    CREATE TRIGGER watch BEFORE DELETE ON audit_logs FOR EACH ROW EXECUTE FUNCTION no()";

const MARCH: &str = "2024/2024-03-01_2024-03-31";
const APRIL: &str = "2024/2024-04-01_2024-04-30";

/// Makes the table, and archives what is old.
fn archived(more: &str) -> Archive {
    let archive = Archive::new(&format!("{ROWS}; {more}"));
    archive.configure("delete = \"after-verify\"\npartitions = \"drop\"\n");
    archive.json(0, &[]);
    archive
}

/// Returns the command, so many days from now.
fn command(archive: &Archive, days: u32, args: &[&str]) -> Command {
    let command = archive.sandbox.command(&[&["archive-audit", "--json"], args].concat());
    let mut command = by_another_clock(&command, &format!("+{days}d"));
    // Files are as old as they are.
    command.env("NO_FAKE_STAT", "1");
    command
}

/// Runs opsctl in eight days; returns what the report says of the deletion.
#[track_caller]
fn later(archive: &Archive, status: i32, args: &[&str]) -> Value {
    let run = Run::of(&mut command(archive, 8, args)).expect(status);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    report["databases"][0]["tables"].as_array().and_then(|t| t.last().cloned()).unwrap_or(report)
}

fn partitions(archive: &Archive) -> String {
    archive.sql("SELECT string_agg(inhrelid::regclass::text, ' ' ORDER BY inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'audit_logs'::regclass AND NOT inhdetachpending")
}

fn count(archive: &Archive) -> String {
    archive.sql("SELECT count(*) FROM audit_logs")
}

/// A session that has used a table, and has not ended its transaction.
struct Onlooker(Child);

impl Onlooker {
    fn at(archive: &Archive, table: &str) -> Onlooker {
        let mut psql = Command::new("psql");
        psql.args(["-qAtX", &archive.url()]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut onlooker = Onlooker(psql.spawn().unwrap());
        onlooker.says(&format!(
            "SET application_name = 'onlooker'; BEGIN; SELECT count(*) FROM {table}"
        ));
        let idles = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction' AND application_name = 'onlooker'";
        eventually("the onlooker", || (archive.sql(idles) == "1").then_some(()));
        onlooker
    }

    fn says(&mut self, sql: &str) {
        self.0.stdin.as_mut().unwrap().write_all(format!("{sql};\n").as_bytes()).unwrap();
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// Keeps a DETACH from its end when the partition is out and cannot go back by itself, until whoever holds the gate has ended.
fn gate(archive: &Archive) -> Onlooker {
    archive.sql(
        "CREATE FUNCTION gate() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN IF current_query() LIKE '%CONCURRENTLY' THEN \
         PERFORM pg_advisory_xact_lock(42); END IF; END $$; \
         CREATE EVENT TRIGGER gate ON ddl_command_end EXECUTE FUNCTION gate()",
    );
    Onlooker::at(archive, "pg_advisory_xact_lock(42)")
}

/// Waits until opsctl waits for somebody who uses the table.
fn waits(archive: &Archive) {
    let looks = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'SELECT virtualtransaction%' AND pid <> pg_backend_pid()";
    eventually("that it waits", || (archive.sql(looks) == "1").then_some(()));
}

#[test]
fn partitions_whose_rows_are_archived_go_and_the_rest_stays() {
    let archive = archived("");
    let report = later(&archive, 0, &["--dry-run"]);
    assert_eq!(report["deleted"], 80, "{report:#}");
    assert_eq!(partitions(&archive), "april hot march");
    // By hand, and only what is named.
    let report = later(&archive, 0, &["delete", MARCH, "--yes", MARCH]);
    assert_eq!(report["partitions"][0]["partition"], "public.march", "{report:#}");
    assert_eq!((partitions(&archive), count(&archive)), ("april hot".into(), "41".into()));
    let report = later(&archive, 0, &[]);
    assert_eq!(report["partitions"][0]["dropped"], 40, "{report:#}");
    assert_eq!((partitions(&archive), count(&archive)), ("hot".into(), "1".into()));
    assert_eq!(
        archive.sql("SELECT count(*) FROM pg_class WHERE relname IN ('march', 'april')"),
        "0"
    );
    archive.is_well();
    archive.json(0, &["restore", APRIL, "--to", "back"]);
    assert_eq!(archive.sql("SELECT count(*) FROM back"), "40");
    let report = later(&archive, 10, &["delete", MARCH, "--yes", MARCH]);
    assert!(report["error"].as_str().unwrap().contains("none has all of its time"), "{report:#}");
}

#[test]
fn a_partition_that_is_not_as_it_was_archived_stays_where_it_is() {
    let archive = archived("CREATE VIEW of_march AS SELECT * FROM march");
    archive.sql("UPDATE audit_logs SET who = 'nobody' WHERE id = 50");
    // April has a row that changed; what depends on March keeps it from being dropped.
    let report = later(&archive, 10, &["--dry-run"]);
    let why = report["partitions"][0]["stays"]["why"].as_str().unwrap();
    assert!(why.contains("view public.of_march depends on it"), "{report:#}");
    let report = later(&archive, 10, &[]);
    assert!(report["findings"][0]["what"].as_str().unwrap().contains("the row 50"), "{report:#}");
    assert_eq!((partitions(&archive), count(&archive)), ("april hot march".into(), "81".into()));
    archive.sql("DROP VIEW of_march");
    later(&archive, 3, &[]);
    assert_eq!((partitions(&archive), count(&archive)), ("april hot".into(), "41".into()));
    assert_eq!(archive.sql("SELECT obj_description('april'::regclass)"), "it's \\april");
    // A row that was never archived gets a segment first, which is not old enough.
    archive.sql("UPDATE audit_logs SET who = 'user49' WHERE id = 50; INSERT INTO audit_logs (at) VALUES ('2024-04-02Z')");
    let report = later(&archive, 0, &[]);
    let why = report["partitions"][0]["stays"]["why"].as_str().unwrap();
    assert!(why.contains("are needed"), "{report:#}");
    assert_eq!((partitions(&archive), count(&archive)), ("april hot".into(), "42".into()));
}

#[test]
fn columns_that_came_while_it_waited_are_not_dropped() {
    let archive = archived("");
    let mut onlooker = Onlooker::at(&archive, "audit_logs");
    let running = Running::spawn(&mut command(&archive, 8, &[]));
    waits(&archive);
    onlooker.says("ALTER TABLE audit_logs ADD COLUMN verdict text; UPDATE audit_logs SET verdict = 'guilty'; COMMIT");
    let run = running.end().expect(3);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    let findings = report["databases"][0]["tables"][1]["findings"].as_array().unwrap();
    let other = |f: &&Value| f["what"].as_str().unwrap().contains("other columns by now");
    assert_eq!(findings.iter().filter(other).count(), 2, "{report:#}");
    onlooker.end();
    assert_eq!(partitions(&archive), "april hot march");
    assert_eq!(archive.sql("SELECT count(*) FROM audit_logs WHERE verdict = 'guilty'"), "81");
}

#[test]
fn a_hold_that_came_while_it_waited_keeps_the_partition() {
    let archive = archived("");
    let onlooker = gate(&archive);
    let running = Running::spawn(&mut command(&archive, 8, &[]));
    let pending = "SELECT count(*) FROM pg_inherits WHERE inhdetachpending";
    eventually("that it waits", || (archive.sql(pending) == "1").then_some(()));
    let hold =
        ["hold", "add", "case-17", "--why", "x v. y", "--from", "2024-03-01", "--to", "2024-03-02"];
    archive.json(0, &hold);
    onlooker.end();
    let run = running.end().expect(0);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    let march = &report["databases"][0]["tables"][1]["partitions"][0];
    assert!(march["stays"]["why"].as_str().unwrap().contains("case-17"), "{report:#}");
    assert_eq!((partitions(&archive), count(&archive)), ("hot march".into(), "41".into()));
}

#[test]
fn a_transaction_that_does_not_end_is_not_waited_for_when_there_is_no_way_back() {
    let archive = archived("");
    // It uses the partition alone; the table is as bad.
    let onlooker = Onlooker::at(&archive, "march");
    let running = Running::spawn(&mut command(&archive, 8, &[]));
    waits(&archive);
    // Everything goes on meanwhile.
    archive.sql("INSERT INTO audit_logs (at) VALUES (now()); SELECT count(*) FROM audit_logs");
    let run = running.end().expect(0);
    assert!(run.stdout.contains("does not end"), "{run:#?}");
    assert_eq!((partitions(&archive), count(&archive)), ("april hot march".into(), "82".into()));
    onlooker.end();
    later(&archive, 0, &[]);
    assert_eq!(partitions(&archive), "hot");
}

/// Kills a run that has taken March out halfway; nobody sees its rows then.
fn killed_halfway(archive: &Archive) {
    let onlooker = gate(archive);
    let running = Running::spawn(&mut command(archive, 8, &[]));
    let pending = "SELECT count(*) FROM pg_inherits WHERE inhdetachpending";
    eventually("that it waits", || (archive.sql(pending) == "1").then_some(()));
    running.signal(Signal::KILL);
    let _run = running.end();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'ALTER TABLE%'";
    archive.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'ALTER TABLE%'");
    eventually("its end", || (archive.sql(waits) == "0").then_some(()));
    assert_eq!((partitions(archive), count(archive)), ("april hot".into(), "41".into()));
    onlooker.end();
}

#[test]
fn what_a_killed_run_had_taken_out_is_taken_back_and_looked_at_again() {
    let archive = archived("");
    killed_halfway(&archive);
    // Whoever looks at the partition reads what it is; those who are asked say it.
    let comment = archive.sql("SELECT obj_description('march'::regclass)");
    assert!(comment.contains("its next run takes it back"), "{comment}");
    let table = archive.json(3, &["verify", "--with-table"]);
    assert!(
        table["findings"][0]["what"].as_str().unwrap().contains("out of its table"),
        "{table:#}"
    );
    let doctor = archive.sandbox.run(&["doctor", "--skip", "cron"]).expect(3).stdout;
    assert!(doctor.contains("out of their table: march"), "{doctor}");
    archive.sql("UPDATE march SET who = 'nobody' WHERE id = 1");
    // It is also taken back where nothing is deleted any more, and where a default partition came since.
    archive.sql("CREATE TABLE rest PARTITION OF audit_logs DEFAULT");
    archive.configure("");
    let report = archive.json(0, &[]);
    assert_eq!(report["taken_back"], serde_json::json!(["public.march"]), "{report:#}");
    assert_eq!(
        (partitions(&archive), count(&archive)),
        ("april hot march rest".into(), "81".into())
    );
    archive.sql("DROP TABLE rest");
    archive.configure("delete = \"after-verify\"\npartitions = \"drop\"\n");
    later(&archive, 3, &[]);
    assert_eq!((partitions(&archive), count(&archive)), ("hot march".into(), "41".into()));
    assert_eq!(archive.sql("SELECT obj_description('march'::regclass)"), "");
    // Somebody else's comment makes nothing a partition.
    archive.sql(
        "CREATE ROLE stranger; CREATE TABLE forged (LIKE audit_logs); ALTER TABLE forged OWNER TO stranger; \
         COMMENT ON TABLE forged IS 'opsctl archive-audit: {\"detached_from\":\"public.audit_logs\",\
         \"bounds\":{\"from\":\"2023-03-01\",\"to\":\"2023-04-01\"},\"comment\":null,\"note\":\"\"}'",
    );
    later(&archive, 3, &[]);
    assert_eq!(partitions(&archive), "hot march");
    archive.sql("DROP OWNED BY stranger; DROP ROLE stranger");
}

#[test]
fn a_run_that_is_told_to_stop_takes_back_what_it_had_taken_out() {
    let archive = archived("");
    let onlooker = gate(&archive);
    let running = Running::spawn(&mut command(&archive, 8, &[]));
    let pending = "SELECT count(*) FROM pg_inherits WHERE inhdetachpending";
    eventually("that it waits", || (archive.sql(pending) == "1").then_some(()));
    running.signal(Signal::TERM);
    onlooker.end();
    let run = running.end();
    assert_eq!(run.status, 143, "{run:#?}");
    assert_eq!((partitions(&archive), count(&archive)), ("april hot march".into(), "81".into()));
}

#[test]
fn where_partitions_cannot_go_it_is_said() {
    let archive = archived("");
    let refused = |says: &str| {
        let report = later(&archive, 10, &[]);
        assert!(report["error"].as_str().unwrap().contains(says), "{says}: {report:#}");
        assert_eq!(count(&archive), "81");
    };
    archive.sql("CREATE TABLE rest PARTITION OF audit_logs DEFAULT");
    refused("a default partition");
    archive.sql("DROP TABLE rest; CREATE TABLE notes (id bigint, at timestamptz, FOREIGN KEY (id, at) REFERENCES audit_logs)");
    refused("rows of public.notes refer to it");
    archive.sql("DROP TABLE notes");
    let archive = Archive::new(
        "CREATE TABLE audit_logs (id bigint PRIMARY KEY, at timestamptz) PARTITION BY RANGE (id)",
    );
    archive.configure("delete = \"after-verify\"\npartitions = \"drop\"\n");
    let report = later(&archive, 10, &[]);
    assert!(report["error"].as_str().unwrap().contains("by ranges of `at` alone"), "{report:#}");
}
