//! Moving the content: workers that copy rows and large objects from the snapshot into chunks.
//!
//! Each worker has a connection of its own. Rows are counted and summed up as they pass by; a chunk ends
//! at the end of a row, so that any chunk can be counted, verified and restored by itself.

use std::collections::VecDeque;
use std::io::BufRead;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use indicatif::ProgressBar;
use postgres::Client;
use postgres::error::SqlState;
use twox_hash::xxhash3_128::Hasher;

use crate::backup::manifest::LargeObject;
use crate::backup::plan::{Source, Task, copy_statement};
use crate::backup::rows::{Digest, END_MARKER, Rows};
use crate::backup::sink::{Encoded, Output, Sink};
use crate::compression::{Codec, Encoder};
use crate::db;
use crate::stop::Stop;
use crate::sync::lock;

/// Bytes before compression that all workers together may hold.
const RAW_BUDGET: usize = 32 << 20;
/// No chunk is larger than this before compression, but for one that is a single row.
const MAX_CHUNK: usize = 16 << 20;
/// Nor is one smaller, with however many workers.
const MIN_CHUNK: usize = 2 << 20;
/// How much of a large object is fetched at once.
const LARGE_OBJECT_PIECE: i32 = 1 << 20;

/// What there is to do, and whether it is still wanted.
pub(crate) struct Work<'a> {
    pub(crate) sink: &'a Sink,
    pub(crate) sources: &'a [Source],
    /// By index of the source.
    pub(crate) tables: Vec<TableOutput>,
    /// By index.
    pub(crate) large_objects: Vec<LargeObjectOutput>,
    queue: Mutex<VecDeque<Item>>,
    /// Tasks whose lock a worker could not get at once, see [`Work::run_deferred`].
    deferred: Mutex<Vec<Task>>,
    given_up: AtomicBool,
    codec: Codec,
    chunk_bytes: usize,
    progress: &'a ProgressBar,
    stop: &'a Stop,
}

#[derive(Clone, Copy)]
enum Item {
    Rows(Task),
    LargeObject(usize),
}

/// A table's artifact, and how many tasks still write to it.
pub(crate) struct TableOutput {
    pub(crate) output: Arc<Output>,
    tasks_left: AtomicUsize,
}

/// A large object's artifact, and what was found in it.
pub(crate) struct LargeObjectOutput {
    pub(crate) output: Arc<Output>,
    pub(crate) oid: u32,
    pub(crate) found: Mutex<Option<LargeObject>>,
}

impl<'a> Work<'a> {
    /// Puts all tasks into the queue.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a fact of its own, and there is one caller"
    )]
    pub(crate) fn new(
        sink: &'a Sink,
        sources: &'a [Source],
        tasks: &[Task],
        outputs: Vec<Arc<Output>>,
        large_objects: Vec<(Arc<Output>, u32)>,
        (codec, jobs): (Codec, usize),
        progress: &'a ProgressBar,
        stop: &'a Stop,
    ) -> Work<'a> {
        let mut counts = vec![0; sources.len()];
        for task in tasks {
            counts[task.table] += 1;
        }
        let tables = outputs.into_iter().zip(counts);
        let tables = tables
            .map(|(output, n)| TableOutput { output, tasks_left: AtomicUsize::new(n) })
            .collect();
        let items = tasks.iter().map(|task| Item::Rows(*task));
        let queue = items.chain((0..large_objects.len()).map(Item::LargeObject)).collect();
        let large_objects = large_objects
            .into_iter()
            .map(|(output, oid)| LargeObjectOutput { output, oid, found: Mutex::default() })
            .collect();
        Work {
            sink,
            sources,
            tables,
            large_objects,
            queue: Mutex::new(queue),
            deferred: Mutex::default(),
            given_up: AtomicBool::new(false),
            codec,
            chunk_bytes: (RAW_BUDGET / jobs.max(1)).clamp(MIN_CHUNK, MAX_CHUNK),
            progress,
            stop,
        }
    }

    /// Tells all workers that the rest is not wanted any more.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Works through the queue on one connection.
    pub(crate) fn run(&self, client: &mut Client) -> anyhow::Result<()> {
        let mut builder = self.builder()?;
        loop {
            let item = lock(&self.queue).pop_front();
            match item {
                None => return Ok(()),
                Some(Item::LargeObject(n)) => self.copy_large_object(client, &mut builder, n)?,
                Some(Item::Rows(task)) => {
                    if self.lock_table(client, task)? {
                        self.copy_rows(client, &mut builder, task)?;
                    } else {
                        lock(&self.deferred).push(task);
                    }
                }
            }
        }
    }

    /// Copies what the workers had to leave, on the connection that has held all locks from the beginning.
    ///
    /// A worker cannot get its lock while somebody waits for an exclusive one; waiting behind them would
    /// last until pg_dump lets go, that is for ever.
    pub(crate) fn run_deferred(&self, client: &mut Client) -> anyhow::Result<()> {
        let mut builder = self.builder()?;
        let tasks = std::mem::take(&mut *lock(&self.deferred));
        tasks.into_iter().try_for_each(|task| self.copy_rows(client, &mut builder, task))
    }

    fn builder(&self) -> anyhow::Result<Builder<'_>> {
        let encoder = Encoder::new(self.codec).context("failed to set up compression")?;
        Ok(Builder { work: self, encoder, raw: Vec::new(), rows: Rows::default(), row_start: 0 })
    }

    fn lock_table(&self, client: &mut Client, task: Task) -> anyhow::Result<bool> {
        let name = &self.sources[task.table].qualified;
        // A savepoint, because a refused lock would otherwise end the transaction and with it the snapshot.
        let lock = format!(
            "SAVEPOINT l; LOCK TABLE ONLY {name} IN ACCESS SHARE MODE NOWAIT; RELEASE SAVEPOINT l"
        );
        match client.batch_execute(&lock) {
            Ok(()) => Ok(true),
            Err(e) if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                let undo = client.batch_execute("ROLLBACK TO SAVEPOINT l");
                undo.map_err(|e| db::Error::query(format!("lock table {name}"), e))?;
                tracing::info!(
                    "somebody waits for an exclusive lock on table {name}, it will be copied last"
                );
                Ok(false)
            }
            Err(e) => Err(db::Error::query(format!("lock table {name}"), e).into()),
        }
    }

    fn copy_rows(
        &self,
        client: &mut Client,
        builder: &mut Builder<'_>,
        task: Task,
    ) -> anyhow::Result<()> {
        let source = &self.sources[task.table];
        let TableOutput { output, tasks_left } = &self.tables[task.table];
        let what = || format!("copy table {}", source.qualified);
        let statement = copy_statement(source, task.pages);
        let mut reader = client.copy_out(&statement).map_err(|e| db::Error::query(what(), e))?;
        loop {
            let piece = reader.fill_buf().map_err(|e| db::Error::copy(what(), e))?;
            if piece.is_empty() {
                break;
            }
            builder.push_rows(piece);
            let length = piece.len();
            reader.consume(length);
            if builder.is_full() && builder.ends_with_row() {
                builder.flush(output, false)?;
            }
        }
        drop(reader);
        anyhow::ensure!(
            builder.ends_with_row(),
            "the copy of table {} ended within a row",
            source.qualified
        );
        if task.pages.is_none() {
            builder.raw.extend_from_slice(END_MARKER);
            builder.flush(output, true)?;
        } else {
            if !builder.raw.is_empty() {
                builder.flush(output, false)?;
            }
            if tasks_left.fetch_sub(1, Ordering::AcqRel) == 1 {
                builder.raw.extend_from_slice(END_MARKER);
                builder.flush(output, true)?;
            }
        }
        self.progress.inc(task.bytes);
        Ok(())
    }

    fn copy_large_object(
        &self,
        client: &mut Client,
        builder: &mut Builder<'_>,
        n: usize,
    ) -> anyhow::Result<()> {
        let LargeObjectOutput { output, oid, found } = &self.large_objects[n];
        let mut bytes: i64 = 0;
        let mut hasher = Hasher::new();
        loop {
            let sql = "SELECT pg_catalog.lo_get($1, $2, $3)";
            let row = client.query_one(sql, &[oid, &bytes, &LARGE_OBJECT_PIECE]);
            let row = row.map_err(|e| db::Error::query(format!("copy large object {oid}"), e))?;
            let piece: &[u8] = row.get(0);
            hasher.write(piece);
            builder.raw.extend_from_slice(piece);
            bytes += i64::try_from(piece.len())?;
            let ended = piece.len() < usize::try_from(LARGE_OBJECT_PIECE)?;
            if builder.is_full() || ended {
                builder.flush(output, ended)?;
            }
            if ended {
                break;
            }
        }
        let object = LargeObject {
            oid: *oid,
            bytes: u64::try_from(bytes)?,
            digest: Digest::of_bytes(&hasher),
        };
        *lock(found) = Some(object);
        Ok(())
    }
}

/// A chunk in the making.
struct Builder<'a> {
    work: &'a Work<'a>,
    encoder: Encoder,
    raw: Vec<u8>,
    rows: Rows,
    /// Where the row begins whose end has not come yet.
    row_start: usize,
}

impl Builder<'_> {
    /// Appends COPY text, counting the rows whose end is in it.
    fn push_rows(&mut self, piece: &[u8]) {
        let mut searched = self.raw.len();
        self.raw.extend_from_slice(piece);
        while let Some(n) = memchr::memchr(b'\n', &self.raw[searched..]) {
            let end = searched + n;
            self.rows.add(&self.raw[self.row_start..end]);
            self.row_start = end + 1;
            searched = end + 1;
        }
    }

    fn ends_with_row(&self) -> bool {
        self.row_start == self.raw.len()
    }

    fn is_full(&self) -> bool {
        self.raw.len() >= self.work.chunk_bytes
    }

    /// Encodes what there is and passes it on.
    fn flush(&mut self, output: &Arc<Output>, last: bool) -> anyhow::Result<()> {
        self.work.stop.check()?;
        anyhow::ensure!(
            !self.work.given_up.load(Ordering::Relaxed),
            "given up, because another part failed"
        );
        let bytes = self.encoder.encode(&self.raw).context("failed to compress a chunk")?;
        let raw_bytes = self.raw.len() as u64;
        // A single enormous row must not keep its buffer for the rest of the run.
        if self.raw.capacity() > 2 * MAX_CHUNK {
            self.raw = Vec::new();
        }
        self.raw.clear();
        self.row_start = 0;
        let rows = std::mem::take(&mut self.rows);
        self.work.sink.append(output, Encoded { bytes, raw_bytes, rows, last })
    }
}
