//! What waits in the queues of Dramatiq, and who works on it, in a RabbitMQ.
//!
//! Its management API is asked, over HTTP. AMQP's passive `queue.declare` would need no plugin, but knows nothing of what is
//! in flight, and a client for it would be another library or another protocol here. The user needs the tag `monitoring`,
//! or `management` and access to the virtual host; nothing is declared and no message is touched.

use bytes::Bytes;

use super::dramatiq::Queue;
use super::{Deadline, Error};
use crate::http::{self, Method};
use crate::secret::Secret;
use crate::stop::Stop;

/// The figures that are asked for. Without naming them the answer would list every consumer.
const COLUMNS: &str = "messages_ready,messages_unacknowledged,consumers";

/// What the API says of a queue. One that was just made, or whose node is down, has no figures.
#[derive(Debug)]
struct Figures {
    ready: Option<u64>,
    unacknowledged: Option<u64>,
    consumers: Option<u64>,
}

/// Where the management API is.
#[derive(Clone, Debug)]
pub(crate) struct Broker {
    /// With user and password, and without a path.
    url: Secret,
    /// Host and port, for messages.
    at: String,
    vhost: String,
}

impl Broker {
    /// Understands `http://user:password@host:15672/vhost`. The port is RabbitMQ's own unless stated, the virtual host `/`.
    pub(crate) fn at(url: &Secret) -> Result<Broker, Error> {
        let like = "http://user:password@host:15672/vhost";
        let wrong = || Error::Settings(format!("the URL of the management API is not like {like}"));
        let (scheme, rest) = url.reveal().split_once("://").ok_or_else(wrong)?;
        let default = match scheme {
            "http" => 15672,
            "https" => 15671,
            "amqp" | "amqps" => {
                let message = format!("AMQP is not spoken here: state the management API, {like}");
                return Err(Error::Settings(message));
            }
            _ => return Err(wrong()),
        };
        let (authority, vhost) = rest.split_once('/').unwrap_or((rest, ""));
        let (account, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let stated = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
        let at = if stated.is_some() { host.to_owned() } else { format!("{host}:{default}") };
        if host.is_empty() || host.contains(['?', '#', ' ']) || vhost.contains(['/', '?', '#']) {
            return Err(wrong());
        }
        let account = if account.is_empty() { String::new() } else { format!("{account}@") };
        let vhost = decode(vhost).ok_or_else(wrong)?;
        Ok(Broker {
            url: Secret::new(format!("{scheme}://{account}{at}")),
            at,
            vhost: if vhost.is_empty() { "/".to_owned() } else { vhost },
        })
    }
}

/// Looks at a queue and at those that Dramatiq makes beside it.
pub(crate) fn look(
    broker: &Broker,
    queue: &str,
    deadline: &Deadline,
    stop: &Stop,
) -> Result<Queue, Error> {
    let Some(work) = ask(broker, queue, deadline, stop)? else {
        let reason = format!("there is no queue `{queue}` in the virtual host `{}`", broker.vhost);
        return Err(Error::Refused { at: broker.at.clone(), reason });
    };
    let beside = |suffix: &str| -> Result<u64, Error> {
        let found = ask(broker, &format!("{queue}{suffix}"), deadline, stop)?;
        let Some(found) = found else { return Ok(0) };
        let ready = known(broker, queue, found.ready)?;
        Ok(ready + known(broker, queue, found.unacknowledged)?)
    };
    Ok(Queue {
        ready: known(broker, queue, work.ready)?,
        in_flight: known(broker, queue, work.unacknowledged)?,
        delayed: beside(".DQ")?,
        dead: beside(".XQ")?,
        oldest_dead: None,
        workers: known(broker, queue, work.consumers)?,
    })
}

fn known(broker: &Broker, queue: &str, figure: Option<u64>) -> Result<u64, Error> {
    figure.ok_or_else(|| {
        let reason = format!("no figures of the queue `{queue}`: it is new, or its node is down");
        Error::Answer { at: broker.at.clone(), reason }
    })
}

/// Returns the figures of a queue; `None` if there is none of that name.
fn ask(
    broker: &Broker,
    queue: &str,
    deadline: &Deadline,
    stop: &Stop,
) -> Result<Option<Figures>, Error> {
    let path = format!("/api/queues/{}/{}?columns={COLUMNS}", encode(&broker.vhost), encode(queue));
    let url = Secret::new(format!("{}{path}", broker.url.reveal()));
    let timeout = deadline.left(&broker.at)?;
    let (method, headers, body) = (Method::GET, &[], Bytes::new());
    let answer = http::send(&http::Request { method, url: &url, headers, body, timeout, stop })?;
    let at = broker.at.clone();
    match answer.status {
        200 => {
            let reason = "it is not the management API of a RabbitMQ".to_owned();
            let answer: serde_json::Value =
                serde_json::from_slice(&answer.body).map_err(|_| Error::Answer { at, reason })?;
            let figure = |name: &str| answer.get(name).and_then(serde_json::Value::as_u64);
            Ok(Some(Figures {
                ready: figure("messages_ready"),
                unacknowledged: figure("messages_unacknowledged"),
                consumers: figure("consumers"),
            }))
        }
        404 => Ok(None),
        401 | 403 => {
            let reason = format!(
                "the user has no access to the virtual host `{}`, or the password is wrong",
                broker.vhost
            );
            Err(Error::Refused { at, reason })
        }
        status => {
            let reason = format!("HTTP status {status} from the management API");
            Err(Error::Answer { at, reason })
        }
    }
}

/// Encodes a part of a path.
fn encode(part: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let one = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    part.bytes().map(one).collect()
}

/// Decodes a part of a path.
fn decode(part: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = part.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_url_says_where_and_which_virtual_host() {
        let at = |url: &str| {
            let broker = Broker::at(&Secret::new(url)).unwrap();
            (broker.url.reveal().to_owned(), broker.at, broker.vhost)
        };
        let check = |url: &str, expected: (&str, &str, &str)| {
            let (base, place, vhost) = at(url);
            assert_eq!((&*base, &*place, &*vhost), expected, "{url}");
        };
        check("http://rabbit", ("http://rabbit:15672", "rabbit:15672", "/"));
        check("http://u:p@rabbit/", ("http://u:p@rabbit:15672", "rabbit:15672", "/"));
        check("https://u:p@rabbit/%2F", ("https://u:p@rabbit:15671", "rabbit:15671", "/"));
        check("https://rabbit:443/my%20app", ("https://rabbit:443", "rabbit:443", "my app"));
        check("http://[::1]:80/x", ("http://[::1]:80", "[::1]:80", "x"));
        check("http://[::1]/x", ("http://[::1]:15672", "[::1]:15672", "x"));
        for url in [
            "",
            "rabbit",
            "amqp://u:geheim@h/",
            "ftp://h",
            "http://",
            "http://h/a/b",
            "http://h/%x",
        ] {
            let error = Broker::at(&Secret::new(url)).unwrap_err();
            assert!(matches!(&error, Error::Settings(text) if !text.contains("geheim")), "{url}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in any::<String>()) {
            prop_assert_eq!(decode(&encode(&text)), Some(text));
        }

        #[test]
        fn never_panics(text in any::<String>()) {
            Broker::at(&Secret::new(format!("http://{text}"))).ok();
            decode(&text);
        }
    }

    #[test]
    fn the_default_virtual_host_is_a_slash() {
        assert_eq!(
            [encode("/"), encode("default.XQ"), encode("ä b")],
            ["%2F", "default.XQ", "%C3%A4%20b"]
        );
    }
}
