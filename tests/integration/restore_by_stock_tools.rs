//! What `opsctl backup` writes into a directory is restored by stock `pg_restore`, and is equal to the source.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::support::every_object::{
    EveryObject, assert_same, content, on_17, on_18, on_installed, only_backup, restore,
};
use crate::support::{Cluster, Sandbox, stock};

/// Backs every object up with `options`, restores it with `jobs`, and compares.
fn restores_every_object(every: &EveryObject, options: &[&str], restore_options: &[&str]) {
    let sandbox = every.sandbox("");
    {
        let _alone = every.alone();
        sandbox.run(&[&["backup", "--jobs", "8"], options].concat()).ends_with(0);
    }
    sandbox.run(&["verify-backup"]).ends_with(0);
    let folder = only_backup(&sandbox.path("backups"));
    let restored = restore(&every.cluster, &folder, restore_options);
    every.assert_equals(&restored);
    rows_are_those_of_the_manifest(&every.cluster, &every.database, &folder);
    every.cluster.sql(
        &restored,
        "ALTER SUBSCRIPTION opsctl_fx_sub DISABLE; DROP SUBSCRIPTION opsctl_fx_sub",
    );
    every.cluster.sql("postgres", &format!("DROP DATABASE {restored}"));
}

fn manifest(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).unwrap()).unwrap()
}

/// Compares the manifest's row counts with those of the server.
fn rows_are_those_of_the_manifest(cluster: &Cluster, database: &str, folder: &Path) {
    let manifest = manifest(folder);
    let tables = manifest["contents"]["open"]["tables"].as_object().unwrap();
    let quote = |name: &Value| format!("\"{}\"", name.as_str().unwrap().replace('"', "\"\""));
    let mut counted = BTreeMap::new();
    for table in tables.values() {
        let name = format!("{}.{}", quote(&table["schema"]), quote(&table["name"]));
        counted.insert(name, table["rows"].as_u64().unwrap());
    }
    assert_eq!(counted.len(), tables.len());
    let filter = "WHERE NOT is_builtin AND name <> 'it''s'";
    let count = |name: &String| {
        let filter = if name.contains("settings") { filter } else { "" };
        format!("SELECT count(*) FROM ONLY {name} {filter}")
    };
    let sql: Vec<String> = counted.keys().map(count).collect();
    let answer = cluster.sql(database, &sql.join(" UNION ALL "));
    let found: Vec<u64> = answer.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(counted.values().copied().collect::<Vec<_>>(), found, "{:?}", counted.keys());
    let total: u64 = found.iter().sum();
    assert_eq!(manifest["totals"]["rows"].as_u64(), Some(total));
}

#[test]
fn every_object_of_the_installed_major_is_restored_from_gzip() {
    restores_every_object(on_installed(), &["--compression", "gzip:6"], &["-j4"]);
}

#[test]
fn every_object_of_the_installed_major_is_restored_from_plain_files_in_one_process() {
    restores_every_object(on_installed(), &["--compression", "none"], &["-j1"]);
}

#[test]
fn every_object_of_17_is_restored_from_zstd() {
    restores_every_object(on_17(), &["--compression", "zstd:3"], &["-j4"]);
}

#[test]
fn every_object_of_17_is_restored_from_gzip_in_one_process() {
    restores_every_object(on_17(), &["--compression", "gzip:1"], &["-j1"]);
}

#[test]
fn every_object_of_18_is_restored_from_the_default_compression() {
    restores_every_object(on_18(), &[], &["-j4"]);
}

#[test]
fn every_object_of_18_is_restored_from_plain_files() {
    restores_every_object(on_18(), &["--compression", "none"], &["-j4"]);
}

/// Asserts that opsctl with `options` leaves out what pg_dump with the same options leaves out.
fn leaves_out_what_pg_dump_leaves_out(
    cluster: &Cluster,
    database: &str,
    options: &[&str],
) -> Sandbox {
    let sandbox = Sandbox::new(&cluster.url(database));
    sandbox.back_up(options);
    let by_opsctl = restore(cluster, &only_backup(&sandbox.path("backups")), &["-j4"]);
    let file = sandbox.path("pg_dump");
    stock(cluster.program("pg_dump").args(options).args(["-Fc", "-f"]).arg(&file).arg(database));
    let by_pg_dump = restore(cluster, &file, &[]);
    assert_same(&content(cluster, &by_pg_dump, &[]), &content(cluster, &by_opsctl, &[]));
    sandbox
}

/// Makes a database with some schemas that do not need each other.
fn some_schemas(cluster: &Cluster) -> String {
    let database = cluster.database();
    let sql = "
        CREATE TABLE members (id int PRIMARY KEY, name text); INSERT INTO members SELECT i, 'n' || i FROM generate_series(1, 500) i;
        CREATE TABLE audit_logs (id int, what text) PARTITION BY RANGE (id);
        CREATE TABLE audit_logs_1 PARTITION OF audit_logs FOR VALUES FROM (0) TO (50);
        CREATE TABLE audit_logs_2 PARTITION OF audit_logs FOR VALUES FROM (50) TO (200);
        INSERT INTO audit_logs SELECT i, 'w' FROM generate_series(1, 100) i;
        CREATE SCHEMA scratch; CREATE TABLE scratch.junk AS SELECT i FROM generate_series(1, 100) i;
        CREATE SCHEMA \"Odd \"\"one\"; CREATE TABLE \"Odd \"\"one\".\"t.t\" AS SELECT i FROM generate_series(1, 100) i;
        CREATE SEQUENCE scratch.numbers; SELECT nextval('scratch.numbers');
        SELECT lo_from_bytea(4711, 'a large object');";
    cluster.sql(&database, sql);
    database
}

#[test]
fn schema_only_leaves_out_all_rows() {
    let cluster = Cluster::shared();
    let database = some_schemas(cluster);
    let sandbox = leaves_out_what_pg_dump_leaves_out(cluster, &database, &["--schema-only"]);
    let manifest = manifest(&only_backup(&sandbox.path("backups")));
    assert_eq!(
        (&manifest["totals"]["rows"], &manifest["scope"]["schema_only"]),
        (&0.into(), &true.into())
    );
}

#[test]
fn the_rows_of_excluded_tables_are_left_out() {
    let cluster = Cluster::shared();
    let database = some_schemas(cluster);
    let options = ["--exclude-table-data", "audit_logs*", "--exclude-table-data", "*.\"t.t\""];
    let sandbox = leaves_out_what_pg_dump_leaves_out(cluster, &database, &options);
    assert_eq!(manifest(&only_backup(&sandbox.path("backups")))["totals"]["rows"], 600);
}

#[test]
fn excluded_schemas_are_left_out() {
    let cluster = Cluster::shared();
    let database = some_schemas(cluster);
    let options = ["--exclude-schema", "scratch", "--exclude-schema", "Odd*"];
    leaves_out_what_pg_dump_leaves_out(cluster, &database, &options);
    let options = ["--exclude-schema", "\"Odd \"\"one\""];
    let sandbox = leaves_out_what_pg_dump_leaves_out(cluster, &database, &options);
    assert_eq!(manifest(&only_backup(&sandbox.path("backups")))["totals"]["tables"], 4);
}

/// Backs a database up, restores it by pg_restore into a database made with `create`, and compares.
fn round_trip(cluster: &Cluster, database: &str, url: &str, create: &str) -> Sandbox {
    let sandbox = Sandbox::new(url);
    sandbox.back_up(&[]);
    let folder = only_backup(&sandbox.path("backups"));
    let name = format!("restored_{}", crate::support::unique());
    cluster.sql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0 {create}"));
    stock(
        cluster
            .program("pg_restore")
            .args(["--exit-on-error", "-j2", "--dbname", &name])
            .arg(&folder),
    );
    assert_same(&content(cluster, database, &[]), &content(cluster, &name, &[]));
    sandbox
}

#[test]
fn an_empty_database_is_restored() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let sandbox = round_trip(cluster, &database, &cluster.url(&database), "");
    assert_eq!(manifest(&only_backup(&sandbox.path("backups")))["totals"]["tables"], 0);
}

#[test]
fn a_latin1_database_is_restored() {
    let cluster = Cluster::shared();
    let database = format!("latin1_{}", crate::support::unique());
    let latin1 = "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'";
    cluster.sql("postgres", &format!("CREATE DATABASE {database} TEMPLATE template0 {latin1}"));
    let sql = "SET client_encoding = 'UTF8'; CREATE TABLE \"Größe\" (\"ü\" text); INSERT INTO \"Größe\" VALUES ('naïve café ÿ'), ('\\x');
               SELECT lo_from_bytea(0, '\\x00ff80')";
    cluster.sql(&database, sql);
    let sandbox = round_trip(cluster, &database, &cluster.url(&database), latin1);
    sandbox.run(&["verify-backup"]).ends_with(0);
}

#[test]
fn bytes_that_are_no_utf8_are_restored_from_an_sql_ascii_database() {
    let cluster = Cluster::shared();
    let database = format!("ascii_{}", crate::support::unique());
    let ascii = "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'";
    cluster.sql("postgres", &format!("CREATE DATABASE {database} TEMPLATE template0 {ascii}"));
    let sql = r"CREATE TABLE t (n int, v text DEFAULT E'\xe4'); INSERT INTO t VALUES (1, E'caf\xe9'), (2, E'\xff\xfe\x80'), (3, E'utf8 \xc3\xa9');
                COMMENT ON TABLE t IS E'bad \xc3 byte'; CREATE TABLE many AS SELECT i, E'\xfc' || i AS v FROM generate_series(1, 1000) i;";
    cluster.sql(&database, sql);
    let sandbox = round_trip(cluster, &database, &cluster.url(&database), ascii);
    sandbox.run(&["verify-backup"]).ends_with(0);
}

#[test]
fn a_database_with_an_odd_name_is_restored() {
    let cluster = Cluster::shared();
    let name = "My DB/ü";
    cluster.sql("postgres", &format!("CREATE DATABASE \"{name}\" TEMPLATE template0"));
    cluster.sql(name, "CREATE TABLE t AS SELECT i FROM generate_series(1, 10) i");
    let sandbox = round_trip(cluster, name, &cluster.url("My%20DB%2F%C3%BC"), "");
    assert!(sandbox.path("backups/My%20DB%2F%C3%BC").is_dir());
    let run = sandbox.run(&["verify-backup"]).expect(0);
    assert!(run.stdout.starts_with("My DB/ü: backup "), "{}", run.stdout);
    let run = sandbox.run(&["backup", "list"]).expect(0);
    assert!(run.stdout.starts_with("My DB/ü in directory "), "{}", run.stdout);
}

#[test]
fn an_owner_who_is_no_superuser_can_back_up() {
    let cluster = Cluster::shared();
    let (owner, database) = (format!("owner_{}", crate::support::unique()), cluster.database());
    cluster.sql(
        "postgres",
        &format!("CREATE ROLE {owner} LOGIN; ALTER DATABASE {database} OWNER TO {owner}"),
    );
    let sql = "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, v text); INSERT INTO t (v) SELECT 'v' FROM generate_series(1, 100);
               SELECT lo_from_bytea(0, 'mine')";
    cluster.sql(
        &database,
        &format!("SET ROLE {owner}; CREATE SCHEMA mine; SET search_path = mine; {sql}"),
    );
    let url = cluster.url(&database).replace("user=postgres", &format!("user={owner}"));
    let sandbox = round_trip(cluster, &database, &url, "");
    let globals =
        std::fs::read_to_string(only_backup(&sandbox.path("backups")).join("globals.sql")).unwrap();
    assert!(globals.contains(&format!("CREATE ROLE {owner};")), "{globals}");
}
