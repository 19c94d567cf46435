//! `[notify]`: how urgent what is, and who is told of it by which channel.
//!
//! A channel's secrets that lie in files are not read here but when it is used: a backup does not fail because
//! the token of a chat is missing. `opsctl config check` reads them all.

use std::path::PathBuf;
use std::str::FromStr;

use super::file::KEYS;
use super::resolve::Merge;
use super::section::{At, Document, Section};
use super::{SecretSource, Source, value};
use crate::secret::Secret;

/// How urgent an incident is; the first is the most urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    P1,
    P2,
    P3,
    P4,
}

/// Who is told of what.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notify {
    severities: Vec<(&'static str, Severity)>,
    /// In the order of the file; names are unique.
    pub(crate) channels: Vec<Channel>,
}

/// A way to tell somebody.
#[derive(Clone, Debug)]
pub(crate) struct Channel {
    pub(crate) name: String,
    /// What is less urgent is not told here.
    pub(crate) at_least: Severity,
    pub(crate) to: Recipient,
}

/// Where a channel leads.
#[derive(Clone, Debug)]
pub(crate) enum Recipient {
    /// A URL that takes JSON by POST.
    Webhook(SecretSource),
    /// A URL that takes what Slack's incoming webhooks take.
    Slack(SecretSource),
    Email(Email),
}

/// A mail.
#[derive(Clone, Debug)]
pub(crate) struct Email {
    /// Valid addresses, never empty.
    pub(crate) to: Vec<String>,
    pub(crate) from: String,
    pub(crate) server: String,
    /// If it is not the usual one for the kind of encryption.
    pub(crate) port: Option<u16>,
    pub(crate) tls: SmtpTls,
    pub(crate) login: Option<(String, SecretSource)>,
}

/// How a mail server is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SmtpTls {
    /// In the clear at first, encrypted before anything is said: port 587.
    #[default]
    StartTls,
    /// Encrypted from the first byte: port 465.
    Implicit,
    /// Not encrypted: port 25.
    None,
}

/// A check that only warns.
const WARNING: &str = "health-check, a warning";

/// Keys of `[notify.severity]`, what the history calls the command, and the default. The last is for all others.
pub(super) const SEVERITIES: [(&str, &str, Severity); 10] = [
    ("backup", "backup", Severity::P2),
    ("verify_backup", "verify-backup", Severity::P2),
    ("restore_test", "verify-backup --restore-test", Severity::P2),
    ("restore", "restore", Severity::P3),
    ("health_check", "health-check", Severity::P2),
    ("health_warning", WARNING, Severity::P3),
    ("cleanup_sessions", "cleanup-sessions", Severity::P3),
    ("db_maintain", "db-maintain", Severity::P4),
    ("archive_audit", "archive-audit", Severity::P3),
    ("other", "", Severity::P3),
];

impl Notify {
    /// Returns how urgent it is when a check only warns.
    pub(crate) fn severity_of_warnings(&self) -> Severity {
        self.severity(WARNING)
    }

    /// Returns how urgent it is when a command fails or is late; `command` is as the history has it.
    pub(crate) fn severity(&self, command: &str) -> Severity {
        let of = |name: &str| self.severities.iter().find(|(known, _)| *known == name);
        of(command).or_else(|| of("")).map_or(Severity::P3, |(_, severity)| *severity)
    }
}

impl FromStr for Severity {
    type Err = String;

    fn from_str(text: &str) -> Result<Severity, String> {
        let all = [Severity::P1, Severity::P2, Severity::P3, Severity::P4];
        let found = all.into_iter().find(|severity| severity.to_string() == text);
        found.ok_or_else(|| format!("{} is not one of P1, P2, P3, P4", value::quote(text)))
    }
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl SmtpTls {
    /// Returns the word for it in the file.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            SmtpTls::StartTls => "starttls",
            SmtpTls::Implicit => "implicit",
            SmtpTls::None => "none",
        }
    }
}

/// What the file says of it.
#[derive(Debug, Default)]
pub(super) struct NotifyEntry {
    severities: [Option<At<Severity>>; SEVERITIES.len()],
    pub(super) channels: Vec<ChannelEntry>,
}

/// `[notify.channels.NAME]`.
#[derive(Debug)]
pub(super) struct ChannelEntry {
    /// `notify.channels.NAME`.
    key: String,
    name: String,
    at_least: Option<At<Severity>>,
    webhook: Option<At<Secret>>,
    webhook_file: Option<At<PathBuf>>,
    slack: Option<At<Secret>>,
    slack_file: Option<At<PathBuf>>,
    email: Option<At<Vec<String>>>,
    from: Option<At<String>>,
    smtp: Option<At<(String, Option<u16>)>>,
    smtp_tls: Option<At<SmtpTls>>,
    smtp_user: Option<At<String>>,
    smtp_password_file: Option<At<PathBuf>>,
}

/// A channel has exactly one of these.
const KINDS: [&str; 5] = ["webhook", "webhook_file", "slack", "slack_file", "email"];
/// Only with `email`.
const OF_EMAIL: [&str; 5] = ["from", "smtp", "smtp_tls", "smtp_user", "smtp_password_file"];

impl NotifyEntry {
    /// Reads the section and says what in it does not go together.
    pub(super) fn read(document: &Document<'_>, top: &Section<'_>) -> NotifyEntry {
        let Some(table) = top.table("notify") else { return NotifyEntry::default() };
        let notify = Section::open(document, "notify".to_owned(), table.value, "notify", KEYS);
        let severities = notify.table("severity").map(|table| {
            let title = "notify.severity".to_owned();
            let section = Section::open(document, title, table.value, "notify.severity", KEYS);
            SEVERITIES.map(|(key, ..)| section.parsed(key, str::parse))
        });
        let mut channels = Vec::new();
        for (name, table) in notify.tables("channels") {
            if let Err(complaint) = value::check_name(&name) {
                document.problem(table.line, complaint);
            }
            let key = format!("notify.channels.{name}");
            let kind = "notify.channels.NAME";
            let section = Section::open(document, key.clone(), table.value, kind, KEYS);
            channels.push(channel(document, &section, table.line, key, name));
        }
        NotifyEntry { severities: severities.unwrap_or_default(), channels }
    }
}

impl ChannelEntry {
    /// Returns the secret that the file itself holds, if it does: its key and line.
    pub(super) fn secret(&self) -> Option<(&str, usize, &str)> {
        let (webhook, slack) = (self.webhook.as_ref(), self.slack.as_ref());
        let found = webhook.map(|at| ("webhook", at.line));
        let (key, line) = found.or_else(|| slack.map(|at| ("slack", at.line)))?;
        Some((key, line, &self.key))
    }
}

fn channel(
    document: &Document<'_>,
    section: &Section<'_>,
    line: usize,
    key: String,
    name: String,
) -> ChannelEntry {
    let stated = KINDS.iter().filter(|kind| section.line_of(kind).is_some());
    match &stated.collect::<Vec<_>>()[..] {
        [_] => {}
        [] => document.problem(line, format!("[{key}] needs one of {}", KINDS.join(", "))),
        [_, second, ..] => {
            let line = section.line_of(second).unwrap_or(line);
            section.complain(second, line, "leads somewhere else: make a channel of its own of it");
        }
    }
    let is_mail = section.line_of("email").is_some();
    for of_email in OF_EMAIL {
        if let (Some(line), false) = (section.line_of(of_email), is_mail) {
            section.complain(of_email, line, "goes only with `email`");
        }
    }
    for needed in ["from", "smtp"] {
        if is_mail && section.line_of(needed).is_none() {
            document.problem(line, format!("[{key}] needs `{needed}`, because it has `email`"));
        }
    }
    let entry = ChannelEntry {
        at_least: section.parsed("at_least", str::parse),
        webhook: section.parsed("webhook", parse_url),
        webhook_file: section.path("webhook_file"),
        slack: section.parsed("slack", parse_url),
        slack_file: section.path("slack_file"),
        email: section.strings("email", |text| Ok(text.to_owned())),
        from: section.parsed("from", parse_address),
        smtp: section.parsed("smtp", parse_server),
        smtp_tls: section.parsed("smtp_tls", |text| {
            let all = [SmtpTls::StartTls, SmtpTls::Implicit, SmtpTls::None];
            let found = all.into_iter().find(|tls| tls.as_str() == text);
            found.ok_or_else(|| format!("{} is not starttls, implicit or none", value::quote(text)))
        }),
        smtp_user: section.parsed("smtp_user", value::parse_text),
        smtp_password_file: section.path("smtp_password_file"),
        key,
        name,
    };
    if let Some(email) = &entry.email {
        if email.value.is_empty() {
            section.complain("email", email.line, "is empty");
        }
        for complaint in email.value.iter().filter_map(|text| parse_address(text).err()) {
            section.complain("email", email.line, &complaint);
        }
    }
    let in_the_clear = entry.smtp_tls.as_ref().is_some_and(|at| at.value == SmtpTls::None);
    if let (Some(user), true) = (&entry.smtp_user, in_the_clear) {
        let complaint = "would send its password in the clear: use starttls or implicit";
        section.complain("smtp_user", user.line, complaint);
    }
    if let (Some(file), None) = (&entry.smtp_password_file, section.line_of("smtp_user")) {
        section.complain("smtp_password_file", file.line, "says not whose: add `smtp_user`");
    }
    entry
}

/// Takes a URL, all of which is a secret: it is not quoted in a complaint.
fn parse_url(text: &str) -> Result<Secret, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
    if host.is_some_and(|host| !host.is_empty()) && !text.contains(char::is_whitespace) {
        Ok(Secret::new(text))
    } else {
        Err("is not like https://host/path".to_owned())
    }
}

fn parse_address(text: &str) -> Result<String, String> {
    let valid = text.parse::<lettre::message::Mailbox>().is_ok();
    if valid { Ok(text.to_owned()) } else { Err(format!("{} is no address", value::quote(text))) }
}

/// Reads `host` or `host:port`; an IPv6 address stands in brackets.
fn parse_server(text: &str) -> Result<(String, Option<u16>), String> {
    let wrong = || format!("{} is not like mail.example.com or host:587", value::quote(text));
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            (host, Some(port.parse().map_err(|_| wrong())?))
        }
        _ => (text, None),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    let is_name = !host.is_empty() && host.chars().all(plain);
    let is_address = bare.is_some_and(|bare| bare.parse::<std::net::Ipv6Addr>().is_ok());
    if (is_name || is_address) && port != Some(0) {
        Ok((bare.unwrap_or(host).to_owned(), port))
    } else {
        Err(wrong())
    }
}

impl Merge<'_> {
    /// Puts together who is told of what.
    pub(super) fn notify(&mut self) -> Notify {
        let file = self.file;
        let mut severities = Vec::new();
        for ((key, command, default), stated) in SEVERITIES.into_iter().zip(&file.notify.severities)
        {
            let key = format!("notify.severity.{key}");
            let severity = self.setting([&key, "", ""], None, str::parse, stated.as_ref());
            severities.push((command, severity.unwrap_or(default)));
        }
        let entries = file.notify.channels.iter();
        let channels = entries.filter_map(|entry| self.channel(entry)).collect();
        Notify { severities, channels }
    }

    fn channel(&mut self, entry: &ChannelEntry) -> Option<Channel> {
        let key = &entry.key;
        for (name, line) in [
            ("at_least", entry.at_least.as_ref().map(|at| at.line)),
            ("webhook", entry.webhook.as_ref().map(|at| at.line)),
            ("webhook_file", entry.webhook_file.as_ref().map(|at| at.line)),
            ("slack", entry.slack.as_ref().map(|at| at.line)),
            ("slack_file", entry.slack_file.as_ref().map(|at| at.line)),
            ("email", entry.email.as_ref().map(|at| at.line)),
            ("from", entry.from.as_ref().map(|at| at.line)),
            ("smtp", entry.smtp.as_ref().map(|at| at.line)),
            ("smtp_tls", entry.smtp_tls.as_ref().map(|at| at.line)),
            ("smtp_user", entry.smtp_user.as_ref().map(|at| at.line)),
            ("smtp_password_file", entry.smtp_password_file.as_ref().map(|at| at.line)),
        ] {
            if let Some(line) = line {
                self.note(format!("{key}.{name}"), self.file.source(line));
            }
        }
        let source = |stated: &Option<At<Secret>>, file: &Option<At<PathBuf>>| match (stated, file)
        {
            (Some(secret), _) => Some(SecretSource::Stated(secret.value.clone())),
            (None, Some(path)) => Some(SecretSource::File(path.value.clone())),
            (None, None) => None,
        };
        let to = match (
            source(&entry.webhook, &entry.webhook_file),
            source(&entry.slack, &entry.slack_file),
            &entry.email,
        ) {
            (Some(webhook), _, _) => Recipient::Webhook(webhook),
            (None, Some(slack), _) => Recipient::Slack(slack),
            (None, None, Some(email)) => Recipient::Email(self.email(entry, &email.value)?),
            (None, None, None) => return None,
        };
        let at_least = entry.at_least.as_ref().map_or(Severity::P4, |at| at.value);
        Some(Channel { name: entry.name.clone(), at_least, to })
    }

    fn email(&mut self, entry: &ChannelEntry, to: &[String]) -> Option<Email> {
        const VARIABLE: &str = "OPSCTL_SMTP_PASSWORD";
        let login = match &entry.smtp_user {
            None => None,
            Some(user) => {
                let file = entry.smtp_password_file.as_ref();
                let file = file.map(|at| SecretSource::File(at.value.clone()));
                let variable = self.environment.get(VARIABLE);
                let variable = variable.map(|text| SecretSource::Stated(Secret::new(text)));
                if variable.is_some() {
                    let source = Source::environment(VARIABLE);
                    self.note(format!("{}.smtp_password", entry.key), source);
                }
                if variable.is_none() && file.is_none() {
                    let message = format!(
                        "`smtp_user` in [{}] needs `smtp_password_file`, or {VARIABLE}",
                        entry.key
                    );
                    self.problem(self.file.source(user.line), message);
                }
                Some((user.value.clone(), variable.or(file)?))
            }
        };
        let (server, port) = entry.smtp.as_ref()?.value.clone();
        Some(Email {
            to: to.to_vec(),
            from: entry.from.as_ref()?.value.clone(),
            server,
            port,
            tls: entry.smtp_tls.as_ref().map_or_else(SmtpTls::default, |at| at.value),
            login,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_urls_are_read() {
        let read = |text: &str| parse_server(text).ok();
        assert_eq!(read("mail.example.com"), Some(("mail.example.com".to_owned(), None)));
        assert_eq!(read("127.0.0.1:2525"), Some(("127.0.0.1".to_owned(), Some(2525))));
        assert_eq!(read("[::1]:25"), Some(("::1".to_owned(), Some(25))));
        assert_eq!(read("[::1]"), Some(("::1".to_owned(), None)));
        for wrong in ["", ":25", "h:0", "h:x", "::1", "smtp://h", "u@h"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        for wrong in ["", "h/p", "https://", "https:///geheim", "ftp://h", "https://h/a b"] {
            assert!(!parse_url(wrong).unwrap_err().contains("geheim"));
        }
        parse_url("https://hooks.example.com/services/geheim").unwrap();
    }

    #[test]
    fn p1_is_the_most_urgent() {
        assert!(Severity::P1 < Severity::P4);
        assert_eq!("P2".parse(), Ok(Severity::P2));
        for wrong in ["", "p2", "P0", "P5", "2"] {
            wrong.parse::<Severity>().unwrap_err();
        }
        let severities = vec![("backup", Severity::P1), ("", Severity::P4)];
        let notify = Notify { severities, channels: Vec::new() };
        assert_eq!(notify.severity("backup"), Severity::P1);
        assert_eq!(notify.severity("backup prune"), Severity::P4);
    }
}
