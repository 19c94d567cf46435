//! The pages about certificates and queues, read where one expires and where the other does not move.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Stdio};

use crate::support::brokers::{Redis, Worker, dramatiq};
use crate::support::certificates::{Authority, Request};
use crate::support::reader::{But, Reader};
use crate::support::running::eventually;
use crate::support::{Cluster, Sandbox, installed, unpacked};

/// A web server of the test's own, which shows a certificate.
struct Nginx {
    child: Child,
    /// How it is told to read its files anew.
    reload: String,
}

impl Nginx {
    fn start(dir: &Path, port: u16) -> Nginx {
        let at = dir.display();
        let conf = format!(
            "daemon off; user root; worker_processes 1; pid {at}/pid; error_log {at}/error.log;
             events {{ }}
             http {{
                access_log off;
                client_body_temp_path {at}; proxy_temp_path {at}; fastcgi_temp_path {at}; uwsgi_temp_path {at}; scgi_temp_path {at};
                server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {at}/web.pem; ssl_certificate_key {at}/web.key;
                    location / {{ return 200; }} }}
             }}"
        );
        std::fs::write(dir.join("nginx.conf"), conf).unwrap();
        let mut command = unpacked("nginx");
        let program = Path::new(command.get_program()).display().to_string();
        let reload = format!("{program} -p {at} -c {at}/nginx.conf -s reload");
        command.arg("-p").arg(dir).arg("-c").arg(dir.join("nginx.conf"));
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("nginx listens", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        Nginx { child, reload }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its first process ends the others.
        let id = rustix::process::Pid::from_raw(self.child.id().cast_signed()).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::TERM).ok();
        self.child.wait().ok();
    }
}

#[test]
fn certificates_that_expire_are_renewed_by_the_page() {
    let cluster = Cluster::start(&installed(), &[], &[]);
    let mut sandbox = Sandbox::new("");
    sandbox.set("PGHOST", &cluster.dir).set("PGPORT", &cluster.port).set("PGUSER", "postgres");
    let programs = cluster.bin_dir.display();
    sandbox.set("PATH", format!("{programs}:/usr/local/bin:/usr/bin:/bin"));
    let authority = Authority::new(sandbox.dir.path(), "root");
    let url = format!(
        "postgresql://postgres@localhost:{}/postgres?sslmode=verify-full&sslrootcert={}",
        cluster.port,
        authority.file()
    );
    let data = Path::new(&cluster.dir).join("data");
    // Somebody puts certificates there: an authority answers to nobody in a test.
    let renew = |days: i64| {
        let request = Request { name: "localhost", from: -9, to: days, authority: false };
        let (pem, key) = authority.sign(request);
        for (from, names) in [(&pem, ["web.pem", "server.crt"]), (&key, ["web.key", "server.key"])]
        {
            std::fs::copy(from, sandbox.path(names[0])).unwrap();
            let file = data.join(names[1]);
            std::fs::copy(from, &file).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
            let (uid, gid) = cluster.owner();
            std::os::unix::fs::chown(file, Some(uid), Some(gid)).unwrap();
        }
    };
    renew(5);
    cluster.sql("postgres", "ALTER SYSTEM SET ssl = on");
    cluster.sql("postgres", "SELECT pg_reload_conf()");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nginx = Nginx::start(sandbox.dir.path(), port);
    sandbox.write(
        "opsctl.toml",
        &format!(
            "[database]\nurl = \"{url}\"\n[[health.tls]]\nname = \"www\"\nhost = \"localhost\"\nport = {port}\nca_file = \"{}\"\n",
            authority.file()
        ),
    );
    let both = |status: i32| {
        eventually("both certificates are the new ones", || {
            let run = sandbox.run(&[
                "health-check",
                "--only",
                "tls",
                "--only",
                "server-certificate",
                "--json",
            ]);
            let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
            let checks = report["checks"].as_array().unwrap();
            let wanted = if status == 0 { "ok" } else { "critical" };
            (checks.len() == 2 && checks.iter().all(|check| check["status"] == wanted))
                .then_some(())
        });
    };
    both(2);
    let reader = Reader::of("certificate-expiry", &sandbox)
        .with("www.example.com:443", &format!("localhost:{port}"))
        .with("-servername www.example.com", "-servername localhost")
        .with("systemctl reload nginx", &nginx.reload);
    let seen = reader.does("Check", &[("opsctl", But::Ends(2))]);
    assert!(seen[0].stdout.contains("server-certificate/"), "{seen:#?}");
    assert!(seen[1].stdout.contains("notAfter="), "{seen:#?}");
    renew(90);
    let no_authority = But::IsLeftOut("an authority answers to nobody in a test");
    reader.does("Act", &[("certbot", no_authority)]);
    both(0);
    reader.does("Verify", &[]);
    drop(nginx);
}

#[test]
fn a_queue_that_does_not_move_moves_again_by_the_page() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let sandbox = Sandbox::new(&cluster.url(&database));
    let redis = Redis::start(&[]);
    let url = redis.url();
    sandbox.write(
        "opsctl.toml",
        &format!(
            "[[health.redis]]\nname = \"broker\"\nurl = \"{url}\"\n\
             [[health.queue]]\nname = \"default\"\nbroker = \"redis\"\nurl = \"{url}\"\nwarning = 3\ncritical = 6\n"
        ),
    );
    std::fs::set_permissions(sandbox.path("opsctl.toml"), std::fs::Permissions::from_mode(0o600))
        .unwrap();
    dramatiq(&url, "default", "die", 2);
    dramatiq(&url, "default", "send", 7);
    let reader = Reader::of("queue-stuck", &sandbox)
        .with("redis-cli -n 0", &format!("{} -n 0", redis.client()));
    let seen = reader.does("Check", &[("opsctl", But::Ends(2))]);
    assert!(
        seen[0].stdout.contains("7 ready") && seen[0].stdout.contains("2 dead letters"),
        "{seen:#?}"
    );
    let no_unit = || But::IsLeftOut("the workers of a test are no unit of systemd");
    reader.does("Act", &[("systemctl", no_unit()), ("journalctl", no_unit())]);
    let letters = std::fs::read_to_string(sandbox.path("dead-letters.txt")).unwrap();
    assert_eq!(letters.matches("\"args\":[\"die\"]").count(), 2, "{letters}");
    // The workers are back, and what was given up is sent again.
    let worker = Worker::start(&url, "default");
    redis.cli(&["DEL", "dramatiq:default.XQ", "dramatiq:default.XQ.msgs"]);
    reader.does("Verify", &[]);
    drop(worker);
}
