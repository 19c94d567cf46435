//! From the configuration to rules and locks: a preset is looked for among the tables, and must be there exactly.

use std::time::Duration;

use crate::config::{self, Lock, UnlockWhat, What};
use crate::db::{Connection, Error};
use crate::sessions::catalogue::{self, Layout};
use crate::sessions::plan::{Refusal, RefusalKind};
use crate::sessions::preset::{self, Preset, Wishes};
use crate::sessions::rule::Rule;

/// Returns the rules that one of `[[sessions.rule]]` means, in the order in which they are to be applied.
pub(super) fn rules(
    connection: &mut Connection,
    settings: &config::Rule,
) -> Result<Result<Vec<Rule>, Refusal>, Error> {
    let config::Rule { name, what, grace, condition, max_percent, database: _ } = settings;
    Ok(match what {
        What::Table { table, column, time, children } => Ok(vec![Rule {
            name: name.clone(),
            table: table.clone(),
            column: column.clone(),
            time: time.clone(),
            via: None,
            grace: grace.unwrap_or_default(),
            conditions: condition.iter().cloned().collect(),
            children: children.clone(),
            max_percent: *max_percent,
        }]),
        What::Preset { preset, schema, zone } => {
            let (preset, layout) = match known(connection, name, preset)? {
                Ok(known) => known,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let wishes = Wishes {
                name,
                grace: *grace,
                zone: zone.as_deref(),
                condition: condition.as_deref(),
                max_percent: *max_percent,
            };
            place(preset, &layout, schema.as_deref())
                .and_then(|schema| preset::rules(preset, &layout, &schema, wishes))
                .map_err(|reason| refusal(name, reason))
        }
    })
}

/// Returns the lock that one of `[[sessions.unlock]]` means, and how long it lasts.
pub(super) fn lock(
    connection: &mut Connection,
    settings: &config::Unlock,
) -> Result<Result<(Lock, Duration), Refusal>, Error> {
    let config::Unlock { name, what, grace, .. } = settings;
    Ok(match what {
        UnlockWhat::Table(lock) => Ok((lock.clone(), grace.unwrap_or_default())),
        UnlockWhat::Preset { preset, schema, zone } => {
            let (preset, layout) = match known(connection, name, preset)? {
                Ok(known) => known,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let zone = zone.as_deref();
            let wishes = Wishes { name, grace: *grace, zone, condition: None, max_percent: 100 };
            place(preset, &layout, schema.as_deref())
                .and_then(|schema| preset::lock(preset, &layout, &schema, wishes))
                .map_err(|reason| refusal(name, reason))
        }
    })
}

fn refusal(rule: &str, reason: String) -> Refusal {
    Refusal { rule: rule.to_owned(), reason, kind: RefusalKind::Configuration }
}

/// Finds a preset, and reads the tables that it may be about.
fn known(
    connection: &mut Connection,
    rule: &str,
    name: &str,
) -> Result<Result<(&'static Preset, Layout), Refusal>, Error> {
    let Some(preset) = preset::find(name) else {
        return Ok(Err(refusal(rule, format!("there is no preset `{name}`"))));
    };
    let tables: Vec<&str> = preset.tables.iter().map(|print| print.table).collect();
    Ok(Ok((preset, catalogue::layout(connection, &tables)?)))
}

/// Decides in which schema the tables of a preset are, or says why they are in none.
fn place(preset: &Preset, layout: &Layout, stated: Option<&str>) -> Result<String, String> {
    let not = |reason| format!("these are not the tables of {}: {reason}", preset.framework);
    if let Some(schema) = stated {
        return preset::matches(preset, layout, schema).map(|()| schema.to_owned()).map_err(not);
    }
    match &preset::schemas(preset, layout)[..] {
        [one] => Ok(one.clone()),
        [] => {
            let first = preset.tables.first().map_or("", |print| print.table);
            let has_first = layout.keys().find(|(_, table)| table == first);
            let schema = has_first.map_or("public", |(schema, _)| schema.as_str());
            let reason = preset::matches(preset, layout, schema).err().unwrap_or_default();
            Err(not(reason))
        }
        several => Err(format!(
            "there are tables of {} in {}: say which with `schema`",
            preset.framework,
            several.join(", ")
        )),
    }
}
