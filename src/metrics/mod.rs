//! What Prometheus is told of each run, by command and database: names, units and values.
//!
//! `textfile.rs` writes it for `node_exporter`, `pushgateway.rs` sends it to a Pushgateway. Names and units are documented in
//! `docs/metrics.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::clock::Moment;
use crate::secret::Secret;
use crate::stop::Stop;

mod pushgateway;
mod textfile;

pub(crate) use textfile::replace;

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

const FIGURES: [Figure; 17] = [
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
    Figure {
        name: "opsctl_sessions_deleted",
        help: "Rows that the last cleaning deleted.",
        command: "cleanup-sessions",
        path: "deleted",
    },
    Figure {
        name: "opsctl_sessions_remaining",
        help: "Expired rows that the last cleaning left.",
        command: "cleanup-sessions",
        path: "remaining",
    },
    Figure {
        name: "opsctl_sessions_deleted_per_second",
        help: "How fast the last cleaning deleted.",
        command: "cleanup-sessions",
        path: "deleted_per_second",
    },
    Figure {
        name: "opsctl_accounts_unlocked",
        help: "Accounts that the last cleaning unlocked.",
        command: "cleanup-sessions",
        path: "unlocked",
    },
    Figure {
        name: "opsctl_maintain_vacuumed",
        help: "Tables that the last maintenance vacuumed.",
        command: "db-maintain",
        path: "vacuumed",
    },
    Figure {
        name: "opsctl_maintain_analyzed",
        help: "Tables that the last maintenance only analysed.",
        command: "db-maintain",
        path: "analyzed",
    },
    Figure {
        name: "opsctl_maintain_reindexed",
        help: "Indexes that the last maintenance built anew.",
        command: "db-maintain",
        path: "reindexed",
    },
    Figure {
        name: "opsctl_maintain_reclaimed_bytes",
        help: "How much smaller those became.",
        command: "db-maintain",
        path: "reclaimed_bytes",
    },
    Figure {
        name: "opsctl_maintain_left",
        help: "Statements that the last maintenance left, for lack of time or for somebody's sake.",
        command: "db-maintain",
        path: "left",
    },
    Figure {
        name: "opsctl_maintain_locked",
        help: "Statements that the last maintenance left because somebody had the table locked.",
        command: "db-maintain",
        path: "locked",
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

/// Tells of what became of each database, wherever somebody listens. That nobody can be told is a warning and no more.
pub(crate) fn publish(
    textfile_dir: Option<&Path>,
    pushgateway: Option<&Secret>,
    outcomes: &[Outcome<'_>],
    abort: &Stop,
) {
    for (dir, outcome) in outcomes.iter().filter_map(|outcome| Some((textfile_dir?, outcome))) {
        if let Err(error) = textfile::write(dir, outcome) {
            tracing::warn!("the metrics could not be written into `{}`: {error}", dir.display());
        }
    }
    if let Some(base) = pushgateway
        && let Err(error) = pushgateway::push(base, outcomes, abort)
    {
        tracing::warn!("the metrics could not be pushed: {error}");
    }
}

/// Writes the metrics in the text format of Prometheus. A failure has no success of its own to tell of; `last_success` is
/// that of an earlier run.
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

fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
