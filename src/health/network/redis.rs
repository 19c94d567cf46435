//! `redis`: is a Redis at work, has it room, and can it keep what it is given?

use super::no_answer;
use crate::config::health::Redis as Configured;
use crate::environment::Environment;
use crate::health::{Check, Inquiry, Outcome, Reading, Unit, kind};
use crate::network::Deadline;
use crate::network::redis::{Info, Redis};
use crate::text;

/// From how many percent of the allowed connections on there is a warning.
const MOST_CLIENTS: f64 = 90.0;

/// Makes the inquiry.
pub(super) fn inquiry(configured: &Configured, environment: &Environment) -> Option<Inquiry> {
    let url = configured.url.known(environment);
    let check = Check::new(kind::find("redis")?, &configured.name, &configured.settings);
    Some(Inquiry::single(check, move |check, _| {
        let asked =
            Redis::connect(&url.read()?, Deadline::after(check.timeout)).and_then(|mut redis| {
                let latency = redis.ping()?;
                Ok((latency, redis.info()?))
            });
        Ok(match asked {
            Ok((latency, info)) => {
                judge(check, &info).more("latency", latency.as_secs_f64(), Unit::Seconds)
            }
            Err(error) => no_answer(&error),
        })
    }))
}

#[expect(clippy::cast_precision_loss, reason = "nobody counts the bytes of a petabyte")]
fn percent(part: Option<u64>, whole: Option<u64>) -> Option<f64> {
    let whole = whole.filter(|whole| *whole > 0)?;
    Some(part? as f64 * 100.0 / whole as f64)
}

/// Judges what `INFO` says.
fn judge(check: &Check, info: &Info) -> Reading {
    let policy = info.policy.as_deref().unwrap_or("noeviction");
    // A cache is meant to be full, and to forget.
    let is_cache = policy.starts_with("allkeys-");
    let used = info.used_memory.map(text::bytes).unwrap_or_default();
    let memory = percent(info.used_memory, info.max_memory);
    let mut reading = match memory {
        Some(percent) if !is_cache => {
            let most = info.max_memory.map(text::bytes).unwrap_or_default();
            check.judged(percent, format!("{used} of {most} used, {percent:.0} %"))
        }
        _ if info.used_memory.is_none() => {
            Reading::new(Outcome::Unknown, "INFO says nothing of its memory: is it a Redis?")
        }
        _ => Reading::new(Outcome::Ok, format!("{used} used")),
    };
    let mut bad = |outcome: Outcome, message: String| {
        let before = if reading.outcome == Outcome::Ok { None } else { Some(&reading.message) };
        let message = before.map_or(message.clone(), |before| format!("{before}; {message}"));
        reading.message = message;
        reading.outcome = reading.outcome.max(outcome);
    };
    if info.master_link_is_up == Some(false) {
        let since = info.master_link_down.map(|time| format!(" for {} s", time.as_secs()));
        let since = since.unwrap_or_default();
        bad(Outcome::Critical, format!("a replica without its master{since}"));
    }
    if info.snapshot_is_good == Some(false) {
        bad(Outcome::Critical, "the last snapshot could not be written".to_owned());
    }
    if info.aof_write_is_good == Some(false) {
        bad(Outcome::Critical, "the append-only file cannot be written".to_owned());
    }
    if info.aof_rewrite_is_good == Some(false) {
        bad(Outcome::Warning, "the append-only file could not be rewritten".to_owned());
    }
    let clients = percent(info.clients, info.max_clients);
    if let Some(percent) = clients.filter(|percent| *percent > MOST_CLIENTS) {
        bad(Outcome::Warning, format!("{percent:.0} % of the allowed connections are taken"));
    }
    let evicted = info.evicted_keys.unwrap_or_default();
    if evicted > 0 && !is_cache {
        let keys = text::counted(evicted, "key");
        bad(Outcome::Warning, format!("{keys} thrown away for want of memory ({policy})"));
    }
    let rejected = info.rejected_connections.unwrap_or_default();
    if rejected > 0 {
        let connections = text::counted(rejected, "connection");
        bad(Outcome::Warning, format!("{connections} turned away"));
    }
    figures(reading, info)
}

#[expect(clippy::cast_precision_loss, reason = "nobody counts the bytes of a petabyte")]
fn figures(mut reading: Reading, info: &Info) -> Reading {
    let figures = [
        ("used_memory", info.used_memory, Unit::Bytes),
        ("clients", info.clients, Unit::Count),
        ("evicted_keys", info.evicted_keys, Unit::Count),
        ("rejected_connections", info.rejected_connections, Unit::Count),
    ];
    for (name, figure, unit) in figures {
        if let Some(figure) = figure {
            reading = reading.more(name, figure as f64, unit);
        }
    }
    let version = info.version.iter().map(|version| format!("Redis {version}"));
    reading.details(version)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::CheckSettings;

    #[test]
    fn each_trouble_is_said_and_a_full_cache_is_none() {
        let check = Check::new(kind::find("redis").unwrap(), "broker", &CheckSettings::default());
        let good = Info {
            used_memory: Some(50),
            max_memory: Some(100),
            policy: Some("noeviction".to_owned()),
            clients: Some(10),
            max_clients: Some(100),
            evicted_keys: Some(0),
            rejected_connections: Some(0),
            snapshot_is_good: Some(true),
            ..Info::default()
        };
        let outcome = |info: Info| judge(&check, &info).outcome;
        assert_eq!(outcome(good.clone()), Outcome::Ok);
        assert_eq!(outcome(Info::default()), Outcome::Unknown);
        let full = Info { used_memory: Some(99), ..good.clone() };
        assert_eq!(outcome(Info { used_memory: Some(85), ..good.clone() }), Outcome::Warning);
        assert_eq!(outcome(full.clone()), Outcome::Critical);
        let cache = Info { policy: Some("allkeys-lru".to_owned()), evicted_keys: Some(5), ..full };
        assert_eq!(outcome(cache), Outcome::Ok);
        for (info, expected) in [
            (Info { evicted_keys: Some(1), ..good.clone() }, Outcome::Warning),
            (Info { rejected_connections: Some(1), ..good.clone() }, Outcome::Warning),
            (Info { clients: Some(95), ..good.clone() }, Outcome::Warning),
            (Info { aof_rewrite_is_good: Some(false), ..good.clone() }, Outcome::Warning),
            (Info { aof_write_is_good: Some(false), ..good.clone() }, Outcome::Critical),
            (Info { snapshot_is_good: Some(false), ..good.clone() }, Outcome::Critical),
            (Info { master_link_is_up: Some(false), ..good.clone() }, Outcome::Critical),
        ] {
            assert_eq!(outcome(info.clone()), expected, "{info:?}");
        }
        let two = Info {
            master_link_is_up: Some(false),
            master_link_down: Some(Duration::from_secs(7)),
            rejected_connections: Some(2),
            ..good
        };
        let said = "a replica without its master for 7 s; 2 connections turned away";
        assert_eq!(judge(&check, &two).message, said);
    }
}
