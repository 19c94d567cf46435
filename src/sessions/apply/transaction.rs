//! One transaction of a cleaning: which statement it is, and what it did.

use crate::config::Time;
use crate::db::Connection;
use crate::sessions::catalogue::Leaf;
use crate::sessions::expired::{Expired, Value, changes_children, delete_all, delete_chosen};
use crate::sessions::plan::Cleaning;
use crate::sessions::walk::{Position, Walk, Way};
use crate::sessions::{BATCH_TIMEOUT, LOCK_TIMEOUT, limits, unsigned};

/// What one transaction did.
pub(super) struct Batch {
    pub(super) chosen: u64,
    pub(super) deleted: u64,
    pub(super) children: u64,
    /// The place of the last row that was chosen.
    pub(super) last: Option<String>,
}

/// Carries one transaction out.
///
/// Rows are chosen in the order of their places, or those before the last one would be passed over; where no other table is asked for
/// the time, they come in that order by themselves.
pub(super) fn carry_out(
    connection: &mut Connection,
    cleaning: &Cleaning,
    leaf: &Leaf,
    expired: &Expired,
    walk: &Walk,
) -> Result<Batch, postgres::Error> {
    let rule = cleaning.rule();
    let mut values = expired.values(cleaning.cutoff());
    let mut value = |text: String| {
        values.push(Value::Text(text));
        format!("${}::text", values.len())
    };
    let mut place = |page: u64, row: u64, pages: u64| {
        let (from, to) = (format!("({page},{row})"), format!("({},0)", page + pages));
        format!("t.ctid >= {}::tid AND t.ctid < {}::tid", value(from), value(to))
    };
    let Expired { time, source, locked, .. } = expired;
    let sql = match (walk.way(), walk.position()) {
        (Way::Straight { pages }, Position::Page(page, row)) => {
            delete_all(&leaf.name, expired, &place(*page, *row, pages), &rule.children)
        }
        (Way::Careful { rows, pages }, Position::Page(page, row)) => {
            let order = if rule.via.is_some() { "ORDER BY t.ctid " } else { "" };
            let chosen = format!(
                "SELECT t.ctid, t.ctid AS at FROM {source} WHERE {} AND {} {order}LIMIT {rows} \
                 FOR UPDATE OF {locked} SKIP LOCKED",
                place(*page, *row, pages),
                expired.by_page
            );
            delete_chosen(&leaf.name, &chosen, &rule.children)
        }
        (way, position) => {
            let since = match position {
                Position::Time(Some(at)) => {
                    format!("{time} >= {}::{} AND ", value(at.clone()), sql_type(&rule.time))
                }
                _ => String::new(),
            };
            let rows = if let Way::Along { rows } = way { rows } else { 1 };
            let chosen = format!(
                "SELECT t.ctid, {time} AS at FROM {source} WHERE {since}{} ORDER BY {time} LIMIT {rows} \
                 FOR UPDATE OF {locked} SKIP LOCKED",
                expired.by_index
            );
            delete_chosen(&leaf.name, &chosen, &rule.children)
        }
    };
    let parameters: Vec<_> = values.iter().map(Value::as_sql).collect();
    let (wait, timeout) = walk.limits(LOCK_TIMEOUT, BATCH_TIMEOUT);
    let mut transaction = connection.transaction()?;
    transaction.batch_execute(&limits(wait, timeout))?;
    let is_straight = matches!(walk.way(), Way::Straight { .. });
    let batch = if is_straight && !changes_children(&rule.children) {
        // Without a word about each row it takes half as long.
        let deleted = transaction.execute(&sql, &parameters)?;
        Batch { chosen: deleted, deleted, children: 0, last: None }
    } else {
        let row = transaction.query_one(&sql, &parameters)?;
        Batch {
            chosen: unsigned(row.get(0)),
            deleted: unsigned(row.get(1)),
            children: unsigned(row.get(2)),
            last: row.get(3),
        }
    };
    transaction.commit()?;
    Ok(batch)
}

/// Returns the type in which times of a column are compared.
fn sql_type(time: &Time) -> &'static str {
    match time {
        Time::Timestamptz => "timestamptz",
        Time::Timestamp { .. } => "timestamp",
        Time::EpochSeconds | Time::EpochMilliseconds => "int8",
    }
}
