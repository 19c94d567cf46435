//! The file of the history: `SQLite`, in write-ahead mode, so that runs write at the same time and a killed one harms none.
//!
//! A run holds an operating-system lock on a file of its own in `running/` as long as it lives. A run without an end
//! whose lock is free was killed.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, params};

use super::{Begun, Part, Run, State};
use crate::clock::Moment;

/// The version of the tables, in `SQLite`'s `user_version`.
const VERSION: i64 = 1;
const TABLES: &str = "
    CREATE TABLE run (
        id TEXT PRIMARY KEY, host TEXT NOT NULL, command TEXT NOT NULL, dry_run INTEGER NOT NULL, begun_at TEXT NOT NULL,
        ended_at TEXT, exit INTEGER, error TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX run_begun_at ON run (begun_at);
    CREATE TABLE part (
        run TEXT NOT NULL REFERENCES run ON DELETE CASCADE, database TEXT NOT NULL, exit INTEGER,
        figures TEXT NOT NULL, error TEXT, PRIMARY KEY (run, database)
    ) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 1;";
/// How long a run waits for another that is writing.
const PATIENCE: Duration = Duration::from_secs(2);
/// Moments as they sort: all in UTC, all of one length.
const TIME: &str = "%Y-%m-%dT%H:%M:%S%.6fZ";

/// Why the history cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("`{0}` cannot be used")]
    Io(PathBuf, #[source] std::io::Error),
    #[error("`{0}` cannot be used")]
    Sqlite(PathBuf, #[source] rusqlite::Error),
    #[error("`{0}` has version {1}, this opsctl knows {VERSION}: a newer one wrote it")]
    Version(PathBuf, i64),
}

/// The file, opened by a run that has noted its beginning.
pub(super) struct Open {
    path: PathBuf,
    connection: Connection,
    run: String,
    /// Locked as long as the run lives.
    alive: PathBuf,
    _alive: File,
}

impl Open {
    /// Opens or makes the file in `state_dir`, notes the run, and forgets those before `oldest`.
    pub(super) fn begin(state_dir: &Path, run: &Begun<'_>, oldest: Moment) -> Result<Open, Error> {
        let path = state_dir.join("history.db");
        let folder = running(state_dir);
        let alive = folder.join(run.id.as_str());
        let io = |e| Error::Io(alive.clone(), e);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io)?;
        sweep(&folder).map_err(io)?;
        // First: a run that is in the history is never without its lock, nor is a file with a run's name.
        let unlocked = folder.join(format!(".{}", run.id));
        let open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unlocked);
        let file = open.map_err(io)?;
        file.lock().map_err(io)?;
        std::fs::rename(&unlocked, &alive).map_err(io)?;
        let begin = || {
            let connection = connect(&path)?;
            note(&connection, run, oldest).map_err(|e| Error::Sqlite(path.clone(), e))?;
            Ok(connection)
        };
        let connection = match begin() {
            Err(error) if is_broken(&error) => {
                set_aside(&path, run.id.as_str(), &error)?;
                begin()
            }
            result => result,
        };
        let connection = connection.inspect_err(|_| drop(std::fs::remove_file(&alive)))?;
        Ok(Open { connection, run: run.id.to_string(), alive, _alive: file, path })
    }

    /// Notes that the run is at work on a database.
    pub(super) fn part_begun(&self, database: &str) -> Result<(), Error> {
        const SQL: &str = "INSERT INTO part (run, database, figures) VALUES (?1, ?2, '{}') ON CONFLICT DO NOTHING";
        let done = self.connection.execute(SQL, params![self.run, database]);
        done.map(drop).map_err(|e| Error::Sqlite(self.path.clone(), e))
    }

    /// Notes what became of a database, or of a part of it.
    pub(super) fn part_ended(
        &self,
        database: &str,
        exit: u8,
        figures: &str,
        error: Option<&str>,
    ) -> Result<(), Error> {
        const SQL: &str = "INSERT INTO part (run, database, exit, figures, error) VALUES (?1, ?2, ?3, ?4, ?5) \
            ON CONFLICT DO UPDATE SET exit = max(?3, coalesce(part.exit, 0)), figures = ?4, error = coalesce(?5, part.error)";
        let done = self.connection.execute(SQL, params![self.run, database, exit, figures, error]);
        done.map(drop).map_err(|e| Error::Sqlite(self.path.clone(), e))
    }

    /// Notes the end.
    pub(super) fn end(&self, at: Moment, exit: u8, error: Option<&str>) -> Result<(), Error> {
        const SQL: &str = "UPDATE run SET ended_at = ?2, exit = ?3, error = ?4 WHERE id = ?1";
        let done = self.connection.execute(SQL, params![self.run, time(at), exit, error]);
        done.map(drop).map_err(|e| Error::Sqlite(self.path.clone(), e))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        std::fs::remove_file(&self.alive).ok();
    }
}

/// Reads the runs that began at or after `since`, oldest first; none if there is no history.
pub(crate) fn read(state_dir: &Path, since: Moment) -> Result<Vec<Run>, Error> {
    let path = state_dir.join("history.db");
    if !path.try_exists().map_err(|e| Error::Io(path.clone(), e))? {
        return Ok(Vec::new());
    }
    let connection = connect(&path)?;
    let mut runs = rows(&connection, since).map_err(|e| Error::Sqlite(path.clone(), e))?;
    for run in &mut runs {
        run.state = match run.ended_at {
            Some(_) => State::Ended,
            None if is_alive(&running(state_dir).join(&run.id)) => State::Running,
            None => State::Killed,
        };
    }
    Ok(runs)
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

fn time(at: Moment) -> String {
    at.format(TIME).to_string()
}

/// Opens the file, and makes its tables if there are none.
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
    if version(&connection)? == 0 {
        let transaction = connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(sqlite)?;
        // Another run may have been first.
        if version(&transaction)? == 0 {
            transaction.execute_batch(TABLES).map_err(sqlite)?;
        }
        transaction.commit().map_err(sqlite)?;
    }
    match version(&connection)? {
        VERSION => Ok(connection),
        other => Err(Error::Version(path.to_owned(), other)),
    }
}

fn note(connection: &Connection, run: &Begun<'_>, oldest: Moment) -> rusqlite::Result<()> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    connection.execute(
        "INSERT INTO run (id, host, command, dry_run, begun_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![run.id.as_str(), host, run.command, run.dry_run, time(run.at)],
    )?;
    connection.execute("DELETE FROM run WHERE begun_at < ?1", params![time(oldest)])?;
    Ok(())
}

fn rows(connection: &Connection, since: Moment) -> rusqlite::Result<Vec<Run>> {
    let moment = |text: String| text.parse::<Moment>().unwrap_or_default();
    let mut statement = connection.prepare(
        "SELECT id, host, command, dry_run, begun_at, ended_at, exit, error FROM run WHERE begun_at >= ?1 ORDER BY begun_at, id",
    )?;
    let runs = statement.query_map(params![time(since)], |row| {
        Ok(Run {
            id: row.get(0)?,
            host: row.get(1)?,
            command: row.get(2)?,
            dry_run: row.get(3)?,
            begun_at: moment(row.get(4)?),
            ended_at: row.get::<_, Option<String>>(5)?.map(moment),
            state: State::Ended,
            exit: row.get(6)?,
            error: row.get(7)?,
            databases: Vec::new(),
        })
    })?;
    let mut runs = runs.collect::<rusqlite::Result<Vec<Run>>>()?;
    let mut parts = connection
        .prepare("SELECT database, exit, figures, error FROM part WHERE run = ?1 ORDER BY 1")?;
    for run in &mut runs {
        let found = parts.query_map(params![run.id], |row| {
            Ok(Part {
                database: row.get(0)?,
                exit: row.get(1)?,
                figures: serde_json::from_str(&row.get::<_, String>(2)?).unwrap_or_default(),
                error: row.get(3)?,
            })
        })?;
        run.databases = found.collect::<rusqlite::Result<Vec<Part>>>()?;
    }
    Ok(runs)
}

/// Does somebody hold the lock on a run's file?
fn is_alive(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// Is it the file itself that is wrong?
fn is_broken(error: &Error) -> bool {
    match error {
        Error::Sqlite(_, error) => matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        ),
        Error::Io(..) | Error::Version(..) => false,
    }
}

/// Gives a broken file another name, and what belongs to it.
fn set_aside(path: &Path, run: &str, error: &Error) -> Result<(), Error> {
    let aside = |suffix: &str| PathBuf::from(format!("{}.broken-{run}{suffix}", path.display()));
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
        why(error)
    );
    Ok(())
}

fn why(error: &Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}
