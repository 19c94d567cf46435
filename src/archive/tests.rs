//! The order of writes, tried out: rows of a real table into storages that fail at every call in turn, and by schedules at random.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use crate::archive::folder::{Contents, Folder};
use crate::archive::line::Shape;
use crate::archive::row::Row;
use crate::archive::run::{self, Outcome, Request};
use crate::archive::signature::Signer;
use crate::archive::{evidence, query_copy, verify};
use crate::clock::Moment;
use crate::config::{AuditTable, AuditWindow, Location};
use crate::db::Target;
use crate::db::testing;
use crate::stop::Stop;
use crate::storage::Shared;
use crate::storage::faulty::{Fault, Faulty};
use crate::storage::memory::Memory;

/// A table with rows in three months that are over.
pub(super) struct Scene {
    database: String,
    pub(super) target: Target,
    pub(super) audit: AuditTable,
    pub(super) signer: Signer,
    now: Moment,
}

impl Scene {
    pub(super) fn new(rows: u32) -> Scene {
        let server = testing::server();
        let database = server.create_database();
        let sql = format!(
            "CREATE TABLE logs (id serial PRIMARY KEY, at timestamptz, what text); \
             INSERT INTO logs (at, what) SELECT timestamptz '2025-01-03 00:00Z' + n * interval '2 days', 'x' FROM generate_series(1, {rows}) n"
        );
        server.sql(&database, &sql);
        let audit = AuditTable {
            table: "public.logs".parse().unwrap(),
            database: None,
            time_column: "at".to_owned(),
            key: Vec::new(),
            hot_period: std::time::Duration::from_secs(86_400),
            window: AuditWindow::Month,
            location: Location::Directory("/nowhere".into()),
            signing_key: "/nowhere".into(),
            allowed_signers: None,
            parquet: true,
            recipients: Vec::new(),
            identity_file: None,
            delete: false,
            drop_partitions: false,
            delete_min_age: std::time::Duration::from_secs(7 * 86_400),
            retention: None,
        };
        let target = server.target(&database);
        let now = "2025-04-15T00:00:00Z".parse().unwrap();
        Scene { database, target, audit, signer: Signer::for_tests(), now }
    }

    fn sql(&self, sql: &str) {
        testing::server().sql(&self.database, sql);
    }

    pub(super) fn folder(storage: Shared) -> Folder {
        Folder::new(storage, "public.logs")
    }

    pub(super) fn run(&self, storage: Shared) -> anyhow::Result<Outcome> {
        run::run(&Request {
            target: &self.target,
            audit: &self.audit,
            folder: &Scene::folder(storage),
            signer: &self.signer,
            signers: &self.signer.signers(),
            now: self.now,
            recipients: &[],
            lock_days: None,
            dry_run: false,
            only_late: None,
            stop: &Stop::new(),
        })
    }

    /// Runs without faults and verifies; returns the ids that are archived, each of them once.
    fn archived(&self, memory: &Memory) -> BTreeSet<String> {
        let storage: Shared = Arc::new(memory.clone());
        let outcome = self.run(storage.clone()).unwrap();
        assert_eq!(outcome.findings, []);
        let folder = Scene::folder(storage);
        let contents: Contents = folder.contents().unwrap();
        assert_eq!(verify::manifests(&contents, &self.signer.signers()), []);
        let (mut ids, mut row) = (BTreeSet::new(), Row::default());
        for segment in &contents.segments {
            let manifest = segment.manifest.as_ref().unwrap();
            let (name, stop) = (&segment.name, Stop::new());
            assert_eq!(verify::rows(&folder, name, manifest, &stop).unwrap(), []);
            evidence::read(&folder, name, &manifest.files, &stop, |text| {
                Shape::of(&manifest.columns).read(text, &mut row).unwrap();
                let id = String::from_utf8(row.get(0).unwrap().to_vec()).unwrap();
                assert!(ids.insert(id.clone()), "row {id} is archived twice");
                Ok(())
            })
            .unwrap();
        }
        let copies = query_copy::verify(&folder, &contents, &self.signer.signers(), &Stop::new());
        assert_eq!(copies.unwrap(), []);
        assert!(
            contents.segments.iter().all(|s| s.has_copy == (s.manifest.as_ref().unwrap().rows > 0))
        );
        ids
    }
}

fn ids(rows: u32) -> BTreeSet<String> {
    (1..=rows).map(|n| n.to_string()).collect()
}

/// Spoils each call of a run in turn. Whatever happens, the next run completes the archive.
fn spoil_every_call(memory: fn() -> Memory, fault: Fault) {
    let scene = Scene::new(40);
    for n in 1.. {
        let memory = memory();
        let faulty = Faulty::new(Arc::new(memory.clone()));
        faulty.spoil(n, fault);
        let result = scene.run(Arc::new(faulty.clone()));
        if faulty.count() < n {
            assert_eq!(result.unwrap().segments.len(), 3);
            assert!(n > 15, "only {n} calls");
            return;
        }
        let calls = faulty.calls();
        assert!(result.is_err(), "{fault:?} at {n} went unnoticed: {}", calls[calls.len() - 1]);
        assert_eq!(scene.archived(&memory), ids(40), "{fault:?} at call {n}");
    }
}

#[test]
fn a_storage_that_fails_at_any_call_leaves_an_archive_that_the_next_run_completes() {
    for fault in [Fault::Fail, Fault::FailAfter, Fault::Die] {
        spoil_every_call(Memory::without_writers, fault);
    }
    spoil_every_call(Memory::new, Fault::FailAfter);
    spoil_every_call(Memory::new, Fault::Full);
}

#[test]
fn rows_that_are_stored_otherwise_than_sent_never_become_a_segment() {
    let scene = Scene::new(40);
    for fault in [Fault::Truncate, Fault::Corrupt] {
        let memory = Memory::without_writers();
        let faulty = Faulty::new(Arc::new(memory.clone()));
        scene.run(Arc::new(faulty.clone())).unwrap();
        let calls = faulty.calls();
        let is_rows = |call: &&String| call.contains("put") && call.contains("rows.");
        let n = calls.iter().position(|call| is_rows(&call)).unwrap();
        let memory = Memory::without_writers();
        let faulty = Faulty::new(Arc::new(memory.clone()));
        faulty.spoil(n as u64 + 1, fault);
        let error = scene.run(Arc::new(faulty)).err().unwrap().to_string();
        assert!(error.contains("is not what comes back"), "{error}");
        assert_eq!(scene.archived(&memory), ids(40));
    }
}

/// Something that happens between, or to, runs.
#[derive(Clone, Debug)]
enum Event {
    /// Rows arrive, so many days after the beginning.
    Rows(Vec<u8>),
    /// Somebody deletes a row, whether archived or not.
    Delete(u8),
    /// Somebody changes one.
    Change(u8),
    Run,
    /// A run whose storage is gone from this call on.
    Killed(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        proptest::collection::vec(0..110_u8, 1..4).prop_map(Event::Rows),
        (1..30_u8).prop_map(Event::Delete),
        (1..30_u8).prop_map(Event::Change),
        Just(Event::Run),
        (1..40_u64).prop_map(Event::Killed),
    ];
    proptest::collection::vec(event, 1..7)
}

#[test]
fn a_run_that_is_killed_over_older_rows_than_all_leaves_no_gap() {
    let scene = Scene::new(0);
    let arrive = |id: u32, day: &str| {
        scene.sql(&format!("INSERT INTO logs VALUES ({id}, '{day} 00:00Z', 'x')"));
    };
    for n in 1.. {
        scene.sql("TRUNCATE logs");
        arrive(1, "2025-02-01");
        let memory = Memory::without_writers();
        scene.run(Arc::new(memory.clone())).unwrap();
        arrive(2, "2024-12-28");
        let faulty = Faulty::new(Arc::new(memory.clone()));
        faulty.spoil(n, Fault::Die);
        drop(scene.run(Arc::new(faulty.clone())));
        if faulty.count() < n {
            assert!(n > 15, "only {n} calls");
            return;
        }
        assert_eq!(scene.archived(&memory), ids(2), "killed at call {n}");
    }
}

#[test]
fn by_any_schedule_every_row_is_in_the_archive_once() {
    let scene = Scene::new(0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(100));
    let result = runner.run(&events(), |events| {
        scene.sql("TRUNCATE logs RESTART IDENTITY");
        let memory = Memory::without_writers();
        let (mut next, mut there) = (1_u32, BTreeSet::new());
        for event in events {
            match event {
                Event::Rows(days) => {
                    for day in days {
                        scene.sql(&format!(
                            "INSERT INTO logs (at) VALUES (timestamptz '2024-12-28 00:00Z' + {day} * interval '1 day')"
                        ));
                        // From the cutoff on a row is hot: 94 days later it is the 1st of April.
                        if day < 94 {
                            there.insert(next.to_string());
                        }
                        next += 1;
                    }
                }
                Event::Delete(id) => {
                    scene.sql(&format!("DELETE FROM logs WHERE id = {id}"));
                    there.remove(&id.to_string());
                }
                Event::Change(id) => {
                    scene.sql(&format!("UPDATE logs SET what = 'changed' WHERE id = {id}"));
                }
                Event::Run => {
                    scene.run(Arc::new(memory.clone())).unwrap();
                }
                Event::Killed(call) => {
                    let faulty = Faulty::new(Arc::new(memory.clone()));
                    faulty.spoil(call, Fault::Die);
                    drop(scene.run(Arc::new(faulty)));
                }
            }
        }
        let archived = scene.archived(&memory);
        prop_assert!(archived.is_superset(&there), "{archived:?} {there:?}");
        Ok(())
    });
    result.unwrap();
}
