//! `opsctl cleanup-sessions revoke` and `lock`: who must not be logged in any longer.
//!
//! They take no lock of their own: an incident does not wait for a cleaning that is at work.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use crate::cli::cleanup_sessions::{LockArgs, RevokeArgs, Since};
use crate::commands::{Context, Report, Silence, open};
use crate::config::{Config, Revoke};
use crate::db::Target;
use crate::exit::{Exit, Failure};
use crate::failure;
use crate::sessions::plan::{cutoff, server_time};
use crate::sessions::revoke::{self, Cohort};
use crate::text::{count, counted};

/// Returns the database that it is about, and what can be revoked in it.
fn of<'c>(context: &Context, config: &'c Config) -> anyhow::Result<(Target, String, &'c Revoke)> {
    let Some(revoke) = &config.sessions.revoke else {
        let failure = Failure::new(Exit::Configuration, "nothing says what can be revoked");
        return Err(failure.hint("Add [sessions.revoke]: `opsctl config example` has one.").into());
    };
    let mut of = Vec::new();
    for database in &config.databases {
        let (target, name) = open::database(context, database)?;
        if revoke.database.as_ref().is_none_or(|named| *named == name) {
            of.push((target, name));
        }
    }
    match <[_; 1]>::try_from(of) {
        Ok([(target, name)]) => Ok((target, name, revoke)),
        Err(of) => {
            let message = format!("it works with one database, not with {}", of.len());
            let failure = Failure::new(Exit::Usage, message);
            Err(failure.hint("Name it with --database, or `database` in [sessions.revoke].").into())
        }
    }
}

pub(super) fn revoke(
    context: &Context,
    config: &Config,
    args: &RevokeArgs,
    dry_run: bool,
) -> anyhow::Result<Report> {
    let (target, name, settings) = of(context, config)?;
    let work = || {
        let mut connection = super::connect(context, &target)?;
        let trail = super::trail(context, &config.sessions, &mut connection)?;
        let now = server_time(&mut connection)?;
        let since = match args.since {
            None => None,
            Some(Since::Moment(moment)) => Some(moment.to_rfc3339()),
            Some(Since::Ago(time)) => Some(cutoff(now, time).to_rfc3339()),
        };
        let cohort = Cohort { users: args.user.clone(), since, network: args.ip.clone() };
        let plan = revoke::plan(&mut connection, settings, cohort, args.force_password_reset)?;
        let plan = plan.map_err(|reason| Failure::new(Exit::Configuration, reason))?;
        let text = described(&name, &plan);
        if dry_run {
            let table = |table: &revoke::Table| {
                serde_json::json!({
                    "table": table.name(), "sessions": table.sessions, "unreadable": table.unreadable,
                })
            };
            let tables: Vec<_> = plan.tables.iter().map(table).collect();
            let json = serde_json::json!({
                "dry_run": true, "database": name, "sessions": plan.sessions, "password_resets": plan.resets, "tables": tables,
            });
            return Ok(Report { exit: Exit::Done, text, json, silence: Silence::Refused });
        }
        confirm(args.yes, plan.sessions, "sessions", &text)?;
        let outcome = plan.apply(&mut connection, trail.as_ref(), &context.stop);
        let mut json = serde_json::json!({
            "dry_run": false, "database": name, "revoked": outcome.revoked, "password_resets": outcome.password_resets,
            "unreadable": plan.tables.iter().map(|table| table.unreadable).sum::<u64>(), "audited": trail.is_some(),
        });
        let mut text = format!("{name}: {} revoked", counted(outcome.revoked, "session"));
        if args.force_password_reset {
            let accounts = counted(outcome.password_resets, "account");
            text.push_str(&format!(", {accounts} must choose a new password"));
        }
        let mut text = told(text, trail.is_some());
        let Some(error) = outcome.failure.map(anyhow::Error::from) else {
            return Ok(Report { exit: Exit::Done, text, json, silence: Silence::Refused });
        };
        // What was done is worth a report.
        let message = failure::one_line(&error);
        let stopped = context.stop.reason().map(failure::exit_of_stop);
        let exit = stopped.unwrap_or_else(|| failure::exit(&error));
        tracing::error!("{name}: not all is revoked: {message}");
        text.push_str(&format!("  NOT ALL: {message}\n"));
        json["error"] = message.into();
        Ok(Report { exit, text, json, silence: Silence::Refused })
    };
    context.note(&name, work, |report| (report.exit, report.json.clone()))
}

pub(super) fn lock(
    context: &Context,
    config: &Config,
    args: &LockArgs,
    dry_run: bool,
) -> anyhow::Result<Report> {
    let (target, name, settings) = of(context, config)?;
    let work = || {
        let mut connection = super::connect(context, &target)?;
        let trail = super::trail(context, &config.sessions, &mut connection)?;
        let n = args.user.len() as u64;
        let text =
            format!("{name}: {} of {} would be locked\n", counted(n, "account"), settings.users);
        if dry_run {
            let json = serde_json::json!({ "dry_run": true, "database": name, "accounts": n });
            return Ok(Report { exit: Exit::Done, text, json, silence: Silence::Refused });
        }
        confirm(args.yes, n, "accounts", &text)?;
        let now = server_time(&mut connection)?;
        let until = now + args.time;
        let locked = revoke::lock(
            &mut connection,
            settings,
            (&args.user, &until.to_rfc3339()),
            trail.as_ref(),
            &context.stop,
        )?;
        let locked = locked.map_err(|reason| Failure::new(Exit::Configuration, reason))?;
        let missing: Vec<_> = args.user.iter().filter(|id| !locked.contains(id)).cloned().collect();
        let mut text = format!("{name}: {} locked", counted(locked.len() as u64, "account"));
        let mut exit = Exit::Done;
        if !missing.is_empty() {
            exit = Exit::Failed;
            tracing::error!("{name}: there is no account {}", missing.join(", "));
            text.push_str(&format!("; there is no account {}", missing.join(", ")));
        }
        let text = told(text, trail.is_some());
        let json = serde_json::json!({
            "dry_run": false, "database": name, "locked": locked, "missing": missing, "audited": trail.is_some(),
        });
        Ok(Report { exit, text, json, silence: Silence::Refused })
    };
    context.note(&name, work, |report| (report.exit, report.json.clone()))
}

/// Says what a plan would do, and of which rows it cannot be said.
fn described(name: &str, plan: &revoke::Plan) -> String {
    let mut text = format!("{name}: {} would be revoked\n", counted(plan.sessions, "session"));
    for table in &plan.tables {
        text.push_str(&format!("  {}: {}\n", table.name(), count(table.sessions)));
    }
    for table in plan.tables.iter().filter(|table| table.unreadable > 0) {
        let (rows, table) = (counted(table.unreadable, "row"), table.name());
        let message = format!("{rows} of {table} without an address that can be read: not meant");
        tracing::warn!("{name}: {message}");
        text.push_str(&format!("  {message}\n"));
    }
    if let Some(resets) = plan.resets {
        let accounts = counted(resets, "account");
        text.push_str(&format!("  {accounts} would have to choose a new password\n"));
    }
    text
}

/// Says whether the audit table knows of it.
fn told(text: String, is_told: bool) -> String {
    let told =
        if is_told { "; the audit table has each" } else { "; no audit table is configured" };
    text + told + "\n"
}

/// Has the number typed, or compares it with what `--yes` expects.
fn confirm(
    expected: Option<u64>,
    number: u64,
    what: &str,
    description: &str,
) -> anyhow::Result<()> {
    let refuse = |typed: &str| {
        let message = format!("it is about {number} {what}, not {typed}: nothing was changed");
        Err(Failure::new(Exit::Failed, message).into())
    };
    if let Some(expected) = expected {
        return if expected == number { Ok(()) } else { refuse(&expected.to_string()) };
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::new(Exit::Usage, "nobody confirms it")
            .hint(format!(
                "Without a terminal nobody can be asked: --yes {number}, if that is right."
            ))
            .into());
    }
    let mut stderr = std::io::stderr();
    write!(stderr, "{description}Type the number of {what} to go on: ")?;
    stderr.flush()?;
    let mut typed = String::new();
    stdin.lock().read_line(&mut typed)?;
    if typed.trim() == number.to_string() { Ok(()) } else { refuse(&format!("`{}`", typed.trim())) }
}
