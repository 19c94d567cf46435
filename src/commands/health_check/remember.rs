//! What stays of a run: the history's figures, a file of metrics, and what notifications are made of.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Number;

use crate::commands::Context;
use crate::health::format::{self, Report};
use crate::health::{Answer, Outcome};
use crate::metrics;
use crate::notify::{Observation, State};

/// What the history calls that which is about no database.
const NO_DATABASE: &str = "-";

/// Notes what became of each check, as figures of its database; and all of it for `node_exporter`, if that is all there is.
pub(super) fn note(context: &Context, report: &Report, is_whole: bool) {
    let mut parts: BTreeMap<&str, Vec<&Answer>> = BTreeMap::new();
    for answer in report.answers() {
        parts
            .entry(answer.check.database.as_deref().unwrap_or(NO_DATABASE))
            .or_default()
            .push(answer);
    }
    context.observe(observations(report));
    for (database, answers) in parts {
        let worst = Outcome::worst(answers.iter().map(|answer| answer.reading.outcome));
        let figures = answers.iter().flat_map(|answer| figures(answer)).collect();
        context.history.database_ended(database, worst.number(), Ok(&figures));
    }
    let settings = context.metrics.get().filter(|_| is_whole);
    if let Some(dir) = settings.and_then(|settings| settings.textfile_dir.as_deref()) {
        let text = format::prometheus(report);
        if let Err(error) = metrics::replace(dir, "opsctl_health-check.prom", &text) {
            tracing::warn!("the metrics could not be written into `{}`: {error}", dir.display());
        }
    }
}

/// Returns what there is to tell: one observation for each check, and that all of them could be asked.
///
/// Of a check that another one's failure made impossible nothing is known: that other one is the news, if it was asked.
fn observations(report: &Report) -> Vec<Observation> {
    let asked: BTreeSet<&str> = report.answers().iter().map(|a| a.check.name.as_str()).collect();
    let is_told = |other: &String| asked.contains(other.as_str());
    let mut observed: BTreeMap<(&str, &str), State> = BTreeMap::new();
    for answer in report.answers() {
        let database = answer.check.database.as_deref().unwrap_or_default();
        observed.insert((database, ""), State::Good);
        let reading = &answer.reading;
        let state = match reading.outcome {
            _ if reading.because_of.as_ref().is_some_and(is_told) => continue,
            Outcome::Ok => State::Good,
            Outcome::Warning => State::Warning { what: format!("warning: {}", reading.message) },
            bad => State::Bad { what: format!("{}: {}", bad.name(), reading.message) },
        };
        observed.insert((database, &answer.check.name), state);
    }
    let observed = observed.into_iter().map(|((database, subject), state)| Observation {
        command: "health-check".to_owned(),
        database: database.to_owned(),
        subject: subject.to_owned(),
        state,
    });
    observed.collect()
}

/// Returns the figures of one check: `NAME.status`, `NAME.found` and `NAME.value`.
fn figures(answer: &Answer) -> Vec<(String, Number)> {
    let name = &answer.check.name;
    let value = answer.reading.value.as_ref().and_then(|value| Number::from_f64(value.number));
    let mut figures = vec![
        (format!("{name}.status"), answer.reading.outcome.number().into()),
        (format!("{name}.found"), answer.found.number().into()),
    ];
    figures.extend(value.map(|value| (format!("{name}.value"), value)));
    figures
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Moment;
    use crate::config::CheckSettings;
    use crate::health::kind::{self, Profile};
    use crate::health::{Check, Reading};

    #[test]
    fn a_consequence_is_no_news_unless_its_cause_was_not_asked() {
        let answer = |kind, instance: &str, because_of: Option<&str>| {
            let check = Check::new(kind, instance, &CheckSettings::default());
            let reading = Reading {
                because_of: because_of.map(str::to_owned),
                ..Reading::new(Outcome::Unknown, "it is gone")
            };
            Answer { check, reading, seconds: 0.0, found: Outcome::Unknown }
        };
        let told = |answers| {
            let report = Report::new(answers, String::new(), Moment::default(), 0.0, Profile::Full);
            let told = observations(&report).into_iter().filter(|o| o.state != State::Good);
            told.map(|observation| observation.subject).collect::<Vec<_>>()
        };
        let cause = || answer(&kind::REPOSITORY, "nas", None);
        let consequence = || answer(&kind::BACKUP, "members", Some("repository/nas"));
        assert_eq!(told(vec![cause(), consequence()]), ["repository/nas"]);
        assert_eq!(told(vec![consequence()]), ["backup/members"]);
    }
}
