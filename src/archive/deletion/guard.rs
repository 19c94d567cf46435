//! What stands before a table: triggers, rules, foreign keys, policies, privileges. It is asked of the catalogue, never tried out.
//!
//! A table that its owner protects from deletion stays as it is: opsctl says which ways there are, and goes around none.

use postgres::Row;

use crate::archive::source::Source;
use crate::db::Error;

/// What the catalogue says of a table and its partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Guard {
    /// Triggers that act on DELETE: `trigger on table`.
    triggers: Vec<String>,
    /// Triggers that would act on UPDATE, DELETE or TRUNCATE, and are disabled.
    disabled: Vec<String>,
    rules: Vec<String>,
    /// Tables with rows that would be deleted, or changed, with those that they refer to.
    cascades: Vec<String>,
    /// Privileges that are missing.
    missing: Vec<String>,
    /// Which of [`REASONS`] there are.
    reasons: Vec<&'static str>,
}

/// What is so or not: how it is asked, and what is said.
const REASONS: [(&str, &str); 4] = [
    (
        "SELECT 'x' WHERE row_security_active($1)",
        "row-level security applies to this role. Right way: a role with BYPASSRLS that does nothing else",
    ),
    (
        "SELECT 'x' WHERE current_setting('session_replication_role') = 'replica' AND $1 IS NOT NULL",
        "session_replication_role is replica for this role: foreign keys would be passed over",
    ),
    (
        "SELECT 'x' FROM pg_class c JOIN pg_inherits i ON inhparent = c.oid WHERE c.oid = $1 AND relkind = 'r'",
        "other tables inherit from it, and a key may be in several",
    ),
    (
        "SELECT 'x' FROM tree t JOIN pg_class c ON c.oid = t.oid WHERE relkind = 'f'",
        "a partition is on another server",
    ),
];

impl Guard {
    /// Asks the catalogue.
    pub(crate) fn read(source: &mut Source) -> Result<Guard, Error> {
        let stop = source.stop.clone();
        let failed = |e| Error::query("see what protects the table", e).or_stopped(&stop);
        let (oid, connection) = (source.oid, &mut source.connection);
        let mut list = |sql: &str| -> Result<Vec<String>, Error> {
            let tree = "WITH RECURSIVE tree(oid) AS (SELECT $1::oid UNION \
                        SELECT i.inhrelid FROM pg_inherits i JOIN tree t ON t.oid = i.inhparent)";
            let rows = connection.query(&format!("{tree} {sql}"), &[&oid]).map_err(failed)?;
            Ok(rows.iter().map(|row: &Row| row.get(0)).collect())
        };
        // tgtype: 8 is DELETE, 16 UPDATE, 32 TRUNCATE (pg_trigger.h).
        let triggers = "SELECT format('%s on %s', tgname, tgrelid::regclass) FROM pg_trigger JOIN tree t ON t.oid = tgrelid \
                        WHERE NOT tgisinternal";
        let mut reasons = Vec::new();
        for (sql, why) in REASONS {
            if !list(sql)?.is_empty() {
                reasons.push(why);
            }
        }
        Ok(Guard {
            triggers: list(&format!(
                "{triggers} AND tgtype & 8 > 0 AND tgenabled IN ('O', 'A') ORDER BY 1"
            ))?,
            disabled: list(&format!(
                "{triggers} AND tgtype & 56 > 0 AND tgenabled = 'D' ORDER BY 1"
            ))?,
            rules: list(
                "SELECT format('%s on %s', rulename, ev_class::regclass) FROM pg_rewrite r JOIN tree t ON t.oid = ev_class \
                 WHERE ev_type = '4' ORDER BY 1",
            )?,
            cascades: list(
                "SELECT DISTINCT conrelid::regclass::text FROM pg_constraint c JOIN tree t ON t.oid = confrelid \
                 WHERE contype = 'f' AND confdeltype IN ('c', 'n', 'd') ORDER BY 1",
            )?,
            missing: list(
                "SELECT p FROM (VALUES ('SELECT'), ('UPDATE'), ('DELETE')) v(p) WHERE NOT has_table_privilege($1, p)",
            )?,
            reasons,
        })
    }

    /// Returns why no row may be deleted one by one, with the ways to do it right.
    pub(crate) fn why_not(&self) -> Option<String> {
        let shown = |names: &[String]| names.join(", ");
        if !self.triggers.is_empty() {
            return Some(format!(
                "it is protected by a trigger ({}). Right ways: partition the table by time, and have partitions go as a whole (`partitions`); or \
                 its owner disables the trigger for the time of the run, and enables it again. opsctl disables none",
                shown(&self.triggers)
            ));
        }
        if !self.missing.is_empty() {
            return Some(format!(
                "this role lacks {}. Right way: GRANT SELECT, UPDATE, DELETE to a role that does nothing else, and let opsctl connect \
                 as it for deletions (UPDATE is for locking rows: none is changed)",
                shown(&self.missing)
            ));
        }
        if !self.rules.is_empty() {
            return Some(format!("a rule acts on DELETE: {}", shown(&self.rules)));
        }
        if !self.cascades.is_empty() {
            return Some(format!(
                "rows of {} would go or change with its own, and they are not archived here",
                shown(&self.cascades)
            ));
        }
        (!self.reasons.is_empty()).then(|| self.reasons.join("; "))
    }

    /// Returns what is to be said of triggers that are disabled, if there are any.
    pub(crate) fn warning(&self) -> Option<String> {
        let names = self.disabled.join(", ");
        (!names.is_empty()).then(|| {
            format!("triggers that would watch over its rows are disabled: {names}. Is that meant?")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_stands_before_a_table_is_a_reason() {
        let names = || vec!["x on t".to_owned()];
        assert_eq!(Guard::default().why_not(), None);
        for guard in [
            Guard { triggers: names(), ..Guard::default() },
            Guard { rules: names(), ..Guard::default() },
            Guard { cascades: names(), ..Guard::default() },
            Guard { missing: names(), ..Guard::default() },
            Guard { reasons: vec![REASONS[0].1], ..Guard::default() },
        ] {
            assert!(guard.why_not().is_some(), "{guard:?}");
        }
        let disabled = Guard { disabled: names(), ..Guard::default() };
        assert!(disabled.why_not().is_none() && disabled.warning().is_some());
    }
}
