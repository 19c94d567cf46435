//! `opsctl status`: is anything late, or failing?

use crate::cli::StatusArgs;
use crate::commands::{Context, Report, Silence, open};
use crate::config::Overrides;
use crate::exit::{Exit, Failure};
use crate::history::due::{Expected, Standing, judge};
use crate::history::{self, Run};
use crate::text::{Table, duration};

pub(super) fn run(context: &Context, args: &StatusArgs) -> anyhow::Result<Report> {
    let config = context.load(&args.selection, Overrides::default())?.config;
    let schedule = &config.schedule;
    for (command, _) in &args.max_age {
        if !schedule.commands.iter().any(|scheduled| scheduled.command == command) {
            let message = format!("`{command}` is not scheduled");
            let known: Vec<_> = schedule.commands.iter().map(|s| s.command).collect();
            let hint = format!("Scheduled are: {}.", known.join(", "));
            return Err(Failure::new(Exit::Usage, message).hint(hint).into());
        }
    }
    let runs: Vec<Run> = history::read(&config.state_dir, crate::clock::Moment::default())?;
    let mut standings = Vec::new();
    for scheduled in &schedule.commands {
        for database in &config.databases {
            let name = open::database_name(context, database)?;
            let max_age = args.max_age.iter().rfind(|(command, _)| command == scheduled.command);
            let expected = Expected {
                command: scheduled.command,
                database: &name,
                next: &|moment| scheduled.times.after(moment),
                grace: schedule.grace,
                max_age: max_age.map(|(_, age)| *age),
            };
            standings.push(judge(&expected, &runs, context.now));
        }
    }
    let is_well = standings.iter().all(Standing::is_well);
    let mut table = Table::new(&["COMMAND", "DATABASE", "LAST SUCCESS (UTC)", "DUE (UTC)", "IS"]);
    let time = |at: Option<crate::clock::Moment>| {
        at.map_or("never".to_owned(), |at| at.format("%Y-%m-%d %H:%M").to_string())
    };
    for standing in &standings {
        let due = standing.due.map_or("now".to_owned(), |due| time(Some(due)));
        table.row([
            standing.command.clone(),
            standing.database.clone(),
            time(standing.last_success),
            due,
            state(context, standing),
        ]);
    }
    let json = serde_json::json!({ "well": is_well, "standings": standings });
    let exit = if is_well { Exit::Done } else { Exit::BadNews };
    Ok(Report { exit, text: table.to_string(), json, silence: Silence::Allowed })
}

/// Says for people how something stands.
fn state(context: &Context, standing: &Standing) -> String {
    let mut parts = Vec::new();
    if standing.late {
        let by = standing.due.map(|due| context.now.signed_duration_since(due));
        parts.push(by.map_or("LATE".to_owned(), |by| format!("LATE by {}", duration(by))));
    }
    if let Some(error) = &standing.last_error {
        parts.push(format!("FAILING: {error}"));
    }
    if standing.running {
        parts.push("running".to_owned());
    }
    if parts.is_empty() { "well".to_owned() } else { parts.join(", ") }
}
