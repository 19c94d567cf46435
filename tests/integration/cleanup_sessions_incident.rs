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
    let reset = || site.sql("SELECT id FROM users WHERE must_change_password");
    assert_eq!(reset(), "1");
    // Whose sessions are revoked already is one of them, too.
    site.sql("UPDATE users SET must_change_password = false");
    let again = [&args[..args.len() - 1], &["0"]].concat();
    site.sandbox.run(&again).ends_with(0);
    assert_eq!(reset(), "1");
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
    // A lock that lasts longer is not shortened.
    site.sql("UPDATE users SET locked_until = now() + interval '7 days' WHERE id = 2");
    site.sandbox.run(&[&lock[..], &["--yes", "2"]].concat()).ends_with(0);
    assert_eq!(
        site.sql("SELECT locked_until > now() + interval '6 days' FROM users WHERE id = 2"),
        "t"
    );
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

#[test]
fn whatever_is_stored_as_an_address_keeps_nobody_else_from_being_revoked() {
    let site = Site::new(TABLES, CONFIGURATION);
    let v4 =
        ["192.0.2.7", "192.0.2.7:443", "::ffff:192.0.2.9", "::FFFF:192.0.2.9/128", "192.0.2.1/32"];
    let v6 = [
        "2001:db8::7",
        "[2001:db8::8]:443",
        "2001:DB8:0:0:0:0:0:9",
        "2001:db8::/64",
        "2001:db8:1:2:3:4:5::",
    ];
    let none = [
        "",
        "300.1.2.3",
        "192.0.2.7/33",
        "1::2::3",
        "12345::",
        "1:2:3",
        "::1/129",
        "192.0.2.7, 10.0.0.1",
        "fe80::1%eth0",
    ];
    let values =
        |ips: &[&str]| ips.iter().map(|ip| format!("('{ip}')")).collect::<Vec<_>>().join(", ");
    let all = [&v4[..], &v6, &none].concat();
    site.sql(&format!(
        "DELETE FROM refresh_tokens; INSERT INTO refresh_tokens (ip_address) VALUES {}, (NULL)",
        values(&all)
    ));
    let plan = |network: &str| {
        let args = ["cleanup-sessions", "revoke", "--dry-run", "--ip", network];
        let table = site.sandbox.json(0, &args)["tables"][0].clone();
        (table["sessions"].as_u64().unwrap(), table["unreadable"].as_u64().unwrap())
    };
    assert_eq!(plan("192.0.2.0/24"), (5, 10));
    assert_eq!(plan("2001:db8::/32"), (5, 10));
    assert_eq!(plan("::ffff:192.0.2.9"), (2, 10));
    let run = site
        .sandbox
        .run(&["cleanup-sessions", "revoke", "--ip", "192.0.2.0/24", "--yes", "5"])
        .expect(0);
    let said = "10 rows of public.refresh_tokens without an address that can be read";
    assert!(run.stderr.contains(said) && run.stdout.contains("5 sessions revoked"), "{run:#?}");
    // Where the column is one of addresses, nothing else can be in it.
    site.sql(&format!(
        "TRUNCATE refresh_tokens; ALTER TABLE refresh_tokens ALTER ip_address TYPE inet USING NULL; \
         INSERT INTO refresh_tokens (ip_address) SELECT v.ip::inet FROM (VALUES {}) v(ip)",
        values(&[&[v4[0], "::ffff:192.0.2.9"][..], &v6[..1]].concat())
    ));
    assert_eq!(plan("192.0.2.0/24"), (2, 0));
    site.sql("ALTER TABLE refresh_tokens ALTER created_at TYPE timestamp");
    let run = site.sandbox.run(&["cleanup-sessions", "revoke", "--since", "2h"]).expect(10);
    let said =
        "refresh_tokens.created_at is timestamp without time zone, not timestamp with time zone";
    assert!(run.stderr.contains(said), "{run:#?}");
}

#[test]
fn one_locked_row_keeps_no_other_and_what_was_done_is_said() {
    let site = Site::new(TABLES, &with_web_sessions());
    site.sql("INSERT INTO refresh_tokens (user_id) SELECT 4 FROM generate_series(1, 12000)");
    let somebody = site.somebody("SELECT FROM refresh_tokens WHERE id = 2 FOR UPDATE");
    let report = site.sandbox.json(1, &["cleanup-sessions", "revoke", "--all", "--yes", "12006"]);
    assert_eq!(report["revoked"], 12005, "{report:#}");
    assert!(report["error"].as_str().unwrap().contains("lock timeout"), "{report:#}");
    assert_eq!(site.sql("SELECT id FROM refresh_tokens WHERE NOT is_revoked"), "2");
    assert_eq!(site.sql("SELECT count(*) FROM web_sessions"), "0");
    drop(somebody);
    // Nor does one in a partition keep those in another.
    site.sql(
        "DROP TABLE web_sessions; CREATE TABLE web_sessions (token text, owner int) PARTITION BY LIST (owner); \
         CREATE TABLE web_1 PARTITION OF web_sessions FOR VALUES IN (1); CREATE TABLE web_2 PARTITION OF web_sessions FOR VALUES IN (2); \
         INSERT INTO web_sessions VALUES ('a', 1), ('b', 2)",
    );
    let somebody = site.somebody("SELECT FROM web_1 FOR UPDATE");
    let report = site.sandbox.json(1, &["cleanup-sessions", "revoke", "--all", "--yes", "3"]);
    assert_eq!(report["revoked"], 2, "{report:#}");
    drop(somebody);
    site.sandbox.run(&["cleanup-sessions", "revoke", "--all", "--yes", "1"]).ends_with(0);
}

#[test]
fn it_comes_to_its_end_while_others_log_in_and_where_a_trigger_keeps_a_row() {
    let site = Site::new(TABLES, CONFIGURATION);
    // Each time that somebody is logged out, he logs in again.
    site.sql(
        "CREATE FUNCTION login() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO refresh_tokens (user_id) VALUES (1); RETURN NULL; END $$;
         CREATE TRIGGER login AFTER UPDATE ON refresh_tokens FOR EACH STATEMENT EXECUTE FUNCTION login()",
    );
    let args = ["cleanup-sessions", "revoke", "--all", "--yes", "4", "--timeout", "30s"];
    site.sandbox.run(&args).ends_with(0);
    assert!(revoked(&site).starts_with("1 2 3 4"), "{}", revoked(&site));
    site.sql(
        "DROP TRIGGER login ON refresh_tokens; UPDATE refresh_tokens SET is_revoked = false, revoked_at = NULL WHERE id <= 4; \
         CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF OLD.id = 3 THEN RETURN NULL; END IF; RETURN NEW; END $$;
         CREATE TRIGGER keep BEFORE UPDATE ON refresh_tokens FOR EACH ROW EXECUTE FUNCTION keep();
         DELETE FROM refresh_tokens WHERE id > 4",
    );
    let report = site.sandbox.json(1, &["cleanup-sessions", "revoke", "--all", "--yes", "4"]);
    assert_eq!((&report["revoked"], revoked(&site).as_str()), (&3.into(), "1 2 4"), "{report:#}");
    assert!(report["error"].as_str().unwrap().contains("1 stay as they are: is there a trigger?"));
}

#[test]
fn the_audit_table_has_the_whole_of_each_value_whatever_its_kind_of_text() {
    let events = "at timestamptz, what character(24), who character(8), more json";
    let tables =
        TABLES.replace("at timestamptz, what varchar(40) NOT NULL, who text, more json", events);
    let site = Site::new(&tables, CONFIGURATION);
    site.sandbox.run(&["cleanup-sessions", "revoke", "--user", "3", "--yes", "1"]).ends_with(0);
    assert_eq!(site.sql("SELECT trim(what), trim(who) FROM events"), "revoke|3");
    // What has no room is an error, not a part of it.
    site.sql(
        "CREATE DOMAIN short AS varchar(3); ALTER TABLE events ALTER what TYPE short USING 'x'",
    );
    let run =
        site.sandbox.run(&["cleanup-sessions", "revoke", "--user", "2", "--yes", "1"]).expect(1);
    assert!(run.stderr.contains("value too long for type character varying(3)"), "{run:#?}");
    assert_eq!(revoked(&site), "4");
}
