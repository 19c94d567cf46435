//! One row as one line of the evidence: a JSON object with a string or null for each column, in the order of the columns.
//!
//! A string is PostgreSQL's own text of the value, so nothing is rounded, and no type has to be known to read it.
//! Written and read here and not by a JSON library, because every row goes through it twice, and because only one way to write a row is right.

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

/// The lines of a table with these columns. There is one line for a row, and nothing else is read as one.
pub(crate) struct Shape {
    columns: Vec<String>,
    /// What stands before each value: a brace or a comma, and the column's name.
    before: Vec<Vec<u8>>,
}

impl Shape {
    pub(crate) fn of(columns: &[Column]) -> Shape {
        let columns: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        let before = columns.iter().enumerate().map(|(n, name)| {
            let mut before = vec![if n == 0 { b'{' } else { b',' }];
            string(name.as_bytes(), &mut before);
            before.push(b':');
            before
        });
        let before = before.collect();
        Shape { columns, before }
    }

    /// Appends the line of a row, without a line feed.
    pub(crate) fn write(&self, row: &Row, line: &mut Vec<u8>) -> Result<(), Error> {
        if row.len() != self.before.len() {
            return Err(Error::Columns { found: row.len(), wanted: self.before.len() });
        }
        let start = line.len();
        for (before, value) in self.before.iter().zip(row.values()) {
            line.extend_from_slice(before);
            match value {
                None => line.extend_from_slice(b"null"),
                Some(text) => string(text, line),
            }
        }
        line.push(b'}');
        // Between two values are ASCII characters, so no value can complete another one's.
        if line.get(start..).is_some_and(|line| std::str::from_utf8(line).is_err()) {
            let is_odd = |value: Option<&[u8]>| {
                value.is_some_and(|value| std::str::from_utf8(value).is_err())
            };
            let odd = row.values().position(is_odd).and_then(|n| self.columns.get(n));
            return Err(Error::Encoding(odd.cloned().unwrap_or_default()));
        }
        Ok(())
    }

    /// Reads a line back into a row, if it is one that `write` writes.
    pub(crate) fn read(&self, line: &[u8], row: &mut Row) -> Option<()> {
        row.clear();
        std::str::from_utf8(line).ok()?;
        let mut rest = line;
        for before in &self.before {
            rest = rest.strip_prefix(before.as_slice())?;
            rest = if let Some(rest) = rest.strip_prefix(b"null") {
                row.push(None);
                rest
            } else {
                let rest = rest.strip_prefix(b"\"")?;
                row.push_with(|value| unescaped(rest, value))?
            };
        }
        (rest == b"}").then_some(())
    }
}

/// Appends a JSON string: `"`, `\` and the characters below U+0020 are escaped, nothing else.
fn string(text: &[u8], to: &mut Vec<u8>) {
    to.push(b'"');
    let mut plain = 0;
    for (n, byte) in text.iter().enumerate() {
        if *byte >= b' ' && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        to.extend_from_slice(&text[plain..n]);
        plain = n + 1;
        to.push(b'\\');
        match SHORT.iter().find(|(_, escaped)| escaped == byte) {
            Some((letter, _)) => to.push(*letter),
            None => to.extend_from_slice(format!("u{byte:04x}").as_bytes()),
        }
    }
    to.extend_from_slice(&text[plain..]);
    to.push(b'"');
}

/// The escapes that have a letter: RFC 8259, section 7, but for `/`.
const SHORT: [(u8, u8); 7] = [
    (b'"', b'"'),
    (b'\\', b'\\'),
    (b'n', b'\n'),
    (b't', b'\t'),
    (b'r', b'\r'),
    (b'b', 8),
    (b'f', 12),
];

/// Appends what a JSON string says whose first quote was read; returns what follows the last one.
fn unescaped<'l>(mut line: &'l [u8], to: &mut Vec<u8>) -> Option<&'l [u8]> {
    loop {
        let at = memchr::memchr2(b'"', b'\\', line)?;
        let plain = &line[..at];
        if plain.iter().any(|byte| *byte < b' ') {
            return None;
        }
        to.extend_from_slice(plain);
        if line[at] == b'"' {
            return Some(&line[at + 1..]);
        }
        let letter = *line.get(at + 1)?;
        line = &line[at + 2..];
        if letter == b'u' {
            let (digits, rest) = line.split_at_checked(4)?;
            let code = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
            let has_letter = SHORT.iter().any(|(_, escaped)| *escaped == code);
            let is_as_written = digits == format!("{code:04x}").as_bytes();
            if code >= b' ' || has_letter || !is_as_written {
                return None;
            }
            to.push(code);
            line = rest;
        } else {
            to.push(SHORT.iter().find(|(short, _)| *short == letter)?.1);
        }
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

    fn shape(names: &[&str]) -> Shape {
        let column =
            |name: &&str| Column { name: (*name).to_owned(), type_name: "text".to_owned() };
        Shape::of(&names.iter().map(column).collect::<Vec<_>>())
    }

    #[test]
    fn a_line_is_the_documented_one() {
        let mut row = Row::default();
        row.read("7\t\\N\tä \"x\" \\\\ \\n\u{1}\n".as_bytes()).unwrap();
        let mut line = Vec::new();
        shape(&["id", "b", "say \"c\""]).write(&row, &mut line).unwrap();
        let expected = r#"{"id":"7","b":null,"say \"c\"":"ä \"x\" \\ \n\u0001"}"#;
        assert_eq!(String::from_utf8(line).unwrap(), expected);
    }

    #[test]
    fn what_json_cannot_say_names_its_column() {
        let mut row = Row::default();
        row.read(b"1\t\xff").unwrap();
        let error = shape(&["id", "raw"]).write(&row, &mut Vec::new()).unwrap_err();
        assert_eq!(error, Error::Encoding("raw".to_owned()));
        row.read(b"1").unwrap();
        shape(&["id", "raw"]).write(&row, &mut Vec::new()).unwrap_err();
    }

    #[test]
    fn other_columns_or_another_order_are_no_row_of_the_table() {
        let shape = shape(&["a", "b"]);
        let mut row = Row::default();
        assert!(shape.read(br#"{"a":"1","b":null}"#, &mut row).is_some());
        for wrong in [
            r#"{"b":null,"a":"1"}"#,
            r#"{"a":"1"}"#,
            r#"{"a":"1","b":null,"c":"2"}"#,
            r#"{"a":1,"b":null}"#,
            r#"{"a":["1"],"b":null}"#,
            r#"{"a":"1","b":null} x"#,
            r#"{"a": "1","b":null}"#,
            r#"{"a":"1","b":nul}"#,
            r#"{"a":"1","b":"2}"#,
            r#"{"a":"\u0041","b":null}"#,
            r#"{"a":"\u000a","b":null}"#,
            r#"{"a":"\u001F","b":null}"#,
            r#"{"a":"\u00","b":null}"#,
            r#"{"a":"\/","b":null}"#,
            "{\"a\":\"\t\",\"b\":null}",
            r#"{"a":"1\"#,
            "[]",
            "",
        ] {
            assert_eq!(shape.read(wrong.as_bytes(), &mut row), None, "{wrong}");
        }
    }

    /// Often with characters that are escaped.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "[\\x00-\\x23\\\\é]{0,20}"]
    }

    proptest! {
        #[test]
        fn every_text_comes_back_also_through_json(values in proptest::collection::vec(text(), 2)) {
            let mut row = Row::default();
            let escaped = |text: &String| text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n");
            row.read(values.iter().map(escaped).collect::<Vec<_>>().join("\t").as_bytes()).unwrap();
            let (shape, mut line) = (shape(&["a", "b"]), Vec::new());
            shape.write(&row, &mut line).unwrap();
            prop_assert!(!line.contains(&b'\n'));
            let json: serde_json::Value = serde_json::from_slice(&line).unwrap();
            prop_assert_eq!(json, serde_json::json!({"a": values[0], "b": values[1]}));
            shape.read(&line, &mut row).unwrap();
            let read: Vec<_> = row.values().map(|v| v.map(|v| String::from_utf8(v.to_vec()).unwrap())).collect();
            prop_assert_eq!(read, values.into_iter().map(Some).collect::<Vec<_>>());
        }
    }
}
