//! The inquiries about what opsctl itself looks after: repositories, backups, and what cron should have run.

use crate::clock::Moment;
use crate::commands::health_check::past::Past;
use crate::commands::{Context, open};
use crate::config::Config;
use crate::health::Inquiry;
use crate::health::operations::{self, Asked};
use crate::history::due::{Expected, judge};

pub(super) fn inquiries(
    context: &Context,
    config: &Config,
    databases: &[String],
    past: &Past,
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
        inquiries.push(operations::repository(asked, &config.health, context.now, open));
    }
    inquiries.extend(scheduled(context, config, databases, past));
    inquiries
}

/// Returns the inquiry about all that is scheduled; that this command runs, it shows itself.
fn scheduled(
    context: &Context,
    config: &Config,
    databases: &[String],
    past: &Past,
) -> Option<Inquiry> {
    let schedule = config.schedule.clone();
    let names: Vec<(&'static str, String)> = schedule
        .commands
        .iter()
        .filter(|scheduled| scheduled.command != "health-check")
        .flat_map(|scheduled| databases.iter().map(|name| (scheduled.command, name.clone())))
        .collect();
    let (past, now, expected) = (past.clone(), context.now, names.clone());
    let standings = move || {
        let mut commands: Vec<&str> = expected.iter().map(|(command, _)| *command).collect();
        // It verifies the backup as well.
        commands.push("verify-backup --restore-test");
        let runs = past.runs(Moment::default(), &commands)?;
        let standing = |(command, database): &(&'static str, String)| {
            let scheduled =
                schedule.commands.iter().find(|scheduled| scheduled.command == *command);
            let next = |moment| scheduled.and_then(|scheduled| scheduled.times.after(moment));
            let grace = schedule.grace;
            judge(&Expected { command, database, next: &next, grace, max_age: None }, &runs, now)
        };
        Ok(expected.iter().map(standing).collect())
    };
    (!names.is_empty()).then(|| operations::scheduled(&names, &config.health, now, standings))
}
