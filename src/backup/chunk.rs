//! One chunk out of a repository: read, compared with the manifest, decrypted and decompressed.
//!
//! The only way by which the content of a backup is read, whether to verify it or to restore it. It does
//! not know what the bytes mean.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::backup::manifest::{Artifact, Kind, Manifest, Table};
use crate::backup::repository::{Folder, Repository};
use crate::backup::rows::{END_MARKER, RowCounter, Rows};
use crate::backup::sink::hex;
use crate::compression;
use crate::encryption::Identities;
use crate::storage;

/// A backup whose chunks are read.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) folder: &'a Folder,
    pub(crate) manifest: &'a Manifest,
    /// Private keys, for an encrypted backup to be looked into.
    pub(crate) identities: Option<&'a Identities>,
}

/// A chunk that is as it should be.
pub(crate) struct Content {
    /// The artifact's own bytes: as stored, but decrypted.
    pub(crate) stored: Bytes,
    /// Decompressed; `None` if it is encrypted and there are no identities.
    pub(crate) raw: Option<Vec<u8>>,
}

/// Why there is no content.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The repository does not hold what was written to it.
    #[error("artifact `{artifact}`, chunk {number} at offset {offset}: {what}")]
    Damaged {
        artifact: String,
        /// Counted from 1.
        number: u64,
        /// Where the chunk begins in its artifact as stored.
        offset: u64,
        what: String,
    },
    /// It could not be asked.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}

impl Source<'_> {
    /// Reads one chunk, by its index in its artifact.
    pub(crate) fn read(&self, artifact: &Artifact, chunk: usize) -> Result<Content, Error> {
        let damaged = |what| damaged(artifact, chunk, what);
        let (name, start) = place(artifact, chunk);
        let described = &artifact.chunks[chunk];
        let key = self.folder.key(name).map_err(|error| damaged(error.to_string()))?;
        let stored = match self.repository.storage.get_range(&key, start, described.size) {
            Ok(stored) => stored,
            Err(storage::Error::NotFound { .. }) => return Err(damaged("is missing".to_owned())),
            Err(storage::Error::Corrupt { what, .. }) => return Err(damaged(what)),
            Err(error) => return Err(error.into()),
        };
        if hex(&Sha256::digest(&stored)) != described.sha256 {
            return Err(damaged("its SHA-256 differs: its bytes were changed".to_owned()));
        }
        let encrypted = self.manifest.is_encrypted() && artifact.kind != Kind::Notes;
        let stored = match (encrypted, self.identities) {
            (false, _) => stored,
            (true, None) => return Ok(Content { stored: Bytes::new(), raw: None }),
            (true, Some(identities)) => match identities.decrypt(&stored) {
                Ok(plain) => plain.into(),
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    return Err(damaged(format!("cannot be decrypted: {error:#}")));
                }
            },
        };
        match compression::decode(artifact.compression, &stored, described.raw_bytes) {
            Ok(raw) => Ok(Content { stored, raw: Some(raw) }),
            Err(error) => Err(damaged(format!("cannot be decompressed: {error}"))),
        }
    }

    /// Reads a whole artifact, decompressed: for those that are small by nature.
    pub(crate) fn read_all(&self, artifact: &Artifact) -> Result<Vec<u8>, Error> {
        let mut content = Vec::new();
        for chunk in 0..artifact.chunks.len() {
            let raw = self.read(artifact, chunk)?.raw;
            let locked = || damaged(artifact, chunk, "it is encrypted".to_owned());
            content.extend(raw.ok_or_else(locked)?);
        }
        Ok(content)
    }
}

/// Returns the rows in a chunk of a table's artifact as COPY takes them, without the marker at the end of the last
/// chunk, and their count and digest, which agree with the manifest and with what its contents say of the table.
pub(crate) fn rows<'a>(
    artifact: &Artifact,
    chunk: usize,
    raw: &'a [u8],
    table: Option<&Table>,
) -> Result<(&'a [u8], Rows), Error> {
    let damaged = |what| damaged(artifact, chunk, what);
    let mut text = raw;
    if chunk + 1 == artifact.chunks.len() {
        let what = "does not end with the COPY end marker: it lacks its end";
        text = text.strip_suffix(END_MARKER).ok_or_else(|| damaged(what.to_owned()))?;
    }
    let mut counter = RowCounter::default();
    counter.push(text);
    let (rows, ended) = counter.finish();
    let expected = artifact.chunks[chunk].rows;
    if !ended || rows.count != expected {
        let what = format!("holds {} rows where the manifest says {expected}", rows.count);
        return Err(damaged(what));
    }
    if table.and_then(|table| table.chunk_digest(chunk)).is_some_and(|d| d != rows.digest) {
        let what = format!("its rows are not those that were dumped: digest {}", rows.digest);
        return Err(damaged(what));
    }
    Ok((text, rows))
}

/// Returns the name of the object that holds a chunk, and where in it the chunk begins.
pub(crate) fn place(artifact: &Artifact, chunk: usize) -> (&str, u64) {
    match &artifact.chunks[chunk].object {
        Some(object) => (object, 0),
        None => (&artifact.name, offset(artifact, chunk)),
    }
}

/// Returns where a chunk begins in its artifact as stored.
fn offset(artifact: &Artifact, chunk: usize) -> u64 {
    artifact.chunks[..chunk].iter().map(|chunk| chunk.size).sum()
}

fn damaged(artifact: &Artifact, chunk: usize, what: String) -> Error {
    let (number, offset) = (chunk as u64 + 1, offset(artifact, chunk));
    Error::Damaged { artifact: artifact.name.clone(), number, offset, what }
}
