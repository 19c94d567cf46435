//! Rows leave the table only if they are as they were archived, and whatever stands before that is said.

use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::Run;
use crate::support::archive::Archive;
use crate::support::running::{Running, by_another_clock, eventually, on_a_terminal};

/// Two months of rows, 40 each, and one that is hot.
const ROWS: &str = "
    CREATE TABLE audit_logs (id bigserial PRIMARY KEY, at timestamptz NOT NULL, who text, net inet, amount numeric);
    INSERT INTO audit_logs (at, who, net, amount)
        SELECT date '2024-03-05' + (n / 40) * interval '1 month' + (n % 40) * interval '10 hours', E'user\\t' || n, '192.0.2.1', n / 7.0
        FROM generate_series(0, 79) n;
    INSERT INTO audit_logs (at, who) VALUES (now(), 'hot')";

const MARCH: &str = "2024/2024-03-01_2024-03-31";
const APRIL: &str = "2024/2024-04-01_2024-04-30";

/// Runs opsctl so many days from now; returns what the report says of each table.
#[track_caller]
fn later(archive: &Archive, days: u32, status: i32, args: &[&str]) -> Vec<Value> {
    let command = archive.sandbox.command(&[&["archive-audit", "--json"], args].concat());
    let mut command = by_another_clock(&command, &format!("+{days}d"));
    // Files are as old as they are.
    let run = Run::of(command.env("NO_FAKE_STAT", "1")).expect(status);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    report["databases"][0]["tables"].as_array().cloned().unwrap_or_else(|| vec![report.clone()])
}

fn count(archive: &Archive) -> String {
    archive.sql("SELECT count(*) FROM audit_logs")
}

#[test]
fn by_hand_the_rows_of_a_segment_go_after_a_week_and_those_that_changed_stay() {
    let archive = Archive::new(ROWS);
    archive.json(0, &[]);
    let tables = later(&archive, 6, 1, &["delete", MARCH, "--yes", MARCH]);
    assert!(
        tables[0]["segments"][0]["stays"]["why"].as_str().unwrap().contains("are needed"),
        "{tables:#?}"
    );
    // Nobody is there to be asked, there is no such segment, and another name is typed.
    archive.sandbox.run(&["archive-audit", "delete", MARCH]).ends_with(2);
    archive.sandbox.run(&["archive-audit", "delete", "2024/x", "--yes", "2024/x"]).ends_with(2);
    assert_eq!(count(&archive), "81");
    archive.sql(
        "UPDATE audit_logs SET amount = amount + 1 WHERE id = 7; UPDATE audit_logs SET at = at + interval '1 month' WHERE id = 8; \
         INSERT INTO audit_logs (at, who) VALUES ('2024-03-09', 'late'); ALTER TABLE audit_logs ADD note text; \
         UPDATE audit_logs SET note = 'x' WHERE id = 9",
    );
    let plan = later(&archive, 8, 3, &["delete", MARCH, "--dry-run"]);
    assert_eq!(count(&archive), "82");
    let tables = later(&archive, 8, 3, &["delete", MARCH, "--yes", MARCH]);
    assert_eq!(
        (&plan[1]["deleted"], &tables[1]["deleted"]),
        (&37.into(), &37.into()),
        "{tables:#?}"
    );
    let rows = &tables[1]["segments"][0]["rows"];
    assert_eq!(
        (&rows["differ"], &rows["absent"], &rows["locked"]),
        (&3.into(), &0.into(), &0.into())
    );
    let named = tables[1]["findings"].to_string();
    assert!(["id 7 ", "id 8 ", "id 9 "].iter().all(|id| named.contains(id)), "{named}");
    // What came late was archived first, and is not a week old.
    assert_eq!((&tables[0]["rows"], &tables[0]["segments"][0]["late"]), (&1.into(), &true.into()));
    assert_eq!(archive.sql("SELECT count(*) FROM audit_logs WHERE who = 'late'"), "1");
    assert_eq!(count(&archive), "45");
    archive.is_well();
    // The rest of the month goes when it is as it was.
    archive.sql("UPDATE audit_logs SET amount = amount - 1 WHERE id = 7");
    let tables = later(&archive, 8, 3, &["delete", MARCH, "--yes", MARCH]);
    assert_eq!(
        (&tables[0]["deleted"], &tables[0]["segments"][0]["rows"]["absent"]),
        (&1.into(), &37.into())
    );
}

#[test]
fn the_name_of_the_segment_is_typed() {
    let archive = Archive::new(ROWS);
    archive.configure("retention = \"hipaa\"\n");
    archive.json(0, &[]);
    let command = archive.sandbox.command(&["archive-audit", "delete", APRIL]);
    let script = |typed: &str, status: i32| {
        let mut command = on_a_terminal(&command);
        let typed = archive.sandbox.write("typed", &format!("{typed}\n"));
        Run::of(command.stdin(std::fs::File::open(typed).unwrap())).expect(status)
    };
    let run = script("yes", 1);
    assert!(run.stdout.contains("45 CFR 164.316"), "{run:#?}");
    assert!(run.stdout.contains("is not the name of the segment"), "{run:#?}");
    // It is typed, and not a week old.
    let run = script(APRIL, 1);
    assert!(run.stdout.contains("are needed"), "{run:#?}");
    assert_eq!(count(&archive), "81");
}

#[test]
fn runs_delete_where_the_configuration_says_so_and_hold_still_under_a_hold() {
    let archive = Archive::new(ROWS);
    let keys = "delete = \"after-verify\"\nretention = \"pci-dss\"\n";
    archive.configure(keys);
    archive.json(0, &[]);
    assert_eq!(count(&archive), "81");
    let hold = |status: i32, args: &[&str]| archive.json(status, &[&["hold"], args].concat());
    hold(0, &["add", "case-17", "--why", "x v. y", "--from", "2024-04-10", "--to", "2024-04-11"]);
    archive.sandbox.run(&["archive-audit", "hold", "add", "case-17", "--why", "z"]).ends_with(1);
    let tables = later(&archive, 8, 0, &[]);
    let segments = tables[1]["segments"].as_array().unwrap();
    assert_eq!(
        (&segments[0]["segment"], &segments[0]["rows"]["deleted"]),
        (&MARCH.into(), &40.into())
    );
    assert!(segments[0]["kept"]["source"].as_str().unwrap().contains("PCI DSS v4.0"));
    assert!(segments[1]["stays"]["why"].as_str().unwrap().contains("case-17"), "{tables:#?}");
    assert_eq!(count(&archive), "41");
    hold(0, &["remove", "case-17", "--why", "settled"]);
    let list = hold(0, &["list"]);
    assert_eq!(list["records"].as_array().unwrap().len(), 2, "{list:#}");
    assert_eq!(list["in_force"].as_array().unwrap().len(), 0, "{list:#}");
    later(&archive, 8, 0, &[]);
    assert_eq!(count(&archive), "1");
    archive.is_well();
    // An archive whose holds were tampered with deletes nothing.
    archive.sql("INSERT INTO audit_logs (at) VALUES ('2024-04-02')");
    later(&archive, 8, 0, &[]);
    std::fs::remove_file(archive.segment("holds/000001.json")).unwrap();
    let command = archive.sandbox.command(&["archive-audit"]);
    let run = Run::of(&mut by_another_clock(&command, "+20d"));
    assert!(run.status == 1 && run.stderr.contains("one is missing"), "{run:#?}");
    assert_eq!(count(&archive), "2");
}

#[test]
fn what_its_owner_protects_is_not_touched_and_the_ways_are_named() {
    let archive = Archive::new(ROWS);
    archive.json(0, &[]);
    let refused = |says: &str| {
        let tables = later(&archive, 8, 10, &["delete", MARCH, "--yes", MARCH]);
        assert!(tables[0]["error"].as_str().unwrap().contains(says), "{says}: {tables:#?}");
        assert_eq!(count(&archive), "81");
    };
    archive.sql(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$; \
         CREATE TRIGGER watch BEFORE UPDATE OR DELETE ON audit_logs FOR EACH ROW EXECUTE FUNCTION no()",
    );
    refused("protected by a trigger (watch on public.audit_logs)");
    archive.sql("ALTER TABLE audit_logs DISABLE TRIGGER watch; CREATE RULE r AS ON DELETE TO audit_logs DO ALSO NOTHING");
    refused("a rule acts on DELETE: r on public.audit_logs");
    archive.sql("DROP RULE r ON audit_logs; CREATE TABLE notes (of bigint REFERENCES audit_logs ON DELETE CASCADE)");
    refused("rows of public.notes would go");
    archive.sql("DROP TABLE notes; CREATE TABLE more () INHERITS (audit_logs)");
    refused("other tables inherit from it");
    archive.sql("DROP TABLE more");
    archive.forge(MARCH, |lines| lines[16] = lines[16].replace("user", "User"), false);
    later(&archive, 8, 3, &["delete", MARCH, "--yes", MARCH]);
    assert_eq!(count(&archive), "81");
    // The trigger is disabled: that is said, and the rows go.
    let archive = Archive::new(ROWS);
    archive.json(0, &[]);
    archive.sql(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$; \
         CREATE TRIGGER watch BEFORE UPDATE OR DELETE ON audit_logs FOR EACH ROW EXECUTE FUNCTION no(); \
         ALTER TABLE audit_logs DISABLE TRIGGER watch",
    );
    let tables = later(&archive, 8, 0, &["delete", MARCH, "--yes", MARCH]);
    assert!(
        tables[0]["warning"].as_str().unwrap().contains("watch on public.audit_logs"),
        "{tables:#?}"
    );
    assert_eq!(count(&archive), "41");
}

#[test]
fn a_role_that_may_not_delete_is_told_what_it_lacks() {
    let archive = Archive::new(ROWS);
    archive.json(0, &[]);
    let role = format!("keeper_{}", archive.database);
    archive.sql(&format!("CREATE ROLE {role} LOGIN; GRANT SELECT, UPDATE ON audit_logs TO {role}"));
    let url = archive.url();
    let url = url.replacen("postgres@", &format!("{role}@"), 1);
    let url = url.replacen("user=postgres", &format!("user={role}"), 1);
    let mut command = archive.sandbox.command(&["archive-audit", "delete", MARCH, "--yes", MARCH]);
    command.env("DATABASE_URL", &url).env("PGUSER", &role);
    let run = Run::of(&mut by_another_clock(&command, "+8d")).expect(10);
    assert!(run.stdout.contains("this role lacks DELETE"), "{run:#?}");
    assert_eq!(count(&archive), "81");
    archive.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn rows_that_somebody_has_locked_stay_and_nobody_waits() {
    let archive = Archive::new(ROWS);
    archive.json(0, &[]);
    let mut psql = Command::new("psql");
    psql.args([
        "-qAtX",
        &archive.url(),
        "-c",
        "BEGIN",
        "-c",
        "SELECT 'locked' FROM audit_logs WHERE id < 5 FOR UPDATE",
    ]);
    psql.args(["-c", "SELECT pg_sleep(600)"]);
    let mut locker = psql.stdout(std::process::Stdio::null()).spawn().unwrap();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep(600)' AND pid <> pg_backend_pid()";
    eventually("the lock", || (archive.sql(waits) == "1").then_some(()));
    let tables = later(&archive, 8, 0, &["delete", MARCH, "--yes", MARCH]);
    let rows = &tables[0]["segments"][0]["rows"];
    assert_eq!(
        (&rows["deleted"], &rows["locked"], &rows["absent"]),
        (&36.into(), &4.into(), &0.into())
    );
    archive.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)' AND datname = current_database() AND pid <> pg_backend_pid()");
    locker.wait().unwrap();
    later(&archive, 8, 0, &["delete", MARCH, "--yes", MARCH]);
    assert_eq!(count(&archive), "41");
}

#[test]
fn killed_at_any_moment_and_disturbed_by_others_no_row_is_in_neither_place() {
    let archive = Archive::new(
        "CREATE TABLE audit_logs (id serial PRIMARY KEY, at timestamptz, n int DEFAULT 0, who text); \
         INSERT INTO audit_logs (at, who) SELECT timestamptz '2024-03-02' + n * interval '1 minute', md5(n::text) FROM generate_series(1, 30000) n",
    );
    archive.configure("delete = \"after-verify\"\n");
    archive.json(0, &[]);
    // Somebody changes rows all the time, and writes down which: in the same transaction.
    archive.sql("CREATE TABLE changed (id int, n int)");
    let change = "WITH c AS (UPDATE audit_logs SET n = n + 1 WHERE id IN (SELECT (random() * 30000)::int FROM generate_series(1, 5)) RETURNING id, n) \
                  INSERT INTO changed SELECT * FROM c";
    let script = archive.sandbox.write("change.sql", &format!("{change};\n").repeat(4000));
    let mut psql = Command::new("psql");
    let mut other = psql.args(["-qX", "-f"]).arg(script).arg(archive.url()).spawn().unwrap();
    let left = || archive.sql("SELECT count(*) FROM audit_logs").parse::<u32>().unwrap();
    for round in 0..6 {
        let command = archive.sandbox.command(&["archive-audit"]);
        let before = left();
        let running = Running::spawn(by_another_clock(&command, "+8d").env("NO_FAKE_STAT", "1"));
        eventually("deletions", || {
            (left() + round * 700 < before || running.is_over()).then_some(())
        });
        running.signal(Signal::KILL);
        let _run = running.end();
    }
    other.kill().ok();
    other.wait().unwrap();
    eventually("its end", || {
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'";
        (archive.sql(busy) == "0").then_some(())
    });
    let run = archive.sandbox.command(&["archive-audit"]);
    let run = Run::of(by_another_clock(&run, "+8d").env("NO_FAKE_STAT", "1"));
    assert!(run.status == 0 || run.status == 3, "{run:#?}");
    let archived = archive.lines(MARCH);
    let lines: Vec<Value> =
        archived.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["n"] == "0") && !lines.is_empty());
    // Every row that was changed is in the table, as it was changed last, and no other is.
    let sql = "SELECT count(*) FROM (SELECT id, max(n) AS n FROM changed GROUP BY id) c FULL JOIN audit_logs a USING (id, n) WHERE c.id IS NULL OR a.id IS NULL";
    assert_eq!(archive.sql(sql), "0");
    assert!(archive.sql("SELECT count(*) FROM changed") != "0");
}

#[test]
fn a_server_that_is_restarted_in_the_middle_costs_a_run_and_no_row() {
    let (archive, cluster) = Archive::alone(
        "CREATE TABLE audit_logs (id serial PRIMARY KEY, at timestamptz, who text); \
         INSERT INTO audit_logs (at, who) SELECT timestamptz '2024-03-02' + n * interval '1 second', repeat('x', 200) FROM generate_series(1, 300000) n",
    );
    archive.configure("delete = \"after-verify\"\nparquet = false\n");
    // While rows are read, and while they are deleted.
    let reads = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY (SELECT \"id\", \"at\"%' AND state = 'active'";
    let running = Running::start(&archive.sandbox, &["archive-audit"]);
    eventually("rows that are read", || (archive.sql(reads) == "1").then_some(()));
    cluster.pg_ctl(&["stop", "-m", "immediate"]);
    let run = running.end();
    assert_eq!(run.status, 12, "{run:#?}");
    cluster.start_again();
    assert_eq!(count(&archive), "300000");
    archive.sandbox.run(&["archive-audit"]).ends_with(0);
    archive.is_well();
    let command = archive.sandbox.command(&["archive-audit"]);
    let running = Running::spawn(by_another_clock(&command, "+8d").env("NO_FAKE_STAT", "1"));
    let left = || count(&archive).parse::<u32>().unwrap();
    eventually("deletions", || (left() < 299_000).then_some(()));
    cluster.pg_ctl(&["stop", "-m", "immediate"]);
    let run = running.end();
    assert_eq!(run.status, 12, "{run:#?}");
    cluster.start_again();
    assert!((1..299_000).contains(&left()), "{} rows", left());
    let tables = later(&archive, 8, 0, &[]);
    assert_eq!((count(&archive), &tables[1]["findings"]), ("0".into(), &serde_json::json!([])));
    archive.is_well();
    let restored = archive.json(0, &["restore", MARCH, "--to", "back"]);
    assert_eq!(archive.sql("SELECT count(DISTINCT id) FROM back"), "300000", "{restored:#}");
}
