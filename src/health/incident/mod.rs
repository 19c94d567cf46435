//! The evidence at the start of an incident, taken before somebody changes anything.
//!
//! Everything is gathered at once, each piece by itself: what does not answer is noted, and the rest goes on. The pieces come
//! here as text; the command writes them down.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::check::one_line;
use super::postgres::evidence;
use crate::db::Target;
use crate::stop::{Reason, Stop};

mod host;
mod timeline;

pub(crate) use timeline::{Event, timeline};

/// A piece of evidence.
pub(crate) struct Piece {
    /// Where it lies in the bundle.
    pub(crate) path: String,
    /// Or why there is none.
    pub(crate) content: Result<String, String>,
}

/// Gathers what the databases and the host say, and gives each piece as it comes, until `limit` is over.
///
/// A database that said nothing by then is a piece that is missing.
pub(crate) fn gather(
    databases: Vec<(String, Target)>,
    with_literals: bool,
    limit: Duration,
    stop: &Stop,
    mut take: impl FnMut(Piece),
) {
    let end = Instant::now() + limit;
    let own = Stop::new();
    let (stopped, later) = (own.clone(), stop.clone());
    let _on_stop = later.on_stop(move || stopped.request(Reason::Deadline));
    let (sender, pieces) = channel::<(usize, Option<Piece>)>();
    let mut open: Vec<Option<String>> = Vec::new();
    for (name, target) in databases {
        let (number, sender, stop) = (open.len(), sender.clone(), own.clone());
        let folder = format!("databases/{name}");
        open.push(Some(folder.clone()));
        let work = move || {
            let give = |piece: &str, content: anyhow::Result<String>| {
                let content = content.map_err(|error| one_line(&error));
                let path = format!("{folder}/{piece}.jsonl");
                sender.send((number, Some(Piece { path, content }))).ok();
            };
            if let Err(error) = evidence::gather(&target, with_literals, &stop, &give) {
                let piece = Piece { path: folder.clone(), content: Err(one_line(&error)) };
                sender.send((number, Some(piece))).ok();
            }
            sender.send((number, None)).ok();
        };
        if let Err(error) = std::thread::Builder::new().name("evidence".to_owned()).spawn(work) {
            tracing::warn!("no thread for the evidence of a database: {error}");
        }
    }
    drop(sender);
    for piece in host::pieces() {
        take(piece);
    }
    while open.iter().any(Option::is_some) {
        match pieces.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok((_, Some(piece))) => take(piece),
            Ok((number, None)) => open[number] = None,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    own.request(Reason::Deadline);
    for path in open.into_iter().flatten() {
        let why = format!("the rest was not answered within {} s", limit.as_secs());
        take(Piece { path, content: Err(why) });
    }
}
