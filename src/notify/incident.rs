//! What is news: from what was observed, and what was known before. Pure.
//!
//! An incident is opened when something is first seen to be not well, and is over when it is well again. It is announced
//! once, once more whenever it is more urgent than anybody was told, and so is its end if it was announced. Nothing is announced
//! during a silence; what is still not well when the silence is over, is announced then.

use std::collections::BTreeSet;

use super::message::Event;
use crate::clock::Moment;
use crate::config::Severity;
use crate::history::incidents::{Incident, Key, Kind};

/// How something was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Observation {
    /// As the history has it.
    pub(crate) command: String,
    /// Empty where a run has none.
    pub(crate) database: String,
    /// The name of a check; empty for a run.
    pub(crate) subject: String,
    pub(crate) state: State,
}

/// The ways in which it can be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It ran, and all is well.
    Good,
    /// It failed or found something; `what` is for people, on one line.
    Bad { what: String },
    /// It found something that is not yet bad.
    Warning { what: String },
    /// It is not late, whatever else it is.
    InTime,
    /// It should have run since then.
    Late { since: Moment },
}

/// What a decision depends on beside the observations and the incidents.
pub(crate) struct Rules<'a> {
    /// The channels, and how urgent something must be to be told there.
    pub(crate) channels: &'a [(&'a str, Severity)],
    /// How urgent it is when a command is not well.
    pub(crate) severity: &'a dyn Fn(&str) -> Severity,
    pub(crate) severity_of_warnings: Severity,
    pub(crate) is_silent: bool,
    /// The run that decides.
    pub(crate) run: &'a str,
    pub(crate) now: Moment,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Incidents to be written down: new ones, and those about which more is known.
    pub(crate) put: Vec<Incident>,
    /// Incidents that are over.
    pub(crate) over: Vec<Incident>,
    pub(crate) news: Vec<News>,
}

/// What somebody is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) event: Event,
    pub(crate) incident: Incident,
    pub(crate) channels: Vec<String>,
}

/// Decides what is news.
pub(crate) fn decide(
    observations: &[Observation],
    open: &[Incident],
    rules: &Rules<'_>,
) -> Decision {
    let mut known = open.to_vec();
    let mut worse = BTreeSet::new();
    for (n, observation) in observations.iter().enumerate() {
        let key = |kind| Key {
            command: observation.command.clone(),
            database: observation.database.clone(),
            subject: observation.subject.clone(),
            kind,
        };
        let mut is_bad = |kind, severity: Severity, what: String, since| {
            let key = key(kind);
            match known.iter_mut().find(|incident| incident.key == key) {
                // Of what nobody was told yet, the newest is told.
                Some(incident) if incident.announced.is_none() => {
                    (incident.what, incident.severity) = (what, severity.to_string());
                }
                // During a silence it stays as it was told, and is seen to be worse afterwards.
                Some(incident) if severity < severity_of(incident) && !rules.is_silent => {
                    (incident.what, incident.severity) = (what, severity.to_string());
                    worse.insert(incident.id.clone());
                }
                Some(_) => {}
                None => known.push(Incident {
                    id: format!("{}-{n}", rules.run),
                    severity: severity.to_string(),
                    key,
                    what,
                    since,
                    opened_at: rules.now,
                    announced: None,
                }),
            }
        };
        let severity = (rules.severity)(&observation.command);
        match &observation.state {
            State::Bad { what } => is_bad(Kind::Failed, severity, what.clone(), rules.now),
            State::Warning { what } => {
                is_bad(Kind::Failed, rules.severity_of_warnings, what.clone(), rules.now);
            }
            State::Late { since } => {
                let what = format!("it should have run by {}", since.format("%Y-%m-%d %H:%M UTC"));
                is_bad(Kind::Late, severity, what, *since);
            }
            State::InTime => known.retain(|incident| incident.key != key(Kind::Late)),
            State::Good => known.retain(|incident| {
                incident.key != key(Kind::Late) && incident.key != key(Kind::Failed)
            }),
        }
    }
    let mut decision = Decision::default();
    for incident in open {
        if !known.iter().any(|still| still.id == incident.id) {
            let told = incident.announced.clone().unwrap_or_default();
            decision.tell(Event::Recovered, incident, told);
            decision.over.push(incident.clone());
        }
    }
    for mut incident in known {
        let is_worse = worse.contains(&incident.id);
        if is_worse || (incident.announced.is_none() && !rules.is_silent) {
            let severity = severity_of(&incident);
            let told = incident.announced.take().unwrap_or_default();
            let channels = rules.channels.iter().filter(|(_, at_least)| severity <= *at_least);
            let channels: Vec<String> = channels.map(|(name, _)| (*name).to_owned()).collect();
            incident.announced = Some(channels.clone());
            let (told, new) = channels.into_iter().partition(|channel| told.contains(channel));
            let event = match incident.key.kind {
                Kind::Failed => Event::Failed,
                Kind::Late => Event::Late,
            };
            decision.tell(event, &incident, new);
            decision.tell(Event::Worse, &incident, told);
        }
        if !open.contains(&incident) {
            decision.put.push(incident);
        }
    }
    decision
}

fn severity_of(incident: &Incident) -> Severity {
    incident.severity.parse().unwrap_or(Severity::P1)
}

impl Decision {
    fn tell(&mut self, event: Event, incident: &Incident, channels: Vec<String>) {
        if !channels.is_empty() {
            self.news.push(News { event, incident: incident.clone(), channels });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn observed(command: &str, state: State) -> Observation {
        let (database, subject) = ("ip2a".to_owned(), String::new());
        Observation { command: command.to_owned(), database, subject, state }
    }

    fn bad() -> State {
        State::Bad { what: "no disk".to_owned() }
    }

    /// Incidents from run to run, as the history keeps them.
    #[derive(Default)]
    struct World {
        open: Vec<Incident>,
        n_runs: u32,
    }

    impl World {
        fn run(&mut self, is_silent: bool, observations: &[Observation]) -> Vec<News> {
            self.n_runs += 1;
            let now = Moment::default() + chrono::TimeDelta::hours(self.n_runs.into());
            let rules = Rules {
                channels: &[("all", Severity::P4), ("urgent", Severity::P2)],
                severity: &|command| if command == "backup" { Severity::P2 } else { Severity::P3 },
                severity_of_warnings: Severity::P4,
                is_silent,
                run: &format!("run {}", self.n_runs),
                now,
            };
            let decision = decide(observations, &self.open, &rules);
            self.open.retain(|incident| !decision.over.contains(incident));
            for incident in decision.put {
                self.open.retain(|other| other.key != incident.key);
                self.open.push(incident);
            }
            decision.news
        }

        fn told(&mut self, is_silent: bool, observations: &[Observation]) -> Vec<(Event, usize)> {
            let news = self.run(is_silent, observations);
            news.iter().map(|news| (news.event, news.channels.len())).collect()
        }
    }

    #[test]
    fn five_failures_are_one_message_and_the_end_another() {
        let mut world = World::default();
        let mut told = Vec::new();
        for _ in 0..5 {
            told.extend(world.told(false, &[observed("backup", bad())]));
        }
        // Another command's success is not this one's.
        told.extend(world.told(false, &[observed("restore", State::Good)]));
        assert_eq!(told, [(Event::Failed, 2)]);
        let good = [observed("backup", State::Good)];
        assert_eq!(world.told(false, &good), [(Event::Recovered, 2)]);
        assert_eq!(world.told(false, &good), []);
        assert_eq!(world.open, []);
    }

    #[test]
    fn who_is_not_told_of_the_failure_is_not_told_of_its_end() {
        let mut world = World::default();
        assert_eq!(world.told(false, &[observed("restore", bad())]), [(Event::Failed, 1)]);
        assert_eq!(world.told(false, &[observed("restore", State::Good)]), [(Event::Recovered, 1)]);
    }

    #[test]
    fn late_and_failing_are_two_things() {
        let mut world = World::default();
        let late = observed("backup", State::Late { since: Moment::default() });
        assert_eq!(world.told(false, &[observed("backup", bad())]), [(Event::Failed, 2)]);
        assert_eq!(world.told(false, std::slice::from_ref(&late)), [(Event::Late, 2)]);
        assert_eq!(world.told(false, &[late]), []);
        assert_eq!(
            world.told(false, &[observed("backup", State::InTime)]),
            [(Event::Recovered, 2)]
        );
        assert_eq!(world.open.len(), 1);
    }

    #[test]
    fn what_outlasts_a_silence_is_announced_when_it_is_over() {
        let mut world = World::default();
        let both = [observed("backup", bad()), observed("restore", bad())];
        assert_eq!(world.told(true, &both), []);
        // What is over before anybody was told, is nobody's concern.
        assert_eq!(world.told(true, &[observed("restore", State::Good)]), []);
        assert_eq!(world.told(false, &[]), [(Event::Failed, 2)]);
        assert_eq!(world.told(false, &[]), []);
        // What was announced before a silence has its end announced in any case.
        assert_eq!(world.told(true, &[observed("backup", State::Good)]), [(Event::Recovered, 2)]);
    }

    #[test]
    fn what_becomes_more_urgent_is_told_again_and_to_those_who_were_not_told() {
        let mut world = World::default();
        let warning = || observed("backup", State::Warning { what: "80 %".to_owned() });
        assert_eq!(world.told(false, &[warning()]), [(Event::Failed, 1)]);
        assert_eq!(world.told(false, &[warning()]), []);
        // After a silence, not in it.
        assert_eq!(world.told(true, &[observed("backup", bad())]), []);
        let news = world.run(false, &[observed("backup", bad())]);
        let told: Vec<_> = news.iter().map(|n| (n.event, n.channels.join(" "))).collect();
        assert_eq!(told, [(Event::Failed, "urgent".to_owned()), (Event::Worse, "all".to_owned())]);
        assert_eq!((&*news[0].incident.severity, &*news[0].incident.what), ("P2", "no disk"));
        // Less urgent is no news, nor is the same once more.
        assert_eq!(world.told(false, &[warning()]), []);
        assert_eq!(world.told(false, &[observed("backup", bad())]), []);
        assert_eq!(world.told(false, &[observed("backup", State::Good)]), [(Event::Recovered, 2)]);
    }

    fn any_observation() -> impl Strategy<Value = Observation> {
        let state = prop_oneof![
            Just(State::Good),
            Just(State::InTime),
            Just(bad()),
            Just(State::Warning { what: "nearly".to_owned() }),
            Just(State::Late { since: Moment::default() }),
        ];
        (prop_oneof![Just("backup"), Just("restore")], prop_oneof![Just(""), Just("disk")], state)
            .prop_map(|(command, subject, state)| Observation {
                subject: subject.to_owned(),
                ..observed(command, state)
            })
    }

    proptest! {
        #[test]
        fn everything_is_told_once_and_no_end_without_a_beginning(
            runs in prop::collection::vec(
                (any::<bool>(), prop::collection::vec(any_observation(), 0..4)), 0..30),
        ) {
            let mut world = World::default();
            let mut told: BTreeMap<(String, String), Vec<Event>> = BTreeMap::new();
            for (is_silent, observations) in runs {
                for news in world.run(is_silent, &observations) {
                    prop_assert!(!is_silent || news.event == Event::Recovered);
                    for channel in news.channels {
                        told.entry((news.incident.id.clone(), channel)).or_default().push(news.event);
                    }
                }
                let mut keys: Vec<_> = world.open.iter().map(|incident| &incident.key).collect();
                keys.sort();
                keys.dedup();
                prop_assert_eq!(keys.len(), world.open.len());
                prop_assert!(is_silent || world.open.iter().all(|i| i.announced.is_some()));
            }
            for events in told.values() {
                let is_right = matches!(
                    events[..],
                    [Event::Failed | Event::Late]
                        | [Event::Failed | Event::Late, Event::Recovered | Event::Worse]
                        | [Event::Failed, Event::Worse, Event::Recovered]
                );
                prop_assert!(is_right, "{events:?}");
            }
        }
    }
}
