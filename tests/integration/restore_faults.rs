//! What breaks while a database is restored in the place of another: that one stays whole and reachable, and what is
//! left of the new one is removed by the next run.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::running::{Running, eventually, send};
use crate::support::{Cluster, Sandbox, installed};

const OLD: &str = "1";
const NEW: &str = "20000";

/// A server with one database, which has changed since its backup.
struct Scene {
    cluster: Cluster,
    database: String,
    sandbox: Sandbox,
}

impl Scene {
    fn new() -> Scene {
        let cluster = Cluster::start(&installed(), &[], &[]);
        let database = cluster.database();
        let sql = "CREATE TABLE members (id int PRIMARY KEY, name text, rest text);
             ALTER TABLE members ALTER rest SET STORAGE PLAIN;
             INSERT INTO members SELECT i, 'name ' || i, repeat(md5(i::text), 32) FROM generate_series(1, 20000) i;
             CREATE INDEX ON members (name); SELECT lo_from_bytea(0, 'content')";
        cluster.sql(&database, sql);
        let sandbox = Sandbox::new(&cluster.url(&database));
        sandbox.back_up(&["--compression", "none"]);
        let scene = Scene { cluster, database, sandbox };
        scene.ruin();
        scene
    }

    /// Makes the content of the database different from the backup's.
    fn ruin(&self) {
        self.cluster.sql(&self.database, "UPDATE members SET name = 'ruined'");
    }

    fn content_of(&self, database: &str) -> String {
        self.cluster.sql(database, "SELECT count(DISTINCT name) FROM members")
    }

    /// Returns the names of databases that match a pattern.
    fn databases(&self, pattern: &str) -> Vec<String> {
        let sql = format!("SELECT datname FROM pg_database WHERE datname LIKE '{pattern}'");
        self.cluster.sql("postgres", &sql).lines().map(str::to_owned).collect()
    }

    fn unfinished(&self) -> Vec<String> {
        self.databases("opsctl\\_restore\\_%")
    }

    /// Asserts that the next restore works, and leaves nothing but what it replaced.
    #[track_caller]
    fn recovers(&self) {
        self.sandbox.run(&["restore", "--replace", &self.database]).ends_with(0);
        assert_eq!(self.content_of(&self.database), NEW);
        assert_eq!(self.unfinished(), [""; 0]);
    }
}

/// Kills a restore some time after it said that it is at a certain step.
fn killed_at(step: &str) {
    let scene = Scene::new();
    let Scene { database, sandbox, .. } = &scene;
    sandbox.write("anonymize.sql", "UPDATE members SET rest = NULL");
    for delay in [0, 10, 30, 80] {
        let args = ["restore", "--replace", database, "--drop-old", "--anonymize", "anonymize.sql"];
        let mut child = sandbox.command(&args).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said: Vec<String> =
            lines.map_while(Result::ok).take_while(|line| !line.contains(step)).collect();
        std::thread::park_timeout(Duration::from_millis(delay));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(delay > 0 || !status.success(), "it ended before it was at `{step}`: {said:?}");

        // Its sessions see it when they have done what they were about to do.
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name IN ('opsctl restore', 'pg_restore')";
        eventually("the end of its sessions", || {
            (scene.cluster.sql("postgres", sessions) == "0").then_some(())
        });
        let kept = scene.databases(&format!("{database}\\_before\\_%"));
        match scene.content_of(database).as_str() {
            OLD => assert_eq!(kept, [""; 0]),
            // It was killed after the swap: what it replaced is there, or was dropped as it was asked to.
            NEW => {
                for kept in kept {
                    assert_eq!(scene.content_of(&kept), OLD);
                    scene.cluster.sql("postgres", &format!("DROP DATABASE \"{kept}\""));
                }
                scene.ruin();
            }
            other => panic!("{other} names"),
        }
        assert!(scene.unfinished().len() <= 1, "{:?}", scene.unfinished());
        assert!(!step.contains("schema") || delay > 0 || !scene.unfinished().is_empty());
    }
    scene.recovers();
}

#[test]
fn killed_while_the_schema_is_restored() {
    killed_at("restoring the schema");
}

#[test]
fn killed_while_rows_are_loaded() {
    killed_at("loading rows");
}

#[test]
fn killed_while_indexes_are_built() {
    killed_at("building indexes");
}

#[test]
fn killed_while_statistics_are_gathered() {
    killed_at("gathering statistics");
}

#[test]
fn killed_while_it_anonymizes() {
    killed_at("anonymizing");
}

#[test]
fn killed_while_the_databases_change_places() {
    killed_at("giving `");
}

#[test]
fn killed_while_the_old_database_is_dropped() {
    killed_at("dropping `");
}

#[test]
fn the_server_is_killed() {
    let scene = Scene::new();
    let Scene { cluster, database, sandbox } = &scene;
    let running = Running::start(sandbox, &["restore", "--replace", database]);
    let copying = "SELECT count(*) FROM pg_stat_progress_copy WHERE command = 'COPY FROM'";
    eventually("rows being loaded", || {
        assert!(!running.is_over(), "it ended before the server was killed");
        (cluster.sql("postgres", copying) != "0").then_some(())
    });
    send(cluster.pid(), Signal::KILL);
    let run = running.end();
    assert!(matches!(run.status, 1 | 12), "{run:#?}");
    assert!(run.stderr.contains("the next restore removes it"), "{run:#?}");
    cluster.start_again();
    assert_eq!(scene.content_of(database), OLD);
    assert_eq!(scene.unfinished().len(), 1);
    scene.recovers();
}

#[test]
fn the_disk_of_the_server_is_full() {
    let mut scene = Scene::new();
    let full = Cluster::start(&installed(), &[], &[("PGTEST_ROOM", "46M")]);
    let Scene { database, sandbox, .. } = &mut scene;
    full.sql("postgres", &format!("CREATE DATABASE {database} TEMPLATE template0"));
    full.sql(database, "CREATE TABLE members AS SELECT 'old' AS name");
    // Otherwise its own pages might be what has no room.
    full.sql("postgres", "CHECKPOINT");
    sandbox.set("DATABASE_URL", full.url(database));
    let run = sandbox.run(&["restore", "--replace", database]).expect(1);
    assert!(run.stderr.contains("No space left on device"), "{run:#?}");
    assert!(run.stderr.contains("could not extend file"), "{run:#?}");
    let sql = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database";
    assert_eq!(
        full.sql("postgres", sql),
        format!("postgres template0 template1 {database}"),
        "{run:#?}"
    );
    assert_eq!(full.sql(database, "SELECT name FROM members"), "old");
}
