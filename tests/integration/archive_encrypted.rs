//! An archive whose rows are encrypted: made without the private key, and read with it.

use std::process::Command;

use crate::support::archive::Archive;
use crate::support::s3::S3;
use crate::support::stock;

const MARCH: &str = "2024/2024-03-01_2024-03-31";
const ROWS: &str = "
    CREATE TABLE audit_logs (id int PRIMARY KEY, at timestamptz NOT NULL, what text);
    INSERT INTO audit_logs SELECT n, '2024-03-15 00:00+00'::timestamptz + n * interval '1 day', 'geheim ' || n FROM generate_series(0, 39) n";

/// Makes an archive for a key that is in the file `identity`; the configuration has only the public one.
fn archive() -> (Archive, String) {
    let archive = Archive::new(ROWS);
    let identity = archive.sandbox.path("identity");
    stock(Command::new("age-keygen").arg("-o").arg(&identity));
    let public = stock(Command::new("age-keygen").arg("-y").arg(&identity));
    let recipients = format!("recipients = [\"{}\"]\n", public.trim());
    archive.configure(&recipients);
    (archive, recipients)
}

#[test]
fn it_is_made_and_checked_without_the_private_key_and_read_with_it() {
    let (archive, recipients) = archive();
    archive.json(0, &[]);
    let with_key = format!("{recipients}identity_file = \"identity\"\n");
    for (path, content) in archive.content() {
        let name = path.display().to_string();
        let is_clear = content.windows(6).any(|bytes| bytes == b"geheim");
        assert!(!is_clear && !name.ends_with(".parquet") && !name.ends_with(".zst"), "{name}");
    }
    // Stock tools read it.
    let rows = archive.folder().join(MARCH).join("rows.ndjson.zst.age");
    let command = format!(
        "age -d -i {} {} | zstd -dc",
        archive.sandbox.path("identity").display(),
        rows.display()
    );
    let lines = stock(Command::new("bash").args(["-c", &command]));
    assert_eq!((lines.lines().count(), lines.matches("geheim").count()), (17, 17));

    let verified = archive.json(0, &["verify"]);
    assert_eq!(verified["sealed"], verified["segments"].as_u64().unwrap() - empty(&archive));
    // What is asked for is not left out without a word.
    let run = archive.sandbox.run(&["archive-audit", "verify", "--with-table"]).expect(1);
    assert!(run.stderr.contains("no identity fits"), "{run:#?}");
    archive.configure(&with_key);
    assert_eq!(archive.json(0, &["verify"])["sealed"], 0);
    assert_eq!(archive.json(0, &["verify", "--with-table"])["in_table"]["same"], 40);
    let identity = archive.sandbox.path("identity");
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/verify_archive.py");
    let reference = |with_key: bool| {
        let mut python = Command::new("python3");
        python.arg(program).arg(archive.folder()).arg(archive.folder().join("allowed_signers"));
        if with_key {
            python.env("AGE_IDENTITY", &identity);
        }
        let output = python.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(reference(true).0, 0);
    let (status, said) = reference(false);
    assert!(status == 0 && said.contains("its rows are not looked at"), "{said}");

    // What is shown needs the key.
    let proof = archive.sandbox.run(&["archive-audit", "prove", "3"]).expect(0);
    assert!(proof.stdout.contains("geheim 3"));
    assert_eq!(exported(&archive), 40);
    archive.sandbox.run(&["archive-audit", "restore", MARCH, "--to", "again"]).ends_with(0);
    archive.configure(&recipients);
    for args in [&["prove", "3"][..], &["export"], &["restore", MARCH, "--to", "other"]] {
        let run = archive.sandbox.run(&[&["archive-audit"], args].concat()).expect(3);
        assert!(
            run.stderr.contains("no identity fits") && !run.stdout.contains("geheim"),
            "{run:#?}"
        );
    }
    // Another key fits no more than none.
    stock(Command::new("age-keygen").arg("-o").arg(archive.sandbox.path("other")));
    archive.configure(&format!("{recipients}identity_file = \"other\"\n"));
    assert_eq!(archive.json(0, &["verify"])["sealed"], verified["sealed"]);

    // A byte of a file is noticed with the key, and without.
    let mut bytes = std::fs::read(&rows).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&rows, bytes).unwrap();
    for settings in [&with_key, &recipients] {
        archive.configure(settings);
        let findings = archive.json(3, &["verify"])["findings"].clone();
        assert_eq!(
            (&findings[0]["kind"], &findings[0]["segment"]),
            (&"file".into(), &MARCH.into()),
            "{findings:#}"
        );
    }
    assert_eq!((reference(true).0, reference(false).0), (3, 3));
}

/// How many rows an export has.
fn exported(archive: &Archive) -> usize {
    let run = archive.sandbox.run(&["archive-audit", "export"]).expect(0);
    run.stdout.matches("geheim").count()
}

/// Segments without rows have nothing that is encrypted.
fn empty(archive: &Archive) -> u64 {
    let list = archive.json(0, &["list"]);
    list["segments"].as_array().unwrap().iter().filter(|s| s["rows"] == 0).count() as u64
}

#[test]
fn what_came_late_needs_the_private_key_and_stands_in_nothing_elses_way() {
    let (archive, recipients) = archive();
    archive.json(0, &["--now", "2025-04-10T00:00:00Z"]);
    archive.sql("INSERT INTO audit_logs VALUES (100, '2024-03-20 00:00+00', 'late')");
    let run = archive.sandbox.run(&["archive-audit", "--now", "2025-05-10T00:00:00Z"]).expect(1);
    assert!(
        run.stderr.contains("is encrypted, and no identity fits: set `identity_file`"),
        "{run:#?}"
    );
    let list = archive.json(0, &["list"]);
    assert_eq!(list["segments"].as_array().unwrap().len(), 2, "{list:#}");
    archive.configure(&format!("{recipients}identity_file = \"identity\"\n"));
    let run = archive.json(0, &["--now", "2025-05-10T00:00:00Z"]);
    assert_eq!((&run["rows"], &run["segments"][0]["late"]), (&1.into(), &true.into()), "{run:#}");
    assert_eq!(archive.json(0, &["verify"])["sealed"], 0);
}

#[test]
fn encryption_that_ends_shows_nothing_of_earlier_segments() {
    let (archive, recipients) = archive();
    archive.json(0, &["--now", "2025-04-10T00:00:00Z"]);
    archive.configure(&format!("{recipients}parquet = true\n"));
    let run = archive.sandbox.run(&["archive-audit"]).expect(10);
    assert!(run.stderr.contains("`parquet` in [[audit]] would have"), "{run:#?}");
    archive.configure("identity_file = \"identity\"\n");
    archive.json(0, &["--now", "2025-05-10T00:00:00Z"]);
    let copies: Vec<String> = archive
        .content()
        .into_keys()
        .map(|path| path.display().to_string())
        .filter(|name| name.ends_with(".parquet"))
        .collect();
    assert!(copies.len() == 1 && copies[0].contains("archive_month=2024-04"), "{copies:?}");
    assert_eq!(archive.json(0, &["verify"])["sealed"], 0);
}

#[test]
fn in_a_bucket_it_is_the_same() {
    let (mut archive, recipients) = archive();
    let s3 = S3::shared();
    let bucket = s3.bucket();
    s3.set_up(&mut archive.sandbox);
    archive.set_location(&format!("s3://{bucket}/audit"));
    archive.configure(&recipients);
    archive.json(0, &[]);
    let segment = format!("audit/audit_logs/{MARCH}/");
    let keys = s3.list(&bucket, &segment);
    assert!(keys.contains(&format!("{segment}rows.ndjson.zst.age")), "{keys:?}");
    archive.configure(&format!("{recipients}identity_file = \"identity\"\n"));
    assert_eq!(archive.json(0, &["verify"])["sealed"], 0);
    assert_eq!(exported(&archive), 40);
}
