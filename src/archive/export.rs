//! Archived rows of a time as NDJSON or CSV, for somebody who may see them, or some of their columns.

use std::io::Write;

use anyhow::Context as _;

use crate::archive::folder::Folder;
use crate::archive::line::Shape;
use crate::archive::manifest::Manifest;
use crate::archive::parquet::value::{date, timestamp};
use crate::archive::row::{Column, Row};
use crate::archive::source::positions;
use crate::archive::verify::{self, Finding};
use crate::clock::Moment;
use crate::exit::{Exit, Failure};
use crate::stop::Stop;

/// What stands in the place of every value of a column that is redacted, also of NULL.
const REDACTED: &[u8] = b"[redacted]";

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As the evidence has them.
    Ndjson,
    /// As `COPY … (FORMAT csv, HEADER)` writes them.
    Csv,
}

/// Which rows, and what of them.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) from: Option<Moment>,
    /// From then on no more.
    pub(crate) to: Option<Moment>,
    pub(crate) redact: Vec<String>,
    pub(crate) form: Form,
}

/// Writes rows of one segment after the other.
pub(crate) struct Export<'e, W> {
    wanted: &'e Wanted,
    to: W,
    /// Those of the first segment.
    columns: Option<Vec<Column>>,
    rows: u64,
}

impl<'e, W: Write> Export<'e, W> {
    pub(crate) fn new(wanted: &'e Wanted, to: W) -> Export<'e, W> {
        Export { wanted, to, columns: None, rows: 0 }
    }

    /// Adds the rows of a segment, all of which is verified. After a finding what was written counts for nothing.
    pub(crate) fn add(
        &mut self,
        folder: &Folder,
        name: &str,
        manifest: &Manifest,
        stop: &Stop,
    ) -> anyhow::Result<Option<Finding>> {
        let columns = &manifest.columns;
        let is_csv = self.wanted.form == Form::Csv;
        match &self.columns {
            None => {
                if is_csv {
                    let mut header = Row::default();
                    for column in columns {
                        header.push(Some(column.name.as_bytes()));
                    }
                    self.to.write_all(&csv(&header)).context("failed to write")?;
                }
                self.columns = Some(columns.clone());
            }
            Some(first) if is_csv && first != columns => {
                let message = format!("segment {name} has other columns than those before");
                let failure = Failure::new(Exit::Usage, message);
                return Err(failure
                    .hint("Export it by itself (--from, --to), or as ndjson.")
                    .into());
            }
            Some(_) => {}
        }
        let hidden = positions(columns, &self.wanted.redact);
        let time = positions(columns, std::slice::from_ref(&manifest.time_column));
        let time = time.first().copied().context("the time column is none of the columns")?;
        let (shape, mut shown, mut text) = (Shape::of(columns), Row::default(), Vec::new());
        let findings = verify::rows_seen(folder, name, manifest, stop, |line, row| {
            if !self.wanted.has(row.get(time)) {
                return Ok(());
            }
            self.rows += 1;
            let row = if hidden.is_empty() {
                row
            } else {
                shown.clear();
                for (n, value) in row.values().enumerate() {
                    shown.push(if hidden.contains(&n) { Some(REDACTED) } else { value });
                }
                &shown
            };
            text.clear();
            match self.wanted.form {
                Form::Csv => text = csv(row),
                Form::Ndjson if hidden.is_empty() => text.extend_from_slice(line),
                Form::Ndjson => shape.write(row, &mut text)?,
            }
            if !is_csv {
                text.push(b'\n');
            }
            self.to.write_all(&text).context("failed to write")
        })?;
        Ok(findings.into_iter().next())
    }

    /// Returns how many rows there are.
    pub(crate) fn end(mut self) -> anyhow::Result<u64> {
        self.to.flush().context("failed to write")?;
        Ok(self.rows)
    }
}

impl Wanted {
    /// Is this a time that is asked for? One that cannot be read, such as infinity, is.
    fn has(&self, time: Option<&[u8]>) -> bool {
        let text = time.and_then(|time| std::str::from_utf8(time).ok()).unwrap_or_default();
        let of_day = |day: i32| i64::from(day) * 86_400_000_000;
        let micros = timestamp(text, true).or_else(|| timestamp(text, false));
        let micros = micros.or_else(|| date(text).map(of_day));
        micros.is_none_or(|micros| {
            self.from.is_none_or(|from| from.timestamp_micros() <= micros)
                && self.to.is_none_or(|to| micros < to.timestamp_micros())
        })
    }
}

/// Writes a row as COPY does: NULL is nothing, an empty text is quoted, and so is what would not be read as it is.
fn csv(row: &Row) -> Vec<u8> {
    let mut line = Vec::new();
    for (n, value) in row.values().enumerate() {
        if n > 0 {
            line.push(b',');
        }
        let Some(value) = value else { continue };
        let special = |byte: &u8| matches!(byte, b',' | b'"' | b'\n' | b'\r');
        if !value.is_empty() && value != b"\\." && !value.iter().any(special) {
            line.extend_from_slice(value);
            continue;
        }
        line.push(b'"');
        for byte in value {
            if *byte == b'"' {
                line.push(b'"');
            }
            line.push(*byte);
        }
        line.push(b'"');
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_written_as_copy_writes_it() {
        let mut row = Row::default();
        for value in [Some("a"), None, Some(""), Some("x,\"y\"\n"), Some("\\."), Some(" ")] {
            row.push(value.map(str::as_bytes));
        }
        let text = String::from_utf8(csv(&row)).unwrap();
        assert_eq!(text, "a,,\"\",\"x,\"\"y\"\"\n\",\"\\.\", \n");
    }

    #[test]
    fn a_time_is_in_the_time_that_is_asked_for_whatever_type_it_has() {
        let at = |text: &str| Some(text.parse::<Moment>().unwrap());
        let wanted = Wanted {
            from: at("2024-03-05T10:00:00Z"),
            to: at("2024-03-06T00:00:00Z"),
            redact: Vec::new(),
            form: Form::Csv,
        };
        for (text, is_in) in [
            ("2024-03-05 09:59:59.999999+00", false),
            ("2024-03-05 10:00:00+00", true),
            ("2024-03-05 23:59:59.999999", true),
            ("2024-03-06 00:00:00", false),
            ("2024-03-05", false),
            ("0044-03-15 12:00:00+00 BC", false),
            ("infinity", true),
        ] {
            assert_eq!(wanted.has(Some(text.as_bytes())), is_in, "{text}");
        }
    }
}
