//! Pings: a monitor is told that a run begins, and how it ended, so that it raises the alarm when it hears nothing.
//!
//! The first ping is sent beside the work, once the run has its locks: the beginning of a run that is then refused would
//! have the monitor wait for its end. Whatever becomes of a ping is a warning and never changes a result. What is said and
//! what answers mean is in `protocol.rs`.

use std::sync::{Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::config;
use crate::exit::Exit;
use crate::http::{self, Method, Request};
use crate::id::RunId;
use crate::secret::Secret;
use crate::stop::Stop;
use crate::sync::lock;

mod protocol;

use protocol::{BODY_LIMIT, Check, Refusal, Signal, body, judge};

/// How long one ping may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pauses before the end is told again.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
/// How long the end may take, with all that is repeated.
const IN_ALL: Duration = Duration::from_secs(30);
/// The same for a run whose time for cleaning up is over.
const HURRIED: Duration = Duration::from_secs(3);

/// The pings of a run.
pub(crate) struct Pings {
    /// As the history has it; none if nobody is to be told of it.
    command: Option<String>,
    run: RunId,
    abort: Stop,
    check: OnceLock<Option<Check>>,
    /// Returns how much of a body the server keeps.
    start: Mutex<Option<JoinHandle<usize>>>,
}

impl Pings {
    /// Knows nothing yet of whom to tell; `abort` ends every wait.
    pub(crate) fn new(command: Option<&str>, run: &RunId, abort: &Stop) -> Pings {
        Pings {
            command: command.map(str::to_owned),
            run: run.clone(),
            abort: abort.clone(),
            check: OnceLock::new(),
            start: Mutex::default(),
        }
    }

    /// Says whom to tell. Only the first call counts.
    pub(crate) fn configure(&self, settings: &config::Ping) {
        let check = self.command.as_ref().and_then(|command| Check::of(command, settings));
        self.check.get_or_init(|| check);
    }

    /// Tells that the work begins, and does not wait for it. Only the first call counts.
    pub(crate) fn start(&self) {
        let Some(Some(check)) = self.check.get() else { return };
        let (url, stop) = (check.url(&self.run, Signal::Start), self.abort.clone());
        lock(&self.start).get_or_insert_with(|| {
            std::thread::spawn(move || {
                send(&url, String::new(), PATIENCE, &stop).unwrap_or_else(|refusal| {
                    warn("the beginning", &refusal);
                    BODY_LIMIT
                })
            })
        });
    }

    /// Tells with which status the run ended, and what it said.
    pub(crate) fn end(&self, status: u8, said: &str) {
        let Some(Some(check)) = self.check.get() else { return };
        let until = Instant::now() + IN_ALL;
        let start = lock(&self.start).take();
        let is_refused = status == Exit::Locked.number() && start.is_none();
        let signal = if is_refused { Signal::Log } else { Signal::End(status) };
        // The end must not overtake the beginning, which takes no longer than PATIENCE.
        let limit = start.and_then(|start| start.join().ok()).unwrap_or(BODY_LIMIT);
        let said = if check.with_report { body(said, limit) } else { String::new() };
        let url = check.url(&self.run, signal);
        let told = match self.abort.reason() {
            None => self.repeat(&url, &said, until),
            Some(_) => send(&url, said, HURRIED, &Stop::new()),
        };
        if let Err(refusal) = told {
            warn("the end", &refusal);
        }
    }

    fn repeat(&self, url: &Secret, said: &str, until: Instant) -> Result<usize, Refusal> {
        let mut pauses = PAUSES.iter();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let told = send(url, said.to_owned(), PATIENCE.min(left), &self.abort);
            let Some(pause) = pauses.next() else { return told };
            let is_final = told.as_ref().map_or_else(|refusal| !refusal.is_transient, |_| true);
            let time_is_over = Instant::now() + *pause >= until;
            if is_final || time_is_over || self.abort.sleep(*pause).is_err() {
                return told;
            }
        }
    }
}

fn send(url: &Secret, said: String, timeout: Duration, stop: &Stop) -> Result<usize, Refusal> {
    let headers = &[("Content-Type", "text/plain; charset=utf-8")];
    let body = Bytes::from(said);
    judge(http::send(&Request { method: Method::POST, url, headers, body, timeout, stop }))
}

fn warn(what: &str, refusal: &Refusal) {
    tracing::warn!("the monitor was not told of {what} of this run: {}", refusal.message);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::receiver::Receiver;
    use crate::stop::Reason;

    #[test]
    fn a_run_without_time_to_clean_up_tells_its_end_once_and_soon() {
        let (receiver, abort) = (Receiver::start(), Stop::new());
        let run = RunId::new(crate::clock::now(), 1);
        let pings = Pings::new(Some("backup"), &run, &abort);
        let url = Some(Secret::new(receiver.url("uuid")));
        pings.configure(&config::Ping { url, with_report: true, ..config::Ping::default() });
        abort.request(Reason::Deadline);
        pings.end(14, "the deadline passed");
        let [told] = receiver.requests().try_into().unwrap();
        assert!(told.target.starts_with("/uuid/14?rid="), "{told:?}");
        receiver.hang();
        let begun = Instant::now();
        pings.end(14, "the deadline passed");
        assert!(begun.elapsed() < PATIENCE && receiver.requests().len() == 2);
    }
}
