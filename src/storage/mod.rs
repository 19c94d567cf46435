//! Places that hold bytes under keys: put, create, head, get, list, remove.
//!
//! A storage knows nothing of backups, manifests or configuration. Keys are `/`-separated paths of
//! plain characters (see [`Key`]); what lies under a key is written once and whole: readers never see
//! half an object, whatever happens to the writer. Every implementation passes `suite.rs`.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Moment;

pub(crate) mod local;
pub(crate) mod s3;

#[cfg(test)]
pub(crate) mod faulty;
#[cfg(test)]
pub(crate) mod memory;
#[cfg(test)]
mod suite;
#[cfg(test)]
pub(crate) mod testing;

/// The name of an object, relative to the storage's root: segments joined by `/`.
///
/// A segment is not empty, is not `.` or `..`, and has only ASCII letters, digits and `._-%=+@`,
/// so that it means the same to a file system, to S3's signatures and to a shell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(String);

/// What a storage says of a stored object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    /// Its key, relative to the storage's root.
    pub(crate) key: Key,
    /// Its length in bytes.
    pub(crate) size: u64,
    /// When it was written, by the storage's own clock.
    pub(crate) modified_at: Moment,
    /// The MD5 of its content in lower-case hexadecimal, where the storage tells it.
    pub(crate) md5: Option<String>,
    /// Until when the storage refuses to remove it, where it is locked (S3 Object Lock; HEAD only).
    pub(crate) locked_until: Option<Moment>,
    /// Which version of the object it is, where the storage keeps several (S3 Versioning; HEAD only).
    pub(crate) version: Option<String>,
}

/// Can an object be read?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frost {
    /// Yes, at once.
    None,
    /// Not before it is thawed, which nobody asked for.
    Frozen,
    /// It is being thawed.
    Thawing,
}

/// May an existing object be replaced?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overwrite {
    /// No: an existing object is an error, [`Error::Exists`]. The normal case: nothing is overwritten.
    Refuse,
    /// Yes: only for a lease, which is a heartbeat and not data.
    Allow,
}

/// What a caller can act on; `Display` names the key and the place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no such object.
    #[error("`{key}` does not exist in {place}")]
    NotFound { key: String, place: String },
    /// The object is in a storage class that has to thaw it before it can be read (S3 Glacier).
    #[error("`{key}` in {place} is in an archive, and cannot be read before it is thawed")]
    Frozen { key: String, place: String },
    /// The object exists already and was not replaced.
    #[error("`{key}` exists already in {place}")]
    Exists { key: String, place: String },
    /// The storage refused: credentials, permissions, object lock.
    #[error("{place} refused to {action}")]
    Denied {
        action: String,
        place: String,
        #[source]
        source: Option<anyhow::Error>,
    },
    /// No space is left, or a quota is used up.
    #[error("no space left in {place} to {action}")]
    Full {
        action: String,
        place: String,
        #[source]
        source: Option<anyhow::Error>,
    },
    /// What came back is not what was written or asked for (size, MD5): the object must not be trusted.
    #[error("{place} did not {action} faithfully: {what}")]
    Corrupt { action: String, place: String, what: String },
    /// It failed for another reason, after the retries that make sense.
    #[error("failed to {action} in {place}")]
    Failed {
        action: String,
        place: String,
        #[source]
        source: anyhow::Error,
    },
    /// The run was asked to stop while waiting.
    #[error(transparent)]
    Stopped(#[from] crate::stop::Stopped),
}

/// A result of a storage operation.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// The operations that every storage has. All may be called from several threads at once.
pub(crate) trait Storage: Send + Sync {
    /// Returns where this is, for people: `` directory `/var/backups` `` or `` bucket `b/prefix` at `host` ``.
    fn place(&self) -> String;

    /// Stores a whole object. When this returns, it is durable, complete and was compared with what the
    /// storage says it has (size; MD5 where the storage tells it).
    fn put(&self, key: &Key, content: Bytes, overwrite: Overwrite) -> Result<()>;

    /// Begins an object whose size is not known and that may be larger than memory, where the storage
    /// can append; `None` where it cannot (S3: one object per chunk instead).
    /// Nothing is visible under `key` before [`Writer::finish`].
    fn create(&self, key: &Key) -> Result<Option<Box<dyn Writer>>>;

    /// Asks about an object without reading it.
    fn head(&self, key: &Key) -> Result<Object>;

    /// Reads `length` bytes from `offset`. Less than that is [`Error::Corrupt`], never a short answer.
    /// A `length` of zero returns nothing without asking.
    fn get_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes>;

    /// Reads a whole object of at most `limit` bytes; a larger one is [`Error::Corrupt`].
    fn get(&self, key: &Key, limit: u64) -> Result<Bytes> {
        let size = self.head(key)?.size;
        if size > limit {
            let what = format!("{size} bytes where at most {limit} make sense");
            return Err(Error::Corrupt {
                action: format!("keep `{key}`"),
                place: self.place(),
                what,
            });
        }
        self.get_range(key, 0, size)
    }

    /// Lists every object whose key starts with `prefix` (a plain string comparison; empty lists all),
    /// in key order. An incomplete listing is an error: callers decide on removals by it.
    /// A root that does not exist yet is an empty listing.
    fn list(&self, prefix: &str) -> Result<Vec<Object>>;

    /// Lists the names directly below `prefix` (which is empty or ends with `/`) that have something
    /// below them, without the trailing `/`, in order. Same promise of completeness.
    fn list_folders(&self, prefix: &str) -> Result<Vec<String>>;

    /// Removes an object. One that is not there is not an error. Folders left empty vanish.
    fn remove(&self, key: &Key) -> Result<()>;

    /// Asks whether an object can be read at once.
    fn frost(&self, key: &Key) -> Result<Frost> {
        self.head(key).map(|_| Frost::None)
    }

    /// Asks for an object to be thawed, so that it can be read for so many days; `tier` is how fast, in S3's words. It takes minutes to
    /// days. Once more is no error.
    fn thaw(&self, key: &Key, days: u32, tier: &str) -> Result<()> {
        let _ = (key, days, tier);
        Ok(())
    }

    /// Returns the free bytes of the place, where it has such a figure.
    fn free_bytes(&self) -> Result<Option<u64>>;
}

/// An object in the making. Dropping it without [`Writer::finish`] leaves nothing behind.
pub(crate) trait Writer: Send {
    /// Appends bytes.
    fn append(&mut self, content: &[u8]) -> Result<()>;

    /// Makes the object durable and visible, and compares its size with what was appended.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// A storage shared between threads.
pub(crate) type Shared = Arc<dyn Storage>;

impl Key {
    /// Checks `path` and makes a key of it; `None` if a segment is empty, dotted or has odd characters.
    pub(crate) fn new(path: impl Into<String>) -> Option<Key> {
        let path = path.into();
        let odd = |c: char| !(c.is_ascii_alphanumeric() || "._-%=+@".contains(c));
        let bad = |s: &str| s.is_empty() || s == "." || s == ".." || s.contains(odd);
        (!path.split('/').any(bad)).then_some(Key(path))
    }

    /// Returns the path as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
