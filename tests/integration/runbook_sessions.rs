//! The pages about sessions, read where a table of them is swollen and where an account was taken over.

use crate::support::reader::{But, Reader};
use crate::support::{Cluster, Sandbox, installed};

const CONFIGURATION: &str = r#"
[schedule]
backup = "off"
verify_backup = "off"
restore_test = "off"
health_check = "off"
[[sessions.rule]]
table = "public.sessions"
column = "expires"
kind = "timestamptz"
[sessions.revoke]
users = "public.users"
password_reset = "must_change_password"
lock = "locked_until"
[[sessions.revoke.from]]
table = "public.refresh_tokens"
user = "user_id"
ip = "ip_address"
since = "created_at"
set_true = ["is_revoked"]
[sessions.audit]
table = "public.events"
action = "what"
subject = "who"
at = "at"
[[health.log]]
name = "web"
path = "web.log"
"#;

/// Most of the sessions are expired; the account 17 has two tokens, and somebody of the same network another one.
const TABLES: &str = "
    CREATE TABLE sessions (id int PRIMARY KEY, expires timestamptz);
    INSERT INTO sessions SELECT n, now() + (n - 90000) * interval '1 min' FROM generate_series(1, 100000) n;
    CREATE TABLE users (id int PRIMARY KEY, must_change_password boolean NOT NULL DEFAULT false, locked_until timestamptz);
    INSERT INTO users SELECT generate_series(1, 20);
    CREATE TABLE refresh_tokens (id serial, user_id int, ip_address inet, created_at timestamptz, is_revoked boolean DEFAULT false);
    INSERT INTO refresh_tokens (user_id, ip_address, created_at) VALUES (17, '192.0.2.7', now() - interval '1 h'),
        (17, '198.51.100.1', now() - interval '3 h'), (2, '192.0.2.9', now() - interval '1 h'), (3, '203.0.113.1', now());
    CREATE TABLE events (at timestamptz, what varchar(40) NOT NULL, who text)";

fn site() -> (Cluster, Sandbox) {
    let cluster = Cluster::start(&installed(), &[], &[]);
    cluster.sql("postgres", "CREATE DATABASE members TEMPLATE template0");
    cluster.sql("members", TABLES);
    let sandbox = Sandbox::new(&cluster.url("members"));
    sandbox.write("opsctl.toml", CONFIGURATION);
    (cluster, sandbox)
}

/// Nobody is there to be asked; `--yes` is what the other page has.
const NOBODY: But = But::Ends(2);

#[test]
fn a_swollen_table_of_sessions_is_emptied_by_the_page() {
    let (cluster, sandbox) = site();
    let reader = Reader::of("cleanup-sessions", &sandbox);
    let seen = reader.does("Check", &[("opsctl cleanup-sessions", But::Ends(1))]);
    assert!(seen[1].stdout.contains("REFUSED: ") && seen[1].stdout.contains("more than 50 %"));
    reader.does("A backlog", &[]);
    let left =
        "SELECT count(*), count(*) FILTER (WHERE expires < now() - interval '5 min') FROM sessions";
    assert!(cluster.sql("members", left).ends_with("|0"), "{}", cluster.sql("members", left));
    let lines = [
        ("opsctl cleanup-sessions lock", NOBODY),
        ("opsctl cleanup-sessions revoke --ip", NOBODY),
        ("opsctl cleanup-sessions revoke --all", NOBODY),
        ("opsctl cleanup-sessions revoke --user 17 --force-password-reset --dry-run", But::Ends(0)),
        ("opsctl cleanup-sessions revoke --user", NOBODY),
    ];
    let seen = reader.does("Somebody's sessions must end", &lines);
    // The number that the dry run has is what it would have to be told.
    assert!(seen[1].stdout.contains("2 sessions would be revoked"), "{seen:#?}");
    assert!(seen[2].stderr.contains("--yes 2, if that is right"), "{seen:#?}");
    let untouched = "SELECT count(*) FILTER (WHERE is_revoked) FROM refresh_tokens";
    assert_eq!(cluster.sql("members", untouched), "0");
    reader.does("Verify", &[]);
}

#[test]
fn an_account_that_was_taken_over_is_taken_back_by_the_page() {
    let (cluster, sandbox) = site();
    let now = chrono::Utc::now().format("%Y-%m-%d %H:%M:%S UTC");
    let attempts = format!("{now} [1] FATAL:  password authentication failed for user \"web\"\n");
    sandbox.write("web.log", &attempts.repeat(20));
    let reader = Reader::of("account-takeover", &sandbox)
        .with("/var/tmp", sandbox.dir.path().to_str().unwrap());
    let seen = reader.does("Check", &[("opsctl health-check --verbose", But::Ends(1))]);
    assert!(seen[1].stdout.contains("failed login"), "{seen:#?}");
    let meant = |n: usize| seen[n].stdout.lines().next().unwrap().to_owned();
    assert_eq!(meant(2), "members: 2 sessions would be revoked");
    assert_eq!(meant(3), "members: 2 sessions would be revoked");
    reader.does("Act", &[]);
    reader.does("Verify", &[]);
    let account = "SELECT must_change_password, locked_until > now() + interval '23 h' FROM users WHERE id = 17";
    assert_eq!(cluster.sql("members", account), "t|t");
    let events = "SELECT string_agg(DISTINCT what || ' ' || who, ', ') FROM events";
    assert_eq!(cluster.sql("members", events), "force-password-reset 17, lock 17, revoke 17");
    let others = "SELECT count(*) FROM refresh_tokens WHERE user_id <> 17 AND is_revoked";
    assert_eq!(cluster.sql("members", others), "0");
}
