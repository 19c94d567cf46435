//! Decides which partitioned tables are analysed as a whole.

use super::decide::{Planning, SAMPLE, whole};
use super::{Act, Class};
use crate::maintain::look::Table;
use crate::maintain::need::{self, Counts, approximate};

/// Partitions that were analysed no later than this were analysed together with their parent.
const TOGETHER: chrono::TimeDelta = chrono::TimeDelta::hours(1);

impl Planning<'_> {
    /// Partitioned tables have statistics of their own, which autovacuum never gathers.
    pub(super) fn parents(&mut self) {
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
}
