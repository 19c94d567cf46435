//! How many rows a table has, how many are expired, and from when to when: counted once, within a time, or estimated.

use std::time::{Duration, Instant};

use postgres::error::SqlState;
use postgres::types::ToSql;

use crate::clock::Moment;
use crate::config::Time;
use crate::db::{Connection, Error};
use crate::sessions::catalogue::{Leaf, Relation};
use crate::sessions::expired::{Expired, Value, YEAR_2000, quote_table, unit};
use crate::sessions::rule::Rule;
use crate::sessions::{LOOK_LOCK_TIMEOUT, LOOK_TIMEOUT, limits, unsigned};
use crate::stop::Stop;

/// Epochs outside of these years are of another unit: 2000 and 2100, in seconds.
const PLAUSIBLE: std::ops::Range<i128> = YEAR_2000 as i128..4_102_444_800;
/// Where the whole is too much, the times of so many rows are looked at.
const SAMPLE: &str = "100000";

/// What a table looks like at the cutoff.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub(crate) struct Figures {
    pub(crate) rows: u64,
    pub(crate) expired: u64,
    /// Rows that never expire, because they have no time.
    pub(crate) without_time: u64,
    /// The first and last time, as the column has them.
    pub(crate) earliest: Option<String>,
    pub(crate) latest: Option<String>,
    /// Are the numbers the server's estimates, because to count took too long?
    pub(crate) estimated: bool,
}

/// Why nothing is known of how much is expired.
pub(super) enum NoFigures {
    /// The rule's condition is wrong.
    Condition(String),
    /// It took too long to count, and there are no statistics.
    NoEstimate(String),
}

/// Counts, within a time.
pub(super) fn figures(
    connection: &mut Connection,
    rule: &Rule,
    relation: &Relation,
    cutoff: Moment,
    stop: &Stop,
) -> Result<Result<Figures, NoFigures>, Error> {
    let failed =
        |e| Error::query(format!("count the expired rows of {}", rule.name), e).or_stopped(stop);
    let began = Instant::now();
    let mut figures = Figures::default();
    for leaf in &relation.leaves {
        let expired = Expired::new(rule, &leaf.name);
        let Expired { by_page, dated, all, .. } = &expired;
        // The rule's condition may be wrong, and says so here.
        let counts = format!(
            "SELECT count(*), count(*) FILTER (WHERE {by_page}), count(*) FILTER (WHERE {dated} IS NULL), \
             min({dated})::text, max({dated})::text FROM {all}"
        );
        let values = expired.values(cutoff);
        let parameters: Vec<_> = values.iter().map(Value::as_sql).collect();
        let left = LOOK_TIMEOUT.saturating_sub(began.elapsed());
        let counted = if left.is_zero() {
            None
        } else {
            match look(connection, &counts, &parameters, left) {
                Ok(rows) => rows.into_iter().next(),
                Err(e) if is_timeout(&e) && stop.reason().is_none() => None,
                Err(e) => {
                    let error = failed(e);
                    let reason = bad_condition(&error).map(NoFigures::Condition);
                    return reason.map(Err).ok_or(error);
                }
            }
        };
        let of_leaf = match counted {
            Some(row) => Figures {
                rows: unsigned(row.get(0)),
                expired: unsigned(row.get(1)),
                without_time: unsigned(row.get(2)),
                earliest: row.get(3),
                latest: row.get(4),
                estimated: false,
            },
            None if leaf.rows == 0 && leaf.pages > 0 => {
                return Ok(Err(NoFigures::NoEstimate(format!(
                    "how much is expired could not be counted in {} s, nor can it be estimated: ANALYZE {}",
                    LOOK_TIMEOUT.as_secs(),
                    quote_table(&leaf.name)
                ))));
            }
            None => estimate(connection, &expired, leaf, cutoff).map_err(failed)?,
        };
        figures.add(&of_leaf, &rule.time);
    }
    Ok(Ok(figures))
}

/// Asks within a time.
fn look(
    connection: &mut Connection,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
    timeout: Duration,
) -> Result<Vec<postgres::Row>, postgres::Error> {
    let mut transaction = connection.transaction()?;
    transaction.batch_execute(&limits(LOOK_LOCK_TIMEOUT, timeout))?;
    let rows = transaction.query(sql, parameters)?;
    transaction.commit()?;
    Ok(rows)
}

fn is_timeout(error: &postgres::Error) -> bool {
    error.code() == Some(&SqlState::QUERY_CANCELED)
}

/// Says why an error is that of a condition in the configuration, if it is one.
pub(crate) fn bad_condition(error: &Error) -> Option<String> {
    let code = error.sqlstate().filter(|code| **code != SqlState::INSUFFICIENT_PRIVILEGE)?;
    let source = std::error::Error::source(error)?;
    code.code().starts_with("42").then(|| format!("its condition cannot be used: {source}"))
}

/// Asks the planner, and a few rows for their times.
fn estimate(
    connection: &mut Connection,
    expired: &Expired,
    leaf: &Leaf,
    cutoff: Moment,
) -> Result<Figures, postgres::Error> {
    let Expired { dated, source, by_index, .. } = expired;
    let values = expired.values(cutoff);
    let parameters: Vec<_> = values.iter().map(Value::as_sql).collect();
    let explain = format!("EXPLAIN SELECT FROM {source} WHERE {by_index}");
    // The first line of several is about the whole.
    let explained = look(connection, &explain, &parameters, LOOK_TIMEOUT)?;
    let line: String = explained.first().map(|row| row.get(0)).unwrap_or_default();
    let rows = line.split("rows=").nth(1).and_then(|text| text.split(' ').next()?.parse().ok());
    let sample = format!(
        "SELECT min(s.at)::text, max(s.at)::text FROM (SELECT {dated} AS at FROM {source} LIMIT {SAMPLE}) AS s"
    );
    let sample = look(connection, &sample, &[], LOOK_TIMEOUT)?;
    let sampled = |column| sample.first().and_then(|row| row.get(column));
    Ok(Figures {
        rows: leaf.rows,
        expired: rows.unwrap_or(leaf.rows).min(leaf.rows),
        without_time: 0,
        earliest: sampled(0),
        latest: sampled(1),
        estimated: true,
    })
}

impl Figures {
    fn add(&mut self, other: &Figures, time: &Time) {
        self.rows += other.rows;
        self.expired += other.expired;
        self.without_time += other.without_time;
        self.estimated |= other.estimated;
        // Numbers are compared as numbers, times by their text, which is in order.
        let less = |a: &str, b: &str| match time {
            Time::EpochSeconds | Time::EpochMilliseconds => number(a) < number(b),
            _ => a < b,
        };
        if let Some(earliest) = &other.earliest
            && self.earliest.as_ref().is_none_or(|mine| less(earliest, mine))
        {
            self.earliest = Some(earliest.clone());
        }
        if let Some(latest) = &other.latest
            && self.latest.as_ref().is_none_or(|mine| less(mine, latest))
        {
            self.latest = Some(latest.clone());
        }
    }
}

fn number(text: &str) -> i128 {
    text.parse().unwrap_or(0)
}

/// Says why the first or last of some numbers is no epoch of the unit.
pub(crate) fn implausible<'a>(
    time: &Time,
    values: impl IntoIterator<Item = &'a Option<String>>,
) -> Option<String> {
    let factor = i128::from(unit(time)?);
    let mut values = values.into_iter().flatten().map(|text| number(text));
    let outside = values.find(|n| !PLAUSIBLE.contains(&(n / factor)));
    outside.map(|n| {
        format!("{n} is no time from 2000 to 2100 as `{}`: is it another unit?", time.word())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_another_unit_are_implausible() {
        let of = |earliest: &str, latest: &str, time: &Time| {
            let text = |text: &str| Some(text.to_owned());
            implausible(time, &[text(earliest), text(latest)]).is_some()
        };
        assert!(!of("1700000000", "1800000000", &Time::EpochSeconds));
        assert!(of("1700000000000", "1800000000000", &Time::EpochSeconds));
        assert!(of("1700000000", "1800000000", &Time::EpochMilliseconds));
        assert!(!of("1700000000000", "1800000000000", &Time::EpochMilliseconds));
        assert!(of("0", "1800000000", &Time::EpochSeconds));
        assert!(!of("0", "0", &Time::Timestamptz));
        assert!(implausible(&Time::EpochSeconds, &[None, None]).is_none());
    }

    #[test]
    fn the_figures_of_partitions_add_up() {
        let part = |earliest: &str, latest: &str| Figures {
            earliest: Some(earliest.to_owned()),
            latest: Some(latest.to_owned()),
            estimated: latest == "20",
            rows: 10,
            expired: 4,
            ..Figures::default()
        };
        let mut sum = Figures::default();
        for of in [part("9", "11"), part("10", "20"), Figures::default()] {
            sum.add(&of, &Time::EpochSeconds);
        }
        assert_eq!((sum.rows, sum.expired, sum.estimated), (20, 8, true));
        assert_eq!((sum.earliest.as_deref(), sum.latest.as_deref()), (Some("9"), Some("20")));
    }
}
