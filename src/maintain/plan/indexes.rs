//! Decides what becomes of indexes that are invalid or bloated, and says which tables are.

use std::collections::BTreeSet;

use super::decide::Planning;
use super::{Act, Advice, Class};
use crate::maintain::bloat::{self, Best};
use crate::maintain::leftover::{self, Verdict};
use crate::maintain::look::{Index, Table};
use crate::maintain::need::{self, approximate};

/// From this size on, and this much waste, a table is worth a word.
const LARGE: u64 = 64 << 20;
const TABLE_WASTE: f64 = 50.0;

impl Planning<'_> {
    /// Says which tables would be much smaller if they were written anew.
    pub(super) fn size(&mut self, table: &Table) {
        let Some(width) = table.row_width.filter(|_| table.bytes >= LARGE && table.may) else {
            return;
        };
        let Some(current) = bloat::ratio(table.bytes, table.main.rows) else { return };
        let expected = Some(bloat::expected_row(width, need::fillfactor(&table.main)));
        let Some(waste) = bloat::waste(current, None, expected).filter(|w| *w >= TABLE_WASTE)
        else {
            return;
        };
        if table.toast.is_some() {
            // How much lies in TOAST is in no statistics.
            return;
        }
        let seconds = approximate(table.bytes + table.index_bytes) / self.rates().reindex;
        self.advice.push(Advice {
            object: table.name.to_string(),
            why: format!("by an estimate {waste:.0} % of {} is room that only new rows can use", crate::text::bytes(table.bytes)),
            sql: format!("VACUUM (FULL, ANALYZE) {};", table.name.quoted()),
            blocks: format!("everybody who reads or writes the table, for about {seconds:.0} s; pg_repack would not"),
        });
    }

    pub(super) fn leftovers(&mut self) {
        for invalid in &self.look.invalid {
            let first = self.before.seen.get(&invalid.oid).copied().unwrap_or(self.wish.now);
            self.past.seen.insert(invalid.oid, first);
            let verdict = leftover::judge(invalid, self.before, self.wish.now);
            if !self.is_wanted(invalid.table) {
                continue;
            }
            let reason = match verdict {
                Verdict::Own => "a REINDEX CONCURRENTLY of opsctl did not come to its end",
                Verdict::Abandoned => "somebody's REINDEX CONCURRENTLY did not come to its end",
                Verdict::Stays(why) => {
                    self.advice.push(Advice {
                        object: invalid.name.to_string(),
                        why: format!(
                            "this index is invalid: it costs writes and serves nobody; {why}"
                        ),
                        sql: format!("DROP INDEX CONCURRENTLY {};", invalid.name.quoted()),
                        blocks: "nobody; it waits for older transactions".to_owned(),
                    });
                    continue;
                }
            };
            self.add(Act::Drop(invalid.clone()), Class::Leftover, 0.0, vec![reason.to_owned()], 0);
        }
        // Whatever may still be there of it is known by it.
        let tables: BTreeSet<u32> = self.look.invalid.iter().map(|invalid| invalid.table).collect();
        let work = self.before.work.iter().filter(|work| tables.contains(&work.table));
        self.past.work = work.cloned().collect();
    }

    pub(super) fn indexes(&mut self) {
        for index in &self.look.indexes {
            let Some(current) = bloat::ratio(index.bytes, index.entries) else { continue };
            let name = index.name.to_string();
            let before = self.before.best.get(&name).copied();
            self.past.best.insert(name.clone(), bloat::better(before, current));
            let waste = waste(index, current, before);
            let Some(waste) =
                waste.filter(|w| *w >= f64::from(self.wish.settings.reindex_bloat_percent))
            else {
                continue;
            };
            if !self.is_wanted(index.table) || !index.may {
                continue;
            }
            let against = if before.is_some_and(|best| best.fresh) {
                "against when it was built"
            } else {
                "by an estimate"
            };
            let why =
                format!("{waste:.0} % of {} is waste {against}", crate::text::bytes(index.bytes));
            if self.wish.reindex && !index.needs_lock && !self.look.server.damages_indexes() {
                let wasted = approximate(index.bytes) * waste / 100.0;
                self.add(Act::Reindex(index.clone()), Class::Bloat, wasted, vec![why], index.bytes);
                continue;
            }
            let (concurrently, blocks) = if index.needs_lock {
                ("", "all writes to its table, and queries that would use it")
            } else {
                (" CONCURRENTLY", "nobody; it waits for older transactions")
            };
            self.advice.push(Advice {
                object: name,
                why: format!("{why}; {}", self.instead(index)),
                sql: format!("REINDEX INDEX{concurrently} {};", index.name.quoted()),
                blocks: blocks.to_owned(),
            });
        }
    }

    /// Says why a bloated index is not built anew here.
    fn instead(&self, index: &Index) -> String {
        let server = &self.look.server;
        if index.needs_lock {
            return "it cannot be built anew beside its table's work".to_owned();
        }
        if server.damages_indexes() {
            return format!(
                "PostgreSQL {} damages indexes that it builds CONCURRENTLY: update to 14.4 or later first",
                server.version
            );
        }
        "`--reindex` builds it anew".to_owned()
    }
}

/// Returns how much of an index is waste, in percent, by what is known of it.
pub(crate) fn waste(index: &Index, current: f64, before: Option<Best>) -> Option<f64> {
    let expected = index.width.map(|width| bloat::expected(width, index.fillfactor));
    bloat::waste(current, before, expected)
}
