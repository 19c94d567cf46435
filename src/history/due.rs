//! Which runs are due, and which are late: by what is expected and what is remembered. Pure.

use std::time::Duration;

use super::{Run, State};
use crate::clock::Moment;
use crate::exit::Exit;

/// What is expected of a command.
pub(crate) struct Expected<'a> {
    /// As the history has it.
    pub(crate) command: &'a str,
    pub(crate) database: &'a str,
    /// Returns the first time after a moment at which it is to run.
    pub(crate) next: &'a dyn Fn(Moment) -> Option<Moment>,
    /// How long a run may be at work and not be late.
    pub(crate) timeout: Duration,
    /// How much later than its time a run may come to its end.
    pub(crate) grace: Duration,
    /// How old the last success may be, in place of all that.
    pub(crate) max_age: Option<Duration>,
}

/// What is said of a run that never came to its end.
pub(crate) const KILLED: &str = "it was killed";

/// How a command stands on a database.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a question that a monitor asks")]
pub(crate) struct Standing {
    pub(crate) command: String,
    pub(crate) database: String,
    /// When the last run began that ended well.
    pub(crate) last_success: Option<Moment>,
    /// When the next success is expected: in the past, if it is late.
    pub(crate) due: Option<Moment>,
    pub(crate) late: bool,
    /// Did the last run that came to an end fail, or was it killed?
    pub(crate) failing: bool,
    /// Was that a run of this very command, and was it killed?
    pub(crate) killed: bool,
    pub(crate) running: bool,
    /// Of the last run, if it failed.
    pub(crate) last_error: Option<String>,
}

impl Standing {
    /// Is everything as it should be?
    pub(crate) fn is_well(&self) -> bool {
        !self.late && !self.failing
    }
}

/// Judges by the runs that are remembered, oldest first.
///
/// What never ran is late once a time has passed since the first run of any command; without any it is late at once.
pub(crate) fn judge(expected: &Expected<'_>, runs: &[Run], now: Moment) -> Standing {
    let Expected { command, database, .. } = *expected;
    // A restore test verifies the backup as well.
    let counts = |run: &&Run| {
        let is_it = run.command == command
            || (command == "verify-backup" && run.command == "verify-backup --restore-test");
        is_it && !run.dry_run && run.begun_at <= now
    };
    // One that failed before it came to any database failed for each.
    let exit = |run: &Run| match run.databases.iter().find(|part| part.database == database) {
        Some(part) => Some(part.exit.or(run.exit)),
        None if run.databases.is_empty() => Some(run.exit),
        None => None,
    };
    let own: Vec<&Run> = runs.iter().filter(counts).filter(|run| exit(run).is_some()).collect();
    // Whatever a monitor was told, it was told; without any database there was no answer.
    let answered = |run: &Run| command == "health-check" && !run.databases.is_empty();
    let is_good = |run: &Run| {
        let exit = exit(run).flatten();
        let ended_well = exit == Some(0) || answered(run) && exit.is_some_and(|exit| exit <= 3);
        run.state == State::Ended && ended_well
    };
    let last_success = own.iter().rfind(|run| is_good(run)).map(|run| run.begun_at);
    // One that was refused, because another was at work, says nothing: the other one does.
    let was_refused = |run: &Run| exit(run).flatten() == Some(Exit::Locked.number());
    let last = own.iter().rfind(|run| run.state != State::Running && !was_refused(run));
    let failing = last.is_some_and(|run| !is_good(run));
    let running = own.iter().any(|run| run.state == State::Running);
    let since = last_success.or_else(|| runs.first().map(|run| run.begun_at));
    let due = match expected.max_age.and_then(|age| chrono::TimeDelta::from_std(age).ok()) {
        Some(age) => last_success.map(|at| at + age),
        None => since.and_then(expected.next),
    };
    let grace = if expected.max_age.is_some() { Duration::ZERO } else { expected.grace };
    let grace = chrono::TimeDelta::from_std(grace).unwrap_or_default();
    // One that hangs, and will never say that it failed, does not hide it for ever.
    let time = expected.timeout.saturating_add(expected.grace);
    let time = chrono::TimeDelta::from_std(time).unwrap_or(chrono::TimeDelta::MAX);
    let in_time =
        |run: &&Run| run.state == State::Running && now.signed_duration_since(run.begun_at) <= time;
    let late = !own.iter().any(in_time) && due.is_none_or(|due| now > due + grace);
    let last_error = last.filter(|_| failing).map(|run| {
        let part = run.databases.iter().find(|part| part.database == database);
        let error = part.and_then(|part| part.error.clone()).or_else(|| run.error.clone());
        match (run.state, exit(run).flatten()) {
            (State::Killed, _) => KILLED.to_owned(),
            (_, Some(exit)) => error.unwrap_or_else(|| format!("it ended with status {exit}")),
            (_, None) => error.unwrap_or_else(|| "it did not say how it ended".to_owned()),
        }
    });
    let killed = last.is_some_and(|run| run.state == State::Killed && run.command == command);
    let (command, database) = (command.to_owned(), database.to_owned());
    Standing { command, database, last_success, due, late, failing, killed, running, last_error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Part;

    fn at(text: &str) -> Moment {
        format!("2026-11-{text}:00Z").parse().unwrap()
    }

    fn run(begun: &str, command: &str, state: State, exit: Option<u8>) -> Run {
        let part = Part {
            database: "ip2a".to_owned(),
            exit,
            figures: std::collections::BTreeMap::new(),
            error: exit.filter(|exit| *exit != 0).map(|exit| format!("error {exit}")),
        };
        Run {
            id: begun.to_owned(),
            host: String::new(),
            command: command.to_owned(),
            dry_run: false,
            begun_at: at(begun),
            ended_at: None,
            state,
            exit,
            error: None,
            databases: vec![part],
        }
    }

    fn standing(runs: &[Run], now: &str) -> Standing {
        // Daily at two.
        let next = |moment: Moment| {
            let day = moment.date_naive().and_hms_opt(2, 0, 0)?.and_utc();
            Some(if day > moment { day } else { day + chrono::TimeDelta::days(1) })
        };
        let expected = Expected {
            command: "backup",
            database: "ip2a",
            next: &next,
            timeout: Duration::from_secs(2 * 3600),
            grace: Duration::from_secs(3600),
            max_age: None,
        };
        judge(&expected, runs, at(now))
    }

    #[test]
    fn three_days_are_judged_rightly() {
        use State::{Ended, Killed, Running};
        let good = run("18T02:00", "backup", Ended, Some(0));
        let well = |runs: &[Run], now: &str| standing(runs, now).is_well();
        // It ran every day.
        let every_day = [
            good.clone(),
            run("19T02:00", "backup", Ended, Some(0)),
            run("20T02:00", "backup", Ended, Some(0)),
        ];
        assert!(well(&every_day, "20T12:00"));
        assert!(well(&every_day, "21T02:59") && !well(&every_day, "21T03:01"));
        // cron did not run.
        let late = standing(std::slice::from_ref(&good), "21T00:00");
        assert!(late.late && !late.failing);
        assert_eq!((late.last_success, late.due), (Some(at("18T02:00")), Some(at("19T02:00"))));
        // It failed: bad news at once, and late as well when its time has passed.
        let failed = [good.clone(), run("19T02:00", "backup", Ended, Some(12))];
        let now = standing(&failed, "19T02:30");
        assert!(now.failing && !now.late && now.last_error.as_deref() == Some("error 12"));
        assert!(standing(&failed, "19T12:00").late);
        let refused = run("18T02:10", "backup", Ended, Some(11));
        assert!(well(&[good.clone(), refused.clone()], "18T12:00"));
        assert!(standing(&[refused], "19T12:00").late);
        let killed = [good.clone(), run("19T02:00", "backup", Killed, None)];
        assert_eq!(standing(&killed, "19T02:30").last_error.as_deref(), Some("it was killed"));
        // It takes long.
        assert!(well(&[good.clone(), run("19T02:00", "backup", Running, None)], "19T05:00"));
        let hangs = standing(&[good.clone(), run("19T02:00", "backup", Running, None)], "19T05:01");
        assert!(hangs.late && hangs.running);
        // What ran was something else, or another database.
        assert!(!well(
            &[good.clone(), run("20T02:00", "backup prune", Ended, Some(0))],
            "20T12:00"
        ));
        let mut other = run("20T02:00", "backup", Ended, Some(0));
        other.databases[0].database = "other".to_owned();
        assert!(!well(&[good.clone(), other], "20T12:00"));
        let mut dry = run("20T02:00", "backup", Ended, Some(0));
        dry.dry_run = true;
        assert!(!well(&[good, dry], "20T12:00"));
        // It never ran at all.
        assert!(standing(&[], "20T12:00").late);
        let only_other = [run("18T12:00", "verify-backup", Ended, Some(0))];
        assert!(well(&only_other, "19T02:30") && !well(&only_other, "19T03:30"));
    }

    #[test]
    fn a_health_check_ran_whatever_it_said() {
        let judge_it = |run: Run| {
            let (command, database, grace) = ("health-check", "ip2a", Duration::from_secs(3600));
            let next = |moment: Moment| Some(moment + chrono::TimeDelta::minutes(5));
            let expected =
                Expected { command, database, next: &next, timeout: grace, grace, max_age: None };
            judge(&expected, &[run], at("19T02:10")).is_well()
        };
        let critical = run("19T02:00", "health-check", State::Ended, Some(2));
        assert!(judge_it(critical.clone()));
        assert!(!judge_it(Run { databases: Vec::new(), exit: Some(3), ..critical }));
    }

    #[test]
    fn a_greatest_age_takes_the_place_of_the_schedule() {
        let good = run("18T02:00", "backup", State::Ended, Some(0));
        let next = |_: Moment| None;
        let max_age = Some(Duration::from_secs(26 * 3600));
        let (command, database, grace) = ("backup", "ip2a", Duration::from_secs(3600));
        let expected = Expected { command, database, next: &next, timeout: grace, grace, max_age };
        let runs = [good];
        assert!(judge(&expected, &runs, at("19T03:59")).is_well());
        assert!(!judge(&expected, &runs, at("19T04:01")).is_well());
        assert!(!judge(&expected, &[], at("19T04:01")).is_well());
    }
}
