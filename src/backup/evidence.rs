//! What verifications left beside backups, for those who were not there.

use crate::backup::repository::{Folder, Found, Repository};
use crate::backup::sample::Sample;
use crate::backup::verified::{Depth, Verified};
use crate::clock::Moment;
use crate::id::RunId;
use crate::stop::Stop;

/// A backup and all that is known of how it was proven.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Evidence {
    pub(crate) backup: RunId,
    /// The moment whose state it holds; unknown if its manifest cannot be read.
    pub(crate) snapshot_at: Option<Moment>,
    pub(crate) rows: u64,
    pub(crate) stored_bytes: u64,
    /// Oldest first.
    pub(crate) verifications: Vec<Record>,
}

/// What a report needs of a stored verification; `docs/formats.md` has all of it.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
pub(crate) struct Record {
    pub(crate) at: Moment,
    pub(crate) good: bool,
    pub(crate) depth: Depth,
    pub(crate) opsctl: String,
    #[serde(default)]
    pub(crate) sample: Option<Sample>,
    #[serde(default)]
    pub(crate) restore: Option<Restore>,
}

/// What a report needs of a restore test.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
pub(crate) struct Restore {
    pub(crate) server: String,
    pub(crate) seconds: f64,
    pub(crate) data_age_seconds: i64,
    pub(crate) rows: u64,
}

/// Returns the newest sample that was taken of a database's backups, by restoring it or by reading alone.
pub(crate) fn last_sample(
    repository: &Repository,
    database: &str,
    restored: bool,
    stop: &Stop,
) -> anyhow::Result<Option<Sample>> {
    let is_one = |v: &Verified| v.sample && (v.depth == Depth::Restored) == restored;
    Ok(newest(repository, database, is_one, stop)?.and_then(|record| record.sample))
}

/// Returns what the newest whole restore test of a database's backups measured.
pub(crate) fn last_restore(
    repository: &Repository,
    database: &str,
    stop: &Stop,
) -> anyhow::Result<Option<Restore>> {
    let is_one = |v: &Verified| v.good && !v.sample && v.depth == Depth::Restored;
    Ok(newest(repository, database, is_one, stop)?.and_then(|record| record.restore))
}

/// Returns the newest record among all backups of a database whose name tells that it is one of those.
fn newest(
    repository: &Repository,
    database: &str,
    is_one: impl Fn(&Verified) -> bool,
    stop: &Stop,
) -> anyhow::Result<Option<Record>> {
    let mut newest: Option<(Verified, Folder)> = None;
    for id in repository.ids(database)? {
        stop.check()?;
        let folder = Folder::new(database, &id);
        if let Some(last) = repository.verified(&folder)?.into_iter().rfind(|v| is_one(v))
            && newest.as_ref().is_none_or(|(newest, _)| newest.at < last.at)
        {
            newest = Some((last, folder));
        }
    }
    let Some((name, folder)) = newest else { return Ok(None) };
    repository.verification(&folder, name)
}

/// Returns the backups of a database begun since a moment, newest first, with their verifications.
pub(crate) fn gather(
    repository: &Repository,
    database: &str,
    since: Moment,
    now: Moment,
    stop: &Stop,
) -> anyhow::Result<Vec<Evidence>> {
    let mut gathered = Vec::new();
    for found in repository.backups(database, now, stop)? {
        stop.check()?;
        let mut evidence = match found {
            Found::Backup(manifest, _) if manifest.begun_at >= since => Evidence {
                snapshot_at: Some(manifest.snapshot_at),
                rows: manifest.totals.rows,
                stored_bytes: manifest.totals.stored_bytes,
                backup: manifest.id,
                verifications: Vec::new(),
            },
            Found::Unreadable(backup, _) => Evidence {
                backup,
                snapshot_at: None,
                rows: 0,
                stored_bytes: 0,
                verifications: Vec::new(),
            },
            Found::Backup(..) | Found::InProgress(_) | Found::Leftover(_) => continue,
        };
        let folder = Folder::new(database, &evidence.backup);
        evidence.verifications = repository.verifications(&folder)?;
        gathered.push(evidence);
    }
    Ok(gathered)
}
