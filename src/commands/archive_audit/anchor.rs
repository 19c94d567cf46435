//! The anchor in a file: read before a verification, written anew after one that found nothing.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::archive::verify::Anchor;

/// An anchor, and where it is kept.
pub(super) struct AnchorFile {
    path: PathBuf,
    pub(super) anchor: Anchor,
}

impl AnchorFile {
    /// Reads the file; one that does not exist yet has seen nothing.
    pub(super) fn read(path: &Path) -> anyhow::Result<AnchorFile> {
        let anchor = match std::fs::read(path) {
            Ok(json) => serde_json::from_slice(&json)
                .with_context(|| format!("`{}` is no anchor", path.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Anchor::default(),
            Err(error) => {
                return Err(error).with_context(|| format!("failed to read `{}`", path.display()));
            }
        };
        Ok(AnchorFile { path: path.to_owned(), anchor })
    }

    /// Takes the file's place.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let write = || -> anyhow::Result<()> {
            let dir = match self.path.parent() {
                Some(dir) if !dir.as_os_str().is_empty() => dir,
                _ => Path::new("."),
            };
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            file.write_all(&serde_json::to_vec_pretty(&self.anchor)?)?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist(&self.path)?;
            Ok(())
        };
        write().with_context(|| format!("failed to write `{}`", self.path.display()))
    }
}
