//! The history in a file: `SQLite`, in write-ahead mode, so that runs write at the same time and a killed one harms none.
//!
//! A run holds an operating-system lock on a file of its own in `running/` as long as it lives. What the tables hold,
//! `store.rs` knows.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::Error;
use super::store::{Tables, VERSION};
use super::value::{Row, Value};

/// What made each version out of the one before, in `SQLite`'s `user_version`.
const STEPS: [&str; 2] = [
    "CREATE TABLE run (
        id TEXT PRIMARY KEY, host TEXT NOT NULL, command TEXT NOT NULL, dry_run INTEGER NOT NULL, begun_at TEXT NOT NULL,
        ended_at TEXT, exit INTEGER, error TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX run_begun_at ON run (begun_at);
    CREATE TABLE part (
        run TEXT NOT NULL REFERENCES run ON DELETE CASCADE, database TEXT NOT NULL, exit INTEGER,
        figures TEXT NOT NULL, error TEXT, PRIMARY KEY (run, database)
    ) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 1;",
    "CREATE TABLE incident (
        id TEXT PRIMARY KEY, command TEXT NOT NULL, database TEXT NOT NULL, subject TEXT NOT NULL, kind TEXT NOT NULL,
        severity TEXT NOT NULL, what TEXT NOT NULL, since TEXT NOT NULL, opened_at TEXT NOT NULL, announced TEXT,
        UNIQUE (command, database, subject, kind)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE message (
        id TEXT PRIMARY KEY, channel TEXT NOT NULL, body TEXT NOT NULL, queued_at TEXT NOT NULL,
        attempts INTEGER NOT NULL, claimed_at TEXT, error TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE silence (
        id TEXT PRIMARY KEY, begun_at TEXT NOT NULL, until TEXT NOT NULL, why TEXT NOT NULL, who TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 2;",
];
/// How long a run waits for another that is writing.
const PATIENCE: Duration = Duration::from_secs(2);

/// The open file.
pub(super) struct SqliteFile {
    state_dir: PathBuf,
    path: PathBuf,
    connection: Connection,
    alive: Option<Alive>,
}

/// The file that says that a run lives: locked as long as it does.
struct Alive {
    path: PathBuf,
    _locked: File,
}

impl Drop for Alive {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
    }
}

/// Returns where the file is.
pub(super) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("history.db")
}

impl SqliteFile {
    /// Opens the file in `state_dir`, and makes what is missing.
    pub(super) fn open(state_dir: &Path) -> Result<SqliteFile, Error> {
        let path = path(state_dir);
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir);
        made.map_err(|e| Error::Io(state_dir.to_owned(), e))?;
        let connection = connect(&path)?;
        Ok(SqliteFile { state_dir: state_dir.to_owned(), path, connection, alive: None })
    }

    /// Opens the file, if there is one.
    pub(super) fn open_if_there(state_dir: &Path) -> Result<Option<SqliteFile>, Error> {
        let path = path(state_dir);
        let is_there = path.try_exists().map_err(|e| Error::Io(path, e))?;
        is_there.then(|| SqliteFile::open(state_dir)).transpose()
    }

    fn sqlite(&self) -> impl Fn(rusqlite::Error) -> Error + use<'_> {
        |e| Error::Sqlite(self.path.clone(), e)
    }
}

impl Tables for SqliteFile {
    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, Error> {
        let done = self.connection.execute(sql, rusqlite::params_from_iter(values));
        done.map(|n| n as u64).map_err(self.sqlite())
    }

    fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, Error> {
        let rows = || {
            let mut statement = self.connection.prepare(sql)?;
            let n_columns = statement.column_count();
            let values = rusqlite::params_from_iter(values);
            let rows = statement.query_map(values, |row| Row::of_sqlite(row, n_columns))?;
            rows.collect::<rusqlite::Result<Vec<Row>>>()
        };
        rows().map_err(self.sqlite())
    }

    fn begin(&mut self) -> Result<(), Error> {
        self.connection.execute_batch("BEGIN IMMEDIATE").map_err(self.sqlite())
    }

    fn end(&mut self, is_good: bool) -> Result<(), Error> {
        let sql = if is_good { "COMMIT" } else { "ROLLBACK" };
        self.connection.execute_batch(sql).map_err(self.sqlite())
    }

    fn hold(&mut self, run: &str) -> Result<(), Error> {
        let folder = running(&self.state_dir);
        let path = folder.join(run);
        let io = |e| Error::Io(path.clone(), e);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io)?;
        sweep(&folder).map_err(io)?;
        // A file that has a run's name is never without its lock.
        let unlocked = folder.join(format!(".{run}"));
        let open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unlocked);
        let file = open.map_err(io)?;
        file.lock().map_err(io)?;
        std::fs::rename(&unlocked, &path).map_err(io)?;
        self.alive = Some(Alive { path, _locked: file });
        Ok(())
    }

    fn release(&mut self) {
        self.alive = None;
    }

    fn alive(&mut self, runs: &[String]) -> Result<BTreeSet<String>, Error> {
        let folder = running(&self.state_dir);
        Ok(runs.iter().filter(|run| is_alive(&folder.join(run))).cloned().collect())
    }
}

/// Removes what killed runs left.
fn sweep(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let is_a_runs = !entry.file_name().as_encoded_bytes().starts_with(b".");
        if is_a_runs && !is_alive(&entry.path()) {
            std::fs::remove_file(entry.path()).ok();
        }
    }
    Ok(())
}

fn running(state_dir: &Path) -> PathBuf {
    state_dir.join("running")
}

/// Does somebody hold the lock on a run's file?
fn is_alive(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// Opens the file, and brings its tables to the version that is known here.
fn connect(path: &Path) -> Result<Connection, Error> {
    let sqlite = |e| Error::Sqlite(path.to_owned(), e);
    // SQLite would make it readable for everybody.
    let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    made.map_err(|e| Error::Io(path.to_owned(), e))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    connection.busy_timeout(PATIENCE).map_err(sqlite)?;
    let set_up =
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;";
    connection.execute_batch(set_up).map_err(sqlite)?;
    let version = |connection: &Connection| {
        connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).map_err(sqlite)
    };
    if version(&connection)? < VERSION {
        let transaction = connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(sqlite)?;
        // Another run may have been first.
        let done = usize::try_from(version(&transaction)?).unwrap_or(usize::MAX);
        for step in STEPS.iter().skip(done) {
            transaction.execute_batch(step).map_err(sqlite)?;
        }
        transaction.commit().map_err(sqlite)?;
    }
    match version(&connection)? {
        VERSION => Ok(connection),
        other => Err(Error::Version(format!("`{}`", path.display()), other)),
    }
}

/// Is it the file itself that is wrong?
pub(super) fn is_broken(error: &Error) -> bool {
    match error {
        Error::Sqlite(_, error) => matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        ),
        _ => false,
    }
}

/// Gives a broken file another name, and what belongs to it. Another run may have been first: what is in its place is then
/// sound, and stays.
pub(super) fn set_aside(state_dir: &Path, error: &Error) -> Result<(), Error> {
    let path = path(state_dir);
    let io = |e| Error::Io(state_dir.to_owned(), e);
    let folder = File::open(state_dir).map_err(io)?;
    folder.lock().map_err(io)?;
    if is_sound(&path) {
        return Ok(());
    }
    let now = crate::clock::now().format("%Y%m%dT%H%M%S%.6fZ");
    let aside = |suffix: &str| PathBuf::from(format!("{}.broken-{now}{suffix}", path.display()));
    for suffix in ["", "-wal", "-shm"] {
        let from = PathBuf::from(format!("{}{suffix}", path.display()));
        match std::fs::rename(&from, aside(suffix)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::Io(from, e)),
            _ => {}
        }
    }
    tracing::warn!(
        "the history is broken and was set aside as `{}`; a new one was begun: {}",
        aside("").display(),
        error.in_full()
    );
    Ok(())
}

/// Does the file hold together, as far as can be told?
fn is_sound(path: &Path) -> bool {
    let check = |connection: &Connection| {
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0))
    };
    match connect(path) {
        Ok(connection) => check(&connection).is_ok_and(|said| said == "ok"),
        Err(error) => !is_broken(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Place;
    use crate::history::store::Store;
    use crate::history::suite;

    suite::conformance!(suite::Guarded::in_a_directory());

    #[test]
    fn a_file_of_version_1_keeps_its_runs() {
        let dir = tempfile::tempdir().unwrap();
        let old = Connection::open(path(dir.path())).unwrap();
        old.execute_batch(STEPS[0]).unwrap();
        old.execute_batch(
            "INSERT INTO run VALUES ('a', 'h', 'backup', 0, '2026-11-21T02:00:00.000000Z', '2026-11-21T02:01:00.000000Z', 0, NULL);
             INSERT INTO part VALUES ('a', 'ip2a', 0, '{\"rows\":7}', NULL);",
        )
        .unwrap();
        drop(old);
        let place = Place::Directory(dir.path().to_owned());
        let mut store = Store::open_if_there(&place).unwrap().unwrap();
        let runs = store.runs(crate::clock::Moment::default(), &[]).unwrap();
        assert_eq!((runs[0].id.as_str(), runs[0].exit), ("a", Some(0)));
        assert_eq!(runs[0].databases[0].figures["rows"], 7.into());
        assert!(store.silences().unwrap().is_empty() && store.incidents().unwrap().is_empty());
    }

    #[test]
    fn a_file_of_a_newer_opsctl_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        drop(SqliteFile::open(dir.path()).unwrap());
        let new = Connection::open(path(dir.path())).unwrap();
        new.execute_batch("PRAGMA user_version = 3").unwrap();
        let error = SqliteFile::open(dir.path()).err().unwrap();
        assert!(matches!(error, Error::Version(_, 3)) && !is_broken(&error));
    }
}
