//! Which entries of a table of contents are restored. Pure.

use crate::backup::objects::is_about_the_database;
use crate::backup::restore::database::Like;
use crate::backup::restore::sql::rename_database;
use crate::backup::toc::{self, Entry};
use crate::db::quote_identifier;

/// The whole table of contents, read.
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

    /// Returns the numbers of the entries that are pg_restore's: all but rows and the content of large objects.
    pub(crate) fn for_pg_restore(&self) -> Vec<i32> {
        let ours = |entry: &&Entry| !entry.has_data && !is_about_the_database(entry);
        self.entries.iter().filter(ours).map(|entry| entry.dump_id).collect()
    }
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
        if !like.no_owner && !database.owner.is_empty() {
            let owner = quote_identifier(&String::from_utf8_lossy(&database.owner));
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
