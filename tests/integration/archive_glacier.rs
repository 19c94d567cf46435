//! Segments that a lifecycle rule moved to Glacier: said to be there, thawed, and restored.

use crate::support::archive::Archive;
use crate::support::s3::S3;

const MARCH: &str = "2024/2024-03-01_2024-03-31";

#[test]
fn what_is_in_glacier_is_asked_for_and_then_restored() {
    let mut archive = Archive::new(
        "CREATE TABLE audit_logs (id int PRIMARY KEY, at timestamptz NOT NULL, what text); \
         INSERT INTO audit_logs SELECT n, '2024-03-05 00:00+00', 'what ' || n FROM generate_series(1, 100) n",
    );
    let s3 = S3::with_glacier();
    let bucket = s3.bucket();
    s3.set_up(&mut archive.sandbox);
    archive.set_location(&format!("s3://{bucket}/audit"));
    archive.configure("");
    archive.json(0, &["--now", "2025-04-10T00:00:00Z"]);
    archive.json(0, &["verify"]);
    let rows = format!("audit/audit_logs/{MARCH}/rows.ndjson.zst");
    for class in ["GLACIER", "DEEP_ARCHIVE"] {
        s3.transition(&bucket, &rows, class);
        for args in [&["verify"][..], &["export"], &["prove", "7"]] {
            let run = archive.sandbox.run(&[&["archive-audit"], args].concat()).expect(13);
            assert!(run.stderr.contains("cannot be read before it is thawed"), "{run:#?}");
            assert!(run.stderr.contains("opsctl archive-audit thaw"), "{run:#?}");
        }
        let look = archive.json(0, &["thaw", MARCH, "--dry-run"]);
        assert_eq!((&look["readable"], &look["frozen"]), (&0.into(), &1.into()), "{look:#}");
        let run =
            archive.sandbox.run(&["archive-audit", "restore", MARCH, "--to", "x", "--dry-run"]);
        assert!(run.expect(13).stderr.contains("1 have to be asked for"));
        assert!(!s3.head(&bucket, &rows).contains("x-amz-restore"));
        // Another run needs the manifests alone.
        archive.json(0, &["--now", "2025-04-10T00:00:00Z"]);
        let table = format!("again_{}", class.to_lowercase());
        if class == "GLACIER" {
            let thawed =
                archive.json(0, &["thaw", MARCH, "--thaw-days", "3", "--thaw-tier", "bulk"]);
            assert_eq!(
                (&thawed["readable"], &thawed["thawing"]),
                (&1.into(), &0.into()),
                "{thawed:#}"
            );
            assert!(s3.head(&bucket, &rows).contains("x-amz-restore: ongoing-request=\"false\""));
            archive.json(0, &["verify"]);
        }
        let restore = ["archive-audit", "restore", MARCH, "--to", &table, "--wait"];
        archive.sandbox.run(&restore).ends_with(0);
        assert_eq!(archive.sql(&format!("SELECT count(*) FROM {table}")), "100");
    }
    archive.sandbox.run(&["archive-audit", "thaw", "2024/no-such"]).ends_with(2);
}
