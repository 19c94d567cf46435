//! `[maintain]`: what `db-maintain` may do by itself, how much of it at once, and when it has to stop. Nothing is decided here.

use std::time::Duration;

use super::file;
use super::resolve::Merge;
use super::section::{Document, Section};
use super::value;

/// What `db-maintain` may do, and how far it may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Maintain {
    /// Does the file have the section? Only then is the command expected to run.
    pub(crate) stated: bool,
    /// How many statements at once.
    pub(crate) jobs: u32,
    /// Are bloated indexes built anew?
    pub(crate) reindex: bool,
    /// How much of an index must be waste, in percent, before it is built anew.
    pub(crate) reindex_bloat_percent: u32,
    /// Smaller indexes are left alone.
    pub(crate) reindex_min_bytes: u64,
    /// How long a statement may wait for a lock of somebody else.
    pub(crate) lock_timeout: Duration,
    /// The budget of one run: no statement is begun that is likely to end after this time.
    pub(crate) max_time: Duration,
    /// The budget of one run, in bytes of WAL that the server writes meanwhile, whoever makes it.
    pub(crate) max_wal: u64,
    /// How far streaming replicas may be behind.
    pub(crate) max_replica_lag: Duration,
    /// How much WAL a replication slot may hold back.
    pub(crate) max_retained_wal: u64,
    /// What stands for the application's own statements.
    pub(crate) probe: String,
    /// How long it may take, in percent of what it takes before anything is done.
    pub(crate) max_latency_percent: u32,
}

impl Default for Maintain {
    fn default() -> Maintain {
        Maintain {
            stated: false,
            jobs: 2,
            reindex: false,
            reindex_bloat_percent: 50,
            reindex_min_bytes: 10 * MEBIBYTE,
            lock_timeout: Duration::from_secs(2),
            max_time: Duration::from_secs(3600),
            max_wal: 16_384 * MEBIBYTE,
            max_replica_lag: Duration::from_secs(10),
            max_retained_wal: 4096 * MEBIBYTE,
            probe: "SELECT count(*) FROM pg_catalog.pg_attribute WHERE attrelid < 3000".to_owned(),
            max_latency_percent: 200,
        }
    }
}

impl Maintain {
    /// Returns the same without the budget of a run. What keeps the application, replicas and disks well stays.
    pub(crate) fn without_budget(&self) -> Maintain {
        Maintain { max_time: Duration::MAX, max_wal: u64::MAX, ..self.clone() }
    }
}

/// The keys of the section.
pub(super) const KEYS: &[&str] = &[
    "jobs",
    "reindex",
    "reindex_bloat_percent",
    "reindex_min_megabytes",
    "lock_timeout",
    "max_time",
    "max_wal_megabytes",
    "max_replica_lag",
    "max_retained_wal_megabytes",
    "probe",
    "max_latency_percent",
];

pub(super) const MEBIBYTE: u64 = 1 << 20;

/// What the section says, and the lines of its settings by their keys.
#[derive(Debug, Default)]
pub(super) struct MaintainEntry {
    pub(super) maintain: Maintain,
    lines: Vec<(String, usize)>,
}

impl MaintainEntry {
    /// Reads the section, if there is one.
    pub(super) fn read(document: &Document<'_>, top: &Section<'_>) -> MaintainEntry {
        let Some(table) = top.table("maintain") else { return MaintainEntry::default() };
        let section =
            Section::open(document, "maintain".to_owned(), table.value, "maintain", file::KEYS);
        let number = |key: &str, range, default: u32| {
            section.number(key, range).map_or(default, |at| at.value)
        };
        let mebibytes = |key: &str, default: u64| {
            let number = section.number(key, 1..=u32::MAX);
            number.map_or(default, |at| u64::from(at.value) * MEBIBYTE)
        };
        let time = |key: &str, default: Duration| {
            section.parsed(key, value::parse_duration).map_or(default, |at| at.value)
        };
        let usual = Maintain::default();
        let maintain = Maintain {
            stated: true,
            jobs: number("jobs", 1..=16, usual.jobs),
            reindex: section.boolean("reindex").map_or(usual.reindex, |at| at.value),
            reindex_bloat_percent: number(
                "reindex_bloat_percent",
                10..=95,
                usual.reindex_bloat_percent,
            ),
            reindex_min_bytes: mebibytes("reindex_min_megabytes", usual.reindex_min_bytes),
            lock_timeout: time("lock_timeout", usual.lock_timeout),
            max_time: time("max_time", usual.max_time),
            max_wal: mebibytes("max_wal_megabytes", usual.max_wal),
            max_replica_lag: time("max_replica_lag", usual.max_replica_lag),
            max_retained_wal: mebibytes("max_retained_wal_megabytes", usual.max_retained_wal),
            probe: section.parsed("probe", value::parse_text).map_or(usual.probe, |at| at.value),
            max_latency_percent: number(
                "max_latency_percent",
                110..=10_000,
                usual.max_latency_percent,
            ),
        };
        let line = |key: &&str| Some((format!("maintain.{key}"), section.line_of(key)?));
        MaintainEntry { maintain, lines: KEYS.iter().filter_map(line).collect() }
    }
}

impl Merge<'_> {
    /// Puts together what `db-maintain` may do.
    pub(super) fn maintain(&mut self) -> Maintain {
        let entry = &self.file.maintain;
        for (key, line) in &entry.lines {
            self.note(key, self.file.source(*line));
        }
        entry.maintain.clone()
    }
}
