//! The options of `opsctl setup`.

use clap::{Args, Subcommand};

use super::Selection;
use crate::setup::grants::Purpose;

/// Print the roles and privileges that opsctl needs
#[derive(Args, Debug)]
#[command(after_help = EXITS)]
pub(crate) struct SetupArgs {
    #[command(subcommand)]
    pub(crate) command: SetupCommand,
}

/// What is set up.
#[derive(Debug, Subcommand)]
pub(crate) enum SetupCommand {
    /// Print SQL for a superuser to read and run: a role, and the least that each command needs
    #[command(after_help = EXITS)]
    Sql(SetupSqlArgs),
}

/// For what, and as whom.
#[derive(Args, Debug)]
pub(crate) struct SetupSqlArgs {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// For this command (may be given more than once) [default: those that the configuration uses; restore never]
    #[arg(long = "for", value_name = "COMMAND", value_enum)]
    pub(crate) purposes: Vec<Purpose>,
    /// The role that opsctl connects as [default: that of the configuration]
    #[arg(long, value_name = "NAME")]
    pub(crate) role: Option<String>,
}

const EXITS: &str =
    "Exit statuses: 0 printed; 1 failed; 2 wrong command line; 10 configuration missing or wrong.";
