//! `opsctl silence`: nobody is told of anything for a while.

use anyhow::Context as _;

use crate::cli::{Selection, SilenceArgs, SilenceCommand};
use crate::commands::{Context, Report, Silence};
use crate::config::Overrides;
use crate::exit::Exit;
use crate::history::incidents;
use crate::text::Table;

pub(super) fn run(context: &Context, args: &SilenceArgs) -> anyhow::Result<Report> {
    context.load(&Selection::default(), Overrides::default())?;
    match (args.command, args.duration, &args.why) {
        (Some(SilenceCommand::End), ..) => end(context),
        (None, Some(duration), Some(why)) => begin(context, duration, why),
        _ => list(context),
    }
}

fn begin(context: &Context, duration: std::time::Duration, why: &str) -> anyhow::Result<Report> {
    let silence = incidents::Silence {
        id: context.run.to_string(),
        begun_at: context.now,
        until: context.now + duration,
        why: why.replace(char::is_control, " "),
        who: context.who(),
    };
    let noted = context.history.with(|store| store.begin_silence(&silence));
    noted.context("the silence could not be noted")?;
    let until = silence.until.format("%Y-%m-%d %H:%M UTC");
    let text = format!(
        "Nobody is told of anything until {until}.\n`opsctl silence end` ends that before.\n"
    );
    let json = serde_json::json!({ "silence": silence });
    Ok(Report { exit: Exit::Done, text, json, silence: Silence::Allowed })
}

fn list(context: &Context) -> anyhow::Result<Report> {
    let silences = context.history.read(crate::history::Store::silences)?;
    let mut table = Table::new(&["BEGUN (UTC)", "UNTIL (UTC)", "IS", "WHO", "WHY"]);
    for silence in &silences {
        let time = |at: crate::clock::Moment| at.format("%Y-%m-%d %H:%M").to_string();
        let is = if silence.is_on(context.now) { "on" } else { "over" };
        let (begun, until) = (time(silence.begun_at), time(silence.until));
        table.row([begun, until, is.to_owned(), silence.who.clone(), silence.why.clone()]);
    }
    let none = "There was no silence.\n".to_owned();
    let text = if silences.is_empty() { none } else { table.to_string() };
    let json = serde_json::json!({ "silences": silences });
    Ok(Report { exit: Exit::Done, text, json, silence: Silence::Refused })
}

fn end(context: &Context) -> anyhow::Result<Report> {
    let ended = context.history.with(|store| store.end_silences(context.now));
    let ended = ended.context("the silence could not be ended")?;
    // Nothing is observed, but what was found in the meantime is told.
    context.observe([]);
    let text = if ended == 0 { "There was no silence.\n" } else { "The silence is over.\n" };
    let json = serde_json::json!({ "ended": ended });
    Ok(Report { exit: Exit::Done, text: text.to_owned(), json, silence: Silence::Allowed })
}
