//! One request and its answer: signed by rust-s3, sent without a copy of the body, watched for progress.
//!
//! rust-s3's own sending copies every body, limits the whole transfer to a fixed time, reads answers of
//! any length and drops what an answer to a PUT says. Nothing is repeated here; see `super::S3::retry`.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::anyhow;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http_body::{Body, Frame, SizeHint};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use s3::Bucket;
use s3::command::{Command, HttpMethod};
use s3::creds::Credentials;
use s3::error::S3Error;
use s3::request::Request as _;
use s3::request::tokio_backend::ReqwestRequest;
use s3::signing;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;

use crate::secret::redact;
use crate::stop::{Stop, Stopped};

/// How many bytes of a body are handed to the connection at a time.
const PIECE: usize = 256 * 1024;

/// How much of an answer that says no is read.
const ERROR_LIMIT: u64 = 64 * 1024;

/// How much of a server's message is shown.
const MESSAGE_LIMIT: usize = 300;

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// What the server answered when it did what it was asked.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The MD5 of the body that was sent, which rust-s3 takes for `Content-MD5`.
    pub(super) sent_md5: Option<String>,
}

/// Why one attempt failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server said no.
    Refused { status: u16, code: String, message: String },
    /// It did not get through, or the answer did not.
    Transport(anyhow::Error),
    /// The answer makes no sense.
    Odd(String),
    /// The request could not be made.
    Unsendable(anyhow::Error),
    /// The object exists already.
    Exists,
    /// What is there is not what was written, or not what was asked for.
    Corrupt(String),
    /// The run is to stop.
    Stopped(Stopped),
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Failure {
        Failure::Stopped(stopped)
    }
}

impl From<S3Error> for Failure {
    fn from(error: S3Error) -> Failure {
        match error {
            S3Error::HttpFailWithBody(status, body) => Failure::refused(status, &body),
            S3Error::Reqwest(error) => Failure::Transport(error.without_url().into()),
            S3Error::SerdeXml(error) => {
                Failure::Odd(format!("an answer that cannot be read: {error}"))
            }
            S3Error::Credentials(error) => Failure::Transport(
                anyhow::Error::new(error).context("failed to renew the credentials"),
            ),
            other => Failure::Unsendable(other.into()),
        }
    }
}

impl Failure {
    /// Takes code and message out of an error document. The rest of it can hold a session token.
    pub(super) fn refused(status: u16, body: &str) -> Failure {
        let code = element(body, "Code").unwrap_or_default();
        let message = element(body, "Message").unwrap_or_default();
        Failure::Refused { status, code, message }
    }

    /// Can the same request succeed a moment later?
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Failure::Transport(_)
            | Failure::Odd(_)
            | Failure::Refused { status: 200 | 408 | 429 | 500 | 502 | 503 | 504, .. } => true,
            // Damaged on the way, or in each other's way.
            Failure::Refused { code, .. } => matches!(
                code.as_str(),
                "SlowDown"
                    | "InternalError"
                    | "RequestTimeout"
                    | "BadDigest"
                    | "XAmzContentSHA256Mismatch"
                    | "IncompleteBody"
                    | "OperationAborted"
                    | "ConditionalRequestConflict"
                    | "ConcurrentModification"
            ),
            _ => false,
        }
    }
}

/// Returns the one runtime of the process, which drives the connections.
pub(super) fn runtime() -> io::Result<&'static Runtime> {
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    // Its own repeating cannot be interrupted, and does not repeat a PUT.
    s3::set_retries(0);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).thread_name("s3").enable_all().build()?;
    Ok(RUNTIME.get_or_init(|| runtime))
}

/// Creates the client that all requests of a storage share.
pub(super) fn client() -> reqwest::Result<Client> {
    Client::builder()
        .connect_timeout(Duration::from_secs(10))
        // A signature holds for one host only, so a redirection cannot be followed.
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("opsctl/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Waits for a future on the runtime, or until the run is to stop.
pub(super) fn wait<T: Send + 'static>(
    runtime: &Runtime,
    stop: &Stop,
    future: impl Future<Output = T> + Send + 'static,
) -> Result<T, Failure> {
    stop.check()?;
    let task = runtime.spawn(future);
    let abort = task.abort_handle();
    let on_stop = stop.on_stop(move || abort.abort());
    let result = runtime.block_on(task);
    drop(on_stop);
    result.map_err(|error| match stop.check() {
        Err(stopped) => Failure::Stopped(stopped),
        Ok(()) => Failure::Unsendable(error.into()),
    })
}

/// What [`exchange`] needs to know besides the request.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) runtime: &'static Runtime,
    pub(super) client: &'a Client,
    pub(super) stop: &'a Stop,
    /// How long nothing may move before the attempt is given up.
    pub(super) patience: Duration,
    /// The largest body that is accepted as an answer.
    pub(super) limit: u64,
}

/// Signs a request on this thread (a body is hashed for it), sends it and reads the answer.
pub(super) fn exchange(
    terms: Terms<'_>,
    bucket: &Bucket,
    path: &str,
    command: Command<'_>,
    body: Bytes,
) -> Result<Answer, Failure> {
    let Terms { runtime, client, stop, patience, limit } = terms;
    let to_refresh = bucket.clone();
    wait(runtime, stop, async move { to_refresh.credentials_refresh().await })??;
    let (method, url, headers) = runtime.block_on(async {
        let request = ReqwestRequest::new(bucket, path, command).await?;
        let method = match request.command.http_verb() {
            HttpMethod::Delete => Method::DELETE,
            HttpMethod::Get => Method::GET,
            HttpMethod::Head => Method::HEAD,
            HttpMethod::Post => Method::POST,
            HttpMethod::Put => Method::PUT,
        };
        Ok::<_, S3Error>((method, request.url()?, request.headers().await?))
    })?;
    let sent_md5 =
        headers.get("content-md5").and_then(|md5| BASE64.decode(md5).ok()).map(|md5| hex(&md5));
    let sent = Arc::new(AtomicU64::new(0));
    let mut request = client.request(method.clone(), url).headers(headers);
    if method == Method::PUT {
        request = request.body(reqwest::Body::wrap(Paced { rest: body, sent: Arc::clone(&sent) }));
    }
    let request =
        request.build().map_err(|error| Failure::Unsendable(error.without_url().into()))?;
    let client = client.clone();
    let answer =
        wait(
            runtime,
            stop,
            async move { converse(&client, request, &sent, patience, limit).await },
        )??;
    Ok(Answer { sent_md5, ..answer })
}

/// Sends `RestoreObject`, which rust-s3 does not know; the signature is put together from its pieces.
pub(super) fn restore(
    terms: Terms<'_>,
    bucket: &Bucket,
    path: &str,
    body: &str,
) -> Result<Answer, Failure> {
    let Terms { runtime, client, stop, patience, limit } = terms;
    let to_refresh = bucket.clone();
    wait(runtime, stop, async move { to_refresh.credentials_refresh().await })??;
    let (mut url, credentials) = runtime.block_on(async {
        let request = ReqwestRequest::new(bucket, path, Command::HeadObject).await?;
        Ok::<_, S3Error>((request.url()?, bucket.credentials().await?))
    })?;
    url.set_query(Some("restore="));
    let headers = signed(bucket, &credentials, &url, body).map_err(Failure::Unsendable)?;
    let request = client.post(url).headers(headers).body(body.to_owned()).build();
    let request = request.map_err(|error| Failure::Unsendable(error.without_url().into()))?;
    let (client, sent) = (client.clone(), AtomicU64::new(0));
    wait(runtime, stop, async move { converse(&client, request, &sent, patience, limit).await })?
}

/// Returns the headers of a POST, with its signature (AWS Signature Version 4).
fn signed(
    bucket: &Bucket,
    credentials: &Credentials,
    url: &reqwest::Url,
    body: &str,
) -> anyhow::Result<HeaderMap> {
    let now = crate::clock::now();
    let at = time::OffsetDateTime::from_unix_timestamp(now.timestamp())?;
    let sha256 = hex(&Sha256::digest(body));
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", host),
        ("x-amz-content-sha256", sha256.clone()),
        ("x-amz-date", now.format("%Y%m%dT%H%M%SZ").to_string()),
    ] {
        headers.insert(name, value.parse()?);
    }
    if let Some(token) = &credentials.security_token {
        headers.insert("x-amz-security-token", token.parse()?);
    }
    let (access, secret) = (&credentials.access_key, &credentials.secret_key);
    let access = access.as_deref().ok_or_else(|| anyhow!("there is no access key"))?;
    let secret = secret.as_deref().ok_or_else(|| anyhow!("there is no secret key"))?;
    let request = signing::canonical_request("POST", url, &headers, &sha256)?;
    let to_sign = signing::string_to_sign(&at, &bucket.region, &request)?;
    let key = signing::signing_key(&at, secret, &bucket.region, "s3")?;
    let mut hmac = Hmac::<Sha256>::new_from_slice(&key)?;
    hmac.update(to_sign.as_bytes());
    let signature = hex(&hmac.finalize().into_bytes());
    let names = signing::signed_header_string(&headers);
    let authorization =
        signing::authorization_header(access, &at, &bucket.region, &names, &signature)?;
    headers.insert("authorization", authorization.parse()?);
    Ok(headers)
}

/// Writes bytes in lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |hex, byte| format!("{hex}{byte:02x}"))
}

async fn converse(
    client: &Client,
    request: reqwest::Request,
    sent: &AtomicU64,
    patience: Duration,
    limit: u64,
) -> Result<Answer, Failure> {
    let transport = |error: reqwest::Error| Failure::Transport(error.without_url().into());
    let stalled = || Failure::Transport(anyhow!("nothing moved for {} s", patience.as_secs_f32()));
    let mut answered = pin!(client.execute(request));
    let mut before = 0;
    let mut response = loop {
        if let Ok(response) = tokio::time::timeout(patience, answered.as_mut()).await {
            break response.map_err(transport)?;
        }
        let now = sent.load(Ordering::Relaxed);
        if now == before {
            return Err(stalled());
        }
        before = now;
    };
    let status = response.status();
    let is_success = status.is_success();
    let limit = if is_success { limit } else { ERROR_LIMIT };
    let expected = response.content_length().unwrap_or(0).min(limit);
    let mut body = BytesMut::with_capacity(usize::try_from(expected).unwrap_or(0));
    loop {
        let read = tokio::time::timeout(patience, response.chunk()).await;
        let Some(piece) = read.map_err(|_| stalled())?.map_err(transport)? else { break };
        if (body.len() + piece.len()) as u64 > limit {
            if is_success {
                return Err(Failure::Corrupt(format!(
                    "more than the {limit} bytes that make sense"
                )));
            }
            break;
        }
        body.extend_from_slice(&piece);
    }
    if !is_success {
        return Err(Failure::refused(status.as_u16(), &String::from_utf8_lossy(&body)));
    }
    let (status, headers) = (status.as_u16(), response.headers().clone());
    Ok(Answer { status, headers, body: body.freeze(), sent_md5: None })
}

/// A body that is handed over in pieces and tells how far it is.
struct Paced {
    rest: Bytes,
    sent: Arc<AtomicU64>,
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(length);
        self.sent.fetch_add(length as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// Returns the text of the first element of that name, as one line fit for a message.
fn element(document: &str, name: &str) -> Option<String> {
    let (_, rest) = document.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let entities = [("lt;", '<'), ("gt;", '>'), ("quot;", '"'), ("apos;", '\''), ("amp;", '&')];
    let mut pieces = text.split('&');
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let found = entities.iter().find_map(|(name, c)| Some((piece.strip_prefix(name)?, *c)));
        let (rest, character) = found.unwrap_or((piece, '&'));
        plain.push(character);
        plain.push_str(rest);
    }
    let line: String = plain.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Some(redact(line.trim()).chars().take(MESSAGE_LIMIT).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_document_gives_code_and_message_only() {
        let body = "<?xml version=\"1.0\"?><Error><Code>A&amp;b</Code><Message>no &lt;x&gt;\n &bad; & y</Message>\
            <CanonicalRequest>x-amz-security-token:geheim</CanonicalRequest></Error>";
        let failure = Failure::refused(403, body);
        let Failure::Refused { status, code, message } = &failure else { panic!("{failure:?}") };
        assert_eq!((*status, code.as_str(), message.as_str()), (403, "A&b", "no <x>  &bad; & y"));
        let failure = Failure::refused(502, "<html>Bad Gateway</html>");
        assert!(matches!(&failure, Failure::Refused { code, .. } if code.is_empty()));
        assert!(failure.is_transient());
    }
}
