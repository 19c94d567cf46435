//! Real Redis and RabbitMQ servers, and real programs of Dramatiq that use them.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use super::{Guarded, start, stock, unique};

/// The password of RabbitMQ's user: a word that tests search for where it must not be.
pub(crate) const PASSWORD: &str = "geheim-rabbit";

/// A Redis.
pub(crate) struct Redis {
    pub(crate) port: String,
    _server: Guarded,
}

impl Redis {
    /// Starts one of the test's own, with settings such as `--maxmemory 2mb`.
    pub(crate) fn start(settings: &[&str]) -> Redis {
        let dir = format!("/tmp/opsctl-redis-{}-{}", std::process::id(), unique());
        let server = start("broker.sh", &[&["redis", &dir], settings].concat(), &[]);
        Redis { port: server.ready[0].clone(), _server: server }
    }

    /// Returns the one that tests share.
    pub(crate) fn shared() -> &'static Redis {
        static SHARED: OnceLock<Redis> = OnceLock::new();
        SHARED.get_or_init(|| Redis::start(&[]))
    }

    /// Returns its URL.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Returns how a shell calls the stock client for it.
    pub(crate) fn client(&self) -> String {
        let root = programs();
        let (client, libraries) = (root.join("usr/bin/redis-cli"), libraries(&root));
        let (client, libraries) = (client.display(), libraries.display());
        format!("LD_LIBRARY_PATH={libraries} {client} -h 127.0.0.1 -p {}", self.port)
    }

    /// Sends it a command by the stock client, and returns what comes back.
    #[track_caller]
    pub(crate) fn cli(&self, args: &[&str]) -> String {
        let root = programs();
        let mut command = Command::new(root.join("usr/bin/redis-cli"));
        command.args(["-h", "127.0.0.1", "-p", &self.port, "-e"]).args(args);
        stock(command.env("LD_LIBRARY_PATH", libraries(&root)))
    }
}

/// A RabbitMQ.
pub(crate) struct RabbitMq {
    amqp: String,
    pub(crate) management: String,
    _server: Guarded,
}

impl RabbitMq {
    /// Returns the one that tests share.
    pub(crate) fn shared() -> &'static RabbitMq {
        static SHARED: OnceLock<RabbitMq> = OnceLock::new();
        SHARED.get_or_init(|| {
            let dir = format!("/tmp/opsctl-rabbitmq-{}-{}", std::process::id(), unique());
            let server = start("broker.sh", &["rabbitmq", &dir], &[("BROKER_PASSWORD", PASSWORD)]);
            let [amqp, management] = [0, 1].map(|n| server.ready[n].clone());
            RabbitMq { amqp, management, _server: server }
        })
    }

    /// Returns its URL for programs of Dramatiq.
    pub(crate) fn url(&self) -> String {
        format!("amqp://opsctl:{PASSWORD}@127.0.0.1:{}/%2F", self.amqp)
    }

    /// Returns the URL of its management API.
    pub(crate) fn management_url(&self) -> String {
        format!("http://opsctl:{PASSWORD}@127.0.0.1:{}", self.management)
    }
}

/// Runs an action of `dramatiq_app.py` on a queue, to its end.
#[track_caller]
pub(crate) fn dramatiq(url: &str, queue: &str, action: &str, count: u32) {
    stock(program(url, queue, action).arg(count.to_string()));
}

/// A worker of Dramatiq with one message at work, until it is dropped.
pub(crate) struct Worker(Child);

impl Worker {
    /// Starts it, and waits until its message has begun.
    pub(crate) fn start(url: &str, queue: &str) -> Worker {
        let mut command = program(url, queue, "work");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "the worker did not start");
        Worker(child)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().ok();
    }
}

fn program(url: &str, queue: &str, action: &str) -> Command {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/support/dramatiq_app.py");
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", programs().join("python")).args([script, url, queue, action]);
    command
}

/// Returns where the programs are, installing them first if need be.
fn programs() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install-brokers.sh");
    let output = stock(Command::new("bash").arg(script).stdin(Stdio::null()));
    PathBuf::from(output.lines().last().expect("install-brokers.sh says where"))
}

fn libraries(root: &Path) -> PathBuf {
    let folders = std::fs::read_dir(root.join("usr/lib")).unwrap().flatten();
    let mut folders = folders.map(|entry| entry.path());
    folders.find(|folder| folder.join("liblzf.so.1").exists()).expect("the libraries of Redis")
}
