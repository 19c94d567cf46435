//! How much of an index or a table is waste: against the best that was seen, else an estimate. Pure.
//!
//! An index that was built anew once is compared with what it was then, and with nothing else: an estimate that is wrong would otherwise
//! have it built anew every night.

/// Bytes for each entry of an index.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Best {
    pub(crate) ratio: f64,
    /// Is it that of an index that had just been built?
    pub(crate) fresh: bool,
}

/// With fewer entries the figures say little.
const FEW: f64 = 1000.0;
/// Pointer and header of an entry in a btree.
const ENTRY: f64 = 12.0;
/// Pointer and header of a row.
const ROW: f64 = 28.0;
/// A page, less its header and what a btree keeps at its end.
const PAGE_USED: f64 = 8192.0 - 24.0 - 16.0;

/// Returns the bytes for each entry; none if there are too few to say.
pub(crate) fn ratio(bytes: u64, entries: f64) -> Option<f64> {
    (entries >= FEW).then(|| super::need::approximate(bytes) / entries)
}

/// Returns what an entry of a btree takes when it has just been built, by the width of its values.
///
/// Entries of equal values are kept together since version 13, so it is often less, and never more than a little.
pub(crate) fn expected(width: f64, fillfactor: u32) -> f64 {
    let share = f64::from(fillfactor.clamp(10, 100)) / 100.0;
    (ENTRY + aligned(width)) * 8192.0 / PAGE_USED / share
}

/// Returns what a row of a table takes when it has just been written.
pub(crate) fn expected_row(width: f64, fillfactor: f64) -> f64 {
    (ROW + aligned(width)) * 8192.0 / (8192.0 - 24.0) / (fillfactor.clamp(10.0, 100.0) / 100.0)
}

fn aligned(width: f64) -> f64 {
    (width / 8.0).ceil() * 8.0
}

/// Returns how much is waste, in percent.
pub(crate) fn waste(current: f64, best: Option<Best>, expected: Option<f64>) -> Option<f64> {
    let against = |good: f64| (100.0 * (1.0 - good / current)).clamp(0.0, 100.0);
    match (best, expected) {
        (Some(Best { ratio, fresh: true }), _) => Some(against(ratio)),
        (None, None) => None,
        (best, expected) => {
            let best = best.map_or(0.0, |best| against(best.ratio));
            Some(expected.map_or(best, |expected| best.max(against(expected))))
        }
    }
}

/// Returns the best of what was seen before and what is seen now.
pub(crate) fn better(before: Option<Best>, now: f64) -> Best {
    match before {
        Some(before) if before.ratio <= now => before,
        Some(before) => Best { ratio: now, ..before },
        None => Best { ratio: now, fresh: false },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_estimate_counts_only_until_the_index_was_built_anew() {
        let best = |ratio, fresh| Some(Best { ratio, fresh });
        let waste = |best, expected| waste(40.0, best, expected).map(f64::round);
        assert_eq!(waste(None, None), None);
        assert_eq!(waste(best(20.0, false), None), Some(50.0));
        assert_eq!(waste(best(40.0, false), Some(22.0)), Some(45.0));
        assert_eq!(waste(best(40.0, true), Some(22.0)), Some(0.0));
        assert_eq!(waste(best(80.0, true), None), Some(0.0));
    }

    #[test]
    fn a_btree_on_integers_is_expected_as_it_is() {
        // 1,000,000 integers of four bytes: 21.4 MiB on every server from 13 on, if they are all different.
        let bytes = expected(4.0, 90) * 1e6;
        assert!((bytes / 22_487_040.0 - 1.0).abs() < 0.02, "{bytes}");
        assert_eq!((ratio(100, 10.0), ratio(20_000, 1000.0)), (None, Some(20.0)));
    }

    proptest! {
        #[test]
        fn waste_is_a_share_and_the_best_never_gets_worse(
            current in 1.0..1e6f64, known in 1.0..1e6f64, fresh: bool, expected in prop::option::of(1.0..1e6f64), has_best: bool,
        ) {
            let best = has_best.then_some(Best { ratio: known, fresh });
            if let Some(waste) = waste(current, best, expected) {
                prop_assert!((0.0..=100.0).contains(&waste));
            }
            let better = better(best, current);
            prop_assert!(better.ratio <= current && (!has_best || better.ratio <= known && better.fresh == fresh));
        }
    }
}
