//! Checks that go over the network: what is asked, and what the answers mean.
//!
//! Each file has one kind: the inquiry that asks, and the judgement of what came back, which is pure. The asking itself is in
//! `network/` and `http.rs`. URLs and headers that come from files are read when they are needed, so that a file that is
//! missing makes one check unknown and not all of them.

use super::{Inquiry, Outcome, Reading};
use crate::clock::Moment;
use crate::config::Health;
use crate::environment::Environment;
use crate::{http as client, network};

mod dns;
mod http;
mod queue;
mod redis;
mod tcp;
pub(crate) mod tls;

/// Returns an inquiry for everything that is configured.
pub(crate) fn inquiries(health: &Health, environment: &Environment, now: Moment) -> Vec<Inquiry> {
    let mut inquiries = Vec::new();
    inquiries.extend(health.http.iter().filter_map(|http| http::inquiry(http, environment)));
    inquiries.extend(health.tls.iter().filter_map(|tls| tls::inquiry(tls, now)));
    inquiries.extend(health.dns.iter().filter_map(dns::inquiry));
    inquiries.extend(health.tcp.iter().filter_map(tcp::inquiry));
    inquiries.extend(health.redis.iter().filter_map(|redis| redis::inquiry(redis, environment)));
    inquiries
        .extend(health.queue.iter().filter_map(|queue| queue::inquiry(queue, environment, now)));
    inquiries
}

/// Says what it means that there is no answer.
///
/// Who is not there is down. Who keeps silent, refuses us or says what we do not understand may be well.
pub(super) fn no_answer(error: &network::Error) -> Reading {
    let outcome = match error {
        network::Error::Http(error) => return no_http(error),
        network::Error::Lookup { .. }
        | network::Error::Unreachable { .. }
        | network::Error::Tls { .. }
        | network::Error::NoTls { .. } => Outcome::Critical,
        network::Error::Settings(_)
        | network::Error::Timeout { .. }
        | network::Error::Refused { .. }
        | network::Error::Answer { .. } => Outcome::Unknown,
    };
    Reading::new(outcome, error.to_string())
}

/// Says the same of HTTP.
fn no_http(error: &client::Error) -> Reading {
    let outcome = match error {
        client::Error::Unreachable { .. }
        | client::Error::Tls { .. }
        | client::Error::Broken { .. } => Outcome::Critical,
        client::Error::Url(_)
        | client::Error::Header(_)
        | client::Error::Setup(_)
        | client::Error::Timeout { .. }
        | client::Error::Stopped(_) => Outcome::Unknown,
    };
    Reading::new(outcome, error.to_string())
}
