//! The anchor: read before a verification, written anew after one that found nothing. It is a file, an object of a bucket that is
//! reached as the archive is, or something that is published under a URL, which is only read.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;

use crate::archive::verify::Anchor;
use crate::commands::{Context, file, open};
use crate::config::{AuditTable, Location, S3};
use crate::exit::{Exit, Failure};
use crate::http::{self, Method};
use crate::secret::Secret;
use crate::storage::{self, Key, Overwrite, Shared};

/// No anchor is larger: some hundred bytes a table.
const MOST: u64 = 1 << 20;
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// An anchor, and where it is kept.
pub(super) struct Kept {
    place: Place,
    pub(super) anchor: Anchor,
}

enum Place {
    File(PathBuf),
    Object(Shared, Key),
    /// Somebody else writes it.
    Published,
}

impl Kept {
    /// Reads it. A file or an object that does not exist yet has seen nothing; what is to be under a URL must be there.
    pub(super) fn read(
        context: &Context,
        audits: &[AuditTable],
        place: &str,
    ) -> anyhow::Result<Kept> {
        let (place, json) = if place.starts_with("http://") || place.starts_with("https://") {
            (Place::Published, Some(published(context, place)?))
        } else if let Some(path) = place.strip_prefix("s3://") {
            let (storage, key) = object(context, audits, path)?;
            let json = match storage.get(&key, MOST) {
                Ok(json) => Some(json.to_vec()),
                Err(storage::Error::NotFound { .. }) => None,
                Err(error) => return Err(error.into()),
            };
            (Place::Object(storage, key), json)
        } else {
            let json = match std::fs::read(place) {
                Ok(json) => Some(json),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => return Err(error).context(format!("failed to read `{place}`")),
            };
            (Place::File(Path::new(place).to_owned()), json)
        };
        let anchor = match json {
            Some(json) => serde_json::from_slice(&json).context("what is kept is no anchor")?,
            None => Anchor::default(),
        };
        Ok(Kept { place, anchor })
    }

    /// Takes the place of the one that was read; what is published stays as it is.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let mut content = serde_json::to_vec_pretty(&self.anchor)?;
        content.push(b'\n');
        match &self.place {
            Place::File(path) => file::put(path, &content, file::OWN),
            Place::Object(storage, key) => {
                Ok(storage.put(key, Bytes::from(content), Overwrite::Allow)?)
            }
            Place::Published => Ok(()),
        }
    }
}

fn published(context: &Context, url: &str) -> anyhow::Result<Vec<u8>> {
    let request = http::Request {
        method: Method::GET,
        url: &Secret::new(url),
        headers: &[],
        body: Bytes::new(),
        timeout: TIMEOUT,
        stop: &context.stop,
    };
    let answer = http::send(&request).context("failed to read the anchor")?;
    anyhow::ensure!(answer.status == 200, "the anchor was answered with {}", answer.status);
    Ok(answer.body)
}

/// Returns the object, reached with the settings of the first archive that is in a bucket.
fn object(context: &Context, audits: &[AuditTable], path: &str) -> anyhow::Result<(Shared, Key)> {
    let wrong = |what: &str| Failure::new(Exit::Usage, format!("`--anchor s3://{path}`: {what}"));
    let settings = audits.iter().find_map(|audit| match &audit.location {
        Location::S3(settings) => Some(settings),
        Location::Directory(_) => None,
    });
    let settings = settings.ok_or_else(|| {
        wrong("no archive is in a bucket, and this one would be reached as that is")
    })?;
    let (bucket, name) =
        path.split_once('/').ok_or_else(|| wrong("it has no name in the bucket"))?;
    let (prefix, name) = name.rsplit_once('/').unwrap_or(("", name));
    let key = Key::new(name).ok_or_else(|| wrong("it cannot be the name of an object"))?;
    // It is overwritten, so it is not locked.
    let settings = S3 {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        object_lock: None,
        storage_class: None,
        ..settings.clone()
    };
    Ok((open::storage(context, &Location::S3(settings))?, key))
}
