//! The rows of a segment as Parquet files, for questions. They are no evidence: that are the lines they are made from.
//!
//! They are made after the segment exists, from what is read back of it, and never from the table. So whatever killed a run, a Parquet
//! file that is there has rows of a segment, and whoever reads all files below `parquet/` counts no row twice. What is missing is
//! made by the next run. `parquet.json` beside the manifest, signed as that is, says which files there are, and makes the copy exist.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Seek as _};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use crate::archive::evidence;
use crate::archive::folder::{Contents, Folder, Segment};
use crate::archive::line::Shape;
use crate::archive::manifest::{File, MAX_MANIFEST, Manifest, hex, sha256};
use crate::archive::parquet;
use crate::archive::row::{Column, Row};
use crate::archive::run::{Request, seal};
use crate::archive::signature::{SUFFIX, Signers};
use crate::archive::verify::{Finding, Kind};
use crate::archive::window::Window;
use crate::stop::Stop;
use crate::storage;

/// The name of the object that makes a copy exist.
pub(super) const RECORD: &str = "parquet.json";
/// Where the files are. A reader of the folder finds the month in the path, as Hive has it.
pub(super) const FOLDER: &str = "parquet/";
/// The version of the record that is written, and the only one that is read.
const VERSION: u32 = 1;
/// A file is full with so many bytes of lines: it is stored at once, from memory.
const FILE_BYTES: u64 = 128 << 20;
/// What failed, if it is the local file.
const SPOOL: &str = "failed to use a temporary file for Parquet";
/// So much is read back at once.
const PIECE: u64 = 4 << 20;

/// Which files have the rows of a segment: `docs/formats.md` has every field.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) version: u32,
    /// Of the manifest of the segment.
    pub(crate) manifest_sha256: String,
    pub(crate) rows: u64,
    /// The columns with their types in the files, which are text where a value fits no other.
    pub(crate) columns: Vec<Column>,
    /// Their names are below the folder of the table.
    pub(crate) files: Vec<File>,
}

/// Makes the copy of a segment, or completes the one that a killed run began, of `spool` or of what is read. Returns the record.
pub(super) fn make(
    request: &Request<'_>,
    segment: &Segment,
    manifest: &Manifest,
    spool: Option<Spool>,
) -> anyhow::Result<Record> {
    let spool = match spool {
        Some(spool) => spool,
        None => read(request, segment, manifest)?,
    };
    let columns = manifest.columns.iter().zip(&spool.kinds);
    let columns = columns.map(|(c, kind)| Column { name: c.name.clone(), type_name: kind.name() });
    let columns = columns.collect();
    let (mut files, mut keys) = (Vec::new(), Vec::new());
    for (number, mut file) in (1..).zip(spool.end()?) {
        request.stop.check()?;
        let mut content = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut content)).context(SPOOL)?;
        let name = file_name(&segment.name, manifest, number);
        let file =
            File { name, bytes: content.len() as u64, sha256: sha256(&content), version: None };
        keys.push(request.folder.key(&file.name)?);
        request.folder.put_same(&file.name, content)?;
        let is_there = is_there(request.folder, &file, request.stop)?;
        anyhow::ensure!(is_there, "what was stored of `{}` is not what comes back", file.name);
        files.push(file);
    }
    let record = Record {
        version: VERSION,
        manifest_sha256: segment.sha256.clone(),
        rows: manifest.rows,
        columns,
        files,
    };
    let mut json = serde_json::to_vec_pretty(&record).context("failed to write the record")?;
    json.push(b'\n');
    seal(request, &format!("{}/{RECORD}", segment.name), json, keys)?;
    Ok(record)
}

/// Reads the evidence of a segment back, again for each column that turns out to hold what does not fit.
fn read(request: &Request<'_>, segment: &Segment, manifest: &Manifest) -> anyhow::Result<Spool> {
    let mut kinds = Spool::new(manifest).kinds;
    let shape = Shape::of(&manifest.columns);
    loop {
        let mut spool = Spool { kinds: kinds.clone(), ..Spool::new(manifest) };
        let mut row = Row::default();
        let (files, stop) = (&manifest.files, request.stop);
        let reading = evidence::read(request.folder, &segment.name, files, stop, |text| {
            shape.read(text, &mut row).context("a line is no row")?;
            Ok(spool.push(text, &row)?)
        });
        match reading {
            Ok(reading) => {
                reading.whole(&segment.name)?;
                return Ok(spool);
            }
            Err(error) => match error.downcast::<parquet::Error>()? {
                parquet::Error::Unfaithful(n) => {
                    let (name, from) = (&manifest.columns[n].name, kinds[n].name());
                    tracing::info!(
                        "{}: `{name}` is text in Parquet: a value is no {from}",
                        segment.name
                    );
                    kinds[n] = parquet::Kind::Text;
                }
                error => return Err(error.into()),
            },
        }
    }
}

/// The Parquet files of a segment in the making: local ones without a name.
pub(super) struct Spool {
    names: Vec<String>,
    kinds: Vec<parquet::Kind>,
    done: Vec<fs::File>,
    writer: Option<parquet::Writer<fs::File>>,
    /// The bytes of lines that the writer got.
    lines: u64,
}

impl Spool {
    pub(super) fn new(manifest: &Manifest) -> Spool {
        Spool {
            names: manifest.columns.iter().map(|column| column.name.clone()).collect(),
            kinds: manifest.columns.iter().map(|c| parquet::Kind::of(&c.type_name)).collect(),
            done: Vec::new(),
            writer: None,
            lines: 0,
        }
    }

    /// Adds a row, of which `text` is the line. After an error it is of no use.
    pub(super) fn push(&mut self, text: &[u8], row: &Row) -> Result<(), parquet::Error> {
        let mut writer = if let Some(writer) = self.writer.take() {
            writer
        } else {
            let names = self.names.iter().map(String::as_str);
            let columns: Vec<_> = names.zip(self.kinds.iter().copied()).collect();
            let to = tempfile::tempfile().map_err(parquet::Error::Spool)?;
            parquet::Writer::new(to, &columns)?
        };
        writer.push(row.values())?;
        self.lines += text.len() as u64;
        if self.lines >= FILE_BYTES {
            self.done.push(writer.end()?);
            self.lines = 0;
        } else {
            self.writer = Some(writer);
        }
        Ok(())
    }

    fn end(mut self) -> Result<Vec<fs::File>, parquet::Error> {
        self.done.extend(self.writer.map(parquet::Writer::end).transpose()?);
        Ok(self.done)
    }
}

/// Returns the name of a file below the folder of the table.
fn file_name(segment: &str, manifest: &Manifest, number: usize) -> String {
    let month = manifest.window.from.format("%Y-%m");
    let name = segment.rsplit('/').next().unwrap_or(segment);
    format!("{FOLDER}archive_month={month}/{name}.{number:06}.parquet")
}

/// Reads a file back: is it the one of the record?
fn is_there(folder: &Folder, file: &File, stop: &Stop) -> anyhow::Result<bool> {
    let key = folder.key(&file.name)?;
    match folder.storage.head(&key) {
        Ok(object) if object.size == file.bytes => {}
        Ok(_) | Err(storage::Error::NotFound { .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    let (mut offset, mut found) = (0, Sha256::new());
    while offset < file.bytes {
        stop.check()?;
        let length = PIECE.min(file.bytes - offset);
        found.update(folder.storage.get_range(&key, offset, length)?);
        offset += length;
    }
    Ok(hex(&found.finalize()) == file.sha256)
}

/// Returns the records of the segments whose window is wanted, in the order of the windows. Nothing is verified.
pub(crate) fn records(
    folder: &Folder,
    wanted: impl Fn(Window) -> bool,
) -> anyhow::Result<Vec<Record>> {
    let contents = folder.contents()?;
    let mut there: Vec<(Window, &Segment)> = Vec::new();
    for segment in contents.segments.iter().filter(|segment| segment.has_copy) {
        if let Ok(manifest) = &segment.manifest
            && wanted(manifest.window)
        {
            there.push((manifest.window, segment));
        }
    }
    there.sort_by_key(|(window, _)| *window);
    let record = |(_, segment): (Window, &Segment)| -> anyhow::Result<Record> {
        let name = format!("{}/{RECORD}", segment.name);
        let json = folder.storage.get(&folder.key(&name)?, MAX_MANIFEST)?;
        serde_json::from_slice(&json).with_context(|| format!("`{name}` cannot be read"))
    };
    there.into_iter().map(record).collect()
}

/// Reads all copies back, and names every Parquet file that belongs to none.
pub(crate) fn verify(
    folder: &Folder,
    contents: &Contents,
    signers: &Signers,
    stop: &Stop,
) -> anyhow::Result<Vec<Finding>> {
    let (mut findings, mut known) = (Vec::new(), BTreeSet::new());
    for segment in contents.segments.iter().filter(|segment| segment.has_copy) {
        let mut finding = |what: String| {
            findings.push(Finding::new(&segment.name, Kind::Copy, what));
        };
        let name = format!("{}/{RECORD}", segment.name);
        let json = folder.storage.get(&folder.key(&name)?, MAX_MANIFEST)?;
        let signature = folder.signature(&format!("{name}{SUFFIX}"))?;
        if !signature.is_some_and(|signature| signers.accept(&json, &signature)) {
            finding(format!("{RECORD} has no signature of a key that may sign"));
        }
        let record: Record = match serde_json::from_slice(&json) {
            Ok(record) => record,
            Err(error) => {
                finding(format!("{RECORD} cannot be read: {error}"));
                continue;
            }
        };
        if record.manifest_sha256 != segment.sha256 {
            finding(format!("{RECORD} is that of another manifest"));
        }
        for file in record.files {
            if !is_there(folder, &file, stop)? {
                finding(format!("{} is missing, or is not the one that was stored", file.name));
            }
            known.insert(file.name);
        }
    }
    for name in contents.parquet.iter().filter(|name| !known.contains(*name)) {
        let what = "it belongs to no segment: the next run completes what was begun, else somebody put it there";
        findings.push(Finding::new(name, Kind::Copy, what));
    }
    Ok(findings)
}
