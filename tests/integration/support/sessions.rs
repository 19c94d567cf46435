//! A database of a test's own whose sessions are cleaned, and sessions of others that are in the way.

use std::io::Write as _;
use std::process::{Child, Stdio};

use serde_json::Value;

use super::running::eventually;
use super::{Cluster, Sandbox};

/// A database, and a sandbox whose configuration says what to clean in it.
pub(crate) struct Site {
    pub(crate) cluster: &'static Cluster,
    pub(crate) database: String,
    pub(crate) sandbox: Sandbox,
}

impl Site {
    /// Makes a database with `sql` in it, and writes the configuration.
    pub(crate) fn new(sql: &str, configuration: &str) -> Site {
        let cluster = Cluster::shared();
        let database = cluster.database();
        if !sql.is_empty() {
            cluster.sql(&database, sql);
        }
        let sandbox = Sandbox::new(&cluster.url(&database));
        let site = Site { cluster, database, sandbox };
        site.configure(configuration);
        site
    }

    /// Replaces the configuration.
    pub(crate) fn configure(&self, configuration: &str) {
        self.sandbox.write("opsctl.toml", configuration);
    }

    /// Runs SQL and returns what comes back, one row a line.
    #[track_caller]
    pub(crate) fn sql(&self, sql: &str) -> String {
        self.cluster.sql(&self.database, sql)
    }

    /// Cleans, expects the status, and returns the database's part of the report.
    #[track_caller]
    pub(crate) fn clean(&self, status: i32, args: &[&str]) -> Value {
        let report = self.sandbox.json(status, &[&["cleanup-sessions"], args].concat());
        report["databases"][0].clone()
    }

    /// Cleans, expects that a rule refuses with this status, and returns what it says.
    #[track_caller]
    pub(crate) fn refusal(&self, status: i32, args: &[&str]) -> String {
        let part = self.clean(status, args);
        assert_eq!(part["deleted"], 0, "{part:#}");
        part["refused"][0]["reason"].as_str().unwrap_or_else(|| panic!("{part:#}")).to_owned()
    }

    /// Makes a role that may not do more than it is granted, and returns a sandbox that connects as that.
    pub(crate) fn role(&self, grant: &str) -> Sandbox {
        let role = format!("role_{}", self.database);
        self.sql(&format!("CREATE ROLE {role} LOGIN; {grant} {role}"));
        let url = self.cluster.url(&self.database);
        Sandbox::new(&url.replace("user=postgres", &format!("user={role}")))
    }

    /// Begins a transaction of somebody else's that does this, and waits until it has done it.
    pub(crate) fn somebody(&self, sql: &str) -> Somebody {
        Somebody::begin(self.cluster, &self.database, sql)
    }

    /// Waits until no session of a cleaning is left in the server.
    pub(crate) fn wait_for_its_end(&self) {
        eventually("the sessions of the run have ended", || {
            let sql = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'opsctl%' AND datname = '{}'",
                self.database
            );
            (self.cluster.sql("postgres", &sql) == "0").then_some(())
        });
    }
}

/// A transaction that stays open until this is dropped, and is rolled back then.
pub(crate) struct Somebody {
    child: Child,
}

impl Somebody {
    /// Begins it in any database, and waits until it has done `sql`.
    pub(crate) fn begin(cluster: &Cluster, database: &str, sql: &str) -> Somebody {
        let mut psql = cluster.program("psql");
        psql.args(["-XAtqv", "ON_ERROR_STOP=1", "-d", database, "-c", "BEGIN", "-c", sql]);
        psql.args(["-c", "SET application_name = 'somebody'", "-f", "-"]);
        let child = psql.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        eventually("somebody has begun", || {
            let sql = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'somebody' AND state = 'idle in transaction' \
                 AND datname = '{database}'"
            );
            (cluster.sql("postgres", &sql) != "0").then_some(())
        });
        Somebody { child }
    }

    /// Commits instead.
    pub(crate) fn commit(mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"COMMIT;\n").unwrap();
    }
}

impl Drop for Somebody {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().ok();
    }
}
