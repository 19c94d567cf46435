//! `opsctl history`: what ran, and how it ended.

use crate::cli::HistoryArgs;
use crate::commands::{Context, Report, Silence};
use crate::config::Overrides;
use crate::exit::Exit;
use crate::health::Outcome;
use crate::history::{Run, State};
use crate::text::{Table, duration};

pub(super) fn run(context: &Context, args: &HistoryArgs) -> anyhow::Result<Report> {
    context.load(&crate::cli::Selection::default(), Overrides::default())?;
    let since = chrono::TimeDelta::from_std(args.since).ok();
    let since = since.and_then(|since| context.now.checked_sub_signed(since)).unwrap_or_default();
    let is_wanted = |run: &Run| {
        args.command.as_ref().is_none_or(|command| *command == run.command)
            && args
                .database
                .as_ref()
                .is_none_or(|name| run.databases.iter().any(|part| part.database == *name))
    };
    let command: Vec<&str> = args.command.iter().map(String::as_str).collect();
    let mut runs = context.history.read(|store| store.runs(since, &command))?;
    runs.retain(is_wanted);
    let mut table = Table::new(&["BEGUN (UTC)", "RUN", "COMMAND", "DATABASES", "TOOK", "ENDED"]);
    for run in &runs {
        let databases: Vec<_> = run.databases.iter().map(|part| part.database.as_str()).collect();
        let took = run.ended_at.map(|at| duration(at.signed_duration_since(run.begun_at)));
        table.row([
            run.begun_at.format("%Y-%m-%d %H:%M:%S").to_string(),
            run.id.clone(),
            format!("{}{}", run.command, if run.dry_run { " --dry-run" } else { "" }),
            databases.join(", "),
            took.unwrap_or_default(),
            ending(run),
        ]);
    }
    let text = if runs.is_empty() { "Nothing ran.\n".to_owned() } else { table.to_string() };
    let json = serde_json::json!({ "since": since, "runs": runs });
    Ok(Report { exit: Exit::Done, text, json, silence: Silence::Refused })
}

/// Says how a run ended, for people.
fn ending(run: &Run) -> String {
    match (run.state, run.exit) {
        (State::Running, _) => "is running".to_owned(),
        (State::Killed, _) | (State::Ended, None) => "KILLED".to_owned(),
        (State::Ended, Some(0)) => "well".to_owned(),
        (State::Ended, Some(status)) if run.command == "health-check" && run.error.is_none() => {
            let outcome = Outcome::from_number(status.into());
            outcome.map_or("UNKNOWN".to_owned(), |outcome| outcome.name().to_uppercase())
        }
        (State::Ended, Some(exit)) => {
            let errors = run.databases.iter().filter_map(|part| part.error.as_ref());
            let why = run.error.iter().chain(errors).next();
            format!("FAILED ({exit}){}", why.map(|why| format!(": {why}")).unwrap_or_default())
        }
    }
}
