//! What a restore would make, and what is there now.

use std::fmt::Write as _;
use std::io::{BufRead as _, IsTerminal as _, Write as _};

use super::Chosen;
use crate::backup::evidence;
use crate::backup::restore::database::{self, Present};
use crate::backup::restore::room;
use crate::cli::RestoreArgs;
use crate::commands::{Context, Report, Silence};
use crate::db::Target;
use crate::exit::{Exit, Failure};
use crate::secret::Secret;
use crate::text::{bytes, counted};

/// What will be made, and what is there now.
pub(super) struct Plan {
    /// The server, by a database that is always there.
    pub(super) admin: Target,
    pub(super) name: String,
    pub(super) present: Option<Present>,
    pub(super) replace: bool,
    /// Is its name to be typed again before it is replaced?
    pub(super) must_ask: bool,
    /// Does it go into the tables that are there?
    pub(super) rows_only: bool,
}

pub(super) fn make(
    context: &Context,
    args: &RestoreArgs,
    configured: &Target,
) -> anyhow::Result<Plan> {
    let to = &args.to;
    let must_ask = to.replace.as_deref() == Some("");
    let (server, name) = match (&to.create, &to.replace, &to.to) {
        (_, Some(_), _) if must_ask => (configured.clone(), configured.database_name().to_owned()),
        (Some(name), _, _) | (_, Some(name), _) => (configured.clone(), name.clone()),
        (_, _, Some(url)) => {
            let target = Target::resolve(Some(&Secret::new(url)), &context.environment)?;
            (target.clone(), target.database_name().to_owned())
        }
        // The command line asks for one of them.
        _ => (configured.clone(), String::new()),
    };
    let admin = server.with_database("postgres");
    let present = database::present(&admin, &name, &context.stop)?;
    let replace = to.replace.is_some();
    let refuse =
        |message: String, hint: &str| Err(Failure::new(Exit::Failed, message).hint(hint).into());
    if ["postgres", "template0", "template1"].contains(&name.as_str()) || name.is_empty() {
        return refuse(
            format!("`{name}` belongs to the server"),
            "Restore into a database with a name of its own.",
        );
    }
    match (&present, replace) {
        (None, true) => refuse(
            format!("there is no database `{name}` to replace at {}", admin.host_label()),
            "Check the name, or use --create.",
        ),
        (None, false) if args.data_only => refuse(
            format!(
                "there is no database `{name}` at {} whose tables rows could go into",
                admin.host_label()
            ),
            "Check the name, or restore without --data-only.",
        ),
        (Some(_), false)
            if !args.data_only
                && !database::is_empty(&admin.with_database(&name), &context.stop)? =>
        {
            refuse(
                format!("database `{name}` is there, and not empty"),
                "Restore under another name, or take its place with --replace.",
            )
        }
        _ => Ok(Plan { admin, name, present, replace, must_ask, rows_only: args.data_only }),
    }
}

/// Says what a restore would do; `database` is the name of what was backed up.
pub(super) fn describe(
    context: &Context,
    backup: Chosen<'_>,
    database: &str,
    plan: &Plan,
) -> anyhow::Result<Report> {
    let manifest = backup.source.manifest;
    let totals = manifest.totals;
    let age = context.now.signed_duration_since(manifest.snapshot_at);
    let mut text = format!(
        "Would restore backup {} of `{}` from {}:\n  the state of {}, {} ago\n  {}, {}, {}; {} to read, {} of rows to load\n  by a pg_restore of PostgreSQL {} or later\n",
        manifest.id,
        manifest.database,
        backup.source.repository.storage.place(),
        manifest.snapshot_at.format("%Y-%m-%d %H:%M:%S UTC"),
        crate::text::duration(age),
        counted(totals.tables, "table"),
        counted(totals.rows, "row"),
        counted(totals.large_objects, "large object"),
        bytes(totals.stored_bytes),
        bytes(totals.raw_bytes),
        manifest.server.major,
    );
    let measured = evidence::last_restore(backup.source.repository, database, &context.stop)?;
    #[expect(clippy::cast_precision_loss, reason = "it is an estimate")]
    let estimate = measured
        .filter(|restore| restore.rows > 0)
        .map(|restore| restore.seconds * totals.rows as f64 / restore.rows as f64);
    match estimate {
        Some(seconds) => writeln!(text, "  in about {seconds:.0} s, by the last restore test")?,
        None => text.push_str("  no restore test has measured how long it takes\n"),
    }
    let (needed, free) =
        (room(totals.raw_bytes), database::free_bytes(&plan.admin, &context.stop)?);
    let free_text = free
        .map_or("how much is free is not to be seen from here".to_owned(), |free| {
            format!("{} free", bytes(free))
        });
    writeln!(text, "  takes up to about {} of the server's disk, {free_text}", bytes(needed))?;
    text.push_str(&what_becomes(plan));
    let json = serde_json::json!({
        "dry_run": true, "backup": manifest.id, "snapshot_at": manifest.snapshot_at, "age_seconds": age.num_seconds(),
        "totals": totals, "server": plan.admin.host_label(), "name": plan.name, "replace": plan.replace,
        "data_only": plan.rows_only, "present": plan.present, "estimated_seconds": estimate, "needed_bytes": needed,
        "free_bytes": free,
    });
    Ok(Report { exit: Exit::Done, text, json, silence: Silence::Refused })
}

/// Says what becomes of the database, and of one that is there.
fn what_becomes(plan: &Plan) -> String {
    let (name, place) = (&plan.name, plan.admin.host_label());
    let Some(present) = plan.present.as_ref().filter(|_| plan.replace || plan.rows_only) else {
        return format!("It would become the new database `{name}` at {place}.\n");
    };
    let size = bytes(present.bytes);
    if plan.rows_only {
        return format!(
            "The rows would go into the empty tables of `{name}` at {place} ({size}).\n"
        );
    }
    let n = present.sessions.len() as u64;
    let mut text = format!(
        "It would take the place of `{name}` at {place} ({size}), which would be kept under another name.\n{} would be ended{}\n",
        counted(n, "session"),
        if n > 0 { ":" } else { "." }
    );
    for session in &present.sessions {
        text.push_str(&format!("  {session}\n"));
    }
    text
}

/// Has the name of the database typed that is going to be replaced.
pub(super) fn ask(plan: &Plan, description: &str) -> anyhow::Result<()> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::new(Exit::Usage, "the name of the database to replace is missing")
            .hint(format!("Without a terminal nobody can be asked: --replace {}", plan.name))
            .into());
    }
    let mut stderr = std::io::stderr();
    write!(stderr, "{description}Type the name of the database to replace it: ")?;
    stderr.flush()?;
    let mut typed = String::new();
    stdin.lock().read_line(&mut typed)?;
    if typed.trim() == plan.name {
        return Ok(());
    }
    let message =
        format!("`{}` is not the name of the database: nothing was changed", typed.trim());
    Err(Failure::new(Exit::Failed, message).into())
}
