//! Which backups to keep: a pure decision that gives its reasons.
//!
//! Only good backups count toward a rule: complete, readable, and not known to be damaged. Days are
//! counted back from the newest good backup and not from now, so that a week of failures removes nothing.
//! It removes nothing itself and looks at no storage; `prune.rs` does both.

use std::collections::BTreeSet;
use std::fmt;

use chrono::{Datelike, TimeDelta};

use crate::clock::Moment;
use crate::config::Retention;
use crate::id::RunId;

/// A backup as far as retention must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) id: RunId,
    /// When it was begun.
    pub(crate) at: Moment,
    pub(crate) condition: Condition,
    /// Until when the storage refuses to remove it.
    pub(crate) locked_until: Option<Moment>,
}

/// What is known of a backup's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Complete, and its last verification (if any) found nothing.
    Good,
    /// Complete, but its last verification found damage.
    Damaged,
    /// Its manifest cannot be read: it may come from a newer opsctl.
    Unreadable,
}

/// Why a backup is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    NoPolicy,
    Last,
    Days,
    Daily,
    Weekly,
    Monthly,
    Yearly,
    LastGood,
    LockedUntil(Moment),
    Future,
    Unreadable,
    DamagedButRecent,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NoPolicy => f.write_str("no retention is configured"),
            Reason::Last => f.write_str("keep_last"),
            Reason::Days => f.write_str("keep_days"),
            Reason::Daily => f.write_str("keep_daily"),
            Reason::Weekly => f.write_str("keep_weekly"),
            Reason::Monthly => f.write_str("keep_monthly"),
            Reason::Yearly => f.write_str("keep_yearly"),
            Reason::LastGood => f.write_str("the last good backup"),
            Reason::LockedUntil(at) => {
                write!(f, "locked until {}", at.format("%Y-%m-%d %H:%M UTC"))
            }
            Reason::Future => f.write_str("its time is in the future"),
            Reason::Unreadable => f.write_str("its manifest cannot be read"),
            Reason::DamagedButRecent => f.write_str("damaged, but not older than what is kept"),
        }
    }
}

/// What to do with one backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) backup: Candidate,
    /// Why it is kept; none means that it is to be removed.
    pub(crate) reasons: Vec<Reason>,
}

impl Decision {
    /// Is the backup to be kept?
    pub(crate) fn keeps(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// Decides about every backup of one database in one repository; returns the newest first.
pub(crate) fn decide(backups: &[Candidate], policy: Retention, now: Moment) -> Vec<Decision> {
    let mut sorted = backups.to_vec();
    sorted.sort_by(|a, b| (b.at, &b.id).cmp(&(a.at, &a.id)));
    let counts = |b: &Candidate| b.condition == Condition::Good && b.at <= now;
    let newest_good = sorted.iter().find(|b| counts(b)).map(|b| (b.at, b.id.clone()));
    let mut rules = Rules::new(policy);
    let mut decisions: Vec<Decision> = Vec::with_capacity(sorted.len());
    for backup in sorted {
        let mut reasons = Vec::new();
        if counts(&backup) {
            let newest_at = newest_good.as_ref().map_or(backup.at, |(at, _)| *at);
            reasons = rules.reasons(backup.at, newest_at);
            if newest_good.as_ref().is_some_and(|(_, id)| *id == backup.id) {
                reasons.push(Reason::LastGood);
            }
        }
        if policy == Retention::default() {
            reasons.push(Reason::NoPolicy);
        }
        if backup.at > now {
            reasons.push(Reason::Future);
        }
        if backup.condition == Condition::Unreadable {
            reasons.push(Reason::Unreadable);
        }
        if let Some(until) = backup.locked_until.filter(|until| *until > now) {
            reasons.push(Reason::LockedUntil(until));
        }
        decisions.push(Decision { backup, reasons });
    }
    // A damaged backup may still be better than nothing; it goes when its good contemporaries have gone.
    let oldest_kept =
        decisions.iter().filter(|d| counts(&d.backup) && d.keeps()).map(|d| d.backup.at).min();
    for decision in &mut decisions {
        let recent = oldest_kept.is_none_or(|oldest| decision.backup.at >= oldest);
        if decision.backup.condition == Condition::Damaged && recent {
            decision.reasons.push(Reason::DamagedButRecent);
        }
    }
    decisions
}

/// The counting rules, as they are used up going from the newest backup to the oldest.
struct Rules {
    policy: Retention,
    last_left: u32,
    periods: [Periods; 4],
}

/// "The newest of each period, for so many periods that have one."
struct Periods {
    reason: Reason,
    key: fn(Moment) -> (i32, u32),
    left: u32,
    seen: BTreeSet<(i32, u32)>,
}

impl Rules {
    fn new(policy: Retention) -> Rules {
        let periods = |reason, key, left| Periods { reason, key, left, seen: BTreeSet::new() };
        Rules {
            policy,
            last_left: policy.keep_last,
            periods: [
                periods(Reason::Daily, |at| (at.year(), at.ordinal()), policy.keep_daily),
                periods(
                    Reason::Weekly,
                    |at| (at.iso_week().year(), at.iso_week().week()),
                    policy.keep_weekly,
                ),
                periods(Reason::Monthly, |at| (at.year(), at.month()), policy.keep_monthly),
                periods(Reason::Yearly, |at| (at.year(), 0), policy.keep_yearly),
            ],
        }
    }

    fn reasons(&mut self, at: Moment, newest_at: Moment) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if self.last_left > 0 {
            self.last_left -= 1;
            reasons.push(Reason::Last);
        }
        let days = TimeDelta::days(i64::from(self.policy.keep_days));
        if self.policy.keep_days > 0 && newest_at.signed_duration_since(at) < days {
            reasons.push(Reason::Days);
        }
        for rule in &mut self.periods {
            if rule.left > 0 && rule.seen.insert((rule.key)(at)) {
                rule.left -= 1;
                reasons.push(rule.reason);
            }
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Moment {
        text.parse::<chrono::NaiveDateTime>().unwrap().and_utc()
    }

    fn backup(at: Moment, condition: Condition) -> Candidate {
        let random = u32::try_from(at.timestamp() & 0xff_ffff).unwrap();
        Candidate { id: RunId::new(at, random), at, condition, locked_until: None }
    }

    /// One line per backup: its day, and why it is kept or `remove`.
    fn table(backups: &[Candidate], policy: Retention, now: &str) -> String {
        let line = |d: &Decision| {
            let reasons: Vec<_> = d.reasons.iter().map(ToString::to_string).collect();
            let verdict = if d.keeps() { reasons.join(", ") } else { "remove".to_owned() };
            format!("{}  {verdict}", d.backup.at.format("%Y-%m-%dT%H"))
        };
        decide(backups, policy, at(now)).iter().map(line).collect::<Vec<_>>().join("\n")
    }

    fn good(times: &[&str]) -> Vec<Candidate> {
        times.iter().map(|t| backup(at(t), Condition::Good)).collect()
    }

    #[test]
    fn rules_work_together_and_each_says_so() {
        let backups = good(&[
            "2026-11-21T02:00:00",
            "2026-11-20T14:00:00",
            "2026-11-20T02:00:00",
            "2026-11-19T02:00:00",
            "2026-11-14T02:00:00",
            "2026-10-31T02:00:00",
            "2026-10-30T02:00:00",
            "2025-12-31T02:00:00",
            "2025-12-30T02:00:00",
        ]);
        let policy = Retention {
            keep_last: 1,
            keep_daily: 2,
            keep_weekly: 2,
            keep_monthly: 2,
            keep_yearly: 2,
            ..Retention::default()
        };
        insta::assert_snapshot!(table(&backups, policy, "2026-11-21T03:00:00"), @r"
        2026-11-21T02  keep_last, keep_daily, keep_weekly, keep_monthly, keep_yearly, the last good backup
        2026-11-20T14  keep_daily
        2026-11-20T02  remove
        2026-11-19T02  remove
        2026-11-14T02  keep_weekly
        2026-10-31T02  keep_monthly
        2026-10-30T02  remove
        2025-12-31T02  keep_yearly
        2025-12-30T02  remove
        ");
    }

    #[test]
    fn a_week_of_failures_removes_nothing() {
        let backups = good(&["2026-11-10T02:00:00", "2026-11-09T02:00:00", "2026-11-07T02:00:00"]);
        let policy = Retention { keep_days: 3, ..Retention::default() };
        insta::assert_snapshot!(table(&backups, policy, "2027-06-01T00:00:00"), @r"
        2026-11-10T02  keep_days, the last good backup
        2026-11-09T02  keep_days
        2026-11-07T02  remove
        ");
    }

    #[test]
    fn damaged_unreadable_locked_and_future_backups_do_not_count() {
        let mut backups = good(&[
            "2026-11-18T02:00:00",
            "2026-11-17T02:00:00",
            "2026-11-16T02:00:00",
            "2027-01-01T00:00:00",
        ]);
        backups.push(backup(at("2026-11-20T02:00:00"), Condition::Damaged));
        backups.push(backup(at("2026-11-01T02:00:00"), Condition::Damaged));
        backups.push(backup(at("2026-11-02T02:00:00"), Condition::Unreadable));
        backups[2].locked_until = Some(at("2026-12-01T00:00:00"));
        let policy = Retention { keep_last: 1, ..Retention::default() };
        insta::assert_snapshot!(table(&backups, policy, "2026-11-21T03:00:00"), @r"
        2027-01-01T00  its time is in the future
        2026-11-20T02  damaged, but not older than what is kept
        2026-11-18T02  keep_last, the last good backup
        2026-11-17T02  remove
        2026-11-16T02  locked until 2026-12-01 00:00 UTC
        2026-11-02T02  its manifest cannot be read
        2026-11-01T02  remove
        ");
    }

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let one =
            (0..4_000_000i64, 0..4u8, any::<bool>()).prop_map(|(minutes, condition, locked)| {
                let at = at("2020-01-01T00:00:00") + TimeDelta::minutes(minutes);
                let condition = match condition {
                    0 => Condition::Damaged,
                    1 => Condition::Unreadable,
                    _ => Condition::Good,
                };
                Candidate {
                    locked_until: locked.then_some(at + TimeDelta::days(30)),
                    ..backup(at, condition)
                }
            });
        proptest::collection::vec(one, 0..40)
    }

    fn policies() -> impl Strategy<Value = Retention> {
        (0..60u32, 0..5u32, 0..5u32, 0..5u32, 0..5u32, 0..5u32).prop_map(|(a, b, c, d, e, f)| {
            Retention {
                keep_days: a,
                keep_last: b,
                keep_daily: c,
                keep_weekly: d,
                keep_monthly: e,
                keep_yearly: f,
            }
        })
    }

    proptest! {
        #[test]
        fn what_must_never_be_removed_is_kept(backups in candidates(), policy in policies(), minutes in 0..4_000_000i64) {
            let now = at("2020-01-01T00:00:00") + TimeDelta::minutes(minutes);
            let decisions = decide(&backups, policy, now);
            prop_assert_eq!(decisions.len(), backups.len());
            let good = |b: &Candidate| b.condition == Condition::Good && b.at <= now;
            let newest = backups.iter().filter(|b| good(b)).map(|b| b.at).max();
            for d in &decisions {
                let b = &d.backup;
                let untouchable = b.at > now || b.locked_until.is_some_and(|l| l > now)
                    || b.condition == Condition::Unreadable || policy == Retention::default();
                prop_assert!(!untouchable || d.keeps());
                // Nothing is removed unless a newer good backup stays.
                if !d.keeps() {
                    prop_assert!(decisions.iter().any(|k| k.keeps() && good(&k.backup) && k.backup.at >= b.at)
                        || b.condition == Condition::Damaged && newest.is_some());
                }
            }
            let kept = decisions.iter().filter(|d| d.keeps() && good(&d.backup)).count();
            let n_good = backups.iter().filter(|b| good(b)).count();
            prop_assert!(kept >= n_good.min(policy.keep_last as usize).max(usize::from(n_good > 0)));
        }

        #[test]
        fn deciding_again_after_the_removals_removes_nothing(backups in candidates(), policy in policies()) {
            let now = at("2030-01-01T00:00:00");
            let kept: Vec<_> = decide(&backups, policy, now).into_iter().filter(Decision::keeps).map(|d| d.backup).collect();
            prop_assert!(decide(&kept, policy, now).iter().all(Decision::keeps));
        }
    }
}
