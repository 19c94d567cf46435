//! Decides what tables need, and puts everything in order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Act, Advice, Class, Plan, Step, Wish};
use crate::maintain::look::{Look, Name, Table};
use crate::maintain::need::{self, Counts, Need, approximate, is_switched_off};
use crate::maintain::past::{Past, Rates};
use crate::maintain::statement;
use crate::text::count;

/// ANALYZE reads a sample; at the server's default it is at most so many bytes.
const SAMPLE: u64 = 30_000 * 8192;
/// Partitions that were analysed no later than this were analysed together with their parent.
const TOGETHER: chrono::TimeDelta = chrono::TimeDelta::hours(1);
/// Decides. An error is the name in `only` that is no table.
pub(crate) fn plan(look: &Look, past: &Past, wish: Wish<'_>) -> Result<Plan, String> {
    let mut planning = Planning::new(look, past, wish)?;
    planning.parents();
    for table in &look.tables {
        if !table.is_partitioned && planning.is_wanted(table.oid) {
            planning.table(table);
        }
    }
    planning.leftovers();
    planning.indexes();
    Ok(planning.end())
}

pub(super) struct Planning<'p> {
    pub(super) look: &'p Look,
    pub(super) before: &'p Past,
    pub(super) wish: Wish<'p>,
    wanted: Option<BTreeSet<u32>>,
    children: BTreeMap<u32, Vec<&'p Table>>,
    /// Those that are analysed together with their parent.
    analyzed: BTreeSet<u32>,
    pub(super) steps: Vec<Step>,
    pub(super) advice: Vec<Advice>,
    /// Tables that need something that this role may not do.
    forbidden: Vec<&'p Name>,
    pub(super) past: Past,
}

impl<'p> Planning<'p> {
    fn new(look: &'p Look, before: &'p Past, wish: Wish<'p>) -> Result<Planning<'p>, String> {
        let mut children: BTreeMap<u32, Vec<&Table>> = BTreeMap::new();
        for table in &look.tables {
            if let Some(parent) = table.parent {
                children.entry(parent).or_default().push(table);
            }
        }
        let past = Past { rates: before.rates, ..Past::default() };
        let mut planning = Planning {
            look,
            before,
            wish,
            wanted: None,
            children,
            analyzed: BTreeSet::new(),
            steps: Vec::new(),
            advice: Vec::new(),
            forbidden: Vec::new(),
            past,
        };
        if !wish.only.is_empty() {
            let mut wanted = BTreeSet::new();
            for only in wish.only {
                let named = |t: &&Table| t.name.name == *only || t.name.to_string() == *only;
                let mut found = look.tables.iter().filter(named).peekable();
                found.peek().ok_or_else(|| only.clone())?;
                for table in found {
                    wanted.insert(table.oid);
                    wanted.extend(planning.below(table.oid).iter().map(|t| t.oid));
                }
            }
            planning.wanted = Some(wanted);
        }
        Ok(planning)
    }

    pub(super) fn is_wanted(&self, table: u32) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.contains(&table))
    }

    /// Returns all partitions of a table, at any depth.
    fn below(&self, table: u32) -> Vec<&'p Table> {
        let mut found = Vec::new();
        let mut open = vec![table];
        while let Some(parent) = open.pop() {
            for child in self.children.get(&parent).into_iter().flatten() {
                found.push(*child);
                open.push(child.oid);
            }
        }
        found
    }

    pub(super) fn rates(&self) -> Rates {
        self.before.rates
    }

    pub(super) fn add(
        &mut self,
        act: Act,
        class: Class,
        urgency: f64,
        reasons: Vec<String>,
        bytes: u64,
    ) {
        let rates = self.rates();
        let rate = match act {
            Act::Vacuum { .. } => rates.vacuum,
            Act::Analyze { .. } => rates.analyze,
            Act::Reindex(_) => rates.reindex,
            Act::Drop(_) => f64::INFINITY,
        };
        let seconds = (approximate(bytes) / rate.max(1.0)).clamp(0.01, 1e7);
        let likely = Duration::from_secs_f64(seconds);
        let sql = statement::of(&act, self.look.server.version.major());
        self.steps.push(Step { act, class, urgency, reasons, likely, bytes, sql });
    }

    /// Partitioned tables have statistics of their own, which autovacuum never gathers.
    fn parents(&mut self) {
        // Before version 18 ANALYZE goes through all partitions as well.
        let only = self.look.server.version.major() >= 18;
        let mut parents: Vec<&Table> =
            self.look.tables.iter().filter(|t| t.is_partitioned && self.is_wanted(t.oid)).collect();
        // The uppermost first: what is below it is done with it.
        parents.sort_by_key(|table| table.parent.is_some());
        for parent in parents {
            let leaves = self.below(parent.oid);
            let leaves: Vec<&Table> = leaves.into_iter().filter(|t| !t.is_partitioned).collect();
            let rows: f64 = leaves.iter().map(|leaf| leaf.main.rows.max(0.0)).sum();
            if self.analyzed.contains(&parent.oid) || !leaves.iter().any(|leaf| leaf.has_rows()) {
                continue;
            }
            let settings = &self.look.settings;
            let changed = |leaf: &&Table| {
                let counts = &leaf.main;
                // Whoever was analysed since then had changed by so much at least.
                let since = leaf.analyzed_at > parent.analyzed_at.map(|at| at + TOGETHER);
                let least = if since { need::analyze_threshold(settings, counts) } else { 0.0 };
                approximate(counts.modified) + least.min(counts.rows.max(0.0))
            };
            let changed: f64 = leaves.iter().map(changed).sum();
            let counts = Counts { rows, ..parent.main.clone() };
            let threshold = need::analyze_threshold(settings, &counts).max(1.0);
            let never = parent.analyzed_at.is_none() && !parent.has_statistics;
            if !never && changed <= threshold {
                continue;
            }
            if !parent.may {
                self.forbidden.push(&parent.name);
                continue;
            }
            let reason = if never {
                "never analysed as a whole, which autovacuum never does".to_owned()
            } else {
                format!(
                    "about {} rows of its partitions changed since it was analysed as a whole",
                    whole(changed)
                )
            };
            let bytes = if only {
                leaves.iter().map(|leaf| leaf.bytes).sum::<u64>().min(SAMPLE)
            } else {
                leaves.iter().map(|leaf| leaf.bytes.min(SAMPLE)).sum()
            };
            if !only {
                let below = self.below(parent.oid);
                self.analyzed.extend(below.iter().map(|table| table.oid));
            }
            let act = Act::Analyze { table: parent.oid, name: parent.name.clone(), only };
            let class = if never { Class::NeverAnalyzed } else { Class::Partitions };
            self.add(act, class, changed / threshold, vec![reason], bytes);
        }
    }

    fn table(&mut self, table: &'p Table) {
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

    fn end(mut self) -> Plan {
        let mut unknown = Vec::new();
        let server = &self.look.server;
        if !server.may_monitor {
            unknown.push(format!(
                "who holds VACUUM back, and how far replicas are behind: needs GRANT pg_monitor TO {}",
                crate::db::quote_identifier(&server.role)
            ));
        }
        if let Some(first) = self.forbidden.first() {
            let maintain =
                if server.version.major() >= 17 { ", or the privilege MAINTAIN" } else { "" };
            unknown.push(format!(
                "{} more would be done, such as {first}: needs the owner of the table{maintain}",
                crate::text::counted(self.forbidden.len() as u64, "table")
            ));
        }
        if !self.look.settings.is_on {
            unknown.push(
                "autovacuum is off: nobody but this keeps the database from wraparound".to_owned(),
            );
        }
        self.steps.sort_by(|a, b| {
            a.class.cmp(&b.class).then(b.urgency.total_cmp(&a.urgency)).then(a.sql.cmp(&b.sql))
        });
        self.advice.sort_by(|a, b| a.object.cmp(&b.object));
        Plan {
            steps: self.steps,
            advice: self.advice,
            unknown,
            past: self.past,
            tables: self.look.tables.len(),
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is shown")]
fn whole(number: f64) -> String {
    count(number.max(0.0) as u64)
}
