//! The anchor in a file: read before a verification, written anew after one that found nothing.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::archive::verify::Anchor;
use crate::commands::file;

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
        let mut content = serde_json::to_vec_pretty(&self.anchor)?;
        content.push(b'\n');
        file::put(&self.path, &content, file::OWN)
    }
}
