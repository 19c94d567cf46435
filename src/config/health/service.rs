//! `[[health.service]]`: a container or a unit that somebody else keeps running.

use std::path::PathBuf;

use super::{CheckSettings, Reader};
use crate::config::value::quote;
use crate::health::kind;

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) settings: CheckSettings,
    pub(crate) keeper: Keeper,
    /// What its keeper calls it.
    pub(crate) called: String,
}

/// Who keeps a service running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// Docker, by the socket that is stated.
    Docker(Option<PathBuf>),
    /// systemd, or the user's own.
    Systemd { user: bool },
}

impl Service {
    pub(super) fn read(keys: &mut Reader<'_>, name: String, line: usize) -> Option<Service> {
        let kind = keys.section.parsed("kind", |text| match text {
            "docker" | "systemd" => Ok(text.to_owned()),
            _ => Err(format!("{} is not docker or systemd", quote(text))),
        });
        if keys.section.line_of("kind").is_none() {
            keys.problem(line, "[[health.service]] needs `kind`: docker or systemd");
        }
        let kind = keys.take("kind", kind, Clone::clone);
        let service = keys.section.parsed("service", |text| {
            let odd = |c: char| !(c.is_ascii_alphanumeric() || "_.-@:\\".contains(c));
            if text.is_empty() || text.contains(odd) || text.starts_with(['-', '.']) {
                return Err(format!("{} is not the name of a container or a unit", quote(text)));
            }
            Ok(text.to_owned())
        });
        let service = keys.take("service", service, Clone::clone);
        let socket = keys.path("socket");
        let user = keys.section.boolean("user");
        let user = keys.take("user", user, ToString::to_string);
        let settings = keys.settings(kind::find("service")?);
        let keeper = match (kind?.as_str(), socket, user) {
            ("docker", socket, None) => Keeper::Docker(socket),
            ("systemd", None, user) => Keeper::Systemd { user: user.unwrap_or(false) },
            _ => {
                let message = "in [[health.service]] `socket` is Docker's, and `user` systemd's";
                keys.problem(line, message);
                return None;
            }
        };
        let called = service.unwrap_or_else(|| name.clone());
        Some(Service { name, settings, keeper, called })
    }
}
