//! What is said to a monitor, and what its answers mean: the protocol of healthchecks.io, which others speak, too.
//!
//! `<url>/start` begins a run and `<url>/<exit status>` ends it; `rid` pairs the two. `<url>/log` is kept and changes nothing.
//! A check that heard of a beginning and of no end within its grace time is down. With the ping key and a name in place of a
//! check's own URL, `create=1` makes the check. An answer's `Ping-Body-Limit` says how much is kept, from the start of a body.
//! Nothing is sent here.

use sha2::{Digest as _, Sha256};

use crate::config;
use crate::http::{self, Response};
use crate::id::RunId;
use crate::secret::{Secret, redact};

/// How much of a body a server keeps that does not say so.
pub(super) const BODY_LIMIT: usize = 10_000;
/// More than this is not sent, whatever the server would keep.
const MOST: usize = 100_000;

/// Whom to tell of a run.
#[derive(Clone, Debug)]
pub(super) struct Check {
    url: Secret,
    /// May it be made by the first ping?
    create: bool,
    pub(super) with_report: bool,
}

/// What to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Start,
    /// The status the run ended with.
    End(u8),
    /// A run that did nothing, because another is at work, leaves the word to that one.
    Log,
}

/// Why a ping was of no use.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) message: String,
    /// Can the same ping succeed a moment later?
    pub(super) is_transient: bool,
}

/// Returns a command's name as names of checks are written, such as `verify-backup-restore-test`.
fn name(command: &str) -> String {
    let words = command.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

impl Check {
    /// Finds the check of a command, which is named as the history has it; none if nobody is to be told of it.
    pub(super) fn of(command: &str, settings: &config::Ping) -> Option<Check> {
        const PLACE: &str = "{command}";
        let name = name(command);
        // What only looks at something is no work that a monitor waits for.
        let name = config::PINGED.iter().find(|known| **known == name)?;
        let template = settings.commands.get(name).or(settings.url.as_ref())?.reveal();
        Some(Check {
            url: Secret::new(template.replace(PLACE, name)),
            create: template.contains(PLACE),
            with_report: settings.with_report,
        })
    }

    /// Returns the URL that tells something of a run.
    pub(super) fn url(&self, run: &RunId, signal: Signal) -> Secret {
        let (path, query) = self.url.reveal().split_once('?').unwrap_or((self.url.reveal(), ""));
        let path = path.trim_end_matches('/');
        let said = match signal {
            Signal::Start => "start".to_owned(),
            Signal::End(status) => status.to_string(),
            Signal::Log => "log".to_owned(),
        };
        let query = if query.is_empty() { String::new() } else { format!("{query}&") };
        let create = if self.create { "&create=1" } else { "" };
        Secret::new(format!("{path}/{said}?{query}rid={}{create}", uuid(run)))
    }
}

/// Makes a UUID of a run's id: version 8, whose bits mean what their maker says.
fn uuid(run: &RunId) -> String {
    let digest = Sha256::digest(run.as_str());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    let number = u128::from_be_bytes(bytes);
    let number = number & !(0xf << 76) & !(0x3 << 62) | 0x8 << 76 | 0x2 << 62;
    let hex = format!("{number:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Returns the end of what a run said, as much of it as the server keeps, without what looks like a secret.
pub(super) fn body(said: &str, limit: usize) -> String {
    let said = redact(said);
    let limit = limit.min(MOST);
    if said.len() <= limit {
        return said;
    }
    // The notice is as long as it can be, so that it needs not be known before.
    let notice = |left_out: usize| format!("[{left_out} bytes before this were left out]\n");
    let room = limit.saturating_sub(notice(said.len()).len());
    let earliest = said.len() - room;
    let start = (earliest..=said.len()).find(|at| said.is_char_boundary(*at)).unwrap_or(said.len());
    let text = notice(start) + &said[start..];
    if text.len() <= limit { text } else { String::new() }
}

/// Says what an answer means; one that is good says how much of a body the server keeps.
pub(super) fn judge(answer: Result<Response, http::Error>) -> Result<usize, Refusal> {
    let answer = answer.map_err(|error| Refusal {
        message: error.to_string(),
        is_transient: error.is_transient(),
    })?;
    let body = String::from_utf8_lossy(&answer.body);
    let meaning = match answer.status {
        // hc-ping.com answers 200 to whoever guesses.
        200..300 if body.starts_with("OK (not found)") => "there is no such check",
        200..300 if body.starts_with("OK (rate limited)") => "too many pings of this check",
        200..300 => {
            let limit = answer.header("ping-body-limit").and_then(|limit| limit.parse().ok());
            return Ok(limit.unwrap_or(BODY_LIMIT));
        }
        300..400 => "it is somewhere else: put the URL it leads to into the configuration",
        404 => "there is no such check, or no project with this ping key",
        409 => {
            "several checks have this name: give all but one another, or put the UUID of one into [ping.commands]"
        }
        429 => "too many pings of this check",
        500.. => "the server has trouble of its own",
        _ => "this is not the URL of a check",
    };
    let is_transient = matches!(answer.status, 429 | 500..);
    Err(Refusal { message: format!("status {}: {meaning}", answer.status), is_transient })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(url: Option<&str>, own: Option<&str>) -> config::Ping {
        let commands = own.map(|url| ("verify-backup", Secret::new(url)));
        let commands = commands.into_iter().collect();
        config::Ping { url: url.map(Secret::new), commands, with_report: true }
    }

    #[test]
    fn each_command_has_its_check() {
        let run = RunId::parse("20261121T021500Z-4f3a9c").unwrap();
        let url = |settings: &config::Ping, command, signal| {
            let check = Check::of(command, settings)?;
            Some(check.url(&run, signal).reveal().replace(&uuid(&run), "UUID"))
        };
        let check = |settings, command, signal, expected: &str| {
            assert_eq!(url(settings, command, signal).as_deref(), Some(expected));
        };
        let template = settings(Some("https://h/key/{command}/?a=b"), Some("https://h/uuid"));
        let command = "verify-backup --restore-test";
        let expected = "https://h/key/verify-backup-restore-test/start?a=b&rid=UUID&create=1";
        check(&template, command, Signal::Start, expected);
        let failed = Signal::End(12);
        check(&template, "backup", failed, "https://h/key/backup/12?a=b&rid=UUID&create=1");
        check(&template, "verify-backup", Signal::Log, "https://h/uuid/log?rid=UUID");
        let done = Signal::End(0);
        check(&settings(Some("https://h/u"), None), "backup", done, "https://h/u/0?rid=UUID");
        assert_eq!(url(&settings(None, Some("https://h/u")), "backup", done), None);
        assert_eq!(url(&template, "backup list", done), None);
    }

    #[test]
    fn a_run_has_one_uuid_of_its_own() {
        let of = |id| uuid(&RunId::parse(id).unwrap());
        let (one, other) = (of("20261121T021500Z-4f3a9c"), of("20261121T021500Z-4f3a9d"));
        assert_eq!(one, of("20261121T021500Z-4f3a9c"));
        assert_ne!(one, other);
        assert_eq!((one.len(), &one[14..15]), (36, "8"), "{one}");
        assert!("89ab".contains(&one[19..20]), "{one}");
    }

    #[test]
    fn answers_are_understood() {
        let judged = |status, body: &str| judge(Ok(Response::made_up(status, body)));
        assert_eq!(judged(200, "OK"), Ok(BODY_LIMIT));
        assert_eq!(judged(201, "Created"), Ok(BODY_LIMIT));
        for (status, body, is_transient) in [
            (200, "OK (not found)", false),
            (301, "", false),
            (404, "not found", false),
            (409, "ambiguous slug", false),
            (429, "", true),
            (503, "", true),
        ] {
            assert_eq!(judged(status, body).unwrap_err().is_transient, is_transient, "{status}");
        }
        assert!(judged(409, "").unwrap_err().message.contains("several checks"));
    }

    proptest! {
        #[test]
        fn a_body_is_the_end_of_what_was_said_and_fits(said in "[a-zä€\n]{0,300}", limit in 0_usize..400) {
            let sent = body(&said, limit);
            prop_assert!(sent.len() <= limit);
            match sent.split_once(" bytes before this were left out]\n") {
                None if said.len() <= limit => prop_assert_eq!(sent, said),
                None => prop_assert!(sent.is_empty() && limit < 50, "{}", sent),
                Some((left_out, rest)) => {
                    prop_assert!(said.len() > limit && said.ends_with(rest));
                    prop_assert_eq!(left_out[1..].parse::<usize>().unwrap(), said.len() - rest.len());
                }
            }
        }
    }
}
