//! `opsctl db-maintain report`: only looks.

use crate::cli::db_maintain::MaintainReportArgs;
use crate::commands::{Context, Report};
use crate::config::Config;
use crate::exit::{Exit, Failure};

pub(super) fn run(
    _context: &Context,
    _config: &Config,
    _args: &MaintainReportArgs,
) -> anyhow::Result<Report> {
    Err(Failure::new(Exit::Failed, "this version has no report yet").into())
}
