//! What kinds of objects a table of contents lists, how many of each, and the fingerprint of their definitions.
//!
//! Taken from pg_dump's own word when a backup is taken, and again from a restored database: an index that is
//! missing or a sequence that is behind shows without any of the two being in doubt. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::backup::manifest::Objects;
use crate::backup::rows::Rows;
use crate::backup::toc::{self, Entry};

/// By kind, as pg_dump names kinds: `TABLE`, `INDEX`, `SEQUENCE SET`.
pub(crate) type ByKind = BTreeMap<String, Objects>;

/// Sums up a table of contents.
///
/// The database itself is left out, with what is said about it: it may have another name after a restore.
pub(crate) fn sum_up(toc: &[u8]) -> Result<ByKind, toc::Error> {
    let mut sums: BTreeMap<String, Rows> = BTreeMap::new();
    let mut reader = toc::Reader::open(toc)?;
    while let Some(entry) = reader.next_entry()? {
        if !is_about_the_database(&entry) && !is_setting(&entry) {
            sums.entry(entry.kind.clone()).or_default().add(&text(&entry));
        }
    }
    let objects = |rows: Rows| Objects { count: rows.count, digest: rows.digest };
    Ok(sums.into_iter().map(|(kind, rows)| (kind, objects(rows))).collect())
}

/// Names the objects of one kind that are not the same in two tables of contents.
///
/// Says of each whether the second has it not at all, otherwise, or alone.
pub(crate) fn differences(
    expected: &[u8],
    found: &[u8],
    kind: &str,
) -> Result<Vec<String>, toc::Error> {
    let read = |toc: &[u8]| -> Result<BTreeMap<String, Vec<Vec<u8>>>, toc::Error> {
        let mut texts: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        let mut reader = toc::Reader::open(toc)?;
        while let Some(entry) = reader.next_entry()? {
            if entry.kind == kind && !is_about_the_database(&entry) {
                texts.entry(name(&entry)).or_default().push(text(&entry));
            }
        }
        for texts in texts.values_mut() {
            texts.sort_unstable();
        }
        Ok(texts)
    };
    let (expected, found) = (read(expected)?, read(found)?);
    let names: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let differ = names.into_iter().filter_map(|name| match (expected.get(name), found.get(name)) {
        (Some(expected), Some(found)) => (expected != found).then(|| format!("{name} differs")),
        (Some(_), None) => Some(format!("{name} is missing")),
        (None, _) => Some(format!("{name} was not dumped")),
    });
    Ok(differ.collect())
}

/// Returns an object's name for people, such as `public.members`.
fn name(entry: &Entry) -> String {
    let tag = String::from_utf8_lossy(&entry.tag);
    if entry.namespace.is_empty() {
        return tag.into_owned();
    }
    format!("{}.{tag}", String::from_utf8_lossy(&entry.namespace))
}

/// Is it the database, or something said about it as a whole?
pub(crate) fn is_about_the_database(entry: &Entry) -> bool {
    match entry.kind.as_str() {
        "DATABASE" | "DATABASE PROPERTIES" => true,
        "ACL" | "COMMENT" | "SECURITY LABEL" => entry.tag.starts_with(b"DATABASE "),
        _ => false,
    }
}

/// Is it a setting of the session that restores?
fn is_setting(entry: &Entry) -> bool {
    matches!(entry.kind.as_str(), "ENCODING" | "STDSTRINGS" | "SEARCHPATH")
}

/// Returns all that makes an object what it is. Numbers of entries and oids are not part of it.
fn text(entry: &Entry) -> Vec<u8> {
    let mut definition = entry.definition.clone();
    // The server keeps grants and the roles of a policy in the order in which they came.
    if matches!(entry.kind.as_str(), "ACL" | "DEFAULT ACL" | "POLICY") {
        let mut words: Vec<_> = definition.split(|b| b" ,\n".contains(b)).collect();
        words.sort_unstable();
        definition = words.join(&b' ');
    }
    [&entry.namespace, &entry.tag, &entry.owner, &definition, &entry.copy_statement]
        .map(Vec::as_slice)
        .join(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, tag: &str, definition: &str) -> Entry {
        let mut entry = Entry::default();
        entry.kind = kind.to_owned();
        entry.tag = tag.into();
        entry.definition = definition.into();
        entry
    }

    #[test]
    fn the_order_of_grants_does_not_matter_and_all_else_does() {
        let one = entry("ACL", "TABLE t", "GRANT SELECT ON t TO a;\nGRANT SELECT ON t TO b;\n");
        let other = entry("ACL", "TABLE t", "GRANT SELECT ON t TO b;\nGRANT SELECT ON t TO a;\n");
        assert_eq!(text(&one), text(&other));
        let behind = entry("SEQUENCE SET", "s", "SELECT pg_catalog.setval('s', 4, true);\n");
        let ahead = entry("SEQUENCE SET", "s", "SELECT pg_catalog.setval('s', 5, true);\n");
        assert_ne!(text(&behind), text(&ahead));
        let mut owned = behind.clone();
        owned.owner = b"o".to_vec();
        assert_ne!(text(&behind), text(&owned));
    }

    #[test]
    fn the_database_itself_is_left_out() {
        assert!(is_about_the_database(&entry("ACL", "DATABASE ip2a", "")));
        assert!(is_about_the_database(&entry("DATABASE PROPERTIES", "ip2a", "")));
        assert!(!is_about_the_database(&entry("COMMENT", "TABLE \"DATABASE x\"", "")));
    }
}
