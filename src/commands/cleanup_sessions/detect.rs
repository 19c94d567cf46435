//! `opsctl cleanup-sessions detect`: which frameworks' tables are here? A configuration to review; nothing acts on it.

use std::fmt::Write as _;

use crate::commands::{Context, Report, Silence, open};
use crate::config::{Config, TableName};
use crate::exit::Exit;
use crate::sessions::catalogue::{self, Layout};
use crate::sessions::preset::{self, Preset, Stated, Zone};

pub(super) fn run(context: &Context, config: &Config) -> anyhow::Result<Report> {
    let mut text = String::new();
    let mut json = Vec::new();
    let several = config.databases.len() > 1;
    for database in &config.databases {
        let (target, name) = open::database(context, database)?;
        let mut connection = super::connect(context, &target)?;
        let layout = catalogue::layout(&mut connection, &preset::tables())?;
        let found = found(&layout);
        let of = several.then_some(name.as_str());
        text.push_str(&describe(&name, of, &layout, &found));
        let presets = found.iter().map(|(preset, schema)| {
            serde_json::json!({
                "preset": preset.name, "framework": preset.framework, "schema": schema,
                "grace": preset.grace.map(|stated| stated.source), "zone": preset.zone == Zone::Stated,
            })
        });
        let unknown: Vec<_> = unknown(&layout, &found).iter().map(TableName::to_string).collect();
        json.push(serde_json::json!({ "database": name, "presets": presets.collect::<Vec<_>>(), "unknown": unknown }));
    }
    let json = serde_json::json!({ "databases": json });
    Ok(Report { exit: Exit::Done, text, json, silence: Silence::Refused })
}

/// Finds the presets whose tables are there, with their schemas.
fn found(layout: &Layout) -> Vec<(&'static Preset, String)> {
    let of = |preset: &'static Preset| {
        preset::schemas(preset, layout).into_iter().map(move |schema| (preset, schema))
    };
    preset::PRESETS.iter().flat_map(of).collect()
}

/// Returns the tables that have the name of a framework's, and are none.
fn unknown(layout: &Layout, found: &[(&Preset, String)]) -> Vec<TableName> {
    let is_known = |schema: &str, table: &str| {
        found.iter().any(|(preset, of)| {
            of == schema && preset.tables.iter().any(|print| print.table == table)
        })
    };
    let table = |schema: &str, name: &str| TableName {
        schema: Some(schema.to_owned()),
        name: name.to_owned(),
    };
    let mut unknown = Vec::new();
    for ((schema, name), columns) in layout {
        let table = table(schema, name);
        if !is_known(schema, name) && preset::left_alone(&table, columns).is_none() {
            unknown.push(table);
        }
    }
    unknown
}

fn describe(
    name: &str,
    database: Option<&str>,
    layout: &Layout,
    found: &[(&Preset, String)],
) -> String {
    let mut text = format!(
        "# What `{name}` looks like. Review it: nothing is cleaned by it until it stands in the configuration.\n"
    );
    if found.is_empty() {
        text.push_str("# No table of a framework that is known.\n");
    }
    for (preset, schema) in found {
        let kind = if preset.rules.is_empty() { "unlock" } else { "rule" };
        write!(
            text,
            "\n# {}\n[[sessions.{kind}]]\npreset = \"{}\"\n",
            preset.framework, preset.name
        )
        .ok();
        if schema != "public" {
            writeln!(text, "schema = {schema:?}").ok();
        }
        if let Some(database) = database {
            writeln!(text, "database = {database:?}").ok();
        }
        if let Some(Stated { source, usual }) = preset.grace {
            writeln!(
                text,
                "# Needed: {source}; often {usual}.\n#grace = \"{}\"",
                usual.split(',').next().unwrap_or(usual)
            )
            .ok();
        }
        match preset.zone {
            Zone::Stated => text.push_str(
                "# Needed: the time zone of the application's connections.\n#zone = \"UTC\"\n",
            ),
            Zone::Utc => {
                text.push_str("# Unless the application says otherwise.\nzone = \"UTC\"\n");
            }
            Zone::None => {}
        }
    }
    for ((schema, table), columns) in layout {
        let table = TableName { schema: Some(schema.clone()), name: table.clone() };
        if let Some(reason) = preset::left_alone(&table, columns) {
            writeln!(text, "\n# {table} is left alone: {reason}.").ok();
        }
    }
    for table in unknown(layout, found) {
        writeln!(text, "\n# {table} is of nobody who is known: a rule of its own says which column and kind it has.").ok();
    }
    text
}
