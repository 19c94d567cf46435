//! `opsctl cleanup-sessions`: what is expired by the server's clock goes, and nothing else, whatever gets in the way.

use rustix::process::Signal;

use crate::support::running::{Running, by_another_clock, eventually};
use crate::support::sessions::Site;
use crate::support::{Cluster, Run, Sandbox, installed};

/// Sessions with a `timestamptz`; the first `n` of `of` are expired, the others live.
fn sessions(n: u32, of: u32) -> String {
    format!(
        "CREATE TABLE sessions (id serial PRIMARY KEY, expires timestamptz); \
         INSERT INTO sessions (expires) SELECT now() + (n - {n} - 0.5) * interval '1 min' FROM generate_series(1, {of}) n"
    )
}

const RULE: &str =
    "[[sessions.rule]]\ntable = \"sessions\"\ncolumn = \"expires\"\nkind = \"timestamptz\"\n";

#[test]
fn only_what_is_over_by_the_servers_clock_goes_whatever_the_column() {
    let sql = "
        CREATE TABLE aware (id int, at timestamptz);
        CREATE TABLE naive (id int, at timestamp);
        CREATE TABLE seconds (id int, at int);
        CREATE TABLE milliseconds (id int, at bigint);
        INSERT INTO aware SELECT n, now() + n * interval '1 min' FROM generate_series(-5, 5) n WHERE n <> 0;
        INSERT INTO naive SELECT id, at AT TIME ZONE 'Asia/Tokyo' FROM aware;
        INSERT INTO seconds SELECT id, extract(epoch FROM at) FROM aware;
        INSERT INTO milliseconds SELECT id, extract(epoch FROM at) * 1000 FROM aware;
        INSERT INTO aware VALUES (100, NULL), (101, 'infinity');
        INSERT INTO naive VALUES (100, NULL), (101, 'infinity');
        INSERT INTO seconds VALUES (100, NULL); INSERT INTO milliseconds VALUES (100, NULL)";
    let rule = |table: &str, kind: &str| {
        format!("[[sessions.rule]]\ntable = \"{table}\"\ncolumn = \"at\"\nkind = \"{kind}\"\n")
    };
    let configuration = [
        rule("aware", "timestamptz"),
        rule("naive", "timestamp") + "zone = \"Asia/Tokyo\"\n",
        rule("seconds", "epoch-seconds"),
        rule("milliseconds", "epoch-milliseconds"),
    ]
    .concat();
    let site = Site::new(sql, &configuration);
    // The server, and every session in it, is somewhere else; the client's clock is a day off.
    site.sql(&format!("ALTER DATABASE {} SET timezone = 'America/New_York'", site.database));
    let command = site.sandbox.command(&["cleanup-sessions", "--json"]);
    let run = Run::of(&mut by_another_clock(&command, "+1d")).expect(0);
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let part = &report["databases"][0];
    assert_eq!((&part["deleted"], &part["remaining"]), (&20.into(), &0.into()), "{part:#}");
    let left = |table: &str| {
        site.sql(&format!("SELECT string_agg(id::text, ' ' ORDER BY id) FROM {table}"))
    };
    for table in ["aware", "naive"] {
        assert_eq!(left(table), "1 2 3 4 5 100 101", "{table}");
    }
    for table in ["seconds", "milliseconds"] {
        assert_eq!(left(table), "1 2 3 4 5 100", "{table}");
    }
}

#[test]
fn in_the_hour_that_a_change_of_the_clocks_repeats_the_later_reading_counts() {
    let site = Site::new("CREATE TABLE s (id text, at timestamp, aware timestamptz)", "");
    // A zone whose summer time, an hour ahead of UTC, ended half an hour ago.
    let zone = site.sql(
        "SELECT format('STD0DST-1,%s/2,%s/%s', (day + 180) % 365, day, to_char(over, 'HH24:MI:SS')) FROM (SELECT \
         to_char(over, 'DDD')::int - 1 AS day, over FROM (SELECT (now() AT TIME ZONE 'UTC') + interval '30 min' AS over) o) d",
    );
    // What a clock on the wall there shows: both readings are over; one of them; one reading only, over; not yet.
    site.sql(
        "INSERT INTO s SELECT id, (now() AT TIME ZONE 'UTC') + at::interval FROM (VALUES \
         ('both', '-10 min'), ('one', '10 min'), ('before', '-40 min'), ('later', '2 h')) v(id, at)",
    );
    site.configure(&format!(
        "[[sessions.rule]]\ntable = \"s\"\ncolumn = \"at\"\nkind = \"timestamp\"\nzone = \"{zone}\"\n"
    ));
    for index in ["", "CREATE INDEX ON s (at)"] {
        site.sql(index);
        site.clean(0, &[]);
        assert_eq!(site.sql("SELECT string_agg(id, ' ' ORDER BY id) FROM s"), "later one");
    }
    site.configure("[[sessions.rule]]\ntable = \"s\"\ncolumn = \"at\"\nkind = \"timestamp\"\nzone = \"Nowhere/City\"\n");
    assert!(site.refusal(10, &[]).contains("knows no time zone `Nowhere/City`"));
}

#[test]
fn a_table_that_is_not_sure_to_be_meant_is_refused() {
    let sql = "
        CREATE TABLE sessions (id text, user_agent text, payload text, last_activity bigint);
        INSERT INTO sessions VALUES ('a', '', '', 1);
        CREATE TABLE numbers (at bigint); INSERT INTO numbers VALUES (1700000000000), (1800000000000), (1900000000000);
        CREATE TABLE accounts (provider text, \"providerAccountId\" text, expires_at timestamptz);
        INSERT INTO accounts VALUES ('github', '1', now() - interval '1 day'), ('github', '2', now() + interval '1 day')";
    let site = Site::new(sql, "[[sessions.rule]]\npreset = \"laravel\"\ngrace = \"2h\"\n");
    let rule = |table: &str, column: &str, kind: &str| {
        site.configure(&format!(
            "[[sessions.rule]]\ntable = \"{table}\"\ncolumn = \"{column}\"\nkind = \"{kind}\"\n"
        ));
    };
    let said = site.refusal(10, &[]);
    let is = "not the tables of Laravel sessions: public.sessions: `last_activity` is bigint, not integer";
    assert!(said.contains(is), "{said}");
    site.configure("[[sessions.rule]]\npreset = \"django\"\n");
    assert!(site.refusal(10, &[]).contains("there is no table public.django_session"));
    rule("numbers", "at", "epoch-seconds");
    let said = site.refusal(10, &[]);
    assert!(
        said.contains("1700000000000 is no time from 2000 to 2100 as `epoch-seconds`"),
        "{said}"
    );
    rule("numbers", "at", "timestamptz");
    assert!(site.refusal(10, &[]).contains("at is bigint, which does not fit `timestamptz`"));
    rule("numbers", "att", "epoch-seconds");
    assert!(site.refusal(10, &[]).contains("public.numbers has no column `att`"));
    rule("nowhere", "at", "epoch-seconds");
    assert!(site.refusal(10, &[]).contains("there is no table nowhere"));
    // "expires_at < now()" would delete these.
    rule("accounts", "expires_at", "timestamptz");
    let said = site.refusal(10, &["--first-run"]);
    assert!(
        said.contains("public.accounts is left alone: these are the links of accounts"),
        "{said}"
    );
    // Nor do they go with anything else, whatever their table is called.
    site.sql(
        "ALTER TABLE accounts RENAME TO t3_account; CREATE TABLE others (id text, at timestamptz)",
    );
    let child = "[[sessions.rule.children]]\ntable = \"t3_account\"\ncolumn = \"provider\"\nkey = \"id\"\naction = \"delete\"\n";
    rule("others", "at", &format!("timestamptz\"\n{child}#"));
    assert!(site.refusal(10, &[]).contains("its child public.t3_account is left alone"));
    site.configure("[sessions.revoke]\nusers = \"numbers\"\nid = \"at\"\n[[sessions.revoke.from]]\ntable = \"t3_account\"\n");
    let run = site.sandbox.run(&["cleanup-sessions", "revoke", "--all", "--yes", "2"]).expect(10);
    assert!(run.stderr.contains("public.t3_account is left alone"), "{run:#?}");
    site.configure(&format!(
        "{}condition = \"t.nothing\"\n",
        RULE.replace("\"sessions\"", "\"accounts\"").replace("\"expires\"", "\"expires_at\"")
    ));
    site.sql("ALTER TABLE t3_account RENAME TO accounts; ALTER TABLE accounts DROP provider");
    assert!(
        site.refusal(10, &[])
            .contains("its condition cannot be used: ERROR: column t.nothing does not exist")
    );
    assert_eq!(site.sql("SELECT count(*) FROM sessions, numbers, accounts"), "6");
}

#[test]
fn the_greatest_number_there_is_means_never() {
    let sql = "
        CREATE TABLE spring_session (primary_id char(36), session_id char(36), creation_time bigint, last_access_time bigint,
            max_inactive_interval int, expiry_time bigint, principal_name varchar(100));
        INSERT INTO spring_session (primary_id, session_id, max_inactive_interval, expiry_time) VALUES
            ('a', 'a', 60, 1700000000000), ('b', 'b', 60, extract(epoch FROM now() + interval '1 h') * 1000), ('c', 'c', -1, 9223372036854775807)";
    let site = Site::new(sql, "[[sessions.rule]]\npreset = \"spring-session\"\n");
    let part = site.clean(0, &[]);
    assert_eq!(
        (&part["deleted"], &part["rules"][0]["before"]["without_time"]),
        (&1.into(), &1.into())
    );
    assert_eq!(site.sql("SELECT trim(primary_id) FROM spring_session ORDER BY 1"), "b\nc");
}

#[test]
fn four_tables_named_sessions_are_told_apart_and_a_fifth_is_said_to_be_unknown() {
    let table = |schema: &str, columns: &str| {
        format!("CREATE SCHEMA {schema}; CREATE TABLE {schema}.sessions ({columns});")
    };
    let sql = [
        table("store", "id bigint, session_id varchar, data text, created_at timestamp, updated_at timestamp"),
        table("rails", "id bigint, user_id bigint, ip_address varchar, user_agent varchar, created_at timestamp, updated_at timestamp"),
        table("laravel", "id varchar, user_id bigint, ip_address varchar, user_agent text, payload text, last_activity integer"),
        table("authjs", "id serial, \"userId\" int, expires timestamptz, \"sessionToken\" varchar"),
        table("own", "id bigint, expires_at timestamptz"),
        "CREATE TABLE authjs.verification_token (identifier text, expires timestamptz, token text);".to_owned(),
        "CREATE TABLE authjs.accounts (provider text, \"providerAccountId\" text, expires_at bigint)".to_owned(),
    ];
    let site = Site::new(&sql.concat(), "");
    let report = site.sandbox.json(0, &["cleanup-sessions", "detect"]);
    let found = report["databases"][0]["presets"].as_array().unwrap().iter();
    let mut found: Vec<_> = found
        .map(|p| format!("{} {}", p["schema"].as_str().unwrap(), p["preset"].as_str().unwrap()))
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            "authjs authjs",
            "laravel laravel",
            "rails rails-authentication",
            "store rails-session-store"
        ]
    );
    assert_eq!(report["databases"][0]["unknown"], serde_json::json!(["own.sessions"]));
    let text = site.sandbox.run(&["cleanup-sessions", "detect", "--quiet"]).expect(0).stdout;
    assert!(text.contains("# authjs.accounts is left alone: these are the links"), "{text}");
    // What it prints is a configuration, and what only the operator knows must be filled in.
    site.configure(&text);
    site.sandbox.run(&["config", "check"]).ends_with(0);
    let part = site.clean(10, &[]);
    let refused = part["refused"].as_array().unwrap();
    assert!(
        refused.iter().all(|r| r["reason"].as_str().unwrap().contains("needs `grace`")),
        "{part:#}"
    );
    assert_eq!(refused.len(), 3, "{part:#}");
    site.configure(&text.replace("#grace", "grace"));
    site.clean(0, &[]);
}

#[test]
fn more_than_half_of_a_table_goes_only_the_first_time_or_where_it_is_said_to_be_usual() {
    let site = Site::new(&sessions(60, 100), RULE);
    let said = site.refusal(1, &[]);
    assert!(
        said.contains("60 of the 100 rows of public.sessions are expired, more than 50 %"),
        "{said}"
    );
    let dry = site.clean(1, &["--dry-run"]);
    assert_eq!(dry["rules"][0]["figures"]["expired"], 60, "{dry:#}");
    let dry = site.clean(0, &["--dry-run", "--first-run"]);
    assert_eq!((&dry["rules"][0]["figures"]["rows"], &dry["deleted"]), (&100.into(), &0.into()));
    assert_eq!(site.sql("SELECT count(*) FROM sessions"), "100");
    // Some of them can be known again, and nobody's key is shown.
    let sample = &dry["rules"][0]["sample"];
    assert_eq!((&sample["key"][0], sample["sha256"].as_array().unwrap().len()), (&"id".into(), 3));
    let hashes = site.sql(
        "SELECT encode(sha256(convert_to(id::text, 'UTF8')), 'hex') FROM sessions WHERE expires < now()",
    );
    for hash in sample["sha256"].as_array().unwrap() {
        assert!(hashes.lines().any(|line| line == hash.as_str().unwrap()), "{sample:#}");
    }
    site.configure(&format!("{RULE}max_percent = 60\n"));
    assert_eq!(site.clean(0, &[])["deleted"], 60);
    site.sql("UPDATE sessions SET expires = now() - interval '1 min'");
    site.configure(RULE);
    let run = site.sandbox.run(&["cleanup-sessions", "--first-run"]).expect(0);
    assert!(run.stdout.contains("40 rows of public.sessions deleted in 1 batch"), "{run:#?}");
    assert!(run.stdout.contains("usable again; the files stay as large as they are"), "{run:#?}");
    assert_eq!(site.sql("SELECT count(*) FROM sessions"), "0");
}

#[test]
fn a_database_without_rules_is_not_concerned() {
    let site = Site::new(&sessions(4, 10), "");
    let (own, other) = (site.cluster.url(&site.database), site.cluster.url("postgres"));
    let databases =
        format!("[databases.own]\nurl = \"{own}\"\n[databases.other]\nurl = \"{other}\"\n");
    let rule = RULE.replace("table =", "database = \"own\"\ntable =");
    site.configure(&format!("{databases}{rule}[schedule]\ncleanup_sessions = \"* * * * *\"\n"));
    let report = site.sandbox.json(0, &["cleanup-sessions"]);
    let names: Vec<_> =
        report["databases"].as_array().unwrap().iter().map(|d| &d["database"]).collect();
    assert_eq!(names, ["own"]);
    let expects = |args: &[&str], list: &str| {
        let report = site.sandbox.run(&[args, &["--json"]].concat());
        let report: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
        let all = report[list].as_array().unwrap().iter();
        let all = all.filter(|row| row.to_string().contains("cleanup-sessions"));
        all.map(|row| row["database"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(expects(&["status"], "standings"), ["own"]);
    assert_eq!(expects(&["health-check", "--only", "schedule"], "checks"), ["own"]);
}

#[test]
fn what_refers_to_a_row_goes_or_stays_as_it_is_told() {
    let sql = sessions(4, 10)
        + "; CREATE TABLE notes (session int REFERENCES sessions DEFERRABLE INITIALLY DEFERRED); INSERT INTO notes SELECT id FROM sessions;
           CREATE TABLE marks (session int REFERENCES sessions); INSERT INTO marks SELECT id FROM sessions;
           CREATE TABLE pins (session int REFERENCES sessions); INSERT INTO pins VALUES (1);
           CREATE TABLE parts (session int REFERENCES sessions ON DELETE CASCADE); INSERT INTO parts SELECT id FROM sessions; ANALYZE";
    let site = Site::new(&sql, RULE);
    let said = site.refusal(10, &[]);
    for constraint in
        ["`marks_session_fkey` (session)", "`notes_session_fkey`", "`pins_session_fkey`"]
    {
        assert!(said.contains(constraint), "{said}");
    }
    let child = |table: &str, action: &str| {
        format!(
            "[[sessions.rule.children]]\ntable = \"{table}\"\ncolumn = \"session\"\nkey = \"id\"\naction = \"{action}\"\n"
        )
    };
    let children = [child("notes", "delete"), child("marks", "set-null"), child("pins", "keep")];
    site.configure(&format!("{RULE}{}", children.concat()));
    let dry = site.clean(0, &["--dry-run"]);
    let cascade = serde_json::json!([{ "table": "public.parts", "deleted": true, "about": 3 }]);
    assert_eq!(dry["rules"][0]["cascades"], cascade, "{dry:#}");
    let part = site.clean(0, &[]);
    assert_eq!((&part["deleted"], &part["children"]), (&3.into(), &6.into()), "{part:#}");
    let counts = "SELECT (SELECT count(*) FROM sessions), (SELECT count(*) FROM notes), (SELECT count(*) FROM marks), \
                  (SELECT count(session) FROM marks), (SELECT count(*) FROM parts)";
    assert_eq!(site.sql(counts), "7|7|10|7|7");
    assert_eq!(site.sql("SELECT id FROM sessions WHERE expires < now()"), "1");
}

#[test]
fn rows_that_somebody_has_locked_are_passed_over_and_counted() {
    for index in ["", "CREATE INDEX ON sessions (expires)"] {
        let site = Site::new(&sessions(400, 1000), RULE);
        site.sql(index);
        let somebody =
            site.somebody("SELECT FROM sessions WHERE id IN (1, 17, 400, 999) FOR UPDATE");
        let part = site.clean(0, &[]);
        assert_eq!(
            (&part["deleted"], &part["skipped"], &part["remaining"]),
            (&397.into(), &3.into(), &3.into())
        );
        let text = site.sandbox.run(&["cleanup-sessions"]).expect(0).stdout;
        assert!(
            text.contains("0 rows of public.sessions deleted")
                && text.contains("3 left that others had locked"),
            "{text}"
        );
        drop(somebody);
        assert_eq!(
            (&site.clean(0, &[])["deleted"], site.sql("SELECT count(*) FROM sessions").as_str()),
            (&3.into(), "600")
        );
    }
}

#[test]
fn a_session_that_is_just_being_prolonged_stays() {
    for index in ["", "CREATE INDEX ON sessions (expires)"] {
        let site = Site::new(&sessions(400, 1000), RULE);
        site.sql(index);
        let prolong = "UPDATE sessions SET expires = now() + interval '1 h' WHERE id <= 200";
        let somebody = site.somebody(prolong);
        let part = site.clean(0, &[]);
        assert_eq!((&part["deleted"], &part["skipped"]), (&200.into(), &200.into()), "{part:#}");
        somebody.commit();
        assert_eq!(site.clean(0, &[])["deleted"], 0);
        assert_eq!(site.sql("SELECT count(*), min(id) FROM sessions"), "800|1");
    }
}

#[test]
fn a_row_whose_children_somebody_has_locked_does_not_keep_the_others() {
    let sql = sessions(400, 1000)
        + "; CREATE TABLE notes (session int REFERENCES sessions); INSERT INTO notes SELECT id FROM sessions; CREATE INDEX ON notes (session)";
    let child = "[[sessions.rule.children]]\ntable = \"notes\"\ncolumn = \"session\"\nkey = \"id\"\naction = \"delete\"\n";
    let site = Site::new(&sql, &format!("{RULE}{child}"));
    let somebody = site.somebody("SELECT FROM notes WHERE session = 300 FOR UPDATE");
    let part = site.clean(0, &[]);
    let (deleted, skipped) = (part["deleted"].as_u64().unwrap(), part["skipped"].as_u64().unwrap());
    // Its page is passed over.
    assert!(deleted + skipped == 400 && (1..300).contains(&skipped), "{part:#}");
    drop(somebody);
    site.clean(0, &[]);
    assert_eq!(
        site.sql("SELECT (SELECT count(*) FROM sessions), (SELECT count(*) FROM notes)"),
        "600|600"
    );
}

#[test]
fn partitions_are_cleaned_one_by_one() {
    let sql = "
        CREATE TABLE sessions (id int, expires timestamptz) PARTITION BY RANGE (id);
        CREATE TABLE a PARTITION OF sessions FOR VALUES FROM (0) TO (500) PARTITION BY HASH (id);
        CREATE TABLE a0 PARTITION OF a FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE a1 PARTITION OF a FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        CREATE TABLE b PARTITION OF sessions FOR VALUES FROM (500) TO (2000);
        INSERT INTO sessions SELECT n, now() + (n % 10 - 3.5) * interval '1 min' FROM generate_series(1, 1500) n";
    let site = Site::new(sql, RULE);
    let part = site.clean(0, &[]);
    assert_eq!(
        (&part["deleted"], &part["rules"][0]["before"]["rows"]),
        (&600.into(), &1500.into()),
        "{part:#}"
    );
    assert_eq!(
        site.sql("SELECT count(*), count(*) FILTER (WHERE id % 10 < 4) FROM sessions"),
        "900|0"
    );
}

#[test]
fn a_few_rows_of_many_are_found_by_the_index_and_its_lack_is_said() {
    let sql = "
        CREATE TABLE sessions (id serial PRIMARY KEY, expires timestamptz, data text);
        INSERT INTO sessions (expires, data) SELECT now() + (n % 1000 - 9.5) * interval '1 min', repeat('x', 200) FROM generate_series(1, 110000) n";
    let site = Site::new(sql, RULE);
    let run = site.sandbox.run(&["cleanup-sessions", "--dry-run"]).expect(0);
    let create = "CREATE INDEX CONCURRENTLY ON \"public\".\"sessions\" (\"expires\")";
    assert!(run.stderr.contains(create), "{run:#?}");
    site.sql(create);
    let fetched =
        "SELECT idx_tup_fetch, seq_tup_read FROM pg_stat_user_tables WHERE relname = 'sessions'";
    assert_eq!(site.clean(0, &[])["deleted"], 1100, "{}", site.sql(fetched));
    assert_eq!(site.sql("SELECT count(*) FROM sessions WHERE expires < now()"), "0");
}

/// Deleting waits while somebody has the advisory lock 7.
const GATE: &str = "
    CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN OLD; END $$;
    CREATE TRIGGER gate BEFORE DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION gate()";

#[test]
fn the_second_at_once_is_refused() {
    let site = Site::new(&(sessions(400, 1000) + ";" + GATE), RULE);
    let gate = site.somebody("SELECT pg_advisory_lock(7)");
    let first = Running::start(&site.sandbox, &["cleanup-sessions"]);
    eventually("the first is at work", || {
        assert!(!first.is_over());
        (site.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND NOT granted") != "0").then_some(())
    });
    let second = site.sandbox.run(&["cleanup-sessions"]).expect(11);
    assert!(second.stderr.contains("another run holds the lock"), "{second:#?}");
    // To look is for everybody.
    site.sandbox.run(&["cleanup-sessions", "--dry-run"]).ends_with(0);
    drop(gate);
    first.end().ends_with(0);
    assert_eq!(site.sql("SELECT count(*) FROM sessions"), "600");
}

#[test]
fn the_deadline_leaves_the_rest_to_the_next_run_and_says_so() {
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.004); RETURN OLD; END $$;
                CREATE TRIGGER slow BEFORE DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION slow()";
    let configuration = format!("[sessions]\nbatch_milliseconds = 50\n{RULE}");
    let site = Site::new(&(sessions(3000, 7000) + ";" + slow), &configuration);
    let part = site.clean(14, &["--timeout", "4s"]);
    let deleted = part["deleted"].as_u64().unwrap();
    assert!((1..3000).contains(&deleted) && part["stopped"] == true, "{part:#}");
    assert_eq!(part["remaining"].as_u64().unwrap(), 3000 - deleted);
    assert_eq!(site.sql("SELECT count(*) FROM sessions"), (7000 - deleted).to_string());
    // A cleaning that never comes to its end is no success.
    let history = site.sandbox.json(0, &["history"]);
    assert_eq!(history["runs"][0]["databases"][0]["figures"]["deleted"], deleted, "{history:#}");
    assert_eq!(history["runs"][0]["exit"], 14);
    site.sql("DROP TRIGGER slow ON sessions");
    site.clean(0, &[]);
    assert_eq!(site.sql("SELECT count(*) FROM sessions"), "4000");
}

#[test]
fn killed_at_any_moment_it_leaves_no_half_batch_and_the_next_run_goes_on() {
    let sql = sessions(40_000, 81_000)
        + "; CREATE TABLE notes (session int REFERENCES sessions); CREATE INDEX ON notes (session);
           INSERT INTO notes SELECT id FROM sessions, generate_series(1, 2)";
    let child = "[[sessions.rule.children]]\ntable = \"notes\"\ncolumn = \"session\"\nkey = \"id\"\naction = \"delete\"\n";
    let configuration = format!("[sessions]\nbatch_milliseconds = 20\n{RULE}{child}");
    let site = Site::new(&sql, &configuration);
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let left = || site.sql("SELECT count(*) FROM sessions").parse::<u32>().unwrap();
    let mut before = left();
    for round in 0..12 {
        let running = Running::start(&site.sandbox, &["cleanup-sessions"]);
        eventually("it has deleted something", || {
            (running.is_over() || left() < before).then_some(())
        });
        // Into the middle of some transaction.
        std::thread::park_timeout(std::time::Duration::from_micros(random.u64(0..40_000)));
        running.signal(Signal::KILL);
        let run = running.end();
        assert!([0, 137].contains(&run.status), "{run:#?}");
        site.wait_for_its_end();
        let whole = "SELECT count(*) FROM sessions s FULL JOIN (SELECT session, count(*) AS n FROM notes GROUP BY 1) c \
                     ON c.session = s.id WHERE c.n IS DISTINCT FROM 2 OR s.id IS NULL";
        assert_eq!(site.sql(whole), "0", "round {round}");
        before = left();
    }
    site.clean(0, &[]);
    assert_eq!(
        site.sql("SELECT count(*), (SELECT count(*) FROM notes) FROM sessions"),
        "41000|82000"
    );
    assert_eq!(site.sql("SELECT count(*) FROM sessions WHERE expires < now()"), "0");
}

#[test]
fn replicas_that_are_behind_are_waited_for() {
    let primary = Cluster::start(&installed(), &["-c", "wal_level=replica"], &[]);
    primary.sql("postgres", "SELECT pg_create_physical_replication_slot('standby', true)");
    primary.sql("postgres", &sessions(4000, 9000));
    let others = "CREATE TABLE others AS SELECT * FROM sessions; CREATE TABLE more AS SELECT * FROM sessions; \
                  CREATE ROLE plain LOGIN; GRANT SELECT, UPDATE, DELETE ON more TO plain";
    primary.sql("postgres", others);
    let standby = Cluster::standby(&primary, "standby");
    standby.sql("postgres", "ALTER SYSTEM SET wal_receiver_status_interval = '1s'");
    let on_standby = |sql: &str| standby.sql("postgres", sql);
    on_standby("SELECT pg_reload_conf()");
    eventually("the standby", || {
        (on_standby("SELECT count(*) FROM sessions") == "9000").then_some(())
    });
    let sandbox = Sandbox::new(&primary.url("postgres"));
    sandbox.write(
        "opsctl.toml",
        &format!("[sessions]\nmax_replica_lag = \"1s\"\nbatch_milliseconds = 20\n{RULE}"),
    );
    on_standby("SELECT pg_wal_replay_pause()");
    // Something to be behind with.
    primary.sql("postgres", "CREATE TABLE t (id int)");
    let lag = "SELECT coalesce(max(replay_lag) > '1 s', false) FROM pg_stat_replication";
    eventually("the lag", || (primary.sql("postgres", lag) == "t").then_some(()));
    // One that is meant to be behind is not waited for, nor is one that the role does not see: that is said.
    let name = primary.sql("postgres", "SELECT application_name FROM pg_stat_replication");
    let other = Sandbox::new(&primary.url("postgres"));
    let limits = format!("[sessions]\nmax_replica_lag = \"1s\"\nignore_replicas = [\"{name}\"]\n");
    other.write("opsctl.toml", &(limits + &RULE.replace("\"sessions\"", "\"others\"")));
    let run = other.run(&["cleanup-sessions", "-v"]).expect(0);
    assert!(!run.stderr.contains("waiting for the replica"), "{run:#?}");
    let plain = Sandbox::new(&primary.url("postgres").replace("user=postgres", "user=plain"));
    plain.write("opsctl.toml", &RULE.replace("\"sessions\"", "\"more\""));
    let run = plain.run(&["cleanup-sessions"]).expect(0);
    let said = "this role does not see how far a replica is behind, and does not wait: GRANT pg_read_all_stats";
    assert!(run.stderr.contains(said), "{run:#?}");
    let mut command = sandbox.command(&["cleanup-sessions", "--json", "-v"]);
    let running = Running::spawn(&mut command);
    let left = || primary.sql("postgres", "SELECT count(*) FROM sessions").parse::<u32>().unwrap();
    eventually("the first batch", || (left() < 9000).then_some(()));
    let before = left();
    // It sleeps a second between two looks.
    std::thread::park_timeout(std::time::Duration::from_millis(1500));
    assert_eq!((left(), running.is_over()), (before, false));
    on_standby("SELECT pg_wal_replay_resume()");
    let run = running.end().expect(0);
    assert!(run.stderr.contains("waiting for the replica `"), "{run:#?}");
    assert_eq!(left(), 5000);
}

#[test]
fn what_cannot_be_counted_in_time_is_estimated_and_said_so() {
    let gate = "(SELECT pg_sleep(seconds) IS NOT NULL FROM gate)";
    let sql = sessions(400, 1000)
        + "; ALTER TABLE sessions SET (autovacuum_enabled = off); CREATE TABLE gate AS SELECT 0 AS seconds";
    let site = Site::new(&sql, &format!("{RULE}condition = \"{gate}\"\n"));
    let report = |status: i32, args: &[&str]| {
        site.sql("UPDATE gate SET seconds = 60");
        let command = site.sandbox.command(&[&["cleanup-sessions", "--json"], args].concat());
        let running = Running::spawn(&mut { command });
        // As the statement's own timeout does it, a minute later.
        let cancel = format!(
            "SELECT count(*) FROM (SELECT pg_cancel_backend(pid) FROM pg_stat_activity \
             WHERE wait_event = 'PgSleep' AND datname = '{}') c",
            site.database
        );
        eventually("it counts", || {
            let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
            (site.sql(sleeps) == "1").then_some(())
        });
        site.sql("UPDATE gate SET seconds = 0");
        assert_eq!(site.sql(&cancel), "1");
        let run = running.end().expect(status);
        let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        report["databases"][0].clone()
    };
    // Without statistics nothing can be said of how much it is.
    let refused = report(1, &[]);
    let reason = refused["refused"][0]["reason"].as_str().unwrap();
    assert!(
        reason.ends_with("nor can it be estimated: ANALYZE \"public\".\"sessions\""),
        "{reason}"
    );
    site.sql("ANALYZE sessions");
    let planned = report(0, &["--dry-run"]);
    assert_eq!(planned["rules"][0]["figures"]["estimated"], true, "{planned:#}");
    assert_eq!(site.sql("SELECT count(*) FROM sessions"), "1000");
    let done = report(0, &[]);
    assert_eq!((&done["deleted"], &done["remaining"]), (&400.into(), &0.into()), "{done:#}");
}

#[test]
fn locks_that_have_lapsed_are_reset_with_their_counters_and_no_others() {
    let sql = "
        CREATE TABLE users (id int PRIMARY KEY, locked_until timestamptz, failed_login_attempts int, name text);
        INSERT INTO users VALUES (1, now() - interval '1 min', 5, 'a'), (2, now() + interval '1 h', 5, 'b'), (3, NULL, 2, 'c'),
            (4, now() - interval '1 day', 9, 'd'), (5, now() - interval '1 day', 9, 'service');
        CREATE TABLE events (id serial, at timestamptz NOT NULL, what text NOT NULL, who int NOT NULL, run text, more jsonb)";
    let audit = "[sessions.audit]\ntable = \"events\"\naction = \"what\"\nsubject = \"who\"\nat = \"at\"\nrun = \"run\"\ndetail = \"more\"\n";
    let unlock =
        "[[sessions.unlock]]\npreset = \"fastapi-lockout\"\ncondition = \"t.name <> 'service'\"\n";
    let site = Site::new(sql, &format!("{unlock}{audit}"));
    assert_eq!(site.clean(0, &["--dry-run"])["unlocks"][0]["lapsed"], 2);
    let part = site.clean(0, &[]);
    assert_eq!(part["unlocks"][0]["ids"], serde_json::json!(["1", "4"]), "{part:#}");
    let users = "SELECT id, locked_until IS NULL, failed_login_attempts FROM users ORDER BY id";
    assert_eq!(site.sql(users), "1|t|0\n2|f|5\n3|t|2\n4|t|0\n5|f|9");
    let events = "SELECT what, who, run IS NOT NULL, more->>'unlock' FROM events ORDER BY who";
    assert_eq!(site.sql(events), "unlock|1|t|fastapi-lockout\nunlock|4|t|fastapi-lockout");
    assert_eq!(site.clean(0, &[])["unlocked"], 0);
    // Without the audit table's consent nobody is unlocked.
    site.sql("ALTER TABLE events ADD CHECK (who <> 5)");
    site.configure(&format!("[[sessions.unlock]]\npreset = \"fastapi-lockout\"\n{audit}"));
    site.sandbox.run(&["cleanup-sessions"]).ends_with(1);
    assert_eq!(site.sql("SELECT failed_login_attempts FROM users WHERE id = 5"), "9");
    site.configure(&format!("{unlock}{}", audit.replace("\"who\"", "\"whom\"")));
    let run = site.sandbox.run(&["cleanup-sessions"]).expect(10);
    assert!(run.stderr.contains("public.events has no column `whom`"), "{run:#?}");
}

#[test]
fn a_lock_that_lasts_so_long_after_it_began_lapses_then() {
    let sql = "
        CREATE TABLE users (id int, encrypted_password text, failed_attempts int, locked_at timestamp, unlock_token text);
        INSERT INTO users SELECT n, '', 5, (now() AT TIME ZONE 'UTC') - n * interval '1 min', 'x' FROM (VALUES (59), (61)) v(n)";
    let site = Site::new(sql, "[[sessions.unlock]]\npreset = \"devise\"\n");
    site.sql(&format!("ALTER DATABASE {} SET timezone = 'Asia/Tokyo'", site.database));
    assert!(site.refusal(10, &[]).contains("needs `grace`: `unlock_in`"));
    site.configure("[[sessions.unlock]]\npreset = \"devise\"\ngrace = \"1h\"\n");
    assert_eq!(site.clean(0, &[])["unlocks"][0]["ids"], serde_json::json!(["61"]));
    assert_eq!(
        site.sql("SELECT failed_attempts, locked_at, unlock_token FROM users WHERE id = 61"),
        "0||"
    );
    // An application that writes its own time says which.
    site.sql("INSERT INTO users SELECT n, '', 5, (now() AT TIME ZONE 'Asia/Tokyo') - n * interval '1 min', 'x' FROM (VALUES (58), (62)) v(n)");
    site.configure(
        "[[sessions.unlock]]\npreset = \"devise\"\ngrace = \"1h\"\nzone = \"Asia/Tokyo\"\n",
    );
    assert_eq!(site.clean(0, &["--dry-run"])["unlocks"][0]["lapsed"], 2);
}

#[test]
fn nothing_to_clean_is_an_error_and_names_are_checked() {
    let site = Site::new(&sessions(1, 10), "");
    let run = site.sandbox.run(&["cleanup-sessions"]).expect(10);
    assert!(run.stderr.contains("opsctl cleanup-sessions detect"), "{run:#?}");
    site.configure(RULE);
    let run = site.sandbox.run(&["cleanup-sessions", "--only", "other"]).expect(2);
    assert!(run.stderr.contains("there is no rule `other`"), "{run:#?}");
    assert_eq!(site.clean(0, &["--only", "sessions"])["deleted"], 1);
    assert_eq!(site.sandbox.run(&["cleanup-sessions", "--quiet"]).expect(0).stdout, "");
    site.configure(&format!("{RULE}database = \"another\"\n"));
    site.sandbox.run(&["cleanup-sessions"]).ends_with(0);
    // Nobody waits for a cleaning that has nothing to clean.
    let commands = |site: &Site| {
        let run = site.sandbox.run(&["status"]);
        run.stdout.contains("cleanup-sessions")
    };
    assert!(!commands(&site));
    site.configure(RULE);
    assert!(commands(&site));
}
