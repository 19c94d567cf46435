//! `health-check serve`: what load balancers and Prometheus get, and what strangers do not.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::running::{eventually, send};
use crate::support::{Cluster, Sandbox, installed, promtool, stock};

/// A server at work.
struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    fn start(sandbox: &Sandbox, args: &[&str]) -> Serving {
        let args = [&["health-check", "serve", "--listen", "127.0.0.1:0"], args].concat();
        let mut child = sandbox.command(&args).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .find_map(|line| Some(line.unwrap().split_once("listening on http://")?.1.to_owned()));
        std::thread::spawn(move || lines.for_each(drop));
        Serving { child, address: address.unwrap() }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
        stream
    }

    /// Sends a request as it stands, and returns the status and the whole answer.
    fn raw(&self, request: &str) -> (u16, String) {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        let answer = String::from_utf8(answer).unwrap();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or(0), answer)
    }

    fn get(&self, path: &str, headers: &str) -> (u16, String) {
        self.raw(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"))
    }

    fn end(mut self) {
        send(self.child.id(), Signal::TERM);
        let status = eventually("its end", || self.child.try_wait().unwrap());
        assert_eq!(status.code(), Some(0));
    }
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[test]
fn load_balancers_and_prometheus_are_answered() {
    let cluster = Cluster::start(&installed(), &[], &[]);
    let sandbox = Sandbox::new(&cluster.url("postgres"));
    let serving = Serving::start(&sandbox, &["--max-age", "1s"]);
    let (status, answer) = serving.get("/health/live", "");
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains("content-type: application/health+json"), "{answer}");
    let (status, answer) = serving.get("/health/ready", "");
    let document: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!((status, &document["status"]), (200, &"pass".into()));
    // Nobody showed a token: no details.
    assert!(document.get("checks").is_none());
    let (status, answer) = serving.get("/metrics", "");
    assert_eq!(status, 200);
    let file = sandbox.write("metrics", body(&answer));
    stock(promtool().args(["check", "metrics"]).stdin(std::fs::File::open(file).unwrap()));
    let (status, answer) = serving.raw("HEAD /health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((status, body(&answer)), (200, ""));

    cluster.pg_ctl(&["stop", "-w", "-m", "immediate"]);
    let fails = || Some(serving.get("/health/ready", "")).filter(|(status, _)| *status == 503);
    let (_, answer) = eventually("the failure", fails);
    assert!(body(&answer).contains("\"fail\""));
    assert_eq!(serving.get("/health/live", "").0, 200);
    cluster.start_again();
    eventually("the recovery", || Some(()).filter(|()| serving.get("/health/ready", "").0 == 200));
    serving.end();
}

#[test]
fn what_gets_old_does_so_while_it_serves() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let sandbox = Sandbox::new(&cluster.url(&database));
    sandbox.run(&["backup"]).ends_with(0);
    let serving = Serving::start(&sandbox, &["--max-age", "1s"]);
    let age = || -> f64 {
        let (_, answer) = serving.get("/metrics", "");
        let mut lines = body(&answer).lines();
        let line = lines.find(|line| line.starts_with("opsctl_check_value{check=\"backup/"));
        line.and_then(|line| line.rsplit_once(' ')).unwrap().1.parse().unwrap()
    };
    let first = age();
    eventually("a greater age", || Some(()).filter(|()| age() > first + 0.5));
    serving.end();
}

#[test]
fn strangers_get_nothing() {
    let mut sandbox = Sandbox::new(&Cluster::shared().url("postgres"));
    let token = "a-token-of-32-characters-in-all!";
    sandbox.write("token", &format!("{token}\n"));
    let serving =
        Serving::start(&sandbox, &["--token-file", "token", "--allow-host", "health.example.com"]);
    let request = |method: &str, path: &str, host: &str| {
        serving
            .raw(&format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"))
            .0
    };
    assert_eq!(request("GET", "/health/live", "health.example.com:443"), 200);
    // A page that makes its own name resolve to this address.
    assert_eq!(request("GET", "/health/live", "evil.example.com"), 421);
    assert_eq!(request("POST", "/health/live", "localhost"), 405);
    assert_eq!(request("GET", "/../etc/passwd", "localhost"), 404);
    assert_eq!(serving.raw("GET /health/live HTTP/1.1\r\n\r\n").0, 400);
    assert_eq!(serving.get("/metrics", "").0, 401);
    assert_eq!(serving.get("/metrics", "Authorization: Bearer wrong\r\n").0, 401);
    let header = format!("Authorization: Bearer {token}\r\n");
    assert_eq!(serving.get("/metrics", &header).0, 200);
    let (_, answer) = serving.get("/health/ready", &header);
    let document: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!(document["checks"]["postgres:connect"][0]["status"], "pass");
    // A head that is too large, and one that never ends.
    let many = format!("X-Filler: {}\r\n", "x".repeat(900)).repeat(40);
    assert_eq!(serving.get("/health/live", &many).0, 431);
    let (began, mut slow) = (Instant::now(), serving.connect());
    slow.write_all(b"GET /health/live HTTP/1.1\r\nHost: loc").unwrap();
    assert_eq!(serving.get("/health/live", "").0, 200);
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).ok();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    serving.end();

    sandbox.write("token", "short");
    sandbox.run(&["health-check", "serve", "--token-file", "token"]).ends_with(3);
    sandbox.set("OPSCTL_HEALTH_TOKEN", token);
    sandbox.run(&["health-check", "serve", "--listen", "192.0.2.1:1"]).ends_with(3);
    sandbox.run(&["health-check", "serve", "--listen", "nowhere"]).ends_with(3);
}

#[test]
fn a_flood_does_not_reach_the_database() {
    let cluster = Cluster::start(&installed(), &["-c", "log_connections=on"], &[]);
    let sandbox = Sandbox::new(&cluster.url("postgres"));
    let serving = Serving::start(&sandbox, &["--max-age", "1h"]);
    std::thread::scope(|scope| {
        for _ in 0..150 {
            scope.spawn(|| assert_eq!(serving.get("/health/ready", "").0, 200));
        }
    });
    let log = std::fs::read_to_string(format!("{}/log", cluster.dir)).unwrap();
    assert_eq!(log.matches("application_name=opsctl health-check").count(), 1, "{log}");
    serving.end();
}
