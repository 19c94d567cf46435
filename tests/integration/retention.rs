//! What is kept, what is removed, and what `backup list` and `backup prune` say of it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::broken::flip;
use crate::support::{Cluster, Sandbox, stock};

/// A database of one small table, whose backups lie in `repositories`.
struct Scene {
    sandbox: Sandbox,
    database: String,
}

impl Scene {
    fn new(repositories: &str) -> Scene {
        let cluster = Cluster::shared();
        let database = cluster.database();
        cluster.sql(&database, "CREATE TABLE t AS SELECT generate_series(1, 10) AS n");
        let mut sandbox = Sandbox::new("unused");
        sandbox.unset("DATABASE_URL").unset("OPSCTL_REPOSITORY");
        let url = cluster.url(&database);
        sandbox.write("opsctl.toml", &format!("[database]\nurl = \"{url}\"\n{repositories}"));
        Scene { sandbox, database }
    }

    /// Keeps by `policy` in one directory.
    fn keeping(policy: &str) -> Scene {
        Scene::new(&format!("[repository]\nlocation = \"backups\"\nretention = {{ {policy} }}\n"))
    }

    /// Takes a backup on each of these days of March 2020, without retention.
    fn back_up_on(&self, days: &[u32]) -> Vec<String> {
        let back_up = |day: &u32| {
            let now = format!("2020-03-{day:02}T02:00:00Z");
            self.sandbox.back_up(&["--no-prune", "--now", &now])
        };
        days.iter().map(back_up).collect()
    }

    fn folder(&self, repository: &str, id: &str) -> PathBuf {
        self.sandbox.path(repository).join(&self.database).join(id)
    }

    /// Returns the names of the folders in a repository, oldest first.
    fn stored(&self, repository: &str) -> Vec<String> {
        let folders =
            std::fs::read_dir(self.sandbox.path(repository).join(&self.database)).unwrap();
        let mut names: Vec<String> =
            folders.map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Returns the cells of each row of a table on stdout, without the sizes.
    fn table(&self, args: &[&str]) -> Vec<String> {
        let run = self.sandbox.run(args).expect(0);
        assert_eq!(run.stderr, "");
        let cells = |line: &str| {
            let cells: Vec<&str> =
                line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
            cells.into_iter().filter(|cell| !cell.ends_with("iB")).collect::<Vec<_>>().join(" | ")
        };
        run.stdout.lines().map(cells).collect()
    }
}

#[test]
fn prune_removes_exactly_what_its_dry_run_shows() {
    let scene = Scene::keeping("keep_last = 2");
    let ids = scene.back_up_on(&[1, 2, 3, 4, 5]);
    let shown = scene.table(&["backup", "prune", "--dry-run"]);
    let row = |n: usize, why: &str| {
        format!("{} | 2020-03-0{} 02:00 | 1 | 10 | no | {why}", ids[n], n + 1)
    };
    assert_eq!(
        shown[2..],
        [
            row(4, "keep_last, the last good backup"),
            row(3, "keep_last"),
            row(2, "(to be removed)"),
            row(1, "(to be removed)"),
            row(0, "(to be removed)"),
        ]
    );
    let report = scene.sandbox.json(0, &["backup", "prune", "--dry-run"]);
    assert_eq!(report["databases"][0]["repositories"][0]["would_remove"], 3);
    assert_eq!(scene.stored("backups"), ids, "a dry run removes nothing");

    let run = scene.sandbox.run(&["backup", "prune"]).expect(0);
    let said: Vec<&str> = run.stdout.lines().skip(1).map(str::trim).collect();
    let removed = |n: usize| format!("removed {}", ids[n]);
    assert_eq!(said[..3], [removed(0), removed(1), removed(2)], "the oldest first");
    assert!(
        said[3].starts_with("3 removed, ") && said[3].ends_with(" freed") && said.len() == 4,
        "{said:?}"
    );
    assert_eq!(scene.stored("backups"), ids[3..]);
    let run = scene.sandbox.run(&["backup", "prune"]).expect(0);
    assert!(run.stdout.contains("  0 removed, 0 B freed\n"), "{}", run.stdout);
    scene.sandbox.run(&["verify-backup", "--all"]).ends_with(0);
}

#[test]
fn each_repository_has_its_own_retention_after_a_backup() {
    let scene = Scene::new(
        "[repositories.near]\nlocation = \"near\"\nretention = { keep_last = 1 }\n\
         [repositories.far]\nlocation = \"far\"\nretention = { keep_last = 3 }\n",
    );
    let mut ids = scene.back_up_on(&[1, 2, 3]);
    assert_eq!((scene.stored("near").len(), scene.stored("far").len()), (3, 3));
    let report = scene.sandbox.json(0, &["backup", "--now", "2020-03-04T02:00:00Z"]);
    let database = &report["databases"][0];
    ids.push(database["backup"].as_str().unwrap().to_owned());
    let pruned = |name: &str| {
        let all = database["repositories"].as_array().unwrap();
        all.iter().find(|r| r["repository"] == name).unwrap()["pruned"]["removed"].clone()
    };
    assert_eq!((pruned("far"), pruned("near")), (json!(ids[..1]), json!(ids[..3])));
    assert_eq!((scene.stored("far"), scene.stored("near")), (ids[1..].to_vec(), ids[3..].to_vec()));
}

#[test]
fn a_backup_that_fails_removes_nothing_and_leaves_nothing() {
    let scene = Scene::keeping("keep_last = 1");
    let ids = scene.back_up_on(&[1, 2]);
    let role = format!("nobody_much_{}", scene.database);
    Cluster::shared().sql(&scene.database, &format!("CREATE ROLE {role} LOGIN"));
    let config = std::fs::read_to_string(scene.sandbox.path("opsctl.toml")).unwrap();
    let user = format!("user={role}");
    scene.sandbox.write("opsctl.toml", &config.replace("user=postgres", &user));
    let run = scene.sandbox.run(&["backup"]);
    assert!(run.status != 0 && run.status != 3, "{run:#?}");
    assert!(run.stderr.contains("permission denied for table"), "{run:#?}");
    assert_eq!(scene.stored("backups"), ids);
}

/// Writes what a run leaves that has not finished: an artifact and a lease.
fn begin_elsewhere(folder: &Path, id: &str, renewed: &str) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("toc.dat"), "half of it").unwrap();
    let at = stock(std::process::Command::new("date").args([
        "-u",
        "-d",
        renewed,
        "+%Y-%m-%dT%H:%M:%SZ",
    ]));
    let lease = json!({
        "run": id, "host": "elsewhere", "boot": "another", "namespace": "pid:[1]", "process": 7, "renewed_at": at.trim(),
    });
    std::fs::write(folder.join("lease.json"), lease.to_string()).unwrap();
}

#[test]
fn a_backup_in_progress_is_left_alone_until_its_lease_is_stale() {
    let scene = Scene::keeping("keep_last = 1");
    let ids = scene.back_up_on(&[1]);
    let other = "20200302T020000Z-0000aa";
    begin_elsewhere(&scene.folder("backups", other), other, "now");
    assert_eq!(scene.table(&["backup", "list"])[3], format!("{other} | (in progress)"));
    let run = scene.sandbox.run(&["backup", "prune"]).expect(0);
    assert!(run.stdout.contains("  0 removed"), "{}", run.stdout);
    let new = scene.sandbox.back_up(&[]);
    assert_eq!(
        scene.stored("backups"),
        [other, &new],
        "retention went on, and left the other run alone"
    );

    begin_elsewhere(&scene.folder("backups", other), other, "2 hours ago");
    let row = format!("{other} | (left by a crashed run, to be removed)");
    assert!(scene.table(&["backup", "list"]).contains(&row));
    assert!(scene.table(&["backup", "prune", "--dry-run"]).contains(&row));
    assert_eq!(scene.stored("backups").len(), 2);
    let run = scene.sandbox.run(&["backup", "prune"]).expect(0);
    assert!(
        run.stdout.contains(&format!("  removed the leftovers of run {other}\n  1 removed")),
        "{}",
        run.stdout
    );
    assert_eq!(scene.stored("backups"), [new]);
    assert_ne!(ids[0], other);
}

#[test]
fn a_removal_that_was_cut_off_is_finished_by_the_next_backup() {
    let scene = Scene::keeping("keep_last = 2");
    let ids = scene.back_up_on(&[1, 2]);
    // As `kill -9` leaves it: a lease of the removing run, then the manifest, then one artifact after the other.
    let folder = scene.folder("backups", &ids[0]);
    begin_elsewhere(&folder, &ids[1], "2 hours ago");
    for name in ["manifest.json", "globals.sql"] {
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    let report = scene.sandbox.json(0, &["backup"]);
    let database = &report["databases"][0];
    assert_eq!(database["repositories"][0]["pruned"]["swept"], json!([ids[0]]));
    assert_eq!(scene.stored("backups"), [&ids[1], database["backup"].as_str().unwrap()]);
}

#[test]
fn time_alone_removes_nothing() {
    let scene = Scene::keeping("keep_days = 3");
    let ids = scene.back_up_on(&[1, 4, 5, 6]);
    let dry = |now: &str| scene.table(&["backup", "prune", "--dry-run", "--now", now]);
    let soon = dry("2020-03-06T03:00:00Z");
    assert_eq!(soon, dry("2099-01-01T00:00:00Z"));
    assert!(soon[5].ends_with("(to be removed)") && soon[4].ends_with("keep_days"), "{soon:?}");
    scene.sandbox.run(&["backup", "prune", "--now", "2099-01-01T00:00:00Z"]).ends_with(0);
    assert_eq!(scene.stored("backups"), ids[1..]);
}

#[test]
fn a_damaged_backup_does_not_push_out_the_last_good_one() {
    let scene = Scene::keeping("keep_last = 1");
    let ids = scene.back_up_on(&[1, 2, 3]);
    flip(&scene.folder("backups", &ids[2]).join("toc.dat"), 9);
    scene.sandbox.run(&["verify-backup"]).ends_with(3);
    let table = scene.table(&["backup", "prune", "--dry-run"]);
    assert!(
        table[2].contains(" | DAMAGED ")
            && table[2].ends_with("damaged, but not older than what is kept"),
        "{table:?}"
    );
    assert!(table[3].ends_with("keep_last, the last good backup"), "{table:?}");
    scene.sandbox.run(&["backup", "prune"]).ends_with(0);
    assert_eq!(scene.stored("backups"), ids[1..]);
}

#[test]
fn the_list_says_why_each_backup_is_kept() {
    let scene = Scene::keeping("keep_last = 1, keep_daily = 2, keep_monthly = 1");
    let ids = scene.back_up_on(&[1, 2]);
    scene.sandbox.run(&["verify-backup", "--backup", &ids[0]]).ends_with(0);
    begin_elsewhere(
        &scene.folder("backups", "20200303T020000Z-0000bb"),
        "20200303T020000Z-0000bb",
        "now",
    );
    std::fs::create_dir(scene.folder("backups", "20200304T020000Z-0000cc")).unwrap();
    std::fs::write(scene.folder("backups", "20200304T020000Z-0000cc").join("manifest.json"), "{")
        .unwrap();
    let today = stock(std::process::Command::new("date").args(["-u", "+%Y-%m-%d"]));
    let mut golden = String::new();
    for line in scene.table(&["backup", "list"]) {
        let line = line
            .replace(&ids[0], "FIRST")
            .replace(&ids[1], "SECOND")
            .replace(today.trim(), "TODAY");
        let line = line
            .replace(&scene.database, "DATABASE")
            .replace(scene.sandbox.path("").to_str().unwrap(), "DIR/");
        golden.push_str(&line);
        golden.push('\n');
    }
    insta::assert_snapshot!(golden, @r"
    DATABASE in directory `DIR/backups`:
    BACKUP | BEGUN (UTC) | SIZE | TABLES | ROWS | VERIFIED | KEPT BECAUSE
    20200304T020000Z-0000cc | ? | ? | ? | ? | no | its manifest cannot be read
    SECOND | 2020-03-02 02:00 | 1 | 10 | no | keep_last, keep_daily, keep_monthly, the last good backup
    FIRST | 2020-03-01 02:00 | 1 | 10 | good TODAY | keep_daily
    20200303T020000Z-0000bb | (in progress)
    ");
    let report = scene.sandbox.json(0, &["backup", "list"]);
    let repository = &report["databases"][0]["repositories"][0];
    assert_eq!(
        (&repository["in_progress"], &repository["leftovers"]),
        (&json!(["20200303T020000Z-0000bb"]), &json!([]))
    );
    let listed = |n: usize| &repository["backups"][n];
    assert_eq!(
        listed(1)["kept_because"],
        json!(["keep_last", "keep_daily", "keep_monthly", "the last good backup"])
    );
    assert_eq!(
        (&listed(2)["verified"]["good"], &listed(2)["encrypted"]),
        (&json!(true), &json!(false))
    );
    assert!(
        listed(0)["problem"].as_str().unwrap().contains("not valid JSON")
            && listed(0)["totals"] == Value::Null
    );
}
