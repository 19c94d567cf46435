//! What a run says of one database: counts for people and machines, and nothing of anybody's session.

use std::fmt::Write as _;

use crate::clock::Moment;
use crate::config::ChildAction;
use crate::exit::Exit;
use crate::failure;
use crate::sessions::apply::{End, Outcome};
use crate::sessions::plan::{Cleaning, Refusal, RefusalKind};
use crate::sessions::sample::Sample;
use crate::sessions::unlock::{self, Unlocking};
use crate::text::{bytes, count, counted};

/// How many of the unlocked ids stand in the text; the JSON document has more.
const MOST_IDS: usize = 20;

/// The report of one database.
pub(super) struct Part {
    pub(super) database: String,
    pub(super) exit: Exit,
    pub(super) text: String,
    pub(super) json: serde_json::Value,
    /// By which everything is judged.
    pub(super) server_time: Moment,
    dry_run: bool,
    lines: String,
    rules: Vec<serde_json::Value>,
    outcomes: Vec<Outcome>,
    unlocks: Vec<serde_json::Value>,
    unlocked: u64,
    refused: Vec<Refusal>,
    stopped: bool,
    /// The first thing that went wrong.
    error: Option<String>,
}

impl Part {
    /// Begins a report.
    pub(super) fn begin(database: &str, server_time: Moment, dry_run: bool) -> Part {
        Part {
            database: database.to_owned(),
            exit: Exit::Done,
            text: String::new(),
            json: serde_json::Value::Null,
            server_time,
            dry_run,
            lines: String::new(),
            rules: Vec::new(),
            outcomes: Vec::new(),
            unlocks: Vec::new(),
            unlocked: 0,
            refused: Vec::new(),
            stopped: false,
            error: None,
        }
    }

    /// Reports that nothing could be done.
    pub(super) fn failed(database: &str, exit: Exit, message: &str) -> Part {
        let mut part = Part::begin(database, Moment::default(), false);
        part.exit = exit;
        part.text = format!("{database}: FAILED: {message}\n");
        part.json =
            serde_json::json!({ "database": database, "exit": exit.number(), "error": message });
        part
    }

    fn line(&mut self, text: impl AsRef<str>) {
        writeln!(self.lines, "  {}", text.as_ref()).ok();
    }

    /// Notes a rule that is not applied.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        let Refusal { rule, reason, kind } = &refusal;
        let (verb, word) = match kind {
            RefusalKind::Failed => ("failed", "FAILED"),
            RefusalKind::Configuration | RefusalKind::Database => ("refuses", "REFUSED"),
        };
        tracing::error!("{}: rule `{rule}` {verb}: {reason}", self.database);
        let error = format!("{rule}: {reason}");
        let line = format!("{rule}: {word}: {reason}");
        self.error.get_or_insert(error);
        self.line(line);
        self.refused.push(refusal);
    }

    /// Notes an error behind which there is nothing to be done.
    pub(super) fn broken(&mut self, error: &anyhow::Error) {
        let message = failure::one_line(error);
        self.exit = failure::exit(error);
        tracing::error!("{}: {message}", self.database);
        self.line(format!("FAILED: {message}"));
        self.error.get_or_insert(message);
    }

    /// Says what makes a rule slow.
    pub(super) fn warn(&mut self, cleaning: &Cleaning) {
        for warning in cleaning.warnings() {
            tracing::warn!("{}: {warning}", self.database);
        }
        if cleaning.figures().estimated {
            let rule = &cleaning.rule().name;
            tracing::warn!(
                "{rule}: to count took too long: the numbers are the server's estimates"
            );
        }
    }

    /// Says what a rule would delete.
    pub(super) fn would_delete(&mut self, cleaning: &Cleaning, sample: &Sample) {
        let (rule, figures) = (cleaning.rule(), cleaning.figures());
        let about = if figures.estimated { "about " } else { "" };
        let mut line = format!(
            "{}: would delete {about}{} of the {} of {}",
            rule.name,
            count(figures.expired),
            counted(figures.rows, "row"),
            cleaning.relation().name
        );
        if figures.without_time > 0 {
            line.push_str(&format!("; {} without a time", count(figures.without_time)));
        }
        if let (Some(earliest), Some(latest)) = (&figures.earliest, &figures.latest) {
            line.push_str(&format!("; {} is from {earliest} to {latest}", rule.column));
        }
        self.line(line);
        if !sample.sha256.is_empty() {
            let hashes: Vec<_> = sample.sha256.iter().map(|hash| &hash[..16]).collect();
            let (key, hashes) = (sample.key.join(","), hashes.join(", "));
            self.line(format!("  such as those with SHA-256({key}) = {hashes}…"));
        }
        for cascade in cleaning.cascades() {
            let what = if cascade.deleted { "go with them" } else { "would refer to nothing then" };
            let line =
                format!("  about {} of {} {what}", counted(cascade.about, "row"), cascade.table);
            self.line(line);
        }
        for child in &rule.children {
            let what = match child.action {
                ChildAction::Delete => "go with them",
                ChildAction::SetNull => "would refer to nothing then",
                ChildAction::Keep => "keep them",
            };
            let line = format!("  rows of {} that refer to them {what}", child.table);
            self.line(line);
        }
        self.rules.push(serde_json::json!({
            "rule": rule.name, "table": cleaning.relation().name.to_string(), "cutoff": cleaning.cutoff(),
            "figures": figures, "cascades": cleaning.cascades(), "warnings": cleaning.warnings(),
            "sample": sample,
        }));
    }

    /// Says what a rule deleted.
    pub(super) fn deleted(&mut self, cleaning: &Cleaning, outcome: Outcome) {
        let mut line = format!(
            "{}: {} of {} deleted in {}, the longest {:.2} s",
            outcome.rule,
            counted(outcome.deleted, "row"),
            outcome.table,
            if outcome.batches == 1 {
                "1 batch".to_owned()
            } else {
                format!("{} batches", count(outcome.batches))
            },
            outcome.longest_seconds
        );
        if outcome.children > 0 {
            line.push_str(&format!(
                ", with {} that referred to them",
                counted(outcome.children, "row")
            ));
        }
        let left = outcome.remaining.map_or("what is left is not known".to_owned(), |n| {
            let about = if outcome.end == End::Complete { "" } else { "about " };
            format!("{about}{} left", count(n))
        });
        let rule = &outcome.rule;
        match outcome.end {
            End::Complete if outcome.remaining == Some(0) => {}
            End::Complete if outcome.remaining.is_none() => line.push_str(&format!("; {left}")),
            End::Complete => {
                if outcome.deleted == 0 {
                    tracing::warn!(
                        "{}: {rule}: nothing went, others have locked it",
                        self.database
                    );
                }
                line.push_str(&format!("; {left} that others had locked, or that a trigger keeps"));
            }
            End::Stopped => {
                self.stopped = true;
                line.push_str(&format!("; stopped, {left}"));
            }
            End::Lagging => {
                self.exit = Exit::Failed;
                self.error.get_or_insert(format!("{rule}: replicas stayed too far behind"));
                line.push_str(&format!("; given up for the replicas' sake, {left}"));
            }
            End::Kept => {
                self.exit = Exit::Failed;
                let error = "nothing went, and nobody has it locked: is there a trigger?";
                tracing::error!("{}: {rule}: {error}", self.database);
                self.error.get_or_insert(format!("{rule}: {error}"));
                line.push_str(&format!("; {left}: {error}"));
            }
            End::Failed => line.push_str(&format!("; failed, {left}")),
        }
        tracing::info!("{}: {line}", self.database);
        self.line(line);
        let mut json = serde_json::to_value(&outcome).unwrap_or_default();
        if let Some(fields) = json.as_object_mut() {
            fields.insert("cutoff".to_owned(), serde_json::json!(cleaning.cutoff()));
            fields.insert(
                "before".to_owned(),
                serde_json::to_value(cleaning.figures()).unwrap_or_default(),
            );
        }
        self.rules.push(json);
        self.outcomes.push(outcome);
    }

    /// Says whom an unlock would unlock.
    pub(super) fn would_unlock(&mut self, unlocking: &Unlocking) {
        let (name, lapsed) = (unlocking.name(), unlocking.lapsed);
        self.line(format!(
            "{name}: would unlock {} of {}",
            counted(lapsed, "account"),
            unlocking.table()
        ));
        self.unlocks.push(
            serde_json::json!({ "unlock": name, "table": unlocking.table(), "lapsed": lapsed }),
        );
    }

    /// Says who was unlocked.
    pub(super) fn unlocked(&mut self, outcome: &unlock::Outcome) {
        let mut line = format!(
            "{}: {} of {} unlocked",
            outcome.unlock,
            counted(outcome.unlocked, "account"),
            outcome.table
        );
        if !outcome.ids.is_empty() {
            let shown: Vec<_> = outcome.ids.iter().take(MOST_IDS).map(String::as_str).collect();
            let more = outcome.unlocked.saturating_sub(shown.len() as u64);
            let more = if more > 0 { format!(" and {} more", count(more)) } else { String::new() };
            line.push_str(&format!(": {}{more}", shown.join(", ")));
        }
        self.line(line);
        self.stopped |= outcome.stopped;
        self.unlocked += outcome.unlocked;
        self.unlocks.push(serde_json::to_value(outcome).unwrap_or_default());
    }

    /// Notes that there is more to do.
    pub(super) fn stopped(&mut self) {
        self.stopped = true;
    }

    pub(super) fn was_stopped(&self) -> bool {
        self.stopped
    }

    /// Sums it up.
    pub(super) fn end(mut self) -> Part {
        if !self.refused.is_empty() && self.exit == Exit::Done {
            let is = |refusal: &Refusal| refusal.kind == RefusalKind::Configuration;
            let is_configuration = self.refused.iter().all(is);
            self.exit = if is_configuration { Exit::Configuration } else { Exit::Failed };
        }
        let sum = |of: fn(&Outcome) -> u64| self.outcomes.iter().map(of).sum::<u64>();
        // Of what is not known of one, nothing is known of all.
        let known =
            |of: fn(&Outcome) -> Option<u64>| self.outcomes.iter().map(of).sum::<Option<u64>>();
        let (deleted, reusable) = (sum(|o| o.deleted), sum(|o| o.reusable_bytes));
        let seconds: f64 = self.outcomes.iter().map(|o| o.seconds).sum();
        let longest = self.outcomes.iter().map(|o| o.longest_seconds).fold(0.0, f64::max);
        #[expect(clippy::cast_precision_loss, reason = "it is a rate")]
        let rate = if deleted == 0 { 0.0 } else { (deleted as f64 / seconds.max(0.001)).round() };
        self.text = if self.dry_run {
            format!(
                "{}: by the server's clock, {}\n{}",
                self.database,
                self.server_time.format("%Y-%m-%d %H:%M:%S UTC"),
                self.lines
            )
        } else {
            let mut text = format!(
                "{}: {} deleted, {} unlocked\n{}",
                self.database,
                counted(deleted, "row"),
                counted(self.unlocked, "account"),
                self.lines
            );
            if deleted > 0 {
                text.push_str(&format!(
                    "  VACUUM makes about {} usable again; the files stay as large as they are\n",
                    bytes(reusable)
                ));
            }
            text
        };
        self.json = serde_json::json!({
            "database": self.database, "exit": self.exit.number(), "server_time": self.server_time, "stopped": self.stopped,
            "deleted": deleted, "children": sum(|o| o.children), "remaining": known(|o| o.remaining),
            "skipped": known(|o| o.skipped), "unlocked": self.unlocked, "batches": sum(|o| o.batches),
            "longest_seconds": longest, "seconds": seconds, "deleted_per_second": rate, "reusable_bytes": reusable,
            "rules": self.rules, "unlocks": self.unlocks, "refused": self.refused,
        });
        if let Some(error) = &self.error {
            self.json["error"] = error.as_str().into();
        }
        self
    }
}
