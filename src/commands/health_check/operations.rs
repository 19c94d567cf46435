//! The inquiries about what opsctl itself looks after: repositories, backups, archives, and what cron should have run.

use crate::archive::folder::Folder;
use crate::clock::Moment;
use crate::commands::expected::{Expected, commands, expected};
use crate::commands::health_check::past::Past;
use crate::commands::open;
use crate::config::{AuditTable, Config};
use crate::health::operations::{self, Asked};
use crate::health::{Inquiry, archive};

pub(super) fn inquiries(
    config: &Config,
    databases: &[String],
    past: &Past,
    now: Moment,
) -> Vec<Inquiry> {
    let mut inquiries = Vec::new();
    for repository in &config.repositories {
        let asked = Asked {
            repository: repository.name.clone(),
            alone: config.repositories.len() == 1,
            databases: databases.to_vec(),
            restorable: repository.recipients.is_empty() || repository.identity_file.is_some(),
            shrink_percent: config.backup.shrink_percent,
        };
        let repository = repository.clone();
        let open = move |stop: &_| open::repository_until(stop, &repository);
        inquiries.push(operations::repository(asked, &config.health, now, open));
    }
    for database in databases {
        for audit in config.audits.iter().filter(|audit| audit.is_in(database)) {
            inquiries.push(archived(config, database, audit, past, now));
        }
    }
    inquiries.extend(scheduled(config, databases, past, now));
    inquiries
}

/// Returns the inquiry about the archive of a table.
fn archived(
    config: &Config,
    database: &str,
    audit: &AuditTable,
    past: &Past,
    now: Moment,
) -> Inquiry {
    let asked = archive::Asked {
        database: database.to_owned(),
        table: audit.table.to_string(),
        hot_period: audit.hot_period,
        window: audit.window,
    };
    let (table, location) = (asked.table.clone(), audit.location.clone());
    let open = move |stop: &_| Ok(Folder::new(open::storage_until(stop, &location)?, &table));
    let (past, name) = (past.clone(), asked.database.clone());
    let figure = format!("totals.{}.segments_there", asked.table);
    let earlier = move || {
        let runs = past.runs(Moment::default(), &["archive-audit"])?;
        let mut parts = runs.iter().rev().filter(|run| !run.dry_run).flat_map(|run| &run.databases);
        Ok(parts.find_map(|part| {
            let figure = part.figures.get(&figure).filter(|_| part.database == name)?;
            figure.as_u64()
        }))
    };
    archive::inquiry(asked, &config.health, now, open, earlier)
}

/// Returns the inquiry about all that is scheduled; that this command runs, it shows itself.
fn scheduled(config: &Config, databases: &[String], past: &Past, now: Moment) -> Option<Inquiry> {
    let mut expected = expected(config, databases);
    expected.retain(|expected| expected.scheduled.command != "health-check");
    let name = |expected: &Expected| (expected.scheduled.command, expected.database.clone());
    let names: Vec<(&'static str, String)> = expected.iter().map(name).collect();
    let past = past.clone();
    let standings = move || {
        let runs = past.runs(Moment::default(), &commands(&expected))?;
        Ok(expected.iter().map(|expected| expected.judge(&runs, None, now)).collect())
    };
    (!names.is_empty()).then(|| operations::scheduled(&names, &config.health, now, standings))
}
