//! PostgreSQL's text of a value, as the settings of an export fix it, as the value that stands in a Parquet file. Pure.
//!
//! `None` is what the type cannot hold: infinity, NaN, 24:00, and whatever else is not as expected.

/// Reads digits only; `str::parse` would take a sign.
fn digits(text: &str) -> Option<i64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// Reads `t` or `f`.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "t" => Some(true),
        "f" => Some(false),
        _ => None,
    }
}

/// Returns the days since 1970 of a day in the Gregorian calendar, which is extended to all times as PostgreSQL does. Year 0 is 1 BC.
///
/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0);
    let last = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return None,
    };
    if !(1..=last).contains(&day) {
        return None;
    }
    // Years begin in March, so that the odd day is their last.
    let year = if month <= 2 { year - 1 } else { year };
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    Some(year.div_euclid(400) * 146_097 + day_of_era - 719_468)
}

/// Takes ` BC` from the end.
fn era(text: &str) -> (&str, bool) {
    text.strip_suffix(" BC").map_or((text, false), |text| (text, true))
}

fn calendar_day(text: &str, before_christ: bool) -> Option<i64> {
    let mut parts = text.splitn(3, '-').map(digits);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let year = if before_christ { 1 - year } else { year };
    days(year, month, day)
}

/// Reads a `date` as days since 1970.
pub(in crate::archive) fn date(text: &str) -> Option<i32> {
    let (text, before_christ) = era(text);
    i32::try_from(calendar_day(text, before_christ)?).ok()
}

/// Reads a `time` as microseconds since midnight.
fn time(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(w, f)| (w, Some(f)));
    let mut parts = whole.splitn(3, ':').map(digits);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let micros = match fraction {
        None => 0,
        Some(text) if text.len() <= 6 => {
            let missing = u32::try_from(6 - text.len()).ok()?;
            digits(text)? * 10_i64.pow(missing)
        }
        Some(_) => return None,
    };
    Some(((hour * 60 + minute) * 60 + second) * 1_000_000 + micros)
}

/// Reads a `timestamp`, or in a session in UTC a `timestamptz`, as microseconds since 1970.
pub(in crate::archive) fn timestamp(text: &str, utc: bool) -> Option<i64> {
    let (text, before_christ) = era(text);
    let text = if utc { text.strip_suffix("+00")? } else { text };
    let (day, of_day) = text.split_once(' ')?;
    let days = calendar_day(day, before_christ)?;
    days.checked_mul(86_400_000_000)?.checked_add(time(of_day)?)
}

/// Reads a `numeric(…, scale)` as a whole number of its last digit.
pub(super) fn decimal(text: &str, scale: u8) -> Option<i128> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() != usize::from(scale) || whole.is_empty() {
        return None;
    }
    let all = whole.bytes().chain(fraction.bytes());
    let value = all.into_iter().try_fold(0_i128, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| i128::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })?;
    Some(if negative { -value } else { value })
}

/// Reads a `bytea` in hexadecimal, and adds its bytes to others; what it adds of one that it refuses counts for nothing.
pub(super) fn bytes(text: &[u8], to: &mut Vec<u8>) -> Option<()> {
    let nibble = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.strip_prefix(b"\\x")?.as_chunks::<2>();
    for [high, low] in pairs {
        to.push(nibble(*high)? << 4 | nibble(*low)?);
    }
    rest.is_empty().then_some(())
}

#[cfg(test)]
mod tests {
    use chrono::{Datelike as _, NaiveDate};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_types_cannot_hold_is_none() {
        for text in ["infinity", "-infinity", "", "2026-02-30", "2026-13-01", "+2026-01-01"] {
            assert_eq!(date(text), None, "{text}");
        }
        for text in ["24:00:00", "23:59:60", "1:2", "01:02:03.1234567", "01:02:03."] {
            assert_eq!(time(text), None, "{text}");
        }
        assert_eq!(timestamp("infinity", true), None);
        // PostgreSQL counts from 2000 and so comes thirty years further.
        assert_eq!(timestamp("294276-12-31 23:59:59.999999+00", true), None);
        // Another zone than the session's.
        assert_eq!(timestamp("2026-11-26 02:00:00+01", true), None);
        for text in ["NaN", "Infinity", "1.2", "1.234", ".25", "1e5", "--1.00"] {
            assert_eq!(decimal(text, 2), None, "{text}");
        }
    }

    #[test]
    fn values_are_read() {
        assert_eq!(date("1970-01-01"), Some(0));
        assert_eq!(date("0001-12-31 BC"), Some(-719_163));
        assert_eq!(date("4714-11-24 BC"), Some(-2_440_588));
        assert_eq!(time("23:59:59.5"), Some(86_399_500_000));
        assert_eq!(timestamp("1970-01-02 00:00:00.000001+00", true), Some(86_400_000_001));
        assert_eq!(timestamp("1969-12-31 23:59:59.999999", false), Some(-1));
        assert_eq!(timestamp("10000-01-01 00:00:00", false), Some(253_402_300_800_000_000));
        assert_eq!(timestamp("4714-11-24 00:00:00+00 BC", true), Some(-2_440_588 * 86_400_000_000));
        assert_eq!(decimal("-12.50", 2), Some(-1250));
        assert_eq!(decimal(&"9".repeat(38), 0), Some(10_i128.pow(38) - 1));
        let mut data = vec![1];
        assert_eq!(bytes(b"\\x00ff7f", &mut data), Some(()));
        assert_eq!(data, [1, 0, 255, 127]);
        assert_eq!(bytes(b"\\x0", &mut data), None);
        assert_eq!((bytes(b"\\x00zz", &mut data), data.len()), (None, 5));
    }

    proptest! {
        #[test]
        fn days_are_those_of_the_calendar(days in -90_000_000_i32..90_000_000) {
            let day = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap() + chrono::TimeDelta::days(days.into());
            let text = match day.year() {
                year @ 1.. => format!("{year:04}-{:02}-{:02}", day.month(), day.day()),
                year => format!("{:04}-{:02}-{:02} BC", 1 - year, day.month(), day.day()),
            };
            prop_assert_eq!(date(&text), Some(days));
        }

        #[test]
        fn whatever_it_is_it_is_read_or_refused(text in "[-0-9: .+BCa-f\\\\x]{0,40}") {
            let _ = (date(&text), time(&text), timestamp(&text, true), decimal(&text, 2));
            bytes(text.as_bytes(), &mut Vec::new());
        }
    }
}
