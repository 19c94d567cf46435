//! What a session of a run asks the server for before a statement, so that the application has most of it.

use crate::db::{Connection, Error};
use crate::maintain::{Home, Server};

/// How often a careful VACUUM or ANALYZE rests: as autovacuum does.
const CAREFUL_DELAY: &str = "2ms";

/// A session of a worker, and what it may ask for.
pub(super) struct Session {
    pub(super) connection: Connection,
    /// The cores of the server, if it is on this host.
    cores: Option<usize>,
    /// How many processes the server itself would let help with one statement.
    most: usize,
    asked: Option<Asked>,
}

/// What was asked for last.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Asked {
    helpers: usize,
    is_careful: bool,
}

impl Session {
    /// Takes a session that is connected.
    pub(super) fn of(mut connection: Connection, server: &Server) -> Result<Session, Error> {
        let sql = "SELECT current_setting('max_parallel_maintenance_workers')::int4";
        let row = connection.query_one(sql, &[]);
        let row = row.map_err(|e| Error::query("ask how many processes help", e))?;
        let most = usize::try_from(row.get::<_, i32>(0)).unwrap_or_default();
        let cores = match server.home {
            Home::Here | Home::HereSomewhere => std::thread::available_parallelism().ok(),
            Home::Elsewhere => None,
        };
        Ok(Session { connection, cores: cores.map(usize::from), most, asked: None })
    }

    /// Asks for what fits the statements that are at work now, this one included.
    pub(super) fn pace(&mut self, n_working: usize, is_careful: bool) -> Result<(), Error> {
        let asked =
            Asked { helpers: helpers(self.cores, n_working, self.most, is_careful), is_careful };
        if self.asked == Some(asked) {
            return Ok(());
        }
        let mut sql = format!("SET max_parallel_maintenance_workers = {}", asked.helpers);
        if is_careful {
            sql += &format!("; SET vacuum_cost_delay = '{CAREFUL_DELAY}'");
        }
        let result = self.connection.batch_execute(&sql);
        result.map_err(|e| Error::query("go slower", e))?;
        self.asked = Some(asked);
        Ok(())
    }
}

/// Returns how many processes may help with one statement: no more than there are cores are at work together.
fn helpers(cores: Option<usize>, n_working: usize, most: usize, is_careful: bool) -> usize {
    match cores {
        _ if is_careful => 0,
        None => most,
        Some(cores) => (cores / n_working.max(1)).saturating_sub(1).min(most),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_processes_than_cores_are_at_work() {
        assert_eq!(helpers(Some(2), 1, 2, false), 1);
        assert_eq!(helpers(Some(2), 2, 2, false), 0);
        assert_eq!(helpers(Some(16), 2, 2, false), 2);
        assert_eq!(helpers(Some(1), 1, 2, false), 0);
        assert_eq!((helpers(None, 2, 2, false), helpers(Some(16), 1, 2, true)), (2, 0));
        for cores in 1..20 {
            for n in 1..=cores {
                assert!(n * (1 + helpers(Some(cores), n, 8, false)) <= cores);
            }
        }
    }
}
