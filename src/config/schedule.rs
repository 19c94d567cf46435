//! `[schedule]`: when each command is expected to run, as cron says it, in the time zone of the host.
//!
//! It starts nothing: cron, systemd or Kubernetes do, by what `opsctl schedule print` makes of it. `opsctl status` compares
//! it with what ran. Only such times are taken as all three of them understand, and alike.

use std::str::FromStr;
use std::time::Duration;

use crate::clock::Moment;

/// When commands are expected to run.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    /// Those that `status` judges, in the order of [`COMMANDS`]; those that are off are not in it.
    pub(crate) commands: Vec<Scheduled>,
    /// When `status` itself runs; it is started like the others and judged by nobody.
    pub(crate) status: Option<Scheduled>,
    /// How much later than its time a run may come to its end.
    pub(crate) grace: Duration,
}

/// A command that is expected to run.
#[derive(Clone, Debug)]
pub(crate) struct Scheduled {
    /// As the history has it.
    pub(crate) command: &'static str,
    pub(crate) times: Times,
    pub(crate) row: &'static Row,
}

/// What can be scheduled.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Its key in the section.
    pub(crate) key: &'static str,
    /// As it is typed, and as the history has it.
    pub(crate) command: &'static str,
    /// When it runs unless told otherwise.
    pub(crate) default: &'static str,
    /// What it may take when nobody watches.
    pub(crate) timeout: Duration,
    /// What is typed behind the command, such as `--window weekly`.
    pub(crate) options: &'static str,
    /// What the line is for, to whoever reads the crontab.
    pub(crate) about: &'static str,
}

/// The commands that can be scheduled. No two of them begin in the same minute.
pub(super) const COMMANDS: &[Row] = &[
    Row {
        key: "backup",
        command: "backup",
        default: "0 2 * * *",
        timeout: hours(4),
        options: "",
        about: "All databases into all their repositories, then retention.",
    },
    Row {
        key: "verify_backup",
        command: "verify-backup",
        default: "0 5 * * *",
        timeout: hours(4),
        options: "",
        about: "What the night wrote is read back from where it lies.",
    },
    Row {
        key: "restore_test",
        command: "verify-backup --restore-test",
        default: "0 7 * * 6",
        timeout: hours(12),
        options: "",
        about: "The proof: the newest backup is restored into a throwaway server. That wants the server package, and room in\n\
                TMPDIR.",
    },
    Row {
        key: "health_check",
        command: "health-check",
        default: "*/5 * * * *",
        timeout: Duration::from_secs(10),
        options: "",
        about: "Is everything well? A mail means that something is not.",
    },
    Row {
        key: "cleanup_sessions",
        command: "cleanup-sessions",
        default: "0 4 * * *",
        timeout: Duration::from_secs(90 * 60),
        options: "",
        about: "Sessions and tokens whose time is over. What is left at the deadline goes the next night.",
    },
    Row {
        key: "db_maintain",
        command: "db-maintain",
        default: "30 0 * * *",
        timeout: Duration::from_secs(80 * 60),
        options: "",
        about: "What autovacuum left: VACUUM and ANALYZE where tables need it, what concurrent builds left behind, and, if\n\
                [maintain] says so, bloated indexes.",
    },
    Row {
        key: "archive_audit",
        command: "archive-audit",
        default: "0 6 * * 0",
        timeout: hours(4),
        options: "",
        about: "Audit rows that are old enough, as evidence that anybody can check. Nothing is deleted.",
    },
];
/// `opsctl status`, which is not among the commands because it would have to judge itself.
pub(super) const STATUS: &Row = &Row {
    key: "status",
    command: "status",
    default: "45 * * * *",
    timeout: Duration::from_secs(300),
    options: "--notify",
    about: "Has all that ran, and well? What never ran at all is late, too; the channels of [notify] are told. Let another\n\
            host ask as well, if you can: this does not run either when nothing does.",
};
/// How late a run may be unless told otherwise.
pub(super) const GRACE: Duration = hours(4);
/// The keys of the section.
pub(super) const KEYS: &[&str] = &{
    let mut keys = ["grace"; COMMANDS.len() + 2];
    let mut n = 0;
    while n < COMMANDS.len() {
        keys[n] = COMMANDS[n].key;
        n += 1;
    }
    keys[n] = STATUS.key;
    keys
};

const fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}

/// Times as a line of a crontab says them.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    text: String,
    cron: Box<croner::Cron>,
}

/// The numbers that each field of [`Times`] stands for, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) minutes: Vec<u16>,
    pub(crate) hours: Vec<u16>,
    pub(crate) days: Vec<u16>,
    pub(crate) months: Vec<u16>,
    /// From 0, Sunday.
    pub(crate) weekdays: Vec<u16>,
    /// Is a day of the month as good as a day of the week? So cron has it if both fields are restricted.
    pub(crate) either_day: bool,
}

/// What a key of the section says.
#[derive(Clone, Debug)]
pub(super) enum When {
    Off,
    At(Times),
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<When, String> {
        if text == "off" {
            return Ok(When::Off);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        // With six fields croner would read seconds, which no crontab has.
        let [_, _, day, _, weekday] = fields[..] else {
            return Err(format!(
                "`{text}` is not `off` and not the five fields of a crontab's line"
            ));
        };
        // croner knows more than crontab(5): `?`, `+`, and W, L and # behind a day.
        let odd = |c: char| !(c.is_ascii_alphanumeric() || "*/,-".contains(c));
        let names = |field: &str| field.contains(|c: char| c.is_ascii_alphabetic());
        if fields.iter().any(|field| field.contains(odd)) || fields[..3].iter().any(|f| names(f)) {
            return Err(format!(
                "`{text}`: crontab(5) knows only numbers, names, `*`, `/`, `,` and `-`"
            ));
        }
        let half_a_star = |field: &str| field.starts_with('*') && field != "*";
        if day != "*" && weekday != "*" && (half_a_star(day) || half_a_star(weekday)) {
            return Err(format!(
                "`{text}`: programs disagree on a `*/` for one day while the other is restricted as well: list the days"
            ));
        }
        let cron = croner::Cron::from_str(text).map_err(|error| format!("`{text}`: {error}"))?;
        if cron.pattern.days_of_week.has_modifiers() {
            return Err(format!("`{text}`: crontab(5) knows no `L` behind a day"));
        }
        Ok(When::At(Times { text: fields.join(" "), cron: Box::new(cron) }))
    }
}

impl Times {
    /// Reads the five fields of a crontab's line; nothing if `[schedule]` would not take them.
    pub(crate) fn read(text: &str) -> Option<Times> {
        match text.parse() {
            Ok(When::At(times)) => Some(times),
            _ => None,
        }
    }

    /// Returns the first time after a moment; none if there is none in the years that can be looked through.
    pub(crate) fn after(&self, moment: Moment) -> Option<Moment> {
        let local = moment.with_timezone(&chrono::Local);
        let next = self.cron.find_next_occurrence(&local, false).ok()?;
        Some(next.with_timezone(&chrono::Utc))
    }

    /// Returns what the fields stand for.
    pub(crate) fn fields(&self) -> Fields {
        let pattern = &self.cron.pattern;
        Fields {
            minutes: pattern.minutes.values(),
            hours: pattern.hours.values(),
            days: pattern.days.values(),
            months: pattern.months.values(),
            weekdays: pattern.days_of_week.values(),
            either_day: !pattern.is_dom_wildcard() && !pattern.is_dow_wildcard(),
        }
    }

    /// Returns the least time from one run to the next, of the first hundred from the year 2000 on in UTC; a day if there is
    /// but one.
    pub(crate) fn shortest_gap(&self) -> Duration {
        let begin = chrono::DateTime::from_timestamp(946_684_800, 0).unwrap_or_default();
        let times: Vec<Moment> = self.cron.iter_after(begin).take(100).collect();
        let gaps = times.windows(2).filter_map(|pair| (pair[1] - pair[0]).to_std().ok());
        gaps.min().unwrap_or(hours(24))
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::fmt::Display for When {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            When::Off => f.write_str("off"),
            When::At(times) => times.fmt(f),
        }
    }
}

#[cfg(test)]
impl Scheduled {
    /// Returns a backup at its usual time.
    pub(crate) fn example() -> Scheduled {
        let row = &COMMANDS[0];
        Scheduled { command: row.command, times: Times::from(row.default), row }
    }
}

#[cfg(test)]
impl From<&str> for Times {
    fn from(text: &str) -> Times {
        match text.parse() {
            Ok(When::At(times)) => times,
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_a_crontab() {
        assert!(matches!("off".parse(), Ok(When::Off)));
        for wrong in ["", "0 2 * *", "0 0 2 * * *", "61 2 * * *", "daily", "0 2 * * x"] {
            assert!(wrong.parse::<When>().is_err(), "{wrong}");
        }
        let at: Moment = "2026-11-21T02:05:00Z".parse().unwrap();
        assert_eq!(Times::from("5 * * * *").after(at).unwrap() - at, chrono::TimeDelta::hours(1));
    }

    #[test]
    fn what_only_some_programs_understand_is_refused() {
        for wrong in [
            "0 2 L * *",
            "0 2 15W * *",
            "0 2 * * 5L",
            "0 2 * * 1#2",
            "0 2 ? * 1",
            "0 2 1 * +1",
            "@ 2 * * *",
            "0 2 */2 * 1",
            "0 2 1 * */2",
            "5/10 2 * * *",
            "0 2 * * friL",
        ] {
            assert!(wrong.parse::<When>().is_err(), "{wrong}");
        }
        for right in
            ["*/5 * * * *", "0 2 */2 * *", "0 2 1,15 * 1", "0 2 1-7/2 jan,jul mon-fri", "0 2 * * 7"]
        {
            assert!(matches!(right.parse(), Ok(When::At(_))), "{right}");
        }
    }

    #[test]
    fn the_defaults_never_begin_together() {
        let rows: Vec<_> = COMMANDS.iter().chain([STATUS]).collect();
        assert_eq!(KEYS.len(), rows.len() + 1);
        let mut seen = std::collections::BTreeMap::new();
        // What runs every few minutes meets everybody, and is quick.
        let times = rows.iter().map(|row| (row.key, Times::from(row.default)));
        for (key, times) in times.filter(|(_, times)| times.shortest_gap() >= hours(1)) {
            let begin: Moment = "2026-01-01T00:00:00Z".parse().unwrap();
            for at in times
                .cron
                .iter_after(begin)
                .take_while(|at| *at < begin + chrono::TimeDelta::days(35))
            {
                assert_eq!(seen.insert(at, key), None, "{key} at {at}");
            }
        }
    }

    #[test]
    fn gaps_are_the_shortest() {
        for (text, minutes) in
            [("*/5 * * * *", 5), ("0 2 * * *", 1440), ("0,10 2 * * *", 10), ("0 2 30 2 *", 1440)]
        {
            assert_eq!(
                Times::from(text).shortest_gap(),
                Duration::from_secs(minutes * 60),
                "{text}"
            );
        }
    }
}
