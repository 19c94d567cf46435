//! A few of the rows that a rule would delete, for a review: by the hash of their key, because the key itself may be somebody's token.

use crate::db::{Connection, Error, quote_identifier};
use crate::sessions::expired::{Expired, Value};
use crate::sessions::plan::Cleaning;
use crate::sessions::{LOCK_TIMEOUT, catalogue, is_passing, limits};
use crate::stop::Stop;

/// How many rows are shown.
const MOST: usize = 3;
/// How long it may take to find them.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// Some of the expired rows.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub(crate) struct Sample {
    /// The columns of the primary key; without one there is nothing to show.
    pub(crate) key: Vec<String>,
    /// The SHA-256 of the key as text, columns joined by commas, in hexadecimal.
    pub(crate) sha256: Vec<String>,
}

/// Looks for a few expired rows; there are fewer if they are not found soon.
pub(crate) fn sample(
    connection: &mut Connection,
    cleaning: &Cleaning,
    stop: &Stop,
) -> Result<Sample, Error> {
    let key = catalogue::primary_key(connection, cleaning.relation().oid)?;
    let mut sample = Sample { key, sha256: Vec::new() };
    if sample.key.is_empty() {
        return Ok(sample);
    }
    let columns = sample.key.iter().map(|column| format!("t.{}::text", quote_identifier(column)));
    let text = format!("concat_ws(',', {})", columns.collect::<Vec<_>>().join(", "));
    for (leaf, _) in cleaning.leaves() {
        let expired = Expired::new(cleaning.rule(), &leaf.name);
        let sql = format!(
            "SELECT pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to({text}, 'UTF8')), 'hex') FROM {} WHERE {} LIMIT {}",
            expired.source,
            expired.by_index,
            MOST - sample.sha256.len()
        );
        let values = expired.values(cleaning.cutoff());
        let parameters: Vec<_> = values.iter().map(Value::as_sql).collect();
        let mut look = || {
            let mut transaction = connection.transaction()?;
            transaction.batch_execute(&limits(LOCK_TIMEOUT, TIMEOUT))?;
            transaction.query(&sql, &parameters)
        };
        match look() {
            Ok(rows) => sample.sha256.extend(rows.iter().map(|row| row.get::<_, String>(0))),
            Err(error) if is_passing(&error) && stop.reason().is_none() => break,
            Err(error) => {
                let what = format!("look at expired rows of {}", cleaning.relation().name);
                return Err(Error::query(what, error).or_stopped(stop));
            }
        }
        if sample.sha256.len() >= MOST {
            break;
        }
    }
    Ok(sample)
}
