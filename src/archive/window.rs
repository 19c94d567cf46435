//! Which times are over and can be archived: whole windows before a cutoff that is fixed once.
//!
//! Pure: what is covered already, and how old the oldest row is, are arguments.

use std::time::Duration;

use chrono::{Datelike as _, Days, Months, NaiveTime, TimeDelta};

use crate::clock::Moment;
use crate::config::AuditWindow;

/// More windows than these are not planned: a row of the year 1 is a mistake, and not 24 000 windows.
const MAX_WINDOWS: usize = 5000;

/// A time from a moment until another, which does not belong to it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, serde::Serialize,
)]
#[serde(deny_unknown_fields)]
pub(crate) struct Window {
    pub(crate) from: Moment,
    pub(crate) to: Moment,
}

/// The windows would be too many, from the oldest row on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there are more than {MAX_WINDOWS} windows since the oldest row, of {0}: is its time right?"
)]
pub(crate) struct TooMany(Moment);

/// Returns the moment before which windows are closed.
pub(crate) fn cutoff(now: Moment, hot: Duration, period: AuditWindow) -> Option<Moment> {
    let hot = TimeDelta::from_std(hot).ok()?;
    begin(now.checked_sub_signed(hot)?, period)
}

/// Returns since when the first window is old enough that begins where an archive ends.
pub(crate) fn due_since(end: Moment, hot: Duration, period: AuditWindow) -> Option<Moment> {
    next(end, period)?.checked_add_signed(TimeDelta::from_std(hot).ok()?)
}

/// Returns the windows that are closed and not covered yet, in their order.
pub(crate) fn closed(
    oldest: Option<Moment>,
    covered: &[Window],
    cutoff: Moment,
    period: AuditWindow,
) -> Result<Vec<Window>, TooMany> {
    let mut covered = covered.to_vec();
    covered.sort_unstable();
    let first = covered.first().map(|window| window.from);
    let oldest = oldest.and_then(|oldest| begin(oldest, period));
    let Some(mut from) = oldest.into_iter().chain(first).min() else { return Ok(Vec::new()) };
    let begun = from;
    let mut windows = Vec::new();
    let mut covered = covered.into_iter().peekable();
    while from < cutoff {
        if let Some(known) = covered.next_if(|known| known.from <= from) {
            from = from.max(known.to);
            continue;
        }
        let Some(end) = next(from, period) else { break };
        let to = covered.peek().map_or(end, |known| end.min(known.from)).min(cutoff);
        windows.push(Window { from, to });
        if windows.len() > MAX_WINDOWS {
            return Err(TooMany(begun));
        }
        from = to;
    }
    Ok(windows)
}

/// Puts windows into an order in which what is covered has no gap whenever the work ends: those before it from the newest to the oldest,
/// then those behind it.
pub(crate) fn without_gap(windows: Vec<Window>, covered: &[Window]) -> Vec<Window> {
    let first = covered.iter().map(|window| window.from).min();
    let is_before = |window: &Window| first.is_some_and(|first| window.from < first);
    let (mut windows, behind): (Vec<Window>, Vec<Window>) =
        windows.into_iter().partition(is_before);
    windows.reverse();
    windows.extend(behind);
    windows
}

/// Returns the beginning of the period that a moment is in.
fn begin(moment: Moment, period: AuditWindow) -> Option<Moment> {
    let day = moment.date_naive();
    let day = match period {
        AuditWindow::Day => day,
        AuditWindow::Month => day.with_day(1)?,
    };
    Some(day.and_time(NaiveTime::MIN).and_utc())
}

/// Returns the beginning of the next period.
fn next(moment: Moment, period: AuditWindow) -> Option<Moment> {
    let begin = begin(moment, period)?;
    match period {
        AuditWindow::Day => begin.checked_add_days(Days::new(1)),
        AuditWindow::Month => begin.checked_add_months(Months::new(1)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = 86_400;

    fn moment(text: &str) -> Moment {
        format!("{text}T00:00:00Z").parse().unwrap()
    }

    fn window(from: &str, to: &str) -> Window {
        Window { from: moment(from), to: moment(to) }
    }

    #[test]
    fn windows_grow_from_what_is_covered() {
        let months =
            ["2024-01-01", "2024-02-01", "2024-03-01", "2024-04-01", "2024-05-01", "2024-06-01"];
        let windows: Vec<Window> = months.windows(2).map(|w| window(w[0], w[1])).collect();
        let pick = |order: &[usize]| order.iter().map(|n| windows[*n]).collect::<Vec<_>>();
        assert_eq!(without_gap(pick(&[0, 1, 3, 4]), &pick(&[2])), pick(&[1, 0, 3, 4]));
        assert_eq!(without_gap(pick(&[0, 1]), &[]), pick(&[0, 1]));
    }

    #[test]
    fn a_window_is_due_when_its_last_row_is_old_enough() {
        let due = |end, period| due_since(moment(end), Duration::from_secs(30 * DAY), period);
        assert_eq!(due("2026-09-01", AuditWindow::Month), Some(moment("2026-10-31")));
        assert_eq!(due("2026-09-01", AuditWindow::Day), Some(moment("2026-10-02")));
        let month = Duration::from_secs(30 * DAY);
        assert!(
            cutoff(moment("2026-10-31"), month, AuditWindow::Month) >= Some(moment("2026-10-01"))
        );
    }

    #[test]
    fn only_whole_windows_before_the_cutoff() {
        let now = "2026-11-26T03:00:00Z".parse().unwrap();
        let at = |days: u64, period| cutoff(now, Duration::from_secs(days * DAY), period).unwrap();
        assert_eq!(at(30, AuditWindow::Month), moment("2026-10-01"));
        assert_eq!(at(25, AuditWindow::Month), moment("2026-11-01"));
        assert_eq!(at(1, AuditWindow::Day), moment("2026-11-25"));
        let oldest = Some("2026-08-17T11:00:00Z".parse().unwrap());
        let windows = closed(oldest, &[], moment("2026-10-01"), AuditWindow::Month);
        let expected = [window("2026-08-01", "2026-09-01"), window("2026-09-01", "2026-10-01")];
        assert_eq!(windows.unwrap(), expected);
    }

    #[test]
    fn what_is_covered_is_not_covered_again_even_by_other_periods() {
        let covered = [window("2026-08-01", "2026-08-03"), window("2026-09-01", "2026-10-01")];
        let windows =
            closed(Some(moment("2026-07-31")), &covered, moment("2026-11-01"), AuditWindow::Month);
        let expected = [
            window("2026-07-01", "2026-08-01"),
            window("2026-08-03", "2026-09-01"),
            window("2026-10-01", "2026-11-01"),
        ];
        assert_eq!(windows.unwrap(), expected);
        assert_eq!(closed(None, &[], moment("2026-11-01"), AuditWindow::Day).unwrap(), []);
    }

    #[test]
    fn a_row_of_the_year_1_is_a_mistake() {
        closed(Some(moment("0001-01-01")), &[], moment("2026-11-01"), AuditWindow::Month)
            .unwrap_err();
    }

    proptest! {
        #[test]
        fn every_moment_is_in_exactly_one_window(
            oldest in 0..900_u64, cutoff in 0..900_u64,
            covered in proptest::collection::btree_set(0..900_u64, 0..6), month in any::<bool>(),
        ) {
            let period = if month { AuditWindow::Month } else { AuditWindow::Day };
            let day = |n: u64| moment("2024-01-01") + Days::new(n);
            let edges: Vec<u64> = covered.into_iter().collect();
            let pairs = edges.chunks_exact(2);
            let covered: Vec<Window> = pairs.map(|pair| Window { from: day(pair[0]), to: day(pair[1]) }).collect();
            let new = closed(Some(day(oldest)), &covered, day(cutoff), period).unwrap();
            for n in 0..900 {
                let within = |windows: &[Window]| windows.iter().filter(|w| w.from <= day(n) && day(n) < w.to).count();
                let wanted = n >= oldest && n < cutoff;
                if wanted {
                    prop_assert_eq!(within(&new) + within(&covered), 1, "{}", n);
                } else {
                    prop_assert!(within(&new) == 0 || n < cutoff && within(&covered) == 0);
                }
            }
        }
    }
}
