//! The kinds of checks: their names, defaults, and what is to be known about each.
//!
//! The words about a kind (what it asks, why it matters, what to do) stand in one place only, the runbook, which is part of
//! the binary. Names are stable: people select by them, and dashboards know them.

use std::time::Duration;

use super::Outcome;
use super::limits::Limits;

mod host;
mod network;
mod operations;
mod postgres;

pub(crate) use host::{CPU, DISK, DISK_FULL, INODES, LOAD, LOG, MEMORY, SERVICE};
pub(crate) use operations::{ARCHIVE, BACKUP, REPOSITORY, RESTORE_PROOF, SCHEDULE};

const RUNBOOK: &str = include_str!("../../../runbooks/health-check.md");

/// A kind of check.
#[derive(Debug, PartialEq)]
pub(crate) struct Kind {
    /// In kebab case.
    pub(crate) name: &'static str,
    pub(crate) tags: &'static [&'static str],
    /// The smallest profile that has it.
    pub(crate) profile: Profile,
    /// How long it may take.
    pub(crate) timeout: Duration,
    /// What its role, or its user, must be allowed to.
    pub(crate) privilege: &'static str,
    /// Of its value and its limits.
    pub(crate) unit: Unit,
    pub(crate) limits: Limits,
    /// What it is if it cannot be asked: critical where that is what it asks.
    pub(crate) failing: Outcome,
    /// How many runs in a row it must be bad before that is said.
    pub(crate) runs: u32,
    /// How often it is asked again at once before it is called bad.
    pub(crate) retries: u32,
}

impl Kind {
    /// What most have in common.
    const USUAL: Kind = Kind {
        name: "",
        tags: &[],
        profile: Profile::Full,
        timeout: Duration::from_secs(2),
        privilege: "none",
        unit: Unit::Count,
        limits: Limits::NONE,
        failing: Outcome::Unknown,
        runs: 1,
        retries: 0,
    };
}

/// Which checks are asked for: each profile has those of the ones before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Profile {
    /// Is it there at all?
    Smoke,
    /// Can it take work?
    Ready,
    /// Everything that is asked every few minutes.
    Full,
    /// What is worth its cost only when something is wrong.
    Incident,
}

impl Profile {
    /// Returns its name as it is typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Profile::Smoke => "smoke",
            Profile::Ready => "ready",
            Profile::Full => "full",
            Profile::Incident => "incident",
        }
    }
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Count,
    Percent,
    Seconds,
    Days,
    Bytes,
}

impl Unit {
    /// Returns its name as it is written in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Unit::Count => "count",
            Unit::Percent => "percent",
            Unit::Seconds => "seconds",
            Unit::Days => "days",
            Unit::Bytes => "bytes",
        }
    }
}

/// Returns all kinds, in the order in which people think of them.
pub(crate) fn all() -> impl Iterator<Item = &'static Kind> {
    [postgres::KINDS, network::KINDS, host::KINDS, operations::KINDS].into_iter().flatten()
}

/// Returns a kind by its name.
pub(crate) fn find(name: &str) -> Option<&'static Kind> {
    all().find(|kind| kind.name == name)
}

/// Returns what the runbook says of a kind. A link becomes its text, and one to another page what shows that.
pub(crate) fn explain(kind: &Kind) -> Option<String> {
    let mut parts = section(RUNBOOK, kind.name)?.split("](");
    let first = parts.next()?.to_owned();
    let text = parts.fold(first, |text, part| {
        let (target, rest) = part.split_once(')').unwrap_or((part, ""));
        let (before, name) = text.rsplit_once('[').unwrap_or(("", &text));
        match target.split_once(".md") {
            Some((page, part)) => format!("{before}`opsctl runbook show {page}{part}`{rest}"),
            None => format!("{before}{name}{rest}"),
        }
    });
    Some(text)
}

/// Cuts the text below the heading `### NAME` out of a document.
fn section<'t>(document: &'t str, name: &str) -> Option<&'t str> {
    let heading = format!("\n### {name}\n");
    let (_, rest) = document.split_once(&heading)?;
    let ends = ["\n### ", "\n## "].iter().filter_map(|next| rest.find(next));
    Some(rest[..ends.min().unwrap_or(rest.len())].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_explained_and_every_explanation_has_its_kind() {
        for kind in all() {
            let text = explain(kind).unwrap_or_default();
            for part in ["Asks: ", "Why: ", "Do: "] {
                assert!(text.contains(part), "`### {}` in the runbook lacks `{part}`", kind.name);
            }
            assert!(!text.contains("](") && !text.contains("[connections"), "{text}");
            assert!(kind.name.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
            assert_eq!(find(kind.name), Some(kind), "two kinds have the same name");
        }
        let headings = RUNBOOK.lines().filter_map(|line| line.strip_prefix("### "));
        let strange: Vec<_> = headings.filter(|name| find(name).is_none()).collect();
        assert!(strange.is_empty(), "the runbook explains what is no kind: {strange:?}");
    }

    #[test]
    fn a_link_to_another_page_says_how_it_is_shown() {
        let kind = find("connect").unwrap();
        assert!(explain(kind).unwrap().contains("`opsctl runbook show database-down`"));
    }

    #[test]
    fn a_section_ends_where_the_next_begins() {
        let document =
            "# A\n\n## Act\n\n### one\n\nfirst\n\n### two\n\nsecond\n\n## Verify\n\nlast\n";
        assert_eq!(section(document, "one"), Some("first"));
        assert_eq!(section(document, "two"), Some("second"));
        assert_eq!(section(document, "on"), None);
    }
}
