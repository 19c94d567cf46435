//! `server-certificate`: is the certificate good that PostgreSQL itself shows, and for how long yet?
//!
//! It is looked at beside the session, with a connection of its own, and verified as far as `sslmode` asks for.

use super::CONNECT;
use crate::clock::Moment;
use crate::config::Health;
use crate::db::Target;
use crate::health::network::tls::judge;
use crate::health::{Check, Inquiry, Outcome, Reading, kind};
use crate::network::Error;

/// Makes the inquiry for a database.
pub(crate) fn inquiry(
    target: &Target,
    database: &str,
    health: &Health,
    now: Moment,
) -> Option<Inquiry> {
    let kind = kind::find("server-certificate")?;
    let check = Check::of_database(kind, database, &health.of_kind(kind));
    let (target, connect) = (target.clone(), format!("{CONNECT}/{database}"));
    Some(Inquiry::single(check, move |check, _| match target.certificates(now, check.timeout) {
        Ok(Some(seen)) => Ok(judge(check, &seen, now)),
        Ok(None) => {
            let message = "connections go through a socket or without TLS: there is no certificate";
            Ok(Reading::new(Outcome::Ok, message))
        }
        // That nobody is there is the news of another check.
        Err(error @ (Error::Unreachable { .. } | Error::Lookup { .. } | Error::Timeout { .. })) => {
            let reading = Reading::new(Outcome::Unknown, error.to_string());
            Ok(Reading { because_of: Some(connect.clone()), ..reading })
        }
        Err(error) => Err(error.into()),
    }))
}
