//! What earlier runs noted in the history: how small indexes were, since when invalid ones are there, which were being built. Pure.
//!
//! Each run takes the notes of the last one along, so that only the last that came to its end, and those that were killed after it,
//! have to be read. Indexes are known by name where they outlive a rebuild, and by number where they do not.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};

use super::bloat::Best;
use crate::clock::Moment;

/// Numbers by their paths, as the history has them.
pub(crate) type Figures = BTreeMap<String, Number>;

/// An index that a run began to build anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) table: u32,
    pub(crate) index: u32,
    pub(crate) began: Moment,
}

/// How fast statements were, in bytes per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rates {
    pub(crate) vacuum: f64,
    pub(crate) analyze: f64,
    pub(crate) reindex: f64,
}

impl Default for Rates {
    fn default() -> Rates {
        Rates { vacuum: 1e8, analyze: 1e8, reindex: 2e7 }
    }
}

/// What is remembered of a database.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Past {
    /// By schema and name.
    pub(crate) best: BTreeMap<String, Best>,
    /// When an invalid index was first seen, by its number.
    pub(crate) seen: BTreeMap<u32, Moment>,
    /// What was begun, and is not known to have come to its end.
    pub(crate) work: Vec<Work>,
    pub(crate) rates: Rates,
}

const MEMORY: &str = "memory.";
/// Stands among the notes of a run that came to its end.
const WHOLE: &str = "memory.whole";
/// More indexes than this are not remembered; the largest are.
const MOST: usize = 500;

impl Past {
    /// Reads the notes of runs, oldest first.
    pub(crate) fn of<'f>(runs: impl IntoIterator<Item = &'f Figures>) -> Past {
        let mut past = Past::default();
        for figures in runs {
            if figures.contains_key(WHOLE) {
                past = Past { rates: past.rates, ..Past::default() };
            }
            past.add(figures);
        }
        past
    }

    fn add(&mut self, figures: &Figures) {
        for (path, number) in figures {
            let Some(value) = number.as_f64() else { continue };
            let at = || chrono::DateTime::from_timestamp(number.as_i64()?, 0);
            match path.as_str() {
                "rates.vacuum" if value > 0.0 => self.rates.vacuum = value,
                "rates.analyze" if value > 0.0 => self.rates.analyze = value,
                "rates.reindex" if value > 0.0 => self.rates.reindex = value,
                _ => {}
            }
            let Some((kind, name)) = path.strip_prefix(MEMORY).and_then(|p| p.split_once('.'))
            else {
                continue;
            };
            match kind {
                "best" | "fresh" => {
                    let best = Best { ratio: value, fresh: kind == "fresh" };
                    self.best.insert(name.to_owned(), best);
                }
                "seen" => {
                    if let (Ok(oid), Some(at)) = (name.parse(), at()) {
                        self.seen.insert(oid, at);
                    }
                }
                "work" => {
                    let numbers = name.split_once('.');
                    let numbers =
                        numbers.and_then(|(t, i)| Some((t.parse().ok()?, i.parse().ok()?)));
                    if let (Some((table, index)), Some(began)) = (numbers, at()) {
                        self.work.push(Work { table, index, began });
                    }
                }
                _ => {}
            }
        }
    }

    /// Writes it down for the next run: below `memory` in what goes into the history.
    pub(crate) fn notes(&self) -> Value {
        let mut notes = Map::from_iter([("whole".to_owned(), Value::from(1))]);
        let mut add = |kind: &str, entries: Map<String, Value>| {
            notes.insert(kind.to_owned(), Value::Object(entries));
        };
        let best = |fresh| {
            let those = self.best.iter().filter(move |(_, best)| best.fresh == fresh).take(MOST);
            those.map(|(name, best)| (name.clone(), Value::from(best.ratio))).collect()
        };
        add("best", best(false));
        add("fresh", best(true));
        let seen = self.seen.iter().take(MOST);
        add("seen", seen.map(|(oid, at)| (oid.to_string(), Value::from(at.timestamp()))).collect());
        add("work", self.work.iter().map(Work::note).collect());
        Value::Object(notes)
    }
}

impl Work {
    fn note(&self) -> (String, Value) {
        (format!("{}.{}", self.table, self.index), Value::from(self.began.timestamp()))
    }

    /// Returns what is noted before the work begins, should the run not come to its end.
    pub(crate) fn figures(works: &[Work]) -> Figures {
        let figure = |work: &Work| {
            let (name, _) = work.note();
            (format!("{MEMORY}work.{name}"), Number::from(work.began.timestamp()))
        };
        works.iter().map(figure).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn figures(notes: &Value) -> Figures {
        crate::history::figures(&serde_json::json!({ "memory": notes }))
    }

    fn at(seconds: i64) -> Moment {
        chrono::DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn a_killed_run_adds_to_what_the_last_whole_one_noted() {
        let work = |index| Work { table: 1, index, began: at(50) };
        let whole = Past { work: vec![work(2)], ..Past::default() };
        let runs = [figures(&whole.notes()), Work::figures(&[work(3)])];
        assert_eq!(Past::of(&runs).work, [work(2), work(3)]);
        let after = [runs[0].clone(), runs[1].clone(), figures(&Past::default().notes())];
        assert_eq!(Past::of(&after), Past::default());
    }

    proptest! {
        #[test]
        fn notes_are_read_as_they_were_written(
            best in prop::collection::btree_map(".{1,20}", (1.0..1e9f64, any::<bool>()), 0..10),
            seen in prop::collection::btree_map(any::<u32>(), 0i64..1 << 32, 0..10),
            work in prop::collection::btree_set((any::<u32>(), any::<u32>()), 0..4),
        ) {
            let past = Past {
                best: best.into_iter().map(|(name, (ratio, fresh))| (name, Best { ratio, fresh })).collect(),
                seen: seen.into_iter().map(|(oid, seconds)| (oid, at(seconds))).collect(),
                work: work.into_iter().map(|(table, index)| Work { table, index, began: at(7) }).collect(),
                rates: Rates::default(),
            };
            let mut read = Past::of([&figures(&past.notes())]);
            read.work.sort_by_key(|work| (work.table, work.index));
            prop_assert_eq!(read, past);
        }

        #[test]
        fn nothing_that_was_noted_otherwise_makes_it_panic(paths in prop::collection::vec("memory\\.[a-z]{1,5}\\..{0,9}", 0..9), n: i64) {
            let figures: Figures = paths.into_iter().map(|path| (path, Number::from(n))).collect();
            Past::of([&figures]);
        }
    }
}
