//! That one row was archived, for somebody who may not see the others: its line, the hashes from it to the root of its segment
//! (RFC 6962, section 2.1.1), and the signed manifest that has this root.
//!
//! The manifest is the only other thing that is disclosed: of other rows it has the time and key of the segment's first and last one.

use crate::archive::evidence;
use crate::archive::folder::{Folder, Segment};
use crate::archive::line::Shape;
use crate::archive::manifest::{Manifest, hex, unhex};
use crate::archive::merkle::{Hash, leaf, path, root_by_path};
use crate::archive::row::Row;
use crate::archive::signature::Signers;
use crate::archive::source::positions;
use crate::archive::verify::{self, Finding};
use crate::stop::Stop;

/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;

/// A proof, as it is written: `docs/formats.md` has every field.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Proof {
    pub(crate) version: u32,
    pub(crate) segment: String,
    /// The row, as it stands in the evidence.
    pub(crate) line: String,
    /// Which line it is, from 0 up.
    pub(crate) index: u64,
    /// The hashes beside the way to the root, from the line up, in hexadecimal.
    pub(crate) path: Vec<String>,
    /// The bytes of the manifest, and of its signature.
    pub(crate) manifest: String,
    pub(crate) signature: String,
}

/// Why a proof proves nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("it is of version {0}, and this opsctl reads version {VERSION}")]
    Version(u32),
    #[error("its manifest cannot be used: {0}")]
    Manifest(String),
    #[error("the signature of its manifest is not one of a key that may sign")]
    Signature,
    #[error("the line does not lead to the root in the manifest")]
    Root,
}

/// What was found of a row in a segment.
pub(crate) enum Found {
    Nothing,
    /// The segment is damaged: nothing can be proven of it.
    Damaged(Finding),
    Proof(Box<Proof>),
}

/// Looks for the row with this key in a segment, all of which is verified on the way.
pub(crate) fn find(
    folder: &Folder,
    segment: &Segment,
    manifest: &Manifest,
    key: &[String],
    stop: &Stop,
) -> anyhow::Result<Found> {
    let columns = positions(&manifest.columns, &manifest.key);
    let is_it = |row: &Row| {
        let wanted = key.iter().map(|value| Some(value.as_bytes()));
        columns.iter().map(|column| row.get(*column)).eq(wanted)
    };
    let (mut n, mut found) = (0, None);
    let findings = verify::rows_seen(folder, &segment.name, manifest, stop, |line, row| {
        if is_it(row) {
            found = Some((n, line.to_vec()));
        }
        n += 1;
        Ok(())
    })?;
    if let Some(finding) = findings.into_iter().next() {
        return Ok(Found::Damaged(finding));
    }
    let Some((index, line)) = found else { return Ok(Found::Nothing) };
    let path = hashes(folder, segment, manifest, index, stop)?;
    Ok(Found::Proof(Box::new(Proof {
        version: VERSION,
        segment: segment.name.clone(),
        line: String::from_utf8(line)?,
        index,
        path: path.iter().map(|hash| hex(hash)).collect(),
        manifest: String::from_utf8(segment.json.clone())?,
        signature: String::from_utf8(segment.signature.clone().unwrap_or_default())?,
    })))
}

/// Returns the hashes from a line to the root: to that of its block, whose lines are read once more, and from there on.
fn hashes(
    folder: &Folder,
    segment: &Segment,
    manifest: &Manifest,
    index: u64,
    stop: &Stop,
) -> anyhow::Result<Vec<Hash>> {
    let size = manifest.merkle.block_lines;
    let (block, within) = (usize::try_from(index / size)?, usize::try_from(index % size)?);
    let (mut n, mut leaves) = (0, Vec::new());
    let reading = evidence::read(folder, &segment.name, &manifest.files, stop, |line| {
        if n / size == index / size {
            leaves.push(leaf(line));
        }
        n += 1;
        Ok(())
    })?;
    reading.whole(&segment.name)?;
    let blocks: Vec<Hash> = manifest.merkle.blocks.iter().filter_map(|hash| unhex(hash)).collect();
    let mut hashes = path(&leaves, within);
    hashes.extend(path(&blocks, block));
    Ok(hashes)
}

impl Proof {
    /// Returns the manifest, if it was signed by one of `signers`, and if the line belongs to it.
    pub(crate) fn check(&self, signers: &Signers) -> Result<Manifest, Error> {
        if self.version != VERSION {
            return Err(Error::Version(self.version));
        }
        if !signers.accept(self.manifest.as_bytes(), self.signature.as_bytes()) {
            return Err(Error::Signature);
        }
        let manifest = Manifest::parse(self.manifest.as_bytes());
        let manifest = manifest.map_err(|error| Error::Manifest(error.to_string()))?;
        let hashes: Option<Vec<Hash>> = self.path.iter().map(|hash| unhex(hash)).collect();
        let line = self.line.as_bytes();
        let root =
            hashes.and_then(|hashes| root_by_path(leaf(line), self.index, manifest.rows, &hashes));
        let is_row = Shape::of(&manifest.columns).read(line, &mut Row::default()).is_some();
        if is_row && root.is_some_and(|root| hex(&root) == manifest.merkle.root) {
            Ok(manifest)
        } else {
            Err(Error::Root)
        }
    }
}
