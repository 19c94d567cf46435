//! Asks all parts at once, and waits for none longer than all of them may take.
//!
//! Each has a thread of its own. One that does not answer is a finding, and keeps nobody else from being heard.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::{Area, Seen};
use crate::stop::{Reason, Stop};

/// How long those that are told to stop may take to clean up.
const GRACE: Duration = Duration::from_secs(2);

/// What a question is given: when to stop working, when to stop cleaning up as well, and who listens.
pub(crate) struct Asked<'a> {
    pub(crate) stop: &'a Stop,
    pub(crate) abort: &'a Stop,
    /// Takes what was seen, as soon as it was.
    pub(crate) say: &'a dyn Fn(Seen),
}

/// One part, or one database or repository of it.
pub(crate) struct Question {
    area: Area,
    subject: String,
    ask: Box<dyn FnOnce(&Asked<'_>) + Send>,
}

impl Question {
    /// Makes a question; `subject` is the database or repository, and becomes that of all that is said.
    pub(crate) fn new(
        area: Area,
        subject: &str,
        ask: impl FnOnce(&Asked<'_>) + Send + 'static,
    ) -> Question {
        Question { area, subject: subject.to_owned(), ask: Box::new(ask) }
    }
}

/// Asks, and returns what was seen, in the order of the questions. It takes `limit` and a grace at most.
pub(crate) fn examine(questions: Vec<Question>, limit: Duration, interrupted: &Stop) -> Vec<Seen> {
    let (stop, abort) = (Stop::new(), Stop::new());
    let (on_stop, on_abort) = (stop.clone(), abort.clone());
    let _interrupted = interrupted.on_stop(move || {
        on_stop.request(Reason::Deadline);
        on_abort.request(Reason::Deadline);
    });
    let parts: Vec<(Area, String)> =
        questions.iter().map(|q| (q.area, q.subject.clone())).collect();
    let mut seen: Vec<Vec<Seen>> = parts.iter().map(|_| Vec::new()).collect();
    let mut open: Vec<bool> = parts.iter().map(|_| true).collect();
    let (sender, answers) = channel::<(usize, Option<Seen>)>();
    for (number, question) in questions.into_iter().enumerate() {
        let (sender, stop, abort) = (sender.clone(), stop.clone(), abort.clone());
        let Question { area, subject, ask } = question;
        let work = move || {
            let say = |seen: Seen| {
                let subject = if seen.subject.is_empty() { &subject } else { &seen.subject };
                let subject = subject.clone();
                sender.send((number, Some(Seen { subject, ..seen }))).ok();
            };
            let asked = Asked { stop: &stop, abort: &abort, say: &say };
            if catch_unwind(AssertUnwindSafe(|| ask(&asked))).is_err() {
                let why = "The rest of this part was not looked at.";
                say(Seen::bad(area, "the examination itself broke", why, "Please report this."));
            }
            sender.send((number, None)).ok();
        };
        // Without a thread nobody answers, which is said below.
        std::thread::Builder::new().name("doctor".to_owned()).spawn(work).ok();
    }
    drop(sender);
    let mut until = Instant::now() + limit;
    while open.iter().any(|open| *open) {
        match answers.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok((number, Some(found))) => {
                if let Some(seen) = seen.get_mut(number) {
                    seen.push(found);
                }
            }
            Ok((number, None)) => {
                if let Some(open) = open.get_mut(number) {
                    *open = false;
                }
            }
            Err(RecvTimeoutError::Timeout) if stop.reason().is_none() => {
                stop.request(Reason::Deadline);
                until = Instant::now() + GRACE;
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    abort.request(Reason::Deadline);
    for (n, (area, subject)) in parts.into_iter().enumerate() {
        if let Some(seen) = seen.get_mut(n).filter(|_| open.get(n) == Some(&true)) {
            let what = format!("no answer within {} s", limit.as_secs_f64());
            let why = "A run that needs it would wait as well.";
            let advice =
                "Find out what hangs, such as a mount or a firewall, or give it more --timeout.";
            seen.push(Seen::bad(area, what, why, advice).of(&subject));
        }
    }
    seen.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_hangs_or_breaks_keeps_nobody_from_being_heard() {
        let good = |what: &str| {
            let what = what.to_owned();
            Question::new(Area::State, "", move |asked| {
                (asked.say)(Seen::good(Area::State, what));
            })
        };
        let questions = vec![
            good("first"),
            Question::new(Area::Repository, "offsite", |asked| {
                (asked.say)(Seen::good(Area::Repository, "it is there"));
                // Deaf to the wish to stop.
                Stop::new().sleep(Duration::from_secs(60)).ok();
            }),
            Question::new(Area::Database, "a", |asked| {
                asked.stop.sleep(Duration::from_secs(60)).ok();
                (asked.say)(Seen::good(Area::Database, "cleaned up"));
            }),
            Question::new(Area::Cron, "", |_| panic!("broken on purpose")),
            good("last"),
        ];
        let began = Instant::now();
        let seen = examine(questions, Duration::from_millis(100), &Stop::new());
        assert!(began.elapsed() < Duration::from_secs(10));
        let said: Vec<_> = seen.iter().map(|s| (s.subject.as_str(), s.what.as_str())).collect();
        let expected = [
            ("", "first"),
            ("offsite", "it is there"),
            ("offsite", "no answer within 0.1 s"),
            ("a", "cleaned up"),
            ("", "the examination itself broke"),
            ("", "last"),
        ];
        assert_eq!(said, expected);
    }
}
