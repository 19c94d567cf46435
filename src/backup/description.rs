//! What is to be dumped: pg_dump's table of contents, joined with what the catalog says of each table.
//!
//! pg_dump runs in custom format into a pipe; it writes its whole table of contents before any rows. That
//! much is read, and pg_dump is left waiting: it holds its locks as long as it waits. Its own copy of the
//! rows is never read.

use std::collections::BTreeMap;
use std::io::BufReader;

use anyhow::Context as _;
use postgres::error::SqlState;

use crate::backup::manifest::Scope;
use crate::backup::plan::Source;
use crate::backup::snapshot::Snapshot;
use crate::backup::toc::{self, Entry, Header};
use crate::child::{Child, Spec};
use crate::compression::Format;
use crate::db;
use crate::db::programs::ClientPrograms;
use crate::stop::Stop;

/// How long pg_dump waits for a lock on a table before it gives up.
const LOCK_WAIT: &str = "--lock-wait-timeout=300s";
/// How many tables are locked by one statement.
const LOCK_BATCH: usize = 100;

/// A waiting pg_dump, and what it said.
pub(crate) struct Description {
    pub(crate) pg_dump: Child,
    /// Its output, of which no more is read; closing it would end pg_dump.
    _pipe: BufReader<std::process::ChildStdout>,
    pub(crate) header: Header,
    /// The `toc.dat` of a directory.
    pub(crate) toc: Vec<u8>,
    /// Tables with rows of their own.
    pub(crate) sources: Vec<Source>,
    pub(crate) large_objects: Vec<LargeObjects>,
}

/// Large objects that share a table of contents of theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LargeObjects {
    /// The file that lists them, such as `blobs.toc`.
    pub(crate) toc_name: String,
    pub(crate) oids: Vec<u32>,
}

/// A table's entry in the table of contents.
struct TableEntry {
    dump_id: i32,
    oid: u32,
    columns: String,
    partition_root: Option<String>,
}

/// Somebody changed a table in the moment between the snapshot and the locks: begin again.
#[derive(Debug, thiserror::Error)]
#[error("table {0} was truncated, rewritten or locked while the backup began")]
pub(crate) struct Disturbed(String);

/// Starts pg_dump on the snapshot, reads its table of contents, and locks every table whose rows will be
/// copied.
///
/// Fails with [`Disturbed`] if a table was truncated or rewritten between the snapshot and the locks: such
/// changes do not respect snapshots, and pg_dump would dump an empty table without a word.
pub(crate) fn describe(
    snapshot: &mut Snapshot,
    programs: &ClientPrograms,
    environment: &db::ChildEnvironment,
    scope: &Scope,
    format: Format,
    stop: &Stop,
) -> anyhow::Result<Description> {
    let mut arguments = vec![
        "--format=custom".to_owned(),
        "--compress=0".to_owned(),
        "--no-password".to_owned(),
        LOCK_WAIT.to_owned(),
        format!("--encoding={}", snapshot.encoding),
        format!("--snapshot={}", snapshot.name),
    ];
    if scope.schema_only {
        arguments.push("--schema-only".to_owned());
    }
    arguments.extend(scope.exclude_schema.iter().map(|p| format!("--exclude-schema={p}")));
    arguments.extend(scope.exclude_table_data.iter().map(|p| format!("--exclude-table-data={p}")));
    let spec = Spec::new(programs.pg_dump()).args(arguments).envs(environment.variables.clone());
    let mut pg_dump = spec.spawn(stop)?;
    let pipe = BufReader::new(pg_dump.take_stdout().context("pg_dump has no output")?);
    let read = match read_toc(pipe, format) {
        Ok(read) => read,
        // An early end is the symptom; what pg_dump said is the cause.
        Err(error) => {
            pg_dump.wait().context("pg_dump could not describe the database")?;
            return Err(error.into());
        }
    };
    let sources = lock_tables(snapshot, &read.tables)?;
    Ok(Description {
        pg_dump,
        _pipe: read.pipe,
        header: read.header,
        toc: read.toc,
        sources,
        large_objects: read.large_objects,
    })
}

struct Read<R> {
    pipe: R,
    header: Header,
    toc: Vec<u8>,
    tables: Vec<TableEntry>,
    large_objects: Vec<LargeObjects>,
}

/// Reads a table of contents, rewriting it for a directory whose files are compressed by `format`.
fn read_toc<R: std::io::Read>(pipe: R, format: Format) -> Result<Read<R>, toc::Error> {
    let mut reader = toc::Reader::open(pipe)?;
    let header = reader.header().clone();
    let mut toc = header.to_directory(format);
    let mut tables = Vec::new();
    let mut groups: Vec<Entry> = Vec::new();
    let mut single: Vec<u32> = Vec::new();
    let mut listed: BTreeMap<i32, Vec<u32>> = BTreeMap::new();
    while let Some(entry) = reader.next_entry()? {
        let file = if entry.has_data { entry.file_name(header.version)? } else { String::new() };
        toc.extend(entry.to_directory(&file));
        match entry.kind.as_str() {
            "TABLE DATA" if entry.has_data => {
                let columns = entry.columns()?.to_owned();
                let partition_root = entry.partition_root();
                tables.push(TableEntry {
                    dump_id: entry.dump_id,
                    oid: entry.oid,
                    columns,
                    partition_root,
                });
            }
            "BLOB" => single.push(entry.oid),
            "BLOB METADATA" => {
                let oids = String::from_utf8_lossy(&entry.definition);
                let oids = oids.split_whitespace().map(str::parse).collect::<Result<_, _>>();
                let oids =
                    oids.map_err(|_| toc::Error::Damaged("a list of large objects".to_owned()))?;
                listed.insert(entry.dump_id, oids);
            }
            "BLOBS" if entry.has_data => groups.push(entry),
            _ => {}
        }
    }
    let mut large_objects = Vec::new();
    for entry in groups {
        // Since archive 1.16 a group depends on the entry that lists its members; before it there is one
        // group of all.
        let members = entry.dependencies.iter().find_map(|id| listed.remove(id));
        let oids = members.unwrap_or_else(|| std::mem::take(&mut single));
        large_objects.push(LargeObjects { toc_name: entry.file_name(header.version)?, oids });
    }
    Ok(Read { pipe: reader.into_input(), header, toc, tables, large_objects })
}

/// Looks the tables up and locks them, so that nothing changes their form or empties them from now on.
fn lock_tables(snapshot: &mut Snapshot, entries: &[TableEntry]) -> anyhow::Result<Vec<Source>> {
    let client = snapshot.connection.client();
    let oids: Vec<u32> = entries.iter().map(|entry| entry.oid).collect();
    let sql = "SELECT c.oid, n.nspname::text, c.relname::text, \
                 format('%I.%I', n.nspname, c.relname), am.amname = 'heap' AND c.relkind = 'r' \
               FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam WHERE c.oid = ANY ($1)";
    let rows =
        client.query(sql, &[&oids]).map_err(|e| db::Error::query("look the tables up", e))?;
    let by_oid: BTreeMap<u32, _> = rows.iter().map(|row| (row.get::<_, u32>(0), row)).collect();

    let qualified: Vec<&str> = rows.iter().map(|row| row.get(3)).collect();
    for batch in qualified.chunks(LOCK_BATCH) {
        let only: Vec<_> = batch.iter().map(|name| format!("ONLY {name}")).collect();
        let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE NOWAIT", only.join(", "));
        match client.batch_execute(&lock) {
            Err(e) if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                return Err(Disturbed(batch.join(", or ")).into());
            }
            locked => locked.map_err(|e| db::Error::query("lock the tables", e))?,
        }
    }

    // The catalog's row is that of the snapshot, the function tells the present: they differ if the table
    // got another file since. Sizes are of now, and now nothing can shrink.
    let sql = "SELECT c.oid, c.relfilenode <> 0 AND c.relfilenode IS DISTINCT FROM pg_catalog.pg_relation_filenode(c.oid), \
                 pg_catalog.pg_relation_size(c.oid) / current_setting('block_size')::int8, \
                 pg_catalog.pg_table_size(c.oid), \
                 (SELECT e.extcondition[i] FROM pg_catalog.pg_extension e, \
                    generate_subscripts(e.extconfig, 1) i WHERE e.extconfig[i] = c.oid LIMIT 1) \
               FROM pg_catalog.pg_class c WHERE c.oid = ANY ($1)";
    let facts =
        client.query(sql, &[&oids]).map_err(|e| db::Error::query("measure the tables", e))?;
    let facts: BTreeMap<u32, _> = facts.iter().map(|row| (row.get::<_, u32>(0), row)).collect();
    let source = |entry: &TableEntry| -> anyhow::Result<Source> {
        let (Some(row), Some(facts)) = (by_oid.get(&entry.oid), facts.get(&entry.oid)) else {
            anyhow::bail!(
                "pg_dump lists a table with oid {} that the catalog does not have",
                entry.oid
            );
        };
        let qualified: String = row.get(3);
        if facts.get::<_, bool>(1) {
            return Err(Disturbed(qualified).into());
        }
        let size = |n: usize| u64::try_from(facts.get::<_, i64>(n)).unwrap_or(0);
        Ok(Source {
            dump_id: entry.dump_id,
            schema: row.get(1),
            name: row.get(2),
            qualified,
            columns: entry.columns.clone(),
            partition_root: entry.partition_root.clone(),
            filter: facts.get::<_, Option<String>>(4).filter(|condition| !condition.is_empty()),
            pages: size(2),
            bytes: size(3),
            is_heap: row.get::<_, Option<bool>>(4).unwrap_or(false),
        })
    };
    entries.iter().map(source).collect()
}
