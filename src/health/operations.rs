//! What opsctl itself looks after: are there backups, are they proven, can the repositories be used, does cron run?

use std::time::Instant;

use super::{Check, Inquiry, Outcome, Reading, Unit, kind};
use crate::backup::manifest::Manifest;
use crate::backup::repository::{Folder, Repository};
use crate::backup::shrink::suspicions;
use crate::backup::verified::{Depth, Verified, standing};
use crate::clock::Moment;
use crate::config::Health;
use crate::history::due::Standing;
use crate::stop::Stop;
use crate::text;

/// So many good backups are looked at: the newest, and those that it is compared with.
const COMPARED: usize = 3;
/// In so many of the newest folders something is looked for; each is a question to the storage.
const SEARCHED: usize = 100;

/// A time may lie so far ahead: another host's clock. One that lies further ahead would be new for as long.
const AHEAD: chrono::TimeDelta = chrono::TimeDelta::hours(1);

/// A repository and the databases whose backups live in it.
pub(crate) struct Asked {
    pub(crate) repository: String,
    /// Is it the only one?
    pub(crate) alone: bool,
    pub(crate) databases: Vec<String>,
    /// Can backups be restored from it here? Not where they are encrypted and the key is elsewhere.
    pub(crate) restorable: bool,
    /// From how many percent less a backup is suddenly smaller.
    pub(crate) shrink_percent: u32,
}

/// Asks a repository for everything that is to be known of it; `open` opens it, which may take a while.
pub(crate) fn repository(
    asked: Asked,
    health: &Health,
    now: Moment,
    open: impl Fn(&Stop) -> anyhow::Result<Repository> + Send + Sync + 'static,
) -> Inquiry {
    let settings = health.of_kind(&kind::REPOSITORY);
    let mut checks = vec![Check::new(&kind::REPOSITORY, &asked.repository, &settings)];
    for database in &asked.databases {
        let more = if asked.alone { String::new() } else { format!("/{}", asked.repository) };
        let proof = asked.restorable.then_some(&kind::RESTORE_PROOF);
        for kind in [Some(&kind::BACKUP), proof].into_iter().flatten() {
            let check = Check::new(kind, &format!("{database}{more}"), &health.of_kind(kind));
            checks.push(Check { database: Some(database.clone()), ..check });
        }
    }
    Inquiry::new(checks, move |checks, stop, give| {
        let began = Instant::now();
        let opened = open(stop).and_then(|repository| {
            let folders = repository.storage.list_folders("")?;
            Ok((repository, folders.len()))
        });
        let seconds = began.elapsed().as_secs_f64();
        let name = format!("{}/{}", kind::REPOSITORY.name, asked.repository);
        let (repository, folders) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                for check in checks {
                    let reading = check.failed(&error);
                    let because_of = (check.name != name).then(|| name.clone());
                    give(check, Ok(Reading { because_of, ..reading }));
                }
                return Ok(());
            }
        };
        for check in checks {
            stop.check()?;
            let reading = match check.database.as_deref() {
                None => reachable(check, &repository, folders, seconds),
                Some(database) if check.kind.name == kind::BACKUP.name => {
                    newest(check, &repository, database, asked.shrink_percent, now, stop)
                }
                Some(database) => proof(check, &repository, database, now, stop),
            };
            give(check, reading);
        }
        Ok(())
    })
}

/// It answered; how much room is left is the file system's check.
fn reachable(
    check: &Check,
    repository: &Repository,
    folders: usize,
    seconds: f64,
) -> anyhow::Result<Reading> {
    let databases = text::counted(u64::try_from(folders).unwrap_or(u64::MAX), "database");
    let place = repository.storage.place();
    let mut message = format!("{place} answers: {databases} in it");
    let free = repository.storage.free_bytes()?;
    if let Some(free) = free {
        message += &format!(", {} free", text::bytes(free));
    }
    let reading = check.judged(seconds, message);
    Ok(match free {
        Some(free) => reading.more("free", real(free), Unit::Bytes),
        None => reading,
    })
}

/// How old the newest good backup is, and whether it is one.
fn newest(
    check: &Check,
    repository: &Repository,
    database: &str,
    shrink_percent: u32,
    now: Moment,
    stop: &Stop,
) -> anyhow::Result<Reading> {
    let mut good: Vec<Manifest> = Vec::new();
    let mut bad: Vec<String> = Vec::new();
    for id in repository.ids(database)?.into_iter().take(SEARCHED) {
        stop.check()?;
        let folder = Folder::new(database, &id);
        let trouble = match repository.manifest(&folder)? {
            Some(Ok((manifest, _))) => match standing(&repository.verified(&folder)?) {
                Some(verified) if !verified.good => format!("{id} is damaged"),
                _ => {
                    good.push(manifest);
                    if good.len() == COMPARED {
                        break;
                    }
                    continue;
                }
            },
            Some(Err(why)) => format!("{id} cannot be read: {why}"),
            // A run is at work there, or was killed.
            None => continue,
        };
        // What is older than a good one is not the news.
        if good.is_empty() {
            bad.push(trouble);
        }
    }
    Ok(backup_reading(check, &good, &bad, shrink_percent, now))
}

/// `good` are the newest good backups, `bad` what is newer than them and is none; newest first.
fn backup_reading(
    check: &Check,
    good: &[Manifest],
    bad: &[String],
    shrink_percent: u32,
    now: Moment,
) -> Reading {
    let Some((newest, earlier)) = good.split_first() else {
        let reading = Reading::new(Outcome::Critical, "there is no good backup");
        return reading.details(bad.iter().cloned());
    };
    let age = now.signed_duration_since(newest.snapshot_at);
    let size = newest.totals.stored_bytes;
    let mut message = format!("{} old, {}: {}", text::duration(age), text::bytes(size), newest.id);
    let suspicions = suspicions(newest, earlier.iter().rev(), shrink_percent);
    if let Some(suspicion) = suspicions.first() {
        message += &format!(", suspicious: {suspicion}");
    }
    if let Some(bad) = bad.first() {
        message += &format!("; {bad}");
    }
    let mut reading = check.judged(age.as_seconds_f64().max(0.0), message);
    if !suspicions.is_empty() {
        reading = reading.at_least(Outcome::Warning);
    }
    if !bad.is_empty() {
        reading = reading.at_least(Outcome::Critical);
    }
    with_time_ahead(reading, age).more("size", real(size), Unit::Bytes).details(bad.iter().cloned())
}

/// How long ago a backup of the database was restored and found good.
fn proof(
    check: &Check,
    repository: &Repository,
    database: &str,
    now: Moment,
    stop: &Stop,
) -> anyhow::Result<Reading> {
    let mut last: Option<Verified> = None;
    for id in repository.ids(database)?.into_iter().take(SEARCHED) {
        stop.check()?;
        let proven = repository.verified(&Folder::new(database, &id))?;
        let proven = proven.into_iter().filter(|v| v.good && v.depth == Depth::Restored);
        last = last.into_iter().chain(proven).max_by_key(|verified| verified.at);
        // An older backup may have been restored later, but this is news enough.
        let is_good = |v: &Verified| check.limits.judge(days(now, v.at), None) == Outcome::Ok;
        if last.as_ref().is_some_and(is_good) {
            break;
        }
    }
    Ok(proof_reading(check, last, now))
}

fn proof_reading(check: &Check, last: Option<Verified>, now: Moment) -> Reading {
    let Some(last) = last else {
        let outcome = check.limits.judge(f64::INFINITY, None);
        return Reading::new(outcome, "no backup was ever restored and found good");
    };
    let ago = text::duration(now.signed_duration_since(last.at));
    let piece = if last.sample { "a piece of a backup" } else { "a backup" };
    let reading =
        check.judged(days(now, last.at), format!("{piece} was restored and compared {ago} ago"));
    with_time_ahead(reading, now.signed_duration_since(last.at))
}

/// Of what lies in the future nobody knows how old it is.
fn with_time_ahead(mut reading: Reading, age: chrono::TimeDelta) -> Reading {
    if age >= -AHEAD {
        return reading;
    }
    reading.message += "; its time lies ahead: whose clock is wrong?";
    reading.at_least(Outcome::Unknown)
}

fn days(now: Moment, at: Moment) -> f64 {
    now.signed_duration_since(at).as_seconds_f64().max(0.0) / 86_400.0
}

/// Says how scheduled commands stand on databases, as `opsctl status` does; `standings` has one for each, in their order.
pub(crate) fn scheduled(
    expected: &[(&str, String)],
    health: &Health,
    now: Moment,
    standings: impl Fn() -> anyhow::Result<Vec<Standing>> + Send + Sync + 'static,
) -> Inquiry {
    let check = |(command, database): &(&str, String)| {
        let instance = format!("{}/{database}", command.replace(" --", "-"));
        let check = Check::new(&kind::SCHEDULE, &instance, &health.of_kind(&kind::SCHEDULE));
        Check { database: Some(database.clone()), ..check }
    };
    let checks: Vec<Check> = expected.iter().map(check).collect();
    let names: Vec<String> = checks.iter().map(|check| check.name.clone()).collect();
    Inquiry::new(checks, move |checks, _, give| {
        for (name, standing) in names.iter().zip(standings()?) {
            if let Some(check) = checks.iter().find(|check| check.name == *name) {
                give(check, Ok(schedule_reading(check, &standing, now)));
            }
        }
        Ok(())
    })
}

fn schedule_reading(check: &Check, standing: &Standing, now: Moment) -> Reading {
    let since = standing.last_success.map(|at| now.signed_duration_since(at));
    let ago = |at: Option<chrono::TimeDelta>| {
        at.map_or("never yet".to_owned(), |at| format!("{} ago", text::duration(at)))
    };
    let mut message = format!("last success {}", ago(since));
    let mut outcome = Outcome::Ok;
    if let Some(error) = &standing.last_error {
        outcome = Outcome::Warning;
        message += &format!(", since then it failed: {error}");
    }
    if standing.late {
        outcome = Outcome::Critical;
        let by = standing.due.map(|due| now.signed_duration_since(due));
        message +=
            &by.map_or(", late".to_owned(), |by| format!(", late by {}", text::duration(by)));
    }
    if standing.running {
        message += ", running";
    }
    match since {
        Some(since) => check.judged(since.as_seconds_f64().max(0.0), message).at_least(outcome),
        None => Reading::new(outcome, message),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people and graphs")]
fn real(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::manifest::tests::sample;
    use crate::config::CheckSettings;
    use crate::health::Kind;
    use crate::id::RunId;

    fn now() -> Moment {
        "2026-11-25T19:00:00Z".parse().unwrap()
    }

    fn check(kind: &'static Kind) -> Check {
        Check::new(kind, "ip2a", &CheckSettings::default())
    }

    fn backup(hours: i64, rows: u64) -> Manifest {
        let at = now() - chrono::TimeDelta::hours(hours);
        let mut manifest = sample(RunId::new(at, 1), at);
        manifest.totals.rows = rows;
        manifest
    }

    #[test]
    fn a_backup_is_judged_by_its_age_and_size() {
        let judge = |good: &[Manifest], bad: &[String]| {
            backup_reading(&check(&kind::BACKUP), good, bad, 50, now())
        };
        assert_eq!(judge(&[backup(26, 100)], &[]).outcome, Outcome::Ok);
        assert_eq!(judge(&[backup(27, 100)], &[]).outcome, Outcome::Warning);
        assert_eq!(judge(&[backup(51, 100)], &[]).outcome, Outcome::Critical);
        assert_eq!(judge(&[], &[]).outcome, Outcome::Critical);
        assert_eq!(judge(&[backup(-1, 100)], &[]).outcome, Outcome::Ok);
        assert_eq!(judge(&[backup(-2, 100)], &[]).outcome, Outcome::Unknown);
        let smaller = judge(&[backup(1, 50), backup(25, 100), backup(49, 100)], &[]);
        assert_eq!(smaller.outcome, Outcome::Warning);
        assert!(smaller.message.contains("suspicious: 50 rows, 100 in"), "{}", smaller.message);
        let damaged = judge(&[backup(25, 100)], &["x is damaged".to_owned()]);
        assert_eq!((damaged.outcome, damaged.details.len()), (Outcome::Critical, 1));
    }

    #[test]
    fn a_proof_gets_old() {
        let judge = |name: Option<&str>| {
            proof_reading(
                &check(&kind::RESTORE_PROOF),
                name.map(|name| name.parse().unwrap()),
                now(),
            )
        };
        let fresh = judge(Some("20261118T190000.000000Z-restored-sample-good.json"));
        assert_eq!(
            (fresh.outcome, fresh.message.as_str()),
            (Outcome::Ok, "a piece of a backup was restored and compared 7 d 0 h ago")
        );
        assert_eq!(
            judge(Some("20261116T190000.000000Z-restored-good.json")).outcome,
            Outcome::Warning
        );
        assert_eq!(
            judge(Some("20261109T190000.000000Z-restored-good.json")).outcome,
            Outcome::Critical
        );
        assert_eq!(judge(None).outcome, Outcome::Critical);
        assert_eq!(
            judge(Some("20261126T190000.000000Z-restored-good.json")).outcome,
            Outcome::Unknown
        );
    }

    #[test]
    fn what_is_late_is_critical_and_what_failed_a_warning() {
        let well = Standing {
            command: "verify-backup --restore-test".to_owned(),
            database: "ip2a".to_owned(),
            last_success: Some(now() - chrono::TimeDelta::hours(30)),
            due: Some(now() - chrono::TimeDelta::hours(6)),
            late: false,
            failing: false,
            killed: false,
            running: false,
            last_error: None,
        };
        let judge =
            |standing: &Standing| schedule_reading(&check(&kind::SCHEDULE), standing, now());
        assert_eq!(judge(&well).outcome, Outcome::Ok);
        let last_error = Some("no room".to_owned());
        let failing = judge(&Standing { failing: true, last_error, ..well.clone() });
        assert_eq!(failing.outcome, Outcome::Warning);
        assert_eq!(failing.message, "last success 1 d 6 h ago, since then it failed: no room");
        let late = judge(&Standing { late: true, ..well.clone() });
        assert_eq!(
            (late.outcome, late.message.as_str()),
            (Outcome::Critical, "last success 1 d 6 h ago, late by 6 h 0 min")
        );
        let never = judge(&Standing { late: true, last_success: None, due: None, ..well.clone() });
        assert_eq!((never.outcome, never.value), (Outcome::Critical, None));
        let expected = [("verify-backup --restore-test", "ip2a".to_owned())];
        let inquiry = scheduled(&expected, &Health::default(), now(), || Ok(Vec::new()));
        assert_eq!(inquiry.checks[0].name, "schedule/verify-backup-restore-test/ip2a");
    }
}
