//! The report as CI servers read test results: a case for each check, a failure for what is bad, an error for what is unknown.

use super::Report;
use crate::health::{Answer, Outcome};

/// Writes the document.
pub(crate) fn junit(report: &Report) -> String {
    let count = |outcomes: &[Outcome]| outcomes.iter().map(|o| report.count(*o)).sum::<usize>();
    let counts = format!(
        "tests=\"{}\" failures=\"{}\" errors=\"{}\" time=\"{:.3}\"",
        report.answers().len(),
        count(&[Outcome::Warning, Outcome::Critical]),
        count(&[Outcome::Unknown]),
        report.seconds
    );
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {counts}>\n  \
         <testsuite name=\"opsctl health-check\" hostname=\"{}\" timestamp=\"{}\" {counts}>\n",
        escaped(&report.host),
        report.at.format("%Y-%m-%dT%H:%M:%S")
    );
    for answer in report.answers() {
        text.push_str(&case(answer));
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

fn case(answer: &Answer) -> String {
    let (check, reading) = (&answer.check, &answer.reading);
    let start = format!(
        "    <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\"",
        check.kind.name,
        escaped(&check.name),
        answer.seconds
    );
    let element = match reading.outcome {
        Outcome::Ok => return format!("{start}/>\n"),
        Outcome::Unknown => "error",
        Outcome::Warning | Outcome::Critical => "failure",
    };
    let (kind, message) = (reading.outcome.name(), escaped(&reading.message));
    let details = escaped(&reading.details.join("\n"));
    format!(
        "{start}>\n      <{element} type=\"{kind}\" message=\"{message}\">{details}</{element}>\n    </testcase>\n"
    )
}

/// Control characters have no place in XML, not even escaped.
fn escaped(text: &str) -> String {
    let text: String = text.chars().filter(|c| *c == '\n' || !c.is_control()).collect();
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::format::testing::report;

    #[test]
    fn text_does_not_become_markup() {
        let text = junit(&report());
        assert!(text.contains("tests=\"6\" failures=\"3\" errors=\"1\" time=\"0.250\""), "{text}");
        assert!(text.contains(">99 of &quot;x&quot; &lt;by&gt; a|b</failure>"), "{text}");
        assert!(
            text.contains("<testcase classname=\"xid-age\" name=\"xid-age/a\" time=\"0.012\"/>"),
            "{text}"
        );
    }
}
