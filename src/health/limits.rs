//! From which number on something is bad. Pure.
//!
//! A limit itself is still good, as in the ranges of monitoring plugins. What was bad becomes good again only when it is
//! well on the good side, so that a number that trembles around its limit does not alarm at every run.

use super::Outcome;

/// How far beyond the limit a number must be to have recovered, as a part of the limit.
const RECOVERY: f64 = 0.05;

/// From where on a number is a warning, and critical.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    pub(crate) warning: Option<f64>,
    pub(crate) critical: Option<f64>,
    pub(crate) bad: Bad,
}

/// On which side of a limit a number is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    Above,
    Below,
}

impl Bad {
    /// Returns its name as it is written in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Bad::Above => "above",
            Bad::Below => "below",
        }
    }
}

impl Limits {
    /// Nothing is bad.
    pub(crate) const NONE: Limits = Limits { warning: None, critical: None, bad: Bad::Above };

    /// Bad above these.
    pub(crate) const fn above(warning: f64, critical: f64) -> Limits {
        Limits { warning: Some(warning), critical: Some(critical), bad: Bad::Above }
    }

    /// Bad below these.
    pub(crate) const fn below(warning: f64, critical: f64) -> Limits {
        Limits { warning: Some(warning), critical: Some(critical), bad: Bad::Below }
    }

    /// Judges a number; `before` is how it was judged the last time.
    ///
    /// A number that is none is unknown.
    pub(crate) fn judge(&self, number: f64, before: Option<Outcome>) -> Outcome {
        if number.is_nan() {
            return Outcome::Unknown;
        }
        let passes = |limit: Option<f64>, was: bool| {
            limit.is_some_and(|limit| {
                let margin = if was { limit.abs() * RECOVERY } else { 0.0 };
                match self.bad {
                    Bad::Above => number > limit - margin,
                    Bad::Below => number < limit + margin,
                }
            })
        };
        let was_critical = before == Some(Outcome::Critical);
        let was_bad = was_critical || before == Some(Outcome::Warning);
        if passes(self.critical, was_critical) {
            Outcome::Critical
        } else if passes(self.warning, was_bad) {
            Outcome::Warning
        } else {
            Outcome::Ok
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_that_trembles_around_its_limit_changes_nothing() {
        let limits = Limits::above(80.0, 90.0);
        let judge = |number, before| limits.judge(number, before);
        assert_eq!(judge(80.0, None), Outcome::Ok);
        assert_eq!(judge(80.1, Some(Outcome::Ok)), Outcome::Warning);
        assert_eq!(judge(79.9, Some(Outcome::Warning)), Outcome::Warning);
        assert_eq!(judge(75.9, Some(Outcome::Warning)), Outcome::Ok);
        assert_eq!(judge(90.1, Some(Outcome::Warning)), Outcome::Critical);
        assert_eq!(judge(89.9, Some(Outcome::Critical)), Outcome::Critical);
        assert_eq!(judge(85.0, Some(Outcome::Critical)), Outcome::Warning);
        assert_eq!(judge(f64::NAN, None), Outcome::Unknown);
        let left = Limits::below(15.0, 5.0);
        assert_eq!(left.judge(15.0, None), Outcome::Ok);
        assert_eq!(left.judge(15.5, Some(Outcome::Warning)), Outcome::Warning);
        assert_eq!(left.judge(4.0, None), Outcome::Critical);
        assert_eq!(Limits::NONE.judge(f64::INFINITY, None), Outcome::Ok);
        // Where any is too many, none is well.
        let none = Limits { warning: None, critical: Some(0.0), bad: Bad::Above };
        assert_eq!(none.judge(0.0, Some(Outcome::Critical)), Outcome::Ok);
    }

    proptest! {
        #[test]
        fn having_been_bad_never_makes_it_better(
            warning in -1e9..1e9_f64, distance in 0.0..1e9_f64, number in -2e9..2e9_f64,
        ) {
            for limits in [Limits::above(warning, warning + distance), Limits::below(warning, warning - distance)] {
                let fresh = limits.judge(number, None);
                for before in Outcome::WORST_FIRST {
                    prop_assert!(limits.judge(number, Some(before)) >= fresh);
                }
                prop_assert_eq!(limits.judge(number, Some(Outcome::Ok)), fresh);
            }
        }
    }
}
