//! The whole configuration as a list: each setting, its value and who said so. Secrets are not in it.

use std::path::Path;

use super::file::retention_fields;
use super::maintain::MEBIBYTE;
use super::notify::SEVERITIES;
use super::schedule::{COMMANDS, STATUS};
use super::{
    AuditTable, Backup, Channel, Credentials, Database, Email, Loaded, Location, Maintain, Metrics,
    ObjectLockMode, Ping, Recipient, Repository, S3, SecretSource, ServerSideEncryption, Sessions,
    UnlockWhat, What, format_duration, url,
};
use crate::secret::Secret;

/// One line of `opsctl config show`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Shown {
    /// As in the file, with its section: `backup.jobs`.
    pub(crate) key: String,
    /// As in the file, without quotes; passwords are `***`; what is not set is empty.
    pub(crate) value: String,
    /// `default`, `environment DATABASE_URL`, `flag --jobs`, `/etc/opsctl/opsctl.toml:12`.
    pub(crate) source: String,
}

/// Lists every setting of a configuration, in the order of the example file.
pub(crate) fn show(loaded: &Loaded) -> Vec<Shown> {
    let mut list = List { loaded, shown: Vec::new() };
    list.add("state_dir", loaded.config.state_dir.display().to_string());
    for (key, database) in loaded.sources.databases.iter().zip(&loaded.config.databases) {
        list.database(key, database);
    }
    for (key, repository) in loaded.sources.repositories.iter().zip(&loaded.config.repositories) {
        list.repository(key, repository);
    }
    list.backup(&loaded.config.backup);
    let schedule = &loaded.config.schedule;
    for row in COMMANDS.iter().chain([STATUS]) {
        let scheduled = schedule.commands.iter().chain(&schedule.status).find(|s| s.row == row);
        let times = scheduled.map_or("off".to_owned(), |scheduled| scheduled.times.to_string());
        list.add(format!("schedule.{}", row.key), times);
    }
    list.add("schedule.grace", format_duration(schedule.grace));
    for (name, window) in &loaded.config.windows {
        let shown = window.as_ref().map_or("off".to_owned(), ToString::to_string);
        list.add(format!("windows.{name}"), shown);
    }
    let Ping { url, commands, with_report } = &loaded.config.ping;
    list.add("ping.url", url.as_ref().map(shown_url).unwrap_or_default());
    list.add("ping.body", if *with_report { "report" } else { "none" });
    for (name, url) in commands {
        list.add(format!("ping.commands.{name}"), shown_url(url));
    }
    let Metrics { textfile_dir, pushgateway } = &loaded.config.metrics;
    list.add_path("metrics.textfile_dir".to_owned(), textfile_dir.as_deref());
    list.add("metrics.pushgateway", pushgateway.as_ref().map(shown_url).unwrap_or_default());
    list.add("health.timeout", format_duration(loaded.config.health.timeout));
    for stated in loaded.config.health.stated.iter().filter(|s| s.key != "health.timeout") {
        list.add(stated.key.clone(), stated.value.clone());
    }
    list.secret("history.url", loaded.config.history_url.as_ref(), |url| {
        url::without_password(url.reveal())
    });
    for (key, command, _) in SEVERITIES {
        let severity = loaded.config.notify.severity(command).to_string();
        list.add(format!("notify.severity.{key}"), severity);
    }
    for channel in &loaded.config.notify.channels {
        list.channel(channel);
    }
    for query in &loaded.config.queries {
        list.add(format!("verify.query.{}", query.name), query.sql.clone());
    }
    list.sessions(&loaded.config.sessions);
    list.maintain(&loaded.config.maintain);
    for audit in &loaded.config.audits {
        list.audit(audit);
    }
    for (name, contact) in &loaded.config.contacts {
        list.add(format!("contacts.{name}"), contact.clone());
    }
    list.shown
}

/// Shows scheme, host and port of a URL for requests; the rest of it is a secret.
fn shown_url(url: &Secret) -> String {
    let Ok(parsed) = reqwest::Url::parse(url.reveal()) else { return url.to_string() };
    let port = parsed.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}/{url}", parsed.scheme(), parsed.host_str().unwrap_or_default())
}

/// Shows where something lies.
fn shown_location(location: &Location) -> String {
    match location {
        Location::Directory(path) => path.display().to_string(),
        Location::S3(s3) if s3.prefix.is_empty() => format!("s3://{}", s3.bucket),
        Location::S3(s3) => format!("s3://{}/{}", s3.bucket, s3.prefix),
    }
}

struct List<'l> {
    loaded: &'l Loaded,
    shown: Vec<Shown>,
}

impl List<'_> {
    fn add(&mut self, key: impl Into<String>, value: impl Into<String>) {
        let (key, value) = (key.into(), value.into());
        let source = self.loaded.sources.of(&key).to_string();
        self.shown.push(Shown { key, value, source });
    }

    fn add_path(&mut self, key: String, path: Option<&Path>) {
        self.add(key, path.map(|path| path.display().to_string()).unwrap_or_default());
    }

    /// Adds a secret as `show` shows it, or the file that has it.
    fn secret(
        &mut self,
        key: &str,
        source: Option<&SecretSource>,
        show: impl Fn(&Secret) -> String,
    ) {
        match source {
            None => self.add(key, ""),
            Some(SecretSource::Stated(secret)) => self.add(key, show(secret)),
            Some(SecretSource::File(path)) => {
                self.add_path(format!("{key}_file"), Some(path));
            }
        }
    }

    fn channel(&mut self, channel: &Channel) {
        let Channel { name, at_least, to } = channel;
        let key = format!("notify.channels.{name}");
        self.add(format!("{key}.at_least"), at_least.to_string());
        match to {
            Recipient::Webhook(url) => {
                self.secret(&format!("{key}.webhook"), Some(url), Secret::to_string);
            }
            Recipient::Slack(url) => {
                self.secret(&format!("{key}.slack"), Some(url), Secret::to_string);
            }
            Recipient::Email(Email { to, from, server, port, tls, login }) => {
                self.add(format!("{key}.email"), to.join(", "));
                self.add(format!("{key}.from"), from);
                let port = port.map(|port| format!(":{port}")).unwrap_or_default();
                self.add(format!("{key}.smtp"), format!("{server}{port}"));
                self.add(format!("{key}.smtp_tls"), tls.as_str());
                if let Some((user, password)) = login {
                    self.add(format!("{key}.smtp_user"), user);
                    let key = format!("{key}.smtp_password");
                    self.secret(&key, Some(password), Secret::to_string);
                }
            }
        }
    }

    fn database(&mut self, key: &str, database: &Database) {
        let Database { name, url, dbname, bin_dir } = database;
        if let Some(name) = name {
            self.add(format!("{key}.name"), name);
        }
        let url = url.as_ref().map(|url| url::without_password(url.reveal()));
        self.add(format!("{key}.url"), url.unwrap_or_default());
        if let Some(dbname) = dbname {
            self.add(format!("{key}.dbname"), dbname);
        }
        self.add_path(format!("{key}.bin_dir"), bin_dir.as_deref());
    }

    fn repository(&mut self, key: &str, repository: &Repository) {
        let Repository { name: _, location, retention, recipients, identity_file } = repository;
        self.add(format!("{key}.location"), shown_location(location));
        self.add(format!("{key}.recipients"), recipients.join(", "));
        self.add_path(format!("{key}.identity_file"), identity_file.as_deref());
        for (name, value) in retention_fields(&mut retention.clone()) {
            self.add(format!("{key}.retention.{name}"), value.to_string());
        }
        if let Location::S3(s3) = location {
            self.s3(&format!("{key}.s3"), s3);
        }
    }

    fn s3(&mut self, key: &str, s3: &S3) {
        self.add(format!("{key}.endpoint"), s3.endpoint.as_deref().unwrap_or_default());
        self.add(format!("{key}.region"), &s3.region);
        self.add(format!("{key}.path_style"), s3.path_style.to_string());
        self.add(format!("{key}.storage_class"), s3.storage_class.as_deref().unwrap_or_default());
        let mode = s3.object_lock.map(|lock| match lock.mode {
            ObjectLockMode::Governance => "governance",
            ObjectLockMode::Compliance => "compliance",
        });
        self.add(format!("{key}.object_lock"), mode.unwrap_or_default());
        let days = s3.object_lock.map(|lock| lock.days.to_string());
        self.add(format!("{key}.object_lock_days"), days.unwrap_or_default());
        let (encryption, kms_key_id) = match &s3.encryption {
            None => ("", ""),
            Some(ServerSideEncryption::Aes256) => ("AES256", ""),
            Some(ServerSideEncryption::Kms(id)) => ("aws:kms", id.as_deref().unwrap_or_default()),
        };
        self.add(format!("{key}.encryption"), encryption);
        self.add(format!("{key}.kms_key_id"), kms_key_id);
        let credentials = match &s3.credentials {
            Credentials::Keys { access_key, secret_key, .. } => {
                format!("{access_key} {secret_key}")
            }
            Credentials::Profile { file, profile } => {
                format!("profile {profile} of {}", file.display())
            }
            Credentials::Ambient => {
                "asked of the machine: web identity, container, instance".to_owned()
            }
        };
        self.add(format!("{key}.credentials"), credentials);
    }

    fn sessions(&mut self, sessions: &Sessions) {
        self.add("sessions.batch_milliseconds", sessions.batch.as_millis().to_string());
        self.add("sessions.pause_percent", sessions.pause_percent.to_string());
        self.add("sessions.max_replica_lag", format_duration(sessions.max_replica_lag));
        if !sessions.ignore_replicas.is_empty() {
            self.add("sessions.ignore_replicas", sessions.ignore_replicas.join(", "));
        }
        for rule in &sessions.rules {
            let what = match &rule.what {
                What::Preset { preset, .. } => format!("preset {preset}"),
                What::Table { table, column, time, .. } => {
                    format!("{table}.{column} ({})", time.word())
                }
            };
            self.add(format!("sessions.rule.{}", rule.name), what);
        }
        for unlock in &sessions.unlocks {
            let what = match &unlock.what {
                UnlockWhat::Preset { preset, .. } => format!("preset {preset}"),
                UnlockWhat::Table(lock) => format!("{}.{}", lock.table, lock.column),
            };
            self.add(format!("sessions.unlock.{}", unlock.name), what);
        }
        if let Some(revoke) = &sessions.revoke {
            let from: Vec<_> = revoke.from.iter().map(|from| from.table.to_string()).collect();
            self.add("sessions.revoke.users", revoke.users.to_string());
            self.add("sessions.revoke.from", from.join(", "));
        }
        if let Some(audit) = &sessions.audit {
            self.add("sessions.audit.table", audit.table.to_string());
        }
    }

    fn maintain(&mut self, maintain: &Maintain) {
        let Maintain { jobs, reindex, reindex_bloat_percent, probe, max_latency_percent, .. } =
            maintain;
        let mebibytes = |bytes: u64| (bytes / MEBIBYTE).to_string();
        for (key, value) in [
            ("jobs", jobs.to_string()),
            ("reindex", reindex.to_string()),
            ("reindex_bloat_percent", reindex_bloat_percent.to_string()),
            ("reindex_min_megabytes", mebibytes(maintain.reindex_min_bytes)),
            ("lock_timeout", format_duration(maintain.lock_timeout)),
            ("max_time", format_duration(maintain.max_time)),
            ("max_wal_megabytes", mebibytes(maintain.max_wal)),
            ("max_replica_lag", format_duration(maintain.max_replica_lag)),
            ("max_retained_wal_megabytes", mebibytes(maintain.max_retained_wal)),
            ("probe", probe.clone()),
            ("max_latency_percent", max_latency_percent.to_string()),
        ] {
            self.add(format!("maintain.{key}"), value);
        }
    }

    fn audit(&mut self, audit: &AuditTable) {
        let key = format!("audit.{}", audit.table);
        let location = shown_location(&audit.location);
        let (hot, window) = (format_duration(audit.hot_period), audit.window.word());
        let formats = match (audit.recipients.is_empty(), audit.parquet) {
            (false, _) => ", encrypted",
            (true, true) => ", also as Parquet",
            (true, false) => "",
        };
        self.add(&key, format!("older than {hot}, by {window}, to {location}{formats}"));
        let age = format_duration(audit.delete_min_age);
        let delete = if audit.delete { format!("after-verify, after {age}") } else { "off".into() };
        self.add(format!("{key}.delete"), delete);
        let retention = audit.retention.map(|kept| match kept.days {
            0 => kept.preset.word().to_owned(),
            days => format!("{}, at least {days} days", kept.preset.word()),
        });
        self.add(format!("{key}.retention"), retention.unwrap_or_default());
        if let Location::S3(s3) = &audit.location {
            self.s3(&format!("{key}.s3"), s3);
        }
    }

    fn backup(&mut self, backup: &Backup) {
        self.add("backup.compression", backup.compression.to_string());
        let jobs = backup.jobs.map(|jobs| jobs.to_string());
        self.add("backup.jobs", jobs.unwrap_or_default());
        self.add("backup.exclude_table_data", backup.exclude_table_data.join(", "));
        self.add("backup.exclude_schema", backup.exclude_schema.join(", "));
        self.add("backup.schema_only", backup.schema_only.to_string());
        self.add("backup.role_passwords", backup.role_passwords.to_string());
        self.add("backup.fail_on_shrink", backup.fail_on_shrink.to_string());
        self.add("backup.shrink_percent", backup.shrink_percent.to_string());
        let timeout = backup.timeout.map(format_duration);
        self.add("backup.timeout", timeout.unwrap_or_default());
    }
}
