//! What waits in the queues of Dramatiq, and who works on it, in a Redis.
//!
//! Names and meanings are those of Dramatiq's own `dispatch.lua` (1.x and 2.x): `NS:Q` is the list of what is ready,
//! `NS:Q.msgs` the messages that are ready or being worked on, `NS:Q.DQ.msgs` those that wait for their time, `NS:Q.XQ` the
//! dead letters by when they died, and `NS:__heartbeats__` who was last heard of when, in milliseconds. Dramatiq's own
//! counting is not used, because it writes.

use super::Error;
use super::redis::Redis;
use crate::clock::Moment;

/// How long after its last sign of life a worker counts as alive: Dramatiq's own measure.
const HEARTBEAT_TIMEOUT: i64 = 60_000;

/// One queue, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Queue {
    /// Wait for a worker.
    pub(crate) ready: u64,
    /// Are being worked on, or were fetched to be.
    pub(crate) in_flight: u64,
    /// Wait for their time.
    pub(crate) delayed: u64,
    /// Were given up. Dramatiq removes them after seven days.
    pub(crate) dead: u64,
    /// When the oldest of them was given up, where the broker knows.
    pub(crate) oldest_dead: Option<Moment>,
    /// Who works. In a Redis they are counted for all queues of the namespace, and who only sends messages counts for
    /// the minute after each.
    pub(crate) workers: u64,
}

/// The answers to what [`look`] asks, in its order.
type Answers = (u64, u64, u64, u64, Vec<(String, f64)>, u64);

/// Looks at a queue, which is empty if there is none of that name: Dramatiq makes its keys with the first message.
pub(crate) fn look(
    redis: &mut Redis,
    namespace: &str,
    queue: &str,
    now: Moment,
) -> Result<Queue, Error> {
    let key = |suffix: &str| format!("{namespace}:{queue}{suffix}");
    let alive = now.timestamp_millis() - HEARTBEAT_TIMEOUT;
    let mut questions = redis::pipe();
    questions.cmd("LLEN").arg(key(""));
    questions.cmd("HLEN").arg(key(".msgs"));
    questions.cmd("HLEN").arg(key(".DQ.msgs"));
    questions.cmd("ZCARD").arg(key(".XQ"));
    questions.cmd("ZRANGE").arg(key(".XQ")).arg(0).arg(0).arg("WITHSCORES");
    questions.cmd("ZCOUNT").arg(format!("{namespace}:__heartbeats__")).arg(alive).arg("+inf");
    let (ready, all, delayed, dead, oldest, workers): Answers = redis.ask(&questions)?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "milliseconds since 1970, written as a float"
    )]
    let died = oldest.first().and_then(|(_, score)| Moment::from_timestamp_millis(*score as i64));
    // The answers are not of one instant: a message may have been fetched between the first two.
    let in_flight = all.saturating_sub(ready);
    Ok(Queue { ready, in_flight, delayed, dead, oldest_dead: died, workers })
}
