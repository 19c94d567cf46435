//! What a segment consists of, as JSON: `docs/formats.md` has every field.
//!
//! Manifests are numbered from 1 and each has the SHA-256 of the one before, so that none can be left out or replaced unnoticed,
//! but for the newest: that takes an anchor elsewhere.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::archive::merkle::{Hash, Roots, root};
use crate::archive::row::Column;
use crate::archive::window::Window;
use crate::clock::Moment;

/// The name of the object that makes a segment exist.
pub(crate) const MANIFEST: &str = "manifest.json";
/// No manifest is larger: 512 hashes, and 1600 columns with comments.
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;
/// The version of the format that is written, and the only one that is read.
const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub(crate) version: u32,
    /// Who wrote it.
    pub(crate) opsctl: String,
    /// From 1 up, without gaps, for all segments of a table.
    pub(crate) number: u64,
    /// Of the segment before; nothing for the first.
    pub(crate) previous_sha256: Option<String>,
    pub(crate) database: String,
    /// The cluster, as `pg_controldata` calls it.
    pub(crate) system_identifier: String,
    /// `schema.table`
    pub(crate) table: String,
    pub(crate) comment: Option<String>,
    pub(crate) columns: Vec<Column>,
    pub(crate) time_column: String,
    pub(crate) key: Vec<String>,
    /// What the text of values depends on.
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) window: Window,
    /// Are these the rows that arrived after the window was archived?
    pub(crate) late: bool,
    /// When the snapshot was taken, and where the WAL was.
    pub(crate) taken_at: Moment,
    pub(crate) wal_position: String,
    pub(crate) rows: u64,
    /// The time and key of the first and of the last row.
    pub(crate) first: Option<Place>,
    pub(crate) last: Option<Place>,
    /// The sum of the fingerprints of all keys, modulo 2^128, in hexadecimal.
    pub(crate) keys: String,
    /// The age recipients that can read the files; none if they are not encrypted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) recipients: Vec<String>,
    /// In their order; together they are the lines. None, if there are no rows.
    pub(crate) files: Vec<File>,
    pub(crate) merkle: Merkle,
}

/// Where a row stands: rows are in the order of time and key.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    pub(crate) time: Option<String>,
    pub(crate) key: Vec<Option<String>>,
}

/// One object with rows: zstd frames.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    /// Which version of the object it is, in a bucket that keeps several: what overwrites it has another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
}

/// The tree over the lines, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Merkle {
    pub(crate) root: String,
    pub(crate) block_lines: u64,
    pub(crate) blocks: Vec<String>,
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("it is no manifest: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it is of version {0}, and this opsctl reads version {VERSION}")]
    Version(u64),
    #[error("it contradicts itself: {0}")]
    Contradiction(&'static str),
}

impl Manifest {
    pub(crate) const VERSION: u32 = VERSION;

    /// Reads a manifest, and refuses one that contradicts itself.
    pub(crate) fn parse(json: &[u8]) -> Result<Manifest, Error> {
        let value: serde_json::Value = serde_json::from_slice(json)?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(version) if version != u64::from(VERSION) => return Err(Error::Version(version)),
            _ => {}
        }
        let manifest: Manifest = serde_json::from_value(value)?;
        let blocks: Option<Vec<Hash>> = manifest.merkle.blocks.iter().map(|b| unhex(b)).collect();
        let blocks = blocks.ok_or(Error::Contradiction("a hash is not one"))?;
        let lines = manifest.merkle.block_lines;
        let odd_name = |file: &File| file.name.contains('/') || !file.name.starts_with("rows.");
        for (wrong, what) in [
            (hex(&root(&blocks)) != manifest.merkle.root, "the root is not that of its blocks"),
            (!lines.is_power_of_two(), "the size of a block is not a power of two"),
            (
                lines == 0 || manifest.rows.div_ceil(lines) != blocks.len() as u64,
                "the blocks are not those of so many rows",
            ),
            (
                manifest.files.is_empty() != (manifest.rows == 0),
                "rows without files, or files without rows",
            ),
            (manifest.files.iter().any(odd_name), "a file has a strange name"),
            (manifest.number == 0, "it is number 0"),
            (
                (manifest.number == 1) != manifest.previous_sha256.is_none(),
                "only the first one follows no other",
            ),
            (manifest.window.from >= manifest.window.to, "the window ends before it begins"),
            (u128::from_str_radix(&manifest.keys, 16).is_err(), "the sum of the keys is none"),
        ] {
            if wrong {
                return Err(Error::Contradiction(what));
            }
        }
        Ok(manifest)
    }

    /// Writes it as it is stored and signed.
    pub(crate) fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }

    /// Returns the sum of the fingerprints of all keys.
    pub(crate) fn keys(&self) -> u128 {
        u128::from_str_radix(&self.keys, 16).unwrap_or_default()
    }
}

impl Merkle {
    /// Writes roots down.
    pub(crate) fn of(roots: &Roots) -> Merkle {
        Merkle {
            root: hex(&roots.root),
            block_lines: roots.block_lines,
            blocks: roots.blocks.iter().map(|block| hex(block)).collect(),
        }
    }

    /// Returns the first and last line of the first block that differs from `found`, counted from 1.
    pub(crate) fn first_difference(&self, found: &Merkle, rows: u64) -> Option<(u64, u64)> {
        if self.root == found.root && self.blocks == found.blocks {
            return None;
        }
        // With another number of rows the blocks may have another size.
        let n = if self.block_lines == found.block_lines {
            self.blocks.iter().zip(&found.blocks).take_while(|(a, b)| a == b).count() as u64
        } else {
            0
        };
        let size =
            if self.block_lines == found.block_lines { self.block_lines } else { rows.max(1) };
        let first = n * size + 1;
        Some((first, (first + size - 1).min(rows.max(first))))
    }
}

/// Returns the SHA-256 of some bytes, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a hash in hexadecimal.
pub(super) fn unhex(text: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (n, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).ok()?;
    }
    Some(hash)
}
