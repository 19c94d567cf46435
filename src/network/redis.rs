//! How is a Redis? What `INFO` says, and the connection for `dramatiq.rs`.

use std::time::Duration;

use redis::{
    Connection, ConnectionAddr, ErrorKind, FromRedisValue, IntoConnectionInfo as _, Pipeline,
    RedisError, ServerErrorKind,
};

use super::{Deadline, Error, dns, place};
use crate::secret::{Secret, redact};

/// A connection, and what to call its other end.
pub(crate) struct Redis {
    connection: Connection,
    at: String,
    deadline: Deadline,
}

/// What `INFO` says, as far as it matters here. What a server does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Info {
    pub(crate) version: Option<String>,
    /// Is it still reading its data from disk?
    pub(crate) loading: bool,
    pub(crate) used_memory: Option<u64>,
    /// 0 is without limit.
    pub(crate) max_memory: Option<u64>,
    /// `noeviction`, `allkeys-lru`, …
    pub(crate) policy: Option<String>,
    pub(crate) clients: Option<u64>,
    pub(crate) max_clients: Option<u64>,
    /// Since the server started, as the next one.
    pub(crate) evicted_keys: Option<u64>,
    pub(crate) rejected_connections: Option<u64>,
    pub(crate) uptime: Option<Duration>,
    /// Of a replica: is it connected to its master? And for how long not.
    pub(crate) master_link_is_up: Option<bool>,
    pub(crate) master_link_down: Option<Duration>,
    /// Did the last attempt to write the data to disk succeed?
    pub(crate) snapshot_is_good: Option<bool>,
    pub(crate) aof_write_is_good: Option<bool>,
    pub(crate) aof_rewrite_is_good: Option<bool>,
}

impl Redis {
    /// Connects, with user, password and number of the database from the URL.
    pub(crate) fn connect(url: &Secret, deadline: Deadline) -> Result<Redis, Error> {
        let info = url.reveal().into_connection_info().map_err(|_| {
            let like = "redis://user:password@host:6379/0 or rediss://…";
            Error::Settings(format!("the URL of the Redis is not like {like}"))
        })?;
        let at = match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                // The crate looks names up for as long as that takes.
                dns::lookup(host, &deadline)?;
                place(host, *port)
            }
            ConnectionAddr::Unix(path) => path.display().to_string(),
            address => address.to_string(),
        };
        // What the client calls itself tells nobody anything here, and not every user may say it.
        let settings = info.redis_settings().clone().set_skip_set_lib_name();
        let left = deadline.left(&at)?;
        let client = redis::Client::open(info.set_redis_settings(settings));
        let connection = client.and_then(|client| client.get_connection_with_timeout(left));
        let connection = connection.map_err(|error| failed(&at, &deadline, &error))?;
        Ok(Redis { connection, at, deadline })
    }

    /// Asks several things in one go.
    pub(super) fn ask<T: FromRedisValue>(&mut self, questions: &Pipeline) -> Result<T, Error> {
        let left = Some(self.deadline.left(&self.at)?);
        let connection = &mut self.connection;
        let bounded = connection.set_read_timeout(left);
        let bounded = bounded.and_then(|()| connection.set_write_timeout(left));
        let answer = bounded.and_then(|()| questions.query(connection));
        answer.map_err(|error| failed(&self.at, &self.deadline, &error))
    }

    /// Asks whether it is at work, and returns how long the answer took.
    pub(crate) fn ping(&mut self) -> Result<Duration, Error> {
        let before = self.deadline.elapsed();
        let (_pong,): (String,) = self.ask(redis::pipe().cmd("PING"))?;
        Ok(self.deadline.elapsed().saturating_sub(before))
    }

    /// Asks how it is.
    pub(crate) fn info(&mut self) -> Result<Info, Error> {
        let (text,): (String,) = self.ask(redis::pipe().cmd("INFO"))?;
        Ok(parse(&text))
    }
}

fn failed(at: &str, deadline: &Deadline, error: &RedisError) -> Error {
    let (at, reason) = (at.to_owned(), redact(&error.to_string()).replace(['\r', '\n'], " "));
    if error.is_timeout() {
        return deadline.over(&at);
    }
    let has = |text: &str| reason.contains(text);
    match error.kind() {
        ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm) => {
            Error::Refused { at, reason }
        }
        _ if has("NOAUTH") || has("WRONGPASS") => Error::Refused { at, reason },
        ErrorKind::Io if has("certificate") || has("corrupt message") => Error::Tls { at, reason },
        ErrorKind::Io => Error::Unreachable { at, reason },
        _ => Error::Answer { at, reason },
    }
}

fn parse(text: &str) -> Info {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).filter(|value| !value.is_empty())
    };
    let number = |name: &str| field(name).and_then(|value| value.parse::<u64>().ok());
    let good = |name: &str| field(name).map(|value| value == "ok");
    let aof = field("aof_enabled") == Some("1");
    Info {
        version: field("redis_version").map(str::to_owned),
        loading: field("loading") == Some("1"),
        used_memory: number("used_memory"),
        max_memory: number("maxmemory"),
        policy: field("maxmemory_policy").map(str::to_owned),
        clients: number("connected_clients"),
        max_clients: number("maxclients"),
        evicted_keys: number("evicted_keys"),
        rejected_connections: number("rejected_connections"),
        uptime: number("uptime_in_seconds").map(Duration::from_secs),
        master_link_is_up: field("master_link_status").map(|value| value == "up"),
        master_link_down: number("master_link_down_since_seconds").map(Duration::from_secs),
        snapshot_is_good: good("rdb_last_bgsave_status"),
        aof_write_is_good: good("aof_last_write_status").filter(|_| aof),
        aof_rewrite_is_good: good("aof_last_bgrewrite_status").filter(|_| aof),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_info_says() {
        let text = "# Server\r\nredis_version:7.0.15\r\nuptime_in_seconds:90\r\n# Memory\r\n\
            used_memory:1000\r\nused_memory_human:1000B\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n\
            # Persistence\r\nloading:0\r\nrdb_last_bgsave_status:err\r\naof_enabled:0\r\n\
            aof_last_write_status:err\r\n# Replication\r\nmaster_link_status:down\r\n\
            master_link_down_since_seconds:-1\r\n";
        let expected = Info {
            version: Some("7.0.15".to_owned()),
            used_memory: Some(1000),
            max_memory: Some(0),
            policy: Some("noeviction".to_owned()),
            uptime: Some(Duration::from_secs(90)),
            master_link_is_up: Some(false),
            snapshot_is_good: Some(false),
            ..Info::default()
        };
        assert_eq!(parse(text), expected);
        assert_eq!(parse("not a line of INFO"), Info::default());
    }

    #[test]
    fn a_url_that_is_none_is_not_shown() {
        let deadline = Deadline::after(Duration::from_secs(60));
        for url in ["http://user:geheim@h/", "geheim", "redis://:geheim@h:x/", ""] {
            let error = Redis::connect(&Secret::new(url), deadline).map(|_| ()).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(matches!(error, Error::Settings(_)) && !shown.contains("geheim"), "{shown}");
        }
    }
}
