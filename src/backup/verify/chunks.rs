//! Reading all chunks of a backup, several at a time, and looking into them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use twox_hash::xxhash3_128::Hasher;

use super::{Findings, Request, is_damage};
use crate::backup::manifest::{Artifact, Chunk, Detail, Kind, Layout, Manifest, TOC};
use crate::backup::rows::{Digest, END_MARKER, RowCounter, Rows};
use crate::backup::sink::hex;
use crate::compression;
use crate::sync::{into_inner, lock};

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
pub(super) fn read_chunks(
    reader: &Reader<'_>,
    detail: Option<&Detail>,
) -> anyhow::Result<Option<Vec<u8>>> {
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
    if let Some(error) = into_inner(failure) {
        return Err(error);
    }
    let mut toc = None;
    for (artifact, turns) in manifest.artifacts.iter().zip(artifacts) {
        let progress = into_inner(turns.progress);
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
fn check_artifact(
    artifact: &Artifact,
    detail: Option<&Detail>,
    found: &Progress,
    findings: &Findings,
) {
    let name = Some(artifact.name.as_str());
    if hex(&found.sha256.clone().finalize()) != artifact.sha256 {
        findings.add(name, None, "its SHA-256 as a whole differs, though its chunks' do not");
    }
    let Some(detail) = detail else { return };
    match artifact.kind {
        Kind::Table => {
            let Some(table) = detail.tables.get(&artifact.name) else { return };
            if table.rows != found.rows.count {
                let what = format!(
                    "holds {} rows where the manifest says {}",
                    found.rows.count, table.rows
                );
                findings.add(name, None, what);
            } else if table.digest != found.rows.digest {
                findings.add(
                    name,
                    None,
                    format!(
                        "its rows are not those that were dumped: digest {}",
                        found.rows.digest
                    ),
                );
            }
        }
        Kind::LargeObject => {
            let Some(object) = detail.large_objects.get(&artifact.name) else { return };
            let digest = found.hasher.as_ref().map(Digest::of_bytes);
            if digest.is_some_and(|digest| digest != object.digest) {
                findings.add(
                    name,
                    None,
                    "its content is not that of the large object that was dumped",
                );
            }
        }
        Kind::Toc | Kind::LargeObjectToc | Kind::Globals | Kind::Notes => {}
    }
}

/// Reads chunks and looks into them.
pub(super) struct Reader<'a> {
    pub(super) request: &'a Request<'a>,
    pub(super) manifest: &'a Manifest,
    pub(super) findings: &'a Findings,
    /// Objects that are known not to be there.
    pub(super) missing: &'a BTreeSet<String>,
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
                Err(error) => {
                    return bad(format!("cannot be decrypted: {:#}", anyhow::Error::from(error)));
                }
            },
        };
        match Self::decompress(artifact, chunk, &stored) {
            Ok(raw) => Ok(Some(Plain { stored, raw: Some(raw) })),
            Err(error) => bad(format!("cannot be decompressed: {error}")),
        }
    }

    fn decompress(artifact: &Artifact, chunk: &Chunk, stored: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut raw = Vec::new();
        let length = compression::decode(artifact.compression, stored, chunk.raw_bytes, |piece| {
            if raw.capacity() == 0 {
                raw.reserve_exact(usize::try_from(chunk.raw_bytes).unwrap_or(0).min(64 << 20));
            }
            raw.extend_from_slice(piece);
        })?;
        if length != chunk.raw_bytes {
            let what =
                format!("{length} bytes come out where the manifest says {}", chunk.raw_bytes);
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
                let expected = artifact.chunks[c].rows;
                let what = format!("holds {} rows where the manifest says {expected}", rows.count);
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
                    Kind::LargeObject => {
                        progress.hasher.get_or_insert_with(Hasher::new).write(&raw);
                    }
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
