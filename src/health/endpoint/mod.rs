//! The answers over HTTP, for load balancers, Kubernetes and Prometheus.
//!
//! Three addresses, which are read only; nothing can be changed through them. `route.rs` decides what a request may have,
//! `server.rs` speaks HTTP (by hyper) and bounds everything that a stranger could make grow: connections, headers, time. What is
//! asked for often is answered from the last report, and at any time one report of a profile is being made at most.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::format::Report;
use super::kind::Profile;

mod route;
mod server;

pub(crate) use route::Policy;
pub(crate) use server::{Question, Questions, serve};

/// Makes the questions, and what answers them: one after the other, with a report that is younger than `age` if there is one.
///
/// The second half must run in a thread of its own until the first is dropped.
pub(crate) fn answering(
    profile: Profile,
    age: Duration,
    ask: &(dyn Fn(Profile) -> anyhow::Result<Report> + Sync),
) -> (std::sync::mpsc::Sender<Question>, impl FnOnce() + Send + '_) {
    let (questions, asked) = channel();
    (questions, move || answer(&asked, profile, age, ask))
}

fn answer(
    asked: &Receiver<oneshot::Sender<Option<Arc<Report>>>>,
    profile: Profile,
    age: Duration,
    ask: &dyn Fn(Profile) -> anyhow::Result<Report>,
) {
    let mut last: Option<(Instant, Arc<Report>)> = None;
    while let Ok(reply) = asked.recv() {
        if last.as_ref().is_none_or(|(at, _)| at.elapsed() > age) {
            last = match ask(profile) {
                Ok(report) => Some((Instant::now(), Arc::new(report))),
                Err(error) => {
                    tracing::error!("nothing could be asked: {}", super::check::one_line(&error));
                    None
                }
            };
        }
        // Whoever asked may have gone.
        reply.send(last.as_ref().map(|(_, report)| Arc::clone(report))).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::format::testing::report;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn a_flood_of_questions_causes_one_check() {
        let times = AtomicU32::new(0);
        let ask = |_| {
            times.fetch_add(1, Ordering::SeqCst);
            Ok(report())
        };
        let (questions, work) = answering(Profile::Ready, Duration::from_secs(60), &ask);
        let replies: Vec<_> = (0..100).map(|_| oneshot::channel()).collect();
        let (senders, receivers): (Vec<_>, Vec<_>) = replies.into_iter().unzip();
        for sender in senders {
            questions.send(sender).unwrap();
        }
        drop(questions);
        work();
        assert!(receivers.into_iter().all(|reply| reply.blocking_recv().unwrap().is_some()));
        assert_eq!(times.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn what_cannot_be_asked_is_asked_again() {
        let times = AtomicU32::new(0);
        let ask = |_| match times.fetch_add(1, Ordering::SeqCst) {
            0 => Err(anyhow::anyhow!("no")),
            _ => Ok(report()),
        };
        let (questions, work) = answering(Profile::Ready, Duration::ZERO, &ask);
        let (first, second) = (oneshot::channel(), oneshot::channel());
        questions.send(first.0).unwrap();
        questions.send(second.0).unwrap();
        drop(questions);
        work();
        assert!(first.1.blocking_recv().unwrap().is_none());
        assert!(second.1.blocking_recv().unwrap().is_some());
    }
}
