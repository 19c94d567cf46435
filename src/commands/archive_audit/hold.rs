//! Legal holds: said for each table that is selected.

use serde_json::json;

use super::report::Part;
use super::{Archive, signer};
use crate::archive::hold::{Action, Holds, Said};
use crate::cli::archive_audit::ArchiveHoldCommand;
use crate::commands::Context;
use crate::config::AuditTable;
use crate::exit::{Exit, Failure};

pub(super) fn hold(
    context: &Context,
    database: &str,
    audits: &[&AuditTable],
    command: &ArchiveHoldCommand,
) -> anyhow::Result<Part> {
    let mut part = Part::new(database);
    for audit in audits {
        let archive = Archive::open(context, audit)?;
        let mut holds = Holds::read(&archive.folder, &archive.signers)?;
        if let Some(said) = said(context, command)? {
            let table = audit.table.to_string();
            holds.add(&archive.folder, &signer(audit)?, &table, said)?;
        }
        let lines = holds.records.iter().map(|record| {
            let Said { action, hold, from, to, why, who, at } = &record.said;
            let verb = match action {
                Action::Add => "added",
                Action::Remove => "removed",
            };
            let day = |moment: &chrono::DateTime<chrono::Utc>| moment.date_naive().to_string();
            let from = from.as_ref().map(day).map_or(String::new(), |day| format!(" from {day}"));
            let to = to.as_ref().map(day).map_or(String::new(), |day| format!(" to {day}"));
            let at = at.format("%Y-%m-%d %H:%M:%S UTC");
            format!("  {at}  {hold} {verb}{from}{to} by {who}: {why}\n")
        });
        let in_force: Vec<&str> = holds.in_force().iter().map(|said| said.hold.as_str()).collect();
        let what = match in_force.as_slice() {
            [] => "no hold is in force".to_owned(),
            names => format!("in force: {}", names.join(", ")),
        };
        let json = json!({
            "table": audit.table.to_string(), "in_force": holds.in_force(), "records": holds.records,
        });
        part.held(&audit.table.to_string(), &what, &lines.collect::<String>(), json);
    }
    Ok(part)
}

/// Returns what is to be said, if anything.
fn said(context: &Context, command: &ArchiveHoldCommand) -> anyhow::Result<Option<Said>> {
    let (action, hold, why, from, to) = match command {
        ArchiveHoldCommand::List => return Ok(None),
        ArchiveHoldCommand::Add(args) => (Action::Add, &args.hold, &args.why, args.from, args.to),
        ArchiveHoldCommand::Remove(args) => (Action::Remove, &args.hold, &args.why, None, None),
    };
    if let (Some(from), Some(to)) = (from, to)
        && from >= to
    {
        return Err(Failure::new(Exit::Usage, "--from is not before --to").into());
    }
    let why = why.replace(char::is_control, " ");
    Ok(Some(Said {
        action,
        hold: hold.clone(),
        from,
        to,
        why,
        who: context.who(),
        at: context.now,
    }))
}
