//! How much one transaction takes, so that it takes as long as it should. Pure.

use std::time::Duration;

/// The pace of a run on one table, in rows or in pages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pace {
    /// How long a batch should take.
    target: Duration,
    size: u64,
    most: u64,
}

impl Pace {
    /// Begins with few, because nothing is known yet.
    pub(super) fn new(target: Duration, first: u64, most: u64) -> Pace {
        Pace { target, size: first, most }
    }

    /// Returns how much the next batch may take.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Is it as small as can be?
    pub(super) fn is_least(&self) -> bool {
        self.size == 1
    }

    /// Learns from a batch that was carried out: at most twice as much the next time, and at least a quarter.
    ///
    /// It aims a little below the target, because some batches always take longer than the one before.
    pub(super) fn took(&mut self, elapsed: Duration) {
        let target = self.target.as_secs_f64() * 0.8;
        let factor = (target / elapsed.as_secs_f64().max(1e-6)).clamp(0.25, 2.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "it is from 0 to twice the most"
        )]
        let size = (self.size as f64 * factor) as u64;
        self.size = size.clamp(1, self.most);
    }

    /// Learns that a batch could not be carried out.
    pub(super) fn failed(&mut self) {
        self.size = (self.size / 8).max(1);
    }
}

/// Returns how long to rest after a batch.
pub(super) fn pause(elapsed: Duration, percent: u32) -> Duration {
    elapsed.saturating_mul(percent) / 100
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TARGET: Duration = Duration::from_millis(500);

    #[test]
    fn it_settles_where_a_batch_takes_as_long_as_it_should() {
        let mut pace = Pace::new(TARGET, 500, 100_000);
        for _ in 0..20 {
            // 20 µs a row.
            pace.took(Duration::from_micros(20 * pace.size()));
        }
        assert_eq!(pace.size(), 20_000);
    }

    proptest! {
        #[test]
        fn it_never_grows_to_more_than_twice_nor_out_of_its_limits(
            times in prop::collection::vec(0u64..20_000_000, 1..50),
        ) {
            let mut pace = Pace::new(TARGET, 500, 100_000);
            for micros in times {
                let before = pace.size();
                pace.took(Duration::from_micros(micros));
                prop_assert!(pace.size() <= before * 2 && (1..=100_000).contains(&pace.size()));
                // What took too long takes less the next time, unless there is no less.
                if micros > 500_000 {
                    prop_assert!(pace.size() < before || pace.is_least());
                }
            }
        }

        #[test]
        fn the_pause_is_a_part_of_the_time(micros in 0u64..20_000_000, percent in 0u32..=1000) {
            let elapsed = Duration::from_micros(micros);
            let expected = elapsed.as_secs_f64() * f64::from(percent) / 100.0;
            prop_assert!((pause(elapsed, percent).as_secs_f64() - expected).abs() < 1e-6);
        }
    }
}
