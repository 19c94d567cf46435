//! `opsctl status`: is anything late, or failing? With `--notify`, whoever wants to know is told.

use crate::cli::StatusArgs;
use crate::clock::Moment;
use crate::commands::expected::{Expected, commands, expected};
use crate::commands::{Context, Report, Silence, open};
use crate::config::Overrides;
use crate::exit::{Exit, Failure};
use crate::history::Run;
use crate::history::due::{KILLED, Standing};
use crate::history::incidents::Silence as Silenced;
use crate::notify::{Observation, State};
use crate::text::{Table, duration};

pub(super) fn run(context: &Context, args: &StatusArgs) -> anyhow::Result<Report> {
    let config = context.load(&args.selection, Overrides::default())?.config;
    context.set_deadline(context.global.timeout);
    let schedule = &config.schedule;
    for (command, _) in &args.max_age {
        if !schedule.commands.iter().any(|scheduled| scheduled.command == command) {
            let message = format!("`{command}` is not scheduled");
            let known: Vec<_> = schedule.commands.iter().map(|s| s.command).collect();
            let hint = format!("Scheduled are: {}.", known.join(", "));
            return Err(Failure::new(Exit::Usage, message).hint(hint).into());
        }
    }
    let names = config.databases.iter().map(|database| open::database_name(context, database));
    let expected = expected(&config, &names.collect::<anyhow::Result<Vec<_>>>()?);
    let commands = commands(&expected);
    let (runs, silences): (Vec<Run>, Vec<Silenced>) = context.history.read(|store| {
        let mut silences = store.silences()?;
        silences.retain(|silence| silence.is_on(context.now));
        Ok((store.runs(Moment::default(), &commands)?, silences))
    })?;
    let standing = |expected: &Expected| {
        let is_its = |(command, _): &&(String, _)| command == expected.scheduled.command;
        let max_age = args.max_age.iter().rfind(is_its).map(|(_, age)| *age);
        expected.judge(&runs, max_age, context.now)
    };
    let standings: Vec<Standing> = expected.iter().map(standing).collect();
    let is_well = standings.iter().all(Standing::is_well);
    let mut table = Table::new(&["COMMAND", "DATABASE", "LAST SUCCESS (UTC)", "DUE (UTC)", "IS"]);
    let time = |at: Option<Moment>| {
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
    if args.notify {
        context.observe(standings.iter().flat_map(|standing| observations(context, standing)));
    }
    let mut text = table.to_string();
    for silence in &silences {
        let Silenced { until, who, why, .. } = silence;
        let until = until.format("%Y-%m-%d %H:%M UTC");
        text.push_str(&format!("Nobody is told of anything until {until} ({who}: {why}).\n"));
    }
    let json = serde_json::json!({ "well": is_well, "standings": standings, "silences": silences });
    let exit = if is_well { Exit::Done } else { Exit::BadNews };
    Ok(Report { exit, text, json, silence: Silence::Allowed })
}

/// Returns what there is to tell of a standing. A run that failed has said so itself; one that was killed cannot.
fn observations(context: &Context, standing: &Standing) -> Vec<Observation> {
    let late = match (standing.late, standing.due) {
        (true, due) => State::Late { since: due.unwrap_or(context.now) },
        (false, _) => State::InTime,
    };
    let killed = standing.killed.then(|| State::Bad { what: KILLED.to_owned() });
    let observation = |state| Observation {
        command: standing.command.clone(),
        database: standing.database.clone(),
        subject: String::new(),
        state,
    };
    [Some(late), killed].into_iter().flatten().map(observation).collect()
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
