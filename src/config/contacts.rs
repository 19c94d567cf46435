//! `[contacts]`: who is called, under names of the file's own; the runbooks have places for them. Nobody is called from here.

use std::collections::BTreeMap;

use toml::de::DeTable;

use super::find::Found;
use super::resolve::Merge;
use super::section::{At, Document, Section};
use super::{Contacts, Error, file, value};

/// What the file says.
pub(super) type ContactsEntry = BTreeMap<String, At<String>>;

/// Reads the section, if there is one.
pub(super) fn read(document: &Document<'_>, top: &Section<'_>) -> ContactsEntry {
    let Some(table) = top.table("contacts") else { return BTreeMap::new() };
    let section = Section::of_names(document, "contacts".to_owned(), table.value);
    let mut contacts = BTreeMap::new();
    for At { value: name, line } in section.names() {
        if let Err(complaint) = value::check_name(name) {
            document.problem(line, complaint);
        } else if let Some(text) = section.parsed(name, one_line) {
            contacts.insert(name.to_owned(), text);
        }
    }
    contacts
}

/// Reads that section alone: who is called has to be known also while something else of the file is wrong.
pub(super) fn only(found: &Found) -> Result<Contacts, Error> {
    let document = Document::new(&found.path, &found.text);
    let table = file::table(&document, &found.text)?;
    let table: &DeTable<'_> = table.get_ref();
    let entry = read(&document, &Section::of_names(&document, String::new(), table));
    Error::unless_empty(document.into_problems())?;
    Ok(entry.into_iter().map(|(name, at)| (name, at.value)).collect())
}

/// A page has it in the middle of a line.
fn one_line(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("is empty".to_owned()),
        text if text.contains(char::is_control) => Err("must be one line".to_owned()),
        text => Ok(text.to_owned()),
    }
}

impl Merge<'_> {
    /// Returns who is called.
    pub(super) fn contacts(&mut self) -> Contacts {
        let mut contacts = Contacts::new();
        for (name, At { value, line }) in &self.file.contacts {
            self.note(format!("contacts.{name}"), self.file.source(*line));
            contacts.insert(name.clone(), value.clone());
        }
        contacts
    }
}
