//! `opsctl verify-backup --restore-test`: a good backup is proven, and what only a comparison of content can see is seen.

use crate::support::broken::{add_up, sha256};
use crate::support::every_object::{EveryObject, on_17, on_18, on_installed, only_backup};
use crate::support::{Cluster, Run, Sandbox};

/// Proves a backup of every object.
fn proves_every_object(every: &EveryObject) {
    let sandbox = every.sandbox("");
    {
        let _alone = every.alone();
        sandbox.run(&["backup"]).ends_with(0);
    }
    let report = sandbox.json(0, &["verify-backup", "--restore-test", "--jobs", "4"]);
    let proven = &report["verifications"][0];
    assert_eq!((&proven["good"], &proven["depth"]), (&true.into(), &"restored".into()), "{report}");
    let restore = &proven["restore"];
    assert!(restore["rows"].as_u64().unwrap() > 20_000, "{restore}");
    assert!(restore["objects"].as_u64().unwrap() > 100, "{restore}");
    assert!(restore["large_objects"].as_u64().unwrap() > 1000, "{restore}");
    assert_eq!(restore["amcheck"], true, "{restore}");

    let evidence = sandbox.json(0, &["verify-backup", "report", "--since", "1d"]);
    let backups = &evidence["evidence"][0]["backups"];
    assert_eq!(backups[0]["verifications"][0]["restore"]["rows"], restore["rows"], "{evidence}");
    let report = sandbox.run(&["verify-backup", "report"]).expect(0);
    assert!(report.stdout.contains("Of 1 backups 1 were restored and equal"), "{}", report.stdout);
    assert!(report.stdout.contains("| restored | good | "), "{}", report.stdout);
}

#[test]
fn every_object_of_the_installed_major_is_proven() {
    proves_every_object(on_installed());
}

#[test]
fn every_object_of_17_is_proven() {
    proves_every_object(on_17());
}

#[test]
fn every_object_of_18_is_proven() {
    proves_every_object(on_18());
}

/// A backup whose table of contents is going to be changed, all sums with it.
struct Forged {
    sandbox: Sandbox,
    folder: std::path::PathBuf,
}

impl Forged {
    fn new() -> Forged {
        let cluster = Cluster::shared();
        let database = cluster.database();
        let sql = "CREATE TABLE one (a int, b int); INSERT INTO one SELECT i, -i FROM generate_series(1, 1000) i;
             CREATE TABLE two (a int, b int); INSERT INTO two SELECT 2 * i, i FROM generate_series(1, 1000) i;
             CREATE INDEX ON one (b); CREATE SEQUENCE numbers; SELECT setval('numbers', 4711); SELECT lo_from_bytea(0, 'x')";
        cluster.sql(&database, sql);
        let sandbox = Sandbox::new(&cluster.url(&database));
        sandbox.back_up(&["--compression", "none"]);
        let folder = only_backup(&sandbox.path("backups"));
        Forged { sandbox, folder }
    }

    /// Replaces texts of equal length in the table of contents, and everything that would tell.
    fn forge(&self, changes: &[(&str, &str)]) {
        let path = self.folder.join("toc.dat");
        let mut toc = std::fs::read(&path).unwrap();
        for (from, to) in changes {
            assert_eq!(from.len(), to.len());
            let at = toc.windows(from.len()).position(|w| w == from.as_bytes());
            let at = at.unwrap_or_else(|| panic!("`{from}` is not in the table of contents"));
            toc[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
        std::fs::write(&path, &toc).unwrap();
        let path = self.folder.join("manifest.json");
        let mut manifest: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let artifacts = manifest["artifacts"].as_array_mut().unwrap();
        let artifact = artifacts.iter_mut().find(|a| a["name"] == "toc.dat").unwrap();
        artifact["sha256"] = sha256(&toc).into();
        artifact["chunks"][0]["sha256"] = sha256(&toc).into();
        add_up(&mut manifest);
        let json = serde_json::to_vec_pretty(&manifest).unwrap();
        let artifacts = manifest["artifacts"].as_array().unwrap().iter();
        let lines = artifacts.map(|a| {
            format!("{}  {}\n", a["sha256"].as_str().unwrap(), a["name"].as_str().unwrap())
        });
        let sums: String = lines.chain([format!("{}  manifest.json\n", sha256(&json))]).collect();
        std::fs::write(self.folder.join("SHA256SUMS"), sums).unwrap();
        std::fs::write(path, json).unwrap();
    }

    /// Asserts that reading alone sees nothing, and a restore test finds exactly this.
    #[track_caller]
    fn is_found_by_restoring(&self, findings: &[&str]) {
        self.sandbox.run(&["verify-backup"]).ends_with(0);
        let Run { stdout, .. } = self.sandbox.run(&["verify-backup", "--restore-test"]).expect(3);
        let found: Vec<&str> = stdout.lines().skip(1).map(str::trim_start).collect();
        assert_eq!(found, findings);
    }
}

#[test]
fn two_tables_that_were_swapped_are_found() {
    let backup = Forged::new();
    backup.forge(&[
        ("COPY public.one (a", "COPY public.TWO (a"),
        ("COPY public.two (a", "COPY public.one (a"),
        ("COPY public.TWO (a", "COPY public.two (a"),
    ]);
    backup.is_found_by_restoring(&[
        "after a restore, the 1000 rows of table public.one are not those that were dumped: the digest differs",
        "after a restore, the 1000 rows of table public.two are not those that were dumped: the digest differs",
    ]);
}

#[test]
fn values_in_another_column_are_found() {
    let backup = Forged::new();
    backup.forge(&[("COPY public.two (a, b)", "COPY public.two (b, a)")]);
    backup.is_found_by_restoring(&[
        "after a restore, the 1000 rows of table public.two are not those that were dumped: the digest differs",
    ]);
}

#[test]
fn doubled_and_missing_rows_are_found() {
    let backup = Forged::new();
    backup.forge(&[("COPY public.two (a", "COPY public.one (a")]);
    backup.is_found_by_restoring(&[
        "after a restore, table public.one has 2000 rows where 1000 were dumped",
        "after a restore, table public.two has 0 rows where 1000 were dumped",
    ]);
}

#[test]
fn a_sequence_that_is_behind_is_found() {
    let backup = Forged::new();
    backup.forge(&[("'public.numbers', 4711", "'public.numbers', 4710")]);
    backup.is_found_by_restoring(&[
        "after a restore, an object of kind SEQUENCE SET is not as it was dumped",
    ]);
}

#[test]
fn a_missing_index_is_found() {
    let backup = Forged::new();
    let create = "CREATE INDEX one_b_idx ON public.one USING btree (b);";
    backup.forge(&[(create, &format!("{:width$};", "SELECT 1", width = create.len() - 1))]);
    backup.is_found_by_restoring(&[
        "after a restore, there are 0 objects of kind INDEX where 1 were dumped",
    ]);
}

#[test]
fn what_pg_restore_refuses_is_a_finding() {
    let backup = Forged::new();
    let create = "CREATE INDEX one_b_idx ON public.one USING btree (b);";
    backup.forge(&[(create, &format!("{:width$};", "SELECT no_such()", width = create.len() - 1))]);
    let Run { stdout, .. } = backup.sandbox.run(&["verify-backup", "--restore-test"]).expect(3);
    assert!(
        stdout.contains("it cannot be restored: failed to restore section post-data"),
        "{stdout}"
    );
    assert!(stdout.contains("function no_such() does not exist"), "{stdout}");
}

#[test]
fn own_questions_are_asked() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE members AS SELECT i AS id FROM generate_series(1, 50) i");
    let sandbox = Sandbox::new(&cluster.url(&database));
    sandbox.back_up(&[]);
    let query = |name: &str, sql: &str, rest: &str| {
        format!("[[verify.query]]\nname = \"{name}\"\nsql = \"{sql}\"\n{rest}\n")
    };
    let good = query("members", "SELECT count(*) FROM members", "at_least = 50")
        + &query("elsewhere", "SELECT no_such", "equals = \"1\"\ndatabase = \"another\"");
    sandbox.write("opsctl.toml", &good);
    let report = sandbox.json(0, &["verify-backup", "--restore-test"]);
    assert_eq!(report["verifications"][0]["restore"]["queries"], 1, "{report}");

    let bad = query("few", "SELECT count(*) FROM members", "at_least = 51\nat_most = 60")
        + &query("two", "SELECT 1, 2", "equals = \"1\"")
        + &query("broken", "SELECT no_such", "equals = \"1\"")
        + &query("writes", "DELETE FROM members RETURNING id", "equals = \"1\"");
    sandbox.write("opsctl.toml", &bad);
    let Run { stdout, .. } = sandbox.run(&["verify-backup", "--restore-test"]).expect(3);
    for finding in [
        "query `few` gives `50` where at least 51 and at most 60 is expected",
        "query `two` does not return one row of one value",
        "query `broken` fails: failed to ask: ERROR: column \"no_such\" does not exist",
        "query `writes` fails: failed to ask: ERROR: cannot execute DELETE in a read-only transaction",
    ] {
        assert!(stdout.contains(&format!("after a restore, {finding}")), "{finding}: {stdout}");
    }
    sandbox.write("opsctl.toml", "[[verify.query]]\nname = \"x\"\nsql = \"SELECT 1\"\n");
    let run = sandbox.run(&["verify-backup"]).expect(10);
    assert!(run.stderr.contains("opsctl.toml:1: [[verify.query]] needs `equals`"), "{run:#?}");
}
