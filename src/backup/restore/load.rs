//! Moving the content back: workers that load chunks straight from the repository, those of one table side by side.
//!
//! Every chunk is compared with the manifest before it is sent, and every table's count and digest when all its chunks
//! are in. The tables must be there, empty, and still without indexes and triggers.

use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::Mutex;

use anyhow::Context as _;
use indicatif::ProgressBar;
use postgres::{Client, GenericClient};
use twox_hash::xxhash3_128::Hasher;

use crate::backup::chunk::{self, Source};
use crate::backup::manifest::{Artifact, Chunk, Detail, LargeObject};
use crate::backup::rows::{Digest, Rows};
use crate::db::{self, Connection, Target};
use crate::exit::{Exit, Failure};
use crate::stop::{Reason, Stop};
use crate::sync::{into_inner, lock};

/// How much goes into one message of the protocol.
const PIECE: usize = 1 << 18;

/// A table to load.
pub(crate) struct TableLoad<'a> {
    pub(crate) artifact: &'a Artifact,
    /// The `COPY … FROM stdin` of the table of contents.
    pub(crate) statement: String,
    /// The chunks to load, by index.
    pub(crate) chunks: Vec<usize>,
}

impl<'a> TableLoad<'a> {
    /// Returns what the manifest says of the chunks to load.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = &'a Chunk> {
        let artifact = self.artifact;
        self.chunks.iter().map(move |&c| &artifact.chunks[c])
    }
}

/// What there is to load.
pub(crate) struct Load<'a> {
    pub(crate) source: Source<'a>,
    pub(crate) detail: &'a Detail,
    pub(crate) tables: Vec<TableLoad<'a>>,
    pub(crate) large_objects: Vec<&'a Artifact>,
    pub(crate) target: &'a Target,
    /// The encoding of the rows, as the table of contents says.
    pub(crate) encoding: String,
    pub(crate) jobs: usize,
    pub(crate) progress: &'a ProgressBar,
    pub(crate) stop: &'a Stop,
}

#[derive(Clone, Copy)]
enum Item {
    /// A chunk of a table, both by their indexes.
    Chunk(usize, usize),
    LargeObject(usize),
}

/// What has been loaded of a table.
#[derive(Default)]
struct Loaded {
    chunks: usize,
    rows: Rows,
}

impl Load<'_> {
    /// Loads everything. The first error ends all; what was loaded until then stays.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let mut order: Vec<usize> = (0..self.tables.len()).collect();
        order.sort_by_key(|&n| std::cmp::Reverse(self.tables[n].artifact.size));
        let chunks = order
            .into_iter()
            .flat_map(|t| self.tables[t].chunks.iter().map(move |&c| Item::Chunk(t, c)));
        let items = chunks.chain((0..self.large_objects.len()).map(Item::LargeObject));
        let queue: Mutex<VecDeque<Item>> = Mutex::new(items.collect());
        let loaded: Vec<Mutex<Loaded>> = self.tables.iter().map(|_| Mutex::default()).collect();
        let failure: Mutex<Option<anyhow::Error>> = Mutex::new(None);
        // Ends the other workers' statements; its reason is never told, because the failure is there first.
        let halt = Stop::new();
        let _on_stop = {
            let halt = halt.clone();
            self.stop.on_stop(move || halt.request(Reason::Deadline))
        };
        let worker = || -> anyhow::Result<()> {
            let mut connection = self.connect(&halt)?;
            loop {
                self.stop.check()?;
                let item = lock(&queue).pop_front();
                match item {
                    None => return Ok(()),
                    Some(Item::Chunk(t, c)) => {
                        self.load_chunk(connection.client(), t, c, &loaded[t])?;
                    }
                    Some(Item::LargeObject(n)) => {
                        self.load_large_object(connection.client(), self.large_objects[n])?;
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    if let Err(error) = worker() {
                        lock(&failure).get_or_insert(error);
                        lock(&queue).clear();
                        halt.request(Reason::Deadline);
                    }
                });
            }
        });
        self.stop.check()?;
        into_inner(failure).map_or(Ok(()), Err)
    }

    /// Loads everything on one session, in the transaction that is open there; returns how many rows that were.
    ///
    /// Large objects must not be there yet.
    pub(crate) fn load_in_transaction(&self, client: &mut Client) -> anyhow::Result<u64> {
        let mut rows = 0;
        for (t, table) in self.tables.iter().enumerate() {
            let loaded = Mutex::default();
            for &chunk in &table.chunks {
                self.stop.check()?;
                self.load_chunk(client, t, chunk, &loaded)?;
            }
            rows += into_inner(loaded).rows.count;
        }
        for artifact in &self.large_objects {
            self.stop.check()?;
            let object = self.described(artifact)?;
            let created = client.execute("SELECT pg_catalog.lo_create($1)", &[&object.oid]);
            let what = || format!("create large object {}", object.oid);
            created.map_err(|e| db::Error::query(what(), e))?;
            self.put_large_object(client, artifact, object)?;
        }
        Ok(rows)
    }

    /// Opens a session that reads rows as pg_dump wrote them.
    ///
    /// It does not wait for its commits to be on disk: what is loaded counts when the database gets its name, and that
    /// commit takes all before it along.
    pub(crate) fn connect(&self, stop: &Stop) -> Result<Connection, db::Error> {
        let mut connection = self.target.connect("opsctl restore", stop)?;
        let sql = format!(
            "SET client_encoding = '{}'; SET standard_conforming_strings = on; \
             SET statement_timeout = 0; SET lock_timeout = 0; SET synchronous_commit = off; \
             SET idle_in_transaction_session_timeout = 0; SET check_function_bodies = off; \
             SET xmloption = content; SET row_security = off; SET default_transaction_read_only = off; \
             SET DateStyle = ISO; SET IntervalStyle = postgres; SET TimeZone = 'UTC'; \
             SELECT pg_catalog.set_config('search_path', '', false)",
            self.encoding.replace('\'', "''")
        );
        let set_up = connection.client().batch_execute(&sql);
        set_up.map_err(|e| db::Error::query("set the session up", e))?;
        Ok(connection)
    }

    fn load_chunk(
        &self,
        client: &mut Client,
        t: usize,
        c: usize,
        loaded: &Mutex<Loaded>,
    ) -> anyhow::Result<()> {
        let TableLoad { artifact, statement, chunks } = &self.tables[t];
        let raw = self.read(artifact, c)?;
        let expected = self.detail.tables.get(&artifact.name);
        let (text, rows) = chunk::rows(artifact, c, &raw, expected)?;
        if rows.count > 0 {
            let what = || format!("load `{}`, chunk {}", artifact.name, c + 1);
            let mut writer =
                client.copy_in(statement.as_str()).map_err(|e| db::Error::query(what(), e))?;
            for piece in text.chunks(PIECE) {
                writer.write_all(piece).map_err(|e| db::Error::copy(what(), e))?;
            }
            let count = writer.finish().map_err(|e| db::Error::query(what(), e))?;
            anyhow::ensure!(
                count == rows.count,
                "the server stored {count} of {} rows of `{}`, chunk {}",
                rows.count,
                artifact.name,
                c + 1
            );
        }
        self.progress.inc(artifact.chunks[c].raw_bytes);
        let mut loaded = lock(loaded);
        loaded.rows.merge(rows);
        loaded.chunks += 1;
        if loaded.chunks == chunks.len()
            && let Some(table) = expected
            && (table.rows, table.digest) != (loaded.rows.count, loaded.rows.digest)
        {
            return Err(differs(&format!("the rows of {}.{}", table.schema, table.name)));
        }
        Ok(())
    }

    /// Writes a large object that exists, empty.
    fn load_large_object(&self, client: &mut Client, artifact: &Artifact) -> anyhow::Result<()> {
        let object = self.described(artifact)?;
        let what = || format!("load large object {}", object.oid);
        let mut transaction = client.transaction().map_err(|e| db::Error::query(what(), e))?;
        self.put_large_object(&mut transaction, artifact, object)?;
        transaction.commit().map_err(|e| db::Error::query(what(), e))?;
        Ok(())
    }

    fn described(&self, artifact: &Artifact) -> anyhow::Result<&LargeObject> {
        let object = self.detail.large_objects.get(&artifact.name);
        object.with_context(|| {
            format!("the manifest does not say which large object `{}` is", artifact.name)
        })
    }

    /// Writes the content of a large object in the transaction that is open.
    fn put_large_object(
        &self,
        transaction: &mut impl GenericClient,
        artifact: &Artifact,
        object: &LargeObject,
    ) -> anyhow::Result<()> {
        let what = || format!("load large object {}", object.oid);
        let mut hasher = Hasher::new();
        let mut at: i64 = 0;
        for c in 0..artifact.chunks.len() {
            let raw = self.read(artifact, c)?;
            hasher.write(&raw);
            for piece in raw.chunks(4 * PIECE) {
                let put = "SELECT pg_catalog.lo_put($1, $2, $3)";
                let put = transaction.execute(put, &[&object.oid, &at, &piece]);
                put.map_err(|e| db::Error::query(what(), e))?;
                at += i64::try_from(piece.len())?;
            }
            self.progress.inc(artifact.chunks[c].raw_bytes);
        }
        if Digest::of_bytes(&hasher) != object.digest {
            return Err(differs(&format!("large object {}", object.oid)));
        }
        Ok(())
    }

    fn read(&self, artifact: &Artifact, c: usize) -> anyhow::Result<Vec<u8>> {
        let content = self.source.read(artifact, c)?;
        content.raw.ok_or_else(|| anyhow::anyhow!("`{}` is encrypted", artifact.name))
    }
}

fn differs(what: &str) -> anyhow::Error {
    let message = format!("{what} in the backup are not what was dumped: the digest differs");
    Failure::new(Exit::BadNews, message)
        .hint("The backup is damaged: `opsctl verify-backup` says where. Restore another one.")
        .into()
}
