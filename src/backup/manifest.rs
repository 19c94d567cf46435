//! The manifest: what a backup consists of, and what was known of its content when it was taken.
//!
//! `manifest.json` is written last and removed first: a backup exists when its manifest does. The format
//! is documented in `docs/formats.md`; version 1 is this one. A manifest of another version is refused, not
//! guessed at. In an encrypted backup the names of tables, their digests and the server's address are sealed, see
//! [`Contents`]; sizes and row counts of the numbered artifacts are not.

use std::collections::{BTreeMap, BTreeSet};

use crate::backup::rows::Digest;
use crate::clock::Moment;
use crate::compression::Format;
use crate::id::RunId;
use crate::storage::Key;

/// The version that this program writes and reads.
pub(crate) const VERSION: u32 = 1;
/// The manifest's name in a backup.
pub(crate) const MANIFEST: &str = "manifest.json";
/// The name of the table of contents, as pg_restore wants it.
pub(crate) const TOC: &str = "toc.dat";
/// A larger manifest is not believed: it would be that of a backup of some petabytes.
pub(crate) const MAX_MANIFEST: u64 = 1 << 30;

/// What a backup consists of.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Manifest {
    /// The format's version.
    pub(crate) version: u32,
    /// The backup's id.
    pub(crate) id: RunId,
    /// The database's name in the configuration (or its own).
    pub(crate) database: String,
    /// The version of opsctl that took it.
    pub(crate) opsctl: String,
    /// When the run began, by the clock of the machine that took it. Retention counts from this.
    pub(crate) begun_at: Moment,
    /// The moment whose state it holds, by the server's clock.
    pub(crate) snapshot_at: Moment,
    /// When the last artifact was stored.
    pub(crate) ended_at: Moment,
    /// The server that was dumped.
    pub(crate) server: Server,
    /// The version of the pg_dump that described the database.
    pub(crate) pg_dump: String,
    /// The archive format's version, such as `1.16`.
    pub(crate) archive_version: String,
    /// What tables and large objects are compressed with.
    pub(crate) compression: Format,
    /// The level of the compression; for people.
    pub(crate) compression_level: u8,
    /// The age recipients; none means not encrypted.
    pub(crate) recipients: Vec<String>,
    /// How chunks lie in the storage.
    pub(crate) layout: Layout,
    /// What was asked to be left out.
    pub(crate) scope: Scope,
    /// Sums, so that listing and comparing backups needs no identity.
    pub(crate) totals: Totals,
    /// Was it taken with the word that it may be much smaller than the one before? Then later ones are compared with
    /// it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) shrink_accepted: bool,
    /// Until when the storage refuses to remove it, if it was written under object lock.
    pub(crate) locked_until: Option<Moment>,
    /// Everything stored, but the manifest itself, `SHA256SUMS` and the verifications.
    pub(crate) artifacts: Vec<Artifact>,
    /// What is in it.
    pub(crate) contents: Contents,
}

/// The server that was dumped.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Server {
    /// Such as `15.18`.
    pub(crate) version: String,
    /// Such as 15.
    pub(crate) major: u32,
    /// Was it a standby?
    pub(crate) standby: bool,
}

/// How chunks lie in the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Layout {
    /// The chunks of an artifact stand one behind the other in one file: stock pg_restore reads it.
    Joined,
    /// Each chunk is an object: joined by `cat`, decrypted one by one if encrypted.
    Objects,
}

/// What was asked to be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Scope {
    pub(crate) schema_only: bool,
    pub(crate) exclude_table_data: Vec<String>,
    pub(crate) exclude_schema: Vec<String>,
    pub(crate) role_passwords: bool,
}

/// Sums over all artifacts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Totals {
    /// Tables with rows of their own, also empty ones.
    pub(crate) tables: u64,
    pub(crate) rows: u64,
    pub(crate) large_objects: u64,
    /// Before compression.
    pub(crate) raw_bytes: u64,
    /// As stored.
    pub(crate) stored_bytes: u64,
}

/// What an artifact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Toc,
    Table,
    LargeObject,
    LargeObjectToc,
    Globals,
    Notes,
}

/// One file of the backup as stock tools see it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Artifact {
    /// Its file name in a pg_dump directory.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) compression: Format,
    /// Bytes of the file: its chunks joined, and decrypted.
    pub(crate) size: u64,
    /// SHA-256 of the same, in hexadecimal.
    pub(crate) sha256: String,
    /// Its chunks in order.
    pub(crate) chunks: Vec<Chunk>,
}

/// A piece of an artifact that decompresses by itself.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Chunk {
    /// The object's name, in the layout of objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) object: Option<String>,
    /// Bytes as stored.
    pub(crate) size: u64,
    /// SHA-256 of the bytes as stored.
    pub(crate) sha256: String,
    /// Bytes after decryption and decompression.
    pub(crate) raw_bytes: u64,
    /// Rows in it, for a table.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) rows: u64,
}

/// What is in a backup.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Contents {
    /// Readable.
    Open(Detail),
    /// An age file with the JSON of a [`Detail`], in base64.
    Sealed(String),
}

/// What the rows and large objects were in the dump's own snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Detail {
    /// The name the database has on its server.
    pub(crate) database: String,
    /// The server's address.
    pub(crate) host: String,
    /// By the artifact's name.
    pub(crate) tables: BTreeMap<String, Table>,
    /// By the artifact's name.
    pub(crate) large_objects: BTreeMap<String, LargeObject>,
    /// By their kind, as pg_dump names kinds; sequences' values are `SEQUENCE SET`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) objects: BTreeMap<String, Objects>,
}

/// A table's rows.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Table {
    pub(crate) schema: String,
    pub(crate) name: String,
    /// The partitioned table through which the rows must be restored, where pg_dump says so: rows may then
    /// lie in other partitions than before, and only the sum over all partitions is comparable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) partition_root: Option<String>,
    pub(crate) rows: u64,
    pub(crate) digest: Digest,
    /// The digests of its chunks in order, of which `digest` is the sum.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) chunks: Vec<Digest>,
}

impl Table {
    /// Returns the digest of one chunk, if it was noted.
    pub(crate) fn chunk_digest(&self, chunk: usize) -> Option<Digest> {
        self.chunks.get(chunk).copied()
    }
}

/// All objects of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Objects {
    pub(crate) count: u64,
    /// The fingerprint of their definitions, as `docs/formats.md` says.
    pub(crate) digest: Digest,
}

/// A large object's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) struct LargeObject {
    pub(crate) oid: u32,
    pub(crate) bytes: u64,
    pub(crate) digest: Digest,
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the manifest is not valid JSON of the documented form: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the manifest has version {0}, this opsctl reads version {VERSION}: use a newer one")]
    Version(u64),
    #[error("the manifest contradicts itself: {0}")]
    Contradiction(String),
}

impl Manifest {
    /// Returns the manifest as it is stored.
    pub(crate) fn to_json(&self) -> Result<Vec<u8>, Error> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads a manifest and checks that it agrees with itself, so that those who use it need not.
    pub(crate) fn parse(json: &[u8]) -> Result<Manifest, Error> {
        #[derive(serde::Deserialize)]
        struct Version {
            version: u64,
        }
        let version = serde_json::from_slice::<Version>(json)?.version;
        if version != u64::from(VERSION) {
            return Err(Error::Version(version));
        }
        let manifest: Manifest = serde_json::from_slice(json)?;
        manifest.check().map_err(Error::Contradiction)?;
        Ok(manifest)
    }

    /// Is it encrypted?
    pub(crate) fn is_encrypted(&self) -> bool {
        !self.recipients.is_empty()
    }

    /// Returns every stored object with its size and SHA-256 as stored, in the manifest's order.
    ///
    /// In the joined layout that is a file per artifact, else an object per chunk.
    pub(crate) fn objects(&self) -> impl Iterator<Item = (&str, u64, &str)> {
        self.artifacts.iter().flat_map(|artifact| {
            let joined = (self.layout == Layout::Joined).then_some((
                artifact.name.as_str(),
                artifact.size,
                artifact.sha256.as_str(),
            ));
            let chunks = artifact.chunks.iter().filter_map(|chunk| {
                Some((chunk.object.as_deref()?, chunk.size, chunk.sha256.as_str()))
            });
            joined.into_iter().chain(chunks)
        })
    }

    /// Returns an artifact by its name.
    pub(crate) fn artifact(&self, name: &str) -> Option<&Artifact> {
        self.artifacts.iter().find(|artifact| artifact.name == name)
    }

    fn check(&self) -> Result<(), String> {
        let mut names = BTreeSet::new();
        let plain = |name: &str| !name.contains('/') && Key::new(name).is_some();
        let is_sha256 =
            |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        for artifact in &self.artifacts {
            let name = &artifact.name;
            if !plain(name) || !names.insert(name.as_str()) {
                return Err(format!(
                    "the artifact name `{}` is odd or there twice",
                    name.escape_debug()
                ));
            }
            if artifact.chunks.is_empty() || !is_sha256(&artifact.sha256) {
                return Err(format!("artifact `{name}` has no chunks or no SHA-256"));
            }
            for chunk in &artifact.chunks {
                let object = chunk.object.as_deref();
                if object.is_some() != (self.layout == Layout::Objects) {
                    return Err(format!("a chunk of artifact `{name}` does not fit the layout"));
                }
                let fresh = object.is_none_or(|o| plain(o) && (o == name || names.insert(o)));
                if !fresh || !is_sha256(&chunk.sha256) {
                    return Err(format!(
                        "a chunk of artifact `{name}` is named or summed up oddly"
                    ));
                }
            }
            let size: u64 = artifact.chunks.iter().map(|c| c.size).fold(0, u64::saturating_add);
            if !self.is_encrypted() && size != artifact.size {
                return Err(format!(
                    "the chunks of artifact `{name}` have {size} bytes, not {}",
                    artifact.size
                ));
            }
        }
        if self.artifact(TOC).is_none_or(|toc| toc.kind != Kind::Toc) {
            return Err(format!("there is no `{TOC}`"));
        }
        if self.sums() != self.totals {
            return Err(format!(
                "the totals are {:?}, its artifacts make {:?}",
                self.totals,
                self.sums()
            ));
        }
        match &self.contents {
            Contents::Open(detail) if !self.is_encrypted() => self.check_detail(detail),
            Contents::Sealed(_) if self.is_encrypted() => Ok(()),
            _ => {
                Err("the contents are sealed and the artifacts are not, or the reverse".to_owned())
            }
        }
    }

    /// Checks that `detail`, which may have been sealed, tells of exactly the artifacts that are there.
    pub(crate) fn check_detail(&self, detail: &Detail) -> Result<(), String> {
        for artifact in &self.artifacts {
            let name = &artifact.name;
            let rows: u64 = artifact.chunks.iter().map(|c| c.rows).fold(0, u64::saturating_add);
            let raw: u64 = artifact.chunks.iter().map(|c| c.raw_bytes).fold(0, u64::saturating_add);
            let agrees = match artifact.kind {
                Kind::Table => detail.tables.get(name).is_some_and(|table| {
                    let sum = table.chunks.iter().fold(Digest::default(), |sum, d| sum.plus(*d));
                    let chunks_agree =
                        (sum, table.chunks.len()) == (table.digest, artifact.chunks.len());
                    table.rows == rows && (table.chunks.is_empty() || chunks_agree)
                }),
                Kind::LargeObject => {
                    detail.large_objects.get(name).is_some_and(|object| object.bytes == raw)
                }
                _ => rows == 0,
            };
            if !agrees {
                return Err(format!("the contents and the chunks of artifact `{name}` differ"));
            }
        }
        let known = |name: &String, kind| self.artifact(name).is_some_and(|a| a.kind == kind);
        let tables = detail.tables.keys().all(|name| known(name, Kind::Table));
        let objects = detail.large_objects.keys().all(|name| known(name, Kind::LargeObject));
        (tables && objects)
            .then_some(())
            .ok_or_else(|| "the contents name an artifact that is not there".to_owned())
    }

    /// Returns the sums over the artifacts, which [`Manifest::totals`] must equal.
    pub(crate) fn sums(&self) -> Totals {
        let mut totals = Totals::default();
        for artifact in &self.artifacts {
            totals.tables += u64::from(artifact.kind == Kind::Table);
            totals.large_objects += u64::from(artifact.kind == Kind::LargeObject);
            for chunk in &artifact.chunks {
                totals.rows = totals.rows.saturating_add(chunk.rows);
                totals.raw_bytes = totals.raw_bytes.saturating_add(chunk.raw_bytes);
                totals.stored_bytes = totals.stored_bytes.saturating_add(chunk.size);
            }
        }
        totals
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A small whole manifest, for tests here and elsewhere.
    pub(crate) fn sample(id: RunId, at: Moment) -> Manifest {
        let chunk = |size, raw_bytes, rows| Chunk {
            object: None,
            size,
            sha256: "a".repeat(64),
            raw_bytes,
            rows,
        };
        let artifact = |name: &str, kind, compression, chunks: Vec<Chunk>| Artifact {
            name: name.to_owned(),
            kind,
            compression,
            size: chunks.iter().map(|c| c.size).sum(),
            sha256: "b".repeat(64),
            chunks,
        };
        let mut manifest = Manifest {
            version: VERSION,
            id,
            database: "ip2a".to_owned(),
            opsctl: "0.1.0".to_owned(),
            begun_at: at,
            snapshot_at: at,
            ended_at: at,
            server: Server { version: "15.18".to_owned(), major: 15, standby: false },
            pg_dump: "15.18".to_owned(),
            archive_version: "1.14".to_owned(),
            compression: Format::Gzip,
            compression_level: 6,
            recipients: Vec::new(),
            layout: Layout::Joined,
            scope: Scope::default(),
            totals: Totals::default(),
            shrink_accepted: false,
            locked_until: None,
            artifacts: vec![
                artifact(TOC, Kind::Toc, Format::None, vec![chunk(100, 100, 0)]),
                artifact(
                    "7.dat.gz",
                    Kind::Table,
                    Format::Gzip,
                    vec![chunk(20, 50, 3), chunk(21, 60, 4)],
                ),
            ],
            contents: Contents::Open(Detail {
                tables: [(
                    "7.dat.gz".to_owned(),
                    Table {
                        schema: "public".to_owned(),
                        name: "users".to_owned(),
                        partition_root: None,
                        rows: 7,
                        digest: Digest::default(),
                        chunks: vec![Digest::default(); 2],
                    },
                )]
                .into(),
                ..Detail::default()
            }),
        };
        manifest.totals = manifest.sums();
        manifest
    }

    fn new() -> Manifest {
        let at = crate::clock::now();
        sample(RunId::new(at, 1), at)
    }

    #[test]
    fn reads_what_it_writes() {
        let manifest = new();
        assert_eq!(Manifest::parse(&manifest.to_json().unwrap()).unwrap(), manifest);
    }

    #[test]
    fn refuses_a_future_version_before_anything_else() {
        let error = Manifest::parse(br#"{"version": 2, "what": "ever"}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the manifest has version 2, this opsctl reads version 1: use a newer one"
        );
    }

    #[test]
    fn refuses_contradictions() {
        let check = |change: fn(&mut Manifest)| {
            let mut manifest = new();
            change(&mut manifest);
            let error = Manifest::parse(&manifest.to_json().unwrap()).unwrap_err();
            assert!(matches!(error, Error::Contradiction(_)), "{error}");
        };
        check(|m| m.artifacts[1].name = "../7.dat.gz".to_owned());
        check(|m| m.artifacts[1].name = TOC.to_owned());
        check(|m| m.artifacts[1].chunks[0].size += 1);
        check(|m| m.artifacts[1].chunks[0].rows += 1);
        check(|m| m.artifacts[1].chunks[0].object = Some("7.dat.gz.000001".to_owned()));
        check(|m| m.totals.rows += 1);
        check(|m| m.recipients.push("age1x".to_owned()));
        check(|m| drop(m.artifacts.remove(0)));
        check(|m| m.contents = Contents::Open(Detail::default()));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,200}", version in 0..3u64) {
            drop(Manifest::parse(text.as_bytes()));
            drop(Manifest::parse(format!("{{\"version\":{version},{text}}}").as_bytes()));
        }
    }
}
