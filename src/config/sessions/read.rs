//! Reads `[sessions]` and says what does not go together.

use std::time::Duration;

use toml::de::DeTable;

use super::{
    Audit, Child, ChildAction, Lock, PRESETS, Revocable, Revoke, Rule, Sessions, TableName, Time,
    Unlock, UnlockWhat, What,
};
use crate::config::file::KEYS;
use crate::config::section::{At, Document, Section};
use crate::config::value::{self, quote};

/// What the section says, and the lines of its settings by their keys.
#[derive(Debug, Default)]
pub(in crate::config) struct SessionsEntry {
    pub(in crate::config) sessions: Sessions,
    pub(in crate::config) lines: Vec<(String, usize)>,
}

/// Reads the section, if there is one.
pub(in crate::config) fn read(document: &Document<'_>, top: &Section<'_>) -> SessionsEntry {
    let mut sessions = Sessions::default();
    let mut lines = Vec::new();
    let Some(table) = top.table("sessions") else { return SessionsEntry { sessions, lines } };
    let section = Section::open(document, "sessions".to_owned(), table.value, "sessions", KEYS);
    if let Some(at) = section.number("batch_milliseconds", 10..=10_000) {
        sessions.batch = Duration::from_millis(at.value.into());
    }
    if let Some(at) = section.number("pause_percent", 0..=1000) {
        sessions.pause_percent = at.value;
    }
    if let Some(at) = section.parsed("max_replica_lag", value::parse_duration) {
        sessions.max_replica_lag = at.value;
    }
    if let Some(at) = section.strings("ignore_replicas", value::parse_text) {
        sessions.ignore_replicas = at.value;
    }
    for key in ["batch_milliseconds", "pause_percent", "max_replica_lag", "ignore_replicas"] {
        lines.extend(section.line_of(key).map(|line| (format!("sessions.{key}"), line)));
    }
    let mut names: Vec<String> = Vec::new();
    for table in section.list_of_tables("rule") {
        let entry = Entry::open(document, "rule", &table);
        if let Some(rule) = entry.rule(&mut names) {
            lines.push((format!("sessions.rule.{}", rule.name), table.line));
            sessions.rules.push(rule);
        }
    }
    for table in section.list_of_tables("unlock") {
        let entry = Entry::open(document, "unlock", &table);
        if let Some(unlock) = entry.unlock(&mut names) {
            lines.push((format!("sessions.unlock.{}", unlock.name), table.line));
            sessions.unlocks.push(unlock);
        }
    }
    if let Some(table) = section.table("revoke") {
        for key in ["users", "from"] {
            lines.push((format!("sessions.revoke.{key}"), table.line));
        }
        sessions.revoke = revoke(document, &table);
    }
    if let Some(table) = section.table("audit") {
        lines.push(("sessions.audit.table".to_owned(), table.line));
        sessions.audit = audit(document, &table);
    }
    SessionsEntry { sessions, lines }
}

/// One of `[[sessions.rule]]` or `[[sessions.unlock]]`.
struct Entry<'d> {
    document: &'d Document<'d>,
    section: Section<'d>,
    kind: &'static str,
    line: usize,
}

impl<'d> Entry<'d> {
    fn open(document: &'d Document<'d>, kind: &'static str, table: &At<&'d DeTable<'d>>) -> Self {
        let title = format!("[sessions.{kind}]");
        let section =
            Section::open(document, title, table.value, &format!("sessions.{kind}"), KEYS);
        Entry { document, section, kind, line: table.line }
    }

    fn text(&self, key: &str) -> Option<String> {
        self.section.parsed(key, value::parse_text).map(|at| at.value)
    }

    fn columns(&self, key: &str) -> Vec<String> {
        self.section.strings(key, value::parse_text).map(|at| at.value).unwrap_or_default()
    }

    fn problem(&self, message: impl AsRef<str>) {
        let message = format!("[[sessions.{}]] {}", self.kind, message.as_ref());
        self.document.problem(self.line, message);
    }

    /// Reads the preset, if one is named, and complains of keys that it makes superfluous.
    fn preset(&self, superfluous: &[&str]) -> Option<String> {
        let known = |text: &str| {
            let known = PRESETS.contains(&text).then(|| text.to_owned());
            known.ok_or_else(|| format!("{} is not one of {}", quote(text), PRESETS.join(", ")))
        };
        let preset = self.section.parsed("preset", known);
        if self.section.line_of("preset").is_some() {
            for key in superfluous {
                if let Some(line) = self.section.line_of(key) {
                    self.section.complain(key, line, "is known by the preset: remove one of them");
                }
            }
        }
        preset.map(|at| at.value)
    }

    /// Reads what a rule without preset must say of its table.
    fn table(&self) -> Option<(TableName, String, Time)> {
        let table = self.section.parsed("table", str::parse).map(|at| at.value);
        let column = self.text("column");
        let kind = self.section.parsed("kind", |text| match text {
            "timestamptz" | "timestamp" | "epoch-seconds" | "epoch-milliseconds" => {
                Ok(text.to_owned())
            }
            _ => Err(format!(
                "{} is not one of timestamptz, timestamp, epoch-seconds, epoch-milliseconds",
                quote(text)
            )),
        });
        let zone = self.text("zone");
        for key in ["table", "column", "kind"] {
            if self.section.line_of(key).is_none() {
                self.problem(format!("needs `{key}`, or a `preset` that knows it"));
            }
        }
        if let Some(line) = self.section.line_of("schema") {
            self.section.complain(
                "schema",
                line,
                "goes with `preset`: write `table = \"schema.table\"`",
            );
        }
        let kind = kind?;
        let time = match (kind.value.as_str(), zone) {
            ("timestamp", Some(zone)) => Time::Timestamp { zone },
            ("timestamp", None) => {
                let message =
                    "`timestamp` needs `zone`: the time zone of those who write it, such as `UTC`";
                self.section.complain("kind", kind.line, message);
                return None;
            }
            (_, Some(_)) => {
                self.section.complain(
                    "kind",
                    kind.line,
                    "has no `zone`: only `timestamp` needs one",
                );
                return None;
            }
            ("timestamptz", None) => Time::Timestamptz,
            ("epoch-seconds", None) => Time::EpochSeconds,
            _ => Time::EpochMilliseconds,
        };
        Some((table?, column?, time))
    }

    fn grace(&self) -> Option<Duration> {
        let parse = |text: &str| {
            if text == "0s" { Ok(Duration::ZERO) } else { value::parse_duration(text) }
        };
        self.section.parsed("grace", parse).map(|at| at.value)
    }

    /// Takes the name, which no other entry may have.
    fn name(&self, names: &mut Vec<String>, default: &str) -> String {
        let stated =
            self.section.parsed("name", |name| value::check_name(name).map(|()| name.to_owned()));
        let name = stated.map_or_else(|| default.to_owned(), |at| at.value);
        if names.contains(&name) {
            self.problem(format!("there are two named {}: give this one a `name`", quote(&name)));
        }
        names.push(name.clone());
        name
    }

    fn rule(&self, names: &mut Vec<String>) -> Option<Rule> {
        let max_percent = self.section.number("max_percent", 1..=100).map_or(50, |at| at.value);
        let (grace, condition) = (self.grace(), self.text("condition"));
        let what = if self.section.line_of("preset").is_some() {
            let preset = self.preset(&["table", "column", "kind", "children"])?;
            What::Preset { preset, schema: self.text("schema"), zone: self.text("zone") }
        } else {
            let children = self.section.list_of_tables("children");
            let children = children.iter().filter_map(|table| self.child(table)).collect();
            let (table, column, time) = self.table()?;
            What::Table { table, column, time, children }
        };
        let default = match &what {
            What::Preset { preset, .. } => preset.clone(),
            What::Table { table, .. } => table.to_string(),
        };
        let name = self.name(names, &default);
        Some(Rule { name, database: self.text("database"), what, grace, condition, max_percent })
    }

    fn child(&self, table: &At<&'d DeTable<'d>>) -> Option<Child> {
        let title = "[sessions.rule.children]".to_owned();
        let section =
            Section::open(self.document, title, table.value, "sessions.rule.children", KEYS);
        let text = |key: &str| section.parsed(key, value::parse_text).map(|at| at.value);
        let action = section.parsed("action", |text| match text {
            "delete" => Ok(ChildAction::Delete),
            "set-null" => Ok(ChildAction::SetNull),
            "keep" => Ok(ChildAction::Keep),
            _ => Err(format!("{} is not one of delete, set-null, keep", quote(text))),
        });
        for key in ["table", "column", "key", "action"] {
            if section.line_of(key).is_none() {
                self.document
                    .problem(table.line, format!("[[sessions.rule.children]] needs `{key}`"));
            }
        }
        Some(Child {
            table: section.parsed("table", str::parse)?.value,
            column: text("column")?,
            key: text("key")?,
            action: action?.value,
        })
    }

    fn unlock(&self, names: &mut Vec<String>) -> Option<Unlock> {
        let (grace, condition) = (self.grace(), self.text("condition"));
        let what = if self.section.line_of("preset").is_some() {
            let superfluous =
                ["table", "column", "kind", "id", "set_null", "set_zero", "set_false"];
            let preset = self.preset(&superfluous)?;
            UnlockWhat::Preset { preset, schema: self.text("schema"), zone: self.text("zone") }
        } else {
            let (table, column, time) = self.table()?;
            UnlockWhat::Table(Lock {
                table,
                column,
                time,
                id: self.text("id").unwrap_or_else(|| "id".to_owned()),
                set_null: self.columns("set_null"),
                set_zero: self.columns("set_zero"),
                set_false: self.columns("set_false"),
            })
        };
        let default = match &what {
            UnlockWhat::Preset { preset, .. } => preset.clone(),
            UnlockWhat::Table(lock) => lock.table.to_string(),
        };
        let name = self.name(names, &default);
        Some(Unlock { name, database: self.text("database"), what, grace, condition })
    }
}

fn revoke(document: &Document<'_>, table: &At<&DeTable<'_>>) -> Option<Revoke> {
    let title = "sessions.revoke".to_owned();
    let section = Section::open(document, title, table.value, "sessions.revoke", KEYS);
    let text = |key: &str| section.parsed(key, value::parse_text).map(|at| at.value);
    let mut from = Vec::new();
    for At { value: table, line } in section.list_of_tables("from") {
        let title = "[sessions.revoke.from]".to_owned();
        let section = Section::open(document, title, table, "sessions.revoke.from", KEYS);
        let text = |key: &str| section.parsed(key, value::parse_text).map(|at| at.value);
        let columns = |key: &str| section.strings(key, value::parse_text).map(|at| at.value);
        if section.line_of("table").is_none() {
            document.problem(line, "[[sessions.revoke.from]] needs `table`");
        }
        if let Some(table) = section.parsed("table", str::parse) {
            from.push(Revocable {
                table: table.value,
                user: text("user"),
                ip: text("ip"),
                since: text("since"),
                set_true: columns("set_true").unwrap_or_default(),
                set_now: columns("set_now").unwrap_or_default(),
            });
        }
    }
    if section.line_of("users").is_none() {
        document.problem(table.line, "[sessions.revoke] needs `users`, the table of the accounts");
    }
    Some(Revoke {
        database: text("database"),
        users: section.parsed("users", str::parse)?.value,
        id: text("id").unwrap_or_else(|| "id".to_owned()),
        password_reset: text("password_reset"),
        lock: text("lock"),
        from,
    })
}

fn audit(document: &Document<'_>, table: &At<&DeTable<'_>>) -> Option<Audit> {
    let title = "sessions.audit".to_owned();
    let section = Section::open(document, title, table.value, "sessions.audit", KEYS);
    let text = |key: &str| section.parsed(key, value::parse_text).map(|at| at.value);
    for key in ["table", "action", "subject"] {
        if section.line_of(key).is_none() {
            document.problem(table.line, format!("[sessions.audit] needs `{key}`"));
        }
    }
    Some(Audit {
        table: section.parsed("table", str::parse)?.value,
        action: text("action")?,
        subject: text("subject")?,
        at: text("at"),
        run: text("run"),
        detail: text("detail"),
    })
}
