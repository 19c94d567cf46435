//! A backup as pg_dump's directory format, for people who want the stock pg_restore: chunks joined and decrypted.
//!
//! Nothing is overwritten. Every chunk is compared with the manifest before it is written; a directory that was not
//! finished lacks its `toc.dat`, so that no pg_restore takes it for a whole one.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::Context as _;
use indicatif::ProgressBar;

use crate::backup::chunk::Source;
use crate::backup::manifest::{Artifact, TOC};
use crate::exit::{Exit, Failure};
use crate::stop::Stop;

/// Writes all files of a backup into `dir`, which must be new or empty.
pub(crate) fn lay_out(
    source: Source<'_>,
    dir: &Path,
    progress: &ProgressBar,
    stop: &Stop,
) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("failed to make `{}`", dir.display()))?;
    if std::fs::read_dir(dir)?.next().is_some() {
        let message = format!("`{}` is not empty", dir.display());
        return Err(Failure::new(Exit::Failed, message).hint("Name another directory.").into());
    }
    let manifest = source.manifest;
    progress.set_position(0);
    progress.set_length(manifest.totals.stored_bytes);
    let (toc, others): (Vec<&Artifact>, _) = manifest.artifacts.iter().partition(|a| a.name == TOC);
    for artifact in others.into_iter().chain(toc) {
        let path = dir.join(&artifact.name);
        write(source, artifact, &path, progress, stop)
            .with_context(|| format!("failed to write `{}`", path.display()))?;
    }
    File::open(dir)?.sync_all()?;
    Ok(())
}

fn write(
    source: Source<'_>,
    artifact: &Artifact,
    path: &Path,
    progress: &ProgressBar,
    stop: &Stop,
) -> anyhow::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    for (n, chunk) in artifact.chunks.iter().enumerate() {
        stop.check()?;
        file.write_all(&source.read(artifact, n)?.stored)?;
        progress.inc(chunk.size);
    }
    file.sync_all()?;
    Ok(())
}
