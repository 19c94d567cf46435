//! `opsctl cleanup-sessions` where something is in the way: what one rule meets keeps no other, what was done is said, and nothing goes
//! that was not seen whole.

use crate::support::running::{Running, eventually};
use crate::support::sessions::Site;

/// Four of the ten are expired.
const TEN: &str =
    "(id, expires) AS SELECT n, now() + (n - 4.5) * interval '1 min' FROM generate_series(1, 10) n";

fn rule(table: &str) -> String {
    format!(
        "[[sessions.rule]]\ntable = \"{table}\"\ncolumn = \"expires\"\nkind = \"timestamptz\"\n"
    )
}

/// What the report says of a rule.
fn of<'r>(part: &'r serde_json::Value, list: &str, name: &str) -> &'r serde_json::Value {
    let rules = part[list].as_array().unwrap_or_else(|| panic!("{part:#}"));
    rules.iter().find(|rule| rule["rule"] == name).unwrap_or_else(|| panic!("{name}: {part:#}"))
}

#[test]
fn a_rule_that_fails_keeps_no_other_and_says_what_it_did() {
    let sql = format!(
        "CREATE TABLE first {TEN}; CREATE TABLE last {TEN};
         CREATE TABLE broken (id int, expires timestamptz) WITH (fillfactor = 10);
         INSERT INTO broken SELECT n, now() + (n - 3000.5) * interval '1 min' FROM generate_series(1, 6001) n;
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF OLD.id = 2500 THEN RAISE 'not this one'; END IF; RETURN OLD; END $$;
         CREATE TRIGGER refuse BEFORE DELETE ON broken FOR EACH ROW EXECUTE FUNCTION refuse();
         CREATE TABLE users (id int, locked_until bigint, until timestamptz); INSERT INTO users VALUES (1, 0), (2, 1700000000000)"
    );
    let divides = rule("first") + "name = \"divides\"\ncondition = \"1 / (t.id - 1) = 1\"\n";
    let unlock = |name: &str, lines: &str| {
        format!("[[sessions.unlock]]\nname = \"{name}\"\ntable = \"users\"\n{lines}\n")
    };
    let configuration = [
        unlock("unit", "column = \"locked_until\"\nkind = \"epoch-seconds\""),
        unlock("words", "column = \"until\"\nkind = \"timestamptz\"\ncondition = \"t.nothing\""),
        divides,
        rule("broken"),
        rule("last"),
    ];
    let site = Site::new(&sql, &configuration.concat());
    let part = site.clean(1, &[]);
    let reason = |name: &str| of(&part, "refused", name)["reason"].as_str().unwrap();
    assert!(reason("divides").contains("division by zero"), "{part:#}");
    assert!(reason("broken").contains("not this one"), "{part:#}");
    assert!(
        reason("words").contains("its condition cannot be used: ERROR: column t.nothing"),
        "{part:#}"
    );
    let said =
        "public.users.locked_until: 1700000000000 is no time from 2000 to 2100 as `epoch-seconds`";
    assert!(reason("unit").contains(said), "{part:#}");
    let broken = of(&part, "rules", "broken");
    let deleted = broken["deleted"].as_u64().unwrap();
    assert!((1..2500).contains(&deleted), "{broken:#}");
    assert_eq!(
        (&broken["end"], &broken["remaining"]),
        (&"failed".into(), &(3000 - deleted).into())
    );
    assert_eq!(site.sql("SELECT count(*) FROM broken"), (6001 - deleted).to_string());
    assert_eq!(
        (&of(&part, "rules", "last")["deleted"], &part["deleted"]),
        (&4.into(), &(deleted + 4).into())
    );
    // Where the unit is right, 0 is no lock.
    site.configure(&unlock("unit", "column = \"locked_until\"\nkind = \"epoch-milliseconds\""));
    assert_eq!(site.clean(0, &[])["unlocks"][0]["ids"], serde_json::json!(["2"]));
}

#[test]
fn a_connection_that_is_lost_takes_no_report_with_it() {
    for lost in ["opsctl cleanup-sessions", "opsctl lock"] {
        let sql = format!(
            "CREATE TABLE first {TEN}; CREATE TABLE last {TEN};
             CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(8); RETURN OLD; END $$;
             CREATE TRIGGER gate BEFORE DELETE ON last FOR EACH ROW EXECUTE FUNCTION gate(); CREATE TABLE behind {TEN}"
        );
        let site = Site::new(&sql, &(rule("first") + &rule("last") + &rule("behind")));
        let gate = site.somebody("SELECT pg_advisory_lock(8)");
        let running = Running::start(&site.sandbox, &["cleanup-sessions", "--json"]);
        eventually("it waits", || {
            assert!(!running.is_over());
            let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 8 AND NOT granted";
            (site.sql(waiting) != "0").then_some(())
        });
        let end = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = '{lost}' AND datname = current_database()"
        );
        assert_eq!(site.sql(&end), "1");
        drop(gate);
        let run = running.end().expect(12);
        let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        let part = &report["databases"][0];
        assert_eq!(of(part, "rules", "first")["deleted"], 4, "{part:#}");
        assert!(part["error"].as_str().unwrap().contains("lost the connection"), "{part:#}");
        assert_eq!(site.sql("SELECT count(*) FROM behind"), "10", "{lost}");
    }
}

#[test]
fn rows_that_this_role_does_not_see_are_not_taken_for_none() {
    let sql = format!(
        "CREATE TABLE sessions {TEN}; ALTER TABLE sessions ENABLE ROW LEVEL SECURITY; CREATE POLICY part ON sessions USING (id > 2);
         CREATE TABLE others {TEN}; CREATE TABLE free {TEN}"
    );
    let site = Site::new(&sql, "");
    let role = site.role("GRANT SELECT, UPDATE, DELETE ON sessions, others, free TO");
    let reads = rule("others") + "condition = \"EXISTS (SELECT FROM sessions)\"\n";
    role.write("opsctl.toml", &(rule("sessions") + &reads + &rule("free")));
    let report = role.json(1, &["cleanup-sessions"]);
    let part = &report["databases"][0];
    let reason = |name: &str| of(part, "refused", name)["reason"].as_str().unwrap();
    assert!(
        reason("sessions").contains("row-level security hides rows of public.sessions"),
        "{part:#}"
    );
    assert!(reason("others").contains("would be affected by row-level security"), "{part:#}");
    assert!(!reason("others").contains("condition cannot be used"), "{part:#}");
    assert_eq!(
        (&part["deleted"], site.sql("SELECT count(*) FROM sessions").as_str()),
        (&4.into(), "10")
    );
}

#[test]
fn a_table_that_somebody_has_locked_is_waited_for_no_longer_than_is_said() {
    let site = Site::new(
        &format!("CREATE TABLE sessions {TEN}; CREATE TABLE free {TEN}"),
        &(rule("sessions") + &rule("free")),
    );
    let somebody = site.somebody("LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE");
    let part = site.clean(1, &["--timeout", "60s"]);
    let reason = of(&part, "refused", "sessions")["reason"].as_str().unwrap();
    assert!(reason.contains("lock timeout"), "{part:#}");
    assert_eq!(part["deleted"], 4, "{part:#}");
    drop(somebody);
    assert_eq!(site.clean(0, &[])["deleted"], 4);
}

#[test]
fn a_trigger_that_keeps_the_rows_does_not_look_like_success() {
    let keep =
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
                CREATE TRIGGER keep BEFORE DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION keep()";
    for index in ["", "CREATE INDEX ON sessions (expires)"] {
        let site =
            Site::new(&format!("CREATE TABLE sessions {TEN}; {keep}; {index}"), &rule("sessions"));
        let run = site.sandbox.run(&["cleanup-sessions"]).expect(1);
        assert!(
            run.stderr.contains("nothing went, and nobody has it locked: is there a trigger?"),
            "{run:#?}"
        );
        assert!(run.stdout.contains("about 4 left"), "{run:#?}");
        let part = site.clean(1, &[]);
        assert_eq!((&part["deleted"], &part["remaining"]), (&0.into(), &4.into()), "{part:#}");
    }
}

#[test]
fn what_is_left_is_not_said_to_be_nothing_where_it_could_not_be_counted() {
    let gate = "CREATE TABLE gate AS SELECT 0 AS seconds;
                CREATE FUNCTION shut() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE gate SET seconds = 60; RETURN NULL; END $$;
                CREATE TRIGGER shut AFTER DELETE ON sessions FOR EACH STATEMENT EXECUTE FUNCTION shut()";
    let condition = "condition = \"(SELECT pg_sleep(seconds) IS NOT NULL FROM gate)\"\n";
    let site =
        Site::new(&format!("CREATE TABLE sessions {TEN}; {gate}"), &(rule("sessions") + condition));
    let somebody = site.somebody("SELECT FROM sessions WHERE id = 1 FOR UPDATE");
    let running = Running::start(&site.sandbox, &["cleanup-sessions", "--json"]);
    eventually("it counts what is left", || {
        assert!(!running.is_over());
        let cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
        (site.sql(cancel) == "1").then_some(())
    });
    let run = running.end().expect(0);
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let part = &report["databases"][0];
    assert_eq!(
        (&part["deleted"], &part["remaining"]),
        (&3.into(), &serde_json::Value::Null),
        "{part:#}"
    );
    drop(somebody);
}

#[test]
fn a_time_in_another_table_that_is_just_being_prolonged_keeps_its_row() {
    let sql = "
        CREATE TABLE oauth2_provider_accesstoken (id bigint, expires timestamptz, source_refresh_token_id bigint, id_token_id bigint);
        CREATE TABLE oauth2_provider_refreshtoken (id bigint, access_token_id bigint, revoked timestamptz, updated timestamptz);
        CREATE TABLE oauth2_provider_idtoken (id bigint, expires timestamptz);
        CREATE TABLE oauth2_provider_grant (code text, expires timestamptz);
        INSERT INTO oauth2_provider_accesstoken SELECT n, now() + (n % 5 - 1.5) * interval '1 day'
            FROM generate_series(1, 20000) n ORDER BY random();
        INSERT INTO oauth2_provider_refreshtoken SELECT id, id FROM oauth2_provider_accesstoken WHERE id <= 4000 ORDER BY random();
        ANALYZE";
    let preset = "[[sessions.rule]]\npreset = \"django-oauth-toolkit\"\ngrace = \"1h\"\n";
    let site = Site::new(sql, preset);
    let tables = "oauth2_provider_refreshtoken, oauth2_provider_idtoken, oauth2_provider_grant";
    let role = site.role(&format!(
        "GRANT SELECT ON oauth2_provider_accesstoken TO PUBLIC; GRANT SELECT, UPDATE, DELETE ON {tables} TO"
    ));
    role.write("opsctl.toml", preset);
    let report = role.json(1, &["cleanup-sessions"]);
    let refused = of(&report["databases"][0], "refused", "django-oauth-toolkit.refresh");
    let said = "GRANT SELECT, UPDATE ON \"public\".\"oauth2_provider_accesstoken\" TO";
    assert!(refused["reason"].as_str().unwrap().contains(said), "{refused:#}");
    let prolong =
        "UPDATE oauth2_provider_accesstoken SET expires = now() + interval '1 h' WHERE id = 5";
    let somebody = site.somebody(prolong);
    let part = site.clean(0, &[]);
    let refresh = of(&part, "rules", "django-oauth-toolkit.refresh");
    assert_eq!((&refresh["deleted"], &refresh["skipped"]), (&1599.into(), &1.into()), "{part:#}");
    somebody.commit();
    assert_eq!(site.clean(0, &[])["deleted"], 0);
    let left = "SELECT count(*), min(id) FROM oauth2_provider_refreshtoken";
    assert_eq!(site.sql(left), "2401|2");
}
