//! Goes through everything that was seen, and puts what is decided in order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Act, Advice, Class, Old, Plan, Step, Wish};
use crate::maintain::Home;
use crate::maintain::look::{Look, Name, Table};
use crate::maintain::need::approximate;
use crate::maintain::past::{Past, Rates};
use crate::maintain::statement;
use crate::text::count;

/// ANALYZE reads a sample; at the server's default it is at most so many bytes.
pub(super) const SAMPLE: u64 = 30_000 * 8192;

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
    pub(super) analyzed: BTreeSet<u32>,
    pub(super) steps: Vec<Step>,
    pub(super) advice: Vec<Advice>,
    /// Tables that need something that this role may not do.
    pub(super) forbidden: Vec<&'p Name>,
    pub(super) past: Past,
    pub(super) old: Vec<Old>,
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
            old: Vec::new(),
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
    pub(super) fn below(&self, table: u32) -> Vec<&'p Table> {
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

    fn end(mut self) -> Plan {
        let mut unknown = Vec::new();
        let server = &self.look.server;
        if !server.may_monitor {
            unknown.push(format!(
                "who holds VACUUM back, and how far replicas are behind: needs GRANT pg_monitor TO {}",
                crate::db::quote_identifier(&server.role)
            ));
        }
        let reindexes = self.steps.iter().any(|step| matches!(step.act, Act::Reindex(_)));
        let needs = match server.home {
            Home::Here => None,
            Home::HereSomewhere => Some(format!(
                "needs GRANT pg_monitor TO {}",
                crate::db::quote_identifier(&server.role)
            )),
            Home::Elsewhere => Some("needs opsctl on the server's host".to_owned()),
        };
        if let Some(needs) = needs.filter(|_| reindexes) {
            unknown.push(format!("how much room is left where the indexes lie: {needs}"));
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
        self.old.sort_by_key(|old| std::cmp::Reverse((old.xid_age, old.multixact_age)));
        Plan {
            steps: self.steps,
            advice: self.advice,
            unknown,
            past: self.past,
            tables: self.look.tables.len(),
            old: self.old,
        }
    }
}

/// Returns a number as it is shown, without what is behind its point.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is shown")]
pub(super) fn whole(number: f64) -> String {
    count(number.max(0.0) as u64)
}
