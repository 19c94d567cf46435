//! Connecting to a real server in every way, and being told why when it fails.

use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::*;
use crate::child::Spec;
use crate::db::testing::{self, PASSWORD, Server};
use crate::environment::Environment;
use crate::secret::Secret;
use crate::stop::Reason;

const HOME: &str = "/nonexistent";

fn target(text: &str) -> Target {
    let environment = Environment::from([("HOME", HOME)]);
    Target::resolve(Some(&Secret::new(text)), &environment).unwrap()
}

/// Returns a target as superuser over TCP.
fn tcp(server: &Server, more: &str) -> Target {
    let port = server.port;
    target(&format!(r"host=127.0.0.1 port={port} user=postgres password='geheim:\\\'' {more}"))
}

fn connect(target: &Target) -> Result<Connection, Error> {
    target.connect("test", &Stop::new())
}

/// Connects and says whether the session is encrypted, or the error on one line.
fn outcome(target: &Target) -> String {
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let connected = connect(target).and_then(|mut connection| {
        connection.query_one(sql, &[]).map_err(|e| Error::query("ask", e))
    });
    match connected {
        Ok(row) if row.get(0) => "encrypted".to_owned(),
        Ok(_) => "plain".to_owned(),
        Err(e) => {
            let kind = match &e {
                Error::Refused { .. } => "refused",
                Error::Unreachable { .. } => "unreachable",
                _ => "other",
            };
            let line = one_line(&e);
            assert!(!line.contains("geheim") && !format!("{e:?}").contains("geheim"), "{e:?}");
            format!("{kind}: {line}")
        }
    }
}

#[test]
fn connects_by_socket_and_by_tcp() {
    let server = testing::server();
    for target in [server.target("postgres"), tcp(server, "dbname=postgres")] {
        let mut connection = connect(&target).unwrap();
        let version = connection.server_version().unwrap();
        assert_eq!(version.major(), testing::major());
        let row = connection.client().query_one("SHOW application_name", &[]).unwrap();
        assert_eq!(row.get::<_, &str>(0), "test");
        assert!(!format!("{connection:?} {:?}", connection.target()).contains("geheim"));
    }
    let named = tcp(server, "application_name=mine");
    let row = connect(&named).unwrap().query_one("SHOW application_name", &[]).unwrap();
    assert_eq!(row.get::<_, &str>(0), "mine");
    assert_eq!(ServerVersion(150_018).to_string(), "15.18");
    assert_eq!(ServerVersion(90_624).to_string(), "9.6.24");
}

#[test]
fn says_who_refused_and_why() {
    let server = testing::server();
    let port = server.port;
    let refused = |more: &str| outcome(&target(&format!("host=127.0.0.1 port={port} {more}")));
    assert_eq!(
        refused("user=postgres dbname=d password=geheim1"),
        format!(
            "refused: failed to connect to database `d` at 127.0.0.1:{port} as `postgres`: \
             FATAL: password authentication failed for user \"postgres\" (SQLSTATE 28P01)"
        )
    );
    assert!(refused("user=postgres dbname=d").ends_with("password missing"));
    let missing = outcome(&tcp(server, "dbname=nowhere"));
    assert!(missing.starts_with("refused: "), "{missing}");
    assert!(missing.ends_with("\"nowhere\" does not exist (SQLSTATE 3D000)"), "{missing}");
}

#[test]
fn says_that_nobody_is_there() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let said = outcome(&target(&format!("host=127.0.0.1 port={port} user=u password=geheim")));
    assert_eq!(
        said,
        format!(
            "unreachable: failed to reach database `u` at 127.0.0.1:{port} as `u`: \
             error connecting to server: Connection refused (os error 111)"
        )
    );
    let said = outcome(&target("host=/nonexistent user=u"));
    assert!(said.starts_with("unreachable: "), "{said}");
    let said = outcome(&target("host=name.invalid user=u"));
    assert!(said.starts_with("unreachable: "), "{said}");
}

#[test]
fn a_silent_server_takes_no_longer_than_the_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let silent = format!("host=127.0.0.1 port={port} user=u connect_timeout");
    let start = Instant::now();
    let said = outcome(&target(&format!("{silent}=2")));
    assert!(said.ends_with("no answer within 2 s"), "{said}");
    let stop = Stop::new();
    let stopper = stop.clone();
    let silent = target(&format!("{silent}=0"));
    let waiting = std::thread::spawn(move || silent.connect("test", &stop));
    stopper.request(Reason::Deadline);
    assert!(matches!(waiting.join().unwrap(), Err(Error::Stopped)));
    assert!(start.elapsed() < Duration::from_secs(8));
}

#[test]
fn tries_one_server_after_the_other() {
    let server = testing::server();
    let (port, dead) = (server.port, 1);
    let password = r"user=postgres password='geheim:\\\''";
    let several = |more: &str| target(&format!("host=127.0.0.1,127.0.0.1 {password} {more}"));
    let first_dead = several(&format!("port={dead},{port}"));
    let connection = connect(&first_dead).unwrap();
    assert_eq!(connection.target().host_label(), format!("127.0.0.1:{port}"));
    let both_dead = outcome(&several("port=1,2"));
    assert!(both_dead.contains("127.0.0.1:1 (127.0.0.1): error connecting"), "{both_dead}");
    assert!(both_dead.contains("; 127.0.0.1:2 (127.0.0.1): error connecting"), "{both_dead}");
    let ends = |attrs: &str| outcome(&tcp(server, &format!("target_session_attrs={attrs}")));
    assert_eq!(ends("prefer-standby"), "plain");
    assert_eq!(ends("primary"), "plain");
    assert_eq!(ends("read-write"), "plain");
    assert!(ends("standby").ends_with("the server is not in hot standby mode"));
    assert!(ends("read-only").starts_with("refused: "));
    // A name with two addresses of which one answers: ::1 is not listened on.
    let by_name = target(&format!("host=localhost port={port} {password}"));
    assert_eq!(outcome(&by_name), "plain");
}

#[test]
fn sorts_the_failures_of_statements() {
    let server = testing::server();
    let database = server.create_database();
    server.sql(&database, "CREATE ROLE weak LOGIN PASSWORD 'geheim'; CREATE TABLE secret (a int)");
    let mut connection = connect(&server.target(&database)).unwrap();
    let mut fails = |sql: &str| Error::query("do it", connection.batch_execute(sql).unwrap_err());
    let error = fails("SELEC 1");
    assert!(matches!(error, Error::Query { .. }));
    assert_eq!(
        one_line(&error),
        "failed to do it: ERROR: syntax error at or near \"SELEC\" (SQLSTATE 42601)"
    );
    let error = fails("SET ROLE weak; SELECT * FROM secret");
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert_eq!(error.sqlstate(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    assert!(matches!(fails("SELECT pg_terminate_backend(pg_backend_pid())"), Error::Lost { .. }));
    assert!(matches!(fails("SELECT 1"), Error::Lost { .. }));

    let mut connection = connect(&server.target(&database)).unwrap();
    let copy = "COPY (SELECT a, 1 / (a - 100000) FROM generate_series(1, 1000000) a) TO STDOUT";
    let mut reader = connection.copy_out(copy).unwrap();
    let error = std::io::copy(&mut reader, &mut std::io::sink()).unwrap_err();
    assert_eq!(
        one_line(&Error::copy("copy", error)),
        "failed to copy: ERROR: division by zero (SQLSTATE 22012)"
    );
    drop(reader);
    let mut reader =
        connection.copy_out("COPY (SELECT generate_series(1, 100000000)) TO STDOUT").unwrap();
    let mut some = [0; 1000];
    reader.read_exact(&mut some).unwrap();
    server.end_sessions(&database);
    let error = std::io::copy(&mut reader, &mut std::io::sink()).unwrap_err();
    let error = Error::copy("copy", error);
    assert!(matches!(error, Error::Lost { .. }), "{error:?}");
    let other = Error::copy("copy", std::io::Error::other("disk"));
    assert_eq!(one_line(&other), "failed to copy: disk");
}

#[test]
fn a_stop_cancels_the_statement() {
    let plain = testing::server().target("postgres");
    let encrypted = tcp(&tls_server().0, "sslmode=require");
    for target in [plain, encrypted] {
        let stop = Stop::new();
        let mut connection = target.connect("test", &stop).unwrap();
        let stopper = stop.clone();
        let start = Instant::now();
        let thread = std::thread::spawn(move || stopper.request(Reason::Signal(15)));
        let error = connection.batch_execute("SELECT pg_sleep(60)").unwrap_err();
        let error = Error::query("sleep", error);
        assert_eq!(error.sqlstate(), Some(&SqlState::QUERY_CANCELED));
        assert!(matches!(error.or_stopped(&stop), Error::Stopped));
        assert!(start.elapsed() < Duration::from_secs(10));
        thread.join().unwrap();
        assert!(matches!(target.connect("test", &stop), Err(Error::Stopped)));
    }
    let other = Error::Query { what: "x".to_owned(), source: "y".into() };
    assert!(matches!(other.or_stopped(&Stop::new()), Error::Query { .. }));
}

#[test]
fn a_session_dropped_in_a_copy_does_not_read_it_to_its_end() {
    let server = testing::server();
    let database = server.create_database();
    let mut connection = connect(&server.target(&database)).unwrap();
    let mut reader =
        connection.copy_out("COPY (SELECT generate_series(1, 10000000000)) TO STDOUT").unwrap();
    let mut some = [0; 1000];
    reader.read_exact(&mut some).unwrap();
    drop(reader);
    let start = Instant::now();
    drop(connection);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

/// Makes a certificate authority and certificates with openssl, as administrators do.
fn certificates(directory: &Path) {
    let script = r#"
        cd "$1"; umask 077; exec >openssl.log 2>&1
        config=$(printf '[v3_ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign\n')
        for ca in ca other; do
            openssl req -new -x509 -days 2 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 \
                -subj "/CN=$ca" -keyout $ca.key -out $ca.crt
        done
        for name in server old client; do
            subject=$name; [ $name != old ] || subject=localhost
            openssl req -new -nodes -newkey rsa:2048 -subj "/CN=$subject" -keyout $name.key -out $name.csr
        done
        sign() { openssl x509 -req -days 2 -CA ca.crt -CAkey ca.key -CAcreateserial "$@"; }
        printf 'subjectAltName=DNS:localhost\n' >san
        sign -in server.csr -out server.crt -extfile san
        # As in PostgreSQL's documentation: version 1, with the name in the Common Name alone.
        sign -in old.csr -out old.crt
        sign -in client.csr -out client.crt
        openssl req -new -x509 -days 2 -nodes -newkey rsa:2048 -subj /CN=localhost \
            -keyout self.key -out self.crt
    "#;
    let directory = directory.to_str().unwrap();
    let spec = Spec::new("/bin/sh").args(["-ec", script, "sh", directory]);
    spec.output(&Stop::new(), 1000).unwrap();
}

/// Starts a server with TLS and returns it with the directory of certificates.
fn start_with_certificate(name: &str, directory: &Path) -> Server {
    let server = Server::start(&[]);
    let data = server.directory.join("data");
    let rules = "hostnossl all no_tls 127.0.0.1/32 trust\nhostssl all no_tls 127.0.0.1/32 reject\n\
                 hostssl all only_tls 127.0.0.1/32 trust\nhostnossl all only_tls 127.0.0.1/32 reject\n\
                 hostssl all client 127.0.0.1/32 cert\n";
    let rules = rules.to_owned() + &std::fs::read_to_string(data.join("pg_hba.conf")).unwrap();
    let script = format!(
        "cp {from}/{name}.crt {to}/server.crt; cp {from}/{name}.key {to}/server.key; \
         cp {from}/ca.crt {to}/ca.crt; printf %s \"$1\" >{to}/pg_hba.conf; \
         chown --reference={to} {to}/server.* {to}/ca.crt",
        from = directory.display(),
        to = data.display(),
    );
    let spec = Spec::new("/bin/sh").args(["-ec", &script, "sh", &rules]);
    spec.output(&Stop::new(), 1000).unwrap();
    server.sql("postgres", "ALTER SYSTEM SET ssl_ca_file = 'ca.crt'");
    server.sql("postgres", "ALTER SYSTEM SET ssl = on");
    for role in ["no_tls", "only_tls", "client"] {
        server.sql("postgres", &format!("CREATE ROLE {role} LOGIN"));
    }
    server.sql("postgres", "SELECT pg_reload_conf()");
    testing::eventually(|| outcome(&tcp(&server, "sslmode=require")) == "encrypted");
    server
}

fn tls_server() -> &'static (Server, PathBuf) {
    static SERVER: OnceLock<(Server, PathBuf)> = OnceLock::new();
    SERVER.get_or_init(|| {
        let directory = testing::server().directory.join("certificates");
        std::fs::create_dir(&directory).unwrap();
        certificates(&directory);
        // The certificates lie in the directory of the shared server, which is removed with it.
        let server = start_with_certificate("server", &directory);
        (server, directory)
    })
}

/// Returns a target for a host name with these certificates.
fn with_tls(server: &Server, directory: &Path, host: &str, mode: &str, root: &str) -> Target {
    let port = server.port;
    let root = match root {
        "" => String::new(),
        root => format!("sslrootcert={}/{root}.crt", directory.display()),
    };
    target(&format!(
        r"host={host} hostaddr=127.0.0.1 port={port} user=postgres password='geheim:\\\'' sslmode={mode} {root}"
    ))
}

#[test]
fn without_tls_in_the_server_only_weak_modes_connect() {
    let server = testing::server();
    for mode in ["disable", "allow", "prefer"] {
        let target = tcp(server, &format!("sslmode={mode}"));
        assert_eq!((&*outcome(&target), seen(&target)), ("plain", "nothing"));
    }
    let root = tls_server().1.join("ca.crt");
    for mode in ["require", "verify-ca", "verify-full"] {
        let target = tcp(server, &format!("sslmode={mode} sslrootcert={}", root.display()));
        let said = outcome(&target);
        assert_eq!(seen(&target), "no TLS");
        assert!(said.starts_with("refused: "), "{said}");
        assert!(said.ends_with("TLS handshake: server does not support TLS"), "{said}");
    }
    // A socket is never encrypted, whatever is asked for.
    let socket = server.url("postgres").reveal().to_owned() + "&sslmode=verify-full";
    assert_eq!((&*outcome(&target(&socket)), seen(&target(&socket))), ("plain", "nothing"));
}

#[test]
fn each_mode_verifies_as_much_as_it_says() {
    let (server, directory) = tls_server();
    let cases = [
        ("localhost", "disable", "", "plain"),
        ("localhost", "allow", "", "plain"),
        ("localhost", "prefer", "", "encrypted"),
        ("localhost", "prefer", "other", "encrypted"),
        ("localhost", "require", "", "encrypted"),
        ("wrong.example", "require", "ca", "encrypted"),
        ("localhost", "require", "other", "UnknownIssuer"),
        ("localhost", "verify-ca", "ca", "encrypted"),
        ("wrong.example", "verify-ca", "ca", "encrypted"),
        ("127.0.0.1", "verify-ca", "ca", "encrypted"),
        ("localhost", "verify-ca", "other", "UnknownIssuer"),
        ("localhost", "verify-full", "ca", "encrypted"),
        ("LOCALHOST", "verify-full", "ca", "encrypted"),
        ("wrong.example", "verify-full", "ca", "NotValidForName"),
        ("127.0.0.1", "verify-full", "ca", "NotValidForName"),
        ("localhost", "verify-full", "other", "UnknownIssuer"),
    ];
    for (host, mode, root, expected) in cases {
        let target = with_tls(server, directory, host, mode, root);
        let said = outcome(&target);
        let expected_to_be_seen = match (mode, expected) {
            ("disable", _) => "nothing",
            (_, "plain") => "encrypted",
            (_, expected) => expected,
        };
        assert_eq!(seen(&target), expected_to_be_seen, "{host} {mode} {root}");
        if matches!(expected, "plain" | "encrypted") {
            assert_eq!(said, expected, "{host} {mode} {root}");
        } else {
            assert!(
                said.starts_with("refused: ") && said.contains(expected),
                "{mode} {root} {said}"
            );
        }
    }
    let system =
        outcome(&with_tls(server, directory, "localhost", "verify-full", "ca").with_system());
    assert!(system.contains("UnknownIssuer"), "{system}");
    let missing = with_tls(server, directory, "localhost", "require", "missing");
    let Err(Error::Parameters(message)) = connect(&missing) else { panic!("accepted") };
    assert!(message.starts_with("failed to read certificates from `/"), "{message}");
}

/// Says what a look at the certificates finds wrong, in the words of a connection that fails for it.
fn seen(target: &Target) -> &'static str {
    match target.certificates(crate::clock::now(), Duration::from_secs(60)) {
        Ok(None) => "nothing",
        Ok(Some(seen)) if seen.untrusted.is_some() => "UnknownIssuer",
        Ok(Some(seen)) if seen.wrong_name.is_some() => "NotValidForName",
        Ok(Some(seen)) => {
            let days = (seen.expires - crate::clock::now()).num_hours();
            assert!((46..=48).contains(&days) && seen.not_before.is_none(), "{seen:?}");
            "encrypted"
        }
        Err(crate::network::Error::NoTls { .. }) => "no TLS",
        Err(error) => panic!("{error}"),
    }
}

impl Target {
    fn with_system(mut self) -> Target {
        self.tls.roots = crate::db::tls::Roots::System;
        self
    }
}

#[test]
fn weak_modes_try_the_other_way_and_strong_ones_do_not() {
    let (server, directory) = tls_server();
    let port = server.port;
    let root = directory.join("ca.crt");
    let root = root.display();
    let try_as = |user: &str, mode: &str| {
        let text =
            format!("host=localhost hostaddr=127.0.0.1 port={port} dbname=postgres user={user}");
        outcome(&target(&format!("{text} sslmode={mode} sslrootcert={root}")))
    };
    assert_eq!(try_as("no_tls", "prefer"), "plain");
    assert_eq!(try_as("no_tls", "allow"), "plain");
    assert_eq!(try_as("only_tls", "allow"), "encrypted");
    assert_eq!(try_as("only_tls", "prefer"), "encrypted");
    for (user, mode) in [("no_tls", "require"), ("no_tls", "verify-full"), ("only_tls", "disable")]
    {
        let said = try_as(user, mode);
        assert!(said.starts_with("refused: ") && said.contains("SQLSTATE 28000"), "{said}");
    }
}

#[test]
fn accepts_the_certificates_that_libpq_accepts() {
    let directory = &tls_server().1;
    let old = start_with_certificate("old", directory);
    let own = start_with_certificate("self", directory);
    let cases = [
        (&old, "localhost", "require", "", "encrypted"),
        (&old, "localhost", "verify-full", "ca", "encrypted"),
        (&old, "wrong.example", "verify-ca", "ca", "encrypted"),
        (&old, "wrong.example", "verify-full", "ca", ""),
        (&old, "localhost", "verify-ca", "other", ""),
        (&own, "localhost", "verify-full", "self", "encrypted"),
        (&own, "wrong.example", "verify-full", "self", ""),
        (&own, "localhost", "verify-ca", "ca", ""),
    ];
    let psql = testing::bin_dir().join("psql");
    for (server, host, mode, root, expected) in cases {
        for versions in ["TLSv1.2", "TLSv1.3"] {
            let mut target = with_tls(server, directory, host, mode, root);
            let version = if versions == "TLSv1.2" {
                crate::db::tls::Version::Tls12
            } else {
                crate::db::tls::Version::Tls13
            };
            target.tls.versions = (Some(version), Some(version));
            let said = outcome(&target);
            assert_eq!(seen(&target) == "encrypted", !expected.is_empty(), "{host} {mode} {root}");
            if expected.is_empty() {
                assert!(said.starts_with("refused: "), "{host} {mode} {root} {said}");
            } else {
                assert_eq!(said, expected, "{host} {mode} {root}");
            }
            // libpq is the judge of these cases.
            let environment = target.child_environment().unwrap();
            let spec =
                Spec::new(&psql).args(["-wXAtc", "SELECT 1"]).envs(environment.variables.clone());
            let judged = spec.output(&Stop::new(), 100);
            assert_eq!(judged.is_ok(), !expected.is_empty(), "{host} {mode} {root} {judged:?}");
        }
    }
}

#[test]
fn shows_a_client_certificate() {
    let (server, directory) = tls_server();
    let port = server.port;
    let text = format!(
        "host=localhost hostaddr=127.0.0.1 port={port} user=client dbname=postgres sslmode=require"
    );
    let without = outcome(&target(&text));
    assert!(without.starts_with("refused: "), "{without}");
    let place = directory.display();
    let files =
        |key: &str| target(&format!("{text} sslcert={place}/client.crt sslkey={place}/{key}"));
    assert_eq!(outcome(&files("client.key")), "encrypted");
    let Err(Error::Parameters(message)) = connect(&files("client.csr")) else { panic!("accepted") };
    assert!(message.starts_with("failed to read private key"), "{message}");
    let disabled = target(&format!("{text} sslcertmode=disable sslcert={place}/client.crt"));
    assert!(outcome(&disabled).starts_with("refused: "));
    // Others must not be able to read the key.
    let copied = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    let open = directory.join("open.key");
    std::fs::copy(directory.join("client.key"), &open).unwrap();
    std::fs::set_permissions(&open, copied).unwrap();
    let Err(Error::Parameters(message)) = connect(&files("open.key")) else { panic!("accepted") };
    assert!(message.ends_with("its mode 0644 lets others read it; set it to 0600"), "{message}");
}

#[test]
fn channel_binding_is_used_when_it_is_required() {
    let (server, _) = tls_server();
    assert_eq!(outcome(&tcp(server, "sslmode=require channel_binding=require")), "encrypted");
    let plain = outcome(&tcp(server, "sslmode=disable channel_binding=require"));
    assert!(plain.starts_with("refused: "), "{plain}");
}

#[test]
fn children_connect_and_show_no_password() {
    let bin_dir = testing::bin_dir();
    let server = testing::server();
    let database = server.create_database();
    server.sql(&database, "CREATE TABLE kept (a int)");
    let mut targets = vec![server.target(&database)];
    targets.push(tcp(server, &format!("dbname={database}")));
    targets.push(connect(&targets[1]).unwrap().target().clone());
    for target in targets {
        let environment = target.child_environment().unwrap();
        assert!(environment.variables["PGPASSFILE"].starts_with("/proc/self/fd/"));
        let run = |program: &str, arguments: &[&str]| {
            let spec = Spec::new(bin_dir.join(program)).args(arguments.iter().copied());
            let spec = spec.envs(environment.variables.clone());
            String::from_utf8(spec.output(&Stop::new(), 1 << 20).unwrap()).unwrap()
        };
        assert_eq!(run("psql", &["-wXAtc", "SELECT current_database()"]).trim(), database);
        assert!(run("pg_dump", &["-w"]).contains("CREATE TABLE public.kept"));
        assert!(run("pg_dumpall", &["-w", "--globals-only"]).contains("CREATE ROLE postgres"));
        // What anybody, or the same user, can see of it while it runs.
        let seen = run("psql", &["-wXAtc", "\\! cat /proc/$PPID/cmdline /proc/$PPID/environ"]);
        assert!(seen.contains("PGPASSFILE=/proc/self/fd/"), "{seen}");
        assert!(!seen.contains("geheim") && !seen.contains(PASSWORD), "{seen}");
    }
    // Without a password the child fails at once and says why.
    let without = target(&format!("host=127.0.0.1 port={} user=postgres", server.port));
    let environment = without.child_environment().unwrap();
    let spec = Spec::new(bin_dir.join("psql")).args(["-wXc", "SELECT 1"]);
    let failed = spec.envs(environment.variables.clone()).output(&Stop::new(), 1000).unwrap_err();
    assert!(failed.to_string().contains("no password supplied"), "{failed}");
    assert!(!failed.to_string().contains("WARNING"), "{failed}");
}
