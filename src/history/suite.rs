//! What either place of the history must do, as tests: `conformance!(guarded)` runs all of them against one.

use std::collections::BTreeSet;

use super::incidents::{Incident, Key, Kind, Silence, Waiting};
use super::store::Store;
use super::{Begun, Place, State};
use crate::clock::Moment;
use crate::db::testing;
use crate::id::RunId;

/// A history of its own, and what must live as long as it does.
pub(crate) struct Guarded {
    place: Place,
    _guard: Option<tempfile::TempDir>,
}

impl Guarded {
    pub(crate) fn in_a_directory() -> Guarded {
        let dir = tempfile::tempdir().unwrap();
        Guarded { place: Place::Directory(dir.path().to_owned()), _guard: Some(dir) }
    }

    pub(crate) fn on_a_server() -> Guarded {
        let server = testing::server();
        let target = server.target(&server.create_database());
        Guarded { place: Place::Server(Box::new(target)), _guard: None }
    }

    fn open(&self) -> Store {
        Store::open(&self.place).unwrap()
    }
}

/// Makes one test of each function of this module. The expression is evaluated in a module below the caller's.
macro_rules! conformance {
    ($history:expr) => {
        mod conformance {
            use super::*;
            crate::history::suite::conformance!(
                $history =>
                a_run_is_remembered
                the_worst_status_of_a_database_stays
                a_run_without_an_end_is_running_or_killed
                old_runs_are_forgotten
                of_old_health_checks_the_first_of_each_day_is_kept
                an_incident_is_kept_until_it_is_removed
                of_a_transaction_all_or_nothing_is_done
                a_message_is_claimed_by_one
                silences_end
            );
        }
    };
    ($history:expr => $($name:ident)*) => {$(
        #[test]
        fn $name() {
            crate::history::suite::$name(&$history);
        }
    )*};
}
pub(crate) use conformance;

fn at(text: &str) -> Moment {
    format!("2026-11-{text}:00Z").parse().unwrap()
}

/// Notes a run that began as its id says.
pub(crate) fn begin(store: &mut Store, id: &str) {
    begin_command(store, id, "backup");
}

fn begin_command(store: &mut Store, id: &str, command: &str) {
    let id = RunId::parse(id).unwrap();
    let at = chrono::NaiveDateTime::parse_from_str(&id.as_str()[..16], "%Y%m%dT%H%M%SZ").unwrap();
    let run = Begun { id, at: at.and_utc(), command: command.to_owned(), dry_run: false };
    let at = at.and_utc();
    store.run_begun(&run, at - super::KEPT, at - super::KEPT_IN_FULL).unwrap();
}

pub(crate) fn a_run_is_remembered(history: &Guarded) {
    let mut store = history.open();
    assert!(store.runs(Moment::default(), &[]).unwrap().is_empty());
    begin(&mut store, "20261121T020000Z-000001");
    store.part_begun("20261121T020000Z-000001", "ip2a").unwrap();
    let figures = "{\"totals.rows\":7}";
    store.part_ended("20261121T020000Z-000001", "ip2a", 0, figures, None).unwrap();
    store.run_ended("20261121T020000Z-000001", at("21T02:01"), 0, None).unwrap();
    begin(&mut store, "20261122T020000Z-000002");
    let end = at("22T02:01");
    store.run_ended("20261122T020000Z-000002", end, 12, Some("it's \"off\"\u{e4}")).unwrap();

    let runs = history.open().runs(Moment::default(), &[]).unwrap();
    let [first, second] = &runs[..] else { panic!("{runs:?}") };
    assert_eq!((first.begun_at, first.ended_at), (at("21T02:00"), Some(at("21T02:01"))));
    assert_eq!((first.state, first.exit, first.dry_run), (State::Ended, Some(0), false));
    let [part] = &first.databases[..] else { panic!("{first:?}") };
    assert_eq!((part.database.as_str(), part.exit), ("ip2a", Some(0)));
    assert_eq!(part.figures["totals.rows"], 7.into());
    assert_eq!((second.exit, second.error.as_deref()), (Some(12), Some("it's \"off\"\u{e4}")));
    let mut of = |commands: &[&str]| store.runs(Moment::default(), commands).unwrap().len();
    assert_eq!((of(&["backup"]), of(&["restore", "backup"]), of(&["restore"])), (2, 2, 1));
    assert_eq!(history.open().runs(at("21T02:01"), &[]).unwrap()[..], runs[1..]);
}

pub(crate) fn the_worst_status_of_a_database_stays(history: &Guarded) {
    let (mut store, run) = (history.open(), "20261121T020000Z-000001");
    begin(&mut store, run);
    for (exit, error) in [(0, None), (3, Some("damaged")), (0, None)] {
        store.part_ended(run, "ip2a", exit, "{}", error).unwrap();
    }
    let runs = store.runs(Moment::default(), &[]).unwrap();
    let part = &runs[0].databases[0];
    assert_eq!((part.exit, part.error.as_deref()), (Some(3), Some("damaged")));
}

pub(crate) fn a_run_without_an_end_is_running_or_killed(history: &Guarded) {
    let state = || history.open().runs(Moment::default(), &[]).unwrap()[0].state;
    let mut store = history.open();
    begin(&mut store, "20261121T020000Z-000001");
    assert_eq!(state(), State::Running);
    drop(store);
    testing::eventually(|| state() == State::Killed);
}

pub(crate) fn old_runs_are_forgotten(history: &Guarded) {
    let mut store = history.open();
    begin(&mut store, "20250101T020000Z-000001");
    store.part_begun("20250101T020000Z-000001", "ip2a").unwrap();
    begin(&mut store, "20260101T020000Z-000002");
    assert_eq!(store.runs(Moment::default(), &[]).unwrap().len(), 2);
    begin(&mut store, "20261121T020000Z-000003");
    assert_eq!(store.runs(Moment::default(), &[]).unwrap().len(), 2);
}

pub(crate) fn of_old_health_checks_the_first_of_each_day_is_kept(history: &Guarded) {
    let mut store = history.open();
    let (check, other) = ("health-check", "backup");
    for (id, command) in [
        ("20261101T000500Z-00000a", check),
        ("20261101T001000Z-00000b", check),
        ("20261101T001500Z-00000c", other),
        ("20261102T000500Z-00000d", check),
        ("20261102T235500Z-00000e", check),
        ("20261114T000500Z-00000f", check),
        ("20261114T001000Z-000010", check),
    ] {
        begin_command(&mut store, id, command);
        store.part_ended(id, "ip2a", 2, &format!("{{\"x.found\":{}}}", id.len()), None).unwrap();
        store.part_ended(id, "-", 0, "{\"y.found\":0}", None).unwrap();
        store.run_ended(id, at("21T02:01"), 0, None).unwrap();
    }
    let left = |store: &mut Store| {
        let runs = store.runs(Moment::default(), &[]).unwrap();
        runs.iter().map(|run| run.id[22..].to_owned()).collect::<String>()
    };
    assert_eq!(left(&mut store), "abcdef0");
    begin_command(&mut store, "20261121T120000Z-000011", check);
    assert_eq!(left(&mut store), "acdf01");
    // The one that has not ended does not count.
    let last = store.last_runs(check, 2).unwrap();
    assert_eq!(last.len(), 2);
    assert_eq!((&last[0]["x.found"], &last[0]["y.found"]), (&23.into(), &0.into()));
    let hours = store.hourly_runs(Moment::default(), check).unwrap();
    let all = store.runs(Moment::default(), &[check]).unwrap();
    let hour = |run: &crate::history::Run| run.id[..11].to_owned();
    let mut expected: Vec<_> =
        all.iter().filter(|run| run.command == check && run.ended_at.is_some()).map(hour).collect();
    expected.dedup();
    assert_eq!(hours.iter().map(hour).collect::<Vec<_>>(), expected);
    assert!(hours.len() < all.len() && hours.iter().all(|run| !run.databases.is_empty()));
}

fn incident(command: &str, kind: Kind) -> Incident {
    let key = Key {
        command: command.to_owned(),
        database: "ip2a".to_owned(),
        subject: String::new(),
        kind,
    };
    Incident {
        id: format!("{command}-{kind:?}"),
        key,
        severity: "P2".to_owned(),
        what: "no disk".to_owned(),
        since: at("21T02:00"),
        opened_at: at("21T02:30"),
        announced: None,
    }
}

pub(crate) fn an_incident_is_kept_until_it_is_removed(history: &Guarded) {
    let mut store = history.open();
    let (failed, late) = (incident("backup", Kind::Failed), incident("backup", Kind::Late));
    store.put_incident(&failed).unwrap();
    store.put_incident(&late).unwrap();
    let announced = Some(vec!["mail".to_owned(), "slack".to_owned()]);
    let told = Incident { announced, what: "no \"disk\"".to_owned(), ..failed };
    // Another run that saw it at the same moment gave it another id: the first one stays.
    store.put_incident(&Incident { id: "other".to_owned(), ..told.clone() }).unwrap();
    assert_eq!(history.open().incidents().unwrap(), [told, late]);
    store.remove_incident("backup-Failed").unwrap();
    assert_eq!(store.incidents().unwrap().len(), 1);
}

pub(crate) fn of_a_transaction_all_or_nothing_is_done(history: &Guarded) {
    let mut store = history.open();
    let work = |store: &mut Store| {
        store.put_incident(&incident("backup", Kind::Late))?;
        Err::<(), _>(super::Error::NoPlace)
    };
    assert!(store.in_transaction(work).is_err());
    assert!(store.incidents().unwrap().is_empty());
    // Those who read and then write do so one after the other.
    std::thread::scope(|scope| {
        for n in 0..4 {
            scope.spawn(move || {
                let count = |store: &mut Store| {
                    let known = store.incidents()?.len();
                    store.put_incident(&incident(&format!("command {known}"), Kind::Late))
                };
                history.open().in_transaction(count).unwrap_or_else(|e| panic!("{n}: {e:?}"));
            });
        }
    });
    assert_eq!(store.incidents().unwrap().len(), 4);
}

pub(crate) fn a_message_is_claimed_by_one(history: &Guarded) {
    let mut store = history.open();
    let queued = |id: &str, time: &str| Waiting {
        id: id.to_owned(),
        channel: "mail".to_owned(),
        body: "{}".to_owned(),
        queued_at: at(time),
        attempts: 0,
        error: None,
    };
    store.put_message(&queued("b", "21T02:00")).unwrap();
    store.put_message(&queued("a", "21T02:01")).unwrap();
    store.put_message(&queued("a", "21T02:02")).unwrap();
    assert_eq!(store.messages().unwrap(), [queued("b", "21T02:00"), queued("a", "21T02:01")]);
    let (now, stale) = (at("21T03:00"), at("21T02:58"));
    let claims: Vec<bool> = std::thread::scope(|scope| {
        let claim = || history.open().claim_message("a", now, stale).unwrap();
        let claims: Vec<_> = (0..4).map(|_| scope.spawn(claim)).collect();
        claims.into_iter().map(|claim| claim.join().unwrap()).collect()
    });
    assert_eq!(claims.iter().filter(|claimed| **claimed).count(), 1);
    assert!(store.claim_message("a", at("21T03:03"), at("21T03:01")).unwrap());
    store.return_message("a", "no answer").unwrap();
    let again = &store.messages().unwrap()[1];
    assert_eq!((again.attempts, again.error.as_deref()), (1, Some("no answer")));
    assert!(store.claim_message("a", now, stale).unwrap());
    store.remove_message("a").unwrap();
    assert!(!store.claim_message("a", now, stale).unwrap());
    let left: BTreeSet<_> = store.messages().unwrap().into_iter().map(|m| m.id).collect();
    assert_eq!(left, ["b".to_owned()].into());
}

pub(crate) fn silences_end(history: &Guarded) {
    let mut store = history.open();
    let silence = Silence {
        id: "20261121T020000Z-000001".to_owned(),
        begun_at: at("21T02:00"),
        until: at("21T04:00"),
        why: "new disks".to_owned(),
        who: "kim".to_owned(),
    };
    store.begin_silence(&silence).unwrap();
    assert_eq!(store.silences().unwrap()[0], silence);
    let on = ["21T01:59", "21T02:00", "21T03:59", "21T04:00"].map(|time| silence.is_on(at(time)));
    assert_eq!(on, [false, true, true, false]);
    assert_eq!(store.end_silences(at("21T03:00")).unwrap(), 1);
    assert_eq!(store.end_silences(at("21T03:01")).unwrap(), 0);
    assert_eq!(store.silences().unwrap()[0].until, at("21T03:00"));
}
