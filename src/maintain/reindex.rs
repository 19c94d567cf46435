//! An index anew: what has to be so before, the rebuild itself, and what is cleaned up if it does not come to its end.
//!
//! Only [`clear`] makes a [`Cleared`], and [`rebuild`] takes nothing else.

use std::path::Path;
use std::time::{Duration, Instant};

use super::bloat::{self, Best};
use super::leftover::{self, Verdict};
use super::look::{self, Index};
use super::need::approximate;
use super::past::{Past, Work};
use super::{Home, Server, statement};
use crate::config::Maintain;
use crate::db::{Connection, Error, Target};
use crate::stop::Stop;

/// While it waits for others' transactions it holds no lock that anybody else waits for.
const PATIENCE: u32 = 15;
/// Room that must be left, in parts of the index: the new one stands beside the old one, with files to sort.
const ROOM: f64 = 2.0;

/// An index that may be built anew: everything about it was checked just now.
#[derive(Debug)]
pub(super) struct Cleared {
    index: Index,
    before: u64,
}

/// How long what was begun is tried to be removed: less than a run that is stopped has for it.
const CLEANING: Duration = Duration::from_secs(6);

/// What became of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rebuilt {
    pub(super) before: u64,
    pub(super) after: u64,
    /// What is to be compared with from now on.
    pub(super) best: Option<Best>,
}

/// Checks all that has to be so before; a reason is why it is left alone now.
pub(super) fn clear(
    connection: &mut Connection,
    server: &Server,
    index: &Index,
    before: Option<Best>,
    settings: &Maintain,
    is_analyzed: bool,
) -> Result<Result<Cleared, String>, Error> {
    let what = || format!("look at the index {}", index.name);
    let sql = "SELECT extract(epoch FROM clock_timestamp() - min(xact_start))::float8 FROM pg_stat_activity \
               WHERE pid <> pg_backend_pid() AND datname = current_database() AND backend_type = 'client backend' \
               AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL) AND application_name <> $1";
    let row = connection.query_one(sql, &[&super::APPLICATION]);
    let oldest: Option<f64> = row.map_err(|e| Error::query(what(), e))?.get(0);
    let patience = (settings.lock_timeout * PATIENCE).as_secs_f64();
    if let Some(seconds) = oldest.filter(|seconds| *seconds > patience) {
        return Ok(Err(format!(
            "a transaction is open for {seconds:.0} s, for which it would wait"
        )));
    }
    if !is_analyzed {
        let sql = format!("ANALYZE (SKIP_LOCKED) {}", index.table_name.quoted());
        connection.batch_execute(&sql).map_err(|e| Error::query(what(), e))?;
    }
    let sql = "SELECT pg_relation_size(c.oid), c.reltuples::float8, i.indisvalid FROM pg_class c \
               JOIN pg_index i ON i.indexrelid = c.oid WHERE c.oid = $1 AND c.relname::text = $2";
    let row = connection.query_opt(sql, &[&index.oid, &index.name.name]);
    let Some(row) = row.map_err(|e| Error::query(what(), e))? else {
        return Ok(Err("it is gone".to_owned()));
    };
    let (bytes, entries) = (row.get::<_, i64>(0).unsigned_abs(), row.get::<_, f64>(1));
    let current = bloat::ratio(bytes, entries);
    let waste = current.and_then(|current| super::plan::waste(index, current, before));
    if waste.is_none_or(|waste| waste < f64::from(settings.reindex_bloat_percent))
        || !row.get::<_, bool>(2)
    {
        return Ok(Err("by a closer look it is not bloated".to_owned()));
    }
    let room = room(connection, server, index)?;
    if let Some(room) = room.filter(|room| approximate(*room) < ROOM * approximate(bytes)) {
        let (room, bytes) = (crate::text::bytes(room), crate::text::bytes(bytes));
        return Ok(Err(format!("{room} are free where it lies, too little beside {bytes}")));
    }
    Ok(Ok(Cleared { index: index.clone(), before: bytes }))
}

/// Returns the free space where an index lies, if the server is on this host and says where.
fn room(connection: &mut Connection, server: &Server, index: &Index) -> Result<Option<u64>, Error> {
    if server.home != Home::Here {
        return Ok(None);
    }
    let sql = "SELECT coalesce(nullif(pg_tablespace_location(CASE WHEN $1::oid = 0 THEN dattablespace ELSE $1 END), ''), \
                   current_setting('data_directory') || '/base') \
               FROM pg_database WHERE datname = current_database()";
    let row = connection.query_one(sql, &[&index.tablespace]);
    let place: String = row.map_err(|e| Error::query("ask where an index lies", e))?.get(0);
    let place = Path::new(&place);
    // The directory is the server's own, but what it lies on may be asked of the one above it. In another container it is not there.
    let mut places = place.ancestors().take(3).filter(|place| place.exists());
    let found = places.find_map(|place| crate::host::file_system::look(place).ok());
    Ok(found.map(|fs| fs.bytes.available))
}

/// Builds it anew. If that fails, what was begun has to be removed: [`clean_up`].
pub(super) fn rebuild(
    connection: &mut Connection,
    cleared: &Cleared,
    server: &Server,
    settings: &Maintain,
    stop: &Stop,
) -> Result<Rebuilt, Error> {
    let index = &cleared.index;
    let failed =
        |e| Error::query(format!("build the index {} anew", index.name), e).or_stopped(stop);
    let patience = (settings.lock_timeout * PATIENCE).as_millis();
    connection.batch_execute(&format!("SET lock_timeout = {patience}")).map_err(failed)?;
    let act = super::plan::Act::Reindex(index.clone());
    let result = connection.batch_execute(&statement::of(&act, server.version.major()));
    result.map_err(failed)?;
    let usual = settings.lock_timeout.as_millis();
    connection.batch_execute(&format!("SET lock_timeout = {usual}")).map_err(failed)?;
    let sql = "SELECT pg_relation_size(c.oid), c.reltuples::float8 FROM pg_class c \
               JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname::text = $1 AND c.relname::text = $2";
    let row = connection.query_one(sql, &[&index.name.schema, &index.name.name]).map_err(failed)?;
    let (after, entries) = (row.get::<_, i64>(0).unsigned_abs(), row.get::<_, f64>(1));
    // The number of the new one is that of the rows that it was built of.
    let entries = if entries > 0.0 { entries } else { index.entries };
    let best = bloat::ratio(after, entries).map(|ratio| Best { ratio, fresh: true });
    Ok(Rebuilt { before: cleared.before, after, best })
}

/// Removes what a rebuild that did not come to its end left, in a session of its own. Returns whether nothing is left.
pub(super) fn clean_up(
    target: &Target,
    server: &Server,
    work: &Work,
    past: &Past,
    settings: &Maintain,
    abort: &Stop,
) -> Result<bool, Error> {
    let mut connection = super::connect(target, settings.lock_timeout, abort)?;
    let past = Past { work: vec![work.clone()], seen: past.seen.clone(), ..Past::default() };
    let began = Instant::now();
    loop {
        let mut is_clean = true;
        for invalid in look::invalid(&mut connection, server, Some(work.table))? {
            let not_in_use = leftover::Invalid { is_in_use: false, ..invalid.clone() };
            if leftover::judge(&not_in_use, &past, work.began) != Verdict::Own {
                continue;
            }
            // The session that was cancelled may not have given its lock up yet, and to drop waits for older transactions.
            if !invalid.is_in_use && drop_index(&mut connection, &invalid)? {
                tracing::info!("{}: removed, because it was not built to its end", invalid.name);
            } else {
                is_clean = false;
            }
        }
        if is_clean || began.elapsed() > CLEANING {
            return Ok(is_clean);
        }
        abort.sleep(Duration::from_millis(50))?;
    }
}

/// Drops an invalid index, if nobody else has it or its table locked. Returns whether it is gone.
pub(super) fn drop_index(
    connection: &mut Connection,
    invalid: &leftover::Invalid,
) -> Result<bool, Error> {
    let failed = |e| Error::query(format!("drop the invalid index {}", invalid.name), e);
    // Between the look and now it may have become another one.
    let sql = "SELECT EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
               WHERE c.oid = $1 AND c.relname::text = $2 AND NOT i.indisvalid)";
    if !connection
        .query_one(sql, &[&invalid.oid, &invalid.name.name])
        .map_err(failed)?
        .get::<_, bool>(0)
    {
        return Ok(true);
    }
    let act = super::plan::Act::Drop(invalid.clone());
    match connection.batch_execute(&statement::of(&act, 0)) {
        Ok(()) => Ok(true),
        Err(error) if error.code() == Some(&postgres::error::SqlState::LOCK_NOT_AVAILABLE) => {
            Ok(false)
        }
        Err(error) => Err(failed(error)),
    }
}
