//! The runbooks, as they are in the repository, inside of the program: they are there when the wiki is down.
//! Who is called comes from elsewhere; here it is only put into its place.

use std::collections::{BTreeMap, BTreeSet};

/// A page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// Its file's name, without `.md`.
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
}

macro_rules! pages {
    ($($name:literal)*) => { &[$(Page { name: $name, text: include_str!(concat!("../runbooks/", $name, ".md")) }),*] };
}

/// What stands before the name of a contact, and behind it.
const PLACE: (&str, &str) = ("{{contact:", "}}");

/// All pages; the first one is their index.
pub(crate) const PAGES: &[Page] = pages! {
    "README" "account-takeover" "archive-audit" "audit-request" "backup" "backup-failed" "certificate-expiry" "change-checklist"
    "cleanup-sessions" "connections-exhausted" "daily" "database-down" "db-maintain" "disaster-recovery" "disk-full" "doctor"
    "exit-codes" "health-check" "incident-response" "maintenance-window" "monthly" "notify" "quarterly" "queue-stuck"
    "replication-lag" "restore" "schedule" "silence" "slow-queries" "status" "verify-backup" "weekly" "wraparound"
};

impl Page {
    /// Returns the page with this name, with or without `.md`.
    pub(crate) fn find(name: &str) -> Option<Page> {
        let name = name.strip_suffix(".md").unwrap_or(name);
        PAGES.iter().copied().find(|page| page.name == name)
    }

    /// Returns its title.
    pub(crate) fn title(&self) -> &'static str {
        let first = self.text.lines().next().unwrap_or_default();
        first.trim_start_matches('#').trim()
    }

    /// Returns the part under a heading, as links name it: `restore#verify`, `health-check#xid-age`.
    pub(crate) fn part(&self, anchor: &str) -> Option<&'static str> {
        let level = |line: &str| line.bytes().take_while(|byte| *byte == b'#').count();
        let (mut start, mut depth, mut at, mut fenced) = (None, 0, 0, false);
        for line in self.text.split_inclusive('\n') {
            fenced ^= line.starts_with("```");
            let found = if fenced { 0 } else { level(line) };
            match start {
                None if found > 0 && anchor_of(line) == anchor => {
                    (start, depth) = (Some(at), found);
                }
                Some(start) if found > 0 && found <= depth => return self.text.get(start..at),
                _ => {}
            }
            at += line.len();
        }
        self.text.get(start?..)
    }
}

/// Puts contacts into a text, and returns it with the names of those that are missing; the text says so there, too.
pub(crate) fn fill(text: &str, contacts: &BTreeMap<String, String>) -> (String, BTreeSet<String>) {
    let (mut filled, mut missing, mut rest) = (String::new(), BTreeSet::new(), text);
    while let Some((before, place)) = rest.split_once(PLACE.0) {
        let Some((name, after)) = place.split_once(PLACE.1) else { break };
        filled.push_str(before);
        if let Some(contact) = contacts.get(name) {
            filled.push_str(contact);
        } else {
            filled.push_str(&format!("(contacts.{name} is not in the configuration)"));
            missing.insert(name.to_owned());
        }
        rest = after;
    }
    filled.push_str(rest);
    (filled, missing)
}

/// Returns what a link to a heading ends with.
fn anchor_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let keep = |c: char| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        _ => c.is_alphanumeric().then_some(c),
    };
    text.chars().filter_map(keep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_of_the_folder_is_there() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/runbooks")).unwrap();
        let files: BTreeSet<String> =
            folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let pages: BTreeSet<String> =
            PAGES.iter().map(|page| format!("{}.md", page.name)).collect();
        assert_eq!(pages, files);
        assert!(PAGES.iter().all(|page| page.text.starts_with("# ") && !page.title().is_empty()));
    }

    #[test]
    fn contacts_are_put_in_and_what_is_missing_is_said_there() {
        let contacts = BTreeMap::from([("dba".to_owned(), "Ida, {{contact:dba}}".to_owned())]);
        let text = "a {{contact:dba}} {{contact:who}} {{contact:who}} {{contact:open";
        let (filled, missing) = fill(text, &contacts);
        let none = "(contacts.who is not in the configuration)";
        assert_eq!(filled, format!("a Ida, {{{{contact:dba}}}} {none} {none} {{{{contact:open"));
        assert_eq!(missing, BTreeSet::from(["who".to_owned()]));
    }

    #[test]
    fn the_example_of_a_configuration_has_every_contact_of_the_pages() {
        let example = include_str!("config/example.toml");
        let (_, example) = example.split_once("\n[contacts]\n").unwrap();
        let names = example.lines().filter_map(|line| line.strip_prefix('#')?.split_once(" = "));
        let names: BTreeSet<&str> = names.map(|(name, _)| name).collect();
        let used = PAGES.iter().flat_map(|page| fill(page.text, &BTreeMap::new()).1);
        assert_eq!(names, used.collect::<BTreeSet<_>>().iter().map(String::as_str).collect());
        // No page has a place that is not understood.
        let all = names.iter().map(|name| ((*name).to_owned(), String::new())).collect();
        assert!(PAGES.iter().all(|page| !fill(page.text, &all).0.contains("{{")));
    }

    #[test]
    fn a_part_ends_before_the_next_heading_of_its_level() {
        let page = Page {
            name: "x",
            text: "# T\n\n## Act\n\na\n```sh\n# no heading\n```\n### Sub, one\nb\n## Verify\nc\n",
        };
        assert_eq!(
            page.part("act"),
            Some("## Act\n\na\n```sh\n# no heading\n```\n### Sub, one\nb\n")
        );
        assert_eq!(page.part("sub-one"), Some("### Sub, one\nb\n"));
        assert_eq!(page.part("verify"), Some("## Verify\nc\n"));
        assert_eq!(page.part("no-heading"), None);
    }
}
