//! A database with a good backup, and all that must be true after a run on it went wrong.

use std::path::{Path, PathBuf};

use super::running::{children, eventually};
use super::{Cluster, Run, Sandbox};

/// A database that has been backed up once, into a directory.
pub(crate) struct Patient<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) database: String,
    pub(crate) sandbox: Sandbox,
    /// The good backup.
    pub(crate) earlier: String,
}

impl<'a> Patient<'a> {
    /// Makes a small database and backs it up.
    pub(crate) fn new(cluster: &'a Cluster) -> Patient<'a> {
        let database = cluster.database();
        cluster.sql(&database, "CREATE TABLE members AS SELECT n, md5(n::text) AS name FROM generate_series(1, 1000) n");
        let sandbox = sandbox(&cluster.url(&database));
        let earlier = sandbox.back_up(&[]);
        Patient { cluster, database, sandbox, earlier }
    }

    /// Returns the folder of its backups.
    pub(crate) fn folder(&self) -> PathBuf {
        self.sandbox.path("backups").join(&self.database)
    }

    /// Asserts what is true after every run that failed while it was made: it says so, by its status and in
    /// one line that has `says` in it; it left nothing; the earlier backup is good; the next run succeeds.
    #[track_caller]
    pub(crate) fn check(&self, run: &Run, status: i32, says: &str) {
        assert_eq!(run.status, status, "{run:#?}");
        check_log(run);
        let errors = errors(run);
        assert!(matches!(&errors[..], [one] if one.contains(says)), "{says}: {run:#?}");
        assert_eq!(folders(&self.folder()), [(self.earlier.clone(), true)], "{run:#?}");
        self.check_afterwards(1);
    }

    /// Asserts that nothing of the last run is left outside of the repository, and that the next one
    /// succeeds and tidies up; `n_backups` are there before it.
    #[track_caller]
    pub(crate) fn check_afterwards(&self, n_backups: usize) {
        self.check_nothing_left();
        self.sandbox.run(&["verify-backup", "--backup", &self.earlier]).expect(0).silence();
        let next = self.sandbox.back_up(&[]);
        self.sandbox.run(&["verify-backup", "--backup", &next]).expect(0).silence();
        let folders = folders(&self.folder());
        assert_eq!(folders.len(), n_backups + 1, "{folders:?}");
        assert!(folders.iter().all(|(_, is_complete)| *is_complete), "{folders:?}");
        assert_eq!(unfinished(&self.folder()), [] as [PathBuf; 0]);
    }

    /// Asserts that children and sessions are gone and nothing lies outside of the repository.
    #[track_caller]
    pub(crate) fn check_nothing_left(&self) {
        eventually("no child is left", || {
            children(self.cluster, &self.database).is_empty().then_some(())
        });
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND application_name ~ 'opsctl|pg_dump'",
            self.database
        );
        eventually("no session is left", || {
            (self.cluster.sql("postgres", &sql) == "0").then_some(())
        });
        let names = entries(&self.sandbox.path("tmp"));
        assert_eq!(names, [] as [PathBuf; 0], "temporary files");
        let names = entries(&self.sandbox.path("home"));
        assert_eq!(names, [] as [PathBuf; 0], "files in the home directory");
    }
}

impl Run {
    /// Ends the chain: the status was all there was to assert.
    pub(crate) fn silence(self) {
        drop(self);
    }
}

/// Makes a sandbox with a temporary directory of its own.
pub(crate) fn sandbox(url: &str) -> Sandbox {
    let mut sandbox = Sandbox::new(url);
    let tmp = sandbox.path("tmp");
    std::fs::create_dir(&tmp).unwrap();
    sandbox.set("TMPDIR", tmp.to_str().unwrap());
    sandbox
}

/// Returns the messages of level ERROR, without the hints.
pub(crate) fn errors(run: &Run) -> Vec<String> {
    let messages = run
        .stderr
        .lines()
        .filter_map(|line| Some(line.split_once(" ERROR ")?.1.split_once(' ')?.1));
    messages.filter(|message| !message.starts_with("hint: ")).map(str::to_owned).collect()
}

/// Asserts that stderr is one line per event, each with time, level and run.
#[track_caller]
pub(crate) fn check_log(run: &Run) {
    for line in run.stderr.lines() {
        let words: Vec<_> = line.split_whitespace().take(3).collect();
        let [time, level, id] = words[..] else { panic!("not a log line: {line}: {run:#?}") };
        assert!(time.len() == 24 && time.ends_with('Z'), "{line}");
        assert!(["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level), "{line}");
        assert!(id.len() == 23 && id.contains("Z-"), "{line}");
    }
}

/// Returns the folders of backups with a file in them, and whether each has a manifest.
pub(crate) fn folders(path: &Path) -> Vec<(String, bool)> {
    fn has_files(path: &Path) -> bool {
        path.is_file() || entries(path).iter().any(|path| has_files(path))
    }
    let folders = entries(path).into_iter().filter(|path| has_files(path));
    folders
        .map(|path| {
            (
                path.file_name().unwrap().to_str().unwrap().to_owned(),
                path.join("manifest.json").exists(),
            )
        })
        .collect()
}

/// Returns the files that no backup has: temporary ones, and leases that a manifest does not make void.
pub(crate) fn unfinished(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in entries(path) {
        let name = entry.file_name().unwrap().to_string_lossy().into_owned();
        if entry.is_dir() {
            found.extend(unfinished(&entry));
        } else if name.starts_with('.')
            || name == "lease.json" && !path.join("manifest.json").exists()
        {
            found.push(entry);
        }
    }
    found
}

fn entries(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
