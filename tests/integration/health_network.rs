//! Checks that go over the network: against real TLS servers, listeners, names, and an HTTP server that misbehaves.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::certificates::{Authority, Request, serve};
use crate::support::receiver::Receiver;
use crate::support::running::unshare;
use crate::support::{Cluster, Run, Sandbox};

/// Writes a configuration that may hold passwords.
pub(crate) fn configure(sandbox: &Sandbox, config: &str) {
    let path = sandbox.write("opsctl.toml", config);
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

/// Runs checks with a configuration, expects a status, and returns the checks by name.
#[track_caller]
pub(crate) fn checks(sandbox: &Sandbox, config: &str, status: i32, only: &str) -> Checks {
    configure(sandbox, config);
    let document = sandbox.json(status, &["health-check", "--only", only]);
    Checks(document["checks"].as_array().unwrap().clone())
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Checks(Vec<Value>);

impl Checks {
    /// Returns one check by its name.
    #[track_caller]
    pub(crate) fn one(&self, name: &str) -> &Value {
        let found = self.0.iter().find(|check| check["name"] == name);
        found.unwrap_or_else(|| panic!("no check `{name}` in {self:#?}"))
    }

    /// Expects the outcome of one check, and words in its message.
    #[track_caller]
    pub(crate) fn expect(&self, name: &str, status: &str, words: &str) {
        let check = self.one(name);
        let message = check["message"].as_str().unwrap();
        assert!(check["status"] == status && message.contains(words), "{check:#}");
    }
}

/// Accepts connections, and never says a word.
fn silent() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// A port at which nobody listens, and that nobody is given for another test.
const CLOSED: u16 = 1;

#[test]
fn certificates_are_judged_as_clients_do() {
    let sandbox = Sandbox::new("postgresql://nobody@localhost/none");
    let authority = Authority::new(sandbox.dir.path(), "root");
    let stranger = Authority::new(sandbox.dir.path(), "stranger");
    let request = Request { name: "localhost", from: -9, to: 400, authority: false };
    let days = |from, to| Request { from, to, ..request };
    let single = |authority: &Authority, request| {
        let (pem, key) = authority.sign(request);
        serve(&[&pem], &key).port()
    };
    let between = authority.intermediate(Request { name: "between", ..days(-9, 20) });
    let (below, below_key) = between.sign(request);
    let (good, good_key) = authority.sign(days(-9, 399));
    let (old, _) = authority.sign(Request { name: "old", ..days(-9, -1) });
    let ports = [
        ("good", serve(&[&good], &good_key).port()),
        ("soon", single(&authority, days(-9, 20))),
        ("very-soon", single(&authority, days(-9, 3))),
        ("expired", single(&authority, days(-9, -2))),
        ("early", single(&authority, days(2, 300))),
        ("another-name", single(&authority, Request { name: "other.example", ..request })),
        ("untrusted", single(&stranger, request)),
        ("chain", serve(&[&below, &between.file()], &below_key).port()),
        ("incomplete", serve(&[&below], &below_key).port()),
        // Nobody needs what has expired here.
        ("superfluous", serve(&[&good, &old], &good_key).port()),
        ("silent", 0),
        ("closed", CLOSED),
    ];
    let listener = silent();
    let mut config = String::new();
    for (name, port) in ports {
        let port = if port == 0 { listener.local_addr().unwrap().port() } else { port };
        config.push_str(&format!(
            "[[health.tls]]\nname = \"{name}\"\nhost = \"127.0.0.1\"\nport = {port}\nserver_name = \"localhost\"\n\
             ca_file = \"root/ca.pem\"\ntimeout = \"2s\"\nretries = 0\n"
        ));
    }
    let cluster = Cluster::shared();
    config.push_str(&format!(
        "[[health.tls]]\nname = \"postgres\"\nhost = \"localhost\"\nport = {}\nstarttls = \"postgres\"\n",
        cluster.port
    ));
    let found = checks(&sandbox, &config, 2, "tls");
    for (name, status, words) in [
        ("tls/good", "ok", "the certificate of `localhost` expires in 399 days"),
        ("tls/soon", "warning", "expires in 20 days"),
        ("tls/very-soon", "critical", "expires in 3 days"),
        ("tls/expired", "critical", "expired 2.0 days ago"),
        ("tls/early", "critical", "valid from "),
        ("tls/another-name", "critical", "for another name: other.example"),
        ("tls/untrusted", "critical", "its issuer `stranger` is not trusted"),
        ("tls/chain", "warning", "`between`, which that of `localhost` needs, expires in 20 days"),
        ("tls/incomplete", "critical", "an intermediate certificate is missing"),
        ("tls/superfluous", "ok", "expires in 399 days"),
        ("tls/silent", "unknown", "2 s"),
        ("tls/closed", "critical", "Connection refused"),
        ("tls/postgres", "critical", "has TLS turned off"),
    ] {
        found.expect(name, status, words);
    }
    let value = &found.one("tls/soon")["value"];
    assert_eq!((&value["unit"], &value["bad"]), (&"days".into(), &"below".into()), "{value}");
    // Without an authority of one's own those of the system count, and none of them is behind this.
    let config = config.replace("ca_file", "#ca_file");
    checks(&sandbox, &config, 2, "tls/good").expect("tls/good", "critical", "not trusted");
    let missing = config.replace("#ca_file = \"root", "ca_file = \"nowhere");
    checks(&sandbox, &missing, 3, "tls/good").expect("tls/good", "unknown", "nowhere/ca.pem");
}

#[test]
fn an_address_must_answer_as_expected() {
    let sandbox = Sandbox::new("postgresql://nobody@localhost/none");
    let receiver = Receiver::start();
    let url = receiver.url("health/ready?token=geheim").replace("://", "://user:geheim-pw@");
    sandbox.write("headers", "X-Token: geheim-header\nAccept: application/json\n");
    let config = format!(
        "[[health.http]]\nname = \"api\"\nurl = \"{url}\"\nheaders_file = \"headers\"\ntries = 4\ntimeout = \"1s\"\n\
         expect_json = ['$.status == \"healthy\"', '$.workers[0].up']\nexpect_body = \"worker\"\nretries = 0\n"
    );
    let ask = |config: &str, exit, status: &str, words: &str| {
        let found = checks(&sandbox, config, exit, "http");
        found.expect("http/api", status, words);
        assert!(!format!("{found:?}").contains("geheim"), "{found:#?}");
        found
    };
    receiver.say(r#"{"status": "healthy", "workers": [{"up": true}]}"#);
    let found = ask(&config, 0, "ok", "status 200, 4 times, 95 % within ");
    let check = found.one("http/api");
    assert!(check["more"]["p50"]["number"].as_f64() <= check["value"]["number"].as_f64());
    assert!(check["value"]["number"].as_f64() <= check["more"]["p99"]["number"].as_f64());
    let requests = receiver.requests();
    assert_eq!(requests.len(), 4);
    assert_eq!(requests[0].headers["x-token"], "geheim-header");
    assert_eq!(requests[0].target, "/health/ready?token=geheim");
    let slow = format!("{config}warning = 0\n");
    ask(&slow, 1, "warning", "95 % within");
    receiver.say(r#"{"status": "sick", "workers": [{"up": true}]}"#);
    ask(&config, 2, "critical", "`$.status == \"healthy\"`: it is \"sick\"");
    receiver.say("the worker is up");
    ask(&config, 2, "critical", "is not JSON");
    receiver.say("");
    ask(&config, 2, "critical", "does not contain `worker`");
    receiver.answer_next(&[200, 302]);
    receiver.with_header("Location", &receiver.url("login"));
    let plain = "[[health.http]]\nname = \"api\"\ntries = 4\nretries = 0\ntimeout = \"1s\"\n";
    let plain = format!("{plain}url = \"{url}\"\n");
    ask(
        &plain,
        2,
        "critical",
        "status 302, which is a redirection that is not followed, and not 200",
    );
    receiver.answer(503);
    ask(&plain, 2, "critical", "status 503");
    ask(&format!("{plain}expect_status = 503\nmethod = \"HEAD\"\n"), 0, "ok", "status 503");
    assert_eq!(receiver.requests().last().unwrap().method, "HEAD");
    receiver.close();
    ask(&plain, 2, "critical", "broke off");
    receiver.hang();
    ask(&plain, 3, "unknown", "1 s");
    let nobody = plain.replace(&receiver.address().to_string(), &format!("127.0.0.1:{CLOSED}"));
    ask(&nobody, 2, "critical", "cannot reach 127.0.0.1:");
    let nameless = plain.replace(&receiver.address().to_string(), "name.invalid");
    ask(&nameless, 2, "critical", "cannot reach name.invalid:80");
}

#[test]
fn names_and_ports_are_asked_for() {
    let sandbox = Sandbox::new("postgresql://nobody@localhost/none");
    let listener = silent();
    let port = listener.local_addr().unwrap().port();
    let mut config = String::new();
    for (name, more) in [
        ("local", "host = \"127.0.0.1\"\naddresses = [\"127.0.0.1\"]"),
        ("moved", "host = \"127.0.0.1\"\naddresses = [\"192.0.2.1\"]"),
        ("slow", "host = \"127.0.0.1\"\nwarning = 0"),
        ("nobody", "host = \"name.invalid\""),
    ] {
        config.push_str(&format!("[[health.dns]]\nname = \"{name}\"\n{more}\n"));
    }
    for (name, host, port, more) in [
        ("open", "127.0.0.1", port, ""),
        ("slow", "127.0.0.1", port, "warning = 0"),
        ("closed", "127.0.0.1", CLOSED, ""),
        ("nobody", "name.invalid", 80, ""),
    ] {
        config.push_str(&format!(
            "[[health.tcp]]\nname = \"{name}\"\nhost = \"{host}\"\nport = {port}\n{more}\n"
        ));
    }
    let found = checks(&sandbox, &config, 2, "dns");
    found.expect("dns/local", "ok", "`127.0.0.1` is 127.0.0.1");
    found.expect("dns/moved", "critical", "is 127.0.0.1, and not 192.0.2.1");
    found.expect("dns/slow", "warning", "");
    found.expect("dns/nobody", "critical", "`name.invalid` does not resolve: ");
    let found = checks(&sandbox, &config, 2, "tcp");
    found.expect("tcp/open", "ok", &format!("127.0.0.1:{port} answered after "));
    found.expect("tcp/slow", "warning", "answered");
    found.expect("tcp/closed", "critical", "Connection refused");
    found.expect("tcp/nobody", "critical", "does not resolve");
}

#[test]
fn a_name_server_that_keeps_silent_is_not_waited_for() {
    let sandbox = Sandbox::new("postgresql://nobody@localhost/none");
    let name = "somebody.example.org";
    let mut config = String::new();
    for (kind, more) in [
        ("dns", format!("host = \"{name}\"")),
        ("tcp", format!("host = \"{name}\"\nport = 80")),
        ("tls", format!("host = \"{name}\"")),
        ("http", format!("url = \"https://{name}/\"")),
        ("redis", format!("url = \"redis://{name}\"")),
        ("queue", format!("broker = \"rabbitmq\"\nurl = \"http://{name}\"")),
    ] {
        let entry =
            format!("[[health.{kind}]]\nname = \"it\"\ntimeout = \"1s\"\nretries = 0\n{more}\n");
        config.push_str(&entry);
    }
    sandbox.write("opsctl.toml", &config);
    let opsctl = sandbox.command(&["health-check", "--json", "--tag", "network"]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/support/silent_dns.py");
    let is_root = rustix::process::geteuid().is_root();
    let mut command =
        unshare(if is_root { &["--net"] } else { &["--net", "--user", "--map-root-user"] });
    command.args(["python3", script]).arg(opsctl.get_program());
    command.args(opsctl.get_args()).env_clear().current_dir(sandbox.dir.path());
    command.envs(opsctl.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let before = Instant::now();
    let run = Run::of(&mut command).expect(3);
    assert!(before.elapsed() < Duration::from_secs(10), "{run:#?}");
    let document: Value = serde_json::from_str(&run.stdout).unwrap();
    let found = document["checks"].as_array().unwrap();
    assert_eq!(found.len(), 6, "{document:#}");
    for check in found {
        let message = check["message"].as_str().unwrap();
        assert!(check["status"] == "unknown" && message.contains("1 s"), "{check:#}");
    }
}
