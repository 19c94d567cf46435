//! A storage in memory, for tests: what `local` does without a disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use md5::{Digest as _, Md5};

use crate::clock::{self, Moment};
use crate::storage::{Error, Key, Object, Overwrite, Result, Storage, Writer};

type Objects = BTreeMap<Key, (Bytes, Moment)>;

/// A map of keys to bytes. Clones are the same map.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    objects: Arc<Mutex<Objects>>,
    can_append: bool,
}

impl Memory {
    /// Creates an empty storage that has writers, as a directory has.
    pub(crate) fn new() -> Memory {
        Memory { can_append: true, ..Memory::default() }
    }

    /// Creates an empty storage without writers, as a bucket is.
    pub(crate) fn without_writers() -> Memory {
        Memory::default()
    }

    /// Replaces the bytes of an object behind the storage's back, for damage tests.
    pub(crate) fn tamper(&self, key: &Key, change: impl FnOnce(&mut Vec<u8>)) {
        let mut objects = self.objects();
        let (content, _) = objects.get_mut(key).expect("an object to tamper with");
        let mut bytes = content.to_vec();
        change(&mut bytes);
        *content = bytes.into();
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap()
    }

    fn not_found(&self, key: &Key) -> Error {
        Error::NotFound { key: key.to_string(), place: self.place() }
    }
}

impl Storage for Memory {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    fn put(&self, key: &Key, content: Bytes, overwrite: Overwrite) -> Result<()> {
        let mut objects = self.objects();
        if overwrite == Overwrite::Refuse && objects.contains_key(key) {
            return Err(Error::Exists { key: key.to_string(), place: self.place() });
        }
        objects.insert(key.clone(), (content, clock::now()));
        Ok(())
    }

    fn create(&self, key: &Key) -> Result<Option<Box<dyn Writer>>> {
        if !self.can_append {
            return Ok(None);
        }
        if self.objects().contains_key(key) {
            return Err(Error::Exists { key: key.to_string(), place: self.place() });
        }
        Ok(Some(Box::new(MemoryWriter {
            memory: self.clone(),
            key: key.clone(),
            content: Vec::new(),
        })))
    }

    fn head(&self, key: &Key) -> Result<Object> {
        let objects = self.objects();
        let (content, modified_at) = objects.get(key).ok_or_else(|| self.not_found(key))?;
        let md5 = Md5::digest(content).iter().fold(String::new(), |hex, b| format!("{hex}{b:02x}"));
        Ok(Object { md5: Some(md5), ..object(key, content, *modified_at) })
    }

    fn get_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let objects = self.objects();
        let (content, _) = objects.get(key).ok_or_else(|| self.not_found(key))?;
        match offset.checked_add(length) {
            Some(end) if end <= content.len() as u64 => {
                Ok(content.slice(usize::try_from(offset).unwrap()..usize::try_from(end).unwrap()))
            }
            _ => {
                let what = format!("{length} bytes from {offset} asked of {}", content.len());
                Err(Error::Corrupt { action: format!("read `{key}`"), place: self.place(), what })
            }
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        let objects = self.objects();
        let listed = objects.iter().filter(|(key, _)| key.as_str().starts_with(prefix));
        Ok(listed.map(|(key, (content, at))| object(key, content, *at)).collect())
    }

    fn list_folders(&self, prefix: &str) -> Result<Vec<String>> {
        let objects = self.objects();
        let below =
            objects.keys().filter_map(|key| key.as_str().strip_prefix(prefix)?.split_once('/'));
        let folders: BTreeSet<_> = below.map(|(folder, _)| folder.to_owned()).collect();
        Ok(folders.into_iter().collect())
    }

    fn remove(&self, key: &Key) -> Result<()> {
        self.objects().remove(key);
        Ok(())
    }

    fn free_bytes(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}

struct MemoryWriter {
    memory: Memory,
    key: Key,
    content: Vec<u8>,
}

impl Writer for MemoryWriter {
    fn append(&mut self, content: &[u8]) -> Result<()> {
        self.content.extend_from_slice(content);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.memory.put(&self.key, self.content.into(), Overwrite::Refuse)
    }
}

fn object(key: &Key, content: &Bytes, modified_at: Moment) -> Object {
    Object {
        key: key.clone(),
        size: content.len() as u64,
        modified_at,
        md5: None,
        locked_until: None,
        version: None,
    }
}

mod tests {
    use super::*;
    use crate::storage::suite;

    fn storage() -> suite::Guarded<Memory> {
        suite::Guarded::new(Memory::new(), ())
    }

    suite::conformance!(super::storage());
}
