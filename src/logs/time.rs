//! Time stamps as programs write them at the beginning of a line. Pure.
//!
//! Known are RFC 3339 and its relatives (PostgreSQL, Python, Java), nginx's and Apache's error logs, syslog's old form, and
//! the access logs' `[25/Nov/2026:19:00:00 +0000]`. One without a zone is in the host's.

use chrono::{Datelike as _, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, TimeZone as _};

use crate::clock::Moment;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// What a stamp does not say itself.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    /// Syslog leaves the year out.
    pub(crate) now: Moment,
    /// Reads a time of the host's zone.
    pub(crate) local: fn(NaiveDateTime) -> Option<Moment>,
}

impl Clock {
    /// Returns the clock of this host.
    pub(crate) fn of_host(now: Moment) -> Clock {
        let local = |time: NaiveDateTime| {
            chrono::Local.from_local_datetime(&time).earliest().map(|time| time.to_utc())
        };
        Clock { now, local }
    }
}

/// Reads the stamp at the beginning of a line, and returns what follows it.
pub(crate) fn leading<'a>(line: &'a str, clock: &Clock) -> Option<(Moment, &'a str)> {
    let line = line.trim_start_matches(['[', '(', ' ']);
    iso(line, clock).or_else(|| named(line, clock))
}

/// Reads a whole text that is a stamp, such as a field of JSON.
pub(crate) fn alone(text: &str, clock: &Clock) -> Option<Moment> {
    iso(text.trim(), clock).map(|(at, _)| at)
}

/// Reads seconds, milliseconds, microseconds or nanoseconds since 1970: their size says which.
pub(crate) fn number(number: f64) -> Option<Moment> {
    let factor = match number {
        n if !(1e8..1e20).contains(&n) => return None,
        n if n < 1e11 => 1e6,
        n if n < 1e14 => 1e3,
        n if n < 1e17 => 1.0,
        _ => 1e-3,
    };
    #[expect(clippy::cast_possible_truncation, reason = "it is in the range of dates")]
    Moment::from_timestamp_micros((number * factor) as i64)
}

/// Reads `25/Nov/2026:19:00:00 +0000`, as it stands between brackets in an access log.
pub(crate) fn access(text: &str) -> Option<Moment> {
    let (day, rest) = text.split_once('/')?;
    let (month, rest) = rest.split_once('/')?;
    let (year, rest) = rest.split_once(':')?;
    let date = NaiveDate::from_ymd_opt(whole(year)?, month_of(month)?, whole(day)?)?;
    let (time, rest) = clock_time(rest)?;
    let (offset, _) = offset(rest.trim_start())?;
    Some(date.and_time(time).and_local_timezone(offset).single()?.to_utc())
}

/// `2026-11-25T19:00:00.123+01:00`, also with a blank, slashes, a comma, `UTC`, or no zone.
fn iso<'a>(text: &'a str, clock: &Clock) -> Option<(Moment, &'a str)> {
    let date = text.get(..10)?;
    let separator = date.get(4..5).filter(|c| matches!(*c, "-" | "/"))?;
    let mut parts = date.split(separator);
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let date = NaiveDate::from_ymd_opt(whole(year)?, whole(month)?, whole(day)?)?;
    let rest = text[10..].strip_prefix(['T', 't', ' ', '_'])?;
    let (time, rest) = clock_time(rest)?;
    let time = date.and_time(time);
    // PostgreSQL and Ruby put a blank before the zone.
    let unpadded = rest.strip_prefix(' ').unwrap_or(rest);
    match offset(unpadded) {
        Some((offset, rest)) => Some((time.and_local_timezone(offset).single()?.to_utc(), rest)),
        None => Some(((clock.local)(time)?, rest)),
    }
}

/// `Nov 25 19:00:00`, or Apache's `Wed Nov 25 19:00:00.123456 2026`.
fn named<'a>(text: &'a str, clock: &Clock) -> Option<(Moment, &'a str)> {
    let weekday = text.get(..3).filter(|day| WEEKDAYS.contains(day));
    let text = if weekday.is_some() { text[3..].strip_prefix(' ')? } else { text };
    let month = month_of(text.get(..3)?)?;
    let rest = text[3..].strip_prefix(' ')?.trim_start_matches(' ');
    let (day, rest) = rest.split_once(' ')?;
    let (time, rest) = clock_time(rest)?;
    let on = |year| Some(NaiveDate::from_ymd_opt(year, month, whole(day)?)?.and_time(time));
    if weekday.is_some()
        && let Some(year) = rest.strip_prefix(' ').and_then(|rest| rest.get(..4))
    {
        let rest = rest.get(5..)?;
        return Some(((clock.local)(on(whole(year)?)?)?, rest));
    }
    // In January December was last year; a stamp from tomorrow comes of another zone.
    let this_year = clock.now.year();
    let tomorrow = clock.now + chrono::TimeDelta::days(1);
    let at = on(this_year).and_then(clock.local).filter(|at| *at <= tomorrow);
    let at = at.or_else(|| on(this_year - 1).and_then(clock.local))?;
    Some((at, rest))
}

/// `19:00:00`, and a fraction, which nobody needs.
fn clock_time(text: &str) -> Option<(NaiveTime, &str)> {
    let time = text.get(..8)?;
    let mut parts = time.split(':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
    // A leap second is a second, too.
    let second = whole::<u32>(second)?.min(59);
    let time = NaiveTime::from_hms_opt(whole(hour)?, whole(minute)?, second)?;
    let rest = &text[8..];
    let digits = rest.strip_prefix(['.', ',']).unwrap_or("");
    let fraction = digits.trim_start_matches(|c: char| c.is_ascii_digit());
    Some((time, if fraction.len() < digits.len() { fraction } else { rest }))
}

/// `Z`, `UTC`, `GMT`, `+01`, `+0100` or `+01:00`.
fn offset(text: &str) -> Option<(FixedOffset, &str)> {
    for name in ["UTC", "GMT", "Z", "z"] {
        if let Some(rest) = text.strip_prefix(name)
            && !rest.starts_with(|c: char| c.is_alphanumeric())
        {
            return Some((FixedOffset::east_opt(0)?, rest));
        }
    }
    let sign = match text.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let hours: i32 = whole(text.get(1..3)?)?;
    let rest = &text[3..];
    let behind = rest.strip_prefix(':').unwrap_or(rest);
    let minutes = behind.get(..2).and_then(whole::<i32>);
    let rest = if minutes.is_some() { &behind[2..] } else { rest };
    let offset = sign * (hours * 3600 + minutes.unwrap_or(0) * 60);
    Some((FixedOffset::east_opt(offset)?, rest))
}

fn month_of(name: &str) -> Option<u32> {
    let at = MONTHS.iter().position(|month| *month == name)?;
    u32::try_from(at + 1).ok()
}

/// Reads digits alone: no sign, no blank.
fn whole<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A host in a zone one hour ahead, in January.
    pub(in crate::logs) fn clock() -> Clock {
        let local = |time: NaiveDateTime| Some(time.and_utc() - chrono::TimeDelta::hours(1));
        Clock { now: "2027-01-01T12:00:00Z".parse().unwrap(), local }
    }

    #[test]
    fn stamps_of_all_kinds_are_read() {
        let check = |line: &str, at: &str, rest: &str| {
            let found = leading(line, &clock());
            let (found, behind) = found.unwrap_or_else(|| panic!("{line}"));
            assert_eq!((found, behind), (at.parse::<Moment>().unwrap(), rest), "{line}");
        };
        let at = "2026-11-25T19:00:00Z";
        check("2026-11-25T19:00:00Z x", at, " x");
        check("2026-11-25T20:00:00.123456+01:00 host p: x", at, " host p: x");
        check("2026-11-25 19:00:00.123 UTC [17] LOG:  x", at, " [17] LOG:  x");
        check("2026-11-25 18:30:00 -0030 x", at, " x");
        check("2026-11-25 20:00:00.123 CET [17] ERROR:  x", at, " CET [17] ERROR:  x");
        check("2026-11-25 20:00:00,123 ERROR x", at, " ERROR x");
        check("[2026-11-25 20:00:00,123: ERROR/Main] x", at, ": ERROR/Main] x");
        check("2026/11/25 20:00:00 [error] 7#7: x", at, " [error] 7#7: x");
        check("Nov 25 20:00:00 host sshd[1]: x", at, " host sshd[1]: x");
        check("Nov  5 20:00:00 host x", "2026-11-05T19:00:00Z", " host x");
        check("Jan  1 12:30:00 host x", "2027-01-01T11:30:00Z", " host x");
        check("[Wed Nov 25 20:00:00.12 2026] [core:error] x", at, "] [core:error] x");
        assert_eq!(access("25/Nov/2026:20:00:00 +0100"), Some(at.parse().unwrap()));
        for micros in [1e0, 1e3, 1e6, 1e9] {
            assert_eq!(number(1_795_633_200.0 * micros), Some(at.parse().unwrap()));
        }
    }

    #[test]
    fn what_is_no_stamp_is_none() {
        for line in [
            "",
            "x",
            "2026",
            "2026-13-01 00:00:00",
            "2026-11-25",
            "Nov 99 00:00:00 x",
            "+2026-11-2 00:00:00",
            "20é6-11-25 19:00:00",
            "Wed Foo",
        ] {
            assert_eq!(leading(line, &clock()), None, "{line}");
        }
        assert_eq!((access("25/Nov"), number(7.0), number(f64::NAN)), (None, None, None));
    }
}
