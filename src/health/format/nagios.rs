//! One line for Nagios, Icinga, Checkmk and their like, with performance data, and more lines behind it.
//!
//! The form is that of the Monitoring Plugins Development Guidelines: text, `|`, then `'label'=value[unit];warn;crit;min;max`
//! with base units and plain decimal numbers; limits are ranges, `80` being "bad above 80" and `15:` "bad below 15".

use super::{Report, plain};
use crate::health::limits::Bad;
use crate::health::{Answer, Outcome, Unit, Value};

/// Writes the report; `all` adds a line for what is well, too.
pub(crate) fn nagios(report: &Report, all: bool) -> String {
    let outcome = report.outcome();
    let bad: Vec<&Answer> =
        report.answers().iter().filter(|a| a.reading.outcome != Outcome::Ok).collect();
    let summary = match bad.first() {
        None => report.counts(),
        Some(worst) => {
            format!("{}: {} ({})", worst.check.name, worst.reading.message, report.counts())
        }
    };
    let data: Vec<String> = report.answers().iter().flat_map(performance).collect();
    let data = if data.is_empty() { String::new() } else { format!(" | {}", data.join(" ")) };
    let mut text =
        format!("OPSCTL {} - {}{data}\n", outcome.name().to_uppercase(), plain_text(&summary));
    for answer in report.answers().iter().filter(|a| all || a.reading.outcome != Outcome::Ok) {
        let outcome = answer.reading.outcome.name().to_uppercase();
        let line = format!("{outcome} {}: {}", answer.check.name, answer.reading.message);
        text.push_str(&format!("{}\n", plain_text(&line)));
        for line in &answer.reading.details {
            text.push_str(&format!("  {}\n", plain_text(line)));
        }
    }
    text
}

/// Says in the same form that nothing could be asked.
pub(crate) fn nagios_failure(message: &str) -> String {
    format!("OPSCTL UNKNOWN - {}\n", plain_text(message))
}

/// A `|` would begin the performance data.
fn plain_text(text: &str) -> String {
    text.replace('|', "/").replace(['\n', '\r'], " ")
}

fn performance(answer: &Answer) -> Vec<String> {
    let name = &answer.check.name;
    let own = answer.reading.value.iter().map(|value| datum(name, value));
    let more =
        answer.reading.more.iter().map(|(more, value)| datum(&format!("{name} {more}"), value));
    own.chain(more).collect()
}

fn datum(label: &str, value: &Value) -> String {
    let strange = |c: char| matches!(c, '\'' | '=' | '|') || c.is_control();
    let label = label.replace(strange, "_");
    // Days are no base unit.
    let (factor, unit, name) = match value.unit {
        Unit::Days => (86_400.0, Unit::Seconds, "s"),
        Unit::Seconds => (1.0, Unit::Seconds, "s"),
        Unit::Bytes => (1.0, Unit::Bytes, "B"),
        Unit::Percent => (1.0, Unit::Percent, "%"),
        Unit::Count => (1.0, Unit::Count, ""),
    };
    let number = |number: f64| plain(number * factor, unit);
    let own = if value.number.is_finite() {
        format!("{}{name}", number(value.number))
    } else {
        "U".to_owned()
    };
    let limit = |limit: Option<f64>| match (limit, value.limits.bad) {
        (None, _) => String::new(),
        (Some(limit), Bad::Above) => number(limit),
        (Some(limit), Bad::Below) => format!("{}:", number(limit)),
    };
    let (warning, critical) = (limit(value.limits.warning), limit(value.limits.critical));
    // They go without saying for a percentage.
    let bound = |bound: Option<f64>| {
        bound.filter(|_| unit != Unit::Percent).map(number).unwrap_or_default()
    };
    let fields = format!("{own};{warning};{critical};{};{}", bound(value.min), bound(value.max));
    format!("'{label}'={}", fields.trim_end_matches(';'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::format::testing::report;

    #[test]
    fn the_first_line_stands_alone() {
        let text = nagios(&report(), false);
        let lines: Vec<&str> = text.lines().collect();
        let expected = "OPSCTL CRITICAL - connect/b: failed to reach 'b' (2 critical, 1 unknown, 1 warning, 2 ok) | \
            'replication-slots/a'=1000000000000000000B;10000000000;50000000000 'replication-slots/a left'=3 \
            'connections/a'=85.5%;80;90 'xid-age/a'=150000000;500000000;1200000000 'replication-lag/a'=12.5%;15:;5:";
        assert_eq!(lines[0], expected);
        assert_eq!(
            lines[4..6],
            ["WARNING connections/a: 171 of 200 connections are used", "  99 of \"x\" <by> a/b"]
        );
        assert_eq!(lines.len(), 6);
        let strange = datum("connect/a|b='c'\nd", &Value::new(1.0, Unit::Count));
        assert_eq!(strange, "'connect/a_b__c__d'=1");
        assert_eq!(nagios_failure("a | b\nc"), "OPSCTL UNKNOWN - a / b c\n");
    }
}
