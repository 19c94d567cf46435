//! When a run has to stop or to go slower, as those who work and the one who watches share it. What is judged here is pure.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::config::Maintain;
use crate::stop::{Reason, Stop};
use crate::sync::lock;

/// What stops a run before its end.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case", tag = "because", content = "what")]
pub(crate) enum Halt {
    /// The application or a replica suffers: what runs is cancelled.
    Suffering(String),
    /// The budget is used up: nothing more is begun.
    Budget(String),
}

/// How replicas and WAL stand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    pub(super) lag_seconds: f64,
    pub(super) retained_wal: u64,
    /// Since the run began, by everybody.
    pub(super) wal: u64,
}

/// Says what is over its limit.
fn judge(standing: &Standing, settings: &Maintain) -> Option<Halt> {
    let Standing { lag_seconds, retained_wal, wal } = *standing;
    let bytes = crate::text::bytes;
    if lag_seconds > settings.max_replica_lag.as_secs_f64() {
        return Some(Halt::Suffering(format!("a replica is {lag_seconds:.0} s behind")));
    }
    if retained_wal > settings.max_retained_wal {
        let held = bytes(retained_wal);
        return Some(Halt::Suffering(format!("a replication slot holds {held} of WAL back")));
    }
    (wal >= settings.max_wal)
        .then(|| Halt::Budget(format!("the server has written {} of WAL meanwhile", bytes(wal))))
}

/// What those who work and the one who watches share.
pub(super) struct Guard {
    pub(super) settings: Maintain,
    began: Instant,
    halt: Mutex<Option<Halt>>,
    wal: AtomicU64,
    working: AtomicUsize,
    is_waiting: AtomicBool,
    is_careful: AtomicBool,
    /// Ends what runs: when the run is told to stop, and when somebody suffers.
    pub(super) work: Stop,
}

impl Guard {
    pub(super) fn new(settings: &Maintain) -> Guard {
        Guard {
            settings: settings.clone(),
            began: Instant::now(),
            halt: Mutex::default(),
            wal: AtomicU64::default(),
            working: AtomicUsize::default(),
            is_waiting: AtomicBool::default(),
            is_careful: AtomicBool::default(),
            work: Stop::new(),
        }
    }

    /// Returns why nothing more is to be begun, if so.
    pub(super) fn halted(&self) -> Option<Halt> {
        lock(&self.halt).clone()
    }

    /// May a statement begin now? Once the application was slower, only one works at a time.
    pub(super) fn may_begin(&self) -> bool {
        let is_crowded = self.is_careful() && self.n_working() > 0;
        !self.is_waiting.load(Ordering::SeqCst) && !is_crowded
    }

    /// Has the application been slower at some time of this run?
    pub(super) fn is_careful(&self) -> bool {
        self.is_careful.load(Ordering::SeqCst)
    }

    /// Returns how many statements are at work.
    pub(super) fn n_working(&self) -> usize {
        self.working.load(Ordering::SeqCst)
    }

    pub(super) fn begins(&self) {
        self.working.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn ended(&self) {
        self.working.fetch_sub(1, Ordering::SeqCst);
    }

    /// Begins nothing more until [`Guard::go_on`], and is careful from then on.
    pub(super) fn wait(&self, what: &str) {
        if !self.is_waiting.swap(true, Ordering::SeqCst) {
            tracing::warn!("waiting: {what}");
        }
        self.is_careful.store(true, Ordering::SeqCst);
    }

    pub(super) fn go_on(&self) {
        if self.is_waiting.swap(false, Ordering::SeqCst) {
            tracing::info!("going on, one statement at a time: the probe takes as long as before");
        }
    }

    /// Says why a statement is not begun now: it would not end within the budget.
    pub(super) fn refuses(&self, likely: Duration, wal: u64) -> Option<String> {
        if self.began.elapsed() + likely > self.settings.max_time {
            return Some("it is likely to take longer than is left of `max_time`".to_owned());
        }
        let used = self.wal.load(Ordering::SeqCst);
        (used.saturating_add(wal) > self.settings.max_wal).then(|| {
            "it is likely to write more WAL than is left of `max_wal_megabytes`".to_owned()
        })
    }

    /// Notes how replicas and WAL stand, and stops what has to be stopped for it.
    pub(super) fn note(&self, standing: &Standing) {
        self.wal.store(standing.wal, Ordering::SeqCst);
        if let Some(halt) = judge(standing, &self.settings) {
            self.stop(&halt);
        }
    }

    pub(super) fn stop(&self, halt: &Halt) {
        let (Halt::Suffering(what) | Halt::Budget(what)) = halt;
        let mut halted = lock(&self.halt);
        if halted.is_none() {
            tracing::warn!("stopping: {what}");
            *halted = Some(halt.clone());
        }
        drop(halted);
        if matches!(halt, Halt::Suffering(_)) {
            self.work.request(Reason::Deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_stops_and_only_suffering_cancels() {
        let settings = Maintain::default();
        let of = |lag_seconds, retained_wal, wal| {
            judge(&Standing { lag_seconds, retained_wal, wal }, &settings)
        };
        assert_eq!(of(9.0, 4096 << 20, 16_383 << 20), None);
        assert!(matches!(of(11.0, 0, 0), Some(Halt::Suffering(_))));
        assert!(matches!(of(0.0, (4096 << 20) + 1, 0), Some(Halt::Suffering(_))));
        assert!(matches!(of(0.0, 0, 16_384 << 20), Some(Halt::Budget(_))));
        let guard = Guard::new(&settings);
        guard.stop(&Halt::Budget(String::new()));
        assert!(guard.work.reason().is_none() && guard.halted().is_some());
        guard.stop(&Halt::Suffering(String::new()));
        assert!(guard.work.reason().is_some());
        assert!(guard.refuses(settings.max_time, 0).is_some());
        assert_eq!(guard.refuses(Duration::ZERO, 0), None);
        assert!(guard.refuses(Duration::ZERO, (16_384 << 20) + 1).is_some());
    }

    #[test]
    fn without_the_budget_only_suffering_stops() {
        let settings = Maintain::default().without_budget();
        let of = |lag_seconds, retained_wal, wal| {
            judge(&Standing { lag_seconds, retained_wal, wal }, &settings)
        };
        assert_eq!(of(9.0, 4096 << 20, 1 << 50), None);
        assert!(matches!(of(11.0, 0, 0), Some(Halt::Suffering(_))));
        assert!(matches!(of(0.0, (4096 << 20) + 1, 0), Some(Halt::Suffering(_))));
        let guard = Guard::new(&settings);
        guard.note(&Standing { wal: 1 << 50, ..Standing::default() });
        assert_eq!(guard.refuses(Duration::from_secs(10_000_000), 1 << 50), None);
    }

    #[test]
    fn after_a_wait_one_works_at_a_time() {
        let guard = Guard::new(&Maintain::default());
        guard.begins();
        assert!(guard.may_begin());
        guard.wait("slow");
        guard.go_on();
        assert!(!guard.may_begin());
        guard.ended();
        assert!(guard.may_begin());
        guard.wait("slow");
        assert!(!guard.may_begin());
    }
}
