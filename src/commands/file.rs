//! Files that a command writes for others to read: whole, or as they were.

use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Context as _;

/// Everybody may read it.
pub(super) const READABLE: u32 = 0o644;
/// Nobody else may.
pub(super) const OWN: u32 = 0o600;

/// Writes a file beside its place and renames it, so that nobody reads a half. Its folder must exist.
pub(super) fn put(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let put = || -> anyhow::Result<()> {
        beside(path, content, mode)?.persist(path)?;
        Ok(())
    };
    put().with_context(|| failed(path))
}

/// Writes a file where nothing is, and returns whether that was so: whatever has appeared there meanwhile stays.
pub(super) fn put_new(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<bool> {
    let temporary = beside(path, content, mode).with_context(|| failed(path))?;
    match temporary.persist_noclobber(path) {
        Ok(_) => Ok(true),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error.error).with_context(|| failed(path)),
    }
}

fn beside(path: &Path, content: &[u8], mode: u32) -> std::io::Result<tempfile::NamedTempFile> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let mut temporary = tempfile::NamedTempFile::new_in(dir.unwrap_or(Path::new(".")))?;
    temporary.write_all(content)?;
    temporary.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
    temporary.as_file().sync_all()?;
    Ok(temporary)
}

fn failed(path: &Path) -> String {
    format!("failed to write `{}`", path.display())
}
