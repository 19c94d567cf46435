//! The machine, or the container, that this runs on: figures from /proc, the control group and the file systems.
//!
//! Only Linux's own files are read, no program is started, and no privilege is needed. What the figures mean is decided
//! elsewhere (`health/`). In a container with limits (cgroup v2) the limits count, not the machine around it. Every reader
//! takes the root under which `proc` lies, so that a test can lay out another machine.

mod cgroup;
pub(crate) mod file_system;
pub(crate) mod growth;
pub(crate) mod memory;
pub(crate) mod pressure;
pub(crate) mod processor;

use std::path::{Path, PathBuf};

use cgroup::Group;

/// Why a figure is not to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("`{0}` cannot be read")]
    Io(PathBuf, #[source] std::io::Error),
    #[error("`{0}` is not written as expected")]
    Odd(PathBuf),
}

/// Reads a small file below the root.
fn read(root: &Path, name: &str) -> Result<String, Error> {
    let path = root.join(name);
    std::fs::read_to_string(&path).map_err(|e| Error::Io(path, e))
}

/// Returns the error for a file that says something else than the kernel's documentation.
fn odd(root: &Path, name: &str) -> Error {
    Error::Odd(root.join(name))
}

#[cfg(test)]
mod testing {
    use std::path::Path;

    /// Lays out the files of another machine.
    #[expect(clippy::disallowed_methods, reason = "a test writes what it reads")]
    pub(super) fn lay_out(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
            std::fs::write(path, content).unwrap();
        }
        root
    }
}
