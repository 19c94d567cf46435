//! Restoring a backup into an empty database: pg_restore makes the objects, our workers load the rows between them.
//!
//! The rows go straight from the repository into COPY; nothing is staged but the table of contents. Whatever
//! differs from the manifest on the way stops the restore. Which database that is, and what becomes of it after a
//! failure, is the caller's business: see `database.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Mutex;

use anyhow::Context as _;
use indicatif::ProgressBar;

use crate::backup::chunk::Source;
use crate::backup::manifest::{Artifact, Detail, Kind, TOC};
use crate::backup::rows::Rows;
use crate::backup::sample::Sample;
use crate::backup::toc::Entry;
use crate::db::programs::ClientPrograms;
use crate::db::{self, Target};
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::stop::Stop;
use crate::sync::lock;

pub(crate) mod database;
pub(crate) mod directory;
mod load;
pub(crate) mod roles;
mod rows_only;
mod sections;
mod selection;
mod sql;

use load::{Load, TableLoad};
pub(crate) use rows_only::restore_rows;
use sections::{Section, Sections};
pub(crate) use selection::{Contents, Selection};

/// Reads a script of statements and a table of contents, whatever they are, and chooses from it.
#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for statement in sql::statements(&text) {
        drop(sql::identifier(&statement));
        drop(sql::rename_database(&statement, "a", "b"));
    }
    if let Ok(contents) = Contents::read(bytes.to_vec()) {
        let whole = contents.choose(&Selection::default()).unwrap_or_default();
        assert!(contents.without_relations_between_rows(&whole).is_subset(&whole));
        drop((
            contents.database_options(),
            contents.database_statements("x", database::Like::default()),
        ));
        let all = contents.entries.iter().map(|e| String::from_utf8_lossy(&e.tag).into_owned());
        drop(contents.choose(&Selection { tables: all.collect(), ..Selection::default() }));
    }
}

/// What to restore, and where to.
pub(crate) struct Request<'a> {
    pub(crate) source: Source<'a>,
    /// What the manifest says of the content, unsealed.
    pub(crate) detail: &'a Detail,
    /// The table of contents.
    pub(crate) contents: &'a Contents,
    /// What of it: see [`Contents::choose`].
    pub(crate) chosen: &'a BTreeSet<i32>,
    /// Which rows and large objects; all if there is none. `detail` is then that of the sample.
    pub(crate) sample: Option<&'a Sample>,
    /// An empty database.
    pub(crate) target: &'a Target,
    /// More options for pg_restore, such as `--no-owner`.
    pub(crate) options: Vec<String>,
    pub(crate) bin_dir: Option<&'a std::path::Path>,
    pub(crate) environment: &'a Environment,
    pub(crate) jobs: usize,
    pub(crate) progress: &'a ProgressBar,
    pub(crate) stop: &'a Stop,
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Restored {
    pub(crate) tables: u64,
    pub(crate) rows: u64,
    pub(crate) large_objects: u64,
    /// By which version, if there was more than rows.
    pub(crate) pg_restore: Option<String>,
}

/// Returns how many bytes of disk a database takes at most, usually, whose rows have so many bytes as COPY text: twice
/// as many, for indexes and the like, and what an empty one takes.
pub(crate) fn room(raw_bytes: u64) -> u64 {
    raw_bytes.saturating_mul(2).saturating_add(64 << 20)
}

/// Reads a backup's table of contents.
pub(crate) fn contents(source: Source<'_>) -> anyhow::Result<Contents> {
    let toc = source.manifest.artifact(TOC).context("the manifest has no table of contents")?;
    Ok(Contents::read(source.read_all(toc)?)?)
}

/// Restores a backup. After an error the database holds a part of it.
pub(crate) fn restore(request: &Request<'_>) -> anyhow::Result<Restored> {
    let manifest = request.source.manifest;
    let program = ClientPrograms::find_restore(
        manifest.server.major,
        request.bin_dir,
        request.environment,
        request.stop,
    )?;
    let contents = request.contents;
    let load = plan_load(request)?;
    let chunks = || load.tables.iter().flat_map(TableLoad::chunks);
    request.progress.set_position(0);
    request.progress.set_length(chunks().map(|chunk| chunk.raw_bytes).sum());

    let child_environment = request.target.child_environment()?;
    // Rows and the content of large objects are ours.
    let entries = contents.entries.iter().filter(|e| !e.has_data);
    let entries = entries.filter(|entry| request.chosen.contains(&entry.dump_id));
    let entries: Vec<&Entry> = entries.collect();
    let pick = |wanted: &dyn Fn(&Entry) -> bool| -> Vec<i32> {
        entries.iter().filter(|e| wanted(e)).map(|e| e.dump_id).collect()
    };
    let all = pick(&|_| true);
    let alone = pick(&upgrades_its_lock);
    let indexes = pick(&|e| is_index(e) && !upgrades_its_lock(e));
    let rest = pick(&|e| !is_index(e));
    // What is done to a partitioned table takes locks on its partitions, of which `pg_restore -j` knows nothing.
    let partitioned = entries.iter().any(|e| e.kind == "TABLE ATTACH");
    let rest_jobs = if partitioned { 1 } else { request.jobs };
    let sections = Sections::prepare(
        &program,
        &contents.toc,
        (child_environment, request.target.database_name()),
        request.options.clone(),
    )?;
    step(request, "restoring the schema");
    sections.restore(Section::PreData, &all, request.jobs, request.stop)?;
    sections.restore(Section::Data, &all, request.jobs, request.stop)?;
    step(request, "loading rows");
    load.run()?;
    step(request, "building indexes and constraints");
    for (entries, jobs) in [(&alone, 1), (&indexes, request.jobs), (&rest, rest_jobs)] {
        sections.restore(Section::PostData, entries, jobs, request.stop)?;
    }
    step(request, "gathering statistics");
    analyze(request)?;
    Ok(Restored {
        tables: load.tables.len() as u64,
        rows: chunks().map(|chunk| chunk.rows).sum(),
        large_objects: load.large_objects.len() as u64,
        pg_restore: Some(program.version()),
    })
}

/// Says what comes next, in the log and beside the progress bar.
fn step(request: &Request<'_>, what: &'static str) {
    tracing::info!("{what}");
    request.progress.set_message(what);
}

/// Is it one of those that take long, and lock nothing but their table?
fn is_index(entry: &Entry) -> bool {
    matches!(entry.kind.as_str(), "INDEX" | "CONSTRAINT")
}

/// Does an entry of an index go on to change its table (`CLUSTER ON`, `REPLICA IDENTITY USING INDEX`)?
///
/// Each of two such entries of one table then waits for the lock that the other holds: `pg_restore -j`, which knows
/// nothing of it, ends in a deadlock. Nothing in the section is needed by an index.
fn upgrades_its_lock(entry: &Entry) -> bool {
    entry.kind == "INDEX" && memchr::memmem::find(&entry.definition, b"ALTER TABLE").is_some()
}

/// Finds the artifact of every entry that has rows.
fn plan_load<'a>(request: &'a Request<'a>) -> anyhow::Result<Load<'a>> {
    let (manifest, contents) = (request.source.manifest, request.contents);
    let suffix = manifest.compression.suffix();
    let mut tables = Vec::new();
    let chosen = || contents.entries.iter().filter(|e| request.chosen.contains(&e.dump_id));
    for entry in chosen().filter(|e| e.has_data && e.kind == "TABLE DATA") {
        let file = format!("{}{suffix}", entry.file.as_deref().unwrap_or_default());
        let artifact = manifest.artifact(&file).filter(|a| a.kind == Kind::Table);
        let artifact = artifact.ok_or_else(|| {
            let message = format!("`{TOC}` names `{file}`, and the manifest has no such table");
            Failure::new(Exit::BadNews, message)
        })?;
        let statement = String::from_utf8(entry.copy_statement.clone());
        let statement = statement.context("a COPY statement is not UTF-8")?;
        let is_wanted = |c: &usize| wants(request, artifact, *c);
        let chunks = (0..artifact.chunks.len()).filter(is_wanted).collect();
        tables.push(TableLoad { artifact, statement: statement.trim_end().to_owned(), chunks });
    }
    let with_large_objects = chosen().any(|entry| entry.has_data && entry.kind == "BLOBS");
    let is_wanted =
        |a: &&Artifact| with_large_objects && a.kind == Kind::LargeObject && wants(request, a, 0);
    let large_objects = manifest.artifacts.iter().filter(is_wanted).collect();
    Ok(Load {
        source: request.source,
        detail: request.detail,
        tables,
        large_objects,
        target: request.target,
        encoding: contents.encoding.clone(),
        jobs: request.jobs,
        progress: request.progress,
        stop: request.stop,
    })
}

/// Is a chunk to be loaded?
fn wants(request: &Request<'_>, artifact: &Artifact, chunk: usize) -> bool {
    let detail = request.detail;
    request.sample.is_none_or(|sample| match artifact.kind {
        Kind::LargeObject => detail.large_objects.contains_key(&artifact.name),
        _ => sample.has(Some(detail), artifact, chunk),
    })
}

/// Lets the planner know what is in the tables. That one cannot be looked at is a warning: the rows are there.
fn analyze(request: &Request<'_>) -> anyhow::Result<()> {
    // A partitioned table stands for its partitions; one ANALYZE for all would end at the first failure.
    const TABLES: &str = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) \
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.relkind IN ('r', 'm', 'p') AND NOT c.relispartition AND c.relpersistence <> 't' \
          AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') \
        ORDER BY c.relpages DESC";
    let connect = || request.target.connect("opsctl restore", request.stop);
    let mut connection = connect()?;
    let tables = connection.client().query(TABLES, &[]);
    let tables = tables.map_err(|e| db::Error::query("list the tables", e))?;
    let queue: Mutex<VecDeque<String>> =
        Mutex::new(tables.iter().map(|row| row.get::<_, String>(0)).collect());
    let worker = || -> anyhow::Result<()> {
        let mut connection = connect()?;
        loop {
            request.stop.check()?;
            let Some(table) = lock(&queue).pop_front() else { return Ok(()) };
            if let Err(error) = connection.client().batch_execute(&format!("ANALYZE {table}")) {
                let error = db::Error::query(format!("analyze {table}"), error);
                if matches!(error, db::Error::Lost { .. }) {
                    return Err(error.into());
                }
                tracing::warn!("{:#}", anyhow::Error::from(error));
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..request.jobs.max(1)).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a worker panicked")))
        })
    })
}

/// Compares what a restored database holds with what was dumped; says what differs, in no particular order.
///
/// Where the objects of a kind differ, `name` is asked which they are; it may not know.
pub(crate) fn compare(
    expected: &Detail,
    found: &Detail,
    name: impl Fn(&str) -> Vec<String>,
) -> Vec<String> {
    let mut findings = Vec::new();
    let (expected_tables, found_tables) = (by_table(expected), by_table(found));
    for (name, rows) in &expected_tables {
        match found_tables.get(name) {
            None => findings.push(format!("table {name} is not there")),
            Some(found) if found.count != rows.count => findings.push(format!(
                "table {name} has {} rows where {} were dumped",
                found.count, rows.count
            )),
            Some(found) if found.digest != rows.digest => findings.push(format!(
                "the {} rows of table {name} are not those that were dumped: the digest differs",
                rows.count
            )),
            Some(_) => {}
        }
    }
    for name in found_tables.keys().filter(|name| !expected_tables.contains_key(*name)) {
        findings.push(format!("table {name} is there and was not dumped"));
    }
    let by_oid = |detail: &Detail| -> BTreeMap<u32, _> {
        detail.large_objects.values().map(|o| (o.oid, (o.bytes, o.digest))).collect()
    };
    let (expected_objects, found_objects) = (by_oid(expected), by_oid(found));
    for (oid, content) in &expected_objects {
        match found_objects.get(oid) {
            None => findings.push(format!("large object {oid} is not there")),
            Some(found) if found != content => {
                findings.push(format!("large object {oid} is not what was dumped"));
            }
            Some(_) => {}
        }
    }
    for oid in found_objects.keys().filter(|oid| !expected_objects.contains_key(oid)) {
        findings.push(format!("large object {oid} is there and was not dumped"));
    }
    // Backups of before this was noted have nothing to compare with.
    if !expected.objects.is_empty() {
        let kinds = expected.objects.keys().chain(found.objects.keys());
        for kind in kinds.collect::<BTreeSet<_>>() {
            let (expected, found) = (expected.objects.get(kind), found.objects.get(kind));
            if expected == found {
                continue;
            }
            let counts = [expected, found].map(|o| o.map_or(0, |o| o.count));
            let what = if counts[0] == counts[1] {
                format!("an object of kind {kind} is not as it was dumped")
            } else {
                format!(
                    "there are {} objects of kind {kind} where {} were dumped",
                    counts[1], counts[0]
                )
            };
            let names = name(kind);
            findings.push(if names.is_empty() {
                what
            } else {
                format!("{what}: {}", names.join(", "))
            });
        }
    }
    findings
}

/// Sums rows up by table; partitions that are restored through their root, by that.
fn by_table(detail: &Detail) -> BTreeMap<String, Rows> {
    let mut tables: BTreeMap<String, Rows> = BTreeMap::new();
    for table in detail.tables.values() {
        let own = || format!("{}.{}", table.schema, table.name);
        let name = table.partition_root.clone().unwrap_or_else(own);
        let rows = Rows { count: table.rows, digest: table.digest };
        tables.entry(name).or_default().merge(rows);
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::manifest::{LargeObject, Objects, Table};
    use crate::backup::rows::Digest;

    fn rows(content: &[&str]) -> Rows {
        let mut rows = Rows::default();
        for row in content {
            rows.add(row.as_bytes());
        }
        rows
    }

    fn table(name: &str, root: Option<&str>, content: &[&str]) -> Table {
        let Rows { count, digest } = rows(content);
        let (schema, name) = ("s".to_owned(), name.to_owned());
        let partition_root = root.map(str::to_owned);
        Table { schema, name, partition_root, rows: count, digest, chunks: vec![digest] }
    }

    fn detail(tables: &[Table], large: &[(u32, u64)], indexes: &[&str]) -> Detail {
        let Rows { count, digest } = rows(indexes);
        let tables = tables.iter().enumerate();
        let object = |&(oid, bytes)| LargeObject { oid, bytes, digest: Digest::default() };
        Detail {
            tables: tables.map(|(n, t)| (n.to_string(), t.clone())).collect(),
            large_objects: large.iter().map(|l| (l.0.to_string(), object(l))).collect(),
            objects: [("INDEX".to_owned(), Objects { count, digest })].into(),
            ..Detail::default()
        }
    }

    #[test]
    fn whatever_differs_is_said() {
        let t = |content: &[&str]| table("t", None, content);
        let source = detail(&[t(&["a", "b"])], &[(7, 3)], &["i", "j"]);
        let check = |found: Detail, expected: &[&str]| {
            assert_eq!(compare(&source, &found, |_| Vec::new()), expected);
        };
        check(detail(&[t(&["b", "a"])], &[(7, 3)], &["j", "i"]), &[]);
        check(
            detail(&[t(&["a", "c"])], &[(7, 4)], &["i", "k"]),
            &[
                "the 2 rows of table s.t are not those that were dumped: the digest differs",
                "large object 7 is not what was dumped",
                "an object of kind INDEX is not as it was dumped",
            ],
        );
        check(
            detail(&[t(&["a"]), table("u", None, &[])], &[(8, 3)], &["i"]),
            &[
                "table s.t has 1 rows where 2 were dumped",
                "table s.u is there and was not dumped",
                "large object 7 is not there",
                "large object 8 is there and was not dumped",
                "there are 1 objects of kind INDEX where 2 were dumped",
            ],
        );
        check(detail(&[], &[(7, 3)], &["i", "j"]), &["table s.t is not there"]);
    }

    #[test]
    fn rows_may_change_between_partitions_of_one_root() {
        let part = |name, content| table(name, Some("s.root"), content);
        let source = detail(&[part("p1", &["a"]), part("p2", &["b"])], &[], &[]);
        assert!(
            compare(
                &source,
                &detail(&[part("p1", &["b", "a"]), part("p2", &[])], &[], &[]),
                |_| vec![]
            )
            .is_empty()
        );
        assert_eq!(
            compare(&source, &detail(&[part("p1", &["a"]), part("p2", &[])], &[], &[]), |_| vec![])
                .len(),
            1
        );
    }
}
