//! `opsctl archive-audit`: old rows become evidence that stock tools and the reference verifier can check, and what is done to it
//! afterwards is named.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::archive::Archive;
use crate::support::receiver::Receiver;
use crate::support::running::{Running, by_another_clock, eventually};
use crate::support::s3::S3;
use crate::support::{Cluster, Run, stock};

/// Three months of rows, 40 each, and one that is hot.
const ROWS: &str = "
    CREATE TABLE audit_logs (id bigserial PRIMARY KEY, at timestamptz NOT NULL, who text, what jsonb);
    COMMENT ON TABLE audit_logs IS 'who did what';
    INSERT INTO audit_logs (at, who, what)
        SELECT date '2024-03-05' + (n / 40) * interval '1 month' + (n % 40) * interval '10 hours', 'user ' || n % 7,
               jsonb_build_object('n', n, 'text', E'a\\tb\\n\"\\\\ä')
        FROM generate_series(0, 119) n;
    INSERT INTO audit_logs (at, who) VALUES (now(), 'hot')";

#[test]
fn rows_that_are_old_enough_become_segments_once() {
    let archive = Archive::new(ROWS);
    let plan = archive.json(0, &["--dry-run"]);
    assert!(!archive.folder().exists(), "{plan:#}");
    let table = archive.json(0, &[]);
    assert_eq!(table["rows"], 120, "{table:#}");
    let segments = table["segments"].as_array().unwrap();
    assert_eq!(plan["segments"].as_array().unwrap().len(), segments.len());
    // Also a window without rows has a segment: that there were none is known.
    assert_eq!(segments[0]["segment"], "2024/2024-03-01_2024-03-31");
    assert_eq!((&segments[2]["rows"], &segments[3]["rows"]), (&40.into(), &0.into()));
    archive.is_well();
    let again = archive.json(0, &[]);
    assert_eq!(again["segments"].as_array().unwrap().len(), 0, "{again:#}");
    let list = archive.json(0, &["list"]);
    assert_eq!(list["segments"].as_array().unwrap().len(), segments.len(), "{list:#}");
    assert_eq!(archive.sql("SELECT count(*) FROM audit_logs"), "121");
}

#[test]
fn stock_tools_read_and_check_a_segment() {
    let archive = Archive::new(ROWS);
    archive.json(0, &[]);
    let folder = archive.folder().join("2024/2024-03-01_2024-03-31");
    let script = "zstd -dcq rows.ndjson.zst && \
        ssh-keygen -Y verify -f ../../allowed_signers -I opsctl -n opsctl-archive -s manifest.json.sig < manifest.json >&2 && \
        test \"$(sha256sum < rows.ndjson.zst | cut -d' ' -f1)\" = \"$(jq -r '.files[0].sha256' manifest.json)\"";
    let lines = stock(Command::new("sh").args(["-ec", script]).current_dir(&folder));
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 40);
    assert_eq!(rows[0]["at"], "2024-03-05 00:00:00+00");
    let first = archive.sql("SELECT what FROM audit_logs ORDER BY id LIMIT 1");
    assert_eq!(rows[0]["what"], first.as_str());
    assert!(archive.folder().join("HOWTO.md").exists());
}

#[test]
fn what_arrives_late_becomes_a_segment_of_its_own() {
    let archive = Archive::new(ROWS);
    archive.json(0, &[]);
    // One is gone and one has come: the number of rows is the same. And one is older than all.
    archive.sql(
        "DELETE FROM audit_logs WHERE id = 50; INSERT INTO audit_logs (at, who) VALUES ('2024-04-07', 'late'), ('2024-01-31', 'older')",
    );
    let table = archive.json(0, &[]);
    let names: Vec<_> = table["segments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["segment"].as_str().unwrap())
        .collect();
    let expected = [
        "2024/2024-02-01_2024-02-29",
        "2024/2024-01-01_2024-01-31",
        "2024/2024-04-01_2024-04-30.2",
    ];
    assert_eq!(names, expected, "{table:#}");
    assert_eq!((&table["rows"], &table["segments"][2]["late"]), (&2.into(), &true.into()));
    archive.is_well();
    let again = archive.json(0, &[]);
    assert_eq!(again["segments"].as_array().unwrap().len(), 0, "{again:#}");
}

#[test]
fn a_day_later_in_the_same_month_nothing_of_the_day_before_is_touched() {
    let archive = Archive::new(
        "CREATE TABLE audit_logs (id int PRIMARY KEY, at timestamp, who text); \
         INSERT INTO audit_logs SELECT n, now() AT TIME ZONE 'UTC' - n * interval '6 hours', 'x' FROM generate_series(0, 40) n",
    );
    archive.configure("hot_period = \"2d\"\nwindow = \"day\"\n");
    archive.json(0, &[]);
    let before = archive.content();
    let command = archive.sandbox.command(&["archive-audit", "--json"]);
    let run = Run::of(&mut by_another_clock(&command, "+1d")).expect(0);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    let segments = &report["databases"][0]["tables"][0]["segments"];
    assert_eq!(
        (segments.as_array().unwrap().len(), &segments[0]["rows"]),
        (1, &4.into()),
        "{report:#}"
    );
    let after = archive.content();
    assert!(before.iter().all(|(path, bytes)| after.get(path) == Some(bytes)));
    archive.is_well();
}

#[test]
fn every_type_is_archived_as_the_server_writes_it() {
    let values = "
        ('numeric', '-12345678901234567890123456789012345678901234567890.000100'), ('numeric', 'NaN'),
        ('timestamptz', 'infinity'), ('timestamptz', '0044-03-15 12:00:00+00 BC'), ('interval', '-1 year 2 mons -3 days 04:05:06.7'),
        ('bytea', '\\x00ff0a'), ('inet', '2001:db8::1/64'), ('int4range', '[1,5)'), ('text[]', '{a,NULL,\"b,\\\"c\\\\\\\\\"}'),
        ('jsonb', '{\"a\": [1, 2.50, \"\\\\u00e4\"]}'), ('float8', '0.1'), ('float8', '-Infinity'), ('money', '12.30'),
        ('bit varying', '1010'), ('point', '(1.5,-2)'), ('tsvector', '''a'':1 ''b'':2'), ('uuid', '00000000-0000-0000-0000-000000000001'),
        ('xml', '<a>ü</a>'), ('mood', 'sad'), ('posint', '7'), ('pair', '(1,\"x y\")'), ('text', E'\\b\\f\\n\\r\\t\\v\\\\N \\\\. \\\\000 \u{10ffff}')";
    let archive = Archive::new(&format!(
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN posint AS int CHECK (VALUE > 0); CREATE TYPE pair AS (a int, b text);
         CREATE TABLE kinds (n serial, type text, value text); INSERT INTO kinds (type, value) VALUES {values};
         DO $$ DECLARE k record; names text := ''; list text := ''; BEGIN
           FOR k IN SELECT * FROM kinds ORDER BY n LOOP
             names := names || format(', c%s %s', k.n, k.type); list := list || format(', %L::%s', k.value, k.type);
           END LOOP;
           EXECUTE format('CREATE TABLE audit_logs (id int PRIMARY KEY, at date%s)', names);
           EXECUTE format('INSERT INTO audit_logs SELECT 1, ''2024-03-05''%s', list);
         END $$; INSERT INTO audit_logs (id, at) VALUES (2, '2024-03-06')"
    ));
    archive.json(0, &[]);
    archive.is_well();
    let lines = archive.lines("2024/2024-03-01_2024-03-31");
    // What is archived goes back into the same types, and is the same there.
    let columns = archive.sql("SELECT string_agg(format('(j->>%L)::%s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum) \
         FROM pg_attribute WHERE attrelid = 'audit_logs'::regclass AND attnum > 0");
    let rows: Vec<String> =
        lines.lines().map(|line| format!("($line${line}$line$::json)")).collect();
    let differ = archive.sql(&format!(
        "SET intervalstyle = iso_8601; SET timezone = 'UTC'; SELECT count(*) FROM (SELECT a::text FROM audit_logs a) x \
         FULL JOIN (SELECT ROW({columns})::audit_logs::text AS a FROM (VALUES {}) v(j)) y USING (a) WHERE x IS NULL OR y IS NULL",
        rows.join(", ")
    ));
    assert_eq!((differ.lines().last(), rows.len()), (Some("0"), 2), "{lines}");
    let restore = ["archive-audit", "restore", "2024/2024-03-01_2024-03-31", "--to", "restored"];
    archive.sandbox.run(&restore).ends_with(0);
    let shape = |table: &str| {
        archive.sql(&format!(
            "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) \
             FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0"
        ))
    };
    assert_eq!(shape("restored"), shape("audit_logs"));
    let content = |table: &str| archive.sql(&format!("SELECT t::text FROM {table} t ORDER BY 1"));
    assert_eq!(content("restored"), content("audit_logs"));
}

#[test]
fn a_table_or_key_that_does_not_fit_is_refused() {
    let archive = Archive::new("CREATE TABLE audit_logs (id int, at timestamptz, who text)");
    let refused = |says: &str| {
        let run = archive.sandbox.run(&["archive-audit"]).expect(10);
        assert!(run.stderr.contains(says), "{run:#?}");
        assert!(!archive.folder().exists());
    };
    refused("it has no primary key: name `key`");
    archive.configure("key = [\"id\"]\n");
    refused("no unique index is of id");
    archive.sql("CREATE UNIQUE INDEX ON audit_logs (id)");
    archive.sandbox.run(&["archive-audit"]).ends_with(0);
    archive.configure("key = [\"id\"]\ntime_column = \"who\"\n");
    let run = archive.sandbox.run(&["archive-audit"]).expect(10);
    assert!(run.stderr.contains("`who` is no timestamp and no date"), "{run:#?}");
    let with_passphrase = archive.sandbox.path("locked");
    let keygen = ["-q", "-t", "ed25519", "-N", "secret", "-f", with_passphrase.to_str().unwrap()];
    stock(Command::new("ssh-keygen").args(keygen));
    std::fs::rename(&with_passphrase, archive.sandbox.path("key")).unwrap();
    archive.configure("");
    let run = archive.sandbox.run(&["archive-audit"]).expect(10);
    assert!(run.stderr.contains("it has a passphrase"), "{run:#?}");
}

/// What can be done to an archive, and the segment and kind of each finding.
type Tampering = (&'static str, fn(&Archive), &'static [(&'static str, &'static str)]);

const MARCH: &str = "2024/2024-03-01_2024-03-31";
const APRIL: &str = "2024/2024-04-01_2024-04-30";
const MAY: &str = "2024/2024-05-01_2024-05-31";

const TAMPERINGS: &[Tampering] = &[
    ("nothing", |_| (), &[]),
    (
        "one byte",
        |archive| {
            let path = archive.segment(APRIL).join("rows.ndjson.zst");
            let mut bytes = std::fs::read(&path).unwrap();
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
            std::fs::write(path, bytes).unwrap();
        },
        &[(APRIL, "file"), (APRIL, "rows")],
    ),
    ("cut off", |archive| archive.cut(APRIL), &[(APRIL, "file")]),
    (
        "a file is gone",
        |archive| std::fs::remove_file(archive.segment(APRIL).join("rows.ndjson.zst")).unwrap(),
        &[(APRIL, "file")],
    ),
    (
        "a row edited, and the file's hash as well",
        |archive| {
            archive.forge(APRIL, |lines| lines[16] = lines[16].replace("user", "User"), false);
        },
        &[(APRIL, "rows"), (APRIL, "signature"), (MAY, "chain")],
    ),
    (
        "a row removed, signed by the thief's key",
        |archive| {
            archive.forge(APRIL, |lines| drop(lines.remove(16)), false);
            archive.sign(APRIL, "thief");
        },
        &[(APRIL, "rows"), (APRIL, "signature"), (MAY, "chain")],
    ),
    (
        "a row inserted",
        |archive| archive.forge(APRIL, |lines| lines.insert(3, lines[2].clone()), false),
        &[(APRIL, "rows"), (APRIL, "signature"), (MAY, "chain")],
    ),
    (
        "two rows in another order",
        |archive| archive.forge(APRIL, |lines| lines.swap(7, 8), false),
        &[(APRIL, "rows"), (APRIL, "signature"), (MAY, "chain")],
    ),
    (
        "a segment and its manifest replaced, with the stolen key",
        |archive| {
            archive.forge(APRIL, |lines| lines[16] = lines[16].replace("user", "User"), true);
            archive.sign(APRIL, "key");
        },
        &[(MAY, "chain")],
    ),
    ("a signature is gone", |archive| archive.unsign(APRIL), &[(APRIL, "signature")]),
    (
        "a segment is gone",
        |archive| std::fs::remove_dir_all(archive.segment(APRIL)).unwrap(),
        &[(MAY, "chain"), (MAY, "gap")],
    ),
    (
        "the newest is gone",
        |archive| std::fs::remove_dir_all(archive.segment(&archive.newest())).unwrap(),
        &[("-", "anchor")],
    ),
    (
        "the newest is replaced, with the stolen key",
        |archive| {
            let newest = archive.newest();
            archive.edit(&newest, |manifest| manifest["comment"] = "forged".into());
            archive.sign(&newest, "key");
        },
        &[("NEWEST", "anchor")],
    ),
    (
        "a manifest is copied as one more, with the stolen key",
        |archive| {
            let copy = "2024/2024-03-01_2024-03-31.2";
            stock(
                Command::new("cp").arg("-r").args([archive.segment(MARCH), archive.segment(copy)]),
            );
            archive.sign(copy, "key");
        },
        &[("2024/2024-03-01_2024-03-31.2", "chain"), ("2024/2024-03-01_2024-03-31.2", "overlap")],
    ),
];

#[test]
fn whatever_is_done_to_an_archive_is_named_here_and_by_the_reference_verifier() {
    let archive = Archive::new(ROWS);
    archive.json(0, &[]);
    stock(
        Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(archive.sandbox.path("thief")),
    );
    archive.sandbox.run(&["archive-audit", "verify", "--anchor", "anchor"]).ends_with(0);
    let anchor = std::fs::read(archive.sandbox.path("anchor")).unwrap();
    let good = archive.content();
    for (what, tamper, expected) in TAMPERINGS {
        archive.put_back(&good);
        let newest = archive.newest();
        tamper(&archive);
        let expected: BTreeSet<(String, String)> =
            expected.iter().map(|(s, k)| (s.replace("NEWEST", &newest), (*k).to_owned())).collect();
        let status = if expected.is_empty() { 0 } else { 3 };
        let table = archive.json(status, &["verify", "--anchor", "anchor"]);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let findings = table["findings"].as_array().unwrap();
        let found = findings.iter().map(|f| (text(&f["segment"]), text(&f["kind"])));
        // Parquet is no evidence, and no matter of the reference verifier.
        let found: BTreeSet<_> = found.filter(|(_, kind)| kind != "copy").collect();
        assert_eq!(found, expected, "{what}: {table:#}");
        let (status_of_reference, said) = archive.reference(&["anchor"]);
        assert_eq!(
            (status_of_reference, &said),
            (status, &expected),
            "{what}: the reference verifier"
        );
        if what.contains("row") && status == 3 {
            let said = table["findings"].to_string();
            assert!(
                said.contains("line 4 ") || said.contains("line 8 ") || said.contains("line 17 "),
                "{what}: {said}"
            );
        }
        // What is not well leaves the anchor as it was, and nothing is added to it.
        assert_eq!(std::fs::read(archive.sandbox.path("anchor")).unwrap(), anchor, "{what}");
        let is_seen_without_rows =
            expected.iter().any(|(_, kind)| ["chain", "signature"].contains(&kind.as_str()));
        if is_seen_without_rows {
            let tampered = archive.content();
            archive.sql("INSERT INTO audit_logs (at) VALUES ('2024-03-09')");
            archive.json(3, &[]);
            archive.sql("DELETE FROM audit_logs WHERE at = '2024-03-09'");
            assert_eq!(archive.content(), tampered, "{what}");
        }
    }
}

#[test]
fn killed_at_any_moment_the_next_run_completes_it() {
    let archive = Archive::new(ROWS);
    archive.sql("INSERT INTO audit_logs (at, who) SELECT at, repeat(md5(n::text), 50) FROM audit_logs, generate_series(1, 200) n WHERE who <> 'hot'");
    let rows = archive.sql("SELECT count(*) - 1 FROM audit_logs");
    for round in 0..12 {
        let running = Running::start(&archive.sandbox, &["archive-audit"]);
        // Killed after so many objects more: between any two of them, and in the middle of one.
        let n = archive.content().len() + 1 + round % 5;
        eventually("objects", || (archive.content().len() >= n || running.is_over()).then_some(()));
        running.signal(Signal::KILL);
        let _run = running.end();
        let (status, said) = archive.reference(&[]);
        assert!(said.is_empty(), "round {round}: {status} {said:?}");
    }
    archive.json(0, &[]);
    archive.is_well();
    let list = archive.json(0, &["list"]);
    let archived: u64 =
        list["segments"].as_array().unwrap().iter().map(|s| s["rows"].as_u64().unwrap()).sum();
    assert_eq!(archived.to_string(), rows);
}

#[test]
fn in_a_bucket_with_object_lock_everything_is_locked_and_comes_back() {
    let mut archive = Archive::new(ROWS);
    let s3 = S3::shared();
    let bucket = s3.bucket_with_lock();
    s3.set_up(&mut archive.sandbox);
    archive.set_location(&format!("s3://{bucket}/audit"));
    archive.configure("[audit.s3]\nobject_lock = \"governance\"\nobject_lock_days = 2\n");
    let table = archive.json(0, &[]);
    assert_eq!(table["rows"], 120, "{table:#}");
    archive.json(0, &["verify"]);
    let segment = "audit/audit_logs/2024/2024-03-01_2024-03-31/";
    let keys = [
        s3.list(&bucket, segment),
        s3.list(&bucket, "audit/audit_logs/parquet/archive_month=2024-03/"),
    ];
    let keys = keys.concat();
    let names: Vec<_> = keys.iter().map(|key| key.rsplit('/').next().unwrap()).collect();
    let expected = [
        "manifest.json",
        "manifest.json.sig",
        "parquet.json",
        "parquet.json.sig",
        "rows.ndjson.zst",
        "2024-03-01_2024-03-31.000001.parquet",
    ];
    assert_eq!(names, expected);
    for key in &keys {
        let head = s3.head(&bucket, key).to_lowercase();
        assert!(head.contains("x-amz-object-lock-retain-until-date"), "{head}");
    }
    let manifest: Value =
        serde_json::from_slice(&s3.get(&bucket, &format!("{segment}manifest.json"))).unwrap();
    let version = manifest["files"][0]["version"].as_str().unwrap();
    let head = s3.head(&bucket, &format!("{segment}rows.ndjson.zst"));
    assert!(head.contains(&format!("x-amz-version-id: {}", version.to_lowercase())), "{head}");
    let again = archive.json(0, &[]);
    assert_eq!(again["segments"].as_array().unwrap().len(), 0);
}

#[test]
fn a_bucket_that_does_not_lock_is_no_success() {
    let mut archive = Archive::new(ROWS);
    let s3 = S3::shared();
    let bucket = s3.bucket();
    s3.set_up(&mut archive.sandbox);
    archive.set_location(&format!("s3://{bucket}/audit"));
    archive.configure("[audit.s3]\nobject_lock = \"governance\"\nobject_lock_days = 2\n");
    let run = archive.sandbox.run(&["archive-audit"]);
    assert_ne!(run.status, 0, "{run:#?}");
}

#[test]
fn rows_that_a_policy_hides_are_an_error() {
    let archive = Archive::new(ROWS);
    let role = format!("auditor_{}", archive.database);
    archive.sql(&format!(
        "CREATE ROLE {role} LOGIN; GRANT SELECT ON audit_logs TO {role}; ALTER TABLE audit_logs ENABLE ROW LEVEL SECURITY; \
         CREATE POLICY even ON audit_logs USING (id % 2 = 0)"
    ));
    let mut url = archive.url();
    url = url.replacen("postgres@", &format!("{role}@"), 1).replacen(
        "user=postgres",
        &format!("user={role}"),
        1,
    );
    let mut command = archive.sandbox.command(&["archive-audit"]);
    let run = Run::of(command.env("DATABASE_URL", &url).env("PGUSER", &role));
    assert!(run.status != 0 && run.stderr.contains("row-level security"), "{run:#?}");
    assert!(!paths(&archive.folder()).iter().any(|path| path.ends_with("manifest.json")));
    archive.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

fn paths(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let below = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        if path.is_dir() { paths(&path) } else { vec![path] }
    };
    entries.flat_map(below).collect()
}

#[test]
fn whoever_only_reads_needs_no_key_that_signs() {
    let archive = Archive::new(ROWS);
    archive.json(0, &[]);
    std::fs::rename(archive.sandbox.path("key"), archive.sandbox.path("elsewhere")).unwrap();
    archive.json(0, &["verify"]);
    archive.json(0, &["list"]);
    archive.sandbox.run(&["archive-audit"]).ends_with(10);
    std::fs::rename(archive.sandbox.path("key.pub"), archive.sandbox.path("other.pub")).unwrap();
    let run = archive.sandbox.run(&["archive-audit", "verify"]).expect(10);
    assert!(run.stderr.contains("who may have signed?"), "{run:#?}");
    archive.configure("allowed_signers = \"other.pub\"\n");
    archive.json(0, &["verify"]);
}

#[test]
fn whoever_only_reads_need_not_be_able_to_read_the_key_that_signs() {
    let archive = Archive::new(ROWS);
    archive.json(0, &[]);
    // Somebody else, if the tests may be somebody else.
    let (uid, gid) = Cluster::shared().owner();
    let owner = format!("{uid}:{gid}");
    stock(Command::new("chown").arg("-R").arg(owner).arg(archive.sandbox.dir.path()));
    std::fs::set_permissions(archive.sandbox.path("key"), PermissionsExt::from_mode(0o000))
        .unwrap();
    // Where the program lies may be closed to them.
    let program = archive.sandbox.path("opsctl");
    std::fs::copy(env!("CARGO_BIN_EXE_opsctl"), &program).unwrap();
    let run = |args: &[&str]| {
        let asked = archive.sandbox.command(args);
        let mut command = Command::new(&program);
        command.args(asked.get_args()).env_clear().current_dir(archive.sandbox.dir.path());
        command.envs(asked.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Run::of(command.uid(uid).gid(gid))
    };
    run(&["archive-audit", "list"]).ends_with(0);
    run(&["archive-audit", "verify"]).ends_with(0);
    let refused = run(&["archive-audit"]).expect(10);
    assert!(refused.stderr.contains("Permission denied"), "{refused:#?}");
}

#[test]
fn rows_that_are_still_in_the_table_are_compared() {
    let archive = Archive::new(ROWS);
    archive.json(0, &[]);
    let compare =
        |status: i32| archive.json(status, &["verify", "--with-table"])["in_table"].clone();
    assert_eq!(compare(0), serde_json::json!({ "same": 120, "changed": 0, "gone": 0, "new": 0 }));
    archive.sql(
        "DELETE FROM audit_logs WHERE id = 3 OR at < '2024-04-01' AND at >= '2024-03-20'; \
         INSERT INTO audit_logs (at, who) VALUES ('2024-04-07', 'late')",
    );
    let found = compare(0);
    assert_eq!((&found["changed"], &found["new"]), (&0.into(), &1.into()), "{found:#}");
    assert_eq!(found["same"].as_u64().unwrap() + found["gone"].as_u64().unwrap(), 120);
    archive.sql("UPDATE audit_logs SET who = 'nobody' WHERE id = 60");
    let table = archive.json(3, &["verify", "--with-table"]);
    assert_eq!(table["findings"][0]["kind"], "changed", "{table:#}");
    assert!(
        table["findings"][0]["what"].as_str().unwrap().contains("the row 60 in the table"),
        "{table:#}"
    );
    archive.json(0, &["verify"]);
    archive.sql("ALTER TABLE audit_logs DROP COLUMN what");
    let table = archive.json(3, &["verify", "--with-table"]);
    assert!(table["findings"][0]["what"].as_str().unwrap().contains("other columns"), "{table:#}");
}

#[test]
fn an_anchor_is_kept_in_a_bucket_or_published() {
    let mut archive = Archive::new(ROWS);
    let s3 = S3::shared();
    let (bucket, elsewhere) = (s3.bucket(), s3.bucket());
    s3.set_up(&mut archive.sandbox);
    let anchor = format!("s3://{elsewhere}/kept/audit.anchor");
    let run = archive.sandbox.run(&["archive-audit", "verify", "--anchor", &anchor]).expect(2);
    assert!(run.stderr.contains("no archive is in a bucket"), "{run:#?}");
    archive.set_location(&format!("s3://{bucket}/audit"));
    archive.configure("");
    archive.json(0, &[]);
    let names = s3.list(&bucket, "audit/audit_logs/20");
    archive.json(0, &["verify", "--anchor", &anchor]);
    let kept = s3.get(&elsewhere, "kept/audit.anchor");
    let server = Receiver::start();
    server.say(&String::from_utf8(kept.clone()).unwrap());
    let url = server.url("/anchor.json");
    archive.json(0, &["verify", "--anchor", &url]);
    // The newest segment goes.
    for name in names.iter().filter(|name| name.contains("2025-10-01")) {
        s3.delete(&bucket, name);
    }
    for place in [&anchor, &url] {
        let table = archive.json(3, &["verify", "--anchor", place]);
        assert_eq!(table["findings"][0]["kind"], "anchor", "{table:#}");
    }
    assert_eq!(s3.get(&elsewhere, "kept/audit.anchor"), kept);
    let gone = Receiver::start();
    gone.answer(404);
    archive.sandbox.run(&["archive-audit", "verify", "--anchor", &gone.url("/x")]).ends_with(1);
}
