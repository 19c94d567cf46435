//! Is an archive what it was? Manifests, signatures and chain at once; the rows by reading all of them back.
//!
//! `contrib/verify_archive.py` comes to the same findings, without opsctl.

use std::collections::BTreeMap;
use std::fmt;

use crate::archive::evidence;
use crate::archive::folder::{Contents, Folder, Segment};
use crate::archive::line::{Shape, fingerprint};
use crate::archive::manifest::{Manifest, Merkle};
use crate::archive::merkle::Tree;
use crate::archive::row::Row;
use crate::archive::signature::Signers;
use crate::archive::source::{Keys, positions};
use crate::stop::Stop;

/// What kind of thing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// The manifest cannot be read or contradicts itself.
    Manifest,
    /// No signature, or not one of somebody who is allowed to sign.
    Signature,
    /// A manifest is missing, or is not the one that the next one follows.
    Chain,
    /// A file is missing, or not the one that was stored.
    File,
    /// Rows are encrypted, and no identity fits. Their files are those that were stored, unless another finding says otherwise.
    Sealed,
    /// The rows are not those that were archived.
    Rows,
    /// A time between two windows that no segment covers.
    Gap,
    /// A time that two segments cover.
    Overlap,
    /// The newest segment that was seen earlier is not there any more, or is another one.
    Anchor,
    /// A Parquet file, or what vouches for it. No evidence is concerned.
    Copy,
    /// A row in the table is not as it was archived.
    Changed,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Finding {
    pub(crate) segment: String,
    pub(crate) kind: Kind,
    pub(crate) what: String,
}

/// The newest segment of each table that was seen, by database and table.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(transparent)]
pub(crate) struct Anchor(pub(crate) BTreeMap<String, Seen>);

/// A segment that was seen.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Seen {
    pub(crate) number: u64,
    /// Of its manifest.
    pub(crate) sha256: String,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Manifest => "manifest",
            Kind::Signature => "signature",
            Kind::Chain => "chain",
            Kind::File => "file",
            Kind::Sealed => "sealed",
            Kind::Rows => "rows",
            Kind::Gap => "gap",
            Kind::Overlap => "overlap",
            Kind::Anchor => "anchor",
            Kind::Copy => "copy",
            Kind::Changed => "changed",
        })
    }
}

impl Finding {
    pub(super) fn new(segment: &str, kind: Kind, what: impl Into<String>) -> Finding {
        Finding { segment: segment.to_owned(), kind, what: what.into() }
    }
}

/// Looks at everything but the rows.
pub(crate) fn manifests(contents: &Contents, signers: &Signers) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut chain: Vec<(&Segment, &Manifest)> = Vec::new();
    for segment in &contents.segments {
        let signature = segment.signature.as_deref();
        if !signature.is_some_and(|signature| signers.accept(&segment.json, signature)) {
            let what = match signature {
                Some(_) => "the signature is not one of a key that may sign",
                None => "there is no signature",
            };
            findings.push(Finding::new(&segment.name, Kind::Signature, what));
        }
        match &segment.manifest {
            Ok(manifest) => chain.push((segment, manifest)),
            Err(why) => findings.push(Finding::new(&segment.name, Kind::Manifest, why.as_str())),
        }
    }
    let mut before: Option<(&Segment, &Manifest)> = None;
    for (segment, manifest) in &chain {
        let wanted = before.map_or(1, |(_, before)| before.number + 1);
        let follows = before.map(|(before, _)| before.sha256.as_str());
        let what = if manifest.number != wanted {
            Some(format!("it is number {}, where number {wanted} is expected", manifest.number))
        } else if manifest.previous_sha256.as_deref() != follows {
            let name = before.map_or("nothing", |(before, _)| before.name.as_str());
            Some(format!("it follows another manifest than that of {name}"))
        } else {
            None
        };
        findings.extend(what.map(|what| Finding::new(&segment.name, Kind::Chain, what)));
        before = Some((segment, manifest));
    }
    chain.retain(|(_, manifest)| !manifest.late);
    chain.sort_by_key(|(_, manifest)| manifest.window);
    for pair in chain.windows(2) {
        let ((_, before), (segment, manifest)) = (pair[0], pair[1]);
        let (from, to) = (manifest.window.from, before.window.to);
        if from > to {
            let what = format!("no segment covers the time from {to} to {from}");
            findings.push(Finding::new(&segment.name, Kind::Gap, what));
        } else if from < to {
            let what = format!("another segment covers the time from {from} to {to} as well");
            findings.push(Finding::new(&segment.name, Kind::Overlap, what));
        }
    }
    findings
}

/// Reads the rows of a segment back and computes everything again.
pub(crate) fn rows(
    folder: &Folder,
    name: &str,
    manifest: &Manifest,
    stop: &Stop,
) -> anyhow::Result<Vec<Finding>> {
    rows_seen(folder, name, manifest, stop, |_, _| Ok(()))
}

/// The same, and gives every line that is a row to `see`.
pub(super) fn rows_seen(
    folder: &Folder,
    name: &str,
    manifest: &Manifest,
    stop: &Stop,
    mut see: impl FnMut(&[u8], &Row) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Finding>> {
    let key = positions(&manifest.columns, &manifest.key);
    let (mut tree, mut keys, mut odd) = (Tree::default(), Keys::default(), None);
    let (shape, mut row) = (Shape::of(&manifest.columns), Row::default());
    let reading = evidence::read(folder, name, &manifest.files, stop, |text| {
        tree.push(text);
        if shape.read(text, &mut row).is_some() {
            keys.add(fingerprint(key.iter().map(|n| row.get(*n))));
            return see(text, &row);
        }
        odd.get_or_insert(tree.lines());
        Ok(())
    })?;
    let mut findings = Vec::new();
    let unread = reading.unread;
    for file in reading.wrong {
        let what = format!("{file} is missing, or is not the one that was stored");
        findings.push(Finding::new(name, Kind::File, what));
    }
    if unread {
        return Ok(findings);
    }
    if reading.sealed {
        let what = "its rows are encrypted, and no identity fits: they were not looked at";
        findings.push(Finding::new(name, Kind::Sealed, what));
        return Ok(findings);
    }
    let lines = tree.lines();
    if let Some(why) = reading.broken {
        let what = format!("they break off after line {lines}: {why}");
        findings.push(Finding::new(name, Kind::Rows, what));
        return Ok(findings);
    }
    let found = Merkle::of(&tree.end());
    if let Some((first, last)) = manifest.merkle.first_difference(&found, manifest.rows) {
        let place = if first == last {
            format!("line {first}")
        } else {
            format!("a line from {first} to {last}")
        };
        let what = format!(
            "{place} is not as it was archived ({lines} of {} lines are there)",
            manifest.rows
        );
        findings.push(Finding::new(name, Kind::Rows, what));
    } else if let Some(line) = odd {
        let what = format!("line {line} is not a row with the columns of the manifest");
        findings.push(Finding::new(name, Kind::Rows, what));
    } else if keys.sum != manifest.keys() {
        let what = "the keys do not add up to the sum in the manifest";
        findings.push(Finding::new(name, Kind::Rows, what));
    }
    Ok(findings)
}

impl Anchor {
    /// Compares with what was seen of a table earlier.
    pub(crate) fn compare(&self, table: &str, contents: &Contents) -> Option<Finding> {
        let seen = self.0.get(table)?;
        let is_it = |segment: &&Segment| {
            segment.manifest.as_ref().is_ok_and(|manifest| manifest.number == seen.number)
        };
        let segment = contents.segments.iter().find(is_it);
        let (name, what) = match segment {
            Some(segment) if segment.sha256 == seen.sha256 => return None,
            Some(segment) => (segment.name.as_str(), "another manifest was seen with its number"),
            None => ("-", "a segment is missing that was seen"),
        };
        Some(Finding::new(name, Kind::Anchor, format!("{what}: number {}", seen.number)))
    }

    /// Remembers the newest segment of a table.
    pub(crate) fn see(&mut self, table: &str, contents: &Contents) {
        let known = contents.segments.iter().filter_map(|s| Some((s.manifest.as_ref().ok()?, s)));
        if let Some((manifest, segment)) = known.max_by_key(|(manifest, _)| manifest.number) {
            let seen = Seen { number: manifest.number, sha256: segment.sha256.clone() };
            self.0.insert(table.to_owned(), seen);
        }
    }
}
