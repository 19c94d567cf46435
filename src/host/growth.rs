//! When a file system will be full, if it goes on as before: a straight line through what was seen. Pure.

use crate::clock::Moment;

/// So much must have been seen before anything is said.
const LEAST_POINTS: usize = 8;
const LEAST_DAYS: f64 = 1.0;
/// How much of what the figures vary by the line must explain: a disk that is filled and emptied every day follows none.
const LEAST_EXPLAINED: f64 = 0.5;

/// Returns in how many days the available bytes are used up; none if that is not to be seen.
///
/// `used` are earlier figures and the newest one, in any order.
pub(crate) fn days_until_full(used: &[(Moment, f64)], available: f64) -> Option<f64> {
    let first = used.iter().map(|(at, _)| *at).min()?;
    let day = |at: Moment| at.signed_duration_since(first).as_seconds_f64() / 86_400.0;
    let points: Vec<(f64, f64)> = used.iter().map(|(at, used)| (day(*at), *used)).collect();
    let last = points.iter().map(|(x, _)| *x).fold(0.0, f64::max);
    if points.len() < LEAST_POINTS || last < LEAST_DAYS {
        return None;
    }
    let count = f64::from(u32::try_from(points.len()).ok()?);
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|p| p.0), mean(|p| p.1));
    let sum = |of: &dyn Fn(f64, f64) -> f64| {
        points.iter().map(|(x, y)| of(x - mean_x, y - mean_y)).sum::<f64>()
    };
    let (xx, xy, yy) = (sum(&|x, _| x * x), sum(&|x, y| x * y), sum(&|_, y| y * y));
    if xx <= 0.0 || yy <= 0.0 || xy * xy / (xx * yy) < LEAST_EXPLAINED {
        return None;
    }
    let per_day = xy / xx;
    (per_day > 0.0).then_some(available / per_day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(hour: u32) -> Moment {
        let first: Moment = "2026-11-01T00:00:00Z".parse().unwrap();
        first + chrono::TimeDelta::hours(i64::from(hour))
    }

    fn line(hours: u32, per_day: f64) -> Vec<(Moment, f64)> {
        (0..hours).map(|hour| (at(hour), 1000.0 + per_day * f64::from(hour) / 24.0)).collect()
    }

    #[test]
    fn what_grows_is_full_one_day() {
        let days = days_until_full(&line(48, 10.0), 50.0).unwrap();
        assert!((days - 5.0).abs() < 1e-6, "{days}");
        // It shrinks, it stays, and it is filled and emptied every day.
        assert_eq!(days_until_full(&line(48, -10.0), 50.0), None);
        assert_eq!(days_until_full(&line(48, 0.0), 50.0), None);
        let saw: Vec<_> = (0..240).map(|hour| (at(hour), f64::from(hour % 24))).collect();
        assert_eq!(days_until_full(&saw, 50.0), None);
    }

    #[test]
    fn little_was_seen_and_nothing_is_said() {
        assert_eq!(days_until_full(&[], 50.0), None);
        assert_eq!(days_until_full(&line(24, 10.0), 50.0), None);
        let few: Vec<_> = line(200, 10.0).into_iter().step_by(30).collect();
        assert_eq!(days_until_full(&few, 50.0), None);
    }

    proptest! {
        #[test]
        fn a_line_is_found_again(hours in 30_u32..500, per_day in 1.0_f64..1e9, days in 0.1_f64..1e3, noise in 0.0_f64..0.01) {
            let mut points = line(hours, per_day);
            for (n, (_, used)) in points.iter_mut().enumerate() {
                *used += if n % 2 == 0 { noise * per_day } else { -noise * per_day };
            }
            let found = days_until_full(&points, days * per_day).unwrap();
            prop_assert!((found / days - 1.0).abs() < 0.05, "{found} {days}");
        }

        #[test]
        fn no_figures_make_it_panic(points in prop::collection::vec((0_u32..1000, any::<f64>()), 0..40), available in any::<f64>()) {
            let points: Vec<_> = points.into_iter().map(|(hour, used)| (at(hour), used)).collect();
            days_until_full(&points, available);
        }
    }
}
