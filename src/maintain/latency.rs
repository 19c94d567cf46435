//! What the application's own latency says of a run: as usual, slower, or so slow for so long that the run has to end. Pure.

use std::collections::VecDeque;
use std::time::Duration;

/// So many probes in a row are judged together: one that is slow says nothing.
const JUDGED: usize = 10;
/// Whoever waits no longer than this does not suffer, whatever the percentage.
const UNNOTICED: Duration = Duration::from_millis(20);
/// For so many probes it may be too slow before what runs is cancelled: what ends by itself meanwhile need not be.
const PATIENCE: u32 = 10;
/// For so many it may be while nothing runs: then somebody else is at work, who may come to an end.
const LONG_PATIENCE: u32 = 150;

/// What the probe takes.
#[derive(Clone, Debug)]
pub(super) struct Latency {
    usual: Duration,
    last: VecDeque<Duration>,
    /// How many probes in a row it has been too slow.
    slow: u32,
}

/// What follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    Usual,
    /// Nothing more is to be begun for now.
    Wait(String),
    /// It has to end.
    End(String),
}

impl Latency {
    /// Begins with what was measured before anything was done.
    pub(super) fn new(mut before: Vec<Duration>) -> Latency {
        Latency { usual: median(&mut before), last: VecDeque::new(), slow: 0 }
    }

    /// Adds a measurement and judges the last ones as a whole, in percent of what is usual.
    pub(super) fn judge(&mut self, took: Duration, max_percent: u32, is_working: bool) -> Pace {
        self.last.push_back(took);
        if self.last.len() <= JUDGED {
            return Pace::Usual;
        }
        self.last.pop_front();
        let now = median(&mut self.last.iter().copied().collect::<Vec<_>>());
        let limit = (self.usual * max_percent / 100).max(UNNOTICED);
        if now <= limit {
            self.slow = 0;
            return Pace::Usual;
        }
        self.slow += 1;
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        let what = format!(
            "the probe takes {:.1} ms, and {:.1} ms before anything was done",
            milliseconds(now),
            milliseconds(self.usual)
        );
        let patience = if is_working { PATIENCE } else { LONG_PATIENCE };
        if self.slow < patience { Pace::Wait(what) } else { Pace::End(what) }
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn latency_that_doubles_is_waited_for_and_ends_what_runs_if_it_stays_so() {
        let mut latency = Latency::new(vec![ms(30); 15]);
        let mut judge = |took, is_working| latency.judge(ms(took), 200, is_working);
        for _ in 0..JUDGED + 5 {
            assert_eq!(judge(59, true), Pace::Usual);
        }
        // One that is slow says nothing.
        assert_eq!(judge(5000, true), Pace::Usual);
        let slow: Vec<Pace> = (0..JUDGED).map(|_| judge(61, true)).collect();
        let Pace::Wait(what) = slow.iter().find(|pace| **pace != Pace::Usual).unwrap() else {
            panic!("{slow:?}")
        };
        assert!(what.contains("takes 61.0 ms, and 30.0 ms before"), "{what}");
        // Nothing is at work any more: it is waited for longer, until it is as usual.
        assert!((0..100).all(|_| matches!(judge(61, false), Pace::Wait(_))));
        assert_eq!((0..JUDGED).map(|_| judge(30, false)).last(), Some(Pace::Usual));
        let at_work: Vec<Pace> = (0..30).map(|_| judge(70, true)).collect();
        assert!(matches!(at_work.last(), Some(Pace::End(_))), "{at_work:?}");
        assert!(at_work.iter().filter(|pace| matches!(pace, Pace::Wait(_))).count() == 9);
    }

    proptest! {
        #[test]
        fn what_is_as_usual_never_stops(usual in 1u64..1000, times in prop::collection::vec(0.5..1.9f64, 0..60)) {
            let mut latency = Latency::new(vec![ms(usual); 15]);
            for factor in times {
                prop_assert_eq!(latency.judge(ms(usual).mul_f64(factor), 200, true), Pace::Usual);
            }
        }
    }
}
