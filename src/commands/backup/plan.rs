//! `opsctl backup --dry-run`: what would be backed up, from where, and into what.

use std::fmt::Write as _;

use super::{Outcome, for_each_database, plan_of};
use crate::backup::take;
use crate::commands::{Context, Report, Silence, open};
use crate::config::Config;
use crate::exit::Exit;
use crate::text::{bytes, counted};

/// `backup --dry-run`: connects, looks, and changes nothing.
pub(super) fn plan_all(context: &Context, config: &Config) -> anyhow::Result<Report> {
    let repositories = open::repositories(context, config)?;
    let report = for_each_database(context, config, |target, name, database| {
        let survey =
            take::survey(target, database.bin_dir.as_deref(), &context.environment, &context.stop)?;
        let mut text = format!(
            "{name}: would back up {} (PostgreSQL {}, {}, pg_dump {})\n",
            target.describe(),
            survey.server,
            bytes(survey.bytes),
            survey.pg_dump,
        );
        let mut places = Vec::new();
        for repository in &repositories {
            let plan = plan_of(context, config, repository, name)?;
            let free = repository.storage.free_bytes()?;
            let free_text = free.map_or(String::new(), |free| format!(", {} free", bytes(free)));
            writeln!(
                text,
                "  {}: into {}{free_text}; {} kept now",
                repository.name,
                repository.storage.place(),
                counted(plan.backups.len() as u64, "backup")
            )?;
            places.push(serde_json::json!({ "repository": repository.name, "place": repository.storage.place(), "backups": plan.backups.len(), "free_bytes": free }));
        }
        let json = serde_json::json!({
            "database": name, "dry_run": true, "server": survey.server, "pg_dump": survey.pg_dump,
            "database_bytes": survey.bytes, "repositories": places,
        });
        Ok(Outcome { database: name.to_owned(), exit: Exit::Done, text, json })
    })?;
    Ok(Report { silence: Silence::Refused, ..report })
}
