//! Throwaway servers for tests, shared by all tests of one process.
//!
//! They are made by `tests/integration/support/postgres.sh` and end with the process, however that
//! ends: the script stops the server when the pipe to it closes.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ChildStdin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::Target;
use crate::child::{Child, Spec};
use crate::environment::Environment;
use crate::secret::Secret;
use crate::stop::Stop;

/// The superuser's password: a word that the tests search for where it must not be.
pub(crate) const PASSWORD: &str = "geheim:\\'";

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/support/postgres.sh");

/// A running server with the superuser `postgres`.
pub(crate) struct Server {
    /// The directory with the socket, with `data` and `log` beside it.
    pub(crate) directory: PathBuf,
    /// The port on 127.0.0.1 and of the socket.
    pub(crate) port: u16,
    // The pipe keeps it alive.
    stdin: Option<ChildStdin>,
    script: Option<Child>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Dropping the script's handle first would kill it before it has cleaned up.
        drop(self.stdin.take());
        drop(self.script.take().map(Child::wait));
    }
}

/// Returns the server all tests share: passwords are asked for everywhere, and it has no TLS.
pub(crate) fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(&[]))
}

/// Returns the directory with the server's programs: the newest, or what `OPSCTL_TEST_PG_BIN` says.
pub(crate) fn bin_dir() -> PathBuf {
    if let Some(stated) = Environment::capture().get("OPSCTL_TEST_PG_BIN") {
        return stated.into();
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> = versions.map(|entry| entry.path().join("bin")).collect();
    found.retain(|directory| directory.join("postgres").exists());
    found.sort_by_key(|directory| major_in(directory));
    found.pop().expect("tests need a PostgreSQL server: set OPSCTL_TEST_PG_BIN")
}

/// Returns the major version of the servers here.
pub(crate) fn major() -> u32 {
    let output = Spec::new(bin_dir().join("postgres")).args(["--version"]);
    let output = String::from_utf8(output.output(&Stop::new(), 1000).unwrap()).unwrap();
    let digits = output.split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty());
    digits.unwrap().parse().unwrap()
}

fn major_in(bin_dir: &Path) -> u32 {
    let name = bin_dir.parent().and_then(Path::file_name).unwrap_or_default();
    name.to_string_lossy().parse().unwrap_or_default()
}

/// Waits for what comes true by itself after a moment, and fails if it does not.
#[track_caller]
pub(crate) fn eventually(mut condition: impl FnMut() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        Stop::new().sleep(Duration::from_millis(20)).unwrap();
    }
    panic!("it did not come true within 10 s");
}

impl Server {
    /// Starts another server, with `settings` such as `ssl=on`.
    pub(crate) fn start(settings: &[&str]) -> Server {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // Not below a private directory: the server runs as another user if the tests run as root.
        let directory = format!("opsctl-pg-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(directory);
        let environment = Environment::capture();
        let inherited = ["HOME", "OPSCTL_TEST_CACHE", "TMPDIR"];
        let inherited = inherited.iter().filter_map(|name| {
            environment.get(name).map(|value| ((*name).to_owned(), value.to_owned()))
        });
        let stated = [("PGTEST_AUTH", "scram-sha-256"), ("PGTEST_PASSWORD", PASSWORD)];
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let mut script = Spec::new("/bin/bash")
            .args([SCRIPT.to_owned(), path(&bin_dir()), path(&directory)])
            .args(settings.iter().flat_map(|setting| ["-c", setting]))
            .envs(inherited)
            .envs(stated.map(|(name, value)| (name.to_owned(), value.to_owned())))
            .piped_stdin()
            .spawn(&Stop::new())
            .unwrap();
        let stdin = script.take_stdin();
        let mut line = String::new();
        BufReader::new(script.take_stdout().unwrap()).read_line(&mut line).unwrap();
        let Some(port) = line.trim_end().rsplit(' ').next().and_then(|port| port.parse().ok())
        else {
            panic!("{}", script.wait().expect_err("the script said nothing"));
        };
        Server { directory, port, stdin, script: Some(script) }
    }

    /// Returns a URL for `database`, as superuser through the socket.
    pub(crate) fn url(&self, database: &str) -> Secret {
        let directory = self.directory.display();
        let port = self.port;
        Secret::new(format!(
            "postgresql://postgres:geheim%3A%5C%27@/{database}?host={directory}&port={port}"
        ))
    }

    /// Returns the target for `database`, as superuser through the socket.
    pub(crate) fn target(&self, database: &str) -> Target {
        Target::resolve(Some(&self.url(database)), &Environment::default()).unwrap()
    }

    /// Makes an empty database with a name of its own, and returns that.
    pub(crate) fn create_database(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0"));
        name
    }

    /// Runs statements as superuser.
    pub(crate) fn sql(&self, database: &str, sql: &str) {
        let mut connection = self.target(database).connect("test", &Stop::new()).unwrap();
        connection.batch_execute(sql).unwrap();
    }

    /// Ends all sessions in `database`, as an administrator would.
    pub(crate) fn end_sessions(&self, database: &str) {
        let sql = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = ";
        self.sql("postgres", &format!("{sql}'{database}'"));
    }
}
