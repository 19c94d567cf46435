//! `archive-audit restore` and `export`: archived rows go back into a table, or to somebody who may see some of them.

use crate::support::archive::Archive;

const MARCH: &str = "2024/2024-03-01_2024-03-31";
const APRIL: &str = "2024/2024-04-01_2024-04-30";
const ROWS: &str = "
    CREATE TABLE audit_logs (id int PRIMARY KEY, at timestamptz NOT NULL, who text, what jsonb);
    INSERT INTO audit_logs SELECT n, '2024-03-15 00:00+00'::timestamptz + n * interval '1 day', nullif('user ' || n % 4, 'user 3'),
        jsonb_build_object('n', n, 'text', E'a,\\tb\\n\"\\\\ä') FROM generate_series(0, 39) n";

fn archived(sql: &str) -> Archive {
    let archive = Archive::new(sql);
    archive.json(0, &[]);
    archive
}

/// Rows that are only in one of two tables.
fn differences(archive: &Archive, one: &str, other: &str) -> String {
    archive.sql(&format!(
        "SELECT count(*) FROM (SELECT t::text FROM {one} t) a FULL JOIN (SELECT t::text FROM {other} t) b USING (t) WHERE a IS NULL OR b IS NULL"
    ))
}

#[test]
fn segments_go_back_into_a_table_and_are_what_they_were() {
    let archive = archived(ROWS);
    let run = archive
        .sandbox
        .run(&["archive-audit", "restore", APRIL, MARCH, "--to", "public.again"])
        .expect(0);
    assert!(run.stdout.contains("40 rows are in public.again of"), "{run:#?}");
    assert_eq!(differences(&archive, "audit_logs", "again"), "0");
    // Into one that is there, with the columns in another order.
    archive.sql("CREATE TABLE other (who text, what jsonb, at timestamptz CHECK (at > '2000-01-01'), id int PRIMARY KEY)");
    archive.sandbox.run(&["archive-audit", "restore", MARCH, "--to", "other"]).ends_with(0);
    assert_eq!(archive.sql("SELECT count(*), min(id), max(id) FROM other"), "17|0|16");
    assert_eq!(
        differences(
            &archive,
            "(SELECT id, at, who, what FROM other)",
            "(SELECT * FROM audit_logs WHERE at < '2024-04-01 00:00+00')"
        ),
        "0"
    );
    // And into another database.
    let elsewhere = format!("{}_elsewhere", archive.database);
    archive.sql(&format!("CREATE DATABASE {elsewhere} TEMPLATE template0"));
    archive
        .sandbox
        .run(&["archive-audit", "restore", MARCH, "--to", "again", "--to-database", &elsewhere])
        .ends_with(0);
}

#[test]
fn a_dry_run_changes_nothing_and_is_refused_where_there_is_none() {
    let archive = archived(ROWS);
    let before = archive.content();
    let run =
        |args: &[&str]| archive.sandbox.run(&[&["archive-audit"], args, &["--dry-run"]].concat());
    let restored = run(&["restore", MARCH, "--to", "again"]).expect(0);
    assert!(restored.stdout.contains("17 rows would be in again of"), "{restored:#?}");
    assert_eq!(archive.sql("SELECT to_regclass('again') IS NULL"), "t");
    let file = archive.sandbox.path("rows");
    let out = file.to_str().unwrap();
    for args in [
        &["list"][..],
        &["verify", "--anchor", out],
        &["query"],
        &["prove", "7", "--out", out],
        &["export", "--out", out],
        &["hold", "add", "case", "--why", "a court asks"],
        &["hold", "remove", "case", "--why", "it is over"],
    ] {
        let refused = run(args).expect(2);
        assert!(refused.stderr.contains("knows no --dry-run"), "{refused:#?}");
    }
    assert!(!file.exists() && archive.content() == before);
}

#[test]
fn rows_and_the_report_do_not_go_to_one_place() {
    let archive = archived(ROWS);
    let run = archive.sandbox.run(&["archive-audit", "export", "--json"]).expect(2);
    assert!(run.stderr.contains("--out says where the rows go"), "{run:#?}");
    let file = archive.sandbox.path("rows");
    let exported = archive.json(0, &["export", "--out", file.to_str().unwrap()]);
    assert_eq!(exported["rows"], 40);
}

#[test]
fn a_table_that_cannot_take_the_rows_is_left_as_it_is() {
    let archive = archived(ROWS);
    let refused = |to: &str, status: i32, says: &str| {
        let run =
            archive.sandbox.run(&["archive-audit", "restore", MARCH, "--to", to]).expect(status);
        assert!(run.stderr.contains(says), "{run:#?}");
    };
    refused("audit_logs", 2, "audit_logs has rows");
    archive.sql("CREATE TABLE narrow (id int, at timestamptz, who text, what json); CREATE VIEW seen AS SELECT * FROM audit_logs");
    refused("narrow", 2, "has other columns or types");
    refused("seen", 2, "seen is no table");
    archive.sql(
        "CREATE TABLE changing (LIKE audit_logs); CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN NEW.who := 'somebody'; RETURN NEW; END $$; \
         CREATE TRIGGER change BEFORE INSERT ON changing FOR EACH ROW WHEN (NEW.id = 7) EXECUTE FUNCTION change()",
    );
    refused("changing", 3, "nothing is restored");
    archive.sql("CREATE TABLE checked (LIKE audit_logs); ALTER TABLE checked ADD CHECK (id < 5)");
    refused("checked", 1, "violates check constraint");
    // Of several archives none is meant.
    archive.configure(
        "[[audit]]\ntable = \"others\"\nlocation = \"archive\"\nsigning_key = \"key\"\ntime_column = \"at\"\n",
    );
    let configured = std::fs::read_to_string(archive.sandbox.path("opsctl.toml")).unwrap();
    let configured = configured.replacen("location", "time_column = \"at\"\nlocation", 1);
    archive.sandbox.write("opsctl.toml", &configured);
    refused("fresh", 2, "works with one archive, not with 2");
    archive.sandbox.run(&["archive-audit", "export"]).ends_with(2);
    archive.configure("");
    assert_eq!(
        archive.sql("SELECT (SELECT count(*) FROM changing) + (SELECT count(*) FROM checked)"),
        "0"
    );
    archive.sandbox.run(&["archive-audit", "restore", "2024/no-such", "--to", "x"]).ends_with(2);
    // Of a damaged segment nothing is restored or exported.
    let rows = archive.folder().join(MARCH).join("rows.ndjson.zst");
    let mut bytes = std::fs::read(&rows).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&rows, bytes).unwrap();
    refused("fresh", 3, "is not restored");
    assert_eq!(archive.sql("SELECT to_regclass('fresh') IS NULL"), "t");
    let run = archive.sandbox.run(&["archive-audit", "export"]).expect(3);
    assert_eq!(run.stdout, "");
    archive.sandbox.run(&["archive-audit", "export", "--out", "rows.csv"]).ends_with(3);
    assert!(!archive.sandbox.path("rows.csv").exists());
}

#[test]
fn rows_of_a_time_are_exported_without_what_is_redacted() {
    let archive = archived(ROWS);
    let export =
        |more: &[&str]| archive.sandbox.run(&[&["archive-audit", "export"], more].concat());
    let lines = export(&[]).expect(0).stdout;
    assert_eq!(lines, archive.lines(MARCH) + &archive.lines(APRIL));
    let time = ["--from", "2024-03-20T00:00:00Z", "--to", "2024-04-02T00:00:00Z"];
    let lines = export(&time).expect(0).stdout;
    assert_eq!(lines.lines().count(), 13);
    assert!(lines.starts_with(r#"{"id":"5","at":"2024-03-20 00:00:00+00","#), "{lines}");
    let lines = export(&["--redact", "who", "--redact", "what"]).expect(0).stdout;
    assert_eq!(lines.matches(r#""who":"[redacted]","what":"[redacted]"}"#).count(), 40, "{lines}");
    // A name that is not written right shows nothing.
    let run = export(&["--redact", "Who"]).expect(2);
    assert_eq!(run.stdout, "");

    let file = archive.sandbox.path("rows.csv");
    let run = export(&["--format", "csv", "--out", file.to_str().unwrap()]).expect(0);
    assert!(run.stdout.contains("40 rows of 20 segments are in"), "{run:#?}");
    archive.sql("CREATE TABLE copied (LIKE audit_logs)");
    archive.sql(&format!("\\copy copied FROM '{}' WITH (FORMAT csv, HEADER)", file.display()));
    assert_eq!(differences(&archive, "audit_logs", "copied"), "0");
}

/// As much as fits into one message of the protocol is far more than a line of most programs.
#[test]
fn a_value_of_a_hundred_megabytes_goes_there_and_back() {
    let archive = archived(
        "CREATE TABLE audit_logs (id int PRIMARY KEY, at timestamptz NOT NULL, what text, raw bytea); \
         INSERT INTO audit_logs VALUES (1, '2024-03-05', repeat(E'a\\n\"ä', 20971520), decode(repeat('00ff', 1048576), 'hex'))",
    );
    archive.is_well();
    archive.sandbox.run(&["archive-audit", "restore", MARCH, "--to", "again"]).ends_with(0);
    let digest = |table: &str| {
        archive.sql(&format!("SELECT md5(what), length(what), md5(raw) FROM {table}"))
    };
    assert_eq!(digest("again"), digest("audit_logs"));
    assert!(digest("again").contains("|83886080|"));
}
