//! The way through a table: where the next batch begins, how it goes about it, and what it does about what is in the way. Pure.
//!
//! Page by page it deletes straight, which is fast and waits for locked rows, though not for long. Where that fails, it goes carefully for a
//! while: it locks the rows first and passes over those that somebody has. Along an index, and where the time is in another table, it is
//! always careful. Each batch begins where the last one ended, so that none looks again at what the ones before left dead.

use std::time::Duration;

use super::batch::Pace;

/// The most rows of a batch; more would take memory in the server for nothing.
const MOST_ROWS: u64 = 100_000;
const FIRST_ROWS: u64 = 500;
/// The most pages of a batch: 64 MiB.
const MOST_PAGES: u64 = 8192;
const FIRST_PAGES: u64 = 16;
/// How long deleting straight waits for a lock.
const SHORT_WAIT: Duration = Duration::from_millis(100);
/// The most batches that go carefully before straight is tried again.
const MOST_CAREFUL: u32 = 64;

/// Where a batch begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Position {
    /// At this row of this page.
    Page(u64, u64),
    /// At this time, as text; without one, at the first.
    Time(Option<String>),
}

/// How a batch goes about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Way {
    /// Deletes all that is expired in so many pages.
    Straight { pages: u64 },
    /// Locks at most so many rows of so many pages, and deletes them.
    Careful { rows: u64, pages: u64 },
    /// Locks at most so many rows in the order of an index, and deletes them.
    Along { rows: u64 },
}

/// A walk through one table that holds rows.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    position: Position,
    /// How many pages the table has.
    end: u64,
    rows: Pace,
    pages: Pace,
    target: Duration,
    /// Must it lock the rows first?
    locks: bool,
    /// How many batches are to go carefully yet.
    careful: u32,
    /// How many will, when straight fails again.
    next_careful: u32,
}

impl Walk {
    /// Begins, along an index or page by page, and there straight unless it must lock the rows first.
    pub(super) fn new(target: Duration, end: u64, along: bool, locks: bool) -> Walk {
        let position = if along { Position::Time(None) } else { Position::Page(0, 0) };
        Walk {
            position,
            end,
            rows: Pace::new(target, FIRST_ROWS, MOST_ROWS),
            pages: Pace::new(target, FIRST_PAGES, MOST_PAGES),
            target,
            locks,
            careful: 0,
            next_careful: 1,
        }
    }

    /// Has it come to the end of the table?
    pub(super) fn is_over(&self) -> bool {
        matches!(self.position, Position::Page(page, _) if page >= self.end)
    }

    pub(super) fn position(&self) -> &Position {
        &self.position
    }

    pub(super) fn way(&self) -> Way {
        let rows = self.rows.size();
        match self.position {
            Position::Time(_) => Way::Along { rows },
            Position::Page(..) if self.locks || self.careful > 0 => {
                Way::Careful { rows, pages: self.pages.size() }
            }
            Position::Page(..) => Way::Straight { pages: self.pages.size() },
        }
    }

    /// Returns how long the batch may wait for a lock, and how long it may take: twice what it should, unless there is no less.
    pub(super) fn limits(&self, wait: Duration, time: Duration) -> (Duration, Duration) {
        let (pace, wait) = match self.way() {
            Way::Straight { .. } => (&self.pages, SHORT_WAIT),
            Way::Careful { .. } | Way::Along { .. } => (&self.rows, wait),
        };
        (wait, if pace.is_least() { time } else { time.min(self.target * 2) })
    }

    /// Learns from a batch that was carried out, and goes on behind it. Returns false at the end of an index.
    pub(super) fn went(&mut self, chosen: u64, last: Option<&str>, elapsed: Duration) -> bool {
        match (self.way(), &self.position) {
            (Way::Straight { pages }, Position::Page(page, _)) => {
                self.pages.took(elapsed);
                self.next_careful = 1;
                self.position = Position::Page(page + pages, 0);
            }
            (Way::Careful { rows, pages }, Position::Page(page, _)) => {
                self.rows.took(elapsed);
                self.careful = self.careful.saturating_sub(1);
                self.position = match last.and_then(place) {
                    Some((page, row)) if chosen >= rows => Position::Page(page, row + 1),
                    _ => Position::Page(page + pages, 0),
                };
            }
            (Way::Along { rows }, _) => {
                self.rows.took(elapsed);
                if chosen < rows {
                    return false;
                }
                let last = Position::Time(last.map(str::to_owned));
                // A whole batch of one time, of which there may be more than a batch can have: page by page there is a next one.
                let stays = self.position == last;
                self.position = if stays { Position::Page(0, 0) } else { last };
            }
            _ => {}
        }
        true
    }

    /// Learns that a batch failed, because of a lock or for another passing reason. Returns whether something was passed over.
    pub(super) fn failed(&mut self, locked: bool) -> bool {
        match (self.way(), &self.position) {
            (Way::Straight { .. }, _) => {
                if locked || self.pages.is_least() {
                    self.careful = self.next_careful;
                    self.next_careful = (self.next_careful * 2).min(MOST_CAREFUL);
                } else {
                    self.pages.failed();
                }
                false
            }
            _ if !self.rows.is_least() => {
                self.rows.failed();
                false
            }
            (_, Position::Page(page, _)) => {
                self.position = Position::Page(page + 1, 0);
                true
            }
            // Past what is in the way there is no way along the index.
            (_, Position::Time(_)) => {
                self.position = Position::Page(0, 0);
                true
            }
        }
    }
}

/// Reads a `ctid`, such as `(17,4)`.
fn place(text: &str) -> Option<(u64, u64)> {
    let (page, row) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
    Some((page.parse().ok()?, row.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TARGET: Duration = Duration::from_millis(500);

    #[test]
    fn a_batch_begins_where_the_last_one_ended() {
        let mut walk = Walk::new(TARGET, 100, false, false);
        assert_eq!(walk.way(), Way::Straight { pages: 16 });
        assert!(walk.went(7, None, TARGET));
        assert_eq!(walk.position(), &Position::Page(16, 0));
        walk.failed(true);
        let Way::Careful { rows, pages } = walk.way() else { panic!("{walk:?}") };
        walk.went(rows, Some("(17,4)"), TARGET);
        assert_eq!((walk.position(), pages), (&Position::Page(17, 5), 12));
        walk.failed(true);
        walk.went(1, Some("(18,4)"), TARGET);
        assert_eq!(walk.position(), &Position::Page(29, 0));
        let mut walk = Walk::new(TARGET, 100, true, false);
        assert!(walk.went(500, Some("2026-11-21 02:00:00+00"), TARGET));
        assert_eq!(walk.position(), &Position::Time(Some("2026-11-21 02:00:00+00".to_owned())));
        assert!(!walk.went(3, Some("2026-11-21 02:00:00+00"), TARGET));
        let Way::Along { rows } = walk.way() else { panic!("{walk:?}") };
        assert!(walk.went(rows, Some("2026-11-21 02:00:00+00"), TARGET));
        assert_eq!(walk.position(), &Position::Page(0, 0));
    }

    #[test]
    fn a_row_that_cannot_go_is_tried_alone_and_passed_over() {
        for along in [false, true] {
            let mut walk = Walk::new(TARGET, 100, along, false);
            let tries = (0..100).take_while(|_| !walk.failed(true)).count();
            assert!(tries < 10, "{tries}");
            let behind = u64::from(!along);
            assert_eq!(walk.position(), &Position::Page(behind, 0));
        }
    }

    #[test]
    fn only_the_smallest_batch_may_take_longer_than_twice_the_target() {
        let (wait, time) = (Duration::from_secs(1), Duration::from_secs(15));
        let mut walk = Walk::new(TARGET, 100, false, false);
        assert_eq!(walk.limits(wait, time), (SHORT_WAIT, TARGET * 2));
        walk.failed(false);
        walk.failed(false);
        assert_eq!(walk.limits(wait, time), (SHORT_WAIT, time));
        walk.failed(false);
        assert_eq!(walk.limits(wait, time), (wait, TARGET * 2));
    }

    #[test]
    fn places_are_read() {
        assert_eq!(place("(0,1)"), Some((0, 1)));
        assert_eq!(place("(4294967295,65535)"), Some((4_294_967_295, 65_535)));
        for wrong in ["", "()", "(1)", "1,2", "(a,b)"] {
            assert_eq!(place(wrong), None);
        }
    }

    proptest! {
        /// Whatever fails, it comes to the end, and never goes back.
        #[test]
        fn it_comes_to_the_end(fates in prop::collection::vec((0u8..4, 0u64..2_000_000, 0u64..300), 1..200), end in 0u64..5000, locks: bool) {
            let mut walk = Walk::new(TARGET, end, false, locks);
            let place = |walk: &Walk| match walk.position() {
                Position::Page(page, row) => (*page, *row),
                Position::Time(_) => unreachable!(),
            };
            let mut fates = fates.iter().cycle();
            let mut steps = 0;
            while !walk.is_over() {
                let (fate, micros, row) = fates.next().unwrap();
                let before = place(&walk);
                let is_straight = matches!(walk.way(), Way::Straight { .. });
                prop_assert!(!(locks && is_straight));
                match fate {
                    0 => { walk.failed(true); }
                    1 => { walk.failed(false); }
                    _ => {
                        let chosen = if let Way::Careful { rows, .. } = walk.way() { rows } else { 0 };
                        let last = format!("({},{})", before.0, before.1 + row);
                        walk.went(chosen, Some(&last), Duration::from_micros(*micros));
                    }
                }
                prop_assert!(place(&walk) >= before);
                steps += 1;
                // Batches that are full to the brim all on one page would be many.
                prop_assume!(steps < 20_000);
            }
        }
    }
}
