//! When the rows of a segment are not to be deleted, whatever is in it. Pure: what is known is given.

use std::time::Duration;

use chrono::TimeDelta;

use crate::archive::hold::Said;
use crate::archive::retention::Kept;
use crate::clock::Moment;
use crate::text;

/// What is known of a segment.
pub(super) struct Known<'k> {
    pub(super) now: Moment,
    /// When it was written: the later one of what its manifest and what its storage says.
    pub(super) written_at: Moment,
    pub(super) min_age: Duration,
    /// A hold that covers it.
    pub(super) hold: Option<&'k Said>,
    pub(super) kept: Option<&'k Kept>,
    /// Until when its storage refuses to remove it, where it was told to.
    pub(super) locked_until: Option<Lock>,
}

/// Until when all objects of a segment are locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lock {
    Until(Moment),
    /// One of them is not.
    Missing,
}

/// Why rows stay.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "because", rename_all = "lowercase")]
pub(crate) enum Stay {
    /// It is not time yet, or somebody said so: nothing is wrong.
    Wait { why: String },
    /// Something has to be changed first.
    Refused { why: String },
}

impl Stay {
    /// Returns the reason.
    pub(crate) fn why(&self) -> &str {
        match self {
            Stay::Wait { why } | Stay::Refused { why } => why,
        }
    }
}

/// Returns why the rows of a segment are not to be deleted, if so.
pub(super) fn why_not(known: &Known<'_>) -> Option<Stay> {
    let day = |moment: Moment| moment.format("%Y-%m-%d").to_string();
    let wait = |why: String| Some(Stay::Wait { why });
    if let Some(hold) = known.hold {
        return wait(format!("the legal hold `{}` is in force ({})", hold.hold, hold.why));
    }
    let age = known.now - known.written_at;
    let min_age = TimeDelta::from_std(known.min_age).unwrap_or(TimeDelta::MAX);
    if age < min_age {
        let (age, min_age) = (text::duration(age), text::duration(min_age));
        return wait(format!("the segment is {age} old, and {min_age} are needed"));
    }
    let kept = known.kept?;
    if known.now < kept.hot_until {
        return wait(format!(
            "its rows are to be at hand until {} ({})",
            day(kept.hot_until),
            kept.source
        ));
    }
    let needed = day(kept.until);
    match known.locked_until {
        Some(Lock::Until(until)) if until < kept.until => Some(Stay::Refused {
            why: format!(
                "its lock ends on {}, and the archive must be kept until {needed} ({})",
                day(until),
                kept.source
            ),
        }),
        Some(Lock::Missing) => Some(Stay::Refused {
            why: format!(
                "it is not locked, and the archive must be kept until {needed} ({})",
                kept.source
            ),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::archive::hold::Action;

    fn day(n: i64) -> Moment {
        Moment::UNIX_EPOCH + TimeDelta::days(20_000 + n)
    }

    proptest! {
        #[test]
        fn nothing_goes_while_any_condition_fails(
            age in -5..30_i64, min_age in 7..20_u64, held in any::<bool>(), hot in -10..10_i64, until in -400..400_i64,
            lock in proptest::option::of(proptest::option::of(-400..400_i64)), is_kept in any::<bool>(),
        ) {
            let hold = Said {
                action: Action::Add, hold: "x".into(), from: None, to: None, why: String::new(), who: String::new(), at: day(0),
            };
            let kept = Kept { until: day(until), hot_until: day(hot), source: "s".into() };
            let known = Known {
                now: day(0), written_at: day(-age), min_age: Duration::from_secs(min_age * 86_400), hold: held.then_some(&hold),
                kept: is_kept.then_some(&kept),
                locked_until: lock.map(|lock| lock.map_or(Lock::Missing, |n| Lock::Until(day(n)))),
            };
            let may_go = !held && age >= i64::try_from(min_age).unwrap()
                && (!is_kept || hot <= 0 && lock.is_none_or(|lock| lock.is_some_and(|n| n >= until)));
            prop_assert_eq!(why_not(&known).is_none(), may_go);
        }
    }
}
