//! What must never happen, tried out by schedules at random: a row that is neither in the table nor in the archive.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::TimeDelta;
use proptest::prelude::*;

use crate::archive::deletion::{Report, Task, run};
use crate::archive::tests::Scene;
use crate::archive::{evidence, line::Shape, row::Row};
use crate::db::{Connection, Error};
use crate::stop::Stop;
use crate::storage::Shared;
use crate::storage::faulty::{Fault, Faulty};
use crate::storage::memory::Memory;

/// Something that happens between, or to, runs.
#[derive(Clone, Debug)]
enum Event {
    /// Rows arrive, so many days after the beginning.
    Rows(Vec<u8>),
    /// Somebody deletes a row, changes one, or moves one in time.
    Remove(u8),
    Change(u8),
    Move(u8, u8),
    Archive,
    /// A run whose storage is gone from this call on.
    KilledArchive(u64),
    Delete,
    /// A deletion whose storage is gone from this call on.
    Unstored(u64),
    /// A deletion that is killed before this transaction.
    Killed(u32),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => proptest::collection::vec(0..110_u8, 1..9).prop_map(Event::Rows),
        1 => (1..12_u8).prop_map(Event::Remove),
        2 => (1..12_u8).prop_map(Event::Change),
        1 => (1..12_u8, 0..94_u8).prop_map(|(id, day)| Event::Move(id, day)),
        3 => Just(Event::Archive),
        1 => (1..40_u64).prop_map(Event::KilledArchive),
        2 => Just(Event::Delete),
        1 => (1..60_u64).prop_map(Event::Unstored),
        1 => (0..12_u32).prop_map(Event::Killed),
    ];
    proptest::collection::vec(event, 1..12)
}

/// Deletes from the table what was archived more than a week ago.
fn delete(scene: &Scene, storage: Shared, killed_before: u32) -> anyhow::Result<Report> {
    let mut transactions = 0;
    delete_checked(scene, storage, &mut || {
        transactions += 1;
        if transactions > killed_before { Err(Error::Stopped) } else { Ok(()) }
    })
}

/// The same, with something that is done before each transaction.
fn delete_checked(
    scene: &Scene,
    storage: Shared,
    check: &mut dyn FnMut() -> Result<(), Error>,
) -> anyhow::Result<Report> {
    let task = Task {
        target: &scene.target,
        audit: &scene.audit,
        folder: &Scene::folder(storage),
        signers: &scene.signer.signers(),
        now: crate::clock::now() + TimeDelta::days(8),
        is_locked: false,
        batch_rows: 2,
        dry_run: false,
        stop: &Stop::new(),
        abort: &Stop::new(),
    };
    run(&task, None, check)
}

/// Returns all rows of all segments: the whole line for each id.
fn archived(memory: &Memory) -> BTreeSet<(String, String)> {
    let folder = Scene::folder(Arc::new(memory.clone()));
    let mut rows = BTreeSet::new();
    for segment in &folder.contents().unwrap().segments {
        let manifest = segment.manifest.as_ref().unwrap();
        let mut row = Row::default();
        let take = |text: &[u8]| {
            Shape::of(&manifest.columns).read(text, &mut row).unwrap();
            let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
            let value = |n: usize| row.get(n).map(text).unwrap_or_default();
            rows.insert((value(0), format!("{} {}", value(1), value(2))));
            Ok(())
        };
        evidence::read(&folder, &segment.name, &manifest.files, &Stop::new(), take).unwrap();
    }
    rows
}

/// Returns the rows of the table likewise.
fn there(session: &mut Connection) -> BTreeMap<String, String> {
    let sql = "SELECT id::text, (at AT TIME ZONE 'UTC') || '+00 ' || coalesce(what, '') FROM logs";
    session.query(sql, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// What somebody does to the table; nothing if it is a run.
fn sql_of(event: &Event) -> Option<String> {
    let day = |day: u8| format!("timestamptz '2024-12-28 00:00Z' + {day} * interval '1 day'");
    Some(match event {
        Event::Rows(days) => {
            let rows: Vec<String> = days.iter().map(|n| format!("({}, 'x')", day(*n))).collect();
            format!("INSERT INTO logs (at, what) VALUES {}", rows.join(", "))
        }
        Event::Remove(id) => format!("DELETE FROM logs WHERE id = {id}"),
        Event::Change(id) => format!("UPDATE logs SET what = what || 'y' WHERE id = {id}"),
        Event::Move(id, to) => format!("UPDATE logs SET at = {} WHERE id = {id}", day(*to)),
        _ => return None,
    })
}

/// What a run does.
fn carry_out(scene: &Scene, event: &Event, memory: &Memory) {
    let storage = || -> Shared { Arc::new(memory.clone()) };
    let dying = |call: u64| -> Shared {
        let faulty = Faulty::new(storage());
        faulty.spoil(call, Fault::Die);
        Arc::new(faulty)
    };
    match *event {
        Event::KilledArchive(call) => drop(scene.run(dying(call))),
        Event::Delete => drop(delete(scene, storage(), u32::MAX).unwrap()),
        Event::Unstored(call) => drop(delete(scene, dying(call), u32::MAX)),
        Event::Killed(n) => drop(delete(scene, storage(), n)),
        _ => drop(scene.run(storage()).unwrap()),
    }
}

#[test]
fn by_any_schedule_no_row_is_in_neither_place() {
    let scene = Scene::new(0);
    let session = RefCell::new(scene.target.connect("test", &Stop::new()).unwrap());
    let there = || there(&mut session.borrow_mut());
    let sql = |sql: &str| session.borrow_mut().batch_execute(sql).unwrap();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(100));
    let result = runner.run(&events(), |events| {
        sql("TRUNCATE logs RESTART IDENTITY");
        let memory = Memory::without_writers();
        // At last everything is archived, and goes: but for what is hot, or was changed since.
        for event in events.into_iter().chain([Event::Archive, Event::Delete]) {
            if let Some(by_somebody) = sql_of(&event) {
                sql(&by_somebody);
                continue;
            }
            let (before, known) = (there(), archived(&memory));
            carry_out(&scene, &event, &memory);
            let (after, archive) = (there(), archived(&memory));
            prop_assert!(archive.is_superset(&known));
            for row in before {
                let is_there = after.get(&row.0) == Some(&row.1);
                prop_assert!(is_there || archive.contains(&row), "{:?} is nowhere", row);
            }
        }
        let rest: BTreeSet<(String, String)> = there().into_iter().collect();
        prop_assert!(rest.is_disjoint(&archived(&memory)), "{:?}", rest);
        Ok(())
    });
    result.unwrap();
}

#[test]
fn what_the_storage_says_after_the_proof_changes_nothing() {
    let scene = Scene::new(40);
    let memory = Memory::without_writers();
    scene.run(Arc::new(memory.clone())).unwrap();
    let faulty = Faulty::new(Arc::new(memory.clone()));
    // The rows of the first segment are read twice: to prove them, and to delete by.
    let reads = |faulty: &Faulty| {
        let calls = faulty.calls();
        let is_rows = |call: &String| call.starts_with("get_range") && call.contains("rows.");
        calls.iter().enumerate().filter(|(_, call)| is_rows(call)).map(|(n, _)| n + 1).collect()
    };
    drop(delete(&scene, Arc::new(faulty.clone()), 0));
    let numbers: Vec<usize> = reads(&faulty);
    assert_eq!(numbers.len(), 2, "{:?}", faulty.calls());
    let faulty = Faulty::new(Arc::new(memory));
    faulty.spoil(numbers[1] as u64, Fault::Corrupt);
    let error = delete(&scene, Arc::new(faulty), u32::MAX).err().unwrap();
    assert!(format!("{error:#}").contains("changed while it was read"), "{error:#}");
    let mut session = scene.target.connect("test", &Stop::new()).unwrap();
    assert_eq!(there(&mut session).len(), 40);
}

#[test]
fn columns_that_come_while_rows_are_deleted_end_it() {
    let scene = Scene::new(40);
    let memory = Memory::without_writers();
    scene.run(Arc::new(memory.clone())).unwrap();
    let mut session = scene.target.connect("test", &Stop::new()).unwrap();
    let mut transactions = 0;
    let result = delete_checked(&scene, Arc::new(memory), &mut || {
        transactions += 1;
        if transactions == 3 {
            let sql =
                "ALTER TABLE logs ADD COLUMN verdict text; UPDATE logs SET verdict = 'guilty'";
            session.batch_execute(sql).unwrap();
        }
        Ok(())
    });
    let error = format!("{:#}", result.err().unwrap());
    assert!(error.contains("the columns of public.logs were changed"), "{error}");
    // Two batches of two were gone.
    let left = session.query_one("SELECT count(*) FROM logs WHERE verdict = 'guilty'", &[]);
    assert_eq!(left.unwrap().get::<_, i64>(0), 36);
}

/// Returns the rows of the table and of what was taken out of it, and whether all is in it.
fn in_partitions(session: &mut Connection) -> (BTreeMap<String, String>, bool) {
    let names = "SELECT relname::text, relispartition FROM pg_class WHERE relname ~ '^logs_[0-9]$' AND relkind = 'r'";
    let (mut rows, mut is_whole) = (BTreeMap::new(), true);
    for row in session.query(names, &[]).unwrap() {
        let sql = format!(
            "SELECT id::text, (at AT TIME ZONE 'UTC') || '+00 ' || coalesce(what, '') FROM {}",
            row.get::<_, &str>(0)
        );
        rows.extend(session.query(&sql, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))));
        is_whole &= row.get::<_, bool>(1);
    }
    (rows, is_whole)
}

#[test]
fn by_any_schedule_no_row_of_a_partition_is_in_neither_place() {
    let mut scene = Scene::new(0);
    scene.audit.drop_partitions = true;
    let session = RefCell::new(scene.target.connect("test", &Stop::new()).unwrap());
    let sql = |sql: &str| session.borrow_mut().batch_execute(sql);
    let there = || in_partitions(&mut session.borrow_mut());
    let month = |n: u32| format!("date '2024-12-01' + {n} * interval '1 month'");
    let make: String = (0..6)
        .map(|n| {
            format!(
                "EXECUTE format('CREATE TABLE logs_{n} PARTITION OF logs FOR VALUES FROM (%L) TO (%L)', {}, {});",
                month(n),
                month(n + 1)
            )
        })
        .collect();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(40));
    let result = runner.run(&events(), |events| {
        sql(&format!(
            "SET TimeZone = 'UTC'; DROP TABLE IF EXISTS logs, logs_0, logs_1, logs_2, logs_3, logs_4, logs_5; \
             CREATE TABLE logs (id serial, at timestamptz, what text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at); DO $$ BEGIN {make} END $$"
        ))
        .unwrap();
        let memory = Memory::without_writers();
        for event in events.into_iter().chain([Event::Archive, Event::Delete]) {
            if let Some(by_somebody) = sql_of(&event) {
                // There may be no partition for it any more.
                drop(sql(&by_somebody));
                continue;
            }
            let (before, known) = (there().0, archived(&memory));
            // As the command does.
            super::take_back(&scene.target, &scene.audit, &Stop::new()).unwrap();
            prop_assert!(there().1);
            carry_out(&scene, &event, &memory);
            let ((after, is_whole), archive) = (there(), archived(&memory));
            prop_assert!(archive.is_superset(&known));
            for row in before {
                let is_there = after.get(&row.0) == Some(&row.1);
                prop_assert!(is_there || archive.contains(&row), "{:?} is nowhere", row);
            }
            prop_assert!(is_whole || matches!(event, Event::Killed(_)));
        }
        Ok(())
    });
    result.unwrap();
}
