//! Notifications: who is told of what a run found, once for each incident and once more when it is over.
//!
//! `incident.rs` decides what is news, `message.rs` says it, `email.rs` and `http` carry it. Messages go through an outbox
//! in the history: [`settle`] puts them there together with what was decided, [`deliver`] sends them, now or at a later
//! run. Nothing here changes how a run ends.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::clock::Moment;
use crate::config::{Channel, Notify, Recipient, SecretSource, Severity};
use crate::history::incidents::Waiting;
use crate::history::{self, History, Store};
use crate::http;
use crate::stop::Stop;

mod email;
mod incident;
mod message;

pub(crate) use incident::{Observation, State};
pub(crate) use message::Message;

use incident::{Decision, Rules, decide};

/// How long one message may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a run may be at it altogether: no message is begun that might not come to its end by then.
const ALTOGETHER: Duration = Duration::from_secs(30);
/// After that long, whoever claimed a message is dead.
const STALE: chrono::TimeDelta = chrono::TimeDelta::minutes(2);
/// How long a message is tried.
const GIVEN_UP: chrono::TimeDelta = chrono::TimeDelta::days(7);

/// A message and the name of the channel it is for.
pub(crate) type Addressed = (String, Message);

/// Decides what is news, and writes that down; [`deliver`] does the rest.
///
/// Without a history nothing is known of what was told before. What is not well is then news at each run, rather
/// than at none: it is returned, and goes to [`deliver`] as well.
pub(crate) fn settle(
    history: &History,
    notify: &Notify,
    observations: &[Observation],
    run: &str,
    now: Moment,
) -> Vec<Addressed> {
    let channels = notify.channels.iter().map(|channel| (channel.name.as_str(), channel.at_least));
    let channels: Vec<(&str, Severity)> = channels.collect();
    let severity = |command: &str| notify.severity(command);
    let severity_of_warnings = notify.severity_of_warnings();
    let rules = |is_silent| {
        let (channels, severity) = (&channels, &severity);
        Rules { channels, severity, severity_of_warnings, is_silent, run, now }
    };
    let work = |store: &mut Store| {
        let is_silent = is_silent(store, now)?;
        let decision = decide(observations, &store.incidents()?, &rules(is_silent));
        for incident in &decision.over {
            store.remove_incident(&incident.id)?;
        }
        for incident in &decision.put {
            store.put_incident(incident)?;
        }
        for (channel, message) in addressed(&decision, run, now) {
            let body = serde_json::to_string(&message).unwrap_or_default();
            let Message { incident, event, severity, .. } = &message;
            let id = format!("{incident}-{event:?}-{severity}-{channel}");
            let (queued_at, attempts, error) = (now, 0, None);
            store.put_message(&Waiting { id, channel, body, queued_at, attempts, error })?;
        }
        Ok(())
    };
    match history.with(|store| store.in_transaction(work)) {
        Ok(()) => Vec::new(),
        Err(error) => {
            let error = error.in_full();
            tracing::warn!("notifications do not know what was told before: {error}");
            addressed(&decide(observations, &[], &rules(false)), run, now)
        }
    }
}

fn addressed(decision: &Decision, run: &str, now: Moment) -> Vec<Addressed> {
    let mut all = Vec::new();
    for news in &decision.news {
        let message = Message::new(news.event, &news.incident, run, now);
        all.extend(news.channels.iter().map(|channel| (channel.clone(), message.clone())));
    }
    all
}

fn is_silent(store: &mut Store, now: Moment) -> Result<bool, history::Error> {
    Ok(store.silences()?.iter().any(|silence| silence.is_on(now)))
}

/// Sends what waits in the outbox, and `unsettled` beside it; each channel by itself, in the order of the messages.
///
/// What cannot be sent waits for the next run. It takes half a minute at most, and less once `stop` says so.
pub(crate) fn deliver(
    history: &History,
    notify: &Notify,
    unsettled: &[Addressed],
    now: Moment,
    stop: &Stop,
) {
    let begun = Instant::now();
    let waiting = history
        .with(|store| if is_silent(store, now)? { Ok(Vec::new()) } else { store.messages() });
    let waiting = waiting.unwrap_or_else(|error| {
        tracing::debug!("the outbox cannot be read: {}", error.in_full());
        Vec::new()
    });
    let known: BTreeSet<&str> = notify.channels.iter().map(|c| c.name.as_str()).collect();
    for queued in &waiting {
        if !known.contains(queued.channel.as_str()) {
            let Waiting { channel, id, .. } = queued;
            tracing::warn!(
                "a message for the channel `{channel}`, which is not configured any more, is dropped"
            );
            done(history.with(|store| store.remove_message(id)));
        }
    }
    std::thread::scope(|scope| {
        for channel in &notify.channels {
            let own = || waiting.iter().filter(|queued| queued.channel == channel.name);
            let unsettled = unsettled.iter().filter(|(name, _)| *name == channel.name);
            let unsettled: Vec<_> = unsettled.map(|(_, message)| message).collect();
            if own().next().is_none() && unsettled.is_empty() {
                continue;
            }
            let own: Vec<&Waiting> = own().collect();
            scope.spawn(move || {
                let has_time = || begun.elapsed() + TIMEOUT <= ALTOGETHER;
                for message in unsettled.into_iter().take_while(|_| has_time()) {
                    if let Err(error) = send(channel, message, stop) {
                        tracing::warn!("`{}` could not be told: {error}", channel.name);
                        if !error.is_about_the_message {
                            return;
                        }
                    }
                }
                let mut refused = BTreeSet::new();
                for queued in own.into_iter().take_while(|_| has_time()) {
                    let Some(message) = read(history, queued) else { continue };
                    // Nobody is told of an end before the beginning.
                    if refused.contains(&message.incident) {
                        continue;
                    }
                    match deliver_one(history, channel, queued, &message, now, stop) {
                        Delivered::Yes => {}
                        Delivered::Refused => drop(refused.insert(message.incident)),
                        Delivered::No => return,
                    }
                }
            });
        }
    });
}

/// Reads a message of the outbox, and removes it if that cannot be done.
fn read(history: &History, queued: &Waiting) -> Option<Message> {
    let read = serde_json::from_str(&queued.body);
    read.inspect_err(|error| {
        tracing::warn!("a message in the outbox cannot be read, and is dropped: {error}");
        done(history.with(|store| store.remove_message(&queued.id)));
    })
    .ok()
}

/// What became of a message.
enum Delivered {
    /// It is out of the way.
    Yes,
    /// It alone is not taken: other incidents may be told.
    Refused,
    /// Those behind it have to wait as well.
    No,
}

/// Sends one message of the outbox.
fn deliver_one(
    history: &History,
    channel: &Channel,
    queued: &Waiting,
    message: &Message,
    now: Moment,
    stop: &Stop,
) -> Delivered {
    let Waiting { id, queued_at, attempts, .. } = queued;
    let claimed = history.with(|store| store.claim_message(id, now, now - STALE));
    match claimed {
        Ok(true) => {}
        // Another run is at it.
        Ok(false) => return Delivered::No,
        Err(error) => {
            done(Err(error));
            return Delivered::No;
        }
    }
    let name = &channel.name;
    match send(channel, message, stop) {
        Ok(()) => {
            done(history.with(|store| store.remove_message(id)));
            Delivered::Yes
        }
        Err(error) if now - *queued_at > GIVEN_UP => {
            tracing::warn!("`{name}` could not be told for 7 days, which is given up: {error}");
            done(history.with(|store| store.remove_message(id)));
            Delivered::Yes
        }
        Err(error) => {
            let attempt = attempts + 1;
            tracing::warn!(
                "`{name}` could not be told (attempt {attempt}), the next run tries again: {error}"
            );
            done(history.with(|store| store.return_message(id, &error.why)));
            if error.is_about_the_message { Delivered::Refused } else { Delivered::No }
        }
    }
}

/// A message that is not removed is sent once more, which is better than never.
fn done(result: Result<(), history::Error>) {
    if let Err(error) = result {
        tracing::warn!("the outbox could not be written: {}", error.in_full());
    }
}

/// Why a message was not taken. It shows no secret.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{why}")]
pub(crate) struct NotTaken {
    why: String,
    /// Others may be taken: the receiver is there, and refuses this one.
    is_about_the_message: bool,
}

impl From<String> for NotTaken {
    fn from(why: String) -> NotTaken {
        NotTaken { why, is_about_the_message: false }
    }
}

/// Sends a message to a channel and waits until it was taken, for ten seconds at most.
pub(crate) fn send(channel: &Channel, message: &Message, stop: &Stop) -> Result<(), NotTaken> {
    match &channel.to {
        Recipient::Webhook(url) => post(url, &serde_json::json!(message), stop),
        Recipient::Slack(url) => post(url, &message.slack(), stop),
        Recipient::Email(settings) => {
            let (settings, message) = (settings.clone(), message.clone());
            let (sender, answer) = mpsc::channel::<Result<(), NotTaken>>();
            let stopped = sender.clone();
            let is_over = || NotTaken::from("stopped".to_owned());
            let _on_stop = stop.on_stop(move || drop(stopped.send(Err(is_over()))));
            let work = move || drop(sender.send(email::send(&settings, &message)));
            let spawned = std::thread::Builder::new().name("mail".to_owned()).spawn(work);
            spawned.map_err(|error| error.to_string())?;
            let late = |_| Err(format!("it took more than {} s", TIMEOUT.as_secs()).into());
            answer.recv_timeout(TIMEOUT).unwrap_or_else(late)
        }
    }
}

fn post(url: &SecretSource, document: &serde_json::Value, stop: &Stop) -> Result<(), NotTaken> {
    let url = url.read().map_err(|problem| problem.to_string())?;
    let request = http::Request {
        method: http::Method::POST,
        url: &url,
        headers: &[("Content-Type", "application/json")],
        body: Bytes::from(document.to_string()),
        timeout: TIMEOUT,
        stop,
    };
    // Not the body of the answer: it may repeat the token.
    match http::send(&request).map_err(|error| error.to_string())?.status {
        200..300 => Ok(()),
        status => Err(NotTaken {
            why: format!("it answered with status {status}"),
            // RFC 9110, 15.5: bad request, content too large, unprocessable content.
            is_about_the_message: matches!(status, 400 | 413 | 422),
        }),
    }
}
