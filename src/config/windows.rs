//! `[windows]`: the maintenance windows of the file. When one is open is none of its business.

use std::collections::BTreeMap;

use super::section::{At, Document, Section};
use super::{ANY_WINDOW, value};
use crate::window::Window;

/// Reads the section, if there is one.
pub(super) fn read(
    document: &Document<'_>,
    top: &Section<'_>,
) -> BTreeMap<String, At<Option<Window>>> {
    let Some(table) = top.table("windows") else { return BTreeMap::new() };
    let section = Section::of_names(document, "windows".to_owned(), table.value);
    let mut windows = BTreeMap::new();
    for At { value: name, line } in section.names() {
        if let Err(complaint) = value::check_name(name) {
            document.problem(line, complaint);
        } else if name == ANY_WINDOW {
            section.complain(name, line, "stands for all of them: choose another name");
        } else if let Some(window) = section.parsed(name, |text| match text {
            "off" => Ok(None),
            text => text.parse().map(Some),
        }) {
            windows.insert(name.to_owned(), window);
        }
    }
    windows
}
