//! A configuration that is tried before it is written: a file without a name, of which a killed run leaves nothing behind.
//!
//! Only children of this process find it, by the number under which they inherit it. What is in it is not known here.

use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, memfd_create};

/// The file, which is gone with its last owner.
pub(crate) struct Trial {
    _file: File,
    path: PathBuf,
}

impl Trial {
    /// Makes the file, which nobody else may read: there may be a password in it.
    pub(crate) fn new(text: &str) -> std::io::Result<Trial> {
        // Not closed for children, which are to read it.
        let mut file = File::from(memfd_create("opsctl.toml", MemfdFlags::empty())?);
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        Ok(Trial { _file: file, path })
    }

    /// Returns the path by which a child finds it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
