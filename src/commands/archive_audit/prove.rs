//! `archive-audit prove`: a proof of one row is made, or one that somebody has is checked. What a proof is, knows `archive::proof`.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use super::Archive;
use super::report::Part;
use crate::archive::proof::{self, Found, Proof};
use crate::cli::archive_audit::ArchiveProveArgs;
use crate::commands::{Context, file};
use crate::config::AuditTable;
use crate::exit::{Exit, Failure};

pub(super) fn prove(
    context: &Context,
    database: &str,
    audits: &[&AuditTable],
    args: &ArchiveProveArgs,
) -> anyhow::Result<Part> {
    if let Some(path) = &args.check {
        return check(context, database, audits, path);
    }
    let mut proofs: Vec<Proof> = Vec::new();
    for audit in audits {
        proofs.extend(of_table(context, audit, args)?);
    }
    let key = args.key.join(", ");
    let proof = match proofs.as_slice() {
        [proof] => proof,
        [] => {
            let message = format!("no row with the key {key} is in the archive of {database}");
            let failure = Failure::new(Exit::BadNews, message);
            return Err(failure
                .hint("A key has a value for each of its columns, as PostgreSQL writes them.")
                .into());
        }
        several => {
            let names: Vec<&str> = several.iter().map(|proof| proof.segment.as_str()).collect();
            let message =
                format!("rows with the key {key} are in several segments: {}", names.join(", "));
            return Err(Failure::new(Exit::Usage, message).hint("Name one with --segment.").into());
        }
    };
    let json = serde_json::to_value(proof).context("failed to write the proof")?;
    let mut text = format!("{json:#}\n");
    if let Some(path) = &args.out {
        file::put(path, text.as_bytes(), file::OWN)?;
        let (line, segment) = (proof.index + 1, &proof.segment);
        text = format!("{database}: line {line} of {segment} is proven by {}\n", path.display());
    }
    Ok(Part::answer(database, text, json!({ "proof": json })))
}

fn of_table(
    context: &Context,
    audit: &AuditTable,
    args: &ArchiveProveArgs,
) -> anyhow::Result<Vec<Proof>> {
    let Archive { folder, signers, .. } = Archive::open(context, audit)?;
    let mut proofs = Vec::new();
    for segment in &folder.contents()?.segments {
        context.stop.check()?;
        if args.segment.as_ref().is_some_and(|name| *name != segment.name) {
            continue;
        }
        context.progress.set_message(format!("{} {}", audit.table, segment.name));
        let damaged = |what: String| {
            let message =
                format!("segment {} of {} proves nothing: {what}", segment.name, audit.table);
            Failure::new(Exit::BadNews, message)
                .hint("`opsctl archive-audit verify` says all that is wrong.")
        };
        let manifest = match &segment.manifest {
            Ok(manifest) => manifest,
            Err(why) => return Err(damaged(why.clone()).into()),
        };
        match proof::find(&folder, segment, manifest, &args.key, &context.stop)? {
            Found::Nothing => {}
            Found::Damaged(finding) => return Err(damaged(finding.what).into()),
            Found::Proof(proof) => {
                // What is handed out must be good.
                proof.check(&signers).map_err(|error| damaged(error.to_string()))?;
                proofs.push(*proof);
            }
        }
    }
    Ok(proofs)
}

/// Checks a proof of somebody's, by the keys that the tables of this database are signed with.
fn check(
    context: &Context,
    database: &str,
    audits: &[&AuditTable],
    path: &Path,
) -> anyhow::Result<Part> {
    let read = || -> anyhow::Result<Proof> { Ok(serde_json::from_slice(&std::fs::read(path)?)?) };
    let wrong = |what: String| {
        let message = format!("`{}` proves nothing: {what}", path.display());
        Failure::new(Exit::BadNews, message)
    };
    let proof = read().map_err(|error| wrong(format!("{error:#}")))?;
    let mut why = String::new();
    for audit in audits {
        let Archive { signers, .. } = Archive::open(context, audit)?;
        match proof.check(&signers) {
            Ok(manifest) => {
                let (line, segment, table) = (&proof.line, &proof.segment, &manifest.table);
                let text = format!(
                    "{database}: in {segment} of {table} was archived on {}:\n{line}\n",
                    manifest.taken_at
                );
                let json =
                    json!({ "proven": true, "table": table, "segment": segment, "line": line });
                return Ok(Part::answer(database, text, json));
            }
            Err(error) => why = error.to_string(),
        }
    }
    Err(wrong(why).into())
}
