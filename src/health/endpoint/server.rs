//! HTTP/1.1 by hyper: one request a connection, all of it bounded.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::sync::{Semaphore, oneshot};

use super::route::{Asked, Policy, Route};
use crate::health::Outcome;
use crate::health::format::{Report, health_json, prometheus};
use crate::stop::Stop;

/// How many are served at once; more wait in the kernel's queue.
const AT_ONCE: usize = 64;
/// How long the head of a request may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may last: the head, all checks, and a slow reader.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// How large the head of a request may be.
const LARGEST_HEAD: usize = 16 * 1024;
const MOST_HEADERS: usize = 64;

/// Where the answer to a question goes: a report, or nothing if none could be made.
pub(crate) type Question = oneshot::Sender<Option<Arc<Report>>>;

/// Who makes the reports.
#[derive(Clone)]
pub(crate) struct Questions {
    pub(crate) ready: Sender<Question>,
    pub(crate) metrics: Sender<Question>,
}

/// Serves until `stop`.
pub(crate) fn serve(
    listener: TcpListener,
    policy: Policy,
    questions: &Questions,
    stop: &Stop,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (ended, mut end) = oneshot::channel::<()>();
    let _on_stop = stop.on_stop(move || drop(ended));
    let policy = Arc::new(policy);
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let room = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            let accepted = tokio::select! {
                _ = &mut end => return Ok(()),
                accepted = accept(&listener, &room) => accepted,
            };
            let Some((stream, permit)) = accepted else { continue };
            let (policy, questions) = (Arc::clone(&policy), questions.clone());
            let service = hyper::service::service_fn(move |request| {
                let (policy, questions) = (Arc::clone(&policy), questions.clone());
                async move { Ok::<_, Infallible>(respond(&request, &policy, &questions).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(LARGEST_HEAD)
                .max_headers(MOST_HEADERS)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move {
                // Whatever a stranger's connection ends with is no news.
                drop(tokio::time::timeout(CONNECTION_TIMEOUT, connection).await);
                drop(permit);
            });
        }
    })
}

/// Takes the next connection, when there is room for one.
async fn accept(
    listener: &tokio::net::TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            // Out of file descriptors, say: it passes, and must not be tried a million times a second.
            tracing::warn!("a connection could not be taken: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

async fn respond<B>(
    request: &Request<B>,
    policy: &Policy,
    questions: &Questions,
) -> Response<Full<Bytes>> {
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let hosts: Vec<String> = request.headers().get_all(header::HOST).iter().map(text).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let authorization = request.headers().get(header::AUTHORIZATION).map(text);
    let route = policy.route(Asked {
        method: request.method().as_str(),
        path: request.uri().path(),
        hosts: &hosts,
        authorization: authorization.as_deref(),
    });
    match route {
        Route::Live => health(200, &json!({ "status": "pass" })),
        Route::Ready { details } => match report(&questions.ready).await {
            Some(report) => {
                // The draft wants pass and warn to be a success, and fail not to be.
                let is_good = report.outcome() <= Outcome::Warning;
                health(if is_good { 200 } else { 503 }, &health_json(&report, details))
            }
            None => health(503, &json!({ "status": "fail" })),
        },
        Route::Metrics => match report(&questions.metrics).await {
            Some(report) => {
                response(200, "text/plain; version=0.0.4; charset=utf-8", prometheus(&report))
            }
            None => {
                response(503, "text/plain; charset=utf-8", "nothing could be asked\n".to_owned())
            }
        },
        Route::Refused(status, why) => {
            let mut response = response(status, "text/plain; charset=utf-8", format!("{why}\n"));
            let (name, value) = match status {
                405 => (header::ALLOW, "GET, HEAD"),
                401 => (header::WWW_AUTHENTICATE, "Bearer"),
                _ => return response,
            };
            response.headers_mut().insert(name, HeaderValue::from_static(value));
            response
        }
    }
}

async fn report(questions: &Sender<Question>) -> Option<Arc<Report>> {
    let (reply, answer) = oneshot::channel();
    questions.send(reply).ok()?;
    answer.await.ok().flatten()
}

fn health(status: u16, document: &serde_json::Value) -> Response<Full<Bytes>> {
    response(status, "application/health+json", format!("{document:#}\n"))
}

fn response(status: u16, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
