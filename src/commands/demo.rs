//! Stub.
use crate::cli::DemoArgs;
use crate::commands::{Context, Report};
pub(super) fn run(_context: &Context, _args: &DemoArgs) -> anyhow::Result<Report> {
    anyhow::bail!("not yet")
}
