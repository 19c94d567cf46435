//! A directory and a bucket in one run, and what a bucket adds: storage classes and object lock.

use serde_json::json;

use crate::support::broken::{self, DATABASE, back_up};
use crate::support::s3::S3;

#[test]
fn a_directory_and_a_bucket_both_get_the_backup_and_each_keeps_what_it_should() {
    let s3 = S3::shared();
    let bucket = s3.bucket();
    let mut sandbox = broken::sandbox(&format!(
        "[repositories.near]\nlocation = \"backups\"\nretention = {{ keep_last = 1 }}\n\
         [repositories.offsite]\nlocation = \"s3://{bucket}/x\"\nretention = {{ keep_last = 2 }}\n"
    ));
    s3.set_up(&mut sandbox);
    let ids: Vec<String> = (1..=3)
        .map(|day| back_up(&sandbox, &["--now", &format!("2020-03-0{day}T02:00:00Z")]))
        .collect();
    let report = sandbox.json(0, &["verify-backup", "--all"]);
    let verified = report["verifications"].as_array().unwrap().iter();
    let verified: Vec<_> = verified
        .map(|v| {
            (
                v["repository"].as_str().unwrap(),
                v["backup"].as_str().unwrap(),
                v["good"].as_bool().unwrap(),
            )
        })
        .collect();
    let mut expected = vec![
        ("near", ids[2].as_str(), true),
        ("offsite", &ids[2], true),
        ("offsite", &ids[1], true),
    ];
    expected.sort_unstable();
    let mut found = verified.clone();
    found.sort_unstable();
    assert_eq!(found, expected);
    assert!(s3.list(&bucket, &format!("x/{DATABASE}/{}", ids[0])).is_empty(), "removed whole");

    let near: serde_json::Value = {
        let path = sandbox.path("backups").join(DATABASE).join(&ids[2]).join("manifest.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    let offsite = s3.get(&bucket, &format!("x/{DATABASE}/{}/manifest.json", ids[2]));
    let offsite: serde_json::Value = serde_json::from_slice(&offsite).unwrap();
    assert_eq!((&near["layout"], &offsite["layout"]), (&json!("joined"), &json!("objects")));
    assert_eq!(near["contents"], offsite["contents"], "the same rows went to both");
}

#[test]
fn a_bucket_that_fails_does_not_keep_the_directory_from_having_the_backup() {
    let s3 = S3::shared();
    let mut sandbox = broken::sandbox(
        "[repositories.near]\nlocation = \"backups\"\n[repositories.offsite]\nlocation = \"s3://nobody-made-this\"\n",
    );
    s3.set_up(&mut sandbox);
    let run = sandbox.run(&["backup"]);
    assert_eq!(run.status, 1, "{run:#?}");
    assert!(
        run.stdout.contains("  near: ") && run.stdout.contains("  offsite: FAILED: "),
        "{run:#?}"
    );
    assert!(run.stderr.contains("repository `offsite` has no backup of `ip2a`: "), "{run:#?}");
    let run = sandbox.run(&["verify-backup", "--repository", "near"]).expect(0);
    assert!(run.stdout.contains(" is good: "), "{run:#?}");
}

#[test]
fn objects_are_locked_and_in_the_storage_class_that_was_asked_for_and_locked_backups_are_kept() {
    let s3 = S3::shared();
    let bucket = s3.bucket_with_lock();
    let mut sandbox = broken::sandbox(&format!(
        "[repository]\nlocation = \"s3://{bucket}\"\nretention = {{ keep_last = 1 }}\n\
         s3 = {{ object_lock = \"governance\", object_lock_days = 2, storage_class = \"STANDARD_IA\" }}\n"
    ));
    s3.set_up(&mut sandbox);
    let ids: Vec<String> = (1..=2)
        .map(|day| back_up(&sandbox, &["--now", &format!("2020-03-0{day}T02:00:00Z")]))
        .collect();
    let head = |name: &str| s3.head(&bucket, &format!("{DATABASE}/{}/{name}", ids[0]));
    let (class, manifest) = (head("globals.sql"), head("manifest.json"));
    for said in [&class, &manifest] {
        assert!(
            said.contains("x-amz-object-lock-mode: governance")
                && said.contains("x-amz-object-lock-retain-until-date: 2"),
            "{said}"
        );
    }
    assert!(class.contains("x-amz-storage-class: standard_ia"), "{class}");

    let run = sandbox.run(&["backup", "list"]).expect(0);
    let first = run.stdout.lines().find(|line| line.contains(&ids[0])).unwrap();
    assert!(first.contains("  locked until 20"), "{}", run.stdout);
    let run = sandbox.run(&["backup", "prune"]).expect(0);
    assert!(run.stdout.contains("  0 removed"), "{}", run.stdout);
    sandbox.run(&["verify-backup", "--all"]).ends_with(0);
}
