//! The copies for questions: other programs read from them what PostgreSQL has, and none of them has a row that no segment has.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::archive::Archive;
use crate::support::running::{Running, eventually};
use crate::support::s3::S3;
use crate::support::{Run, python, stock};

/// Returns the directory of the other programs, installing them first if need be.
fn readers() -> &'static Path {
    static READERS: OnceLock<PathBuf> = OnceLock::new();
    READERS.get_or_init(|| python("readers"))
}

/// Reads the Parquet files of an archive with other programs.
fn read(archive: &Archive, readers_wanted: &str, columns: &[&str]) -> Value {
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/archive/read_parquet.py");
    let mut command = Command::new("python3");
    command.arg(script).arg(archive.folder().join("parquet")).arg(readers_wanted).args(columns);
    command.env("PYTHONPATH", readers()).env("PYTHONDONTWRITEBYTECODE", "1").env("TZ", "UTC");
    let text = stock(command.current_dir(archive.sandbox.dir.path()).stdin(Stdio::null()));
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// The columns of the table, their types, how to make the n-th value, and what a program is to come to for a value.
const COLUMNS: &[(&str, &str, &str, &str)] = &[
    ("flag", "boolean", "n % 3 = 0", "flag::int"),
    ("small", "smallint", "n % 65536 - 32768", "small"),
    ("whole", "integer", "n * 12345 - 2000000000", "whole"),
    ("big", "bigint", "9223372036854775807 - n", "big"),
    ("kind", "oid", "(4294967295 - n)::oid", "kind::bigint"),
    ("price", "numeric(9,2)", "(n - 50) / 100.0", "price"),
    ("amount", "numeric(18,4)", "(n - 50) * 99999999.1234", "amount"),
    ("huge", "numeric(38,10)", "(n - 50) * 1234567890123456789012345.0123456789", "huge"),
    ("beyond", "numeric", "n * 1e50 + 0.5", "length(beyond::text)"),
    ("ratio", "double precision", "n / 8.0", "ratio::numeric"),
    ("share", "real", "n / 4.0", "share::numeric"),
    ("day", "date", "date '1582-10-20' + n * 2000", "day - date '1970-01-01'"),
    (
        "local",
        "timestamp",
        "timestamp '1950-01-01 00:00:00.000001' + n * interval '777 days 5 hours'",
        "(extract(epoch FROM local) * 1000000)::numeric",
    ),
    ("clock", "time", "time '00:00:00.5' + n * interval '7 minutes'", "length(clock::text)"),
    ("raw", "bytea", "decode(repeat('00ff', n % 7), 'hex')", "length(raw)"),
    ("text", "text", "repeat(E'ä\\n\"\\\\\\t', n % 5)", "length(text)"),
    ("doc", "jsonb", "jsonb_build_object('n', n, 'list', array[n, 2.50])", "length(doc::text)"),
    ("id2", "uuid", "md5(n::text)::uuid", "length(id2::text)"),
    ("ip", "inet", "inet '10.0.0.0/8' + n", "length(ip::text)"),
    ("span", "interval", "n * interval '1 mon 2 days 03:04:05.6'", "length(span::text)"),
    ("list", "int[]", "array[n, NULL, -n]", "length(list::text)"),
    ("part", "int4range", "int4range(n, n + 5)", "length(part::text)"),
    ("mood", "mood", "(array['sad', 'ok'])[n % 2 + 1]::mood", "length(mood::text)"),
    ("odd \"name\".x", "text", "'x'", "1"),
];

fn table_of_all_types() -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let columns: Vec<_> =
        COLUMNS.iter().map(|(name, of, ..)| format!("{} {of}", quoted(name))).collect();
    let values: Vec<_> = COLUMNS
        .iter()
        .enumerate()
        .map(|(k, (.., value, _))| format!("CASE WHEN n % 11 <> {k} % 11 THEN {value} END"))
        .collect();
    format!(
        "CREATE TYPE mood AS ENUM ('sad', 'ok');
         CREATE TABLE audit_logs (id int PRIMARY KEY, at timestamptz NOT NULL, {});
         INSERT INTO audit_logs SELECT n, timestamptz '2024-03-01 00:00Z' + n * interval '20 hours 1.000001 seconds', {}
         FROM generate_series(1, 100) n",
        columns.join(", "),
        values.join(", ")
    )
}

#[test]
fn duckdb_pyarrow_and_spark_read_what_postgresql_has() {
    let archive = Archive::new(&table_of_all_types());
    let table = archive.json(0, &[]);
    assert_eq!((&table["rows"], &table["parquet"]), (&100.into(), &3.into()), "{table:#}");
    archive.is_well();
    let mut names = vec!["id", "at"];
    names.extend(COLUMNS.iter().map(|(name, ..)| *name));
    let mut sums = vec![
        ("id", "id".to_owned()),
        ("at", "(extract(epoch FROM at) * 1000000)::numeric".to_owned()),
    ];
    sums.extend(COLUMNS.iter().map(|(name, .., sum)| (*name, (*sum).to_owned())));
    let found = read(&archive, "duckdb,pyarrow,spark", &names);
    let settings = "SET timezone = 'UTC'; SET intervalstyle = iso_8601; ";
    for (name, sum) in sums {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        let expected = archive.sql(&format!(
            "{settings} SELECT count({quoted}), trim_scale(coalesce(sum(CASE WHEN {quoted} IS NOT NULL THEN {sum} END), 0)::numeric) FROM audit_logs"
        ));
        let expected = expected.lines().last().unwrap().to_owned();
        for reader in ["duckdb", "pyarrow", "spark"] {
            assert_eq!(found[reader]["rows"], 100, "{reader}: {found:#}");
            let [count, sum] =
                [0, 1].map(|n| found[reader]["sums"][name][n].to_string().replace('"', ""));
            let plain = archive.sql(&format!("SELECT trim_scale('{sum}'::numeric)"));
            assert_eq!(format!("{count}|{plain}"), expected, "{reader}: {name}");
        }
    }
}

#[test]
fn a_value_that_fits_no_type_makes_its_column_text() {
    let archive = Archive::new(
        "CREATE TABLE audit_logs (id int PRIMARY KEY, at timestamptz, until timestamptz, n numeric(5,2));
         INSERT INTO audit_logs VALUES (1, '2024-03-05', '2024-03-06', 1), (2, '2024-03-07', 'infinity', 'NaN'), (3, '2024-03-08', NULL, 2)",
    );
    archive.json(0, &[]);
    archive.is_well();
    let record = archive.segment("2024/2024-03-01_2024-03-31/parquet.json");
    let record: Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    let types: Vec<&str> =
        record["columns"].as_array().unwrap().iter().map(|c| c["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["int32", "timestamp(us, UTC)", "text", "text"]);
    let found = read(&archive, "duckdb,pyarrow", &["until", "n"]);
    let lengths = archive.sql(
        "SET timezone = 'UTC'; SELECT sum(length(until::text)), sum(length(n::text)) FROM audit_logs",
    );
    let lengths = lengths.lines().last().unwrap();
    for reader in ["duckdb", "pyarrow"] {
        let sums = &found[reader]["sums"];
        assert_eq!((&sums["until"][0], &sums["n"][0]), (&2.into(), &3.into()));
        let [until, n] =
            ["until", "n"].map(|name| sums[name][1].as_str().unwrap().parse::<f64>().unwrap());
        assert_eq!(format!("{until}|{n}"), lengths, "{reader}: {found:#}");
    }
}

const ROWS: &str = "
    CREATE TABLE audit_logs (id int PRIMARY KEY, at timestamptz NOT NULL, who text);
    INSERT INTO audit_logs SELECT n, timestamptz '2024-03-01 00:00Z' + n * interval '12 hours', repeat(md5(n::text), 20) FROM generate_series(1, 150) n";

#[test]
fn copies_that_are_missing_are_made_by_the_next_run() {
    let archive = Archive::new(ROWS);
    archive.configure("parquet = false\n");
    let table = archive.json(0, &[]);
    assert_eq!(table["parquet"], 0, "{table:#}");
    assert!(!archive.folder().join("parquet").exists());
    archive.configure("");
    assert_eq!(archive.json(0, &["--dry-run"])["parquet"], 3);
    assert!(!archive.folder().join("parquet").exists());
    assert_eq!(archive.json(0, &[])["parquet"], 3);
    assert_eq!(archive.json(0, &[])["parquet"], 0);
    archive.is_well();
    assert_eq!(read(&archive, "duckdb", &["id"])["duckdb"]["rows"], 150);
}

/// Puts a question, with Python's `DuckDB`.
fn ask(archive: &Archive, args: &[&str]) -> Run {
    let mut command = archive.sandbox.command(&[&["archive-audit", "query"], args].concat());
    Run::of(command.env("PYTHONPATH", readers()))
}

#[test]
fn a_question_is_answered_by_duckdb() {
    let mut archive = Archive::new(ROWS);
    archive.json(0, &[]);
    let months = "SELECT archive_month, count(*) AS n, min(id) AS first FROM audit_logs GROUP BY ALL ORDER BY 1;";
    let expected = "archive_month,n,first\n2024-03,61,1\n2024-04,60,62\n2024-05,29,122\n";
    assert_eq!(ask(&archive, &[months]).expect(0).stdout, expected);
    let april = ask(
        &archive,
        &["--from", "2024-04-01T00:00:00Z", "--to", "2024-05-01T00:00:00Z", "--json", months],
    );
    let april: Value = serde_json::from_str(&april.expect(0).stdout).unwrap();
    let rows = &april["databases"][0]["tables"][0]["rows"];
    assert_eq!(rows.as_array().unwrap().len(), 1, "{april:#}");
    assert_eq!((&rows[0]["archive_month"], &rows[0]["n"]), (&"2024-04".into(), &60.into()));
    let wrong = ask(&archive, &["SELECT nothing FROM audit_logs"]).expect(1);
    assert!(wrong.stderr.contains("nothing"), "{wrong:#?}");
    let mut command = archive.sandbox.command(&["archive-audit", "query", months]);
    let without = Run::of(command.env("PATH", "/nowhere")).expect(1);
    assert!(without.stderr.contains("there is no DuckDB"), "{without:#?}");
    // In a bucket they are the same.
    let s3 = S3::shared();
    let bucket = s3.bucket();
    s3.set_up(&mut archive.sandbox);
    archive.set_location(&format!("s3://{bucket}/audit"));
    archive.configure("");
    archive.json(0, &[]);
    assert_eq!(ask(&archive, &[months]).expect(0).stdout, expected);
}

#[test]
fn what_is_printed_for_spark_is_taken_by_it() {
    let archive = Archive::new(ROWS);
    archive.json(0, &[]);
    let printed = ask(&archive, &["--for", "spark"]).expect(0).stdout;
    let script = "import sys; from pyspark.sql import SparkSession; \
        s = SparkSession.builder.master('local[1]').config('spark.ui.enabled', 'false').config('spark.driver.host', '127.0.0.1').getOrCreate(); \
        s.sql(sys.argv[1].strip().rstrip(';')); print(s.sql('SELECT count(*), sum(id) FROM audit_logs').collect()[0])";
    let mut spark = Command::new("python3");
    spark.args(["-c", script, &printed]).env("PYTHONPATH", readers()).env("TZ", "UTC");
    let said = stock(spark.current_dir(archive.sandbox.dir.path()).stdin(Stdio::null()));
    assert!(said.contains("count(1)=150, sum(id)=11325"), "{said}");
}

/// What is done, and of which segment it is a finding.
type Tampering<'t> = (&'t str, &'t dyn Fn(&Path), &'t str);

#[test]
fn whatever_is_done_to_a_copy_is_named_and_no_evidence_is_concerned() {
    let archive = Archive::new(ROWS);
    archive.json(0, &[]);
    let good = archive.content();
    let (april, file) = (
        "2024/2024-04-01_2024-04-30",
        "parquet/archive_month=2024-04/2024-04-01_2024-04-30.000001.parquet",
    );
    let stray = "parquet/archive_month=2024-04/forged.parquet";
    let tamperings: [Tampering<'_>; 5] = [
        ("gone", &|folder| std::fs::remove_file(folder.join(file)).unwrap(), april),
        (
            "another byte",
            &|folder| {
                let mut bytes = std::fs::read(folder.join(file)).unwrap();
                bytes[100] ^= 1;
                std::fs::write(folder.join(file), bytes).unwrap();
            },
            april,
        ),
        (
            "a record changed",
            &|folder| {
                let path = folder.join(april).join("parquet.json");
                let text = std::fs::read_to_string(&path).unwrap().replace("int32", "int64");
                std::fs::write(path, text).unwrap();
            },
            april,
        ),
        (
            "the record of another segment",
            &|folder| {
                for name in ["parquet.json", "parquet.json.sig"] {
                    let from = folder.join("2024/2024-03-01_2024-03-31").join(name);
                    std::fs::copy(from, folder.join(april).join(name)).unwrap();
                }
            },
            april,
        ),
        (
            "one too many",
            &|folder| {
                std::fs::copy(folder.join(file), folder.join(stray)).unwrap();
            },
            stray,
        ),
    ];
    for (what, tamper, segment) in tamperings {
        archive.put_back(&good);
        tamper(&archive.folder());
        let table = archive.json(3, &["verify"]);
        let is_it = |f: &Value| f["segment"] == segment && f["kind"] == "copy";
        assert!(table["findings"].as_array().unwrap().iter().any(is_it), "{what}: {table:#}");
        // The evidence is not concerned, and nothing is held up.
        assert_eq!(archive.reference(&[]).0, 0, "{what}");
        archive.json(0, &["--dry-run"]);
    }
}

#[test]
fn killed_at_any_moment_no_row_is_twice_among_the_copies() {
    let archive = Archive::new(ROWS);
    archive.sql("INSERT INTO audit_logs SELECT id + n * 1000, at, who FROM audit_logs, generate_series(1, 100) n");
    let rows = archive.sql("SELECT count(*) FROM audit_logs");
    for round in 0..12 {
        let running = Running::start(&archive.sandbox, &["archive-audit"]);
        // Killed after so many objects more: before, among and after those of the copies.
        let n = archive.content().len() + 3 + round % 7;
        eventually("objects", || (archive.content().len() >= n || running.is_over()).then_some(()));
        running.signal(Signal::KILL);
        let _run = running.end();
        let is_copy = |path: &PathBuf| path.extension().is_some_and(|end| end == "parquet");
        if archive.content().keys().any(is_copy) {
            let found = &read(&archive, "duckdb", &["id"])["duckdb"];
            assert_eq!(found["rows"], found["distinct"], "round {round}: {found:#}");
        }
    }
    archive.json(0, &[]);
    archive.is_well();
    assert_eq!(read(&archive, "duckdb", &["id"])["duckdb"]["rows"].to_string(), rows);
}

#[test]
fn what_a_killed_run_left_of_a_parquet_file_is_no_finding() {
    let archive = Archive::new(ROWS);
    archive.json(0, &[]);
    let name = "parquet/archive_month=2024-03/.2024-03-01_2024-03-31.000001.parquet.becaa93f.tmp";
    std::fs::write(archive.folder().join(name), "half").unwrap();
    archive.is_well();
    let list = archive.json(0, &["list"]);
    assert_eq!(list["unfinished"], serde_json::json!([name]), "{list:#}");
}
