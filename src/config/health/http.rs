//! `[[health.http]]`: an address that answers over HTTP.

use super::{CheckSettings, Given, Reader};
use crate::config::value::quote;
use crate::health::kind;
use crate::json_path::Condition;
use crate::secret::{Secret, redact};

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    pub(crate) name: String,
    pub(crate) settings: CheckSettings,
    pub(crate) url: Given,
    /// Is only the head of the answer asked for?
    pub(crate) head: bool,
    /// Lines `Name: value`.
    pub(crate) headers: Option<Given>,
    /// The status that is well.
    pub(crate) expect_status: u32,
    pub(crate) expect_json: Vec<Condition>,
    pub(crate) expect_body: Option<String>,
    /// How often it is asked in a run; at least once.
    pub(crate) tries: u32,
}

impl Http {
    pub(super) fn read(keys: &mut Reader<'_>, name: String, line: usize) -> Option<Http> {
        let url = Given::find(keys, "url", shown_url, |text| {
            let is_http = text.starts_with("http://") || text.starts_with("https://");
            if is_http {
                Ok(Secret::new(text))
            } else {
                Err(format!("{} is not http://… or https://…", quote(text)))
            }
        });
        Given::require(keys, "url", line, "http");
        let method = keys.section.parsed("method", |text| match text {
            "GET" => Ok(false),
            "HEAD" => Ok(true),
            _ => Err(format!("{} is not GET or HEAD", quote(text))),
        });
        let shown = |head: &bool| if *head { "HEAD" } else { "GET" }.to_owned();
        let head = keys.take("method", method, shown).unwrap_or(false);
        let headers = Given::find(keys, "headers", shown_headers, |text| Ok(Secret::new(text)));
        let expect_status = keys.number("expect_status", 100..=599).unwrap_or(200);
        let conditions = keys.section.strings("expect_json", |text| {
            text.parse::<Condition>().map(|condition| condition.to_string())
        });
        let conditions = keys.take("expect_json", conditions, |list| list.join(", "));
        let expect_json =
            conditions.iter().flatten().filter_map(|text| text.parse().ok()).collect();
        let expect_body = keys.text("expect_body");
        let tries = keys.number("tries", 1..=100).unwrap_or(3);
        let settings = keys.settings(kind::find("http")?);
        let url = url?;
        Some(Http {
            name,
            settings,
            url,
            head,
            headers,
            expect_status,
            expect_json,
            expect_body,
            tries,
        })
    }
}

/// Shows a URL without its password and its query, which may hold a token.
fn shown_url(text: &str) -> String {
    let (before, query) = text.split_once('?').unwrap_or((text, ""));
    redact(before) + if query.is_empty() { "" } else { "?***" }
}

/// Shows the names of headers.
fn shown_headers(text: &str) -> String {
    let names = text.lines().filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| format!("{}: ***", name.trim())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_no_password_no_query_and_no_header() {
        assert_eq!(shown_url("https://u:geheim@h/a?b=geheim"), "https://u:***@h/a?***");
        assert_eq!(shown_url("https://h/a"), "https://h/a");
        assert_eq!(shown_headers("A: geheim\nB:geheim:x\n"), "A: ***, B: ***");
    }
}
