//! What a request may have: by its host, its method, its path and its token. Pure.

use sha2::{Digest as _, Sha256};

use crate::secret::Secret;

/// Who may ask for what.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// The names by which this may be called; a page of somebody else's that resolves to this address uses another one.
    pub(crate) hosts: Vec<String>,
    /// Who has it sees details.
    pub(crate) token: Option<Secret>,
}

/// What is known of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    /// Each `Host` header there is.
    pub(super) hosts: &'a [&'a str],
    pub(super) authorization: Option<&'a str>,
}

/// What it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Live,
    Ready {
        details: bool,
    },
    Metrics,
    /// A status, and why.
    Refused(u16, &'static str),
}

impl Policy {
    pub(super) fn route(&self, asked: Asked<'_>) -> Route {
        let [host] = asked.hosts else {
            return Route::Refused(400, "one Host header is needed");
        };
        if !self.hosts.iter().any(|known| known.eq_ignore_ascii_case(without_port(host))) {
            return Route::Refused(421, "this host is not served here (--allow-host)");
        }
        if !matches!(asked.method, "GET" | "HEAD") {
            return Route::Refused(405, "only GET and HEAD");
        }
        let is_trusted = self.is_trusted(asked.authorization);
        match asked.path {
            "/health/live" => Route::Live,
            "/health/ready" => Route::Ready { details: is_trusted },
            "/metrics" if self.token.is_some() && !is_trusted => {
                Route::Refused(401, "a token is needed")
            }
            "/metrics" => Route::Metrics,
            _ => Route::Refused(404, "there are /health/live, /health/ready and /metrics"),
        }
    }

    /// Is the token there, and right? Digests are compared, so that the time tells nothing.
    fn is_trusted(&self, authorization: Option<&str>) -> bool {
        let given = authorization.and_then(|text| text.split_once(' '));
        let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        match (&self.token, given) {
            (Some(token), Some((_, given))) => {
                Sha256::digest(token.reveal()) == Sha256::digest(given.trim())
            }
            _ => false,
        }
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_hosts_may_read_and_only_the_trusted_see_details() {
        let hosts = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).to_vec();
        let closed = Policy { hosts: hosts.clone(), token: Some(Secret::new("t0ken")) };
        let open = Policy { hosts, token: None };
        let ask = |policy: &Policy, method, path, host, authorization| {
            policy.route(Asked { method, path, hosts: &[host], authorization })
        };
        let status = |route| match route {
            Route::Refused(status, _) => status,
            _ => 200,
        };
        assert_eq!(ask(&open, "GET", "/health/live", "LocalHost:8008", None), Route::Live);
        assert_eq!(ask(&open, "HEAD", "/metrics", "[::1]:8008", None), Route::Metrics);
        assert_eq!(ask(&open, "GET", "/metrics", "[::1]", None), Route::Metrics);
        let ready = |policy, token| ask(policy, "GET", "/health/ready", "127.0.0.1", token);
        assert_eq!(ready(&open, Some("Bearer x")), Route::Ready { details: false });
        assert_eq!(ready(&closed, Some("Bearer t0ke")), Route::Ready { details: false });
        assert_eq!(ready(&closed, Some("bearer t0ken")), Route::Ready { details: true });
        assert_eq!(status(ask(&closed, "GET", "/metrics", "localhost", None)), 401);
        for (method, path, host, expected) in [
            ("GET", "/health/live", "evil.example:8008", 421),
            ("GET", "/health/live", "localhost.evil.example", 421),
            ("POST", "/health/live", "localhost", 405),
            ("DELETE", "/", "localhost", 405),
            ("GET", "/", "localhost", 404),
            ("GET", "/health/live/", "localhost", 404),
        ] {
            assert_eq!(status(ask(&open, method, path, host, None)), expected, "{method} {path}");
        }
        let asked = Asked { method: "GET", path: "/health/live", hosts: &[], authorization: None };
        assert_eq!(status(open.route(asked)), 400);
        assert_eq!(status(open.route(Asked { hosts: &["localhost", "b"], ..asked })), 400);
    }
}
