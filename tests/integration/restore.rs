//! `opsctl restore`: what comes out is the source, and what was there before is never in danger.

use std::path::Path;

use crate::support::broken::Broken;
use crate::support::every_object::{
    EveryObject, assert_same, content, on_16, on_17, on_18, on_installed, only_backup, restore,
};
use crate::support::{Cluster, Sandbox, unique};

/// Restores every object by opsctl under a new name, and compares with the source.
fn restores_every_object(every: &EveryObject, options: &[&str]) {
    let sandbox = every.sandbox("");
    {
        let _alone = every.alone();
        sandbox.run(&[&["backup"], options].concat()).ends_with(0);
    }
    let name = format!("restored_{}", unique());
    let report = sandbox.json(0, &["restore", "--create", &name, "--jobs", "4"]);
    assert!(report["restored"]["rows"].as_u64().unwrap() > 20_000, "{report}");
    every.assert_equals(&name);
    forget(&every.cluster, &name);
}

/// Drops a restored database, which may have a subscription.
fn forget(cluster: &Cluster, name: &str) {
    let subscription = "ALTER SUBSCRIPTION opsctl_fx_sub DISABLE; \
        ALTER SUBSCRIPTION opsctl_fx_sub SET (slot_name = NONE); DROP SUBSCRIPTION opsctl_fx_sub";
    for statement in subscription.split("; ") {
        cluster.sql(name, statement);
    }
    cluster.sql("postgres", &format!("DROP DATABASE {name}"));
}

#[test]
fn every_object_of_the_installed_major_is_restored() {
    restores_every_object(on_installed(), &[]);
}

#[test]
fn every_object_of_16_is_restored() {
    restores_every_object(on_16(), &[]);
}

#[test]
fn every_object_of_17_is_restored() {
    restores_every_object(on_17(), &[]);
}

#[test]
fn every_object_of_18_is_restored_from_plain_files() {
    restores_every_object(on_18(), &["--compression", "none"]);
}

#[test]
fn every_object_of_the_installed_major_is_restored_into_18() {
    let (old, new) = (on_installed(), on_18());
    let sandbox = old.sandbox("");
    {
        let _alone = old.alone();
        sandbox.run(&["backup"]).ends_with(0);
    }
    let name = format!("restored_{}", unique());
    sandbox.run(&["restore", "--to", &new.cluster.url(&name)]).ends_with(0);
    // Each version prints views in its own way: what stock pg_restore makes of the same backup is the measure.
    let by_stock = restore(&new.cluster, &only_backup(&sandbox.path("backups")), &["-j4"]);
    assert_same(&content(&new.cluster, &by_stock, &[]), &content(&new.cluster, &name, &[]));
    forget(&new.cluster, &by_stock);
    forget(&new.cluster, &name);
}

#[test]
fn a_directory_for_stock_pg_restore_is_laid_out() {
    let every = on_installed();
    let sandbox = every.sandbox("");
    {
        let _alone = every.alone();
        sandbox.run(&["backup"]).ends_with(0);
    }
    sandbox.run(&["restore", "--to-dir", "laid"]).ends_with(0);
    let restored = restore(&every.cluster, &sandbox.path("laid"), &["-j4"]);
    every.assert_equals(&restored);
    forget(&every.cluster, &restored);
    let again = sandbox.run(&["restore", "--to-dir", "laid"]).expect(1);
    assert!(again.stderr.contains("is not empty"), "{again:#?}");
}

/// A database with a backup, which has changed since.
struct Scene {
    cluster: &'static Cluster,
    database: String,
    sandbox: Sandbox,
}

impl Scene {
    fn new() -> Scene {
        Scene::on(Cluster::shared())
    }

    /// Makes it on a server of its own: what happens there happens to no other test.
    fn alone() -> Scene {
        Scene::on(Box::leak(Box::new(Cluster::start(&crate::support::installed(), &[], &[]))))
    }

    fn on(cluster: &'static Cluster) -> Scene {
        let database = cluster.database();
        let sql = "CREATE TABLE members (id int PRIMARY KEY, name text);
             INSERT INTO members SELECT i, 'name ' || i FROM generate_series(1, 5000) i;
             CREATE SEQUENCE numbers; SELECT setval('numbers', 4711); SELECT lo_from_bytea(0, 'content')";
        cluster.sql(&database, sql);
        let settings = format!(
            "ALTER DATABASE {database} SET work_mem = '7MB'; COMMENT ON DATABASE {database} IS 'ours; DATABASE {database}'"
        );
        for statement in settings.split("; COMMENT").map(|s| s.replace(" ON", "COMMENT ON")) {
            cluster.sql("postgres", &statement);
        }
        let sandbox = Sandbox::new(&cluster.url(&database));
        sandbox.back_up(&[]);
        cluster.sql(&database, "UPDATE members SET name = 'ruined'");
        Scene { cluster, database, sandbox }
    }

    fn names(&self, database: &str) -> String {
        self.cluster.sql(database, "SELECT count(DISTINCT name) FROM members")
    }

    /// Returns the databases whose names begin with that of the scene's, or are of unfinished restores.
    fn databases(&self) -> Vec<String> {
        let sql = format!(
            "SELECT datname FROM pg_database WHERE datname LIKE '{}%' ORDER BY 1",
            self.database.replace('_', "\\_") + "\\_"
        );
        self.cluster.sql("postgres", &sql).lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_database_is_replaced_and_the_old_one_kept() {
    let scene = Scene::new();
    let Scene { cluster, database, sandbox } = &scene;
    let before = scene.names(database);
    let mut idle = cluster.program("psql");
    let idle = idle.args(["-XAtq", "-d", database, "-c", "SELECT pg_sleep(600)"]);
    let mut idle = idle.stderr(std::process::Stdio::null()).spawn().unwrap();
    while cluster.sql(
        "postgres",
        &format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'"),
    ) == "0"
    {}

    let plan = sandbox.run(&["restore", "--replace", database, "--dry-run"]).expect(0);
    assert!(plan.stdout.contains("It would take the place of"), "{plan:#?}");
    assert!(plan.stdout.contains("1 session would be ended:\n  postgres (psql) from"), "{plan:#?}");
    assert_eq!(scene.names(database), before);

    let report = sandbox.json(0, &["restore", "--replace", database]);
    assert_eq!(scene.names(database), "5000");
    let kept = report["kept"].as_str().unwrap();
    assert!(kept.starts_with(&format!("{database}_before_2")), "{kept}");
    assert_eq!(scene.names(kept), before);
    assert_eq!(scene.databases(), [kept]);
    assert!(!idle.wait().unwrap().success(), "the session was not ended");
    let settings = format!(
        "SELECT setconfig::text || shobj_description(d.oid, 'pg_database') || coalesce(datacl::text, '') \
         FROM pg_database d JOIN pg_db_role_setting s ON s.setdatabase = d.oid WHERE datname = '{database}'"
    );
    let expected = format!("{{work_mem=7MB}}ours; DATABASE {database}");
    assert!(cluster.sql("postgres", &settings).starts_with(&expected));

    sandbox.run(&["restore", "--replace", database, "--drop-old"]).ends_with(0);
    assert_eq!(scene.databases(), [kept], "only what was asked for is dropped");
}

#[test]
fn nothing_is_overwritten_unless_it_is_named() {
    let scene = Scene::new();
    let Scene { database, sandbox, .. } = &scene;
    let run = sandbox.run(&["restore", "--create", database]).expect(1);
    assert!(run.stderr.contains("is there, and not empty"), "{run:#?}");
    let run = sandbox.run(&["restore", "--replace", "no_such"]).expect(1);
    assert!(run.stderr.contains("there is no database `no_such` to replace"), "{run:#?}");
    let run = sandbox.run(&["restore", "--create", "template1"]).expect(1);
    assert!(run.stderr.contains("belongs to the server"), "{run:#?}");
    sandbox.run(&["restore"]).ends_with(2);
    sandbox.run(&["restore", "--create", "fresh", "--drop-old"]).ends_with(2);
    assert_eq!(scene.names(database), "1");
    assert_eq!(scene.databases(), [""; 0]);
}

#[test]
fn an_interruption_leaves_nothing_and_the_old_database_in_its_place() {
    let scene = Scene::alone();
    let Scene { cluster, database, sandbox } = &scene;
    let mut child = sandbox.command(&["restore", "--replace", database]);
    let mut child = child.stderr(std::process::Stdio::null()).spawn().unwrap();
    let unfinished = "SELECT count(*) FROM pg_database WHERE datname LIKE 'opsctl\\_restore\\_%'";
    while cluster.sql("postgres", unfinished) == "0" {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was interrupted");
    }
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(cluster.sql("postgres", unfinished), "0");
    assert_eq!(scene.names(database), "1");
    assert_eq!(scene.databases(), [""; 0]);
}

#[test]
fn an_empty_database_makes_room_and_nothing_of_it_is_dropped() {
    let scene = Scene::alone();
    let Scene { cluster, database, sandbox } = &scene;
    let taken = format!("{database}_taken");
    cluster.sql("postgres", &format!("CREATE DATABASE {taken} TEMPLATE template0"));
    // Nobody's run: a name like those of unfinished restores, but without a run's id.
    cluster.sql("postgres", "CREATE DATABASE opsctl_restore_of_mine");
    let report = sandbox.json(0, &["restore", "--create", &taken]);
    let kept = report["kept"].as_str().unwrap();
    assert_eq!(scene.databases(), [taken.as_str(), kept]);
    let mine = "SELECT count(*) FROM pg_database WHERE datname = 'opsctl_restore_of_mine'";
    assert_eq!(cluster.sql("postgres", mine), "1");
}

#[test]
fn a_damaged_backup_is_not_restored_and_leaves_nothing() {
    let backup = Broken::new();
    let name = backup.table("members");
    crate::support::broken::flip(&backup.path(&name), 5000);
    let cluster = Cluster::shared();
    let target = format!("restored_{}", unique());
    let run = backup.sandbox.run(&["restore", "--create", &target]).expect(3);
    assert!(run.stderr.contains(&format!("artifact `{name}`, chunk ")), "{run:#?}");
    assert!(run.stderr.contains("its SHA-256 differs"), "{run:#?}");
    let left = format!("SELECT count(*) FROM pg_database WHERE datname = '{target}'");
    assert_eq!(cluster.sql("postgres", &left), "0");
}

#[test]
fn a_killed_restore_leaves_the_old_database_and_the_next_run_cleans_up() {
    let scene = Scene::alone();
    let Scene { cluster, database, sandbox } = &scene;
    let before = scene.names(database);
    let mut child = sandbox
        .command(&["restore", "--replace", database])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let unfinished = "SELECT count(*) FROM pg_database WHERE datname LIKE 'opsctl\\_restore\\_%'";
    while cluster.sql("postgres", unfinished) == "0" {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(scene.names(database), before);
    sandbox.run(&["restore", "--replace", database]).ends_with(0);
    assert_eq!(scene.names(database), "5000");
}

#[test]
fn an_encrypted_backup_is_restored_with_its_identity() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i");
    let sandbox = Sandbox::new(&cluster.url(&database));
    let key = crate::support::stock(&mut std::process::Command::new("age-keygen"));
    let recipient = key.lines().find_map(|l| l.strip_prefix("# public key: ")).unwrap().to_owned();
    sandbox.write("key.txt", &key);
    let repository = format!(
        "[repositories.r]\nlocation = \"{}\"\nrecipients = [\"{recipient}\"]\n",
        sandbox.path("backups").display()
    );
    let config = sandbox.write("opsctl.toml", &repository);
    let config = config.to_str().unwrap();
    sandbox.run(&["backup", "--config", config, "--repository", "r"]).ends_with(0);
    let name = format!("restored_{}", unique());
    let args = ["restore", "--config", config, "--repository", "r", "--create", &name];
    let run = sandbox.run(&args).expect(10);
    assert!(run.stderr.contains("is encrypted"), "{run:#?}");
    sandbox.run(&[&args[..], &["--identity", "key.txt"]].concat()).ends_with(0);
    assert_same_as(cluster, &database, &name);
    sandbox
        .run(&[&args[..5], &["--to-dir", "laid", "--identity", "key.txt"]].concat())
        .ends_with(0);
    let stock = restore(cluster, Path::new(&sandbox.path("laid")), &[]);
    assert_same_as(cluster, &database, &stock);
}

fn assert_same_as(cluster: &Cluster, one: &str, other: &str) {
    assert_same(&content(cluster, one, &[]), &content(cluster, other, &[]));
}

/// A database of some tables that know each other, backed up.
fn related_tables() -> (&'static Cluster, String, Sandbox) {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let sql = "
        CREATE TABLE members (id serial PRIMARY KEY, name text); INSERT INTO members (name) SELECT 'n' || i FROM generate_series(1, 100) i;
        CREATE TYPE state AS ENUM ('open', 'paid');
        CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TABLE dues (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, member int REFERENCES members, state state DEFAULT 'open');
        INSERT INTO dues (member) SELECT i FROM generate_series(1, 100) i;
        CREATE INDEX dues_by_member ON dues (member); COMMENT ON TABLE dues IS 'what is owed';
        CREATE TRIGGER stamped BEFORE UPDATE ON dues FOR EACH ROW EXECUTE FUNCTION stamp();
        CREATE TABLE audit_logs (id int, what text) PARTITION BY RANGE (id);
        CREATE TABLE audit_logs_1 PARTITION OF audit_logs FOR VALUES FROM (0) TO (50);
        CREATE INDEX ON audit_logs (id);
        INSERT INTO audit_logs SELECT i, 'w' FROM generate_series(1, 40) i;
        CREATE SCHEMA school; CREATE TABLE school.students (id bigserial PRIMARY KEY, name text);
        INSERT INTO school.students (name) SELECT 's' || i FROM generate_series(1, 30) i;
        SELECT lo_from_bytea(4711, 'a large object');";
    cluster.sql(&database, sql);
    let sandbox = Sandbox::new(&cluster.url(&database));
    sandbox.back_up(&[]);
    (cluster, database, sandbox)
}

/// Returns all relations of a database that are not the system's, and the large objects.
fn relations(cluster: &Cluster, database: &str) -> String {
    let sql = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class \
               WHERE relnamespace::regnamespace::text IN ('public', 'school')";
    cluster.sql(database, sql)
}

#[test]
fn a_table_is_restored_with_all_that_is_its_own_and_nothing_else() {
    let (cluster, _, sandbox) = related_tables();
    let name = format!("restored_{}", unique());
    let report = sandbox.json(0, &["restore", "--create", &name, "--table", "public.dues"]);
    assert_eq!(report["restored"]["rows"], 100);
    assert_eq!(relations(cluster, &name), "dues dues_by_member dues_id_seq dues_pkey");
    let facts = "SELECT (SELECT count(*) FROM dues), (SELECT last_value FROM dues_id_seq), obj_description('dues'::regclass), \
                 (SELECT string_agg(tgname, ',') FROM pg_trigger WHERE NOT tgisinternal), \
                 (SELECT count(*) FROM pg_constraint WHERE contype = 'f'), (SELECT count(*) FROM pg_largeobject_metadata)";
    assert_eq!(cluster.sql(&name, facts), "100|100|what is owed|stamped|0|0");

    let name = format!("restored_{}", unique());
    let both = ["--table", "dues", "--table", "members"];
    sandbox.run(&[&["restore", "--create", &name], &both[..]].concat()).ends_with(0);
    let facts = "SELECT (SELECT count(*) FROM pg_constraint WHERE contype = 'f'), nextval('members_id_seq')";
    assert_eq!(cluster.sql(&name, facts), "1|101");

    let name = format!("restored_{}", unique());
    sandbox.run(&["restore", "--create", &name, "--table", "audit_logs"]).ends_with(0);
    assert_eq!(
        relations(cluster, &name),
        "audit_logs audit_logs_1 audit_logs_1_id_idx audit_logs_id_idx"
    );
    assert_eq!(cluster.sql(&name, "SELECT count(*) FROM audit_logs"), "40");

    let run = sandbox.run(&["restore", "--create", "never_made", "--table", "no.such"]).expect(2);
    assert!(run.stderr.contains("there is no table `no.such` in the backup"), "{run:#?}");
}

#[test]
fn a_schema_is_restored_alone_and_a_schema_only_restore_has_no_rows() {
    let (cluster, _, sandbox) = related_tables();
    let name = format!("restored_{}", unique());
    sandbox.run(&["restore", "--create", &name, "--schema", "school"]).ends_with(0);
    assert_eq!(relations(cluster, &name), "students students_id_seq students_pkey");
    assert_eq!(
        cluster
            .sql(&name, "SELECT count(*), nextval('school.students_id_seq') FROM school.students"),
        "30|31"
    );

    let name = format!("restored_{}", unique());
    sandbox.run(&["restore", "--create", &name, "--schema-only"]).ends_with(0);
    let facts = "SELECT (SELECT count(*) FROM members), (SELECT count(*) FROM audit_logs), nextval('members_id_seq'), \
                 (SELECT count(*) FROM pg_largeobject_metadata)";
    assert_eq!(cluster.sql(&name, facts), "0|0|1|0");
}

#[test]
fn what_is_anonymized_is_seen_by_nobody_before() {
    let (cluster, _, sandbox) = related_tables();
    let name = format!("restored_{}", unique());
    let check = "DO $$ BEGIN IF has_database_privilege('pg_monitor', current_database(), 'CONNECT') \
                 THEN RAISE 'others may connect'; END IF; END $$;";
    sandbox.write("names.sql", &format!("{check} UPDATE members SET name = 'member ' || id;"));
    let args = ["restore", "--create", &name, "--anonymize", "names.sql"];
    sandbox.run(&args).ends_with(0);
    let facts = "SELECT count(*) FILTER (WHERE name LIKE 'member %'), has_database_privilege('pg_monitor', current_database(), 'CONNECT') FROM members";
    assert_eq!(cluster.sql(&name, facts), "100|t");

    let name = format!("restored_{}", unique());
    sandbox.write("names.sql", "UPDATE members SET name = 'x'; SELECT no_such_function()");
    let args = ["restore", "--create", &name, "--anonymize", "names.sql"];
    let run = sandbox.run(&args).expect(1);
    assert!(run.stderr.contains("failed to anonymize what was restored"), "{run:#?}");
    let left = format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'");
    assert_eq!(cluster.sql("postgres", &left), "0");
}

#[test]
fn missing_roles_are_made_when_asked_for() {
    let cluster = Cluster::shared();
    let (database, role) = (cluster.database(), format!("Odd \"\"{}", unique()));
    cluster
        .sql("postgres", &format!("CREATE ROLE \"{role}\" LOGIN; GRANT pg_monitor TO \"{role}\""));
    cluster.sql(&database, &format!("CREATE TABLE t (i int); ALTER TABLE t OWNER TO \"{role}\""));
    let sandbox = Sandbox::new(&cluster.url(&database));
    cluster.sql("postgres", &format!("ALTER DATABASE {database} OWNER TO \"{role}\""));
    sandbox.back_up(&[]);
    let other = Cluster::start(&crate::support::installed(), &[], &[]);
    let url = other.url("moved");
    let run = sandbox.run(&["restore", "--to", &url]).expect(1);
    assert!(run.stderr.contains("does not exist"), "{run:#?}");
    assert_eq!(
        other.sql("postgres", "SELECT count(*) FROM pg_database WHERE NOT datistemplate"),
        "1"
    );
    sandbox.run(&["restore", "--to", &url, "--globals"]).ends_with(0);
    let facts = "SELECT pg_has_role(relowner, 'pg_monitor', 'member'), relowner::regrole FROM pg_class WHERE relname = 't'";
    assert_eq!(other.sql("moved", facts), format!("t|\"{role}\""));
}

#[test]
fn a_restore_whose_sessions_are_ended_leaves_the_old_database() {
    let scene = Scene::alone();
    let Scene { cluster, database, sandbox } = &scene;
    let mut child = sandbox.command(&["restore", "--replace", database]);
    let mut child = child.stderr(std::process::Stdio::null()).spawn().unwrap();
    // Some sessions are idle when they end, which hurts nobody: all are ended, every millisecond, until it gives up.
    let end = "DO $$ BEGIN LOOP PERFORM pg_stat_clear_snapshot(); PERFORM pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname LIKE 'opsctl\\_restore\\_%' AND pid <> pg_backend_pid(); PERFORM pg_sleep(0.001); END LOOP; END $$";
    let mut ending = cluster.program("psql");
    let mut ending = ending.args(["-qX", "-d", "postgres", "-c", end]).spawn().unwrap();
    let status = child.wait().unwrap().code();
    ending.kill().unwrap();
    ending.wait().unwrap();
    cluster.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'DO %' AND pid <> pg_backend_pid()");
    // 1 if it was pg_restore's session, 12 if it was one of opsctl's own.
    assert!(matches!(status, Some(1 | 12)), "{status:?}");
    assert_eq!(scene.names(database), "1");
    assert_eq!(scene.databases(), [""; 0]);
    sandbox.run(&["restore", "--replace", database]).ends_with(0);
    assert_eq!(scene.names(database), "5000");
}

#[test]
fn rows_alone_go_into_empty_tables_or_none_at_all() {
    let (cluster, database, sandbox) = related_tables();
    let name = format!("restored_{}", unique());
    let url = cluster.url(&name);
    let rows_only = ["restore", "--to", &url, "--data-only"];
    let run = sandbox.run(&rows_only).expect(1);
    assert!(run.stderr.contains("whose tables rows could go into"), "{run:#?}");
    sandbox.run(&["restore", "--create", &name, "--schema-only"]).ends_with(0);
    // Order and triggers do not matter: dues refer to members, and this would double them.
    cluster.sql(
        &name,
        "CREATE FUNCTION twice() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO members (name) VALUES (NEW.name); RETURN NEW; END';
         CREATE TRIGGER twice BEFORE INSERT ON members FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION twice()",
    );
    let plan = sandbox.run(&[&rows_only[..], &["--dry-run"]].concat()).expect(0);
    assert!(plan.stdout.contains("would go into the empty tables of"), "{plan:#?}");
    let report = sandbox.json(0, &rows_only);
    assert_eq!(report["restored"]["rows"], 270, "{report}");
    cluster.sql(&name, "DROP FUNCTION twice CASCADE");
    assert_same_as(cluster, &database, &name);

    let run = sandbox.run(&rows_only).expect(1);
    assert!(run.stderr.contains("these would have to be empty: "), "{run:#?}");
    for occupied in ["public.members", "public.audit_logs_1", "pg_largeobject"] {
        assert!(run.stderr.contains(occupied), "{occupied}: {run:#?}");
    }
    assert_same_as(cluster, &database, &name);
    sandbox.run(&["restore", "--create", &name, "--data-only"]).ends_with(2);
}

#[test]
fn rows_alone_of_a_damaged_backup_leave_the_tables_empty() {
    let backup = Broken::new();
    let cluster = Cluster::shared();
    let name = format!("restored_{}", unique());
    backup.sandbox.run(&["restore", "--create", &name, "--schema-only"]).ends_with(0);
    let last = backup.chunks_of(&backup.table("members")) - 1;
    assert!(last > 0, "it has one chunk");
    let path = backup.path(&backup.table("members"));
    let size = usize::try_from(path.metadata().unwrap().len()).unwrap();
    crate::support::broken::flip(&path, size - 100);
    let args = ["restore", "--to", &cluster.url(&name), "--data-only"];
    let run = backup.sandbox.run(&args).expect(3);
    assert!(run.stderr.contains("its SHA-256 differs"), "{run:#?}");
    assert_eq!(cluster.sql(&name, "SELECT count(*) FROM members"), "0");
}

#[test]
fn the_name_of_what_is_replaced_is_asked_for_on_a_terminal() {
    let scene = Scene::new();
    let Scene { database, sandbox, .. } = &scene;
    let run = sandbox.run(&["restore", "--replace"]).expect(2);
    assert!(run.stderr.contains(&format!("--replace {database}")), "{run:#?}");
    let answer = |typed: &str| {
        let opsctl = sandbox.command(&["restore", "--replace"]);
        let program = opsctl.get_program().to_str().unwrap().to_owned();
        let mut script = std::process::Command::new("script");
        script.args(["-qec", &format!("{program} restore --replace"), "/dev/null"]);
        let set = opsctl.get_envs().filter_map(|(name, value)| Some((name, value?)));
        script.env_clear().envs(set).current_dir(opsctl.get_current_dir().unwrap());
        let mut child = script
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, format!("{typed}\n").as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (status, said) = answer("another");
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains(&format!("It would take the place of `{database}`")), "{said}");
    assert!(said.contains("`another` is not the name of the database"), "{said}");
    assert_eq!(scene.names(database), "1");
    let (status, said) = answer(database);
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(scene.names(database), "5000");
}

#[test]
fn a_plan_says_how_long_it_takes_and_whether_there_is_room() {
    let scene = Scene::new();
    let Scene { database, sandbox, .. } = &scene;
    let plan = sandbox.run(&["restore", "--replace", database, "--dry-run"]).expect(0);
    assert!(plan.stdout.contains("no restore test has measured how long it takes"), "{plan:#?}");
    sandbox.run(&["verify-backup", "--restore-test"]).ends_with(0);
    let plan = sandbox.json(0, &["restore", "--replace", database, "--dry-run"]);
    let seconds = plan["estimated_seconds"].as_f64().unwrap();
    assert!(seconds > 0.0 && seconds < 60.0, "{plan}");
    let (needed, free) = (&plan["needed_bytes"], &plan["free_bytes"]);
    assert!(needed.as_u64().unwrap() > 64 << 20 && free.as_u64().unwrap() > 0, "{plan}");
}
