//! A sudden drop against the backups before: an empty dump is complete, valid, and not what anybody wants.
//!
//! Pure. It warns; whether that is bad news is the command's to say.

use crate::backup::manifest::{Manifest, Scope, Totals};

/// Returns what is suspicious of a backup's totals, compared with the good ones before it, oldest first.
///
/// `percent` is from how much less it is a drop. A backup of another scope (rows left out) is no measure, and nor is
/// one that was suspicious itself: else the second empty dump would be as good as the first. A backup whose drop was
/// accepted is not suspicious, and the measure from then on.
pub(crate) fn suspicions<'a>(
    now: &Manifest,
    earlier: impl IntoIterator<Item = &'a Manifest>,
    percent: u32,
) -> Vec<String> {
    let mut measure = None;
    for manifest in earlier.into_iter().filter(|m| comparable(&m.scope, &now.scope)) {
        if drops(manifest, measure, percent).is_empty() {
            measure = Some(manifest);
        }
    }
    drops(now, measure, percent)
}

fn drops(now: &Manifest, measure: Option<&Manifest>, percent: u32) -> Vec<String> {
    let mut suspicions = Vec::new();
    if now.shrink_accepted {
        return suspicions;
    }
    if now.totals.tables == 0 && !now.scope.schema_only {
        suspicions.push("there is no table in it: is this the right database?".to_owned());
    }
    if let Some(previous) = measure {
        let Totals { rows, raw_bytes, .. } = now.totals;
        let figures = [
            ("rows", previous.totals.rows, rows),
            ("bytes of data", previous.totals.raw_bytes, raw_bytes),
        ];
        for (name, before, after) in figures {
            if before > 0
                && u128::from(after) * 100
                    <= u128::from(before) * u128::from(100 - percent.min(100))
            {
                suspicions.push(format!(
                    "{after} {name}, {before} in the previous backup {}",
                    previous.id
                ));
            }
        }
    }
    suspicions
}

fn comparable(a: &Scope, b: &Scope) -> bool {
    a.schema_only == b.schema_only
        && a.exclude_table_data == b.exclude_table_data
        && a.exclude_schema == b.exclude_schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::manifest::tests::sample;
    use crate::id::RunId;

    fn manifest(tables: u64, rows: u64, raw_bytes: u64) -> Manifest {
        let at = "2026-11-21T02:00:00Z".parse().unwrap();
        let mut manifest = sample(RunId::new(at, 1), at);
        manifest.totals = Totals { tables, rows, raw_bytes, ..Totals::default() };
        manifest
    }

    #[test]
    fn half_of_the_rows_or_bytes_gone_is_suspicious() {
        let previous = manifest(3, 100, 1000);
        let check = |now: &Manifest, n| assert_eq!(suspicions(now, [&previous], 50).len(), n);
        check(&manifest(3, 51, 501), 0);
        check(&manifest(3, 50, 501), 1);
        check(&manifest(3, 0, 0), 2);
        check(&manifest(0, 0, 0), 3);
        let mut schema_only = manifest(0, 0, 0);
        schema_only.scope.schema_only = true;
        check(&schema_only, 0);
        let words = suspicions(&manifest(3, 1, 900), [&previous], 50);
        assert_eq!(words, ["1 rows, 100 in the previous backup 20261121T020000Z-000001"]);
    }

    #[test]
    fn a_suspicious_backup_is_no_measure_until_somebody_accepts_it() {
        let (whole, empty) = (manifest(3, 100, 1000), manifest(3, 0, 0));
        assert_eq!(suspicions(&empty, [&whole, &empty, &empty], 50).len(), 2);
        let accepted = Manifest { shrink_accepted: true, ..manifest(3, 10, 100) };
        assert_eq!(suspicions(&accepted, [&whole], 50), Vec::<String>::new());
        assert_eq!(suspicions(&manifest(3, 9, 90), [&whole, &accepted], 50), Vec::<String>::new());
        assert_eq!(suspicions(&manifest(3, 5, 90), [&whole, &accepted], 50).len(), 1);
    }
}
