//! `opsctl cleanup-sessions revoke` and `lock`: exactly those who are meant, confirmed by number, and told to the audit table.

use std::io::Write as _;
use std::process::Stdio;

use crate::support::running::{Running, eventually, on_a_terminal};
use crate::support::sessions::Site;

const TABLES: &str = "
    CREATE TABLE users (id int PRIMARY KEY, must_change_password boolean NOT NULL DEFAULT false, locked_until timestamptz);
    INSERT INTO users SELECT generate_series(1, 4);
    CREATE TABLE refresh_tokens (id serial, user_id int, ip_address text, created_at timestamptz, is_revoked boolean DEFAULT false,
        revoked_at timestamptz);
    INSERT INTO refresh_tokens (user_id, ip_address, created_at) VALUES
        (1, '192.0.2.7', now() - interval '1 h'), (1, '198.51.100.1', now() - interval '3 h'),
        (2, '192.0.2.200', now() - interval '3 h'), (3, 'unknown', now() - interval '1 min');
    CREATE TABLE web_sessions (token text, owner int);
    INSERT INTO web_sessions VALUES ('a', 1), ('b', 2);
    CREATE TABLE events (at timestamptz, what varchar(40) NOT NULL, who text, more json)";

const CONFIGURATION: &str = r#"
[sessions.revoke]
users = "users"
password_reset = "must_change_password"
lock = "locked_until"
[[sessions.revoke.from]]
table = "refresh_tokens"
user = "user_id"
ip = "ip_address"
since = "created_at"
set_true = ["is_revoked"]
set_now = ["revoked_at"]
[sessions.audit]
table = "events"
action = "what"
subject = "who"
at = "at"
detail = "more"
"#;

/// The same, with sessions of which nothing but the owner is known.
fn with_web_sessions() -> String {
    let from =
        "[[sessions.revoke.from]]\ntable = \"web_sessions\"\nuser = \"owner\"\n[sessions.audit]";
    CONFIGURATION.replace("[sessions.audit]", from)
}

fn revoked(site: &Site) -> String {
    let sql = "SELECT string_agg(id::text, ' ' ORDER BY id) FROM refresh_tokens WHERE is_revoked AND revoked_at IS NOT NULL";
    site.sql(sql)
}

#[test]
fn those_who_are_meant_are_revoked_and_the_audit_table_knows() {
    let site = Site::new(TABLES, &with_web_sessions());
    let revoke = ["cleanup-sessions", "revoke", "--user", "1", "2", "--force-password-reset"];
    let dry = site.sandbox.json(0, &[&revoke[..], &["--dry-run"]].concat());
    assert_eq!((&dry["sessions"], &dry["password_resets"]), (&5.into(), &2.into()), "{dry:#}");
    // Nobody is asked without a terminal, and another number is another thing.
    let run = site.sandbox.run(&revoke).expect(2);
    assert!(run.stderr.contains("--yes 5, if that is right"), "{run:#?}");
    let run = site.sandbox.run(&[&revoke[..], &["--yes", "4"]].concat()).expect(1);
    assert!(run.stderr.contains("it is about 5 sessions, not 4: nothing was changed"), "{run:#?}");
    assert_eq!(revoked(&site), "");
    let done = site.sandbox.json(0, &[&revoke[..], &["--yes", "5"]].concat());
    assert_eq!((&done["revoked"], &done["password_resets"]), (&5.into(), &2.into()), "{done:#}");
    assert_eq!(
        (revoked(&site).as_str(), site.sql("SELECT count(*) FROM web_sessions").as_str()),
        ("1 2 3", "0")
    );
    assert_eq!(site.sql("SELECT id FROM users WHERE must_change_password ORDER BY id"), "1\n2");
    let events =
        "SELECT what, who, more->>'table', count(*) FROM events GROUP BY 1, 2, 3 ORDER BY 1, 2, 3";
    assert_eq!(
        site.sql(events),
        "force-password-reset|1|public.users|1\nforce-password-reset|2|public.users|1\n\
         revoke|1|public.refresh_tokens|2\nrevoke|1|public.web_sessions|1\n\
         revoke|2|public.refresh_tokens|1\nrevoke|2|public.web_sessions|1"
    );
    // What is revoked is not revoked again.
    let again = site.sandbox.json(0, &[&revoke[..], &["--yes", "0"]].concat());
    assert_eq!((&again["revoked"], &again["password_resets"]), (&0.into(), &0.into()));
}

#[test]
fn at_a_terminal_the_number_is_typed() {
    let site = Site::new(TABLES, &with_web_sessions());
    let typed = |text: &str, status: i32| {
        let command = site.sandbox.command(&["cleanup-sessions", "revoke", "--user", "1"]);
        let mut command = on_a_terminal(&command);
        let mut terminal = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        terminal.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = terminal.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(said.contains("Type the number of sessions to go on: "), "{said}");
        said
    };
    for wrong in ["2\n", "yes\n", "\n", "33\n"] {
        let said = typed(wrong, 1);
        assert!(said.contains("it is about 3 sessions, not `"), "{said}");
        assert_eq!(revoked(&site), "");
    }
    assert!(typed("3\n", 0).contains("3 sessions revoked"));
    assert_eq!(revoked(&site), "1 2");
}

#[test]
fn a_network_and_a_time_choose_together() {
    let site = Site::new(TABLES, CONFIGURATION);
    let sessions = |args: &[&str]| {
        let all = [&["cleanup-sessions", "revoke", "--dry-run"], args].concat();
        site.sandbox.json(0, &all)["sessions"].as_u64().unwrap()
    };
    assert_eq!(sessions(&["--all"]), 4);
    assert_eq!(sessions(&["--ip", "192.0.2.0/24"]), 2);
    assert_eq!(sessions(&["--ip", "192.0.2.7"]), 1);
    assert_eq!(sessions(&["--since", "2h"]), 2);
    assert_eq!(sessions(&["--since", "2h", "--ip", "192.0.2.0/24"]), 1);
    assert_eq!(sessions(&["--since", "2000-01-01T00:00:00Z", "--user", "1"]), 2);
    for wrong in [&["--ip", "here"][..], &["--since", "yesterday"], &["--all", "--user", "1"], &[]]
    {
        site.sandbox.run(&[&["cleanup-sessions", "revoke"], wrong].concat()).ends_with(2);
    }
    let args = [
        "cleanup-sessions",
        "revoke",
        "--ip",
        "192.0.2.0/24",
        "--since",
        "2h",
        "--force-password-reset",
        "--yes",
        "1",
    ];
    site.sandbox.run(&args).ends_with(0);
    assert_eq!(revoked(&site), "1");
    assert_eq!(site.sql("SELECT id FROM users WHERE must_change_password"), "1");
    // Of these sessions only the owner is known.
    site.configure(&with_web_sessions());
    let run = site.sandbox.run(&["cleanup-sessions", "revoke", "--ip", "192.0.2.0/24"]).expect(10);
    assert!(
        run.stderr.contains("has no `ip` for web_sessions: only --all can revoke there"),
        "{run:#?}"
    );
    site.sandbox.run(&["cleanup-sessions", "revoke", "--all", "--yes", "5"]).ends_with(0);
    assert_eq!(revoked(&site), "1 2 3 4");
}

#[test]
fn what_the_audit_table_was_not_told_did_not_happen() {
    let site = Site::new(TABLES, CONFIGURATION);
    site.sql("ALTER TABLE events ADD CHECK (who <> '2')");
    let run = site.sandbox.run(&["cleanup-sessions", "revoke", "--all", "--yes", "4"]).expect(1);
    assert!(run.stderr.contains("violates check constraint"), "{run:#?}");
    assert_eq!(
        (revoked(&site).as_str(), site.sql("SELECT count(*) FROM events").as_str()),
        ("", "0")
    );
}

#[test]
fn a_session_that_is_in_use_is_waited_for() {
    let site = Site::new(TABLES, CONFIGURATION);
    let somebody = site.somebody("UPDATE refresh_tokens SET ip_address = '192.0.2.8' WHERE id = 1");
    let running =
        Running::start(&site.sandbox, &["cleanup-sessions", "revoke", "--user", "1", "--yes", "2"]);
    eventually("it waits", || {
        assert!(!running.is_over());
        (site.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'opsctl%' AND wait_event_type = 'Lock'") != "0").then_some(())
    });
    drop(somebody);
    running.end().ends_with(0);
    assert_eq!(revoked(&site), "1 2");
}

#[test]
fn accounts_are_locked_for_a_time() {
    let site = Site::new(TABLES, CONFIGURATION);
    let lock = ["cleanup-sessions", "lock", "--user", "2", "3", "--for", "2h"];
    assert_eq!(site.sandbox.json(0, &[&lock[..], &["--dry-run"]].concat())["accounts"], 2);
    site.sandbox.run(&lock).ends_with(2);
    site.sandbox.run(&[&lock[..], &["--yes", "2"]].concat()).ends_with(0);
    let locked = "SELECT id FROM users WHERE locked_until BETWEEN now() + interval '119 min' AND now() + interval '2 h' ORDER BY id";
    assert_eq!(site.sql(locked), "2\n3");
    assert_eq!(site.sql("SELECT what, who FROM events ORDER BY who"), "lock|2\nlock|3");
    let run = site
        .sandbox
        .run(&["cleanup-sessions", "lock", "--user", "4", "99", "--yes", "2"])
        .expect(1);
    assert!(run.stdout.contains("1 account locked; there is no account 99"), "{run:#?}");
    site.configure("[sessions.revoke]\nusers = \"users\"\n");
    let run =
        site.sandbox.run(&["cleanup-sessions", "lock", "--user", "4", "--yes", "1"]).expect(10);
    assert!(run.stderr.contains("[sessions.revoke] has no `lock`"), "{run:#?}");
}
