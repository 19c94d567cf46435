//! What is worth a look in a database: sizes, findings, slow statements. It changes nothing.
//!
//! Sizes are those of the catalogue, as of the last VACUUM or ANALYZE: a size on disk takes a lock, for which a report would wait behind
//! an ALTER TABLE that waits itself. What cannot be known is a finding, too: `unknown`, with what it needs.

use crate::clock::Moment;
use postgres::error::SqlState;

use crate::db::{Connection, Error};
use crate::health::postgres::Row;
use crate::stop::Stop;

use super::Server;

pub(crate) mod growth;
pub(crate) mod html;
mod index;
mod server;
mod size;
mod slow;
mod table;
pub(crate) mod text;

pub(crate) use growth::Earlier;
pub(crate) use size::Sizes;
pub(crate) use slow::Slow;

/// So many of a kind are listed; the rest is counted.
pub(crate) const LISTED: usize = 20;
/// No question takes longer than this.
const LIMIT: &str = "30s";

/// How bad a finding is; the worst is the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    Critical,
    Warning,
    /// It could not be found out.
    Unknown,
    Note,
}

impl Severity {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Severity::Critical => "critical",
            Severity::Warning => "warning",
            Severity::Unknown => "unknown",
            Severity::Note => "note",
        }
    }
}

/// One thing that is worth a look.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    pub(crate) object: String,
    pub(crate) evidence: String,
    /// The statement that would mend it; none if a person has to find it.
    pub(crate) fix: Option<String>,
    /// Whom that would keep waiting.
    pub(crate) blocks: Option<String>,
}

impl Finding {
    fn new(severity: Severity, object: &str, evidence: String) -> Finding {
        Finding { severity, object: object.to_owned(), evidence, fix: None, blocks: None }
    }

    fn fix(mut self, sql: String, blocks: &str) -> Finding {
        (self.fix, self.blocks) = (Some(sql), Some(blocks.to_owned()));
        self
    }
}

/// All findings of a name: the worst ones, and how many there are.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Topic {
    pub(crate) name: &'static str,
    pub(crate) total: u64,
    pub(crate) findings: Vec<Finding>,
}

impl Topic {
    /// Keeps the worst of all findings.
    fn of(name: &'static str, mut findings: Vec<Finding>) -> Topic {
        let total = findings.len() as u64;
        findings.sort_by_key(|finding| finding.severity);
        findings.truncate(LISTED);
        Topic { name, total, findings }
    }

    pub(crate) fn worst(&self) -> Severity {
        self.findings.iter().map(|finding| finding.severity).min().unwrap_or(Severity::Note)
    }
}

/// What was seen in one database.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) database: String,
    pub(crate) server: Server,
    pub(crate) at: Moment,
    pub(crate) databases: Sizes,
    pub(crate) tables: Sizes,
    pub(crate) indexes: Sizes,
    pub(crate) slow: Slow,
    /// Those with findings, the worst first.
    pub(crate) topics: Vec<Topic>,
}

/// How a report is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Wish<'w> {
    pub(crate) database: &'w str,
    pub(crate) min_index_bytes: u64,
    pub(crate) earlier: &'w Earlier,
    pub(crate) now: Moment,
    pub(crate) stop: &'w Stop,
}

/// Looks at a database.
pub(crate) fn look(
    connection: &mut Connection,
    server: Server,
    wish: Wish<'_>,
) -> Result<Report, Error> {
    let read_only =
        format!("SET default_transaction_read_only = on; SET statement_timeout = '{LIMIT}'");
    let prepared = connection.batch_execute(&read_only);
    prepared.map_err(|e| Error::query("prepare the session", e).or_stopped(wish.stop))?;
    let mut asking = Asking { connection, server: &server, stop: wish.stop, topics: Vec::new() };
    let databases = size::databases(&mut asking, wish)?;
    let tables = size::tables(&mut asking, wish)?;
    let indexes = size::indexes(&mut asking, wish)?;
    table::topics(&mut asking, wish)?;
    index::topics(&mut asking)?;
    server::topics(&mut asking)?;
    let slow = slow::slow(&mut asking, wish)?;
    let mut topics = asking.topics;
    topics.retain(|topic| topic.total > 0);
    topics.sort_by_key(Topic::worst);
    let database = wish.database.to_owned();
    Ok(Report { database, at: wish.now, databases, tables, indexes, slow, topics, server })
}

/// One conversation with the server, and what came of it so far.
struct Asking<'a> {
    connection: &'a mut Connection,
    server: &'a Server,
    stop: &'a Stop,
    topics: Vec<Topic>,
}

impl Asking<'_> {
    /// Asks one question. One that the server refuses to answer becomes a finding, and none is returned.
    fn rows(&mut self, name: &'static str, sql: &str) -> Result<Option<Vec<Row>>, Error> {
        let answer = self.connection.simple_query(sql);
        self.answered(
            name,
            answer.map(Row::all).map_err(|e| Error::query(format!("ask for {name}"), e)),
        )
    }

    fn answered<T>(
        &mut self,
        name: &'static str,
        answer: Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let error = match answer {
            Ok(answer) => return Ok(Some(answer)),
            Err(error) => error.or_stopped(self.stop),
        };
        let Some(state) = error.sqlstate().filter(|_| self.stop.reason().is_none()) else {
            return Err(error);
        };
        let evidence = match *state {
            SqlState::LOCK_NOT_AVAILABLE => "somebody has it locked: ask again later".to_owned(),
            SqlState::QUERY_CANCELED => format!("it took longer than {LIMIT}"),
            SqlState::INSUFFICIENT_PRIVILEGE => self.needs_monitor(),
            _ => crate::db::one_line(&error),
        };
        let finding = Finding::new(Severity::Unknown, name, evidence);
        self.add(Topic::of(name, vec![finding]));
        Ok(None)
    }

    fn needs_monitor(&self) -> String {
        let role = crate::db::quote_identifier(&self.server.role);
        format!("needs GRANT pg_monitor TO {role}")
    }

    /// Adds what was found, to what is known under the same name.
    fn add(&mut self, topic: Topic) {
        match self.topics.iter_mut().find(|known| known.name == topic.name) {
            None => self.topics.push(topic),
            Some(known) => {
                known.total += topic.total;
                known.findings.extend(topic.findings);
                known.findings.sort_by_key(|finding| finding.severity);
                known.findings.truncate(LISTED);
            }
        }
    }

    /// Asks a question whose rows are findings; `total` says how many there are beyond those.
    fn findings(
        &mut self,
        name: &'static str,
        sql: &str,
        finding: impl Fn(&Row) -> Finding,
    ) -> Result<(), Error> {
        if let Some(rows) = self.rows(name, sql)? {
            let total = rows.first().map_or(0, |row| whole(row, "total"));
            let findings: Vec<Finding> = rows.iter().map(finding).collect();
            let total = total.max(findings.len() as u64);
            self.add(Topic { total, ..Topic::of(name, findings) });
        }
        Ok(())
    }
}

/// Returns a number that is not negative; 0 if there is none.
fn whole(row: &Row, column: &str) -> u64 {
    row.text(column).parse().unwrap_or_default()
}

fn float(row: &Row, column: &str) -> f64 {
    row.number(column).unwrap_or_default()
}

impl serde::Serialize for Report {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let document = serde_json::json!({
            "database": self.database, "exit": 0, "at": self.at, "server_version": self.server.version.to_string(),
            "is_standby": self.server.is_standby, "role": self.server.role,
            "databases": self.databases, "tables": self.tables, "indexes": self.indexes,
            "statements": self.slow, "findings": self.findings(),
        });
        document.serialize(serializer)
    }
}

impl Report {
    /// Every finding that is listed, with its name; the worst first.
    fn findings(&self) -> Vec<serde_json::Value> {
        let topic = |topic: &Topic| {
            let (name, total) = (topic.name, topic.total);
            let findings = serde_json::json!(topic.findings);
            serde_json::json!({ "name": name, "severity": topic.worst(), "total": total, "listed": findings })
        };
        self.topics.iter().map(topic).collect()
    }

    /// Returns what the next report is to know, for the history.
    pub(crate) fn notes(&self) -> serde_json::Value {
        let sizes = |sizes: &Sizes| -> serde_json::Map<String, serde_json::Value> {
            sizes.listed.iter().map(|size| (size.name.clone(), size.bytes.into())).collect()
        };
        let count = |severity| -> u64 {
            let those = self.topics.iter().flat_map(|topic| &topic.findings);
            those.filter(|finding| finding.severity == severity).count() as u64
        };
        serde_json::json!({
            "critical": count(Severity::Critical), "warning": count(Severity::Warning), "unknown": count(Severity::Unknown),
            "sizes": { "database": sizes(&self.databases), "table": sizes(&self.tables), "index": sizes(&self.indexes) },
            "statements": self.slow.notes(),
        })
    }
}
