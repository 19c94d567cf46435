//! The restore test: a backup counts when it was restored, and what came out is what was dumped.
//!
//! A throwaway server of the dump's own major is started, the backup restored into it as `opsctl restore` does, and
//! the result looked at as `opsctl backup` looks at a database: rows and large objects by count and digest, objects by
//! kind and definition, all compared with what the manifest noted in the dump's own snapshot. What the backup cannot
//! do is a finding; what this machine cannot do is an error.

use anyhow::Context as _;
use postgres::SimpleQueryMessage;

use super::{Findings, Request};
use crate::backup::chunk;
use crate::backup::manifest::{Detail, Manifest};
use crate::backup::restore::{self, Contents, Selection, roles};
use crate::backup::take;
use crate::child::{self, Spec};
use crate::config::{Compression, Expected, Query};
use crate::db::throwaway::ThrowawayServer;
use crate::db::{self, Target, programs};
use crate::exit::{Exit, Failure};

/// The database in the throwaway server.
const DATABASE: &str = "restored";
/// How many bytes of disk a restored database takes for a byte of COPY text, with its indexes, at most usually.
const ROOM: u64 = 2;

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
    let major = manifest.server.major;
    let bin_dir = programs::find_server(major, request.bin_dir, request.environment, request.stop)?;
    check_room(manifest)?;
    tracing::info!("restoring backup {} into a throwaway server", manifest.id);
    let server = ThrowawayServer::start(&bin_dir, request.stop)?;
    let admin = server.target("postgres")?;
    let target = server.target(DATABASE)?;
    let contents = restore::contents(source)?;

    let whole = contents.choose(&Selection::default()).map_err(anyhow::Error::msg)?;

    let began = std::time::Instant::now();
    prepare(request, source, &admin, &contents)?;
    let restored = restore::restore(&restore::Request {
        source,
        detail,
        contents: &contents,
        chosen: &whole,
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
        Err(error) if is_the_backups_fault(&error) => {
            findings.add(None, None, format!("it cannot be restored: {error:#}"));
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let seconds = began.elapsed().as_secs_f64();

    tracing::info!("comparing what was restored with what was dumped");
    let found = take::look(&take::Request {
        run: &manifest.id,
        begun_at: manifest.begun_at,
        database: &manifest.database,
        target: &target,
        bin_dir: request.bin_dir,
        environment: request.environment,
        scope: manifest.scope.clone(),
        compression: Compression::None,
        jobs: request.jobs,
        shrink_accepted: false,
        repositories: &[],
        progress: request.progress,
        stop: request.stop,
    })
    .context("failed to look at the restored database")?;
    for difference in restore::compare(detail, &found) {
        findings.add(None, None, format!("after a restore, {difference}"));
    }
    let queries = ask(request, manifest, &target, findings)?;
    let amcheck = check_indexes(request, &bin_dir, &target, findings)?;
    let version = target.connect("opsctl verify-backup", request.stop)?.server_version()?;
    let age = crate::clock::now().signed_duration_since(manifest.snapshot_at);
    Ok(Some(RestoreTest {
        server: version.to_string(),
        seconds,
        data_age_seconds: age.num_seconds(),
        tables: restored.tables,
        rows: restored.rows,
        large_objects: restored.large_objects,
        objects: detail.objects.values().map(|objects| objects.count).sum(),
        queries,
        amcheck,
    }))
}

/// Makes sure that the restored database will fit where temporary files go.
fn check_room(manifest: &Manifest) -> anyhow::Result<()> {
    let place = std::env::temp_dir();
    let figures = rustix::fs::statvfs(&place).map_err(std::io::Error::from)?;
    let free = figures.f_bavail.saturating_mul(figures.f_frsize);
    let needed = manifest.totals.raw_bytes.saturating_mul(ROOM).saturating_add(64 << 20);
    if free >= needed {
        return Ok(());
    }
    let message = format!(
        "a restore test needs about {} MiB in `{}`, which has {} MiB free",
        needed >> 20,
        place.display(),
        free >> 20
    );
    Err(Failure::new(Exit::Failed, message).hint("Set TMPDIR to a larger place.").into())
}

/// Makes roles and an empty database like those of the dump.
fn prepare(
    request: &Request<'_>,
    source: chunk::Source<'_>,
    admin: &Target,
    contents: &Contents,
) -> anyhow::Result<()> {
    let mut connection = admin.connect("opsctl verify-backup", request.stop)?;
    roles::create_missing(source, &mut connection)?;
    let client = connection.client();
    let create = |options: &str| format!("CREATE DATABASE {DATABASE} {options}");
    let options = contents.database_options();
    let options = options.split(" TABLESPACE = ").next().unwrap_or_default();
    if let Err(error) = client.batch_execute(&create(options)) {
        // What counts is content, and that does not depend on how texts are sorted.
        let error = db::Error::query("create a database with the locale of the dump", error);
        tracing::warn!("{:#}; it is restored with locale C", anyhow::Error::from(error));
        let encoding = options.split("ENCODING = ").nth(1).and_then(|o| o.split(' ').next());
        let encoding = encoding.unwrap_or("'UTF8'");
        let plain = format!("TEMPLATE template0 ENCODING {encoding} LOCALE 'C'");
        let created = client.batch_execute(&create(&plain));
        created.map_err(|e| db::Error::query("create a database", e))?;
    }
    Ok(())
}

/// What the throwaway server says, in English by its locale, when this machine lacks something. A backup that is called
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

/// Is it the backup that made a restore fail, and not this machine or the way to the repository?
fn is_the_backups_fault(error: &anyhow::Error) -> bool {
    let said = format!("{error:#}");
    if THIS_MACHINES_FAULT.iter().any(|text| said.contains(text)) {
        return false;
    }
    error.chain().any(|cause| {
        matches!(cause.downcast_ref(), Some(child::Error::Failed { .. }))
            || matches!(cause.downcast_ref(), Some(db::Error::Query { .. }))
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
    bin_dir: &std::path::Path,
    target: &Target,
    findings: &Findings,
) -> anyhow::Result<bool> {
    let program = bin_dir.join("pg_amcheck");
    let mut connection = target.connect("opsctl verify-backup", request.stop)?;
    let available = "SELECT FROM pg_catalog.pg_available_extensions WHERE name = 'amcheck'";
    let available = connection.client().query_opt(available, &[]);
    let available = available.map_err(|e| db::Error::query("look for amcheck", e))?.is_some();
    if !available || !program.exists() {
        tracing::info!("pg_amcheck is not installed: indexes are not checked");
        return Ok(false);
    }
    let environment = target.child_environment()?;
    let arguments = [
        "--install-missing".to_owned(),
        "--no-password".to_owned(),
        format!("--jobs={}", request.jobs.max(1)),
        DATABASE.to_owned(),
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
        assert!(is_the_backups_fault(&failed("ERROR:  function no_such() does not exist")));
        for lack in [
            "ERROR:  could not extend file \"base/5/16384\": No space left on device",
            "ERROR:  extension \"postgis\" is not available",
            "ERROR:  could not access file \"$libdir/x\": No such file or directory",
        ] {
            assert!(!is_the_backups_fault(&failed(lack)), "{lack}");
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
