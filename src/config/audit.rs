//! `[[audit]]`: which tables are archived, when their rows are old enough, and where they go. Nothing is decided here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::{KEYS, Place, parse_place};
use super::resolve::Merge;
use super::s3::S3Entry;
use super::section::{At, Document, Section};
use super::value::{self, quote};
use super::{Location, TableName};

/// One of `[[audit]]`: a table whose old rows are archived.
#[derive(Clone, Debug)]
pub(crate) struct AuditTable {
    pub(crate) table: TableName,
    /// The name of the only database it is for.
    pub(crate) database: Option<String>,
    /// When a row happened: a `timestamp`, with or without time zone, or a `date`.
    pub(crate) time_column: String,
    /// The columns that identify a row; empty for the primary key.
    pub(crate) key: Vec<String>,
    /// How old a row must be.
    pub(crate) hot_period: Duration,
    pub(crate) window: AuditWindow,
    pub(crate) location: Location,
    /// An OpenSSH private key (Ed25519, without passphrase), which signs the manifests.
    pub(crate) signing_key: PathBuf,
    /// Who else may have signed: a file as `ssh-keygen` takes it.
    pub(crate) allowed_signers: Option<PathBuf>,
    /// Are the rows to be there as Parquet, too?
    pub(crate) parquet: bool,
    /// age recipients (`age1…`); empty means no encryption.
    pub(crate) recipients: Vec<String>,
    /// What encrypted rows are read with.
    pub(crate) identity_file: Option<PathBuf>,
    /// Do runs delete rows whose segment they read back? By hand it can be done in any case.
    pub(crate) delete: bool,
    /// Do rows go with whole partitions, and not one by one?
    pub(crate) drop_partitions: bool,
    /// How old a segment must be before its rows are deleted: 7 days or more.
    pub(crate) delete_min_age: Duration,
    pub(crate) retention: Option<AuditRetention>,
}

/// How long the archive of a table must be kept, in the operator's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AuditRetention {
    pub(crate) preset: RetentionPreset,
    /// What the operator says: it can only lengthen what the preset says.
    pub(crate) days: u32,
}

/// Why an archive must be kept; for how long is known in `archive::retention`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetentionPreset {
    PciDss,
    Hipaa,
    Sox,
    Lmrda,
    Policy,
}

impl RetentionPreset {
    pub(crate) const ALL: [RetentionPreset; 5] = [
        RetentionPreset::PciDss,
        RetentionPreset::Hipaa,
        RetentionPreset::Sox,
        RetentionPreset::Lmrda,
        RetentionPreset::Policy,
    ];

    /// Returns the word for it in the file.
    pub(crate) fn word(self) -> &'static str {
        match self {
            RetentionPreset::PciDss => "pci-dss",
            RetentionPreset::Hipaa => "hipaa",
            RetentionPreset::Sox => "sox",
            RetentionPreset::Lmrda => "lmrda",
            RetentionPreset::Policy => "policy",
        }
    }
}

impl AuditTable {
    /// Is the table in this database?
    pub(crate) fn is_in(&self, database: &str) -> bool {
        self.database.as_deref().is_none_or(|named| named == database)
    }
}

/// The times that make a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuditWindow {
    Day,
    Month,
}

impl AuditWindow {
    /// Returns the word for it in the file.
    pub(crate) fn word(self) -> &'static str {
        match self {
            AuditWindow::Day => "day",
            AuditWindow::Month => "month",
        }
    }
}

/// The keys of a section.
pub(super) const AUDIT_KEYS: &[&str] = &[
    "table",
    "database",
    "time_column",
    "key",
    "hot_period",
    "window",
    "location",
    "signing_key",
    "allowed_signers",
    "parquet",
    "recipients",
    "identity_file",
    "delete",
    "partitions",
    "delete_min_age",
    "retention",
    "retention_days",
    "s3",
];

/// What a section says.
#[derive(Clone, Debug)]
pub(super) struct AuditEntry {
    line: usize,
    table: TableName,
    database: Option<At<String>>,
    time_column: String,
    key: Vec<String>,
    hot_period: Option<Duration>,
    window: Option<AuditWindow>,
    place: At<Place>,
    signing_key: PathBuf,
    allowed_signers: Option<PathBuf>,
    parquet: bool,
    recipients: Vec<String>,
    identity_file: Option<PathBuf>,
    delete: bool,
    drop_partitions: bool,
    delete_min_age: Option<Duration>,
    retention: Option<AuditRetention>,
    s3: S3Entry,
}

impl AuditEntry {
    /// Reads the sections.
    pub(super) fn read(document: &Document<'_>, top: &Section<'_>) -> Vec<AuditEntry> {
        let mut entries: Vec<AuditEntry> = Vec::new();
        for table in top.list_of_tables("audit") {
            let section = Section::open(document, "[audit]".to_owned(), table.value, "audit", KEYS);
            let Some(entry) = AuditEntry::read_one(document, &section, table.line) else {
                continue;
            };
            let is_same = |other: &&AuditEntry| {
                other.table == entry.table && other.place.value == entry.place.value
            };
            if let Some(other) = entries.iter().find(is_same) {
                let message = format!(
                    "[[audit]] archives `{}` to the place of line {} already",
                    entry.table, other.line
                );
                document.problem(table.line, message);
            }
            entries.push(entry);
        }
        entries
    }

    fn read_one(document: &Document<'_>, section: &Section<'_>, line: usize) -> Option<AuditEntry> {
        for key in ["table", "time_column", "location", "signing_key"] {
            if section.line_of(key).is_none() {
                document.problem(line, format!("[[audit]] needs `{key}`"));
            }
        }
        let base = document.path.parent().unwrap_or(Path::new("/"));
        let place = section.parsed("location", |text| parse_place(text, base));
        let mut s3 = S3Entry::default();
        if let Some(table) = section.table("s3") {
            if let Some(At { value: Place::Directory(_), .. }) = place {
                let message =
                    "[audit.s3] goes with a location like s3://bucket/prefix, not with a directory";
                document.problem(table.line, message);
            }
            let title = "audit.s3".to_owned();
            s3 = S3Entry::read(&Section::open(document, title, table.value, "repository.s3", KEYS));
            if let Some(At { value, line }) = &s3.storage_class
                && ["GLACIER", "DEEP_ARCHIVE"].contains(&value.as_str())
            {
                let message = format!(
                    "`storage_class` in [audit.s3]: what goes to {value} cannot be read back at once, by which a segment is \
                     proven: take GLACIER_IR, or let a lifecycle rule of the bucket move `rows.*` later"
                );
                document.problem(*line, message);
            }
        }
        let window = section.parsed("window", |text| match text {
            "day" => Ok(AuditWindow::Day),
            "month" => Ok(AuditWindow::Month),
            _ => Err(format!("{} is not day or month", quote(text))),
        });
        let hot_period = section.parsed("hot_period", |text| {
            let period = value::parse_duration(text)?;
            if period < DAY { Err(format!("{} is less than 1d", quote(text))) } else { Ok(period) }
        });
        let delete = section.parsed("delete", |text| match text {
            "off" => Ok(false),
            "after-verify" => Ok(true),
            _ => Err(format!("{} is not off or after-verify", quote(text))),
        });
        let drop_partitions = section.parsed("partitions", |text| match text {
            "keep" => Ok(false),
            "drop" => Ok(true),
            _ => Err(format!("{} is not keep or drop", quote(text))),
        });
        let delete_min_age = section.parsed("delete_min_age", |text| {
            let age = value::parse_duration(text)?;
            let too_short = age < DELETE_MIN_AGE;
            if too_short { Err(format!("{} is less than 7d", quote(text))) } else { Ok(age) }
        });
        let retention = retention(document, section);
        let key = section.strings("key", value::parse_text);
        let database = section.parsed("database", value::parse_text);
        let allowed_signers = section.path("allowed_signers");
        let time_column = section.parsed("time_column", value::parse_text);
        let signing_key = section.path("signing_key");
        let recipients = section.strings("recipients", value::parse_recipient);
        let identity_file = section.path("identity_file");
        let parquet = section.boolean("parquet");
        if let (Some(At { value: true, line }), Some(_)) = (&parquet, &recipients) {
            let message =
                "`parquet` in [[audit]] would have what `recipients` encrypts in the clear";
            document.problem(*line, message);
        }
        if let (Some(At { value: true, line }), Some(_), None) =
            (&delete, &recipients, &identity_file)
        {
            let message = "`delete` in [[audit]] reads what `recipients` encrypts back, and needs `identity_file` for it";
            document.problem(*line, message);
        }
        Some(AuditEntry {
            line,
            table: section.parsed("table", str::parse)?.value,
            database,
            time_column: time_column?.value,
            key: key.map(|at| at.value).unwrap_or_default(),
            hot_period: hot_period.map(|at| at.value),
            window: window.map(|at| at.value),
            place: place?,
            signing_key: signing_key?.value,
            allowed_signers: allowed_signers.map(|at| at.value),
            parquet: parquet.map_or(recipients.is_none(), |at| at.value),
            recipients: recipients.map(|at| at.value).unwrap_or_default(),
            identity_file: identity_file.map(|at| at.value),
            delete: delete.is_some_and(|at| at.value),
            drop_partitions: drop_partitions.is_some_and(|at| at.value),
            delete_min_age: delete_min_age.map(|at| at.value),
            retention,
            s3,
        })
    }
}

/// Reads how long the archive must be kept; the number alone is the organisation's policy.
fn retention(document: &Document<'_>, section: &Section<'_>) -> Option<AuditRetention> {
    let preset = section.parsed("retention", |text| {
        let preset = RetentionPreset::ALL.into_iter().find(|preset| preset.word() == text);
        let words = RetentionPreset::ALL.map(RetentionPreset::word).join(", ");
        preset.ok_or_else(|| format!("{} is not one of {words}", quote(text)))
    });
    let days = section.number("retention_days", 1..=36_500);
    if let (Some(At { value: RetentionPreset::Policy, line }), None) = (&preset, &days) {
        document.problem(*line, "retention = \"policy\" needs `retention_days`");
    }
    if preset.is_none() && days.is_none() {
        return None;
    }
    let preset = preset.map_or(RetentionPreset::Policy, |at| at.value);
    Some(AuditRetention { preset, days: days.map_or(0, |at| at.value) })
}

const DAY: Duration = Duration::from_secs(86_400);
/// Time to see that an archive is as it should be, and that copies of it are made, before rows are only there.
const DELETE_MIN_AGE: Duration = Duration::from_secs(7 * 86_400);

impl Merge<'_> {
    /// Puts together what is archived; `n_databases` are looked after.
    pub(super) fn audits(&mut self, n_databases: usize) -> Vec<AuditTable> {
        let file = self.file;
        let mut audits = Vec::new();
        for entry in &file.audits {
            let key = format!("audit.{}", entry.table);
            self.note(key.clone(), file.source(entry.line));
            if entry.database.is_none() && n_databases > 1 {
                let message = "[[audit]] needs `database`: several are configured";
                self.problem(file.source(entry.line), message);
            }
            let location = match &entry.place.value {
                Place::Directory(path) => Location::Directory(path.clone()),
                Place::Bucket { bucket, prefix } => {
                    Location::S3(self.s3(&key, bucket.clone(), prefix.clone(), Some(&entry.s3)))
                }
            };
            audits.push(AuditTable {
                table: entry.table.clone(),
                database: entry.database.as_ref().map(|at| at.value.clone()),
                time_column: entry.time_column.clone(),
                key: entry.key.clone(),
                hot_period: entry.hot_period.unwrap_or(365 * DAY),
                window: entry.window.unwrap_or(AuditWindow::Month),
                location,
                signing_key: entry.signing_key.clone(),
                allowed_signers: entry.allowed_signers.clone(),
                parquet: entry.parquet,
                recipients: entry.recipients.clone(),
                identity_file: entry.identity_file.clone(),
                delete: entry.delete,
                drop_partitions: entry.drop_partitions,
                delete_min_age: entry.delete_min_age.unwrap_or(DELETE_MIN_AGE),
                retention: entry.retention,
            });
        }
        audits
    }
}
