//! The tables of frameworks that are known: how to recognise them, and what is expired in them. Pure.
//!
//! A preset is recognised by tables, columns *and* types, and refuses a table that merely has the right name: four frameworks
//! call theirs `sessions`. The conditions are the frameworks' own, see the source in each; where how long a session lives is
//! known to the application alone, it must be stated. `table.rs` has the presets.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::{Child, ChildAction, Lock, TableName, Time};
use crate::sessions::catalogue::Layout;
use crate::sessions::rule::{Rule, Via};

mod table;

pub(crate) use table::PRESETS;
use table::{IS_LINK, LEFT_ALONE, LINK_TABLES, LINKS};

/// What a framework's tables look like, and what expires in them.
#[derive(Debug)]
pub(crate) struct Preset {
    pub(crate) name: &'static str,
    /// For people.
    pub(crate) framework: &'static str,
    /// The first is the one that a message speaks of.
    pub(crate) tables: &'static [Print],
    pub(crate) rules: &'static [Known],
    pub(crate) lock: Option<&'static KnownLock>,
    /// Why `grace` must be stated: what in the application says how long something lives.
    pub(crate) grace: Option<Stated>,
    /// The zone in which naive timestamps are written.
    pub(crate) zone: Zone,
}

/// A value that only the operator knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stated {
    /// Where it stands in the application.
    pub(crate) source: &'static str,
    /// What it is unless the application says otherwise; shown by `detect`, and never assumed.
    pub(crate) usual: &'static str,
}

/// In which zone a framework writes naive timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zone {
    /// It writes none.
    None,
    /// In UTC, unless the application says otherwise.
    Utc,
    /// In that of the application's connection, which only the operator knows.
    Stated,
}

/// A table as it must be.
#[derive(Debug)]
pub(crate) struct Print {
    pub(crate) table: &'static str,
    pub(crate) columns: &'static [(&'static str, Type)],
    /// Columns by which it is another framework's.
    pub(crate) absent: &'static [&'static str],
    /// May the whole table be missing, in older versions?
    pub(crate) optional: bool,
}

/// A kind of column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Timestamptz,
    Timestamp,
    /// `integer`.
    Integer,
    /// `bigint`.
    Bigint,
    Boolean,
    /// Any kind of text.
    Text,
    /// `json`, `jsonb`.
    Json,
    /// Whatever identifies something: a number, a text, a UUID.
    Id,
    /// Of any type.
    Anything,
}

impl Type {
    /// Is this what `format_type` calls such a column?
    pub(crate) fn fits(self, name: &str) -> bool {
        let text = ["text", "character varying", "character", "citext"].contains(&name);
        match self {
            Type::Timestamptz => name == "timestamp with time zone",
            Type::Timestamp => name == "timestamp without time zone",
            Type::Integer => name == "integer",
            Type::Bigint => name == "bigint",
            Type::Boolean => name == "boolean",
            Type::Text => text,
            Type::Json => name == "json" || name == "jsonb",
            Type::Anything => true,
            Type::Id => text || ["integer", "bigint", "uuid"].contains(&name),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Type::Timestamptz => "timestamp with time zone",
            Type::Timestamp => "timestamp without time zone",
            Type::Integer => "integer",
            Type::Bigint => "bigint",
            Type::Boolean => "boolean",
            Type::Text => "text",
            Type::Json => "json",
            Type::Id => "a number, text or UUID",
            Type::Anything => "anything",
        }
    }
}

/// A rule of a preset.
#[derive(Debug)]
pub(crate) struct Known {
    /// Behind the preset's name in the rule's; empty for the only one.
    pub(crate) suffix: &'static str,
    pub(crate) table: &'static str,
    pub(crate) column: &'static str,
    pub(crate) time: Type,
    /// For a number: does it count milliseconds?
    pub(crate) milliseconds: bool,
    /// How long a row stays after its time.
    pub(crate) grace: Grace,
    pub(crate) condition: &'static str,
    /// The table that has the time, its key, and the column that refers to it.
    pub(crate) via: Option<(&'static str, &'static str, &'static str)>,
    /// Table, column, key, and what becomes of it.
    pub(crate) children: &'static [(&'static str, &'static str, &'static str, ChildAction)],
}

/// How long a row stays after its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grace {
    /// So many hours, whatever is configured.
    Fixed(u64),
    /// So many hours, unless something else is configured.
    Usual(u64),
    /// What is configured; without it the preset refuses.
    Stated,
}

/// The lock of a preset.
#[derive(Debug)]
pub(crate) struct KnownLock {
    pub(crate) table: &'static str,
    pub(crate) column: &'static str,
    pub(crate) time: Type,
    pub(crate) set_null: &'static [&'static str],
    pub(crate) set_zero: &'static [&'static str],
}

/// What the operator says about a preset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wishes<'a> {
    pub(crate) name: &'a str,
    pub(crate) grace: Option<Duration>,
    pub(crate) zone: Option<&'a str>,
    pub(crate) condition: Option<&'a str>,
    pub(crate) max_percent: u32,
}

/// Finds a preset by its name.
pub(crate) fn find(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

/// Returns the names of all tables that any preset knows.
pub(crate) fn tables() -> Vec<&'static str> {
    let known = PRESETS.iter().flat_map(|preset| preset.tables).map(|print| print.table);
    let left_alone = LEFT_ALONE.iter().map(|(print, ..)| print.table).chain(LINK_TABLES);
    let mut names: Vec<_> = known.chain(left_alone).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Says what about a table is not as it must be; nothing if it is the one.
pub(crate) fn differences(print: &Print, columns: &BTreeMap<String, String>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, wanted) in print.columns {
        match columns.get(*name) {
            None => found.push(format!("`{name}` is missing")),
            Some(is) if !wanted.fits(is) => {
                found.push(format!("`{name}` is {is}, not {}", wanted.word()));
            }
            Some(_) => {}
        }
    }
    for name in print.absent.iter().filter(|name| columns.contains_key(**name)) {
        found.push(format!("there is `{name}`, which is another's"));
    }
    found
}

/// Says why a preset is not that of a schema's tables.
pub(crate) fn matches(preset: &Preset, layout: &Layout, schema: &str) -> Result<(), String> {
    let mut found = Vec::new();
    for print in preset.tables {
        match layout.get(&(schema.to_owned(), print.table.to_owned())) {
            None if print.optional => {}
            None => found.push(format!("there is no table {schema}.{}", print.table)),
            Some(columns) => {
                let differences = differences(print, columns);
                if !differences.is_empty() {
                    found.push(format!("{schema}.{}: {}", print.table, differences.join(", ")));
                }
            }
        }
    }
    if found.is_empty() { Ok(()) } else { Err(found.join("; ")) }
}

/// Returns the schemas whose tables are those of a preset.
pub(crate) fn schemas(preset: &Preset, layout: &Layout) -> Vec<String> {
    let first = preset.tables.first().map_or("", |print| print.table);
    let candidates = layout.keys().filter(|(_, table)| table == first).map(|(schema, _)| schema);
    candidates.filter(|schema| matches(preset, layout, schema).is_ok()).cloned().collect()
}

/// Is this a table that must never be cleaned? Returns why.
pub(crate) fn left_alone(
    table: &TableName,
    columns: &BTreeMap<String, String>,
) -> Option<&'static str> {
    let found = LEFT_ALONE.iter().find_map(|(print, schema, reason)| {
        let there = schema.is_none_or(|schema| table.schema.as_deref() == Some(schema));
        let is_it = print.table == table.name && there && differences(print, columns).is_empty();
        is_it.then_some(*reason)
    });
    let is_text = |column: &&str| columns.get(*column).is_some_and(|kind| Type::Text.fits(kind));
    found.or_else(|| LINKS.iter().any(|pair| pair.iter().all(is_text)).then_some(IS_LINK))
}

/// Returns the rules of a preset for tables that match it, or says what must be stated.
pub(crate) fn rules(
    preset: &Preset,
    layout: &Layout,
    schema: &str,
    wishes: Wishes<'_>,
) -> Result<Vec<Rule>, String> {
    if preset.rules.is_empty() {
        return Err(format!("the preset `{}` is for [[sessions.unlock]]", preset.name));
    }
    let zone = zone(preset, wishes.zone)?;
    let there = |table: &str| layout.contains_key(&(schema.to_owned(), table.to_owned()));
    let table = |name: &str| TableName { schema: Some(schema.to_owned()), name: name.to_owned() };
    let mut rules = Vec::new();
    for known in preset.rules {
        let children = known.children.iter().filter(|(name, ..)| there(name));
        let child = |(name, column, key, action): &(&str, &str, &str, ChildAction)| Child {
            table: table(name),
            column: (*column).to_owned(),
            key: (*key).to_owned(),
            action: *action,
        };
        let own = (!known.condition.is_empty()).then_some(known.condition);
        let dot = if known.suffix.is_empty() { "" } else { "." };
        rules.push(Rule {
            name: format!("{}{dot}{}", wishes.name, known.suffix),
            table: table(known.table),
            column: known.column.to_owned(),
            time: time(known.time, known.milliseconds, zone.as_deref()),
            via: known.via.map(|(name, key, column)| Via {
                table: table(name),
                key: key.to_owned(),
                column: column.to_owned(),
            }),
            grace: match known.grace {
                Grace::Fixed(hours) => Duration::from_secs(hours * 3600),
                Grace::Usual(hours) => {
                    wishes.grace.unwrap_or_else(|| Duration::from_secs(hours * 3600))
                }
                Grace::Stated => stated(preset, wishes.grace)?,
            },
            conditions: own.into_iter().chain(wishes.condition).map(str::to_owned).collect(),
            children: children.map(child).collect(),
            max_percent: wishes.max_percent,
        });
    }
    Ok(rules)
}

/// Returns the lock of a preset, and how long it lasts.
pub(crate) fn lock(
    preset: &Preset,
    layout: &Layout,
    schema: &str,
    wishes: Wishes<'_>,
) -> Result<(Lock, Duration), String> {
    let known = preset
        .lock
        .ok_or_else(|| format!("the preset `{}` is for [[sessions.rule]]", preset.name))?;
    let zone = zone(preset, wishes.zone)?;
    let columns = layout.get(&(schema.to_owned(), known.table.to_owned()));
    let there = |name: &&&str| columns.is_some_and(|columns| columns.contains_key(**name));
    let set = |names: &[&str]| -> Vec<String> {
        names.iter().filter(there).map(|name| (*name).to_owned()).collect()
    };
    let grace = match preset.grace {
        Some(_) => stated(preset, wishes.grace)?,
        None => wishes.grace.unwrap_or_default(),
    };
    let lock = Lock {
        table: TableName { schema: Some(schema.to_owned()), name: known.table.to_owned() },
        column: known.column.to_owned(),
        time: time(known.time, false, zone.as_deref()),
        id: "id".to_owned(),
        set_null: set(known.set_null),
        set_zero: set(known.set_zero),
        set_false: Vec::new(),
    };
    Ok((lock, grace))
}

fn stated(preset: &Preset, grace: Option<Duration>) -> Result<Duration, String> {
    grace.ok_or_else(|| {
        let Stated { source, usual } =
            preset.grace.unwrap_or(Stated { source: "the application", usual: "" });
        let name = preset.name;
        format!("the preset `{name}` needs `grace`: {source} (often {usual})")
    })
}

fn zone(preset: &Preset, stated: Option<&str>) -> Result<Option<String>, String> {
    match (preset.zone, stated) {
        (Zone::None, Some(_)) => {
            Err(format!("the preset `{}` has no `zone`: its times have one", preset.name))
        }
        (Zone::None, None) => Ok(None),
        (Zone::Utc, stated) => Ok(Some(stated.unwrap_or("UTC").to_owned())),
        (Zone::Stated, Some(zone)) => Ok(Some(zone.to_owned())),
        (Zone::Stated, None) => Err(format!(
            "the preset `{}` needs `zone`: the time zone of the application's connections (`SHOW timezone` in one)",
            preset.name
        )),
    }
}

fn time(kind: Type, milliseconds: bool, zone: Option<&str>) -> Time {
    match kind {
        Type::Timestamp => Time::Timestamp { zone: zone.unwrap_or("UTC").to_owned() },
        Type::Integer | Type::Bigint if milliseconds => Time::EpochMilliseconds,
        Type::Integer | Type::Bigint => Time::EpochSeconds,
        _ => Time::Timestamptz,
    }
}

#[cfg(test)]
mod tests;
