//! Decides what one table needs, its TOAST table included.

use super::decide::{Planning, SAMPLE, whole};
use super::{Act, Advice, Class, Old};
use crate::maintain::look::Table;
use crate::maintain::need::{Counts, Need, approximate, is_switched_off};
use crate::text::count;

impl<'p> Planning<'p> {
    /// Decides about one table.
    pub(super) fn table(&mut self, table: &'p Table) {
        let settings = &self.look.settings;
        let main = Need::of(settings, &table.main);
        let toast = table.toast.as_ref().map(|toast| Need::of_toast(settings, &table.main, toast));
        let toast = toast.unwrap_or_default();
        // ANALYZE passes over the table that holds the statistics; of the others in the catalogue autovacuum takes care.
        let is_system = table.name.schema == "pg_catalog";
        let is_refused = is_system && table.name.name == "pg_statistic";
        let never =
            !is_system && table.analyzed_at.is_none() && !table.has_statistics && table.has_rows();
        let of_main = main.vacuum() || main.freeze();
        let of_toast = toast.vacuum() || toast.freeze();
        let analyze =
            (never || main.analyze() && !is_refused) && !self.analyzed.contains(&table.oid);
        self.size(table);
        if main.freeze() || toast.freeze() {
            self.age(table);
        }
        if !(of_main || of_toast || analyze) {
            return;
        }
        if !table.may {
            self.forbidden.push(&table.name);
            return;
        }
        let mut reasons = self.reasons(&main, "", &table.main);
        if let Some(counts) = &table.toast {
            reasons.extend(self.reasons(&toast, "TOAST: ", counts));
        }
        if analyze && never {
            reasons.push("never analysed".to_owned());
        } else if analyze {
            reasons.push(format!(
                "{} rows changed since the last ANALYZE",
                count(table.main.modified)
            ));
        }
        if is_switched_off(&table.main) {
            reasons.push("autovacuum is switched off for it".to_owned());
        }
        let wraparound = [main.xid, main.multixact, toast.xid, toast.multixact];
        let wraparound = wraparound.into_iter().fold(0.0, f64::max);
        let mut freeze = wraparound > 1.0;
        // Multixacts are held back by others.
        let by_xid = main.multixact.max(toast.multixact) <= 1.0;
        if freeze && by_xid && self.is_held_back(table) {
            // To read all of it would be in vain.
            freeze = false;
            if !(main.vacuum() || toast.vacuum() || analyze) {
                return;
            }
        }
        let rows = [main.dead, main.inserted, main.modified, toast.dead, toast.inserted];
        let rows = rows.into_iter().fold(0.0, f64::max);
        let (class, urgency) = match (freeze, analyze && never) {
            (true, _) => (Class::Wraparound, wraparound),
            (false, true) => (Class::NeverAnalyzed, rows),
            (false, false) => (Class::Rows, rows),
        };
        let (oid, name) = (table.oid, table.name.clone());
        if freeze || main.vacuum() || toast.vacuum() {
            let toast_only = !main.vacuum() && !main.freeze() && !analyze;
            let act = Act::Vacuum { table: oid, name, analyze, freeze, toast_only };
            self.add(act, class, urgency, reasons, table.bytes + table.index_bytes);
        } else if analyze {
            let act = Act::Analyze { table: oid, name, only: false };
            self.add(act, class, urgency, reasons, table.bytes.min(SAMPLE));
        }
    }

    /// Notes a table whose age is critical: whatever is decided, it is news if it stays so.
    fn age(&mut self, table: &Table) {
        let toast = table.toast.as_ref();
        let oldest = |of: fn(&Counts) -> u64| of(&table.main).max(toast.map_or(0, of));
        let (xid_age, multixact_age) = (oldest(|c| c.xid_age), oldest(|c| c.multixact_age));
        let critical = self.wish.critical;
        if approximate(xid_age) > critical.xid || approximate(multixact_age) > critical.multixact {
            self.old.push(Old { object: table.name.to_string(), xid_age, multixact_age });
        }
    }

    fn reasons(&self, need: &Need, of: &str, counts: &Counts) -> Vec<String> {
        let settings = &self.look.settings;
        let mut reasons = Vec::new();
        if need.xid > 1.0 {
            let (age, max) = (count(counts.xid_age), whole(settings.freeze_max_age));
            reasons.push(format!(
                "{of}not frozen for {age} transactions; autovacuum does it by force at {max}"
            ));
        }
        if need.multixact > 1.0 {
            let age = count(counts.multixact_age);
            let max = whole(settings.multixact_freeze_max_age);
            reasons.push(format!(
                "{of}not frozen for {age} multixacts; autovacuum does it by force at {max}"
            ));
        }
        if need.dead > 1.0 {
            let of_threshold = format!("{:.1} times its own threshold", need.dead);
            reasons.push(format!("{of}{} dead rows, {of_threshold}", count(counts.dead)));
        }
        if need.inserted > 1.0 {
            let inserted = count(counts.inserted);
            reasons.push(format!(
                "{of}{inserted} rows inserted since the last VACUUM, {:.1} times its own threshold",
                need.inserted
            ));
        }
        reasons
    }

    /// Would freezing be in vain, because somebody may still see what is old?
    fn is_held_back(&mut self, table: &Table) -> bool {
        let Some((age, cause)) = self.look.horizon.first() else { return false };
        let oldest = table.main.xid_age.max(table.toast.as_ref().map_or(0, |toast| toast.xid_age));
        // What is left to gain is less than a tenth.
        if approximate(*age) < 0.9 * approximate(oldest) {
            return false;
        }
        self.advice.push(Advice {
            object: table.name.to_string(),
            why: format!(
                "it cannot be frozen: what is {} transactions old may still be seen by {cause}",
                count(*age)
            ),
            sql: "-- end that transaction, or drop that slot, or finish that prepared transaction"
                .to_owned(),
            blocks: "nobody, but whoever works in it loses that work".to_owned(),
        });
        true
    }
}
