//! `opsctl db-maintain`: plans what a database needs, and does of it what nobody notices.

use crate::cli::db_maintain::{DbMaintainArgs, DbMaintainCommand, MaintainWhat};
use crate::commands::{Context, Report, Silence, open};
use crate::config::{Config, Overrides};
use crate::db::{Connection, Target};
use crate::exit::{Exit, Failure};
use crate::maintain::{self, Server};

mod report;

/// The oldest server that tells what has to be known.
const OLDEST: u32 = 14;

pub(super) fn run(context: &Context, args: &DbMaintainArgs) -> anyhow::Result<Report> {
    let config = context.load(&args.selection, Overrides::default())?.config;
    context.set_deadline(context.global.timeout);
    match &args.command {
        Some(DbMaintainCommand::Report(report)) => report::run(context, &config, report),
        Some(DbMaintainCommand::Plan(what)) => maintain(context, &config, what, true),
        None => maintain(context, &config, &args.what, args.dry_run),
    }
}

/// Connects, and makes sure that the server is one that this works with.
fn connect(
    context: &Context,
    config: &Config,
    target: &Target,
) -> anyhow::Result<(Connection, Server)> {
    let lock_timeout = config.maintain.lock_timeout;
    let mut connection = maintain::connect(target, lock_timeout, &context.stop)?;
    let server = maintain::server(&mut connection)?;
    if server.version.major() < OLDEST {
        let version = server.version;
        let message =
            format!("PostgreSQL {version} is too old: maintenance needs {OLDEST} or later");
        return Err(Failure::new(Exit::Failed, message).into());
    }
    if server.is_standby {
        let failure =
            Failure::new(Exit::Failed, "this server is a standby: it follows its primary");
        return Err(failure
            .hint("Run it on the primary; `report` looks at a standby, too.")
            .into());
    }
    Ok((connection, server))
}

fn maintain(
    context: &Context,
    config: &Config,
    _what: &MaintainWhat,
    dry_run: bool,
) -> anyhow::Result<Report> {
    for database in &config.databases {
        let (target, name) = open::database(context, database)?;
        connect(context, config, &target)?;
        tracing::info!("{name}: nothing is planned");
    }
    let silence = if dry_run { Silence::Refused } else { Silence::Allowed };
    let json = serde_json::json!({ "dry_run": dry_run, "databases": [] });
    Ok(Report { exit: Exit::Done, text: String::new(), json, silence })
}
