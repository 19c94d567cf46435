//! `[sessions]`: what expires and where, which locks lapse, and what an incident revokes.
//!
//! These are the operator's words, checked as far as they can be without a database. Conditions are SQL that is run as it
//! stands; names are quoted wherever they are used. `read.rs` reads the section.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::value::quote;

mod read;

pub(super) use read::{SessionsEntry, read};

/// The presets that a rule or an unlock can name; what they mean is known in `sessions::preset`.
pub(crate) const PRESETS: [&str; 22] = [
    "authjs",
    "authjs-prisma",
    "better-auth",
    "better-auth-drizzle",
    "connect-pg-simple",
    "devise",
    "django",
    "django-axes",
    "django-axes-expiration",
    "django-axes-logs",
    "django-oauth-toolkit",
    "fastapi-lockout",
    "fastapi-refresh-tokens",
    "laravel",
    "laravel-passport",
    "laravel-password-resets",
    "laravel-tokens",
    "phoenix",
    "rails-authentication",
    "rails-session-store",
    "simplejwt",
    "spring-session",
];

/// What is cleaned, and how.
#[derive(Clone, Debug)]
pub(crate) struct Sessions {
    /// In the order of the file; names are unique, also among the unlocks.
    pub(crate) rules: Vec<Rule>,
    pub(crate) unlocks: Vec<Unlock>,
    pub(crate) revoke: Option<Revoke>,
    pub(crate) audit: Option<Audit>,
    /// How long one transaction should take.
    pub(crate) batch: Duration,
    /// How long to rest after each, in percent of the time that it took.
    pub(crate) pause_percent: u32,
    /// How far replicas may be behind before they are waited for.
    pub(crate) max_replica_lag: Duration,
    /// The application names of replicas that are not waited for, such as those that are behind on purpose.
    pub(crate) ignore_replicas: Vec<String>,
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions {
            rules: Vec::new(),
            unlocks: Vec::new(),
            revoke: None,
            audit: None,
            batch: Duration::from_millis(50),
            pause_percent: 0,
            max_replica_lag: Duration::from_secs(10),
            ignore_replicas: Vec::new(),
        }
    }
}

impl Sessions {
    /// Is there anything to clean in a database?
    pub(crate) fn concern(&self, database: &str) -> bool {
        let of = |named: &Option<String>| named.as_deref().is_none_or(|named| named == database);
        self.rules.iter().any(|rule| of(&rule.database))
            || self.unlocks.iter().any(|unlock| of(&unlock.database))
    }
}

/// One of `[[sessions.rule]]`: rows that go when their time is over.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) name: String,
    /// The name of the only database it is for.
    pub(crate) database: Option<String>,
    pub(crate) what: What,
    /// How long a row stays after its time; what that time is may be anything, such as the last activity.
    pub(crate) grace: Option<Duration>,
    /// SQL that must be true as well; the table is `t` in it.
    pub(crate) condition: Option<String>,
    /// More of a table than this goes only with `--first-run`.
    pub(crate) max_percent: u32,
}

/// Which rows a rule is about.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Preset { preset: String, schema: Option<String>, zone: Option<String> },
    Table { table: TableName, column: String, time: Time, children: Vec<Child> },
}

/// How a column holds a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Time {
    /// `timestamp with time zone`.
    Timestamptz,
    /// `timestamp` without one, written by somebody in this zone.
    Timestamp {
        zone: String,
    },
    EpochSeconds,
    EpochMilliseconds,
}

/// A table whose rows refer to those of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) table: TableName,
    /// The column that refers.
    pub(crate) column: String,
    /// The column of the rule's table that it refers to.
    pub(crate) key: String,
    pub(crate) action: ChildAction,
}

/// What becomes of a child's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildAction {
    /// They go with the row.
    Delete,
    /// They stay, and refer to nothing.
    SetNull,
    /// They stay, and so does the row they refer to.
    Keep,
}

/// One of `[[sessions.unlock]]`: accounts whose lock is over.
#[derive(Clone, Debug)]
pub(crate) struct Unlock {
    pub(crate) name: String,
    /// The name of the only database it is for.
    pub(crate) database: Option<String>,
    pub(crate) what: UnlockWhat,
    /// How long a lock lasts after the time in its column.
    pub(crate) grace: Option<Duration>,
    /// SQL that must be true as well; the table is `t` in it.
    pub(crate) condition: Option<String>,
}

/// Which accounts, and what is reset.
#[derive(Clone, Debug)]
pub(crate) enum UnlockWhat {
    Preset { preset: String, schema: Option<String>, zone: Option<String> },
    Table(Lock),
}

/// Where a lock stands, and what is reset together when it has lapsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lock {
    pub(crate) table: TableName,
    /// The time of the lock. It is set to NULL.
    pub(crate) column: String,
    pub(crate) time: Time,
    /// What the report calls an account by.
    pub(crate) id: String,
    pub(crate) set_null: Vec<String>,
    pub(crate) set_zero: Vec<String>,
    pub(crate) set_false: Vec<String>,
}

/// `[sessions.revoke]`: what `cleanup-sessions revoke` and `lock` change in an incident.
#[derive(Clone, Debug)]
pub(crate) struct Revoke {
    /// The name of the only database it is for.
    pub(crate) database: Option<String>,
    pub(crate) users: TableName,
    /// The column of `users` that identifies one.
    pub(crate) id: String,
    /// A boolean of `users` that is set to make somebody choose a new password.
    pub(crate) password_reset: Option<String>,
    /// The column of `users` that locks an account: a boolean, or the time until when.
    pub(crate) lock: Option<String>,
    pub(crate) from: Vec<Revocable>,
}

/// One of `[[sessions.revoke.from]]`: a table with sessions or tokens that can be revoked.
#[derive(Clone, Debug)]
pub(crate) struct Revocable {
    pub(crate) table: TableName,
    pub(crate) user: Option<String>,
    pub(crate) ip: Option<String>,
    /// When a session began: a `timestamp with time zone`.
    pub(crate) since: Option<String>,
    /// Columns by which a row is revoked. If there are none, it is deleted.
    pub(crate) set_true: Vec<String>,
    pub(crate) set_now: Vec<String>,
}

/// `[sessions.audit]`: the table that is told of unlocks and revocations, and its columns.
#[derive(Clone, Debug)]
pub(crate) struct Audit {
    pub(crate) table: TableName,
    /// Gets the word: `unlock`, `revoke`, `force-password-reset`, `lock`.
    pub(crate) action: String,
    /// Gets the id of the account.
    pub(crate) subject: String,
    pub(crate) at: Option<String>,
    pub(crate) run: Option<String>,
    /// Gets a JSON object.
    pub(crate) detail: Option<String>,
}

/// The name of a table as the catalogue has it; nothing is folded to lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TableName {
    /// Where it is, if not on the search path.
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
}

impl FromStr for TableName {
    type Err = String;

    fn from_str(text: &str) -> Result<TableName, String> {
        let (schema, name) = match text.split_once('.') {
            Some((schema, name)) => (Some(schema.to_owned()), name),
            None => (None, text),
        };
        let bad =
            |part: &str| part.is_empty() || part.contains(['.', '"', '\0']) || part.len() > 63;
        if bad(name) || schema.as_deref().is_some_and(bad) {
            let message = "is not a table like `sessions` or `public.sessions`, without quotes";
            return Err(format!("{} {message}", quote(text)));
        }
        Ok(TableName { schema, name: name.to_owned() })
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl Time {
    /// Returns the word for it in the file.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Time::Timestamptz => "timestamptz",
            Time::Timestamp { .. } => "timestamp",
            Time::EpochSeconds => "epoch-seconds",
            Time::EpochMilliseconds => "epoch-milliseconds",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_names_are_those_of_the_catalogue() {
        let parsed = "public.Session".parse::<TableName>().unwrap();
        assert_eq!((parsed.schema.as_deref(), parsed.name.as_str()), (Some("public"), "Session"));
        for wrong in ["", ".", "a.", ".b", "a.b.c", "\"a\"", "a\0"] {
            wrong.parse::<TableName>().unwrap_err();
        }
    }

    #[test]
    fn presets_are_in_order_and_unique() {
        assert!(PRESETS.is_sorted_by(|a, b| a < b));
    }
}
