//! What is asked of a PostgreSQL server: one session for each database, a statement for each check, one after the other.
//!
//! It reads only and waits for nobody: a statement that would wait behind an ALTER TABLE, or that takes too long, is given up
//! and its check is unknown. Membership in `pg_monitor` is enough for all but the sequences. The statements stand beside the
//! reading of their answers: `sessions.rs`, `age.rs`, `replication.rs`, `objects.rs`, `server.rs`.

use std::time::{Duration, Instant};

use postgres::error::SqlState;

use super::{Check, Inquiry, Outcome, Reading, kind};
use crate::clock::Moment;
use crate::config::Health;
use crate::db::{self, Target};
use crate::stop::Stop;

mod age;
pub(crate) mod certificate;
pub(crate) mod evidence;
pub(crate) mod literals;
mod objects;
mod replication;
mod server;
mod session;
mod sessions;

pub(crate) use age::HORIZON;
pub(crate) use objects::every_sequence;
pub(crate) use session::Row;
use session::{Server, Session};

/// How long a statement may wait for a lock.
const LOCK_TIMEOUT: Duration = Duration::from_millis(200);
const APPLICATION: &str = "opsctl health-check";
const CONNECT: &str = "connect";
/// What the kinds need that look at other people's sessions, or at the server's files.
const MONITOR: &str = "pg_monitor";

/// What is asked for one kind of check.
struct Question {
    kind: &'static str,
    /// Asks for it, as the version and the role allow; nothing where what is known of the server is enough.
    ask: fn(&mut Session, &Server) -> Result<Vec<Row>, db::Error>,
    /// What the rows mean.
    read: fn(&Check, &Server, &[Row]) -> anyhow::Result<Reading>,
}

fn questions() -> impl Iterator<Item = &'static Question> {
    [
        sessions::QUESTIONS,
        age::QUESTIONS,
        replication::QUESTIONS,
        objects::QUESTIONS,
        server::QUESTIONS,
    ]
    .into_iter()
    .flatten()
}

/// Returns the inquiry that answers all checks of a database.
pub(crate) fn inquiry(target: &Target, database: &str, health: &Health, now: Moment) -> Inquiry {
    let names = std::iter::once(CONNECT).chain(questions().map(|question| question.kind));
    let checks = names.filter_map(kind::find);
    let checks: Vec<Check> =
        checks.map(|kind| Check::of_database(kind, database, &health.of_kind(kind))).collect();
    let limit = |is_connect: bool| {
        let those = checks.iter().filter(|check| (check.kind.name == CONNECT) == is_connect);
        those.map(|check| check.timeout).max().unwrap_or_default()
    };
    let (connecting, asking) = (limit(true), limit(false));
    let target = target.impatient(connecting);
    let inquiry = Inquiry::new(checks, move |checks, stop, give| {
        ask(&target, now, asking, checks, stop, give);
        Ok(())
    });
    Inquiry { timeout: connecting + asking, ..inquiry }
}

fn ask(
    target: &Target,
    now: Moment,
    limit: Duration,
    checks: &[Check],
    stop: &Stop,
    give: &super::check::Give<'_>,
) {
    let connect = checks.iter().find(|check| check.kind.name == CONNECT);
    let began = Instant::now();
    let opened = session::open(target, limit, stop);
    let (mut session, server) = match opened {
        Ok((session, server)) => (session, Server { now, ..server }),
        Err(error) => {
            let text = super::check::one_line(&error);
            for check in checks {
                let reading = match connect {
                    Some(connect) if connect.name != check.name => Ok(Reading {
                        because_of: Some(connect.name.clone()),
                        ..Reading::new(Outcome::Unknown, "not asked: there is no connection")
                    }),
                    _ => Err(anyhow::anyhow!("{text}")),
                };
                give(check, reading);
            }
            return;
        }
    };
    if let Some(check) = connect {
        let seconds = began.elapsed().as_secs_f64();
        let role = if server.is_standby { "a standby" } else { "a primary" };
        let message = format!(
            "PostgreSQL {}, {role}, answered after {:.0} ms",
            server.version,
            seconds * 1000.0
        );
        give(check, Ok(check.judged(seconds, message)));
    }
    for question in questions() {
        let Some(check) = checks.iter().find(|check| check.kind.name == question.kind) else {
            continue;
        };
        if stop.reason().is_some() {
            return;
        }
        if check.kind.privilege == MONITOR && !server.may_monitor {
            give(check, Ok(needs_monitor(&server)));
            continue;
        }
        let rows = (question.ask)(session.about(question.kind, check.timeout), &server);
        let reading = match rows {
            Ok(rows) => (question.read)(check, &server, &rows),
            // What `pg_monitor` may, and `pg_read_all_stats` alone may not.
            Err(error) if error.sqlstate() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                Ok(needs_monitor(&server))
            }
            Err(error) => Err(error.into()),
        };
        give(check, reading);
    }
}

/// Says that the role may not see what is asked for.
fn needs_monitor(server: &Server) -> Reading {
    let role = &server.role;
    let grant = db::quote_identifier(role);
    let message = format!("role `{role}` may not see it: needs GRANT {MONITOR} TO {grant}");
    Reading::new(Outcome::Unknown, message)
}

/// Writes a span of time as people say it.
fn span(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "it is made to fit")]
    let milliseconds = (seconds.clamp(0.0, 1e12) * 1000.0) as i64;
    if milliseconds < 10_000 {
        return format!("{:.1} s", seconds.max(0.0));
    }
    crate::text::duration(chrono::TimeDelta::milliseconds(milliseconds))
}

/// Writes a number of bytes as people say it.
fn size(bytes: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is made to fit"
    )]
    let bytes = bytes.clamp(0.0, 9e18) as u64;
    crate::text::bytes(bytes)
}

/// Writes a whole number with its thousands apart.
fn count(number: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is made to fit"
    )]
    let number = number.clamp(0.0, 9e18) as u64;
    crate::text::count(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_for_a_database_has_its_question() {
        let asked: Vec<_> =
            questions().map(|q| q.kind).chain([CONNECT, "server-certificate"]).collect();
        let of_servers = kind::all().filter(|kind| kind.tags.contains(&"postgres"));
        let kinds: Vec<_> = of_servers.map(|kind| kind.name).collect();
        for name in &kinds {
            assert!(asked.contains(name), "nobody asks for {name}");
        }
        assert_eq!(asked.len(), kinds.len());
    }
}
