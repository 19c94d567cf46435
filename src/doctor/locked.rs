//! Looks at an archive in which whatever is written is locked for years. Nothing is written here: each try would stay as long.

use chrono::TimeDelta;

use super::examine::Asked;
use super::probe::advice;
use super::{Area, Seen};
use crate::clock::Moment;
use crate::db::one_line;
use crate::storage::{self, Object, Shared};
use crate::text::counted;

/// How an object ends that is written last of a segment, and stays.
const LAST: &str = "/manifest.json";

/// Lists, and asks about the newest object that is locked if anything is.
pub(super) fn look(area: Area, storage: &Shared, days: u32, now: Moment, asked: &Asked<'_>) {
    let locked_for = counted(u64::from(days), "day");
    let why = format!("Each try would leave an object that nobody can remove for {locked_for}.");
    let what = "that it can be written was not tried";
    let advice_to_run = "Nothing; whether it can be, the next run of `archive-audit` says.";
    (asked.say)(Seen::note(area, what, why, advice_to_run));
    let place = storage.place();
    match newest(storage) {
        Ok(None) => (asked.say)(Seen::good(area, format!("{place} can be listed, and is empty"))),
        Ok(Some(object)) if is_locked(&object, days, now) => {
            (asked.say)(Seen::good(
                area,
                format!("{place} can be listed, and what it has is locked"),
            ));
        }
        Ok(Some(object)) => {
            let what = format!("`{}` is not locked for {locked_for}", object.key);
            let why = "Whoever has the credentials could remove evidence.";
            let advice = "Object Lock must be on for the bucket, and the credentials need s3:PutObjectRetention and \
                 s3:GetObjectRetention.";
            (asked.say)(Seen::bad(area, what, why, advice));
        }
        Err(error) => {
            let what = format!("what it has cannot be looked at: {}", one_line(&error));
            let advice =
                advice(&error, "look (s3:ListBucket, s3:GetObject, s3:GetObjectRetention)");
            (asked.say)(Seen::bad(area, what, "What cannot be read proves nothing.", advice));
        }
    }
}

/// Returns the newest manifest of any table.
fn newest(storage: &Shared) -> storage::Result<Option<Object>> {
    let mut newest: Option<Object> = None;
    for folder in storage.list_folders("")? {
        let found = storage.list(&format!("{folder}/"))?;
        let manifests = found.into_iter().filter(|object| object.key.as_str().ends_with(LAST));
        let all = newest.into_iter().chain(manifests);
        newest = all.max_by_key(|object| object.modified_at);
    }
    newest.map(|object| storage.head(&object.key)).transpose()
}

/// Is it locked for as long as is left of the days since it was written?
fn is_locked(object: &Object, days: u32, now: Moment) -> bool {
    let until = object.modified_at + TimeDelta::days(i64::from(days)) - TimeDelta::hours(1);
    until <= now || object.locked_until.is_some_and(|at| at >= until)
}
