//! What opsctl leaves behind in a session that a pooler gives to others afterwards: nothing.

use crate::support::archive::Archive;
use crate::support::pooler::Pooler;
use crate::support::{Cluster, Sandbox, installed};

/// What a setting of somebody else would be seen in.
const SETTINGS: &str = "SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings \
    WHERE source = 'session' AND name <> 'application_name'";

/// Does something by way of the pooler, and asserts that the session is the same and as it was.
#[track_caller]
fn leaves_nothing(pooler: &Pooler<'_>, database: &str, act: impl FnOnce()) {
    let state = || {
        let pid = pooler.sql(database, "SELECT pg_backend_pid()");
        (pid, pooler.sql(database, SETTINGS))
    };
    let before = state();
    act();
    assert_eq!(state(), before);
}

#[test]
fn behind_a_pooler_nothing_is_left_in_a_session_that_others_use() {
    let cluster = Cluster::start(&installed(), &[], &[]);
    let pooler = Pooler::start(&cluster);
    let sandbox = Sandbox::new(&pooler.url("postgres"));
    leaves_nothing(&pooler, "postgres", || {
        let check = ["health-check", "--tag", "postgres", "--skip", "minor-version"];
        sandbox.run(&check).ends_with(0);
    });
    leaves_nothing(&pooler, "postgres", || {
        let run = sandbox.run(&["doctor", "--skip", "repository"]);
        assert!(run.stdout.contains("answers to role"), "{run:#?}");
    });
    leaves_nothing(&pooler, "postgres", || {
        let (url, at) = (pooler.url("postgres"), sandbox.path("backups"));
        let config = sandbox.path("written.toml");
        let config = ["--config", config.to_str().unwrap()];
        let init = ["init", "--url", &url, "--repository", at.to_str().unwrap(), "--dry-run"];
        let run = sandbox.run(&[&init[..], &config].concat());
        assert!(run.stdout.contains("answers to role"), "{run:#?}");
    });
}

#[test]
fn an_archive_is_read_behind_a_pooler_and_nothing_is_left_in_its_session() {
    let sql = "CREATE TABLE audit_logs (id bigserial PRIMARY KEY, at timestamptz NOT NULL); \
        INSERT INTO audit_logs (at) SELECT timestamptz '2024-03-05 00:00Z' FROM generate_series(1, 40)";
    let (mut archive, cluster) = Archive::alone(sql);
    let pooler = Pooler::start(cluster);
    archive.sandbox.set("DATABASE_URL", pooler.url(&archive.database));
    let plan = archive.json(0, &["--dry-run"]);
    assert_eq!(plan["segments"][0]["rows"], 40, "{plan:#}");
    let settings = pooler.sql(&archive.database, SETTINGS);
    assert_eq!(settings, pooler.sql("postgres", SETTINGS));
}
