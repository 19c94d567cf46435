//! Kinds that ask something over the network.

use std::time::Duration;

use super::{Kind, Profile, Unit};
use crate::health::Limits;

/// What these have in common. Each says itself that nobody is there; who keeps silent is unknown.
const NETWORK: Kind =
    Kind { tags: &["network"], timeout: Duration::from_secs(5), retries: 1, ..Kind::USUAL };

pub(super) const KINDS: &[Kind] = &[
    Kind {
        name: "http",
        profile: Profile::Smoke,
        unit: Unit::Seconds,
        limits: Limits { critical: None, ..Limits::above(2.0, 0.0) },
        ..NETWORK
    },
    Kind { name: "tls", unit: Unit::Days, limits: Limits::below(30.0, 7.0), ..NETWORK },
    Kind {
        name: "dns",
        profile: Profile::Ready,
        unit: Unit::Seconds,
        limits: Limits { critical: None, ..Limits::above(1.0, 0.0) },
        ..NETWORK
    },
    Kind {
        name: "tcp",
        profile: Profile::Smoke,
        unit: Unit::Seconds,
        limits: Limits { critical: None, ..Limits::above(1.0, 0.0) },
        ..NETWORK
    },
    Kind {
        name: "redis",
        tags: &["redis", "network"],
        profile: Profile::Smoke,
        privilege: "PING and INFO",
        unit: Unit::Percent,
        limits: Limits::above(80.0, 90.0),
        ..NETWORK
    },
    Kind {
        name: "queue",
        tags: &["queue", "network"],
        profile: Profile::Ready,
        privilege: "reading the queue's keys; in RabbitMQ the tag monitoring",
        limits: Limits::above(100.0, 1000.0),
        ..NETWORK
    },
];
