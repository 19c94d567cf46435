//! Redis and Dramatiq's queues: real servers, real messages, real dead letters, a real worker.

use serde_json::Value;

use crate::health_network::{Checks, checks, configure};
use crate::support::brokers::{PASSWORD, RabbitMq, Redis, Worker, dramatiq};
use crate::support::certificates::{Authority, Request};
use crate::support::running::eventually;
use crate::support::{Sandbox, unique};

fn sandbox() -> Sandbox {
    Sandbox::new("postgresql://nobody@localhost/none")
}

/// Asks one Redis, and expects an outcome.
#[track_caller]
fn ask(sandbox: &Sandbox, url: &str, exit: i32, status: &str, words: &str) -> Checks {
    let config = format!("[[health.redis]]\nname = \"it\"\ntimeout = \"2s\"\nretries = 0\n{url}\n");
    let found = checks(sandbox, &config, exit, "redis");
    found.expect("redis/it", status, words);
    found
}

#[test]
fn a_redis_that_fills_up_or_loses_something_is_said() {
    let sandbox = sandbox();
    let redis = Redis::start(&["--enable-protected-configs", "yes"]);
    let url = format!("url = \"{}\"", redis.url());
    let found = ask(&sandbox, &url, 0, "ok", " used");
    assert!(found.one("redis/it")["more"]["latency"]["number"].as_f64() > Some(0.0));
    let used = || {
        let info = redis.cli(&["info", "memory"]);
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    // A large value, beside which what the connections take does not count.
    redis.cli(&["setrange", "large", "20000000", "x"]);
    let limit = |percent: u64| {
        redis.cli(&["config", "set", "maxmemory", &(used() * 100 / percent).to_string()])
    };
    limit(50);
    ask(&sandbox, &url, 0, "ok", "50 %");
    limit(85);
    ask(&sandbox, &url, 1, "warning", "85 %");
    limit(95);
    ask(&sandbox, &url, 2, "critical", "95 %");
    // A cache may be full, and what is thrown away is no loss.
    redis.cli(&["config", "set", "maxmemory-policy", "allkeys-lru"]);
    ask(&sandbox, &url, 0, "ok", " used");
    redis.cli(&["config", "set", "maxmemory-policy", "volatile-lru"]);
    for key in ["a", "b"] {
        redis.cli(&["setrange", key, "3000000", "x"]);
        redis.cli(&["expire", key, "1000"]);
        limit(100);
    }
    redis.cli(&["set", "small", "x"]);
    limit(50);
    ask(&sandbox, &url, 1, "warning", "thrown away for want of memory (volatile-lru)");
    redis.cli(&["config", "resetstat"]);
    ask(&sandbox, &url, 0, "ok", "50 %");
    redis.cli(&["config", "set", "dir", "/proc"]);
    redis.cli(&["bgsave"]);
    eventually("the snapshot failed", || {
        redis.cli(&["info", "persistence"]).contains("rdb_last_bgsave_status:err").then_some(())
    });
    ask(&sandbox, &url, 2, "critical", "the last snapshot could not be written");
}

#[test]
fn a_replica_without_a_master_and_a_full_house_are_said() {
    let sandbox = sandbox();
    let redis = Redis::start(&["--replicaof", "127.0.0.1 1", "--maxclients", "3"]);
    let url = format!("url = \"{}\"", redis.url());
    ask(&sandbox, &url, 2, "critical", "a replica without its master");
    redis.cli(&["replicaof", "no", "one"]);
    ask(&sandbox, &url, 0, "ok", "");
    let address = format!("127.0.0.1:{}", redis.port);
    let guests: Vec<_> = (0..4).map(|_| std::net::TcpStream::connect(&address).unwrap()).collect();
    let turned_away = guests.last().unwrap().try_clone().unwrap();
    std::io::read_to_string(turned_away).unwrap();
    drop(guests);
    eventually("there is room again", || {
        redis.cli(&["info", "clients"]).contains("connected_clients:1\r").then_some(())
    });
    ask(&sandbox, &url, 1, "warning", "1 connection turned away");
}

#[test]
fn a_password_and_tls_are_needed_and_never_shown() {
    let mut sandbox = sandbox();
    let authority = Authority::new(sandbox.dir.path(), "root");
    let request = Request { name: "localhost", from: -1, to: 90, authority: false };
    let (pem, key) = authority.sign(request);
    let plain = Redis::start(&["--requirepass", "geheim-redis"]);
    let at = format!("127.0.0.1:{}", plain.port);
    for (url, exit, status, words) in [
        (format!("redis://:geheim-redis@{at}/0"), 0, "ok", "used"),
        (format!("redis://{at}"), 3, "unknown", "refused"),
        (format!("redis://:geheim-falsch@{at}"), 3, "unknown", "refused"),
        // It takes the handshake for the beginning of a command, and waits for the rest.
        (format!("rediss://:geheim-redis@{at}"), 3, "unknown", "2 s"),
        ("redis://:geheim-redis@127.0.0.1:1".to_owned(), 2, "critical", "refused"),
        ("redis://:geheim-redis@name.invalid".to_owned(), 2, "critical", "does not resolve"),
    ] {
        for stated in [
            format!("url = \"{url}\""),
            "url_file = \"url\"".to_owned(),
            "url_env = \"BROKER_URL\"".to_owned(),
        ] {
            sandbox.write("url", &format!("{url}\n"));
            sandbox.set("BROKER_URL", &url);
            let found = ask(&sandbox, &stated, exit, status, words);
            assert!(!format!("{found:?}").contains("geheim"), "{found:#?}");
        }
    }
    sandbox.unset("BROKER_URL");
    ask(&sandbox, "url_env = \"BROKER_URL\"", 3, "unknown", "BROKER_URL");
    ask(&sandbox, "url_file = \"nowhere\"", 3, "unknown", "nowhere");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("url = \"redis://{}\"", listener.local_addr().unwrap());
    ask(&sandbox, &silent, 3, "unknown", "2 s");

    let tls = ["--port", "0", "--tls-port", "@PORT@", "--tls-auth-clients", "no"];
    let files =
        ["--tls-cert-file", &pem, "--tls-key-file", &key, "--tls-ca-cert-file", &authority.file()];
    let encrypted = Redis::start(&[&tls[..], &files].concat());
    let url = format!("url = \"rediss://localhost:{}\"", encrypted.port);
    ask(&sandbox, &url, 2, "critical", "certificate");
    sandbox.set("SSL_CERT_FILE", authority.file());
    ask(&sandbox, &url, 0, "ok", "used");
}

/// The configuration of one queue with small limits.
fn queue(name: &str, broker: &str, more: &str) -> String {
    format!(
        "[[health.queue]]\nname = \"{name}\"\n{broker}\nwarning = 3\ncritical = 6\ntimeout = \"5s\"\nretries = 0\n{more}\n"
    )
}

/// Takes a queue of a broker, as Dramatiq and opsctl are told of it, from nothing to dead letters.
fn through_all_outcomes(url: &str, broker: &str) {
    let sandbox = sandbox();
    let name = format!("q{}", unique());
    let dead = format!("{name}dead");
    let expect = |check: &str, more: &str, exit: i32, status: &str, words: &[&str]| {
        configure(&sandbox, &queue(&name, broker, more));
        // RabbitMQ's figures are a second old.
        eventually(&format!("{check} {status} {words:?}"), || {
            let run = sandbox.run(&["health-check", "--only", check, "--json"]);
            assert!(!format!("{run:?}").contains(PASSWORD), "{run:#?}");
            let document: Value = serde_json::from_str(&run.stdout).unwrap();
            let [found] = document["checks"].as_array().unwrap().as_slice() else {
                panic!("{run:#?}")
            };
            let message = found["message"].as_str().unwrap();
            let is_it = run.status == exit && found["status"] == status;
            (is_it && words.iter().all(|word| message.contains(word))).then(|| found.clone())
        })
    };
    let check = format!("queue/{name}");
    let idle = "min_workers = 0";
    dramatiq(url, &name, "send", 3);
    dramatiq(url, &name, "delay", 2);
    let found = expect(&check, idle, 0, "ok", &["3 ready", "0 in flight", "2 delayed"]);
    assert_eq!(found["value"]["number"], 3.0);
    assert_eq!(found["more"]["delayed"]["number"], 2.0);
    expect(&check, "min_workers = 100", 2, "critical", &["fewer than 100"]);
    dramatiq(url, &name, "send", 1);
    expect(&check, idle, 1, "warning", &["4 ready"]);
    dramatiq(url, &name, "send", 3);
    expect(&check, idle, 2, "critical", &["7 ready"]);
    let worker = Worker::start(url, &name);
    // Its own message came after all of the others.
    expect(&check, "", 0, "ok", &["0 ready", "1 in flight", "2 delayed", "worker"]);
    drop(worker);
    dramatiq(url, &dead, "die", 2);
    let both = format!("{idle}\nqueues = [\"{dead}\", \"{name}\"]");
    let check = format!("queue/{name}/{dead}");
    expect(&check, &both, 1, "warning", &["; 2 dead letters"]);
    expect(&check, &format!("{both}\nmax_dead = 2"), 0, "ok", &["0 ready"]);
}

#[test]
fn queues_in_a_redis_go_through_all_outcomes() {
    let redis = Redis::shared();
    let broker = format!("broker = \"redis\"\nurl = \"{}\"", redis.url());
    through_all_outcomes(&redis.url(), &broker);
}

#[test]
fn queues_in_a_rabbitmq_go_through_all_outcomes() {
    let rabbit = RabbitMq::shared();
    let broker = format!("broker = \"rabbitmq\"\nurl = \"{}\"", rabbit.management_url());
    through_all_outcomes(&rabbit.url(), &broker);
}

#[test]
fn the_age_of_a_dead_letter_is_said_and_nobody_is_missed() {
    let sandbox = sandbox();
    let redis = Redis::start(&[]);
    let broker = format!("broker = \"redis\"\nurl = \"{}\"", redis.url());
    let found = checks(&sandbox, &queue("mail", &broker, ""), 2, "queue");
    found.expect("queue/mail", "critical", "0 workers; nobody works");
    dramatiq(&redis.url(), "mail", "die", 1);
    let found = checks(&sandbox, &queue("mail", &broker, ""), 1, "queue");
    found.expect("queue/mail", "warning", "1 dead letter, the oldest given up ");
    let tomorrow = (chrono::Local::now().to_utc() + chrono::TimeDelta::hours(26)).to_rfc3339();
    let args = ["health-check", "--only", "queue", "--now", &tomorrow];
    let document = sandbox.json(2, &args);
    let message = document["checks"][0]["message"].as_str().unwrap();
    // By then nobody has given a sign of life for long.
    assert!(
        message.ends_with("nobody works; 1 dead letter, the oldest given up 1 d 2 h ago"),
        "{message}"
    );
    // Another namespace has neither messages nor workers.
    let other = format!("{broker}\nnamespace = \"another\"");
    let found = checks(&sandbox, &queue("mail", &other, ""), 2, "queue");
    found.expect("queue/mail", "critical", "`mail`: 0 ready, 0 in flight, 0 delayed, 0 workers");
}

#[test]
fn a_rabbitmq_that_cannot_be_asked_is_unknown_or_down() {
    let sandbox = sandbox();
    let rabbit = RabbitMq::shared();
    let good = rabbit.management_url();
    for (url, exit, status, words) in [
        (good.clone(), 3, "unknown", "there is no queue `nowhere` in the virtual host `/`"),
        (format!("{good}/elsewhere"), 3, "unknown", "in the virtual host `elsewhere`"),
        (good.replace(PASSWORD, "geheim-falsch"), 3, "unknown", "the password is wrong"),
        (good.replace(&rabbit.management, "1"), 2, "critical", "cannot reach 127.0.0.1:1"),
    ] {
        let broker = format!("broker = \"rabbitmq\"\nurl = \"{url}\"");
        let found = checks(&sandbox, &queue("nowhere", &broker, ""), exit, "queue");
        found.expect("queue/nowhere", status, words);
        assert!(!format!("{found:?}").contains("geheim"), "{found:#?}");
    }
}
