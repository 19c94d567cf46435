//! Kinds that ask the machine, its services and its logs. Where the thresholds come from is said in `docs/health-check.md`.

use std::time::Duration;

use super::{Kind, Profile, Unit};
use crate::health::Limits;

/// What these have in common.
const HOST: Kind = Kind { tags: &["host"], ..Kind::USUAL };

pub(crate) const DISK: Kind =
    Kind { name: "disk", unit: Unit::Percent, limits: Limits::above(80.0, 90.0), ..HOST };
pub(crate) const INODES: Kind = Kind { name: "inodes", ..DISK };
pub(crate) const DISK_FULL: Kind =
    Kind { name: "disk-full", unit: Unit::Days, limits: Limits::below(7.0, 1.0), ..HOST };
pub(crate) const MEMORY: Kind =
    Kind { name: "memory", unit: Unit::Percent, limits: Limits::below(15.0, 5.0), ..HOST };
/// A backup keeps processors busy for minutes, and should.
pub(crate) const CPU: Kind =
    Kind { name: "cpu", unit: Unit::Percent, limits: Limits::above(80.0, 95.0), runs: 3, ..HOST };
pub(crate) const LOAD: Kind =
    Kind { name: "load", limits: Limits::above(2.0, 4.0), runs: 3, ..HOST };
pub(crate) const SERVICE: Kind = Kind {
    name: "service",
    tags: &["host", "service"],
    profile: Profile::Ready,
    timeout: Duration::from_secs(3),
    privilege: "for Docker: to use its socket",
    ..HOST
};
pub(crate) const LOG: Kind = Kind {
    name: "log",
    tags: &["host", "log"],
    timeout: Duration::from_secs(5),
    privilege: "to read the file, or the journal (group adm or systemd-journal)",
    limits: Limits::above(10.0, 100.0),
    ..HOST
};

pub(super) const KINDS: &[Kind] = &[DISK, INODES, DISK_FULL, MEMORY, CPU, LOAD, SERVICE, LOG];
