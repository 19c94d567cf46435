//! Proving a large backup a piece at a time.
//!
//! Tables' chunks and large objects are dealt into as many pieces as it takes, and each verification takes the next
//! one. The deal depends on names and chunk numbers alone, so it is much the same in the next backup, and after as many
//! verifications as there are pieces each has had its turn. What was proven when is carried on from one record to the
//! next, because backups are removed with their records. Pure.

use twox_hash::XxHash3_128;

use crate::backup::manifest::{Artifact, Detail, Kind, LargeObject, Manifest};
use crate::backup::rows::Rows;
use crate::clock::Moment;
use crate::config::Percent;
use crate::id::RunId;

/// One piece of a backup, and what is known of the others.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Sample {
    /// Counted from 1.
    pub(crate) piece: u64,
    pub(crate) pieces: u64,
    /// The pieces that were proven, in order, each with its last time.
    pub(crate) proven: Vec<Proven>,
}

/// When a piece was proven last.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Proven {
    pub(crate) piece: u64,
    pub(crate) at: Moment,
    /// In which backup.
    pub(crate) backup: RunId,
}

impl Sample {
    /// Returns the piece whose turn it is after `last`.
    ///
    /// With another number of pieces it begins anew: they are not the same pieces.
    pub(crate) fn next(percent: Percent, last: Option<&Sample>) -> Sample {
        let pieces = percent.pieces();
        match last.filter(|last| last.pieces == pieces) {
            Some(last) => Sample { piece: last.piece % pieces + 1, ..last.clone() },
            None => Sample { piece: 1, pieces, proven: Vec::new() },
        }
    }

    /// Is this chunk in the piece? What is neither row nor large object always is.
    ///
    /// Without `detail`, which may be sealed, the names of artifacts have to do; they differ between backups.
    pub(crate) fn has(&self, detail: Option<&Detail>, artifact: &Artifact, chunk: usize) -> bool {
        let name = &artifact.name;
        let (name, chunk) = match artifact.kind {
            Kind::Table => {
                let table = detail.and_then(|detail| detail.tables.get(name));
                (table.map_or(name.clone(), |t| format!("{}.{}", t.schema, t.name)), chunk as u128)
            }
            // It has one digest.
            Kind::LargeObject => {
                let object = detail.and_then(|detail| detail.large_objects.get(name));
                (object.map_or(name.clone(), |object| object.oid.to_string()), 0)
            }
            Kind::Toc | Kind::LargeObjectToc | Kind::Globals | Kind::Notes => return true,
        };
        let dealt = XxHash3_128::oneshot(name.as_bytes()).wrapping_add(chunk);
        dealt % u128::from(self.pieces) == u128::from(self.piece - 1)
    }

    /// Returns what a database holds that has this piece alone; `None` if the backup is too old to say.
    pub(crate) fn part_of(&self, manifest: &Manifest, detail: &Detail) -> Option<Detail> {
        let mut part = detail.clone();
        for artifact in manifest.artifacts.iter().filter(|a| a.kind == Kind::Table) {
            let table = part.tables.get_mut(&artifact.name)?;
            let mut rows = Rows::default();
            for (c, chunk) in artifact.chunks.iter().enumerate() {
                if self.has(Some(detail), artifact, c) {
                    rows.merge(Rows { count: chunk.rows, digest: table.chunk_digest(c)? });
                }
            }
            (table.rows, table.digest) = (rows.count, rows.digest);
        }
        let is_in = |name: &String, _: &mut LargeObject| {
            manifest.artifact(name).is_some_and(|artifact| self.has(Some(detail), artifact, 0))
        };
        part.large_objects.retain(is_in);
        Some(part)
    }

    /// Notes that the piece was proven.
    pub(crate) fn prove(&mut self, at: Moment, backup: &RunId) {
        self.proven.retain(|proven| proven.piece != self.piece);
        self.proven.push(Proven { piece: self.piece, at, backup: backup.clone() });
        self.proven.sort_by_key(|proven| proven.piece);
    }

    /// Says for people what has been proven since when.
    pub(crate) fn coverage(&self) -> String {
        let Some(since) = self.proven.iter().map(|proven| proven.at).min() else {
            return format!("none of the {} pieces was proven so far", self.pieces);
        };
        let since = since.format("%Y-%m-%d");
        let proven = self.proven.len() as u64;
        if proven == self.pieces {
            return format!("all {proven} pieces were proven since {since}");
        }
        format!("{proven} of the {} pieces were proven since {since}", self.pieces)
    }
}

impl std::fmt::Display for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "piece {} of {}", self.piece, self.pieces)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::backup::manifest::{self, Contents};

    fn backup(chunks: usize) -> (Manifest, Detail) {
        let at: Moment = "2026-11-21T02:15:00Z".parse().unwrap();
        let mut manifest = manifest::tests::sample(RunId::new(at, 1), at);
        let artifact = manifest.artifacts.last_mut().unwrap();
        artifact.chunks = vec![artifact.chunks[0].clone(); chunks];
        let Contents::Open(mut detail) = manifest.contents.clone() else { unreachable!() };
        let table = detail.tables.values_mut().next().unwrap();
        let mut one = Rows::default();
        (0..3).for_each(|_| one.add(b"row"));
        table.chunks = vec![one.digest; chunks];
        let object = LargeObject { oid: 4711, bytes: 1, digest: one.digest };
        detail.large_objects.insert("blob_4711.dat".to_owned(), object);
        let mut large = artifact.clone();
        (large.name, large.kind) = ("blob_4711.dat".to_owned(), Kind::LargeObject);
        manifest.artifacts.push(large);
        (manifest, detail)
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_whole_and_have_nothing_in_common(percent in 0.1..100.0_f64, chunks in 1_usize..400) {
            let (manifest, detail) = backup(chunks);
            let (mut rows, mut objects, mut largest) = (0, 0, 0);
            let mut sample = Sample::next(percent.to_string().parse().unwrap(), None);
            let pieces = sample.pieces;
            for piece in 1..=pieces {
                prop_assert_eq!(sample.piece, piece);
                let part = sample.part_of(&manifest, &detail).unwrap();
                let table = part.tables.values().next().unwrap();
                rows += table.rows;
                largest = largest.max(table.rows);
                objects += part.large_objects.len();
                sample = Sample::next(percent.to_string().parse().unwrap(), Some(&sample));
            }
            prop_assert_eq!(sample.piece, 1);
            prop_assert_eq!((rows, objects), (3 * chunks as u64, 1));
            // None is larger than it should be, but for what cannot be divided.
            prop_assert!(largest <= 3 * (chunks as u64).div_ceil(pieces));
        }
    }

    #[test]
    fn what_was_proven_is_carried_on() {
        let percent: Percent = "50%".parse().unwrap();
        let at: Moment = "2026-11-21T02:15:00Z".parse().unwrap();
        let id = RunId::new(at, 1);
        let mut sample = Sample::next(percent, None);
        assert_eq!(sample.coverage(), "none of the 2 pieces was proven so far");
        sample.prove(at, &id);
        let mut sample = Sample::next(percent, Some(&sample));
        assert_eq!(sample.coverage(), "1 of the 2 pieces were proven since 2026-11-21");
        sample.prove(at + chrono::TimeDelta::days(1), &id);
        let mut sample = Sample::next(percent, Some(&sample));
        assert_eq!(sample.coverage(), "all 2 pieces were proven since 2026-11-21");
        sample.prove(at + chrono::TimeDelta::days(2), &id);
        assert_eq!(sample.coverage(), "all 2 pieces were proven since 2026-11-22");
        let other = Sample::next("1".parse().unwrap(), Some(&sample));
        assert_eq!((other.piece, other.pieces, other.proven.len()), (1, 100, 0));
    }
}
