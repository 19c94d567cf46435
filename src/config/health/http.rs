//! `[[health.http]]`: an address that answers over HTTP.

use super::{CheckSettings, Reader};
use crate::config::value::quote;
use crate::health::kind;
use crate::secret::{Secret, redact};

/// One of them.
#[allow(dead_code, reason = "the checks over the network and of the host use it")]
#[derive(Clone, Debug)]
pub(crate) struct Http {
    pub(crate) name: String,
    pub(crate) settings: CheckSettings,
    /// With its query, which may hold a token.
    pub(crate) url: Secret,
    /// The status that is well.
    pub(crate) expect_status: u32,
}

impl Http {
    pub(super) fn read(keys: &mut Reader<'_>, name: String, line: usize) -> Option<Http> {
        let url = keys.section.parsed("url", |text| {
            let is_http = text.starts_with("http://") || text.starts_with("https://");
            if is_http {
                Ok(Secret::new(text))
            } else {
                Err(format!("{} is not http://… or https://…", quote(text)))
            }
        });
        if keys.section.line_of("url").is_none() {
            keys.problem(line, "[[health.http]] needs `url`");
        }
        let url = keys.take("url", url, |url| redact(url.reveal()));
        let expect_status = keys.number("expect_status", 100..=599).unwrap_or(200);
        let settings = keys.settings(kind::find("http")?);
        Some(Http { name, settings, url: url?, expect_status })
    }
}
