//! A segment that was read back in this run, and its lines a second time, in batches that are the same as those that were proven.
//!
//! The first reading computes everything again that the manifest vouches for, and notes a hash of each batch. The second one gives
//! a batch away only if its hash is that one: what the storage says in between changes nothing.

use sha2::{Digest as _, Sha256};

use crate::archive::deletion::Task;
use crate::archive::evidence;
use crate::archive::folder::Folder;
use crate::archive::manifest::Manifest;
use crate::archive::merkle::Hash;
use crate::archive::row::Row;
use crate::archive::verify::{self, Finding};
use crate::stop::Stop;

/// A batch is full with so many bytes, even of few rows.
const BATCH_BYTES: usize = 4 << 20;

/// The hashes of all batches of a segment that is as it was archived. Only [`Proven::read`] makes one.
pub(super) struct Proven {
    batch_rows: usize,
    batches: Vec<Hash>,
}

impl Proven {
    /// Reads a segment back and computes everything again.
    pub(super) fn read(
        task: &Task<'_>,
        name: &str,
        manifest: &Manifest,
    ) -> anyhow::Result<Result<Proven, Vec<Finding>>> {
        let mut cutter = Cutter::new(task.batch_rows);
        let mut batches = Vec::new();
        let see = |line: &[u8], _: &Row| {
            batches.extend(cutter.add(line));
            Ok(())
        };
        let findings = verify::rows_seen(task.folder, name, manifest, task.stop, see)?;
        if !findings.is_empty() {
            return Ok(Err(findings));
        }
        batches.extend(cutter.end());
        Ok(Ok(Proven { batch_rows: task.batch_rows, batches }))
    }

    /// Reads the segment again, and gives its batches away as long as they are those that were proven.
    pub(super) fn batches(
        &self,
        folder: &Folder,
        name: &str,
        manifest: &Manifest,
        stop: &Stop,
        mut take: impl FnMut(&[Vec<u8>]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut cutter = Cutter::new(self.batch_rows);
        let (mut lines, mut proven) = (Vec::new(), self.batches.iter());
        let changed = || anyhow::anyhow!("segment `{name}` changed while it was read");
        evidence::read(folder, name, &manifest.files, stop, |line| {
            lines.push(line.to_vec());
            if let Some(hash) = cutter.add(line) {
                anyhow::ensure!(proven.next() == Some(&hash), changed());
                take(&lines)?;
                lines.clear();
            }
            Ok(())
        })?;
        if let Some(hash) = cutter.end() {
            anyhow::ensure!(proven.next() == Some(&hash), changed());
            take(&lines)?;
        }
        anyhow::ensure!(proven.next().is_none(), changed());
        Ok(())
    }
}

/// Says where a batch ends: at the same lines each time.
struct Cutter {
    batch_rows: usize,
    rows: usize,
    bytes: usize,
    sha256: Sha256,
}

impl Cutter {
    fn new(batch_rows: usize) -> Cutter {
        Cutter { batch_rows, rows: 0, bytes: 0, sha256: Sha256::new() }
    }

    /// Adds a line; returns the hash of the batch that ends with it.
    fn add(&mut self, line: &[u8]) -> Option<Hash> {
        self.sha256.update(line);
        self.sha256.update(b"\n");
        self.rows += 1;
        self.bytes += line.len();
        let is_full = self.rows >= self.batch_rows || self.bytes >= BATCH_BYTES;
        is_full.then(|| {
            (self.rows, self.bytes) = (0, 0);
            std::mem::take(&mut self.sha256).finalize().into()
        })
    }

    /// Returns the hash of the last batch, if lines are left.
    fn end(self) -> Option<Hash> {
        (self.rows > 0).then(|| self.sha256.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_ends_with_its_rows_or_its_bytes() {
        let mut cutter = Cutter::new(3);
        let ends: Vec<bool> = (0..7).map(|_| cutter.add(b"line").is_some()).collect();
        assert_eq!(ends, [false, false, true, false, false, true, false]);
        assert!(cutter.end().is_some());
        let mut cutter = Cutter::new(1000);
        let line = vec![b'x'; BATCH_BYTES / 2];
        assert_eq!(cutter.add(&line), None);
        let expected: Hash = Sha256::digest([&line[..], b"\n", &line[..], b"\n"].concat()).into();
        assert_eq!(cutter.add(&line), Some(expected));
        assert_eq!(cutter.end(), None);
    }
}
