//! The pages about backups, read where one is damaged, failed, suspicious, late or needed: their lines are typed, and what they say
//! is to be seen.

use std::path::Path;

use crate::support::reader::{But, Reader};
use crate::support::running::by_another_clock;
use crate::support::{Cluster, Run, Sandbox, installed};

/// Makes the database `members` on a server of its own, and a sandbox whose shell finds it as a person's does.
fn site(configuration: &str) -> (Cluster, Sandbox) {
    let cluster = Cluster::start(&installed(), &[], &[]);
    cluster.sql("postgres", "CREATE DATABASE members TEMPLATE template0");
    cluster.sql(
        "members",
        "CREATE TABLE members AS SELECT n AS id, md5(n::text) AS name FROM generate_series(1, 5000) n;
         ALTER TABLE members ADD PRIMARY KEY (id);
         CREATE TABLE dues AS SELECT n AS id, n AS member FROM generate_series(1, 500) n;
         ALTER TABLE dues ADD FOREIGN KEY (member) REFERENCES members",
    );
    let mut sandbox = Sandbox::new(&cluster.url("members"));
    let programs = cluster.bin_dir.display();
    sandbox.set("PATH", format!("{programs}:/usr/local/bin:/usr/bin:/bin"));
    sandbox.set("PGHOST", &cluster.dir).set("PGPORT", &cluster.port).set("PGUSER", "postgres");
    sandbox.write("opsctl.toml", configuration);
    (cluster, sandbox)
}

/// Changes a byte in the middle of the largest file of a backup.
fn damage(folder: &Path) {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let rows = files.filter(|path| path.to_str().unwrap().contains(".dat"));
    let file = rows.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn a_damaged_backup_is_dealt_with_by_the_page() {
    let (_cluster, sandbox) = site(
        "[repositories.local]\nlocation = \"backups\"\n[repositories.other]\nlocation = \"other\"\n",
    );
    let mut sandbox = sandbox;
    sandbox.unset("OPSCTL_REPOSITORY");
    let scratch = Cluster::start(&installed(), &[], &[]);
    let id = sandbox.back_up(&[]);
    damage(&sandbox.path("backups").join("members").join(&id));
    let reader = Reader::of("verify-backup", &sandbox)
        .with("--backup ID", &format!("--backup {id}"))
        .with("postgresql://postgres@scratch.example.com/postgres", &scratch.url("postgres"));
    let seen = reader.does("Check", &[("opsctl verify-backup", But::Ends(3))]);
    assert!(seen[0].stdout.contains("its SHA-256 differs"), "{seen:#?}");
    // The other repository has it whole.
    assert!(seen[0].stdout.contains("other` is good"), "{seen:#?}");
    reader.does("Act", &[("opsctl verify-backup", But::Ends(3))]);
    let seen = reader.does("Verify", &[]);
    assert!(!seen[0].stdout.contains(&id), "{seen:#?}");
    assert!(sandbox.path("backups").join("members").join(id).exists());
}

#[test]
fn a_repository_that_is_gone_is_found_by_the_page_and_the_backup_made_up_for() {
    let (_cluster, sandbox) = site("");
    sandbox.back_up(&[]);
    // Its disk is not mounted: what is there in its place is no directory.
    let (backups, away) = (sandbox.path("backups"), sandbox.path("away"));
    std::fs::rename(&backups, &away).unwrap();
    std::fs::write(&backups, "").unwrap();
    sandbox.run(&["backup"]).ends_with(13);
    let reader = Reader::of("backup-failed", &sandbox);
    let seen = reader.does("Check", &[("opsctl backup", But::Ends(13))]);
    assert!(seen[0].stdout.contains("FAILED (13)"), "{seen:#?}");
    std::fs::remove_file(&backups).unwrap();
    std::fs::rename(&away, &backups).unwrap();
    reader.does("Act", &[]);
    reader.does("Verify", &[]);
}

#[test]
fn a_suspicious_backup_is_looked_at_and_accepted_by_the_page() {
    let (cluster, sandbox) = site("[repository.retention]\nkeep_last = 2\n");
    let good = sandbox.back_up(&[]);
    cluster.sql("members", "DELETE FROM dues; DELETE FROM members WHERE id > 10");
    let reader = Reader::of("backup", &sandbox);
    reader.does("Check", &[]);
    let seen = reader.does("Act", &[]);
    let said = |n: usize| format!("{}{}", seen[n].stdout, seen[n].stderr);
    assert!(said(0).contains("SUSPICIOUS: 10 rows, 5500 in the previous backup"), "{seen:#?}");
    assert!(said(1).contains(&good), "{seen:#?}");
    assert!(!said(2).contains("SUSPICIOUS"), "{seen:#?}");
    reader.does("Verify", &[]);
}

#[test]
fn what_is_late_is_found_and_made_up_for_by_the_page() {
    let (_cluster, sandbox) =
        site("[schedule]\nrestore_test = \"off\"\nhealth_check = \"off\"\ngrace = \"1h\"\n");
    for command in ["backup", "verify-backup"] {
        Run::of(&mut by_another_clock(&sandbox.command(&[command]), "-3d")).ends_with(0);
    }
    let reader = Reader::of("status", &sandbox);
    reader.does("Check", &[("opsctl status", But::Ends(3))]);
    reader.does("Act", &[]);
    reader.does("Verify", &[]);
}

#[test]
fn what_is_lost_comes_back_in_every_way_of_the_page() {
    let (cluster, sandbox) = site("");
    cluster.sql("postgres", "CREATE ROLE app");
    cluster.sql("postgres", "CREATE DATABASE members_staging TEMPLATE template0");
    cluster.sql("members", "ALTER TABLE dues OWNER TO app");
    let id = sandbox.back_up(&[]);
    cluster.sql("members", "DELETE FROM dues");
    sandbox.write("names.sql", "UPDATE members SET name = 'somebody'");
    let new = Cluster::start(&installed(), &[], &[]);
    // Its tables are there and empty.
    let empty = ["restore", "--schema-only", "--no-owner", "--to", &new.url("members_empty")];
    sandbox.run(&empty).ends_with(0);
    let reader = Reader::of("restore", &sandbox)
        .with("--backup ID", &format!("--backup {id}"))
        .with("members/ID", &format!("members/{id}"))
        .with("/var/backups/opsctl", sandbox.path("backups").to_str().unwrap())
        .with("postgresql://postgres@new.example.com/members_empty", &new.url("members_empty"))
        .with("postgresql://postgres@new.example.com/members", &new.url("members"));
    reader.does("Check", &[]);
    let seen = reader.does("Act", &[]);
    let count = |cluster: &Cluster, database: &str, table: &str| {
        cluster.sql(database, &format!("SELECT count(*) FROM {table}"))
    };
    for database in ["members", "members_copy", "members_dues", "restored"] {
        assert_eq!(count(&cluster, database, "dues"), "500", "{database}");
    }
    for database in ["members", "members_empty"] {
        assert_eq!(count(&new, database, "dues"), "500", "{database}");
    }
    let owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'dues'";
    assert_eq!(new.sql("members", owner), "app");
    let names = "SELECT DISTINCT name FROM members";
    assert_eq!(cluster.sql("members_staging", names), "somebody");
    let kept = seen.iter().find_map(|run| {
        let (_, rest) = run.stdout.split_once("kept as `")?;
        Some(rest.split('`').next().unwrap().to_owned())
    });
    let kept = kept.unwrap();
    assert_eq!(count(&cluster, &kept, "dues"), "0");
    reader.finds("members_before_20261121T021500Z-4f3a9c", &kept);
    reader.does("Verify", &[]);
    let gone = format!("SELECT count(*) FROM pg_database WHERE datname = '{kept}'");
    assert_eq!(cluster.sql("postgres", &gone), "0");
}
