//! The restore test: a backup counts when it was restored, and what came out is what was dumped.
//!
//! The backup is restored as `opsctl restore` does it, into a throwaway server of the dump's own major or into a server
//! that is given, and the result looked at as `opsctl backup` looks at a database: rows and large objects by count and
//! digest, objects by kind and definition, all compared with what the manifest noted in the dump's own snapshot. What
//! the backup cannot do is a finding; what a machine cannot do is an error.

use std::collections::BTreeSet;

use anyhow::Context as _;
use postgres::SimpleQueryMessage;

use super::{Findings, Request};
use crate::backup::chunk;
use crate::backup::manifest::{Detail, Manifest};
use crate::backup::objects;
use crate::backup::restore::database::{Like, Unfinished};
use crate::backup::restore::{self, Contents, roles};
use crate::backup::take;
use crate::child::{self, Spec};
use crate::config::{Compression, Expected, Query};
use crate::db::programs::ClientPrograms;
use crate::db::throwaway::ThrowawayServer;
use crate::db::{self, Connection, Target, programs};
use crate::exit::{Exit, Failure};

/// Where a backup is restored to be tested.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Server<'a> {
    /// Into a server that is made for it.
    Throwaway,
    /// Into one that is there, for such things.
    Given(&'a Target),
}

/// What a restore test proved.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct RestoreTest {
    /// The version of the server it was restored into.
    pub(crate) server: String,
    /// How long the restore took: the time to recover, on this machine.
    pub(crate) seconds: f64,
    /// How old the data was when the test ended: what a recovery would have lost.
    pub(crate) data_age_seconds: i64,
    /// What was compared, and equal unless there are findings.
    pub(crate) tables: u64,
    pub(crate) rows: u64,
    pub(crate) large_objects: u64,
    /// Objects of all kinds; 0 if the backup is too old to say.
    pub(crate) objects: u64,
    /// How many of the user's own questions were asked.
    pub(crate) queries: u64,
    /// Did `pg_amcheck` look at the indexes and tables?
    pub(crate) amcheck: bool,
}

/// Restores and compares; `None` if it could not be restored, which is a finding.
pub(super) fn test(
    request: &Request<'_>,
    server: Server<'_>,
    manifest: &Manifest,
    detail: &Detail,
    findings: &Findings,
) -> anyhow::Result<Option<RestoreTest>> {
    let source = chunk::Source {
        repository: request.repository,
        folder: request.folder,
        manifest,
        identities: request.identities,
    };
    let contents = restore::contents(source)?;
    let major = manifest.server.major;
    let throwaway;
    let admin = match server {
        Server::Throwaway => {
            check_room(request, manifest)?;
            tracing::info!("restoring backup {} into a throwaway server", manifest.id);
            let Request { bin_dir, environment, stop, .. } = *request;
            let bin_dir = programs::find_server(major, bin_dir, environment, stop)?;
            throwaway = ThrowawayServer::start(&bin_dir, request.stop)?;
            throwaway.target("postgres")?
        }
        Server::Given(target) => {
            tracing::info!("restoring backup {} at {}", manifest.id, target.host_label());
            target.with_database("postgres")
        }
    };
    let mut connection = admin.connect("opsctl verify-backup", request.stop)?;
    let version = connection.server_version()?;
    if version.major() < major {
        let message = format!("the backup is of PostgreSQL {major}, and the server is {version}");
        return Err(Failure::new(Exit::Failed, message)
            .hint("A restore goes to the same major version, or a later one.")
            .into());
    }
    // Those that look at what was restored: better missed now than then.
    let Request { bin_dir, environment, stop, .. } = *request;
    let programs = ClientPrograms::find(version.major(), bin_dir, environment, stop)?;
    let kinds = Comparable::new(&contents, request.sample.is_some(), version.major() == major);
    let expected = kinds.expected(request, manifest, detail)?;

    let began = std::time::Instant::now();
    // Removed after the database, in which objects are theirs.
    let roles = Roles::make(source, connection)?;
    let like = Like { no_owner: true, any_locale: true, ..Like::default() };
    let unfinished = Unfinished::create(&admin, request.run, &contents, like, request.stop)?;
    let target = unfinished.target();
    let restored = restore::restore(&restore::Request {
        source,
        detail: &expected,
        contents: &contents,
        chosen: &kinds.entries,
        sample: request.sample.as_ref(),
        target: &target,
        options: vec!["--no-tablespaces".to_owned()],
        bin_dir: request.bin_dir,
        environment: request.environment,
        jobs: request.jobs,
        progress: request.progress,
        stop: request.stop,
    });
    let restored = match restored {
        Ok(restored) => restored,
        Err(error) if is_the_backups_fault(&error, server) => {
            findings.add(None, None, format!("it cannot be restored: {error:#}"));
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let seconds = began.elapsed().as_secs_f64();

    tracing::info!("comparing what was restored with what was dumped");
    compare(request, manifest, &target, (&kinds, &expected, &contents), findings)?;
    // A part of the rows has no answer to questions about all of them.
    let queries = match request.sample {
        Some(_) => 0,
        None => ask(request, manifest, &target, findings)?,
    };
    let amcheck = check_indexes(request, &programs, &target, findings)?;
    drop(unfinished);
    drop(roles);
    let age = crate::clock::now().signed_duration_since(manifest.snapshot_at);
    Ok(Some(RestoreTest {
        server: version.to_string(),
        seconds,
        data_age_seconds: age.num_seconds(),
        tables: restored.tables,
        rows: restored.rows,
        large_objects: restored.large_objects,
        objects: expected.objects.values().map(|objects| objects.count).sum(),
        queries,
        amcheck,
    }))
}

/// Looks at the restored database as a backup would, and reports what is not as it was dumped.
fn compare(
    request: &Request<'_>,
    manifest: &Manifest,
    target: &Target,
    (kinds, expected, contents): (&Comparable, &Detail, &Contents),
    findings: &Findings,
) -> anyhow::Result<()> {
    let looked = take::look(&take::Request {
        run: &manifest.id,
        begun_at: manifest.begun_at,
        database: &manifest.database,
        target,
        bin_dir: request.bin_dir,
        environment: request.environment,
        scope: manifest.scope.clone(),
        compression: Compression::None,
        jobs: request.jobs,
        shrink_accepted: false,
        repositories: &[],
        progress: request.progress,
        stop: request.stop,
    });
    let (found, toc) = looked.context("failed to look at the restored database")?;
    let found = kinds.found(expected, found);
    let name = |kind: &str| objects::differences(&contents.toc, &toc, kind).unwrap_or_default();
    for difference in restore::compare(expected, &found, name) {
        findings.add(None, None, format!("after a restore, {difference}"));
    }
    Ok(())
}

/// What of a backup is restored for a test, and which kinds of objects can be compared then.
struct Comparable {
    /// By number in the table of contents.
    entries: BTreeSet<i32>,
    /// The kinds of those that are left out.
    left_out: BTreeSet<String>,
    part: bool,
    same_major: bool,
}

impl Comparable {
    fn new(contents: &Contents, part: bool, same_major: bool) -> Comparable {
        let whole = contents.whole();
        let entries =
            if part { contents.without_relations_between_rows(&whole) } else { whole.clone() };
        let left_out = contents
            .entries
            .iter()
            .filter(|entry| whole.contains(&entry.dump_id) && !entries.contains(&entry.dump_id));
        let left_out = left_out.map(|entry| entry.kind.clone()).collect();
        Comparable { entries, left_out, part, same_major }
    }

    /// Another major writes other definitions of the same objects, but never other values of sequences.
    fn has(&self, kind: &str) -> bool {
        !self.left_out.contains(kind) && (self.same_major || kind == "SEQUENCE SET")
    }

    /// Returns what the restored database must hold.
    fn expected(
        &self,
        request: &Request<'_>,
        manifest: &Manifest,
        detail: &Detail,
    ) -> anyhow::Result<Detail> {
        let mut expected = match &request.sample {
            None => detail.clone(),
            Some(sample) => sample.part_of(manifest, detail).ok_or_else(|| {
                let message = format!("backup {} does not say what is in its chunks", manifest.id);
                Failure::new(Exit::Failed, message)
                    .hint("It is from an older opsctl: test it without --sample.")
            })?,
        };
        expected.objects.retain(|kind, _| self.has(kind));
        Ok(expected)
    }

    /// Leaves of what was found what can be compared.
    fn found(&self, expected: &Detail, mut found: Detail) -> Detail {
        found.objects.retain(|kind, _| self.has(kind));
        if self.part {
            // The others are there, and empty.
            let wanted: BTreeSet<u32> = expected.large_objects.values().map(|o| o.oid).collect();
            found.large_objects.retain(|_, object| wanted.contains(&object.oid));
        }
        found
    }
}

/// The roles that a test needed and the server did not have; dropped with this.
struct Roles {
    made: Vec<String>,
    connection: Connection,
}

impl Roles {
    fn make(source: chunk::Source<'_>, mut connection: Connection) -> anyhow::Result<Roles> {
        let made = roles::create_missing(source, &mut connection)?;
        Ok(Roles { made, connection })
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        for role in &self.made {
            let sql = format!("DROP ROLE {}", db::quote_identifier(role));
            if let Err(error) = self.connection.client().batch_execute(&sql) {
                let error = anyhow::Error::from(db::Error::query("drop a role", error));
                tracing::warn!("role `{role}` of the test is left: {error:#}");
            }
        }
    }
}

/// Makes sure that the restored database will fit where temporary files go.
fn check_room(request: &Request<'_>, manifest: &Manifest) -> anyhow::Result<()> {
    let place = std::env::temp_dir();
    let figures = rustix::fs::statvfs(&place).map_err(std::io::Error::from)?;
    let free = figures.f_bavail.saturating_mul(figures.f_frsize);
    let pieces = request.sample.as_ref().map_or(1, |sample| sample.pieces);
    let rows = manifest.totals.raw_bytes / pieces;
    let needed = restore::room(rows);
    if free >= needed {
        return Ok(());
    }
    let message = format!(
        "a restore test needs about {} MiB in `{}`, which has {} MiB free",
        needed >> 20,
        place.display(),
        free >> 20
    );
    let hint = "Set TMPDIR to a larger place, or test a part each time (--sample).";
    Err(Failure::new(Exit::Failed, message).hint(hint).into())
}

/// What a throwaway server says, in English by its locale, when this machine lacks something. A backup that is called
/// damaged for that would not count for retention any more.
const THIS_MACHINES_FAULT: [&str; 9] = [
    "No space left on device",
    "Disk quota exceeded",
    "out of memory",
    "out of shared memory",
    "Input/output error",
    "is not available",
    "could not open extension control file",
    "could not access file",
    "deadlock detected",
];

/// Is it the backup that made a restore fail, and not a machine or the way to the repository?
///
/// What a given server refuses may be for its extensions, settings or privileges, and it says so in any language.
fn is_the_backups_fault(error: &anyhow::Error, server: Server<'_>) -> bool {
    let said = format!("{error:#}");
    let lacks = THIS_MACHINES_FAULT.iter().any(|text| said.contains(text));
    let may_refuse = matches!(server, Server::Given(_)) || lacks;
    error.chain().any(|cause| {
        let refused = matches!(cause.downcast_ref(), Some(child::Error::Failed { .. }))
            || matches!(cause.downcast_ref(), Some(db::Error::Query { .. }));
        (refused && !may_refuse)
            || matches!(cause.downcast_ref(), Some(chunk::Error::Damaged { .. }))
            || cause.downcast_ref::<Failure>().is_some_and(|f| f.exit == Exit::BadNews)
    })
}

/// Asks the user's own questions; returns how many.
fn ask(
    request: &Request<'_>,
    manifest: &Manifest,
    target: &Target,
    findings: &Findings,
) -> anyhow::Result<u64> {
    let mut connection = target.connect("opsctl verify-backup", request.stop)?;
    let client = connection.client();
    let is_for = |query: &&Query| query.database.as_ref().is_none_or(|d| *d == manifest.database);
    let mut asked = 0;
    for query in request.queries.iter().filter(is_for) {
        let begun = client.batch_execute("BEGIN READ ONLY");
        begun.map_err(|e| db::Error::query("begin a transaction", e))?;
        let complaint = match client.simple_query(&query.sql) {
            Ok(messages) => {
                let rows = messages.iter().filter_map(|message| match message {
                    SimpleQueryMessage::Row(row) => Some(row),
                    _ => None,
                });
                let rows: Vec<_> = rows.collect();
                match rows.as_slice() {
                    [row] if row.len() == 1 => judge(&query.expected, row.get(0)),
                    _ => Some("does not return one row of one value".to_owned()),
                }
            }
            Err(error) => match db::Error::query("ask", error) {
                lost @ db::Error::Lost { .. } => return Err(lost.into()),
                error => Some(format!("fails: {:#}", anyhow::Error::from(error))),
            },
        };
        if let Some(complaint) = complaint {
            let what = format!("after a restore, query `{}` {complaint}", query.name);
            findings.add(None, None, what);
        }
        let ended = client.batch_execute("ROLLBACK");
        ended.map_err(|e| db::Error::query("end a transaction", e))?;
        asked += 1;
    }
    Ok(asked)
}

/// Says what is wrong with an answer.
fn judge(expected: &Expected, answer: Option<&str>) -> Option<String> {
    let shown = answer.map_or("NULL".to_owned(), |answer| format!("`{answer}`"));
    match expected {
        Expected::Equals(value) if answer == Some(value) => None,
        Expected::Equals(value) => Some(format!("gives {shown} where `{value}` is expected")),
        Expected::Between { at_least, at_most } => {
            let number = answer.and_then(|answer| answer.trim().parse::<f64>().ok());
            let inside = |number: f64| {
                at_least.is_none_or(|least| number >= least)
                    && at_most.is_none_or(|most| number <= most)
            };
            let limits = [
                at_least.map(|n| format!("at least {n}")),
                at_most.map(|n| format!("at most {n}")),
            ];
            let limits = limits.into_iter().flatten().collect::<Vec<_>>().join(" and ");
            (!number.is_some_and(inside))
                .then(|| format!("gives {shown} where {limits} is expected"))
        }
    }
}

/// Has `pg_amcheck` look at heap and indexes, where it is installed; returns whether it did.
fn check_indexes(
    request: &Request<'_>,
    programs: &ClientPrograms,
    target: &Target,
    findings: &Findings,
) -> anyhow::Result<bool> {
    let program = programs.pg_amcheck();
    let mut connection = target.connect("opsctl verify-backup", request.stop)?;
    let available = "SELECT FROM pg_catalog.pg_available_extensions WHERE name = 'amcheck' \
                     AND (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)";
    let available = connection.client().query_opt(available, &[]);
    let available = available.map_err(|e| db::Error::query("look for amcheck", e))?.is_some();
    if !available || !program.exists() {
        tracing::info!("pg_amcheck is not installed, or not allowed: indexes are not checked");
        return Ok(false);
    }
    let environment = target.child_environment()?;
    let arguments = [
        "--install-missing".to_owned(),
        "--no-password".to_owned(),
        format!("--jobs={}", request.jobs.max(1)),
        target.database_name().to_owned(),
    ];
    let spec = Spec::new(program).args(arguments).envs(environment.variables.clone());
    match spec.output(request.stop, 1 << 20) {
        Ok(_) => {}
        Err(error @ child::Error::Failed { .. }) => {
            findings.add(None, None, format!("after a restore, pg_amcheck objects: {error}"));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_lacks_is_not_the_backups_fault() {
        let failed = |stderr: &str| {
            let (program, ending) = ("pg_restore".to_owned(), "ended with status 1".to_owned());
            anyhow::Error::from(child::Error::Failed { program, ending, stderr: stderr.to_owned() })
        };
        let refused = failed("ERROR:  function no_such() does not exist");
        assert!(is_the_backups_fault(&refused, Server::Throwaway));
        let given = Target::resolve(None, &crate::environment::Environment::default()).unwrap();
        assert!(!is_the_backups_fault(&refused, Server::Given(&given)));
        for lack in [
            "ERROR:  could not extend file \"base/5/16384\": No space left on device",
            "ERROR:  extension \"postgis\" is not available",
            "ERROR:  could not access file \"$libdir/x\": No such file or directory",
        ] {
            assert!(!is_the_backups_fault(&failed(lack), Server::Throwaway), "{lack}");
        }
    }

    #[test]
    fn an_answer_is_judged_as_text_or_as_a_number() {
        let equals = Expected::Equals("0".to_owned());
        assert_eq!(judge(&equals, Some("0")), None);
        assert_eq!(judge(&equals, Some("0.0")).unwrap(), "gives `0.0` where `0` is expected");
        assert_eq!(judge(&equals, None).unwrap(), "gives NULL where `0` is expected");
        let both = Expected::Between { at_least: Some(1.0), at_most: Some(2.5) };
        assert_eq!(judge(&both, Some("2.5")), None);
        let expected = "gives `0` where at least 1 and at most 2.5 is expected";
        assert_eq!(judge(&both, Some("0")).unwrap(), expected);
        assert!(judge(&both, Some("many")).is_some() && judge(&both, Some("NaN")).is_some());
        let least = Expected::Between { at_least: Some(1.0), at_most: None };
        assert_eq!(judge(&least, Some("1000000")), None);
        assert!(judge(&least, None).is_some());
    }
}
