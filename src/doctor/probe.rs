//! Tries what a storage lets opsctl do, with a small object that is removed again.
//!
//! It is tried and not asked for: what a policy says and what a server does are two things. Evidence that is locked for years is not
//! tried: that is `locked.rs`.

use std::cell::Cell;

use bytes::Bytes;

use super::examine::Asked;
use super::{Area, Seen, locked};
use crate::clock::Moment;
use crate::db::one_line;
use crate::stop::Stop;
use crate::storage::{Error, Key, Overwrite, Shared};
use crate::text::counted;

/// What is tried, and by what it is opened.
pub(crate) struct Probe<'a> {
    pub(crate) area: Area,
    pub(crate) holds: Holds,
    /// Stands at the root, where no database is taken for it.
    pub(crate) key: Key,
    /// How long what is written cannot be removed, if that is configured.
    pub(crate) lock_days: Option<u32>,
    pub(crate) now: Moment,
    /// Opens the storage, so that it obeys a stop.
    pub(crate) open: &'a dyn Fn(&Stop) -> anyhow::Result<Shared>,
}

/// What is kept there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    /// Backups, or the state: what is not needed any more is removed.
    WhatIsTidied,
    /// An archive, from which nothing is ever removed. The probe has one name for ever, so that at most one stays.
    Evidence,
}

/// Puts, puts again, looks, reads, lists and removes.
pub(crate) fn storage(probe: &Probe<'_>, asked: &Asked<'_>) {
    let Probe { area, key, open, .. } = probe;
    let fails = |what: &str, error: &dyn std::fmt::Display, why: &str, advice: &str| {
        (asked.say)(Seen::bad(*area, format!("{what}: {error}"), why, advice));
    };
    let storage = match open(asked.stop) {
        Ok(storage) => storage,
        Err(error) => {
            let error = format!("{error:#}");
            return fails(
                "it cannot be opened",
                &error,
                "No run can use it.",
                "Check the credentials: `opsctl config show` says where each comes from.",
            );
        }
    };
    let place = storage.place();
    if let Err(error) = storage.list_folders("") {
        let why = match probe.holds {
            Holds::WhatIsTidied => {
                "What cannot be listed cannot be verified, restored by `latest`, or tidied by retention."
            }
            Holds::Evidence => "What cannot be listed cannot be continued or verified.",
        };
        let advice = advice(&error, "list (s3:ListBucket on the bucket)");
        fails("it cannot be listed", &one_line(&error), why, &advice);
    }
    let content = Bytes::from_static(b"opsctl doctor: may be removed\n");
    if let (Holds::Evidence, Some(days)) = (probe.holds, probe.lock_days) {
        return locked::look(*area, &storage, days, probe.now, asked);
    }
    let put = match storage.put(key, content.clone(), Overwrite::Refuse) {
        // It stayed, which is as it should be, and to be told so it had to be allowed to write.
        Err(Error::Exists { .. }) if probe.holds == Holds::Evidence => Ok(()),
        put => put,
    };
    if let Err(error) = put {
        let advice = advice(&error, "write (s3:PutObject)");
        fails("it cannot be written", &one_line(&error), "Nothing can be stored there.", &advice);
        // It may be there all the same.
        if !matches!(error, Error::Denied { .. } | Error::Exists { .. }) {
            remove(probe, asked, false);
        }
        return;
    }
    let before = said_bad(probe, asked, &storage, &content);
    let removed = remove(probe, asked, true);
    if before && removed {
        (asked.say)(Seen::good(*area, format!("{place} can be written, listed, read and cleaned")));
    }
}

/// Says what is not as it should be with an object that was written; was all of it well?
fn said_bad(probe: &Probe<'_>, asked: &Asked<'_>, storage: &Shared, content: &Bytes) -> bool {
    let Probe { area, key, lock_days, now, .. } = probe;
    let well = Cell::new(true);
    let bad = |what: String, why: &str, advice: String| {
        well.set(false);
        (asked.say)(Seen::bad(*area, what, why, advice));
    };
    match storage.put(key, content.clone(), Overwrite::Refuse) {
        Err(Error::Exists { .. }) => {}
        // Under a lock the version before is kept.
        Ok(()) if lock_days.is_some() => {
            let why =
                "Two runs at once would not notice each other; the lock keeps what both wrote.";
            let advice = "Nothing, as long as the lock is on.";
            let what = "an object that is there already gets another version";
            (asked.say)(Seen::note(*area, what, why, advice));
        }
        Ok(()) => bad(
            "an object that is there already was overwritten".to_owned(),
            "Two runs at once could destroy what the other one wrote.",
            "Use a storage that knows conditional writes (If-None-Match).".to_owned(),
        ),
        Err(error) => bad(
            format!("that an object is there already is not said: {}", one_line(&error)),
            "Two runs at once may not notice each other.",
            advice(&error, "read (s3:GetObject)"),
        ),
    }
    match storage.get(key, 4096) {
        Ok(read) if read == *content => {}
        Ok(_) => bad(
            "what was read is not what was written".to_owned(),
            "What is kept in it cannot be trusted.",
            "Look at what stands between opsctl and the storage: a proxy, a cache.".to_owned(),
        ),
        Err(error) => bad(
            format!("what was written cannot be read: {}", one_line(&error)),
            "Nothing in it can be verified or restored from here.",
            advice(&error, "read (s3:GetObject)"),
        ),
    }
    match storage.list(key.as_str()) {
        Ok(listed) if listed.iter().any(|object| object.key == *key) => {}
        Ok(_) => bad(
            "what was written is not listed".to_owned(),
            "Retention and verification go by listings.",
            "Look at what stands between opsctl and the storage: a proxy, a cache.".to_owned(),
        ),
        // That it cannot be listed was said.
        Err(_) => well.set(false),
    }
    if let Some(days) = lock_days {
        let until = *now + chrono::TimeDelta::days(i64::from(*days)) - chrono::TimeDelta::hours(1);
        let locked = storage.head(key).map(|object| object.locked_until);
        if !matches!(locked, Ok(Some(at)) if at >= until) {
            bad(
                format!("what is written is not locked for {}", counted(u64::from(*days), "day")),
                "Whoever has the credentials could remove all backups.",
                "Object Lock must be on for the bucket, and the credentials need s3:PutObjectRetention and \
                 s3:GetObjectRetention."
                    .to_owned(),
            );
        }
    }
    well.get()
}

/// Removes the object again, and says so if that is not possible.
fn remove(probe: &Probe<'_>, asked: &Asked<'_>, is_there: bool) -> bool {
    let Probe { area, key, lock_days, open, .. } = probe;
    // It must go also when time is up.
    let removed = open(asked.abort).and_then(|storage| Ok(storage.remove(key)?));
    match (removed, lock_days) {
        (Ok(()), Some(days)) if is_there => {
            let days = counted(u64::from(*days), "day");
            let what = format!("a version of the probe `{key}` stays for {days}");
            let why = "That is the lock at work; it has 30 bytes.";
            (asked.say)(Seen::note(*area, what, why, "Nothing; the bucket's lifecycle ends it."));
            true
        }
        (Ok(()), _) => true,
        (Err(error), _) if probe.holds == Holds::Evidence && is_denied(&error) => {
            let what = format!("nothing can be removed: the probe `{key}` stays");
            let why = "So it should be: whoever has these credentials cannot remove evidence.";
            let advice = "Nothing; the next probe is that same object.";
            (asked.say)(Seen::note(*area, what, why, advice));
            true
        }
        (Err(error), _) if probe.holds == Holds::Evidence => {
            let what = format!("whether anything can be removed is not known: {error:#}");
            let why = "Credentials that cannot remove are best for an archive.";
            let advice = "Check that it is there and can be reached, and ask again.";
            (asked.say)(Seen::bad(*area, what, why, advice));
            false
        }
        (Err(error), _) => {
            let why = "Retention cannot remove what is not kept, and a lease that a killed run left stays.";
            let what = format!("the probe `{key}` cannot be removed: {error:#}");
            let advice = format!(
                "Let the credentials remove (s3:DeleteObject), or keep them append-only and run `backup --no-prune`; \
                 remove `{key}` by hand."
            );
            (asked.say)(Seen::bad(*area, what, why, advice));
            false
        }
    }
}

fn is_denied(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Denied { .. }))
}

/// Says what to do about a storage that said no.
pub(super) fn advice(error: &Error, right: &str) -> String {
    match error {
        Error::Denied { .. } => {
            format!("Let the credentials, or the user who runs opsctl, {right}.")
        }
        Error::Full { .. } => "Make room, or raise the quota.".to_owned(),
        _ => "Check that it is there and can be reached: location, endpoint, mount, firewall."
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;
    use crate::storage::memory::Memory;

    #[test]
    fn a_storage_that_does_all_is_good_and_nothing_is_left() {
        let memory: Shared = std::sync::Arc::new(Memory::default());
        let seen = probe(&memory, None);
        assert_eq!(seen.iter().map(|s| s.grade).collect::<Vec<_>>(), [Grade::Good], "{seen:?}");
        assert!(memory.list("").unwrap().is_empty());
        // It knows no locks.
        let seen = probe(&memory, Some(30));
        assert_eq!(seen[0].what, "what is written is not locked for 30 days");
    }

    fn probe(memory: &Shared, lock_days: Option<u32>) -> Vec<Seen> {
        let seen = std::cell::RefCell::new(Vec::new());
        let stop = Stop::new();
        let asked =
            Asked { stop: &stop, abort: &stop, say: &|found| seen.borrow_mut().push(found) };
        let now = "2026-11-26T07:00:00Z".parse().unwrap();
        let open = |_: &Stop| Ok(std::sync::Arc::clone(memory));
        let key = Key::new("opsctl-doctor-1").unwrap();
        let (area, holds) = (Area::Repository, Holds::WhatIsTidied);
        storage(&Probe { area, holds, key, lock_days, now, open: &open }, &asked);
        seen.into_inner()
    }
}
