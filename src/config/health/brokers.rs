//! `[[health.redis]]` and `[[health.queue]]`: what passes messages on.

use super::{CheckSettings, Given, Reader};
use crate::config::url;
use crate::config::value::{self, quote};
use crate::health::kind;
use crate::secret::Secret;

/// One of `[[health.redis]]`.
#[derive(Clone, Debug)]
pub(crate) struct Redis {
    pub(crate) name: String,
    pub(crate) settings: CheckSettings,
    pub(crate) url: Given,
}

/// One of `[[health.queue]]`: queues of Dramatiq in one broker.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    pub(crate) name: String,
    pub(crate) settings: CheckSettings,
    pub(crate) url: Given,
    pub(crate) broker: Broker,
    /// As Dramatiq calls them, without `.DQ` and `.XQ`; never empty.
    pub(crate) queues: Vec<String>,
    /// How many dead letters are no reason to worry.
    pub(crate) max_dead: u32,
    /// How many workers there must be.
    pub(crate) min_workers: u32,
}

/// What the queues are in.
#[derive(Clone, Debug)]
pub(crate) enum Broker {
    Redis { namespace: String },
    RabbitMq,
}

impl Redis {
    pub(super) fn read(keys: &mut Reader<'_>, name: String, line: usize) -> Option<Redis> {
        let url = broker_url(keys, line, "redis", REDIS);
        let settings = keys.settings(kind::find("redis")?);
        Some(Redis { name, settings, url: url? })
    }
}

impl Queue {
    pub(super) fn read(keys: &mut Reader<'_>, name: String, line: usize) -> Option<Queue> {
        let broker = keys.section.parsed("broker", |text| match text {
            "redis" => Ok(REDIS),
            "rabbitmq" => Ok(RABBITMQ),
            _ => Err(format!("{} is not redis or rabbitmq", quote(text))),
        });
        if keys.section.line_of("broker").is_none() {
            keys.problem(line, "[[health.queue]] needs `broker`");
        }
        let schemes = keys.take("broker", broker, |schemes| schemes[0].to_owned());
        let url = broker_url(keys, line, "queue", schemes.unwrap_or(&[]));
        let namespace = keys.text("namespace").unwrap_or_else(|| "dramatiq".to_owned());
        let named = keys.section.strings("queues", value::parse_text);
        if let Some(named) = named.as_ref().filter(|named| named.value.is_empty()) {
            keys.section.complain("queues", named.line, "names none");
        }
        let queues = keys.take("queues", named, |list| list.join(", "));
        let queues = queues.unwrap_or_else(|| vec![name.clone()]);
        let max_dead = keys.number("max_dead", 0..=u32::MAX).unwrap_or(0);
        let min_workers = keys.number("min_workers", 0..=u32::MAX).unwrap_or(1);
        let settings = keys.settings(kind::find("queue")?);
        let broker = if schemes? == REDIS { Broker::Redis { namespace } } else { Broker::RabbitMq };
        Some(Queue { name, settings, url: url?, broker, queues, max_dead, min_workers })
    }

    /// Returns the instance of the check of a queue: the entry's name, and the queue's where it has another.
    pub(crate) fn instance(&self, queue: &str) -> String {
        if self.queues == [self.name.as_str()] {
            self.name.clone()
        } else {
            format!("{}/{queue}", self.name)
        }
    }
}

/// What a URL may begin with; the name of the broker first.
const REDIS: &[&str] = &["redis", "redis://", "rediss://", "redis+unix://", "unix://"];
const RABBITMQ: &[&str] = &["rabbitmq", "http://", "https://"];

fn broker_url(
    keys: &mut Reader<'_>,
    line: usize,
    kind: &str,
    schemes: &'static [&str],
) -> Option<Given> {
    let parse = |text: &str| {
        let fits = schemes.iter().skip(1).any(|scheme| text.starts_with(scheme));
        if fits || schemes.is_empty() {
            return Ok(Secret::new(text));
        }
        let example = match schemes {
            REDIS => "redis://host:6379/0 or rediss://…",
            _ => "http://user@host:15672/vhost, which is that of the management API",
        };
        Err(format!("is not like {example}"))
    };
    let given = Given::find(keys, "url", url::without_password, parse);
    Given::require(keys, "url", line, kind);
    given
}
