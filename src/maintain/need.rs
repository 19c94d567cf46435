//! Which tables need VACUUM, ANALYZE or to be frozen, by the thresholds that autovacuum itself would use for each. Pure.
//!
//! The formulas are those of `relation_needs_vacanalyze()` in PostgreSQL's `autovacuum.c`, of versions 14 to 18.

use std::collections::BTreeMap;

/// The settings of autovacuum, as the server has them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    vacuum_threshold: f64,
    vacuum_scale_factor: f64,
    /// Since version 18; without it there is none.
    vacuum_max_threshold: Option<f64>,
    /// Off, if negative.
    insert_threshold: f64,
    insert_scale_factor: f64,
    analyze_threshold: f64,
    analyze_scale_factor: f64,
    pub(crate) freeze_max_age: f64,
    pub(crate) multixact_freeze_max_age: f64,
    freeze_table_age: f64,
    multixact_freeze_table_age: f64,
    pub(crate) is_on: bool,
}

/// What is known of the rows of a table, or of its TOAST table.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    /// Storage parameters, such as `autovacuum_vacuum_scale_factor=0.01`.
    pub(crate) options: Vec<String>,
    /// Negative if it was never vacuumed or analysed.
    pub(crate) rows: f64,
    pub(crate) dead: u64,
    /// Rows inserted since the last VACUUM.
    pub(crate) inserted: u64,
    /// Rows changed since the last ANALYZE.
    pub(crate) modified: u64,
    pub(crate) xid_age: u64,
    pub(crate) multixact_age: u64,
    /// How much of it is frozen, from 0 to 1; before version 18 it counts as nothing.
    pub(crate) frozen_share: f64,
}

/// What a table needs, and how badly: 1 is when autovacuum would begin.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Need {
    pub(crate) dead: f64,
    pub(crate) inserted: f64,
    pub(crate) modified: f64,
    pub(crate) xid: f64,
    pub(crate) multixact: f64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings::new(&BTreeMap::new())
    }
}

impl Settings {
    /// Takes the settings from `pg_settings`; those that are missing have the server's defaults.
    pub(crate) fn new(values: &BTreeMap<String, String>) -> Settings {
        let number = |name: &str, default: f64| {
            values.get(name).and_then(|text| text.parse().ok()).unwrap_or(default)
        };
        let max = number("autovacuum_vacuum_max_threshold", -1.0);
        Settings {
            vacuum_threshold: number("autovacuum_vacuum_threshold", 50.0),
            vacuum_scale_factor: number("autovacuum_vacuum_scale_factor", 0.2),
            vacuum_max_threshold: (max >= 0.0).then_some(max),
            insert_threshold: number("autovacuum_vacuum_insert_threshold", 1000.0),
            insert_scale_factor: number("autovacuum_vacuum_insert_scale_factor", 0.2),
            analyze_threshold: number("autovacuum_analyze_threshold", 50.0),
            analyze_scale_factor: number("autovacuum_analyze_scale_factor", 0.1),
            freeze_max_age: number("autovacuum_freeze_max_age", 2e8),
            multixact_freeze_max_age: number("autovacuum_multixact_freeze_max_age", 4e8),
            freeze_table_age: number("vacuum_freeze_table_age", 1.5e8),
            multixact_freeze_table_age: number("vacuum_multixact_freeze_table_age", 1.5e8),
            is_on: values.get("autovacuum").is_none_or(|value| value == "on"),
        }
    }
}

/// Returns the value of a storage parameter. One that is -1 there is that of the server, but for where -1 has a meaning.
fn option(counts: &Counts, name: &str) -> Option<f64> {
    let found = counts.options.iter().find_map(|option| {
        let (known, value) = option.split_once('=')?;
        (known == name).then_some(value)
    });
    found?.parse().ok()
}

/// How many dead rows are too many.
pub(crate) fn vacuum_threshold(settings: &Settings, counts: &Counts) -> f64 {
    let of = |name: &str, usual: f64| option(counts, name).filter(|v| *v >= 0.0).unwrap_or(usual);
    let base = of("autovacuum_vacuum_threshold", settings.vacuum_threshold);
    let scale = of("autovacuum_vacuum_scale_factor", settings.vacuum_scale_factor);
    let threshold = base + scale * counts.rows.max(0.0);
    // -1 switches the limit off, also for one table; -2 is "as the server has it".
    let own = option(counts, "autovacuum_vacuum_max_threshold").filter(|max| *max >= -1.0);
    let max = own.map_or(settings.vacuum_max_threshold, |max| (max >= 0.0).then_some(max));
    max.map_or(threshold, |max| threshold.min(max))
}

/// How many inserted rows are too many; none if that does not matter.
pub(crate) fn insert_threshold(settings: &Settings, counts: &Counts) -> Option<f64> {
    let own = option(counts, "autovacuum_vacuum_insert_threshold").filter(|v| *v >= -1.0);
    let base = own.unwrap_or(settings.insert_threshold);
    let scale = option(counts, "autovacuum_vacuum_insert_scale_factor").filter(|v| *v >= 0.0);
    let scale = scale.unwrap_or(settings.insert_scale_factor);
    let rows = counts.rows.max(0.0) * (1.0 - counts.frozen_share);
    (base >= 0.0).then_some(base + scale * rows)
}

/// How many changed rows are too many.
pub(crate) fn analyze_threshold(settings: &Settings, counts: &Counts) -> f64 {
    let of = |name: &str, usual: f64| option(counts, name).filter(|v| *v >= 0.0).unwrap_or(usual);
    let base = of("autovacuum_analyze_threshold", settings.analyze_threshold);
    let scale = of("autovacuum_analyze_scale_factor", settings.analyze_scale_factor);
    base + scale * counts.rows.max(0.0)
}

/// From which age on a VACUUM reads all of a table; nearer to its end, a table is frozen here.
///
/// The server takes a setting of more than 95 % of where autovacuum begins by force for that.
fn freeze_age(table_age: f64, max_age: f64, own: Option<f64>, own_table: Option<f64>) -> f64 {
    let max_age = own.map_or(max_age, |own| own.min(max_age));
    own_table.unwrap_or(table_age).min(max_age * 0.95).max(1.0)
}

impl Need {
    /// Compares what is known with the thresholds.
    pub(crate) fn of(settings: &Settings, counts: &Counts) -> Need {
        let ratio = |count: u64, threshold: f64| approximate(count) / threshold.max(1.0);
        let option = |name: &str| option(counts, name).filter(|age| *age >= 0.0);
        let xid = freeze_age(
            settings.freeze_table_age,
            settings.freeze_max_age,
            option("autovacuum_freeze_max_age"),
            option("autovacuum_freeze_table_age"),
        );
        let multixact = freeze_age(
            settings.multixact_freeze_table_age,
            settings.multixact_freeze_max_age,
            option("autovacuum_multixact_freeze_max_age"),
            option("autovacuum_multixact_freeze_table_age"),
        );
        Need {
            dead: ratio(counts.dead, vacuum_threshold(settings, counts)),
            inserted: insert_threshold(settings, counts)
                .map_or(0.0, |threshold| ratio(counts.inserted, threshold)),
            modified: ratio(counts.modified, analyze_threshold(settings, counts)),
            xid: approximate(counts.xid_age) / xid,
            multixact: approximate(counts.multixact_age) / multixact,
        }
    }

    /// Returns what a TOAST table needs: without parameters of its own those of its table count.
    pub(crate) fn of_toast(settings: &Settings, main: &Counts, toast: &Counts) -> Need {
        let is_own = toast.options.iter().any(|option| option.starts_with("autovacuum"));
        let options = if is_own { &toast.options } else { &main.options };
        Need::of(settings, &Counts { options: options.clone(), ..toast.clone() })
    }

    /// Is it to be vacuumed because of its rows?
    pub(crate) fn vacuum(&self) -> bool {
        self.dead > 1.0 || self.inserted > 1.0
    }

    pub(crate) fn analyze(&self) -> bool {
        self.modified > 1.0
    }

    pub(crate) fn freeze(&self) -> bool {
        self.xid > 1.0 || self.multixact > 1.0
    }
}

/// Returns how full the pages of a table are made, in percent.
pub(crate) fn fillfactor(counts: &Counts) -> f64 {
    option(counts, "fillfactor").unwrap_or(100.0)
}

/// Is autovacuum switched off for this table?
pub(crate) fn is_switched_off(counts: &Counts) -> bool {
    counts.options.iter().any(|option| {
        matches!(
            option.split_once('='),
            Some(("autovacuum_enabled", "false" | "off" | "no" | "0" | "f"))
        )
    })
}

/// Returns a count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "it is compared with estimates")]
pub(crate) fn approximate(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(rows: f64, options: &[&str]) -> Counts {
        Counts {
            rows,
            options: options.iter().map(|o| (*o).to_owned()).collect(),
            ..Counts::default()
        }
    }

    fn with(setting: &str, value: &str) -> Settings {
        Settings::new(&[(setting.to_owned(), value.to_owned())].into())
    }

    fn is(left: f64, right: f64) {
        assert!((left - right).abs() < 1e-6, "{left} is not {right}");
    }

    #[test]
    fn thresholds_are_those_of_autovacuum() {
        let settings = Settings::default();
        is(vacuum_threshold(&settings, &counts(1000.0, &[])), 250.0);
        is(vacuum_threshold(&settings, &counts(-1.0, &[])), 50.0);
        let own = ["autovacuum_vacuum_scale_factor=0.01", "autovacuum_vacuum_threshold=0"];
        is(vacuum_threshold(&settings, &counts(1000.0, &own)), 10.0);
        is(
            analyze_threshold(&settings, &counts(1000.0, &["autovacuum_analyze_threshold=7"])),
            107.0,
        );
        let capped = with("autovacuum_vacuum_max_threshold", "100000000");
        is(vacuum_threshold(&capped, &counts(1e10, &[])), 1e8);
        is(
            vacuum_threshold(&capped, &counts(1e10, &["autovacuum_vacuum_max_threshold=-1"])),
            2e9 + 50.0,
        );
        is(vacuum_threshold(&settings, &counts(1e10, &["autovacuum_vacuum_max_threshold=5"])), 5.0);
        assert_eq!(
            insert_threshold(&settings, &counts(0.0, &["autovacuum_vacuum_insert_threshold=-1"])),
            None
        );
        // Since version 18 what is frozen does not count.
        let half = Counts { frozen_share: 0.5, ..counts(10_000.0, &[]) };
        is(insert_threshold(&settings, &half).unwrap(), 2000.0);
    }

    #[test]
    fn a_toast_table_without_parameters_has_those_of_its_table() {
        let main =
            counts(0.0, &["autovacuum_vacuum_threshold=10", "autovacuum_vacuum_scale_factor=0"]);
        let toast = |options: &[&str]| Counts { dead: 20, ..counts(1000.0, options) };
        let need =
            |options: &[&str]| Need::of_toast(&Settings::default(), &main, &toast(options)).dead;
        is(need(&[]), 2.0);
        is(need(&["autovacuum_vacuum_threshold=0"]), 20.0 / 200.0);
    }

    #[test]
    fn tables_are_frozen_before_autovacuum_does_it_by_force() {
        let old = |xid_age, multixact_age| Counts { xid_age, multixact_age, ..counts(1.0, &[]) };
        let need = |xid, multixact| Need::of(&Settings::default(), &old(xid, multixact)).freeze();
        assert!(!need(150_000_000, 0) && need(150_000_001, 0));
        assert!(!need(0, 150_000_000) && need(0, 150_000_001));
        let lower = with("autovacuum_freeze_max_age", "100000");
        assert!(Need::of(&lower, &old(95_001, 0)).freeze());
        let own =
            Counts { options: vec!["autovacuum_freeze_max_age=100000".into()], ..old(95_001, 0) };
        assert!(Need::of(&Settings::default(), &own).freeze());
        assert!(is_switched_off(&counts(0.0, &["autovacuum_enabled=false"])));
        assert!(!is_switched_off(&counts(0.0, &["autovacuum_enabled=true"])));
    }

    proptest! {
        #[test]
        fn more_never_needs_less(
            rows in -1.0..1e9f64, dead in 0u64..1 << 40, more in 1u64..1 << 30, base in -1i32..1000, scale in 0.0..1.0f64,
            max in -2i64..1 << 40,
        ) {
            let options = [
                format!("autovacuum_vacuum_threshold={base}"), format!("autovacuum_vacuum_scale_factor={scale}"),
                format!("autovacuum_vacuum_max_threshold={max}"), format!("autovacuum_vacuum_insert_threshold={base}"),
            ];
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            let few = Counts { dead, inserted: dead, modified: dead, xid_age: dead, multixact_age: dead, ..counts(rows, &options) };
            let n = dead + more;
            let many = Counts { dead: n, inserted: n, modified: n, xid_age: n, multixact_age: n, ..few.clone() };
            let settings = Settings::default();
            let (few, many) = (Need::of(&settings, &few), Need::of(&settings, &many));
            for (few, many) in [(few.dead, many.dead), (few.inserted, many.inserted), (few.modified, many.modified),
                (few.xid, many.xid), (few.multixact, many.multixact)] {
                prop_assert!(few <= many && few.is_finite() && many >= 0.0);
            }
            prop_assert!(!few.vacuum() || many.vacuum());
        }
    }
}
