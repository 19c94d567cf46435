//! The lease of a backup in progress: who is at work in its folder, and since when it was last alive.
//!
//! It keeps a concurrent prune, on this or another host, from taking the work of a living run for the
//! leftovers of a crashed one. It is no lock: two runs never share a folder.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::id::RunId;
use crate::stop::Stop;
use crate::storage::{Key, Overwrite, Shared};

/// How often a living run renews its lease.
const RENEW_EVERY: Duration = Duration::from_secs(60);
/// When a lease that was not renewed is stale, if nothing better is known of its holder.
const STALE_AFTER: chrono::TimeDelta = chrono::TimeDelta::hours(1);

/// Who is at work.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Lease {
    pub(crate) run: RunId,
    pub(crate) host: String,
    /// Identifies one boot of one machine; process numbers mean nothing outside it.
    boot: String,
    /// Identifies the process namespace; containers of one machine have their own numbers.
    namespace: String,
    process: u32,
    renewed_at: Moment,
}

impl Lease {
    /// Makes the lease of this process.
    pub(crate) fn new(run: &RunId, now: Moment) -> Lease {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        Lease {
            run: run.clone(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            boot: read("/proc/sys/kernel/random/boot_id"),
            namespace: namespace.to_string_lossy().into_owned(),
            process: std::process::id(),
            renewed_at: now,
        }
    }

    /// Returns the lease as it is stored.
    pub(crate) fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec_pretty(self)
    }

    /// Reads a lease; `None` if it is none.
    pub(crate) fn parse(json: &[u8]) -> Option<Lease> {
        serde_json::from_slice(json).ok()
    }

    /// Is its holder gone? If it ran here, that is known at once; else after an hour without renewal.
    pub(crate) fn is_stale(&self, now: Moment) -> bool {
        let here = Lease::new(&self.run, now);
        let same_processes = !self.boot.is_empty()
            && !self.namespace.is_empty()
            && self.boot == here.boot
            && self.namespace == here.namespace;
        let gone =
            same_processes && !std::path::Path::new(&format!("/proc/{}", self.process)).exists();
        gone || now.signed_duration_since(self.renewed_at) > STALE_AFTER
    }
}

/// Renews a lease in the background until it is dropped.
#[must_use]
pub(crate) struct Heartbeat {
    end: Stop,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Heartbeat {
    /// Begins to renew `lease` under `key`. A failure is logged: the next renewal may succeed.
    pub(crate) fn begin(storage: Shared, key: Key, lease: Lease) -> Heartbeat {
        let end = Stop::new();
        let ended = end.clone();
        let lease = Arc::new(lease);
        let thread = std::thread::spawn(move || {
            while ended.sleep(RENEW_EVERY).is_ok() {
                let renewed = Lease { renewed_at: crate::clock::now(), ..(*lease).clone() };
                let json = renewed.to_json().unwrap_or_default();
                if let Err(error) = storage.put(&key, json.into(), Overwrite::Allow) {
                    tracing::warn!("the lease was not renewed: {error}");
                }
            }
        });
        Heartbeat { end, thread: Some(thread) }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.end.request(crate::stop::Reason::Deadline);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_of_this_machine_is_asked_for_and_another_is_given_time() {
        let now = crate::clock::now();
        let lease = Lease::new(&RunId::new(now, 7), now);
        assert_eq!(Lease::parse(&lease.to_json().unwrap()), Some(lease.clone()));
        assert!(!lease.is_stale(now + chrono::TimeDelta::minutes(59)));
        assert!(lease.is_stale(now + chrono::TimeDelta::minutes(61)));
        let mut dead = std::process::Child::id(&{
            #[expect(
                clippy::disallowed_methods,
                reason = "a process number that is free afterwards"
            )]
            let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
            child.wait().unwrap();
            child
        });
        assert!(Lease { process: dead, ..lease.clone() }.is_stale(now));
        assert!(
            !Lease { process: dead, boot: "another".to_owned(), ..lease.clone() }.is_stale(now)
        );
        dead = 1;
        assert!(!Lease { process: dead, ..lease }.is_stale(now));
    }
}
