//! `opsctl db-maintain report`: what it finds on real servers, and that it never says that all is well where it could not know.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::sessions::Site;
use crate::support::{Cluster, Sandbox, other_major};

/// Returns the database's part of a report.
#[track_caller]
pub(crate) fn report(sandbox: &Sandbox) -> Value {
    let document = sandbox.json(0, &["db-maintain", "report"]);
    validate(&document.to_string());
    document["databases"][0].clone()
}

/// Compares a document with the schema that the project promises.
#[track_caller]
pub(crate) fn validate(document: &str) {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/db-maintain-report.schema.json");
    let script = "import json, jsonschema, sys; schema = json.load(open(sys.argv[1])); \
        jsonschema.Draft7Validator.check_schema(schema); jsonschema.validate(json.load(sys.stdin), schema)";
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", script]).arg(schema).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = python.spawn().unwrap();
    child.stdin.take().unwrap().write_all(document.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{document}", String::from_utf8_lossy(&output.stderr));
}

/// Returns the objects with a finding of this name and severity.
pub(crate) fn objects(part: &Value, name: &str, severity: &str) -> Vec<String> {
    let topics = part["findings"].as_array().unwrap().iter();
    let listed =
        topics.filter(|topic| topic["name"] == name).flat_map(|t| t["listed"].as_array().unwrap());
    let those = listed.filter(|finding| finding["severity"] == severity);
    let mut objects: Vec<String> =
        those.map(|finding| finding["object"].as_str().unwrap().to_owned()).collect();
    objects.sort();
    objects
}

/// Returns the objects with a finding of this name, however bad.
pub(crate) fn all(part: &Value, name: &str) -> Vec<String> {
    let of = |severity| objects(part, name, severity);
    [of("critical"), of("warning"), of("note")].concat()
}

/// Returns the evidence of the worst finding about an object.
#[track_caller]
pub(crate) fn evidence(part: &Value, of: &str) -> String {
    let topics = part["findings"].as_array().unwrap().iter();
    let mut listed = topics.flat_map(|topic| topic["listed"].as_array().unwrap());
    let found = listed.find(|finding| finding["object"] == of);
    found.unwrap_or_else(|| panic!("{of}: {part:#}"))["evidence"].as_str().unwrap().to_owned()
}

const OBJECTS: &str = "
    CREATE TABLE parent (a int, b int, id int PRIMARY KEY, UNIQUE (a, b));
    CREATE TABLE child (id serial PRIMARY KEY, a int, b int, p int REFERENCES parent, q int REFERENCES parent, r int REFERENCES parent,
        FOREIGN KEY (a, b) REFERENCES parent (a, b));
    CREATE INDEX child_permuted ON child (b, a);
    CREATE INDEX child_partial ON child (p) WHERE p > 0;
    CREATE INDEX child_q ON child (q);
    CREATE TABLE orders (id int, x text, y text);
    CREATE SEQUENCE big AS bigint;
    ALTER TABLE orders ALTER COLUMN id SET DEFAULT nextval('big');
    SELECT setval('big', 2100000000)";

#[test]
fn every_version_is_reported_on_by_whoever_asks_and_what_is_not_known_is_said() {
    for major in [14, 15, 16, 17, 18] {
        let cluster = Cluster::start(&other_major(major), &[], &[]);
        let database = cluster.database();
        cluster.sql(
            "postgres",
            "CREATE ROLE owner LOGIN; CREATE ROLE watcher LOGIN IN ROLE pg_monitor",
        );
        cluster.sql(
            &database,
            &format!("GRANT CREATE ON SCHEMA public TO owner; SET ROLE owner; {OBJECTS}"),
        );
        let of = |role: &str| {
            let url = cluster.url(&database).replace("user=postgres", &format!("user={role}"));
            report(&Sandbox::new(&url))
        };
        for role in ["postgres", "owner", "watcher"] {
            let part = of(role);
            let critical = objects(&part, "sequence", "critical");
            let unknown = objects(&part, "sequence", "unknown");
            if role == "watcher" {
                assert_eq!((critical.len(), unknown.len()), (0, 1), "{major}: {part:#}");
            } else {
                assert_eq!(
                    (critical, unknown.len()),
                    (vec!["public.big".to_owned()], 0),
                    "{major} {role}: {part:#}"
                );
            }
            let expected = ["public.child.child_p_fkey", "public.child.child_r_fkey"];
            assert_eq!(
                all(&part, "foreign-key-without-index"),
                expected,
                "{major} {role}: {part:#}"
            );
            let is_blind = objects(&part, "connections", "unknown") == ["sessions"];
            assert_eq!(is_blind, role == "owner", "{major} {role}: {part:#}");
            // Nothing but what this role may not do failed.
            let known = [
                "sequence",
                "connections",
                "slow-statement",
                "bloat-estimate",
                "database-sizes",
                "table-sizes",
            ];
            for topic in part["findings"].as_array().unwrap() {
                let name = topic["name"].as_str().unwrap();
                assert!(
                    known.contains(&name) || objects(&part, name, "unknown").is_empty(),
                    "{major} {role}: {topic:#}"
                );
            }
        }
    }
}

#[test]
fn sequences_are_judged_by_whichever_end_comes_first() {
    let site = Site::new(
        "CREATE SEQUENCE own MAXVALUE 1000; SELECT setval('own', 990);
         CREATE SEQUENCE down INCREMENT -1 MINVALUE -1000 MAXVALUE -1; SELECT setval('down', -800);
         CREATE SEQUENCE round MAXVALUE 1000 CYCLE; SELECT setval('round', 999);
         CREATE SEQUENCE fine MAXVALUE 1000; SELECT setval('fine', 500)",
        "",
    );
    let part = report(&site.sandbox);
    assert_eq!(objects(&part, "sequence", "critical"), ["public.own"]);
    assert_eq!(objects(&part, "sequence", "warning"), ["public.down"]);
}

#[test]
fn only_what_another_index_does_as_well_is_a_duplicate() {
    let site = Site::new(
        r#"CREATE TABLE t_base (a int, b int, x text, z text);
        CREATE INDEX base ON t_base (a);
        CREATE INDEX "again" ON t_base (a);
        CREATE INDEX base_desc ON t_base (a DESC);
        CREATE INDEX base_include ON t_base (a) INCLUDE (b);
        CREATE INDEX base_partial ON t_base (a) WHERE b > 0;
        CREATE INDEX base_hash ON t_base USING hash (a);
        CREATE UNIQUE INDEX u ON t_base (b);
        CREATE UNIQUE INDEX u_nulls ON t_base (b) NULLS NOT DISTINCT;
        CREATE INDEX x ON t_base (x);
        CREATE INDEX x_pattern ON t_base (x text_pattern_ops);
        CREATE INDEX x_collation ON t_base (x COLLATE "POSIX");
        CREATE INDEX x_lower ON t_base (lower(x));
        CREATE INDEX x_upper ON t_base (upper(x));
        CREATE INDEX x_lower_again ON t_base ( lower(x) );
        CREATE INDEX z ON t_base (z);
        CREATE INDEX z_and_b ON t_base (z, b);
        CREATE INDEX partial_1 ON t_base (b, x) WHERE a > 1;
        CREATE INDEX partial_2 ON t_base (b, x) WHERE a > 2"#,
        "",
    );
    let part = report(&site.sandbox);
    assert_eq!(
        objects(&part, "duplicate-index", "warning"),
        ["public.again", "public.x_lower_again"],
        "{part:#}"
    );
    assert_eq!(objects(&part, "duplicate-index", "note"), ["public.z"], "{part:#}");
}

#[test]
fn an_unused_index_is_a_candidate_with_what_speaks_for_it_and_no_size_is_made_up() {
    let site = Site::new(
        "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE t (id int PRIMARY KEY, p int REFERENCES p, x int);
         INSERT INTO p VALUES (1); INSERT INTO t SELECT n, 1, n FROM generate_series(1, 2000) n;
         CREATE INDEX t_p ON t (p); CREATE INDEX t_x ON t (x) WHERE x > 5; CREATE INDEX t_used ON t (x); CREATE TABLE new (x int)",
        "",
    );
    site.sql("SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT x FROM t WHERE x = 3");
    crate::support::running::eventually("the scan is counted", || {
        (site.sql("SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 't_used'") == "1")
            .then_some(())
    });
    site.sql("VACUUM p");
    let part = report(&site.sandbox);
    assert_eq!(all(&part, "unused-index"), ["public.t_p", "public.t_x"], "{part:#}");
    assert_eq!(
        objects(&part, "table-sizes", "unknown"),
        ["never vacuumed or analysed"],
        "{part:#}"
    );
    site.sql("ANALYZE");
    let part = report(&site.sandbox);
    assert_eq!(objects(&part, "table-sizes", "unknown"), Vec::<String>::new(), "{part:#}");
    assert_eq!(part["tables"]["listed"][0]["name"], "public.t");
    assert!(evidence(&part, "public.t_p").contains("a foreign key may need it"), "{part:#}");
    assert!(evidence(&part, "public.t_x").contains("it is partial"), "{part:#}");
}

#[test]
fn a_waiting_alter_table_holds_nothing_up() {
    let site = Site::new(
        "CREATE TABLE busy (id serial PRIMARY KEY, x int); CREATE INDEX ON busy (lower(x::text)) WHERE x > 0; CREATE INDEX ON busy (x)",
        "",
    );
    let _reader = site.somebody("SELECT count(*) FROM busy");
    let url = site.cluster.url(&site.database);
    let mut waiting = site.cluster.program("psql");
    waiting.args(["-Xq", "-d", &url, "-c", "ALTER TABLE busy ADD COLUMN y int"]);
    let mut waiting = waiting.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    crate::support::running::eventually("the ALTER TABLE waits", || {
        let n = site.sql("SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock' AND relation = 'busy'::regclass");
        (n == "1").then_some(())
    });
    let begun = std::time::Instant::now();
    let part = report(&site.sandbox);
    let took = begun.elapsed();
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    assert!(took.as_secs() < 10, "{took:?}");
    assert_eq!(all(&part, "duplicate-index"), Vec::<String>::new(), "{part:#}");
    for name in
        ["duplicate-index", "unused-index", "foreign-key-without-index", "sequence", "tables"]
    {
        assert_eq!(objects(&part, name, "unknown"), Vec::<String>::new(), "{part:#}");
    }
}

#[test]
fn a_page_needs_nothing_else_and_names_are_no_markup() {
    let site = Site::new(r#"CREATE TABLE "<script>alert(1)</script>" (id int REFERENCES "<script>alert(1)</script>"); "#.replace(
        "(id int REFERENCES", "(id int PRIMARY KEY, o int REFERENCES").as_str(), "");
    let file = site.sandbox.path("report.html");
    let run = site
        .sandbox
        .run(&["db-maintain", "report", "--format", "html", "--out", file.to_str().unwrap()])
        .expect(0);
    assert_eq!(run.stdout, format!("{}\n", file.display()));
    let page = std::fs::read_to_string(file).unwrap();
    assert!(
        page.len() < 500_000 && page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"),
        "{page}"
    );
    for foreign in ["<script", "http://", "https://", "@import", "url(", " src=", "<link", "<img"] {
        assert!(!page.contains(foreign), "{foreign}: {page}");
    }
    let text = site.sandbox.run(&["db-maintain", "report"]).expect(0).stdout;
    assert!(text.contains("foreign-key-without-index (1)"), "{text}");
    let document =
        site.sandbox.run(&["db-maintain", "report", "--format", "json"]).expect(0).stdout;
    validate(&document);
}

#[test]
fn statements_are_shown_without_literals_and_with_what_changed() {
    let cluster = Cluster::start(
        &crate::support::installed(),
        &["-c", "shared_preload_libraries=pg_stat_statements"],
        &[],
    );
    let database = cluster.database();
    let sandbox = Sandbox::new(&cluster.url(&database));
    assert_eq!(objects(&report(&sandbox), "slow-statement", "unknown"), ["pg_stat_statements"]);
    cluster.sql(
        &database,
        "CREATE EXTENSION pg_stat_statements; CREATE ROLE other LOGIN; CREATE TABLE t (x text)",
    );
    cluster.sql(&database, "ALTER ROLE other PASSWORD 'topsecret'");
    let slow = "SELECT pg_sleep(0.3), 'topsecret'";
    cluster.sql(&database, slow);
    let find = |part: &Value| {
        let listed = part["statements"]["listed"].as_array().unwrap();
        let found = listed
            .iter()
            .find(|s| s["text"].as_str().unwrap().starts_with("SELECT pg_sleep"))
            .cloned();
        found.unwrap_or_else(|| panic!("{part:#}"))
    };
    let part = report(&sandbox);
    assert!(!part.to_string().contains("topsecret"), "{part:#}");
    let first = find(&part);
    assert_eq!((&first["calls"], &first["since"]), (&1.into(), &Value::Null));
    assert_eq!(objects(&part, "slow-statement", "warning"), [first["id"].as_str().unwrap()]);
    cluster.sql(&database, slow);
    let again = report(&sandbox);
    let second = find(&again);
    assert_eq!(
        again["databases"]["listed"][0]["history"].as_array().unwrap().len(),
        3,
        "{again:#}"
    );
    assert_eq!((&second["calls"], &second["since"]["calls"]), (&2.into(), &1.into()), "{second:#}");
    let part =
        report(&Sandbox::new(&cluster.url(&database).replace("user=postgres", "user=other")));
    assert_eq!(objects(&part, "slow-statement", "unknown"), ["statements"], "{part:#}");
}
