//! The way of chunks into the repositories: every chunk is made once and written to all of them at once.
//!
//! Each repository has a lane: a few threads with bounded queues. A lane that fails is given up and the
//! others go on; when none is left, [`Sink::append`] fails. The bytes under way have a common budget, so
//! that memory does not grow with the data. Nothing here publishes a backup: see `take.rs`.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::Context as _;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::backup::manifest::{Artifact, Chunk, Kind, Layout};
use crate::backup::repository::{Folder, Repository};
use crate::backup::rows::{Digest, Rows};
use crate::compression::Format;
use crate::storage::{Overwrite, Writer};
use crate::sync::lock;

/// Writing threads of a repository.
const LANE_THREADS: u32 = 4;
/// Chunks waiting in front of each of them.
const QUEUE: usize = 2;
/// Compressed bytes under way, all lanes together.
const BUDGET: usize = 32 << 20;

/// Where chunks go.
pub(crate) struct Sink {
    lanes: Vec<Lane>,
    budget: Arc<Budget>,
    artifacts: Mutex<Vec<Arc<Output>>>,
    /// Are rows only counted and summed up?
    counting: bool,
}

/// An artifact in the making; chunks may be appended by several threads.
pub(crate) struct Output {
    number: u32,
    name: String,
    kind: Kind,
    compression: Format,
    state: Mutex<OutputState>,
}

#[derive(Default)]
struct OutputState {
    sha256: Sha256,
    size: u64,
    rows: Rows,
    chunks: Vec<Made>,
}

/// A chunk as it was made, before any encryption.
struct Made {
    object: String,
    size: u64,
    sha256: [u8; 32],
    raw_bytes: u64,
    rows: Rows,
}

/// A chunk to be appended.
pub(crate) struct Encoded {
    /// The compressed bytes.
    pub(crate) bytes: Vec<u8>,
    pub(crate) raw_bytes: u64,
    pub(crate) rows: Rows,
    /// Is this the artifact's last chunk?
    pub(crate) last: bool,
}

/// A chunk as one repository has it.
struct Stored {
    size: u64,
    sha256: [u8; 32],
}

/// A chunk on its way into one repository.
struct Job {
    output: Arc<Output>,
    chunk: u32,
    object: String,
    bytes: Bytes,
    last: bool,
    /// Held until every lane is done with the bytes.
    permit: Arc<Permit>,
}

struct Lane {
    repository: Repository,
    senders: Vec<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
    shared: Arc<LaneState>,
}

#[derive(Default)]
struct LaneState {
    failure: Mutex<Option<anyhow::Error>>,
    /// By artifact and chunk number; only where chunks are encrypted, else they are as they were made.
    stored: Mutex<HashMap<(u32, u32), Stored>>,
}

/// What became of one repository's part.
pub(crate) struct LaneResult {
    pub(crate) repository: Repository,
    /// The artifacts as they lie in the repository, or why there is no backup in it.
    pub(crate) artifacts: anyhow::Result<Vec<Artifact>>,
}

impl Sink {
    /// Begins to write into `folder` of each repository.
    pub(crate) fn begin(repositories: &[Repository], folder: &Folder) -> Sink {
        let lanes = repositories.iter().map(|repository| Lane::begin(repository, folder)).collect();
        Sink { lanes, counting: false, ..Sink::counting() }
    }

    /// Begins to write nowhere: rows are counted and summed up, and their text is forgotten.
    pub(crate) fn counting() -> Sink {
        Sink {
            lanes: Vec::new(),
            budget: Arc::new(Budget::default()),
            artifacts: Mutex::default(),
            counting: true,
        }
    }

    /// Begins an artifact.
    pub(crate) fn create(
        &self,
        name: impl Into<String>,
        kind: Kind,
        compression: Format,
    ) -> Arc<Output> {
        let mut artifacts = lock(&self.artifacts);
        let number = u32::try_from(artifacts.len()).unwrap_or(u32::MAX);
        let output =
            Output { number, name: name.into(), kind, compression, state: Mutex::default() };
        let output = Arc::new(output);
        artifacts.push(Arc::clone(&output));
        output
    }

    /// Appends a chunk to an artifact; blocks while too many bytes are under way.
    ///
    /// Fails when no repository is left that could have it.
    pub(crate) fn append(&self, output: &Arc<Output>, chunk: Encoded) -> anyhow::Result<()> {
        if self.counting {
            lock(&output.state).rows.merge(chunk.rows);
            return Ok(());
        }
        if self.lanes.iter().all(Lane::has_failed) {
            anyhow::bail!("no repository is left to write to");
        }
        let permit = Arc::new(self.budget.acquire(chunk.bytes.len()));
        let sha256: [u8; 32] = Sha256::digest(&chunk.bytes).into();
        let bytes = Bytes::from(chunk.bytes);
        // The lock is held while the jobs are queued: the order of chunks in a joined file is that of
        // the queue.
        let mut state = lock(&output.state);
        let number = u32::try_from(state.chunks.len() + 1).context("too many chunks")?;
        let object = if number == 1 && chunk.last {
            output.name.clone()
        } else {
            format!("{}.{number:06}", output.name)
        };
        state.sha256.update(&bytes);
        state.size += bytes.len() as u64;
        state.rows.merge(chunk.rows);
        let made = Made {
            object: object.clone(),
            size: bytes.len() as u64,
            sha256,
            raw_bytes: chunk.raw_bytes,
            rows: chunk.rows,
        };
        state.chunks.push(made);
        for lane in &self.lanes {
            lane.send(Job {
                output: Arc::clone(output),
                chunk: number,
                object: object.clone(),
                bytes: bytes.clone(),
                last: chunk.last,
                permit: Arc::clone(&permit),
            });
        }
        Ok(())
    }

    /// Waits until everything is stored, and says what each repository has.
    pub(crate) fn finish(self) -> Vec<LaneResult> {
        let outputs = std::mem::take(&mut *lock(&self.artifacts));
        self.lanes.into_iter().map(|lane| lane.finish(&outputs)).collect()
    }
}

impl Output {
    /// Returns the artifact's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the rows appended so far.
    pub(crate) fn rows(&self) -> Rows {
        lock(&self.state).rows
    }

    /// Returns the digests of the chunks appended so far, in order.
    pub(crate) fn chunk_digests(&self) -> Vec<Digest> {
        lock(&self.state).chunks.iter().map(|made| made.rows.digest).collect()
    }

    /// Describes the artifact as a repository has it.
    fn describe(
        &self,
        layout: Layout,
        encrypted: bool,
        stored: &HashMap<(u32, u32), Stored>,
    ) -> Artifact {
        let state = lock(&self.state);
        let chunk = |(made, number): (&Made, u32)| {
            let kept = stored.get(&(self.number, number));
            Chunk {
                object: (layout == Layout::Objects).then(|| object_name(&made.object, encrypted)),
                size: kept.map_or(made.size, |s| s.size),
                sha256: hex(kept.map_or(&made.sha256, |s| &s.sha256)),
                raw_bytes: made.raw_bytes,
                rows: made.rows.count,
            }
        };
        Artifact {
            name: self.name.clone(),
            kind: self.kind,
            compression: self.compression,
            size: state.size,
            sha256: hex(&state.sha256.clone().finalize()),
            chunks: state.chunks.iter().zip(1..).map(chunk).collect(),
        }
    }
}

/// Returns the name under which a chunk is stored.
fn object_name(object: &str, encrypted: bool) -> String {
    if encrypted { format!("{object}.age") } else { object.to_owned() }
}

impl Lane {
    fn begin(repository: &Repository, folder: &Folder) -> Lane {
        let shared = Arc::new(LaneState::default());
        let mut senders = Vec::new();
        let mut threads = Vec::new();
        for _ in 0..LANE_THREADS {
            let (sender, receiver) = sync_channel(QUEUE);
            let (repository, folder, shared) =
                (repository.clone(), folder.clone(), Arc::clone(&shared));
            senders.push(sender);
            threads.push(std::thread::spawn(move || {
                write_all(&repository, &folder, &shared, &receiver);
            }));
        }
        Lane { repository: repository.clone(), senders, threads, shared }
    }

    fn has_failed(&self) -> bool {
        lock(&self.shared.failure).is_some()
    }

    fn send(&self, job: Job) {
        // Chunks of a joined file must stay in order, so one thread writes all of them.
        let spread = match self.repository.layout {
            Layout::Joined => job.output.number,
            Layout::Objects => job.output.number.wrapping_add(job.chunk),
        };
        let sender = usize::try_from(spread % LANE_THREADS).ok().and_then(|n| self.senders.get(n));
        if sender.is_none_or(|sender| sender.send(job).is_err()) {
            fail(&self.shared, anyhow::anyhow!("a writing thread ended early"));
        }
    }

    fn finish(self, outputs: &[Arc<Output>]) -> LaneResult {
        drop(self.senders);
        for thread in self.threads {
            if thread.join().is_err() {
                fail(&self.shared, anyhow::anyhow!("a writing thread panicked"));
            }
        }
        let stored = lock(&self.shared.stored);
        let artifacts = if let Some(failure) = lock(&self.shared.failure).take() {
            Err(failure)
        } else {
            let encrypted = self.repository.recipients.is_some();
            Ok(outputs
                .iter()
                .map(|o| o.describe(self.repository.layout, encrypted, &stored))
                .collect())
        };
        drop(stored);
        LaneResult { repository: self.repository, artifacts }
    }
}

/// Writes what comes until the queue is closed; after a failure it only empties the queue.
fn write_all(repository: &Repository, folder: &Folder, shared: &LaneState, jobs: &Receiver<Job>) {
    let mut writers: HashMap<u32, Box<dyn Writer>> = HashMap::new();
    for job in jobs {
        if lock(&shared.failure).is_some() {
            writers.clear();
            continue;
        }
        if let Err(error) = write_chunk(repository, folder, shared, &mut writers, job) {
            fail(shared, error);
        }
    }
    if !writers.is_empty() {
        fail(shared, anyhow::anyhow!("an artifact was not finished"));
    }
}

fn write_chunk(
    repository: &Repository,
    folder: &Folder,
    shared: &LaneState,
    writers: &mut HashMap<u32, Box<dyn Writer>>,
    job: Job,
) -> anyhow::Result<()> {
    let Job { output, chunk, object, bytes, last, permit: _permit } = job;
    if repository.layout == Layout::Joined {
        let key = folder.key(&output.name)?;
        let mut writer = match writers.remove(&output.number) {
            Some(writer) => writer,
            None => {
                repository.storage.create(&key)?.context("the storage cannot append to files")?
            }
        };
        writer.append(&bytes)?;
        if last {
            writer.finish()?;
        } else {
            writers.insert(output.number, writer);
        }
        return Ok(());
    }
    let Some(recipients) = &repository.recipients else {
        return Ok(repository.storage.put(&folder.key(&object)?, bytes, Overwrite::Refuse)?);
    };
    let sealed = recipients.encrypt(&bytes)?;
    drop(bytes);
    let stored = Stored { size: sealed.len() as u64, sha256: Sha256::digest(&sealed).into() };
    repository.storage.put(
        &folder.key(&object_name(&object, true))?,
        sealed.into(),
        Overwrite::Refuse,
    )?;
    lock(&shared.stored).insert((output.number, chunk), stored);
    Ok(())
}

/// Records the first failure of a lane.
fn fail(shared: &LaneState, error: anyhow::Error) {
    let mut failure = lock(&shared.failure);
    if failure.is_none() {
        *failure = Some(error);
    }
}

/// Bytes that may be under way.
#[derive(Default)]
struct Budget {
    used: Mutex<usize>,
    freed: Condvar,
}

/// A share of the budget, given back when dropped.
struct Permit {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// Waits for room; a chunk larger than the whole budget passes when it is alone.
    fn acquire(self: &Arc<Budget>, bytes: usize) -> Permit {
        let mut used = lock(&self.used);
        while *used > 0 && *used + bytes > BUDGET {
            used = self.freed.wait(used).unwrap_or_else(PoisonError::into_inner);
        }
        *used += bytes;
        Permit { budget: Arc::clone(self), bytes }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *lock(&self.budget.used) -= self.bytes;
        self.budget.freed.notify_all();
    }
}

/// Returns bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
