//! The configuration: what the file, the environment and the flags say, merged and checked once.
//!
//! Commands see [`Config`]; nothing below the commands does. This module reads the configuration file
//! and decides; it connects to nothing and creates nothing.
//!
//! `find.rs` finds and reads the file, `file.rs` understands it with the help of `section.rs`,
//! `value.rs` and `url.rs`, and of `health/` for its section; `resolve.rs`, `databases.rs`, `repositories.rs`, `notify.rs`
//! and `s3.rs` merge it with flags and environment; `show.rs` tells what came out and from where.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::environment::Environment;
use crate::secret::Secret;
use crate::window::Window;

mod audit;
mod contacts;
mod databases;
mod error;
mod file;
mod find;
pub(crate) mod health;
mod maintain;
mod metrics;
mod notify;
mod ping;
mod repositories;
mod resolve;
mod s3;
mod schedule;
mod section;
mod sessions;
mod show;
mod url;
mod value;
mod windows;

#[cfg(test)]
mod tests;

pub(crate) use audit::{AuditRetention, AuditTable, AuditWindow, RetentionPreset};
pub(crate) use error::{Error, Problem, Source};
pub(crate) use health::{CheckSettings, Health, Keeper, Log, LogSource, Often, Service};
pub(crate) use maintain::Maintain;
pub(crate) use metrics::Metrics;
pub(crate) use notify::{Channel, Email, Notify, Recipient, Severity, SmtpTls};
pub(crate) use ping::{COMMANDS as PINGED, Ping};
pub(crate) use schedule::{Fields, Schedule, Scheduled, Times};
#[cfg(test)]
pub(crate) use sessions::PRESETS;
pub(crate) use sessions::{
    Audit, Child, ChildAction, Lock, Revocable, Revoke, Rule, Sessions, TableName, Time, Unlock,
    UnlockWhat, What,
};
pub(crate) use show::{Shown, show};
pub(crate) use url::{has_password, without_password};
pub(crate) use value::{Percent, format_duration, parse_duration};

/// What `--window` takes for all windows together; none may be called so.
pub(crate) const ANY_WINDOW: &str = "any";
/// The maintenance windows that there are unless the file says otherwise.
const WINDOWS: [(&str, &str); 2] =
    [("weekly", "Sun 02:00-04:00 UTC"), ("monthly", "first Sun 01:00-05:00 UTC")];

/// A commented configuration file with every key, for `opsctl config example`.
pub(crate) const EXAMPLE: &str = include_str!("example.toml");

/// Reads the configuration and merges it: a flag wins over the environment, that over the file, and
/// that over the default.
///
/// Without `--database` and `--repository` everything that the file says is checked, so this is also
/// what `opsctl config check` does. All problems of the file are reported at once.
pub(crate) fn load(
    overrides: &Overrides,
    environment: &Environment,
    working_directory: &Path,
) -> Result<Loaded, Error> {
    resolve::load(overrides, environment, working_directory, &find::Host::this())
}

/// Returns the state directory as far as it is known without the configuration file.
pub(crate) fn state_dir(
    overrides: &Overrides,
    environment: &Environment,
    working_directory: &Path,
) -> Option<PathBuf> {
    let stated = overrides.state_dir.clone();
    let stated = stated.or_else(|| environment.get("OPSCTL_STATE_DIR").map(PathBuf::from));
    let stated = stated.map(|path| working_directory.join(path));
    stated.or_else(|| resolve::default_state_dir(environment, find::Host::this().uid))
}

/// Returns the database of the history as far as it is known without the configuration file.
pub(crate) fn history_url(environment: &Environment) -> Option<SecretSource> {
    let stated = environment.get("OPSCTL_HISTORY_URL").filter(|text| url::check(text).is_ok());
    stated.map(|text| SecretSource::Stated(Secret::new(text)))
}

/// Returns who is called, whatever else is wrong with the file.
pub(crate) fn contacts(
    overrides: &Overrides,
    environment: &Environment,
    working_directory: &Path,
) -> Result<Contacts, Error> {
    let found = find::find(overrides, environment, working_directory, &find::Host::this())?;
    found.as_ref().map_or_else(|| Ok(Contacts::new()), contacts::only)
}

/// Returns whom to tell of a run, as far as it is known without the configuration file.
pub(crate) fn ping(environment: &Environment) -> Ping {
    let url = environment.get(ping::VARIABLE).and_then(|text| value::parse_http(text).ok());
    Ping { url, with_report: true, ..Ping::default() }
}

/// Understands the text of a file, whatever it is.
#[cfg(fuzzing)]
pub(crate) fn fuzz(text: &str) {
    drop(file::parse(&find::Found {
        path: "/opsctl.toml".into(),
        text: text.to_owned(),
        exposed: None,
    }));
}

/// What the command line says; the commands' flags are put in here as they are.
///
/// Relative paths are relative to the working directory. Empty lists and `None` are flags not given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    /// `--config FILE`.
    pub(crate) config: Option<PathBuf>,
    /// `--state-dir DIRECTORY`.
    pub(crate) state_dir: Option<PathBuf>,
    /// `--url URL`: replaces all configured databases by this one.
    pub(crate) url: Option<Secret>,
    /// `--database NAME`, repeatable: which configured databases, or which database to connect to.
    pub(crate) databases: Vec<String>,
    /// `--repository DIRECTORY|s3://BUCKET/PREFIX|NAME`.
    pub(crate) repository: Option<String>,
    /// `--compression`.
    pub(crate) compression: Option<Compression>,
    /// `--jobs`.
    pub(crate) jobs: Option<u32>,
    /// `--exclude-table-data`, repeatable; replaces the file's.
    pub(crate) exclude_table_data: Vec<String>,
    /// `--exclude-schema`, repeatable; replaces the file's.
    pub(crate) exclude_schema: Vec<String>,
    /// `--schema-only`.
    pub(crate) schema_only: Option<bool>,
    /// `--role-passwords`.
    pub(crate) role_passwords: Option<bool>,
    /// `--fail-on-shrink`.
    pub(crate) fail_on_shrink: Option<bool>,
    /// `--timeout`.
    pub(crate) timeout: Option<Duration>,
}

/// A configuration that was read, merged and checked.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// What the commands work with.
    pub(crate) config: Config,
    /// The file it was read from, if there was one.
    pub(crate) file: Option<PathBuf>,
    /// Where each setting that is not a default came from.
    sources: resolve::Sources,
}

impl Loaded {
    /// Returns where a setting came from, by its key.
    pub(crate) fn source(&self, key: &str) -> Source {
        self.sources.of(key)
    }

    /// Returns where the location of each repository came from.
    pub(crate) fn repository_sources(&self) -> impl Iterator<Item = Source> + '_ {
        let keys = self.sources.repositories.iter();
        keys.map(|key| self.source(&format!("{key}.location")))
    }
}

/// Everything a run may need to know.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Where locks and, unless it has a place of its own, the history lie.
    pub(crate) state_dir: PathBuf,
    /// The databases to look after, in the file's order; never empty; names are unique.
    pub(crate) databases: Vec<Database>,
    /// Where backups live; never empty; names and locations are unique.
    pub(crate) repositories: Vec<Repository>,
    /// How backups are made.
    pub(crate) backup: Backup,
    /// What a restored database is asked; names are unique.
    pub(crate) queries: Vec<Query>,
    /// When commands are expected to run.
    pub(crate) schedule: Schedule,
    /// The maintenance windows by name; those that are off have no value.
    pub(crate) windows: BTreeMap<String, Option<Window>>,
    /// Which monitor is told of runs.
    pub(crate) ping: Ping,
    /// Where their metrics go.
    pub(crate) metrics: Metrics,
    /// What `cleanup-sessions` cleans.
    pub(crate) sessions: Sessions,
    /// What `db-maintain` may do.
    pub(crate) maintain: Maintain,
    /// What `archive-audit` archives; tables and places together are unique.
    pub(crate) audits: Vec<AuditTable>,
    /// What is asked by `health-check`.
    pub(crate) health: Health,
    /// The database that has the history, in place of a file in the state directory.
    pub(crate) history_url: Option<SecretSource>,
    /// Who is told of failures.
    pub(crate) notify: Notify,
    /// Who is called.
    pub(crate) contacts: Contacts,
}

/// Numbers, addresses and names of people, under names of the file's own.
pub(crate) type Contacts = BTreeMap<String, String>;

/// A secret that is stated, or lies in a file that is read when it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretSource {
    Stated(Secret),
    File(PathBuf),
}

impl SecretSource {
    /// Returns the secret, without white space at its ends if it comes from a file.
    pub(crate) fn read(&self) -> Result<Secret, Problem> {
        match self {
            SecretSource::Stated(secret) => Ok(secret.clone()),
            SecretSource::File(path) => match find::read_text(path) {
                Ok(text) => Ok(Secret::new(text.trim())),
                Err(error) => Err(find::failed(Source::Default, path, &error)),
            },
        }
    }
}

impl Config {
    /// Is anything of a database archived?
    pub(crate) fn is_audited(&self, database: &str) -> bool {
        self.audits.iter().any(|audit| audit.is_in(database))
    }

    /// Reads every secret that lies in a file and would be read later, and returns what is wrong with them.
    pub(crate) fn unreadable_secrets(&self) -> Vec<Problem> {
        let channels = self.notify.channels.iter().filter_map(|channel| match &channel.to {
            Recipient::Webhook(source) | Recipient::Slack(source) => Some(source),
            Recipient::Email(email) => email.login.as_ref().map(|(_, password)| password),
        });
        let sources = self.history_url.iter().chain(channels);
        sources.filter_map(|source| source.read().err()).collect()
    }
}

/// A question to a restored database whose answer is known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Query {
    pub(crate) name: String,
    /// The name of the only database it is for.
    pub(crate) database: Option<String>,
    /// A statement that returns one value.
    pub(crate) sql: String,
    pub(crate) expected: Expected,
}

/// What a [`Query`] should return.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expected {
    /// This text.
    Equals(String),
    /// A number; at least one of the limits is there.
    Between { at_least: Option<f64>, at_most: Option<f64> },
}

/// One database.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    /// Its name in the configuration, else `None`: then the name of the database connected to is used.
    pub(crate) name: Option<String>,
    /// A URL or `key=value` string as libpq takes it; `None` leaves all to the PG* variables.
    pub(crate) url: Option<Secret>,
    /// The database to connect to, from `--database` where none of that name is configured.
    /// The caller must set it over the one in `url`, or over `PGDATABASE` without a `url`.
    pub(crate) dbname: Option<String>,
    /// Where the PostgreSQL client programs are, if not to be searched.
    pub(crate) bin_dir: Option<PathBuf>,
}

impl Database {
    /// Returns what to call it before a connection tells the database's name.
    pub(crate) fn label(&self) -> Option<&str> {
        self.name.as_deref().or(self.dbname.as_deref())
    }
}

/// One repository.
#[derive(Clone, Debug)]
pub(crate) struct Repository {
    /// Its name in the configuration; `default` for `[repository]`, a flag or the environment.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) location: Location,
    /// Which backups to keep.
    pub(crate) retention: Retention,
    /// age recipients (`age1…`); empty means no encryption.
    pub(crate) recipients: Vec<String>,
    /// A file with age identities, for reading encrypted backups back.
    pub(crate) identity_file: Option<PathBuf>,
}

/// A directory or an S3 prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a run has a handful of them")]
pub(crate) enum Location {
    /// A local (or mounted) directory, absolute.
    Directory(PathBuf),
    /// A bucket and a prefix in it.
    S3(S3),
}

/// How to reach a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct S3 {
    /// The bucket's name.
    pub(crate) bucket: String,
    /// What all keys start with: without slashes at its ends; may be empty.
    pub(crate) prefix: String,
    /// `http(s)://host[:port]`, without a slash at its end; `None` is AWS.
    pub(crate) endpoint: Option<String>,
    /// The region; `us-east-1` unless said otherwise.
    pub(crate) region: String,
    /// Is the bucket named in the path instead of the host name? Default: with an endpoint, yes.
    pub(crate) path_style: bool,
    /// `STANDARD_IA`, `GLACIER`, …; `None` leaves it to the bucket.
    pub(crate) storage_class: Option<String>,
    /// Object Lock for everything written.
    pub(crate) object_lock: Option<ObjectLock>,
    /// Server-side encryption for everything written.
    pub(crate) encryption: Option<ServerSideEncryption>,
    /// Where the credentials come from.
    pub(crate) credentials: Credentials,
}

/// How long what is written cannot be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ObjectLock {
    pub(crate) mode: ObjectLockMode,
    /// At least 1.
    pub(crate) days: u32,
}

/// Who may shorten a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObjectLockMode {
    /// Those with a special permission.
    Governance,
    /// Nobody.
    Compliance,
}

/// Encryption by the storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServerSideEncryption {
    /// SSE-S3.
    Aes256,
    /// SSE-KMS, with a key's id or the account's default key.
    Kms(Option<String>),
}

/// Where S3 credentials come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// Stated: from the environment variables.
    Keys { access_key: String, secret_key: Secret, session_token: Option<Secret> },
    /// From a profile of the shared credentials file.
    Profile { file: PathBuf, profile: String },
    /// Web identity (IRSA), container or instance metadata, asked for when the storage is opened.
    Ambient,
}

/// Which backups to keep. A backup is kept if any rule keeps it; all zero (or absent) keeps everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_field_names, reason = "the names are the keys of the file")]
pub(crate) struct Retention {
    /// All backups of so many days, counted back from the newest good backup.
    pub(crate) keep_days: u32,
    /// The newest so many.
    pub(crate) keep_last: u32,
    /// The newest of each day, for so many days that have one.
    pub(crate) keep_daily: u32,
    /// The newest of each ISO week, for so many weeks that have one.
    pub(crate) keep_weekly: u32,
    /// The newest of each month, for so many months that have one.
    pub(crate) keep_monthly: u32,
    /// The newest of each year, for so many years that have one.
    pub(crate) keep_yearly: u32,
}

/// How backups are made.
#[derive(Clone, Debug)]
pub(crate) struct Backup {
    /// What the artifacts are compressed with.
    pub(crate) compression: Compression,
    /// How many tables, or parts of one table, are copied at once; `None`: as many as processors, 8 at most.
    pub(crate) jobs: Option<u32>,
    /// Table patterns as `pg_dump --exclude-table-data` takes them.
    pub(crate) exclude_table_data: Vec<String>,
    /// Schema patterns as `pg_dump --exclude-schema` takes them.
    pub(crate) exclude_schema: Vec<String>,
    /// Leave the rows out?
    pub(crate) schema_only: bool,
    /// Put the roles' password hashes into `globals.sql`?
    pub(crate) role_passwords: bool,
    /// Is a sudden drop of rows or bytes a bad result (exit 3) and not only a warning?
    pub(crate) fail_on_shrink: bool,
    /// From how much less than the previous backup, in percent, it is a sudden drop.
    pub(crate) shrink_percent: u32,
    /// How long a run may take; at least a second.
    pub(crate) timeout: Option<Duration>,
}

/// The wanted compression: `auto`, `none`, `gzip`, `gzip:1..9`, `zstd`, `zstd:1..19`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    /// zstd where the server's own `pg_restore` reads it (PostgreSQL 16 and later), else gzip.
    Auto,
    /// Nothing.
    None,
    /// gzip members; the default level is 6, as `pg_dump`'s.
    Gzip(u8),
    /// zstd frames with checksum; the default level is 3.
    Zstd(u8),
}
