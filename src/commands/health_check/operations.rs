//! The inquiries about what opsctl itself looks after: repositories, backups, and what cron should have run.

use crate::clock::Moment;
use crate::commands::expected::{Expected, commands, expected};
use crate::commands::health_check::past::Past;
use crate::commands::open;
use crate::config::Config;
use crate::health::Inquiry;
use crate::health::operations::{self, Asked};

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
    inquiries.extend(scheduled(config, databases, past, now));
    inquiries
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
