//! `opsctl verify-backup --restore-test`: a good backup is proven, and what only a comparison of content can see is seen.

use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;

use crate::support::broken::{add_up, flip, sha256, table};
use crate::support::every_object::{EveryObject, on_16, on_17, on_18, on_installed, only_backup};
use crate::support::running::{Running, eventually};
use crate::support::{Cluster, Run, Sandbox, installed, unique};

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
    let has = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'amcheck')";
    let has = every.cluster.sql(&every.database, has) == "t";
    assert_eq!(restore["amcheck"], has, "{restore}");

    let evidence = sandbox.json(0, &["verify-backup", "report", "--since", "1d"]);
    let backups = &evidence["evidence"][0]["backups"];
    assert_eq!(backups[0]["verifications"][0]["restore"]["rows"], restore["rows"], "{evidence}");
    let report = sandbox.run(&["verify-backup", "report"]).expect(0);
    assert!(report.stdout.contains("Of 1 backup, restored and equal: 1;"), "{}", report.stdout);
    assert!(report.stdout.contains("| restored | good | "), "{}", report.stdout);
}

#[test]
fn every_object_of_the_installed_major_is_proven() {
    proves_every_object(on_installed());
}

#[test]
fn every_object_of_the_installed_major_is_proven_in_two_pieces() {
    let every = on_installed();
    let sandbox = every.sandbox("");
    {
        let _alone = every.alone();
        sandbox.run(&["backup"]).ends_with(0);
    }
    let mut sums = [0; 2];
    for _ in 0..2 {
        let args = ["verify-backup", "--restore-test", "--sample", "50%", "--jobs", "4"];
        let restore = &sandbox.json(0, &args)["verifications"][0]["restore"];
        for (sum, figure) in sums.iter_mut().zip(["rows", "large_objects"]) {
            *sum += restore[figure].as_u64().unwrap();
        }
    }
    let whole = &sandbox.json(0, &["verify-backup", "--restore-test"])["verifications"][0];
    let expected = ["rows", "large_objects"].map(|name| whole["restore"][name].as_u64().unwrap());
    assert_eq!(sums, expected);
}

#[test]
fn every_object_of_the_installed_major_is_proven_on_a_server_of_18() {
    let (every, server) = (on_installed(), &on_18().cluster);
    let sandbox = every.sandbox("");
    {
        let _alone = every.alone();
        sandbox.run(&["backup"]).ends_with(0);
    }
    let facts = "SELECT string_agg(rolname, ' ' ORDER BY 1) FROM pg_roles";
    let before = server.sql("postgres", facts);
    let url = server.url("postgres");
    // The programs must be those of the server, which is known before hours of work.
    let run = sandbox.run(&["verify-backup", "--restore-test", "--server", &url]).expect(10);
    assert!(run.stderr.contains("of version 18 in"), "{run:#?}");
    assert!(!run.stderr.contains("loading rows"), "{run:#?}");
    let config = std::fs::read_to_string(sandbox.path("opsctl.toml")).unwrap();
    let dir = |cluster: &Cluster| cluster.bin_dir.display().to_string();
    sandbox.write("opsctl.toml", &config.replace(&dir(&every.cluster), &dir(server)));
    let report = sandbox.json(0, &["verify-backup", "--restore-test", "--server", &url]);
    let restore = &report["verifications"][0]["restore"];
    assert!(restore["server"].as_str().unwrap().starts_with("18"), "{restore}");
    assert_eq!(server.sql("postgres", facts), before);
}

#[test]
fn every_object_of_16_is_proven() {
    proves_every_object(on_16());
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
        "after a restore, there are 0 objects of kind INDEX where 1 were dumped: public.one_b_idx is missing",
    ]);
}

#[test]
fn a_server_that_is_given_is_left_as_it_was_and_production_is_refused() {
    let cluster = Cluster::start(&installed(), &[], &[]);
    let (database, role) = (cluster.database(), format!("owner_{}", unique()));
    cluster.sql(
        &database,
        &format!(
            "CREATE ROLE {role}; CREATE TABLE t AS SELECT 1 AS i; ALTER TABLE t OWNER TO {role}"
        ),
    );
    let sandbox = Sandbox::new(&cluster.url(&database));
    sandbox.back_up(&[]);
    let facts = "SELECT (SELECT string_agg(datname, ' ' ORDER BY 1) FROM pg_database), \
                 (SELECT string_agg(rolname, ' ' ORDER BY 1) FROM pg_roles)";
    let test = |url: &str, more: &[&str]| {
        sandbox.run(&[&["verify-backup", "--restore-test", "--server", url], more].concat())
    };
    let before = cluster.sql("postgres", facts);
    // By another way than the configured one.
    let production = format!("{}&application_name=x", cluster.url("template1"));
    let run = test(&production, &[]).expect(1);
    assert!(run.stderr.contains(&format!("is the server of database `{database}`")), "{run:#?}");
    assert!(run.stderr.contains("--on-production allows it"), "{run:#?}");
    test(&production, &["--on-production"]).ends_with(0);
    assert_eq!(cluster.sql("postgres", facts), before);

    let other = Cluster::start(&installed(), &[], &[]);
    let before = other.sql("postgres", facts);
    let run = test(&other.url("postgres"), &[]).expect(0);
    assert!(run.stdout.contains("everything equal to what was dumped"), "{run:#?}");
    assert_eq!(other.sql("postgres", facts), before);

    // What it refuses is not the backup's fault: it is neither damaged nor good.
    other.sql("postgres", "CREATE ROLE limited LOGIN CREATEDB; CREATE ROLE app");
    let limited = other.url("postgres").replace("user=postgres", "user=limited");
    let run = test(&limited, &[]).expect(1);
    assert!(!run.stdout.contains("DAMAGED"), "{run:#?}");
    assert!(sandbox.run(&["backup", "list"]).expect(0).stdout.contains("good "));
}

/// Interrupts a restore test while rows are loaded; returns its status and what it left in its temporary directory.
fn interrupted(signal: Signal) -> (i32, Vec<String>) {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let sql =
        "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 60000) i";
    cluster.sql(&database, sql);
    let mut sandbox = Sandbox::new(&cluster.url(&database));
    sandbox.back_up(&["--compression", "none"]);
    // Short, for a socket lies in it, and open to the user that the server runs as.
    let mut dir = tempfile::Builder::new();
    let dir = dir.prefix("t").permissions(PermissionsExt::from_mode(0o755)).tempdir_in("/tmp");
    let dir = dir.unwrap();
    sandbox.set("TMPDIR", dir.path().to_str().unwrap());
    let running = Running::start(&sandbox, &["verify-backup", "--restore-test", "--jobs", "1"]);
    let left = || -> Vec<String> {
        let entries = std::fs::read_dir(dir.path()).unwrap().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    };
    // pg_restore's table of contents is there: the server is up and restoring has begun.
    eventually("the restore", || {
        assert!(!running.is_over(), "it ended before it was interrupted");
        left().iter().any(|name| name.starts_with("opsctl-restore-")).then_some(())
    });
    let data = left().into_iter().find(|name| name.starts_with("opsctl-pg-")).unwrap();
    let pid = dir.path().join(data).join("data/postmaster.pid");
    let pid = std::fs::read_to_string(pid).unwrap().lines().next().unwrap().to_owned();
    running.signal(signal);
    let run = running.end();
    let server = std::path::PathBuf::from(format!("/proc/{pid}"));
    eventually("the end of the server", || (!server.exists()).then_some(()));
    (run.status, left())
}

#[test]
fn an_interrupted_restore_test_leaves_no_server_and_no_file() {
    assert_eq!(interrupted(Signal::INT), (130, Vec::new()));
    assert_eq!(interrupted(Signal::TERM), (143, Vec::new()));
}

#[test]
fn the_server_of_a_killed_restore_test_ends() {
    assert_eq!(interrupted(Signal::KILL).0, 137);
}

#[test]
fn a_backup_is_proven_piece_by_piece() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let sql = "CREATE TABLE large (id int PRIMARY KEY, up int, text text);
         INSERT INTO large SELECT i, i / 2, repeat(md5(i::text), 30) FROM generate_series(0, 20000) i;
         ALTER TABLE large ADD FOREIGN KEY (up) REFERENCES large;
         COMMENT ON CONSTRAINT large_up_fkey ON large IS 'x';
         DO $$ BEGIN FOR i IN 1..15 LOOP EXECUTE format('CREATE TABLE empty_%s ()', i); END LOOP; END $$;
         CREATE MATERIALIZED VIEW ratio AS SELECT 1 / (count(*) / 20001) FROM large";
    cluster.sql(&database, sql);
    let sandbox = Sandbox::new(&cluster.url(&database));
    sandbox.back_up(&["--compression", "none", "--jobs", "16"]);
    let mut rows = Vec::new();
    let sample = |status| {
        sandbox.json(status, &["verify-backup", "--restore-test", "--sample", "34%"])
            ["verifications"][0]
            .clone()
    };
    for piece in 1..=4 {
        let proven = sample(0);
        assert_eq!(proven["sample"]["piece"], (piece - 1) % 3 + 1, "{proven}");
        assert_eq!(proven["sample"]["proven"].as_array().unwrap().len(), piece.min(3), "{proven}");
        assert_eq!(proven["restore"]["rows"], proven["rows"], "{proven}");
        rows.push(proven["rows"].as_u64().unwrap());
    }
    assert_eq!(rows[..3].iter().sum::<u64>(), 20_001, "{rows:?}");
    assert!(rows.iter().all(|n| (1..19_000).contains(n)) && rows[0] == rows[3], "{rows:?}");
    let report = sandbox.run(&["verify-backup", "report"]).expect(0).stdout;
    assert!(report.contains("| restored, piece 1 of 3 | good | – |"), "{report}");
    assert!(
        report.contains("Piece by piece (restored): all 3 pieces were proven since"),
        "{report}"
    );
    assert!(report.contains("restored and equal: 0;"), "{report}");

    // One of the pieces has the damage; and what is found damaged in a piece stays so.
    let folder = only_backup(&sandbox.path("backups"));
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    flip(&folder.join(table(&manifest, "large")), 1000);
    let mut results = [(); 2].map(|()| sandbox.run(&["verify-backup", "--sample", "50"]).status);
    results.sort_unstable();
    assert_eq!(results, [0, 3]);
    assert!(sandbox.run(&["backup", "list"]).expect(0).stdout.contains("DAMAGED "));
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
