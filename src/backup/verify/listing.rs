//! The table of contents of a backup, as pg_restore will read it.

use std::collections::BTreeSet;

use anyhow::Context as _;

use super::{Findings, Request};
use crate::backup::manifest::{Artifact, Kind, Manifest, TOC};
use crate::backup::toc;
use crate::child::{self, Spec};
use crate::db::programs::ClientPrograms;

/// Compares the table of contents with the artifacts: what pg_restore will look for must be there.
pub(super) fn check_toc(manifest: &Manifest, toc: &[u8], findings: &Findings) {
    let read = || -> Result<BTreeSet<String>, toc::Error> {
        let mut reader = toc::Reader::open(toc)?;
        let mut files = BTreeSet::new();
        while let Some(entry) = reader.next_entry()? {
            if entry.has_data {
                // pg_restore leaves out, without a word, what has no file.
                let file = entry.file.filter(|file| !file.is_empty());
                let unnamed =
                    || toc::Error::Damaged(format!("entry {} has data and no file", entry.dump_id));
                let file = file.ok_or_else(unnamed)?;
                let suffix =
                    if entry.kind == "TABLE DATA" { manifest.compression.suffix() } else { "" };
                files.insert(format!("{file}{suffix}"));
            }
        }
        Ok(files)
    };
    match read() {
        Err(error) => findings.add(Some(TOC), None, error.to_string()),
        Ok(files) => {
            for file in files.iter().filter(|file| manifest.artifact(file).is_none()) {
                findings.add(Some(file), None, format!("`{TOC}` names it, the manifest does not"));
            }
            let data = |a: &&Artifact| matches!(a.kind, Kind::Table | Kind::LargeObjectToc);
            for artifact in
                manifest.artifacts.iter().filter(data).filter(|a| !files.contains(&a.name))
            {
                findings.add(
                    Some(&artifact.name),
                    None,
                    format!("the manifest names it, `{TOC}` does not"),
                );
            }
        }
    }
}

/// Has the stock pg_restore read the table of contents; returns its version.
pub(super) fn list_toc(
    request: &Request<'_>,
    manifest: &Manifest,
    toc: &[u8],
    findings: &Findings,
) -> anyhow::Result<String> {
    let program = ClientPrograms::find_restore(
        manifest.server.major,
        request.bin_dir,
        request.environment,
        request.stop,
    )?;
    // pg_restore reads a directory's TOC from a directory only.
    let folder = tempfile::Builder::new().prefix("opsctl-verify-").tempdir()?;
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).open(folder.path().join(TOC))?;
    std::io::Write::write_all(&mut file, toc)?;
    let path = folder.path().to_str().context("the temporary directory has an odd name")?;
    let spec = Spec::new(program.pg_restore()).args(["--list", "--format=directory", path]);
    match spec.output(request.stop, u64::MAX) {
        Ok(_) => {}
        Err(error @ child::Error::Failed { .. }) => {
            findings.add(Some(TOC), None, format!("pg_restore does not accept it: {error}"));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(program.version())
}
