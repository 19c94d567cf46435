//! A backup that is suddenly much smaller than the one before it.

use crate::support::{Cluster, Sandbox};

/// Returns a database of 1,000 rows, with one backup, kept by `keep_last = 1`.
fn backed_up() -> (Sandbox, String) {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n");
    let mut sandbox = Sandbox::new("unused");
    sandbox.unset("DATABASE_URL").unset("OPSCTL_REPOSITORY");
    let repository = "[repository]\nlocation = \"backups\"\nretention = { keep_last = 1 }\n";
    let url = cluster.url(&database);
    sandbox.write("opsctl.toml", &format!("[database]\nurl = \"{url}\"\n{repository}"));
    sandbox.back_up(&["--now", "2020-03-01T02:00:00Z"]);
    (sandbox, database)
}

fn stored(sandbox: &Sandbox, database: &str) -> usize {
    std::fs::read_dir(sandbox.path("backups").join(database)).unwrap().count()
}

#[test]
fn half_of_the_rows_gone_is_a_warning() {
    let (sandbox, database) = backed_up();
    Cluster::shared().sql(&database, "DELETE FROM t WHERE n > 499");
    let run = sandbox.run(&["backup"]).expect(0);
    assert!(
        run.stdout
            .contains("; SUSPICIOUS: 499 rows, 1000 in the previous backup 20200301T020000Z-"),
        "{run:#?}"
    );
    assert!(
        run.stderr.contains(" WARN ") && run.stderr.contains(" is suspicious: 499 rows, "),
        "{run:#?}"
    );
    assert_eq!(stored(&sandbox, &database), 1, "retention goes on");
    Cluster::shared().sql(&database, "TRUNCATE t");
    let report = sandbox.json(0, &["backup"]);
    let suspicions = report["databases"][0]["repositories"][0]["suspicions"].as_array().unwrap();
    assert!(
        suspicions[0].as_str().unwrap().starts_with("0 rows, 499 in the previous backup "),
        "{report:#}"
    );
}

#[test]
fn a_third_of_the_rows_gone_is_normal() {
    let (sandbox, database) = backed_up();
    Cluster::shared().sql(&database, "DELETE FROM t WHERE n > 666");
    let run = sandbox.run(&["backup", "--fail-on-shrink"]).expect(0);
    assert!(!run.stdout.contains("SUSPICIOUS") && !run.stderr.contains("suspicious"), "{run:#?}");
}

#[test]
fn with_fail_on_shrink_it_is_bad_news_and_nothing_is_removed() {
    let (sandbox, database) = backed_up();
    Cluster::shared().sql(&database, "TRUNCATE t");
    let run = sandbox.run(&["backup", "--fail-on-shrink"]).expect(3);
    assert!(run.stdout.contains("; SUSPICIOUS: 0 rows, 1000 in the previous backup "), "{run:#?}");
    assert!(
        run.stderr.contains("nothing is removed, because the backup is suspicious"),
        "{run:#?}"
    );
    assert_eq!(stored(&sandbox, &database), 2);
}

#[test]
fn the_second_empty_backup_is_as_suspicious_as_the_first_until_somebody_accepts_it() {
    let (sandbox, database) = backed_up();
    Cluster::shared().sql(&database, "TRUNCATE t");
    for _ in 0..2 {
        let run = sandbox.run(&["backup", "--fail-on-shrink"]).expect(3);
        assert!(
            run.stdout.contains("0 rows, 1000 in the previous backup 20200301T020000Z-"),
            "{run:#?}"
        );
        assert!(run.stderr.contains("--accept-shrink"), "{run:#?}");
    }
    assert_eq!(stored(&sandbox, &database), 3, "the good one is still there");
    sandbox.run(&["backup", "--fail-on-shrink", "--accept-shrink"]).ends_with(0);
    sandbox.run(&["backup", "--fail-on-shrink"]).ends_with(0);
    assert_eq!(stored(&sandbox, &database), 1, "retention goes on");
}

#[test]
fn a_database_without_tables_is_suspicious() {
    let cluster = Cluster::shared();
    let sandbox = Sandbox::new(&cluster.url(&cluster.database()));
    let run = sandbox.run(&["backup"]).expect(0);
    let words = "there is no table in it: is this the right database?";
    assert!(run.stdout.contains(&format!("; SUSPICIOUS: {words}")), "{run:#?}");
    assert!(run.stderr.contains(words), "{run:#?}");
    sandbox.run(&["backup", "--fail-on-shrink"]).ends_with(3);
    sandbox.run(&["backup", "--schema-only", "--fail-on-shrink"]).ends_with(0);
}
