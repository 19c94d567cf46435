//! Rows in COPY's text format: where they end, how many there are, and their digest.
//!
//! A table's digest is the sum modulo 2^128 of the XXH3-128 hash (seed 0) of each row's COPY text
//! without its newline. It does not depend on the order of rows, so a table copied in parts by several
//! workers, or copied again from a restored database, has the same digest. It tells whether content is
//! equal; it is no protection against somebody who forges rows (SHA-256 of the artifacts is).

use std::fmt;

use twox_hash::XxHash3_128;

/// What stands behind the last row in every table's file, as pg_dump writes it (`dumpTableData_copy`).
///
/// It is the cheap proof that a file was written to its end.
pub(crate) const END_MARKER: &[u8] = b"\\.\n\n\n";

/// The order-independent fingerprint of a set of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Digest(u128);

/// A number of rows and their digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) count: u64,
    pub(crate) digest: Digest,
}

impl Rows {
    /// Adds one row, given without its newline.
    pub(crate) fn add(&mut self, row: &[u8]) {
        self.count += 1;
        self.digest.0 = self.digest.0.wrapping_add(XxHash3_128::oneshot(row));
    }

    /// Adds the rows of another part.
    pub(crate) fn merge(&mut self, other: Rows) {
        self.count += other.count;
        self.digest = self.digest.plus(other.digest);
    }
}

impl Digest {
    /// Returns the digest of the rows of both.
    pub(crate) fn plus(self, other: Digest) -> Digest {
        Digest(self.0.wrapping_add(other.0))
    }

    /// Returns the digest of one large object: the XXH3-128 hash of all its bytes.
    pub(crate) fn of_bytes(hasher: &twox_hash::xxhash3_128::Hasher) -> Digest {
        Digest(hasher.finish_128())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        let valid = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let value = if valid { u128::from_str_radix(&text, 16).ok() } else { None };
        value
            .map(Digest)
            .ok_or_else(|| serde::de::Error::custom("a digest has 32 hexadecimal digits"))
    }
}

/// Counts the rows in a stream of COPY text that may be cut into pieces anywhere.
///
/// In COPY's text format a line feed byte always ends a row: one in a value is written as `\n`.
#[derive(Default)]
pub(crate) struct RowCounter {
    rows: Rows,
    partial: Vec<u8>,
}

impl RowCounter {
    /// Takes the next piece.
    pub(crate) fn push(&mut self, mut piece: &[u8]) {
        while let Some(end) = memchr::memchr(b'\n', piece) {
            if self.partial.is_empty() {
                self.rows.add(&piece[..end]);
            } else {
                self.partial.extend_from_slice(&piece[..end]);
                self.rows.add(&self.partial);
                self.partial.clear();
            }
            piece = &piece[end + 1..];
        }
        self.partial.extend_from_slice(piece);
    }

    /// Returns the rows, and whether the stream ended with a whole one.
    pub(crate) fn finish(self) -> (Rows, bool) {
        (self.rows, self.partial.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(text: &[u8]) -> Rows {
        let mut counter = RowCounter::default();
        counter.push(text);
        counter.finish().0
    }

    proptest! {
        #[test]
        fn neither_order_nor_pieces_matter(
            lines in proptest::collection::vec("[a-z\\\\\t]{0,9}", 0..20).prop_shuffle(),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..5),
        ) {
            let text: String = lines.iter().map(|l| format!("{l}\n")).collect();
            let mut sorted = lines.clone();
            sorted.sort();
            let sorted: String = sorted.iter().map(|l| format!("{l}\n")).collect();
            prop_assert_eq!(rows(text.as_bytes()), rows(sorted.as_bytes()));

            let mut cuts: Vec<_> = cuts.iter().map(|c| c.index(text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut counter = RowCounter::default();
            let mut merged = Rows::default();
            for pair in cuts.windows(2) {
                counter.push(&text.as_bytes()[pair[0]..pair[1]]);
            }
            merged.merge(counter.finish().0);
            prop_assert_eq!(merged, rows(text.as_bytes()));
            prop_assert_eq!(merged.count, lines.len() as u64);
        }
    }

    #[test]
    fn the_digest_is_the_documented_one() {
        // XXH3-128 of nothing, from the reference implementation's test vectors: two empty rows are its double.
        let empty = 0x99aa_06d3_0147_98d8_6001_c324_468d_497f_u128;
        assert_eq!(rows(b"\n\n").digest, Digest(empty.wrapping_mul(2)));
        assert_eq!(rows(b"").digest.to_string(), "0".repeat(32));
    }

    #[test]
    fn a_changed_doubled_or_missing_row_changes_it() {
        let base = rows(b"1\ta\n2\tb\n3\tc\n");
        for other in [
            &b"1\ta\n2\tx\n3\tc\n"[..],
            b"1\ta\n2\tb\n2\tb\n3\tc\n",
            b"1\ta\n3\tc\n",
            b"1\tb\n2\ta\n3\tc\n",
        ] {
            assert_ne!(rows(other), base);
        }
    }
}
