//! Backups of servers that do not stand still: rows that change meanwhile, and a hot standby.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::every_object::{assert_same, content, only_backup, restore};
use crate::support::running::send;
use crate::support::{Cluster, Sandbox, installed, stock, unique};

/// More than three ranges of pages in few rows, and money that is moved but never made.
const ACCOUNTS: &str = "
    CREATE TABLE accounts (id serial, balance bigint NOT NULL, filler text NOT NULL DEFAULT '');
    ALTER TABLE accounts ALTER filler SET STORAGE PLAIN;
    INSERT INTO accounts (balance, filler) SELECT 1000, repeat('x', 3900) FROM generate_series(1, 52000);
    ALTER TABLE accounts ADD PRIMARY KEY (id);
    CREATE TABLE openings (n int); CREATE TABLE stop (); VACUUM;";

const CHURN: &str = "
    CREATE PROCEDURE churn() LANGUAGE plpgsql AS $$
    DECLARE a int; b int; amount int;
    BEGIN
        WHILE NOT EXISTS (SELECT FROM stop) LOOP
            a := random() * 51998 + 1; b := a + 1 + random() * (51999 - a); amount := random() * 100;
            UPDATE accounts SET balance = balance - amount WHERE id = a;
            UPDATE accounts SET balance = balance + amount WHERE id = b;
            INSERT INTO accounts (balance) SELECT 0 FROM generate_series(1, 7);
            INSERT INTO openings VALUES (7);
            COMMIT;
            PERFORM pg_sleep(0.001);
        END LOOP;
    END $$";

#[test]
fn a_table_that_changes_while_it_is_copied_in_ranges_is_that_of_one_moment() {
    let cluster = Cluster::start(&installed(), &["-c", "log_statement=all"], &[]);
    let database = cluster.database();
    for sql in ACCOUNTS.split_inclusive(';').chain([CHURN]) {
        cluster.sql(&database, sql);
    }
    let churn =
        || cluster.program("psql").args(["-Xqd", &database, "-c", "CALL churn()"]).spawn().unwrap();
    let mut writers: Vec<Child> = (0..2).map(|_| churn()).collect();
    let openings = |database: &str| -> u64 {
        cluster.sql(database, "SELECT count(*) FROM openings").parse().unwrap()
    };
    let begun = Instant::now();
    while openings(&database) < 20 {
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing is written");
        std::thread::sleep(Duration::from_millis(10));
    }

    let before = openings(&database);
    let sandbox = Sandbox::new(&cluster.url(&database));
    sandbox.back_up(&["--jobs", "3"]);
    let after = openings(&database);
    cluster.sql(&database, "ALTER TABLE stop RENAME TO stopping; CREATE TABLE stop AS SELECT 1");
    for writer in &mut writers {
        assert!(writer.wait().unwrap().success());
    }

    let restored = restore(&cluster, &only_backup(&sandbox.path("backups")), &["-j2"]);
    let opened = openings(&restored);
    assert!(before <= opened && opened < after, "{before} {opened} {after}");
    let sums = "SELECT count(*), count(DISTINCT id), sum(balance) FROM accounts";
    let count = 52000 + 7 * opened;
    assert_eq!(cluster.sql(&restored, sums), format!("{count}|{count}|52000000"));
    sandbox.run(&["verify-backup"]).ends_with(0);
    let log = std::fs::read_to_string(format!("{}/log", cluster.dir)).unwrap();
    assert!(
        log.matches("FROM ONLY public.accounts WHERE ctid >=").count() >= 3,
        "it was not copied in ranges"
    );
}

/// A server that follows another; ended when dropped.
struct Standby {
    server: Child,
    port: String,
}

impl Drop for Standby {
    fn drop(&mut self) {
        send(self.server.id(), rustix::process::Signal::QUIT);
        self.server.wait().unwrap();
    }
}

impl Standby {
    fn start(primary: &Cluster) -> Standby {
        let data = format!("{}/standby", primary.dir);
        stock(primary.program("pg_basebackup").args([
            "-D",
            &data,
            "-R",
            "--checkpoint=fast",
            "-X",
            "stream",
        ]));
        let port = (31000 + (std::process::id() + unique()) % 1000).to_string();
        // PostgreSQL refuses to run as root, and the server must not outlive the test.
        let owner =
            stock(Command::new("stat").args(["-c", "%U", &format!("{}/data", primary.dir)]));
        let owner = owner.trim();
        let root = stock(Command::new("id").arg("-u")).trim() == "0";
        let mut words = Vec::new();
        if root {
            stock(Command::new("chown").args(["-R", owner, &data]));
            let group = stock(Command::new("id").args(["-g", owner]));
            words.extend([
                "setpriv".to_owned(),
                format!("--reuid={owner}"),
                format!("--regid={}", group.trim()),
                "--clear-groups".to_owned(),
            ]);
        }
        words.extend(["setpriv", "--pdeathsig", "QUIT"].map(str::to_owned));
        words.push(primary.bin_dir.join("postgres").display().to_string());
        words.extend(["-D".to_owned(), data, "-p".to_owned(), port.clone()]);
        let mut command = Command::new(&words[0]);
        let server = command
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let standby = Standby { server, port };
        let begun = Instant::now();
        while !standby.program(primary, "pg_isready").output().unwrap().status.success() {
            assert!(begun.elapsed() < Duration::from_secs(30), "the standby does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        standby
    }

    fn program(&self, primary: &Cluster, name: &str) -> Command {
        let mut command = primary.program(name);
        command.env("PGPORT", &self.port);
        command
    }
}

#[test]
fn a_hot_standby_is_backed_up() {
    let primary = Cluster::start(&installed(), &[], &[]);
    let database = primary.database();
    let sql = "CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 20000) i; SELECT lo_from_bytea(0, 'x');
               CREATE UNLOGGED TABLE u AS SELECT 1 AS i";
    primary.sql(&database, sql);
    let standby = Standby::start(&primary);
    let sandbox = Sandbox::new(&primary.url(&database).replace(&primary.port, &standby.port));
    let run = sandbox.run(&["backup"]);
    // The rows of an unlogged table are not on a standby, where pg_dump leaves them out unless asked.
    let run = run.expect(0);
    assert!(run.stdout.contains("20,000 rows"), "{run:?}");
    let folder = only_backup(&sandbox.path("backups"));
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["server"]["standby"], true);
    primary.sql(&database, "DELETE FROM u");
    let restored = restore(&primary, &folder, &["-j2"]);
    assert_same(&content(&primary, &database, &[]), &content(&primary, &restored, &[]));
    sandbox.run(&["verify-backup"]).ends_with(0);
}
