//! The same metrics, sent to a Prometheus Pushgateway: for hosts where nobody reads files, such as containers.
//!
//! Its rules are followed (`README.md` of `prometheus/pushgateway`): a group is a job with its labels in the path, base64 where
//! a value may hold a slash; no timestamps. POST replaces only metrics of the same name, where PUT would replace the group: so
//! the time of the last success, and the figures with it, outlive a failure.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use bytes::Bytes;

use super::{Outcome, render};
use crate::http::{self, Method, Request};
use crate::secret::{Secret, redact};
use crate::stop::Stop;

/// How long one group may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long all of them may take.
const IN_ALL: Duration = Duration::from_secs(10);
/// The same for a run whose time for cleaning up is over.
const HURRIED: Duration = Duration::from_secs(3);
/// How much of the server's complaint is shown.
const MESSAGE_LIMIT: usize = 200;

/// Why something was not taken; what was to follow was not tried.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Http(#[from] http::Error),
    #[error("status {0}: {1}")]
    Refused(u16, String),
}

/// Sends what became of each database.
pub(super) fn push(base: &Secret, outcomes: &[Outcome<'_>], abort: &Stop) -> Result<(), Error> {
    let (stop, in_all) = match abort.reason() {
        None => (abort.clone(), IN_ALL),
        Some(_) => (Stop::new(), HURRIED),
    };
    let until = Instant::now() + in_all;
    for outcome in outcomes {
        let answer = http::send(&Request {
            method: Method::POST,
            url: &group(base, outcome),
            headers: &[("Content-Type", "text/plain; version=0.0.4; charset=utf-8")],
            body: Bytes::from(render(outcome, None)),
            timeout: PATIENCE.min(until.saturating_duration_since(Instant::now())),
            stop: &stop,
        })?;
        if !(200..300).contains(&answer.status) {
            let body = redact(String::from_utf8_lossy(&answer.body).trim());
            let message = body.chars().filter(|c| !c.is_control()).take(MESSAGE_LIMIT).collect();
            return Err(Error::Refused(answer.status, message));
        }
    }
    Ok(())
}

/// Returns the URL of the group of a command and a database.
fn group(base: &Secret, outcome: &Outcome<'_>) -> Secret {
    let (command, database) = (BASE64.encode(outcome.command), BASE64.encode(outcome.database));
    let base = base.reveal().trim_end_matches('/');
    let labels = format!("command@base64/{command}/database@base64/{database}");
    Secret::new(format!("{base}/metrics/job/opsctl/{labels}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_group_is_a_command_and_a_database() {
        let figures = BTreeMap::new();
        let ended_at = "2026-11-21T02:15:00Z".parse().unwrap();
        let (command, database) = ("backup prune", "a/b?");
        let outcome =
            Outcome { command, database, exit: 0, ended_at, seconds: 1.5, figures: &figures };
        let group = group(&Secret::new("http://u:p@h:9091/sub/"), &outcome);
        let labels = "command@base64/YmFja3VwIHBydW5l/database@base64/YS9iPw";
        let expected = format!("http://u:p@h:9091/sub/metrics/job/opsctl/{labels}");
        assert_eq!(group.reveal(), expected);
    }
}
