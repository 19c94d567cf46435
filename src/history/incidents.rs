//! What is remembered for notifications: incidents, silences, and the messages that are still to be delivered.
//!
//! `notify/` decides what goes in here and what is done with it.

use super::Error;
use super::store::Store;
use super::value::Row;
use crate::clock::Moment;

/// Something that is not well, from when it was seen first until it is well again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Incident {
    pub(crate) id: String,
    pub(crate) key: Key,
    pub(crate) severity: String,
    /// For people, on one line.
    pub(crate) what: String,
    /// Since when it has not been well, as far as that is known.
    pub(crate) since: Moment,
    pub(crate) opened_at: Moment,
    /// The channels that were told; none if nobody was yet.
    pub(crate) announced: Option<Vec<String>>,
}

/// What an incident is about. There is one incident at a time for each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// As the history has it.
    pub(crate) command: String,
    /// Empty where a run has none.
    pub(crate) database: String,
    /// The name of a check; empty for a run.
    pub(crate) subject: String,
    pub(crate) kind: Kind,
}

/// How something is not well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// It ran, and failed or found something.
    Failed,
    /// It did not run when it should have.
    Late,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Failed => "failed",
            Kind::Late => "late",
        }
    }
}

/// A time in which nobody is told of anything.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Silence {
    /// That of the run which began it.
    pub(crate) id: String,
    pub(crate) begun_at: Moment,
    pub(crate) until: Moment,
    pub(crate) why: String,
    pub(crate) who: String,
}

impl Silence {
    /// Is it on at this moment?
    pub(crate) fn is_on(&self, now: Moment) -> bool {
        self.begun_at <= now && now < self.until
    }
}

/// A message that waits for its delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) id: String,
    /// Its name in the configuration.
    pub(crate) channel: String,
    /// JSON.
    pub(crate) body: String,
    pub(crate) queued_at: Moment,
    /// How often it was tried in vain.
    pub(crate) attempts: i64,
    /// Why the last attempt failed.
    pub(crate) error: Option<String>,
}

impl Store {
    /// Returns the incidents that are open, oldest first.
    pub(crate) fn incidents(&mut self) -> Result<Vec<Incident>, Error> {
        let sql = "SELECT id, command, database, subject, kind, severity, what, since, opened_at, announced \
            FROM incident ORDER BY opened_at, id";
        self.tables.query(sql, &[])?.into_iter().map(incident).collect()
    }

    /// Writes an incident, in place of one with the same key.
    pub(crate) fn put_incident(&mut self, incident: &Incident) -> Result<(), Error> {
        let sql = "INSERT INTO incident \
            (id, command, database, subject, kind, severity, what, since, opened_at, announced) \
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
            ON CONFLICT (command, database, subject, kind) DO UPDATE SET \
            severity = excluded.severity, what = excluded.what, announced = excluded.announced";
        let Incident { id, key, severity, what, since, opened_at, announced } = incident;
        let announced = announced.as_ref().map(|channels| serde_json::json!(channels).to_string());
        let values = [
            id.as_str().into(),
            key.command.as_str().into(),
            key.database.as_str().into(),
            key.subject.as_str().into(),
            key.kind.as_str().into(),
            severity.as_str().into(),
            what.as_str().into(),
            (*since).into(),
            (*opened_at).into(),
            announced.as_deref().into(),
        ];
        self.tables.execute(sql, &values).map(drop)
    }

    /// Removes an incident that is over.
    pub(crate) fn remove_incident(&mut self, id: &str) -> Result<(), Error> {
        self.tables.execute("DELETE FROM incident WHERE id = ?1", &[id.into()]).map(drop)
    }

    /// Returns all silences that are remembered, oldest first.
    pub(crate) fn silences(&mut self) -> Result<Vec<Silence>, Error> {
        let sql = "SELECT id, begun_at, until, why, who FROM silence ORDER BY begun_at, id";
        let silence = |mut row: Row| {
            Ok(Silence {
                id: row.text()?,
                begun_at: row.moment()?,
                until: row.moment()?,
                why: row.text()?,
                who: row.text()?,
            })
        };
        self.tables.query(sql, &[])?.into_iter().map(silence).collect()
    }

    /// Notes a silence.
    pub(crate) fn begin_silence(&mut self, silence: &Silence) -> Result<(), Error> {
        let sql = "INSERT INTO silence (id, begun_at, until, why, who) VALUES (?1, ?2, ?3, ?4, ?5)";
        let Silence { id, begun_at, until, why, who } = silence;
        let values = [
            id.as_str().into(),
            (*begun_at).into(),
            (*until).into(),
            why.as_str().into(),
            who.as_str().into(),
        ];
        self.tables.execute(sql, &values).map(drop)
    }

    /// Ends all silences that are on, and returns how many there were.
    pub(crate) fn end_silences(&mut self, now: Moment) -> Result<u64, Error> {
        let sql = "UPDATE silence SET until = ?1 WHERE begun_at <= ?1 AND until > ?1";
        self.tables.execute(sql, &[now.into()])
    }

    /// Returns the messages that wait, oldest first.
    pub(crate) fn messages(&mut self) -> Result<Vec<Waiting>, Error> {
        let sql = "SELECT id, channel, body, queued_at, attempts, error FROM message ORDER BY queued_at, id";
        let message = |mut row: Row| {
            Ok(Waiting {
                id: row.text()?,
                channel: row.text()?,
                body: row.text()?,
                queued_at: row.moment()?,
                attempts: row.number()?,
                error: row.maybe_text()?,
            })
        };
        self.tables.query(sql, &[])?.into_iter().map(message).collect()
    }

    /// Adds a message, unless it waits already.
    pub(crate) fn put_message(&mut self, message: &Waiting) -> Result<(), Error> {
        let sql = "INSERT INTO message (id, channel, body, queued_at, attempts) \
            VALUES (?1, ?2, ?3, ?4, 0) ON CONFLICT DO NOTHING";
        let Waiting { id, channel, body, queued_at, .. } = message;
        let values = [
            id.as_str().into(),
            channel.as_str().into(),
            body.as_str().into(),
            (*queued_at).into(),
        ];
        self.tables.execute(sql, &values).map(drop)
    }

    /// Claims a message for this run; false if it is gone, or another run has claimed it after `stale`.
    pub(crate) fn claim_message(
        &mut self,
        id: &str,
        now: Moment,
        stale: Moment,
    ) -> Result<bool, Error> {
        let sql = "UPDATE message SET claimed_at = ?2 WHERE id = ?1 AND (claimed_at IS NULL OR claimed_at < ?3)";
        Ok(self.tables.execute(sql, &[id.into(), now.into(), stale.into()])? == 1)
    }

    /// Gives a claimed message back, with the reason why it was not delivered.
    pub(crate) fn return_message(&mut self, id: &str, error: &str) -> Result<(), Error> {
        let sql = "UPDATE message SET claimed_at = NULL, attempts = attempts + 1, error = ?2 WHERE id = ?1";
        self.tables.execute(sql, &[id.into(), error.into()]).map(drop)
    }

    /// Removes a message that was delivered, or never will be.
    pub(crate) fn remove_message(&mut self, id: &str) -> Result<(), Error> {
        self.tables.execute("DELETE FROM message WHERE id = ?1", &[id.into()]).map(drop)
    }
}

fn incident(mut row: Row) -> Result<Incident, Error> {
    Ok(Incident {
        id: row.text()?,
        key: Key {
            command: row.text()?,
            database: row.text()?,
            subject: row.text()?,
            kind: if row.text()? == Kind::Late.as_str() { Kind::Late } else { Kind::Failed },
        },
        severity: row.text()?,
        what: row.text()?,
        since: row.moment()?,
        opened_at: row.moment()?,
        announced: row.maybe_text()?.map(|text| serde_json::from_str(&text).unwrap_or_default()),
    })
}
