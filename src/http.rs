//! One HTTP request and its answer, for pings, webhooks and metrics: bounded in time and size, and ended by a stop.
//!
//! A URL is a secret as a whole, because those of ping services and webhooks are passwords: errors name host and port,
//! never user, password, path or query. Redirections are not followed (nobody configured who is told there), and nothing is
//! repeated here. Proxies are those of the environment, as for curl (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`);
//! trusted are the system's authorities, or those of `SSL_CERT_FILE`.

use std::error::Error as _;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
pub(crate) use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Client, Url};

use crate::secret::{Secret, redact};
use crate::stop::{Stop, Stopped};

/// How much of an answer's body is read.
const BODY_LIMIT: usize = 64 * 1024;

/// What is asked.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    /// `http://` or `https://`; user and password in it are sent as basic authentication.
    pub(crate) url: &'a Secret,
    /// Names and values; none of the values is ever shown.
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: Bytes,
    /// For all of it: the name, the connection, the request and the answer.
    pub(crate) timeout: Duration,
    pub(crate) stop: &'a Stop,
}

/// What was answered, whatever its status.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: HeaderMap,
    /// The first 64 KiB of it; what follows was not read.
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("not a URL that can be asked: {0}")]
    Url(String),
    #[error("the header `{0}` cannot be sent")]
    Header(String),
    #[error("HTTP cannot be set up: {0}")]
    Setup(String),
    #[error("cannot reach {at}: {reason}")]
    Unreachable { at: String, reason: String },
    #[error("no secure connection to {at}: {reason}")]
    Tls { at: String, reason: String },
    #[error("{at} did not answer within {} s", .after.as_secs_f32())]
    Timeout { at: String, after: Duration },
    #[error("{at} broke off: {reason}")]
    Broken { at: String, reason: String },
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl Error {
    /// Can the same request succeed a moment later?
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Error::Unreachable { .. } | Error::Timeout { .. } | Error::Broken { .. })
    }
}

impl Response {
    /// Makes an answer that no server gave.
    #[cfg(test)]
    pub(crate) fn made_up(status: u16, body: &str) -> Response {
        Response { status, headers: HeaderMap::new(), body: body.as_bytes().to_vec() }
    }

    /// Returns the value of a header, if it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Sends a request and reads the answer.
pub(crate) fn send(request: &Request<'_>) -> Result<Response, Error> {
    let Request { method, url, headers, body, timeout, stop } = request;
    stop.check()?;
    let (url, at) = parse(url)?;
    let client = client()?;
    let mut prepared = client.request(method.clone(), url).body(body.clone());
    for (name, value) in *headers {
        let value = HeaderValue::from_str(value).map(|mut value| {
            value.set_sensitive(true);
            value
        });
        prepared = prepared.header(*name, value.map_err(|_| Error::Header((*name).to_owned()))?);
    }
    let setup = |error: io::Error| Error::Setup(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(setup)?;
    let after = *timeout;
    // The clock starts inside: a timeout belongs to the runtime that it is made in.
    let task = runtime.spawn(async move { tokio::time::timeout(after, exchange(prepared)).await });
    let abort = task.abort_handle();
    let on_stop = stop.on_stop(move || abort.abort());
    let ended = runtime.block_on(task);
    drop(on_stop);
    // A name that is still looked up is not waited for.
    runtime.shutdown_background();
    match ended {
        Ok(Ok(answer)) => answer.map_err(|error| failed(at, error)),
        Ok(Err(_)) => Err(Error::Timeout { at, after }),
        Err(error) => {
            stop.check()?;
            Err(Error::Broken { at, reason: error.to_string() })
        }
    }
}

async fn exchange(request: reqwest::RequestBuilder) -> reqwest::Result<Response> {
    let mut response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let mut body = Vec::new();
    while body.len() < BODY_LIMIT
        && let Some(piece) = response.chunk().await?
    {
        body.extend_from_slice(&piece[..piece.len().min(BODY_LIMIT - body.len())]);
    }
    Ok(Response { status, headers, body })
}

/// Returns the client of the process, made by the first who sends something: it reads the system's authorities.
fn client() -> Result<&'static Client, Error> {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    if let Some(client) = CLIENT.get() {
        return Ok(client);
    }
    let client = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        // A connection ends with the runtime that it was made in.
        .pool_max_idle_per_host(0)
        .user_agent(concat!("opsctl/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| Error::Setup(reason(&error)))?;
    Ok(CLIENT.get_or_init(|| client))
}

/// Reads a URL, and returns with it what an error may show of it.
fn parse(url: &Secret) -> Result<(Url, String), Error> {
    let url = Url::parse(url.reveal()).map_err(|error| Error::Url(error.to_string()))?;
    let host = url.host_str().filter(|_| matches!(url.scheme(), "http" | "https"));
    let at = host.zip(url.port_or_known_default()).map(|(host, port)| format!("{host}:{port}"));
    let at = at.ok_or_else(|| Error::Url("neither http:// nor https://".to_owned()))?;
    Ok((url, at))
}

fn failed(at: String, error: reqwest::Error) -> Error {
    let error = error.without_url();
    let reason = reason(&error);
    match error {
        error if is_tls(&error) => Error::Tls { at, reason },
        error if error.is_connect() => Error::Unreachable { at, reason },
        _ => Error::Broken { at, reason },
    }
}

/// Returns the innermost cause, which says most.
fn reason(error: &reqwest::Error) -> String {
    let innermost = causes(error).last();
    redact(&innermost.map_or_else(|| error.to_string(), ToString::to_string))
}

fn is_tls(error: &reqwest::Error) -> bool {
    // An I/O error does not name what is in it as its cause, and here one is in another.
    fn holds_tls(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| {
            inner.downcast_ref::<rustls::Error>().is_some()
                || inner.downcast_ref::<io::Error>().is_some_and(holds_tls)
        })
    }
    causes(error).any(|cause| cause.downcast_ref::<io::Error>().is_some_and(holds_tls))
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |cause| (*cause).source())
}

#[cfg(test)]
#[path = "../tests/integration/support/receiver.rs"]
#[allow(dead_code, reason = "the integration tests, which have it too, use the rest")]
pub(crate) mod receiver;

#[cfg(test)]
mod tests {
    use super::receiver::Receiver;
    use super::*;
    use crate::stop::Reason;

    fn ask(url: &str, timeout: Duration, stop: &Stop) -> Result<Response, Error> {
        let url = Secret::new(url);
        let body = Bytes::from_static(b"said");
        let headers = &[("X-Token", "geheim")];
        send(&Request { method: Method::POST, url: &url, headers, body, timeout, stop })
    }

    #[test]
    fn what_is_sent_arrives_and_the_answer_comes_back() {
        let receiver = Receiver::start();
        receiver.with_header("Ping-Body-Limit", "10").answer(302);
        receiver.with_header("Location", &receiver.url("elsewhere"));
        let url = receiver.url("a%20b?c=d").replace("://", "://user:p%40ss@");
        let answer = ask(&url, Duration::from_secs(10), &Stop::new()).unwrap();
        assert_eq!((answer.status, answer.header("ping-body-limit")), (302, Some("10")));
        assert_eq!(answer.body, b"made up");
        let [request] = receiver.requests().try_into().unwrap();
        assert_eq!((&*request.method, &*request.target), ("POST", "/a%20b?c=d"));
        assert_eq!(request.body, "said");
        assert_eq!(request.headers["x-token"], "geheim");
        assert_eq!(request.headers["authorization"], "Basic dXNlcjpwQHNz");
        assert_eq!(request.headers["user-agent"], concat!("opsctl/", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn a_long_answer_is_read_to_the_limit() {
        let receiver = Receiver::start();
        receiver.say(&"x".repeat(BODY_LIMIT * 4));
        let answer = ask(&receiver.url(""), Duration::from_secs(10), &Stop::new()).unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, BODY_LIMIT));
    }

    /// Asks, and expects an error that shows nothing of the URL but host and port.
    #[track_caller]
    fn fails(url: &str, timeout: Duration) -> Error {
        let error = ask(url, timeout, &Stop::new()).unwrap_err();
        let shown = format!("{error} {error:?}");
        for part in ["geheim", "user", "x-token", "?", "@"] {
            assert!(!shown.contains(part), "{shown}");
        }
        error
    }

    #[test]
    fn errors_say_what_is_wrong_and_show_host_and_port_only() {
        let receiver = Receiver::start();
        let secret = |url: &str| url.replace("://", "://user:geheim@") + "geheim?key=geheim";
        let url = secret(&receiver.url(""));
        let at = receiver.address().to_string();
        let long = Duration::from_secs(60);

        receiver.hang();
        let error = fails(&url, Duration::from_millis(200));
        assert_eq!(error.to_string(), format!("{at} did not answer within 0.2 s"));
        assert!(error.is_transient());
        receiver.hang_in_the_answer();
        assert!(matches!(fails(&url, Duration::from_millis(200)), Error::Timeout { .. }));
        receiver.close();
        let error = fails(&url, long);
        assert!(matches!(error, Error::Broken { .. }) && error.is_transient(), "{error}");
        assert!(error.to_string().starts_with(&format!("{at} broke off: ")), "{error}");

        receiver.answer(200);
        let error = fails(&url.replace("http://", "https://"), long);
        assert!(matches!(error, Error::Tls { .. }) && !error.is_transient(), "{error}");
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = fails(&secret(&format!("http://{closed}/")), long);
        let expected = format!("cannot reach {closed}: Connection refused (os error 111)");
        assert_eq!(error.to_string(), expected);
        for url in ["geheim", "ftp://geheim/", "http://geheim:x/", "localhost:80/geheim", ""] {
            assert!(matches!(fails(url, long), Error::Url(_)), "{url}");
        }
    }

    #[test]
    fn a_stop_ends_the_wait() {
        let receiver = Receiver::start();
        receiver.hang();
        let stop = Stop::new();
        let error = std::thread::scope(|scope| {
            let asking = scope
                .spawn(|| ask(&receiver.url(""), Duration::from_secs(600), &stop).unwrap_err());
            receiver.wait_for(1);
            stop.request(Reason::Signal(2));
            asking.join().unwrap()
        });
        assert!(matches!(error, Error::Stopped(Stopped(Reason::Signal(2)))), "{error}");
        let error = ask(&receiver.url(""), Duration::from_secs(600), &stop).unwrap_err();
        assert!(matches!(error, Error::Stopped(_)) && receiver.requests().len() == 1, "{error}");
    }
}
