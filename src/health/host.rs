//! What the figures of the machine mean: file systems, memory, processors.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use super::{Check, Inquiry, Outcome, Reading, Unit};
use crate::clock::Moment;
use crate::host::file_system::{self, FileSystem, Room};
use crate::host::growth::days_until_full;
use crate::host::memory::read_memory;
use crate::host::pressure::read_pressure;
use crate::host::processor::{Load, Sample, read_load};
use crate::text;

/// How long processors are watched: sixteen ticks of the kernel's clock on two of them. Longer, and all else would wait for it;
/// what it misses, `for` evens out.
const WATCHED: Duration = Duration::from_millis(80);
/// A disk that is a warning by its percentage is critical when less than this is left: 90 % of a large one is much room, and
/// 80 % of a small one may be none.
const LITTLE: u64 = 5_000_000_000;
/// Days until full beyond this are not worth a figure.
const FAR: f64 = 3650.0;

/// The machine that is asked.
const ROOT: &str = "/";

/// The checks of one file system.
pub(crate) struct DiskChecks {
    /// What lies on it, or seems to: a symbolic link may lead elsewhere.
    pub(crate) paths: Vec<PathBuf>,
    /// What must be there, because somebody said so.
    pub(crate) stated: Vec<PathBuf>,
    pub(crate) disk: Check,
    pub(crate) inodes: Check,
    pub(crate) full: Check,
    pub(crate) now: Moment,
    /// Returns how many percent were used at earlier runs.
    pub(crate) earlier: Box<Earlier>,
}

/// Reads earlier figures.
pub(crate) type Earlier = dyn Fn() -> anyhow::Result<Vec<(Moment, f64)>> + Send + Sync;

/// Asks about a file system. One that hangs, such as NFS without its server, keeps only itself from being answered.
pub(crate) fn disk(checks: DiskChecks) -> Inquiry {
    let DiskChecks { paths, stated, disk, inodes, full, now, earlier } = checks;
    let names = [disk.name.clone(), inodes.name.clone()];
    Inquiry::new(vec![disk, inodes, full], move |checks, _, give| {
        let look = |path: &PathBuf| {
            let found = file_system::look(path);
            found.with_context(|| format!("`{}` cannot be asked", path.display()))
        };
        let found = paths.iter().map(look).collect::<anyhow::Result<Vec<_>>>()?;
        let fullest = found
            .into_iter()
            .max_by(|a, b| a.bytes.used_percent().total_cmp(&b.bytes.used_percent()));
        let found = fullest.context("there is nothing to look at")?;
        let missing = stated.iter().find(|path| path.symlink_metadata().is_err());
        for check in checks {
            let reading = match &check.name {
                name if *name == names[0] => Ok(with_missing(disk_reading(check, &found), missing)),
                name if *name == names[1] => Ok(inodes_reading(check, &found)),
                _ => earlier().map(|earlier| full_reading(check, &found, earlier, now)),
            };
            give(check, reading);
        }
        Ok(())
    })
}

/// A path that is not there may be a disk that was not mounted.
fn with_missing(mut reading: Reading, missing: Option<&PathBuf>) -> Reading {
    let Some(missing) = missing else { return reading };
    reading.message += &format!("; `{}` is not there", missing.display());
    reading.at_least(Outcome::Unknown)
}

fn disk_reading(check: &Check, found: &FileSystem) -> Reading {
    let Room { used, available } = found.bytes;
    let percent = found.bytes.used_percent();
    let (total, left) = (text::bytes(found.bytes.total()), text::bytes(available));
    let message = format!("{percent:.1} % of {total} used, {left} left");
    let reading = check.judged(percent, message);
    let is_little = available < LITTLE && reading.outcome == Outcome::Warning;
    let reading = if is_little { reading.at_least(Outcome::Critical) } else { reading };
    reading.more("used", real(used), Unit::Bytes).more("available", real(available), Unit::Bytes)
}

fn inodes_reading(check: &Check, found: &FileSystem) -> Reading {
    let Some(inodes) = found.inodes else {
        return Reading::new(Outcome::Ok, "this file system makes them as it needs them");
    };
    let percent = inodes.used_percent();
    let (total, left) = (text::count(inodes.total()), text::count(inodes.available));
    check.judged(percent, format!("{percent:.1} % of {total} used, {left} left"))
}

/// Percentages grow as bytes do, as long as the file system keeps its size.
fn full_reading(
    check: &Check,
    found: &FileSystem,
    mut used: Vec<(Moment, f64)>,
    now: Moment,
) -> Reading {
    let percent = found.bytes.used_percent();
    used.push((now, percent));
    match days_until_full(&used, 100.0 - percent) {
        Some(days) if days < FAR => {
            check.judged(days, format!("full in {days:.0} days, if it goes on as before"))
        }
        _ => Reading::new(Outcome::Ok, "no end in sight, by what was seen so far"),
    }
}

/// Asks about memory.
pub(crate) fn memory(check: Check) -> Inquiry {
    Inquiry::single(check, |check, _| {
        let memory = read_memory(Path::new(ROOT))?;
        let percent = memory.available_percent();
        let (total, left) = (text::bytes(memory.total), text::bytes(memory.available));
        let whose = if memory.limited { "the container's " } else { "" };
        let message = format!("{percent:.1} % of {whose}{total} available: {left}");
        let reading = check.judged(percent, message);
        let reading = reading.more("available", real(memory.available), Unit::Bytes);
        Ok(pressure(reading, read_pressure(Path::new(ROOT)).memory))
    })
}

/// Watches the processors for a moment.
pub(crate) fn cpu(check: Check) -> Inquiry {
    Inquiry::single(check, |check, stop| {
        let before = Sample::take(Path::new(ROOT))?;
        stop.sleep(WATCHED)?;
        let busy = Sample::take(Path::new(ROOT))?.since(&before);
        let busy = busy.context("the kernel's clock did not move")?;
        let of = busy.limit.map_or(String::new(), |n| format!(" of the {n:.1} it may use"));
        let message = format!("{:.0} % busy{of}", busy.percent);
        let reading = check.judged(busy.percent, message);
        Ok(pressure(reading, read_pressure(Path::new(ROOT)).cpu))
    })
}

/// Asks about the load.
pub(crate) fn load(check: Check) -> Inquiry {
    Inquiry::single(check, |check, _| {
        let load = read_load(Path::new(ROOT))?;
        let Load { averages: [one, five, fifteen], processors } = load;
        let message = format!(
            "{one:.2} {five:.2} {fifteen:.2} on {}",
            text::counted(u64::from(processors), "processor")
        );
        let reading = check.judged(load.per_processor(), message);
        Ok(pressure(reading, read_pressure(Path::new(ROOT)).io))
    })
}

/// Adds for how much of the last minute somebody waited, where the kernel says it.
fn pressure(reading: Reading, waited: Option<f64>) -> Reading {
    match waited {
        Some(percent) => reading.more("pressure", percent, Unit::Percent),
        None => reading,
    }
}

/// Returns the mount points that some paths lie on, each once, with the paths.
///
/// By the names alone, so that a file system that hangs is asked by its own thread only.
pub(crate) fn mount_points(mounts: &str, paths: &[PathBuf]) -> Vec<(String, Vec<PathBuf>)> {
    let points: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    let mut found: Vec<(String, Vec<PathBuf>)> = Vec::new();
    for path in paths {
        let below = points.iter().filter(|point| path.starts_with(point));
        let point = below.max_by_key(|point| point.len()).copied().unwrap_or("/");
        match found.iter_mut().find(|(known, _)| known == point) {
            Some((_, paths)) => paths.push(path.clone()),
            None => found.push((point.to_owned(), vec![path.clone()])),
        }
    }
    found
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people and graphs")]
fn real(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CheckSettings;
    use crate::health::{Kind, kind};

    fn check(kind: &'static Kind) -> Check {
        Check::new(kind, "", &CheckSettings::default())
    }

    fn file_system(used: u64, available: u64) -> FileSystem {
        let mut found = file_system::look(Path::new("/")).unwrap();
        found.bytes = Room { used, available };
        found
    }

    #[test]
    fn a_disk_is_judged_by_its_percentage_and_by_what_is_left() {
        let judge = |used, available| {
            disk_reading(&check(&kind::DISK), &file_system(used, available)).outcome
        };
        let gigabyte = 1_000_000_000;
        assert_eq!(judge(80 * gigabyte, 20 * gigabyte), Outcome::Ok);
        assert_eq!(judge(81 * gigabyte, 19 * gigabyte), Outcome::Warning);
        assert_eq!(judge(91 * gigabyte, 9 * gigabyte), Outcome::Critical);
        // A small one that is half full has room; nearly full, it has none.
        assert_eq!(judge(4 * gigabyte, 4 * gigabyte), Outcome::Ok);
        assert_eq!(judge(17 * gigabyte, 4 * gigabyte), Outcome::Critical);
    }

    #[test]
    fn a_disk_that_grows_is_said_before_it_is_full() {
        let first: Moment = "2026-11-01T00:00:00Z".parse().unwrap();
        let at = |hour: u32| first + chrono::TimeDelta::hours(hour.into());
        // Four percent a day.
        let judge = |hours: u32| {
            let earlier: Vec<_> =
                (0..hours).map(|hour| (at(hour), f64::from(hour) / 6.0)).collect();
            let found = file_system(u64::from(hours), 600 - u64::from(hours));
            full_reading(&check(&kind::DISK_FULL), &found, earlier, at(hours))
        };
        let far = judge(408);
        assert_eq!(far.message, "full in 8 days, if it goes on as before");
        assert_eq!(far.outcome, Outcome::Ok);
        assert_eq!(judge(450).outcome, Outcome::Warning);
        assert_eq!(judge(580).outcome, Outcome::Critical);
        let fresh = judge(5);
        assert_eq!((fresh.outcome, fresh.value), (Outcome::Ok, None));
    }

    #[test]
    fn a_file_system_is_named_once_by_its_mount_point() {
        let mounts = "1 0 254:0 / / rw - ext4 a rw\n2 1 254:1 / /var rw - ext4 b rw\n3 1 0:9 / /srv/nfs rw - nfs c rw\n";
        let paths =
            ["/", "/var/lib/opsctl", "/home/x", "/var/backups", "/srv/nfs/b", "/srv/nfs-not"];
        let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
        let found = mount_points(mounts, &paths);
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["/", "/var", "/srv/nfs"]);
        assert_eq!(found[1].1, [Path::new("/var/lib/opsctl"), Path::new("/var/backups")]);
        assert_eq!(mount_points("", &paths).len(), 1);
    }
}
