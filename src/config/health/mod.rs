//! `[health]`: what `opsctl health-check` asks, and what it thinks of the answers.
//!
//! A kind of check that needs nothing said about it has a table of its name, `[health.connections]`; one that must know what
//! to ask has a list, `[[health.http]]`, and a file here that reads it. Both understand the keys of [`CheckSettings`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use super::file::KEYS;
use super::section::{At, Document, Section, absolute};
use super::value::{self, format_duration, quote};
use crate::health::kind::{self, Kind, Unit};

mod brokers;
mod given;
mod http;
mod log;
mod network;
mod service;

pub(crate) use brokers::{Broker, Queue, Redis};
pub(crate) use given::Given;
pub(crate) use http::Http;
pub(crate) use log::{Log, LogSource, Often};
pub(crate) use network::{Dns, Tcp, Tls};
pub(crate) use service::{Keeper, Service};

/// How long all checks together may take, unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the section says.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    /// How long all checks together may take.
    pub(crate) timeout: Duration,
    /// Names of checks or kinds that are not asked for.
    pub(crate) skip: Vec<String>,
    pub(crate) http: Vec<Http>,
    pub(crate) tls: Vec<Tls>,
    pub(crate) dns: Vec<Dns>,
    pub(crate) tcp: Vec<Tcp>,
    pub(crate) redis: Vec<Redis>,
    pub(crate) queue: Vec<Queue>,
    pub(crate) services: Vec<Service>,
    pub(crate) logs: Vec<Log>,
    /// `paths` of `[health.disk]`: what else must have room.
    pub(crate) disk_paths: Vec<PathBuf>,
    kinds: BTreeMap<&'static str, CheckSettings>,
    /// Every key that is there, as `config show` tells it.
    pub(super) stated: Vec<Stated>,
    /// The keys that others should not be able to read, with their lines and sections.
    pub(super) secrets: Vec<(String, usize, String)>,
}

/// What can be said of any check; what is not said is the kind's default.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct CheckSettings {
    pub(crate) tags: Vec<String>,
    pub(crate) timeout: Option<Duration>,
    /// In the kind's unit.
    pub(crate) warning: Option<f64>,
    pub(crate) critical: Option<f64>,
    /// `for`: how many runs in a row it must be bad.
    pub(crate) runs: Option<u32>,
    pub(crate) retries: Option<u32>,
}

/// A key with its value as text and its line.
#[derive(Clone, Debug)]
pub(super) struct Stated {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) line: usize,
}

impl Default for Health {
    fn default() -> Health {
        Health {
            timeout: TIMEOUT,
            skip: Vec::new(),
            http: Vec::new(),
            tls: Vec::new(),
            dns: Vec::new(),
            tcp: Vec::new(),
            redis: Vec::new(),
            queue: Vec::new(),
            services: Vec::new(),
            logs: Vec::new(),
            disk_paths: Vec::new(),
            kinds: BTreeMap::new(),
            stated: Vec::new(),
            secrets: Vec::new(),
        }
    }
}

impl Health {
    /// Returns what is said of all checks of a kind.
    pub(crate) fn of_kind(&self, kind: &Kind) -> CheckSettings {
        self.kinds.get(kind.name).cloned().unwrap_or_default()
    }

    /// Reads the section.
    pub(super) fn read(document: &Document<'_>, top: &Section<'_>) -> Health {
        let mut health = Health::default();
        let Some(table) = top.table("health") else { return health };
        let section = Section::open(document, "health".to_owned(), table.value, "health", KEYS);
        let mut keys = Reader::new(document, section, "health".to_owned());
        health.timeout = keys.duration("timeout").unwrap_or(TIMEOUT);
        health.skip = keys.texts("skip");
        for kind in kind::all().filter(|kind| !LISTS.contains(&kind.name)) {
            if let Some(table) = keys.section.table(kind.name) {
                let has_paths = kind.name == kind::DISK.name;
                let known = if has_paths { "health.disk" } else { "health.KIND" };
                let mut below = keys.below(kind.name, &table, known);
                if has_paths {
                    health.disk_paths = below.paths("paths");
                }
                health.kinds.insert(kind.name, below.settings(kind));
                keys.join(below);
            }
        }
        health.http = keys.list("http", Http::read);
        health.tls = keys.list("tls", Tls::read);
        health.dns = keys.list("dns", Dns::read);
        health.tcp = keys.list("tcp", Tcp::read);
        health.redis = keys.list("redis", Redis::read);
        health.queue = keys.list("queue", Queue::read);
        health.services = keys.list("service", Service::read);
        health.logs = keys.list("log", Log::read);
        health.stated = keys.stated;
        health.stated.sort_by_key(|stated| stated.line);
        health.secrets = keys.secrets;
        health
    }
}

/// The kinds that are lists.
const LISTS: &[&str] = &["http", "tls", "dns", "tcp", "redis", "queue", "service", "log"];

/// Reads the keys of one table, and remembers them.
pub(super) struct Reader<'d> {
    document: &'d Document<'d>,
    pub(super) section: Section<'d>,
    /// Where it is, for `config show`: `health.http.api`.
    key: String,
    stated: Vec<Stated>,
    secrets: Vec<(String, usize, String)>,
}

impl<'d> Reader<'d> {
    fn new(document: &'d Document<'d>, section: Section<'d>, key: String) -> Reader<'d> {
        Reader { document, section, key, stated: Vec::new(), secrets: Vec::new() }
    }

    /// Remembers what another one read.
    fn join(&mut self, mut other: Reader<'_>) {
        self.stated.append(&mut other.stated);
        self.secrets.append(&mut other.secrets);
    }

    /// Remembers that others should not read the value of this key.
    fn is_secret(&mut self, key: &str, line: usize) {
        self.secrets.push((key.to_owned(), line, self.key.clone()));
    }

    /// Remembers what was found.
    pub(super) fn take<T>(
        &mut self,
        key: &str,
        found: Option<At<T>>,
        show: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let At { value, line } = found?;
        let shown = show(&value);
        self.stated.push(Stated { key: format!("{}.{key}", self.key), value: shown, line });
        Some(value)
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        let found = self.section.parsed(key, value::parse_text);
        self.take(key, found, Clone::clone)
    }

    pub(super) fn path(&mut self, key: &str) -> Option<PathBuf> {
        let found = self.section.path(key);
        self.take(key, found, |path| path.display().to_string())
    }

    /// Reads a list of paths; relative ones are relative to the file.
    fn paths(&mut self, key: &str) -> Vec<PathBuf> {
        let base = self.document.path.parent().unwrap_or(Path::new("/"));
        let found = self
            .section
            .strings(key, |text| absolute(text, base).map(|path| path.display().to_string()));
        let found = self.take(key, found, |list| list.join(", "));
        found.unwrap_or_default().into_iter().map(PathBuf::from).collect()
    }

    pub(super) fn texts(&mut self, key: &str) -> Vec<String> {
        let found = self.section.strings(key, value::parse_text);
        self.take(key, found, |list| list.join(", ")).unwrap_or_default()
    }

    pub(super) fn number(
        &mut self,
        key: &str,
        range: std::ops::RangeInclusive<u32>,
    ) -> Option<u32> {
        let found = self.section.number(key, range);
        self.take(key, found, ToString::to_string)
    }

    pub(super) fn duration(&mut self, key: &str) -> Option<Duration> {
        let found = self.section.parsed(key, value::parse_duration);
        self.take(key, found, |time| format_duration(*time))
    }

    /// Reads what can be said of any check.
    pub(super) fn settings(&mut self, kind: &Kind) -> CheckSettings {
        let mut limit = |key: &str| {
            let found = self.section.amount(key, |text| parse_amount(text, kind.unit));
            self.take(key, found, ToString::to_string)
        };
        let (warning, critical) = (limit("warning"), limit("critical"));
        CheckSettings {
            tags: self.texts("tags"),
            timeout: self.duration("timeout"),
            warning,
            critical,
            runs: self.number("for", 1..=100),
            retries: self.number("retries", 0..=10),
        }
    }

    /// Says what is wrong with the table as a whole.
    pub(super) fn problem(&self, line: usize, message: &str) {
        self.document.problem(line, message);
    }

    fn below(&self, name: &str, table: &At<&'d DeTable<'d>>, kind: &str) -> Reader<'d> {
        let key = format!("{}.{name}", self.key);
        let section = Section::open(self.document, key.clone(), table.value, kind, KEYS);
        Reader::new(self.document, section, key)
    }

    /// Reads a list of tables, each with a `name` of its own.
    fn list<T>(
        &mut self,
        kind: &'static str,
        read: impl Fn(&mut Reader<'d>, String, usize) -> Option<T>,
    ) -> Vec<T> {
        let mut names: Vec<String> = Vec::new();
        let mut entries = Vec::new();
        for table in self.section.list_of_tables(kind) {
            let mut keys = self.below(kind, &table, &format!("health.{kind}"));
            let name = keys
                .section
                .parsed("name", |text| value::check_name(text).map(|()| text.to_owned()));
            let Some(At { value: name, .. }) = name else {
                if keys.section.line_of("name").is_none() {
                    keys.problem(table.line, &format!("[[health.{kind}]] needs `name`"));
                }
                continue;
            };
            if names.contains(&name) {
                keys.problem(
                    table.line,
                    &format!("two of [[health.{kind}]] are named {}", quote(&name)),
                );
            }
            names.push(name.clone());
            keys.key = format!("health.{kind}.{name}");
            entries.extend(read(&mut keys, name, table.line));
            self.join(keys);
        }
        entries
    }
}

/// Reads a limit that is written with its unit.
fn parse_amount(text: &str, unit: Unit) -> Result<f64, String> {
    let seconds = || value::parse_duration(text).map(|time| time.as_secs_f64());
    match unit {
        Unit::Seconds => seconds(),
        Unit::Days => seconds().map(|seconds| seconds / 86_400.0),
        Unit::Percent => {
            let number = text.strip_suffix('%').and_then(|number| number.trim().parse().ok());
            number.ok_or_else(|| format!("{} is not a percentage like 80%", quote(text)))
        }
        Unit::Bytes => {
            const UNITS: [(&str, f64); 8] = [
                ("KiB", 1024.0),
                ("MiB", 1_048_576.0),
                ("GiB", 1_073_741_824.0),
                ("TiB", 1_099_511_627_776.0),
                ("kB", 1e3),
                ("MB", 1e6),
                ("GB", 1e9),
                ("TB", 1e12),
            ];
            let number = UNITS.iter().find_map(|(name, factor)| {
                Some(text.strip_suffix(name)?.trim().parse::<f64>().ok()? * factor)
            });
            number.ok_or_else(|| format!("{} is not a size like 5GB or 512MiB", quote(text)))
        }
        Unit::Count => Err("must be a number without quotes".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_with_their_unit() {
        assert_eq!(parse_amount("5m", Unit::Seconds), Ok(300.0));
        assert_eq!(parse_amount("80%", Unit::Percent), Ok(80.0));
        assert_eq!(parse_amount("30d", Unit::Days), Ok(30.0));
        assert_eq!(parse_amount("5GB", Unit::Bytes), Ok(5e9));
        assert_eq!(parse_amount("512MiB", Unit::Bytes), Ok(536_870_912.0));
        for (text, unit) in
            [("5", Unit::Seconds), ("5m", Unit::Bytes), ("1", Unit::Count), ("x%", Unit::Percent)]
        {
            assert!(parse_amount(text, unit).is_err(), "{text}");
        }
    }

    #[test]
    fn every_kind_has_its_place() {
        let known = |section: &str| {
            KEYS.iter().find(|(name, _)| *name == section).map_or(&[][..], |(_, keys)| keys)
        };
        for kind in kind::all() {
            assert!(known("health").contains(&kind.name), "KEYS: `health` lacks {}", kind.name);
        }
        for key in known("health.KIND") {
            assert!(known("health.disk").contains(key), "KEYS: disk lacks {key}");
        }
        for list in LISTS {
            for key in known("health.KIND").iter().chain(&["name"]) {
                assert!(known(&format!("health.{list}")).contains(key), "KEYS: {list} lacks {key}");
            }
        }
    }
}
