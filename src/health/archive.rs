//! How far behind is an audit archive: is there a window that is old enough and not in it? Whether what is in it is right, is
//! verified by archive-audit.

use std::time::Duration;

use super::{Check, Inquiry, Outcome, Reading, kind};
use crate::archive::folder::{Folder, Segment};
use crate::archive::window::due_since;
use crate::clock::Moment;
use crate::config::{AuditWindow, Health};
use crate::stop::Stop;
use crate::text;

/// An archive of a table.
pub(crate) struct Asked {
    pub(crate) database: String,
    pub(crate) table: String,
    pub(crate) hot_period: Duration,
    pub(crate) window: AuditWindow,
}

/// Asks for the newest segment; `open` opens the archive, `earlier` tells how many segments there were after the last
/// run that is remembered.
pub(crate) fn inquiry(
    asked: Asked,
    health: &Health,
    now: Moment,
    open: impl Fn(&Stop) -> anyhow::Result<Folder> + Send + Sync + 'static,
    earlier: impl Fn() -> anyhow::Result<Option<u64>> + Send + Sync + 'static,
) -> Inquiry {
    let instance = format!("{}/{}", asked.database, asked.table);
    let check = Check::new(&kind::ARCHIVE, &instance, &health.of_kind(&kind::ARCHIVE));
    let check = Check { database: Some(asked.database.clone()), ..check };
    Inquiry::single(check, move |check, stop| {
        Ok(match open(stop)?.newest()? {
            Some(newest) => reading(check, &asked, &newest, now),
            None => without_segment(check, earlier()?),
        })
    })
}

fn without_segment(check: &Check, earlier: Option<u64>) -> Reading {
    match earlier {
        Some(0) => check.judged(0.0, "no row was old enough yet"),
        Some(n) => {
            let segments = text::counted(n, "segment");
            let message = format!("there is no segment, where a run left {segments}");
            Reading::new(Outcome::Critical, message)
        }
        None => {
            Reading::new(Outcome::Unknown, "nothing was ever archived: run `opsctl archive-audit`")
        }
    }
}

fn reading(check: &Check, asked: &Asked, newest: &Segment, now: Moment) -> Reading {
    let end = match &newest.manifest {
        Ok(manifest) => manifest.window.to,
        Err(why) => {
            let message = format!("the manifest of {} cannot be read: {why}", newest.name);
            return Reading::new(Outcome::Critical, message);
        }
    };
    let due = due_since(end, asked.hot_period, asked.window);
    let late = due.map_or(0.0, |due| now.signed_duration_since(due).as_seconds_f64().max(0.0));
    let mut message = format!("archived until {}", end.format("%Y-%m-%d"));
    if let Some(due) = due
        && late > 0.0
    {
        let since = text::duration(now.signed_duration_since(due));
        message += &format!(", what follows is due since {since}");
    }
    check.judged(late / 86_400.0, message)
}
