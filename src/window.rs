//! Maintenance windows: the times at which a command may work. Pure; `now` is an argument.
//!
//! A window is said in a time zone of its own (UTC unless named), because the server that it protects may be elsewhere. Where
//! clocks are put back or forward it is never open when a clock on the wall there would say that it is not; it may be
//! shorter then, or not open at all.

use std::fmt;
use std::str::FromStr;

use chrono::{
    Datelike as _, Days, MappedLocalTime, NaiveDate, NaiveDateTime, TimeDelta, TimeZone as _,
    Weekday,
};
use chrono_tz::Tz;

use crate::clock::Moment;

/// A maintenance window, such as `first Sun 01:00-05:00 UTC`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    which: Which,
    /// None means every day.
    weekdays: Option<Vec<Weekday>>,
    /// Minutes from the midnight at which the day begins.
    from: u32,
    /// Likewise, and later; over 1440 it is on the next day.
    to: u32,
    zone: Tz,
    text: String,
}

/// Which of its weekdays of a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Each,
    /// From 1.
    Nth(u32),
    Last,
}

/// Is it open?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    Open {
        until: Moment,
    },
    /// Without a next time if there is none within [`HORIZON`] days.
    Closed {
        next: Option<Moment>,
    },
}

/// How many days are looked ahead: a window of every month may miss one when clocks are changed.
const HORIZON: usize = 100;
const DAY: u32 = 1440;

/// Says whether any of several windows is open. Those that follow on each other, or overlap, are one.
pub(crate) fn opening<'w>(windows: impl IntoIterator<Item = &'w Window>, now: Moment) -> Opening {
    let mut spans: Vec<(Moment, Moment)> =
        windows.into_iter().flat_map(|window| window.spans(now)).collect();
    spans.sort_unstable();
    let mut open = None;
    for (from, to) in &spans {
        match open {
            None if *from <= now && now < *to => open = Some(*to),
            Some(until) if *from <= until && until < *to => open = Some(*to),
            _ => {}
        }
    }
    match open {
        Some(until) => Opening::Open { until },
        None => Opening::Closed {
            next: spans.into_iter().map(|(from, _)| from).find(|from| *from > now),
        },
    }
}

impl Window {
    /// Returns the times at which it is open, from the day before `now` to the horizon.
    fn spans(&self, now: Moment) -> impl Iterator<Item = (Moment, Moment)> + '_ {
        let today = now.with_timezone(&self.zone).date_naive();
        let yesterday = today.checked_sub_days(Days::new(1)).unwrap_or(today);
        let days = yesterday.iter_days().take(HORIZON).filter(|day| self.is_day(*day));
        days.filter_map(|day| {
            let at =
                |minutes| Some(day.and_hms_opt(0, 0, 0)? + TimeDelta::minutes(i64::from(minutes)));
            let (from, to) = (at(self.from)?, at(self.to)?);
            // Of an hour that comes twice it is the second at the beginning, and the first at the end that can be.
            let from = match self.zone.from_local_datetime(&from) {
                MappedLocalTime::Single(at) | MappedLocalTime::Ambiguous(_, at) => at,
                MappedLocalTime::None => self.behind_the_gap(from)?,
            };
            let to = match self.zone.from_local_datetime(&to) {
                MappedLocalTime::Single(at) => at,
                MappedLocalTime::Ambiguous(first, second) => {
                    if first > from {
                        first
                    } else {
                        second
                    }
                }
                MappedLocalTime::None => self.behind_the_gap(to)?,
            };
            (from < to).then(|| (from.to_utc(), to.to_utc()))
        })
    }

    /// Returns the moment at which clocks are put forward over a time.
    fn behind_the_gap(&self, local: NaiveDateTime) -> Option<chrono::DateTime<Tz>> {
        let mut later = (1..=i64::from(DAY)).map(|minutes| local + TimeDelta::minutes(minutes));
        later.find_map(|local| self.zone.from_local_datetime(&local).earliest())
    }

    /// Does it open on this day?
    fn is_day(&self, day: NaiveDate) -> bool {
        let is_weekday = self.weekdays.as_ref().is_none_or(|days| days.contains(&day.weekday()));
        let in_a_week = day.checked_add_days(Days::new(7));
        is_weekday
            && match self.which {
                Which::Each => true,
                Which::Nth(n) => (day.day() - 1) / 7 + 1 == n,
                Which::Last => in_a_week.is_none_or(|other| other.month() != day.month()),
            }
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Window, String> {
        let wrong = |what: &str| {
            format!(
                "`{text}`: {what}: write it like `Sun 02:00-04:00 UTC`, `first Sat,Sun 01:00-05:00 UTC` or `daily \
                 23:00-02:00 Europe/Berlin`"
            )
        };
        let mut words: Vec<&str> = text.split_whitespace().collect();
        let which = match words.first().copied() {
            Some("first") => Which::Nth(1),
            Some("second") => Which::Nth(2),
            Some("third") => Which::Nth(3),
            Some("fourth") => Which::Nth(4),
            Some("last") => Which::Last,
            _ => Which::Each,
        };
        if which != Which::Each {
            words.remove(0);
        }
        let (days, hours, zone) = match words[..] {
            [days, hours] => (days, hours, "UTC"),
            [days, hours, zone] => (days, hours, zone),
            _ => return Err(wrong("it is not days, hours, and perhaps a time zone")),
        };
        let weekdays = match days {
            "daily" if which == Which::Each => None,
            "daily" => return Err(wrong("a first or last day is one of the week")),
            days => {
                let days = days.split(',').map(str::parse::<Weekday>);
                let days: Result<Vec<Weekday>, _> = days.collect();
                Some(days.map_err(|_| wrong(&format!("`{}` are not days", words[0])))?)
            }
        };
        let hours =
            hours.split_once('-').and_then(|(from, to)| Some((minutes(from)?, minutes(to)?)));
        let (from, to) = match hours {
            Some((from, _)) if from == DAY => return Err(wrong("it begins before 24:00")),
            Some((from, to)) if from == to => return Err(wrong("it has no length")),
            // Over midnight.
            Some((from, to)) => (from, if to < from { to + DAY } else { to }),
            None => return Err(wrong(&format!("`{}` are not two times", words[1]))),
        };
        let zone: Tz = zone.parse().map_err(|_| wrong(&format!("`{zone}` is no time zone")))?;
        let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if words.len() == 2 {
            text += " UTC";
        }
        Ok(Window { which, weekdays, from, to, zone, text })
    }
}

/// Reads `HH:MM`, up to `24:00`, as minutes.
fn minutes(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    let two = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
    let (hour, minute): (u32, u32) =
        (two(hour).then(|| hour.parse().ok())??, two(minute).then(|| minute.parse().ok())??);
    Some(hour * 60 + minute).filter(|minutes| minute < 60 && *minutes <= DAY)
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use chrono::Timelike as _;
    use proptest::prelude::*;

    use super::*;

    fn window(text: &str) -> Window {
        text.parse().unwrap_or_else(|e| panic!("{e}"))
    }

    fn at(text: &str) -> Moment {
        format!("{text}:00Z").parse().unwrap()
    }

    fn open(text: &str, now: &str) -> Option<Moment> {
        match opening([&window(text)], at(now)) {
            Opening::Open { until } => Some(until),
            Opening::Closed { .. } => None,
        }
    }

    fn next(text: &str, now: &str) -> Option<Moment> {
        match opening([&window(text)], at(now)) {
            Opening::Open { .. } => None,
            Opening::Closed { next } => next,
        }
    }

    #[test]
    fn the_windows_of_the_defaults_open_and_close() {
        let weekly = "Sun 02:00-04:00 UTC";
        assert_eq!(next(weekly, "2026-11-22T01:59"), Some(at("2026-11-22T02:00")));
        assert_eq!(open(weekly, "2026-11-22T02:00"), Some(at("2026-11-22T04:00")));
        assert_eq!(next(weekly, "2026-11-22T04:00"), Some(at("2026-11-29T02:00")));
        let monthly = "first Sun 01:00-05:00 UTC";
        assert_eq!(next(monthly, "2026-11-22T02:00"), Some(at("2026-12-06T01:00")));
        assert_eq!(open(monthly, "2026-12-06T04:59"), Some(at("2026-12-06T05:00")));
        assert_eq!(
            next("last Sat,Sun 01:00-02:00", "2026-11-01T00:00"),
            Some(at("2026-11-28T01:00"))
        );
    }

    #[test]
    fn over_midnight_and_one_after_the_other() {
        assert_eq!(open("Sat 23:00-02:00", "2026-11-22T01:59"), Some(at("2026-11-22T02:00")));
        assert_eq!(next("Sat 23:00-02:00", "2026-11-22T02:00"), Some(at("2026-11-28T23:00")));
        assert_eq!(open("Sat,Sun 00:00-24:00", "2026-11-21T12:00"), Some(at("2026-11-23T00:00")));
        let both = [window("Sun 02:00-04:00"), window("Sun 03:00-05:00")];
        assert_eq!(
            opening(&both, at("2026-11-22T02:30")),
            Opening::Open { until: at("2026-11-22T05:00") }
        );
        assert_eq!(opening([], at("2026-11-22T02:30")), Opening::Closed { next: None });
    }

    #[test]
    fn changed_clocks_never_make_it_open_at_another_hour() {
        // In Berlin 02:00 becomes 03:00 on 2026-03-29, and 03:00 becomes 02:00 on 2026-10-25.
        let spring =
            |hours: &str| next(&format!("daily {hours} Europe/Berlin"), "2026-03-28T20:00");
        assert_eq!(spring("01:30-02:30"), Some(at("2026-03-29T00:30")));
        assert_eq!(
            open("daily 01:30-02:30 Europe/Berlin", "2026-03-29T00:30"),
            Some(at("2026-03-29T01:00"))
        );
        assert_eq!(spring("02:30-04:00"), Some(at("2026-03-29T01:00")));
        assert_eq!(spring("02:15-02:45"), Some(at("2026-03-30T00:15")));
        let autumn = |hours: &str| {
            let text = format!("daily {hours} Europe/Berlin");
            let from = next(&text, "2026-10-24T20:00").unwrap();
            (from, open(&text, &from.format("%Y-%m-%dT%H:%M").to_string()).unwrap())
        };
        assert_eq!(autumn("01:00-03:00"), (at("2026-10-24T23:00"), at("2026-10-25T02:00")));
        assert_eq!(autumn("01:00-02:30"), (at("2026-10-24T23:00"), at("2026-10-25T00:30")));
        assert_eq!(autumn("02:30-04:00"), (at("2026-10-25T01:30"), at("2026-10-25T03:00")));
        assert_eq!(autumn("02:15-02:45"), (at("2026-10-25T01:15"), at("2026-10-25T01:45")));
    }

    #[test]
    fn what_is_no_window_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", "it is not days"),
            ("Sun", "it is not days"),
            ("Sun 02:00-04:00 UTC now", "it is not days"),
            ("Someday 02:00-04:00", "`Someday` are not days"),
            ("Sun, 02:00-04:00", "`Sun,` are not days"),
            ("first daily 02:00-04:00", "a first or last day"),
            ("Sun 2:00-04:00", "`2:00-04:00` are not two times"),
            ("Sun 02:60-04:00", "are not two times"),
            ("Sun 02:00-24:01", "are not two times"),
            ("Sun 24:00-02:00", "it begins before 24:00"),
            ("Sun 02:00-02:00", "it has no length"),
            ("Sun 02:00-04:00 Mars/Base", "`Mars/Base` is no time zone"),
        ] {
            let error = text.parse::<Window>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert_eq!(window(" Sun  02:00-04:00").to_string(), "Sun 02:00-04:00 UTC");
    }

    /// Says by the clock on the wall whether a window is open, apart from how [`opening`] finds it out.
    fn is_inside(window: &Window, now: Moment) -> bool {
        let local = now.with_timezone(&window.zone).naive_local();
        let minutes = local.num_seconds_from_midnight() / 60;
        let yesterday = local.date() - Days::new(1);
        let within = |minutes| window.from <= minutes && minutes < window.to;
        window.is_day(local.date()) && within(minutes)
            || window.is_day(yesterday) && within(minutes + DAY)
    }

    prop_compose! {
        fn any_window(zones: &'static [&'static str])(
            which in prop::sample::select(&["", "first ", "third ", "last "][..]),
            days in prop::sample::select(&["Sun", "Sat,Sun", "Mon,Wed,Fri"][..]),
            from in 0u32..DAY, length in 1u32..DAY,
            zone in prop::sample::select(zones),
        ) -> Window {
            let time = |minutes: u32| format!("{:02}:{:02}", minutes / 60, minutes % 60);
            let (from, to) = (time(from), time((from + length) % DAY));
            window(&format!("{which}{days} {from}-{to} {zone}"))
        }
    }

    fn any_moment() -> impl Strategy<Value = Moment> {
        // 2026 and 2027, on the minute.
        (29_453_760i64..30_504_960)
            .prop_map(|minute| chrono::DateTime::from_timestamp(minute * 60, 0).unwrap())
    }

    proptest! {
        #[test]
        fn it_is_never_open_outside(
            window in any_window(&["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]), now in any_moment(),
        ) {
            let moment_before = TimeDelta::seconds(1);
            match opening([&window], now) {
                Opening::Open { until } => {
                    prop_assert!(now < until);
                    for minute in 0.. {
                        let at = now + TimeDelta::minutes(minute);
                        if at >= until { break }
                        prop_assert!(is_inside(&window, at), "{window} at {at}");
                    }
                    prop_assert!(is_inside(&window, until - moment_before));
                }
                Opening::Closed { next } => {
                    let next = next.unwrap();
                    prop_assert!(now < next);
                    let is_open = |at| matches!(opening([&window], at), Opening::Open { .. });
                    prop_assert!(is_open(next) && !is_open(next - moment_before));
                }
            }
        }

        #[test]
        fn it_opens_as_soon_as_it_may(window in any_window(&["UTC"]), now in any_moment()) {
            match opening([&window], now) {
                Opening::Open { until } => prop_assert!(!is_inside(&window, until)),
                Opening::Closed { next } => {
                    let mut at = now;
                    while !is_inside(&window, at) {
                        at += TimeDelta::minutes(1);
                    }
                    prop_assert_eq!(Some(at), next);
                }
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ignored = text.parse::<Window>();
        }
    }
}
