//! For people: worst first, and what is well only counted unless more is wanted.

use super::Report;
use crate::health::Outcome;

/// Writes the report; `all` shows what is well, too.
pub(crate) fn human(report: &Report, all: bool, colours: bool) -> String {
    let shown = |outcome| all || outcome != Outcome::Ok;
    let answers = report.answers().iter().filter(|a| shown(a.reading.outcome));
    // What could not be asked because of another is told by that one.
    let own: Vec<_> = answers.filter(|a| all || a.reading.because_of.is_none()).collect();
    let width = own.iter().map(|a| a.check.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for answer in own {
        let reading = &answer.reading;
        let outcome = painted(
            &format!("{:<8}", reading.outcome.name().to_uppercase()),
            reading.outcome,
            colours,
        );
        text.push_str(&format!("{outcome}  {:<width$}  {}\n", answer.check.name, reading.message));
        for line in &reading.details {
            text.push_str(&format!("{:10}{:width$}    {line}\n", "", ""));
        }
    }
    let mut causes: Vec<(&str, usize)> = Vec::new();
    for cause in report.answers().iter().filter_map(|a| a.reading.because_of.as_deref()) {
        match causes.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, count)) => *count += 1,
            None => causes.push((cause, 1)),
        }
    }
    for (cause, count) in causes.into_iter().filter(|_| !all) {
        text.push_str(&format!("{count} more could not be asked, because of {cause}\n"));
    }
    let outcome = report.outcome();
    let worst = painted(&outcome.name().to_uppercase(), outcome, colours);
    text.push_str(&format!("{worst}: {} in {:.2} s\n", report.counts(), report.seconds));
    text
}

/// Paints a text as its outcome looks on a terminal.
fn painted(text: &str, outcome: Outcome, colours: bool) -> String {
    let colour = match outcome {
        Outcome::Critical => "1;31",
        Outcome::Unknown => "35",
        Outcome::Warning => "33",
        Outcome::Ok => "32",
    };
    if colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::format::testing::report;

    #[test]
    fn the_worst_comes_first_and_what_is_well_is_counted() {
        let text = human(&report(), false, false);
        let expected = "\
CRITICAL  connect/b            failed to reach 'b'
CRITICAL  replication-slots/a  holds much
WARNING   connections/a        171 of 200 connections are used
                                 99 of \"x\" <by> a|b
1 more could not be asked, because of connect/b
CRITICAL: 2 critical, 1 unknown, 1 warning, 2 ok in 0.25 s
";
        assert_eq!(text, expected);
        let all = human(&report(), true, true);
        assert!(all.contains("\x1b[32mOK      \x1b[0m  xid-age/a"), "{all}");
        assert!(all.contains("\x1b[35mUNKNOWN \x1b[0m  xid-age/b"), "{all}");
    }
}
