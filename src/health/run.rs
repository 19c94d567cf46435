//! Asks all inquiries at once, and waits for none longer than it may take.
//!
//! Each has a thread of its own. One that does not end is left behind: its checks are unknown, the others are answered, and
//! the process ends all the same. Nothing that happens in a thread, a panic among it, keeps the rest from being said.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::{Answer, Check, Inquiry, Outcome, Reading};
use crate::secret::redact;
use crate::stop::{Reason, Stop};

/// How many are asked at once.
const AT_ONCE: usize = 64;
/// How long a check that was bad is left alone before it is asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// A longer message is cut: it comes from somewhere else.
const LONGEST_MESSAGE: usize = 1000;
const MOST_DETAILS: usize = 50;

/// What comes from a thread, with the number of its inquiry.
enum Event {
    /// What was found out about a check, by its number in the inquiry.
    Gave(usize, usize, Reading),
    Ended(usize),
    Stopped,
}

/// An inquiry that is under way, or over.
struct Asked {
    inquiry: Arc<Inquiry>,
    stop: Stop,
    began: Instant,
    found: Vec<Option<(Reading, f64)>>,
    is_over: bool,
}

impl Asked {
    fn until(&self) -> Instant {
        self.began + self.inquiry.timeout
    }

    /// Keeps the better of what was found: a check that was asked again and is well now, is well.
    fn keep(&mut self, check: usize, reading: Reading) {
        let seconds = self.began.elapsed().as_secs_f64();
        if let Some(found) = self.found.get_mut(check)
            && found.as_ref().is_none_or(|(before, _)| reading.outcome < before.outcome)
        {
            *found = Some((reading, seconds));
        }
    }
}

/// Asks, and returns an answer for every check, in the order of the inquiries. It takes at most `limit`.
pub(crate) fn run(inquiries: Vec<Inquiry>, limit: Duration, stop: &Stop) -> Vec<Answer> {
    let end = Instant::now() + limit;
    let (sender, events) = channel();
    let stopped = sender.clone();
    let _on_stop = stop.on_stop(move || drop(stopped.send(Event::Stopped)));
    let mut waiting: VecDeque<Arc<Inquiry>> = inquiries.into_iter().map(Arc::new).collect();
    let mut asked: Vec<Asked> = Vec::new();
    loop {
        while asked.iter().filter(|a| !a.is_over).count() < AT_ONCE
            && let Some(inquiry) = waiting.pop_front()
        {
            asked.push(begin(inquiry, asked.len(), &sender));
        }
        let Some(until) = asked.iter().filter(|a| !a.is_over).map(Asked::until).min() else {
            break;
        };
        let patience = until.min(end).saturating_duration_since(Instant::now());
        match events.recv_timeout(patience) {
            Ok(Event::Gave(inquiry, check, reading)) => {
                if let Some(asked) = asked.get_mut(inquiry).filter(|a| !a.is_over) {
                    asked.keep(check, reading);
                }
            }
            Ok(Event::Ended(inquiry)) => {
                if let Some(asked) = asked.get_mut(inquiry) {
                    asked.is_over = true;
                }
            }
            Ok(Event::Stopped) => break,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                let now = Instant::now();
                for asked in asked.iter_mut().filter(|a| !a.is_over && a.until() <= now) {
                    asked.is_over = true;
                    asked.stop.request(Reason::Deadline);
                }
                if now >= end {
                    break;
                }
            }
        }
    }
    // Who was interrupted, or never came to ask, knows nothing, not even where failing is critical.
    let interrupted = stop.reason().is_some();
    let why = if interrupted {
        "interrupted before it was answered".to_owned()
    } else {
        format!("no answer within {}, which was the time for all checks", seconds(limit))
    };
    for asked in asked.iter().filter(|a| !a.is_over) {
        asked.stop.request(Reason::Deadline);
    }
    let mut answers: Vec<Answer> =
        asked.into_iter().flat_map(|asked| answers(asked, &why, interrupted)).collect();
    for inquiry in waiting {
        let unknown = |check| answer(check, None, Outcome::Unknown, &why);
        answers.extend(inquiry.checks.iter().map(unknown));
    }
    answers
}

/// Starts a thread that asks.
fn begin(inquiry: Arc<Inquiry>, number: usize, sender: &Sender<Event>) -> Asked {
    let stop = Stop::new();
    let found = inquiry.checks.iter().map(|_| None).collect();
    let mut asked = Asked {
        inquiry: Arc::clone(&inquiry),
        stop: stop.clone(),
        began: Instant::now(),
        found,
        is_over: false,
    };
    let sender = sender.clone();
    let work = move || {
        ask(&inquiry, &stop, &|check, reading| {
            sender.send(Event::Gave(number, check, reading)).ok();
        });
        sender.send(Event::Ended(number)).ok();
    };
    if let Err(error) = std::thread::Builder::new().name("check".to_owned()).spawn(work) {
        asked.is_over = true;
        for check in 0..asked.found.len() {
            asked.keep(
                check,
                Reading::new(Outcome::Unknown, format!("not asked: no thread: {error}")),
            );
        }
    }
    asked
}

/// Asks, and asks again what was bad, as often as that is wanted.
fn ask(inquiry: &Inquiry, stop: &Stop, give: &dyn Fn(usize, Reading)) {
    let mut checks = inquiry.checks.clone();
    for attempt in 1.. {
        let bad = std::cell::RefCell::new(checks.clone());
        let take = |check: &Check, found: anyhow::Result<Reading>| {
            let reading = found.unwrap_or_else(|error| check.failed(&error));
            let again = reading.outcome != Outcome::Ok && check.retries >= attempt;
            bad.borrow_mut().retain(|other| other.name != check.name || again);
            if let Some(number) = inquiry.checks.iter().position(|other| other.name == check.name) {
                give(number, reading);
            }
        };
        let given = std::cell::RefCell::new(Vec::new());
        let note = |check: &Check, found: anyhow::Result<Reading>| {
            given.borrow_mut().push(check.name.clone());
            take(check, found);
        };
        let result = catch_unwind(AssertUnwindSafe(|| (inquiry.ask)(&checks, stop, &note)));
        let error = match result {
            Ok(Ok(())) => anyhow::anyhow!("it was not answered"),
            Ok(Err(error)) => error,
            Err(_) => anyhow::anyhow!("the check itself broke: please report this"),
        };
        for check in checks.iter().filter(|check| !given.borrow().contains(&check.name)) {
            take(check, Ok(check.failed(&error)));
        }
        checks = bad.into_inner();
        if checks.is_empty() || stop.sleep(PAUSE).is_err() {
            return;
        }
    }
}

/// Turns what was found into answers; `late` says why there is none, where it was not the inquiry's own time that was over.
fn answers(asked: Asked, late: &str, interrupted: bool) -> Vec<Answer> {
    let own = format!("no answer in {}", seconds(asked.inquiry.timeout));
    let why = if asked.is_over { &own } else { late };
    let silent = |check: &Check| {
        if interrupted && !asked.is_over { Outcome::Unknown } else { check.kind.failing }
    };
    let checks = asked.inquiry.checks.iter();
    checks.zip(asked.found).map(|(check, found)| answer(check, found, silent(check), why)).collect()
}

/// Makes the answer of a check: what was found, or that it is so because nothing was.
fn answer(check: &Check, found: Option<(Reading, f64)>, silent: Outcome, why: &str) -> Answer {
    let timeout = check.timeout.as_secs_f64();
    let (reading, seconds) = found.unwrap_or_else(|| (Reading::new(silent, why), timeout));
    let reading = printable(reading);
    Answer { check: check.clone(), found: reading.outcome, reading, seconds }
}

/// Makes text from elsewhere fit to be shown: one line, not too long, without secrets.
fn printable(reading: Reading) -> Reading {
    let line = |text: &str| {
        let text = redact(text).replace(char::is_control, " ");
        let cut = text.char_indices().nth(LONGEST_MESSAGE).map(|(at, _)| at);
        cut.map_or(text.clone(), |at| format!("{}…", &text[..at]))
    };
    let details = reading.details.iter().take(MOST_DETAILS).map(|text| line(text)).collect();
    Reading { message: line(&reading.message), details, ..reading }
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CheckSettings;
    use crate::health::kind;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn check(name: &str, milliseconds: u64) -> Check {
        let settings = CheckSettings {
            timeout: Some(Duration::from_millis(milliseconds)),
            ..CheckSettings::default()
        };
        Check::new(kind::find("clock-skew").unwrap(), name, &settings)
    }

    fn outcomes(answers: &[Answer]) -> Vec<(&str, Outcome, &str)> {
        let lines = answers.iter().map(|answer| {
            let reading = &answer.reading;
            (answer.check.name.as_str(), reading.outcome, reading.message.as_str())
        });
        lines.collect()
    }

    #[test]
    fn nothing_that_one_does_keeps_the_others_from_being_answered() {
        let (_keep, forever) = channel::<()>();
        let forever = std::sync::Mutex::new(forever);
        let inquiries = vec![
            Inquiry::single(check("hangs", 50), move |_, _| {
                crate::sync::lock(&forever).recv().ok();
                Ok(Reading::new(Outcome::Ok, "never"))
            }),
            Inquiry::single(check("breaks", 5000), |_, _| panic!("on purpose")),
            Inquiry::single(check("fails", 5000), |_, _| {
                Err(anyhow::anyhow!("the url is\nhttp://a:b@c").context("failed to look"))
            }),
            Inquiry::new(
                vec![check("first", 5000), check("forgotten", 5000)],
                |checks, _, give| {
                    give(&checks[0], Ok(Reading::new(Outcome::Ok, "well")));
                    Ok(())
                },
            ),
        ];
        let began = Instant::now();
        let answers = run(inquiries, Duration::from_secs(10), &Stop::new());
        assert!(began.elapsed() < Duration::from_secs(5));
        let expected = [
            ("clock-skew/hangs", Outcome::Unknown, "no answer in 0.05 s"),
            ("clock-skew/breaks", Outcome::Unknown, "the check itself broke: please report this"),
            ("clock-skew/fails", Outcome::Unknown, "failed to look: the url is http://a:***@c"),
            ("clock-skew/first", Outcome::Ok, "well"),
            ("clock-skew/forgotten", Outcome::Unknown, "it was not answered"),
        ];
        assert_eq!(outcomes(&answers), expected);
    }

    #[test]
    fn all_together_take_no_longer_than_they_may() {
        let wait = |_: &Check, stop: &Stop| {
            stop.sleep(Duration::from_secs(60))?;
            Ok(Reading::new(Outcome::Ok, "late"))
        };
        let many = |n: usize| (0..n).map(|n| Inquiry::single(check(&n.to_string(), 60_000), wait));
        let answers = run(many(AT_ONCE + 6).collect(), Duration::from_millis(50), &Stop::new());
        assert_eq!(answers.len(), AT_ONCE + 6);
        let late = "no answer within 0.05 s, which was the time for all checks";
        assert!(outcomes(&answers).iter().all(|a| a.1 == Outcome::Unknown && a.2 == late));
        let stop = Stop::new();
        stop.request(Reason::Signal(2));
        let answers = run(many(1).collect(), Duration::from_secs(60), &stop);
        assert_eq!(answers[0].reading.message, "interrupted before it was answered");
        let connect = Check { kind: kind::find("connect").unwrap(), ..check("a", 60_000) };
        let answers = run(vec![Inquiry::single(connect, wait)], Duration::from_secs(60), &stop);
        assert_eq!(answers[0].reading.outcome, Outcome::Unknown);
    }

    #[test]
    fn what_is_bad_is_asked_again_and_what_is_well_is_not() {
        let asked = Arc::new([const { AtomicU32::new(0) }; 2]);
        let counts = Arc::clone(&asked);
        let again = Check { retries: 2, ..check("again", 5000) };
        let inquiry = Inquiry::new(vec![again, check("well", 5000)], move |checks, _, give| {
            for check in checks {
                let is_first = check.name == "clock-skew/again";
                let times = counts[usize::from(!is_first)].fetch_add(1, Ordering::SeqCst);
                let outcome = if is_first && times < 2 { Outcome::Critical } else { Outcome::Ok };
                give(check, Ok(Reading::new(outcome, format!("attempt {times}"))));
            }
            Ok(())
        });
        let answers = run(vec![inquiry], Duration::from_secs(10), &Stop::new());
        assert_eq!(outcomes(&answers)[0], ("clock-skew/again", Outcome::Ok, "attempt 2"));
        assert_eq!(asked[1].load(Ordering::SeqCst), 1);
    }
}
