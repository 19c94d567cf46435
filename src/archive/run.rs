//! How a table is archived: what is closed and not covered yet, and what came late, each as a segment.
//!
//! The order makes it safe to be killed anywhere: rows, read back, signature, manifest, and then the copy for questions. A segment exists
//! when its manifest does, and the next run makes anew, under another name, what never came so far.

use std::collections::{BTreeMap, HashSet};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use anyhow::Context as _;
use bytes::Bytes;

use crate::archive::evidence::{self, Lines};
use crate::archive::folder::{Contents, Folder, Segment};
use crate::archive::line::{Shape, fingerprint};
use crate::archive::manifest::{File, MANIFEST, Manifest, Merkle, Place, hex, sha256};
use crate::archive::merkle::{Roots, Tree};
use crate::archive::query_copy::{self, Spool};
use crate::archive::row::Row;
use crate::archive::signature::{SUFFIX, Signer, Signers};
use crate::archive::source::{Facts, Keys, Source, positions};
use crate::archive::verify::{self, Finding};
use crate::archive::window::{self, Window};
use crate::clock::Moment;
use crate::config::AuditTable;
use crate::db::Target;
use crate::stop::Stop;
use crate::storage::{self, Key, Overwrite};

/// How a third party checks an archive: lies beside the segments.
const HOWTO: &str = include_str!("howto.md");

/// What to archive, and with what.
pub(crate) struct Request<'r> {
    pub(crate) target: &'r Target,
    pub(crate) audit: &'r AuditTable,
    pub(crate) folder: &'r Folder,
    pub(crate) signer: &'r Signer,
    pub(crate) signers: &'r Signers,
    pub(crate) now: Moment,
    /// For whom rows are encrypted, as the configuration has them.
    pub(crate) recipients: &'r [String],
    /// For how long the storage was told to keep what is stored.
    pub(crate) lock_days: Option<u32>,
    pub(crate) dry_run: bool,
    /// Only what came late for these windows.
    pub(crate) only_late: Option<&'r [Window]>,
    pub(crate) stop: &'r Stop,
}

/// What was archived, or would be.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) cutoff: Option<Moment>,
    pub(crate) segments: Vec<Archived>,
    /// How many segments got a copy as Parquet, or would.
    pub(crate) copies: usize,
    /// Partitions that an earlier run had taken out of the table, and was killed: they are back.
    pub(crate) taken_back: Vec<String>,
    /// How many segments there are in the end.
    pub(crate) there: usize,
    /// Why nothing was added.
    pub(crate) findings: Vec<Finding>,
}

/// A new segment.
pub(crate) struct Archived {
    pub(crate) name: String,
    pub(crate) late: bool,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// What the rows of a segment come to.
struct Written {
    roots: Roots,
    keys: Keys,
    files: Vec<File>,
    first: Option<Place>,
    last: Option<Place>,
}

/// Archives what is to be archived.
pub(crate) fn run(request: &Request<'_>) -> anyhow::Result<Outcome> {
    let audit = request.audit;
    let mut contents = request.folder.contents()?;
    for name in &contents.unfinished {
        tracing::info!("`{name}` in {} was never finished, left alone", request.folder.place());
    }
    let findings = verify::manifests(&contents, request.signers);
    if !findings.is_empty() {
        let there = contents.segments.len();
        return Ok(Outcome { there, findings, ..Outcome::default() });
    }
    let mut source = Source::open(request.target, audit, request.stop)?;
    let known = contents.segments.iter().filter_map(|segment| segment.manifest.as_ref().ok());
    if let Some(other) = known
        .clone()
        .find(|known| known.database != source.facts.database || known.table != source.facts.table)
    {
        anyhow::bail!(
            "{} has segments of {} of database {}",
            request.folder.place(),
            other.table,
            other.database
        );
    }
    let cutoff = window::cutoff(request.now, audit.hot_period, audit.window)
        .context("`hot_period` goes back to before time began")?;
    let covered: Vec<Window> = known.map(|known| known.window).collect();
    let new = if request.only_late.is_some() {
        Vec::new()
    } else {
        let closed = window::closed(source.oldest(cutoff)?, &covered, cutoff, audit.window)?;
        window::without_gap(closed, &covered)
    };
    let mut outcome = Outcome { cutoff: Some(cutoff), ..Outcome::default() };
    if !request.dry_run {
        beside(request)?;
    }
    let late = late(request, &contents, &mut source)?;
    // What is late comes last: it needs what is archived, which may be encrypted, and nothing here to read it with.
    let windows = new.into_iter().map(|window| (window, false));
    let windows: Vec<_> = windows.chain(late.into_iter().map(|window| (window, true))).collect();
    let added = thread::scope(|scope| {
        let (to, from) = mpsc::sync_channel(1);
        let (contents, outcome) = (&contents, &mut outcome);
        let finishing = scope.spawn(move || finish(request, contents, &from, outcome));
        let exported = export(request, contents, &mut source, &windows, &to);
        drop(to);
        // When the second half failed the first one only says that nobody listens.
        let finished = finishing.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        finished.and_then(|segments| exported.map(|()| segments))
    })?;
    contents.segments.extend(added);
    outcome.there = contents.segments.len();
    if audit.parquet {
        copies(request, &mut contents, &mut outcome)?;
    }
    Ok(outcome)
}

/// Makes the copies for questions that are missing, also those of earlier segments.
fn copies(
    request: &Request<'_>,
    contents: &mut Contents,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    for segment in &mut contents.segments {
        outcome.copies += usize::from(copy(request, segment, None)?);
    }
    Ok(())
}

/// Makes the copy of a segment, unless it is there or there are no rows; in a dry run only the answer is given, whether it is made.
fn copy(
    request: &Request<'_>,
    segment: &mut Segment,
    spool: Option<Spool>,
) -> anyhow::Result<bool> {
    let Ok(manifest) = &segment.manifest else { return Ok(false) };
    // What was encrypted is not shown in the clear later.
    if segment.has_copy || manifest.rows == 0 || !manifest.recipients.is_empty() {
        return Ok(false);
    }
    if !request.dry_run {
        query_copy::make(request, segment, manifest, spool)
            .with_context(|| format!("failed to make Parquet of segment {}", segment.name))?;
        segment.has_copy = true;
    }
    Ok(true)
}

/// Returns the windows that are archived, and whose rows in the table are not just those that are archived.
///
/// Rows that were deleted make one of them, too: then nothing is late.
fn late(
    request: &Request<'_>,
    contents: &Contents,
    source: &mut Source,
) -> anyhow::Result<Vec<Window>> {
    let mut archived: BTreeMap<Window, Keys> = BTreeMap::new();
    for manifest in contents.segments.iter().filter_map(|s| s.manifest.as_ref().ok()) {
        if manifest.key != source.facts.key {
            let key = manifest.key.join(", ");
            anyhow::bail!(
                "the key was {key} when segment {} was archived: say so in `key`",
                manifest.number
            );
        }
        let keys = archived.entry(manifest.window).or_default();
        keys.rows += manifest.rows;
        keys.sum = keys.sum.wrapping_add(manifest.keys());
    }
    let mut late = Vec::new();
    archived.retain(|window, _| request.only_late.is_none_or(|only| only.contains(window)));
    for (window, archived) in archived {
        request.stop.check()?;
        let found = source.keys(window)?;
        if found.rows > 0 && found != archived {
            late.push(window);
        }
    }
    Ok(late)
}

/// Reads the keys of all rows of a window that are archived.
fn archived_keys(
    request: &Request<'_>,
    contents: &Contents,
    window: Window,
) -> anyhow::Result<HashSet<u128>> {
    let (mut known, mut row) = (HashSet::new(), Row::default());
    for segment in &contents.segments {
        let Ok(manifest) = &segment.manifest else { continue };
        if manifest.window != window {
            continue;
        }
        let key = positions(&manifest.columns, &manifest.key);
        let shape = Shape::of(&manifest.columns);
        let (files, stop) = (&manifest.files, request.stop);
        let reading = evidence::read(request.folder, &segment.name, files, stop, |text| {
            shape.read(text, &mut row).context("a line is no row")?;
            known.insert(fingerprint(key.iter().map(|n| row.get(*n))));
            Ok(())
        })?;
        reading.whole(&segment.name)?;
    }
    Ok(known)
}

/// The rows of a window are stored; what is left is to prove it and to make a segment of them.
struct Exported {
    name: String,
    window: Window,
    late: bool,
    facts: Facts,
    written: Written,
}

/// Stores the rows of windows, one after the other, and hands each over. Of a late one without late rows nothing is made.
fn export(
    request: &Request<'_>,
    contents: &Contents,
    source: &mut Source,
    windows: &[(Window, bool)],
    to: &SyncSender<Exported>,
) -> anyhow::Result<()> {
    for (window, late) in windows.iter().copied() {
        request.stop.check()?;
        let known = if late { Some(archived_keys(request, contents, window)?) } else { None };
        let name = contents.new_name(window);
        let written = write(request, &name, source, window, known.as_ref())?;
        if late && written.keys.rows == 0 {
            continue;
        }
        let facts = source.facts.clone();
        let exported = Exported { name, window, late, facts, written };
        anyhow::ensure!(to.send(exported).is_ok(), "the rest of the work ended early");
    }
    Ok(())
}

/// Proves what was stored and makes segments of it, while the next window is exported. Returns those that are new.
fn finish(
    request: &Request<'_>,
    contents: &Contents,
    from: &Receiver<Exported>,
    outcome: &mut Outcome,
) -> anyhow::Result<Vec<Segment>> {
    let mut added: Vec<Segment> = Vec::new();
    for exported in from {
        outcome.segments.push(Archived {
            name: exported.name.clone(),
            late: exported.late,
            rows: exported.written.keys.rows,
            bytes: exported.written.files.iter().map(|file| file.bytes).sum(),
        });
        if request.dry_run {
            outcome.copies += usize::from(request.audit.parquet && exported.written.keys.rows > 0);
            continue;
        }
        let before = added.last().or(contents.segments.last());
        let number = contents.segments.len() + added.len() + 1;
        let name = exported.name.clone();
        let manifest = manifest(request, exported, number as u64, before);
        let mut spool = request.audit.parquet.then(|| Spool::new(&manifest));
        // What was just stored, and not what is in memory, is what the manifest vouches for, and what the copy is made of.
        let see = |text: &[u8], row: &Row| {
            // One that does not take a value is made again, later.
            spool.take_if(|spool| spool.push(text, row).is_err());
            Ok(())
        };
        let findings = verify::rows_seen(request.folder, &name, &manifest, request.stop, see)?;
        if let Some(Finding { kind, what, .. }) = findings.first() {
            anyhow::bail!("what was stored of `{name}` is not what comes back ({kind}): {what}");
        }
        let mut segment = publish(request, &name, manifest)?;
        if let Some(spool) = spool {
            outcome.copies += usize::from(copy(request, &mut segment, Some(spool))?);
        }
        added.push(segment);
    }
    Ok(added)
}

fn manifest(
    request: &Request<'_>,
    exported: Exported,
    number: u64,
    before: Option<&Segment>,
) -> Manifest {
    let Exported { window, late, facts, written, .. } = exported;
    Manifest {
        version: Manifest::VERSION,
        opsctl: env!("CARGO_PKG_VERSION").to_owned(),
        number,
        previous_sha256: before.map(|segment| segment.sha256.clone()),
        database: facts.database,
        system_identifier: facts.system_identifier,
        table: facts.table,
        comment: facts.comment,
        columns: facts.columns,
        time_column: facts.time_column,
        key: facts.key,
        settings: Source::settings(),
        window,
        late,
        taken_at: request.now,
        wal_position: facts.wal_position,
        rows: written.keys.rows,
        first: written.first,
        last: written.last,
        keys: hex(&written.keys.sum.to_be_bytes()),
        recipients: request.recipients.to_vec(),
        files: written.files,
        merkle: Merkle::of(&written.roots),
    }
}

/// Stores the rows of a window; in a dry run they are only counted.
fn write(
    request: &Request<'_>,
    name: &str,
    source: &mut Source,
    window: Window,
    known: Option<&HashSet<u128>>,
) -> anyhow::Result<Written> {
    let mut lines = Lines::new(request.folder, name)?;
    let (mut tree, mut keys) = (Tree::default(), Keys::default());
    let (mut first, mut last) = (None, None);
    let key = source.facts.key_positions();
    let time = positions(&source.facts.columns, std::slice::from_ref(&source.facts.time_column));
    let shape = Shape::of(&source.facts.columns);
    let mut text = Vec::new();
    let read = source.rows(window, |row| {
        let fingerprint = fingerprint(key.iter().map(|n| row.get(*n)));
        if known.is_some_and(|known| known.contains(&fingerprint)) {
            return Ok(());
        }
        keys.add(fingerprint);
        if request.dry_run {
            return Ok(());
        }
        text.clear();
        shape.write(row, &mut text)?;
        tree.push(&text);
        lines.push(&text)?;
        if first.is_none() {
            first = Some(place(row, &time, &key));
        }
        last = Some(place(row, &time, &key));
        Ok(())
    });
    if let Err(error) = read {
        return Err(lines.why().unwrap_or(error));
    }
    Ok(Written { roots: tree.end(), keys, files: lines.end()?, first, last })
}

fn place(row: &Row, time: &[usize], key: &[usize]) -> Place {
    let text = |n: &usize| row.get(*n).map(|value| String::from_utf8_lossy(value).into_owned());
    Place { time: time.first().and_then(text), key: key.iter().map(text).collect() }
}

/// Signs the manifest and makes the segment exist.
fn publish(request: &Request<'_>, name: &str, manifest: Manifest) -> anyhow::Result<Segment> {
    let json = manifest.to_json().context("failed to write the manifest")?;
    let files =
        manifest.files.iter().map(|file| request.folder.key(&format!("{name}/{}", file.name)));
    let files = files.collect::<anyhow::Result<Vec<_>>>()?;
    let signature = seal(request, &format!("{name}/{MANIFEST}"), json.clone(), files)?;
    Ok(Segment {
        name: name.to_owned(),
        sha256: sha256(&json),
        json,
        signature: Some(signature.into_bytes()),
        manifest: Ok(manifest),
        has_copy: false,
    })
}

/// Signs what vouches for other objects, stores it after its signature, and looks whether all of them are locked if they should be.
pub(super) fn seal(
    request: &Request<'_>,
    name: &str,
    content: Vec<u8>,
    mut keys: Vec<Key>,
) -> anyhow::Result<String> {
    let signature = request.signer.sign(&content)?;
    for (name, content) in
        [(format!("{name}{SUFFIX}"), signature.clone().into_bytes()), (name.to_owned(), content)]
    {
        keys.push(request.folder.key(&name)?);
        request.folder.put_same(&name, content)?;
    }
    if let Some(days) = request.lock_days {
        for key in keys {
            let object = request.folder.storage.head(&key)?;
            // A little less, because the lock was computed before the object was written.
            let until = object.modified_at + chrono::TimeDelta::days(days.into())
                - chrono::TimeDelta::hours(1);
            let is_locked = object.locked_until.is_some_and(|locked| locked >= until);
            anyhow::ensure!(
                is_locked,
                "`{key}` is stored, but not locked for {days} days: does the bucket have Object Lock?"
            );
        }
    }
    Ok(signature)
}

/// Stores what a third party needs beside the segments, the first time.
fn beside(request: &Request<'_>) -> anyhow::Result<()> {
    let allowed = request.signer.allowed()?;
    for (name, content) in [("allowed_signers", allowed.as_str()), ("HOWTO.md", HOWTO)] {
        let key = request.folder.key(name)?;
        let content = Bytes::from(content.to_owned());
        match request.folder.storage.put(&key, content.clone(), Overwrite::Refuse) {
            Ok(()) => {}
            Err(storage::Error::Exists { .. }) if name == "HOWTO.md" => {}
            Err(storage::Error::Exists { .. }) => {
                let there = request.folder.storage.get(&key, 1 << 20)?;
                if !there.windows(content.len()).any(|part| part == content) {
                    tracing::warn!(
                        "`{key}` does not have the key that signs now: give it to those who verify"
                    );
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
