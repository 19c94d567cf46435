//! What a monitor is told of each run: a file for `node_exporter`'s textfile collector, by command and database.
//!
//! The rules are the collector's (`node_exporter`, `collector/textfile.go`): only files that end in `.prom`, no timestamps, the
//! same HELP everywhere, replaced by renaming. The time of the last success is carried over from the file before: a failure
//! must not hide it. Names and units are documented in `docs/metrics.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::clock::Moment;

const LAST_SUCCESS: &str = "opsctl_last_success_timestamp_seconds";
const LAST_SUCCESS_HELP: &str = "When the last run that ended well ended.";

/// A number of a command's report that is a metric.
struct Figure {
    name: &'static str,
    help: &'static str,
    command: &'static str,
    /// Where it stands in the database's part of the report.
    path: &'static str,
}

const FIGURES: [Figure; 7] = [
    Figure {
        name: "opsctl_backup_tables",
        help: "Tables in the last backup.",
        command: "backup",
        path: "totals.tables",
    },
    Figure {
        name: "opsctl_backup_rows",
        help: "Rows in the last backup.",
        command: "backup",
        path: "totals.rows",
    },
    Figure {
        name: "opsctl_backup_raw_bytes",
        help: "Size of the last backup before compression.",
        command: "backup",
        path: "totals.raw_bytes",
    },
    Figure {
        name: "opsctl_backup_stored_bytes",
        help: "Size of the last backup as stored.",
        command: "backup",
        path: "totals.stored_bytes",
    },
    Figure {
        name: "opsctl_verified_rows",
        help: "Rows that the last verification counted and compared.",
        command: "verify-backup",
        path: "rows",
    },
    Figure {
        name: "opsctl_restore_test_seconds",
        help: "How long the last restore test took to restore: the time to recover.",
        command: "verify-backup --restore-test",
        path: "restore.seconds",
    },
    Figure {
        name: "opsctl_restore_test_data_age_seconds",
        help: "How old the data was that the last restore test restored.",
        command: "verify-backup --restore-test",
        path: "restore.data_age_seconds",
    },
];

/// What became of one database in a run.
pub(crate) struct Outcome<'a> {
    /// As the history has it.
    pub(crate) command: &'a str,
    pub(crate) database: &'a str,
    pub(crate) exit: u8,
    pub(crate) ended_at: Moment,
    /// Of the whole run.
    pub(crate) seconds: f64,
    /// The numbers of its part of the report, by their paths.
    pub(crate) figures: &'a BTreeMap<String, serde_json::Number>,
}

/// Replaces the file of a command and a database in `dir`, which must exist.
pub(crate) fn write(dir: &Path, outcome: &Outcome<'_>) -> io::Result<()> {
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
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, dir.join(name))
    };
    write().inspect_err(|_| drop(std::fs::remove_file(&temporary)))
}

/// Writes the metrics in the text format of Prometheus.
fn render(outcome: &Outcome<'_>, last_success: Option<i64>) -> String {
    let ended_at = outcome.ended_at.timestamp();
    let last_success = if outcome.exit == 0 { Some(ended_at) } else { last_success };
    let labels = format!(
        "{{command=\"{}\",database=\"{}\"}}",
        label(outcome.command),
        label(outcome.database)
    );
    let mut text = String::new();
    let mut add = |name: &str, help: &str, value: String| {
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name}{labels} {value}").ok();
    };
    if let Some(at) = last_success {
        add(LAST_SUCCESS, LAST_SUCCESS_HELP, at.to_string());
    }
    let (at, took) = (ended_at.to_string(), format!("{:.3}", outcome.seconds));
    add("opsctl_last_run_timestamp_seconds", "When the last run ended.", at);
    add("opsctl_last_run_duration_seconds", "How long the last run took.", took);
    let help = "The exit status of the last run for this database; 0 is well.";
    add("opsctl_last_run_exit_status", help, outcome.exit.to_string());
    let own = FIGURES.iter().filter(|f| f.command == outcome.command && outcome.exit == 0);
    for figure in own {
        if let Some(value) = outcome.figures.get(figure.path) {
            add(figure.name, figure.help, value.to_string());
        }
    }
    text
}

/// Reads the time of the last success out of a file that was written before.
fn last_success(text: &str) -> Option<i64> {
    let line = text.lines().find(|line| line.starts_with(LAST_SUCCESS))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
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
