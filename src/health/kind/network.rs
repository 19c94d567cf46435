//! Kinds that ask something over the network.

use std::time::Duration;

use super::{Kind, Profile, Unit};
use crate::health::{Limits, Outcome};

pub(super) const KINDS: &[Kind] = &[Kind {
    name: "http",
    tags: &["network"],
    profile: Profile::Smoke,
    timeout: Duration::from_secs(5),
    unit: Unit::Seconds,
    limits: Limits { critical: None, ..Limits::above(2.0, 0.0) },
    failing: Outcome::Critical,
    retries: 1,
    ..Kind::USUAL
}];
