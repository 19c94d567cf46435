//! `queue`: is the work of Dramatiq's queues done, and by whom?

use super::no_answer;
use crate::clock::Moment;
use crate::config::health::{Broker as Configured, Queue as Wanted};
use crate::environment::Environment;
use crate::health::check::Give;
use crate::health::{Check, Inquiry, Outcome, Reading, Unit, kind};
use crate::network::dramatiq::{self, Queue};
use crate::network::rabbitmq::{self, Broker};
use crate::network::redis::Redis;
use crate::network::{Deadline, Error};
use crate::secret::Secret;
use crate::stop::Stop;
use crate::text;

/// Makes the inquiry for all queues of one entry: one check for each.
pub(super) fn inquiry(wanted: &Wanted, environment: &Environment, now: Moment) -> Option<Inquiry> {
    let kind = kind::find("queue")?;
    let wanted = wanted.clone();
    let url = wanted.url.known(environment);
    let check = |queue: &String| Check::new(kind, &wanted.instance(queue), &wanted.settings);
    let checks = wanted.queues.iter().map(check).collect();
    Some(Inquiry::new(checks, move |checks, stop, give| {
        let url = url.read()?;
        ask(&wanted, &url, now, checks, stop, give);
        Ok(())
    }))
}

fn ask(wanted: &Wanted, url: &Secret, now: Moment, checks: &[Check], stop: &Stop, give: &Give<'_>) {
    let Some(limit) = checks.iter().map(|check| check.timeout).max() else { return };
    let deadline = Deadline::after(limit);
    let mut broker = match open(wanted, url, deadline) {
        Ok(broker) => broker,
        Err(error) => return checks.iter().for_each(|check| give(check, Ok(no_answer(&error)))),
    };
    for queue in &wanted.queues {
        let name = format!("queue/{}", wanted.instance(queue));
        // Not every check may be wanted this time.
        let Some(check) = checks.iter().find(|check| check.name == name) else { continue };
        let seen = match &mut broker {
            Open::Redis(redis, namespace) => dramatiq::look(redis, namespace, queue, now),
            Open::RabbitMq(broker) => rabbitmq::look(broker, queue, &deadline, stop),
        };
        give(
            check,
            Ok(seen.map_or_else(
                |error| no_answer(&error),
                |seen| judge(check, queue, &seen, wanted, now),
            )),
        );
    }
}

enum Open {
    Redis(Redis, String),
    RabbitMq(Broker),
}

fn open(wanted: &Wanted, url: &Secret, deadline: Deadline) -> Result<Open, Error> {
    match &wanted.broker {
        Configured::Redis { namespace } => {
            Redis::connect(url, deadline).map(|redis| Open::Redis(redis, namespace.clone()))
        }
        Configured::RabbitMq => Broker::at(url).map(Open::RabbitMq),
    }
}

/// Judges a queue: by what is ready, what was given up, and whether anybody works.
#[expect(clippy::cast_precision_loss, reason = "no queue has 2^52 messages")]
fn judge(check: &Check, queue: &str, seen: &Queue, wanted: &Wanted, now: Moment) -> Reading {
    let Queue { ready, in_flight, delayed, dead, oldest_dead, workers } = seen;
    let counted = text::count;
    let mut message = format!(
        "`{queue}`: {} ready, {} in flight, {} delayed, {}",
        counted(*ready),
        counted(*in_flight),
        counted(*delayed),
        text::counted(*workers, "worker"),
    );
    let mut worst = Outcome::Ok;
    if *workers < u64::from(wanted.min_workers) {
        let least = wanted.min_workers;
        message.push_str(&if least == 1 {
            "; nobody works".to_owned()
        } else {
            format!("; fewer than {least}")
        });
        worst = Outcome::Critical;
    }
    if *dead > u64::from(wanted.max_dead) {
        message.push_str(&format!("; {}", text::counted(*dead, "dead letter")));
        if let Some(oldest) = oldest_dead {
            message
                .push_str(&format!(", the oldest given up {} ago", text::duration(now - *oldest)));
        }
        worst = worst.max(Outcome::Warning);
    }
    let reading = check.judged(*ready as f64, message).at_least(worst);
    let figures =
        [("in_flight", in_flight), ("delayed", delayed), ("dead", dead), ("workers", workers)];
    figures
        .into_iter()
        .fold(reading, |reading, (name, figure)| reading.more(name, *figure as f64, Unit::Count))
}
