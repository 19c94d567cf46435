//! How fast something grows, by what earlier reports noted in the history: a straight line through it. Pure.

use std::collections::BTreeMap;

use crate::clock::Moment;

/// What earlier reports noted of a database: figures by their paths, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Earlier(pub(crate) Vec<(Moment, BTreeMap<String, serde_json::Number>)>);

/// How fast something grows, in bytes; negative if it shrinks.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Growth {
    pub(crate) per_day: f64,
    /// What it will be in [`AHEAD`] days, if it goes on as before.
    pub(crate) projected: f64,
}

/// So many days a projection looks ahead.
pub(crate) const AHEAD: f64 = 90.0;
/// So much must have been seen before anything is said.
const LEAST_POINTS: usize = 3;
const LEAST_DAYS: f64 = 1.0;

impl Earlier {
    /// Returns what was noted under a path.
    pub(crate) fn figures(&self, path: &str) -> Vec<(Moment, f64)> {
        let figure = |(at, figures): &(Moment, BTreeMap<String, serde_json::Number>)| {
            Some((*at, figures.get(path)?.as_f64()?))
        };
        self.0.iter().filter_map(figure).collect()
    }

    /// Returns the last that was noted under a path, and when.
    pub(crate) fn last(&self, path: &str) -> Option<(Moment, f64)> {
        self.figures(path).pop()
    }
}

/// Returns how fast it grows; none if too little was seen to say.
pub(crate) fn growth(points: &[(Moment, f64)]) -> Option<Growth> {
    let first = points.iter().map(|(at, _)| *at).min()?;
    let day = |at: Moment| at.signed_duration_since(first).as_seconds_f64() / 86_400.0;
    let points: Vec<(f64, f64)> = points.iter().map(|(at, bytes)| (day(*at), *bytes)).collect();
    let (last, bytes) = points.iter().copied().max_by(|a, b| a.0.total_cmp(&b.0))?;
    if points.len() < LEAST_POINTS || last < LEAST_DAYS {
        return None;
    }
    let count = f64::from(u32::try_from(points.len()).ok()?);
    let mean_x = points.iter().map(|p| p.0).sum::<f64>() / count;
    let mean_y = points.iter().map(|p| p.1).sum::<f64>() / count;
    let xx: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let xy: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let per_day = xy / xx;
    Some(Growth { per_day, projected: (bytes + per_day * AHEAD).max(0.0) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(hours: i64) -> Moment {
        chrono::DateTime::from_timestamp(1_790_000_000 + hours * 3600, 0).unwrap()
    }

    #[test]
    fn little_was_seen_and_nothing_is_said() {
        assert_eq!(growth(&[]), None);
        assert_eq!(growth(&[(at(0), 1.0), (at(48), 2.0)]), None);
        assert_eq!(growth(&[(at(0), 1.0), (at(1), 2.0), (at(2), 3.0)]), None);
        assert_eq!(growth(&[(at(0), 1.0), (at(0), 2.0), (at(0), 3.0)]), None);
    }

    proptest! {
        #[test]
        fn what_grows_evenly_goes_on_so(begin in 1e6..1e12f64, per_day in 0.0..1e9f64, days in 2i64..60) {
            let points: Vec<_> = (0..=days).map(|day| {
                #[expect(clippy::cast_precision_loss, reason = "it is a small number")]
                let passed = day as f64;
                (at(day * 24), begin + per_day * passed)
            }).collect();
            let growth = growth(&points).unwrap();
            prop_assert!((growth.per_day - per_day).abs() <= 1e-3 * per_day.max(1.0));
            prop_assert!(growth.projected >= begin);
        }

        #[test]
        fn no_projection_is_negative_or_no_number(points in prop::collection::vec((0i64..9000, 0.0..1e15f64), 0..30)) {
            let points: Vec<_> = points.into_iter().map(|(hours, bytes)| (at(hours), bytes)).collect();
            if let Some(growth) = growth(&points) {
                prop_assert!(growth.per_day.is_finite() && growth.projected >= 0.0);
            }
        }
    }
}
