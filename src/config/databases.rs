//! Which databases a run looks after: `--url`, the configured ones or some of them by name, else what the
//! environment says.

use std::path::PathBuf;

use super::file::DatabaseEntry;
use super::resolve::Merge;
use super::section::{At, absolute};
use super::{Database, Source, url, value};
use crate::secret::Secret;

impl Merge<'_> {
    /// Returns the databases that the run looks after.
    pub(super) fn databases(&mut self) -> Vec<Database> {
        let file = self.file;
        if let Some(url) = &self.overrides.url {
            if let Err(complaint) = url::check(url.reveal()) {
                self.problem(Source::flag("--url"), complaint);
            }
            self.note("database.url", Source::flag("--url"));
            let bin_dir = file.databases.iter().find(|entry| entry.key == "database");
            let bin_dir = self.bin_dir("database", bin_dir);
            let database = Database { name: None, url: Some(url.clone()), dbname: None, bin_dir };
            return self.connecting_to(database);
        }
        match &file.databases[..] {
            [] => {
                let url = self.database_url();
                let bin_dir = self.bin_dir("database", None);
                self.connecting_to(Database { name: None, url, dbname: None, bin_dir })
            }
            [entry @ DatabaseEntry { name: None, .. }] => {
                let database = self.database(entry);
                self.sources.databases.clear();
                self.connecting_to(database)
            }
            entries => {
                let picked = self.picked(entries);
                picked.into_iter().map(|entry| self.database(entry)).collect()
            }
        }
    }

    /// Makes a database of each `--database`, or just the one.
    fn connecting_to(&mut self, database: Database) -> Vec<Database> {
        let mut names: Vec<&String> = Vec::new();
        for name in &self.overrides.databases {
            // libpq's programs take a name with `=` or `://` for a connection string.
            if name.is_empty() || name.contains('=') || name.contains("://") {
                let message =
                    "is not the name of a database: a connection string goes into DATABASE_URL";
                self.problem(Source::flag("--database"), message);
            } else if !names.contains(&name) {
                names.push(name);
            }
        }
        if names.is_empty() {
            self.sources.databases.push("database".to_owned());
            return vec![database];
        }
        let mut databases = Vec::new();
        for name in &names {
            let key = match &names[..] {
                [_] => "database".to_owned(),
                _ => format!("databases.{name}"),
            };
            for setting in ["url", "bin_dir"] {
                let source = self.source(&format!("database.{setting}"));
                self.note(format!("{key}.{setting}"), source);
            }
            self.note(format!("{key}.dbname"), Source::flag("--database"));
            self.sources.databases.push(key);
            databases.push(Database { dbname: Some((*name).clone()), ..database.clone() });
        }
        databases
    }

    fn picked<'e>(&mut self, entries: &'e [DatabaseEntry]) -> Vec<&'e DatabaseEntry> {
        let wanted = &self.overrides.databases;
        let is_called = |entry: &DatabaseEntry, name: &str| {
            entry.name.as_ref().is_some_and(|known| known.value == name)
        };
        for name in wanted {
            if !entries.iter().any(|entry| is_called(entry, name)) {
                let names =
                    entries.iter().filter_map(|entry| Some(entry.name.as_ref()?.value.as_str()));
                let (name, names) = (value::quote(name), names.collect::<Vec<_>>().join(", "));
                let message = format!("no database {name} is configured, only {names}");
                self.problem(Source::flag("--database"), message);
            }
        }
        let is_wanted = |entry: &&DatabaseEntry| {
            wanted.is_empty() || wanted.iter().any(|name| is_called(entry, name))
        };
        entries.iter().filter(is_wanted).collect()
    }

    fn database(&mut self, entry: &DatabaseEntry) -> Database {
        let key = &entry.key;
        self.sources.databases.push(key.clone());
        if let Some(name) = &entry.name {
            self.note(format!("{key}.name"), self.file.source(name.line));
        }
        let url = match (&entry.url, &entry.url_file) {
            (Some(url), _) => {
                self.note(format!("{key}.url"), self.file.source(url.line));
                Some(url.value.clone())
            }
            (None, Some(path)) => self.url_file(key, path),
            (None, None) => self.database_url(),
        };
        let name = entry.name.as_ref().map(|name| name.value.clone());
        Database { name, url, dbname: None, bin_dir: self.bin_dir(key, Some(entry)) }
    }

    fn url_file(&mut self, key: &str, path: &At<PathBuf>) -> Option<Secret> {
        let source = self.file.source(path.line);
        self.note(format!("{key}.url"), source.clone());
        let text = self.read(&path.value, source.clone())?;
        if let Err(complaint) = url::check(text.trim()) {
            self.problem(source, format!("the content of `{}` {complaint}", path.value.display()));
        }
        Some(Secret::new(text.trim()))
    }

    fn database_url(&mut self) -> Option<Secret> {
        let url = self.environment.get("DATABASE_URL")?;
        let source = Source::environment("DATABASE_URL");
        if let Err(complaint) = url::check(url) {
            self.problem(source.clone(), complaint);
        }
        self.note("database.url", source);
        Some(Secret::new(url))
    }

    fn bin_dir(&mut self, key: &str, entry: Option<&DatabaseEntry>) -> Option<PathBuf> {
        let working_directory = self.working_directory;
        self.setting(
            [&format!("{key}.bin_dir"), "", "OPSCTL_BIN_DIR"],
            None,
            |text| absolute(text, working_directory),
            entry.and_then(|entry| entry.bin_dir.as_ref()),
        )
    }
}
