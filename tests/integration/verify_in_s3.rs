//! `opsctl verify-backup` of a repository in S3: damage that is done to objects behind its back is found.

use serde_json::Value;

use crate::support::Sandbox;
use crate::support::broken::{self, DATABASE, back_up, is_found};
use crate::support::s3::S3;

struct Stored {
    sandbox: Sandbox,
    bucket: String,
    id: String,
}

impl Stored {
    /// Takes a backup into a bucket of its own.
    fn new() -> Stored {
        let s3 = S3::shared();
        let bucket = s3.bucket();
        let mut sandbox =
            broken::sandbox(&format!("[repository]\nlocation = \"s3://{bucket}/some/where\"\n"));
        s3.set_up(&mut sandbox);
        let id = back_up(&sandbox, &[]);
        Stored { sandbox, bucket, id }
    }

    fn key(&self, name: &str) -> String {
        format!("some/where/{DATABASE}/{}/{name}", self.id)
    }

    fn get(&self, name: &str) -> Vec<u8> {
        S3::shared().get(&self.bucket, &self.key(name))
    }

    fn put(&self, name: &str, content: &[u8]) {
        S3::shared().put(&self.bucket, &self.key(name), content);
    }

    fn delete(&self, name: &str) {
        S3::shared().delete(&self.bucket, &self.key(name));
    }

    fn table(&self, name: &str) -> String {
        let manifest: Value = serde_json::from_slice(&self.get("manifest.json")).unwrap();
        broken::table(&manifest, name)
    }
}

#[test]
fn a_good_backup_in_s3_is_good_and_its_verification_is_stored() {
    let backup = Stored::new();
    let run = backup.sandbox.run(&["verify-backup"]).expect(0);
    let begin =
        format!("{DATABASE}: backup {} in bucket `{}/some/where` at `", backup.id, backup.bucket);
    assert!(
        run.stdout.starts_with(&begin) && run.stdout.contains(" is good: 21 artifacts, 24 chunks"),
        "{run:?}"
    );
    let stored = S3::shared().list(&backup.bucket, &backup.key("verifications/"));
    assert_eq!(stored.len(), 1);
    let list = backup.sandbox.run(&["backup", "list"]).expect(0);
    assert!(
        list.stdout.contains(&backup.id) && list.stdout.contains("  good 2"),
        "{}",
        list.stdout
    );
}

#[test]
fn damaged_objects_in_s3_are_found() {
    let backup = Stored::new();
    let name = backup.table("members");
    let chunk = |n: u32| format!("{name}.{n:06}");
    let sizes: Vec<usize> = (1..=4).map(|n| backup.get(&chunk(n)).len()).collect();

    let mut flipped = backup.get(&chunk(2));
    flipped[77] ^= 1;
    backup.put(&chunk(2), &flipped);
    let third = backup.get(&chunk(3));
    backup.put(&chunk(3), &third[..third.len() - 10]);
    backup.delete(&chunk(4));
    let (one, two) = (backup.table("small_1"), backup.table("small_2"));
    let (content_of_one, content_of_two) = (backup.get(&one), backup.get(&two));
    backup.put(&one, &content_of_two);
    backup.put(&two, &content_of_one);
    backup.put("9999.dat.gz", b"");

    let report = backup.sandbox.json(3, &["verify-backup"]);
    let one_of_them = |artifact: &str, chunk: u64, offset: usize| {
        let findings = report["verifications"][0]["findings"].as_array().unwrap();
        findings
            .iter()
            .any(|f| f["artifact"] == artifact && f["chunk"] == chunk && f["offset"] == offset)
    };
    assert!(one_of_them(&name, 2, sizes[0]), "{report:#}");
    assert!(one_of_them(&name, 3, sizes[0] + sizes[1]), "{report:#}");
    assert!(one_of_them(&one, 1, 0) && one_of_them(&two, 1, 0), "{report:#}");
    let mut expected = vec![
        format!(
            "artifact `{}`: has {} bytes where the manifest says {}",
            chunk(3),
            third.len() - 10,
            third.len()
        ),
        format!("artifact `{}`: is missing", chunk(4)),
        "artifact `9999.dat.gz`: is not in the manifest: it does not belong to this backup"
            .to_owned(),
    ];
    let run = backup.sandbox.run(&["verify-backup"]).expect(3);
    expected.retain(|line| !run.stdout.contains(line.as_str()));
    assert_eq!((expected, run.stdout.lines().count()), (Vec::new(), 8), "{}", run.stdout);
    let list = backup.sandbox.run(&["backup", "list"]).expect(0);
    assert!(list.stdout.contains("DAMAGED 2"), "{}", list.stdout);
}

#[test]
fn missing_sums_and_a_missing_manifest_in_s3_are_found() {
    let backup = Stored::new();
    backup.delete("SHA256SUMS");
    is_found(&backup.sandbox, &backup.id, &[], &["artifact `SHA256SUMS`: is missing"]);
    backup.delete("manifest.json");
    is_found(
        &backup.sandbox,
        &backup.id,
        &[],
        &["there is no `manifest.json`: the backup was never completed"],
    );
}

#[test]
fn a_bucket_that_is_not_there_is_no_finding_but_an_error() {
    let s3 = S3::shared();
    let mut sandbox = broken::sandbox("[repository]\nlocation = \"s3://nobody-made-this/x\"\n");
    s3.set_up(&mut sandbox);
    let run = sandbox.run(&["verify-backup"]).expect(13);
    assert!(run.stderr.contains("verify-backup failed: ") && run.stdout.is_empty(), "{run:?}");
}
