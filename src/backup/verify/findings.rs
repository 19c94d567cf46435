//! What a verification finds, collected from several threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::sync::{into_inner, lock};

/// More findings than this are counted but not listed.
const MAX_FINDINGS: usize = 200;

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub(crate) struct Finding {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) artifact: Option<String>,
    /// Counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) chunk: Option<u64>,
    /// Where the chunk begins in the artifact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) offset: Option<u64>,
    pub(crate) what: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(artifact) = &self.artifact {
            write!(f, "artifact `{artifact}`")?;
            if let (Some(chunk), Some(offset)) = (self.chunk, self.offset) {
                write!(f, ", chunk {chunk} at offset {offset}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.what)
    }
}

/// Collects findings from several threads.
#[derive(Default)]
pub(super) struct Findings {
    list: Mutex<Vec<Finding>>,
    not_listed: AtomicUsize,
}

impl Findings {
    pub(super) fn add(
        &self,
        artifact: Option<&str>,
        chunk: Option<(u64, u64)>,
        what: impl Into<String>,
    ) {
        let mut list = lock(&self.list);
        if list.len() >= MAX_FINDINGS {
            self.not_listed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let (chunk, offset) = chunk.unzip();
        list.push(Finding {
            artifact: artifact.map(str::to_owned),
            chunk,
            offset,
            what: what.into(),
        });
    }

    /// Is there none so far?
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.list).is_empty()
    }

    /// Returns the list in order, and how many more there were.
    pub(super) fn into_sorted(self) -> (Vec<Finding>, u64) {
        let mut list = into_inner(self.list);
        list.sort();
        (list, self.not_listed.into_inner() as u64)
    }
}
