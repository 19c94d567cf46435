//! What is found in a log means: errors in the window, and what happens too often in a minute.

use anyhow::Context as _;

use super::{Check, Inquiry, Outcome, Reading, Unit, kind};
use crate::clock::Moment;
use crate::config::{Log, LogSource, Often};
use crate::logs::count::{Counter, Counts, Event};
use crate::logs::time::Clock;
use crate::logs::{LIMIT, journal, line, tail};
use crate::text;

/// Stamps may be so far ahead: another host's clock.
const AHEAD: chrono::TimeDelta = chrono::TimeDelta::seconds(60);
/// With fewer requests a single answer is too large a part of them.
const FEW_REQUESTS: u64 = 20;
/// So many times a limit is critical.
const CRITICAL_TIMES: u64 = 10;
/// The same for the percentage of answers.
const CRITICAL_TIMES_RATE: f64 = 5.0;

/// Looks at a log.
pub(crate) fn inquiry(log: &Log, now: Moment) -> Inquiry {
    let check = Check::new(&kind::LOG, &log.name, &log.settings);
    let log = log.clone();
    Inquiry::single(check, move |check, stop| {
        let since = now - chrono::TimeDelta::from_std(log.window)?;
        let matches = |message: &str| log.patterns.is_match(message);
        let mut counter = Counter::new(since, now + AHEAD, &matches);
        let cut = match &log.source {
            LogSource::File(path) => {
                let clock = Clock::of_host(now);
                let tail = tail::read(path, since, LIMIT, &clock);
                let tail = tail.with_context(|| format!("`{}` cannot be read", path.display()))?;
                for line in tail.lines() {
                    stop.check()?;
                    counter.count(&line::parse(&line, &clock));
                }
                tail.cut
            }
            LogSource::Journal(unit) => {
                let entries = journal::read(unit, since, LIMIT, stop)?;
                if !entries.is_known {
                    let what = "the journal has nothing of it that this user may read";
                    return Ok(Reading::new(Outcome::Unknown, what));
                }
                entries.lines.iter().for_each(|line| counter.count(line));
                entries.cut
            }
        };
        Ok(reading(check, &log, &counter.finish(), cut))
    })
}

fn reading(check: &Check, log: &Log, counts: &Counts, cut: bool) -> Reading {
    let window = text::duration(chrono::TimeDelta::from_std(log.window).unwrap_or_default());
    if counts.lines == 0 && counts.ahead > 0 {
        let what = "all of its time stamps lie ahead: is it written in another time zone?";
        return Reading::new(Outcome::Unknown, what);
    }
    if counts.lines == 0 && counts.unknown > 0 {
        let what = "no time stamp in it is understood, so nobody knows what is new";
        return Reading::new(Outcome::Unknown, what);
    }
    let errors = counts.errors + counts.matched;
    let mut message = format!("{} in {window}", text::counted(errors, "error"));
    if counts.requests > 0 {
        message += &format!(" and {}", text::counted(counts.requests, "request"));
    }
    let mut reading = check.judged(real(errors), message);
    for (count, event, name, limit) in peaks(counts, log.often) {
        if count > 0 {
            reading = reading.more(name, real(count), Unit::Count);
        }
        if count > limit {
            let outcome = if count > limit.saturating_mul(CRITICAL_TIMES) {
                Outcome::Critical
            } else {
                Outcome::Warning
            };
            reading = reading.at_least(outcome);
            reading.message += &format!(", {count} {event} in a minute");
        }
    }
    let rates = [("5xx", counts.server_errors), ("4xx", counts.client_errors)];
    for (name, answers) in rates {
        let Some(rate) = counts.rate(answers) else { continue };
        reading = reading.more(name, rate, Unit::Percent);
        let limit = log.often.server_errors;
        if name == "5xx" && rate > limit && counts.requests >= FEW_REQUESTS {
            let critical = rate > limit * CRITICAL_TIMES_RATE;
            reading = reading.at_least(if critical { Outcome::Critical } else { Outcome::Warning });
            reading.message += &format!(", {rate:.1} % of the answers are 5xx");
        }
    }
    if cut {
        // What was not seen may be as bad.
        reading.message += &format!(", in its last {} alone", text::bytes(LIMIT));
    }
    reading = reading.more("warnings", real(counts.warnings), Unit::Count);
    let repeated = counts.repeated.iter();
    reading.details(repeated.map(|(shape, count)| format!("{count} × {shape}")))
}

/// Returns what happened most in one minute, with its words, its name as a figure, and its limit.
fn peaks(counts: &Counts, often: Often) -> [(u64, &'static str, &'static str, u64); 5] {
    Event::ALL.map(|event| {
        let (words, name, limit) = match event {
            Event::FailedLogin => ("failed logins", "failed_logins", often.failed_logins),
            Event::Unauthorized => ("times 401", "401", often.refused),
            Event::Forbidden => ("times 403", "403", often.refused),
            Event::NotFound => ("times 404", "404", often.not_found),
            Event::TooManyRequests => ("times 429", "429", often.refused),
        };
        (counts.peak(event), words, name, u64::from(limit))
    })
}

#[expect(clippy::cast_precision_loss, reason = "a count for people and graphs")]
fn real(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CheckSettings;

    fn judge(counts: &Counts) -> Reading {
        let settings = CheckSettings::default();
        let check = Check::new(&kind::LOG, "api", &settings);
        let log = Log {
            name: "api".to_owned(),
            settings,
            source: LogSource::File("/log".into()),
            window: std::time::Duration::from_secs(900),
            patterns: regex::RegexSet::empty(),
            often: Often::USUAL,
        };
        reading(&check, &log, counts, false)
    }

    #[test]
    fn errors_are_counted_against_their_limits() {
        let errors = |errors| judge(&Counts { lines: 1, errors, matched: 1, ..Counts::default() });
        assert_eq!(errors(9).outcome, Outcome::Ok);
        assert_eq!(errors(10).outcome, Outcome::Warning);
        assert_eq!(errors(100).outcome, Outcome::Critical);
        assert_eq!(errors(1).message, "2 errors in 15 min 0 s");
    }

    #[test]
    fn what_happens_too_often_in_a_minute_is_said() {
        let peaks = |peaks| judge(&Counts { lines: 1, peaks, ..Counts::default() });
        assert_eq!(peaks([10, 10, 10, 50, 10]).outcome, Outcome::Ok);
        let logins = peaks([11, 0, 0, 0, 0]);
        assert_eq!(logins.outcome, Outcome::Warning);
        assert_eq!(logins.message, "0 errors in 15 min 0 s, 11 failed logins in a minute");
        assert_eq!(peaks([0, 0, 0, 51, 0]).outcome, Outcome::Warning);
        assert_eq!(peaks([0, 0, 0, 501, 0]).outcome, Outcome::Critical);
        assert_eq!(peaks([0, 0, 101, 0, 0]).outcome, Outcome::Critical);
    }

    #[test]
    fn a_rate_needs_some_requests() {
        let rate = |requests, server_errors| {
            judge(&Counts { lines: 1, requests, server_errors, ..Counts::default() }).outcome
        };
        assert_eq!(rate(10, 5), Outcome::Ok);
        assert_eq!(
            (rate(1000, 10), rate(1000, 11), rate(1000, 51)),
            (Outcome::Ok, Outcome::Warning, Outcome::Critical)
        );
    }

    #[test]
    fn a_log_that_is_not_understood_is_no_good_news() {
        let judge = |counts: Counts| judge(&counts).outcome;
        assert_eq!(judge(Counts { unknown: 5, ..Counts::default() }), Outcome::Unknown);
        assert_eq!(judge(Counts { ahead: 5, ..Counts::default() }), Outcome::Unknown);
        assert_eq!(judge(Counts::default()), Outcome::Ok);
    }
}
