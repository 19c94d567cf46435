//! One row as PostgreSQL's text values: what `COPY … TO STDOUT` writes, read back into values.
//!
//! The text format is that of the COPY reference page: fields end with a tab, `\N` is NULL, and seven characters are escaped. What a
//! value means is not known here.

use std::ops::Range;

/// A column of an archived table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// The type as `format_type` writes it, such as `numeric(12,2)`.
    #[serde(rename = "type")]
    pub(crate) type_name: String,
}

/// The values of one row, in the order of the columns. It is filled again and again, to keep its memory.
#[derive(Debug, Default)]
pub(crate) struct Row {
    bytes: Vec<u8>,
    fields: Vec<Option<Range<usize>>>,
}

/// A line is not as `COPY … TO` writes it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server sent a row that is not in the text format of COPY")]
pub(crate) struct Malformed;

impl Row {
    /// Takes the values of a line of COPY's, with or without its line feed.
    pub(crate) fn read(&mut self, line: &[u8]) -> Result<(), Malformed> {
        self.clear();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        for field in line.split(|byte| *byte == b'\t') {
            if field == b"\\N" {
                self.fields.push(None);
                continue;
            }
            let start = self.bytes.len();
            self.unescape(field)?;
            self.fields.push(Some(start..self.bytes.len()));
        }
        Ok(())
    }

    /// Appends the line of COPY's that has these values, with its line feed.
    pub(crate) fn write(&self, line: &mut Vec<u8>) {
        for (n, value) in self.values().enumerate() {
            if n > 0 {
                line.push(b'\t');
            }
            let Some(value) = value else {
                line.extend_from_slice(b"\\N");
                continue;
            };
            for byte in value {
                let escaped = match byte {
                    b'\\' => b'\\',
                    8 => b'b',
                    b'\t' => b't',
                    b'\n' => b'n',
                    11 => b'v',
                    12 => b'f',
                    b'\r' => b'r',
                    other => {
                        line.push(*other);
                        continue;
                    }
                };
                line.extend_from_slice(&[b'\\', escaped]);
            }
        }
        line.push(b'\n');
    }

    /// Forgets all values.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
    }

    /// Adds a value.
    pub(crate) fn push(&mut self, value: Option<&[u8]>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.fields.push(value.map(|_| start..self.bytes.len()));
    }

    /// Adds the value that `fill` appends, if it can. Returns what it returns.
    pub(crate) fn push_with<T>(
        &mut self,
        fill: impl FnOnce(&mut Vec<u8>) -> Option<T>,
    ) -> Option<T> {
        let start = self.bytes.len();
        let filled = fill(&mut self.bytes)?;
        self.fields.push(Some(start..self.bytes.len()));
        Some(filled)
    }

    fn unescape(&mut self, mut field: &[u8]) -> Result<(), Malformed> {
        while let Some(at) = memchr::memchr(b'\\', field) {
            self.bytes.extend_from_slice(&field[..at]);
            self.bytes.push(match field.get(at + 1) {
                Some(b'\\') => b'\\',
                Some(b'b') => 8,
                Some(b't') => b'\t',
                Some(b'n') => b'\n',
                Some(b'v') => 11,
                Some(b'f') => 12,
                Some(b'r') => b'\r',
                _ => return Err(Malformed),
            });
            field = &field[at + 2..];
        }
        self.bytes.extend_from_slice(field);
        Ok(())
    }

    /// Leaves out the values behind the first `n`, and returns whether all of them are NULL.
    pub(crate) fn shorten(&mut self, n: usize) -> bool {
        let is_null = self.fields.iter().skip(n).all(Option::is_none);
        self.fields.truncate(n);
        is_null
    }

    /// Returns how many values there are.
    pub(crate) fn len(&self) -> usize {
        self.fields.len()
    }

    /// Returns a value, or nothing for NULL and for a column that is not there.
    pub(crate) fn get(&self, column: usize) -> Option<&[u8]> {
        let range = self.fields.get(column)?.clone()?;
        self.bytes.get(range)
    }

    /// Returns all values; NULL is nothing.
    pub(crate) fn values(&self) -> impl Iterator<Item = Option<&[u8]>> {
        (0..self.len()).map(|column| self.get(column))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As `CopyAttributeOutText` does it.
    fn copied(values: &[Option<Vec<u8>>]) -> Vec<u8> {
        let field = |value: &Option<Vec<u8>>| match value {
            None => b"\\N".to_vec(),
            Some(bytes) => bytes
                .iter()
                .flat_map(|byte| match byte {
                    8 => b"\\b".to_vec(),
                    9 => b"\\t".to_vec(),
                    10 => b"\\n".to_vec(),
                    11 => b"\\v".to_vec(),
                    12 => b"\\f".to_vec(),
                    13 => b"\\r".to_vec(),
                    b'\\' => b"\\\\".to_vec(),
                    other => vec![*other],
                })
                .collect(),
        };
        let mut line = values.iter().map(field).collect::<Vec<_>>().join(&b'\t');
        line.push(b'\n');
        line
    }

    proptest! {
        #[test]
        fn what_copy_writes_is_read(
            values in proptest::collection::vec(proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9)), 1..6)
        ) {
            let mut row = Row::default();
            row.read(b"earlier\trow").unwrap();
            row.read(&copied(&values)).unwrap();
            let read: Vec<_> = row.values().map(|value| value.map(<[u8]>::to_vec)).collect();
            prop_assert_eq!(&read, &values);
            let mut line = Vec::new();
            row.write(&mut line);
            prop_assert_eq!(line, copied(&values));
        }

        #[test]
        fn anything_else_never_panics(line in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Row::default().read(&line);
        }
    }

    #[test]
    fn an_escape_that_copy_never_writes_is_refused() {
        for line in [&b"a\\x"[..], b"a\\", b"\\N\\"] {
            assert_eq!(Row::default().read(line), Err(Malformed));
        }
    }
}
