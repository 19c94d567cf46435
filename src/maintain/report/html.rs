//! A report as a page that needs nothing else: no script, no font, nothing from elsewhere. Pictures are SVG in the page.
//!
//! Names are foreign bytes: everything goes through [`escape`]. What a picture shows stands in a cell beside it as well.

use std::fmt::Write as _;

use crate::text::{bytes, count, counted, plain};

use super::size::Size;
use super::text::{change, unsigned};
use super::{Report, Sizes, Topic};

/// The page ends before it is larger than this; what is left out is said.
const LARGEST: usize = 450_000;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #ffffff; --line: #767676; --bar: #2f6db3; --critical: #a30000; --warning: #7a4b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececec; --paper: #161616; --line: #8c8c8c; --bar: #7db2ee; --critical: #ff9c94; --warning: #f0c060; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 75rem; margin: 0 auto; padding: 1rem; }
table { border-collapse: collapse; width: 100%; margin: 0.5rem 0 1.5rem; }
caption { text-align: left; padding: 0.25rem 0; }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 0.6rem; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
.number { text-align: right; white-space: nowrap; }
thead th, .critical, .warning, .unknown, .note { overflow-wrap: normal; } th[scope=row] { min-width: 12rem; }
.critical { color: var(--critical); font-weight: bold; } .warning { color: var(--warning); font-weight: bold; }
svg { fill: var(--bar); stroke: none; } polyline { fill: none; stroke: var(--bar); stroke-width: 1.5; }";

/// Escapes a text for an element or an attribute between quotes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in plain(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Returns the page.
pub(crate) fn page(reports: &[Report], failed: &[(String, String)]) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>opsctl db-maintain report</title>\n<style>{STYLE}\n</style>\n</head>\n<body>\n<main>\n<h1>Database report</h1>\n"
    );
    for (database, why) in failed {
        writeln!(page, "<p class=\"critical\">{} failed: {}</p>", escape(database), escape(why))
            .ok();
    }
    let mut left_out = 0;
    for report in reports {
        let section = section(report);
        if page.len() + section.len() > LARGEST {
            left_out += 1;
        } else {
            page.push_str(&section);
        }
    }
    if left_out > 0 {
        writeln!(
            page,
            "<p>And {} that this page has no room for: name them with --database.</p>",
            counted(left_out, "more database")
        )
        .ok();
    }
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

fn section(report: &Report) -> String {
    let mut out = format!(
        "<section>\n<h2>{}</h2>\n<p>PostgreSQL {}{}, as {}, at <time>{}</time>. Sizes are those of the last VACUUM or ANALYZE.</p>\n",
        escape(&report.database),
        escape(&report.server.version.to_string()),
        if report.server.is_standby { ", a standby" } else { "" },
        escape(&report.server.role),
        report.at.format("%Y-%m-%d %H:%M UTC"),
    );
    out.push_str("<h3>Findings</h3>\n");
    if report.topics.is_empty() {
        out.push_str("<p>Nothing was found.</p>\n");
    }
    for topic in &report.topics {
        findings(&mut out, topic);
    }
    sizes(&mut out, "Databases", &report.databases);
    sizes(&mut out, "Tables", &report.tables);
    sizes(&mut out, "Indexes", &report.indexes);
    statements(&mut out, report);
    out.push_str("</section>\n");
    out
}

fn table(out: &mut String, caption: &str, head: &[&str]) {
    writeln!(out, "<table>\n<caption>{caption}</caption>\n<thead><tr>").ok();
    for cell in head {
        write!(out, "<th scope=\"col\">{cell}</th>").ok();
    }
    out.push_str("</tr></thead>\n<tbody>\n");
}

fn findings(out: &mut String, topic: &Topic) {
    writeln!(out, "<h4>{}</h4>", topic.name).ok();
    let caption = format!("{} of {}, the worst first", topic.findings.len(), count(topic.total));
    table(
        out,
        &caption,
        &["Severity", "Of", "Evidence", "Statement that would mend it", "Keeps waiting"],
    );
    for finding in &topic.findings {
        let fix = finding
            .fix
            .as_deref()
            .map_or(String::new(), |fix| format!("<code>{}</code>", escape(fix)));
        let blocks = finding.blocks.as_deref().map_or(String::new(), escape);
        let (severity, object) = (finding.severity.name(), escape(&finding.object));
        let evidence = escape(&finding.evidence);
        writeln!(
            out,
            "<tr><td class=\"{severity}\">{severity}</td><th scope=\"row\">{object}</th><td>{evidence}</td><td>{fix}</td><td>{blocks}</td></tr>"
        )
        .ok();
    }
    out.push_str("</tbody>\n</table>\n");
}

fn sizes(out: &mut String, head: &str, sizes: &Sizes) {
    if sizes.listed.is_empty() {
        return;
    }
    writeln!(out, "<h3>{head}</h3>").ok();
    let caption =
        format!("{} of {}; {} in all", sizes.listed.len(), count(sizes.total), bytes(sizes.bytes));
    table(out, &caption, &["Name", "Size", "", "A day", "In 90 days", "So far"]);
    let most = sizes.listed.iter().map(|size| size.bytes).max().unwrap_or(0);
    for size in &sizes.listed {
        let (a_day, ahead) =
            size.growth.map_or(("unknown".to_owned(), "unknown".to_owned()), |growth| {
                (change(growth.per_day), bytes(unsigned(growth.projected)))
            });
        let (name, now) = (escape(&size.name), bytes(size.bytes));
        writeln!(
            out,
            "<tr><th scope=\"row\">{name}</th><td class=\"number\">{now}</td><td>{}</td><td class=\"number\">{a_day}</td>\
             <td class=\"number\">{ahead}</td><td>{}</td></tr>",
            bar(size.bytes, most),
            sparkline(size),
        )
        .ok();
    }
    out.push_str("</tbody>\n</table>\n");
}

fn bar(bytes: u64, most: u64) -> String {
    let width = 120 * u128::from(bytes) / u128::from(most.max(1));
    format!(
        "<svg aria-hidden=\"true\" width=\"120\" height=\"12\"><rect width=\"{width}\" height=\"12\"/></svg>"
    )
}

/// Draws what was seen over time; the figures beside it say the same.
fn sparkline(size: &Size) -> String {
    let (Some((first, _)), Some((last, _))) = (size.history.first(), size.history.last()) else {
        return String::new();
    };
    let seconds = (*last - *first).as_seconds_f64();
    if seconds <= 0.0 {
        return String::new();
    }
    let most = size.history.iter().map(|(_, bytes)| *bytes).fold(1.0, f64::max);
    let point = |(at, bytes): &(crate::clock::Moment, f64)| {
        let x = 118.0 * (*at - *first).as_seconds_f64() / seconds + 1.0;
        format!("{x:.1},{:.1}", 23.0 - 22.0 * bytes / most)
    };
    let points: Vec<String> = size.history.iter().map(point).collect();
    format!(
        "<svg aria-hidden=\"true\" width=\"120\" height=\"24\"><polyline points=\"{}\"/></svg>",
        points.join(" ")
    )
}

fn statements(out: &mut String, report: &Report) {
    let slow = &report.slow;
    if slow.listed.is_empty() {
        return;
    }
    out.push_str("<h3>Statements</h3>\n");
    let since = slow.counted_since.as_deref().unwrap_or("an unknown moment");
    let away =
        slow.thrown_away.map_or(String::new(), |n| format!("; {} were thrown away", count(n)));
    let caption = format!(
        "{} of {}, counted since {}{away}",
        slow.listed.len(),
        count(slow.total),
        escape(since)
    );
    table(
        out,
        &caption,
        &[
            "Share",
            "Total",
            "Each",
            "Deviation",
            "Calls",
            "Rows",
            "Since the last report",
            "Statement",
        ],
    );
    for s in &slow.listed {
        let since = s.since.as_ref().map_or("unknown".to_owned(), |since| {
            format!("{:.1} s, {} calls", since.total_ms / 1e3, count(since.calls))
        });
        writeln!(
            out,
            "<tr><td class=\"number\">{:.1} %</td><td class=\"number\">{:.1} s</td><td class=\"number\">{:.2} ms</td>\
             <td class=\"number\">{:.2} ms</td><td class=\"number\">{}</td><td class=\"number\">{}</td><td>{since}</td>\
             <td><code>{}</code></td></tr>",
            s.share,
            s.total_ms / 1e3,
            s.mean_ms,
            s.deviation_ms,
            count(s.calls),
            count(s.rows),
            escape(&s.text),
        )
        .ok();
    }
    out.push_str("</tbody>\n</table>\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_that_is_escaped_is_markup(text in "\\PC{0,40}|[<>&\"'a-z/= ]{0,40}") {
            let escaped = escape(&text);
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']), "{}", escaped);
        }
    }
}
