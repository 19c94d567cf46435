//! `PgBouncer` before a server, which gives each transaction a session; it has only one for each database.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use super::running::eventually;
use super::{Cluster, unpacked};

/// A pooler that ends with the test.
pub(crate) struct Pooler<'c> {
    cluster: &'c Cluster,
    dir: tempfile::TempDir,
    program: Child,
}

impl Drop for Pooler<'_> {
    fn drop(&mut self) {
        self.program.kill().ok();
        self.program.wait().ok();
    }
}

impl Pooler<'_> {
    pub(crate) fn start(cluster: &Cluster) -> Pooler<'_> {
        let dir = tempfile::tempdir().unwrap();
        // It refuses to run as root, too.
        let (uid, gid) = cluster.owner();
        chown(dir.path(), Some(uid), Some(gid)).unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let (port, at) = (&cluster.port, dir.path().display());
        let file: PathBuf = dir.path().join("pgbouncer.ini");
        let config = format!(
            "[databases]\n* = host={} port={port} user=postgres\n[pgbouncer]\nlisten_port = {port}\nunix_socket_dir = {at}\n\
             auth_type = any\npool_mode = transaction\ndefault_pool_size = 1\n",
            cluster.dir
        );
        std::fs::write(&file, config).unwrap();
        let mut program = unpacked("pgbouncer");
        program.arg(file).stdout(Stdio::null()).stderr(Stdio::null());
        let program = program.uid(uid).gid(gid).current_dir("/").spawn().unwrap();
        let pooler = Pooler { cluster, dir, program };
        eventually("the pooler", || pooler.try_sql("postgres", "SELECT 1"));
        pooler
    }

    /// Returns the URL of a database by way of the pooler.
    pub(crate) fn url(&self, database: &str) -> String {
        let at = self.dir.path().display().to_string();
        self.cluster.url(database).replace(&self.cluster.dir, &at)
    }

    /// Asks in the session that everybody gets.
    #[track_caller]
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        self.try_sql(database, sql).unwrap_or_else(|| panic!("the pooler refuses {sql}"))
    }

    fn try_sql(&self, database: &str, sql: &str) -> Option<String> {
        let mut psql = self.cluster.program("psql");
        psql.env("PGHOST", self.dir.path()).env_remove("PGOPTIONS").stderr(Stdio::null());
        let output = psql.args(["-XAtqd", database, "-c", sql]).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }
}
