//! Which entries of a table of contents are restored. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::backup::objects::is_about_the_database;
use crate::backup::restore::database::Like;
use crate::backup::restore::sql::rename_database;
use crate::backup::toc::{self, Entry};
use crate::db::quote_identifier;

/// The whole table of contents, read.
#[derive(Debug)]
pub(crate) struct Contents {
    /// As it was read.
    pub(crate) toc: Vec<u8>,
    pub(crate) entries: Vec<Entry>,
    /// The encoding of the rows.
    pub(crate) encoding: String,
}

impl Contents {
    /// Reads a table of contents.
    pub(crate) fn read(toc: Vec<u8>) -> Result<Contents, toc::Error> {
        let mut reader = toc::Reader::open(toc.as_slice())?;
        let (mut entries, mut encoding) = (Vec::new(), "UTF8".to_owned());
        while let Some(entry) = reader.next_entry()? {
            if entry.kind == "ENCODING" {
                // SET client_encoding = 'UTF8';
                let text = String::from_utf8_lossy(&entry.definition).into_owned();
                encoding = text.split('\'').nth(1).map_or(encoding, str::to_owned);
            }
            entries.push(entry);
        }
        Ok(Contents { toc, entries, encoding })
    }

    /// Chooses what to restore, by the numbers of entries; an error says which name means nothing.
    ///
    /// A table that is named comes with all that is its own (partitions, rows, indexes, constraints, triggers,
    /// privileges) and all that it needs (schema, types, functions, sequences), but without foreign keys to tables
    /// that are not named.
    pub(crate) fn choose(&self, selection: &Selection) -> Result<BTreeSet<i32>, String> {
        let whole = selection.tables.is_empty() && selection.schemas.is_empty();
        let mut chosen = if whole {
            self.whole()
        } else {
            self.with_what_it_takes(self.with_partitions(self.named(selection)?))
        };
        for entry in &self.entries {
            if is_about_the_database(entry) || (selection.schema_only && is_data(entry)) {
                chosen.remove(&entry.dump_id);
            }
        }
        Ok(chosen)
    }

    /// Chooses everything that is inside the database.
    pub(crate) fn whole(&self) -> BTreeSet<i32> {
        let inside = self.entries.iter().filter(|entry| !is_about_the_database(entry));
        inside.map(|entry| entry.dump_id).collect()
    }

    /// Leaves out what holds only if all rows are there: foreign keys, and queries whose result is kept; and what is
    /// said about these.
    pub(crate) fn without_relations_between_rows(&self, chosen: &BTreeSet<i32>) -> BTreeSet<i32> {
        let is_one = |kind: &str| matches!(kind, "FK CONSTRAINT" | "MATERIALIZED VIEW DATA");
        let relations = self.entries.iter().filter(|entry| is_one(&entry.kind));
        let relations: BTreeSet<i32> = relations.map(|entry| entry.dump_id).collect();
        let stays = |entry: &&Entry| {
            let about_one = entry.dependencies.iter().any(|d| relations.contains(d));
            !(relations.contains(&entry.dump_id) || (entry.kind == "COMMENT" && about_one))
        };
        let staying = self.entries.iter().filter(stays).map(|entry| entry.dump_id);
        staying.filter(|number| chosen.contains(number)).collect()
    }

    /// Returns the relations that are named.
    fn named(&self, selection: &Selection) -> Result<BTreeSet<i32>, String> {
        let mut found = BTreeSet::new();
        let mut add = |what: &str, name: &str, is_it: &dyn Fn(&Entry) -> bool| {
            let entries: Vec<i32> =
                self.entries.iter().filter(|e| is_it(e)).map(|e| e.dump_id).collect();
            let known = !entries.is_empty();
            found.extend(entries);
            if known { Ok(()) } else { Err(format!("there is no {what} `{name}` in the backup")) }
        };
        for name in &selection.tables {
            add("table", name, &|entry| {
                let (schema, table) = (lossy(&entry.namespace), lossy(&entry.tag));
                RELATIONS.contains(&entry.kind.as_str())
                    && (*name == format!("{schema}.{table}")
                        || (schema == "public" && *name == table))
            })?;
        }
        for name in &selection.schemas {
            add("schema", name, &|entry| {
                let inside = lossy(&entry.namespace) == *name
                    && !entry.has_data
                    && !PAIRS.contains(&entry.kind.as_str());
                inside || (entry.kind == "SCHEMA" && lossy(&entry.tag) == *name)
            })?;
        }
        Ok(found)
    }

    /// Adds the partitions of the partitioned tables among `named`, and theirs.
    fn with_partitions(&self, mut named: BTreeSet<i32>) -> BTreeSet<i32> {
        let partition = |attach: &Entry| {
            let is_it = |e: &&Entry| {
                e.kind == "TABLE" && e.namespace == attach.namespace && e.tag == attach.tag
            };
            self.entries.iter().find(is_it).map(|entry| entry.dump_id)
        };
        let attached: Vec<(&Entry, i32)> = self
            .entries
            .iter()
            .filter(|entry| entry.kind == "TABLE ATTACH")
            .filter_map(|entry| Some((entry, partition(entry)?)))
            .collect();
        loop {
            let before = named.len();
            for (attach, partition) in &attached {
                if attach.dependencies.iter().any(|d| d != partition && named.contains(d)) {
                    named.insert(*partition);
                }
            }
            if named.len() == before {
                return named;
            }
        }
    }

    /// Adds to the relations that are named what belongs to them, and what all that needs.
    fn with_what_it_takes(&self, mut chosen: BTreeSet<i32>) -> BTreeSet<i32> {
        let by_number: BTreeMap<i32, &Entry> =
            self.entries.iter().map(|e| (e.dump_id, e)).collect();
        let add_belongings = |chosen: &mut BTreeSet<i32>, kinds: &[&str]| {
            for entry in self.entries.iter().filter(|e| kinds.contains(&e.kind.as_str())) {
                let needs = entry.dependencies.iter().filter(|d| by_number.contains_key(d));
                let missing = needs.clone().filter(|d| !chosen.contains(d)).count();
                let all = PAIRS.contains(&entry.kind.as_str()) || entry.kind == "SEQUENCE SET";
                if missing < needs.count() && (missing == 0 || !all) {
                    chosen.insert(entry.dump_id);
                }
            }
        };
        // In the order of the table of contents what belongs to something stands behind it.
        add_belongings(&mut chosen, &[&BELONGINGS[..], &PAIRS].concat());
        let mut open: Vec<i32> = chosen.iter().copied().collect();
        while let Some(number) = open.pop() {
            for needed in by_number.get(&number).map_or(&[][..], |entry| &entry.dependencies) {
                if by_number.contains_key(needed) && chosen.insert(*needed) {
                    open.push(*needed);
                }
            }
        }
        // The values of the sequences that a default needs.
        add_belongings(&mut chosen, &["SEQUENCE SET"]);
        chosen
    }
}

/// The kinds of entries that a table's name can mean.
const RELATIONS: [&str; 5] = ["TABLE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE", "FOREIGN TABLE"];

/// The kinds of entries that belong to what they depend on.
const BELONGINGS: [&str; 15] = [
    "TABLE DATA",
    "MATERIALIZED VIEW DATA",
    "SEQUENCE",
    "SEQUENCE OWNED BY",
    "DEFAULT",
    "CONSTRAINT",
    "CHECK CONSTRAINT",
    "INDEX",
    "STATISTICS",
    "TRIGGER",
    "RULE",
    "POLICY",
    "ROW SECURITY",
    "ACL",
    "COMMENT",
];

/// Is it no part of a schema: rows, a sequence's value, a large object or what is said about one? pg_restore decides
/// likewise (`_tocEntryRequired`).
fn is_data(entry: &Entry) -> bool {
    entry.has_data
        || matches!(entry.kind.as_str(), "SEQUENCE SET" | "BLOB" | "BLOB METADATA")
        || (matches!(entry.kind.as_str(), "ACL" | "COMMENT" | "SECURITY LABEL")
            && entry.tag.starts_with(b"LARGE OBJECT"))
}

/// The kinds of entries that are about two relations, and make sense only with both.
const PAIRS: [&str; 3] = ["FK CONSTRAINT", "TABLE ATTACH", "INDEX ATTACH"];

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What part of a backup is restored; by default all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Such as `public.members`; without a schema, in `public`.
    pub(crate) tables: Vec<String>,
    pub(crate) schemas: Vec<String>,
    /// Without rows, large objects and values of sequences?
    pub(crate) schema_only: bool,
}

impl Contents {
    /// Returns what follows the name in the `CREATE DATABASE` of the dump: template, encoding and locale.
    pub(crate) fn database_options(&self) -> String {
        let options = self.entries.iter().find(|e| e.kind == "DATABASE").and_then(|entry| {
            let text = String::from_utf8_lossy(&entry.definition).into_owned();
            let at = text.rfind(" WITH TEMPLATE = ")?;
            Some(text[at + 1..].trim().trim_end_matches(';').to_owned())
        });
        options.unwrap_or_else(|| "WITH TEMPLATE = template0".to_owned())
    }

    /// Returns the role that owned the database.
    pub(crate) fn database_owner(&self) -> Option<String> {
        let database = self.entries.iter().find(|e| e.kind == "DATABASE")?;
        (!database.owner.is_empty()).then(|| lossy(&database.owner))
    }

    /// Returns the statements that make database `id` (quoted for SQL) what the dumped one was beside its content:
    /// owner, settings, comment, privileges.
    pub(crate) fn database_statements(&self, id: &str, like: Like) -> Vec<String> {
        let Some(database) = self.entries.iter().find(|e| e.kind == "DATABASE") else {
            return Vec::new();
        };
        let old = String::from_utf8_lossy(&database.definition).into_owned();
        let old = old.trim_start().strip_prefix("CREATE DATABASE ").and_then(|rest| {
            let at = rest.rfind(" WITH TEMPLATE = ")?;
            Some(rest[..at].to_owned())
        });
        let Some(old) = old else { return Vec::new() };
        let mut statements = Vec::new();
        if let Some(owner) = self.database_owner().filter(|_| !like.no_owner) {
            let owner = quote_identifier(&owner);
            statements.push(format!("ALTER DATABASE {id} OWNER TO {owner}"));
        }
        for entry in self.entries.iter().filter(|e| is_about_the_database(e)) {
            let is_privilege = entry.kind == "ACL";
            if entry.kind != "DATABASE" && !(is_privilege && like.no_privileges) {
                let text = String::from_utf8_lossy(&entry.definition).into_owned();
                statements.push(rename_database(&text, &old, id));
            }
        }
        statements
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KINDS: [&str; 12] = [
        "SCHEMA",
        "TYPE",
        "FUNCTION",
        "TABLE",
        "TABLE",
        "SEQUENCE",
        "VIEW",
        "INDEX",
        "FK CONSTRAINT",
        "TABLE DATA",
        "SEQUENCE SET",
        "COMMENT",
    ];

    /// Makes tables of contents in which entries need others that stand before them, as pg_dump sorts them.
    fn contents() -> impl Strategy<Value = Contents> {
        let entry = (0..KINDS.len(), proptest::collection::vec(any::<prop::sample::Index>(), 0..3));
        proptest::collection::vec(entry, 1..40).prop_map(|entries| {
            let entries = entries.into_iter().enumerate().map(|(n, (kind, needs))| {
                let mut entry = Entry::default();
                entry.dump_id = i32::try_from(n).unwrap() + 1;
                entry.kind = KINDS[kind].to_owned();
                entry.namespace = b"public".to_vec();
                entry.tag = format!("o{}", n + 1).into_bytes();
                entry.has_data = entry.kind == "TABLE DATA";
                let needs = needs.iter().filter(|_| n > 0);
                entry.dependencies =
                    needs.map(|needed| i32::try_from(needed.index(n)).unwrap() + 1).collect();
                entry
            });
            Contents { toc: Vec::new(), entries: entries.collect(), encoding: "UTF8".to_owned() }
        })
    }

    fn tables(contents: &Contents) -> Vec<String> {
        let tables = contents.entries.iter().filter(|entry| entry.kind == "TABLE");
        tables.map(|entry| format!("public.{}", lossy(&entry.tag))).collect()
    }

    proptest! {
        #[test]
        fn what_is_chosen_has_all_that_it_needs(
            contents in contents(), which in any::<prop::sample::Index>(), schema_only: bool,
        ) {
            let tables = tables(&contents);
            prop_assume!(!tables.is_empty());
            let selection = Selection {
                tables: vec![tables[which.index(tables.len())].clone()],
                schema_only,
                ..Selection::default()
            };
            let chosen = contents.choose(&selection).unwrap();
            let kind = |number: &i32| &contents.entries[usize::try_from(*number).unwrap() - 1];
            for number in &chosen {
                let entry = kind(number);
                prop_assert!(!schema_only || !is_data(entry));
                for needed in &entry.dependencies {
                    let data = schema_only && is_data(kind(needed));
                    prop_assert!(data || chosen.contains(needed), "{number} needs {needed}: {chosen:?}");
                }
            }
        }

        #[test]
        fn naming_more_tables_never_chooses_less(contents in contents()) {
            let tables = tables(&contents);
            let choose = |tables: &[String]| {
                contents.choose(&Selection { tables: tables.to_vec(), ..Selection::default() }).unwrap()
            };
            let mut before = BTreeSet::new();
            for n in 1..=tables.len() {
                let chosen = choose(&tables[..n]);
                prop_assert!(before.is_subset(&chosen), "{before:?} {chosen:?}");
                before = chosen;
            }
            prop_assert!(before.is_subset(&contents.whole()));
            let without = contents.without_relations_between_rows(&contents.whole());
            let left_out: BTreeSet<_> = contents.whole().difference(&without).copied().collect();
            for entry in contents.entries.iter().filter(|e| left_out.contains(&e.dump_id)) {
                prop_assert!(["FK CONSTRAINT", "COMMENT"].contains(&entry.kind.as_str()));
            }
        }
    }

    #[test]
    fn a_name_that_means_nothing_is_said() {
        let contents =
            Contents { toc: Vec::new(), entries: Vec::new(), encoding: "UTF8".to_owned() };
        let one = |tables: &[&str], schemas: &[&str]| {
            let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let selection =
                Selection { tables: names(tables), schemas: names(schemas), schema_only: false };
            contents.choose(&selection).unwrap_err()
        };
        assert_eq!(one(&["public.x"], &[]), "there is no table `public.x` in the backup");
        assert_eq!(one(&[], &["x"]), "there is no schema `x` in the backup");
    }
}
