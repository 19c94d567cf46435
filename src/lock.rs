//! The lock of a run: an operating-system lock on a file, which dies with the process.
//!
//! The file is never unlinked: a second process that had opened the old file would otherwise hold a lock
//! on nothing. It keeps one host from doing a thing twice; the advisory lock in the database keeps two.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Why a lock was not got.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Somebody else holds it.
    #[error("another run holds the lock `{path}`{}", if .holder.is_empty() { String::new() } else { format!(" ({})", .holder) })]
    Held { path: String, holder: String },
    /// The file cannot be made or locked.
    #[error("failed to lock `{0}`")]
    Failed(String, #[source] std::io::Error),
}

/// A lock that is held until this is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct FileLock {
    _file: File,
}

impl FileLock {
    /// Takes the lock `name` in `state_dir`, making the directory if needed, or says at once who has it.
    pub(crate) fn acquire(state_dir: &Path, name: &str, holder: &str) -> Result<FileLock, Error> {
        let folder = state_dir.join("locks");
        let path = folder.join(format!("{name}.lock"));
        let shown = path.display().to_string();
        let failed = |e| Error::Failed(shown.clone(), e);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let mut file = open.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only a courtesy: the text may be half written.
                file.read_to_string(&mut holder).ok();
                return Err(Error::Held { path: shown, holder: holder.trim().to_owned() });
            }
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{holder}")
        };
        write(&mut file).map_err(failed)?;
        Ok(FileLock { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_of_the_first_and_the_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let first = FileLock::acquire(dir.path(), "backup-x", "run 1").unwrap();
        let error = FileLock::acquire(dir.path(), "backup-x", "run 2").unwrap_err().to_string();
        assert!(error.contains("backup-x.lock` (run 1)"), "{error}");
        drop(FileLock::acquire(dir.path(), "backup-y", "run 3").unwrap());
        drop(first);
        drop(FileLock::acquire(dir.path(), "backup-x", "run 4").unwrap());
        assert!(dir.path().join("locks/backup-x.lock").exists());
    }
}
