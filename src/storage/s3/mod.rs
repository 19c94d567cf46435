//! A bucket as a storage: Amazon S3 and what speaks its language.
//!
//! Each object is one PUT, never a multipart upload, so nothing is left behind half done. What was put
//! is compared by the MD5 that the server answers and by asking for it again; what is read must have
//! the length that was asked for. Requests are repeated a few times where that can help. This module
//! reads no environment, never sends an unsigned request, and never touches versions or bucket settings.

mod credentials;
mod exchange;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use md5::{Digest as _, Md5};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use s3::command::Command;
use s3::serde_types::ListBucketResult;
use s3::{Bucket, Region};
use tokio::runtime::Runtime;

use crate::clock::{self, Moment};
use crate::config::{self, ObjectLockMode, ServerSideEncryption};
use crate::stop::Stop;
use crate::storage::s3::exchange::{Answer, Failure, Terms, hex};
use crate::storage::{Error, Frost, Key, Object, Overwrite, Result, Storage, Writer};

/// How often a request is sent, the first time included.
const ATTEMPTS: u32 = 5;

/// The first pause between two attempts; each following one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long nothing may move in a transfer, and how long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The largest answer to a request that asks for no content.
const ANSWER_LIMIT: u64 = 64 * 1024;

/// A prefix in a bucket.
pub(crate) struct S3 {
    settings: config::S3,
    bucket: Bucket,
    client: reqwest::Client,
    runtime: &'static Runtime,
    stop: Stop,
    place: String,
    patience: Duration,
    /// How many keys a page of a listing may have; `None`: as many as the server gives.
    page_size: Option<usize>,
    /// The server does not know `If-None-Match`: ask before writing instead.
    lacks_conditions: AtomicBool,
    /// The bucket has answered, so that a 404 is about an object.
    has_answered: AtomicBool,
    /// It was said already that the server does not keep storage class or lock.
    has_warned: AtomicBool,
}

/// What a HEAD tells.
struct Head {
    object: Object,
    storage_class: Option<String>,
    /// How far thawing is: `ongoing-request="true"`, or `"false"` when it is done.
    restore: Option<String>,
}

impl Head {
    /// Says whether it can be read, as the reference of `HeadObject` has it.
    fn frost(&self) -> Frost {
        match (self.storage_class.as_deref(), self.restore.as_deref()) {
            (Some(class), None) if FROZEN.contains(&class) => Frost::Frozen,
            (_, Some(restore)) if restore.contains("ongoing-request=\"true\"") => Frost::Thawing,
            _ => Frost::None,
        }
    }
}

/// The storage classes that have to be thawed.
const FROZEN: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];

impl S3 {
    /// Prepares the access to a bucket: finds credentials, and sends nothing to the bucket yet.
    pub(crate) fn open(settings: &config::S3, stop: &Stop) -> Result<S3> {
        let region = &settings.region;
        let endpoint = settings.endpoint.clone().unwrap_or_else(|| {
            let china = if region.starts_with("cn-") { ".cn" } else { "" };
            format!("https://s3.{region}.amazonaws.com{china}")
        });
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let host = endpoint.split_once("://").map_or(endpoint.as_str(), |(_, host)| host);
        let host = host.rsplit('@').next().unwrap_or_default();
        let at = [settings.bucket.as_str(), settings.prefix.as_str()].join("/");
        let place = format!("bucket `{}` at `{host}`", at.trim_end_matches('/'));
        let failed = |action: &str, source| {
            let (action, place) = (action.to_owned(), place.clone());
            Error::Failed { action, place, source }
        };
        let runtime =
            exchange::runtime().map_err(|e| failed("start the threads for requests", e.into()))?;
        let source = settings.credentials.clone();
        let found = match source {
            config::Credentials::Ambient => {
                let found = exchange::wait(runtime, stop, async move {
                    // Asking blocks; a thread that is left behind by an interruption ends by itself.
                    tokio::task::spawn_blocking(move || credentials::find(&source)).await
                });
                match found {
                    Ok(found) => found.map_err(anyhow::Error::from).and_then(|found| found),
                    Err(Failure::Stopped(stopped)) => return Err(stopped.into()),
                    Err(failure) => Err(explain(failure)),
                }
            }
            _ => credentials::find(&source),
        };
        let credentials = found.map_err(|e| failed("find the credentials", e))?;
        let region = Region::Custom { region: region.clone(), endpoint };
        let bucket = Bucket::new(&settings.bucket, region, credentials);
        let mut bucket = *bucket.map_err(|e| failed("prepare requests", e.into()))?;
        if settings.path_style {
            bucket.set_path_style();
        }
        bucket.set_request_timeout(Some(PATIENCE));
        Ok(S3 {
            settings: settings.clone(),
            bucket,
            client: exchange::client().map_err(|e| failed("prepare requests", e.into()))?,
            runtime,
            stop: stop.clone(),
            place,
            patience: PATIENCE,
            page_size: None,
            lacks_conditions: AtomicBool::new(false),
            has_answered: AtomicBool::new(false),
            has_warned: AtomicBool::new(false),
        })
    }

    /// Returns the path of `key` in the bucket.
    fn path(&self, key: &str) -> String {
        let prefix = &self.settings.prefix;
        if prefix.is_empty() { key.to_owned() } else { format!("{prefix}/{key}") }
    }

    fn terms(&self, limit: u64) -> Terms<'_> {
        Terms {
            runtime: self.runtime,
            client: &self.client,
            stop: &self.stop,
            patience: self.patience,
            limit,
        }
    }

    fn exchange(
        &self,
        key: &Key,
        command: Command<'_>,
        body: Bytes,
        limit: u64,
    ) -> Attempt<Answer> {
        let path = self.path(key.as_str());
        let answer = exchange::exchange(self.terms(limit), &self.bucket, &path, command, body)?;
        self.has_answered.store(true, Ordering::Relaxed);
        Ok(answer)
    }

    /// Tries until it succeeds, fails for good, or has been tried often enough.
    fn retry<T>(&self, what: &str, mut attempt: impl FnMut() -> Attempt<T>) -> Attempt<T> {
        let mut pause = FIRST_PAUSE;
        for n in 1.. {
            match attempt() {
                Err(failure) if n < ATTEMPTS && failure.is_transient() => {
                    let error = explain(failure);
                    tracing::debug!(
                        place = self.place,
                        attempt = n,
                        "failed to {what}, trying again: {error:#}"
                    );
                    self.stop.sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0))?;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                other => return other,
            }
        }
        Err(Failure::Odd("never tried".to_owned()))
    }

    /// Says in a caller's words what went wrong.
    fn error(&self, action: String, key: Option<&Key>, failure: Failure) -> Error {
        let place = self.place.clone();
        let (status, code) = match &failure {
            Failure::Stopped(stopped) => return Error::Stopped(*stopped),
            Failure::Corrupt(what) => return Error::Corrupt { action, place, what: what.clone() },
            Failure::Exists => {
                let key = key.map(ToString::to_string).unwrap_or_default();
                return Error::Exists { key, place };
            }
            Failure::Refused { status, code, .. } => (*status, code.as_str()),
            _ => (0, ""),
        };
        match (status, code, key) {
            (404, code, Some(key)) if code != "NoSuchBucket" => {
                Error::NotFound { key: key.to_string(), place }
            }
            (_, "InvalidObjectState", Some(key)) => Error::Frozen { key: key.to_string(), place },
            (507, ..) | (_, "QuotaExceeded" | "InsufficientCapacity", _) => {
                Error::Full { action, place, source: Some(explain(failure)) }
            }
            (401 | 403, ..) | (_, "ExpiredToken" | "InvalidToken", _) => {
                Error::Denied { action, place, source: Some(explain(failure)) }
            }
            _ => Error::Failed { action, place, source: explain(failure) },
        }
    }

    /// Asks once about an object.
    fn ask(&self, key: &Key) -> Attempt<Head> {
        match self.exchange(key, Command::HeadObject, Bytes::new(), ANSWER_LIMIT) {
            Ok(answer) => read_head(key, &answer.headers),
            // The answer to a HEAD has no body that would tell a missing bucket from a missing object.
            Err(Failure::Refused { status: 404, code, message })
                if !self.has_answered.load(Ordering::Relaxed) =>
            {
                self.page(String::new(), None, None, Some(1))?;
                Err(Failure::Refused { status: 404, code, message })
            }
            Err(failure) => Err(failure),
        }
    }

    /// Puts an object until it is there, and proves that it is.
    fn store(&self, key: &Key, content: &Bytes, overwrite: Overwrite) -> Attempt<()> {
        let mut may_be_ours = false;
        let md5 = self.retry("put", || match self.put_once(key, content, overwrite) {
            // The answer to an earlier attempt may have been lost, and not the object.
            Err(Failure::Exists) if may_be_ours => match self.compare(key, content) {
                Err(Failure::Corrupt(_)) => Err(Failure::Exists),
                compared => compared,
            },
            Err(failure) => {
                may_be_ours |= failure.is_transient();
                Err(failure)
            }
            Ok(md5) => Ok(md5),
        })?;
        let compared = self.retry("look at", || {
            self.verify(key, content.len() as u64, &md5).map_err(|failure| match failure {
                // Some servers need a moment.
                Failure::Refused { status: 404, .. } => {
                    Failure::Odd("it is not there after all".to_owned())
                }
                other => other,
            })
        });
        if matches!(compared, Err(Failure::Corrupt(_))) {
            self.take_back(key, overwrite);
        }
        compared.map(drop)
    }

    /// Puts an object once, and returns its MD5.
    fn put_once(&self, key: &Key, content: &Bytes, overwrite: Overwrite) -> Attempt<String> {
        if overwrite == Overwrite::Allow {
            return self.send(key, content, overwrite, false);
        }
        if self.lacks_conditions.load(Ordering::Relaxed) {
            self.check_absent(key)?;
            return self.send(key, content, overwrite, false);
        }
        let failure = match self.send(key, content, overwrite, true) {
            Err(Failure::Refused { status: 412, .. }) => return Err(Failure::Exists),
            Err(failure) => failure,
            done => return done,
        };
        if failure.is_transient() || !matches!(failure, Failure::Refused { status: 400 | 501, .. })
        {
            return Err(failure);
        }
        // Perhaps because of the condition: if it is taken without, it was.
        self.check_absent(key)?;
        let md5 = self.send(key, content, overwrite, false)?;
        tracing::debug!(place = self.place, "conditional writes are not known there");
        self.lacks_conditions.store(true, Ordering::Relaxed);
        Ok(md5)
    }

    fn check_absent(&self, key: &Key) -> Attempt<()> {
        match self.ask(key) {
            Ok(_) => Err(Failure::Exists),
            Err(Failure::Refused { status: 404, code, .. }) if code != "NoSuchBucket" => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Sends a PUT, judges its answer, and returns the MD5 of what was sent.
    fn send(
        &self,
        key: &Key,
        content: &Bytes,
        overwrite: Overwrite,
        is_conditional: bool,
    ) -> Attempt<String> {
        let headers = self.headers(is_conditional).map_err(Failure::Unsendable)?;
        let command = Command::PutObject {
            content,
            content_type: "application/octet-stream",
            custom_headers: Some(headers),
            multipart: None,
        };
        let answer = self.exchange(key, command, content.clone(), ANSWER_LIMIT)?;
        let body = String::from_utf8_lossy(&answer.body);
        if body.contains("<Error>") {
            return Err(Failure::refused(answer.status, &body));
        }
        let Some(etag) = text(&answer.headers, "etag") else {
            return Err(Failure::Odd(format!(
                "HTTP {} without an ETag is no success",
                answer.status
            )));
        };
        let md5 = answer.sent_md5.unwrap_or_else(|| hex(&Md5::digest(content)));
        match md5_of(&etag, &answer.headers) {
            Some(stored) if stored != md5 => {
                self.take_back(key, overwrite);
                Err(Failure::Corrupt(format!("its MD5 is {stored} where {md5} was sent")))
            }
            _ => Ok(md5),
        }
    }

    /// Returns the headers of a PUT that are not about its bytes.
    fn headers(&self, is_conditional: bool) -> anyhow::Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        let mut set = |name: &'static str, value: &str| {
            let value = HeaderValue::from_str(value)
                .with_context(|| format!("{name} cannot be `{value}`"))?;
            headers.insert(HeaderName::from_static(name), value);
            anyhow::Ok(())
        };
        if is_conditional {
            set("if-none-match", "*")?;
        }
        if let Some(class) = &self.settings.storage_class {
            set("x-amz-storage-class", class)?;
        }
        if let Some(lock) = self.settings.object_lock {
            let mode = match lock.mode {
                ObjectLockMode::Governance => "GOVERNANCE",
                ObjectLockMode::Compliance => "COMPLIANCE",
            };
            let until = clock::now() + chrono::TimeDelta::days(lock.days.into());
            set("x-amz-object-lock-mode", mode)?;
            set(
                "x-amz-object-lock-retain-until-date",
                &until.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
            )?;
        }
        match &self.settings.encryption {
            Some(ServerSideEncryption::Aes256) => set("x-amz-server-side-encryption", "AES256")?,
            Some(ServerSideEncryption::Kms(key)) => {
                set("x-amz-server-side-encryption", "aws:kms")?;
                if let Some(key) = key {
                    set("x-amz-server-side-encryption-aws-kms-key-id", key)?;
                }
            }
            None => {}
        }
        Ok(headers)
    }

    /// Compares what the server says of an object with what was sent.
    fn verify(&self, key: &Key, size: u64, md5: &str) -> Attempt<Head> {
        let head = self.ask(key)?;
        if head.object.size != size {
            return Err(Failure::Corrupt(format!(
                "{} bytes are there of {size} sent",
                head.object.size
            )));
        }
        if let Some(stored) = head.object.md5.as_ref().filter(|stored| *stored != md5) {
            return Err(Failure::Corrupt(format!("its MD5 is {stored} where {md5} was sent")));
        }
        self.check_promises(&head);
        Ok(head)
    }

    /// Warns, once, of a server that takes the wish for a lock or a storage class and forgets it.
    ///
    /// That is no error, because the lock is shown only to those who may read locks.
    fn check_promises(&self, head: &Head) {
        let class = self.settings.storage_class.as_deref();
        let stored_class = head.storage_class.as_deref().unwrap_or("STANDARD");
        let lacks_lock = self.settings.object_lock.is_some() && head.object.locked_until.is_none();
        let lacks_class = class.is_some_and(|class| class != stored_class);
        if (lacks_lock || lacks_class) && !self.has_warned.swap(true, Ordering::Relaxed) {
            let what = if lacks_lock { "object lock" } else { "storage class" };
            tracing::warn!(place = self.place, key = %head.object.key, "the {what} asked for is not shown");
        }
    }

    /// Compares an object that may be ours with what was sent, if need be byte by byte.
    fn compare(&self, key: &Key, content: &Bytes) -> Attempt<String> {
        let md5 = hex(&Md5::digest(content));
        let head = self.verify(key, content.len() as u64, &md5)?;
        if head.object.md5.is_none() {
            let limit = content.len() as u64;
            let answer = self.exchange(key, Command::GetObject, Bytes::new(), limit)?;
            if answer.body != content {
                return Err(Failure::Corrupt("it has other content".to_owned()));
            }
        }
        Ok(md5)
    }

    /// Removes an object that cannot be trusted, if it is this storage's own making.
    fn take_back(&self, key: &Key, overwrite: Overwrite) {
        if overwrite == Overwrite::Refuse
            && let Err(error) = self.remove(key)
        {
            tracing::warn!("a damaged object stays behind: {:#}", anyhow::Error::new(error));
        }
    }

    /// Reads a range once.
    fn read(&self, key: &Key, offset: u64, length: u64) -> Attempt<Bytes> {
        let last = offset.saturating_add(length - 1);
        let command = Command::GetObjectRange { start: offset, end: Some(last) };
        let answer = match self.exchange(key, command, Bytes::new(), length) {
            Err(Failure::Refused { status: 416, .. }) => {
                return Err(Failure::Corrupt(format!("it ends before byte {offset}")));
            }
            other => other?,
        };
        // `bytes 0-99/1234`; a server that does not know ranges answers 200 and everything.
        let range = text(&answer.headers, "content-range");
        let start = range.as_deref().map(|r| r.trim_start_matches("bytes").trim_start());
        let is_right = match start {
            Some(range) => range.starts_with(&format!("{offset}-")),
            None => offset == 0,
        };
        if !is_right {
            return Err(Failure::Odd(format!(
                "asked for bytes from {offset}, got `{}`",
                range.unwrap_or_default()
            )));
        }
        let got = answer.body.len() as u64;
        if got == length {
            return Ok(answer.body);
        }
        let size = start.and_then(|range| range.rsplit('/').next()?.parse::<u64>().ok());
        if size.is_some_and(|size| size.saturating_sub(offset) == got) || range.is_none() {
            return Err(Failure::Corrupt(format!(
                "{length} bytes from {offset} asked, it ends after {got}"
            )));
        }
        Err(Failure::Odd(format!("{got} bytes came of {length}")))
    }

    /// Reads a whole object once.
    fn read_whole(&self, key: &Key, limit: u64) -> Attempt<Bytes> {
        let answer = self.exchange(key, Command::GetObject, Bytes::new(), limit)?;
        if let Some(expected) =
            text(&answer.headers, "etag").and_then(|etag| md5_of(&etag, &answer.headers))
        {
            let md5 = hex(&Md5::digest(&answer.body));
            if md5 != expected {
                return Err(Failure::Odd(format!(
                    "what came has the MD5 {md5} and not {expected}"
                )));
            }
        }
        Ok(answer.body)
    }

    /// Asks for one page of a listing.
    fn page(
        &self,
        prefix: String,
        delimiter: Option<String>,
        token: Option<String>,
        page_size: Option<usize>,
    ) -> Attempt<ListBucketResult> {
        let bucket = self.bucket.clone();
        let listed = exchange::wait(self.runtime, &self.stop, async move {
            bucket.credentials_refresh().await?;
            bucket.list_page(prefix, delimiter, token, None, page_size).await
        })?;
        let (page, _) = listed?;
        self.has_answered.store(true, Ordering::Relaxed);
        Ok(page)
    }

    /// Calls `visit` for each page of a listing; returns only when there are no more.
    fn pages(
        &self,
        prefix: &str,
        delimiter: Option<&str>,
        mut visit: impl FnMut(ListBucketResult) -> Attempt<()>,
    ) -> Attempt<()> {
        let mut token: Option<String> = None;
        loop {
            let mut page = self.retry("list", || {
                let delimiter = delimiter.map(ToOwned::to_owned);
                self.page(self.path(prefix), delimiter, token.clone(), self.page_size)
            })?;
            let next = page.next_continuation_token.take().filter(|next| !next.is_empty());
            let is_truncated = page.is_truncated;
            visit(page)?;
            match next {
                Some(next) if token.as_ref() == Some(&next) => {
                    return Err(Failure::Odd("the listing goes round in circles".to_owned()));
                }
                Some(next) => token = Some(next),
                None if is_truncated => {
                    return Err(Failure::Odd(
                        "the listing is cut off without a way to go on".to_owned(),
                    ));
                }
                None => return Ok(()),
            }
        }
    }

    /// Takes the storage's own prefix off a path.
    fn strip<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self.settings.prefix.as_str() {
            "" => Some(path),
            prefix => path.strip_prefix(prefix)?.strip_prefix('/'),
        }
    }
}

/// The result of one attempt.
type Attempt<T> = std::result::Result<T, Failure>;

impl Storage for S3 {
    fn place(&self) -> String {
        self.place.clone()
    }

    fn put(&self, key: &Key, content: Bytes, overwrite: Overwrite) -> Result<()> {
        let stored = self.store(key, &content, overwrite);
        // A 404 is about the bucket: an object is not there before it is put.
        stored.map_err(|failure| match self.error(format!("put `{key}`"), None, failure) {
            Error::Exists { place, .. } => Error::Exists { key: key.to_string(), place },
            other => other,
        })
    }

    fn create(&self, _: &Key) -> Result<Option<Box<dyn Writer>>> {
        Ok(None)
    }

    fn head(&self, key: &Key) -> Result<Object> {
        let head = self.retry("look at", || self.ask(key));
        let head =
            head.map_err(|failure| self.error(format!("look at `{key}`"), Some(key), failure))?;
        Ok(head.object)
    }

    fn frost(&self, key: &Key) -> Result<Frost> {
        let head = self.retry("look at", || self.ask(key));
        let head =
            head.map_err(|failure| self.error(format!("look at `{key}`"), Some(key), failure))?;
        Ok(head.frost())
    }

    fn thaw(&self, key: &Key, days: u32, tier: &str) -> Result<()> {
        let body = format!(
            "<RestoreRequest xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Days>{days}</Days>\
             <GlacierJobParameters><Tier>{tier}</Tier></GlacierJobParameters></RestoreRequest>"
        );
        let path = self.path(key.as_str());
        let ask = || exchange::restore(self.terms(ANSWER_LIMIT), &self.bucket, &path, &body);
        match self.retry("thaw", ask) {
            Ok(_) => Ok(()),
            Err(Failure::Refused { code, .. }) if code == "RestoreAlreadyInProgress" => Ok(()),
            Err(failure) => Err(self.error(format!("thaw `{key}`"), Some(key), failure)),
        }
    }

    fn get_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let read = self.retry("read", || self.read(key, offset, length));
        read.map_err(|failure| {
            let failure = match failure {
                Failure::Odd(what) => Failure::Corrupt(what),
                other => other,
            };
            self.error(format!("read `{key}`"), Some(key), failure)
        })
    }

    fn get(&self, key: &Key, limit: u64) -> Result<Bytes> {
        let read = self.retry("read", || self.read_whole(key, limit));
        read.map_err(|failure| {
            let failure = match failure {
                Failure::Odd(what) => Failure::Corrupt(what),
                other => other,
            };
            self.error(format!("read `{key}`"), Some(key), failure)
        })
    }

    /// Tells no MD5: an entry of a listing does not say whether its `ETag` is one.
    fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        let mut objects = Vec::new();
        let mut foreign = Vec::new();
        let listed = self.pages(prefix, None, |page| {
            for entry in page.contents {
                let Some(key) = self.strip(&entry.key).and_then(Key::new) else {
                    foreign.push(entry.key);
                    continue;
                };
                let modified_at = Moment::from(
                    chrono::DateTime::parse_from_rfc3339(&entry.last_modified).map_err(|_| {
                        Failure::Odd(format!("`{}` is no time", entry.last_modified))
                    })?,
                );
                objects.push(Object {
                    key,
                    size: entry.size,
                    modified_at,
                    md5: None,
                    locked_until: None,
                    version: None,
                });
            }
            Ok(())
        });
        listed.map_err(|failure| self.error(format!("list `{prefix}`"), None, failure))?;
        if let Some(first) = foreign.first() {
            let (n_objects, first) = (foreign.len(), first.escape_default());
            tracing::warn!(place = self.place, n_objects, %first, "not ours, ignored");
        }
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    fn list_folders(&self, prefix: &str) -> Result<Vec<String>> {
        let mut folders = Vec::new();
        let listed = self.pages(prefix, Some("/"), |page| {
            for folder in page.common_prefixes.into_iter().flatten() {
                let name = self.strip(&folder.prefix).and_then(|path| path.strip_prefix(prefix));
                match name.and_then(|name| name.strip_suffix('/')) {
                    Some(name) if Key::new(name).is_some() => folders.push(name.to_owned()),
                    _ => {
                        let folder = folder.prefix.escape_default();
                        tracing::warn!(place = self.place, %folder, "not ours, ignored");
                    }
                }
            }
            Ok(())
        });
        listed.map_err(|failure| self.error(format!("list `{prefix}`"), None, failure))?;
        folders.sort();
        folders.dedup();
        Ok(folders)
    }

    fn remove(&self, key: &Key) -> Result<()> {
        let remove = || match self.exchange(key, Command::DeleteObject, Bytes::new(), ANSWER_LIMIT)
        {
            Err(Failure::Refused { status: 404, code, .. }) if code != "NoSuchBucket" => Ok(()),
            other => other.map(drop),
        };
        self.retry("remove", remove)
            .map_err(|failure| self.error(format!("remove `{key}`"), None, failure))
    }

    fn free_bytes(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}

/// Makes an error of a failure, for people.
fn explain(failure: Failure) -> anyhow::Error {
    match failure {
        Failure::Refused { status, code, message } => {
            let text = [format!("HTTP {status}"), code, message].join(" ");
            anyhow!(text.trim().to_owned())
        }
        Failure::Transport(error) => error.context("no connection, or it broke"),
        Failure::Unsendable(error) => error.context("the request cannot be made"),
        Failure::Odd(what) | Failure::Corrupt(what) => anyhow!(what),
        Failure::Exists => anyhow!("it exists already"),
        Failure::Stopped(stopped) => stopped.into(),
    }
}

/// Reads the headers that describe an object.
fn read_head(key: &Key, headers: &HeaderMap) -> Attempt<Head> {
    let missing = |name: &str| Failure::Odd(format!("the answer lacks a proper {name}"));
    let size = text(headers, "content-length").and_then(|size| size.parse().ok());
    let modified_at = text(headers, "last-modified")
        .and_then(|at| chrono::DateTime::parse_from_rfc2822(&at).ok());
    let locked_until = match text(headers, "x-amz-object-lock-retain-until-date") {
        None => None,
        Some(until) => {
            let until = chrono::DateTime::parse_from_rfc3339(&until)
                .map_err(|_| missing("date of its lock"))?;
            Some(until.into())
        }
    };
    let object = Object {
        key: key.clone(),
        size: size.ok_or_else(|| missing("length"))?,
        modified_at: modified_at.ok_or_else(|| missing("date"))?.into(),
        md5: text(headers, "etag").and_then(|etag| md5_of(&etag, headers)),
        locked_until,
        version: text(headers, "x-amz-version-id").filter(|version| version != "null"),
    };
    let storage_class = text(headers, "x-amz-storage-class");
    Ok(Head { object, storage_class, restore: text(headers, "x-amz-restore") })
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(ToOwned::to_owned)
}

/// Returns the MD5 that an `ETag` is, unless it is something else: of a multipart upload, or of what is
/// stored encrypted with a key of its own.
fn md5_of(etag: &str, headers: &HeaderMap) -> Option<String> {
    let is_encrypted = text(headers, "x-amz-server-side-encryption")
        .is_some_and(|kind| kind != "AES256")
        || headers.contains_key("x-amz-server-side-encryption-customer-algorithm");
    let md5 = etag.trim_matches('"').to_ascii_lowercase();
    (!is_encrypted && md5.len() == 32 && md5.bytes().all(|b| b.is_ascii_hexdigit())).then_some(md5)
}

/// Creates a bucket: a PUT of nothing under no key.
#[cfg(test)]
pub(crate) fn create_bucket(settings: &config::S3, can_lock: bool) {
    let mut headers = HeaderMap::new();
    if can_lock {
        headers.insert("x-amz-bucket-object-lock-enabled", HeaderValue::from_static("true"));
    }
    put_raw(settings, "", &[], headers);
}

/// Stores an object under any path of the bucket.
#[cfg(test)]
pub(crate) fn put_foreign(settings: &config::S3, path: &str, content: &[u8]) {
    put_raw(settings, path, content, HeaderMap::new());
}

#[cfg(test)]
fn put_raw(settings: &config::S3, path: &str, content: &[u8], headers: HeaderMap) {
    let storage = S3::open(settings, &Stop::new()).unwrap();
    let put = storage.bucket.put_object_with_headers(path, content, Some(headers));
    storage.runtime.block_on(put).unwrap();
}
