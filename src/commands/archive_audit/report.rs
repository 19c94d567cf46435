//! What `archive-audit` says at its end.

use serde_json::{Map, Value, json};

use crate::archive::compare::Compared;
use crate::archive::deletion::condition::Stay;
use crate::archive::deletion::whole::{self, Whole};
use crate::archive::deletion::{self, Became};
use crate::archive::folder::Contents;
use crate::archive::run::Outcome;
use crate::archive::verify::{Finding, Kind};
use crate::commands::{Report, Silence};
use crate::exit::Exit;
use crate::failure;

/// What became of a database.
pub(super) struct Part {
    database: String,
    pub(super) exit: Exit,
    text: String,
    tables: Vec<Value>,
    /// The figures of each table, for the history.
    totals: Map<String, Value>,
    error: Option<String>,
}

impl Part {
    pub(super) fn new(database: &str) -> Part {
        let (text, tables, totals) = (String::new(), Vec::new(), Map::new());
        Part { database: database.to_owned(), exit: Exit::Done, text, tables, totals, error: None }
    }

    pub(super) fn failed(database: &str, exit: Exit, error: String) -> Part {
        let text = format!("{database}: FAILED: {error}\n");
        Part { exit, text, error: Some(error), ..Part::new(database) }
    }

    /// What was answered to a question.
    pub(super) fn answer(database: &str, text: String, json: Value) -> Part {
        Part { text, tables: vec![json], ..Part::new(database) }
    }

    /// Adds what was archived of a table, or would be.
    pub(super) fn archived(&mut self, table: &str, outcome: &Outcome, dry_run: bool) {
        let Outcome { cutoff, segments, copies, findings, taken_back, there } = outcome;
        let rows: u64 = segments.iter().map(|segment| segment.rows).sum();
        let (verb, n) = (if dry_run { "would archive" } else { "archived" }, segments.len());
        if findings.is_empty() {
            self.line(table, &format!("{verb} {rows} rows in {n} segments"));
        } else {
            self.line(table, "NOTHING ADDED: the archive is not as it was left");
        }
        for name in taken_back {
            let line =
                format!("  {name}: part of it again; a run that was killed had detached it\n");
            self.text.push_str(&line);
        }
        let mut list = Vec::new();
        for segment in segments {
            let late = if segment.late { ", late" } else { "" };
            self.text.push_str(&format!("  {}: {} rows{late}\n", segment.name, segment.rows));
            list.push(json!({
                "segment": segment.name, "late": segment.late, "rows": segment.rows, "bytes": segment.bytes,
            }));
        }
        if *copies > 0 {
            self.text.push_str(&format!("  of {copies} segments also as Parquet\n"));
        }
        self.findings(findings);
        self.tables.push(json!({
            "table": table, "cutoff": cutoff, "rows": rows, "segments": list, "parquet": copies, "findings": findings,
            "taken_back": taken_back,
        }));
        let totals = json!({ "rows": rows, "segments": segments.len(), "segments_there": there });
        self.totals.insert(table.to_owned(), totals);
    }

    /// Adds what became of the rows in a table, which were to be deleted: by name, or where it is time.
    pub(super) fn deleted(
        &mut self,
        table: &str,
        report: &deletion::Report,
        by_name: bool,
        dry_run: bool,
    ) {
        let rows = |segment: &deletion::Segment| match &segment.became {
            Became::Deleted(outcome) => outcome.deleted,
            Became::Stayed(_) | Became::Damaged(_) => 0,
        };
        let mut rows: u64 = report.segments.iter().map(rows).sum();
        for whole in &report.partitions {
            if let whole::Became::Dropped(dropped) = whole.became {
                rows += dropped;
            }
        }
        let verb = if dry_run { "would delete" } else { "deleted" };
        if let Some(why) = &report.refused {
            self.exit = self.exit.max(Exit::Configuration);
            self.line(table, &format!("NOTHING DELETED: {why}"));
        } else if !report.findings.is_empty() {
            self.line(table, "NOTHING DELETED: the archive is not as it was left");
        } else {
            self.line(table, &format!("{verb} {rows} rows"));
        }
        let mut list = Vec::new();
        let mut findings = report.findings.clone();
        let partitions = self.partitions(&report.partitions, by_name, dry_run, &mut findings);
        for deletion::Segment { name, window, kept, became } in &report.segments {
            let mut json = json!({ "segment": name, "window": window, "kept": kept });
            match became {
                Became::Deleted(outcome) => {
                    let deletion::apply::Outcome { deleted, differ, locked, absent, .. } = outcome;
                    let stay = format!("{differ} differ and stay, {locked} are locked");
                    let line =
                        format!("  {name}: {verb} {deleted} rows; {absent} were gone, {stay}\n");
                    self.text.push_str(&line);
                    findings.extend(outcome.findings.clone());
                    json["rows"] = json!(outcome);
                }
                Became::Stayed(stay) => {
                    self.stays(stay, by_name);
                    self.text.push_str(&format!("  {name}: its rows stay: {}\n", stay.why()));
                    json["stays"] = json!(stay);
                }
                Became::Damaged(found) => findings.extend(found.clone()),
            }
            if let (Became::Deleted(_), Some(kept)) = (became, kept) {
                let until = kept.until.date_naive();
                let line = format!("    its archive must be kept until {until}: {}\n", kept.source);
                self.text.push_str(&line);
            }
            list.push(json);
        }
        self.findings(&findings);
        self.tables.push(json!({
            "table": table, "deleted": rows, "segments": list, "findings": findings, "error": report.refused,
            "warning": report.warning, "partitions": partitions,
        }));
    }

    /// Adds what became of partitions, which go as a whole.
    fn partitions(
        &mut self,
        partitions: &[Whole],
        by_name: bool,
        dry_run: bool,
        findings: &mut Vec<Finding>,
    ) -> Vec<Value> {
        let verb = if dry_run { "would drop it" } else { "dropped" };
        let mut list = Vec::new();
        for Whole { name, became } in partitions {
            let mut json = json!({ "partition": name });
            match became {
                whole::Became::Dropped(rows) => {
                    self.text.push_str(&format!("  {name}: {verb}, with {rows} rows\n"));
                    json["dropped"] = json!(rows);
                }
                whole::Became::Stayed(stay) => {
                    self.stays(stay, by_name);
                    self.text.push_str(&format!("  {name}: stays: {}\n", stay.why()));
                    json["stays"] = json!(stay);
                }
                whole::Became::Failed(error) => {
                    self.exit = self.exit.max(failure::exit(error));
                    let error = failure::one_line(error);
                    self.text.push_str(&format!("  {name}: FAILED: {error}\n"));
                    json["error"] = json!(error);
                }
                whole::Became::Differs(found) => {
                    self.text.push_str(&format!("  {name}: stays, see below\n"));
                    findings.extend(found.clone());
                }
            }
            list.push(json);
        }
        list
    }

    /// Notes that something was not deleted.
    fn stays(&mut self, stay: &Stay, by_name: bool) {
        let exit = match stay {
            Stay::Refused { .. } => Exit::Configuration,
            Stay::Wait { .. } if by_name => Exit::Failed,
            Stay::Wait { .. } => Exit::Done,
        };
        self.exit = self.exit.max(exit);
    }

    /// Adds the holds of a table.
    pub(super) fn held(&mut self, table: &str, what: &str, lines: &str, json: Value) {
        self.line(table, what);
        self.text.push_str(lines);
        self.tables.push(json);
    }

    /// Adds what lies in the archive of a table.
    pub(super) fn listed(&mut self, table: &str, contents: &Contents) {
        self.line(table, &format!("{} segments", contents.segments.len()));
        let mut list = Vec::new();
        for segment in &contents.segments {
            let Ok(manifest) = &segment.manifest else {
                self.text.push_str(&format!("  {}: its manifest cannot be read\n", segment.name));
                list.push(json!({ "segment": segment.name }));
                continue;
            };
            let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
            let late = if manifest.late { ", late" } else { "" };
            self.text.push_str(&format!(
                "  {:>4}  {}: {} rows, {bytes} bytes{late}\n",
                manifest.number, segment.name, manifest.rows
            ));
            list.push(json!({
                "segment": segment.name, "number": manifest.number, "window": manifest.window, "late": manifest.late,
                "rows": manifest.rows, "bytes": bytes,
            }));
        }
        for name in &contents.unfinished {
            self.text.push_str(&format!("  {name}: never finished, counts for nothing\n"));
        }
        self.tables.push(json!({
            "table": table, "segments": list, "unfinished": contents.unfinished,
        }));
    }

    /// Adds what was found in the archive of a table.
    pub(super) fn verified(
        &mut self,
        table: &str,
        contents: &Contents,
        findings: &[Finding],
        compared: Option<&Compared>,
    ) {
        let manifests = contents.segments.iter().filter_map(|s| s.manifest.as_ref().ok());
        let rows: u64 = manifests.map(|manifest| manifest.rows).sum();
        let n = contents.segments.len();
        let (sealed, findings): (Vec<&Finding>, Vec<&Finding>) =
            findings.iter().partition(|finding| finding.kind == Kind::Sealed);
        if n == 0 {
            self.exit = self.exit.max(Exit::BadNews);
            self.line(table, "THERE IS NO ARCHIVE");
        } else if findings.is_empty() {
            self.line(table, &format!("{n} segments with {rows} rows are as they were archived"));
        } else {
            self.line(table, &format!("{} FINDINGS in {n} segments", findings.len()));
        }
        if !sealed.is_empty() {
            let n = sealed.len();
            self.text.push_str(&format!(
                "  {n} of them are encrypted, and no identity fits: their files are those that were stored, their rows were not looked at\n"
            ));
        }
        if let Some(Compared { same, changed, gone, new, .. }) = compared {
            self.text.push_str(&format!(
                "  in the table {same} rows are as they were archived, {changed} are not; {gone} are not there any more, {new} came since\n"
            ));
        }
        self.findings(findings.iter().copied());
        let in_table = compared
            .map(|c| json!({ "same": c.same, "changed": c.changed, "gone": c.gone, "new": c.new }));
        self.tables.push(json!({
            "table": table, "segments": n, "rows": rows, "sealed": sealed.len(), "in_table": in_table, "findings": findings,
        }));
    }

    fn line(&mut self, table: &str, what: &str) {
        self.text.push_str(&format!("{} {table}: {what}\n", self.database));
    }

    fn findings<'f>(&mut self, findings: impl IntoIterator<Item = &'f Finding>) {
        for Finding { segment, kind, what } in findings {
            self.exit = self.exit.max(Exit::BadNews);
            self.text.push_str(&format!("  {segment}: {kind}: {what}\n"));
        }
    }

    /// Returns its part of the document.
    pub(super) fn json(&self) -> Value {
        json!({
            "database": self.database, "exit": self.exit.number(), "tables": self.tables, "totals": self.totals, "error": self.error,
        })
    }
}

/// Returns the status of the run: that of all databases, or 1 where they differ.
pub(super) fn exit(parts: &[Part]) -> Exit {
    let mut failed = parts.iter().map(|part| part.exit).filter(|exit| *exit != Exit::Done);
    match failed.next() {
        None => Exit::Done,
        Some(first) if failed.all(|exit| exit == first) => first,
        Some(_) => Exit::Failed,
    }
}

/// Puts the parts together.
pub(super) fn report(parts: &[Part], dry_run: bool, exit: Exit, silence: Silence) -> Report {
    let text = parts.iter().map(|part| part.text.as_str()).collect();
    let json: Vec<Value> = parts.iter().map(Part::json).collect();
    Report { exit, text, json: json!({ "dry_run": dry_run, "databases": json }), silence }
}
