//! A storage that fails, truncates or corrupts at the n-th call, around any other; for tests.
//!
//! Every operation counts as one call, those of its writers included, so that a test can first count
//! the calls of a whole backup and then spoil each of them in turn.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use anyhow::anyhow;
use bytes::Bytes;

use crate::stop::{Reason, Stopped};
use crate::storage::{Error, Key, Object, Overwrite, Result, Shared, Storage, Writer};

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails, and nothing was done.
    Fail,
    /// It fails, although it was done: the answer got lost.
    FailAfter,
    /// It fails for lack of space.
    Full,
    /// It is refused.
    Denied,
    /// The run is told to stop.
    Stopped,
    /// This call and all after it fail: the storage is gone, or the process is.
    Die,
    /// It succeeds, and the last byte (of a listing: the last entry) is missing.
    Truncate,
    /// It succeeds, and the first byte is another one (of a listing or a HEAD: the size).
    Corrupt,
}

#[derive(Default)]
struct Plan {
    faults: BTreeMap<u64, Fault>,
    calls: Vec<String>,
    is_dead: bool,
}

/// The storage with a plan of what goes wrong. Clones share the plan.
#[derive(Clone)]
pub(crate) struct Faulty {
    inner: Shared,
    plan: Arc<Mutex<Plan>>,
}

impl Faulty {
    /// Wraps a storage; nothing goes wrong until it is told to.
    pub(crate) fn new(inner: Shared) -> Faulty {
        Faulty { inner, plan: Arc::default() }
    }

    /// Spoils the `n`-th call from now on, counted from 1.
    pub(crate) fn spoil(&self, n: u64, fault: Fault) {
        let mut plan = self.plan.lock().unwrap();
        let at = plan.calls.len() as u64 + n;
        plan.faults.insert(at, fault);
    }

    /// Returns how many calls there were.
    pub(crate) fn count(&self) -> u64 {
        self.plan.lock().unwrap().calls.len() as u64
    }

    /// Returns the calls there were, as `put a/b`.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.plan.lock().unwrap().calls.clone()
    }

    /// Counts a call; returns the error to give at once, or what to spoil in the result.
    fn enter(&self, action: &str, what: &str) -> Result<Option<Fault>> {
        let mut plan = self.plan.lock().unwrap();
        plan.calls.push(format!("{action} {what}"));
        let n = plan.calls.len() as u64;
        let mut fault = plan.faults.remove(&n);
        if fault == Some(Fault::Die) {
            plan.is_dead = true;
        }
        if plan.is_dead {
            fault = Some(Fault::Die);
        }
        let (action, place) = (format!("{action} `{what}`"), self.inner.place());
        match fault {
            Some(Fault::Full) => Err(Error::Full { action, place, source: None }),
            Some(Fault::Denied) => Err(Error::Denied { action, place, source: None }),
            Some(Fault::Stopped) => Err(Stopped(Reason::Signal(15)).into()),
            Some(Fault::Fail | Fault::Die) => {
                Err(Error::Failed { action, place, source: made_up(n) })
            }
            other => Ok(other),
        }
    }

    /// Loses the answer where the plan says so.
    fn leave<T>(&self, fault: Option<Fault>, action: &str, result: T) -> Result<T> {
        if fault == Some(Fault::FailAfter) {
            let (action, place) = (action.to_owned(), self.inner.place());
            return Err(Error::Failed { action, place, source: made_up(self.count()) });
        }
        Ok(result)
    }
}

impl Storage for Faulty {
    fn place(&self) -> String {
        self.inner.place()
    }

    fn put(&self, key: &Key, content: Bytes, overwrite: Overwrite) -> Result<()> {
        let fault = self.enter("put", key.as_str())?;
        self.inner.put(key, spoil(fault, content), overwrite)?;
        self.leave(fault, "put", ())
    }

    fn create(&self, key: &Key) -> Result<Option<Box<dyn Writer>>> {
        let fault = self.enter("create", key.as_str())?;
        let writer = self.inner.create(key)?.map(|inner| -> Box<dyn Writer> {
            Box::new(FaultyWriter { faulty: self.clone(), key: key.clone(), inner })
        });
        self.leave(fault, "create", writer)
    }

    fn head(&self, key: &Key) -> Result<Object> {
        let fault = self.enter("head", key.as_str())?;
        let mut object = self.inner.head(key)?;
        spoil_object(fault, &mut object);
        self.leave(fault, "head", object)
    }

    fn get_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes> {
        let fault = self.enter("get_range", key.as_str())?;
        let content = self.inner.get_range(key, offset, length)?;
        self.leave(fault, "get_range", spoil(fault, content))
    }

    fn get(&self, key: &Key, limit: u64) -> Result<Bytes> {
        let fault = self.enter("get", key.as_str())?;
        let content = self.inner.get(key, limit)?;
        self.leave(fault, "get", spoil(fault, content))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        let fault = self.enter("list", prefix)?;
        let mut objects = self.inner.list(prefix)?;
        if fault == Some(Fault::Truncate) {
            objects.pop();
        } else if let Some(object) = objects.first_mut() {
            spoil_object(fault, object);
        }
        self.leave(fault, "list", objects)
    }

    fn list_folders(&self, prefix: &str) -> Result<Vec<String>> {
        let fault = self.enter("list_folders", prefix)?;
        let mut folders = self.inner.list_folders(prefix)?;
        if fault == Some(Fault::Truncate) {
            folders.pop();
        }
        self.leave(fault, "list_folders", folders)
    }

    fn remove(&self, key: &Key) -> Result<()> {
        let fault = self.enter("remove", key.as_str())?;
        self.inner.remove(key)?;
        self.leave(fault, "remove", ())
    }

    fn free_bytes(&self) -> Result<Option<u64>> {
        let fault = self.enter("free_bytes", "")?;
        let free = self.inner.free_bytes()?;
        self.leave(fault, "free_bytes", free)
    }
}

struct FaultyWriter {
    faulty: Faulty,
    key: Key,
    inner: Box<dyn Writer>,
}

impl Writer for FaultyWriter {
    fn append(&mut self, content: &[u8]) -> Result<()> {
        let fault = self.faulty.enter("append", self.key.as_str())?;
        self.inner.append(&spoil(fault, Bytes::copy_from_slice(content)))?;
        self.faulty.leave(fault, "append", ())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let fault = self.faulty.enter("finish", self.key.as_str())?;
        self.inner.finish()?;
        self.faulty.leave(fault, "finish", ())
    }
}

fn made_up(n: u64) -> anyhow::Error {
    anyhow!("made up at call {n}")
}

fn spoil(fault: Option<Fault>, content: Bytes) -> Bytes {
    match fault {
        Some(Fault::Truncate) => content.slice(..content.len().saturating_sub(1)),
        Some(Fault::Corrupt) => {
            let mut bytes = content.to_vec();
            bytes.iter_mut().take(1).for_each(|byte| *byte ^= 1);
            bytes.into()
        }
        _ => content,
    }
}

fn spoil_object(fault: Option<Fault>, object: &mut Object) {
    match fault {
        Some(Fault::Truncate) => object.size = object.size.saturating_sub(1),
        Some(Fault::Corrupt) => object.size += 1,
        _ => {}
    }
}

mod tests {
    use super::*;
    use crate::storage::memory::Memory;
    use crate::storage::suite;

    fn storage() -> suite::Guarded<Faulty> {
        suite::Guarded::new(Faulty::new(Arc::new(Memory::new())), ())
    }

    suite::conformance!(super::storage());

    #[test]
    fn each_fault_happens_once_where_it_was_planned() {
        let storage = storage();
        let key = Key::new("a").unwrap();
        let put = |content: &'static str| storage.put(&key, content.into(), Overwrite::Allow);
        storage.spoil(2, Fault::Fail);
        put("1").unwrap();
        assert!(matches!(put("2"), Err(Error::Failed { .. })));
        assert_eq!(storage.get(&key, 9).unwrap(), "1");
        storage.spoil(1, Fault::FailAfter);
        assert!(put("3").is_err());
        assert_eq!(storage.get(&key, 9).unwrap(), "3");
        storage.spoil(1, Fault::Truncate);
        storage.spoil(3, Fault::Corrupt);
        put("45").unwrap();
        assert_eq!(storage.get(&key, 9).unwrap(), "4");
        assert_eq!(storage.get(&key, 9).unwrap(), "5");
        storage.spoil(1, Fault::Die);
        assert!(put("6").is_err() && put("7").is_err() && storage.list("").is_err());
        assert_eq!(storage.count(), 11);
        assert_eq!(storage.calls()[10], "list ");
    }
}
