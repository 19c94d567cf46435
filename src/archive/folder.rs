//! Where the segments of a table lie: names, and what is there.
//!
//! `<table>/<year>/<first>_<last>/`, days of the window; what comes later to the same window, or in the place of what a crashed run
//! left, gets `.2`, `.3` and so on. A segment exists when its manifest does. Folders without one are left alone for ever: their
//! names are not used again.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;

use crate::archive::manifest::{MANIFEST, MAX_MANIFEST, Manifest, sha256};
use crate::archive::query_copy;
use crate::archive::signature::SUFFIX;
use crate::archive::window::Window;
use crate::encryption::{Identities, Recipients};
use crate::storage::local::Local;
use crate::storage::{self, Key, Overwrite, Shared};

/// The segments of one table.
#[derive(Clone)]
pub(crate) struct Folder {
    pub(crate) storage: Shared,
    /// `<table>/`
    prefix: String,
    /// For whom rows are encrypted, if they are.
    pub(super) recipients: Option<Recipients>,
    /// What encrypted rows are read with, if anything fits.
    pub(super) identities: Option<Arc<Identities>>,
}

/// A segment that is there.
pub(crate) struct Segment {
    /// `<year>/<first>_<last>`
    pub(crate) name: String,
    /// The manifest's bytes and their SHA-256.
    pub(crate) json: Vec<u8>,
    pub(crate) sha256: String,
    pub(crate) signature: Option<Vec<u8>>,
    pub(crate) manifest: Result<Manifest, String>,
    /// Are its rows there as Parquet as well?
    pub(crate) has_copy: bool,
}

/// What is in a folder.
pub(crate) struct Contents {
    /// In the order of their numbers; those whose manifest cannot be read come last.
    pub(crate) segments: Vec<Segment>,
    /// Names that were begun and never became a segment, and Parquet files that were never whole.
    pub(crate) unfinished: Vec<String>,
    /// The names of all Parquet files.
    pub(crate) parquet: Vec<String>,
}

impl Folder {
    /// Returns the folder of `schema.table`; odd characters are percent-encoded.
    pub(crate) fn new(storage: Shared, table: &str) -> Folder {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let encode = |byte: u8| {
            if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
        };
        let prefix = table.bytes().map(encode).collect::<String>() + "/";
        Folder { storage, prefix, recipients: None, identities: None }
    }

    /// Encrypts rows that are written, if there are recipients, and reads encrypted ones with the identities. What this folder itself
    /// wrote it can always read back: it encrypts for a key of its own as well, which is never stored.
    pub(crate) fn encrypted(
        mut self,
        recipients: Option<Recipients>,
        identities: Option<Identities>,
    ) -> Folder {
        let (recipients, own) = recipients.map(Recipients::with_own).unzip();
        self.identities = match (own, identities) {
            (Some(own), Some(identities)) => Some(own.and(identities)),
            (own, identities) => own.or(identities),
        }
        .map(Arc::new);
        self.recipients = recipients;
        self
    }

    /// Returns the key of an object of a segment, or beside the segments.
    pub(crate) fn key(&self, name: &str) -> anyhow::Result<Key> {
        let path = format!("{}{name}", self.prefix);
        Key::new(path).with_context(|| format!("`{name}` cannot be the name of an object"))
    }

    /// Returns its name in the storage.
    pub(crate) fn name(&self) -> &str {
        self.prefix.trim_end_matches('/')
    }

    /// Returns where it is, for people.
    pub(crate) fn place(&self) -> String {
        format!("`{}` in {}", self.name(), self.storage.place())
    }

    /// Returns what lies in a folder beside the segments, which ends with `/`, in order.
    pub(crate) fn beside(&self, folder: &str) -> anyhow::Result<Vec<Key>> {
        let objects = self.storage.list(&format!("{}{folder}", self.prefix))?;
        Ok(objects.into_iter().map(|object| object.key).collect())
    }

    /// Looks at all segments: their manifests and signatures, not their rows.
    pub(crate) fn contents(&self) -> anyhow::Result<Contents> {
        let mut names: Vec<String> = Vec::new();
        let (mut with_manifest, mut with_copy) = (Vec::new(), BTreeSet::new());
        let (mut parquet, mut temporary) = (Vec::new(), Vec::new());
        for object in self.storage.list(&self.prefix)? {
            let path = object.key.as_str().strip_prefix(&self.prefix).unwrap_or_default();
            let Some((name, file)) = path.rsplit_once('/') else { continue };
            if path.starts_with(query_copy::FOLDER) {
                let is_temporary = Local::is_temporary(&object.key);
                if is_temporary { &mut temporary } else { &mut parquet }.push(path.to_owned());
                continue;
            }
            // What lies beside the segments is in folders of one level.
            if !name.contains('/') {
                continue;
            }
            if names.last().is_none_or(|last| last != name) {
                names.push(name.to_owned());
            }
            if file == MANIFEST {
                with_manifest.push(name.to_owned());
            } else if file == query_copy::RECORD {
                with_copy.insert(name.to_owned());
            }
        }
        let mut segments = Vec::with_capacity(with_manifest.len());
        for name in &with_manifest {
            segments.push(self.segment(name, with_copy.contains(name))?);
        }
        segments.sort_by(|a: &Segment, b| {
            let number = |s: &Segment| s.manifest.as_ref().map_or(u64::MAX, |m| m.number);
            (number(a), &a.name).cmp(&(number(b), &b.name))
        });
        names.retain(|name| !with_manifest.contains(name));
        names.extend(temporary);
        Ok(Contents { segments, unfinished: names, parquet })
    }

    /// Looks for the segment of the newest window, and at no other one.
    pub(crate) fn newest(&self) -> anyhow::Result<Option<Segment>> {
        let objects = self.storage.list(&self.prefix)?;
        let names = objects.iter().filter_map(|object| {
            let path = object.key.as_str().strip_prefix(&self.prefix)?;
            path.strip_suffix(MANIFEST)?.strip_suffix('/')
        });
        // They begin with the window's days.
        names.max().map(|name| self.segment(name, false)).transpose()
    }

    /// Stores an object that nothing has the name of, but for one with the same content.
    pub(super) fn put_same(&self, name: &str, content: Vec<u8>) -> anyhow::Result<()> {
        let (key, content) = (self.key(name)?, Bytes::from(content));
        match self.storage.put(&key, content.clone(), Overwrite::Refuse) {
            Err(storage::Error::Exists { .. }) => {
                let is_same = self.storage.head(&key)?.size == content.len() as u64
                    && self.storage.get(&key, content.len() as u64)? == content;
                anyhow::ensure!(
                    is_same,
                    "`{key}` is there, and is another one than a run left that was killed: take it away"
                );
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// Returns a signature, if it is there.
    pub(super) fn signature(&self, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
        match self.storage.get(&self.key(name)?, 1 << 16) {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(storage::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn segment(&self, name: &str, has_copy: bool) -> anyhow::Result<Segment> {
        let json = self.storage.get(&self.key(&format!("{name}/{MANIFEST}"))?, MAX_MANIFEST)?;
        let signature = self.signature(&format!("{name}/{MANIFEST}{SUFFIX}"))?;
        let manifest = Manifest::parse(&json).map_err(|error| error.to_string());
        Ok(Segment {
            name: name.to_owned(),
            sha256: sha256(&json),
            json: json.to_vec(),
            signature,
            manifest,
            has_copy,
        })
    }
}

impl Contents {
    /// Returns a name for a segment of a window that nothing had before.
    pub(crate) fn new_name(&self, window: Window) -> String {
        let last = window.to - chrono::TimeDelta::microseconds(1);
        let days = format!("{}_{}", window.from.format("%Y-%m-%d"), last.format("%Y-%m-%d"));
        let base = format!("{}/{days}", window.from.format("%Y"));
        let is_taken = |name: &String| {
            self.segments.iter().any(|segment| segment.name == *name)
                || self.unfinished.contains(name)
        };
        let numbered = (2_u32..).map(|n| format!("{base}.{n}"));
        let mut names = std::iter::once(base.clone()).chain(numbered);
        names.find(|name| !is_taken(name)).unwrap_or(base)
    }
}
