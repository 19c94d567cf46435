//! Kinds that ask what opsctl itself looks after: backups, their proof, repositories, archives and schedules.

use std::time::Duration;

use super::{Kind, Unit};
use crate::health::{Limits, Outcome};

const HOUR: f64 = 3600.0;
/// What those have in common that ask a repository.
const OF_REPOSITORY: Kind = Kind {
    tags: &["backup"],
    timeout: Duration::from_secs(8),
    privilege: "to read the repository",
    ..Kind::USUAL
};

pub(crate) const REPOSITORY: Kind = Kind {
    name: "repository",
    unit: Unit::Seconds,
    limits: Limits { critical: None, ..Limits::above(2.0, 0.0) },
    failing: Outcome::Critical,
    ..OF_REPOSITORY
};
pub(crate) const BACKUP: Kind = Kind {
    name: "backup",
    unit: Unit::Seconds,
    limits: Limits::above(26.0 * HOUR, 50.0 * HOUR),
    ..OF_REPOSITORY
};
pub(crate) const RESTORE_PROOF: Kind = Kind {
    name: "restore-proof",
    unit: Unit::Days,
    limits: Limits::above(8.0, 15.0),
    ..OF_REPOSITORY
};
pub(crate) const ARCHIVE: Kind = Kind {
    name: "archive",
    tags: &["audit"],
    unit: Unit::Days,
    limits: Limits::above(2.0, 14.0),
    timeout: Duration::from_secs(8),
    privilege: "to read the archive",
    ..Kind::USUAL
};
pub(crate) const SCHEDULE: Kind =
    Kind { name: "schedule", tags: &["backup"], unit: Unit::Seconds, ..Kind::USUAL };

pub(super) const KINDS: &[Kind] = &[REPOSITORY, BACKUP, RESTORE_PROOF, ARCHIVE, SCHEDULE];
