//! Removing what retention does not keep, and what crashed runs left: plan first, then apply.
//!
//! A plan comes from one complete look at the repository. Applying it removes the oldest first and goes on
//! when one removal fails. Only this module makes a [`Removal`].

use crate::backup::lease::Lease;
use crate::backup::manifest::Manifest;
use crate::backup::repository::{Folder, Found, Removal, Repository};
use crate::backup::retention::{self, Candidate, Condition, Decision, Reason};
use crate::backup::verified::Verified;
use crate::clock::Moment;
use crate::config::Retention;
use crate::id::RunId;
use crate::stop::Stop;

/// What is in a repository of one database, and what is to become of it.
pub(crate) struct Plan {
    database: String,
    /// Backups with what was decided, newest first.
    pub(crate) backups: Vec<Planned>,
    /// What crashed runs left; to be removed.
    pub(crate) leftovers: Vec<RunId>,
    /// Folders at which a run is at work; left alone.
    pub(crate) in_progress: Vec<RunId>,
}

/// A backup and what is to become of it.
pub(crate) struct Planned {
    pub(crate) decision: Decision,
    /// `None` if its manifest cannot be read; then `problem` says why.
    pub(crate) manifest: Option<Box<Manifest>>,
    pub(crate) verified: Option<Verified>,
    pub(crate) problem: Option<String>,
}

/// What was removed.
#[derive(Default)]
pub(crate) struct Applied {
    pub(crate) removed: Vec<RunId>,
    pub(crate) swept: Vec<RunId>,
    pub(crate) freed_bytes: u64,
    /// What could not be removed.
    pub(crate) failures: Vec<anyhow::Error>,
}

/// Looks at all backups of `database` and decides.
pub(crate) fn plan(
    repository: &Repository,
    database: &str,
    policy: Retention,
    now: Moment,
    stop: &Stop,
) -> anyhow::Result<Plan> {
    let mut plan = Plan {
        database: database.to_owned(),
        backups: Vec::new(),
        leftovers: Vec::new(),
        in_progress: Vec::new(),
    };
    let mut known = Vec::new();
    for found in repository.backups(database, now, stop)? {
        match found {
            Found::Leftover(id) => plan.leftovers.push(id),
            Found::InProgress(id) => plan.in_progress.push(id),
            Found::Unreadable(id, problem) => {
                // Its time does not matter: it is kept in any case.
                known.push((
                    candidate(&id, now, Condition::Unreadable, None),
                    None,
                    None,
                    Some(problem),
                ));
            }
            Found::Backup(manifest, verified) => {
                let damaged = verified.as_ref().is_some_and(|v| !v.good);
                let condition = if damaged { Condition::Damaged } else { Condition::Good };
                let locked_until = manifest.locked_until;
                let candidate = candidate(&manifest.id, manifest.begun_at, condition, locked_until);
                known.push((candidate, Some(manifest), verified, None));
            }
        }
    }
    let candidates: Vec<_> = known.iter().map(|(candidate, ..)| candidate.clone()).collect();
    for mut decision in retention::decide(&candidates, policy, now) {
        if !decision.keeps() {
            // The manifest tells of the lock with which it was written; only the storage knows of later ones.
            let folder = Folder::new(database, &decision.backup.id);
            let locked_until = repository.locked_until(&folder)?.filter(|until| *until > now);
            decision.reasons.extend(locked_until.map(Reason::LockedUntil));
        }
        if let Some(n) = known.iter().position(|(candidate, ..)| candidate.id == decision.backup.id)
        {
            let (_, manifest, verified, problem) = known.swap_remove(n);
            plan.backups.push(Planned { decision, manifest, verified, problem });
        }
    }
    Ok(plan)
}

fn candidate(
    id: &RunId,
    at: Moment,
    condition: Condition,
    locked_until: Option<Moment>,
) -> Candidate {
    Candidate { id: id.clone(), at, condition, locked_until }
}

impl Plan {
    /// Removes what the plan does not keep, the oldest first, and the leftovers.
    pub(crate) fn apply(&self, repository: &Repository, run: &RunId, stop: &Stop) -> Applied {
        let mut applied = Applied::default();
        let lease = Lease::new(run, crate::clock::now());
        let mut remove = |id: &RunId, swept: bool| {
            let removal = Removal::decided(Folder::new(&self.database, id));
            match repository.remove(removal, &lease, stop) {
                Ok(freed) => {
                    applied.freed_bytes += freed;
                    if swept { &mut applied.swept } else { &mut applied.removed }.push(id.clone());
                }
                Err(error) => applied.failures.push(error),
            }
        };
        for id in &self.leftovers {
            remove(id, true);
        }
        for planned in self.backups.iter().rev().filter(|planned| !planned.decision.keeps()) {
            remove(&planned.decision.backup.id, false);
        }
        applied
    }
}
