//! Child processes: pg_dump, pg_dumpall, pg_restore and the throwaway server of the demo.
//!
//! Every child gets a stated environment and nothing of ours, its own process group (so that ^C
//! reaches it through us, in order), a reader for its stderr, and is killed when its handle is dropped.
//! Secrets are never arguments: see [`crate::db::Target::child_environment`]. This module interprets
//! no output.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::stop::{OnStop, Stop};
use crate::sync::lock;

/// How many of the last lines of stderr are kept for the error message.
const TAIL_LINES: usize = 12;

/// What went wrong with a child process.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It could not be started.
    #[error("failed to start `{}`", .0.display())]
    Start(PathBuf, #[source] std::io::Error),
    /// It ended with another status than 0.
    #[error("`{program}` {ending}{}", if .stderr.is_empty() { String::new() } else { format!(": {}", .stderr) })]
    Failed { program: String, ending: String, stderr: String },
    /// Talking to it failed.
    #[error("failed to {0} `{1}`")]
    Pipe(&'static str, String, #[source] std::io::Error),
    /// It was ended because the run was asked to stop.
    #[error(transparent)]
    Stopped(#[from] crate::stop::Stopped),
}

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    program: PathBuf,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    stdin: bool,
    user: Option<(u32, u32)>,
}

impl Spec {
    /// Starts a description of a child that runs `program`, with `PATH`, `LC_ALL=C` and nothing else in
    /// its environment, and nothing on its stdin.
    pub(crate) fn new(program: impl AsRef<Path>) -> Spec {
        let environment = [
            ("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"),
            ("LC_ALL", "C"),
        ];
        Spec {
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: environment
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect(),
            stdin: false,
            user: None,
        }
    }

    /// Adds arguments. They are visible to every user of the machine: no secrets.
    pub(crate) fn args<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Spec {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds environment variables.
    pub(crate) fn envs(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Spec {
        self.environment.extend(variables);
        self
    }

    /// Gives the child a pipe as stdin, see [`Child::take_stdin`].
    pub(crate) fn piped_stdin(mut self) -> Spec {
        self.stdin = true;
        self
    }

    /// Runs the child as another user and group (needs root).
    pub(crate) fn user(mut self, uid: u32, gid: u32) -> Spec {
        self.user = Some((uid, gid));
        self
    }

    /// Starts the child, which is killed when `stop` says so or the handle is dropped.
    #[expect(clippy::disallowed_methods, reason = "this is where processes are started")]
    pub(crate) fn spawn(self, stop: &Stop) -> Result<Child, Error> {
        stop.check()?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().envs(&self.environment).process_group(0);
        command.stdin(if self.stdin { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid).current_dir("/");
        }
        let mut process = command.spawn().map_err(|e| Error::Start(self.program.clone(), e))?;
        let program = self
            .program
            .file_name()
            .unwrap_or(self.program.as_os_str())
            .to_string_lossy()
            .into_owned();
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let stderr_reader = process.stderr.take().map(|stderr| {
            let (tail, program) = (Arc::clone(&tail), program.clone());
            std::thread::spawn(move || read_stderr(&program, stderr, &tail))
        });
        let pid = Pid::from_child(&process);
        let process = Arc::new(Mutex::new(process));
        let to_kill = Arc::clone(&process);
        let on_stop = stop.on_stop(move || kill(&mut lock(&to_kill)));
        Ok(Child {
            program,
            pid,
            process,
            tail,
            stderr_reader,
            _on_stop: on_stop,
            stop: stop.clone(),
        })
    }

    /// Runs the child to its end and returns its stdout, of which at most `limit` bytes are read.
    pub(crate) fn output(self, stop: &Stop, limit: u64) -> Result<Vec<u8>, Error> {
        let mut child = self.spawn(stop)?;
        let mut output = Vec::new();
        if let Some(stdout) = child.take_stdout() {
            let read = stdout.take(limit).read_to_end(&mut output);
            read.map_err(|e| Error::Pipe("read from", child.program.clone(), e))?;
        }
        child.wait()?;
        Ok(output)
    }
}

/// A running child.
pub(crate) struct Child {
    program: String,
    pid: Pid,
    process: Arc<Mutex<std::process::Child>>,
    tail: Arc<Mutex<VecDeque<String>>>,
    stderr_reader: Option<JoinHandle<()>>,
    stop: Stop,
    _on_stop: OnStop,
}

impl Child {
    /// Hands over the pipe to its stdin; dropping that closes it.
    pub(crate) fn take_stdin(&mut self) -> Option<ChildStdin> {
        lock(&self.process).stdin.take()
    }

    /// Hands over the pipe from its stdout.
    pub(crate) fn take_stdout(&mut self) -> Option<ChildStdout> {
        lock(&self.process).stdout.take()
    }

    /// Waits for its end. Any status but 0 is an error that carries the last lines of its stderr.
    pub(crate) fn wait(mut self) -> Result<(), Error> {
        // The lock is not held while waiting, so that the stop action can kill the process meanwhile; and
        // the process is not reaped here, so that its number cannot have been given to another one.
        let waited = loop {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            match rustix::process::waitid(WaitId::Pid(self.pid), options) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other,
            }
        };
        waited.map_err(|e| Error::Pipe("wait for", self.program.clone(), e.into()))?;
        let status = lock(&self.process).wait();
        let status = status.map_err(|e| Error::Pipe("wait for", self.program.clone(), e))?;
        self.judge(status)
    }

    /// Returns an error if it has ended with another status than 0; `Ok(true)` if it still runs.
    pub(crate) fn is_well(&mut self) -> Result<bool, Error> {
        let status = lock(&self.process).try_wait();
        match status.map_err(|e| Error::Pipe("ask about", self.program.clone(), e))? {
            None => Ok(true),
            Some(status) => self.judge(status).map(|()| false),
        }
    }

    /// Ends it, whatever it is doing, and takes no notice of its status.
    pub(crate) fn end(self) {
        drop(self);
    }

    fn judge(&mut self, status: ExitStatus) -> Result<(), Error> {
        if let Some(reader) = self.stderr_reader.take() {
            // A grandchild may hold stderr open: the tail so far is enough then.
            if status.success() || status.signal().is_none() {
                drop(reader.join());
            }
        }
        if status.success() {
            return Ok(());
        }
        self.stop.check()?;
        let ending = match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with status {code}"),
            (None, Some(signal)) => format!("was killed by signal {signal}"),
            (None, None) => "ended in an unknown way".to_owned(),
        };
        let tail = lock(&self.tail);
        let stderr = tail.iter().map(String::as_str).collect::<Vec<_>>().join(" / ");
        Err(Error::Failed { program: self.program.clone(), ending, stderr })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let mut process = lock(&self.process);
        kill(&mut process);
        drop(process.wait());
    }
}

/// Kills the child's process group, unless the child has been waited for already.
fn kill(process: &mut std::process::Child) {
    if let Ok(None) = process.try_wait() {
        rustix::process::kill_process_group(Pid::from_child(process), Signal::KILL).ok();
    }
}

fn read_stderr(program: &str, stderr: impl Read, tail: &Mutex<VecDeque<String>>) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while let Ok(1..) = reader.by_ref().take(64 * 1024).read_until(b'\n', &mut line) {
        let text = crate::secret::redact(String::from_utf8_lossy(&line).trim_end());
        tracing::debug!(program, "{text}");
        let mut tail = lock(tail);
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(text);
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_status_and_stderr() {
        let stop = Stop::new();
        let spec = Spec::new("/bin/sh").args(["-c", "echo gone wrong >&2; exit 3"]);
        let error = spec.output(&stop, 10).unwrap_err().to_string();
        assert_eq!(error, "`sh` ended with status 3: gone wrong");
    }

    #[test]
    fn a_stop_ends_the_wait() {
        let stop = Stop::new();
        let child = Spec::new("/bin/sleep").args(["60"]).spawn(&stop).unwrap();
        let stopper = stop.clone();
        let thread = std::thread::spawn(move || stopper.request(crate::stop::Reason::Deadline));
        assert!(matches!(child.wait(), Err(Error::Stopped(_))));
        thread.join().unwrap();
    }

    #[test]
    fn children_see_only_the_stated_environment() {
        let spec = Spec::new("/usr/bin/env").envs([("A".to_owned(), "b".to_owned())]);
        let output = String::from_utf8(spec.output(&Stop::new(), 1000).unwrap()).unwrap();
        let names: Vec<_> = output.lines().filter_map(|l| l.split('=').next()).collect();
        assert_eq!(names, ["A", "LC_ALL", "PATH"]);
    }
}
