//! The options of `opsctl doctor`.

use clap::Args;

use super::Selection;
use crate::doctor::Area;

/// Find out what is wrong with this installation, and what to do about it
///
/// Configuration and secrets, client programs, what each role may do, what each repository lets opsctl do (by a probe that is
/// removed again), state, room, clocks, what cron starts and in which environment, and who would notice. All of it is looked at,
/// whatever fails, for --timeout at most [default: 30s].
#[derive(Args, Debug)]
#[command(after_help = DOCTOR_EXITS)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Leave a part out (repeatable)
    #[arg(long, value_name = "PART", value_enum)]
    pub(crate) skip: Vec<Area>,
}

const DOCTOR_EXITS: &str = "\
Exit statuses: 0 nothing is wrong, though there may be notes; 3 something is; 130, 143 interrupted.";
