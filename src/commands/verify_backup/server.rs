//! The server that `--server` names for restore tests: never one of those that are backed up, unless that is said.

use crate::cli::{Selection, VerifyBackupArgs};
use crate::commands::{Context, open};
use crate::config::Overrides;
use crate::db::Target;
use crate::exit::{Exit, Failure};
use crate::secret::Secret;

/// Resolves the server, and refuses one that has a configured database.
pub(super) fn resolve(
    context: &Context,
    args: &VerifyBackupArgs,
    url: &str,
) -> anyhow::Result<Target> {
    let target = Target::resolve(Some(&Secret::new(url)), &context.environment)?;
    if args.on_production {
        return Ok(target);
    }
    let connect = |target: &Target| target.connect("opsctl verify-backup", &context.stop);
    let identity = connect(&target.with_database("postgres"))?.identity()?;
    // Also those that this run does not verify.
    let all = Selection { database: Vec::new(), ..args.selection.clone() };
    for database in &context.load(&all, Overrides::default())?.config.databases {
        let (production, name) = open::database(context, database)?;
        let (here, there) = (target.host_label(), production.host_label());
        let is_same = match connect(&production).and_then(|mut c| c.identity()) {
            Ok(other) => identity == other,
            Err(error) => {
                tracing::warn!(
                    "the server of `{name}` cannot be asked whether it is {here}: {:#}",
                    anyhow::Error::from(error)
                );
                here == there
            }
        };
        if is_same {
            let message = format!("{here} is the server of database `{name}`");
            let hint = "A restore test belongs on another one; --on-production allows it.";
            return Err(Failure::new(Exit::Failed, message).hint(hint).into());
        }
    }
    Ok(target)
}
