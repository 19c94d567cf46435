//! The wish to stop: one token for signals and the deadline, passed to everything that waits.
//!
//! Long work calls [`Stop::check`] between steps; what blocks in the operating system or in a server
//! registers an action with [`Stop::on_stop`] that ends the wait (cancel the query, kill the child).
//! The token never undoes anything: cleaning up is the work of those who notice.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::sync::lock;

/// Why a run is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// A signal arrived, by its number.
    Signal(i32),
    /// The time given by `--timeout` is over.
    Deadline,
}

/// The error of work that ended because it was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", match .0 { Reason::Signal(2) => "interrupted", Reason::Signal(_) => "terminated by a signal", Reason::Deadline => "the deadline passed" })]
pub(crate) struct Stopped(pub(crate) Reason);

/// How long a stopped run may take to clean up before its I/O is cut off.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// Asks a run to stop, and a while later to stop cleaning up as well. Does not wait.
pub(crate) fn end(stop: &Stop, abort: &Stop, reason: Reason) {
    stop.request(reason);
    let abort = abort.clone();
    std::thread::spawn(move || {
        // Nobody interrupts this sleep: the process ends before it does.
        Stop::new().sleep(GRACE).ok();
        abort.request(reason);
    });
}

/// Asks a run to stop when `timeout` is over. Does not wait.
pub(crate) fn set_deadline(stop: &Stop, abort: &Stop, timeout: Duration) {
    let (stop, abort) = (stop.clone(), abort.clone());
    std::thread::spawn(move || {
        if stop.sleep(timeout).is_ok() {
            tracing::warn!("the deadline passed: stopping");
            end(&stop, &abort, Reason::Deadline);
        }
    });
}

type Action = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    reason: Option<Reason>,
    actions: BTreeMap<u64, Action>,
    next_action: u64,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

/// The shared token. Clones are the same token.
#[derive(Clone, Default)]
pub(crate) struct Stop(Arc<Inner>);

/// Keeps an action registered; dropping it takes the action back.
#[must_use]
pub(crate) struct OnStop {
    stop: Stop,
    action: u64,
}

impl Stop {
    /// Creates a token nobody has asked to stop yet.
    pub(crate) fn new() -> Stop {
        Stop::default()
    }

    /// Asks everybody to stop. The first reason stays; actions run on the calling thread.
    pub(crate) fn request(&self, reason: Reason) {
        let actions = {
            let mut state = self.state();
            if state.reason.is_some() {
                return;
            }
            state.reason = Some(reason);
            std::mem::take(&mut state.actions)
        };
        self.0.changed.notify_all();
        for action in actions.into_values() {
            action();
        }
    }

    /// Returns why to stop, if so.
    pub(crate) fn reason(&self) -> Option<Reason> {
        self.state().reason
    }

    /// Returns an error if it is time to stop.
    pub(crate) fn check(&self) -> Result<(), Stopped> {
        self.reason().map_or(Ok(()), |reason| Err(Stopped(reason)))
    }

    /// Sleeps, or returns an error as soon as it is time to stop.
    pub(crate) fn sleep(&self, duration: Duration) -> Result<(), Stopped> {
        let until = Instant::now() + duration;
        let mut state = self.state();
        loop {
            if let Some(reason) = state.reason {
                return Err(Stopped(reason));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Registers `action` to run when it is time to stop; at once if it already is.
    pub(crate) fn on_stop(&self, action: impl FnOnce() + Send + 'static) -> OnStop {
        let mut state = self.state();
        let number = state.next_action;
        state.next_action += 1;
        if state.reason.is_none() {
            state.actions.insert(number, Box::new(action));
        } else {
            drop(state);
            action();
        }
        OnStop { stop: self.clone(), action: number }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }
}

impl Drop for OnStop {
    fn drop(&mut self) {
        let action = self.stop.state().actions.remove(&self.action);
        drop(action);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn the_first_reason_stays_and_actions_run_once() {
        let stop = Stop::new();
        let count = Arc::new(AtomicU32::new(0));
        let action = |count: &Arc<AtomicU32>| {
            let count = Arc::clone(count);
            move || {
                count.fetch_add(1, Ordering::SeqCst);
            }
        };
        let kept = stop.on_stop(action(&count));
        drop(stop.on_stop(action(&count)));
        assert_eq!(stop.check(), Ok(()));
        stop.request(Reason::Signal(2));
        stop.request(Reason::Deadline);
        let late = stop.on_stop(action(&count));
        assert_eq!(stop.check(), Err(Stopped(Reason::Signal(2))));
        assert_eq!(count.load(Ordering::SeqCst), 2);
        drop((kept, late));
    }

    #[test]
    fn a_sleeper_wakes_up() {
        let stop = Stop::new();
        let sleeper = stop.clone();
        let thread = std::thread::spawn(move || sleeper.sleep(Duration::from_secs(60)));
        stop.request(Reason::Deadline);
        assert_eq!(thread.join().unwrap(), Err(Stopped(Reason::Deadline)));
    }
}
