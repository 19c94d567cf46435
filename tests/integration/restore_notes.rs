//! `RESTORE.md`: the commands in it, run as they stand, restore the backup that it is in.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::broken::{self, DATABASE, back_up};
use crate::support::every_object::{assert_same, content, on_installed, only_backup};
use crate::support::s3::S3;
use crate::support::{Cluster, Sandbox, stock, unique};

/// Runs the notes' commands in an empty directory, and returns the name of the database they made.
#[track_caller]
fn follow(notes: &str, cluster: &Cluster, sandbox: &Sandbox, with: &[(&str, &str)]) -> String {
    let mut script = String::from("set -eu\n");
    for block in notes.split("\n```sh\n").skip(1) {
        script.push_str(block.split_once("\n```\n").unwrap().0);
        script.push('\n');
    }
    let (dir, name) = (sandbox.path("restored"), format!("from_notes_{}", unique()));
    std::fs::create_dir(&dir).unwrap();
    // The server's own programs, of its version; everything else is where the distribution put it.
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", cluster.bin_dir.display());
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]).current_dir(dir).stdin(Stdio::null());
    bash.env("PATH", path)
        .env("PGHOST", &cluster.dir)
        .env("PGPORT", &cluster.port)
        .env("PGUSER", "postgres");
    bash.env("NEWDB", &name).envs(with.iter().copied());
    let output = bash.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let harmless = |line: &&str| {
        let exists = line.contains("ERROR:  role \"") && line.ends_with(" already exists");
        exists || line.contains("NOTICE:  role ")
    };
    let unexpected: Vec<&str> = said.lines().filter(|line| !harmless(line)).collect();
    assert!(
        output.status.success() && unexpected.is_empty(),
        "{}: {said}\n{script}",
        output.status
    );
    name
}

fn notes_in(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("RESTORE.md")).unwrap()
}

#[test]
fn every_object_is_restored_from_a_directory_by_the_notes() {
    let every = on_installed();
    let sandbox = every.sandbox("");
    {
        let _alone = every.alone();
        sandbox.run(&["backup", "--jobs", "8"]).ends_with(0);
    }
    let notes = notes_in(&only_backup(&sandbox.path("backups")));
    every.assert_equals(&follow(&notes, &every.cluster, &sandbox, &[]));
}

#[test]
fn every_object_is_restored_from_s3_by_the_notes() {
    let (every, s3) = (on_installed(), S3::shared());
    let bucket = s3.bucket();
    let mut sandbox =
        every.sandbox(&format!("[repository]\nlocation = \"s3://{bucket}/a.prefix/x=1\"\n"));
    s3.set_up(&mut sandbox);
    {
        let _alone = every.alone();
        sandbox.run(&["backup", "--jobs", "8"]).ends_with(0);
    }
    sandbox.run(&["verify-backup"]).ends_with(0);
    // Whoever restores has the credentials; where to find the rest stands in the notes.
    let mut with = s3.environment().to_vec();
    with.retain(|(name, _)| ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].contains(name));
    let report = sandbox.json(0, &["backup", "list"]);
    let id = report["databases"][0]["repositories"][0]["backups"][0]["backup"].as_str().unwrap();
    let key = format!("a.prefix/x%3D1/{}/{id}/RESTORE.md", every.database);
    let notes = String::from_utf8(s3.get(&bucket, &key)).unwrap();
    every.assert_equals(&follow(&notes, &every.cluster, &sandbox, &with));
}

/// Returns a sandbox with a key, and the configuration's lines for a repository encrypted with it.
fn encrypted(location: &str) -> (Sandbox, PathBuf) {
    let sandbox = broken::sandbox("");
    let key = sandbox.path("key.txt");
    stock(Command::new("age-keygen").arg("-o").arg(&key));
    let recipient = stock(Command::new("age-keygen").arg("-y").arg(&key));
    let config = std::fs::read_to_string(sandbox.path("opsctl.toml")).unwrap();
    let repository = format!(
        "[repository]\nlocation = \"{location}\"\nrecipients = [\"{}\"]\n",
        recipient.trim()
    );
    sandbox.write("opsctl.toml", &(config + &repository));
    (sandbox, key)
}

#[test]
fn an_encrypted_backup_is_restored_from_a_directory_by_the_notes() {
    let (sandbox, key) = encrypted("backups");
    back_up(&sandbox, &[]);
    let folder = only_backup(&sandbox.path("backups"));
    assert!(
        std::fs::read_dir(&folder).unwrap().any(|e| e
            .unwrap()
            .path()
            .to_str()
            .unwrap()
            .ends_with(".dat.gz.000004.age"))
    );
    let cluster = Cluster::shared();
    let restored = follow(&notes_in(&folder), cluster, &sandbox, &[("KEY", key.to_str().unwrap())]);
    assert_same(&content(cluster, broken::database(), &[]), &content(cluster, &restored, &[]));
}

#[test]
fn an_encrypted_backup_is_restored_from_s3_by_the_notes() {
    let s3 = S3::shared();
    let bucket = s3.bucket();
    let (mut sandbox, key) = encrypted(&format!("s3://{bucket}"));
    s3.set_up(&mut sandbox);
    let id = back_up(&sandbox, &[]);
    let notes = String::from_utf8(s3.get(&bucket, &format!("{DATABASE}/{id}/RESTORE.md"))).unwrap();
    let mut with = s3.environment().to_vec();
    with.push(("KEY", key.to_str().unwrap()));
    let cluster = Cluster::shared();
    let restored = follow(&notes, cluster, &sandbox, &with);
    assert_same(&content(cluster, broken::database(), &[]), &content(cluster, &restored, &[]));
}

#[test]
fn odd_names_and_bytes_are_restored_by_the_notes() {
    let cluster = Cluster::shared();
    let name = format!("it's \"odd\" & $HOME {}", unique());
    let quoted = name.replace('"', "\"\"");
    let ascii = "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'";
    cluster.sql("postgres", &format!("CREATE DATABASE \"{quoted}\" TEMPLATE template0 {ascii}"));
    cluster.sql(&name, r"CREATE TABLE t (v text); INSERT INTO t VALUES (E'caf\xe9'), (E'\xff')");
    let mut sandbox = Sandbox::new("postgresql://");
    sandbox
        .unset("DATABASE_URL")
        .set("PGHOST", &cluster.dir)
        .set("PGPORT", &cluster.port)
        .set("PGUSER", "postgres");
    let repository = sandbox.path("it's a $HOME");
    sandbox.set("PGDATABASE", &name).set("OPSCTL_REPOSITORY", repository.to_str().unwrap());
    sandbox.back_up(&[]);
    let notes = notes_in(&only_backup(&repository));
    assert!(notes.contains(&format!("of database `{name}`")), "{notes}");
    let restored = follow(&notes, cluster, &sandbox, &[]);
    assert_same(&content(cluster, &name, &[]), &content(cluster, &restored, &[]));
}
