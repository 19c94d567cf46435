//! A file for `node_exporter`'s textfile collector, by command and database.
//!
//! The rules are the collector's (`node_exporter`, `collector/textfile.go`): only files that end in `.prom`, no timestamps, the
//! same HELP everywhere, replaced by renaming. The time of the last success is carried over from the file before: a failure
//! must not hide it.

use std::fmt::Write as _;
use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::{LAST_SUCCESS, Outcome, render};

/// Replaces the file of a command and a database in `dir`, which must exist.
pub(super) fn write(dir: &Path, outcome: &Outcome<'_>) -> io::Result<()> {
    let name = format!("opsctl_{}_{}.prom", plain(outcome.command), plain(outcome.database));
    let path = dir.join(&name);
    let before = match std::fs::read_to_string(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        read => read.unwrap_or_default(),
    };
    replace(dir, &name, &render(outcome, last_success(&before)))
}

/// Replaces a file of metrics in `dir`, which must exist.
pub(crate) fn replace(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    // In the same directory, and not ending in `.prom`.
    let temporary = dir.join(format!(".{name}.{}", std::process::id()));
    let write = || {
        let mut open = OpenOptions::new();
        open.write(true).create(true).truncate(true).mode(0o644);
        let mut file = open.open(&temporary)?;
        // The collector is another user, whatever the umask is.
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, dir.join(name))
    };
    write().inspect_err(|_| drop(std::fs::remove_file(&temporary)))
}

/// Reads the time of the last success out of a file that was written before.
fn last_success(text: &str) -> Option<i64> {
    let line = text.lines().find(|line| line.starts_with(LAST_SUCCESS))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Returns a name that a file may have.
fn plain(text: &str) -> String {
    let mut name = String::new();
    for byte in text.bytes() {
        match byte {
            b' ' => name.push('.'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => name.push(char::from(byte)),
            _ => write!(name, "%{byte:02X}").unwrap_or_default(),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn outcome(exit: u8, figures: &BTreeMap<String, serde_json::Number>) -> Outcome<'_> {
        let ended_at = "2026-11-21T02:15:00Z".parse().unwrap();
        Outcome { command: "backup", database: "a \"b\"\\", exit, ended_at, seconds: 1.5, figures }
    }

    #[test]
    fn a_failure_does_not_hide_the_last_success() {
        let figures = [("totals.rows".to_owned(), 7.into())].into();
        let good = render(&outcome(0, &figures), Some(1));
        let labels = r#"{command="backup",database="a \"b\"\\"}"#;
        assert!(good.contains(&format!("\n{LAST_SUCCESS}{labels} 1795227300\n")), "{good}");
        assert!(good.contains(&format!("\nopsctl_backup_rows{labels} 7\n")), "{good}");
        assert_eq!(last_success(&good), Some(1_795_227_300));
        let bad = render(&outcome(12, &figures), last_success(&good));
        assert_eq!(last_success(&bad), Some(1_795_227_300));
        assert!(bad.contains(&format!("\nopsctl_last_run_exit_status{labels} 12\n")), "{bad}");
        assert!(!bad.contains("opsctl_backup_rows"), "{bad}");
        assert_eq!(last_success(&render(&outcome(1, &figures), None)), None);
    }
}
