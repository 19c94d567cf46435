//! Counting what the lines of a window say, with memory that does not grow with them. Pure.

use std::collections::HashMap;

use super::line::{Level, Line};
use super::shape::shape;
use crate::clock::Moment;

/// So many different shapes are told apart; what comes later is counted and not named.
const SHAPES: usize = 1000;
/// So many of the most frequent are named.
const NAMED: usize = 3;
/// What programs say when somebody could not log in.
const LOGIN_FAILED: [&str; 8] = [
    "failed password",
    "authentication failed",
    "authentication failure",
    "failed login",
    "login failed",
    "invalid credentials",
    "invalid user ",
    "invalid password",
];

/// Events whose number in one minute matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    FailedLogin,
    /// 401
    Unauthorized,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 429
    TooManyRequests,
}

impl Event {
    /// All of them.
    pub(crate) const ALL: [Event; 5] = [
        Event::FailedLogin,
        Event::Unauthorized,
        Event::Forbidden,
        Event::NotFound,
        Event::TooManyRequests,
    ];
}

/// Counts the lines from `since` to `until`.
pub(crate) struct Counter<'a> {
    since: Moment,
    until: Moment,
    /// Does a message match what its reader wants to count?
    matches: &'a dyn Fn(&str) -> bool,
    /// Was there a line with a stamp, and does the last one lie in the window?
    stamped: bool,
    inside: bool,
    counts: Counts,
    minutes: HashMap<i64, [u64; Event::ALL.len()]>,
    shapes: HashMap<String, u64>,
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    /// With a stamp in the window.
    pub(crate) lines: u64,
    /// With a stamp that lies ahead: the clock or the zone is another.
    pub(crate) ahead: u64,
    /// Without any stamp, before the first that had one.
    pub(crate) unknown: u64,
    pub(crate) errors: u64,
    pub(crate) warnings: u64,
    /// Messages that match.
    pub(crate) matched: u64,
    pub(crate) requests: u64,
    /// Answers from 400 to 499.
    pub(crate) client_errors: u64,
    /// Answers from 500 to 599.
    pub(crate) server_errors: u64,
    /// The most in one minute, in the order of [`Event::ALL`].
    pub(crate) peaks: [u64; Event::ALL.len()],
    /// The shapes of errors and matches that were said more than once, the most frequent first.
    pub(crate) repeated: Vec<(String, u64)>,
}

impl<'a> Counter<'a> {
    /// Begins to count.
    pub(crate) fn new(
        since: Moment,
        until: Moment,
        matches: &'a dyn Fn(&str) -> bool,
    ) -> Counter<'a> {
        Counter {
            since,
            until,
            matches,
            stamped: false,
            inside: false,
            counts: Counts::default(),
            minutes: HashMap::new(),
            shapes: HashMap::new(),
        }
    }

    /// Counts a line, in the order of the log.
    pub(crate) fn count(&mut self, line: &Line<'_>) {
        let Some(at) = line.at else {
            if !self.stamped {
                self.counts.unknown += u64::from(!line.message.is_empty());
            }
            // A traceback belongs to the line before it.
            if self.inside && (self.matches)(&line.message) {
                self.matched(&line.message);
            }
            return;
        };
        self.stamped = true;
        self.inside = at >= self.since && at <= self.until;
        self.counts.ahead += u64::from(at > self.until);
        if !self.inside {
            return;
        }
        self.counts.lines += 1;
        let matched = (self.matches)(&line.message);
        match line.level {
            Level::Error => self.counts.errors += 1,
            Level::Warning => self.counts.warnings += 1,
            Level::Other => {}
        }
        if matched {
            self.matched(&line.message);
        } else if line.level == Level::Error {
            self.remember(&line.message);
        }
        match line.status {
            Some(status) => self.answered(at, status),
            None if login_failed(&line.message) => self.happened(at, Event::FailedLogin),
            None => {}
        }
    }

    /// Returns what was counted.
    pub(crate) fn finish(self) -> Counts {
        let mut counts = self.counts;
        for minute in self.minutes.values() {
            for (peak, count) in counts.peaks.iter_mut().zip(minute) {
                *peak = (*peak).max(*count);
            }
        }
        let mut repeated: Vec<(String, u64)> =
            self.shapes.into_iter().filter(|(_, count)| *count > 1).collect();
        repeated.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        repeated.truncate(NAMED);
        counts.repeated = repeated;
        counts
    }

    fn matched(&mut self, message: &str) {
        self.counts.matched += 1;
        self.remember(message);
    }

    fn remember(&mut self, message: &str) {
        let shape = shape(message);
        if self.shapes.len() < SHAPES || self.shapes.contains_key(&shape) {
            *self.shapes.entry(shape).or_default() += 1;
        }
    }

    fn answered(&mut self, at: Moment, status: u16) {
        self.counts.requests += 1;
        self.counts.client_errors += u64::from((400..500).contains(&status));
        self.counts.server_errors += u64::from(status >= 500);
        match status {
            401 => self.happened(at, Event::Unauthorized),
            403 => self.happened(at, Event::Forbidden),
            404 => self.happened(at, Event::NotFound),
            429 => self.happened(at, Event::TooManyRequests),
            _ => {}
        }
    }

    fn happened(&mut self, at: Moment, event: Event) {
        // The window has a limit, and so has the number of its minutes.
        let minute = at.timestamp().div_euclid(60);
        self.minutes.entry(minute).or_default()[event as usize] += 1;
    }
}

impl Counts {
    /// Returns the most of an event in one minute.
    pub(crate) fn peak(&self, event: Event) -> u64 {
        self.peaks[event as usize]
    }

    /// Returns how many of the requests got an answer of a kind, in percent; none without requests.
    pub(crate) fn rate(&self, answers: u64) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a percentage needs no more")]
        let rate = answers as f64 * 100.0 / self.requests as f64;
        (self.requests > 0).then_some(rate)
    }
}

fn login_failed(message: &str) -> bool {
    // Words are looked for in the beginning: what follows is whatever somebody typed.
    let lower = super::line::cut(message, 300).to_ascii_lowercase();
    LOGIN_FAILED.iter().any(|words| lower.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::line::parse;
    use crate::logs::time::tests::clock;

    fn count(lines: &[String]) -> Counts {
        let at = |text: &str| text.parse::<Moment>().unwrap();
        let matches = |message: &str| message.contains("disk");
        let mut counter =
            Counter::new(at("2026-11-25T19:00:00Z"), at("2026-11-25T19:15:00Z"), &matches);
        for line in lines {
            counter.count(&parse(line, &clock()));
        }
        counter.finish()
    }

    #[test]
    fn only_the_window_counts_and_a_traceback_belongs_to_its_line() {
        let counts = count(&[
            "  a traceback that began before".to_owned(),
            "2026-11-25 18:59:59Z ERROR too old".to_owned(),
            "  disk".to_owned(),
            "2026-11-25 19:00:00Z ERROR job 1 failed".to_owned(),
            "  disk".to_owned(),
            "2026-11-25 19:01:00Z ERROR job 2 failed".to_owned(),
            "2026-11-25 19:02:00Z WARNING slow".to_owned(),
            "2026-11-25 19:03:00Z INFO disk".to_owned(),
            "2026-11-25 20:00:00Z ERROR ahead".to_owned(),
        ]);
        assert_eq!((counts.lines, counts.ahead, counts.unknown), (4, 1, 1));
        assert_eq!((counts.errors, counts.warnings, counts.matched), (2, 1, 2));
        assert_eq!(counts.repeated, [("ERROR job # failed".to_owned(), 2)]);
    }

    #[test]
    fn answers_are_counted_and_the_worst_minute_is_found() {
        let request = |minute: u32, status: u16| {
            format!(r#"h - - [25/Nov/2026:19:{minute:02}:30 +0000] "GET / HTTP/1.1" {status} 1"#)
        };
        let mut lines: Vec<String> = (0..10).map(|minute| request(minute, 200)).collect();
        lines.extend([
            request(1, 404),
            request(2, 404),
            request(2, 404),
            request(3, 503),
            request(3, 429),
        ]);
        lines.push("Nov 25 20:04:00 h sshd[1]: Failed password for root".to_owned());
        let counts = count(&lines);
        assert_eq!((counts.requests, counts.client_errors, counts.server_errors), (15, 4, 1));
        assert_eq!(Event::ALL.map(|event| counts.peak(event)), [1, 0, 0, 2, 1]);
        assert!((counts.rate(counts.server_errors).unwrap() - 100.0 / 15.0).abs() < 1e-9);
        assert_eq!(Counts::default().rate(0), None);
    }

    #[test]
    fn a_flood_of_different_messages_takes_no_more_memory() {
        let word = |n: u32| {
            n.to_string().replace(|c: char| c.is_ascii_digit(), "x")
                + &"y".repeat(n as usize % 20)
                + &"z".repeat(n as usize % 31)
        };
        let line = |n: u32| format!("2026-11-25 19:00:00Z ERROR {} {}", word(n), word(n / 620));
        let lines: Vec<String> = (0..20_000).map(line).collect();
        let matches = |_: &str| false;
        let at = "2026-11-25T19:00:00Z".parse().unwrap();
        let mut counter = Counter::new(at, at, &matches);
        for line in &lines {
            counter.count(&parse(line, &clock()));
        }
        assert_eq!((counter.shapes.len(), counter.counts.errors), (SHAPES, 20_000));
    }
}
