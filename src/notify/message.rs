//! What a message says, in each of the forms in which channels take it. `docs/notifications.md` has every field.

use crate::clock::Moment;
use crate::history::incidents::{Incident, Key, Kind};
use crate::text::duration;

/// The version of the JSON document.
const VERSION: u8 = 1;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Event {
    Failed,
    Late,
    /// It has become more urgent since it was told.
    Worse,
    Recovered,
    /// Nothing: somebody tries the channel.
    Test,
}

/// A message, as a webhook gets it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Message {
    pub(crate) version: u8,
    pub(crate) event: Event,
    /// P1 to P4.
    pub(crate) severity: String,
    pub(crate) command: String,
    pub(crate) database: String,
    pub(crate) subject: String,
    pub(crate) what: String,
    pub(crate) since: Moment,
    pub(crate) at: Moment,
    /// The same in the message about its end.
    pub(crate) incident: String,
    pub(crate) run: String,
    pub(crate) host: String,
    pub(crate) runbook: String,
}

impl Message {
    /// Makes the message about an incident that a run found.
    pub(crate) fn new(event: Event, incident: &Incident, run: &str, at: Moment) -> Message {
        let key = &incident.key;
        Message {
            version: VERSION,
            event,
            severity: incident.severity.clone(),
            command: key.command.clone(),
            database: key.database.clone(),
            subject: key.subject.clone(),
            what: incident.what.clone(),
            since: incident.since,
            at,
            incident: incident.id.clone(),
            run: run.to_owned(),
            host: crate::history::host(),
            runbook: runbook(key),
        }
    }

    /// Makes a message by which a channel is tried.
    pub(crate) fn test(run: &str, at: Moment) -> Message {
        Message {
            version: VERSION,
            event: Event::Test,
            severity: "P4".to_owned(),
            command: "notify test".to_owned(),
            database: String::new(),
            subject: String::new(),
            what: "somebody tries whether messages arrive; there is nothing to do".to_owned(),
            since: at,
            at,
            incident: format!("{run}-test"),
            run: run.to_owned(),
            host: crate::history::host(),
            runbook: "runbooks/notify.md".to_owned(),
        }
    }

    /// Returns one line that says the most important.
    pub(crate) fn title(&self) -> String {
        let mut what = self.command.clone();
        if !self.database.is_empty() {
            what.push_str(&format!(" of {}", self.database));
        }
        if !self.subject.is_empty() {
            what.push_str(&format!(", {}", self.subject));
        }
        let is = match self.event {
            Event::Failed if self.subject.is_empty() => "failed",
            Event::Failed => "is not well",
            Event::Late => "is late",
            Event::Worse => "is worse",
            Event::Recovered => "is well again",
            Event::Test => "works",
        };
        one_line(&format!("[opsctl {}] {what} {is} on {}", self.severity, self.host))
    }

    /// Returns the whole of it as people read it.
    pub(crate) fn text(&self) -> String {
        let time = |at: Moment| at.format("%Y-%m-%d %H:%M:%S UTC");
        let mut text = format!("{}\n\n{}\n\n", self.title(), self.what);
        let lasted = duration(self.at.signed_duration_since(self.since));
        match self.event {
            Event::Recovered => text.push_str(&format!(
                "It lasted from {} to {} ({lasted}).\n",
                time(self.since),
                time(self.at)
            )),
            Event::Late => text.push_str(&format!("Late by {lasted}.\n")),
            Event::Worse => {
                text.push_str(&format!("It began {} ({lasted} ago).\n", time(self.since)));
            }
            Event::Failed | Event::Test => {}
        }
        text.push_str(&format!("Seen {} by run {}.\n", time(self.at), self.run));
        if self.event != Event::Recovered {
            text.push_str(&format!("What to do: {}\n", self.runbook));
        }
        text
    }

    /// Returns what Slack's incoming webhooks take.
    pub(crate) fn slack(&self) -> serde_json::Value {
        // The three characters that Slack gives a meaning to.
        let text = self.text().trim_end().replace('&', "&amp;");
        serde_json::json!({ "text": text.replace('<', "&lt;").replace('>', "&gt;") })
    }

    /// Returns what names the message in mails, and what names the one that it answers.
    pub(crate) fn mail_ids(&self, domain: &str) -> (String, Option<String>) {
        let first = format!("<{}@{domain}>", self.incident);
        match self.event {
            Event::Recovered => (format!("<{}.recovered@{domain}>", self.incident), Some(first)),
            Event::Worse => {
                (format!("<{}.{}@{domain}>", self.incident, self.severity), Some(first))
            }
            Event::Failed | Event::Late | Event::Test => (first, None),
        }
    }
}

/// Returns the page that says what to do; of a check the part of it.
fn runbook(key: &Key) -> String {
    let page = match (key.command.split(' ').next().unwrap_or_default(), key.kind) {
        (_, Kind::Late) => "status",
        ("backup", Kind::Failed) => "backup-failed",
        (command, Kind::Failed) => command,
    };
    let kind_of_check = key.subject.split('/').next().filter(|_| page == "health-check");
    match kind_of_check.filter(|kind| !kind.is_empty()) {
        Some(kind) => format!("runbooks/{page}.md#{kind}"),
        None => format!("runbooks/{page}.md"),
    }
}

fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::incidents::Key;

    fn message(event: Event, subject: &str) -> Message {
        let key = Key {
            command: "backup".to_owned(),
            database: "ip2a".to_owned(),
            subject: subject.to_owned(),
            kind: Kind::Failed,
        };
        let at = |text: &str| text.parse().unwrap();
        let incident = Incident {
            id: "20261121T021500Z-4f3a9c-0".to_owned(),
            key,
            severity: "P2".to_owned(),
            what: "no space left for <t> & more".to_owned(),
            since: at("2026-11-21T02:15:00Z"),
            opened_at: at("2026-11-21T02:15:00Z"),
            announced: None,
        };
        let run = "20261121T051500Z-000000";
        let message = Message::new(event, &incident, run, at("2026-11-21T05:15:00Z"));
        Message { host: "db1".to_owned(), ..message }
    }

    #[test]
    fn titles_say_what_where_and_how_urgent() {
        let title = |event, subject| message(event, subject).title();
        assert_eq!(title(Event::Failed, ""), "[opsctl P2] backup of ip2a failed on db1");
        assert_eq!(title(Event::Late, ""), "[opsctl P2] backup of ip2a is late on db1");
        assert_eq!(
            title(Event::Failed, "disk"),
            "[opsctl P2] backup of ip2a, disk is not well on db1"
        );
        assert_eq!(title(Event::Recovered, ""), "[opsctl P2] backup of ip2a is well again on db1");
        let odd = Message { database: "a\r\nBcc: x".to_owned(), ..message(Event::Failed, "") };
        assert!(!odd.title().contains(['\r', '\n']));
    }

    #[test]
    fn each_is_led_to_its_page() {
        let page = |command: &str, subject: &str, kind| {
            let (command, subject) = (command.to_owned(), subject.to_owned());
            runbook(&Key { command, database: String::new(), subject, kind })
        };
        assert_eq!(page("backup", "", Kind::Failed), "runbooks/backup-failed.md");
        assert_eq!(page("backup", "", Kind::Late), "runbooks/status.md");
        let disk = page("health-check", "disk/var", Kind::Failed);
        assert_eq!(disk, "runbooks/health-check.md#disk");
        assert_eq!(page("health-check", "", Kind::Failed), "runbooks/health-check.md");
        let test = page("verify-backup --restore-test", "", Kind::Failed);
        assert_eq!(test, "runbooks/verify-backup.md");
    }

    #[test]
    fn the_forms_of_a_message() {
        let failed = message(Event::Failed, "");
        let text = failed.text();
        assert!(text.contains("\nno space left for <t> & more\n"), "{text}");
        assert!(text.ends_with("What to do: runbooks/backup-failed.md\n"), "{text}");
        let recovered = message(Event::Recovered, "").text();
        assert!(recovered.contains("(3 h 0 min)"), "{recovered}");
        let slack = failed.slack();
        assert!(slack["text"].as_str().unwrap().contains("&lt;t&gt; &amp; more"), "{slack}");
        let json = serde_json::to_string(&failed).unwrap();
        assert_eq!(serde_json::from_str::<Message>(&json).unwrap(), failed);
    }

    #[test]
    fn the_end_answers_the_beginning() {
        let (first, none) = message(Event::Failed, "").mail_ids("example.com");
        let (end, answered) = message(Event::Recovered, "").mail_ids("example.com");
        assert_eq!((none, answered.as_ref()), (None, Some(&first)));
        let (worse, answered) = message(Event::Worse, "").mail_ids("example.com");
        assert_eq!(answered.as_ref(), Some(&first));
        assert!(first != end && first != worse && worse != end);
    }
}
