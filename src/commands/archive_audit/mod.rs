//! `opsctl archive-audit`: old audit rows become segments, which are listed, verified, asked, and shown or restored, and whose rows may
//! be deleted from the table.

use anyhow::Context as _;

use crate::archive::compare::compare;
use crate::archive::deletion;
use crate::archive::folder::{Contents, Folder};
use crate::archive::manifest::Manifest;
use crate::archive::query_copy;
use crate::archive::run::{self, Outcome, Request};
use crate::archive::signature::{Signer, Signers};
use crate::archive::source::Source;
use crate::archive::verify::{self, Kind};
use crate::archive::window::Window;
use crate::cli::archive_audit::{ArchiveAuditArgs, ArchiveAuditCommand, ArchiveVerifyArgs};
use crate::commands::exclusive::Exclusive;
use crate::commands::{Context, Report, Silence, open};
use crate::config::{self, AuditTable, Config, Location, Overrides};
use crate::db::Target;
use crate::encryption::{Identities, Recipients};
use crate::exit::{Exit, Failure};
use crate::failure;

mod anchor;
mod delete;
mod export;
mod hold;
mod prove;
mod query;
mod report;
mod restore;
mod thaw;

use anchor::Kept;
use delete::Work;
use report::Part;

pub(super) fn run(context: &Context, args: &ArchiveAuditArgs) -> anyhow::Result<Report> {
    let config = context.load(&args.selection, Overrides::default())?.config;
    context.set_deadline(context.global.timeout);
    check_names(&config, &args.only)?;
    check_usage(context, &config, args)?;
    let mut anchor = match &args.command {
        Some(ArchiveAuditCommand::Verify(ArchiveVerifyArgs { anchor: Some(path), .. })) => {
            Some(Kept::read(context, &config.audits, path)?)
        }
        _ => None,
    };
    let mut parts: Vec<Part> = Vec::new();
    for database in &config.databases {
        let name = open::database_name(context, database)?;
        let audits = selected(&config, &name, &args.only);
        if audits.is_empty() {
            tracing::info!("{name}: nothing of this database is archived");
            continue;
        }
        // Where a command is about one archive, there is just one: that was checked.
        let first = || audits.first().copied().context("no table is selected");
        let dry_run = args.dry_run;
        let work = || match &args.command {
            None => archive(context, &config, database, &audits, dry_run),
            Some(ArchiveAuditCommand::List) => list(context, &name, &audits),
            Some(ArchiveAuditCommand::Verify(asked)) => {
                let with_table = asked.with_table.then_some(database);
                verify_all(context, &name, &audits, anchor.as_mut(), with_table)
            }
            Some(ArchiveAuditCommand::Query(asked)) => query::query(context, &name, &audits, asked),
            Some(ArchiveAuditCommand::Export(asked)) => {
                export::export(context, &name, first()?, asked)
            }
            Some(ArchiveAuditCommand::Restore(asked)) => {
                restore::restore(context, database, first()?, (asked, dry_run))
            }
            Some(ArchiveAuditCommand::Thaw(asked)) => {
                thaw::thaw(context, &name, first()?, (asked, dry_run))
            }
            Some(ArchiveAuditCommand::Prove(asked)) => prove::prove(context, &name, &audits, asked),
            Some(ArchiveAuditCommand::Delete(asked)) => {
                delete::by_hand(context, &config, database, first()?, (asked, dry_run))
            }
            Some(ArchiveAuditCommand::Hold(command)) => {
                hold::hold(context, &name, &audits, command)
            }
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
    let asked = matches!(&args.command, Some(command) if !matches!(command, ArchiveAuditCommand::Verify(_) | ArchiveAuditCommand::Delete(_)));
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

/// Returns what is archived of a database and is selected.
fn selected<'c>(config: &'c Config, database: &str, only: &[String]) -> Vec<&'c AuditTable> {
    let wanted = |audit: &&AuditTable| {
        audit.is_in(database) && (only.is_empty() || only.contains(&audit.table.to_string()))
    };
    config.audits.iter().filter(wanted).collect()
}

/// Can the command be rehearsed, if that is asked, and does it have the archives that it works with?
fn check_usage(context: &Context, config: &Config, args: &ArchiveAuditArgs) -> anyhow::Result<()> {
    use ArchiveAuditCommand::{Delete, Export, Hold, List, Prove, Query, Restore, Thaw, Verify};
    let (acts, works_with_one) = match &args.command {
        None => (true, false),
        Some(Delete(_) | Restore(_) | Thaw(_)) => (true, true),
        Some(Export(_)) => (false, true),
        Some(List | Verify(_) | Query(_) | Prove(_) | Hold(_)) => (false, false),
    };
    if args.dry_run && !acts {
        let failure = Failure::new(Exit::Usage, format!("{} knows no --dry-run", args.name()));
        let hint = "It is for archive-audit without a command, delete, restore and thaw.";
        return Err(failure.hint(hint).into());
    }
    if !works_with_one {
        return Ok(());
    }
    // A segment's name must mean one thing.
    let mut n = 0;
    for database in &config.databases {
        n += selected(config, &open::database_name(context, database)?, &args.only).len();
    }
    if n == 1 {
        return Ok(());
    }
    let message = format!("{} works with one archive, not with {n}", args.name());
    let hint = "Name the table with --only, and the database with --database.";
    Err(Failure::new(Exit::Usage, message).hint(hint).into())
}

/// The archive of a table, and what is needed to look at it.
struct Archive {
    folder: Folder,
    signers: Signers,
}

impl Archive {
    fn open(context: &Context, audit: &AuditTable) -> anyhow::Result<Archive> {
        let signers = Signers::read(&audit.signing_key, audit.allowed_signers.as_deref());
        let signers = signers.map_err(|error| misconfigured(&error))?;
        let storage = open::storage(context, &audit.location)
            .with_context(|| format!("the archive of {} cannot be used", audit.table))?;
        let folder = Folder::new(storage, &audit.table.to_string());
        let recipients = Recipients::parse(&audit.recipients)?;
        let identities = audit.identity_file.as_deref().map(Identities::read).transpose()?;
        let folder = folder.encrypted(recipients, identities);
        Ok(Archive { folder, signers })
    }
}

/// Reads the key that signs.
fn signer(audit: &AuditTable) -> anyhow::Result<Signer> {
    Signer::read(&audit.signing_key).map_err(|error| misconfigured(&error))
}

fn misconfigured(error: &anyhow::Error) -> anyhow::Error {
    Failure::new(Exit::Configuration, failure::one_line(error)).into()
}

fn archive(
    context: &Context,
    config: &Config,
    database: &config::Database,
    audits: &[&AuditTable],
    dry_run: bool,
) -> anyhow::Result<Part> {
    let (target, name) = open::database(context, database)?;
    let mut exclusive = if dry_run {
        None
    } else {
        let server = Some((&target, "archive-audit"));
        Some(Exclusive::acquire(context, config, ("archive-audit", &name), server)?)
    };
    let mut part = Part::new(&name);
    let mut to_delete = Vec::new();
    for audit in audits {
        context.progress.set_message(format!("{name} {}", audit.table));
        let archive = Archive::open(context, audit)?;
        let outcome = archive_table(context, &target, audit, &archive, (None, dry_run))?;
        part.archived(&audit.table.to_string(), &outcome, dry_run);
        if audit.delete && outcome.findings.is_empty() {
            to_delete.push((*audit, archive));
        }
    }
    // Rows go when everything is archived that is to be archived.
    for (audit, archive) in &to_delete {
        let work = Work { context, config, target: &target, audit, archive, dry_run };
        work.delete(None, &mut exclusive, &mut part)?;
    }
    Ok(part)
}

/// Archives what is to be archived of a table: all, or only what came late for some windows.
fn archive_table(
    context: &Context,
    target: &Target,
    audit: &AuditTable,
    archive: &Archive,
    (only_late, dry_run): (Option<&[Window]>, bool),
) -> anyhow::Result<Outcome> {
    let lock_days = match &audit.location {
        Location::S3(s3) => s3.object_lock.map(|lock| lock.days),
        Location::Directory(_) => None,
    };
    let request = Request {
        target,
        audit,
        folder: &archive.folder,
        signer: &signer(audit)?,
        signers: &archive.signers,
        now: context.now,
        recipients: &audit.recipients,
        lock_days,
        dry_run,
        only_late,
        stop: &context.stop,
    };
    let mut taken_back = Vec::new();
    if !dry_run {
        let taken = deletion::take_back(target, audit, &context.stop);
        taken_back =
            taken.with_context(|| format!("failed to take back what is out of {}", audit.table))?;
    }
    let outcome = run::run(&request);
    let outcome = outcome.with_context(|| format!("failed to archive {}", audit.table))?;
    Ok(Outcome { taken_back, ..outcome })
}

fn list(context: &Context, name: &str, audits: &[&AuditTable]) -> anyhow::Result<Part> {
    let mut part = Part::new(name);
    for audit in audits {
        let Archive { folder, .. } = Archive::open(context, audit)?;
        part.listed(&audit.table.to_string(), &folder.contents()?);
    }
    Ok(part)
}

fn verify_all(
    context: &Context,
    name: &str,
    audits: &[&AuditTable],
    mut anchor: Option<&mut Kept>,
    with_table: Option<&config::Database>,
) -> anyhow::Result<Part> {
    let mut part = Part::new(name);
    for audit in audits {
        let Archive { folder, signers, .. } = Archive::open(context, audit)?;
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
        let mut compared = None;
        if let Some(database) = with_table
            && findings.iter().all(|finding| finding.kind == Kind::Sealed)
        {
            let (target, _) = open::database(context, database)?;
            let mut source = Source::open(&target, audit, &context.stop)?;
            let found = compare(&mut source, &folder, &contents, &context.stop)?;
            findings.extend(found.findings.iter().cloned());
            compared = Some(found);
        }
        part.verified(&table, &contents, &findings, compared.as_ref());
    }
    Ok(part)
}
