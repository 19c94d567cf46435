//! Taking a backup: describe, copy, and publish it in every repository that got all of it.
//!
//! The order is the safety: lease, artifacts, everything compared with what the storage says it has,
//! `SHA256SUMS`, manifest last. Whatever ends the run before that leaves no backup, and what it left is
//! removed by this run if it can and by the next one otherwise. Retention is not applied here.

use std::io::Read as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use indicatif::ProgressBar;

use crate::backup::copy::Work;
use crate::backup::description::{self, Description, Disturbed};
use crate::backup::lease::{Heartbeat, Lease};
use crate::backup::manifest::{Detail, Kind, Manifest, Scope, TOC, Table};
use crate::backup::objects;
use crate::backup::plan;
use crate::backup::publish::Draft;
use crate::backup::repository::{Folder, LEASE, Removal, Repository};
use crate::backup::rows::Rows;
use crate::backup::sink::{Encoded, Output, Sink};
use crate::backup::snapshot::Snapshot;
use crate::child::Spec;
use crate::clock::{self, Moment};
use crate::compression::{Codec, Format};
use crate::config::Compression;
use crate::db::programs::ClientPrograms;
use crate::db::{self, ChildEnvironment, Target};
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::id::RunId;
use crate::stop::{Reason, Stop};
use crate::storage::Overwrite;
use crate::sync::{into_inner, lock};

/// The first major version whose pg_restore reads zstd.
const FIRST_WITH_ZSTD: u32 = 16;
/// How often a disturbed beginning is begun again.
const ATTEMPTS: u32 = 3;
/// How much of a child's output becomes one chunk.
const PIECE: usize = 4 << 20;

/// What to back up, and where to.
pub(crate) struct Request<'a> {
    pub(crate) run: &'a RunId,
    pub(crate) begun_at: Moment,
    /// The database's name in the repositories.
    pub(crate) database: &'a str,
    pub(crate) target: &'a Target,
    pub(crate) bin_dir: Option<&'a std::path::Path>,
    pub(crate) environment: &'a Environment,
    pub(crate) scope: Scope,
    pub(crate) compression: Compression,
    pub(crate) jobs: usize,
    /// May it be much smaller than the one before?
    pub(crate) shrink_accepted: bool,
    pub(crate) repositories: &'a [Repository],
    pub(crate) progress: &'a ProgressBar,
    pub(crate) stop: &'a Stop,
}

/// What became of a backup in one repository.
pub(crate) struct Taken {
    pub(crate) repository: Repository,
    /// The published manifest, or why there is none.
    pub(crate) manifest: anyhow::Result<Manifest>,
}

/// Takes a backup into all repositories at once.
///
/// An error means that there is a backup in none of them; otherwise each says for itself.
pub(crate) fn take(request: &Request<'_>) -> anyhow::Result<Vec<Taken>> {
    let Begun { mut snapshot, mut description, programs, codec, child_environment } =
        begin(request)?;
    let folder = Folder::new(request.database, request.run);
    let mut taken = Vec::new();
    let mut open = Vec::new();
    let mut heartbeats = Vec::new();
    for repository in request.repositories {
        match take_lease(repository, &folder, request) {
            Ok(heartbeat) => {
                open.push(repository.clone());
                heartbeats.push(heartbeat);
            }
            Err(error) => {
                taken.push(Taken { repository: repository.clone(), manifest: Err(error) });
            }
        }
    }
    if open.is_empty() {
        return Ok(taken);
    }
    let sink = Sink::begin(&open, &folder);
    let copied = copy_all(request, &sink, &mut snapshot, &mut description, codec)
        .and_then(|detail| {
            copy_globals(request, &sink, &programs, &child_environment).map(|()| detail)
        })
        .and_then(|detail| check_witnesses(&mut snapshot, &mut description).map(|()| detail));
    let lanes = sink.finish();
    let Description { pg_dump, header, .. } = description;
    pg_dump.end();
    let detail = match copied {
        Ok(detail) => detail,
        Err(error) => {
            // First, or a renewal could put the lease back into a folder that is gone.
            drop(heartbeats);
            discard(&open, &folder, request);
            let all_lost = lanes.iter().all(|lane| lane.artifacts.is_err());
            if !all_lost || request.stop.reason().is_some() {
                return Err(error);
            }
            // No repository was left to write to: the reasons are theirs.
            for lane in lanes {
                let manifest = lane.artifacts.and(Err(anyhow::anyhow!("nothing was published")));
                taken.push(Taken { repository: lane.repository, manifest });
            }
            return Ok(taken);
        }
    };
    let draft =
        Draft { request, snapshot: &snapshot, programs: &programs, codec, header: &header, detail };
    for lane in lanes {
        let repository = lane.repository.clone();
        let manifest = draft.publish(&folder, lane);
        if manifest.is_err() {
            discard(std::slice::from_ref(&repository), &folder, request);
        }
        taken.push(Taken { repository, manifest });
    }
    drop(heartbeats);
    Ok(taken)
}

/// Looks at all of a database as a backup would, and keeps nothing but the facts and the table of contents. The
/// repositories are not touched.
pub(crate) fn look(request: &Request<'_>) -> anyhow::Result<(Detail, Vec<u8>)> {
    let Begun { mut snapshot, mut description, .. } = begin(request)?;
    let sink = Sink::counting();
    let toc = description.toc.clone();
    let detail = copy_all(request, &sink, &mut snapshot, &mut description, Codec::None)?;
    check_witnesses(&mut snapshot, &mut description)?;
    description.pg_dump.end();
    Ok((detail, toc))
}

/// What a dry run says of a database.
pub(crate) struct Survey {
    pub(crate) server: String,
    pub(crate) pg_dump: String,
    /// The database's size on its server.
    pub(crate) bytes: u64,
}

/// Looks at what would be backed up, and whether it could be; changes nothing.
pub(crate) fn survey(
    target: &Target,
    bin_dir: Option<&std::path::Path>,
    environment: &Environment,
    stop: &Stop,
) -> anyhow::Result<Survey> {
    let mut connection = target.connect("opsctl backup --dry-run", stop)?;
    let version = connection.server_version()?;
    let programs = ClientPrograms::find(version.major(), bin_dir, environment, stop)?;
    let size = connection.client().query_one("SELECT pg_database_size(current_database())", &[]);
    let size: i64 = size.map_err(|e| db::Error::query("measure the database", e))?.get(0);
    let bytes = u64::try_from(size).unwrap_or(0);
    Ok(Survey { server: version.to_string(), pg_dump: programs.version(), bytes })
}

/// A backup of which nothing is written yet.
struct Begun {
    snapshot: Snapshot,
    description: Description,
    programs: ClientPrograms,
    codec: Codec,
    child_environment: ChildEnvironment,
}

/// Takes the snapshot and describes it, again if somebody disturbed the moment in between.
fn begin(request: &Request<'_>) -> anyhow::Result<Begun> {
    let mut attempt = 1;
    loop {
        let mut snapshot = Snapshot::take(request.target, request.stop)?;
        let major = snapshot.server_version.major();
        let codec = choose_codec(request.compression, major)?;
        let programs =
            ClientPrograms::find(major, request.bin_dir, request.environment, request.stop)?;
        // The children must meet the very server that has the snapshot.
        let child_environment = snapshot.connection.target().child_environment()?;
        let described = description::describe(
            &mut snapshot,
            &programs,
            &child_environment,
            &request.scope,
            codec.format(),
            request.stop,
        );
        match described {
            Ok(description) => {
                return Ok(Begun { snapshot, description, programs, codec, child_environment });
            }
            Err(error) if error.is::<Disturbed>() && attempt < ATTEMPTS => {
                tracing::warn!("{error}: beginning again");
                attempt += 1;
                request.stop.sleep(Duration::from_secs(1))?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Decides what to compress with: what the server's own pg_restore can read.
fn choose_codec(wanted: Compression, server_major: u32) -> anyhow::Result<Codec> {
    let reads_zstd = server_major >= FIRST_WITH_ZSTD;
    match wanted {
        Compression::Auto if reads_zstd => Ok(Codec::Zstd(3)),
        Compression::Auto => Ok(Codec::Gzip(6)),
        Compression::None => Ok(Codec::None),
        Compression::Gzip(level) => Ok(Codec::Gzip(level)),
        Compression::Zstd(level) if reads_zstd => Ok(Codec::Zstd(level)),
        Compression::Zstd(_) => Err(Failure::new(
            Exit::Configuration,
            format!("compression zstd cannot be used with PostgreSQL {server_major}: its pg_restore does not read it"),
        )
        .hint("Use `gzip` or `auto`; zstd is for PostgreSQL 16 and later.")
        .into()),
    }
}

/// Says in the repository that this run is at work in `folder`.
fn take_lease(
    repository: &Repository,
    folder: &Folder,
    request: &Request<'_>,
) -> anyhow::Result<Heartbeat> {
    let lease = Lease::new(request.run, clock::now());
    let key = folder.key(LEASE)?;
    repository.storage.put(&key, lease.to_json()?.into(), Overwrite::Refuse)?;
    Ok(Heartbeat::begin(Arc::clone(&repository.storage), key, lease))
}

/// Copies all rows and large objects, and stores the table of contents.
fn copy_all(
    request: &Request<'_>,
    sink: &Sink,
    snapshot: &mut Snapshot,
    description: &mut Description,
    codec: Codec,
) -> anyhow::Result<Detail> {
    let suffix = codec.format().suffix();
    let sources = std::mem::take(&mut description.sources);
    let tasks = plan::tasks(&sources, snapshot.server_version.major());
    let outputs: Vec<Arc<Output>> = sources
        .iter()
        .map(|source| {
            sink.create(format!("{}.dat{suffix}", source.dump_id), Kind::Table, codec.format())
        })
        .collect();
    let oids = description.large_objects.iter().flat_map(|group| &group.oids);
    let large_objects = oids
        .map(|oid| {
            (
                sink.create(format!("blob_{oid}.dat{suffix}"), Kind::LargeObject, codec.format()),
                *oid,
            )
        })
        .collect();
    request.progress.set_position(0);
    request.progress.set_length(tasks.iter().map(|task| task.bytes).sum());

    let toc = sink.create(TOC, Kind::Toc, Format::None);
    append_plain(sink, &toc, &description.toc)?;
    let objects = objects::sum_up(&description.toc)?;
    description.toc = Vec::new();
    for group in &description.large_objects {
        let lines: String =
            group.oids.iter().map(|oid| format!("{oid} blob_{oid}.dat\n")).collect();
        append_plain(
            sink,
            &sink.create(&group.toc_name, Kind::LargeObjectToc, Format::None),
            lines.as_bytes(),
        )?;
    }

    let jobs = request.jobs.clamp(1, (tasks.len() + description.large_objects.len()).max(1));
    let setup = (codec, jobs);
    let work = Work::new(
        sink,
        &sources,
        &tasks,
        outputs,
        large_objects,
        setup,
        request.progress,
        request.stop,
    );
    run_workers(request, &work, snapshot, description, jobs)?;
    work.run_deferred(snapshot.connection.client())?;

    let mut detail = Detail {
        database: snapshot.database.clone(),
        host: request.target.host_label(),
        objects,
        ..Detail::default()
    };
    for (source, table) in sources.iter().zip(&work.tables) {
        let Rows { count, digest } = table.output.rows();
        let facts = Table {
            schema: source.schema.clone(),
            name: source.name.clone(),
            partition_root: source.partition_root.clone(),
            rows: count,
            digest,
            chunks: table.output.chunk_digests(),
        };
        detail.tables.insert(table.output.name().to_owned(), facts);
    }
    for object in &work.large_objects {
        let found = lock(&object.found);
        let facts = found.with_context(|| format!("large object {} was not copied", object.oid))?;
        detail.large_objects.insert(object.output.name().to_owned(), facts);
    }
    Ok(detail)
}

/// Runs the workers to their end, watching pg_dump meanwhile. The first error ends all.
fn run_workers(
    request: &Request<'_>,
    work: &Work<'_>,
    snapshot: &Snapshot,
    description: &mut Description,
    jobs: usize,
) -> anyhow::Result<()> {
    let failure: Mutex<Option<anyhow::Error>> = Mutex::new(None);
    // Ends the workers' statements: one may wait for something that never comes. Its reason is never told,
    // because the failure is there first.
    let halt = Stop::new();
    let fail = |error: anyhow::Error| {
        lock(&failure).get_or_insert(error);
        work.give_up();
        halt.request(Reason::Deadline);
    };
    let ticket = snapshot.ticket();
    let worker = || {
        let run = || {
            let mut connection = ticket.join(&halt)?;
            work.run(connection.client())
        };
        if let Err(error) = run() {
            fail(error);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(worker)).collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            if let Err(error) = description.pg_dump.is_well() {
                fail(error.into());
            }
            if let Err(stopped) = request.stop.sleep(Duration::from_millis(20)) {
                fail(stopped.into());
                break;
            }
        }
    });
    request.stop.check()?;
    into_inner(failure).map_or(Ok(()), Err)
}

/// Makes sure that those who held snapshot and locks held them to the end.
fn check_witnesses(snapshot: &mut Snapshot, description: &mut Description) -> anyhow::Result<()> {
    let alive = snapshot.connection.client().batch_execute("SELECT 1");
    alive.map_err(|e| db::Error::query("keep the snapshot to the end", e))?;
    description.pg_dump.is_well()?;
    Ok(())
}

/// Stores the roles and tablespaces, which belong to the server and not to the database.
fn copy_globals(
    request: &Request<'_>,
    sink: &Sink,
    programs: &ClientPrograms,
    environment: &ChildEnvironment,
) -> anyhow::Result<()> {
    const END: &[u8] = b"-- PostgreSQL database cluster dump complete";
    let mut arguments = vec!["--globals-only".to_owned(), "--no-password".to_owned()];
    if !request.scope.role_passwords {
        arguments.push("--no-role-passwords".to_owned());
    }
    // pg_dumpall looks for other databases by itself unless told where to begin.
    arguments.push(format!(
        "--database={}",
        environment.variables.get("PGDATABASE").map_or("", String::as_str)
    ));
    // pg_dumpall writes moments as the database it connects to likes them; others could not read them.
    let mut variables = environment.variables.clone();
    variables.extend([("PGDATESTYLE", "ISO"), ("PGTZ", "UTC")].map(|(n, v)| (n.into(), v.into())));
    let spec = Spec::new(programs.pg_dumpall()).args(arguments).envs(variables);
    let mut child = spec.spawn(request.stop)?;
    let mut text = Vec::new();
    child.take_stdout().context("pg_dumpall has no output")?.read_to_end(&mut text)?;
    child.wait().context("failed to dump roles and tablespaces")?;
    anyhow::ensure!(memchr::memmem::find(&text, END).is_some(), "pg_dumpall's output has no end");
    append_plain(sink, &sink.create("globals.sql", Kind::Globals, Format::None), &text)
}

/// Stores bytes as they are, in as many chunks as it takes.
fn append_plain(sink: &Sink, output: &Arc<Output>, content: &[u8]) -> anyhow::Result<()> {
    let mut rest = content;
    loop {
        let (piece, tail) = rest.split_at(rest.len().min(PIECE));
        let last = tail.is_empty();
        let chunk = Encoded {
            bytes: piece.to_vec(),
            raw_bytes: piece.len() as u64,
            rows: Rows::default(),
            last,
        };
        sink.append(output, chunk)?;
        if last {
            return Ok(());
        }
        rest = tail;
    }
}

/// Removes what a failed run wrote, as far as possible; the next run sweeps what is left.
fn discard(repositories: &[Repository], folder: &Folder, request: &Request<'_>) {
    for repository in repositories {
        let lease = Lease::new(request.run, clock::now());
        // Not the run's own token: that it was asked to stop is a reason to clean up.
        if let Err(error) =
            repository.remove(Removal::decided(folder.clone()), &lease, &Stop::new())
        {
            tracing::warn!("{error:#}; the next run will remove it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zstd_is_for_servers_whose_pg_restore_reads_it() {
        assert_eq!(choose_codec(Compression::Auto, 15).unwrap(), Codec::Gzip(6));
        assert_eq!(choose_codec(Compression::Auto, 16).unwrap(), Codec::Zstd(3));
        let error = choose_codec(Compression::Zstd(3), 15).unwrap_err();
        assert_eq!(error.downcast_ref::<Failure>().unwrap().exit, Exit::Configuration);
    }
}
