//! Cron's five fields in the words of others: as `OnCalendar=` of systemd, and in numbers alone.

use crate::config::{Fields, Times};

/// Returns the five fields without names: not every program takes them in lists and ranges.
pub(super) fn cron(times: &Times) -> String {
    let text = times.to_string();
    let fields = times.fields();
    let numbers = [&fields.minutes, &fields.hours, &fields.days, &fields.months, &fields.weekdays];
    let plain = text.split(' ').zip(numbers).map(|(field, numbers)| {
        if field.contains(|c: char| c.is_ascii_alphabetic()) {
            list(numbers, "-", usize::to_string)
        } else {
            field.to_owned()
        }
    });
    plain.collect::<Vec<_>>().join(" ")
}

/// Returns the values of `OnCalendar=` that together mean the same; see systemd.time(7).
pub(super) fn on_calendar(times: &Times) -> Vec<String> {
    let Fields { minutes, hours, days, months, weekdays, either_day } = times.fields();
    let two = |numbers: &[u16], all: usize| {
        let is_all = numbers.len() == all;
        if is_all { "*".to_owned() } else { list(numbers, "..", |n| format!("{n:02}")) }
    };
    let time = format!("{}:{}:00", two(&hours, 24), two(&minutes, 60));
    let (month, day) = (two(&months, 12), two(&days, 31));
    let names = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    let names: Vec<_> =
        weekdays.iter().filter_map(|n| names.get(usize::from(*n)).copied()).collect();
    let weekday = if names.len() == 7 { String::new() } else { format!("{} ", names.join(",")) };
    if either_day {
        vec![format!("*-{month}-{day} {time}"), format!("{weekday}*-{month}-* {time}")]
    } else {
        vec![format!("{weekday}*-{month}-{day} {time}")]
    }
}

/// Lists numbers, three and more in a row as a range.
fn list(numbers: &[u16], to: &str, write: impl Fn(&usize) -> String) -> String {
    let mut parts = Vec::new();
    for run in numbers.chunk_by(|a, b| a + 1 == *b) {
        match run {
            [first, _, .., last] => {
                let [first, last] = [first, last].map(|n| write(&usize::from(*n)));
                parts.push(format!("{first}{to}{last}"));
            }
            few => parts.extend(few.iter().map(|n| write(&usize::from(*n)))),
        }
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_the_same_in_other_words() {
        for (text, numbers, expected) in [
            ("0 2 * * *", "0 2 * * *", "*-*-* 02:00:00"),
            ("45  * * * *", "45 * * * *", "*-*-* *:45:00"),
            ("*/15 * * * *", "*/15 * * * *", "*-*-* *:00,15,30,45:00"),
            ("0 7 * * sat", "0 7 * * 6", "Sat *-*-* 07:00:00"),
            ("0 7 * * 7", "0 7 * * 7", "Sun *-*-* 07:00:00"),
            ("* 1-3,22,23 * jan,JUL *", "* 1-3,22,23 * 1,7 *", "*-01,07-* 01..03,22,23:*:00"),
            (
                "0 0 1 * mon-fri",
                "0 0 1 * 1-5",
                "*-*-01 00:00:00 | Mon,Tue,Wed,Thu,Fri *-*-* 00:00:00",
            ),
            ("0 0 1-31 * 0-6", "0 0 1-31 * 0-6", "*-*-* 00:00:00 | *-*-* 00:00:00"),
        ] {
            let times = Times::from(text);
            assert_eq!(cron(&times), numbers, "{text}");
            assert_eq!(on_calendar(&times).join(" | "), expected, "{text}");
            assert_eq!(Times::from(numbers).fields(), times.fields(), "{text}");
        }
    }
}
