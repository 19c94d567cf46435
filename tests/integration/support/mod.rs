//! What all integration tests stand on: an environment of their own, real servers, and the binary.

pub(crate) mod archive;
pub(crate) mod broken;
pub(crate) mod brokers;
pub(crate) mod certificates;
pub(crate) mod every_object;
pub(crate) mod mail;
pub(crate) mod patient;
pub(crate) mod pooler;
#[allow(dead_code, reason = "the unit tests of the storage, which have it too, use the rest")]
pub(crate) mod proxy;
pub(crate) mod reader;
#[allow(dead_code, reason = "the unit tests of `http`, which have it too, use the rest")]
pub(crate) mod receiver;
pub(crate) mod running;
pub(crate) mod s3;
pub(crate) mod sessions;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A temporary directory, an environment with nothing of the caller's in it, and the binary.
pub(crate) struct Sandbox {
    pub(crate) dir: tempfile::TempDir,
    environment: BTreeMap<String, String>,
}

/// What the binary said.
#[derive(Debug)]
#[must_use = "assert something about the run, its status at least"]
pub(crate) struct Run {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Sandbox {
    /// Makes a sandbox whose default database is `url`.
    pub(crate) fn new(url: &str) -> Sandbox {
        let dir = tempfile::Builder::new().prefix("opsctl-test-").tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let environment = [
            ("HOME", path("home")),
            ("TMPDIR", std::env::temp_dir().display().to_string()),
            ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
            ("OPSCTL_STATE_DIR", path("state")),
            ("OPSCTL_REPOSITORY", path("backups")),
            ("DATABASE_URL", url.to_owned()),
            ("TZ", "UTC".to_owned()),
        ];
        std::fs::create_dir(dir.path().join("home")).unwrap();
        Sandbox { environment: environment.map(|(n, v)| (n.to_owned(), v)).into(), dir }
    }

    /// Sets an environment variable for all runs to come.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) -> &mut Sandbox {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// Removes an environment variable.
    pub(crate) fn unset(&mut self, name: &str) -> &mut Sandbox {
        self.environment.remove(name);
        self
    }

    /// Returns a path in the sandbox.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file into the sandbox and returns its path.
    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Returns the command that runs opsctl here, to be changed or spawned.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_opsctl"));
        command.args(args).env_clear().envs(&self.environment).current_dir(self.dir.path());
        command.stdin(Stdio::null());
        command
    }

    /// Runs opsctl to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Run {
        Run::of(&mut self.command(args))
    }

    /// Runs opsctl with `--json`, expects the status, and returns the document.
    pub(crate) fn json(&self, status: i32, args: &[&str]) -> serde_json::Value {
        let run = self.run(&[args, &["--json"]].concat());
        assert_eq!(run.status, status, "{run:#?}");
        serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {run:#?}"))
    }

    /// Takes a backup and returns its id.
    pub(crate) fn back_up(&self, args: &[&str]) -> String {
        let report = self.json(0, &[&["backup"], args].concat());
        report["databases"][0]["backup"].as_str().unwrap().to_owned()
    }
}

impl Run {
    /// Runs a command and keeps what it says.
    pub(crate) fn of(command: &mut Command) -> Run {
        use std::os::unix::process::ExitStatusExt as _;
        let output = command.output().unwrap();
        let signal = output.status.signal().map(|signal| 128 + signal);
        Run {
            status: output.status.code().or(signal).unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Asserts the exit status, when nothing else of the run matters.
    #[track_caller]
    pub(crate) fn ends_with(self, status: i32) {
        let _run = self.expect(status);
    }

    /// Asserts the exit status, showing everything if it is another.
    #[track_caller]
    pub(crate) fn expect(self, status: i32) -> Run {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }
}

/// Runs a stock program and returns its stdout; anything but status 0 ends the test.
#[track_caller]
pub(crate) fn stock(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Makes an authority in a directory, and a certificate for `localhost`: `NAME-ca.pem`, `NAME-leaf.pem`, `NAME-leaf.key`.
///
/// Returns the authority's file.
pub(crate) fn authority(dir: &Path, name: &str) -> PathBuf {
    let path = |file: &str| dir.join(format!("{name}-{file}")).to_str().unwrap().to_owned();
    let key = "req -x509 -days 2 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=test";
    let server = "-addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE";
    let (ca, ca_key, leaf, leaf_key) =
        (path("ca.pem"), path("ca.key"), path("leaf.pem"), path("leaf.key"));
    for arguments in [
        format!("{key} -keyout {ca_key} -out {ca}"),
        format!("{key} -keyout {leaf_key} -out {leaf} -CA {ca} -CAkey {ca_key} {server}"),
    ] {
        stock(Command::new("openssl").args(arguments.split(' ')));
    }
    ca.into()
}

/// A server that lives as long as this process holds the pipe to the script that started it.
struct Guarded {
    _script: Child,
    /// The words of the line that said it was ready.
    ready: Vec<String>,
}

fn start(script: &str, args: &[&str], environment: &[(&str, &str)]) -> Guarded {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/support").join(script);
    // The distribution's, which has the distribution's packages.
    let interpreter = if script.ends_with(".py") { "/usr/bin/python3" } else { "bash" };
    let mut command = Command::new(interpreter);
    command.arg(path).args(args).envs(environment.iter().copied());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut words = line.split_whitespace().map(str::to_owned);
    assert_eq!(words.next().as_deref(), Some("ready"), "{script} did not start");
    Guarded { ready: words.collect(), _script: child }
}

/// A PostgreSQL server.
pub(crate) struct Cluster {
    pub(crate) bin_dir: PathBuf,
    /// The directory of the socket, and of the cluster's `data` and `log`.
    pub(crate) dir: String,
    pub(crate) port: String,
    _server: Guarded,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Returns a number that no other test of this process has.
pub(crate) fn unique() -> u32 {
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

impl Cluster {
    /// Returns the server that tests share: of the newest installed major.
    pub(crate) fn shared() -> &'static Cluster {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Cluster::start(&installed(), &[], &[]))
    }

    /// Starts a server of the test's own, with settings such as `-c wal_level=logical`.
    pub(crate) fn start(
        bin_dir: &Path,
        settings: &[&str],
        environment: &[(&str, &str)],
    ) -> Cluster {
        let dir = format!("/tmp/opsctl-pg-{}-{}", std::process::id(), unique());
        let args = [&[bin_dir.to_str().unwrap(), &dir], settings].concat();
        let server = start("postgres.sh", &args, environment);
        Cluster {
            bin_dir: bin_dir.to_owned(),
            dir: server.ready[0].clone(),
            port: server.ready[1].clone(),
            _server: server,
        }
    }

    /// Starts a standby of another server, which streams through a slot of that.
    pub(crate) fn standby(primary: &Cluster, slot: &str) -> Cluster {
        let settings = [
            format!("primary_conninfo=host={} port={} user=postgres", primary.dir, primary.port),
            format!("primary_slot_name={slot}"),
        ];
        let environment =
            [("PGTEST_STANDBY_OF", primary.dir.as_str()), ("PGTEST_STANDBY_PORT", &primary.port)];
        let settings = settings.iter().flat_map(|setting| ["-c", setting]).collect::<Vec<_>>();
        Cluster::start(&primary.bin_dir, &settings, &environment)
    }

    /// Returns the URL of a database on it, by its socket.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgresql:///{database}?host={}&port={}&user=postgres", self.dir, self.port)
    }

    /// Runs `pg_ctl` on it, as the user that it runs as.
    #[track_caller]
    pub(crate) fn pg_ctl(&self, args: &[&str]) {
        use std::os::unix::process::CommandExt as _;
        let data = Path::new(&self.dir).join("data");
        let (uid, gid) = self.owner();
        let mut command = Command::new(self.bin_dir.join("pg_ctl"));
        command.arg("-D").arg(&data).args(args).current_dir("/").stdout(Stdio::null());
        stock(command.uid(uid).gid(gid));
    }

    /// Returns the user and group that it runs as, which is not root.
    pub(crate) fn owner(&self) -> (u32, u32) {
        use std::os::unix::fs::MetadataExt as _;
        let data = Path::new(&self.dir).join("data").metadata().unwrap();
        (data.uid(), data.gid())
    }

    /// Starts it after it was stopped or killed.
    #[track_caller]
    pub(crate) fn start_again(&self) {
        self.pg_ctl(&["start", "-w", "-l", &format!("{}/log", self.dir)]);
    }

    /// Returns the number of its first process.
    pub(crate) fn pid(&self) -> u32 {
        let file = std::fs::read_to_string(Path::new(&self.dir).join("data/postmaster.pid"));
        file.unwrap().lines().next().unwrap().parse().unwrap()
    }

    /// Makes an empty database with a fresh name.
    pub(crate) fn database(&self) -> String {
        let name = format!("test_{}", unique());
        self.sql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0"));
        name
    }

    /// Returns a stock program of this server's version, set up to connect to it.
    pub(crate) fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin_dir.join(name));
        command.env("PGHOST", &self.dir).env("PGPORT", &self.port).env("PGUSER", "postgres");
        command
            .env("PGTZ", "UTC")
            .env("PGOPTIONS", "-c intervalstyle=postgres -c datestyle=ISO -c bytea_output=hex");
        command
    }

    /// Runs SQL and returns what comes back, one row a line.
    #[track_caller]
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        stock(self.program("psql").args(["-XAtqv", "ON_ERROR_STOP=1", "-d", database, "-c", sql]))
            .trim_end()
            .to_owned()
    }
}

/// Returns the programs of the newest PostgreSQL that the distribution installed.
pub(crate) fn installed() -> PathBuf {
    let majors =
        std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is not installed: make deps");
    let majors = majors.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let newest = majors.max().expect("PostgreSQL is not installed: make deps");
    PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin"))
}

/// Returns the programs of another major, installing it first if need be.
pub(crate) fn other_major(major: u32) -> PathBuf {
    version(&major.to_string())
}

/// Returns the programs of a version that `install-postgres.sh` knows.
pub(crate) fn version(version: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install-postgres.sh");
    let output = stock(Command::new("bash").arg(script).arg(version).stdin(Stdio::null()));
    PathBuf::from(output.lines().last().expect("install-postgres.sh says where"))
}

/// Returns the directory of some of Python's packages, installing them first if need be: `readers` or `moto`.
pub(crate) fn python(what: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install-python.sh");
    let output = stock(Command::new("bash").arg(script).arg(what).stdin(Stdio::null()));
    PathBuf::from(output.lines().last().expect("install-python.sh says where"))
}

/// Returns Prometheus' own parser, installing it first if need be.
pub(crate) fn promtool() -> Command {
    unpacked("promtool")
}

/// Returns a program that a package has, getting it first if need be.
pub(crate) fn unpacked(program: &str) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install-unpacked.sh");
    let output = stock(Command::new("bash").arg(script).arg(program).stdin(Stdio::null()));
    Command::new(output.lines().last().expect("install-unpacked.sh says where"))
}
