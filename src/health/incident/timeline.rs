//! The file that people go on with: what is known of the time before, and room for what comes. Pure.

use crate::clock::Moment;

/// Something that happened.
pub(crate) struct Event {
    pub(crate) at: Moment,
    pub(crate) what: String,
}

/// Writes the timeline, oldest event first.
pub(crate) fn timeline(run: &str, host: &str, at: Moment, mut events: Vec<Event>) -> String {
    events.push(Event { at, what: format!("evidence taken on {host} (run {run})") });
    events.sort_by_key(|event| event.at);
    let mut text = "# Timeline\n\nAll times in UTC. Go on at the end: what was seen, what was done, who did it.\n\n\
        | time | what | who |\n|---|---|---|\n"
        .to_owned();
    for event in events {
        let what = event.what.replace('|', "/").replace(char::is_control, " ");
        text.push_str(&format!("| {} | {what} | opsctl |\n", event.at.format("%Y-%m-%d %H:%M:%S")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_in_order() {
        let at = |text: &str| text.parse().unwrap();
        let event =
            Event { at: at("2026-11-21T02:00:00Z"), what: "backup failed: a | b".to_owned() };
        let text = timeline("r", "db1", at("2026-11-21T02:15:00Z"), vec![event]);
        let rows: Vec<&str> = text.lines().skip(6).collect();
        assert_eq!(
            rows,
            [
                "| 2026-11-21 02:00:00 | backup failed: a / b | opsctl |",
                "| 2026-11-21 02:15:00 | evidence taken on db1 (run r) | opsctl |",
            ]
        );
    }
}
