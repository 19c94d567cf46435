//! How full a file system is, in bytes and in inodes, as `df` counts.

use std::io;
use std::path::Path;

/// The file system that a path lies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileSystem {
    pub(crate) bytes: Room,
    /// None where there is no fixed number of them, as on btrfs.
    pub(crate) inodes: Option<Room>,
}

/// How much there is of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) used: u64,
    /// To users other than root: what is reserved for root is neither used nor available.
    pub(crate) available: u64,
}

impl Room {
    /// Returns what can be used at all.
    pub(crate) fn total(&self) -> u64 {
        self.used.saturating_add(self.available)
    }

    /// Returns how much of that is used, in percent.
    pub(crate) fn used_percent(&self) -> f64 {
        super::memory::percent(self.used, self.total())
    }
}

/// Asks about the file system of a path, or where that would be made: the nearest folder that exists.
pub(crate) fn look(path: &Path) -> io::Result<FileSystem> {
    let mut there = path;
    loop {
        match rustix::fs::stat(there) {
            Ok(_) => break,
            Err(rustix::io::Errno::NOENT) => {
                there = there.parent().ok_or(rustix::io::Errno::NOENT)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let figures = rustix::fs::statvfs(there)?;
    let size = figures.f_frsize;
    let bytes = Room {
        used: figures.f_blocks.saturating_sub(figures.f_bfree).saturating_mul(size),
        available: figures.f_bavail.saturating_mul(size),
    };
    let inodes =
        Room { used: figures.f_files.saturating_sub(figures.f_ffree), available: figures.f_favail };
    Ok(FileSystem { bytes, inodes: (figures.f_files > 0).then_some(inodes) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_those_of_df() {
        // df rounds up: 25 used and 75 available of 110, because 10 are reserved for root.
        assert!((Room { used: 25, available: 75 }.used_percent() - 25.0).abs() < 1e-9);
        assert!(Room { used: 0, available: 0 }.used_percent().abs() < 1e-9);
    }

    #[test]
    fn a_folder_need_not_exist_yet() {
        let dir = tempfile::tempdir().unwrap();
        let found = look(&dir.path().join("a/b")).unwrap();
        assert!(found.bytes.total() > 0);
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(look(&file.path().join("below")).is_err());
    }
}
