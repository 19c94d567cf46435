//! Kinds that ask a PostgreSQL server. Where the thresholds come from is said in `docs/health-check.md`.

use std::time::Duration;

use super::{Kind, Profile, Unit};
use crate::health::{Limits, Outcome};

/// What these have in common.
const POSTGRES: Kind = Kind { tags: &["postgres"], privilege: "pg_monitor", ..Kind::USUAL };

pub(super) const KINDS: &[Kind] = &[
    Kind {
        name: "connect",
        profile: Profile::Smoke,
        timeout: Duration::from_secs(5),
        privilege: "CONNECT",
        unit: Unit::Seconds,
        limits: Limits::above(1.0, 5.0),
        failing: Outcome::Critical,
        ..POSTGRES
    },
    Kind {
        name: "connections",
        profile: Profile::Ready,
        unit: Unit::Percent,
        limits: Limits::above(80.0, 90.0),
        ..POSTGRES
    },
    Kind {
        name: "idle-in-transaction",
        unit: Unit::Seconds,
        limits: Limits::above(300.0, 1800.0),
        ..POSTGRES
    },
    Kind {
        name: "longest-query",
        unit: Unit::Seconds,
        limits: Limits::above(300.0, 1800.0),
        ..POSTGRES
    },
    Kind {
        name: "lock-waits",
        profile: Profile::Ready,
        unit: Unit::Seconds,
        limits: Limits::above(60.0, 300.0),
        ..POSTGRES
    },
    Kind { name: "xid-age", limits: Limits::above(5e8, 1.2e9), privilege: "none", ..POSTGRES },
    Kind {
        name: "multixact-age",
        limits: Limits::above(5e8, 1.2e9),
        privilege: "none",
        ..POSTGRES
    },
    Kind { name: "xmin-horizon", limits: Limits::above(1e8, 5e8), ..POSTGRES },
    Kind {
        name: "prepared-transactions",
        unit: Unit::Seconds,
        limits: Limits { critical: None, ..Limits::above(600.0, 0.0) },
        privilege: "none",
        ..POSTGRES
    },
    Kind {
        name: "replication-lag",
        profile: Profile::Ready,
        unit: Unit::Seconds,
        limits: Limits::above(60.0, 600.0),
        ..POSTGRES
    },
    Kind {
        name: "replication-slots",
        unit: Unit::Bytes,
        limits: Limits::above(10e9, 50e9),
        ..POSTGRES
    },
    Kind { name: "archiver", unit: Unit::Seconds, limits: Limits::above(0.0, 900.0), ..POSTGRES },
    Kind {
        name: "checksum-failures",
        limits: Limits { warning: None, ..Limits::above(0.0, 0.0) },
        privilege: "none",
        ..POSTGRES
    },
    Kind {
        name: "sequences",
        unit: Unit::Percent,
        limits: Limits::above(75.0, 90.0),
        privilege: "SELECT on sequences (pg_read_all_data)",
        ..POSTGRES
    },
    Kind {
        name: "invalid-indexes",
        limits: Limits { critical: None, ..Limits::above(0.0, 0.0) },
        ..POSTGRES
    },
    Kind {
        name: "extensions",
        limits: Limits { critical: None, ..Limits::above(0.0, 0.0) },
        privilege: "none",
        ..POSTGRES
    },
    Kind {
        name: "minor-version",
        limits: Limits { critical: None, ..Limits::above(0.0, 0.0) },
        privilege: "none",
        ..POSTGRES
    },
    Kind {
        name: "clock-skew",
        unit: Unit::Seconds,
        limits: Limits::above(2.0, 30.0),
        privilege: "none",
        ..POSTGRES
    },
    Kind {
        name: "server-certificate",
        timeout: Duration::from_secs(5),
        unit: Unit::Days,
        limits: Limits::below(30.0, 7.0),
        privilege: "none",
        ..POSTGRES
    },
];
