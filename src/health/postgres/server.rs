//! The server itself: its version and its clock.

use super::session::Server;
use super::{Question, span};
use crate::health::{Check, Outcome, Reading};

pub(super) const QUESTIONS: &[Question] = &[
    Question {
        kind: "minor-version",
        ask: |_, _| Ok(Vec::new()),
        read: |check, server, _| Ok(minor_version(check, server)),
    },
    Question {
        kind: "clock-skew",
        ask: |_, _| Ok(Vec::new()),
        read: |check, server, _| Ok(clock_skew(check, server)),
    },
];

/// Minor releases that are known to exist, by major, and when the major's last one is due, by year and month
/// (<https://www.postgresql.org/support/versioning/>): those of November 2026, for all majors appear on the same day. There may be
/// newer ones.
const RELEASES: &[(u32, u32, &str)] = &[
    (13, 23, "2025-11"),
    (14, 25, "2026-11"),
    (15, 20, "2027-11"),
    (16, 16, "2028-11"),
    (17, 12, "2029-11"),
    (18, 6, "2030-11"),
];

fn minor_version(check: &Check, server: &Server) -> Reading {
    judge_version(check, server.version.0, &server.now.format("%Y-%m").to_string())
}

/// Judges a version by the month of today.
fn judge_version(check: &Check, version: u32, month: &str) -> Reading {
    let (major, minor) = (version / 10_000, version % 10_000);
    let running = format!("{major}.{minor}");
    let Some((_, newest, end)) = RELEASES.iter().find(|(known, ..)| *known == major) else {
        return match RELEASES.first() {
            Some((oldest, ..)) if major < *oldest => {
                let message =
                    format!("PostgreSQL {running} has not been supported for long: upgrade");
                check.judged(1.0, message).at_least(Outcome::Warning)
            }
            _ => check.judged(
                0.0,
                format!("PostgreSQL {running}, of which this opsctl knows nothing yet"),
            ),
        };
    };
    let behind = f64::from(newest.saturating_sub(minor));
    if month > *end {
        let message = format!("PostgreSQL {major} has had no more fixes since {end}: upgrade");
        return check.judged(behind, message).at_least(Outcome::Warning);
    }
    if behind > 0.0 {
        let message = format!(
            "PostgreSQL {running} lacks the fixes of {major}.{newest}: update and restart it"
        );
        return check.judged(behind, message);
    }
    check.judged(0.0, format!("PostgreSQL {running}; opsctl knows of no newer one of {major}"))
}

fn clock_skew(check: &Check, server: &Server) -> Reading {
    let side = if server.skew < 0.0 { "behind" } else { "ahead of" };
    let message = format!("the server's clock is {} {side} this host's", span(server.skew.abs()));
    check.judged(server.skew.abs(), message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CheckSettings;
    use crate::health::kind;

    #[test]
    fn a_version_is_old_when_fixes_are_missing_or_come_no_more() {
        let check =
            Check::new(kind::find("minor-version").unwrap(), "a", &CheckSettings::default());
        let judge = |version, month| judge_version(&check, version, month).outcome;
        assert_eq!(judge(170_002, "2026-11"), Outcome::Warning);
        assert_eq!(judge(170_012, "2026-11"), Outcome::Ok);
        assert_eq!(judge(170_099, "2026-11"), Outcome::Ok);
        assert_eq!(judge(170_099, "2029-12"), Outcome::Warning);
        assert_eq!(judge(120_022, "2026-11"), Outcome::Warning);
        assert_eq!(judge(190_000, "2026-11"), Outcome::Ok);
    }
}
