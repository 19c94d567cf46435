//! What a cleaning has left, counted within a time.

use std::time::Instant;

use crate::db::{Connection, Error};
use crate::sessions::expired::{Expired, Value};
use crate::sessions::plan::Cleaning;
use crate::sessions::{LOOK_LOCK_TIMEOUT, LOOK_TIMEOUT, is_passing, limits, unsigned};
use crate::stop::Stop;

/// Which rows are counted: all, or whether there is one at all that nobody has locked.
#[derive(Clone, Copy)]
pub(super) enum Count {
    All,
    Free,
}

/// Counts what is expired and still there, if that can be done in time: without an index that is full of what is dead now.
pub(super) fn left(
    connection: &mut Connection,
    cleaning: &Cleaning,
    (walked_pages, which): (bool, Count),
    stop: &Stop,
) -> Result<Option<u64>, Error> {
    let failed = |e| Error::query("count what is left", e).or_stopped(stop);
    let began = Instant::now();
    let mut sum = 0;
    for (leaf, _) in cleaning.leaves() {
        let expired = Expired::new(cleaning.rule(), &leaf.name);
        let left = LOOK_TIMEOUT.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        let values = expired.values(cleaning.cutoff());
        let parameters: Vec<_> = values.iter().map(Value::as_sql).collect();
        let condition = if walked_pages { &expired.by_page } else { &expired.by_index };
        let Expired { source, locked, .. } = &expired;
        let sql = match which {
            Count::All => format!("SELECT count(*) FROM {source} WHERE {condition}"),
            Count::Free => format!(
                "SELECT count(*) FROM (SELECT FROM {source} WHERE {condition} LIMIT 1 FOR UPDATE OF {locked} SKIP LOCKED) AS f"
            ),
        };
        let mut count = || {
            let mut transaction = connection.transaction()?;
            transaction.batch_execute(&limits(LOOK_LOCK_TIMEOUT, left))?;
            let row = transaction.query_one(&sql, &parameters)?;
            transaction.commit()?;
            Ok(unsigned(row.get(0)))
        };
        match count() {
            Ok(count) => sum += count,
            Err(error) if is_passing(&error) && stop.reason().is_none() => return Ok(None),
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(Some(sum))
}
