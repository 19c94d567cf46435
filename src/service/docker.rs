//! What the Docker Engine says of a container, asked over its socket.
//!
//! Source: Docker Engine API, `GET /containers/{id}/json`; without a version in the path the engine answers in its own.
//! Podman's socket answers the same. Only a Unix socket is used: who may write to it is its owner's and group's matter.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Service, State};
use crate::clock::Moment;
use crate::secret::redact;
use crate::stop::{Stop, Stopped};

/// Where the engine listens unless it is told otherwise.
pub(crate) const SOCKET: &str = "/var/run/docker.sock";
/// How much of an answer is read; a container's description has some tens of KiB.
const LIMIT: usize = 4 << 20;

/// Why nothing is known of a container.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no Docker at `{0}`")]
    Absent(PathBuf),
    #[error("`{0}` may not be used by this user: its group may, often `docker`")]
    Denied(PathBuf),
    #[error("Docker at `{0}` did not answer: {1}")]
    Silent(PathBuf, String),
    #[error("Docker at `{0}` refused with status {1}: {2}")]
    Refused(PathBuf, u16, String),
    #[error("Docker at `{0}` answered what is not understood: {1}")]
    Odd(PathBuf, String),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Asks for a container by its name or id, which has only letters, digits and `_.-`.
pub(crate) fn container(
    socket: &Path,
    name: &str,
    now: Moment,
    timeout: Duration,
    stop: &Stop,
) -> Result<Service, Error> {
    stop.check()?;
    let (status, body) = ask(socket, &format!("/containers/{name}/json"), timeout, stop)?;
    let odd = |what: String| Error::Odd(socket.to_owned(), what);
    match status {
        200 => {
            let answer = serde_json::from_slice(&body).map_err(|e| odd(e.to_string()))?;
            understand(answer, now).ok_or_else(|| odd("the state is unknown".to_owned()))
        }
        404 => Ok(Service {
            state: State::Missing,
            words: "no such container".to_owned(),
            restarts: None,
            up_for: None,
        }),
        status => {
            let text = String::from_utf8_lossy(&body[..body.len().min(200)]);
            Err(Error::Refused(socket.to_owned(), status, redact(text.trim())))
        }
    }
}

/// Sends a GET and reads the whole answer.
fn ask(socket: &Path, path: &str, timeout: Duration, stop: &Stop) -> Result<(u16, Vec<u8>), Error> {
    let silent = |reason: String| Error::Silent(socket.to_owned(), reason);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| silent(e.to_string()))?;
    let client = reqwest::Client::builder().unix_socket(socket).timeout(timeout).no_proxy();
    // There is no TLS on a socket: reading the system's authorities would take longer than all the rest.
    let client = client.tls_built_in_root_certs(false).build().map_err(|e| silent(reason(&e)))?;
    let request = client.get(format!("http://docker{path}"));
    let task = runtime.spawn(async move {
        let mut response = request.send().await?;
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await? {
            body.extend_from_slice(&piece);
            if body.len() > LIMIT {
                break;
            }
        }
        reqwest::Result::Ok((response.status().as_u16(), body))
    });
    let abort = task.abort_handle();
    let on_stop = stop.on_stop(move || abort.abort());
    let ended = runtime.block_on(task);
    drop(on_stop);
    match ended {
        Ok(Ok((_, body))) if body.len() > LIMIT => {
            Err(Error::Odd(socket.to_owned(), format!("more than {LIMIT} bytes")))
        }
        Ok(answer) => answer.map_err(|error| match door(&error) {
            Some(ErrorKind::PermissionDenied) => Error::Denied(socket.to_owned()),
            Some(ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                Error::Absent(socket.to_owned())
            }
            _ => silent(reason(&error)),
        }),
        Err(error) => {
            stop.check()?;
            Err(silent(error.to_string()))
        }
    }
}

/// Returns what the operating system said, if the connection was not made.
fn door(error: &reqwest::Error) -> Option<ErrorKind> {
    let first: &dyn std::error::Error = error;
    let mut causes = std::iter::successors(Some(first), |cause| cause.source());
    let kind = causes.find_map(|cause| cause.downcast_ref::<std::io::Error>())?.kind();
    error.is_connect().then_some(kind)
}

/// Returns the innermost cause, which says most.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let first: &dyn std::error::Error = error;
    let innermost = std::iter::successors(Some(first), |cause| cause.source()).last();
    innermost.map_or_else(|| error.to_string(), ToString::to_string)
}

/// What is read of the answer.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    state: Container,
    #[serde(default)]
    restart_count: u64,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited`, `dead`.
    status: String,
    #[serde(default)]
    exit_code: i64,
    #[serde(default, rename = "OOMKilled")]
    out_of_memory: bool,
    #[serde(default)]
    error: String,
    #[serde(default)]
    started_at: String,
    #[serde(default)]
    health: Option<Health>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Health {
    /// `none`, `starting`, `healthy`, `unhealthy`.
    #[serde(default)]
    status: String,
    #[serde(default)]
    failing_streak: u64,
}

fn understand(answer: Answer, now: Moment) -> Option<Service> {
    let Answer { state: container, restart_count } = answer;
    let health = container.health.as_ref().map_or("", |health| health.status.as_str());
    let mut words = container.status.clone();
    let state = match (container.status.as_str(), health) {
        ("running", "unhealthy") => State::Unhealthy,
        ("running", "starting") | ("removing", _) => State::Changing,
        ("running", _) => State::Up,
        ("restarting", _) => State::Restarting,
        ("paused", _) => State::Paused,
        ("exited" | "dead" | "stopped" | "created", _) => State::Down,
        _ => return None,
    };
    if matches!(container.status.as_str(), "exited" | "dead" | "restarting") {
        words += &format!(" ({})", container.exit_code);
    }
    if container.out_of_memory {
        words += ", out of memory";
    }
    if !container.error.is_empty() {
        words += &format!(", {}", redact(container.error.trim()));
    }
    if container.status == "running" && !matches!(health, "" | "none") {
        words += &format!(", {health}");
    }
    if let Some(health) = container.health.filter(|_| state == State::Unhealthy) {
        words += &format!(" {} times in a row", health.failing_streak);
    }
    let started = container.started_at.parse::<Moment>().ok();
    let up_for = started.filter(|_| container.status == "running");
    let up_for = up_for.and_then(|at| now.signed_duration_since(at).to_std().ok());
    Some(Service { state, words, restarts: Some(restart_count), up_for })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixListener;

    fn now() -> Moment {
        "2026-11-25T19:00:00Z".parse().unwrap()
    }

    /// Returns an answer with a state, as dockerd 20.10.24 gave it for containers made for this.
    fn state(text: &str) -> Service {
        let text = format!(
            r#"{{"Id":"ba033ac44011","State":{{{text}}},"Name":"/web","RestartCount":3,"Config":{{"Env":["PASSWORD=geheim"]}}}}"#
        );
        understand(serde_json::from_str(&text).unwrap(), now()).unwrap()
    }

    #[test]
    fn each_state_is_understood() {
        let running = r#""Status":"running","Running":true,"ExitCode":0,"Error":"","StartedAt":"2026-11-25T18:00:00.123456789Z","FinishedAt":"0001-01-01T00:00:00Z""#;
        let check = |text: &str, expected: State, words: &str| {
            let service = state(text);
            assert_eq!((service.state, service.words.as_str()), (expected, words));
            service
        };
        let up = check(running, State::Up, "running");
        assert_eq!((up.restarts, up.up_for.unwrap().as_secs()), (Some(3), 3599));
        let healthy = format!(r#"{running},"Health":{{"Status":"healthy","FailingStreak":0}}"#);
        check(&healthy, State::Up, "running, healthy");
        let ill = format!(r#"{running},"Health":{{"Status":"unhealthy","FailingStreak":4}}"#);
        check(&ill, State::Unhealthy, "running, unhealthy 4 times in a row");
        let starting = format!(r#"{running},"Health":{{"Status":"starting","FailingStreak":0}}"#);
        check(&starting, State::Changing, "running, starting");
        check(
            r#""Status":"restarting","Running":true,"Restarting":true,"ExitCode":1,"StartedAt":"2026-11-25T18:59:00Z""#,
            State::Restarting,
            "restarting (1)",
        );
        check(
            r#""Status":"paused","Running":true,"Paused":true,"ExitCode":0"#,
            State::Paused,
            "paused",
        );
        let created =
            r#""Status":"created","Running":false,"ExitCode":0,"StartedAt":"0001-01-01T00:00:00Z""#;
        check(created, State::Down, "created");
        let killed = r#""Status":"exited","ExitCode":137,"OOMKilled":true,"Error":"""#;
        assert_eq!(check(killed, State::Down, "exited (137), out of memory").up_for, None);
        let text = r#"{"State":{"Status":"asleep"}}"#;
        assert_eq!(understand(serde_json::from_str(text).unwrap(), now()), None);
    }

    /// Answers one request on a socket, byte for byte as recorded. It is no Docker Engine: that would need more of the machine
    /// than a test may take.
    fn engine(answer: &'static str) -> (tempfile::TempDir, std::thread::JoinHandle<String>) {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("docker.sock")).unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<String> =
                lines.by_ref().map_while(Result::ok).take_while(|l| !l.is_empty()).collect();
            stream.write_all(answer.as_bytes()).unwrap();
            head.join("\n")
        });
        (dir, thread)
    }

    fn ask(dir: &Path) -> Result<Service, Error> {
        let socket = dir.join("docker.sock");
        container(&socket, "web-1", now(), Duration::from_secs(10), &Stop::new())
    }

    #[test]
    fn the_exchange_is_that_of_the_documentation() {
        let (dir, engine) = engine(
            "HTTP/1.1 200 OK\r\nApi-Version: 1.47\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
             1b\r\n{\"State\":{\"Status\":\"running\r\n17\r\n\"},\"RestartCount\":   2}\r\n0\r\n\r\n",
        );
        let service = ask(dir.path()).unwrap();
        assert_eq!((service.state, service.restarts), (State::Up, Some(2)));
        assert!(engine.join().unwrap().starts_with("GET /containers/web-1/json HTTP/1.1"));
    }

    #[test]
    fn what_is_no_answer_says_why() {
        let (dir, _engine) = engine(
            "HTTP/1.1 404 Not Found\r\nContent-Length: 40\r\n\r\n{\"message\":\"No such container: web-1\"}\r\n\r\n",
        );
        assert_eq!(ask(dir.path()).unwrap().state, State::Missing);
        let (dir, _engine) =
            engine("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\nsick");
        assert!(matches!(ask(dir.path()), Err(Error::Refused(_, 500, _))));
        let (dir, _engine) = engine("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsick");
        assert!(matches!(ask(dir.path()), Err(Error::Odd(..))));
        let (dir, _engine) = engine("");
        assert!(matches!(ask(dir.path()), Err(Error::Silent(..))));
        let nowhere = tempfile::tempdir().unwrap();
        assert!(matches!(ask(nowhere.path()), Err(Error::Absent(_))));
    }

    #[test]
    fn one_that_never_answers_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        let timeout = Duration::from_millis(100);
        let error = container(&socket, "web", now(), timeout, &Stop::new()).unwrap_err();
        assert!(error.to_string().ends_with("did not answer: no answer in time"), "{error}");
    }
}
