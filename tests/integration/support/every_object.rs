//! A database with every kind of object, on each major, and the comparison of two databases.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::{Cluster, Sandbox, installed, other_major, stock, unique};

/// A server with the fixture's extension, and on it a database with every kind of object.
pub(crate) struct EveryObject {
    pub(crate) cluster: Cluster,
    pub(crate) database: String,
    content: OnceLock<String>,
    in_use: Mutex<()>,
}

/// Returns that of the distribution's PostgreSQL.
pub(crate) fn on_installed() -> &'static EveryObject {
    static ONE: OnceLock<EveryObject> = OnceLock::new();
    ONE.get_or_init(|| EveryObject::make(&installed()))
}

/// Returns that of PostgreSQL 16.
pub(crate) fn on_16() -> &'static EveryObject {
    static ONE: OnceLock<EveryObject> = OnceLock::new();
    ONE.get_or_init(|| EveryObject::make(&other_major(16)))
}

/// Returns that of PostgreSQL 17.
pub(crate) fn on_17() -> &'static EveryObject {
    static ONE: OnceLock<EveryObject> = OnceLock::new();
    ONE.get_or_init(|| EveryObject::make(&other_major(17)))
}

/// Returns that of PostgreSQL 18.
pub(crate) fn on_18() -> &'static EveryObject {
    static ONE: OnceLock<EveryObject> = OnceLock::new();
    ONE.get_or_init(|| EveryObject::make(&other_major(18)))
}

impl EveryObject {
    fn make(bin_dir: &Path) -> EveryObject {
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/integration/support/with_extension.sh");
        let bin_dir = stock(Command::new("bash").arg(script).arg(bin_dir));
        let cluster =
            Cluster::start(Path::new(bin_dir.trim_end()), &["-c", "wal_level=logical"], &[]);
        let database = format!("every_object_{}", unique());
        cluster.sql("postgres", &format!("CREATE DATABASE {database} TEMPLATE template0"));
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/every_object.sql");
        let mut load = cluster.program("psql");
        load.args([
            "-Xqv",
            "ON_ERROR_STOP=1",
            "-v",
            "wide_rows=12",
            "-v",
            "big_rows=20000",
            "-v",
            "small_lobs=1100",
        ]);
        stock(load.args(["-o", "/dev/null", "-d", &database, "-f"]).arg(file));
        let has = "SELECT count(*) FROM pg_extension WHERE extname = 'opsctl_fixture'";
        assert_eq!(cluster.sql(&database, has), "1", "the fixture's extension was not found");
        EveryObject { cluster, database, content: OnceLock::new(), in_use: Mutex::default() }
    }

    /// Returns a sandbox whose configuration names the database and its server's programs, and `repositories`.
    pub(crate) fn sandbox(&self, repositories: &str) -> Sandbox {
        let mut sandbox = Sandbox::new("unused");
        sandbox.unset("DATABASE_URL").unset("OPSCTL_REPOSITORY");
        let (url, bin_dir) = (self.cluster.url(&self.database), self.cluster.bin_dir.display());
        let database = format!("[database]\nurl = \"{url}\"\nbin_dir = \"{bin_dir}\"\n");
        sandbox.write("opsctl.toml", &(database + repositories));
        sandbox
    }

    /// Waits for the right to back the database up: two runs at once are refused.
    pub(crate) fn alone(&self) -> MutexGuard<'_, ()> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asserts that another database of the server has the same content.
    #[track_caller]
    pub(crate) fn assert_equals(&self, restored: &str) {
        let source = self.content.get_or_init(|| content(&self.cluster, &self.database, &[]));
        assert_same(source, &content(&self.cluster, restored, &[]));
        let objects = "SELECT count(*), md5(string_agg(format('%s %s', oid, md5(lo_get(oid))), ',' ORDER BY oid)) FROM pg_largeobject_metadata";
        let (before, after) =
            (self.cluster.sql(&self.database, objects), self.cluster.sql(restored, objects));
        assert!(!before.starts_with("0|"));
        assert_eq!(before, after, "the large objects differ");
    }
}

/// Returns what pg_dump says of a database, in an order that two equal databases share.
#[track_caller]
pub(crate) fn content(cluster: &Cluster, database: &str, options: &[&str]) -> String {
    let mut dump = cluster
        .program("pg_dump")
        .args(options)
        .arg(database)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/normalize_dump.py");
    let output =
        Command::new("python3").arg(script).stdin(dump.stdout.take().unwrap()).output().unwrap();
    assert!(
        output.status.success() && dump.wait().unwrap().success(),
        "pg_dump of `{database}` failed"
    );
    // Odd encodings are compared byte by byte as well: every byte becomes a character.
    String::from_utf8(output.stdout)
        .unwrap_or_else(|e| e.as_bytes().iter().map(|b| char::from(*b)).collect())
}

/// Asserts that two contents are the same, showing the first difference if not.
#[track_caller]
pub(crate) fn assert_same(before: &str, after: &str) {
    assert!(before.len() > 200, "there is nothing to compare: {before}");
    if before == after {
        return;
    }
    let cut = |line: Option<&str>| line.map(|l| l.chars().take(300).collect::<String>());
    let (mut a, mut b) = (before.lines(), after.lines());
    for number in 1.. {
        let (left, right) = (a.next(), b.next());
        assert!(
            left == right,
            "line {number} of the dumps differs:\n  source:   {:?}\n  restored: {:?}",
            cut(left),
            cut(right)
        );
    }
}

/// Restores a directory by the stock pg_restore into a new database, and returns its name.
///
/// With `-j` it sometimes deadlocks with itself, on partitioned tables and on tables with `CLUSTER ON` one index and
/// `REPLICA IDENTITY` on another: then it is tried again.
#[track_caller]
pub(crate) fn restore(cluster: &Cluster, folder: &Path, options: &[&str]) -> String {
    for attempt in 1.. {
        let name = cluster.database();
        let mut restore = cluster.program("pg_restore");
        let output = restore
            .args(["--exit-on-error", "--dbname", &name])
            .args(options)
            .arg(folder)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        if stderr.contains("deadlock detected") && attempt < 5 {
            continue;
        }
        assert!(
            output.status.success() && stderr.is_empty(),
            "pg_restore: {}: {stderr}",
            output.status
        );
        return name;
    }
    unreachable!("the last attempt returns or ends the test")
}

/// Returns the only backup's folder of the only database in a repository.
pub(crate) fn only_backup(repository: &Path) -> PathBuf {
    let only = |path: &Path| {
        let mut entries: Vec<PathBuf> =
            std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect();
        entries.retain(|path| path.is_dir());
        assert_eq!(entries.len(), 1, "{entries:?}");
        entries.remove(0)
    };
    only(&only(repository))
}
