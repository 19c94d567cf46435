//! Rows as a Parquet file: for questions, not as evidence, which is `rows.ndjson.zst`.
//!
//! `kind.rs` says which type a column has, `value.rs` reads PostgreSQL's text. Rows are gathered column by column until they are one group of
//! the file, so memory is bounded by [`GROUP_BYTES`] and the largest row. A value that its column's type cannot hold is an error
//! that names the column: the caller begins the file again with that column as text, and nothing is rounded or left out. What a
//! file is read with, and where it lies, is not decided here.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::{ByteArray, FixedLenByteArray};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;

mod kind;
pub(super) mod value;

pub(crate) use kind::Kind;

/// How much of the rows' text makes a group. Readers skip groups by their smallest and largest values, and read them side by side.
const GROUP_BYTES: usize = 32 << 20;

/// Why a file is not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The number of the column.
    #[error("column {0} holds a value that its type in Parquet cannot")]
    Unfaithful(usize),
    #[error("the Parquet file cannot be written")]
    Parquet(#[from] ParquetError),
    #[error("a temporary file for Parquet cannot be made")]
    Spool(#[source] std::io::Error),
}

/// Writes one file.
pub(crate) struct Writer<W: Write + Send> {
    file: SerializedFileWriter<W>,
    columns: Vec<Column>,
    /// The bytes of text in the group that is gathered.
    bytes: usize,
}

impl<W: Write + Send> Writer<W> {
    /// Begins a file with these columns.
    pub(crate) fn new(to: W, columns: &[(&str, Kind)]) -> Result<Writer<W>, Error> {
        let fields = columns.iter().map(|(name, kind)| kind.column(name));
        let fields = fields.collect::<Result<Vec<_>, _>>()?;
        let schema = Arc::new(Type::group_type_builder("rows").with_fields(fields).build()?);
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            // Without a version: by whichever opsctl, the same rows are to make the same file.
            .set_created_by("opsctl".to_owned())
            .build();
        let file = SerializedFileWriter::new(to, schema, Arc::new(properties))?;
        let columns = columns.iter().map(|(_, kind)| Column::new(*kind)).collect();
        Ok(Writer { file, columns, bytes: 0 })
    }

    /// Adds a row: for each column PostgreSQL's text of the value, or NULL.
    pub(crate) fn push<'a>(
        &mut self,
        row: impl IntoIterator<Item = Option<&'a [u8]>>,
    ) -> Result<(), Error> {
        for (number, (column, value)) in self.columns.iter_mut().zip(row).enumerate() {
            self.bytes += value.map_or(1, <[u8]>::len);
            column.push(value).ok_or(Error::Unfaithful(number))?;
        }
        if self.bytes >= GROUP_BYTES { self.end_group() } else { Ok(()) }
    }

    /// Ends the file, and returns what it was written to; it is not synced.
    pub(crate) fn end(mut self) -> Result<W, Error> {
        if self.bytes > 0 {
            self.end_group()?;
        }
        Ok(self.file.into_inner()?)
    }

    fn end_group(&mut self) -> Result<(), Error> {
        let mut group = self.file.next_row_group()?;
        for column in &mut self.columns {
            column.write(&mut group)?;
        }
        group.close()?;
        self.bytes = 0;
        Ok(())
    }
}

/// The values of one column in the group that is gathered.
struct Column {
    kind: Kind,
    /// For each row 1 if it has a value, 0 if it is NULL: Parquet's definition levels.
    present: Vec<i16>,
    values: Values,
}

enum Values {
    Booleans(Vec<bool>),
    Integers(Vec<i32>),
    Bigints(Vec<i64>),
    Reals(Vec<f32>),
    Doubles(Vec<f64>),
    /// One behind the other, and where each ends.
    Bytes {
        data: Vec<u8>,
        ends: Vec<usize>,
    },
}

impl Column {
    fn new(kind: Kind) -> Column {
        let values = match kind {
            Kind::Boolean => Values::Booleans(Vec::new()),
            Kind::Integer { .. } | Kind::Date | Kind::Decimal { digits: 0..=9, .. } => {
                Values::Integers(Vec::new())
            }
            Kind::Bigint | Kind::Timestamp { .. } | Kind::Decimal { digits: 10..=18, .. } => {
                Values::Bigints(Vec::new())
            }
            Kind::Real => Values::Reals(Vec::new()),
            Kind::Double => Values::Doubles(Vec::new()),
            Kind::Decimal { .. } | Kind::Bytes | Kind::Text => {
                Values::Bytes { data: Vec::new(), ends: Vec::new() }
            }
        };
        Column { kind, present: Vec::new(), values }
    }

    /// Adds a value; `None` if the type cannot hold it.
    fn push(&mut self, value: Option<&[u8]>) -> Option<()> {
        self.present.push(i16::from(value.is_some()));
        let Some(bytes) = value else { return Some(()) };
        if let Values::Bytes { data, ends } = &mut self.values {
            match self.kind {
                Kind::Bytes => value::bytes(bytes, data)?,
                Kind::Decimal { digits, scale } => {
                    let number = value::decimal(std::str::from_utf8(bytes).ok()?, scale)?;
                    let n_bytes = Kind::decimal_bytes(digits)?;
                    data.extend_from_slice(&number.to_be_bytes()[16 - n_bytes..]);
                }
                _ => data.extend_from_slice(std::str::from_utf8(bytes).ok()?.as_bytes()),
            }
            ends.push(data.len());
            return Some(());
        }
        let text = std::str::from_utf8(bytes).ok()?;
        match (&mut self.values, self.kind) {
            (Values::Booleans(values), _) => values.push(value::boolean(text)?),
            (Values::Integers(values), Kind::Date) => values.push(value::date(text)?),
            (Values::Integers(values), Kind::Decimal { scale, .. }) => {
                values.push(value::decimal(text, scale)?.try_into().ok()?);
            }
            (Values::Integers(values), _) => values.push(text.parse().ok()?),
            (Values::Bigints(values), Kind::Timestamp { utc }) => {
                values.push(value::timestamp(text, utc)?);
            }
            (Values::Bigints(values), Kind::Decimal { scale, .. }) => {
                values.push(value::decimal(text, scale)?.try_into().ok()?);
            }
            (Values::Bigints(values), _) => values.push(text.parse().ok()?),
            // PostgreSQL writes NaN and Infinity as Rust reads them, and as many digits as make the same number again.
            (Values::Reals(values), _) => values.push(text.parse().ok()?),
            (Values::Doubles(values), _) => values.push(text.parse().ok()?),
            (Values::Bytes { .. }, _) => {}
        }
        Some(())
    }

    /// Writes what was gathered as the next column of a group, and forgets it.
    fn write<W: Write + Send>(
        &mut self,
        group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<(), ParquetError> {
        let Some(mut writer) = group.next_column()? else {
            return Err(ParquetError::General("a column too many".to_owned()));
        };
        let levels = Some(&self.present[..]);
        match (&mut self.values, writer.untyped()) {
            (Values::Booleans(values), ColumnWriter::BoolColumnWriter(to)) => {
                to.write_batch(values, levels, None)?;
                values.clear();
            }
            (Values::Integers(values), ColumnWriter::Int32ColumnWriter(to)) => {
                to.write_batch(values, levels, None)?;
                values.clear();
            }
            (Values::Bigints(values), ColumnWriter::Int64ColumnWriter(to)) => {
                to.write_batch(values, levels, None)?;
                values.clear();
            }
            (Values::Reals(values), ColumnWriter::FloatColumnWriter(to)) => {
                to.write_batch(values, levels, None)?;
                values.clear();
            }
            (Values::Doubles(values), ColumnWriter::DoubleColumnWriter(to)) => {
                to.write_batch(values, levels, None)?;
                values.clear();
            }
            (Values::Bytes { data, ends }, ColumnWriter::ByteArrayColumnWriter(to)) => {
                to.write_batch(&arrays(data, ends), levels, None)?;
            }
            (Values::Bytes { data, ends }, ColumnWriter::FixedLenByteArrayColumnWriter(to)) => {
                let arrays = arrays(data, ends).into_iter().map(FixedLenByteArray::from);
                to.write_batch(&arrays.collect::<Vec<_>>(), levels, None)?;
            }
            _ => return Err(ParquetError::General("a column of another type".to_owned())),
        }
        self.present.clear();
        writer.close()
    }
}

/// Takes values that stand one behind the other apart, without copying them.
fn arrays(data: &mut Vec<u8>, ends: &mut Vec<usize>) -> Vec<ByteArray> {
    let all = Bytes::from(std::mem::take(data));
    let mut start = 0;
    let arrays = ends.drain(..).map(|end| {
        let array = ByteArray::from(all.slice(start..end));
        start = end;
        array
    });
    arrays.collect()
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};

    use super::*;

    fn write(columns: &[(&str, Kind)], rows: &[Vec<Option<&str>>]) -> Result<Bytes, Error> {
        let mut writer = Writer::new(Vec::new(), columns)?;
        for row in rows {
            writer.push(row.iter().map(|value| value.map(str::as_bytes)))?;
        }
        Ok(Bytes::from(writer.end()?))
    }

    #[test]
    fn what_is_written_is_read() {
        let columns = [
            ("b", Kind::Boolean),
            ("i2", Kind::Integer { bits: 16 }),
            ("i8", Kind::Bigint),
            ("r", Kind::Real),
            ("d", Kind::Double),
            ("n9", Kind::Decimal { digits: 9, scale: 2 }),
            ("n18", Kind::Decimal { digits: 18, scale: 0 }),
            ("n38", Kind::Decimal { digits: 38, scale: 1 }),
            ("day", Kind::Date),
            ("ts", Kind::Timestamp { utc: true }),
            ("raw", Kind::Bytes),
            ("odd \"name\".x", Kind::Text),
        ];
        let full = [
            "t",
            "-7",
            "9223372036854775807",
            "1.5",
            "NaN",
            "-1.25",
            "123456789012345678",
            "-9999999999999999999999999999999999999.9",
            "2026-11-26",
            "2026-11-26 02:00:00+00",
            "\\x00ff",
            "ä\n\"\\",
        ];
        let rows = [full.map(Some).to_vec(), vec![None; columns.len()], full.map(Some).to_vec()];
        let file = write(&columns, &rows).unwrap();
        let reader = SerializedFileReader::new(file).unwrap();
        assert_eq!(reader.metadata().file_metadata().num_rows(), 3);
        let rows: Vec<_> =
            reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
        insta::assert_snapshot!(rows.join("\n"));
    }

    #[test]
    fn a_value_that_the_type_cannot_hold_names_its_column() {
        let columns = [("id", Kind::Bigint), ("at", Kind::Timestamp { utc: true })];
        let unfaithful = |at: &str| match write(&columns, &[vec![Some("1"), Some(at)]]) {
            Err(Error::Unfaithful(number)) => Some(number),
            _ => None,
        };
        assert_eq!(unfaithful("infinity"), Some(1));
        assert_eq!(unfaithful("2026-11-26 02:00:00+00"), None);
    }

    #[test]
    fn groups_are_bounded_and_none_is_empty() {
        let text = "x".repeat(1 << 20);
        let columns = [("text", Kind::Text)];
        let row = || vec![Some(text.as_str())];
        let groups = |n: usize| {
            let file = write(&columns, &vec![row(); n]).unwrap();
            SerializedFileReader::new(file).unwrap().num_row_groups()
        };
        assert_eq!([0, 1, 31, 32, 33, 64].map(groups), [0, 1, 1, 1, 2, 2]);
    }
}
