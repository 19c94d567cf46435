//! One line of a log: when, how bad, what, and which answer to whom. Pure.
//!
//! Known are lines that begin with a time stamp (`time.rs`), access logs in the common and the combined format, and JSON, also
//! of PostgreSQL's `jsonlog` and Docker's files. A line without a stamp belongs to the one before it.

use std::borrow::Cow;

use serde_json::Value;

use super::time::{self, Clock};
use crate::clock::Moment;

/// Longer lines are cut before they are read.
const LONGEST: usize = 64 * 1024;
/// Among so many words behind the stamp the level is looked for.
const LEVEL_WORDS: usize = 8;

/// How bad it is, by what its writer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// An error, or worse.
    Error,
    Warning,
    /// Anything else, or nothing is said.
    Other,
}

/// What is understood of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// None if it has no stamp.
    pub(crate) at: Option<Moment>,
    pub(crate) level: Level,
    pub(crate) message: Cow<'a, str>,
    /// The status of an answer, in an access log.
    pub(crate) status: Option<u16>,
}

/// Understands a line without its line feed, as far as that is possible.
pub(crate) fn parse<'a>(line: &'a str, clock: &Clock) -> Line<'a> {
    let line = cut(line, LONGEST).trim_end();
    if line.starts_with('{')
        && let Some(parsed) = json(line, clock)
    {
        return parsed;
    }
    text(line, clock)
}

/// Returns the first bytes of a text, whole characters only.
pub(super) fn cut(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// `host ident user [25/Nov/2026:19:00:00 +0000] "GET / HTTP/1.1" 200 …`
fn access(line: &str) -> Option<(Moment, u16)> {
    let (_, rest) = line.split_once('[')?;
    let (stamp, rest) = rest.split_once("] \"")?;
    let at = time::access(stamp)?;
    // Quotes in the request are written `\"`, or `\x22`.
    let mut escaped = false;
    let end = rest.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })?;
    status(rest[end + 1..].trim_start().split(' ').next()?).map(|status| (at, status))
}

fn status(text: &str) -> Option<u16> {
    text.parse().ok().filter(|status| (100..600).contains(status))
}

fn json<'a>(line: &'a str, clock: &Clock) -> Option<Line<'a>> {
    let fields: serde_json::Map<String, Value> = serde_json::from_str(line).ok()?;
    let first = |names: &[&str]| names.iter().find_map(|name| fields.get(*name));
    let at =
        first(&["time", "timestamp", "@timestamp", "ts", "time_iso8601", "datetime", "asctime"]);
    let at = at.and_then(|at| match at {
        Value::String(text) => {
            time::alone(text, clock).or_else(|| text.parse().ok().and_then(time::number))
        }
        Value::Number(number) => number.as_f64().and_then(time::number),
        _ => None,
    });
    // Docker's own files have the program's line in a field.
    if let (Some(Value::String(inner)), Some(at)) = (fields.get("log"), at) {
        let inner = inner.trim_end();
        let nested = if inner.starts_with('{') { json(inner, clock) } else { None };
        let line = nested.unwrap_or_else(|| text(inner, clock));
        let message = Cow::Owned(line.message.into_owned());
        return Some(Line { at: Some(at), level: line.level, message, status: line.status });
    }
    let level = first(&["level", "severity", "levelname", "lvl", "loglevel", "error_severity"]);
    let level = level.map_or(Level::Other, |level| match level {
        Value::String(text) => level_of(text).unwrap_or(Level::Other),
        // pino and bunyan: 40 is a warning.
        Value::Number(number) => match number.as_u64() {
            Some(50..) => Level::Error,
            Some(40..50) => Level::Warning,
            _ => Level::Other,
        },
        _ => Level::Other,
    });
    let message = first(&["message", "msg", "event", "error"]).and_then(Value::as_str);
    let answered = first(&["status", "status_code", "statusCode", "response_status"]);
    let answered = answered.and_then(|answered| match answered {
        Value::String(text) => status(text),
        Value::Number(number) => status(&number.to_string()),
        _ => None,
    });
    let message = Cow::Owned(message.unwrap_or_default().to_owned());
    Some(Line { at, level, message, status: answered })
}

/// Understands what is not JSON.
fn text<'a>(text: &'a str, clock: &Clock) -> Line<'a> {
    if let Some((at, status)) = access(text) {
        let message = Cow::Borrowed(text);
        return Line { at: Some(at), level: Level::Other, message, status: Some(status) };
    }
    let (at, rest) = match time::leading(text, clock) {
        Some((at, rest)) => (Some(at), rest.trim_start_matches([']', ':', ' ', '-'])),
        None => (None, text),
    };
    Line { at, level: level(rest), message: Cow::Borrowed(rest), status: None }
}

/// Finds the level among the first words: `ERROR`, `error:`, `[error]`, `level=error`.
fn level(text: &str) -> Level {
    for word in text.split_whitespace().take(LEVEL_WORDS) {
        let value = ["level=", "lvl=", "severity="].iter().find_map(|key| word.strip_prefix(key));
        if let Some(found) = value.and_then(|value| level_of(value.trim_matches('"'))) {
            return found;
        }
        let enclosed = word.starts_with(['[', '<']) || word.ends_with([':', ']']);
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphabetic());
        // Apache has `[core:error]`, Celery `ERROR/MainProcess]`.
        let bare =
            if word.starts_with('[') { bare.rsplit(':').next().unwrap_or(bare) } else { bare };
        let bare = bare.split('/').next().unwrap_or(bare);
        let loud = bare.bytes().all(|byte| byte.is_ascii_uppercase());
        if (enclosed || loud)
            && let Some(found) = level_of(bare)
        {
            return found;
        }
    }
    Level::Other
}

/// Knows the words of syslog, PostgreSQL, Python, Java, Go, nginx and Apache.
fn level_of(word: &str) -> Option<Level> {
    const ERRORS: [&str; 10] = [
        "error",
        "err",
        "fatal",
        "panic",
        "critical",
        "crit",
        "alert",
        "emerg",
        "emergency",
        "severe",
    ];
    const WARNINGS: [&str; 2] = ["warning", "warn"];
    const OTHERS: [&str; 11] = [
        "log",
        "info",
        "debug",
        "notice",
        "trace",
        "statement",
        "detail",
        "hint",
        "context",
        "query",
        "location",
    ];
    let is = |known: &[&str]| known.iter().any(|known| known.eq_ignore_ascii_case(word));
    if is(&ERRORS) {
        Some(Level::Error)
    } else if is(&WARNINGS) {
        Some(Level::Warning)
    } else {
        is(&OTHERS).then_some(Level::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::time::tests::clock;
    use proptest::prelude::*;

    fn line(text: &str) -> Line<'_> {
        parse(text, &clock())
    }

    #[test]
    fn levels_are_found_where_they_are_said() {
        use Level::{Error, Other, Warning};
        let check = |text: &str, expected: Level, message: &str| {
            let found = line(text);
            assert!(found.at.is_some(), "{text}");
            assert_eq!((found.level, found.message.as_ref()), (expected, message), "{text}");
        };
        check(
            "2026-11-25 19:00:00.123 UTC [17] a@b ERROR:  no such table",
            Error,
            "[17] a@b ERROR:  no such table",
        );
        check(
            "2026-11-25 19:00:00.123 UTC [17] STATEMENT:  SELECT ERROR",
            Other,
            "[17] STATEMENT:  SELECT ERROR",
        );
        check(
            "2026/11/25 20:00:00 [crit] 7#7: *1 open() failed",
            Error,
            "[crit] 7#7: *1 open() failed",
        );
        check("[Wed Nov 25 20:00:00 2026] [core:warn] [pid 1] x", Warning, "[core:warn] [pid 1] x");
        check(
            "[2026-11-25 20:00:00,123: ERROR/MainProcess] task failed",
            Error,
            "ERROR/MainProcess] task failed",
        );
        check(
            "2026-11-25T19:00:00Z host app[1]: level=error msg=x",
            Error,
            "host app[1]: level=error msg=x",
        );
        check("Nov 25 20:00:00 host kernel: error: disk", Error, "host kernel: error: disk");
        check(
            "Nov 25 20:00:00 host app: there was no error here",
            Other,
            "host app: there was no error here",
        );
        assert_eq!(line("  File \"x.py\", line 1").at, None);
    }

    #[test]
    fn access_logs_have_a_status() {
        let nginx = r#"::1 - - [25/Nov/2026:19:00:00 +0000] "GET /\"a] \" HTTP/1.1" 503 197 "-" "curl/7.88""#;
        let found = line(nginx);
        assert_eq!(found.status, Some(503));
        assert_eq!(found.at, Some("2026-11-25T19:00:00Z".parse().unwrap()));
        // A client may send nothing, or nonsense.
        let odd = r#"1.2.3.4 - u [25/Nov/2026:19:00:00 +0000] "" 400 0 "-" "-""#;
        assert_eq!(line(odd).status, Some(400));
        assert_eq!(line(r#"1 [25/Nov/2026:19:00:00 +0000] "GET / 200"#).status, None);
    }

    #[test]
    fn json_is_read_by_the_names_that_programs_use() {
        let check = |text: &str, level: Level, message: &str, status: Option<u16>| {
            let found = line(text);
            assert_eq!(found.at, Some("2026-11-25T19:00:00Z".parse().unwrap()), "{text}");
            assert_eq!(
                (found.level, found.message.as_ref(), found.status),
                (level, message, status)
            );
        };
        check(
            r#"{"time":"2026-11-25T19:00:00Z","level":"error","msg":"x"}"#,
            Level::Error,
            "x",
            None,
        );
        check(
            r#"{"ts":1795633200.5,"severity":"WARN","message":"y"}"#.replace(".5", "").as_str(),
            Level::Warning,
            "y",
            None,
        );
        check(r#"{"time":1795633200000,"level":50,"msg":"pino"}"#, Level::Error, "pino", None);
        check(
            r#"{"time_iso8601":"2026-11-25T19:00:00+00:00","status":"404"}"#,
            Level::Other,
            "",
            Some(404),
        );
        check(
            r#"{"timestamp":"2026-11-25 19:00:00.000 UTC","error_severity":"FATAL","message":"z"}"#,
            Level::Error,
            "z",
            None,
        );
        check(
            r#"{"log":"2026-11-25 18:00:00 ERROR x\n","stream":"stderr","time":"2026-11-25T19:00:00.0Z"}"#,
            Level::Error,
            "ERROR x",
            None,
        );
        assert_eq!(line(r#"{"a": "#).at, None);
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read(
            stamp in prop::sample::select(vec!["2026-11-25T19:00:00.1+01:00", "Nov 25 19:00:00", "2026/11/25 19:00:00", "h - - [25/Nov/2026:19:00:00 +0000] \"", "{\"time\":", ""]),
            cut in 0_usize..60, rest in "\\PC{0,80}",
        ) {
            // A stamp that was cut, or goes on strangely.
            let text = format!("{}{rest}", super::cut(stamp, cut));
            let found = line(&text);
            prop_assert!(found.message.len() <= text.len());
        }
    }
}
