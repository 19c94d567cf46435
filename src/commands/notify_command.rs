//! `opsctl notify test`: does a message arrive? It goes to the channels at once, past incidents, silences and the outbox.

use crate::cli::{NotifyArgs, NotifyCommand, Selection};
use crate::commands::{Context, Report, Silence};
use crate::config::Overrides;
use crate::exit::{Exit, Failure};
use crate::notify::{self, Message};

pub(super) fn run(context: &Context, args: &NotifyArgs) -> anyhow::Result<Report> {
    let NotifyCommand::Test { channel: wanted } = &args.command;
    let channels =
        context.load(&Selection::default(), Overrides::default())?.config.notify.channels;
    context.set_deadline(context.global.timeout);
    let known: Vec<_> = channels.iter().map(|channel| channel.name.as_str()).collect();
    if known.is_empty() {
        let hint = "Add a section [notify.channels.NAME]: `opsctl config example` shows how.";
        return Err(Failure::new(Exit::Configuration, "there is no channel").hint(hint).into());
    }
    if let Some(name) = wanted.iter().find(|name| !known.contains(&name.as_str())) {
        let hint = format!("Configured are: {}.", known.join(", "));
        let message = format!("there is no channel `{name}`");
        return Err(Failure::new(Exit::Usage, message).hint(hint).into());
    }
    let message = Message::test(context.run.as_str(), context.now);
    let (mut text, mut results, mut exit) = (String::new(), Vec::new(), Exit::Done);
    let is_wanted = |name: &String| wanted.is_empty() || wanted.contains(name);
    for channel in channels.iter().filter(|channel| is_wanted(&channel.name)) {
        context.stop.check()?;
        let name = &channel.name;
        let error = notify::send(channel, &message, &context.stop).err();
        text.push_str(&match &error {
            None => format!("{name}: took the message\n"),
            Some(error) => format!("{name}: FAILED: {error}\n"),
        });
        if let Some(error) = &error {
            tracing::error!("`{name}` could not be told: {error}");
            exit = Exit::Failed;
        }
        let error = error.map(|error| error.to_string());
        results.push(serde_json::json!({ "channel": name, "error": error }));
    }
    context.stop.check()?;
    let json = serde_json::json!({ "channels": results });
    Ok(Report { exit, text, json, silence: Silence::Allowed })
}
