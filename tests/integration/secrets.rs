//! No password and no key is ever seen: not in what any process of a run shows of itself, not in what it says, and
//! not in what it writes.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::patient::sandbox;
use crate::support::receiver::Receiver;
use crate::support::running::{Running, eventually};
use crate::support::s3::S3;
use crate::support::{Cluster, Run, Sandbox, installed, stock, unique};

/// What must never be seen: the part of the password that is the same however it is quoted.
const CORE: &str = "kennwort8f3a";
/// The password, with all that needs quoting somewhere.
const PASSWORD: &str = "kennwort8f3a:\\ '%@/ü";
const IN_A_URL: &str = "kennwort8f3a%3A%5C%20%27%25%40%2F%C3%BC";

/// Returns a server that asks for the password.
fn server() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| {
        let settings = [("PGTEST_AUTH", "scram-sha-256"), ("PGTEST_PASSWORD", PASSWORD)];
        Cluster::start(&installed(), &[], &settings)
    })
}

/// Makes a database on it.
fn database() -> String {
    let name = format!("kept_{}", unique());
    let create = format!("CREATE DATABASE {name} TEMPLATE template0");
    for (database, sql) in
        [("postgres", create.as_str()), (&name, "CREATE TABLE t AS SELECT 1 AS n")]
    {
        let mut psql = server().program("psql");
        stock(psql.env("PGPASSWORD", PASSWORD).args(["-XAtqc", sql, "-d", database]));
    }
    name
}

/// Makes client programs that tell what they were started with, in files beside them.
fn telling_programs(sandbox: &mut Sandbox) {
    let dir = sandbox.path("programs");
    std::fs::create_dir(&dir).unwrap();
    for program in ["pg_dump", "pg_dumpall", "pg_restore"] {
        let text = format!(
            "#!/bin/bash\n[ \"$*\" = --version ] || {{ tr '\\0' '\\n' <\"/proc/$$/environ\"; echo args: \"$@\"; \
             echo mode: $(stat -Lc %a \"$PGPASSFILE\"); }} >\"{0}/{program}.told\"\nexec {1}/{program} \"$@\"\n",
            dir.display(),
            installed().display()
        );
        std::fs::write(dir.join(program), text).unwrap();
        std::fs::set_permissions(dir.join(program), PermissionsExt::from_mode(0o755)).unwrap();
    }
    sandbox.set("OPSCTL_BIN_DIR", dir.to_str().unwrap());
}

/// Looks at the arguments and the environment of every process of the machine, as often as it can, until
/// it is told to stop. `own` may have the secret in its environment: it was given there.
fn watch(own: u32, is_over: &AtomicBool) -> usize {
    let mut n_looks = 0;
    // They are empty for a moment after a process was started.
    let own_arguments = eventually("the arguments", || {
        let bytes = std::fs::read(format!("/proc/{own}/cmdline")).unwrap_or_default();
        (!bytes.is_empty() || is_over.load(Ordering::SeqCst)).then_some(bytes)
    });
    while !is_over.load(Ordering::SeqCst) {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
            else {
                continue;
            };
            let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
            let (arguments, environment) = (read("cmdline"), read("environ"));
            let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(CORE);
            assert!(!shown(&arguments), "{}", String::from_utf8_lossy(&arguments));
            // Between fork and exec a child is still a picture of opsctl itself.
            let is_own = pid == own || arguments == own_arguments;
            let is_given = is_own || !is_descendant(pid, own);
            assert!(is_given || !shown(&environment), "{}", String::from_utf8_lossy(&arguments));
        }
        n_looks += 1;
    }
    n_looks
}

fn is_descendant(pid: u32, of: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent =
        stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse::<u32>().ok());
    parent.is_some_and(|parent| parent == of || parent > 1 && is_descendant(parent, of))
}

/// Asserts that nothing below a directory shows the secret; returns how many files there are.
fn check_files(path: &Path) -> usize {
    let mut n_files = 0;
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            n_files += check_files(&entry.path());
        } else {
            let content = std::fs::read(entry.path()).unwrap();
            assert!(
                !String::from_utf8_lossy(&content).contains(CORE),
                "{}",
                entry.path().display()
            );
            n_files += 1;
        }
    }
    n_files
}

#[track_caller]
fn check_said(run: &Run) {
    assert!(!run.stdout.contains(CORE) && !run.stderr.contains(CORE), "{run:#?}");
}

/// Backs up and looks everywhere, with the password given in the way of `give`.
fn kept_secret(give: impl FnOnce(&mut Sandbox, &Cluster, &str)) {
    let (cluster, database) = (server(), database());
    let mut sandbox = sandbox("");
    sandbox.unset("DATABASE_URL");
    telling_programs(&mut sandbox);
    give(&mut sandbox, cluster, &database);
    for format in [["--log-format", "human"], ["--log-format", "json"]] {
        let running =
            Running::start(&sandbox, &[&["backup", "--json", "-vv"][..], &format].concat());
        let (pid, is_over) = (running.pid, AtomicBool::new(false));
        let run = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| watch(pid, &is_over));
            let run = running.end();
            is_over.store(true, Ordering::SeqCst);
            assert!(watcher.join().unwrap() > 0);
            run
        });
        check_said(&run.expect(0));
    }
    for program in ["pg_dump", "pg_dumpall"] {
        let told =
            std::fs::read_to_string(sandbox.path("programs").join(format!("{program}.told")))
                .unwrap();
        assert!(!told.contains(CORE) && !told.contains("PGPASSWORD"), "{program}: {told}");
        assert!(
            told.contains("\nPGPASSFILE=/proc/self/fd/") && told.contains("\nmode: 600\n"),
            "{program}: {told}"
        );
    }
    for args in [
        &["config", "show"][..],
        &["config", "check"],
        &["backup", "list"],
        &["backup", "--dry-run"],
        &["verify-backup"],
    ] {
        let run = sandbox.run(&[args, &["-vv"]].concat()).expect(0);
        check_said(&run);
    }
    assert!(check_files(&sandbox.path("backups")) > 5);
    assert!(check_files(&sandbox.path("state")) > 0);
    assert_eq!(check_files(&sandbox.path("tmp")), 0);
}

/// Gives everything but the password by `PG*` variables.
fn set_connection(sandbox: &mut Sandbox, cluster: &Cluster, database: &str) {
    for (name, value) in [
        ("PGHOST", "127.0.0.1"),
        ("PGPORT", &cluster.port),
        ("PGUSER", "postgres"),
        ("PGDATABASE", database),
    ] {
        sandbox.set(name, value);
    }
}

fn write_private(sandbox: &Sandbox, name: &str, content: &str) -> String {
    let path = sandbox.write(name, content);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_password_in_the_url() {
    kept_secret(|sandbox, cluster, database| {
        let url = format!("postgresql://postgres:{IN_A_URL}@127.0.0.1:{}/{database}", cluster.port);
        sandbox.set("DATABASE_URL", url);
    });
}

#[test]
fn a_password_in_the_environment() {
    kept_secret(|sandbox, cluster, database| {
        set_connection(sandbox, cluster, database);
        sandbox.set("PGPASSWORD", PASSWORD);
    });
}

#[test]
fn a_password_in_the_password_file() {
    kept_secret(|sandbox, cluster, database| {
        set_connection(sandbox, cluster, database);
        let quoted = PASSWORD.replace('\\', "\\\\").replace(':', "\\:");
        write_private(
            sandbox,
            "home/.pgpass",
            &format!("127.0.0.1:{}:*:postgres:{quoted}\n", cluster.port),
        );
    });
}

#[test]
fn a_password_in_the_service_file() {
    kept_secret(|sandbox, cluster, database| {
        let text = format!(
            "[kept]\nhost=127.0.0.1\nport={}\nuser=postgres\ndbname={database}\npassword={PASSWORD}\n",
            cluster.port
        );
        let file = write_private(sandbox, "services", &text);
        sandbox.set("PGSERVICEFILE", file).set("PGSERVICE", "kept");
    });
}

#[test]
fn a_password_in_the_url_file() {
    kept_secret(|sandbox, cluster, database| {
        let url =
            format!("postgresql://postgres:{IN_A_URL}@127.0.0.1:{}/{database}\n", cluster.port);
        write_private(sandbox, "url", &url);
        sandbox.write("opsctl.toml", "[database]\nurl_file = \"url\"\n");
    });
}

#[test]
fn a_password_in_the_configuration() {
    kept_secret(|sandbox, cluster, database| {
        let url = format!("postgresql://postgres:{IN_A_URL}@127.0.0.1:{}/{database}", cluster.port);
        write_private(sandbox, "opsctl.toml", &format!("[database]\nurl = \"{url}\"\n"));
    });
}

/// Runs a backup that cannot work, in every format, and expects the status and not the secret.
#[track_caller]
fn fails_discreetly(sandbox: &Sandbox, statuses: &[i32]) {
    for args in [&["-vv"][..], &["-vv", "--json", "--log-format", "json"]] {
        for command in
            [&["backup"][..], &["config", "show"], &["config", "check"], &["backup", "--dry-run"]]
        {
            let run = sandbox.run(&[command, args].concat());
            check_said(&run);
            assert!(
                command[0] == "config" || statuses.contains(&run.status),
                "{command:?}: {run:#?}"
            );
        }
    }
    check_files(&sandbox.path("state"));
    assert_eq!(check_files(&sandbox.path("backups")), 0);
}

#[test]
fn errors_do_not_show_the_password() {
    let (port, database) = (&server().port, database());
    let url = |text: &str| {
        let mut sandbox = sandbox("");
        sandbox.set("DATABASE_URL", text.replace("PASSWORD", CORE));
        sandbox
    };
    for text in [
        &format!("postgresql://postgres:PASSWORD@127.0.0.1:{port}/{database}"),
        &format!("postgresql://PASSWORD:PASSWORD@127.0.0.1:{port}/{database}?password=PASSWORD")
            .replacen("PASSWORD", "nobody", 1),
        "postgresql://postgres:PASSWORD@127.0.0.1:1/x",
        "postgresql://postgres:PASSWORD@nowhere.invalid/x",
        "host=127.0.0.1 port=1 user=u dbname=x password=PASSWORD",
    ] {
        fails_discreetly(&url(text), &[12]);
    }
    for text in [
        "postgresql://postgres:PASSWORD@127.0.0.1:port/x",
        "postgresql://postgres:PASSWORD@[::1/x",
        "postgresql://postgres:PASSWORD%zz@h/x",
        "postgresql://postgres:PASSWORD@h/x?sslmode=maybe",
        "postgresql://postgres:PASSWORD@h/x?passwort=PASSWORD",
        "postgres:/u:PASSWORD@h/x",
        "http://u:PASSWORD@h/x",
        "host=h dbname=x password='PASSWORD",
        "host=h dbname=x passwrd=PASSWORD",
        "host=h dbname=x password = 'PASSWORD' PASSWORD",
        "PASSWORD",
    ] {
        fails_discreetly(&url(text), &[10]);
    }
}

#[test]
fn mistakes_in_the_configuration_do_not_show_the_password() {
    for text in [
        "[database]\nurl = \"postgresql://u:PASSWORD@h/x\n",
        "[database]\nurl = postgresql://u:PASSWORD@h/x\n",
        "[database]\nurl = [\"postgresql://u:PASSWORD@h/x\"]\n",
        "[database]\npassword = \"PASSWORD\"\n",
        "[database]\nurl = \"postgresql://u:PASSWORD@h/x\"\nurl = \"postgresql://u:PASSWORD@h/x\"\n",
        "[database]\nurl = \"postgresql://u:PASSWORD@h/x\" PASSWORD\n",
        "[database]\nurl = { password = \"PASSWORD\" }\n",
        "[database]\nurl_file = \"url\"\n",
    ] {
        let mut sandbox = sandbox("");
        sandbox.unset("DATABASE_URL");
        write_private(&sandbox, "opsctl.toml", &text.replace("PASSWORD", CORE));
        write_private(&sandbox, "url", &format!("postgresql://u:{CORE}@[h/x"));
        fails_discreetly(&sandbox, &[10]);
    }
}

#[test]
fn the_keys_of_the_storage_are_not_shown() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE t AS SELECT 1 AS n");
    let mut sandbox = sandbox(&cluster.url(&database));
    let s3 = S3::shared();
    s3.set_up(&mut sandbox);
    sandbox.set("OPSCTL_REPOSITORY", format!("s3://{}/b", s3.bucket()));
    telling_programs(&mut sandbox);
    let secret = s3
        .environment()
        .into_iter()
        .find(|(name, _)| *name == "AWS_SECRET_ACCESS_KEY")
        .unwrap()
        .1
        .to_owned();
    let id = sandbox.back_up(&["-vv"]);
    assert!(!id.is_empty());
    for args in [
        &["backup", "-vv"][..],
        &["backup", "list", "-vv"],
        &["verify-backup", "-vv"],
        &["config", "show", "-vv"],
    ] {
        let run = sandbox.run(args).expect(0);
        assert!(!run.stdout.contains(&secret) && !run.stderr.contains(&secret), "{run:#?}");
    }
    let told = std::fs::read_to_string(sandbox.path("programs/pg_dump.told")).unwrap();
    assert!(!told.contains("AWS_"), "{told}");
    for (name, value) in [
        ("AWS_SECRET_ACCESS_KEY", CORE),
        ("AWS_SESSION_TOKEN", CORE),
        ("AWS_ACCESS_KEY_ID", "unknown"),
    ] {
        sandbox.set(name, value);
        for args in
            [&["backup", "-vv"][..], &["backup", "list", "--json"], &["verify-backup", "-vv"]]
        {
            let run = sandbox.run(args).expect(13);
            check_said(&run);
        }
    }
}

#[test]
fn the_urls_of_webhooks_and_the_passwords_of_mail_and_history_are_not_shown() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE t AS SELECT 1 AS n");
    let mut sandbox = sandbox(&cluster.url(&database));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let receiver = Receiver::start();
    // It repeats what it was asked, as some do.
    receiver.answer(404).say(CORE);
    let url = receiver.url(&format!("services/{CORE}?token={CORE}"));
    let text = format!(
        "[history]\nurl = \"postgresql://u:{CORE}@{closed}/x\"\n\
         [notify.channels.a]\nwebhook = \"{url}\"\n\
         [notify.channels.b]\nslack = \"http://user:{CORE}@{closed}/{CORE}\"\n\
         [notify.channels.c]\nemail = [\"a@example.com\"]\nfrom = \"a@example.com\"\nsmtp = \"{closed}\"\n\
         smtp_user = \"u\"\n"
    );
    write_private(&sandbox, "opsctl.toml", &text);
    sandbox.set("OPSCTL_SMTP_PASSWORD", CORE);
    let fail = |status: i32| {
        for args in [&["-vv"][..], &["-vv", "--json", "--log-format", "json"]] {
            let args = [&["backup", "--repository", "/proc/no/such/place"][..], args].concat();
            let run = sandbox.run(&args).expect(status);
            check_said(&run);
            assert!(run.stderr.contains("could not be told"), "{run:#?}");
            for command in [&["config", "show"][..], &["config", "check"], &["notify", "test"]] {
                check_said(&sandbox.run(&[command, &["-vv"]].concat()));
            }
        }
    };
    fail(13);
    // With a history, the outbox is written as well.
    write_private(&sandbox, "opsctl.toml", text.split_once("x\"\n").unwrap().1);
    fail(13);
    assert!(check_files(&sandbox.path("state")) > 0);

    // Nor may anybody else read them in the file, or see them in what is said of mistakes in it.
    let path = sandbox.path("opsctl.toml");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let run = sandbox.run(&["backup"]).expect(10);
    assert!(run.stderr.contains("is a secret that others can read"), "{run:#?}");
    check_said(&run);
    for wrong in ["ftp://h/PASSWORD", "https:///PASSWORD", "PASSWORD", "https://h/PASSWORD b"] {
        for key in ["webhook", "slack"] {
            let wrong = wrong.replace("PASSWORD", CORE);
            let text = format!("[notify.channels.a]\n{key} = \"{wrong}\"\n");
            write_private(&sandbox, "opsctl.toml", &text);
            check_said(&sandbox.run(&["backup", "-vv"]).expect(10));
        }
    }
}

#[test]
fn neither_the_evidence_of_an_incident_nor_what_serves_it_shows_one() {
    let database = database();
    let sandbox = Sandbox::new(&format!(
        "postgresql://postgres:{IN_A_URL}@/{database}?host={}&port={}",
        server().dir,
        server().port
    ));
    let receiver = Receiver::start();
    receiver.answer(404).say(CORE);
    let text = format!(
        "[notify.channels.a]\nwebhook = \"{}\"\n[[health.http]]\nname = \"api\"\nurl = \"{}\"\n",
        receiver.url(CORE),
        receiver.url(CORE)
    );
    write_private(&sandbox, "opsctl.toml", &text);
    let run =
        sandbox.run(&["health-check", "incident", "--out", "evidence", "-vv", "--json"]).expect(0);
    check_said(&run);
    assert!(check_files(&sandbox.path("evidence")) > 20);
    check_said(&sandbox.run(&["health-check", "-vv", "--json"]));
    write_private(&sandbox, "token", CORE);
    // A port that is taken ends it at once.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listener = std::net::TcpListener::bind(taken).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serve = ["health-check", "serve", "-vv", "--token-file", "token", "--listen", &address];
    check_said(&sandbox.run(&serve).expect(3));
    check_files(&sandbox.path("state"));
}

#[test]
fn urls_of_those_who_are_told_are_not_shown() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE t AS SELECT 1 AS n");
    let mut sandbox = sandbox(&cluster.url(&database));
    let receiver = Receiver::start();
    let at = receiver.address().to_string();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let secret = |scheme: &str, at: &str| format!("{scheme}://{CORE}:{CORE}@{at}/{CORE}?k={CORE}");
    for (answer, scheme, at) in [
        (200, "http", &at),
        (404, "http", &at),
        (302, "http", &at),
        (200, "https", &at),
        (200, "http", &closed.to_string()),
        (200, "http", &"nowhere.invalid".to_owned()),
    ] {
        receiver.answer(answer).with_header("Location", &secret("http", at));
        let url = secret(scheme, at);
        let base = url.split('?').next().unwrap();
        let text = format!("[ping]\nurl = \"{url}\"\n[metrics]\npushgateway = \"{base}\"\n");
        write_private(&sandbox, "opsctl.toml", &text);
        for format in [&["-vv"][..], &["-vv", "--json", "--log-format", "json"]] {
            check_said(&sandbox.run(&[&["backup"], format].concat()).expect(0));
            check_said(&sandbox.run(&[&["config", "show"], format].concat()).expect(0));
        }
    }
    assert!(receiver.requests().iter().any(|request| request.target.contains(CORE)));
    for text in [
        "[ping]\nurl = \"SECRET\"\n",
        "[ping]\nurl = \"https://h/{SECRET}\"\n",
        "[ping]\nurl = \"http://SECRET@[h\"\n",
        "[ping.commands]\nbackup = \"ftp://h/SECRET\"\n",
        "[metrics]\npushgateway = \"h:9091/SECRET\"\n",
        "[metrics]\npushgateway = \"http://h:9091/?SECRET\"\n",
        "[metrics]\npushgateway_file = \"url\"\n",
    ] {
        write_private(&sandbox, "opsctl.toml", &text.replace("SECRET", CORE));
        write_private(&sandbox, "url", &format!("h/{CORE}"));
        for command in ["backup", "verify-backup"] {
            check_said(&sandbox.run(&[command, "-vv"]).expect(10));
        }
    }
    std::fs::remove_file(sandbox.path("opsctl.toml")).unwrap();
    for variable in ["OPSCTL_PING_URL", "OPSCTL_PUSHGATEWAY"] {
        sandbox.set(variable, CORE);
        check_said(&sandbox.run(&["backup", "-vv"]).expect(10));
        sandbox.unset(variable);
    }
    assert!(check_files(&sandbox.path("state")) > 0);
    assert!(check_files(&sandbox.path("backups")) > 0);
}
