//! What a run says of one database: what is planned and why, what became of it, and what is only said.

use std::fmt::Write as _;

use crate::exit::Exit;
use crate::maintain::apply::{Done, End, Outcome};
use crate::maintain::guard::Halt;
use crate::maintain::past::Past;
use crate::maintain::plan::{Act, Class, Old, Plan, Step};
use crate::text::{Table, bytes, count, counted, plain};

/// So many lines of a kind stand in the text; the JSON document has more.
const SHOWN: usize = 40;
const LISTED: usize = 1000;

/// The report of one database.
pub(super) struct Part {
    pub(super) exit: Exit,
    pub(super) text: String,
    pub(super) json: serde_json::Value,
    /// What the next run is to know.
    past: Past,
    database: String,
    plan: Option<Plan>,
}

impl Part {
    /// Reports that nothing could be done.
    pub(super) fn failed(database: &str, exit: Exit, message: &str) -> Part {
        Part {
            exit,
            text: format!("{database}: FAILED: {message}\n"),
            json: serde_json::json!({ "database": database, "exit": exit.number(), "error": message }),
            past: Past::default(),
            database: database.to_owned(),
            plan: None,
        }
    }

    /// Reports what would be done.
    pub(super) fn planned(database: &str, plan: Plan) -> Part {
        let mut text = format!(
            "{database}: {} to be done, of {}\n",
            counted(plan.steps().len() as u64, "statement"),
            counted(plan.tables() as u64, "table")
        );
        let mut table = Table::new(&["  WHAT", "OF", "LIKELY", "LOCK", "WHY"]);
        for step in plan.steps().iter().take(SHOWN) {
            table.row([
                format!("  {}", verb(step)),
                plain(&step.object().to_string()),
                format!("{:.1} s", step.likely().as_secs_f64()),
                step.lock().to_owned(),
                plain(&step.reasons().join("; ")),
            ]);
        }
        if !plan.steps().is_empty() {
            text.push_str(&table.to_string());
        }
        more(&mut text, plan.steps().len());
        text.push_str(&said(&plan));
        let json = serde_json::json!({
            "database": database, "exit": 0, "tables": plan.tables(), "planned": plan.steps().len(),
            "steps": plan.steps().iter().take(LISTED).map(step_json).collect::<Vec<_>>(),
            "advice": plan.advice().iter().take(LISTED).collect::<Vec<_>>(), "unknown": plan.unknown(),
        });
        let past = plan.past().clone();
        Part { exit: Exit::Done, text, json, past, database: database.to_owned(), plan: Some(plan) }
    }

    /// Reports what would be done as statements to be run by hand.
    pub(super) fn into_sql(mut self) -> Part {
        let Some(plan) = &self.plan else { return self };
        let mut text = format!("-- {}\nSET lock_timeout = '2s';\n", plain(&self.database));
        for step in plan.steps() {
            let why = plain(&step.reasons().join("; "));
            writeln!(text, "-- {why}; takes {}\n{};", step.lock(), step.sql()).ok();
        }
        for advice in plan.advice() {
            let (object, why, blocks) =
                (plain(&advice.object), plain(&advice.why), plain(&advice.blocks));
            let sql = plain(&advice.sql);
            writeln!(text, "-- {object}: {why}; keeps waiting: {blocks}\n-- {sql}").ok();
        }
        self.text = text;
        self
    }

    /// Reports what was done.
    pub(super) fn applied(mut self, outcome: Outcome) -> Part {
        let Outcome { done, halt, past, rates } = outcome;
        let n = |is: fn(&End) -> bool| done.iter().filter(|done| is(&done.end)).count();
        let of = |verb: &str| {
            let those =
                done.iter().filter(|done| done.end == End::Done && done.sql.starts_with(verb));
            those.count()
        };
        let failed = n(|end| matches!(end, End::Failed(_)));
        let locked = n(|end| *end == End::Locked);
        let left = n(|end| matches!(end, End::Left(_) | End::Cancelled));
        let reclaimed: u64 = done
            .iter()
            .filter_map(|done| Some(done.bytes_before?.saturating_sub(done.bytes_after?)))
            .sum();
        let mut text = format!(
            "{}: {} vacuumed, {} analysed, {} built anew, {} removed; {} failed, {} locked, {} left\n",
            self.database,
            of("VACUUM"),
            of("ANALYZE"),
            of("REINDEX"),
            of("DROP"),
            failed,
            locked,
            left
        );
        let mut table = Table::new(&["  WHAT", "OF", "TOOK", "BECAME"]);
        for done in done.iter().take(SHOWN) {
            table.row([
                format!("  {}", done.sql.split(' ').next().unwrap_or_default()),
                plain(&done.object),
                format!("{:.1} s", done.seconds),
                plain(&became(done)),
            ]);
        }
        if !done.is_empty() {
            text.push_str(&table.to_string());
        }
        more(&mut text, done.len());
        if let Some(Halt::Suffering(what) | Halt::Budget(what)) = &halt {
            writeln!(text, "  stopped before the end: {what}").ok();
        }
        if let Some(plan) = &self.plan {
            text.push_str(&said(plan));
        }
        let old = self.plan.as_ref().map_or(&[][..], Plan::old);
        let old: Vec<Old> = old.iter().filter(|old| !is_frozen(old, &done)).cloned().collect();
        for Old { object, xid_age, multixact_age } in old.iter().take(SHOWN) {
            let (xid, multixact) = (count(*xid_age), count(*multixact_age));
            let object = plain(object);
            writeln!(
                text,
                "  not frozen, and its age is critical: {object}, {xid} transactions, {multixact} multixacts"
            )
            .ok();
        }
        more(&mut text, old.len());
        self.exit = match &halt {
            _ if failed > 0 => Exit::Failed,
            Some(Halt::Suffering(_)) => Exit::BadNews,
            _ if !old.is_empty() => Exit::BadNews,
            _ => Exit::Done,
        };
        let error = done.iter().find_map(|done| match &done.end {
            End::Failed(why) => Some(why.clone()),
            _ => None,
        });
        let suffering = match &halt {
            Some(Halt::Suffering(what)) => Some(what.clone()),
            _ => None,
        };
        let not_frozen =
            old.first().map(|old| format!("{} is not frozen, and its age is critical", old.object));
        let error = error.or(suffering).or(not_frozen);
        let seconds: f64 = done.iter().map(|done| done.seconds).sum();
        if let Some(fields) = self.json.as_object_mut() {
            let more = serde_json::json!({
                "exit": self.exit.number(), "vacuumed": of("VACUUM"), "analyzed": of("ANALYZE"), "reindexed": of("REINDEX"),
                "removed": of("DROP"), "failed": failed, "locked": locked, "left": left, "reclaimed_bytes": reclaimed,
                "seconds": seconds, "stopped": halt, "error": error,
                "not_frozen": old.iter().take(LISTED).collect::<Vec<_>>(),
                "rates": { "vacuum": rates.vacuum, "analyze": rates.analyze, "reindex": rates.reindex },
                "done": done.iter().take(LISTED).collect::<Vec<_>>(), "indexes": indexes(&done),
            });
            if let serde_json::Value::Object(more) = more {
                fields.extend(more);
            }
        }
        (self.text, self.past) = (text, past);
        self
    }

    /// Notes that the run was told to stop.
    pub(super) fn stopped(&mut self, exit: Exit) {
        self.exit = exit;
        self.text.push_str("  told to stop; the next run goes on\n");
        if let Some(fields) = self.json.as_object_mut() {
            fields.insert("exit".to_owned(), exit.number().into());
        }
    }

    /// Returns what goes into the history: the report, and what the next run is to know.
    pub(super) fn noted(&self) -> serde_json::Value {
        let mut noted = self.json.clone();
        if let Some(fields) = noted.as_object_mut() {
            fields.insert("memory".to_owned(), self.past.notes());
        }
        noted
    }
}

/// Was a table frozen in this run?
fn is_frozen(old: &Old, done: &[Done]) -> bool {
    let froze = |done: &Done| done.end == End::Done && done.class == Class::Wraparound;
    done.iter().any(|done| froze(done) && done.object == old.object)
}

/// Sizes and durations of what was built anew, by name, so that the history has them.
fn indexes(done: &[Done]) -> serde_json::Value {
    let those = done.iter().filter(|done| done.bytes_after.is_some()).take(SHOWN);
    let entry = |done: &Done| {
        let figures = serde_json::json!({
            "bytes_before": done.bytes_before, "bytes_after": done.bytes_after, "seconds": done.seconds,
        });
        (done.object.clone(), figures)
    };
    serde_json::Value::Object(those.map(entry).collect())
}

fn step_json(step: &Step) -> serde_json::Value {
    serde_json::json!({
        "object": step.object(), "class": step.class(), "sql": step.sql(), "why": step.reasons(), "lock": step.lock(),
        "likely_seconds": step.likely().as_secs_f64(), "bytes": step.bytes(),
    })
}

fn verb(step: &Step) -> &'static str {
    match step.act() {
        Act::Vacuum { freeze: true, .. } => "VACUUM, freeze",
        Act::Vacuum { analyze: true, .. } => "VACUUM, ANALYZE",
        Act::Vacuum { .. } => "VACUUM",
        Act::Analyze { .. } => "ANALYZE",
        Act::Drop(_) => "DROP INDEX",
        Act::Reindex(_) => "REINDEX",
    }
}

fn became(done: &Done) -> String {
    match (&done.end, done.bytes_before, done.bytes_after) {
        (End::Done, Some(before), Some(after)) => {
            format!("{} became {}", bytes(before), bytes(after))
        }
        _ => done.end.to_string(),
    }
}

/// Says what is not done, and what is not known.
fn said(plan: &Plan) -> String {
    let mut text = String::new();
    for unknown in plan.unknown() {
        writeln!(text, "  unknown: {}", plain(unknown)).ok();
    }
    if !plan.advice().is_empty() {
        text.push_str("  not done here; a person decides:\n");
    }
    for advice in plan.advice().iter().take(SHOWN) {
        let (object, why) = (plain(&advice.object), plain(&advice.why));
        let (sql, blocks) = (plain(&advice.sql), plain(&advice.blocks));
        writeln!(text, "    {object}: {why}\n      {sql}\n      keeps waiting: {blocks}").ok();
    }
    more(&mut text, plan.advice().len());
    text
}

fn more(text: &mut String, n: usize) {
    if n > SHOWN {
        writeln!(text, "  and {} more", crate::text::count((n - SHOWN) as u64)).ok();
    }
}
