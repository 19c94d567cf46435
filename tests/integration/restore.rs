//! `opsctl restore`: what comes out is the source, and what was there before is never in danger.

use std::path::Path;

use crate::support::broken::Broken;
use crate::support::every_object::{
    EveryObject, assert_same, content, on_17, on_18, on_installed, only_backup, restore,
};
use crate::support::{Cluster, Sandbox, unique};

/// Restores every object by opsctl under a new name, and compares with the source.
fn restores_every_object(every: &EveryObject, options: &[&str]) {
    let sandbox = every.sandbox("");
    {
        let _alone = every.alone();
        sandbox.run(&[&["backup"], options].concat()).ends_with(0);
    }
    let name = format!("restored_{}", unique());
    let report = sandbox.json(0, &["restore", "--create", &name, "--jobs", "4"]);
    assert!(report["restored"]["rows"].as_u64().unwrap() > 20_000, "{report}");
    every.assert_equals(&name);
    forget(&every.cluster, &name);
}

/// Drops a restored database, which may have a subscription.
fn forget(cluster: &Cluster, name: &str) {
    let subscription = "ALTER SUBSCRIPTION opsctl_fx_sub DISABLE; \
        ALTER SUBSCRIPTION opsctl_fx_sub SET (slot_name = NONE); DROP SUBSCRIPTION opsctl_fx_sub";
    for statement in subscription.split("; ") {
        cluster.sql(name, statement);
    }
    cluster.sql("postgres", &format!("DROP DATABASE {name}"));
}

#[test]
fn every_object_of_the_installed_major_is_restored() {
    restores_every_object(on_installed(), &[]);
}

#[test]
fn every_object_of_17_is_restored() {
    restores_every_object(on_17(), &[]);
}

#[test]
fn every_object_of_18_is_restored_from_plain_files() {
    restores_every_object(on_18(), &["--compression", "none"]);
}

#[test]
fn every_object_of_the_installed_major_is_restored_into_18() {
    let (old, new) = (on_installed(), on_18());
    let sandbox = old.sandbox("");
    {
        let _alone = old.alone();
        sandbox.run(&["backup"]).ends_with(0);
    }
    let name = format!("restored_{}", unique());
    sandbox.run(&["restore", "--to", &new.cluster.url(&name)]).ends_with(0);
    // Each version prints views in its own way: what stock pg_restore makes of the same backup is the measure.
    let by_stock = restore(&new.cluster, &only_backup(&sandbox.path("backups")), &["-j4"]);
    assert_same(&content(&new.cluster, &by_stock, &[]), &content(&new.cluster, &name, &[]));
    forget(&new.cluster, &by_stock);
    forget(&new.cluster, &name);
}

#[test]
fn a_directory_for_stock_pg_restore_is_laid_out() {
    let every = on_installed();
    let sandbox = every.sandbox("");
    {
        let _alone = every.alone();
        sandbox.run(&["backup"]).ends_with(0);
    }
    sandbox.run(&["restore", "--to-dir", "laid"]).ends_with(0);
    let restored = restore(&every.cluster, &sandbox.path("laid"), &["-j4"]);
    every.assert_equals(&restored);
    forget(&every.cluster, &restored);
    let again = sandbox.run(&["restore", "--to-dir", "laid"]).expect(1);
    assert!(again.stderr.contains("is not empty"), "{again:#?}");
}

/// A database with a backup, which has changed since.
struct Scene {
    cluster: &'static Cluster,
    database: String,
    sandbox: Sandbox,
}

impl Scene {
    fn new() -> Scene {
        let cluster = Cluster::shared();
        let database = cluster.database();
        let sql = "CREATE TABLE members (id int PRIMARY KEY, name text);
             INSERT INTO members SELECT i, 'name ' || i FROM generate_series(1, 5000) i;
             CREATE SEQUENCE numbers; SELECT setval('numbers', 4711); SELECT lo_from_bytea(0, 'content')";
        cluster.sql(&database, sql);
        let settings = format!(
            "ALTER DATABASE {database} SET work_mem = '7MB'; COMMENT ON DATABASE {database} IS 'ours; DATABASE {database}'"
        );
        for statement in settings.split("; COMMENT").map(|s| s.replace(" ON", "COMMENT ON")) {
            cluster.sql("postgres", &statement);
        }
        let sandbox = Sandbox::new(&cluster.url(&database));
        sandbox.back_up(&[]);
        cluster.sql(&database, "UPDATE members SET name = 'ruined'");
        Scene { cluster, database, sandbox }
    }

    fn names(&self, database: &str) -> String {
        self.cluster.sql(database, "SELECT count(DISTINCT name) FROM members")
    }

    /// Returns the databases whose names begin with that of the scene's, or are of unfinished restores.
    fn databases(&self) -> Vec<String> {
        let sql = format!(
            "SELECT datname FROM pg_database WHERE datname LIKE '{}%' ORDER BY 1",
            self.database.replace('_', "\\_") + "\\_"
        );
        self.cluster.sql("postgres", &sql).lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_database_is_replaced_and_the_old_one_kept() {
    let scene = Scene::new();
    let Scene { cluster, database, sandbox } = &scene;
    let before = scene.names(database);
    let mut idle = cluster.program("psql");
    let idle = idle.args(["-XAtq", "-d", database, "-c", "SELECT pg_sleep(600)"]);
    let mut idle = idle.stderr(std::process::Stdio::null()).spawn().unwrap();
    while cluster.sql(
        "postgres",
        &format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'"),
    ) == "0"
    {}

    let plan = sandbox.run(&["restore", "--replace", database, "--dry-run"]).expect(0);
    assert!(plan.stdout.contains("It would take the place of"), "{plan:#?}");
    assert!(plan.stdout.contains("1 session would be ended:\n  postgres (psql) from"), "{plan:#?}");
    assert_eq!(scene.names(database), before);

    let report = sandbox.json(0, &["restore", "--replace", database]);
    assert_eq!(scene.names(database), "5000");
    let kept = report["kept"].as_str().unwrap();
    assert!(kept.starts_with(&format!("{database}_before_2")), "{kept}");
    assert_eq!(scene.names(kept), before);
    assert_eq!(scene.databases(), [kept]);
    assert!(!idle.wait().unwrap().success(), "the session was not ended");
    let settings = format!(
        "SELECT setconfig::text || shobj_description(d.oid, 'pg_database') || coalesce(datacl::text, '') \
         FROM pg_database d JOIN pg_db_role_setting s ON s.setdatabase = d.oid WHERE datname = '{database}'"
    );
    let expected = format!("{{work_mem=7MB}}ours; DATABASE {database}");
    assert!(cluster.sql("postgres", &settings).starts_with(&expected));

    sandbox.run(&["restore", "--replace", database, "--drop-old"]).ends_with(0);
    assert_eq!(scene.databases(), [kept], "only what was asked for is dropped");
}

#[test]
fn nothing_is_overwritten_unless_it_is_named() {
    let scene = Scene::new();
    let Scene { database, sandbox, .. } = &scene;
    let run = sandbox.run(&["restore", "--create", database]).expect(1);
    assert!(run.stderr.contains("is there, and not empty"), "{run:#?}");
    let run = sandbox.run(&["restore", "--replace", "no_such"]).expect(1);
    assert!(run.stderr.contains("there is no database `no_such` to replace"), "{run:#?}");
    let run = sandbox.run(&["restore", "--create", "template1"]).expect(1);
    assert!(run.stderr.contains("belongs to the server"), "{run:#?}");
    sandbox.run(&["restore"]).ends_with(2);
    assert_eq!(scene.names(database), "1");
    assert_eq!(scene.databases(), [""; 0]);
}

#[test]
fn a_damaged_backup_is_not_restored_and_leaves_nothing() {
    let backup = Broken::new();
    let name = backup.table("members");
    crate::support::broken::flip(&backup.path(&name), 5000);
    let cluster = Cluster::shared();
    let target = format!("restored_{}", unique());
    let run = backup.sandbox.run(&["restore", "--create", &target]).expect(3);
    assert!(run.stderr.contains(&format!("artifact `{name}`, chunk ")), "{run:#?}");
    assert!(run.stderr.contains("its SHA-256 differs"), "{run:#?}");
    let left = format!("SELECT count(*) FROM pg_database WHERE datname = '{target}'");
    assert_eq!(cluster.sql("postgres", &left), "0");
}

#[test]
fn a_killed_restore_leaves_the_old_database_and_the_next_run_cleans_up() {
    let scene = Scene::new();
    let Scene { cluster, database, sandbox } = &scene;
    let before = scene.names(database);
    let mut child = sandbox
        .command(&["restore", "--replace", database])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let unfinished = "SELECT count(*) FROM pg_database WHERE datname LIKE 'opsctl\\_restore\\_%'";
    while cluster.sql("postgres", unfinished) == "0" {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(scene.names(database), before);
    sandbox.run(&["restore", "--replace", database]).ends_with(0);
    assert_eq!(scene.names(database), "5000");
}

#[test]
fn an_encrypted_backup_is_restored_with_its_identity() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i");
    let sandbox = Sandbox::new(&cluster.url(&database));
    let key = crate::support::stock(&mut std::process::Command::new("age-keygen"));
    let recipient = key.lines().find_map(|l| l.strip_prefix("# public key: ")).unwrap().to_owned();
    sandbox.write("key.txt", &key);
    let repository = format!(
        "[repositories.r]\nlocation = \"{}\"\nrecipients = [\"{recipient}\"]\n",
        sandbox.path("backups").display()
    );
    let config = sandbox.write("opsctl.toml", &repository);
    let config = config.to_str().unwrap();
    sandbox.run(&["backup", "--config", config, "--repository", "r"]).ends_with(0);
    let name = format!("restored_{}", unique());
    let args = ["restore", "--config", config, "--repository", "r", "--create", &name];
    let run = sandbox.run(&args).expect(10);
    assert!(run.stderr.contains("is encrypted"), "{run:#?}");
    sandbox.run(&[&args[..], &["--identity", "key.txt"]].concat()).ends_with(0);
    assert_same_as(cluster, &database, &name);
    sandbox
        .run(&[&args[..5], &["--to-dir", "laid", "--identity", "key.txt"]].concat())
        .ends_with(0);
    let stock = restore(cluster, Path::new(&sandbox.path("laid")), &[]);
    assert_same_as(cluster, &database, &stock);
}

fn assert_same_as(cluster: &Cluster, one: &str, other: &str) {
    assert_same(&content(cluster, one, &[]), &content(cluster, other, &[]));
}
