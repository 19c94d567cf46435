//! A report as text: the worst first, and never more than fits into a mail.

use std::fmt::Write as _;

use crate::text::{Table, bytes, count, counted, plain};

use super::{LISTED, Report, Severity, Sizes, Topic};

/// So many of a kind stand in the text; the other formats have more.
const SHOWN: usize = 5;

/// Returns the report.
pub(crate) fn text(report: &Report) -> String {
    let mut text = format!(
        "{}: PostgreSQL {}{}, {} in {}\n",
        plain(&report.database),
        report.server.version,
        if report.server.is_standby { ", a standby" } else { "" },
        bytes(report.databases.listed.first().map_or(0, |own| own.bytes)),
        counted(report.tables.total, "table"),
    );
    if report.topics.is_empty() {
        text.push_str("\n  nothing was found\n");
    }
    for topic in &report.topics {
        one(&mut text, topic);
    }
    sizes(&mut text, "LARGEST TABLES", &report.tables);
    sizes(&mut text, "LARGEST INDEXES", &report.indexes);
    statements(&mut text, report);
    text
}

fn one(text: &mut String, topic: &Topic) {
    writeln!(text, "\n  {} ({})", topic.name, count(topic.total)).ok();
    for finding in topic.findings.iter().take(SHOWN) {
        let severity = finding.severity.name().to_uppercase();
        writeln!(
            text,
            "    {severity:<8} {}: {}",
            plain(&finding.object),
            plain(&finding.evidence)
        )
        .ok();
        if let Some(fix) = &finding.fix {
            writeln!(text, "             {}", plain(fix)).ok();
        }
        if let Some(blocks) = finding.blocks.as_ref().filter(|_| finding.severity < Severity::Note)
        {
            writeln!(text, "             keeps waiting: {blocks}").ok();
        }
    }
    more(text, topic.total, SHOWN.min(topic.findings.len()));
}

fn sizes(text: &mut String, head: &str, sizes: &Sizes) {
    if sizes.listed.is_empty() {
        return;
    }
    let mut table = Table::new(&[&format!("  {head}"), "SIZE", "A DAY", "IN 90 DAYS"]);
    for size in sizes.listed.iter().take(SHOWN) {
        let growth = size.growth.map_or(["-".to_owned(), "-".to_owned()], |growth| {
            [change(growth.per_day), bytes(unsigned(growth.projected))]
        });
        let [a_day, ahead] = growth;
        table.row([format!("  {}", plain(&size.name)), bytes(size.bytes), a_day, ahead]);
    }
    write!(text, "\n{table}").ok();
    more(text, sizes.total, SHOWN.min(sizes.listed.len()));
}

fn statements(text: &mut String, report: &Report) {
    let listed = &report.slow.listed;
    if listed.is_empty() {
        return;
    }
    let mut table =
        Table::new(&["  STATEMENTS", "TOTAL", "EACH", "CALLS", "SINCE LAST", "STATEMENT"]);
    for statement in listed.iter().take(SHOWN) {
        let since = statement
            .since
            .as_ref()
            .map_or("-".to_owned(), |since| format!("{:.1} s", since.total_ms / 1e3));
        table.row([
            format!("  {:.0} %", statement.share),
            format!("{:.1} s", statement.total_ms / 1e3),
            format!("{:.1} ms", statement.mean_ms),
            count(statement.calls),
            since,
            plain(&statement.text).chars().take(60).collect(),
        ]);
    }
    write!(text, "\n{table}").ok();
    more(text, report.slow.total, SHOWN.min(listed.len()));
}

fn more(text: &mut String, total: u64, shown: usize) {
    let left = total.saturating_sub(shown as u64);
    if left > 0 {
        writeln!(text, "    and {} more", count(left)).ok();
    }
}

/// Returns a change of a size, with its sign.
pub(super) fn change(per_day: f64) -> String {
    let sign = if per_day < 0.0 { '-' } else { '+' };
    format!("{sign}{}", bytes(unsigned(per_day.abs())))
}

/// Cuts the part behind the point off; what is negative is 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "as far as it fits, which sizes do"
)]
pub(super) fn unsigned(number: f64) -> u64 {
    number.max(0.0) as u64
}

const _: () = assert!(SHOWN <= LISTED);
