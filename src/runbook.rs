//! The runbooks, as they are in the repository, inside of the program: they are there when the wiki is down.

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

/// All pages; the first one is their index.
pub(crate) const PAGES: &[Page] = pages! {
    "README" "archive-audit" "backup" "backup-failed" "cleanup-sessions" "db-maintain" "doctor" "exit-codes" "health-check" "notify"
    "restore" "schedule" "silence" "status" "verify-backup"
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
    use std::collections::BTreeSet;

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
