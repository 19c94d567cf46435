//! Verifying a backup: everything in its repository is read back and compared with the manifest.
//!
//! What is looked at is what the storage gives, never a local copy. Damage is a finding, and all of it is
//! found; that the storage cannot be reached is an error. Whether the backup restores is not asked here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use bytes::Bytes;
use indicatif::ProgressBar;
use sha2::{Digest as _, Sha256};
use twox_hash::xxhash3_128::Hasher;

use crate::backup::manifest::{Artifact, Chunk, Contents, Detail, Kind, Layout, MANIFEST, Manifest, TOC};
use crate::backup::repository::{Folder, LEASE, Repository, SUMS, VERIFICATIONS};
use crate::backup::rows::{Digest, END_MARKER, RowCounter, Rows};
use crate::backup::sink::hex;
use crate::backup::take::sums;
use crate::backup::toc;
use crate::child::{self, Spec};
use crate::clock::Moment;
use crate::compression;
use crate::db::programs::ClientPrograms;
use crate::encryption::{self, Identities};
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::stop::Stop;
use crate::storage::{self, Overwrite};

/// More findings than this are counted but not listed.
const MAX_FINDINGS: usize = 200;

/// What verification needs to know.
pub(crate) struct Request<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) folder: &'a Folder,
    /// Private keys, for an encrypted backup to be looked into.
    pub(crate) identities: Option<&'a Identities>,
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
    /// `artifacts`: everything was read, decompressed and counted. `stored`: sizes and SHA-256 of what is
    /// stored, because no identity was given to decrypt it.
    pub(crate) depth: &'static str,
    /// By which versions it was looked at.
    pub(crate) opsctl: &'static str,
    pub(crate) pg_restore: Option<String>,
    pub(crate) artifacts: u64,
    pub(crate) chunks: u64,
    pub(crate) rows: u64,
    pub(crate) stored_bytes: u64,
    /// What was found, in no particular order; at most some hundreds.
    pub(crate) findings: Vec<Finding>,
    /// How many more there were.
    pub(crate) findings_not_listed: u64,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub(crate) struct Finding {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) artifact: Option<String>,
    /// Counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) chunk: Option<u64>,
    /// Where the chunk begins in the artifact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) offset: Option<u64>,
    pub(crate) what: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(artifact) = &self.artifact {
            write!(f, "artifact `{artifact}`")?;
            if let (Some(chunk), Some(offset)) = (self.chunk, self.offset) {
                write!(f, ", chunk {chunk} at offset {offset}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.what)
    }
}

/// Collects findings from several threads.
#[derive(Default)]
struct Findings {
    list: Mutex<Vec<Finding>>,
    not_listed: AtomicUsize,
}

impl Findings {
    fn add(&self, artifact: Option<&str>, chunk: Option<(u64, u64)>, what: impl Into<String>) {
        let mut list = lock(&self.list);
        if list.len() >= MAX_FINDINGS {
            self.not_listed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let (chunk, offset) = chunk.unzip();
        list.push(Finding { artifact: artifact.map(str::to_owned), chunk, offset, what: what.into() });
    }
}

/// Reads a whole backup back and compares it with its manifest.
pub(crate) fn verify(request: &Request<'_>) -> anyhow::Result<Verification> {
    let findings = Findings::default();
    let mut result = Verification {
        at: crate::clock::now(),
        backup: request.folder.id.to_string(),
        repository: request.repository.name.clone(),
        good: false,
        depth: "artifacts",
        opsctl: env!("CARGO_PKG_VERSION"),
        pg_restore: None,
        artifacts: 0,
        chunks: 0,
        rows: 0,
        stored_bytes: 0,
        findings: Vec::new(),
        findings_not_listed: 0,
    };
    match request.repository.manifest(request.folder)? {
        None => findings.add(None, None, format!("there is no `{MANIFEST}`: the backup was never completed")),
        Some(Err(error)) => findings.add(None, None, error.to_string()),
        Some(Ok((manifest, json))) => look(request, &manifest, &json, &findings, &mut result)?,
    }
    result.at = crate::clock::now();
    result.findings = findings.list.into_inner().unwrap_or_else(PoisonError::into_inner);
    result.findings.sort();
    result.findings_not_listed = findings.not_listed.into_inner() as u64;
    result.good = result.findings.is_empty();
    Ok(result)
}

/// Stores the result beside the backup; nothing is ever overwritten. Where there is no backup, not even the
/// rest of one, nothing is stored: it would look like what a crashed run left.
pub(crate) fn record(repository: &Repository, folder: &Folder, result: &Verification) -> anyhow::Result<()> {
    if repository.storage.list(&format!("{}/", folder.path()))?.is_empty() {
        return Ok(());
    }
    let name = format!("{VERIFICATIONS}{}.json", result.at.format("%Y%m%dT%H%M%S%.6fZ"));
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
        (Contents::Sealed(sealed), Some(identities)) => match unseal(manifest, sealed, identities) {
            Ok(detail) => Some(detail),
            // A manifest as it was written says that the key is wrong, and not the backup.
            Err(error) if as_written && matches!(error.downcast_ref(), Some(encryption::Error::NoIdentity)) => {
                let message = format!("no identity that was given decrypts backup {}", manifest.id);
                let hint = format!("It is encrypted for {}.", manifest.recipients.join(", "));
                return Err(Failure::new(Exit::Configuration, message).hint(hint).into());
            }
            Err(error) => {
                findings.add(None, None, format!("the sealed contents cannot be read: {error:#}"));
                None
            }
        },
        (Contents::Sealed(_), None) => None,
    };
    if manifest.is_encrypted() && request.identities.is_none() {
        result.depth = "stored";
    }
    let reader = Reader { request, manifest, findings, missing: &missing };
    let toc = read_chunks(&reader, detail.as_ref())?;
    if let Some(toc) = toc {
        check_toc(manifest, &toc, findings);
        result.pg_restore = Some(list_toc(request, manifest, &toc, findings)?);
    }
    result.artifacts = manifest.artifacts.len() as u64;
    result.chunks = manifest.artifacts.iter().map(|a| a.chunks.len() as u64).sum();
    result.rows = manifest.totals.rows;
    result.stored_bytes = manifest.totals.stored_bytes;
    Ok(())
}

/// Decrypts what the manifest says of the content.
pub(crate) fn unseal(manifest: &Manifest, sealed: &str, identities: &Identities) -> anyhow::Result<Detail> {
    use base64::Engine as _;
    let sealed = base64::engine::general_purpose::STANDARD.decode(sealed)?;
    let detail: Detail = serde_json::from_slice(&identities.decrypt(&sealed)?)?;
    manifest.check_detail(&detail).map_err(anyhow::Error::msg)?;
    Ok(detail)
}

/// Compares the listing with the manifest: what is missing, of another size, or should not be there.
///
/// Returns the names of what is missing, so that each is reported once.
fn check_presence(request: &Request<'_>, manifest: &Manifest, findings: &Findings) -> anyhow::Result<BTreeSet<String>> {
    let mut missing = BTreeSet::new();
    let prefix = format!("{}/", request.folder.path());
    let listed = request.repository.storage.list(&prefix)?;
    let mut sizes: BTreeMap<&str, u64> =
        listed.iter().filter_map(|o| Some((o.key.as_str().strip_prefix(&prefix)?, o.size))).collect();
    for (name, size, _) in manifest.objects() {
        match sizes.remove(name) {
            None => {
                findings.add(Some(name), None, "is missing");
                missing.insert(name.to_owned());
            }
            Some(found) if found != size => {
                findings.add(Some(name), None, format!("has {found} bytes where the manifest says {size}"));
            }
            Some(_) => {}
        }
    }
    for name in sizes.keys().filter(|name| ![MANIFEST, SUMS, LEASE].contains(name) && !name.starts_with(VERIFICATIONS)) {
        findings.add(Some(name), None, "is not in the manifest: it does not belong to this backup");
    }
    Ok(missing)
}

/// Compares `SHA256SUMS` with what the manifest says; it covers the manifest itself. Do they agree?
fn check_sums(request: &Request<'_>, manifest: &Manifest, json: &[u8], findings: &Findings) -> anyhow::Result<bool> {
    let expected = sums(manifest, json);
    match request.repository.storage.get(&request.folder.key(SUMS)?, 1 << 30) {
        Ok(found) if found == expected.as_bytes() => return Ok(true),
        Ok(_) => findings.add(Some(SUMS), None, format!("does not agree with `{MANIFEST}`: one of the two was changed")),
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

/// What is known of an artifact while its chunks come in.
#[derive(Default)]
struct Progress {
    /// The index of the chunk whose turn it is to be hashed.
    turn: usize,
    sha256: Sha256,
    rows: Rows,
    hasher: Option<Hasher>,
    /// Could all of it be read?
    broken: bool,
    content: Vec<u8>,
}

struct Turns {
    progress: Mutex<Progress>,
    changed: Condvar,
}

/// Reads all chunks, several at a time; returns the TOC's content if it could be read.
fn read_chunks(reader: &Reader<'_>, detail: Option<&Detail>) -> anyhow::Result<Option<Vec<u8>>> {
    let Reader { request, manifest, findings, .. } = reader;
    let jobs: Vec<(usize, usize)> = manifest
        .artifacts
        .iter()
        .enumerate()
        .flat_map(|(n, artifact)| (0..artifact.chunks.len()).map(move |c| (n, c)))
        .collect();
    let artifacts: Vec<Turns> = manifest
        .artifacts
        .iter()
        .map(|_| Turns { progress: Mutex::default(), changed: Condvar::new() })
        .collect();
    request.progress.set_length(manifest.totals.stored_bytes);
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<anyhow::Error>> = Mutex::new(None);
    let work = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some(&(a, c)) = jobs.get(n) else { return };
            // Once something failed, the turns still have to pass, but nothing is read any more.
            let read = if lock(&failure).is_some() { Ok(None) } else { reader.read(a, c) };
            let plain = read.unwrap_or_else(|error| {
                lock(&failure).get_or_insert(error);
                None
            });
            reader.account(&artifacts[a], a, c, plain);
            request.progress.inc(manifest.artifacts[a].chunks[c].size);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..request.jobs.clamp(1, 16) {
            scope.spawn(work);
        }
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut toc = None;
    for (artifact, turns) in manifest.artifacts.iter().zip(artifacts) {
        let progress = turns.progress.into_inner().unwrap_or_else(PoisonError::into_inner);
        if progress.broken {
            continue;
        }
        check_artifact(artifact, detail, &progress, findings);
        if artifact.name == TOC {
            toc = Some(progress.content);
        }
    }
    Ok(toc)
}

/// Compares what was found in a whole artifact with what the manifest says.
fn check_artifact(artifact: &Artifact, detail: Option<&Detail>, found: &Progress, findings: &Findings) {
    let name = Some(artifact.name.as_str());
    if hex(&found.sha256.clone().finalize()) != artifact.sha256 {
        findings.add(name, None, "its SHA-256 as a whole differs, though its chunks' do not");
    }
    let Some(detail) = detail else { return };
    match artifact.kind {
        Kind::Table => {
            let Some(table) = detail.tables.get(&artifact.name) else { return };
            if table.rows != found.rows.count {
                let what = format!("holds {} rows where the manifest says {}", found.rows.count, table.rows);
                findings.add(name, None, what);
            } else if table.digest != found.rows.digest {
                findings.add(name, None, format!("its rows are not those that were dumped: digest {}", found.rows.digest));
            }
        }
        Kind::LargeObject => {
            let Some(object) = detail.large_objects.get(&artifact.name) else { return };
            let digest = found.hasher.as_ref().map(Digest::of_bytes);
            if digest.is_some_and(|digest| digest != object.digest) {
                findings.add(name, None, "its content is not that of the large object that was dumped");
            }
        }
        Kind::Toc | Kind::LargeObjectToc | Kind::Globals | Kind::Notes => {}
    }
}

/// Reads chunks and looks into them.
struct Reader<'a> {
    request: &'a Request<'a>,
    manifest: &'a Manifest,
    findings: &'a Findings,
    /// Objects that are known not to be there.
    missing: &'a BTreeSet<String>,
}

/// A chunk that is as it should be so far.
struct Plain {
    /// The artifact's own bytes: as stored, but decrypted.
    stored: Bytes,
    /// Decompressed, if that could be looked at.
    raw: Option<Vec<u8>>,
}

impl Reader<'_> {
    /// Reads one chunk; `None` if it is damaged, which is a finding.
    fn read(&self, a: usize, c: usize) -> anyhow::Result<Option<Plain>> {
        self.request.stop.check()?;
        let artifact = &self.manifest.artifacts[a];
        let chunk = &artifact.chunks[c];
        let (number, offset) = place(artifact, c);
        let bad = |what: String| {
            self.findings.add(Some(&artifact.name), Some((number, offset)), what);
            Ok(None)
        };
        let storage = &self.request.repository.storage;
        let (name, start) = match (&chunk.object, self.manifest.layout) {
            (Some(object), _) => (object, 0),
            (None, Layout::Joined | Layout::Objects) => (&artifact.name, offset),
        };
        if self.missing.contains(name) {
            return Ok(None);
        }
        let stored = match storage.get_range(&self.request.folder.key(name)?, start, chunk.size) {
            Ok(stored) => stored,
            Err(error) => return bad(is_damage(error)?),
        };
        if hex(&Sha256::digest(&stored)) != chunk.sha256 {
            return bad("its SHA-256 differs: its bytes were changed".to_owned());
        }
        let encrypted = self.manifest.is_encrypted() && artifact.kind != Kind::Notes;
        let stored = match (encrypted, self.request.identities) {
            (false, _) => stored,
            (true, None) => return Ok(Some(Plain { stored: Bytes::new(), raw: None })),
            (true, Some(identities)) => match identities.decrypt(&stored) {
                Ok(plain) => plain.into(),
                Err(error) => return bad(format!("cannot be decrypted: {:#}", anyhow::Error::from(error))),
            },
        };
        match self.decompress(artifact, chunk, &stored) {
            Ok(raw) => Ok(Some(Plain { stored, raw: Some(raw) })),
            Err(error) => bad(format!("cannot be decompressed: {error}")),
        }
    }

    fn decompress(&self, artifact: &Artifact, chunk: &Chunk, stored: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut raw = Vec::new();
        let length = compression::decode(artifact.compression, stored, chunk.raw_bytes, |piece| {
            if raw.capacity() == 0 {
                raw.reserve_exact(usize::try_from(chunk.raw_bytes).unwrap_or(0).min(64 << 20));
            }
            raw.extend_from_slice(piece);
        })?;
        if length != chunk.raw_bytes {
            let what = format!("{length} bytes come out where the manifest says {}", chunk.raw_bytes);
            return Err(std::io::Error::other(what));
        }
        Ok(raw)
    }

    /// Adds a chunk to its artifact's sums, when its turn has come.
    fn account(&self, turns: &Turns, a: usize, c: usize, plain: Option<Plain>) {
        let artifact = &self.manifest.artifacts[a];
        let last = c + 1 == artifact.chunks.len();
        let mut rows = Rows::default();
        let mut whole = plain.is_some();
        if let Some(Plain { raw: Some(raw), .. }) = &plain
            && artifact.kind == Kind::Table
        {
            let mut text = raw.as_slice();
            if last {
                let stripped = text.strip_suffix(END_MARKER);
                whole = stripped.is_some();
                text = stripped.unwrap_or(text);
                if !whole {
                    let what = "does not end with the COPY end marker: it lacks its end";
                    self.findings.add(Some(&artifact.name), Some(place(artifact, c)), what);
                }
            }
            let mut counter = RowCounter::default();
            counter.push(text);
            let ended;
            (rows, ended) = counter.finish();
            if !ended || rows.count != artifact.chunks[c].rows {
                let what = format!("holds {} rows where the manifest says {}", rows.count, artifact.chunks[c].rows);
                self.findings.add(Some(&artifact.name), Some(place(artifact, c)), what);
                whole = false;
            }
        }
        let mut progress = lock(&turns.progress);
        while progress.turn != c {
            progress = turns.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
        match plain {
            Some(Plain { stored, raw: Some(raw) }) if whole => {
                progress.sha256.update(&stored);
                progress.rows.merge(rows);
                match artifact.kind {
                    Kind::LargeObject => progress.hasher.get_or_insert_with(Hasher::new).write(&raw),
                    Kind::Toc => progress.content.extend_from_slice(&raw),
                    Kind::Table | Kind::LargeObjectToc | Kind::Globals | Kind::Notes => {}
                }
            }
            _ => progress.broken = true,
        }
        progress.turn += 1;
        turns.changed.notify_all();
    }
}

/// Returns a chunk's number, counted from 1, and where it begins in its artifact as stored.
fn place(artifact: &Artifact, chunk: usize) -> (u64, u64) {
    (chunk as u64 + 1, artifact.chunks[..chunk].iter().map(|chunk| chunk.size).sum())
}

/// Compares the table of contents with the artifacts: what pg_restore will look for must be there.
fn check_toc(manifest: &Manifest, toc: &[u8], findings: &Findings) {
    let read = || -> Result<BTreeSet<String>, toc::Error> {
        let mut reader = toc::Reader::open(toc)?;
        let mut files = BTreeSet::new();
        while let Some(entry) = reader.next_entry()? {
            if entry.has_data {
                // pg_restore leaves out, without a word, what has no file.
                let file = entry.file.filter(|file| !file.is_empty());
                let unnamed = || toc::Error::Damaged(format!("entry {} has data and no file", entry.dump_id));
                let file = file.ok_or_else(unnamed)?;
                let suffix = if entry.kind == "TABLE DATA" { manifest.compression.suffix() } else { "" };
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
            for artifact in manifest.artifacts.iter().filter(data).filter(|a| !files.contains(&a.name)) {
                findings.add(Some(&artifact.name), None, format!("the manifest names it, `{TOC}` does not"));
            }
        }
    }
}

/// Has the stock pg_restore read the table of contents; returns its version.
fn list_toc(request: &Request<'_>, manifest: &Manifest, toc: &[u8], findings: &Findings) -> anyhow::Result<String> {
    let program =
        ClientPrograms::find_restore(manifest.server.major, request.bin_dir, request.environment, request.stop)?;
    // pg_restore reads a directory's TOC from a directory only.
    let folder = tempfile::Builder::new().prefix("opsctl-verify-").tempdir()?;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(folder.path().join(TOC))?;
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
