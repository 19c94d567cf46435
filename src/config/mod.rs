//! The configuration: what the file, the environment and the flags say, merged and checked once.
//!
//! Commands see [`Config`]; nothing below the commands does. This module reads the configuration file
//! and decides; it connects to nothing and creates nothing.

use std::path::PathBuf;
use std::time::Duration;

use crate::secret::Secret;

/// Everything a run may need to know.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Where locks (and later the history) lie.
    pub(crate) state_dir: PathBuf,
    /// The databases to look after, in the file's order; never empty; names are unique.
    pub(crate) databases: Vec<Database>,
    /// Where backups live; never empty; names and locations are unique.
    pub(crate) repositories: Vec<Repository>,
    /// How backups are made.
    pub(crate) backup: Backup,
}

/// One database.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    /// Its name in the configuration, else `None`: then the name of the database connected to is used.
    pub(crate) name: Option<String>,
    /// A URL or `key=value` string as libpq takes it; `None` leaves all to the PG* variables.
    pub(crate) url: Option<Secret>,
    /// Where the PostgreSQL client programs are, if not to be searched.
    pub(crate) bin_dir: Option<PathBuf>,
}

/// One repository.
#[derive(Clone, Debug)]
pub(crate) struct Repository {
    /// Its name in the configuration; `default` for one given by a flag or the environment.
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
    /// `http(s)://host[:port]`; `None` is AWS.
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
    /// How long a run may take.
    pub(crate) timeout: Option<Duration>,
}

/// The wanted compression: `auto`, `none`, `gzip`, `gzip:1..9`, `zstd`, `zstd:1..19`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    /// zstd where the server's own `pg_restore` reads it (PostgreSQL 16 and later), else gzip.
    Auto,
    /// Nothing.
    None,
    /// gzip members; the default level is 6, as pg_dump's.
    Gzip(u8),
    /// zstd frames with checksum; the default level is 3.
    Zstd(u8),
}
