//! From the configuration to things that can be used: repositories opened, databases resolved.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use crate::backup::manifest::Layout;
use crate::backup::notes::Address;
use crate::backup::repository::Repository;
use crate::commands::Context;
use crate::config::{self, Location, SecretSource};
use crate::db::Target;
use crate::encryption::Recipients;
use crate::exit::{Exit, Failure};
use crate::history::Place;
use crate::stop::Stop;
use crate::storage::{Shared, local, s3};

/// Opens a repository. Its storage obeys `context.abort`, so that an interrupted run can still clean up.
pub(super) fn repository(
    context: &Context,
    config: &config::Repository,
) -> anyhow::Result<Repository> {
    repository_until(&context.abort, config)
}

/// Opens a repository whose storage obeys a stop of its caller's.
pub(super) fn repository_until(
    stop: &Stop,
    config: &config::Repository,
) -> anyhow::Result<Repository> {
    let open = || -> anyhow::Result<Repository> {
        let recipients = Recipients::parse(&config.recipients)?;
        let (storage, address, lock_days): (Shared, Address, Option<u32>) = match &config.location {
            Location::Directory(path) => {
                let address = Address::Directory(path.display().to_string());
                (Arc::new(local::Local::open(path.clone())), address, None)
            }
            Location::S3(settings) => {
                let url = ["s3:/", &settings.bucket, &settings.prefix].join("/");
                let address = Address::S3 {
                    url: url.trim_end_matches('/').to_owned(),
                    region: settings.region.clone(),
                    endpoint: settings.endpoint.clone(),
                };
                let lock_days = settings.object_lock.map(|lock| lock.days);
                (Arc::new(s3::S3::open(settings, stop)?), address, lock_days)
            }
        };
        let joins = matches!(address, Address::Directory(_)) && recipients.is_none();
        let layout = if joins { Layout::Joined } else { Layout::Objects };
        Ok(Repository {
            name: config.name.clone(),
            storage,
            address,
            layout,
            recipients,
            lock_days,
        })
    };
    open().with_context(|| format!("repository `{}` cannot be used", config.name))
}

/// Opens the storage at a location.
pub(super) fn storage(context: &Context, location: &Location) -> anyhow::Result<Shared> {
    storage_until(&context.abort, location)
}

/// The same, of which every wait ends with `stop`.
pub(super) fn storage_until(stop: &Stop, location: &Location) -> anyhow::Result<Shared> {
    Ok(match location {
        Location::Directory(path) => Arc::new(local::Local::open(path.clone())),
        Location::S3(settings) => Arc::new(s3::S3::open(settings, stop)?),
    })
}

/// Opens all repositories of the configuration.
pub(super) fn repositories(
    context: &Context,
    config: &config::Config,
) -> anyhow::Result<Vec<Repository>> {
    config.repositories.iter().map(|r| repository(context, r)).collect()
}

/// Returns where a database is, and the name it has in repositories.
pub(super) fn database(
    context: &Context,
    config: &config::Database,
) -> anyhow::Result<(Target, String)> {
    let mut target = Target::resolve(config.url.as_ref(), &context.environment)?;
    if let Some(name) = &config.dbname {
        target = target.with_database(name);
    }
    let name = config.label().unwrap_or_else(|| target.database_name()).to_owned();
    if name.is_empty() {
        return Err(Failure::new(Exit::Configuration, "no database is named").into());
    }
    Ok((target, name))
}

/// Returns the name that a database has in repositories.
pub(super) fn database_name(
    context: &Context,
    config: &config::Database,
) -> anyhow::Result<String> {
    database(context, config).map(|(_, name)| name)
}

/// Returns where the history is.
pub(super) fn history(context: &Context, config: &config::Config) -> anyhow::Result<Place> {
    history_at(context, config.history_url.as_ref(), &config.state_dir)
}

/// Returns where the history is: in the database of `url`, else in a file of `state_dir`.
pub(super) fn history_at(
    context: &Context,
    url: Option<&SecretSource>,
    state_dir: &Path,
) -> anyhow::Result<Place> {
    let Some(url) = url else { return Ok(Place::Directory(state_dir.to_owned())) };
    let url = url.read().map_err(config::Error::from)?;
    let target = Target::resolve(Some(&url), &context.environment);
    Ok(Place::Server(Box::new(target.context("`history.url` cannot be used")?)))
}
