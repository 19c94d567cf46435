//! The moment that is backed up: one exported snapshot, shared by pg_dump and all workers.
//!
//! The session settings are those of pg_dump (`setup_connection`), because the rows must read as if
//! pg_dump had copied them; time zone and `bytea_output`, which pg_dump leaves to the database's own settings,
//! are pinned as well, so that equal content has equal text and an equal digest anywhere.

use chrono::DateTime;
use postgres::Client;

use crate::clock::Moment;
use crate::db::{self, Connection, ServerVersion, Target};
use crate::stop::Stop;

/// A transaction that keeps its snapshot exported until it is dropped.
pub(crate) struct Snapshot {
    pub(crate) connection: Connection,
    /// Its name, for `SET TRANSACTION SNAPSHOT` and `pg_dump --snapshot`.
    pub(crate) name: String,
    /// When it was taken, by the server's clock.
    pub(crate) taken_at: Moment,
    pub(crate) server_version: ServerVersion,
    /// Is the server a standby?
    pub(crate) standby: bool,
    /// The database's own name.
    pub(crate) database: String,
    /// The encoding in which everything is dumped.
    pub(crate) encoding: &'static str,
}

impl Snapshot {
    /// Connects and takes a snapshot.
    pub(crate) fn take(target: &Target, stop: &Stop) -> Result<Snapshot, db::Error> {
        let mut connection = target.connect("opsctl backup", stop)?;
        let server_version = connection.server_version()?;
        let client = connection.client();
        let what = "take a snapshot";
        let begun = begin(client, server_version);
        begun.map_err(|e| db::Error::query(what, e))?;
        let sql = "SELECT pg_export_snapshot(), extract(epoch FROM clock_timestamp())::float8, \
                   pg_is_in_recovery(), current_database()::text, \
                   (SELECT pg_encoding_to_char(encoding)::text FROM pg_catalog.pg_database WHERE datname = current_database())";
        let row = client.query_one(sql, &[]).map_err(|e| db::Error::query(what, e))?;
        #[expect(clippy::cast_possible_truncation, reason = "microseconds of our time fit")]
        let micros = (row.get::<_, f64>(1) * 1e6) as i64;
        // SQL_ASCII means that the server does not know the encoding: its bytes are passed on as they are.
        let encoding = if row.get::<_, &str>(4) == "SQL_ASCII" { "SQL_ASCII" } else { "UTF8" };
        Ok(Snapshot {
            name: row.get(0),
            taken_at: DateTime::from_timestamp_micros(micros).unwrap_or_default(),
            standby: row.get(2),
            database: row.get(3),
            server_version,
            encoding,
            connection,
        })
    }

    /// Returns what other connections need to see the same.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket {
            target: self.connection.target().clone(),
            name: self.name.clone(),
            encoding: self.encoding,
            server_version: self.server_version,
        }
    }
}

/// What another connection needs to see the same snapshot; good as long as the snapshot lives.
pub(crate) struct Ticket {
    /// The very server that answered: a list of hosts may lead elsewhere the next time.
    target: Target,
    name: String,
    encoding: &'static str,
    server_version: ServerVersion,
}

impl Ticket {
    /// Opens a connection whose transaction sees the snapshot.
    pub(crate) fn join(&self, stop: &Stop) -> Result<Connection, db::Error> {
        let mut connection = self.target.connect("opsctl backup", stop)?;
        let client = connection.client();
        let name = self.name.replace('\'', "''");
        begin(client, self.server_version)
            .and_then(|()| client.batch_execute(&format!("SET TRANSACTION SNAPSHOT '{name}'")))
            .and_then(|()| {
                client.batch_execute(&format!("SET client_encoding TO '{}'", self.encoding))
            })
            .map_err(|e| db::Error::query("join the snapshot", e))?;
        Ok(connection)
    }
}

/// Sets the session up as pg_dump does and begins the transaction.
fn begin(client: &mut Client, version: ServerVersion) -> Result<(), postgres::Error> {
    let mut sql = String::from(
        "SELECT pg_catalog.set_config('search_path', '', false); \
         SET DateStyle = ISO; SET IntervalStyle = postgres; SET extra_float_digits = 3; \
         SET synchronize_seqscans = off; SET statement_timeout = 0; SET lock_timeout = 0; \
         SET idle_in_transaction_session_timeout = 0; SET row_security = off; SET bytea_output = hex; \
         SET TimeZone = 'UTC'; SET xmloption = content; SET quote_all_identifiers = off;",
    );
    if version.major() >= 17 {
        sql.push_str("SET transaction_timeout = 0;");
    }
    client.batch_execute(&sql)?;
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
}
