//! One row as one line of the evidence: a JSON object with a string or null for each column, in the order of the columns.
//!
//! A string is PostgreSQL's own text of the value, so nothing is rounded, and no type has to be known to read it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use twox_hash::XxHash3_128;

use crate::archive::row::{Column, Row};

/// Why a row has no line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("a row has {found} values where {wanted} are expected")]
    Columns { found: usize, wanted: usize },
    /// Of a database in SQL_ASCII; JSON has no way to say it.
    #[error("column `{0}` holds a value that is not valid UTF-8")]
    Encoding(String),
}

/// Appends the line of a row, without a line feed.
pub(crate) fn write(columns: &[Column], row: &Row, line: &mut Vec<u8>) -> Result<(), Error> {
    if row.len() != columns.len() {
        return Err(Error::Columns { found: row.len(), wanted: columns.len() });
    }
    line.push(b'{');
    for (n, (column, value)) in columns.iter().zip(row.values()).enumerate() {
        if n > 0 {
            line.push(b',');
        }
        string(&column.name, line);
        line.push(b':');
        match value {
            None => line.extend_from_slice(b"null"),
            Some(bytes) => {
                let text = std::str::from_utf8(bytes);
                string(text.map_err(|_| Error::Encoding(column.name.clone()))?, line);
            }
        }
    }
    line.push(b'}');
    Ok(())
}

/// Appends a JSON string: `"`, `\` and the characters below U+0020 are escaped, nothing else.
fn string(text: &str, line: &mut Vec<u8>) {
    // Writing a string into memory cannot fail.
    serde_json::to_writer(line, text).ok();
}

/// Reads a line back into a row, if it has exactly these columns in this order.
pub(crate) fn read(columns: &[Column], line: &[u8], row: &mut Row) -> Option<()> {
    row.clear();
    let mut reader = serde_json::Deserializer::from_slice(line);
    let is_whole = reader.deserialize_map(Fields { columns, row }).ok()?;
    reader.end().ok().filter(|()| is_whole)
}

/// Takes an object whose names are those of the columns; the answer is whether they are.
struct Fields<'f> {
    columns: &'f [Column],
    row: &'f mut Row,
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<bool, M::Error> {
        for column in self.columns {
            if map.next_key_seed(Is(&column.name))? != Some(true) {
                return Ok(false);
            }
            map.next_value_seed(Into(self.row))?;
        }
        Ok(map.next_key_seed(Is(""))?.is_none())
    }
}

/// Is a string this one? Nothing is allocated for the answer.
struct Is<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a column")
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        Ok(text == self.0)
    }
}

/// Adds a string or null to a row.
struct Into<'r>(&'r mut Row);

impl<'de> DeserializeSeed<'de> for Into<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl Visitor<'_> for Into<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or null")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.push(Some(text.as_bytes()));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.push(None);
        Ok(())
    }
}

/// Returns a fingerprint of a row's key, by which it is recognised.
pub(crate) fn fingerprint<'v>(key: impl Iterator<Item = Option<&'v [u8]>>) -> u128 {
    let mut bytes = Vec::new();
    for value in key {
        let length = value.map_or(u64::MAX, |value| value.len() as u64);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(value.unwrap_or_default());
    }
    XxHash3_128::oneshot(&bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn columns(names: &[&str]) -> Vec<Column> {
        let column =
            |name: &&str| Column { name: (*name).to_owned(), type_name: "text".to_owned() };
        names.iter().map(column).collect()
    }

    #[test]
    fn a_line_is_the_documented_one() {
        let mut row = Row::default();
        row.read("7\t\\N\tä \"x\" \\\\ \\n\u{1}\n".as_bytes()).unwrap();
        let mut line = Vec::new();
        write(&columns(&["id", "b", "say \"c\""]), &row, &mut line).unwrap();
        let expected = r#"{"id":"7","b":null,"say \"c\"":"ä \"x\" \\ \n\u0001"}"#;
        assert_eq!(String::from_utf8(line).unwrap(), expected);
    }

    #[test]
    fn what_json_cannot_say_names_its_column() {
        let mut row = Row::default();
        row.read(b"1\t\xff").unwrap();
        let error = write(&columns(&["id", "raw"]), &row, &mut Vec::new()).unwrap_err();
        assert_eq!(error, Error::Encoding("raw".to_owned()));
        row.read(b"1").unwrap();
        write(&columns(&["id", "raw"]), &row, &mut Vec::new()).unwrap_err();
    }

    #[test]
    fn other_columns_or_another_order_are_no_row_of_the_table() {
        let columns = columns(&["a", "b"]);
        let mut row = Row::default();
        assert!(read(&columns, br#"{"a":"1","b":null}"#, &mut row).is_some());
        for wrong in [
            r#"{"b":null,"a":"1"}"#,
            r#"{"a":"1"}"#,
            r#"{"a":"1","b":null,"c":"2"}"#,
            r#"{"a":1,"b":null}"#,
            r#"{"a":["1"],"b":null}"#,
            r#"{"a":"1","b":null} x"#,
            "[]",
            "",
        ] {
            assert_eq!(read(&columns, wrong.as_bytes(), &mut row), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_text_comes_back(values in proptest::collection::vec(any::<String>(), 2)) {
            let mut row = Row::default();
            let escaped = |text: &String| text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n");
            row.read(values.iter().map(escaped).collect::<Vec<_>>().join("\t").as_bytes()).unwrap();
            let (columns, mut line) = (columns(&["a", "b"]), Vec::new());
            write(&columns, &row, &mut line).unwrap();
            prop_assert!(!line.contains(&b'\n'));
            read(&columns, &line, &mut row).unwrap();
            let read: Vec<_> = row.values().map(|v| v.map(|v| String::from_utf8(v.to_vec()).unwrap())).collect();
            prop_assert_eq!(read, values.into_iter().map(Some).collect::<Vec<_>>());
        }
    }
}
