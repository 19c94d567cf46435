//! What of this host opsctl depends on: room where it writes, crontabs, timers, a running cron, its own user.
//!
//! The figures and files themselves; what starts what is judged in `started.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::crontab::{self, Line};
use super::started::User;
use super::{Area, Seen};
use crate::child::{self, Spec};
use crate::host::file_system::{self, Room};
use crate::stop::Stop;
use crate::text;

/// Where systemd looks for units that somebody wrote or a package brought; below the home directory those of a user.
const UNITS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
const UNITS_OF_USER: &str = ".config/systemd/user";
/// A longer crontab is none.
const MOST: u64 = 1 << 20;

/// Looks at the room where something is written; `most` is how many percent may be used, `needed` how many bytes will be.
pub(crate) fn space(what: &str, path: &Path, most: f64, needed: u64) -> Seen {
    let found = match file_system::look(path) {
        Ok(found) => found,
        Err(error) => {
            let what =
                format!("{what}: `{}` cannot be asked for its room: {error}", path.display());
            let why = "What cannot be looked at cannot be written either.";
            return Seen::bad(Area::Space, what, why, "Look at the mount and its rights.");
        }
    };
    judge_space(what, path, found.bytes, most, needed)
}

fn judge_space(what: &str, path: &Path, room: Room, most: f64, needed: u64) -> Seen {
    let (free, used) = (text::bytes(room.available), room.used_percent());
    let state = format!("{what}: {free} free at `{}`, {used:.0} % used", path.display());
    if room.available < needed {
        let what = format!("{state}, and about {} are needed", text::bytes(needed));
        let why = "A run that fills the file system fails, and may take others with it.";
        return Seen::bad(Area::Space, what, why, "Make room, or say another place.");
    }
    if used > most {
        let why = "A full file system is the usual end of backups.";
        let advice = "Make room, keep fewer backups ([repository.retention]), or a larger disk.";
        return Seen::bad(Area::Space, state, why, advice);
    }
    Seen::good(Area::Space, state)
}

/// Returns the lines of all crontabs that start opsctl, and what is wrong with reading them.
pub(crate) fn crontab_lines(stop: &Stop) -> (Vec<Line>, Option<Seen>) {
    let mut lines = Vec::new();
    let mut trouble = None;
    match Spec::new("crontab").args(["-l"]).output(stop, MOST) {
        Ok(text) => lines.extend(crontab::lines("crontab", &String::from_utf8_lossy(&text), false)),
        // There is none, or no cron at all.
        Err(child::Error::Failed { stderr, .. }) if stderr.contains("no crontab for") => {}
        Err(child::Error::Start(..)) => {}
        Err(error) => {
            let why = "What it starts is not known.";
            let what = format!("the crontab cannot be listed: {}", crate::db::one_line(&error));
            trouble = Some(Seen::note(Area::Cron, what, why, "Try `crontab -l`."));
        }
    }
    let mut files = vec![PathBuf::from("/etc/crontab")];
    let folder = std::fs::read_dir("/etc/cron.d").into_iter().flatten().flatten();
    let mut of_packages: Vec<PathBuf> = folder.map(|entry| entry.path()).collect();
    of_packages.sort();
    files.extend(of_packages);
    for file in files {
        if let Ok(text) = std::fs::read_to_string(&file) {
            lines.extend(crontab::lines(&file.display().to_string(), &text, true));
        }
    }
    (lines, trouble)
}

/// Returns the timers that are called as `opsctl schedule print` calls them, and whether each is enabled.
pub(crate) fn timers(home: Option<&Path>) -> BTreeMap<String, bool> {
    let mut timers = BTreeMap::new();
    let own = home.map(|home| home.join(UNITS_OF_USER));
    for folder in UNITS.iter().map(PathBuf::from).chain(own) {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let wanted = folder.join("timers.target.wants");
        for entry in entries {
            let file = entry.file_name().to_string_lossy().into_owned();
            let name = file.strip_prefix("opsctl-").and_then(|rest| rest.strip_suffix(".timer"));
            if let Some(name) = name {
                let is_enabled = wanted.join(&file).symlink_metadata().is_ok();
                *timers.entry(name.to_owned()).or_insert(false) |= is_enabled;
            }
        }
    }
    // A package's timer is enabled by a link in /etc.
    for (name, is_enabled) in &mut timers {
        let link = format!("{}/timers.target.wants/opsctl-{name}.timer", UNITS[0]);
        *is_enabled |= Path::new(&link).symlink_metadata().is_ok();
    }
    timers
}

/// Does a cron run? Unknown where this user does not see others' processes.
pub(crate) fn cron_runs() -> Option<bool> {
    std::fs::read_to_string("/proc/1/comm").ok()?;
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let mut names = processes.filter_map(|entry| {
        let is_process = entry.file_name().to_str()?.bytes().all(|b| b.is_ascii_digit());
        is_process.then(|| std::fs::read_to_string(entry.path().join("comm")).ok())?
    });
    let crons = ["cron", "crond", "fcron", "busybox", "supercronic"];
    Some(names.any(|name| crons.contains(&name.trim())))
}

/// Returns who this is, if `/etc/passwd` knows.
pub(crate) fn user() -> Option<User> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let number = rustix::process::geteuid().as_raw().to_string();
    let line = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut line = line.filter(|fields| fields.get(2) == Some(&number.as_str()));
    let fields = line.next()?;
    Some(User { name: (*fields.first()?).to_owned(), home: (*fields.get(5)?).to_owned() })
}

/// Is there a program of that name in a PATH, or at that place?
pub(crate) fn finds(program: &str, path: &str) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    let is_program = |path: PathBuf| {
        let is_executable =
            |m: std::fs::Metadata| m.is_file() && m.permissions().mode() & 0o111 != 0;
        path.metadata().is_ok_and(is_executable)
    };
    if program.contains('/') {
        return is_program(program.into());
    }
    path.split(':').any(|folder| is_program(Path::new(folder).join(program)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    #[test]
    fn room_is_judged_by_what_is_used_and_what_is_needed() {
        let grade = |used, available, needed| {
            judge_space("x", Path::new("/x"), Room { used, available }, 90.0, needed).grade
        };
        assert_eq!(grade(89, 11, 11), Grade::Good);
        assert_eq!(grade(89, 11, 12), Grade::Bad);
        assert_eq!(grade(91, 9, 0), Grade::Bad);
        assert_eq!(space("x", Path::new("/x/y"), 100.0, 0).grade, Grade::Good);
    }

    #[test]
    fn a_program_is_found_as_the_shell_finds_it() {
        assert!(finds("sh", "/no/such:/bin") && finds("/bin/sh", ""));
        assert!(!finds("sh", "/no/such") && !finds("/etc/passwd", ""));
    }
}
