//! `opsctl verify-backup`: which backups it looks at, what it says of good ones, and encrypted ones.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::broken::{self, Broken, DATABASE, back_up, flip, is_found, sandbox};
use crate::support::{Cluster, Sandbox, stock};

fn verifications(backup: &Broken) -> Vec<Value> {
    let Ok(files) = std::fs::read_dir(backup.path("verifications")) else { return Vec::new() };
    files
        .map(|file| serde_json::from_slice(&std::fs::read(file.unwrap().path()).unwrap()).unwrap())
        .collect()
}

#[test]
fn a_good_backup_is_said_to_be_good_and_that_is_stored() {
    let backup = Broken::new();
    let run = backup.sandbox.run(&["verify-backup"]).expect(0);
    let place = backup.sandbox.path("backups").display().to_string();
    let begin = format!(
        "{DATABASE}: backup {} in directory `{place}` is good: 21 artifacts, 24 chunks, ",
        backup.id
    );
    assert!(run.stdout.starts_with(&begin), "{}", run.stdout);
    assert!(run.stdout.contains(", 100,015 rows, listed by pg_restore 1"), "{}", run.stdout);
    assert_eq!((run.stdout.lines().count(), run.stderr.as_str()), (1, ""));
    let stored = verifications(&backup);
    assert_eq!(
        (stored.len(), &stored[0]["good"], &stored[0]["depth"]),
        (1, &json!(true), &json!("artifacts"))
    );
    let list = backup.sandbox.run(&["backup", "list"]).expect(0);
    assert!(list.stdout.contains("  good 2"), "{}", list.stdout);

    let report = backup.sandbox.json(0, &["verify-backup"]);
    let one = &report["verifications"][0];
    assert_eq!(
        (&one["good"], &one["rows"], &one["findings"]),
        (&json!(true), &json!(100_015), &json!([]))
    );
    assert_eq!(verifications(&backup).len(), 2, "the second must not overwrite the first");
    let quiet = backup.sandbox.run(&["verify-backup", "--quiet", "--no-record"]).expect(0);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    assert_eq!(verifications(&backup).len(), 2, "--no-record stores nothing");
}

#[test]
fn the_newest_verification_is_the_one_that_counts() {
    let backup = Broken::new();
    let path = backup.path(&backup.table("members"));
    flip(&path, 5000);
    backup.sandbox.run(&["verify-backup"]).ends_with(3);
    backup.is_listed_as_damaged();
    flip(&path, 5000);
    backup.sandbox.run(&["verify-backup"]).ends_with(0);
    let list = backup.sandbox.run(&["backup", "list"]).expect(0);
    assert!(
        !list.stdout.contains("DAMAGED") && list.stdout.contains("  good 2"),
        "{}",
        list.stdout
    );
}

/// Makes backups of a small database, begun at these moments, and returns their ids.
fn several(moments: &[&str]) -> (Sandbox, Vec<String>) {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE t AS SELECT generate_series(1, 10) AS n");
    let sandbox = Sandbox::new(&cluster.url(&database));
    let ids = moments.iter().map(|at| sandbox.back_up(&["--now", at])).collect();
    (sandbox, ids)
}

fn verified(sandbox: &Sandbox, status: i32, args: &[&str]) -> Vec<String> {
    let report = sandbox.json(status, &[&["verify-backup"], args].concat());
    let all = report["verifications"].as_array().unwrap();
    all.iter().filter_map(|one| one["backup"].as_str()).map(str::to_owned).collect()
}

#[test]
fn one_or_some_or_all_are_verified_newest_first() {
    let (sandbox, ids) =
        several(&["2020-03-01T02:00:00Z", "2020-03-05T02:00:00Z", "2020-03-10T02:00:00Z"]);
    let [first, second, third] = &ids.iter().map(String::as_str).collect::<Vec<_>>()[..] else {
        panic!("{ids:?}")
    };
    assert_eq!(verified(&sandbox, 0, &[]), [*third]);
    assert_eq!(verified(&sandbox, 0, &["--latest"]), [*third]);
    assert_eq!(verified(&sandbox, 0, &["--all"]), [*third, *second, *first]);
    assert_eq!(
        verified(&sandbox, 0, &["--within", "7d", "--now", "2020-03-11T02:00:00Z"]),
        [*third, *second]
    );
    assert_eq!(verified(&sandbox, 0, &["--backup", first]), [*first]);
    assert_eq!(verified(&sandbox, 3, &["--within", "7d"]), [""; 0]);
    let run = sandbox.run(&["verify-backup", "--all", "--latest"]).expect(2);
    assert!(run.stderr.contains("cannot be used with"), "{}", run.stderr);
    let run = sandbox.run(&["verify-backup", "--backup", "newest"]).expect(2);
    assert!(
        run.stderr.contains("`newest` is no backup id") && run.stderr.contains("hint: "),
        "{}",
        run.stderr
    );
}

#[test]
fn one_damaged_backup_among_several_is_bad_news() {
    let (sandbox, ids) = several(&["2020-03-01T02:00:00Z", "2020-03-05T02:00:00Z"]);
    let database =
        std::fs::read_dir(sandbox.path("backups")).unwrap().next().unwrap().unwrap().path();
    flip(&database.join(&ids[0]).join("globals.sql"), 20);
    sandbox.run(&["verify-backup", "--latest"]).ends_with(0);
    let run = sandbox.run(&["verify-backup", "--all"]).expect(3);
    assert!(
        run.stdout.contains(&format!("backup {} in ", ids[1])) && run.stdout.contains(" is good: "),
        "{}",
        run.stdout
    );
    assert!(
        run.stdout.contains("  artifact `globals.sql`, chunk 1 at offset 0: its SHA-256 differs"),
        "{}",
        run.stdout
    );
}

#[test]
fn no_backup_at_all_is_bad_news() {
    let (sandbox, _) = several(&[]);
    for args in [&["verify-backup"][..], &["verify-backup", "--all"], &["verify-backup", "--quiet"]]
    {
        let run = sandbox.run(args).expect(3);
        assert!(
            run.stdout.contains(": there is no backup of `test_")
                && run.stderr.contains("to verify in directory"),
            "{run:?}"
        );
    }
    let report = sandbox.json(3, &["verify-backup"]);
    assert_eq!((&report["exit"], &report["verifications"][0]["good"]), (&json!(3), &json!(false)));
}

#[test]
fn the_backup_of_a_database_without_tables_is_no_good_one() {
    let cluster = Cluster::shared();
    let sandbox = Sandbox::new(&cluster.url(&cluster.database()));
    sandbox.back_up(&[]);
    let run = sandbox.run(&["verify-backup"]).expect(3);
    assert!(
        run.stdout.contains("there is no table in it: an empty dump is no good backup"),
        "{}",
        run.stdout
    );
}

/// Makes a key pair in the sandbox and returns its recipient.
fn key(sandbox: &Sandbox, name: &str) -> String {
    stock(Command::new("age-keygen").arg("-o").arg(sandbox.path(name)));
    stock(Command::new("age-keygen").arg("-y").arg(sandbox.path(name))).trim().to_owned()
}

/// Returns a sandbox with one encrypted backup, its id, and the file name of the artifact with the table's third chunk.
fn encrypted() -> (Sandbox, String, std::path::PathBuf) {
    let sandbox = sandbox("");
    let recipient = key(&sandbox, "key.txt");
    let config = std::fs::read_to_string(sandbox.path("opsctl.toml")).unwrap();
    sandbox.write(
        "opsctl.toml",
        &format!("{config}{}recipients = [\"{recipient}\"]\n", broken::DIRECTORY),
    );
    let id = back_up(&sandbox, &[]);
    let folder = sandbox.path("backups").join(DATABASE).join(&id);
    (sandbox, id, folder)
}

fn third_chunk(folder: &std::path::Path) -> String {
    let mut names =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    names.find(|name| name.ends_with(".000003.age")).expect("a table of several chunks")
}

#[test]
fn an_encrypted_backup_is_looked_into_with_its_identity_only() {
    let (sandbox, id, folder) = encrypted();
    let run = sandbox.run(&["verify-backup"]).expect(0);
    assert!(
        run.stdout.contains("sizes and SHA-256 only: no identity was given to decrypt it"),
        "{}",
        run.stdout
    );
    let report = sandbox.json(0, &["verify-backup"]);
    assert_eq!(report["verifications"][0]["depth"], "stored");
    let report = sandbox.json(0, &["verify-backup", "--identity", "key.txt"]);
    let one = &report["verifications"][0];
    assert_eq!(
        (&one["depth"], &one["good"], &one["backup"]),
        (&json!("artifacts"), &json!(true), &json!(id))
    );
    let config = std::fs::read_to_string(sandbox.path("opsctl.toml")).unwrap();
    sandbox.write("opsctl.toml", &format!("{config}identity_file = \"key.txt\"\n"));
    assert_eq!(sandbox.json(0, &["verify-backup"])["verifications"][0]["depth"], "artifacts");
    for file in
        std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file())
    {
        let content = std::fs::read(&file).unwrap();
        for word in ["members", "small_", "breakable"] {
            assert!(
                !content.windows(word.len()).any(|w| w == word.as_bytes()),
                "{word} in {}",
                file.display()
            );
        }
    }
}

#[test]
fn damage_to_an_encrypted_backup_is_found_with_and_without_identity() {
    let (sandbox, id, folder) = encrypted();
    let name = third_chunk(&folder);
    flip(&folder.join(&name), 3000);
    let artifact = name.strip_suffix(".000003.age").unwrap();
    let chunk =
        |n: u32| std::fs::metadata(folder.join(format!("{artifact}.00000{n}.age"))).unwrap().len();
    let expected = format!(
        "artifact `{artifact}`, chunk 3 at offset {}: its SHA-256 differs: its bytes were changed",
        chunk(1) + chunk(2)
    );
    is_found(&sandbox, &id, &[], &[&expected]);
    is_found(&sandbox, &id, &["--identity", "key.txt"], &[&expected]);
    std::fs::remove_file(folder.join(&name)).unwrap();
    is_found(&sandbox, &id, &[], &[&format!("artifact `{name}`: is missing")]);
}

#[test]
fn the_wrong_identity_is_an_error_and_says_nothing_about_the_backup() {
    let (sandbox, id, folder) = encrypted();
    key(&sandbox, "other.txt");
    let run = sandbox.run(&["verify-backup", "--identity", "other.txt"]).expect(10);
    assert!(
        run.stderr.contains(&format!("no identity that was given decrypts backup {id}")),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("hint: ") && run.stdout.is_empty(), "{run:?}");
    assert!(!folder.join("verifications").exists(), "it must not be taken for damage");
    let run = sandbox.run(&["verify-backup", "--identity", "opsctl.toml"]).expect(10);
    assert!(
        run.stderr.contains("failed to read the age identities in `opsctl.toml`"),
        "{}",
        run.stderr
    );
}
