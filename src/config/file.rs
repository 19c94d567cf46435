//! What a configuration file may say: every key, its type, and what does not go together.
//!
//! The result is the file's word and nothing else: defaults, flags and environment come later, and no
//! other file is read here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::DeTable;

use super::audit::{AUDIT_KEYS, AuditEntry};
use super::contacts::{self, ContactsEntry};
use super::find::Found;
use super::health::Health;
use super::maintain::MaintainEntry;
use super::metrics::MetricsEntry;
use super::notify::{ChannelEntry, NotifyEntry};
use super::ping::{COMMANDS as COMMANDS_TOLD, PingEntry};
use super::s3::S3Entry;
use super::schedule::{self, COMMANDS, STATUS, When};
use super::section::{At, Document, Keys, Section, absolute};
use super::sessions::SessionsEntry;
use super::{
    Compression, Error, Expected, Problem, Query, Retention, Source, maintain, sessions, url,
    value, windows,
};
use crate::secret::Secret;
use crate::window::Window;

/// Every section and its keys.
pub(super) const KEYS: Keys = &[
    (
        "",
        &[
            "state_dir",
            "database",
            "databases",
            "repository",
            "repositories",
            "backup",
            "verify",
            "schedule",
            "windows",
            "ping",
            "metrics",
            "health",
            "history",
            "notify",
            "sessions",
            "maintain",
            "audit",
            "contacts",
        ],
    ),
    ("database", &["name", "url", "url_file", "bin_dir"]),
    ("databases.NAME", &["url", "url_file", "bin_dir"]),
    (
        "repository",
        &["location", "recipients", "recipients_file", "identity_file", "retention", "s3"],
    ),
    (
        "repository.retention",
        &["keep_days", "keep_last", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly"],
    ),
    (
        "repository.s3",
        &[
            "endpoint",
            "region",
            "path_style",
            "storage_class",
            "object_lock",
            "object_lock_days",
            "encryption",
            "kms_key_id",
            "profile",
            "credentials_file",
        ],
    ),
    (
        "backup",
        &[
            "compression",
            "jobs",
            "exclude_table_data",
            "exclude_schema",
            "schema_only",
            "role_passwords",
            "fail_on_shrink",
            "shrink_percent",
            "timeout",
        ],
    ),
    ("schedule", schedule::KEYS),
    ("ping", &["url", "url_file", "body", "commands"]),
    ("ping.commands", COMMANDS_TOLD),
    ("metrics", &["textfile_dir", "pushgateway", "pushgateway_file"]),
    (
        "health",
        &[
            "timeout",
            "skip",
            "connect",
            "connections",
            "idle-in-transaction",
            "longest-query",
            "lock-waits",
            "xid-age",
            "multixact-age",
            "xmin-horizon",
            "prepared-transactions",
            "replication-lag",
            "replication-slots",
            "archiver",
            "checksum-failures",
            "sequences",
            "invalid-indexes",
            "extensions",
            "minor-version",
            "clock-skew",
            "server-certificate",
            "http",
            "tls",
            "dns",
            "tcp",
            "redis",
            "queue",
            "disk",
            "inodes",
            "disk-full",
            "memory",
            "cpu",
            "load",
            "service",
            "log",
            "repository",
            "backup",
            "restore-proof",
            "archive",
            "schedule",
        ],
    ),
    ("health.KIND", &["warning", "critical", "timeout", "for", "retries", "tags"]),
    (
        "health.http",
        &[
            "name",
            "url",
            "url_file",
            "url_env",
            "method",
            "headers",
            "headers_file",
            "headers_env",
            "expect_status",
            "expect_json",
            "expect_body",
            "tries",
            "warning",
            "critical",
            "timeout",
            "for",
            "retries",
            "tags",
        ],
    ),
    (
        "health.tls",
        &[
            "name",
            "host",
            "port",
            "server_name",
            "starttls",
            "ca_file",
            "warning",
            "critical",
            "timeout",
            "for",
            "retries",
            "tags",
        ],
    ),
    (
        "health.dns",
        &["name", "host", "addresses", "warning", "critical", "timeout", "for", "retries", "tags"],
    ),
    (
        "health.tcp",
        &["name", "host", "port", "warning", "critical", "timeout", "for", "retries", "tags"],
    ),
    (
        "health.redis",
        &[
            "name", "url", "url_file", "url_env", "warning", "critical", "timeout", "for",
            "retries", "tags",
        ],
    ),
    (
        "health.queue",
        &[
            "name",
            "broker",
            "url",
            "url_file",
            "url_env",
            "queues",
            "namespace",
            "max_dead",
            "min_workers",
            "warning",
            "critical",
            "timeout",
            "for",
            "retries",
            "tags",
        ],
    ),
    ("history", &["url", "url_file"]),
    ("notify", &["severity", "channels"]),
    (
        "notify.severity",
        &[
            "backup",
            "verify_backup",
            "restore_test",
            "restore",
            "health_check",
            "health_warning",
            "cleanup_sessions",
            "db_maintain",
            "archive_audit",
            "other",
        ],
    ),
    (
        "notify.channels.NAME",
        &[
            "at_least",
            "webhook",
            "webhook_file",
            "slack",
            "slack_file",
            "email",
            "from",
            "smtp",
            "smtp_tls",
            "smtp_user",
            "smtp_password_file",
        ],
    ),
    ("health.disk", &["paths", "warning", "critical", "timeout", "for", "retries", "tags"]),
    (
        "health.service",
        &[
            "name", "kind", "service", "socket", "user", "warning", "critical", "timeout", "for",
            "retries", "tags",
        ],
    ),
    (
        "health.log",
        &[
            "name",
            "path",
            "journal",
            "window",
            "patterns",
            "failed_logins",
            "refused",
            "not_found",
            "server_errors",
            "warning",
            "critical",
            "timeout",
            "for",
            "retries",
            "tags",
        ],
    ),
    ("audit", AUDIT_KEYS),
    ("verify", &["query"]),
    ("verify.query", &["name", "database", "sql", "equals", "at_least", "at_most"]),
    (
        "sessions",
        &[
            "rule",
            "unlock",
            "revoke",
            "audit",
            "batch_milliseconds",
            "pause_percent",
            "max_replica_lag",
            "ignore_replicas",
        ],
    ),
    (
        "sessions.rule",
        &[
            "name",
            "database",
            "preset",
            "schema",
            "table",
            "column",
            "kind",
            "zone",
            "grace",
            "condition",
            "max_percent",
            "children",
        ],
    ),
    ("sessions.rule.children", &["table", "column", "key", "action"]),
    (
        "sessions.unlock",
        &[
            "name",
            "database",
            "preset",
            "schema",
            "table",
            "column",
            "kind",
            "zone",
            "grace",
            "condition",
            "id",
            "set_null",
            "set_zero",
            "set_false",
        ],
    ),
    ("sessions.revoke", &["database", "users", "id", "password_reset", "lock", "from"]),
    ("sessions.revoke.from", &["table", "user", "ip", "since", "set_true", "set_now"]),
    ("sessions.audit", &["table", "action", "subject", "at", "run", "detail"]),
    ("maintain", maintain::KEYS),
];

/// A file's content.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) state_dir: Option<At<PathBuf>>,
    pub(super) databases: Vec<DatabaseEntry>,
    pub(super) repositories: Vec<RepositoryEntry>,
    pub(super) backup: BackupEntry,
    pub(super) queries: Vec<Query>,
    pub(super) schedule: ScheduleEntry,
    /// `[windows]`, by name; those that are off have no value.
    pub(super) windows: BTreeMap<String, At<Option<Window>>>,
    pub(super) ping: PingEntry,
    pub(super) metrics: MetricsEntry,
    pub(super) sessions: SessionsEntry,
    pub(super) maintain: MaintainEntry,
    pub(super) audits: Vec<AuditEntry>,
    pub(super) health: Health,
    pub(super) history: HistoryEntry,
    pub(super) notify: NotifyEntry,
    pub(super) contacts: ContactsEntry,
}

/// `[history]`: one of them at most.
#[derive(Debug, Default)]
pub(super) struct HistoryEntry {
    pub(super) url: Option<At<Secret>>,
    pub(super) url_file: Option<At<PathBuf>>,
}

/// `[database]` or one of `[databases.NAME]`.
#[derive(Debug)]
pub(super) struct DatabaseEntry {
    /// `database` or `databases.NAME`.
    pub(super) key: String,
    pub(super) name: Option<At<String>>,
    pub(super) url: Option<At<Secret>>,
    pub(super) url_file: Option<At<PathBuf>>,
    pub(super) bin_dir: Option<At<PathBuf>>,
}

/// `[repository]` or one of `[repositories.NAME]`.
#[derive(Debug)]
pub(super) struct RepositoryEntry {
    /// `repository` or `repositories.NAME`.
    pub(super) key: String,
    pub(super) name: String,
    pub(super) line: usize,
    /// Only `[repository]` may leave it out.
    pub(super) location: Option<At<Place>>,
    pub(super) recipients: Option<At<Vec<String>>>,
    pub(super) recipients_file: Option<At<PathBuf>>,
    pub(super) identity_file: Option<At<PathBuf>>,
    pub(super) retention: Retention,
    /// The lines of the retention's keys.
    pub(super) retention_lines: BTreeMap<&'static str, usize>,
    pub(super) s3: S3Entry,
}

/// Where a repository is, without the details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Directory(PathBuf),
    Bucket { bucket: String, prefix: String },
}

/// `[schedule]`.
#[derive(Debug, Default)]
pub(super) struct ScheduleEntry {
    /// In the order of [`COMMANDS`].
    pub(super) commands: Vec<Option<At<When>>>,
    pub(super) status: Option<At<When>>,
    pub(super) grace: Option<At<Duration>>,
}

/// `[backup]`.
#[derive(Debug, Default)]
pub(super) struct BackupEntry {
    pub(super) compression: Option<At<Compression>>,
    pub(super) jobs: Option<At<u32>>,
    pub(super) exclude_table_data: Option<At<Vec<String>>>,
    pub(super) exclude_schema: Option<At<Vec<String>>>,
    pub(super) schema_only: Option<At<bool>>,
    pub(super) role_passwords: Option<At<bool>>,
    pub(super) fail_on_shrink: Option<At<bool>>,
    pub(super) shrink_percent: Option<At<u32>>,
    pub(super) timeout: Option<At<Duration>>,
}

/// Understands a file, or lists all that is wrong with it.
pub(super) fn parse(found: &Found) -> Result<File, Error> {
    let document = Document::new(&found.path, &found.text);
    let table = table(&document, &found.text)?;
    let table = table.get_ref();
    let top = Section::open(&document, String::new(), table, "", KEYS);
    let mut file = File {
        path: found.path.clone(),
        state_dir: top.path("state_dir"),
        databases: databases(&document, &top),
        repositories: repositories(&document, &top),
        backup: backup(&document, &top),
        queries: queries(&document, &top),
        schedule: schedule(&document, &top),
        windows: windows::read(&document, &top),
        ping: ping(&document, &top),
        metrics: MetricsEntry::read(&document, &top),
        sessions: sessions::read(&document, &top),
        maintain: MaintainEntry::read(&document, &top),
        audits: AuditEntry::read(&document, &top),
        health: Health::read(&document, &top),
        history: history(&document, &top),
        notify: NotifyEntry::read(&document, &top),
        contacts: contacts::read(&document, &top),
    };
    if let Some(reason) = &found.exposed {
        refuse_exposed_secrets(&document, &mut file, reason);
    }
    Error::unless_empty(document.into_problems())?;
    Ok(file)
}

/// Reads TOML.
pub(super) fn table<'t>(
    document: &Document<'_>,
    text: &'t str,
) -> Result<Spanned<DeTable<'t>>, Problem> {
    // Not the error's `Display`: it quotes the line, which may hold a password.
    DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| document.line(span.start));
        Problem::new(document.source(line), format!("not valid TOML: {}", error.message()))
    })
}

fn refuse_exposed_secrets(document: &Document<'_>, file: &mut File, reason: &str) {
    let databases = file.databases.iter().map(|database| (database.key.as_str(), &database.url));
    for (key, url) in databases.chain([("history", &file.history.url)]) {
        if let Some(url) = url.as_ref().filter(|url| url::has_password(url.value.reveal())) {
            let what = format!("`url` in [{key}] holds a password that others can read: {reason}");
            document.problem(url.line, format!("{what}, or use `url_file`"));
        }
    }
    let of_channels = file.notify.channels.iter().filter_map(ChannelEntry::secret);
    let of_checks = file.health.secrets.iter();
    let of_checks = of_checks.map(|(key, line, section)| (key.as_str(), *line, section.as_str()));
    for (key, line, section) in of_channels.chain(of_checks) {
        let what = format!("`{key}` in [{section}] is a secret that others can read: {reason}");
        document.problem(line, format!("{what}, or use `{key}_file`"));
    }
    // Whoever knows the URL of a check can report in the name of its command.
    let url = file.ping.url.iter().map(|url| ("url".to_owned(), "ping", url.line));
    let own = file.ping.commands.iter();
    let own = own.map(|(name, url)| ((*name).to_owned(), "ping.commands", url.line));
    for (key, section, line) in url.chain(own) {
        let what = format!("`{key}` in [{section}] is a secret that others can read: {reason}");
        document.problem(line, format!("{what}, or use `url_file`"));
    }
    if let Some(url) = &file.metrics.pushgateway
        && url::has_password(url.value.reveal())
    {
        let what = "`pushgateway` in [metrics] holds a password that others can read";
        document.problem(url.line, format!("{what}: {reason}, or use `pushgateway_file`"));
    }
}

fn databases(document: &Document<'_>, top: &Section<'_>) -> Vec<DatabaseEntry> {
    let single = top.table("database");
    let several = top.tables("databases");
    if let (Some(single), Some(line)) = (&single, top.line_of("databases")) {
        both(document, single.line, line, "database", "databases");
    }
    let mut entries = Vec::new();
    if let Some(table) = single {
        let section = Section::open(document, "database".to_owned(), table.value, "database", KEYS);
        let name = section.parsed("name", |name| value::check_name(name).map(|()| name.to_owned()));
        entries.push(DatabaseEntry { name, ..database(&section, "database".to_owned()) });
    }
    for (name, table) in several {
        let key = format!("databases.{name}");
        let section = Section::open(document, key.clone(), table.value, "databases.NAME", KEYS);
        if let Err(complaint) = value::check_name(&name) {
            document.problem(table.line, complaint);
        }
        if section.line_of("url").is_none() && section.line_of("url_file").is_none() {
            document.problem(table.line, format!("[{key}] needs `url` or `url_file`"));
        }
        let name = Some(At { value: name, line: table.line });
        entries.push(DatabaseEntry { name, ..database(&section, key) });
    }
    entries
}

fn database(section: &Section<'_>, key: String) -> DatabaseEntry {
    refuse_both_urls(section);
    DatabaseEntry {
        key,
        name: None,
        url: connection_string(section),
        url_file: section.path("url_file"),
        bin_dir: section.path("bin_dir"),
    }
}

fn refuse_both_urls(section: &Section<'_>) {
    if let (Some(_), Some(line)) = (section.line_of("url"), section.line_of("url_file")) {
        section.complain("url_file", line, "`url` is there as well: keep one of them");
    }
}

fn connection_string(section: &Section<'_>) -> Option<At<Secret>> {
    section.parsed("url", |text| url::check(text).map(|()| Secret::new(text)))
}

fn repositories(document: &Document<'_>, top: &Section<'_>) -> Vec<RepositoryEntry> {
    let single = top.table("repository");
    let several = top.tables("repositories");
    if let (Some(single), Some(line)) = (&single, top.line_of("repositories")) {
        both(document, single.line, line, "repository", "repositories");
    }
    let mut entries: Vec<RepositoryEntry> = Vec::new();
    if let Some(table) = single {
        entries.push(repository(document, "repository".to_owned(), "default".to_owned(), &table));
    }
    for (name, table) in several {
        if let Err(complaint) = value::check_name(&name) {
            document.problem(table.line, complaint);
        }
        let entry = repository(document, format!("repositories.{name}"), name, &table);
        if entry.location.is_none()
            && !table.value.iter().any(|(key, _)| key.get_ref() == "location")
        {
            document.problem(table.line, format!("[{}] needs `location`", entry.key));
        }
        let same = |other: &&RepositoryEntry| match (&other.location, &entry.location) {
            (Some(a), Some(b)) => a.value == b.value && same_endpoint(other, &entry),
            _ => false,
        };
        if let (Some(location), Some(other)) = (&entry.location, entries.iter().find(same)) {
            let message =
                format!("`location` in [{}] is that of [{}] already", entry.key, other.key);
            document.problem(location.line, message);
        }
        entries.push(entry);
    }
    entries
}

fn same_endpoint(a: &RepositoryEntry, b: &RepositoryEntry) -> bool {
    let endpoint = |entry: &RepositoryEntry| entry.s3.endpoint.as_ref().map(|at| at.value.clone());
    endpoint(a) == endpoint(b)
}

fn both(document: &Document<'_>, single: usize, several: usize, one: &str, many: &str) {
    let message = format!(
        "[{one}] and [{many}.NAME] cannot be used together: rename the one to [{many}.NAME]"
    );
    document.problem(single.max(several), message);
}

fn repository(
    document: &Document<'_>,
    key: String,
    name: String,
    table: &At<&DeTable<'_>>,
) -> RepositoryEntry {
    let section = Section::open(document, key.clone(), table.value, "repository", KEYS);
    let base = document.path.parent().unwrap_or(Path::new("/"));
    let location = section.parsed("location", |text| parse_place(text, base));
    let mut retention_lines = BTreeMap::new();
    let mut retention = Retention::default();
    if let Some(table) = section.table("retention") {
        let title = format!("{key}.retention");
        let section = Section::open(document, title, table.value, "repository.retention", KEYS);
        for (name, field) in retention_fields(&mut retention) {
            if let Some(number) = section.number(name, 0..=u32::MAX) {
                *field = number.value;
                retention_lines.insert(name, number.line);
            }
        }
    }
    let mut s3 = S3Entry::default();
    if let Some(table) = section.table("s3") {
        if let Some(At { value: Place::Directory(_), .. }) = location {
            let message = format!(
                "[{key}.s3] goes with a location like s3://bucket/prefix, not with a directory"
            );
            document.problem(table.line, message);
        }
        s3 = S3Entry::read(&Section::open(
            document,
            format!("{key}.s3"),
            table.value,
            "repository.s3",
            KEYS,
        ));
    }
    RepositoryEntry {
        key,
        name,
        line: table.line,
        location,
        recipients: section.strings("recipients", value::parse_recipient),
        recipients_file: section.path("recipients_file"),
        identity_file: section.path("identity_file"),
        retention,
        retention_lines,
        s3,
    }
}

/// Pairs the retention's keys with its fields.
pub(super) fn retention_fields(retention: &mut Retention) -> [(&'static str, &mut u32); 6] {
    [
        ("keep_days", &mut retention.keep_days),
        ("keep_last", &mut retention.keep_last),
        ("keep_daily", &mut retention.keep_daily),
        ("keep_weekly", &mut retention.keep_weekly),
        ("keep_monthly", &mut retention.keep_monthly),
        ("keep_yearly", &mut retention.keep_yearly),
    ]
}

fn backup(document: &Document<'_>, top: &Section<'_>) -> BackupEntry {
    let Some(table) = top.table("backup") else { return BackupEntry::default() };
    let section = Section::open(document, "backup".to_owned(), table.value, "backup", KEYS);
    let entry = BackupEntry {
        compression: section.parsed("compression", str::parse),
        jobs: section.number("jobs", 1..=64),
        exclude_table_data: section.strings("exclude_table_data", value::parse_text),
        exclude_schema: section.strings("exclude_schema", value::parse_text),
        schema_only: section.boolean("schema_only"),
        role_passwords: section.boolean("role_passwords"),
        fail_on_shrink: section.boolean("fail_on_shrink"),
        shrink_percent: section.number("shrink_percent", 1..=99),
        timeout: section.parsed("timeout", value::parse_duration),
    };
    let schema_only = entry.schema_only.as_ref().filter(|at| at.value);
    let excluded = entry.exclude_table_data.as_ref().filter(|at| !at.value.is_empty());
    if let (Some(_), Some(excluded)) = (schema_only, excluded) {
        let complaint =
            "leaves out what `schema_only = true` leaves out already: remove one of them";
        section.complain("exclude_table_data", excluded.line, complaint);
    }
    entry
}

fn schedule(document: &Document<'_>, top: &Section<'_>) -> ScheduleEntry {
    let Some(table) = top.table("schedule") else { return ScheduleEntry::default() };
    let section = Section::open(document, "schedule".to_owned(), table.value, "schedule", KEYS);
    ScheduleEntry {
        commands: COMMANDS.iter().map(|row| section.parsed(row.key, str::parse)).collect(),
        status: section.parsed(STATUS.key, str::parse),
        grace: section.parsed("grace", value::parse_duration),
    }
}

fn ping(document: &Document<'_>, top: &Section<'_>) -> PingEntry {
    let Some(table) = top.table("ping") else { return PingEntry::default() };
    let section = Section::open(document, "ping".to_owned(), table.value, "ping", KEYS);
    let own = section.table("commands").map(|table| {
        let title = "ping.commands".to_owned();
        Section::open(document, title, table.value, "ping.commands", KEYS)
    });
    PingEntry::read(&section, own.as_ref())
}

fn history(document: &Document<'_>, top: &Section<'_>) -> HistoryEntry {
    let Some(table) = top.table("history") else { return HistoryEntry::default() };
    let section = Section::open(document, "history".to_owned(), table.value, "history", KEYS);
    refuse_both_urls(&section);
    HistoryEntry { url: connection_string(&section), url_file: section.path("url_file") }
}

fn queries(document: &Document<'_>, top: &Section<'_>) -> Vec<Query> {
    let Some(table) = top.table("verify") else { return Vec::new() };
    let verify = Section::open(document, "verify".to_owned(), table.value, "verify", KEYS);
    let mut queries: Vec<Query> = Vec::new();
    for At { value: table, line } in verify.list_of_tables("query") {
        let title = "[verify.query]".to_owned();
        let section = Section::open(document, title, table, "verify.query", KEYS);
        let text = |key: &str| section.parsed(key, value::parse_text).map(|at| at.value);
        let (at_least, at_most) = (section.decimal("at_least"), section.decimal("at_most"));
        let equals = text("equals");
        let has = |key: &str| section.line_of(key).is_some();
        if has("equals") == (has("at_least") || has("at_most")) {
            let problem = "[[verify.query]] needs `equals`, or `at_least` or `at_most` or both";
            document.problem(line, problem);
        }
        let (Some(name), Some(sql)) = (text("name"), text("sql")) else {
            if !has("name") || !has("sql") {
                document.problem(line, "[[verify.query]] needs `name` and `sql`");
            }
            continue;
        };
        if queries.iter().any(|query| query.name == name) {
            document.problem(
                line,
                format!("two of [[verify.query]] are named {}", value::quote(&name)),
            );
        }
        let range = |at: Option<At<f64>>| at.map(|at| at.value);
        let expected = match equals {
            Some(value) => Expected::Equals(value),
            None => Expected::Between { at_least: range(at_least), at_most: range(at_most) },
        };
        queries.push(Query { name, database: text("database"), sql, expected });
    }
    queries
}

/// Reads a location: a directory, or `s3://bucket/prefix`.
pub(super) fn parse_place(text: &str, base: &Path) -> Result<Place, String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return absolute(text, base).map(Place::Directory);
    };
    if scheme != "s3" {
        return Err(format!(
            "{} is neither a directory nor s3://bucket/prefix",
            value::quote(text)
        ));
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(plain) {
        let quoted = value::quote(bucket);
        return Err(format!("{quoted} is not a bucket's name: 3 to 63 letters, digits, `.`, `-`"));
    }
    let prefix = prefix.trim_matches('/');
    let odd = |c: char| !(c.is_ascii_alphanumeric() || "._-%=+@".contains(c));
    let bad = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains(odd);
    if !prefix.is_empty() && prefix.split('/').any(bad) {
        let quoted = value::quote(prefix);
        return Err(format!(
            "{quoted} cannot be a prefix: folders of letters, digits and `._-%=+@` only"
        ));
    }
    Ok(Place::Bucket { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

impl File {
    /// Returns a line of this file as a source.
    pub(super) fn source(&self, line: usize) -> Source {
        Source::File { path: self.path.clone(), line: Some(line) }
    }
}
