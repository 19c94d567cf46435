//! Verifying a backup: everything in its repository is read back and compared with the manifest.
//!
//! What is looked at is what the storage gives, never a local copy. Damage is a finding, and all of it is
//! found; that the storage cannot be reached is an error.
//!
//! `chunks.rs` reads the artifacts, `listing.rs` asks what pg_restore will make of the table of contents, and
//! `restored.rs`, where it is asked for, restores the backup and compares what comes out.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use indicatif::ProgressBar;

use crate::backup::manifest::{Contents, Detail, MANIFEST, Manifest};
use crate::backup::publish::sums;
use crate::backup::repository::{Folder, LEASE, Repository, SUMS, VERIFICATIONS};
use crate::backup::sample::Sample;
use crate::backup::verified::{Depth, Verified};
use crate::clock::Moment;
use crate::config::Query;
use crate::encryption::{self, Identities};
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::id::RunId;
use crate::stop::Stop;
use crate::storage::{self, Overwrite};

mod chunks;
mod findings;
mod listing;
mod restored;

pub(crate) use findings::Finding;
use findings::Findings;
pub(crate) use restored::{RestoreTest, Server};

/// What verification needs to know.
pub(crate) struct Request<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) folder: &'a Folder,
    /// Private keys, for an encrypted backup to be looked into.
    pub(crate) identities: Option<&'a Identities>,
    /// Is it to be restored as well, and where?
    pub(crate) restore: Option<Server<'a>>,
    /// The piece of it that is looked at; all if there is none.
    pub(crate) sample: Option<Sample>,
    /// The run, after which a database is named until it is dropped.
    pub(crate) run: &'a RunId,
    /// What a restored database is asked.
    pub(crate) queries: &'a [Query],
    pub(crate) bin_dir: Option<&'a std::path::Path>,
    pub(crate) environment: &'a Environment,
    pub(crate) jobs: usize,
    pub(crate) progress: &'a ProgressBar,
    pub(crate) stop: &'a Stop,
}

/// The result of a verification, as it is reported and stored.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Verification {
    /// When it ended.
    pub(crate) at: Moment,
    pub(crate) backup: String,
    pub(crate) repository: String,
    /// Was everything as it should be?
    pub(crate) good: bool,
    /// How thoroughly it was looked at.
    pub(crate) depth: Depth,
    /// The piece of it that was looked at, if it was not all.
    pub(crate) sample: Option<Sample>,
    /// By which versions it was looked at.
    pub(crate) opsctl: &'static str,
    pub(crate) pg_restore: Option<String>,
    /// What was looked at: with a sample less than there is.
    pub(crate) artifacts: u64,
    pub(crate) chunks: u64,
    pub(crate) rows: u64,
    pub(crate) stored_bytes: u64,
    /// What the restore test proved, if there was one and it came to its end.
    pub(crate) restore: Option<RestoreTest>,
    /// What was found, in no particular order; at most some hundreds.
    pub(crate) findings: Vec<Finding>,
    /// How many more there were.
    pub(crate) findings_not_listed: u64,
}

/// Reads a whole backup back and compares it with its manifest.
pub(crate) fn verify(request: &Request<'_>) -> anyhow::Result<Verification> {
    let findings = Findings::default();
    let mut result = Verification {
        at: crate::clock::now(),
        backup: request.folder.id.to_string(),
        repository: request.repository.name.clone(),
        good: false,
        depth: Depth::Artifacts,
        sample: request.sample.clone(),
        opsctl: env!("CARGO_PKG_VERSION"),
        pg_restore: None,
        artifacts: 0,
        chunks: 0,
        rows: 0,
        stored_bytes: 0,
        restore: None,
        findings: Vec::new(),
        findings_not_listed: 0,
    };
    match request.repository.manifest(request.folder)? {
        None => findings.add(
            None,
            None,
            format!("there is no `{MANIFEST}`: the backup was never completed"),
        ),
        Some(Err(error)) => findings.add(None, None, error.to_string()),
        Some(Ok((manifest, json))) => look(request, &manifest, &json, &findings, &mut result)?,
    }
    result.at = crate::clock::now();
    (result.findings, result.findings_not_listed) = findings.into_sorted();
    result.good = result.findings.is_empty();
    if let Some(sample) = &mut result.sample
        && result.good
    {
        sample.prove(result.at, &request.folder.id);
    }
    Ok(result)
}

/// Stores the result beside the backup; nothing is ever overwritten. Where there is no backup, not even the
/// rest of one, nothing is stored: it would look like what a crashed run left.
pub(crate) fn record(
    repository: &Repository,
    folder: &Folder,
    result: &Verification,
) -> anyhow::Result<()> {
    if repository.storage.list(&format!("{}/", folder.path()))?.is_empty() {
        return Ok(());
    }
    let Verification { at, depth, good, .. } = *result;
    let name = Verified { at, depth, sample: result.sample.is_some(), good };
    let name = format!("{VERIFICATIONS}{name}");
    let json = serde_json::to_vec_pretty(result)?;
    let put = repository.storage.put(&folder.key(&name)?, json.into(), Overwrite::Refuse);
    put.context("failed to record the verification")
}

fn look(
    request: &Request<'_>,
    manifest: &Manifest,
    json: &[u8],
    findings: &Findings,
    result: &mut Verification,
) -> anyhow::Result<()> {
    if manifest.id != request.folder.id {
        findings.add(None, None, format!("the manifest is that of backup {}", manifest.id));
    }
    if manifest.totals.tables == 0 && !manifest.scope.schema_only {
        findings.add(None, None, "there is no table in it: an empty dump is no good backup");
    }
    let missing = check_presence(request, manifest, findings)?;
    let as_written = check_sums(request, manifest, json, findings)?;
    let detail = match (&manifest.contents, request.identities) {
        (Contents::Open(detail), _) => Some(detail.clone()),
        (Contents::Sealed(sealed), Some(identities)) => {
            match unseal(manifest, sealed, identities) {
                Ok(detail) => Some(detail),
                // A manifest as it was written says that the key is wrong, and not the backup.
                Err(error) if as_written && is_wrong_key(&error) => {
                    let id = &manifest.id;
                    let message = format!("no identity that was given decrypts backup {id}");
                    let hint = format!("It is encrypted for {}.", manifest.recipients.join(", "));
                    return Err(Failure::new(Exit::Configuration, message).hint(hint).into());
                }
                Err(error) => {
                    let what = format!("the sealed contents cannot be read: {error:#}");
                    findings.add(None, None, what);
                    None
                }
            }
        }
        (Contents::Sealed(_), None) => None,
    };
    if manifest.is_encrypted() && request.identities.is_none() {
        result.depth = Depth::Stored;
    }
    let reader =
        chunks::Reader { request, manifest, detail: detail.as_ref(), findings, missing: &missing };
    let toc = chunks::read_chunks(&reader)?;
    if let Some(toc) = toc {
        listing::check_toc(manifest, &toc, findings);
        result.pg_restore = Some(listing::list_toc(request, manifest, &toc, findings)?);
    }
    if let Some(server) = request.restore {
        restore(request, server, manifest, detail.as_ref(), findings, result)?;
    }
    result.artifacts = manifest.artifacts.len() as u64;
    for chunk in chunks::looked_at(request, manifest, detail.as_ref()) {
        result.chunks += 1;
        result.rows += chunk.rows;
        result.stored_bytes += chunk.size;
    }
    Ok(())
}

/// Restores the backup and compares it, unless it is known already that it is damaged.
fn restore(
    request: &Request<'_>,
    server: Server<'_>,
    manifest: &Manifest,
    detail: Option<&Detail>,
    findings: &Findings,
    result: &mut Verification,
) -> anyhow::Result<()> {
    if !findings.is_empty() {
        tracing::warn!("the backup is damaged: it is not restored");
        return Ok(());
    }
    let detail = detail.ok_or_else(|| {
        Failure::new(Exit::Configuration, "the backup is encrypted, and a restore test reads it")
            .hint("Name the file with the age identity: --identity.")
    })?;
    result.restore = restored::test(request, server, manifest, detail, findings)?;
    // Also if it could not be restored: no shallower look can contradict that.
    result.depth = Depth::Restored;
    Ok(())
}

/// Decrypts what the manifest says of the content.
pub(crate) fn unseal(
    manifest: &Manifest,
    sealed: &str,
    identities: &Identities,
) -> anyhow::Result<Detail> {
    let sealed = BASE64_STANDARD.decode(sealed)?;
    let detail: Detail = serde_json::from_slice(&identities.decrypt(&sealed)?)?;
    manifest.check_detail(&detail).map_err(anyhow::Error::msg)?;
    Ok(detail)
}

fn is_wrong_key(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(encryption::Error::NoIdentity))
}

/// Compares the listing with the manifest: what is missing, of another size, or should not be there.
///
/// Returns the names of what is missing, so that each is reported once.
fn check_presence(
    request: &Request<'_>,
    manifest: &Manifest,
    findings: &Findings,
) -> anyhow::Result<BTreeSet<String>> {
    let mut missing = BTreeSet::new();
    let prefix = format!("{}/", request.folder.path());
    let listed = request.repository.storage.list(&prefix)?;
    let mut sizes: BTreeMap<&str, u64> = listed
        .iter()
        .filter_map(|o| Some((o.key.as_str().strip_prefix(&prefix)?, o.size)))
        .collect();
    for (name, size, _) in manifest.objects() {
        match sizes.remove(name) {
            None => {
                findings.add(Some(name), None, "is missing");
                missing.insert(name.to_owned());
            }
            Some(found) if found != size => {
                findings.add(
                    Some(name),
                    None,
                    format!("has {found} bytes where the manifest says {size}"),
                );
            }
            Some(_) => {}
        }
    }
    for name in sizes
        .keys()
        .filter(|name| ![MANIFEST, SUMS, LEASE].contains(name) && !name.starts_with(VERIFICATIONS))
    {
        findings.add(Some(name), None, "is not in the manifest: it does not belong to this backup");
    }
    Ok(missing)
}

/// Compares `SHA256SUMS` with what the manifest says; it covers the manifest itself. Do they
/// agree?
fn check_sums(
    request: &Request<'_>,
    manifest: &Manifest,
    json: &[u8],
    findings: &Findings,
) -> anyhow::Result<bool> {
    let expected = sums(manifest, json);
    match request.repository.storage.get(&request.folder.key(SUMS)?, 1 << 30) {
        Ok(found) if found == expected.as_bytes() => return Ok(true),
        Ok(_) => findings.add(
            Some(SUMS),
            None,
            format!("does not agree with `{MANIFEST}`: one of the two was changed"),
        ),
        Err(error) => is_damage(error).map(|what| findings.add(Some(SUMS), None, what))?,
    }
    Ok(false)
}

/// Says what a storage error tells of the backup, or returns it if it tells nothing.
fn is_damage(error: storage::Error) -> anyhow::Result<String> {
    match error {
        storage::Error::NotFound { .. } => Ok("is missing".to_owned()),
        storage::Error::Corrupt { what, .. } => Ok(what),
        other => Err(other.into()),
    }
}
