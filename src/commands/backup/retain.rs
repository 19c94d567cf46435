//! `opsctl backup list` and `opsctl backup prune`: what is there, why it is kept, and removing the rest.

use std::fmt::Write as _;

use super::{Outcome, for_each_database, plan_of};
use crate::backup::manifest::Manifest;
use crate::backup::prune::{Applied, Plan, Planned};
use crate::commands::exclusive::Exclusive;
use crate::commands::{Context, Report, Silence, open};
use crate::config::Config;
use crate::exit::Exit;
use crate::failure;
use crate::text::{Table, bytes, count};

/// `backup prune`.
pub(super) fn prune_all(
    context: &Context,
    config: &Config,
    dry_run: bool,
) -> anyhow::Result<Report> {
    let repositories = open::repositories(context, config)?;
    let report = for_each_database(context, config, |_, name, _| {
        let _exclusive = Exclusive::acquire(context, config, ("backup", name), None)?;
        let (mut text, mut json, mut failed) = (String::new(), Vec::new(), None);
        for repository in &repositories {
            let plan = plan_of(context, config, repository, name)?;
            writeln!(text, "{name} in {}:", repository.storage.place())?;
            let removed =
                plan.backups.iter().filter(|p| !p.decision.keeps()).count() + plan.leftovers.len();
            if dry_run {
                text.push_str(&table(&plan).to_string());
                json.push(serde_json::json!({ "repository": repository.name, "backups": plan_json(&plan), "would_remove": removed }));
                continue;
            }
            let applied = plan.apply(repository, &context.run, &context.stop);
            for id in &applied.removed {
                writeln!(text, "  removed {id}")?;
            }
            for id in &applied.swept {
                writeln!(text, "  removed the leftovers of run {id}")?;
            }
            writeln!(
                text,
                "  {} removed, {} freed",
                removed - applied.failures.len(),
                bytes(applied.freed_bytes)
            )?;
            json.push(serde_json::json!({ "repository": repository.name, "pruned": applied_json(&applied) }));
            for error in applied.failures {
                tracing::error!("{}", failure::one_line(&error));
                failed = Some(failure::exit(&error));
            }
        }
        let json =
            serde_json::json!({ "database": name, "dry_run": dry_run, "repositories": json });
        Ok(Outcome { database: name.to_owned(), exit: failed.unwrap_or(Exit::Done), text, json })
    })?;
    Ok(if dry_run { Report { silence: Silence::Refused, ..report } } else { report })
}

/// `backup list`.
pub(super) fn list(context: &Context, config: &Config) -> anyhow::Result<Report> {
    let repositories = open::repositories(context, config)?;
    let report = for_each_database(context, config, |_, name, _| {
        let (mut text, mut json) = (String::new(), Vec::new());
        for repository in &repositories {
            let plan = plan_of(context, config, repository, name)?;
            writeln!(text, "{name} in {}:", repository.storage.place())?;
            text.push_str(&table(&plan).to_string());
            json.push(serde_json::json!({
                "repository": repository.name, "place": repository.storage.place(), "backups": plan_json(&plan),
                "leftovers": plan.leftovers, "in_progress": plan.in_progress,
            }));
        }
        let json = serde_json::json!({ "database": name, "repositories": json });
        Ok(Outcome { database: name.to_owned(), exit: Exit::Done, text, json })
    })?;
    Ok(Report { silence: Silence::Refused, ..report })
}

fn table(plan: &Plan) -> Table {
    let mut table = Table::new(&[
        "BACKUP",
        "BEGUN (UTC)",
        "SIZE",
        "TABLES",
        "ROWS",
        "VERIFIED",
        "KEPT BECAUSE",
    ]);
    for planned in &plan.backups {
        let Planned { decision, manifest, verified, .. } = planned;
        let figure = |f: fn(&Manifest) -> String| manifest.as_deref().map_or("?".to_owned(), f);
        let verdict = match verified {
            Some(v) if v.good => format!("good {}", v.at.format("%Y-%m-%d")),
            Some(v) => format!("DAMAGED {}", v.at.format("%Y-%m-%d")),
            None => "no".to_owned(),
        };
        let reasons: Vec<_> = decision.reasons.iter().map(ToString::to_string).collect();
        table.row([
            decision.backup.id.to_string(),
            figure(|m| m.begun_at.format("%Y-%m-%d %H:%M").to_string()),
            figure(|m| bytes(m.totals.stored_bytes)),
            figure(|m| count(m.totals.tables)),
            figure(|m| count(m.totals.rows)),
            verdict,
            if reasons.is_empty() { "(to be removed)".to_owned() } else { reasons.join(", ") },
        ]);
    }
    let others = plan.leftovers.iter().map(|id| (id, "(left by a crashed run, to be removed)"));
    for (id, what) in others.chain(plan.in_progress.iter().map(|id| (id, "(in progress)"))) {
        let empty = std::iter::repeat_n(String::new(), 5);
        table.row([id.to_string()].into_iter().chain(empty).chain([what.to_owned()]));
    }
    table
}

fn plan_json(plan: &Plan) -> Vec<serde_json::Value> {
    let backup = |planned: &Planned| {
        let Planned { decision, manifest, verified, problem } = planned;
        serde_json::json!({
            "backup": decision.backup.id,
            "begun_at": manifest.as_ref().map(|m| m.begun_at),
            "snapshot_at": manifest.as_ref().map(|m| m.snapshot_at),
            "totals": manifest.as_ref().map(|m| m.totals),
            "encrypted": manifest.as_ref().map(|m| m.is_encrypted()),
            "verified": verified,
            "problem": problem,
            "kept_because": decision.reasons.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    };
    plan.backups.iter().map(backup).collect()
}

pub(super) fn applied_json(applied: &Applied) -> serde_json::Value {
    serde_json::json!({
        "removed": applied.removed, "swept": applied.swept, "freed_bytes": applied.freed_bytes,
        "failures": applied.failures.iter().map(failure::one_line).collect::<Vec<_>>(),
    })
}
