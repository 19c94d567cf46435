//! The order of writes, tried out: a backup of a real database into storages that fail at every call in turn.

use std::sync::Arc;

use indicatif::ProgressBar;

use crate::backup::manifest::{Layout, Scope};
use crate::backup::notes::Address;
use crate::backup::prune;
use crate::backup::repository::{Folder, Found, Repository};
use crate::backup::take::{self, Request};
use crate::backup::verify;
use crate::clock::Moment;
use crate::config::{Compression, Retention};
use crate::db::Target;
use crate::db::testing;
use crate::environment::Environment;
use crate::id::RunId;
use crate::stop::Stop;
use crate::storage::faulty::{Fault, Faulty};
use crate::storage::memory::Memory;
use crate::storage::{Overwrite, Shared, Storage as _};

const DATABASE: &str = "crash";

/// A small database with tables and large objects, and storages to back it up into.
struct Scene {
    target: Target,
    begun_at: Moment,
    next_run: std::cell::Cell<u32>,
}

impl Scene {
    fn new() -> Scene {
        let server = testing::server();
        let name = server.create_database();
        let sql = "CREATE TABLE a AS SELECT n, repeat('x', n % 50) FROM generate_series(1, 500) n; \
                   CREATE TABLE b (); SELECT lo_from_bytea(0, 'content')";
        server.sql(&name, sql);
        let begun_at = "2026-11-21T02:00:00Z".parse().unwrap();
        Scene { target: server.target(&name), begun_at, next_run: std::cell::Cell::new(1) }
    }

    fn repository(storage: Shared, layout: Layout) -> Repository {
        Repository {
            name: "r".to_owned(),
            storage,
            address: Address::Directory("/nowhere".to_owned()),
            layout,
            recipients: None,
            lock_days: None,
        }
    }

    /// Takes a backup; returns its id and whether the run would have called it a success.
    fn take(&self, repositories: &[Repository]) -> (RunId, Vec<bool>) {
        let run = RunId::new(self.begun_at, self.next_run.replace(self.next_run.get() + 1));
        let taken = take::take(&Request {
            run: &run,
            begun_at: self.begun_at,
            database: DATABASE,
            target: &self.target,
            bin_dir: Some(&testing::bin_dir()),
            environment: &Environment::default(),
            scope: Scope::default(),
            compression: Compression::Gzip(1),
            jobs: 2,
            shrink_accepted: false,
            repositories,
            progress: &ProgressBar::hidden(),
            stop: &Stop::new(),
        });
        let successes = match taken {
            Ok(taken) => {
                let success = |name: &str| {
                    taken.iter().any(|t| t.repository.name == name && t.manifest.is_ok())
                };
                repositories.iter().map(|r| success(&r.name)).collect()
            }
            Err(_) => vec![false; repositories.len()],
        };
        (run, successes)
    }

    fn verify(repository: &Repository, id: &RunId) -> verify::Verification {
        verify::verify(&verify::Request {
            repository,
            folder: &Folder::new(DATABASE, id),
            identities: None,
            restore: None,
            sample: None,
            run: id,
            queries: &[],
            bin_dir: Some(&testing::bin_dir()),
            environment: &Environment::default(),
            jobs: 2,
            progress: &ProgressBar::hidden(),
            stop: &Stop::new(),
        })
        .unwrap()
    }
}

/// Spoils each call of a backup in turn by `fault`. Whatever happens, what counts as a backup is whole, what the
/// run calls a success is there, and the next run works and leaves nothing of the failed one behind.
fn spoil_every_call(layout: Layout, fault: Fault) {
    let scene = Scene::new();
    let memory =
        || if layout == Layout::Joined { Memory::new() } else { Memory::without_writers() };
    for n in 1.. {
        let memory = memory();
        let faulty = Arc::new(Faulty::new(Arc::new(memory.clone())));
        let sound = Scene::repository(Arc::new(memory.clone()), layout);
        faulty.spoil(n, fault);
        let (id, successes) =
            scene.take(&[Scene::repository(Arc::clone(&faulty) as Shared, layout)]);
        let calls = faulty.calls();

        let exists = sound.manifest(&Folder::new(DATABASE, &id)).unwrap().is_some();
        if exists {
            let found = Scene::verify(&sound, &id);
            assert!(found.good, "{fault:?} at call {n} of {calls:#?}: {:#?}", found.findings);
        }
        assert!(
            exists || !successes[0],
            "{fault:?} at call {n}: a success without a backup: {calls:#?}"
        );

        let (second, successes) = scene.take(std::slice::from_ref(&sound));
        assert_eq!(successes, [true]);
        // The failed run's process is alive: a day later its lease is stale whatever happened.
        let later = crate::clock::now() + chrono::TimeDelta::days(2);
        let policy = Retention { keep_last: 1, ..Retention::default() };
        let plan = prune::plan(&sound, DATABASE, policy, later, &Stop::new()).unwrap();
        assert!(plan.apply(&sound, &second, &Stop::new()).failures.is_empty());
        let left = sound.backups(DATABASE, later, &Stop::new()).unwrap();
        let ids: Vec<_> = left
            .iter()
            .map(|found| match found {
                Found::Backup(manifest, _) => manifest.id.clone(),
                other => panic!("{fault:?} at call {n}: {other:?} is left"),
            })
            .collect();
        assert_eq!(ids, std::slice::from_ref(&second));
        let prefix = Folder::new(DATABASE, &second).path().to_owned();
        let strays =
            memory.list("").unwrap().into_iter().filter(|o| !o.key.as_str().starts_with(&prefix));
        assert_eq!(strays.count(), 0, "{fault:?} at call {n} left something behind");

        // All calls of a whole backup have been spoilt.
        if (calls.len() as u64) < n {
            assert!(n > 10, "a backup has more calls than {n}");
            return;
        }
    }
}

#[test]
fn a_storage_that_fails_once_never_has_half_a_backup() {
    spoil_every_call(Layout::Joined, Fault::Fail);
    spoil_every_call(Layout::Objects, Fault::Fail);
}

#[test]
fn a_storage_whose_answer_is_lost_never_has_half_a_backup() {
    spoil_every_call(Layout::Joined, Fault::FailAfter);
    spoil_every_call(Layout::Objects, Fault::FailAfter);
}

#[test]
fn a_storage_that_is_full_or_refuses_never_has_half_a_backup() {
    spoil_every_call(Layout::Objects, Fault::Full);
    spoil_every_call(Layout::Joined, Fault::Denied);
    spoil_every_call(Layout::Objects, Fault::Stopped);
}

#[test]
fn a_run_that_dies_at_any_call_never_leaves_half_a_backup() {
    spoil_every_call(Layout::Joined, Fault::Die);
    spoil_every_call(Layout::Objects, Fault::Die);
}

#[test]
fn one_repository_that_fails_does_not_stop_the_other() {
    let scene = Scene::new();
    let (broken, whole) = (Faulty::new(Arc::new(Memory::new())), Memory::without_writers());
    broken.spoil(3, Fault::Die);
    let broken = Repository {
        name: "broken".to_owned(),
        ..Scene::repository(Arc::new(broken), Layout::Joined)
    };
    let whole = Scene::repository(Arc::new(whole), Layout::Objects);
    let (id, successes) = scene.take(&[broken, whole.clone()]);
    assert_eq!(successes, [false, true]);
    assert!(Scene::verify(&whole, &id).good);
}

#[test]
fn a_changed_object_is_found_wherever_it_is() {
    let scene = Scene::new();
    for layout in [Layout::Joined, Layout::Objects] {
        let memory =
            if layout == Layout::Joined { Memory::new() } else { Memory::without_writers() };
        let repository = Scene::repository(Arc::new(memory.clone()), layout);
        let (id, _) = scene.take(std::slice::from_ref(&repository));
        assert!(Scene::verify(&repository, &id).good);
        for object in memory.list("").unwrap() {
            for at in [0, object.size / 2, object.size.saturating_sub(1)] {
                let flip = |bytes: &mut Vec<u8>| bytes[usize::try_from(at).unwrap()] ^= 0x10;
                memory.tamper(&object.key, flip);
                assert!(
                    !Scene::verify(&repository, &id).good,
                    "a bit flipped in `{}` at {at} went unnoticed",
                    object.key
                );
                memory.tamper(&object.key, flip);
            }
        }
        assert!(Scene::verify(&repository, &id).good);
    }
}

#[test]
fn a_lease_of_another_version_is_given_a_day() {
    let memory = Memory::new();
    let repository = Scene::repository(Arc::new(memory.clone()), Layout::Joined);
    let now = crate::clock::now();
    let folder = Folder::new(DATABASE, &RunId::new(now, 1));
    let json = r#"{"holder": "a newer opsctl"}"#;
    memory.put(&folder.key("lease.json").unwrap(), json.into(), Overwrite::Refuse).unwrap();
    let is_leftover = |later| {
        let found = repository.backups(DATABASE, now + later, &Stop::new()).unwrap();
        matches!(found[..], [Found::Leftover(_)])
    };
    assert!(!is_leftover(chrono::TimeDelta::hours(23)));
    assert!(is_leftover(chrono::TimeDelta::hours(25)));
}
