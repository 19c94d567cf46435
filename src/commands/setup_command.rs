//! `opsctl setup sql`: the privileges that commands need, on stdout. It connects to nothing: a person reads it first.

use serde_json::json;

use crate::cli::setup::{SetupArgs, SetupCommand, SetupSqlArgs};
use crate::commands::{Context, Report, Silence, open};
use crate::config::{Config, Overrides};
use crate::exit::{Exit, Failure};
use crate::history::Place;
use crate::setup::grants::{self, Purpose, Request};
use crate::text;

pub(super) fn run(context: &Context, args: &SetupArgs) -> anyhow::Result<Report> {
    let SetupCommand::Sql(args) = &args.command;
    let config = context.load(&args.selection, Overrides::default())?.config;
    let (mut names, mut users) = (Vec::new(), Vec::new());
    for database in &config.databases {
        let (target, name) = open::database(context, database)?;
        names.push(name);
        users.push(target.user().to_owned());
    }
    let login = login(args, users)?;
    let history = match open::history(context, &config)? {
        Place::Server(target) => Some(target.database_name().to_owned()),
        Place::Directory(_) => None,
    };
    let purposes = purposes(args, &config);
    let sql = grants::sql(&Request {
        purposes: &purposes,
        login: &login,
        sessions: &config.sessions,
        audits: &config.audits,
        history: history.as_deref(),
    });
    names.extend(history.filter(|history| !names.contains(history)));
    let text = format!(
        "-- The least that opsctl needs, for a superuser to read and to run, in each of: {}\n\
         --   opsctl setup sql | psql -X -v ON_ERROR_STOP=1 --single-transaction --dbname=...\n\
         -- It can be run any number of times, and again when tables were added.\n\n{sql}",
        text::plain(&names.join(", "))
    );
    let json = json!({ "role": login, "databases": names, "sql": sql });
    Ok(Report { exit: Exit::Done, text, json, silence: Silence::Refused })
}

/// Returns as whom opsctl connects: one name, in all databases.
fn login(args: &SetupSqlArgs, mut users: Vec<String>) -> anyhow::Result<String> {
    users.sort();
    users.dedup();
    let login = match (&args.role, users.as_slice()) {
        (Some(role), _) => role.clone(),
        (None, [user]) => user.clone(),
        (None, users) => {
            let message = format!("opsctl connects as several roles: {}", users.join(", "));
            return Err(Failure::new(Exit::Usage, message).hint("--role names one.").into());
        }
    };
    // A suffix comes behind it, and PostgreSQL cuts names off after 63 bytes.
    let is_odd = login.chars().any(char::is_control);
    if login.is_empty() || login.len() > 48 || login.starts_with("pg_") || is_odd {
        let message = format!("`{login}` cannot be the role that opsctl connects as");
        let hint = "It has 1 to 48 bytes, no control characters, and does not begin with pg_.";
        return Err(Failure::new(Exit::Usage, message).hint(hint).into());
    }
    Ok(login)
}

/// Returns what is asked for, or what the configuration uses.
fn purposes(args: &SetupSqlArgs, config: &Config) -> Vec<Purpose> {
    let mut purposes = args.purposes.clone();
    if purposes.is_empty() {
        purposes = vec![Purpose::Backup, Purpose::HealthCheck];
        let scheduled =
            |name: &str| config.schedule.commands.iter().any(|s| s.command.starts_with(name));
        let has_sessions = !config.sessions.rules.is_empty() || !config.sessions.unlocks.is_empty();
        if has_sessions || config.sessions.revoke.is_some() {
            purposes.push(Purpose::CleanupSessions);
        }
        if !config.audits.is_empty() {
            purposes.push(Purpose::ArchiveAudit);
        }
        if scheduled("db-maintain") {
            purposes.push(Purpose::DbMaintain);
        }
        if config.history_url.is_some() {
            purposes.push(Purpose::History);
        }
    }
    purposes.sort_unstable();
    purposes.dedup();
    purposes
}
