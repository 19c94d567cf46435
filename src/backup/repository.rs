//! A repository: where the backups of some databases live, on one storage.
//!
//! Knows the names in it (`<database>/<backup id>/…`) and what makes a backup exist (its manifest), and
//! removes what a [`Removal`] says. It does not decide what to remove: that is retention and prune.

use anyhow::Context as _;

use crate::backup::lease::Lease;
use crate::backup::manifest::{self, Layout, MANIFEST, Manifest};
use crate::backup::notes::Address;
use crate::backup::verified::{Verified, standing};
use crate::clock::Moment;
use crate::encryption::Recipients;
use crate::id::RunId;
use crate::stop::Stop;
use crate::storage::{self, Key, Overwrite, Shared};

/// The name of the object by which a run says that it is at work in a backup's folder.
pub(crate) const LEASE: &str = "lease.json";
/// The list of every object with its SHA-256, as `sha256sum -c` reads it.
pub(crate) const SUMS: &str = "SHA256SUMS";
/// The folder of a backup's verifications.
pub(crate) const VERIFICATIONS: &str = "verifications/";
/// How many manifests are read at once.
const READERS: usize = 8;
/// Without any lease, an incomplete backup is taken for a leftover when nothing was written for so long.
const ABANDONED_AFTER: chrono::TimeDelta = chrono::TimeDelta::hours(24);

/// A repository, opened.
#[derive(Clone)]
pub(crate) struct Repository {
    /// Its name in the configuration.
    pub(crate) name: String,
    pub(crate) storage: Shared,
    /// Where stock tools find it.
    pub(crate) address: Address,
    /// How new backups are laid out.
    pub(crate) layout: Layout,
    /// Whom new backups are encrypted for.
    pub(crate) recipients: Option<Recipients>,
    /// How long what is written cannot be removed.
    pub(crate) lock_days: Option<u32>,
}

/// The folder of one backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Folder {
    /// `<database>/<backup id>/`
    prefix: String,
    pub(crate) id: RunId,
}

/// What a folder in a repository holds.
#[derive(Debug)]
pub(crate) enum Found {
    /// A complete backup, with what verifications say of it.
    Backup(Box<Manifest>, Option<Verified>),
    /// A manifest that cannot be used, and why.
    Unreadable(RunId, String),
    /// No manifest, but a run is at work there.
    InProgress(RunId),
    /// No manifest, and nobody is at work: what a crashed run left.
    Leftover(RunId),
}

/// The permission to remove a folder; made by `prune.rs` alone, from a plan.
pub(crate) struct Removal {
    folder: Folder,
}

impl Removal {
    /// Allows the removal of `folder`. Only a decision of prune's may call this.
    pub(in crate::backup) fn decided(folder: Folder) -> Removal {
        Removal { folder }
    }
}

impl Folder {
    /// Returns the folder of a backup of `database`.
    pub(crate) fn new(database: &str, id: &RunId) -> Folder {
        Folder { prefix: format!("{}{id}/", database_prefix(database)), id: id.clone() }
    }

    /// Returns the key of an object in it.
    pub(crate) fn key(&self, name: &str) -> anyhow::Result<Key> {
        let path = format!("{}{name}", self.prefix);
        Key::new(path)
            .with_context(|| format!("`{}` cannot be the name of an object", name.escape_debug()))
    }

    /// Returns its path in the repository, for people.
    pub(crate) fn path(&self) -> &str {
        self.prefix.trim_end_matches('/')
    }
}

/// Returns the prefix of all backups of a database; odd characters are percent-encoded.
pub(crate) fn database_prefix(database: &str) -> String {
    let mut prefix = String::new();
    for (n, byte) in database.bytes().enumerate() {
        let plain =
            byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' || (byte == b'.' && n > 0);
        if plain {
            prefix.push(char::from(byte));
        } else {
            prefix.push_str(&format!("%{byte:02X}"));
        }
    }
    prefix + "/"
}

impl Found {
    /// Returns its id, and when it was begun: to the second, where no manifest says it better.
    fn begun(&self) -> (Moment, &RunId) {
        match self {
            Found::Backup(manifest, _) => (manifest.begun_at, &manifest.id),
            Found::Unreadable(id, _) | Found::InProgress(id) | Found::Leftover(id) => (id.at(), id),
        }
    }
}

/// Puts the newest first. Two of the same second differ in their ids by chance only, so ids alone do not say which came later.
fn newest_first(found: &mut [Found]) {
    found.sort_by(|a, b| b.begun().cmp(&a.begun()));
}

impl Repository {
    /// Looks at every folder of `database`, newest first.
    ///
    /// An incomplete answer of the storage is an error, because removals are decided by this.
    pub(crate) fn backups(
        &self,
        database: &str,
        now: Moment,
        stop: &Stop,
    ) -> anyhow::Result<Vec<Found>> {
        let ids = self.ids(database)?;
        let next = std::sync::atomic::AtomicUsize::new(0);
        let look = || {
            let mut found = Vec::new();
            loop {
                let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let Some(id) = ids.get(n) else { return Ok(found) };
                stop.check()?;
                found.push((n, self.look(&Folder::new(database, id), now)?));
            }
        };
        let results: Vec<anyhow::Result<Vec<(usize, Found)>>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..READERS.min(ids.len())).map(|_| scope.spawn(look)).collect();
            threads
                .into_iter()
                .map(|t| t.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked"))))
                .collect()
        });
        let mut found = Vec::with_capacity(ids.len());
        for result in results {
            found.extend(result?);
        }
        let mut found: Vec<Found> = found.into_iter().map(|(_, found)| found).collect();
        newest_first(&mut found);
        Ok(found)
    }

    /// Returns the ids of all folders of `database`, complete backups or not, newest first.
    pub(crate) fn ids(&self, database: &str) -> anyhow::Result<Vec<RunId>> {
        let prefix = database_prefix(database);
        let mut ids: Vec<RunId> = Vec::new();
        for name in self.storage.list_folders(&prefix)? {
            let Some(id) = RunId::parse(&name) else {
                let place = self.storage.place();
                tracing::warn!("`{prefix}{name}` in {place} is no backup, left alone");
                continue;
            };
            ids.push(id);
        }
        ids.sort_unstable_by(|a, b| b.cmp(a));
        Ok(ids)
    }

    /// Looks at one folder.
    fn look(&self, folder: &Folder, now: Moment) -> anyhow::Result<Found> {
        match self.manifest(folder)? {
            Some(Ok((manifest, _))) => {
                Ok(Found::Backup(Box::new(manifest), standing(&self.verified(folder)?)))
            }
            Some(Err(why)) => Ok(Found::Unreadable(folder.id.clone(), why.to_string())),
            None if self.is_leftover(folder, now)? => Ok(Found::Leftover(folder.id.clone())),
            None => Ok(Found::InProgress(folder.id.clone())),
        }
    }

    /// Reads a backup's manifest, and returns it with its bytes; `None` if there is none.
    #[expect(
        clippy::type_complexity,
        reason = "the inner result is about the content, the outer about the storage"
    )]
    pub(crate) fn manifest(
        &self,
        folder: &Folder,
    ) -> anyhow::Result<Option<Result<(Manifest, Vec<u8>), manifest::Error>>> {
        match self.storage.get(&folder.key(MANIFEST)?, manifest::MAX_MANIFEST) {
            Ok(json) => Ok(Some(Manifest::parse(&json).map(|manifest| (manifest, json.to_vec())))),
            Err(storage::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Reads all verifications of a backup, oldest first; one that cannot be read is a warning.
    pub(crate) fn verifications<T: serde::de::DeserializeOwned>(
        &self,
        folder: &Folder,
    ) -> anyhow::Result<Vec<T>> {
        let listed = self.storage.list(&format!("{}{VERIFICATIONS}", folder.prefix))?;
        let mut records = Vec::new();
        for object in listed.iter().filter(|object| object.key.as_str().ends_with(".json")) {
            let json = self.storage.get(&object.key, 1 << 26)?;
            match serde_json::from_slice(&json) {
                Ok(record) => records.push(record),
                Err(error) => tracing::warn!("`{}` cannot be read: {error}", object.key),
            }
        }
        Ok(records)
    }

    /// Reads one verification by its name; one that cannot be read is a warning.
    pub(crate) fn verification<T: serde::de::DeserializeOwned>(
        &self,
        folder: &Folder,
        name: Verified,
    ) -> anyhow::Result<Option<T>> {
        let key = folder.key(&format!("{VERIFICATIONS}{name}"))?;
        let json = self.storage.get(&key, 1 << 26)?;
        let read = serde_json::from_slice(&json);
        Ok(read.inspect_err(|e| tracing::warn!("`{key}` cannot be read: {e}")).ok())
    }

    /// Returns what the names of a backup's verifications say, oldest first.
    pub(crate) fn verified(&self, folder: &Folder) -> anyhow::Result<Vec<Verified>> {
        let prefix = format!("{}{VERIFICATIONS}", folder.prefix);
        let listed = self.storage.list(&prefix)?;
        let names = listed.iter().filter_map(|object| object.key.as_str().strip_prefix(&prefix));
        let mut verified: Vec<Verified> = Vec::new();
        for name in names {
            if let Ok(result) = name.parse() {
                verified.push(result);
            } else {
                tracing::warn!("`{prefix}{name}` is no verification that is understood");
            }
        }
        verified.sort_by_key(|verified| verified.at);
        Ok(verified)
    }

    /// Is a folder without manifest what a crashed run left, and not the work of a living one?
    ///
    /// Without a lease that this version can read, it is once nothing was written for a day.
    fn is_leftover(&self, folder: &Folder, now: Moment) -> anyhow::Result<bool> {
        let read = |key: &Key| match self.storage.get(key, 1 << 16) {
            Ok(json) => Ok(Lease::parse(&json)),
            Err(storage::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(e),
        };
        if let Some(lease) = read(&folder.key(LEASE)?)? {
            return Ok(lease.is_stale(now));
        }
        let objects = self.storage.list(&folder.prefix)?;
        // A run that was killed while it wrote its lease left it under a temporary name.
        let half_written = format!("{}.{LEASE}.", folder.prefix);
        let half_written = objects.iter().find(|o| o.key.as_str().starts_with(&half_written));
        if let Some(object) = half_written
            && let Some(lease) = read(&object.key)?
        {
            return Ok(lease.is_stale(now));
        }
        let newest = objects.iter().map(|o| o.modified_at).max();
        Ok(newest.is_none_or(|at| now.signed_duration_since(at) > ABANDONED_AFTER))
    }

    /// Removes a folder: its manifest first, so that it is no backup any more from then on; its lease last,
    /// so that an interrupted removal is known as a leftover. Returns the bytes that were freed.
    pub(crate) fn remove(
        &self,
        removal: Removal,
        lease: &Lease,
        stop: &Stop,
    ) -> anyhow::Result<u64> {
        let Removal { folder } = removal;
        let context =
            || format!("failed to remove backup `{}` from {}", folder.path(), self.storage.place());
        let lease_key = folder.key(LEASE)?;
        let remove = || -> anyhow::Result<u64> {
            self.storage.put(&lease_key, lease.to_json()?.into(), Overwrite::Allow)?;
            self.storage.remove(&folder.key(MANIFEST)?)?;
            let mut freed = 0;
            for object in self.storage.list(&folder.prefix)? {
                stop.check()?;
                if object.key != lease_key {
                    self.storage.remove(&object.key)?;
                    freed += object.size;
                }
            }
            self.storage.remove(&lease_key)?;
            Ok(freed)
        };
        remove().with_context(context)
    }

    /// Asks the storage until when a backup is locked.
    pub(crate) fn locked_until(&self, folder: &Folder) -> anyhow::Result<Option<Moment>> {
        Ok(self.storage.head(&folder.key(MANIFEST)?)?.locked_until)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::backup::manifest::tests::sample;

    proptest! {
        #[test]
        fn the_newest_is_first_whatever_chance_made_of_its_id(
            all in prop::collection::vec((0_i64..3_000_000, 0_u32..0x0100_0000, 0_u8..4), 1..12),
        ) {
            let begun = |micros: i64| {
                crate::clock::Moment::from_timestamp_micros(1_795_000_000_000_000 + micros).unwrap()
            };
            let found = |(micros, random, kind): &(i64, u32, u8)| {
                let id = RunId::new(begun(*micros), *random);
                match kind {
                    0 => Found::Leftover(id),
                    _ => Found::Backup(Box::new(sample(id, begun(*micros))), None),
                }
            };
            let mut sorted: Vec<Found> = all.iter().map(found).collect();
            newest_first(&mut sorted);
            let times = |found: &Found| match found {
                Found::Backup(manifest, _) => Some(manifest.begun_at),
                _ => None,
            };
            let known: Vec<Moment> = sorted.iter().filter_map(times).collect();
            prop_assert!(known.is_sorted_by(|a, b| a >= b), "{:?}", known);
            // Whatever is not known to be of the same second is in the order of the ids.
            let seconds: Vec<i64> = sorted.iter().map(|f| f.begun().1.at().timestamp()).collect();
            prop_assert!(seconds.is_sorted_by(|a, b| a >= b), "{:?}", seconds);
        }
    }

    #[test]
    fn database_names_become_safe_and_distinct_folders() {
        let check = |name: &str, expected: &str| assert_eq!(database_prefix(name), expected);
        check("ip2a", "ip2a/");
        check("My DB/2", "My%20DB%2F2/");
        check("..", "%2E./");
        check("ü%", "%C3%BC%25/");
    }
}
