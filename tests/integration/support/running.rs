//! Runs that are watched while they go on: what they wait for, their children, and the ways to disturb them.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Cluster, Run, Sandbox};

/// Waits until `look` finds something; a minute without it fails the test.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within a minute");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// An opsctl that is at work.
pub(crate) struct Running {
    pub(crate) pid: u32,
    output: JoinHandle<Output>,
}

impl Running {
    /// Starts opsctl and does not wait for it.
    pub(crate) fn start(sandbox: &Sandbox, args: &[&str]) -> Running {
        Running::spawn(&mut sandbox.command(args))
    }

    /// Starts a command and does not wait for it.
    pub(crate) fn spawn(command: &mut Command) -> Running {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running {
            pid: child.id(),
            output: std::thread::spawn(|| child.wait_with_output().unwrap()),
        }
    }

    /// Sends it a signal; it may have ended.
    pub(crate) fn signal(&self, signal: Signal) {
        send(self.pid, signal);
    }

    /// Has it ended?
    pub(crate) fn is_over(&self) -> bool {
        self.output.is_finished()
    }

    /// Waits for its end.
    pub(crate) fn end(self) -> Run {
        use std::os::unix::process::ExitStatusExt as _;
        eventually("the end of the run", || self.output.is_finished().then_some(()));
        let output = self.output.join().unwrap();
        let signal = output.status.signal().map(|signal| 128 + signal);
        Run {
            status: output.status.code().or(signal).unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Sends a signal to a process, which may have ended.
pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    kill_process(pid, signal).ok();
}

/// Returns number and name of the processes that were told to connect to this very database by their
/// environment, as opsctl's children are.
pub(crate) fn children(cluster: &Cluster, database: &str) -> Vec<(u32, String)> {
    let wanted = [format!("PGDATABASE={database}"), format!("PGPORT={}", cluster.port)];
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let has = |name: &String| {
            environment.split(|byte| *byte == 0).any(|line| line == name.as_bytes())
        };
        if wanted.iter().all(has) {
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.push((pid, name.trim().to_owned()));
        }
    }
    found
}

/// Returns the command that does the same under strace, which spoils system calls: `inject` is what
/// `-e inject=` takes. Calls are counted for each thread.
pub(crate) fn spoiled(command: &Command, inject: &str) -> Command {
    let calls = inject.split(':').next().unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
    strace.args(["-e", &format!("inject={inject}"), "-e", "signal=none"]);
    // Signals are not sent with it, but without it every call of every thread costs two stops.
    if !inject.contains(":signal=") {
        strace.arg("--seccomp-bpf");
    }
    strace.arg(command.get_program()).args(command.get_args());
    let variables = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    strace
        .env_clear()
        .envs(variables)
        .current_dir(command.get_current_dir().unwrap_or(Path::new("/")));
    strace.stdin(Stdio::null());
    strace
}

/// Returns the command that does the same by a clock that is wrong by so much, such as `+1d`.
///
/// Without the program `faketime`, which would be the one that signals reach.
pub(crate) fn by_another_clock(wanted: &Command, by: &str) -> Command {
    let mut same = Command::new(wanted.get_program());
    let variables = wanted.get_envs().filter_map(|(name, value)| Some((name, value?)));
    same.args(wanted.get_args()).stdin(Stdio::null()).env_clear().envs(variables);
    same.current_dir(wanted.get_current_dir().unwrap_or(Path::new("/")));
    let library = |folder: std::fs::DirEntry| folder.path().join("faketime/libfaketimeMT.so.1");
    let mut folders = std::fs::read_dir("/usr/lib").unwrap();
    let library = folders.find_map(|folder| Some(library(folder.ok()?)).filter(|l| l.exists()));
    same.env("LD_PRELOAD", library.expect("libfaketime"));
    same.env("FAKETIME", by).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    same
}

/// Returns the command that does the same on a terminal, which has what is typed from stdin and shows all on stdout.
pub(crate) fn on_a_terminal(wanted: &Command) -> Command {
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().unwrap());
    let words: Vec<_> =
        std::iter::once(wanted.get_program()).chain(wanted.get_args()).map(quoted).collect();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
    let variables = wanted.get_envs().filter_map(|(name, value)| Some((name, value?)));
    script.env_clear().envs(variables);
    script.current_dir(wanted.get_current_dir().unwrap_or(Path::new("/")));
    script
}

/// Returns an `unshare` that gives its command mounts of its own, and what else is wanted, such as `--net`.
pub(crate) fn unshare(more: &[&str]) -> Command {
    let unshare = |propagation: &[&str]| {
        let mut command = Command::new("unshare");
        command.arg("--mount").args(propagation);
        command
    };
    // In a chroot there is no mount at / whose events could be kept apart.
    let works = unshare(more).arg("true").stderr(Stdio::null()).status().unwrap().success();
    let mut command = unshare(if works { &[] } else { &["--propagation", "unchanged"] });
    command.args(more);
    command
}

/// Returns the command that does the same where a script may mount what it likes: nobody else sees that.
pub(crate) fn apart(wanted: &Command, script: &str) -> Command {
    let mut command = unshare(&[]);
    let script = format!("set -eu; {script}; exec \"$@\"");
    command.args(["bash", "-c", &script, "bash"]).arg(wanted.get_program()).args(wanted.get_args());
    let variables = wanted.get_envs().filter_map(|(name, value)| Some((name, value?)));
    command.env_clear().envs(variables).stdin(Stdio::null());
    command.current_dir(wanted.get_current_dir().unwrap_or(Path::new("/")));
    command
}

/// A table in a database whose COPY stops in the middle, until the gate is opened.
///
/// It is an extension's configuration table, as far as the catalog is concerned: their rows are copied with
/// a condition, and this one waits for an advisory lock.
pub(crate) struct Gate<'a> {
    cluster: &'a Cluster,
    database: String,
    holder: Child,
}

impl<'a> Gate<'a> {
    /// Makes the table, and closes the gate.
    pub(crate) fn close(cluster: &'a Cluster, database: &str) -> Gate<'a> {
        let sql = "CREATE TABLE gate AS SELECT n, repeat('x', 100) AS filler FROM generate_series(1, 5000) n;
            UPDATE pg_extension SET extconfig = ARRAY['gate'::regclass]::oid[], extcondition = ARRAY[
                'WHERE n < 4000 OR pg_catalog.pg_advisory_xact_lock_shared(7)::text = '''''] WHERE extname = 'plpgsql'";
        cluster.sql(database, sql);
        let mut psql = cluster.program("psql");
        psql.args(["-XAtq", "-d", database, "-c", "SELECT pg_advisory_lock(7)", "-f", "-"]);
        let holder = psql.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let gate = Gate { cluster, database: database.to_owned(), holder };
        eventually("the gate is closed", || (gate.locks("granted") == "1").then_some(()));
        gate
    }

    fn locks(&self, condition: &str) -> String {
        let sql = format!(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND {condition} AND \
             database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        );
        self.cluster.sql(&self.database, &sql)
    }

    /// Waits until a run stands before the gate, in the middle of a COPY.
    pub(crate) fn wait(&self, running: &Running) {
        eventually("a run stands before the gate", || {
            assert!(!running.is_over(), "the run did not come to the gate");
            (self.locks("NOT granted") != "0").then_some(())
        });
    }

    /// Lets everybody pass.
    pub(crate) fn open(mut self) {
        drop(self.holder.stdin.take());
        self.holder.wait().unwrap();
    }
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}
