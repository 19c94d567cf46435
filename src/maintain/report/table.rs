//! Dead rows against each table's own threshold, waste by an estimate, and invalid indexes: what a plan looks at, too.

use crate::db::Error;
use crate::maintain::look::{self, Look};
use crate::maintain::need::{self, approximate};
use crate::maintain::{bloat, leftover};
use crate::text::{bytes, count};

use super::{Asking, Finding, Severity, Topic, Wish};

/// So much must be waste, in percent, before it is said.
const WASTE: f64 = 50.0;
/// Smaller tables are not worth it.
const LARGE: u64 = 64 << 20;
const SHARE: &str = "nobody who reads or writes; other maintenance of the table";

pub(super) fn topics(asking: &mut Asking<'_>, wish: Wish<'_>) -> Result<(), Error> {
    let answer = look::look(asking.connection, asking.server.clone(), wish.min_index_bytes);
    let Some(look) = asking.answered("tables", answer)? else { return Ok(()) };
    asking.add(Topic::of("dead-rows", dead(&look)));
    asking.add(Topic::of("autovacuum-switched-off", switched_off(&look)));
    asking.add(Topic::of("bloat-estimate", waste(&look)));
    asking.add(Topic::of("invalid-index", invalid(&look)));
    Ok(())
}

/// Tables over the threshold at which autovacuum would begin, the furthest first.
fn dead(look: &Look) -> Vec<Finding> {
    let over = |table: &look::Table| {
        let threshold = need::vacuum_threshold(&look.settings, &table.main);
        (approximate(table.main.dead) / threshold.max(1.0), threshold)
    };
    let mut tables: Vec<_> = look.tables.iter().map(|table| (over(table), table)).collect();
    tables.retain(|((ratio, _), table)| *ratio > 1.0 && !table.is_partitioned);
    tables.sort_by(|((a, _), _), ((b, _), _)| b.total_cmp(a));
    let finding = |((ratio, threshold), table): ((f64, f64), &look::Table)| {
        let severity = if ratio >= 5.0 { Severity::Warning } else { Severity::Note };
        let evidence = format!(
            "{} dead rows are {ratio:.1} times its own threshold of {threshold:.0}",
            count(table.main.dead)
        );
        Finding::new(severity, &table.name.to_string(), evidence)
            .fix(format!("VACUUM (ANALYZE) {};", table.name.quoted()), SHARE)
    };
    tables.into_iter().map(finding).collect()
}

fn switched_off(look: &Look) -> Vec<Finding> {
    let off = look.tables.iter().filter(|table| need::is_switched_off(&table.main));
    let finding = |table: &look::Table| {
        let evidence = "autovacuum is switched off for this table".to_owned();
        let sql = format!("ALTER TABLE {} RESET (autovacuum_enabled);", table.name.quoted());
        Finding::new(Severity::Warning, &table.name.to_string(), evidence).fix(sql, SHARE)
    };
    off.map(finding).collect()
}

fn waste(look: &Look) -> Vec<Finding> {
    let mut found: Vec<(f64, Finding)> = Vec::new();
    let mut unknown = 0;
    for table in look.tables.iter().filter(|table| table.bytes >= LARGE && !table.is_partitioned) {
        let Some(width) = table.row_width else {
            unknown += 1;
            continue;
        };
        let expected = Some(bloat::expected_row(width, need::fillfactor(&table.main)));
        let current = bloat::ratio(table.bytes, table.main.rows);
        // How much lies in TOAST is in no statistics.
        let current = current.filter(|_| table.toast.is_none());
        let Some(waste) = current.and_then(|current| bloat::waste(current, None, expected)) else {
            continue;
        };
        let sql = format!("VACUUM (FULL, ANALYZE) {};", table.name.quoted());
        let finding = estimate(&table.name.to_string(), waste, table.bytes)
            .fix(sql, "everybody who reads or writes the table; pg_repack would not");
        found.push((waste, finding));
    }
    for index in &look.indexes {
        let Some(width) = index.width else {
            unknown += 1;
            continue;
        };
        let expected = Some(bloat::expected(width, index.fillfactor));
        let current = bloat::ratio(index.bytes, index.entries);
        let Some(waste) = current.and_then(|current| bloat::waste(current, None, expected)) else {
            continue;
        };
        let (concurrently, blocks) = if index.needs_lock {
            ("", "everybody who writes to the table, or reads by the index")
        } else {
            (" CONCURRENTLY", "nobody; it waits for older transactions, and needs room")
        };
        let sql = format!("REINDEX INDEX{concurrently} {};", index.name.quoted());
        found.push((waste, estimate(&index.name.to_string(), waste, index.bytes).fix(sql, blocks)));
    }
    found.retain(|(waste, _)| *waste >= WASTE);
    found.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let mut found: Vec<Finding> = found.into_iter().map(|(_, finding)| finding).collect();
    if unknown > 0 {
        let evidence = format!(
            "of {unknown} large tables and indexes there is no estimate: needs ANALYZE, or SELECT on their tables, or is no btree"
        );
        found.push(Finding::new(Severity::Unknown, "large tables and indexes", evidence));
    }
    found
}

fn estimate(object: &str, waste: f64, size: u64) -> Finding {
    let severity = if size >= LARGE { Severity::Warning } else { Severity::Note };
    let evidence =
        format!("an estimate, perhaps far off: {waste:.0} % of {} is waste", bytes(size));
    Finding::new(severity, object, evidence)
}

fn invalid(look: &Look) -> Vec<Finding> {
    let finding = |index: &leftover::Invalid| {
        let name = index.name.to_string();
        if index.is_in_use {
            let evidence = "invalid, but somebody is at work on it or its table".to_owned();
            return Finding::new(Severity::Note, &name, evidence);
        }
        let evidence = if leftover::is_transient(&index.name.name) {
            "invalid, and called as REINDEX CONCURRENTLY calls what it leaves behind"
        } else {
            "invalid: a failed CREATE INDEX CONCURRENTLY of somebody's; it costs writes and serves nobody"
        };
        let finding = Finding::new(Severity::Warning, &name, evidence.to_owned());
        if index.is_of_constraint || index.is_identity {
            let sql = format!("REINDEX INDEX CONCURRENTLY {};", index.name.quoted());
            return finding.fix(sql, "nobody; it waits for older transactions");
        }
        let sql = format!("DROP INDEX CONCURRENTLY {};", index.name.quoted());
        finding.fix(sql, "nobody; it waits for older transactions")
    };
    look.invalid.iter().map(finding).collect()
}
