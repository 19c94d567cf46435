//! `opsctl verify-backup report`: the evidence for an auditor: which backups were proven, when and how, and which not.
//!
//! It reads what verifications left beside the backups, and verifies nothing itself.

use std::fmt::Write as _;

use crate::backup::evidence::{self, Evidence, Record};
use crate::backup::verified::Depth;
use crate::cli::{VerificationReportArgs, VerifyBackupArgs};
use crate::commands::{Context, Report, Silence, open};
use crate::config::Overrides;
use crate::exit::Exit;
use crate::text::{bytes, count, counted, duration};

const HEAD: &str = "\
| backup | state of | rows | stored | looked at | how | result | restored in | data was old |
|---|---|--:|--:|---|---|---|--:|--:|
";

pub(super) fn run(
    context: &Context,
    args: &VerifyBackupArgs,
    report: &VerificationReportArgs,
) -> anyhow::Result<Report> {
    let config = context.load(&args.selection, Overrides::default())?.config;
    context.set_deadline(context.global.timeout);
    let since = chrono::TimeDelta::from_std(report.since).ok();
    let since = since.and_then(|since| context.now.checked_sub_signed(since)).unwrap_or_default();
    let day = |at: crate::clock::Moment| at.format("%Y-%m-%d").to_string();
    let mut text = format!(
        "# Evidence of backups, {} to {}\n\nBy opsctl {}. `restored`: it was restored and every row, large object and \
         definition compared with what was dumped. `artifacts`: every byte and row was read and compared. `stored`: \
         sizes and SHA-256 of what is stored. `piece`: of rows and large objects only this part.\n",
        day(since),
        day(context.now),
        env!("CARGO_PKG_VERSION"),
    );
    let mut json = Vec::new();
    for database in &config.databases {
        let name = open::database_name(context, database)?;
        for settings in &config.repositories {
            let repository = open::repository(context, settings)?;
            let found = evidence::gather(&repository, &name, since, context.now, &context.stop)?;
            let place = repository.storage.place();
            write!(text, "\n## `{name}` in {place}\n\n")?;
            if found.is_empty() {
                writeln!(text, "There is no backup of this time.")?;
            } else {
                text.push_str(HEAD);
                for evidence in &found {
                    text.push_str(&rows(evidence));
                }
                text.push_str(&summary(&found));
            }
            json.push(serde_json::json!({
                "database": name, "repository": repository.name, "place": place, "backups": found,
            }));
        }
    }
    let json = serde_json::json!({ "since": since, "until": context.now, "evidence": json });
    Ok(Report { exit: Exit::Done, text, json, silence: Silence::Refused })
}

/// Returns the lines of one backup: one for each verification, or one that says that there is none.
fn rows(evidence: &Evidence) -> String {
    let backup = format!(
        "| {} | {} | {} | {} |",
        evidence.backup,
        evidence
            .snapshot_at
            .map_or("?".to_owned(), |at| at.format("%Y-%m-%d %H:%M:%SZ").to_string()),
        count(evidence.rows),
        bytes(evidence.stored_bytes)
    );
    if evidence.verifications.is_empty() {
        return format!("{backup} never | – | NOT PROVEN | – | – |\n");
    }
    let mut lines = String::new();
    for verification in &evidence.verifications {
        // How long a piece takes says nothing of how long the whole would.
        let restore = verification.restore.as_ref().filter(|_| verification.sample.is_none());
        writeln!(
            lines,
            "{backup} {} | {} | {} | {} | {} |",
            verification.at.format("%Y-%m-%d %H:%M:%SZ"),
            how(verification),
            if verification.good { "good" } else { "DAMAGED" },
            restore.map_or("–".to_owned(), |r| format!("{:.1} s", r.seconds)),
            restore.map_or("–".to_owned(), |r| duration(chrono::TimeDelta::seconds(
                r.data_age_seconds
            ))),
        )
        .ok();
    }
    lines
}

/// Says how thoroughly it was looked at, and at what of it.
fn how(verification: &Record) -> String {
    let sample = verification.sample.as_ref().map(|sample| format!(", {sample}"));
    format!("{}{}", verification.depth, sample.unwrap_or_default())
}

fn summary(found: &[Evidence]) -> String {
    let good = |depth: Depth| {
        let is_it = |v: &Record| v.good && v.depth == depth && v.sample.is_none();
        found.iter().filter(|e| e.verifications.iter().any(is_it)).count()
    };
    let never = found.iter().filter(|e| e.verifications.is_empty()).count();
    let damaged = found.iter().filter(|e| e.verifications.iter().any(|v| !v.good)).count();
    let mut text = format!(
        "\nOf {}, restored and equal: {}; read and whole: {}; found damaged: {damaged}; never looked at: {never}.\n",
        counted(found.len() as u64, "backup"),
        good(Depth::Restored),
        good(Depth::Artifacts),
    );
    for depth in [Depth::Restored, Depth::Artifacts, Depth::Stored] {
        let samples = found.iter().flat_map(|evidence| &evidence.verifications);
        let samples = samples.filter(|v| v.depth == depth && v.sample.is_some());
        let newest = samples.max_by_key(|verification| verification.at);
        if let Some(sample) = newest.and_then(|verification| verification.sample.as_ref()) {
            writeln!(text, "Piece by piece ({depth}): {}.", sample.coverage()).ok();
        }
    }
    text
}
