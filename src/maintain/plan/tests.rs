//! Plans for databases that are made up.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::db::ServerVersion;
use crate::maintain::look::{Look, Table};
use crate::maintain::need::{Counts, Settings};
use crate::maintain::{Home, Server};

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
            home: Home::Here,
        },
        settings: Settings::default(),
        tables,
        indexes: Vec::new(),
        invalid: Vec::new(),
        horizon: Vec::new(),
    }
}

const NEVER: Ages = Ages { xid: f64::INFINITY, multixact: f64::INFINITY };

fn planned(look: &Look) -> Plan {
    let settings = Maintain { reindex_min_bytes: 0, ..Maintain::default() };
    let wish = Wish { settings: &settings, reindex: true, only: &[], now: at(20), critical: NEVER };
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
        prop_assert!(plan.steps().is_sorted_by_key(Step::class));
        for pair in plan.steps().windows(2) {
            prop_assert!(pair[0].class() < pair[1].class() || pair[0].urgency >= pair[1].urgency);
        }
    }
}
