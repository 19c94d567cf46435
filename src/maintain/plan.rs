//! What is to be done in a database, in which order and why; and what is only said. Pure. Only this module makes a [`Plan`], and
//! `apply` takes nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::bloat::{self, Best};
use super::leftover::{self, Invalid, Verdict};
use super::look::{Index, Look, Name, Table};
use super::need::{Need, approximate, is_switched_off};
use super::past::{Past, Rates};
use super::statement;
use crate::clock::Moment;
use crate::config::Maintain;
use crate::text::count;

/// What one step does.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Vacuum {
        table: u32,
        name: Name,
        analyze: bool,
        freeze: bool,
        toast_only: bool,
    },
    /// `only`: without its partitions.
    Analyze {
        table: u32,
        name: Name,
        only: bool,
    },
    Drop(Invalid),
    Reindex(Index),
}

/// The classes of urgency, most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Class {
    Wraparound,
    Leftover,
    NeverAnalyzed,
    Rows,
    Partitions,
    Bloat,
}

/// One statement that will be run.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    act: Act,
    class: Class,
    /// Within its class.
    urgency: f64,
    reasons: Vec<String>,
    likely: Duration,
    bytes: u64,
    sql: String,
}

/// What is never done here, and the statement that would do it.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Advice {
    pub(crate) object: String,
    pub(crate) why: String,
    pub(crate) sql: String,
    /// Whom that would keep waiting.
    pub(crate) blocks: String,
}

/// What is done, and what is said.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    steps: Vec<Step>,
    advice: Vec<Advice>,
    unknown: Vec<String>,
    /// What the next run is to know, as far as it is known before anything is done.
    past: Past,
    tables: usize,
}

/// What is wanted of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'w> {
    pub(crate) settings: &'w Maintain,
    pub(crate) reindex: bool,
    /// Only these tables, with or without their schema; all, if empty.
    pub(crate) only: &'w [String],
    pub(crate) now: Moment,
}

/// ANALYZE reads a sample; at the server's default it is at most so many bytes.
const SAMPLE: u64 = 30_000 * 8192;
/// Partitions that were analysed no later than this were analysed together with their parent.
const TOGETHER: chrono::TimeDelta = chrono::TimeDelta::hours(1);
/// From this size on, and this much waste, a table is worth a word.
const LARGE: u64 = 64 << 20;
const TABLE_WASTE: f64 = 50.0;

impl Step {
    pub(crate) fn act(&self) -> &Act {
        &self.act
    }

    pub(crate) fn class(&self) -> Class {
        self.class
    }

    pub(crate) fn reasons(&self) -> &[String] {
        &self.reasons
    }

    /// Returns how long it is likely to take.
    pub(crate) fn likely(&self) -> Duration {
        self.likely
    }

    /// Returns how much it has to read.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn sql(&self) -> &str {
        &self.sql
    }

    /// Returns what it is about.
    pub(crate) fn object(&self) -> &Name {
        match &self.act {
            Act::Vacuum { name, .. } | Act::Analyze { name, .. } => name,
            Act::Drop(invalid) => &invalid.name,
            Act::Reindex(index) => &index.name,
        }
    }

    /// Returns the lock that it takes, and whom that keeps waiting.
    pub(crate) fn lock(&self) -> &'static str {
        match self.act {
            Act::Vacuum { .. } | Act::Analyze { .. } => "SHARE UPDATE EXCLUSIVE",
            Act::Drop(_) | Act::Reindex(_) => {
                "SHARE UPDATE EXCLUSIVE, and waits for older transactions"
            }
        }
    }
}

impl Plan {
    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    pub(crate) fn advice(&self) -> &[Advice] {
        &self.advice
    }

    /// Returns what could not be found out, and what that needs.
    pub(crate) fn unknown(&self) -> &[String] {
        &self.unknown
    }

    pub(crate) fn past(&self) -> &Past {
        &self.past
    }

    /// Returns how many tables were looked at.
    pub(crate) fn tables(&self) -> usize {
        self.tables
    }

    /// Gives the steps away, to be carried out.
    pub(crate) fn into_steps(self) -> (Vec<Step>, Past) {
        (self.steps, self.past)
    }
}

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

struct Planning<'p> {
    look: &'p Look,
    before: &'p Past,
    wish: Wish<'p>,
    wanted: Option<BTreeSet<u32>>,
    children: BTreeMap<u32, Vec<&'p Table>>,
    /// Those that are analysed together with their parent.
    analyzed: BTreeSet<u32>,
    steps: Vec<Step>,
    advice: Vec<Advice>,
    /// Tables that need something that this role may not do.
    forbidden: Vec<&'p Name>,
    past: Past,
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

    fn is_wanted(&self, table: u32) -> bool {
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

    fn rates(&self) -> Rates {
        self.before.rates
    }

    fn add(&mut self, act: Act, class: Class, urgency: f64, reasons: Vec<String>, bytes: u64) {
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
                let least =
                    if since { super::need::analyze_threshold(settings, counts) } else { 0.0 };
                approximate(counts.modified) + least.min(counts.rows.max(0.0))
            };
            let changed: f64 = leaves.iter().map(changed).sum();
            let counts = super::need::Counts { rows, ..parent.main.clone() };
            let threshold = super::need::analyze_threshold(settings, &counts).max(1.0);
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
        // Of the catalogue ANALYZE passes some tables over.
        let is_system = table.name.schema == "pg_catalog";
        let never =
            !is_system && table.analyzed_at.is_none() && !table.has_statistics && table.has_rows();
        let of_main = main.vacuum() || main.freeze();
        let of_toast = toast.vacuum() || toast.freeze();
        let analyze = (never || main.analyze()) && !self.analyzed.contains(&table.oid);
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

    fn reasons(&self, need: &Need, of: &str, counts: &super::need::Counts) -> Vec<String> {
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

    /// Says which tables would be much smaller if they were written anew.
    fn size(&mut self, table: &Table) {
        let Some(width) = table.row_width.filter(|_| table.bytes >= LARGE && table.may) else {
            return;
        };
        let Some(current) = bloat::ratio(table.bytes, table.main.rows) else { return };
        let expected = Some(bloat::expected_row(width));
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

    fn leftovers(&mut self) {
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

    fn indexes(&mut self) {
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
            if index.needs_lock {
                self.advice.push(Advice {
                    object: name,
                    why: format!("{why}; it cannot be built anew beside its table's work"),
                    sql: format!("REINDEX INDEX {};", index.name.quoted()),
                    blocks: "all writes to its table, and queries that would use it".to_owned(),
                });
            } else if self.wish.reindex {
                let wasted = approximate(index.bytes) * waste / 100.0;
                self.add(Act::Reindex(index.clone()), Class::Bloat, wasted, vec![why], index.bytes);
            } else {
                self.advice.push(Advice {
                    object: name,
                    why: format!("{why}; `--reindex` builds it anew"),
                    sql: format!("REINDEX INDEX CONCURRENTLY {};", index.name.quoted()),
                    blocks: "nobody; it waits for older transactions".to_owned(),
                });
            }
        }
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

/// Returns how much of an index is waste, in percent, by what is known of it.
pub(crate) fn waste(index: &Index, current: f64, before: Option<Best>) -> Option<f64> {
    let expected = index.width.map(|width| bloat::expected(width, index.fillfactor));
    bloat::waste(current, before, expected)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is shown")]
fn whole(number: f64) -> String {
    count(number.max(0.0) as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Server;
    use super::super::need::{Counts, Settings};
    use super::*;
    use crate::db::ServerVersion;

    fn name(name: &str) -> Name {
        Name { schema: "public".to_owned(), name: name.to_owned() }
    }

    fn at(hour: i64) -> Moment {
        chrono::DateTime::from_timestamp(hour * 3600, 0).unwrap()
    }

    fn table(oid: u32, parent: Option<u32>, counts: Counts) -> Table {
        Table {
            oid,
            name: name(&format!("t{oid}")),
            is_partitioned: false,
            parent,
            bytes: 1 << 20,
            index_bytes: 1 << 20,
            main: counts,
            toast: None,
            analyzed_at: Some(at(10)),
            has_statistics: true,
            row_width: None,
            may: true,
        }
    }

    fn look(major: u32, tables: Vec<Table>) -> Look {
        Look {
            server: Server {
                version: ServerVersion(major * 10_000 + 5),
                is_standby: false,
                role: "postgres".to_owned(),
                may_monitor: true,
            },
            settings: Settings::default(),
            tables,
            indexes: Vec::new(),
            invalid: Vec::new(),
            horizon: Vec::new(),
        }
    }

    fn planned(look: &Look) -> Plan {
        let settings = Maintain { reindex_min_bytes: 0, ..Maintain::default() };
        let wish = Wish { settings: &settings, reindex: true, only: &[], now: at(20) };
        plan(look, &Past::default(), wish).unwrap()
    }

    fn counts(dead: u64, modified: u64, xid_age: u64) -> Counts {
        Counts { rows: 1000.0, dead, modified, xid_age, ..Counts::default() }
    }

    #[test]
    fn a_partitioned_table_is_analysed_as_a_whole_and_its_partitions_with_it_before_18() {
        let parent = |analyzed_at| Table {
            is_partitioned: true,
            bytes: 0,
            analyzed_at,
            ..table(1, None, Counts { rows: -1.0, ..Counts::default() })
        };
        let leaves = |modified| [2, 3].map(|oid| table(oid, Some(1), counts(0, modified, 0)));
        let sql = |major, analyzed_at, modified| {
            let tables = [vec![parent(analyzed_at)], leaves(modified).to_vec()].concat();
            let plan = planned(&look(major, tables));
            plan.steps().iter().map(|step| step.sql().to_owned()).collect::<Vec<_>>()
        };
        let whole = |sql: &[String]| sql.iter().filter(|sql| sql.contains("\"t1\"")).count();
        // Each partition is below its own threshold of 150, both together are above that of the whole, 250.
        assert_eq!(sql(17, Some(at(10)), 100), Vec::<String>::new());
        assert_eq!(sql(17, Some(at(10)), 140).len(), 1);
        assert_eq!((sql(17, Some(at(10)), 200).len(), sql(18, Some(at(10)), 200).len()), (1, 3));
        assert_eq!(whole(&sql(18, Some(at(10)), 200)), 1);
        // They were analysed after it, so that they had changed since.
        assert_eq!(whole(&sql(17, Some(at(8)), 0)), 1);
        assert_eq!(whole(&sql(17, Some(at(9)), 0)), 0);
    }

    #[test]
    fn what_holds_freezing_back_is_said_and_freezing_is_not_tried() {
        let mut look = look(17, vec![table(1, None, counts(0, 0, 180_000_000))]);
        assert_eq!(planned(&look).steps()[0].class(), Class::Wraparound);
        assert!(planned(&look).steps()[0].sql().contains("FREEZE"));
        look.horizon = vec![(179_000_000, "replication slot `gone`, inactive".to_owned())];
        let plan = planned(&look);
        assert!(plan.steps().is_empty());
        assert!(plan.advice()[0].why.contains("replication slot `gone`"));
    }

    #[test]
    fn what_this_role_may_not_do_is_unknown_and_not_fine() {
        let forbidden = Table { may: false, ..table(1, None, counts(10_000, 0, 0)) };
        let plan = planned(&look(16, vec![forbidden]));
        assert!(plan.steps().is_empty());
        assert!(
            plan.unknown()[0].contains("1 table more would be done, such as public.t1"),
            "{:?}",
            plan.unknown()
        );
    }

    prop_compose! {
        fn any_table(oid: u32)(
            dead in 0u64..2000, modified in 0u64..2000, xid_age in 0u64..300_000_000, inserted in 0u64..5000, never: bool, may: bool,
        ) -> Table {
            let counts = Counts { inserted, ..counts(dead, modified, xid_age) };
            Table { has_statistics: !never, analyzed_at: (!never).then(|| at(10)), may, ..table(oid, None, counts) }
        }
    }

    proptest! {
        #[test]
        fn every_table_has_one_step_at_most_in_order_and_only_what_blocks_nobody(
            tables in (0u32..12).prop_flat_map(|n| (0..n).map(any_table).collect::<Vec<_>>()), major in 14u32..=18,
        ) {
            let look = look(major, tables);
            let plan = planned(&look);
            let mut seen = BTreeSet::new();
            for step in plan.steps() {
                let (Act::Vacuum { table, .. } | Act::Analyze { table, .. }) = step.act() else { panic!("{step:?}") };
                prop_assert!(seen.insert(*table));
                prop_assert!(look.tables[*table as usize].may && !step.reasons().is_empty());
                prop_assert!(step.sql().contains("SKIP_LOCKED") && !step.sql().contains("FULL"));
                prop_assert!(step.sql().starts_with("ANALYZE") || step.sql().contains("TRUNCATE false"));
            }
            prop_assert!(plan.steps().is_sorted_by_key(|step| step.class()));
            for pair in plan.steps().windows(2) {
                prop_assert!(pair[0].class() < pair[1].class() || pair[0].urgency >= pair[1].urgency);
            }
        }
    }
}
