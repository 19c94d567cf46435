//! What leaves the server as WAL: to standbys, through slots, into the archive.

use anyhow::Context as _;

use super::session::{Row, Server};
use super::{Question, size, span};
use crate::health::{Check, Outcome, Reading, Unit};

/// A standby that was just connected catches up with so many bytes in a moment: a segment of WAL.
const SOON: f64 = 16_777_216.0;
/// A segment may wait so many seconds for the archiver, which may be at work on those before it.
const PATIENCE: f64 = 60.0;

pub(super) const QUESTIONS: &[Question] = &[
    Question {
        kind: "replication-lag",
        ask: |session, server| session.rows(&lag_sql(server)),
        read: lag,
    },
    Question {
        kind: "replication-slots",
        ask: |session, server| session.rows(&slots_sql(server)),
        read: slots,
    },
    Question { kind: "archiver", ask: |session, _| session.rows(ARCHIVER), read: archiver },
];

/// Of a standby: how old what it shows is. When it has replayed all that it received it is as new as its primary, provided
/// that it receives; after a restart it receives the last segment once more, from its beginning.
const STANDBY: &str = "
    SELECT pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn() AS caught_up,
        extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) AS seconds,
        greatest(pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), 0) AS bytes,
        EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') AS receives,
        coalesce(current_setting('primary_conninfo', true), '') <> '' AS streams,
        pg_is_wal_replay_paused() AS paused";

/// Of a primary: how far its standbys are behind, by what each last said; a row without them if there are none. A base backup
/// replays nothing. The lag of one that catches up is that of the little that it has replayed, and says nothing.
const PRIMARY: &str = "
    SELECT pid, application_name, coalesce(client_addr::text, 'local') AS address, state,
        state = 'catchup' AS catches_up, extract(epoch FROM replay_lag) AS seconds,
        greatest(pg_wal_lsn_diff(pg_current_wal_lsn(), coalesce(replay_lsn, sent_lsn)), 0) AS bytes,
        synchronous <> '' AND NOT coalesce(bool_or(sync_state IN ('sync', 'quorum')) OVER (), false) AS commits_wait
    FROM (SELECT current_setting('synchronous_standby_names') AS synchronous) AS wanted
        LEFT JOIN pg_stat_replication ON state <> 'backup'
    ORDER BY 5 DESC, replay_lag DESC NULLS LAST LIMIT 20";

fn lag_sql(server: &Server) -> String {
    if server.is_standby { STANDBY.to_owned() } else { PRIMARY.to_owned() }
}

fn lag(check: &Check, server: &Server, rows: &[Row]) -> anyhow::Result<Reading> {
    if server.is_standby {
        return standby_lag(check, rows.first().context("there is no answer")?);
    }
    let worst = rows.first().context("there is no answer")?;
    if worst.is("commits_wait") {
        let message = "commits wait for a synchronous standby, and none is connected (synchronous_standby_names)";
        return Ok(Reading::new(Outcome::Critical, message));
    }
    if worst.get("pid").is_none() {
        return Ok(check.judged(0.0, "no standby is connected"));
    }
    let line = |row: &Row| {
        let (name, address, state) =
            (row.text("application_name"), row.text("address"), row.text("state"));
        let bytes = size(row.number("bytes")?);
        let behind = if row.is("catches_up") {
            format!("it is catching up, {bytes}")
        } else {
            format!("{}, {bytes}", span(row.number("seconds")?))
        };
        Ok(format!("`{name}` at {address}, {state}: {behind} behind"))
    };
    let lines = rows.iter().map(line).collect::<anyhow::Result<Vec<_>>>()?;
    let most = |column: &str| {
        rows.iter().try_fold(0.0, |most, row| anyhow::Ok(row.number(column)?.max(most)))
    };
    let message = format!(
        "{} connected, the slowest: {}",
        crate::text::counted(rows.len() as u64, "standby connection"),
        lines[0]
    );
    let is_far = worst.is("catches_up") && worst.number("bytes")? > SOON;
    let reading = check.judged(most("seconds")?, message);
    let reading = if is_far { reading.at_least(Outcome::Warning) } else { reading };
    Ok(reading.more("bytes", most("bytes")?, Unit::Bytes).details(lines))
}

fn standby_lag(check: &Check, row: &Row) -> anyhow::Result<Reading> {
    let (receives, caught_up) = (row.is("receives"), row.is("caught_up"));
    let bytes = row.number("bytes")?;
    let age = row.number("seconds")?;
    let seconds = if receives && caught_up { 0.0 } else { age };
    let paused = if row.is("paused") { "; its replay is paused" } else { "" };
    if row.get("seconds").is_none() && !(receives && caught_up) {
        let from = if row.is("streams") && !receives {
            "it receives nothing from its primary; "
        } else {
            ""
        };
        let message = format!(
            "{from}how old what it shows is, nobody knows: it has replayed no transaction since its start{paused}"
        );
        return Ok(Reading::new(Outcome::Unknown, message).more("bytes", bytes, Unit::Bytes));
    }
    let replayed = format!("what it shows is {} old", span(seconds));
    let reading = if row.is("streams") && !receives {
        let message = format!("it receives nothing from its primary; {replayed}{paused}");
        check.judged(seconds, message).at_least(Outcome::Warning)
    } else {
        check.judged(seconds, format!("{replayed}{paused}"))
    };
    Ok(reading.more("bytes", bytes, Unit::Bytes))
}

/// On a standby a slot that is kept in step with its primary's (from 17 on) is read by nobody, as it should be.
fn slots_sql(server: &Server) -> String {
    let here = if server.is_standby { "pg_last_wal_replay_lsn()" } else { "pg_current_wal_lsn()" };
    format!(
        "SELECT slot_name, slot_type, active, coalesce((to_jsonb(s) ->> 'synced')::bool, false) AS synced, wal_status, coalesce(pg_wal_lsn_diff({here}, restart_lsn), 0) AS bytes
        FROM pg_replication_slots AS s WHERE NOT temporary ORDER BY bytes DESC LIMIT 50"
    )
}

fn slots(check: &Check, server: &Server, rows: &[Row]) -> anyhow::Result<Reading> {
    let mut bytes = 0.0_f64;
    let mut worst = (Outcome::Ok, String::new());
    let mut lines = Vec::new();
    for row in rows {
        let held = row.number("bytes")?.max(0.0);
        bytes = bytes.max(held);
        let name = row.text("slot_name");
        let (outcome, what) = match row.text("wal_status") {
            "lost" => {
                (Outcome::Critical, "is lost: whoever reads from it must be set up anew".to_owned())
            }
            "unreserved" => (Outcome::Warning, "is about to be lost".to_owned()),
            _ if !(row.is("active") || server.is_standby && row.is("synced")) => {
                (Outcome::Warning, format!("is read by nobody and holds {} of WAL", size(held)))
            }
            _ => (Outcome::Ok, format!("holds {} of WAL", size(held))),
        };
        let line = format!("{} slot `{name}` {what}", row.text("slot_type"));
        if outcome > worst.0 {
            worst = (outcome, line.clone());
        }
        lines.push(line);
    }
    let message = match (worst.0, rows.len()) {
        (_, 0) => "there is no replication slot".to_owned(),
        (Outcome::Ok, _) => lines[0].clone(),
        _ => worst.1,
    };
    Ok(check.judged(bytes, message).at_least(worst.0).details(lines))
}

/// A command that hangs, or that is not set, does not fail: then segments wait, and the oldest says for how long.
///
/// Where nothing was ever archived, it has failed since the statistics were reset, or since the start with this setting.
const ARCHIVER: &str = "
    SELECT current_setting('archive_mode') AS mode, archived_count, failed_count, last_failed_wal,
        last_failed_time > coalesce(last_archived_time, '-infinity') AS failing,
        extract(epoch FROM clock_timestamp() - coalesce(last_archived_time, greatest(stats_reset, pg_postmaster_start_time()))) AS seconds,
        waiting.ready, waiting.seconds AS waited
    FROM pg_stat_archiver, (
        SELECT count(*) AS ready, extract(epoch FROM clock_timestamp() - min(modification)) AS seconds
        FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'
    ) AS waiting";

fn archiver(check: &Check, server: &Server, rows: &[Row]) -> anyhow::Result<Reading> {
    let row = rows.first().context("there is no answer")?;
    match row.text("mode") {
        "off" => return Ok(check.judged(0.0, "WAL is not archived (archive_mode = off)")),
        "on" if server.is_standby => return Ok(check.judged(0.0, "a standby does not archive")),
        _ => {}
    }
    let (ready, failed) = (row.number("ready")?, row.number("failed_count")?);
    let reading = if row.is("failing") {
        let seconds = row.number("seconds")?.max(1.0);
        let message = format!(
            "archiving `{}` fails; nothing has been archived for {}, {ready} segments wait",
            row.text("last_failed_wal"),
            span(seconds)
        );
        check.judged(seconds, message)
    } else if row.number("waited")? > PATIENCE {
        let seconds = row.number("waited")?;
        let message = format!(
            "archiving does not go on: {ready} segments wait, the oldest for {}; does `archive_command` hang, or is it empty?",
            span(seconds)
        );
        check.judged(seconds, message)
    } else {
        let message =
            format!("{} segments have been archived, {ready} wait", row.text("archived_count"));
        check.judged(0.0, message)
    };
    Ok(reading.more("ready", ready, Unit::Count).more("failed", failed, Unit::Count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Moment;
    use crate::config::CheckSettings;
    use crate::db::ServerVersion;
    use crate::health::kind;

    #[test]
    fn a_slot_that_is_kept_in_step_is_read_by_nobody_on_a_standby_and_that_is_well() {
        let kind = kind::find("replication-slots").unwrap();
        let check = Check::of_database(kind, "members", &CheckSettings::default());
        let cells =
            [("slot_name", "cdc"), ("slot_type", "logical"), ("active", "f"), ("synced", "t")];
        let cells = cells.into_iter().chain([("wal_status", "reserved"), ("bytes", "10")]);
        let row = Row(cells.map(|(name, text)| (name.to_owned(), text.to_owned())).collect());
        let outcome = |is_standby| {
            let server = Server {
                version: ServerVersion(180_000),
                is_standby,
                role: "monitor".to_owned(),
                may_monitor: true,
                skew: 0.0,
                now: Moment::default(),
            };
            slots(&check, &server, std::slice::from_ref(&row)).unwrap().outcome
        };
        assert_eq!(outcome(true), Outcome::Ok);
        // After the promotion somebody has to read it.
        assert_eq!(outcome(false), Outcome::Warning);
    }
}
