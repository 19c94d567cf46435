//! Reads one section of a TOML document: asks for keys by type and collects all that is wrong.
//!
//! It knows TOML and lines, and nothing of what the keys mean.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::value::quote;
use super::{Problem, Source};

/// A value and the line of its key.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) line: usize,
}

/// The document: translates offsets into lines and gathers the problems.
#[derive(Debug)]
pub(super) struct Document<'d> {
    pub(super) path: &'d Path,
    /// Where the lines end.
    ends: Vec<usize>,
    problems: RefCell<Vec<(usize, Problem)>>,
}

/// Every section's name and its keys, to recognise unknown ones.
pub(super) type Keys = &'static [(&'static str, &'static [&'static str])];

/// One table of the document.
#[derive(Clone, Debug)]
pub(super) struct Section<'d> {
    document: &'d Document<'d>,
    /// As it stands in the file, without brackets; empty at the top level.
    title: String,
    table: &'d DeTable<'d>,
}

impl<'d> Document<'d> {
    /// Begins with a file's text.
    pub(super) fn new(path: &'d Path, text: &str) -> Document<'d> {
        let ends =
            text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at).collect();
        Document { path, ends, problems: RefCell::default() }
    }

    /// Returns the line, from 1, of a byte offset.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.ends.partition_point(|end| *end < offset) + 1
    }

    /// Returns a line as a source.
    pub(super) fn source(&self, line: usize) -> Source {
        Source::File { path: self.path.to_owned(), line: Some(line) }
    }

    /// Notes a problem.
    pub(super) fn problem(&self, line: usize, message: impl AsRef<str>) {
        self.problems.borrow_mut().push((line, Problem::new(self.source(line), message)));
    }

    /// Returns the problems in the order of their lines.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|(line, _)| *line);
        problems.into_iter().map(|(_, problem)| problem).collect()
    }
}

impl<'d> Section<'d> {
    /// Opens a table and reports the keys that `kind` does not have.
    pub(super) fn open(
        document: &'d Document<'d>,
        title: String,
        table: &'d DeTable<'d>,
        kind: &str,
        keys: Keys,
    ) -> Section<'d> {
        let section = Section { document, title, table };
        let known = keys.iter().find(|(name, _)| *name == kind).map_or(&[][..], |(_, known)| known);
        for (key, _) in table {
            let offset = key.span().start;
            if !known.contains(&key.get_ref().as_ref()) {
                let advice = advice(key.get_ref(), known, keys);
                let (key, place) = (quote(key.get_ref()), section.place());
                let line = document.line(offset);
                document.problem(line, format!("unknown key {key} {place}: {advice}"));
            }
        }
        section
    }

    /// Opens a table whose keys are names that somebody chose.
    pub(super) fn of_names(
        document: &'d Document<'d>,
        title: String,
        table: &'d DeTable<'d>,
    ) -> Section<'d> {
        Section { document, title, table }
    }

    /// Returns the keys with their lines.
    pub(super) fn names(&self) -> Vec<At<&'d str>> {
        let line = |offset| self.document.line(offset);
        let names = self.table.iter().map(|(name, _)| (name.get_ref().as_ref(), name.span().start));
        names.map(|(value, offset)| At { value, line: line(offset) }).collect()
    }

    /// Returns a table below this one and the line where it begins.
    pub(super) fn table(&self, key: &str) -> Option<At<&'d DeTable<'d>>> {
        let At { value, line } = self.value(key)?;
        let table = value.as_table();
        if table.is_none() {
            self.wrong(key, line, "must be a section", value);
        }
        table.map(|value| At { value, line })
    }

    /// Returns the tables below `key` with their names, in the order of the file.
    pub(super) fn tables(&self, key: &str) -> Vec<(String, At<&'d DeTable<'d>>)> {
        let Some(outer) = self.table(key) else { return Vec::new() };
        let dot = if self.title.is_empty() { "" } else { "." };
        let section = format!("{}{dot}{key}", self.title);
        let mut tables = Vec::new();
        for (name, value) in outer.value {
            let line = self.document.line(name.span().start);
            match value.get_ref().as_table() {
                Some(value) => tables.push((name.get_ref().to_string(), At { value, line })),
                None => self.document.problem(
                    line,
                    format!(
                        "{} in [{section}] must be a section of its own: [{section}.NAME]",
                        quote(name.get_ref())
                    ),
                ),
            }
        }
        tables.sort_by_key(|(_, table)| table.line);
        tables
    }

    /// Returns the tables of a list such as `[[verify.query]]`, in the order of the file.
    pub(super) fn list_of_tables(&self, key: &str) -> Vec<At<&'d DeTable<'d>>> {
        let Some(At { value, line }) = self.value(key) else { return Vec::new() };
        let Some(array) = value.as_array() else {
            self.wrong(key, line, "must be a list of sections", value);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in array {
            let line = self.document.line(item.span().start);
            match item.get_ref().as_table() {
                Some(value) => tables.push(At { value, line }),
                None => self.wrong(key, line, "must be a list of sections", item.get_ref()),
            }
        }
        tables
    }

    /// Returns a number that may have a fraction.
    pub(super) fn decimal(&self, key: &str) -> Option<At<f64>> {
        let At { value, line } = self.value(key)?;
        let text = match value {
            DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str()),
            DeValue::Float(number) => Some(number.as_str()),
            _ => None,
        };
        let number = text.and_then(|text| text.replace('_', "").parse().ok());
        let number = number.filter(|number: &f64| number.is_finite());
        if number.is_none() {
            self.wrong(key, line, "must be a number", value);
        }
        number.map(|value| At { value, line })
    }

    /// Returns a number, or a string that `parse` makes one of.
    pub(super) fn amount(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<f64, String>,
    ) -> Option<At<f64>> {
        match self.value(key)?.value {
            DeValue::String(_) => self.parsed(key, parse),
            _ => self.decimal(key),
        }
    }

    /// Returns a string, read by `parse`; its complaint is preceded by the key.
    pub(super) fn parsed<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<At<T>> {
        let At { value, line } = self.value(key)?;
        let Some(text) = value.as_str() else {
            self.wrong(key, line, "must be a string", value);
            return None;
        };
        match parse(text) {
            Ok(value) => Some(At { value, line }),
            Err(complaint) => {
                self.complain(key, line, &complaint);
                None
            }
        }
    }

    /// Returns a path; a relative one is relative to the file.
    pub(super) fn path(&self, key: &str) -> Option<At<PathBuf>> {
        self.parsed(key, |text| {
            absolute(text, self.document.path.parent().unwrap_or(Path::new("/")))
        })
    }

    /// Returns a list of strings, each read by `parse`.
    pub(super) fn strings(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<String, String>,
    ) -> Option<At<Vec<String>>> {
        let At { value, line } = self.value(key)?;
        let Some(array) = value.as_array() else {
            self.wrong(key, line, "must be a list of strings", value);
            return None;
        };
        let mut list = Vec::new();
        for item in array {
            let line = self.document.line(item.span().start);
            match item.get_ref().as_str().map(&parse) {
                Some(Ok(text)) => list.push(text),
                Some(Err(complaint)) => self.complain(key, line, &complaint),
                None => self.wrong(key, line, "must be a list of strings", item.get_ref()),
            }
        }
        Some(At { value: list, line })
    }

    /// Returns a whole number.
    pub(super) fn number(&self, key: &str, range: RangeInclusive<u32>) -> Option<At<u32>> {
        let At { value, line } = self.value(key)?;
        let number = value.as_integer().and_then(|number| {
            let number = u32::from_str_radix(number.as_str(), number.radix()).ok()?;
            range.contains(&number).then_some(number)
        });
        if number.is_none() {
            let must = match *range.end() {
                u32::MAX => format!("must be a whole number from {} up", range.start()),
                most => format!("must be a whole number from {} to {most}", range.start()),
            };
            match value.as_integer() {
                Some(number) => {
                    self.complain(key, line, &format!("{must}, not {}", number.as_str()));
                }
                None => self.wrong(key, line, &must, value),
            }
        }
        number.map(|value| At { value, line })
    }

    /// Returns a boolean.
    pub(super) fn boolean(&self, key: &str) -> Option<At<bool>> {
        let At { value, line } = self.value(key)?;
        let boolean = value.as_bool();
        if boolean.is_none() {
            self.wrong(key, line, "must be true or false", value);
        }
        boolean.map(|value| At { value, line })
    }

    /// Tells whether the key is there, whatever its value.
    pub(super) fn line_of(&self, key: &str) -> Option<usize> {
        self.value(key).map(|at| at.line)
    }

    /// Notes a problem with `key`. The complaint begins with a verb, or with what it is about in back-ticks.
    pub(super) fn complain(&self, key: &str, line: usize, complaint: &str) {
        let joint = if complaint.starts_with('`') { ": " } else { " " };
        self.document.problem(line, format!("`{key}`{}{joint}{complaint}", self.within()));
    }

    fn value(&self, key: &str) -> Option<At<&'d DeValue<'d>>> {
        let (name, value) = self.table.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(At { value: value.get_ref(), line: self.document.line(name.span().start) })
    }

    fn wrong(&self, key: &str, line: usize, must: &str, value: &DeValue<'_>) {
        let is = match value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a section",
        };
        self.document.problem(line, format!("`{key}`{} {must}, not {is}", self.within()));
    }

    fn within(&self) -> String {
        if self.title.is_empty() { String::new() } else { format!(" in [{}]", self.title) }
    }

    fn place(&self) -> String {
        if self.title.is_empty() {
            "at the top level".to_owned()
        } else {
            format!("in [{}]", self.title)
        }
    }
}

/// Makes a path absolute; `~` is refused, because only a shell expands it.
pub(super) fn absolute(text: &str, base: &Path) -> Result<PathBuf, String> {
    if text.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    if text == "~" || text.starts_with("~/") {
        return Err(format!("{}: only a shell knows `~`: write the path in full", quote(text)));
    }
    let joined = base.join(text);
    Ok(joined.components().filter(|part| *part != Component::CurDir).collect())
}

/// Says what may have been meant by an unknown key.
fn advice(key: &str, known: &[&str], keys: Keys) -> String {
    let nearest = known.iter().map(|name| (distance(key, name), name)).min();
    if let Some((_, name)) = nearest.filter(|(distance, name)| *distance <= 1 + name.len() / 4) {
        return format!("did you mean `{name}`?");
    }
    match keys.iter().find(|(_, known)| known.contains(&key)) {
        Some(("", _)) => "it belongs at the top, before the first section".to_owned(),
        Some((section, _)) => format!("it belongs in [{section}]"),
        None => format!("known are {}", known.join(", ")),
    }
}

/// Counts the letters to insert, remove or replace to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
