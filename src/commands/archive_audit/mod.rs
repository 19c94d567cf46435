//! `opsctl archive-audit`: old audit rows become segments, which are listed, verified, asked, and shown or restored. No row is deleted.

use anyhow::Context as _;

use crate::archive::folder::{Contents, Folder};
use crate::archive::manifest::Manifest;
use crate::archive::query_copy;
use crate::archive::run::{self, Request};
use crate::archive::signature::{Signer, Signers};
use crate::archive::verify;
use crate::cli::archive_audit::{ArchiveAuditArgs, ArchiveAuditCommand, ArchiveVerifyArgs};
use crate::commands::exclusive::Exclusive;
use crate::commands::{Context, Report, Silence, open};
use crate::config::{self, AuditTable, Config, Location, Overrides};
use crate::encryption::{Identities, Recipients};
use crate::exit::{Exit, Failure};
use crate::failure;

mod anchor;
mod export;
mod prove;
mod query;
mod report;
mod restore;
mod thaw;

use anchor::AnchorFile;
use report::Part;

pub(super) fn run(context: &Context, args: &ArchiveAuditArgs) -> anyhow::Result<Report> {
    let config = context.load(&args.selection, Overrides::default())?.config;
    context.set_deadline(context.global.timeout);
    check_names(&config, &args.only)?;
    let mut anchor = match &args.command {
        Some(ArchiveAuditCommand::Verify(ArchiveVerifyArgs { anchor: Some(path) })) => {
            Some(AnchorFile::read(path)?)
        }
        _ => None,
    };
    let mut parts: Vec<Part> = Vec::new();
    for database in &config.databases {
        let name = open::database_name(context, database)?;
        let wanted = |audit: &&AuditTable| {
            let named = audit.table.to_string();
            audit.is_in(&name) && (args.only.is_empty() || args.only.contains(&named))
        };
        let audits: Vec<&AuditTable> = config.audits.iter().filter(wanted).collect();
        if audits.is_empty() {
            tracing::info!("{name}: nothing of this database is archived");
            continue;
        }
        let work = || match &args.command {
            None => archive(context, &config, database, &audits, args.dry_run),
            Some(ArchiveAuditCommand::List) => list(context, &name, &audits),
            Some(ArchiveAuditCommand::Verify(_)) => {
                verify_all(context, &name, &audits, anchor.as_mut())
            }
            Some(ArchiveAuditCommand::Query(asked)) => query::query(context, &name, &audits, asked),
            Some(ArchiveAuditCommand::Export(asked)) => {
                export::export(context, &name, &audits, asked)
            }
            Some(ArchiveAuditCommand::Restore(asked)) => {
                restore::restore(context, database, &audits, asked)
            }
            Some(ArchiveAuditCommand::Thaw(asked)) => thaw::thaw(context, &name, &audits, asked),
            Some(ArchiveAuditCommand::Prove(asked)) => prove::prove(context, &name, &audits, asked),
        };
        match context.note(&name, work, |part| (part.exit, part.json())) {
            Ok(part) => parts.push(part),
            // With one database its error is the run's.
            Err(error) if config.databases.len() == 1 => return Err(error),
            Err(error) => {
                let (exit, message) = (failure::exit(&error), failure::one_line(&error));
                tracing::error!("database `{name}`: {message}");
                parts.push(Part::failed(&name, exit, message));
            }
        }
    }
    let exit = report::exit(&parts);
    if let Some(anchor) = anchor
        && exit == Exit::Done
    {
        anchor.write()?;
    }
    let asked = matches!(&args.command, Some(command) if !matches!(command, ArchiveAuditCommand::Verify(_)));
    let asked = asked || args.dry_run;
    let silence = if asked { Silence::Refused } else { Silence::Allowed };
    Ok(report::report(&parts, args.dry_run, exit, silence))
}

/// Is there anything to archive, and does `--only` name it?
fn check_names(config: &Config, only: &[String]) -> anyhow::Result<()> {
    let tables: Vec<String> = config.audits.iter().map(|audit| audit.table.to_string()).collect();
    if tables.is_empty() {
        let failure = Failure::new(Exit::Configuration, "nothing says what is to be archived");
        return Err(failure.hint("Write [[audit]]: `opsctl config example` shows it.").into());
    }
    match only.iter().find(|name| !tables.contains(name)) {
        None => Ok(()),
        Some(name) => {
            let failure = Failure::new(Exit::Usage, format!("[[audit]] has no table `{name}`"));
            Err(failure.hint(format!("There are: {}.", tables.join(", "))).into())
        }
    }
}

/// Returns the table, where only one can be meant.
fn only<'a>(database: &str, audits: &[&'a AuditTable]) -> anyhow::Result<&'a AuditTable> {
    let [audit] = audits else {
        let message = format!("several tables of {database} are archived");
        return Err(Failure::new(Exit::Usage, message).hint("Name one with --only.").into());
    };
    Ok(audit)
}

/// Returns the segments with these names, and their manifests.
fn named<'c>(
    contents: &'c Contents,
    audit: &AuditTable,
    names: &[String],
) -> anyhow::Result<Vec<(&'c str, &'c Manifest)>> {
    let find = |name: &String| {
        let segment = contents.segments.iter().find(|segment| segment.name == *name);
        let segment = segment.and_then(|s| Some((s.name.as_str(), s.manifest.as_ref().ok()?)));
        segment.ok_or_else(|| {
            let message = format!("there is no segment {name} of {}", audit.table);
            let failure = Failure::new(Exit::Usage, message);
            failure.hint("`opsctl archive-audit list` has their names.").into()
        })
    };
    names.iter().map(find).collect()
}

/// What is needed to look at the archive of a table.
fn open_archive(
    context: &Context,
    audit: &AuditTable,
) -> anyhow::Result<(Folder, Signer, Signers)> {
    let signer = Signer::read(&audit.signing_key);
    let signers = signer.and_then(|signer| {
        let signers = signer.signers(audit.allowed_signers.as_deref())?;
        Ok((signer, signers))
    });
    let (signer, signers) = signers.map_err(|error| {
        let message = failure::one_line(&error);
        anyhow::Error::from(Failure::new(Exit::Configuration, message))
    })?;
    let storage = open::storage(context, &audit.location)
        .with_context(|| format!("the archive of {} cannot be used", audit.table))?;
    let folder = Folder::new(storage, &audit.table.to_string());
    let recipients = Recipients::parse(&audit.recipients)?;
    let identities = audit.identity_file.as_deref().map(Identities::read).transpose()?;
    Ok((folder.encrypted(recipients, identities), signer, signers))
}

fn archive(
    context: &Context,
    config: &Config,
    database: &config::Database,
    audits: &[&AuditTable],
    dry_run: bool,
) -> anyhow::Result<Part> {
    let (target, name) = open::database(context, database)?;
    let _exclusive = if dry_run {
        None
    } else {
        let server = Some((&target, "archive-audit"));
        Some(Exclusive::acquire(context, config, ("archive-audit", &name), server)?)
    };
    let mut part = Part::new(&name);
    for audit in audits {
        context.progress.set_message(format!("{name} {}", audit.table));
        let (folder, signer, signers) = open_archive(context, audit)?;
        let lock_days = match &audit.location {
            Location::S3(s3) => s3.object_lock.map(|lock| lock.days),
            Location::Directory(_) => None,
        };
        let request = Request {
            target: &target,
            audit,
            folder: &folder,
            signer: &signer,
            signers: &signers,
            now: context.now,
            recipients: &audit.recipients,
            lock_days,
            dry_run,
            stop: &context.stop,
        };
        let outcome = run::run(&request);
        let outcome = outcome.with_context(|| format!("failed to archive {}", audit.table))?;
        part.archived(&audit.table.to_string(), &outcome, dry_run);
    }
    Ok(part)
}

fn list(context: &Context, name: &str, audits: &[&AuditTable]) -> anyhow::Result<Part> {
    let mut part = Part::new(name);
    for audit in audits {
        let (folder, _, _) = open_archive(context, audit)?;
        part.listed(&audit.table.to_string(), &folder.contents()?);
    }
    Ok(part)
}

fn verify_all(
    context: &Context,
    name: &str,
    audits: &[&AuditTable],
    mut anchor: Option<&mut AnchorFile>,
) -> anyhow::Result<Part> {
    let mut part = Part::new(name);
    for audit in audits {
        let (folder, _, signers) = open_archive(context, audit)?;
        let contents: Contents = folder.contents()?;
        let mut findings = verify::manifests(&contents, &signers);
        let table = audit.table.to_string();
        for segment in &contents.segments {
            context.stop.check()?;
            context.progress.set_message(format!("{table} {}", segment.name));
            if let Ok(manifest) = &segment.manifest {
                findings.extend(verify::rows(&folder, &segment.name, manifest, &context.stop)?);
            }
        }
        findings.extend(query_copy::verify(&folder, &contents, &signers, &context.stop)?);
        if let Some(anchor) = &mut anchor {
            let key = format!("{name}/{table}");
            findings.extend(anchor.anchor.compare(&key, &contents));
            anchor.anchor.see(&key, &contents);
        }
        part.verified(&table, &contents, &findings);
    }
    Ok(part)
}
