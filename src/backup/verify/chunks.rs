//! Reading the chunks of a backup, all or those of a sample, several at a time, and looking into them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};
use twox_hash::xxhash3_128::Hasher;

use super::{Findings, Request};
use crate::backup::chunk::{self, Content};
use crate::backup::manifest::{Artifact, Chunk, Detail, Kind, Manifest, TOC};
use crate::backup::rows::{Digest, Rows};
use crate::backup::sink::hex;
use crate::sync::{into_inner, lock};

/// What is known of an artifact while its chunks come in.
#[derive(Default)]
struct Progress {
    /// The index of the chunk whose turn it is to be hashed.
    turn: usize,
    sha256: Sha256,
    rows: Rows,
    hasher: Option<Hasher>,
    /// Is there a part that could not be read, or was not to be?
    broken: bool,
    content: Vec<u8>,
}

struct Turns {
    progress: Mutex<Progress>,
    changed: Condvar,
}

/// Reads the chunks, several at a time; returns the TOC's content if it could be read.
pub(super) fn read_chunks(reader: &Reader<'_>) -> anyhow::Result<Option<Vec<u8>>> {
    let Reader { request, manifest, detail, findings, .. } = *reader;
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
    request.progress.set_position(0);
    request.progress.set_length(looked_at(request, manifest, detail).map(|chunk| chunk.size).sum());
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<anyhow::Error>> = Mutex::new(None);
    let work = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some(&(a, c)) = jobs.get(n) else { return };
            // Once something failed, the turns still have to pass, but nothing is read any more.
            let wanted = is_wanted(request, detail, &manifest.artifacts[a], c);
            let failed = lock(&failure).is_some();
            let read = if failed || !wanted { Ok(None) } else { reader.read(a, c) };
            let plain = read.unwrap_or_else(|error| {
                lock(&failure).get_or_insert(error);
                None
            });
            reader.account(&artifacts[a], a, c, plain);
            if wanted {
                request.progress.inc(manifest.artifacts[a].chunks[c].size);
            }
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

/// Is a chunk to be read? All are, but in a sample.
fn is_wanted(
    request: &Request<'_>,
    detail: Option<&Detail>,
    artifact: &Artifact,
    chunk: usize,
) -> bool {
    request.sample.as_ref().is_none_or(|sample| sample.has(detail, artifact, chunk))
}

/// Returns the chunks that are read.
pub(super) fn looked_at<'a>(
    request: &Request<'_>,
    manifest: &'a Manifest,
    detail: Option<&Detail>,
) -> impl Iterator<Item = &'a Chunk> {
    manifest.artifacts.iter().flat_map(move |artifact| {
        let chunks = artifact.chunks.iter().enumerate();
        chunks
            .filter(move |(c, _)| is_wanted(request, detail, artifact, *c))
            .map(|(_, chunk)| chunk)
    })
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
    /// What the manifest says of the content, if it can be read.
    pub(super) detail: Option<&'a Detail>,
    pub(super) findings: &'a Findings,
    /// Objects that are known not to be there.
    pub(super) missing: &'a BTreeSet<String>,
}

impl Reader<'_> {
    /// Reads one chunk; `None` if it is damaged, which is a finding, and reported.
    fn read(&self, a: usize, c: usize) -> anyhow::Result<Option<Content>> {
        self.request.stop.check()?;
        let artifact = &self.manifest.artifacts[a];
        if self.missing.contains(chunk::place(artifact, c).0) {
            return Ok(None);
        }
        let source = chunk::Source {
            repository: self.request.repository,
            folder: self.request.folder,
            manifest: self.manifest,
            identities: self.request.identities,
        };
        self.sort(source.read(artifact, c))
    }

    /// Reports damage, and passes on what is none.
    fn sort<T>(&self, read: Result<T, chunk::Error>) -> anyhow::Result<Option<T>> {
        match read {
            Ok(content) => Ok(Some(content)),
            Err(chunk::Error::Damaged { artifact, number, offset, what }) => {
                self.findings.add(Some(&artifact), Some((number, offset)), what);
                Ok(None)
            }
            Err(error @ chunk::Error::Storage(_)) => Err(error.into()),
        }
    }

    /// Adds a chunk to its artifact's sums, when its turn has come.
    fn account(&self, turns: &Turns, a: usize, c: usize, content: Option<Content>) {
        let artifact = &self.manifest.artifacts[a];
        let mut rows = Rows::default();
        let mut whole = content.is_some();
        if let Some(Content { raw: Some(raw), .. }) = &content
            && artifact.kind == Kind::Table
        {
            let table = self.detail.and_then(|detail| detail.tables.get(&artifact.name));
            match self.sort(chunk::rows(artifact, c, raw, table)) {
                Ok(Some((_, found))) => rows = found,
                Ok(None) | Err(_) => whole = false,
            }
        }
        let mut progress = lock(&turns.progress);
        while progress.turn != c {
            progress = turns.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
        match content {
            Some(Content { stored, raw: Some(raw) }) if whole => {
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
