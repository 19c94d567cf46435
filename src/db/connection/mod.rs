//! A session with a server that can be interrupted.
//!
//! [`Connection::open`] tries the servers of a [`Target`] as libpq does, with a limit for each attempt
//! as a whole (the `postgres` crate limits only the TCP handshake). Whatever the session does later
//! ends when the [`Stop`] it was opened with says so, and dropping it never waits for the rest of a
//! COPY. Statements are the callers' business.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::ops::{Deref, DerefMut};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use postgres::config::{SslMode, SslNegotiation};
use postgres::error::{DbError, SqlState};
use postgres::{CancelToken, Client, NoTls, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::db::error::{Error, Source, is_end_of_session, is_tls, is_transport, one_line, source};
use crate::db::target::{ChannelBinding, Host, Session, Target};
use crate::db::tls::Mode;
use crate::stop::{OnStop, Stop};

/// How long a dropped session may take to end by itself before its statement is cancelled.
const GRACE: Duration = Duration::from_millis(200);

/// How often a cancel is repeated, for it may arrive between two statements and do nothing.
const CANCELS: u32 = 30;

/// A session with one server.
pub(crate) struct Connection {
    // The order of the fields is the order of their end: the client must go after the alarm was set
    // and before the cancelling threads learn that there is nothing left to cancel.
    _alarm: AlarmOnDrop,
    client: Client,
    _released: (Sender<()>, Sender<()>),
    _on_stop: OnStop,
    target: Target,
    /// See [`Connection::passed_over`].
    passed_over: Arc<AtomicU32>,
}

impl Deref for Connection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.target.describe())
    }
}

impl Connection {
    /// Connects to the first server of `target` that will do.
    ///
    /// As with libpq, a server that cannot be reached or is starting up lets the next one be tried;
    /// one that answers no ends the search.
    pub(super) fn open(
        target: &Target,
        application: &str,
        stop: &Stop,
    ) -> Result<Connection, Error> {
        let mut hosts = target.hosts.clone();
        if target.random_order {
            fastrand::shuffle(&mut hosts);
        }
        let rounds = match target.session {
            Session::PreferStandby => vec![Session::Standby, Session::Any],
            session => vec![session],
        };
        let mut failures = Failures::new(target);
        for session in rounds {
            for host in &hosts {
                for host in addresses(host, target.connect_timeout, stop, &mut failures)? {
                    let attempt = Attempt { target, host: &host, application, stop };
                    match attempt.run(session) {
                        Ok(connection) => return Ok(connection),
                        Err(Failure::Final(error)) => return Err(error),
                        Err(Failure::Answered(source)) => {
                            failures.add(&host, true, source);
                            return Err(failures.into_error());
                        }
                        Err(Failure::Unsuitable(source)) => failures.add(&host, true, source),
                        Err(Failure::Unreachable(source)) => failures.add(&host, false, source),
                    }
                }
            }
        }
        Err(failures.into_error())
    }

    /// Returns the client itself.
    pub(crate) fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Returns where this session is: the target, narrowed to the server and address that answered.
    ///
    /// Whoever must meet the same server again (to share a snapshot, to run `pg_dump` beside) must
    /// connect through this, for a list of hosts or a name with several addresses may lead elsewhere.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Returns how often the server passed something over so far because somebody had it locked, as `SKIP_LOCKED` makes it.
    pub(crate) fn passed_over(&self) -> u32 {
        self.passed_over.load(Ordering::SeqCst)
    }

    /// Returns the server's version.
    pub(crate) fn server_version(&mut self) -> Result<ServerVersion, Error> {
        let what = || format!("ask {} for its version", self.target.host_label());
        let row = self.client.simple_query("SHOW server_version_num");
        let row = row.map_err(|e| Error::query(what(), e))?;
        let number = first_value(&row, 0).and_then(|text| text.parse().ok());
        number.map(ServerVersion).ok_or_else(|| Error::Query {
            what: what(),
            source: "the answer is not a number".into(),
        })
    }

    /// Returns which server this is, by whatever address it was reached.
    pub(crate) fn identity(&mut self) -> Result<Identity, Error> {
        // Copies of a cluster share its number, but have not started in the same microsecond.
        const SQL: &str = "SELECT pg_catalog.format('%s %s', system_identifier, \
            extract(epoch FROM pg_catalog.pg_postmaster_start_time())) FROM pg_catalog.pg_control_system()";
        let row = self.client.query_one(SQL, &[]);
        let row = row.map_err(|e| {
            Error::query(format!("ask {} which server it is", self.target.host_label()), e)
        })?;
        Ok(Identity(row.get(0)))
    }
}

/// What tells a running server from all others, its standbys and copies among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity(String);

/// A server's version as it counts itself, such as 150018.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServerVersion(pub(crate) u32);

impl ServerVersion {
    /// Returns the major version; for those before 10 the first of its two numbers.
    pub(crate) fn major(self) -> u32 {
        self.0 / 10_000
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, rest) = (self.0 / 10_000, self.0 % 10_000);
        if major >= 10 {
            write!(f, "{major}.{rest}")
        } else {
            write!(f, "{major}.{}.{}", rest / 100, rest % 100)
        }
    }
}

/// Why an attempt led to no session.
enum Failure {
    /// There is no point in trying anything else.
    Final(Error),
    /// The server said no.
    Answered(Source),
    /// The server is not of the kind that is wanted.
    Unsuitable(Source),
    /// No answer, or "not now".
    Unreachable(Source),
}

/// What was tried in vain so far.
struct Failures {
    target: String,
    refused: bool,
    tried: Vec<(String, Source)>,
}

impl Failures {
    fn new(target: &Target) -> Failures {
        Failures { target: target.describe(), refused: false, tried: Vec::new() }
    }

    fn add(&mut self, host: &Host, refused: bool, source: Source) {
        self.refused |= refused;
        let address = host.address.map(|a| format!(" ({a})")).unwrap_or_default();
        self.tried.push((format!("{}{address}", host.label()), source));
    }

    fn into_error(mut self) -> Error {
        let target = self.target;
        let source = match self.tried.len() {
            1 => self.tried.remove(0).1,
            _ => self
                .tried
                .iter()
                .map(|(place, source)| format!("{place}: {}", one_line(source.as_ref())))
                .collect::<Vec<_>>()
                .join("; ")
                .into(),
        };
        if self.refused {
            Error::Refused { target: format!("connect to {target}"), source }
        } else {
            Error::Unreachable { target, source }
        }
    }
}

/// Looks up a host's addresses. What cannot be looked up is noted and has none.
fn addresses(
    host: &Host,
    limit: Option<Duration>,
    stop: &Stop,
    failures: &mut Failures,
) -> Result<Vec<Host>, Error> {
    if host.is_local() || host.address.is_some() {
        return Ok(vec![host.clone()]);
    }
    let (name, port) = (host.name.clone(), host.port);
    let looked_up = within(limit, stop, move || {
        (name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<SocketAddr>>)
    });
    let problem: Source = match looked_up {
        Err(Interrupted::Stopped) => return Err(Error::Stopped),
        Err(Interrupted::TimedOut(error)) => error,
        Ok(Err(e)) => e.into(),
        Ok(Ok(found)) if found.is_empty() => "the name has no address".into(),
        Ok(Ok(found)) => {
            let mut addresses: Vec<IpAddr> = Vec::new();
            for address in found.iter().map(SocketAddr::ip) {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            let with = |address| Host { address: Some(address), ..host.clone() };
            return Ok(addresses.into_iter().map(with).collect());
        }
    };
    failures.add(host, false, problem);
    Ok(Vec::new())
}

/// One server at one address.
struct Attempt<'a> {
    target: &'a Target,
    host: &'a Host,
    application: &'a str,
    stop: &'a Stop,
}

impl Attempt<'_> {
    fn run(&self, wanted: Session) -> Result<Connection, Failure> {
        let mut connection = self.connect()?;
        if wanted == Session::Any {
            return Ok(connection);
        }
        let sql = "SELECT pg_catalog.pg_is_in_recovery(), \
                   pg_catalog.current_setting('transaction_read_only')";
        let answer = connection.client.simple_query(sql);
        let answer = answer.map_err(|e| Failure::Unreachable(source(e)))?;
        let standby = first_value(&answer, 0) == Some("t");
        let read_only = standby || first_value(&answer, 1) == Some("on");
        let (suits, is) = match wanted {
            Session::Any | Session::PreferStandby => (true, ""),
            Session::ReadWrite => (!read_only, "the session is read-only"),
            Session::ReadOnly => (read_only, "the session is not read-only"),
            Session::Primary => (!standby, "the server is in hot standby mode"),
            Session::Standby => (standby, "the server is not in hot standby mode"),
        };
        if suits { Ok(connection) } else { Err(Failure::Unsuitable(is.into())) }
    }

    /// Connects with as much encryption as `sslmode` asks for, in the order it says.
    fn connect(&self) -> Result<Connection, Failure> {
        let mode = if self.host.is_local() { Mode::Disable } else { self.target.tls.mode };
        let connector = match mode {
            Mode::Disable => None,
            _ => Some(self.connector().map_err(Failure::Final)?),
        };
        let first = match mode {
            Mode::Disable | Mode::Allow => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
        };
        let refused = match self.connect_with(first, connector.clone())? {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        // Only `allow` and `prefer` have a second try, and only when the first was turned down for
        // being, or not being, encrypted. A wrong password is not sent twice.
        let second = match mode {
            Mode::Allow => SslMode::Require,
            Mode::Prefer => SslMode::Disable,
            _ => return Err(judge(refused)),
        };
        let by_rule = refused.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
        if !(by_rule || mode == Mode::Prefer && is_tls(&refused)) {
            return Err(judge(refused));
        }
        match self.connect_with(second, connector)? {
            Ok(connection) => Ok(connection),
            // A server without TLS says nothing that the first answer has not said better.
            Err(_) => Err(judge(refused)),
        }
    }

    fn connector(&self) -> Result<MakeRustlsConnect, Error> {
        if self.host.name.is_empty() && self.target.tls.mode == Mode::VerifyFull {
            let message = "`sslmode=verify-full` needs a host name, not only `hostaddr`";
            return Err(Error::Parameters(message.to_owned()));
        }
        self.target.tls.connector(&self.host.name)
    }

    fn connect_with(
        &self,
        mode: SslMode,
        connector: Option<MakeRustlsConnect>,
    ) -> Result<Result<Connection, postgres::Error>, Failure> {
        let passed_over = Arc::<AtomicU32>::default();
        let config = self.config(mode, &passed_over);
        let canceller = connector.clone();
        let outcome = within(self.target.connect_timeout, self.stop, move || match connector {
            Some(tls) => config.connect(tls),
            None => config.connect(NoTls),
        });
        match outcome {
            Err(Interrupted::Stopped) => Err(Failure::Final(Error::Stopped)),
            Err(Interrupted::TimedOut(source)) => Err(Failure::Unreachable(source)),
            Ok(Err(e)) => Ok(Err(e)),
            Ok(Ok(client)) => Ok(Ok(self.guard(client, canceller, passed_over))),
        }
    }

    fn config(&self, mode: SslMode, passed_over: &Arc<AtomicU32>) -> postgres::Config {
        let (target, host) = (self.target, self.host);
        let mut config = postgres::Config::new();
        match (host.address, host.is_local()) {
            (_, true) => config.host_path(&host.name),
            (Some(address), _) if host.name.is_empty() => {
                config.host(&address.to_string()).hostaddr(address)
            }
            (Some(address), _) => config.host(&host.name).hostaddr(address),
            (None, false) => config.host(&host.name),
        };
        config.port(host.port).user(&target.user).dbname(&target.database).ssl_mode(mode);
        if let Some(password) = target.password(host) {
            config.password(password.reveal());
        }
        if let Some(options) = &target.options {
            config.options(options);
        }
        if let Some(limit) = target.connect_timeout {
            config.connect_timeout(limit);
        }
        let name = target.application_name.as_deref().unwrap_or(self.application);
        config.application_name(name);
        let keepalives = &target.keepalives;
        config
            .keepalives(keepalives.enabled)
            .keepalives_idle(keepalives.idle)
            .keepalives_interval(keepalives.interval)
            .keepalives_retries(keepalives.count);
        if let Some(limit) = keepalives.user_timeout {
            config.tcp_user_timeout(limit);
        }
        if target.tls.direct && mode == SslMode::Require {
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        config.channel_binding(match target.channel_binding {
            ChannelBinding::Disable => postgres::config::ChannelBinding::Disable,
            ChannelBinding::Prefer => postgres::config::ChannelBinding::Prefer,
            ChannelBinding::Require => postgres::config::ChannelBinding::Require,
        });
        let passed_over = Arc::clone(passed_over);
        config.notice_callback(move |notice| {
            if *notice.code() == SqlState::LOCK_NOT_AVAILABLE {
                passed_over.fetch_add(1, Ordering::SeqCst);
            }
            log_notice(&notice);
        });
        config
    }

    /// Makes the session end its statement when it is time to stop, or when it is dropped.
    fn guard(
        &self,
        client: Client,
        tls: Option<MakeRustlsConnect>,
        passed_over: Arc<AtomicU32>,
    ) -> Connection {
        let canceller = Canceller { token: client.cancel_token(), tls };
        let (released_first, first) = channel();
        let (released_second, second) = channel();
        let on_stop = {
            let canceller = canceller.clone();
            self.stop.on_stop(move || canceller.cancel_until(first, Duration::ZERO))
        };
        Connection {
            _alarm: AlarmOnDrop { canceller, released: Some(second) },
            client,
            _released: (released_first, released_second),
            _on_stop: on_stop,
            target: self.target.with_host(self.host.clone()),
            passed_over,
        }
    }
}

/// Sorts the answer to an attempt.
fn judge(error: postgres::Error) -> Failure {
    let unreachable = match error.as_db_error() {
        Some(said) => is_end_of_session(said) && said.code().code().starts_with(['0', '5']),
        None => is_transport(&error),
    };
    // 57P03, "the database system is starting up": the next server may be up.
    let answered = !unreachable;
    let source = source(error);
    if answered { Failure::Answered(source) } else { Failure::Unreachable(source) }
}

fn log_notice(notice: &DbError) {
    let text = crate::secret::redact(notice.message());
    match notice.severity() {
        "WARNING" => tracing::warn!("the server warns: {text}"),
        severity => tracing::debug!("{severity}: {text}"),
    }
}

fn first_value(messages: &[SimpleQueryMessage], column: usize) -> Option<&str> {
    messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.try_get(column).ok().flatten(),
        _ => None,
    })
}

/// What it takes to cancel a session's statement.
#[derive(Clone)]
struct Canceller {
    token: CancelToken,
    tls: Option<MakeRustlsConnect>,
}

impl Canceller {
    fn cancel(&self) {
        let outcome = match self.tls.clone() {
            Some(tls) => self.token.cancel_query(tls),
            None => self.token.cancel_query(NoTls),
        };
        if let Err(e) = outcome {
            tracing::debug!("failed to cancel a statement: {}", one_line(&e));
        }
    }

    /// Cancels, again and again, in the background, until the session is gone.
    fn cancel_until(self, released: Receiver<()>, after: Duration) {
        let work = move || {
            let mut pause = after;
            for _ in 0..CANCELS {
                if released.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                self.cancel();
                pause = Duration::from_secs(1);
            }
        };
        let spawned = std::thread::Builder::new().name("cancel".to_owned()).spawn(work);
        if let Err(e) = spawned {
            tracing::debug!("failed to start a thread that cancels a statement: {e}");
        }
    }
}

/// Sees to it that the end of a session does not wait for its statement.
///
/// The client reads all that is still to come before it says goodbye: the rest of a table, if the
/// session is dropped in the middle of a COPY.
struct AlarmOnDrop {
    canceller: Canceller,
    released: Option<Receiver<()>>,
}

impl Drop for AlarmOnDrop {
    fn drop(&mut self) {
        if let Some(released) = self.released.take() {
            self.canceller.clone().cancel_until(released, GRACE);
        }
    }
}

/// Why waiting was given up.
enum Interrupted {
    Stopped,
    TimedOut(Source),
}

/// Does `work` in a thread and waits for it, but not for longer than `limit` or until `stop`.
///
/// A thread that is given up ends by itself when the operating system or the server lets it.
fn within<T: Send + 'static>(
    limit: Option<Duration>,
    stop: &Stop,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Interrupted> {
    let (sender, receiver) = channel();
    let stopped = sender.clone();
    let _on_stop = stop.on_stop(move || drop(stopped.send(None)));
    let body = move || {
        // A panic must reach the one who waits, and not leave them waiting.
        drop(sender.send(Some(std::panic::catch_unwind(AssertUnwindSafe(work)))));
    };
    let spawned = std::thread::Builder::new().name("connect".to_owned()).spawn(body);
    spawned.map_err(|e| Interrupted::TimedOut(e.into()))?;
    let outcome = match limit {
        Some(limit) => receiver.recv_timeout(limit),
        None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
    };
    match outcome {
        Ok(Some(Ok(value))) => Ok(value),
        Ok(Some(Err(panic))) => std::panic::resume_unwind(panic),
        Ok(None) => Err(Interrupted::Stopped),
        Err(_) => {
            let seconds = limit.unwrap_or_default().as_secs();
            Err(Interrupted::TimedOut(format!("no answer within {seconds} s").into()))
        }
    }
}

#[cfg(test)]
mod tests;
